//! The source: any healthy copy of this node gives its files to whoever builds a copy of them.

use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use active_manager::control::SeedRecord;
use dag_api::peer::v1 as pb;
use dag_types::{DatabaseId, Millis, NodeId, ReplicaId};
use futures::StreamExt;
use futures::future::{self, BoxFuture};
use replication::link::Pipe;
use replication::{MEMBERSHIP_KEY, Role, SeedServer};
use seeding::SeedFault;
use seeding::limit::RateLimit;
use seeding::source::{Begun, Served, Source, SourceRules};
use seeding::wire::{CheckpointId, Origin, Refusal, Reply, Request};
use storage::state::StateError;
use tokio::time::Instant;

use super::{UNPOISONED, checkpoints, wire};
use crate::node::Node;

/// Answers the seed streams that other nodes open to this one.
pub fn server(node: &Arc<Node>) -> Arc<dyn SeedServer> {
    Arc::new(Giver(Arc::downgrade(node)))
}

/// Requests that are answered at a time: while one answer is sent the next ones are read.
const AHEAD: usize = 3;

struct Giver(Weak<Node>);

impl SeedServer for Giver {
    fn serve(&self, from: NodeId, pipe: Pipe) -> BoxFuture<'static, ()> {
        let node = self.0.upgrade();
        Box::pin(async move {
            if let Some(node) = node {
                serve(node, from, pipe).await;
            }
        })
    }
}

/// Whom a stream is for, once it has asked.
#[derive(Debug, Clone, Copy)]
struct Asking {
    database: DatabaseId,
    replica: ReplicaId,
    limit: Option<u64>,
}

async fn serve(node: Arc<Node>, from: NodeId, pipe: Pipe) {
    let Pipe { sender, receiver } = pipe;
    let requests = receiver.map(|frame| understood(frame.ok()?));
    let answers = requests.take_while(|asked| future::ready(asked.is_some())).map(|asked| {
        let (node, (asking, asked)) = (node.clone(), asked.expect("others end the stream"));
        if matches!(asked, Request::Open { .. }) {
            tracing::info!(db = %asking.database, peer = %from, replica = %asking.replica, "gives a seed");
        }
        async move { (asking.limit, replies(&node, asking, asked).await) }
    });
    let mut answers = pin!(answers.buffered(AHEAD));
    let mut pace = Pace { next: Instant::now() };
    while let Some((limit, replies)) = answers.next().await {
        for reply in replies {
            if let (Some(limit), Reply::Frame(frame)) = (limit, &reply) {
                pace.wait(frame.bytes.len(), limit).await;
            }
            if sender.send(wire::reply(reply)).await.is_err() {
                return;
            }
        }
    }
}

/// Spreads what a limit lets pass over the time that it may take. A range comes whole, four megabytes at
/// once: sent at once too, they would keep the one thread that serves mail, here and on the target, from
/// everything else for ten milliseconds.
struct Pace {
    /// When the next frame may go.
    next: Instant,
}

/// What a frame that waited for a busy thread may catch up.
const LATE: Duration = Duration::from_millis(4);

impl Pace {
    /// Waits until a frame may go: a quarter faster than the limit, so that no range waits for the one
    /// before it.
    async fn wait(&mut self, bytes: usize, limit: u64) {
        let takes = Duration::from_secs_f64(0.8 * bytes as f64 / limit as f64);
        let now = Instant::now();
        let begin = self.next.max(now.checked_sub(LATE).unwrap_or(now));
        self.next = begin + takes;
        tokio::time::sleep_until(begin).await;
    }
}

/// What is asked, and for whom; none where it is no request.
fn understood(frame: pb::Frame) -> Option<(Asking, Request)> {
    let Some(pb::frame::Frame::SeedRequest(request)) = frame.frame else { return None };
    let asking = Asking {
        database: DatabaseId(request.database),
        replica: ReplicaId(request.replica),
        limit: (request.limit > 0).then_some(request.limit),
    };
    Some((asking, wire::read_request(&request)?))
}

/// Everything that answers a request, when its limit allows it.
async fn replies(node: &Arc<Node>, asking: Asking, asked: Request) -> Vec<Reply> {
    loop {
        let (giving, request) = (node.clone(), asked.clone());
        let served = node.bulk.spawn_blocking(move || give(&giving, asking, &request)).await;
        match served {
            Ok(Ok(Served::Replies(replies))) => return replies,
            Ok(Ok(Served::Later(at))) => {
                let wait = at.saturating_sub(node.seeds.now());
                tokio::time::sleep(Duration::from_millis(wait.0.max(1))).await;
            }
            Ok(Ok(Served::NeedsCheckpoint)) | Err(_) => return refused(Refusal::Unfit),
            Ok(Err(fault)) => {
                tracing::error!(db = %asking.database, %fault, "this copy cannot give a seed");
                if let SeedFault::State(StateError::Damaged { .. } | StateError::Corrupt { .. }) =
                    &fault
                {
                    node.fail_copy(asking.database, &fault.to_string());
                }
                return refused(Refusal::Unfit);
            }
        }
    }
}

