//! The target: copies that the control log wants here are built, each by a thread of its own.
//!
//! What is durable is on record beside the files, so a killed node goes on where it was. A source
//! that is lost is replaced by the next one, and what was received from the first is kept as far as
//! the digests agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use active_manager::control::{SeedPhase, SeedRecord};
use active_manager::seed;
use dag_api::peer::v1 as pb;
use dag_types::{NodeId, ReplicaId};
use futures::StreamExt;
use replication::MEMBERSHIP_KEY;
use replication::link::{LinkError, Pipe};
use seeding::SeedFault;
use seeding::install;
use seeding::progress::{Phase, Progress};
use seeding::relocate::{MoveOrder, MoveStep, Relocation};
use seeding::target::{SeedOrder, Step, Target, seed_folder};
use seeding::wire::{CheckpointId, Refusal, Reply, Request};
use storage::copy_directory::CopyPlace;
use storage::disk::{Disk, WriteBehind};
use storage::identity::CopyIdentity;
use tokio::runtime::Handle;

use super::wire;
use crate::node::Node;
use crate::reports::STALE;
use crate::service::admin::AdminServer;

/// How often it is looked for what to build.
const LOOK: Duration = Duration::from_millis(100);
/// How long a source may be silent. A slow limit makes it wait before every range.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a seed waits before it tries the next source.
const PAUSE: Duration = Duration::from_millis(500);

/// A copy that a thread builds.
struct Building {
    stop: Arc<AtomicBool>,
    thread: tokio::task::JoinHandle<()>,
}

/// Builds what the control log wants here, until the node is stopped.
pub async fn run(node: Arc<Node>) {
    let mut building: BTreeMap<ReplicaId, Building> = BTreeMap::new();
    let mut control = node.control_changes();
    while !node.stopping.is_cancelled() {
        look(&node, &mut building);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            // The node outlives this task, and with it what tells.
            _ = control.changed() => {}
            () = node.stopping.cancelled() => {}
        }
    }
    for (_, Building { stop, thread }) in building {
        stop.store(true, Ordering::SeqCst);
        let _ = thread.await;
    }
}

fn look(node: &Arc<Node>, building: &mut BTreeMap<ReplicaId, Building>) {
    building.retain(|_, running| !running.thread.is_finished());
    let Some(state) = node.control() else { return };
    let here = |seed: &&SeedRecord| seed.node() == node.id() && seed.store() == node.store_id();
    let mut wanted: Vec<&SeedRecord> = state.seeds.iter().filter(here).collect();
    wanted.sort_by_key(|seed| seed.operation);
    let known = |replica: &ReplicaId| wanted.iter().any(|seed| seed.replica() == *replica);
    node.seeds.held().retain(|replica, _| known(replica));
    wanted.retain(|seed| seed.phase() == SeedPhase::Building);
    for (replica, running) in building.iter() {
        if !wanted.iter().any(|seed| seed.replica() == *replica) {
            running.stop.store(true, Ordering::SeqCst);
        }
    }
    for seed in wanted {
        let shown = node.seeds.shown(seed.replica()).unwrap_or_default();
        let over = shown.failed || shown.progress.phase >= Phase::Built;
        if over || building.contains_key(&seed.replica()) {
            continue;
        }
        let waits = building.len() >= seed::PER_NODE;
        node.seeds.show(seed.replica(), |shown| shown.waits = waits);
        if !waits {
            building.insert(seed.replica(), start(node, seed));
        }
    }
}

fn start(node: &Arc<Node>, seed: &SeedRecord) -> Building {
    let stop = Arc::new(AtomicBool::new(false));
    let build = Build {
        node: node.clone(),
        seed: seed.clone(),
        stop: stop.clone(),
        bulk: node.bulk.clone(),
    };
    let thread = node.bulk.spawn_blocking(move || build.run());
    Building { stop, thread }
}

/// Why a connection to a source ended.
enum Ended {
    /// The copy is built.
    Built,
    /// The node stops, or nobody wants the copy any more.
    Stopped,
    /// Another connection is needed.
    Reconnect(String),
}

struct Build {
    node: Arc<Node>,
    seed: SeedRecord,
    stop: Arc<AtomicBool>,
    bulk: Handle,
}

