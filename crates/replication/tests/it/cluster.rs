//! Nodes that can be killed and started again from their files.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dag_types::{
    ActivationId, Candidacy, DagId, DatabaseId, Generation, Lineage, Millis, NodeId, ReplicaId,
    StoreId,
};
use replication::link::PeerLink;
use replication::link::grpc::{GrpcLink, GrpcOptions, PeerServer};
use replication::link::memory::MemoryNetwork;
use replication::peer::{KnownPeers, PeerIdentity};
use replication::{
    DigestAt, Event, EventSink, Group, GroupEvent, GroupSpec, GroupStatus, Member, OpenCopy,
    Options, ProposeError, Registry, ServingGate, StartError, Timeouts,
};
use storage::copy_directory::{CopyDirectory, CopyPlace, CopyStart};
use storage::disk::{Disk, RealDisk, SimDisk, SimDiskOptions};
use storage::flusher::{Attached, FlushFault, FlushRules, Flusher};
use storage::identity::NodeRoot;
use storage::log::EntryCache;
use storage::state::StateEngine;
use storage::state::map::MapEngine;
use storage::state::rocks::{SharedResources, StateBudget};
use storage::volume::{Volume, VolumeOptions};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::Endpoint;

use crate::machine::{Values, put, value};

/// The database that most tests use.
pub const DB: DatabaseId = DatabaseId(16);

/// Ends a test that would never end.
const LIMIT: Duration = Duration::from_secs(60);

/// What a cluster stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Maps on simulated disks, and the memory link.
    Simulated,
    /// RocksDB on the real disk, and gRPC over loopback.
    Real,
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < limit, "never: {what}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// A deadline that only a test that failed would reach.
pub fn patience() -> Instant {
    Instant::now() + LIMIT
}

pub fn options() -> Options {
    Options {
        timeouts: Timeouts { heartbeat: 60, election_min: 250, election_max: 500 },
        ..Options::default()
    }
}

pub fn replica(node: u64) -> ReplicaId {
    ReplicaId(100 + node)
}

/// Some nodes and what lies between them.
pub struct Cluster {
    pub network: MemoryNetwork,
    pub nodes: BTreeMap<u64, Node>,
    addresses: Addresses,
    ground: Ground,
    pub options: Options,
    /// The gate of all nodes.
    gate: Option<Arc<dyn ServingGate>>,
    _folder: TempDir,
}

type Addresses = Arc<Mutex<HashMap<NodeId, SocketAddr>>>;

/// A node: its disk, and its life while it has one.
pub struct Node {
    id: u64,
    disk: Arc<dyn Disk>,
    pub sim: Option<SimDisk>,
    engine: Arc<dyn StateEngine>,
    folder: PathBuf,
    pub machines: BTreeMap<DatabaseId, Values>,
    pub life: Option<Life>,
}

/// A node from its start to its end.
pub struct Life {
    pub registry: Registry,
    pub peers: Arc<KnownPeers>,
    pub events: Arc<Mutex<Vec<GroupEvent>>>,
    root: Arc<NodeRoot>,
    volume: Volume,
    cache: Arc<EntryCache>,
    flusher: Flusher,
    copies: BTreeMap<DatabaseId, (Arc<OpenCopy>, Attached)>,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Cluster {
    /// Nodes 1 to `nodes`, without databases.
    pub async fn new(nodes: u64, ground: Ground, options: Options) -> Self {
        Self::with_gate(nodes, ground, options, None).await
    }

    /// The same with a gate that is shared by all nodes.
    pub async fn gated(
        nodes: u64,
        ground: Ground,
        options: Options,
        gate: Arc<dyn ServingGate>,
    ) -> Self {
        Self::with_gate(nodes, ground, options, Some(gate)).await
    }

    async fn with_gate(
        nodes: u64,
        ground: Ground,
        options: Options,
        gate: Option<Arc<dyn ServingGate>>,
    ) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut cluster = Self {
            network: MemoryNetwork::new(),
            nodes: BTreeMap::new(),
            addresses: Addresses::default(),
            ground,
            options,
            gate,
            _folder: folder,
        };
        for id in 1..=nodes {
            let node = cluster.make_node(id);
            cluster.nodes.insert(id, node);
            cluster.start_node(id).await;
        }
        cluster
    }

