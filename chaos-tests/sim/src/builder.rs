//! A node as the target of seeds: copies that the control log wants here are built beside what is there,
//! and what is of no use any more is cleared away. What the daemon's builder and its house do, over the
//! real [`Target`].

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use active_manager::control::{ControlState, ReplicaRecord, SeedPhase, SeedRecord};
use active_manager::seed;
use dag_api::peer::v1 as pb;
use dag_types::{DatabaseId, Millis, NodeId, ReplicaId};
use futures::StreamExt;
use openraft_rt::AsyncRuntime;
use replication::OpenCopy;
use replication::link::{LinkError, Pipe};
use seeding::progress::Phase;
use seeding::target::{SeedOrder, Step, Target, seed_folder};
use seeding::wire::{Reply, Request};
use seeding::{SeedFault, install, trash};
use storage::copy_directory::CopyPlace;
use storage::state::StateRead;
use tokio::time::Instant;

use crate::daemon::strays::{Folder, is_stray, parse};
use crate::daemon::wire;
use crate::giver;
use crate::node::{Rt, Shared};
use crate::seeds::SeedNote;
use crate::shape::mailbox_databases;
use crate::world::lock;

/// How often it is looked for what to build.
const LOOK: Duration = Duration::from_millis(20);
/// How long a source may be silent.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a seed waits before it tries the next source.
const PAUSE: Duration = Duration::from_millis(30);
/// Rounds of the house between two looks at what only time makes useless.
const SLOW: u32 = 8;
/// How often the folders are looked at.
const HOUSE: Duration = Duration::from_millis(150);
/// How long replaced copies lie in the trash.
const KEEP: Millis = Millis(1_000);
/// Where a checkpoint of a copy that goes on meanwhile lies, below the seed's folder.
const OLD: &str = "old";
/// The state below a copy's folder.
const STATE: &str = "state";

/// Builds what the control log wants here, until the node's life ends.
pub async fn keep(shared: Arc<Shared>) {
    let building: Arc<Mutex<BTreeSet<ReplicaId>>> = Arc::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(state) = shared.state().control.clone() else { continue };
        let mut here: Vec<&SeedRecord> =
            state.seeds.iter().filter(|seed| seed.node().0 == shared.node).collect();
        here.sort_by_key(|seed| seed.operation);
        shared.seeding.forget(|replica| here.iter().any(|seed| seed.replica() == replica));
        for seed in here.into_iter().filter(|seed| seed.phase() == SeedPhase::Building) {
            let shown = shared.seeding.shown(seed.replica());
            let over = shown.failed || shown.progress.phase >= Phase::Built;
            if over
                || lock(&building).len() >= seed::PER_NODE
                || !lock(&building).insert(seed.replica())
            {
                continue;
            }
            let (build, building) =
                (Build { shared: shared.clone(), seed: seed.clone() }, building.clone());
            let _building = Rt::spawn(async move {
                build.run().await;
                lock(&building).remove(&build.seed.replica());
            });
        }
    }
}

/// Why a connection to a source ended.
enum Ended {
    Built,
    /// Nobody wants the copy any more.
    Stopped,
    /// Another connection is needed.
    Reconnect(String),
}

struct Build {
    shared: Arc<Shared>,
    seed: SeedRecord,
}

