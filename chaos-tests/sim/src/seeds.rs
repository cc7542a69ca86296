//! Copies that are built from others while faults come and go: what is asked for, where faults hit them,
//! and what must be true of all this, watched from outside.
//!
//! | rule | what is broken |
//! | --- | --- |
//! | B1 | a copy was put in its place that was never wholly verified, or holds something else than the checkpoint it was built from |
//! | B2 | a new copy votes before its digest was found equal to the active copy's at one mark |
//! | B3 | two replicas of one database are open on one node |
//! | B4 | a seed stays running though everything is healed |
//! | B5 | a new copy's digest differs from the active copy's, and no disk did anything |
//! | B6 | fewer copies vote than did before, though every copy is there again |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use active_manager::control::{ControlState, OperationKind, OperationState, SeedPhase, SeedRecord};
use active_manager::seed::SeedKind;
use dag_types::{DatabaseId, LogId, ReplicaId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::admitting::SeedWish;
use crate::dice::Dice;
use crate::founding;
use crate::nemesis::{Fault, Planned};
use crate::operator::{Asked, What, reports};
use crate::server::{Reply, Request};
use crate::shape::{DATA_NODES, FIRST_DATABASE, LAST_DATABASE, NODES, WITNESS, mailbox_databases};
use crate::world::World;

/// How long whoever asks for a seed goes on asking with what was known at its beginning.
const PATIENCE: Duration = Duration::from_millis(400);
/// After how long it is asked for again.
const AGAIN_MS: u64 = 600;
/// Runs without seeds, in a thousand.
const WITHOUT: u64 = 300;

/// What a node noted of a copy that is built, given or compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedNote {
    /// A checkpoint was taken.
    Checkpoint {
        /// Where it ends.
        at: LogId,
        /// What it holds; nothing where it cannot be read.
        digest: Option<[u8; 16]>,
        /// How much it is.
        bytes: u64,
    },
    /// A node begins to build, or goes on.
    Begun {
        /// The new copy.
        replica: ReplicaId,
        /// An earlier try left something.
        resumed: bool,
    },
    /// It goes on with another source than before.
    Changed {
        /// The new copy.
        replica: ReplicaId,
    },
    /// It is whole, durable and verified.
    Built {
        /// The new copy.
        replica: ReplicaId,
    },
    /// It was put in its place.
    Installed {
        /// The new copy.
        replica: ReplicaId,
        /// Where it ends.
        at: Option<LogId>,
        /// What it holds; nothing where it cannot be read.
        digest: Option<[u8; 16]>,
    },
    /// A copy was opened.
    Opened {
        /// Which.
        replica: ReplicaId,
    },
    /// A copy was closed.
    Closed {
        /// Which.
        replica: ReplicaId,
    },
    /// It was compared with the active copy.
    Compared {
        /// The new copy.
        replica: ReplicaId,
        /// Their digests were the same.
        equal: bool,
    },
}

impl SeedNote {
    /// Whether it counts though the power went in the same moment: it follows from what was durable
    /// before, and others may have heard of it.
    pub fn is_certain(&self) -> bool {
        matches!(self, Self::Checkpoint { .. } | Self::Built { .. } | Self::Compared { .. })
    }
}

/// Where a fault hits a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hit {
    /// The target's process ends.
    KillTarget,
    /// The target loses power.
    CrashTarget,
    /// The target loses power in the middle of what its disk does.
    PowerCutTarget,
    /// The source's process ends.
    KillSource,
    /// The source loses power.
    CrashSource,
    /// The node that leads the control group loses power.
    CrashControl,
    /// Target and source do not hear each other.
    Cut,
    /// A bit of what the source sends next flips on its way.
    Flip,
}

impl Hit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::KillTarget,
        Self::CrashTarget,
        Self::PowerCutTarget,
        Self::KillSource,
        Self::CrashSource,
        Self::CrashControl,
        Self::Cut,
        Self::Flip,
    ];

    /// As it stands in histories.
    pub fn kind(self) -> &'static str {
        match self {
            Self::KillTarget => "seed_target_killed",
            Self::CrashTarget => "seed_target_crash",
            Self::PowerCutTarget => "seed_target_power_cut",
            Self::KillSource => "seed_source_killed",
            Self::CrashSource => "seed_source_crash",
            Self::CrashControl => "seed_control_crash",
            Self::Cut => "seed_cut",
            Self::Flip => "seed_bit_flip",
        }
    }
}