    /// The same with one database of which node 1 to `voters` hold a voter.
    pub async fn with_database(nodes: u64, voters: u64, ground: Ground) -> Self {
        let mut cluster = Self::new(nodes, ground, options()).await;
        cluster.create_database(DB, nodes, voters).await;
        cluster
    }

    fn make_node(&self, id: u64) -> Node {
        let (disk, sim, engine): (Arc<dyn Disk>, _, Arc<dyn StateEngine>) = match self.ground {
            Ground::Simulated => {
                let sim = SimDisk::new(id, SimDiskOptions::default());
                let disk: Arc<dyn Disk> = Arc::new(sim.clone());
                (disk.clone(), Some(sim), Arc::new(MapEngine::new(disk)))
            }
            Ground::Real => {
                let budget = StateBudget { block_cache_bytes: 16 << 20, ..StateBudget::default() };
                let shared = SharedResources::new(budget).expect("shared resources");
                (Arc::new(RealDisk::new()), None, Arc::new(shared))
            }
        };
        let folder = match self.ground {
            Ground::Simulated => PathBuf::from(format!("/node-{id}")),
            Ground::Real => self._folder.path().join(format!("node-{id}")),
        };
        NodeRoot::format(&*disk, &folder, NodeId(id), StoreId([id as u8; 16])).expect("format");
        Node { id, disk, sim, engine, folder, machines: BTreeMap::new(), life: None }
    }

    /// Starts a node; the copies that it had are opened and started as well.
    pub async fn start_node(&mut self, id: u64) {
        let (link, addresses) = (self.link(id), self.addresses.clone());
        let (network, ground, options) = (self.network.clone(), self.ground, self.options.clone());
        let node = self.nodes.get_mut(&id).expect("a node");
        let boot_id = 1000 * id + 7;
        let root =
            NodeRoot::start(node.disk.clone(), &node.folder, NodeId(id), boot_id).expect("start");
        root.join(DagId([1; 16])).expect("join");
        let peers = Arc::new(KnownPeers::new(identity(&root)));
        for other in 1..=9 {
            let store = StoreId([other as u8; 16]);
            peers.register(NodeId(other), store, dag_types::Boot::default());
        }
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        let sink: EventSink = Arc::new(move |event| sink.lock().unwrap().push(event));
        let registry = match &self.gate {
            None => Registry::new(options, link, peers.clone(), sink),
            Some(gate) => Registry::gated(options, link, peers.clone(), sink, gate.clone()),
        };
        let mut server = None;
        match ground {
            Ground::Simulated => network.listen(NodeId(id), registry.acceptor()),
            Ground::Real => server = Some(serve(NodeId(id), &registry, &addresses).await),
        }
        let clock = std::time::Instant::now();
        let clock = move || Millis(clock.elapsed().as_millis() as u64);
        let volume =
            Volume::start(node.disk.clone(), VolumeOptions::default(), Arc::new(clock)).unwrap();
        let flusher = Flusher::start(FlushRules::for_budget(64 << 20), clock).unwrap();
        node.life = Some(Life {
            registry,
            peers,
            events,
            root: Arc::new(root),
            volume,
            cache: Arc::new(EntryCache::new(EntryCache::BUDGET_BYTES)),
            flusher,
            copies: BTreeMap::new(),
            server,
        });
        let databases: Vec<DatabaseId> = node.machines.keys().copied().collect();
        for database in databases {
            node.open_copy(database, true).await;
        }
    }

    fn link(&self, id: u64) -> Arc<dyn PeerLink> {
        match self.ground {
            Ground::Simulated => Arc::new(self.network.link(NodeId(id))),
            Ground::Real => {
                let addresses = self.addresses.clone();
                let endpoints = Arc::new(move |node| {
                    let address = *addresses.lock().unwrap().get(&node)?;
                    Some(Endpoint::from_shared(format!("http://{address}")).expect("an address"))
                });
                Arc::new(GrpcLink::new(endpoints, GrpcOptions::default()))
            }
        }
    }

