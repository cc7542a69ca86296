//! All groups of a node.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dag_api::peer::v1 as pb;
use dag_types::{DatabaseId, Generation, Mutant, NodeId, ReplicaId};
use futures::future::BoxFuture;
use openraft::AsyncRuntime;
use openraft::impls::TokioRuntime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::copy_store::OpenCopy;
use crate::event::EventSink;
use crate::gate::ServingGate;
use crate::group::{Group, GroupSpec, GroupStatus, RaftGroup, StartError, Surroundings};
use crate::link::{Acceptor, LinkError, PeerLink, Pipe};
use crate::machine::Machine;
use crate::mux::dial::Dialer;
use crate::mux::{Peers, serve};
use crate::options::Options;
use crate::peer::{PeerRegistry, Refusal};
use crate::seeds::{self, SeedServer};
use crate::wire::WireError;

/// The groups of a node, and its streams to the other nodes.
///
/// Made inside a runtime, which must be the same as the tasks' that use it; it ends with
/// [`Registry::shutdown`].
pub struct Registry {
    around: Surroundings,
    table: Arc<dyn Table>,
    acceptor: Acceptor,
    recheck: watch::Sender<u64>,
    /// One start or stop at a time.
    changing: tokio::sync::Mutex<()>,
}

/// The groups, for those who need not know the runtime.
trait Table: Send + Sync {
    /// Starts a group and adds it.
    fn start<'a>(&'a self, around: &'a Surroundings, copy: NewCopy) -> Started<'a>;
    /// Takes a group away and stops it.
    fn stop(&self, database: DatabaseId) -> BoxFuture<'_, ()>;
    fn get(&self, database: DatabaseId) -> Option<Group>;
    fn all(&self) -> Vec<Group>;
    /// Wakes every group's upkeep.
    fn wake(&self);
}

type Started<'a> = BoxFuture<'a, Result<Group, StartError>>;

/// What a group is started on.
struct NewCopy {
    spec: GroupSpec,
    files: Arc<OpenCopy>,
    machine: Arc<dyn Machine>,
}

/// Finds the group that a frame is for.
pub(crate) struct GroupTable<R: AsyncRuntime> {
    groups: RwLock<BTreeMap<DatabaseId, Row<R>>>,
}

/// A group, and the handle that others hold.
struct Row<R: AsyncRuntime> {
    group: RaftGroup<R>,
    handle: Group,
}

impl Registry {
    /// A registry without groups, on the tokio runtime that it is made in.
    ///
    /// # Panics
    /// Where the options cannot work ([`Options::problems`]).
    pub fn new(
        options: Options,
        link: Arc<dyn PeerLink>,
        registry: Arc<dyn PeerRegistry>,
        sink: EventSink,
    ) -> Self {
        Self::with_runtime::<TokioRuntime>(options, link, registry, sink, None)
    }

    /// The same on a node with a gate: its groups serve only what the gate permits.
    ///
    /// # Panics
    /// Where the options cannot work ([`Options::problems`]).
    pub fn gated(
        options: Options,
        link: Arc<dyn PeerLink>,
        registry: Arc<dyn PeerRegistry>,
        sink: EventSink,
        gate: Arc<dyn ServingGate>,
    ) -> Self {
        Self::with_runtime::<TokioRuntime>(options, link, registry, sink, Some(gate))
    }

    /// The same on another runtime, with a gate or without; openraft is compiled for it where this
    /// is called.
    ///
    /// # Panics
    /// Where the options cannot work ([`Options::problems`]).
    pub fn with_runtime<R: AsyncRuntime>(
        options: Options,
        link: Arc<dyn PeerLink>,
        registry: Arc<dyn PeerRegistry>,
        sink: EventSink,
        gate: Option<Arc<dyn ServingGate>>,
    ) -> Self {
        assert_eq!(options.problems(), Vec::<String>::new(), "options that can work");
        let (recheck, rechecks) = watch::channel(0);
        let stop = CancellationToken::new();
        let dialer = Arc::new(Dialer {
            link,
            registry: registry.clone(),
            gate: gate.clone(),
            seeds: OnceLock::new(),
            recheck: rechecks,
            stop: stop.clone(),
        });
        let table = Arc::new(GroupTable::<R> { groups: RwLock::default() });
        let (acceptor, arriving) = Acceptor::new();
        let _accepting = R::spawn(accept(dialer.clone(), table.clone(), arriving));
        let around = Surroundings {
            node: registry.local().node,
            node_room: Arc::new(Semaphore::new(options.node_bytes)),
            peers: Arc::new(Peers::new(dialer, options.snapshots_at_a_time)),
            options: Arc::new(options),
            registry,
            gate,
            sink,
            stop,
        };
        let changing = tokio::sync::Mutex::new(());
        Self { around, table, acceptor, recheck, changing }
    }

    /// Where the transport hands over the pipes that other nodes open.
    pub fn acceptor(&self) -> Acceptor {
        self.acceptor.clone()
    }