/// Draws what is built in a run, and the faults that hit it. From the moment in which a new copy takes
/// the place of a voter until it is admitted, one vote is missing: where the disk of one node takes a
/// second one, nobody can lead. So where a disk harms copies, only that node's are built anew.
pub fn draw(dice: &mut Dice, within_ms: u64, only: Option<u64>) -> (Vec<Asked>, Vec<Planned>) {
    let (mut asked, mut faults) = (Vec::new(), Vec::new());
    if dice.chance(WITHOUT) {
        return (asked, faults);
    }
    for _ in 0..dice.between(1, 3) {
        let at_ms = dice.between(100, within_ms * 2 / 3);
        let database = dice.between(FIRST_DATABASE, LAST_DATABASE);
        let any = dice.between(1, DATA_NODES);
        let node = only.unwrap_or(any);
        let (whole, limit) = (dice.chance(500), *dice.pick(&[0, 64_000, 128_000, 256_000]));
        asked.push(Asked { at_ms, what: What::Reseed { database, node, whole, limit } });
        for _ in 0..dice.between(1, 3) {
            let hit = *dice.pick(&Hit::ALL);
            let (after_ms, draw) = (dice.between(1, 500), dice.next() >> 16);
            let fault = Fault::Seed { database, hit, after_ms, draw };
            faults.push(Planned { at_ms, for_ms: *dice.pick(&[20, 200, 600]), fault });
        }
    }
    (asked, faults)
}

/// A copy that somebody wants to be built.
#[derive(Debug, Clone, Copy)]
pub struct Wished {
    /// Of which database.
    pub database: DatabaseId,
    /// Where.
    pub node: u64,
    /// Everything is sent, also what the old copy has.
    pub whole: bool,
    /// Bytes a second; 0: no limit.
    pub limit: u64,
}

/// What is known of seeds.
#[derive(Default)]
pub struct Seeds {
    /// What checkpoints of a database hold.
    checkpoints: BTreeMap<(DatabaseId, LogId), [u8; 16]>,
    /// Copies that were verified wholly.
    built: BTreeSet<ReplicaId>,
    /// Copies that were put in their place, and the databases they are of.
    joining: BTreeMap<ReplicaId, DatabaseId>,
    /// Copies whose digest was found equal.
    equal: BTreeSet<ReplicaId>,
    /// What is open on each node.
    open: BTreeMap<(u64, DatabaseId), BTreeSet<ReplicaId>>,
    /// When each seed was seen first.
    since: BTreeMap<ReplicaId, u64>,
    /// Copies that were found once already.
    found: BTreeSet<ReplicaId>,
    wished: u64,
    /// How many comparisons found a difference.
    differing: u32,
    /// What was not begun yet, when it is asked for again, and whether it was begun.
    waiting: Vec<(u64, Wished, Arc<AtomicBool>)>,
    /// How often what happened.
    pub counts: Counts,
}

/// How seeds of a run, or of many, fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Seeds that the control log took in.
    pub begun: u64,
    /// Those whose copy was admitted.
    pub finished: u64,
    /// Those that went on where an earlier try had left them.
    pub resumed: u64,
    /// Those that went on with another source.
    pub changed: u64,
    /// Faults that hit one in its middle.
    pub hit: u64,
    /// Of them bits that flipped on their way.
    pub flipped: u64,
}

impl Counts {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            begun: self.begun + other.begun,
            finished: self.finished + other.finished,
            resumed: self.resumed + other.resumed,
            changed: self.changed + other.changed,
            hit: self.hit + other.hit,
            flipped: self.flipped + other.flipped,
        }
    }
}

/// A seed under way, for a fault that is to hit it.
pub struct Aim {
    /// Who builds.
    pub target: u64,
    /// From whom, at this moment.
    pub source: Option<u64>,
}

impl World {
    /// The control log as far as anybody has applied it.
    pub fn control(&self) -> Option<Arc<ControlState>> {
        let leader = self.serving(DatabaseId::CONTROL);
        let known = |id: u64| self.nodes[&id].life.as_ref()?.shared.state().control.clone();
        leader.and_then(known).or_else(|| (1..=NODES).find_map(known))
    }

    /// Asks for a copy to be built, and goes on until it is begun: what forbids it passes.
    pub fn want_seed(&mut self, wished: Wished) {
        let begun = self.ask_for_seed(wished);
        self.seeds.waiting.push((self.now_ms + AGAIN_MS, wished, begun));
    }