impl Build {
    fn run(&self) {
        let replica = self.seed.replica();
        let (database, operation) = (self.seed.database(), self.seed.operation);
        tracing::info!(db = %database, %replica, op = operation, "a copy is built");
        match self.build() {
            Ok(true) => {
                tracing::info!(db = %database, %replica, op = operation, "the copy is built");
                self.node.scrubs.built(replica);
                self.show(|shown| shown.progress.phase = shown.progress.phase.max(Phase::Built));
            }
            Ok(false) => {}
            Err(fault) => {
                tracing::error!(db = %database, %replica, %fault, "the copy cannot be built");
                let failed = fault.is_final();
                self.show(|shown| {
                    (shown.message, shown.failed) = (fault.to_string(), failed);
                });
                if !failed {
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn show(&self, change: impl FnOnce(&mut super::Shown)) {
        self.node.seeds.show(self.seed.replica(), change);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || self.node.stopping.is_cancelled()
    }

    /// Whether the copy is built; not where it was stopped.
    fn build(&self) -> Result<bool, SeedFault> {
        let (store, seed) = (&self.node.store, &self.seed);
        let place = store.place(seed.database(), &seed.path);
        let identity = store.root.copy_identity(seed.database(), seed.generation(), seed.replica());
        // A control log that is read again after a restart may be behind.
        if install::is_installed(&place, &identity)? {
            return Ok(true);
        }
        let disk = store.disk.clone();
        store.claim_folder(seed.database(), &place.folder)?;
        if seed.relocates() {
            return self.relocate(place, identity);
        }
        let order = SeedOrder {
            identity,
            at_least: None,
            reserve_bytes: self.node.settings.budget.disk_reserve.0,
            link_from: None,
        };
        let folder = seed_folder(&place.folder, seed.replica());
        // Without a thread to spare, writes are waited for.
        let behind: Arc<dyn Disk> = match WriteBehind::new(disk.clone()) {
            Ok(behind) => Arc::new(behind),
            Err(_) => disk,
        };
        let mut target = Target::open(behind, &folder, order)?;
        if !target.is_built() && !seed.whole {
            target.take_over(store.engine(), super::old::open(&self.node, seed, &folder));
        }
        let mut turn = 0;
        while !self.stopped() {
            self.tell(&target, None, "");
            if target.is_built() {
                return Ok(true);
            }
            let Some(source) = self.source(turn) else {
                self.tell(&target, None, "no healthy copy answers to build it from");
                std::thread::sleep(PAUSE);
                continue;
            };
            turn += 1;
            match self.from_one(&mut target, source)? {
                Ended::Built => {
                    self.tell(&target, None, "");
                    return Ok(true);
                }
                Ended::Stopped => return Ok(false),
                Ended::Reconnect(why) => {
                    tracing::warn!(db = %seed.database(), peer = %source, why, "a seed's source");
                    target.disconnected();
                    self.tell(&target, None, &format!("node {source}: {why}"));
                    std::thread::sleep(PAUSE);
                }
            }
        }
        Ok(false)
    }

    /// Builds it from the copy whose place it takes, which goes on meanwhile.
    fn relocate(&self, to: CopyPlace, new: CopyIdentity) -> Result<bool, SeedFault> {
        let (store, seed) = (&self.node.store, &self.seed);
        let database = seed.database();
        let unfit = || SeedFault::Refused(Refusal::Unfit);
        let copy = store.copy(database).ok_or_else(unfit)?;
        let from = store.place_in(store.folder_of(database).ok_or_else(unfit)?);
        let old = ReplicaId(seed.replaces);
        let old = store.root.copy_identity(database, seed.generation(), old);
        let mut relocation = Relocation::open(MoveOrder {
            from,
            to,
            old,
            new,
            membership_key: MEMBERSHIP_KEY.to_vec(),
            limit: (seed.limit > 0).then_some(seed.limit),
            reserve_bytes: self.node.settings.budget.disk_reserve.0,
        })?;
        let id = CheckpointId(uuid::Uuid::new_v4().as_u128());
        let engine = store.engine();
        relocation.checkpoint(self.node.seeds.now(), id, &*copy.state(), &*engine)?;
        while !self.stopped() {
            self.show(|shown| {
                let progress = relocation.progress().unwrap_or_default();
                *shown = super::Shown { progress, source: Some(self.node.id()), ..shown.clone() };
            });
            if relocation.next(false)? != MoveStep::Stage {
                return Ok(true);
            }
            let now = self.node.seeds.now();
            if let Some(later) = relocation.stage(now)? {
                let wait = later.saturating_sub(now).0.min(LOOK.as_millis() as u64);
                std::thread::sleep(Duration::from_millis(wait));
            }
        }
        Ok(false)
    }

    /// The sources in turn, the best one first.
    fn source(&self, turn: usize) -> Option<NodeId> {
        let state = self.node.control()?;
        let record = state.database(self.seed.database())?;
        let admin = AdminServer::of(self.node.clone());
        let reports = admin.reports(self.node.member().ok()?, STALE);
        let wish = (self.seed.from != 0).then_some(NodeId(self.seed.from));
        let sources = seed::sources(&state, &reports, record, self.node.id(), wish);
        (!sources.is_empty()).then(|| sources[turn % sources.len()])
    }

    fn from_one(&self, target: &mut Target, source: NodeId) -> Result<Ended, SeedFault> {
        let Ok(member) = self.node.member() else { return Ok(Ended::Stopped) };
        let mut pipe = match self.bulk.block_on(member.registry.open_seed(source)) {
            Ok(pipe) => pipe,
            Err(error) => return Ok(Ended::Reconnect(error.to_string())),
        };
        self.tell(target, Some(source), "");
        let ended = self.exchange(target, source, &mut pipe);
        if matches!(ended, Ok(Ended::Built)) {
            // The source keeps its checkpoint only for those who still want it.
            let _ = self.send(&mut pipe, &Request::Close);
        }
        match ended {
            Err(fault) if fault.is_the_sources() => Ok(Ended::Reconnect(fault.to_string())),
            Err(fault) if target.takes_rows() && fault.is_the_states() => {
                // With whole files nothing is read of the old copy, nor written through the engine.
                target.give_up_rows()?;
                Ok(Ended::Reconnect(format!("it goes on without a delta: {fault}")))
            }
            ended => ended,
        }
    }

    fn exchange(
        &self,
        target: &mut Target,
        source: NodeId,
        pipe: &mut Pipe,
    ) -> Result<Ended, SeedFault> {
        let mut told = self.node.seeds.now();
        let mut reply: Option<Reply> = None;
        while !self.stopped() {
            let now = self.node.seeds.now();
            if now.saturating_sub(told).0 >= LOOK.as_millis() as u64 {
                told = now;
                self.tell(target, Some(source), "");
            }
            match target.step(now, reply.take())? {
                Step::Again => {}
                Step::Built => return Ok(Ended::Built),
                Step::Reconnect => {
                    return Ok(Ended::Reconnect("what arrived was damaged, or is gone".into()));
                }
                Step::Ask(request) => {
                    if let Err(error) = self.send(pipe, &request) {
                        return Ok(Ended::Reconnect(error.to_string()));
                    }
                }
                Step::Wait => match self.receive(pipe) {
                    Ok(received) => reply = Some(received),
                    Err(error) => return Ok(Ended::Reconnect(error.to_string())),
                },
            }
        }
        Ok(Ended::Stopped)
    }

    fn send(&self, pipe: &mut Pipe, request: &Request) -> Result<(), LinkError> {
        let (database, replica) = (self.seed.database(), self.seed.replica());
        let frame = wire::request(database, replica, self.seed.limit, request);
        let sent = async { tokio::time::timeout(PATIENCE, pipe.sender.send(frame)).await };
        let sent = self.bulk.block_on(sent).map_err(|_| LinkError::Deadline)?;
        sent.map_err(|_| broken("the stream ended"))
    }

    fn receive(&self, pipe: &mut Pipe) -> Result<Reply, LinkError> {
        let received = async { tokio::time::timeout(PATIENCE, pipe.receiver.next()).await };
        let received = self.bulk.block_on(received).map_err(|_| LinkError::Deadline)?;
        let frame = received.ok_or_else(|| broken("the stream ended"))??;
        match frame.frame {
            Some(pb::frame::Frame::SeedReply(reply)) => {
                wire::read_reply(reply).ok_or_else(|| broken("an answer that is none"))
            }
            _ => Err(broken("a frame of another kind")),
        }
    }

    fn tell(&self, target: &Target, source: Option<NodeId>, message: &str) {
        let mut progress: Progress = target.progress();
        if source.is_none() {
            (progress.rate, progress.left) = (0, None);
        }
        let (message, way) = (message.to_owned(), target.way());
        self.show(|shown| {
            let (waits, failed) = (false, false);
            *shown = super::Shown { progress, waits, source, message, failed, way };
        });
    }
}

fn broken(detail: &str) -> LinkError {
    LinkError::Broken { detail: detail.to_owned() }
}
