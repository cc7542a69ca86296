//! A node as the source of seeds: any sound copy of its gives its files, or its rows, to whoever builds
//! a copy of them. What the daemon's giver does, over the real [`Source`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dag_api::peer::v1 as pb;
use dag_types::{DatabaseId, Millis, NodeId, ReplicaId};
use futures::StreamExt;
use futures::future::BoxFuture;
use replication::link::Pipe;
use replication::{MEMBERSHIP_KEY, Machine, Role, SeedServer};
use seeding::SeedFault;
use seeding::limit::RateLimit;
use seeding::progress::Progress;
use seeding::source::{Served, Source, SourceRules};
use seeding::wire::{CheckpointId, Origin, Refusal, Reply, Request};
use storage::state::{StateError, StateRead};

use crate::daemon::wire;
use crate::dice::Dice;
use crate::machines::MailboxMachine;
use crate::node::{DAG, Shared};
use crate::seeds::SeedNote;
use crate::words::Words;
use crate::world::lock;

/// Where checkpoints lie below a database's folder.
pub const CHECKPOINTS: &str = "seed-source";
/// So short that a run sees checkpoints go whose targets were silent, and another one be taken.
const RULES: SourceRules =
    SourceRules { lease: Millis(1_500), share: Millis(1_000), targets_max: 10 };

/// What a node gives and builds, and what it heard of others.
pub struct Seeding {
    sources: Mutex<BTreeMap<DatabaseId, Arc<Mutex<Source>>>>,
    shown: Mutex<BTreeMap<ReplicaId, Shown>>,
    dice: Mutex<Dice>,
    /// What others said of their copies.
    pub words: Words,
}

/// How a copy that is built here stands.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// What is durable.
    pub progress: Progress,
    /// Whom it is built from now.
    pub source: Option<u64>,
    /// Why it does not go on at this moment.
    pub message: String,
    /// It cannot go on.
    pub failed: bool,
}

impl Seeding {
    /// Of a node that starts.
    pub fn new(dice: Dice) -> Self {
        let (sources, shown) = (Mutex::default(), Mutex::default());
        Self { sources, shown, dice: Mutex::new(dice), words: Words::default() }
    }

    /// How a copy that is built here stands.
    pub fn shown(&self, replica: ReplicaId) -> Shown {
        lock(&self.shown).get(&replica).cloned().unwrap_or_default()
    }

    /// Changes that.
    pub fn show(&self, replica: ReplicaId, change: impl FnOnce(&mut Shown)) {
        change(lock(&self.shown).entry(replica).or_default());
    }

    /// Only what is still wanted is remembered.
    pub fn forget(&self, wanted: impl Fn(ReplicaId) -> bool) {
        lock(&self.shown).retain(|replica, _| wanted(*replica));
    }

    /// Other numbers for each use.
    pub fn draw(&self) -> u64 {
        lock(&self.dice).next()
    }

    /// No more is given of a copy; its checkpoints stay for a while.
    pub fn close_source(&self, database: DatabaseId) {
        lock(&self.sources).remove(&database);
    }
}

/// Answers the seed streams of other nodes.
pub struct Giver(pub Weak<Shared>);

impl SeedServer for Giver {
    fn serve(&self, _from: NodeId, pipe: Pipe) -> BoxFuture<'static, ()> {
        let shared = self.0.upgrade();
        Box::pin(async move {
            if let Some(shared) = shared {
                serve(shared, pipe).await;
            }
        })
    }
}

/// Whom a stream is for.
#[derive(Debug, Clone, Copy)]
struct Asking {
    database: DatabaseId,
    replica: ReplicaId,
    limit: Option<u64>,
}

async fn serve(shared: Arc<Shared>, pipe: Pipe) {
    let Pipe { sender, mut receiver } = pipe;
    while let Some(Ok(frame)) = receiver.next().await {
        let Some(pb::frame::Frame::SeedRequest(request)) = frame.frame else { return };
        let Some(asked) = wire::read_request(&request) else { return };
        let asking = Asking {
            database: DatabaseId(request.database),
            replica: ReplicaId(request.replica),
            limit: (request.limit > 0).then_some(request.limit),
        };
        for reply in replies(&shared, asking, &asked).await {
            if sender.send(wire::reply(reply)).await.is_err() {
                return;
            }
        }
    }
}