    /// Makes a copy on node 1 to `copies`, of which node 1 to `voters` vote; node 1 initialises.
    pub async fn create_database(&mut self, database: DatabaseId, copies: u64, voters: u64) {
        for id in 1..=copies {
            self.node(id).create_copy(database).await;
        }
        let members = (1..=voters).map(|id| (replica(id), Member { node: NodeId(id) })).collect();
        self.group(1, database).initialize(&members).await.expect("initialise");
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node")
    }

    pub fn life(&self, id: u64) -> &Life {
        self.nodes[&id].life.as_ref().expect("a living node")
    }

    pub fn group(&self, id: u64, database: DatabaseId) -> Group {
        self.life(id).registry.get(database).expect("a group")
    }

    pub fn status(&self, id: u64) -> GroupStatus {
        self.group(id, DB).status()
    }

    /// Nodes that live.
    pub fn living(&self) -> Vec<u64> {
        self.nodes.values().filter(|node| node.life.is_some()).map(|node| node.id).collect()
    }

    /// The node that serves a database, when one does.
    pub async fn active(&self, database: DatabaseId) -> u64 {
        let mut found = None;
        until("a copy serves", || {
            let nodes = self.living();
            found = nodes.into_iter().find(|id| {
                let group = self.life(*id).registry.get(database);
                group.is_some_and(|group| group.serving().is_ok())
            });
            found.is_some()
        })
        .await;
        found.expect("waited for")
    }