fn refused(refusal: Refusal) -> Vec<Reply> {
    vec![Reply::Refused(refusal)]
}

/// Answers on a thread that may wait for the disk.
fn give(node: &Node, asking: Asking, request: &Request) -> Result<Served, SeedFault> {
    if let Some(why) = unfit(node, asking.database) {
        tracing::warn!(db = %asking.database, why, "a seed is refused");
        return Ok(Served::Replies(refused(Refusal::Unfit)));
    }
    match begin(node, asking, request)? {
        Begun::Served(served) => Ok(served),
        Begun::Range(read) => read.replies().map(Served::Replies),
    }
}

/// What changes the source. Ranges are read without it, several at a time.
fn begin(node: &Node, asking: Asking, request: &Request) -> Result<Begun, SeedFault> {
    let source = source(node, asking.database)?;
    let mut source = source.lock().expect(UNPOISONED);
    let now = node.seeds.now();
    source.set_limit(asking.limit, now);
    if let Request::Open { known } = request {
        retire(node, asking, *known, &mut source)?;
    }
    match source.begin(now, asking.replica, request)? {
        Begun::Served(Served::NeedsCheckpoint) => {
            take(node, asking.database, &mut source)?;
            source.begin(node.seeds.now(), asking.replica, request)
        }
        begun => Ok(begun),
    }
}

/// Gives up checkpoints that the log may no longer continue: a copy built from one would be sent whole a
/// second time, as a snapshot. Log waits for checkpoints only while a seed is under way.
fn retire(
    node: &Node,
    asking: Asking,
    known: Option<CheckpointId>,
    source: &mut Source,
) -> Result<(), SeedFault> {
    let others = node.control().is_some_and(|state| {
        let of_it = |seed: &&SeedRecord| seed.database() == asking.database;
        state.seeds.iter().filter(of_it).any(|seed| seed.replica() != asking.replica)
    });
    let group = node.member().ok().and_then(|member| member.registry.get(asking.database));
    let begins = group.and_then(|group| group.status().purged);
    let outdated: Vec<CheckpointId> = source
        .checkpoints()
        .filter(|held| {
            let (id, position) = (held.checkpoint, held.position.0);
            Some(position) < begins || (!others && known != Some(id))
        })
        .map(|held| held.checkpoint)
        .collect();
    outdated.into_iter().try_for_each(|id| source.remove(id))
}

/// Why no other copy may be built from this node's.
pub fn unfit(node: &Node, database: DatabaseId) -> Option<&'static str> {
    let Ok(member) = node.member() else { return Some("this node is no member") };
    if node.failed.of(database).is_some() {
        return Some("its copy has failed");
    }
    let Some(group) = member.registry.get(database) else { return Some("it has no copy") };
    if group.role().0 == Role::Stopped {
        return Some("its copy does not run");
    }
    let state = node.control()?;
    let own = state.database(database).and_then(|record| record.replica_on(node.id()).cloned());
    match own {
        None => Some("its copy was taken away"),
        Some(own) if !own.unfit.is_empty() => Some("its copy was never admitted"),
        Some(own) if state.seed(database, node.id()).is_some_and(|s| s.replica() == own.id()) => {
            Some("its copy is being compared")
        }
        Some(_) => None,
    }
}

/// The source of a database, with the checkpoints that an earlier life left.
pub(super) fn source(node: &Node, database: DatabaseId) -> Result<Arc<Mutex<Source>>, SeedFault> {
    let mut sources = node.seeds.sources.lock().expect(UNPOISONED);
    if let Some(source) = sources.get(&database) {
        return Ok(source.clone());
    }
    let unfit = || SeedFault::Refused(Refusal::Unfit);
    let folder = checkpoints(node.store.folder_of(database).ok_or_else(unfit)?);
    let (disk, limit) = (node.store.disk.clone(), RateLimit::none());
    let source = Source::open(disk, &folder, SourceRules::default(), limit, node.seeds.now())?;
    let source = Arc::new(Mutex::new(source.giving_rows(node.store.engine())));
    sources.insert(database, source.clone());
    Ok(source)
}

fn take(node: &Node, database: DatabaseId, source: &mut Source) -> Result<(), SeedFault> {
    let unfit = || SeedFault::Refused(Refusal::Unfit);
    let copy = node.store.copy(database).ok_or_else(unfit)?;
    let group = node.member().ok().and_then(|member| member.registry.get(database));
    let spec = group.ok_or_else(unfit)?.spec();
    let identity = node.store.root.copy_identity(database, spec.generation, spec.replica);
    let origin = Origin {
        dag: identity.dag,
        database,
        generation: spec.generation,
        replica: spec.replica,
        node: node.id(),
    };
    let id = CheckpointId(uuid::Uuid::new_v4().as_u128());
    let (now, engine): (Millis, _) = (node.seeds.now(), node.store.engine());
    let taken = source.take(now, id, origin, &*copy.state(), &*engine, MEMBERSHIP_KEY)?;
    let (bytes, index) = (taken.total_bytes(), taken.position.0.index);
    tracing::info!(db = %database, checkpoint = %id, index, bytes, "checkpoint taken");
    Ok(())
}