    /// Asks once for a copy to be built, at whichever node leads the control group; gives whether it was
    /// begun, once that is known.
    pub fn ask_for_seed(&mut self, wished: Wished) -> Arc<AtomicBool> {
        let Wished { database, node, whole, limit } = wished;
        // A copy that Failed may have opened again since: as its node says it now.
        let life = self.nodes[&node].life.as_ref();
        let failed = life.is_some_and(|life| life.shared.failed_copy(database).is_some());
        let kind = if failed { SeedKind::Seed } else { SeedKind::Reseed };
        self.seeds.wished += 1;
        let request = format!("seed-{}", self.seeds.wished);
        self.trace.tell(format!("wish {request} db {database} on node {node} {kind:?}"));
        let reports = reports(self);
        let wish = SeedWish { request, database, node, kind, whole, limit, reports };
        let (work, begun) = (self.work.clone(), Arc::new(AtomicBool::new(false)));
        let done = begun.clone();
        self.spawn_client(async move {
            let end = Instant::now() + PATIENCE;
            let mut node = WITNESS;
            while Instant::now() < end {
                match work.ask(node, Request::Seed(wish.clone())).await {
                    Some(Reply::Stepped(stepped)) => {
                        return done.store(stepped.is_ok(), Ordering::Relaxed);
                    }
                    Some(Reply::Refused(Some(hint))) if hint != node => node = hint,
                    _ => node = node % NODES + 1,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        begun
    }

    /// Asks again for what was not begun.
    fn ask_again(&mut self) {
        let (now, mut due) = (self.now_ms, Vec::new());
        self.seeds.waiting.retain(|(at, wished, begun)| {
            let again = !begun.load(Ordering::Relaxed);
            due.extend((again && *at <= now).then_some(*wished));
            again && *at > now
        });
        due.into_iter().for_each(|wished| self.want_seed(wished));
    }

    /// Nobody asks any more for what was not begun: a run has an end.
    pub fn stop_wishing(&mut self) {
        self.seeds.waiting.clear();
    }

    /// Of what a run is to build, the first, where nothing was built yet: nothing keeps it from that when
    /// everything is healed.
    pub fn still_wished(&self) -> Option<(u64, DatabaseId)> {
        let first = self.schedule.asked.iter().find_map(|asked| match asked.what {
            What::Reseed { database, node, .. } => Some((node, DatabaseId(database))),
            _ => None,
        });
        // An active copy is not built anew, and nothing moves it any more.
        let first = first.map(|(node, database)| match self.serving(database) {
            Some(active) if active == node => (node % DATA_NODES + 1, database),
            _ => (node, database),
        });
        first.filter(|_| self.seed_counts().finished == 0)
    }

    /// A seed of a database that has been under way for so long.
    pub fn aim(&self, database: DatabaseId, after_ms: u64) -> Option<Aim> {
        let state = self.control()?;
        let old = |seed: &&SeedRecord| {
            let since = self.seeds.since.get(&seed.replica());
            seed.database() == database && since.is_some_and(|at| at + after_ms <= self.now_ms)
        };
        let seed = state.seeds.iter().find(old)?;
        let target = seed.node().0;
        let life = self.nodes[&target].life.as_ref();
        let building = seed.phase() == SeedPhase::Building;
        let shown = life.map(|life| life.shared.seeding.shown(seed.replica()));
        Some(Aim { target, source: shown.and_then(|shown| shown.source).filter(|_| building) })
    }

    /// A node noted something of a seed.
    pub fn note_seed(&mut self, node: u64, database: DatabaseId, note: SeedNote) {
        match note {
            SeedNote::Checkpoint { at, digest, .. } => {
                if let Some(digest) = digest {
                    self.seeds.checkpoints.insert((database, at), digest);
                }
            }
            SeedNote::Begun { resumed, .. } => self.seeds.counts.resumed += u64::from(resumed),
            SeedNote::Changed { .. } => self.seeds.counts.changed += 1,
            SeedNote::Built { replica } => {
                self.seeds.built.insert(replica);
            }
            SeedNote::Installed { replica, at, digest } => {
                self.seeds.joining.insert(replica, database);
                self.check_installed(node, database, replica, at, digest);
            }
            SeedNote::Opened { replica } => {
                let open = self.seeds.open.entry((node, database)).or_default();
                open.insert(replica);
                if open.len() > 1 {
                    let what = format!("B3: node {node} database {database}: {open:?} are open");
                    self.find(what);
                }
            }
            SeedNote::Closed { replica } => {
                self.seeds.open.entry((node, database)).or_default().remove(&replica);
            }
            SeedNote::Compared { replica, equal: true } => {
                self.seeds.equal.insert(replica);
            }
            SeedNote::Compared { replica, equal: false } => {
                self.seeds.differing += 1;
                if self.harmed.is_empty() {
                    self.find(format!(
                        "B5: database {database}: new replica {replica} differs from the active copy"
                    ));
                }
            }
        }
    }

    /// B1.
    fn check_installed(
        &mut self,
        node: u64,
        database: DatabaseId,
        replica: ReplicaId,
        at: Option<LogId>,
        digest: Option<[u8; 16]>,
    ) {
        let verified = self.seeds.built.contains(&replica);
        let checkpoint = at.and_then(|at| self.seeds.checkpoints.get(&(database, at)).copied());
        let same = checkpoint.is_none() || checkpoint == digest;
        if !(verified && same) {
            self.find(format!(
                "B1: node {node} database {database} replica {replica} at {at:?}: verified \
                 {verified}, as its checkpoint {same}"
            ));
        }
    }

    /// B2: a copy that is not known to be equal asks for votes, leads, or is counted for a voter.
    pub fn note_vote(&mut self, node: u64, database: DatabaseId, replica: ReplicaId) {
        let new = self.seeds.joining.get(&replica) == Some(&database);
        if new && !self.seeds.equal.contains(&replica) && self.seeds.found.insert(replica) {
            self.find(format!(
                "B2: node {node} database {database}: replica {replica} votes, and was never \
                 compared"
            ));
        }
    }

    /// Nothing of a node is open any more.
    pub fn note_stopped(&mut self, node: u64) {
        self.seeds.open.retain(|(at, _), _| *at != node);
    }

    /// Looks at seeds at the end of a tick.
    pub fn watch_seeds(&mut self) {
        self.ask_again();
        let lives = self.nodes.values().filter_map(|node| node.life.as_ref());
        for state in lives.filter_map(|life| life.shared.state().control.clone()) {
            for seed in &state.seeds {
                self.seeds.since.entry(seed.replica()).or_insert(self.now_ms);
            }
        }
        let waiting = self.seeds.joining.iter();
        let waiting: Vec<(ReplicaId, DatabaseId)> = waiting
            .filter(|(replica, _)| !self.seeds.equal.contains(replica))
            .map(|(replica, database)| (*replica, *database))
            .collect();
        for (replica, database) in waiting {
            let counts = |id: &u64| {
                let group = self.nodes[id].group(database);
                let members = group.map(|group| group.status().members).unwrap_or_default();
                members.iter().any(|member| member.replica == replica && member.voter)
            };
            if let Some(node) = (1..=DATA_NODES).find(counts) {
                self.note_vote(node, database, replica);
            }
        }
    }

    /// Copies that were built and never admitted: they are of no use.
    pub fn unfit(&self) -> BTreeSet<(u64, DatabaseId)> {
        let Some(state) = self.control() else { return BTreeSet::new() };
        let unfit = |database: DatabaseId| {
            let record = state.database(database).into_iter();
            let copies = record.flat_map(|record| &record.replicas);
            let unfit = copies.filter(|copy| !copy.unfit.is_empty());
            unfit.map(|copy| (copy.node().0, database)).collect::<Vec<_>>()
        };
        mailbox_databases().flat_map(unfit).collect()
    }

    /// B6, once everything is healed.
    pub fn check_voters(&mut self) {
        let Some(state) = self.control() else { return };
        for database in mailbox_databases() {
            let count = |state: &ControlState| {
                let record = state.database(database).into_iter();
                record.flat_map(|record| &record.replicas).filter(|copy| copy.voter).count()
            };
            let (before, now) = (count(founding::state()), count(&state));
            if now < before {
                self.find(format!("B6: database {database}: {now} of {before} copies vote"));
            }
        }
    }

    /// How many new copies were found to differ from the active one.
    pub fn differing(&self) -> u32 {
        self.seeds.differing
    }

    /// Seeds that are under way.
    pub fn seeding(&self) -> Vec<(u64, DatabaseId)> {
        let state = self.control();
        let seeds = state.iter().flat_map(|state| &state.seeds);
        seeds.map(|seed| (seed.node().0, seed.database())).collect()
    }

    /// How the seeds of the run fared.
    pub fn seed_counts(&self) -> Counts {
        let state = self.control();
        let operations = state.iter().flat_map(|state| &state.operations);
        let seeds = operations.filter(|known| known.kind() == OperationKind::SeedCopy);
        let done = seeds.clone().filter(|known| known.state() == OperationState::Done).count();
        Counts {
            begun: seeds.count() as u64,
            finished: done as u64,
            flipped: self.network.flipped(),
            ..self.seeds.counts
        }
    }
}