    /// Puts a value, wherever it can be put; again and again where the outcome is unknown.
    pub async fn put_in(&self, database: DatabaseId, key: &str, body: &[u8]) -> u64 {
        let limit = patience();
        loop {
            let id = self.active(database).await;
            let deadline = Instant::now() + Duration::from_secs(5);
            match self.group(id, database).propose(put(key, body), deadline).await {
                Ok(committed) => return committed.at.index,
                Err(ProposeError::TooLarge { .. } | ProposeError::Failed { .. }) => {
                    panic!("not put")
                }
                Err(error) => assert!(Instant::now() < limit, "never put: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn put(&self, key: &str, body: &[u8]) -> u64 {
        self.put_in(DB, key, body).await
    }

    pub fn value(&self, id: u64, key: &str) -> Option<Bytes> {
        value(&*self.group(id, DB).view(), key)
    }

    /// Waits until a node's copy holds a value.
    pub async fn has(&self, id: u64, key: &str, body: &[u8]) {
        until(&format!("node {id} has {key}"), || {
            self.value(id, key).is_some_and(|found| found == body)
        })
        .await;
    }

    /// The process ends: nothing is flushed, synced or said.
    pub async fn kill(&mut self, id: u64) {
        self.network.leave(NodeId(id));
        let node = self.node(id);
        if let Some(sim) = &node.sim {
            sim.kill();
        }
        node.end_life().await;
    }

    /// The power goes: what was not synced is lost.
    pub async fn crash(&mut self, id: u64) {
        self.network.leave(NodeId(id));
        let node = self.node(id);
        node.sim.as_ref().expect("only a simulated disk can crash").crash();
        node.end_life().await;
    }

    /// Makes all copies note their digest, and compares them.
    pub async fn digests_are_equal(&self) {
        static MARK: AtomicU64 = AtomicU64::new(1);
        let number = MARK.fetch_add(1, Ordering::Relaxed);
        let noted = self.mark_digest(number).await;
        for other in self.living() {
            let group = self.group(other, DB);
            let of = || group.digest_marks().ok()?.into_iter().find(|mark| mark.mark == number);
            until(&format!("node {other} has a digest"), || of().is_some()).await;
            assert_eq!(of(), Some(noted), "the digest of node {other}");
        }
    }

    /// Writes a mark.
    pub async fn mark_digest(&self, number: u64) -> DigestAt {
        let limit = patience();
        loop {
            let id = self.active(DB).await;
            match self.group(id, DB).mark_digest(number, patience()).await {
                Ok(noted) => return noted,
                Err(error) => assert!(error.is_refusal() && Instant::now() < limit, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends all nodes in order.
    pub async fn stop(mut self) {
        for id in self.living() {
            self.network.leave(NodeId(id));
            self.node(id).end_life().await;
        }
    }
}

fn identity(root: &NodeRoot) -> PeerIdentity {
    let identity = root.identity();
    PeerIdentity {
        dag: identity.dag,
        lineage: Lineage { epoch: 1, activation: ActivationId([1; 16]) },
        node: identity.node,
        store: identity.store,
        boot: identity.boot,
    }
}

async fn serve(
    id: NodeId,
    registry: &Registry,
    addresses: &Addresses,
) -> tokio::task::JoinHandle<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    addresses.lock().unwrap().insert(id, listener.local_addr().expect("an address"));
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = PeerServer::service(registry.acceptor());
    let server = GrpcOptions::default().server().add_service(service);
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.expect("served") })
}

fn spec(id: u64, database: DatabaseId) -> GroupSpec {
    GroupSpec {
        database,
        generation: Generation::FIRST,
        replica: replica(id),
        candidacy: Candidacy::Freely,
        may_mount: true,
    }
}

impl Node {
    fn place(&self, database: DatabaseId) -> CopyPlace {
        let life = self.life.as_ref().expect("a living node");
        CopyPlace {
            root: life.root.clone(),
            volume: life.volume.clone(),
            cache: life.cache.clone(),
            folder: self.folder.join(format!("db-{database}")),
        }
    }

    pub async fn create_copy(&mut self, database: DatabaseId) {
        self.machines.insert(database, Values::default());
        self.open_copy(database, false).await;
    }

    async fn open_copy(&mut self, database: DatabaseId, exists: bool) {
        let place = self.place(database);
        let identity = place.root.copy_identity(database, Generation::FIRST, replica(self.id));
        let directory = if exists {
            CopyDirectory::open(&place, identity, &*self.engine)
        } else {
            CopyDirectory::create(&place, identity, CopyStart::Empty, &*self.engine)
        };
        let copy = OpenCopy::new(directory.expect("a copy"), self.engine.clone(), place.volume);
        let life = self.life.as_mut().expect("a living node");
        let attached = life.flusher.attach(copy.clone());
        life.copies.insert(database, (copy, attached));
        self.start_again(database).await.expect("a group");
    }

    async fn end_life(&mut self) {
        let Some(life) = self.life.take() else { return };
        self.machines.values().for_each(Values::release);
        if let Some(server) = life.server {
            server.abort();
        }
        life.registry.shutdown().await;
        for (copy, attached) in life.copies.into_values() {
            drop(attached);
            let (done, closed) = tokio::sync::oneshot::channel();
            copy.close(Box::new(move |result| {
                let _ = done.send(result);
            }));
            let _ = closed.await;
        }
        life.volume.stop();
    }

    /// Flushes a copy's state and waits for it.
    pub async fn flush(&self, database: DatabaseId) {
        self.try_flush(database).await.expect("flushed");
    }

    pub async fn try_flush(&self, database: DatabaseId) -> Result<(), FlushFault> {
        let (done, flushed) = tokio::sync::oneshot::channel();
        let (_, attached) = &self.life.as_ref().expect("a living node").copies[&database];
        attached.flush(Box::new(move |result| {
            let _ = done.send(result);
        }));
        flushed.await.expect("an answer").map(|_| ())
    }

    /// Starts the group of an open copy once more.
    pub async fn start_again(&mut self, database: DatabaseId) -> Result<Group, StartError> {
        let machine = Arc::new(self.machines[&database].clone());
        let life = self.life.as_ref().expect("a living node");
        let copy = life.copies[&database].0.clone();
        life.registry.start(spec(self.id, database), copy, machine).await
    }
}

impl Life {
    /// Whether something was told of a database.
    pub fn told(&self, matches: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(|told| matches(&told.event))
    }
}