    /// Starts a copy's group on what its log and state hold.
    pub async fn start(
        &self,
        spec: GroupSpec,
        copy: Arc<OpenCopy>,
        machine: Arc<dyn Machine>,
    ) -> Result<Group, StartError> {
        let _turn = self.changing.lock().await;
        if self.around.stop.is_cancelled() {
            return Err(StartError::Stopped);
        }
        if self.get(spec.database).is_some() {
            return Err(StartError::RunsAlready { database: spec.database });
        }
        self.table.start(&self.around, NewCopy { spec, files: copy, machine }).await
    }

    /// Stops a group; its log and state can be closed afterwards.
    pub async fn stop(&self, database: DatabaseId) {
        let _turn = self.changing.lock().await;
        self.table.stop(database).await;
    }

    /// The group of a database, if a copy of it runs here.
    pub fn get(&self, database: DatabaseId) -> Option<Group> {
        self.table.get(database)
    }

    /// All groups, by database.
    pub fn groups(&self) -> Vec<Group> {
        self.table.all()
    }

    /// Sends a message about gates to another node. It may be lost, and nobody hears of that.
    pub fn tell(&self, node: NodeId, message: pb::GateMessage) {
        self.around.peers.get(node).control.tell(message);
    }

    /// From now on this answers the seed streams of other nodes.
    ///
    /// # Panics
    /// Where one was named before.
    pub fn serve_seeds(&self, server: Arc<dyn SeedServer>) {
        let named = self.around.peers.dialer().seeds.set(server);
        assert!(named.is_ok(), "a node has one giver of seeds");
    }

    /// Opens a seed stream to another node.
    pub async fn open_seed(&self, to: NodeId) -> Result<Pipe, LinkError> {
        seeds::open(&self.around.peers, to).await
    }

    /// How all copies of this node stand.
    pub fn status(&self) -> Vec<GroupStatus> {
        self.groups().iter().map(Group::status).collect()
    }

    /// Judges every open stream again, because what the peer registry knows has changed: streams
    /// of identities that no longer hold end, and so do all where this node's own changed. Leaders
    /// that are not mounted in the node's lineage mount anew.
    pub fn recheck_peers(&self) {
        self.recheck.send_modify(|count| *count += 1);
        self.table.wake();
    }

    /// Stops all groups and streams, for good.
    pub async fn shutdown(&self) {
        let _turn = self.changing.lock().await;
        self.around.stop.cancel();
        for group in self.groups() {
            self.table.stop(group.spec().database).await;
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.around.stop.cancel();
    }
}

async fn accept<R: AsyncRuntime>(
    dialer: Arc<Dialer>,
    table: Arc<GroupTable<R>>,
    mut arriving: mpsc::UnboundedReceiver<Pipe>,
) {
    let stop = dialer.stop.clone();
    while let Some(Some(pipe)) = stop.run_until_cancelled(arriving.recv()).await {
        let _served = R::spawn(serve::serve(dialer.clone(), table.clone(), pipe));
    }
}

impl<R: AsyncRuntime> Table for GroupTable<R> {
    fn start<'a>(&'a self, around: &'a Surroundings, copy: NewCopy) -> Started<'a> {
        Box::pin(async move {
            let NewCopy { spec, files, machine } = copy;
            let group = RaftGroup::<R>::start(around, spec, files, machine).await?;
            let handle = Group::from(group.clone());
            self.write().insert(spec.database, Row { group, handle: handle.clone() });
            Ok(handle)
        })
    }

    fn stop(&self, database: DatabaseId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let taken = self.write().remove(&database);
            if let Some(row) = taken {
                row.group.stop().await;
            }
        })
    }

    fn get(&self, database: DatabaseId) -> Option<Group> {
        self.read().get(&database).map(|row| row.handle.clone())
    }

    fn all(&self) -> Vec<Group> {
        self.read().values().map(|row| row.handle.clone()).collect()
    }

    fn wake(&self) {
        self.read().values().for_each(|row| row.group.wake());
    }
}

impl<R: AsyncRuntime> GroupTable<R> {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<DatabaseId, Row<R>>> {
        self.groups.read().expect("no panic while the table is held")
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<DatabaseId, Row<R>>> {
        self.groups.write().expect("no panic while the table is held")
    }

    /// The group that a frame from a node is for; checked before Raft sees the frame.
    pub fn find(&self, header: Option<&pb::Group>, from: NodeId) -> Result<RaftGroup<R>, Refusal> {
        let header = header.ok_or(WireError::Missing("group"))?;
        let database = DatabaseId(header.database);
        let group = self.read().get(&database).map(|row| row.group.clone());
        let group = group.ok_or(Refusal::NoSuchGroup)?;
        let spec = group.spec();
        if Generation(header.generation) != spec.generation
            && !Mutant::WrongGenerationAccepted.planted()
        {
            return Err(Refusal::WrongGeneration { newest: spec.generation });
        }
        if ReplicaId(header.to_replica) != spec.replica {
            let detail = format!("meant for {}, here is {}", header.to_replica, spec.replica);
            return Err(Refusal::WrongReplica { detail });
        }
        if let Some(node) = group.node_of(header.from_replica)
            && node != from
        {
            let detail = format!("{} is on node {node}, not on {from}", header.from_replica);
            return Err(Refusal::WrongReplica { detail });
        }
        Ok(group)
    }
}