impl Build {
    async fn run(&self) {
        match self.build().await {
            Ok(true) => {
                let (database, replica) = (self.seed.database(), self.seed.replica());
                self.shared.trace_seed(database, SeedNote::Built { replica });
                self.show(|shown| shown.progress.phase = shown.progress.phase.max(Phase::Built));
            }
            Ok(false) => {}
            Err(fault) => {
                self.tell(&format!("not built: {fault}"));
                let failed = fault.is_final();
                self.show(|shown| (shown.message, shown.failed) = (fault.to_string(), failed));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn show(&self, change: impl FnOnce(&mut giver::Shown)) {
        self.shared.seeding.show(self.seed.replica(), change);
    }

    fn tell(&self, what: &str) {
        self.shared.tell(format!("seed of replica {}: {what}", self.seed.replica()));
    }

    /// Whether somebody still wants it.
    fn stopped(&self) -> bool {
        let state = self.shared.state().control.clone();
        let wanted = |seed: &SeedRecord| {
            seed.replica() == self.seed.replica() && seed.phase() == SeedPhase::Building
        };
        !state.is_some_and(|state| state.seeds.iter().any(wanted))
    }

    /// Whether the copy is built; not where it was stopped.
    async fn build(&self) -> Result<bool, SeedFault> {
        let seed = &self.seed;
        let Some(place) = self.shared.place() else { return Ok(false) };
        let (database, replica) = (seed.database(), seed.replica());
        let (copies, engine) = (place.of(database), place.engine.clone());
        let identity = place.root.copy_identity(database, seed.generation(), replica);
        // A control log that is read again after a restart may be behind.
        if install::is_installed(&copies, &identity)? {
            return Ok(true);
        }
        let folder = seed_folder(&copies.folder, replica);
        let order = SeedOrder { identity, at_least: None, reserve_bytes: 0, link_from: None };
        let mut target = Target::open(place.disk(), &folder, order)?;
        let mut origin = target.manifest().map(|manifest| manifest.origin.node);
        let resumed = origin.is_some();
        self.shared.trace_seed(database, SeedNote::Begun { replica, resumed });
        if !target.is_built() && !seed.whole {
            target.take_over(engine, self.old(&copies, &folder).await);
        }
        self.shared.disk_took().await;
        let mut turn = 0;
        while !self.stopped() {
            self.show(|shown| (shown.progress, shown.source) = (target.progress(), None));
            if target.is_built() {
                return Ok(true);
            }
            let Some(source) = self.source(turn) else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            turn += 1;
            let ended = self.receive_from(&mut target, source).await;
            let now = target.manifest().map(|manifest| manifest.origin.node);
            if let (Some(_), Some(_)) = (origin, now)
                && origin != now
            {
                self.shared.trace_seed(database, SeedNote::Changed { replica });
            }
            origin = now.or(origin);
            match ended? {
                Ended::Built => {
                    self.show(|shown| shown.progress = target.progress());
                    return Ok(true);
                }
                Ended::Stopped => return Ok(false),
                Ended::Reconnect(why) => {
                    self.tell(&format!("source {source}: {why}"));
                    target.disconnected();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        Ok(false)
    }

    /// The sources in turn, the best one first.
    fn source(&self, turn: usize) -> Option<NodeId> {
        let state = self.shared.state().control.clone()?;
        let record = state.database(self.seed.database())?;
        let (reports, _) = self.shared.seeding.words.reports(&self.shared);
        let wish = (self.seed.from != 0).then_some(NodeId(self.seed.from));
        let own = NodeId(self.shared.node);
        let sources = seed::sources(&state, &reports, record, own, wish);
        (!sources.is_empty()).then(|| sources[turn % sources.len()])
    }

    async fn receive_from(&self, target: &mut Target, source: NodeId) -> Result<Ended, SeedFault> {
        let registry = self.shared.state().registry.clone();
        let Some(registry) = registry else { return Ok(Ended::Stopped) };
        let opened = tokio::time::timeout(PATIENCE, registry.open_seed(source)).await;
        let mut pipe = match opened {
            Ok(Ok(pipe)) => pipe,
            Ok(Err(error)) => return Ok(Ended::Reconnect(error.to_string())),
            Err(_) => return Ok(Ended::Reconnect("no answer".to_owned())),
        };
        self.show(|shown| shown.source = Some(source.0));
        let ended = self.exchange(target, &mut pipe).await;
        if matches!(ended, Ok(Ended::Built)) {
            let _ = self.send(&mut pipe, &Request::Close).await;
        }
        match ended {
            Err(fault) if fault.is_the_sources() => Ok(Ended::Reconnect(fault.to_string())),
            Err(fault) if target.takes_rows() && fault.is_the_states() => {
                target.give_up_rows()?;
                Ok(Ended::Reconnect(format!("it goes on without a delta: {fault}")))
            }
            ended => ended,
        }
    }

    async fn exchange(&self, target: &mut Target, pipe: &mut Pipe) -> Result<Ended, SeedFault> {
        let mut reply: Option<Reply> = None;
        while !self.stopped() {
            let step = target.step(self.shared.clock.boottime(), reply.take())?;
            self.show(|shown| shown.progress = target.progress());
            self.shared.disk_took().await;
            match step {
                // A kill comes between any two of them.
                Step::Again => match self.shared.seeding.draw() % 4 {
                    0 => tokio::time::sleep(Duration::from_millis(1)).await,
                    _ => tokio::task::yield_now().await,
                },
                Step::Built => return Ok(Ended::Built),
                Step::Reconnect => {
                    return Ok(Ended::Reconnect("what arrived was damaged, or is gone".into()));
                }
                Step::Ask(request) => {
                    if let Err(error) = self.send(pipe, &request).await {
                        return Ok(Ended::Reconnect(error.to_string()));
                    }
                }
                Step::Wait => match receive(pipe).await {
                    Ok(received) => reply = Some(received),
                    Err(error) => return Ok(Ended::Reconnect(error.to_string())),
                },
            }
        }
        Ok(Ended::Stopped)
    }

    async fn send(&self, pipe: &mut Pipe, request: &Request) -> Result<(), LinkError> {
        let (database, replica) = (self.seed.database(), self.seed.replica());
        let frame = wire::request(database, replica, self.seed.limit, request);
        let sent = tokio::time::timeout(PATIENCE, pipe.sender.send(frame)).await;
        sent.map_err(|_| LinkError::Deadline)?.map_err(|_| broken("the stream ended"))
    }

    /// The copy whose place it takes, for reading; nothing where there is none that opens.
    async fn old(&self, copies: &CopyPlace, staged: &Path) -> Option<Arc<dyn StateRead>> {
        let (place, seed) = (self.shared.place()?, &self.seed);
        let (database, old) = (seed.database(), ReplicaId(seed.replaces));
        if seed.replaces == 0 {
            return None;
        }
        if let Some(copy) = self.open_old(database, old).await {
            let folder = staged.join(OLD);
            place.disk().remove_dir_all(&folder).ok()?;
            copy.state().checkpoint(&folder).ok()?;
            return place.engine.open_read_only(&folder).ok();
        }
        let identity = place.root.copy_identity(database, seed.generation(), old);
        let state = install::copy_folder(copies, &identity).join(STATE);
        let there = place.disk().exists(&state).unwrap_or(false);
        there.then(|| place.engine.open_read_only(&state).ok()).flatten()
    }

    /// The old copy where it runs, which it may do only in a moment; nothing where it has failed.
    async fn open_old(&self, database: DatabaseId, old: ReplicaId) -> Option<Arc<OpenCopy>> {
        let end = Instant::now() + PATIENCE;
        loop {
            if self.shared.failed_copy(database).is_some_and(|(failed, _)| failed == old) {
                return None;
            }
            let runs = self.shared.group(database).is_some_and(|group| group.replica() == old);
            let opened = self.shared.state().opened.get(&database).cloned();
            match opened.filter(|opened| runs && opened.replica == old) {
                Some(opened) => return Some(opened.copy),
                None if Instant::now() >= end => return None,
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

async fn receive(pipe: &mut Pipe) -> Result<Reply, LinkError> {
    let received = tokio::time::timeout(PATIENCE, pipe.receiver.next()).await;
    let received = received.map_err(|_| LinkError::Deadline)?;
    match received.ok_or_else(|| broken("the stream ended"))??.frame {
        Some(pb::frame::Frame::SeedReply(reply)) => {
            wire::read_reply(reply).ok_or_else(|| broken("an answer that is none"))
        }
        _ => Err(broken("a frame of another kind")),
    }
}

fn broken(detail: &str) -> LinkError {
    LinkError::Broken { detail: detail.to_owned() }
}

/// Keeps the folders of databases in order until the node's life ends.
pub async fn keep_house(shared: Arc<Shared>) {
    let (mut rounds, mut before) = (0_u32, None);
    loop {
        tokio::time::sleep(HOUSE).await;
        rounds += 1;
        let Some(state) = shared.state().control.clone() else { continue };
        let (slow, now) = (rounds.is_multiple_of(SLOW), seen(shared.node, &state));
        if !slow && before.as_ref() == Some(&now) {
            continue;
        }
        let mut clean = true;
        for database in mailbox_databases() {
            if let Err(fault) = tidy(&shared, &state, database, slow) {
                shared.tell(format!("db {database} not tidied: {fault}"));
                clean = false;
            }
        }
        before = clean.then_some(now);
        shared.disk_took().await;
    }
}

/// What decides which folders are of use: the copies and the seeds of a node.
fn seen(node: u64, state: &ControlState) -> (Vec<ReplicaId>, Vec<(ReplicaId, SeedPhase)>) {
    let copies = state.databases.iter().filter_map(|record| record.replica_on(NodeId(node)));
    let seeds = state.seeds.iter().filter(|seed| seed.node().0 == node);
    let seeds = seeds.map(|seed| (seed.replica(), seed.phase()));
    (copies.map(ReplicaRecord::id).collect(), seeds.collect())
}

fn tidy(
    shared: &Shared,
    state: &ControlState,
    database: DatabaseId,
    slow: bool,
) -> Result<(), SeedFault> {
    let (Some(place), node) = (shared.place(), NodeId(shared.node)) else { return Ok(()) };
    let copies = place.of(database);
    // Before a copy was made here there is no folder.
    let Ok(names) = place.disk().list(&copies.folder) else { return Ok(()) };
    let open = shared.group(database).map(|group| group.replica());
    let now = Millis(shared.now_ms());
    for name in names {
        match parse(&name) {
            Some(Folder::Copy(generation, replica))
                if open != Some(replica) && is_stray(node, state, database, replica) =>
            {
                let old = place.root.copy_identity(database, generation, replica);
                install::retire(&copies, &old, now)?;
                shared.tell(format!("db {database} replica {replica} lies in the trash"));
            }
            Some(Folder::Seed(replica)) if is_stray(node, state, database, replica) => {
                install::clean(&copies, &copies.folder.join(name))?;
            }
            _ => {}
        }
    }
    if slow && place.disk().exists(&copies.folder.join(giver::CHECKPOINTS)).unwrap_or(false) {
        lock(&*giver::source(shared, database)?).expire(shared.clock.boottime())?;
    }
    if slow {
        trash::empty(&*place.disk(), &copies.folder, now, KEEP, 0)?;
    }
    Ok(())
}