/// Everything that answers a request, when its limit allows it.
async fn replies(shared: &Arc<Shared>, asking: Asking, asked: &Request) -> Vec<Reply> {
    loop {
        let given = give(shared, asking, asked);
        shared.disk_took().await;
        match given {
            Ok(Served::Replies(replies)) => return replies,
            Ok(Served::Later(at)) => {
                let wait = at.saturating_sub(shared.clock.boottime());
                tokio::time::sleep(Duration::from_millis(wait.0.max(1))).await;
            }
            Ok(Served::NeedsCheckpoint) => return refused(Refusal::Unfit),
            Err(fault) => {
                let SeedFault::State(StateError::Damaged { .. } | StateError::Corrupt { .. }) =
                    &fault
                else {
                    return refused(Refusal::Unfit);
                };
                shared.fail_copy(asking.database, &fault.to_string()).await;
                return refused(Refusal::Unfit);
            }
        }
    }
}

fn refused(refusal: Refusal) -> Vec<Reply> {
    vec![Reply::Refused(refusal)]
}

fn give(shared: &Shared, asking: Asking, request: &Request) -> Result<Served, SeedFault> {
    if unfit(shared, asking.database) {
        return Ok(Served::Replies(refused(Refusal::Unfit)));
    }
    let source = source(shared, asking.database)?;
    let mut source = lock(&source);
    let now = shared.clock.boottime();
    source.set_limit(asking.limit, now);
    match source.serve(now, asking.replica, request)? {
        Served::NeedsCheckpoint => {
            take(shared, asking.database, &mut source)?;
            source.serve(now, asking.replica, request)
        }
        served => Ok(served),
    }
}

/// Whether no other copy may be built from this node's.
fn unfit(shared: &Shared, database: DatabaseId) -> bool {
    let Some(group) = shared.group(database) else { return true };
    let Some(state) = shared.state().control.clone() else { return true };
    let node = NodeId(shared.node);
    let own = state.database(database).and_then(|record| record.replica_on(node));
    let stopped = group.role().0 == Role::Stopped || shared.failed_copy(database).is_some();
    let admitted = own.is_some_and(|own| {
        let joins = state.seed(database, node).is_some_and(|seed| seed.replica() == own.id());
        own.unfit.is_empty() && !joins
    });
    stopped || !admitted
}

/// The source of a database, with the checkpoints that an earlier life left.
pub fn source(shared: &Shared, database: DatabaseId) -> Result<Arc<Mutex<Source>>, SeedFault> {
    if let Some(source) = lock(&shared.seeding.sources).get(&database) {
        return Ok(source.clone());
    }
    let unfit = SeedFault::Refused(Refusal::Unfit);
    let Some(place) = shared.place() else { return Err(unfit) };
    let folder = place.of(database).folder.join(CHECKPOINTS);
    let (disk, now) = (place.disk(), shared.clock.boottime());
    let source = Source::open(disk, &folder, RULES, RateLimit::none(), now)?;
    let source = Arc::new(Mutex::new(source.giving_rows(place.engine.clone())));
    lock(&shared.seeding.sources).insert(database, source.clone());
    Ok(source)
}

fn take(shared: &Shared, database: DatabaseId, source: &mut Source) -> Result<(), SeedFault> {
    let unfit = || SeedFault::Refused(Refusal::Unfit);
    let opened = shared.state().opened.get(&database).cloned().ok_or_else(unfit)?;
    let place = shared.place().ok_or_else(unfit)?;
    let spec = shared.group(database).ok_or_else(unfit)?.spec();
    let origin = Origin {
        dag: DAG,
        database,
        generation: spec.generation,
        replica: spec.replica,
        node: NodeId(shared.node),
    };
    let id = (u128::from(shared.seeding.draw()) << 64) | u128::from(shared.seeding.draw());
    let (id, now) = (CheckpointId(id), shared.clock.boottime());
    let state = opened.copy.state();
    let taken = source.take(now, id, origin, &*state, &*place.engine, MEMBERSHIP_KEY)?;
    let (at, bytes) = (taken.position.0, taken.total_bytes());
    let rows = place.engine.open_read_only(&source.files_of(id));
    let digest = rows.ok().and_then(|rows| content(&*rows));
    shared.trace_seed(database, SeedNote::Checkpoint { at, digest, bytes });
    Ok(())
}

/// What a state holds, for whoever compares it from outside.
pub fn content(rows: &dyn StateRead) -> Option<[u8; 16]> {
    MailboxMachine.digest(rows).ok()
}
