//! How many entries a second three nodes commit: real log, RocksDB, gRPC over loopback, one
//! process, a machine that only puts the body.
//!
//! ```text
//! cargo run --release -p replication --example group_rate -- [seconds] [proposers] [groups] [bytes]
//! ```
//! Prints one line per entry size and number of groups: entries per second, latency of a proposal,
//! and the processor time of the whole process per entry. Where the size is given, nothing but that
//! is measured, for a profile of it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dag_types::{
    ActivationId, Boot, Candidacy, DagId, DatabaseId, Generation, Lineage, LogId, Millis, NodeId,
    ReplicaId, StoreId, Write,
};
use replication::link::grpc::{GrpcLink, GrpcOptions, PeerServer};
use replication::peer::{KnownPeers, PeerIdentity};
use replication::{
    Effect, Group, GroupSpec, Machine, MachineFault, Member, OpenCopy, Options, Registry,
};
use storage::copy_directory::{CopyDirectory, CopyPlace, CopyStart};
use storage::disk::RealDisk;
use storage::flusher::{Attached, FlushRules, Flusher};
use storage::identity::NodeRoot;
use storage::log::EntryCache;
use storage::state::rocks::{SharedResources, StateBudget};
use storage::state::{StateEngine, StateRead};
use storage::volume::{Volume, VolumeOptions};
use tonic::transport::Endpoint;

struct Puts;

impl Machine for Puts {
    fn apply(
        &self,
        _view: &dyn StateRead,
        at: LogId,
        command: &Bytes,
    ) -> Result<Effect, MachineFault> {
        let mut key = vec![0x80];
        key.extend_from_slice(&at.index.to_be_bytes());
        let write = Write::Put { key: key.into(), value: command.clone() };
        Ok(Effect { writes: vec![write], reply: Bytes::new() })
    }

    fn digest(&self, _view: &dyn StateRead) -> Result<[u8; 16], MachineFault> {
        Ok([0; 16])
    }
}

type Addresses = Arc<Mutex<HashMap<NodeId, SocketAddr>>>;

struct Node {
    root: Arc<NodeRoot>,
    volume: Volume,
    cache: Arc<EntryCache>,
    engine: Arc<dyn StateEngine>,
    flusher: Flusher,
    registry: Registry,
    attached: Vec<Attached>,
}

async fn node(id: u64, folder: &Path, addresses: &Addresses) -> Node {
    let disk = Arc::new(RealDisk::new());
    let (me, store) = (NodeId(id), StoreId([id as u8; 16]));
    NodeRoot::format(&*disk, folder, me, store).expect("format");
    let root = Arc::new(NodeRoot::start(disk.clone(), folder, me, id).expect("start"));
    let clock = Instant::now();
    let clock = move || Millis(clock.elapsed().as_millis() as u64);
    let volume = Volume::start(disk, VolumeOptions::default(), Arc::new(clock)).expect("volume");
    let engine = Arc::new(SharedResources::new(StateBudget::default()).expect("RocksDB"));
    let flusher = Flusher::start(FlushRules::for_budget(256 << 20), clock).expect("flusher");
    let peers = Arc::new(KnownPeers::new(PeerIdentity {
        dag: DagId::NIL,
        lineage: Lineage { epoch: 1, activation: ActivationId([1; 16]) },
        node: me,
        store,
        boot: root.identity().boot,
    }));
    for other in 1..=3 {
        peers.register(NodeId(other), StoreId([other as u8; 16]), Boot::default());
    }
    let known = addresses.clone();
    let endpoints = Arc::new(move |node| {
        let address = *known.lock().expect("not poisoned").get(&node)?;
        Endpoint::from_shared(format!("http://{address}")).ok()
    });
    let link = Arc::new(GrpcLink::new(endpoints, GrpcOptions::default()));
    let registry = Registry::new(Options::default(), link, peers, Arc::new(|_| {}));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    addresses.lock().expect("not poisoned").insert(me, address);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = PeerServer::service(registry.acceptor());
    let server = GrpcOptions::default().server().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    let cache = Arc::new(EntryCache::new(EntryCache::BUDGET_BYTES));
    Node { root, volume, cache, engine, flusher, registry, attached: Vec::new() }
}

impl Node {
    async fn start(&mut self, database: DatabaseId) -> Group {
        let replica = ReplicaId(self.root.identity().node.0);
        let identity = self.root.copy_identity(database, Generation::FIRST, replica);
        let place = CopyPlace {
            root: self.root.clone(),
            volume: self.volume.clone(),
            cache: self.cache.clone(),
            folder: self.root.folder().join(format!("db-{database}")),
        };
        let directory = CopyDirectory::create(&place, identity, CopyStart::Empty, &*self.engine);
        let directory = directory.expect("a copy");
        let copy = OpenCopy::new(directory, self.engine.clone(), self.volume.clone());
        self.attached.push(self.flusher.attach(copy.clone()));
        let spec = GroupSpec {
            database,
            generation: Generation::FIRST,
            replica,
            candidacy: if replica.0 == 1 { Candidacy::Freely } else { Candidacy::Never },
            may_mount: true,
        };
        self.registry.start(spec, copy, Arc::new(Puts)).await.expect("a group")
    }
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

fn deadline() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(30)
}

async fn measure(groups: &[Group], bytes: usize, proposers: usize, time: Duration) {
    let body = Bytes::from(vec![7; bytes]);
    let (began, before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..proposers)
        .map(|number| {
            let (group, body) = (groups[number % groups.len()].clone(), body.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < time {
                    let sent = Instant::now();
                    group.propose(body.clone(), deadline()).await.expect("committed");
                    took.push(sent.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("no panic"));
    }
    let (seconds, used) = (began.elapsed().as_secs_f64(), cpu() - before);
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "groups={} bytes={bytes} proposers={proposers}: {:.0} entries/s, p50 {:.2} ms, \
         p99 {:.2} ms, {:.0} us CPU per entry",
        groups.len(),
        took.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        used.as_secs_f64() * 1e6 / took.len() as f64,
    );
}

async fn run(groups: u64, sizes: &[usize], time: Duration, proposers: usize) {
    let folder = tempfile::TempDir::new_in(".").expect("a folder on the disk to be measured");
    let addresses = Addresses::default();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(node(id, &folder.path().join(format!("node-{id}")), &addresses).await);
    }
    let members: BTreeMap<ReplicaId, Member> =
        (1..=3).map(|id| (ReplicaId(id), Member { node: NodeId(id) })).collect();
    let mut leaders = Vec::new();
    for number in 0..groups {
        let mut first = None;
        for node in &mut nodes {
            let group = node.start(DatabaseId(16 + number)).await;
            first.get_or_insert(group);
        }
        let first = first.expect("three nodes");
        first.initialize(&members).await.expect("initialised");
        while first.serving().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        leaders.push(first);
    }
    for &bytes in sizes {
        measure(&leaders, bytes, proposers, Duration::from_millis(500)).await;
        if sizes.len() > 1 {
            measure(&leaders, bytes, 1, time).await;
        }
        measure(&leaders, bytes, proposers, time).await;
    }
    for node in &nodes {
        node.registry.shutdown().await;
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (seconds, proposers, groups, bytes) = (number(5), number(64), number(0), number(0));
    let sizes = if bytes == 0 { vec![4 << 10, 50 << 10] } else { vec![bytes as usize] };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for groups in if groups == 0 { vec![1, 4] } else { vec![groups] } {
        let time = Duration::from_secs(seconds);
        runtime.block_on(run(groups, &sizes, time, proposers as usize));
    }
}
