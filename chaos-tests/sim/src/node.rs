//! A simulated node: a real registry, real groups, a real log and state, over a simulated disk and
//! network, on a runtime of its own.
//!
//! A node is one tokio runtime on the world's thread, with its clock stopped. The world gives it
//! one tick of time after the other; within a tick everything runs that can. A pause gives no
//! ticks, a fast clock gives more, and dropping the runtime ends every task of the node wherever it
//! stands: a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use active_manager::control::ControlState;
use dac::message::Holder;
use dag_types::{
    ActivationId, Boot, Candidacy, DagId, DatabaseId, Generation, Lineage, LogId, Millis, NodeId,
    ReplicaId, StoreId,
};
use openraft_rt::AsyncRuntime;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use replication::peer::{KnownPeers, PeerIdentity};
use replication::{
    Event, Group, GroupEvent, GroupSpec, Machine, Offload, OpenCopy, Options, Purge, Registry,
};
use storage::copy_directory::{CopyDirectory, CopyPlace, CopyStart, OpenFault};
use storage::disk::{Disk, SimDisk, SimDiskOptions};
use storage::flusher::{Attached, FlushRules, Flusher};
use storage::identity::{NodeIdentity, NodeRoot};
use storage::log::{EntryCache, SegmentSizes};
use storage::state::StateEngine;
use storage::state::map::MapEngine;
use storage::volume::{Pumped, Volume, VolumeDriver, VolumeOptions};
use tokio::sync::Notify;
use tokio::time::Instant;

use history::journal;

use crate::admitting;
use crate::builder;
use crate::dice::Dice;
use crate::driver;
use crate::gate::{self, SimGate};
use crate::giver::{Giver, Seeding};
use crate::machines::{ControlMachine, MailboxMachine};
use crate::network::Network;
use crate::office::{self, Office};
use crate::power::PowerDisk;
use crate::schedule::Weather;
use crate::seeds::SeedNote;
use crate::server::Acknowledged;
use crate::shape::{DATA_NODES, NODES};
use crate::trace::Trace;
use crate::work::Deliverer;

/// The runtime of simulated groups: tokio's, with random numbers from the seed.
pub type Rt = DeterministicRng<TokioRuntime>;

/// The one lineage of a run.
pub const LINEAGE: Lineage = Lineage { epoch: 1, activation: ActivationId([1; 16]) };
/// The DAG of a run.
pub const DAG: DagId = DagId([7; 16]);

/// Nanoseconds of a millisecond.
pub const NANOS: u64 = 1_000_000;
/// What BOOTTIME reads when a node starts: a machine runs for a while before its daemon does.
const SWITCHED_ON: u64 = 100_000;

/// A node's clocks, which the world moves.
#[derive(Debug)]
pub struct Clock {
    boottime: AtomicU64,
    /// For how long of it the machine slept.
    asleep: AtomicU64,
}

impl Clock {
    /// Milliseconds since the machine started, sleep included.
    pub fn boottime(&self) -> Millis {
        Millis(self.boottime.load(Ordering::SeqCst))
    }

    /// The same without the time that the machine slept.
    pub fn monotonic(&self) -> Millis {
        Millis(self.boottime().0 - self.asleep.load(Ordering::SeqCst))
    }
}

/// A copy that a node should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// Which copy.
    pub replica: ReplicaId,
    /// Of which incarnation of its group.
    pub generation: Generation,
    /// Whether it was made already: then it must be there.
    pub born: bool,
}

/// A node, with or without power.
pub struct Node {
    /// Its number.
    pub id: u64,
    /// Its disk.
    pub disk: PowerDisk,
    /// The copies it should hold.
    pub assigned: BTreeMap<DatabaseId, Assigned>,
    /// What it is while it runs.
    pub life: Option<Life>,
    /// Thousandths of a tick that its clock makes in a tick.
    pub clock_permille: u64,
    /// Ticks that it has not been given.
    pub paused_ms: Option<u64>,
    /// It does not stand still but sleeps: MONOTONIC will not have gone on.
    pub sleeps: bool,
    /// Milliseconds that its clock made while it ran.
    pub ran_ms: u64,
    /// The same when it last stopped, having started.
    pub stopped_ran_ms: u64,
    fraction: u64,
    dice: Dice,
    starts: u64,
    weather: Weather,
    trace: Trace,
}

/// A node from its start to its end.
pub struct Life {
    runtime: tokio::runtime::Runtime,
    /// What its tasks share with the world.
    pub shared: Arc<Shared>,
}

/// What a node's tasks share with the world.
pub struct Shared {
    /// Its number.
    pub node: u64,
    /// Which start.
    pub boot: Mutex<Boot>,
    /// Its clocks.
    pub clock: Arc<Clock>,
    /// What happened on it, with the world's time.
    pub journal: Mutex<Vec<(u64, Noted)>>,
    /// What the world looks at.
    pub state: Mutex<Running>,
    /// Its part in seeds.
    pub seeding: Seeding,
    disk: PowerDisk,
    trace: Trace,
}

/// What happened on a node.
pub enum Noted {
    /// To one of its copies.
    Copy(GroupEvent),
    /// To its gate, or to a step that it was sent, by its own clock in nanoseconds.
    Gate(u64, journal::Event),
    /// It answered a write.
    Acknowledged(Acknowledged),
    /// To a copy that is built, given or compared.
    Seed(DatabaseId, SeedNote),
}

/// What a running node has.
#[derive(Default)]
pub struct Running {
    /// All its groups, once it is up.
    pub registry: Option<Arc<Registry>>,
    /// Copies that were opened or made at this start.
    pub opened: BTreeMap<DatabaseId, Opened>,
    /// Copies that could not be opened, or were stopped by a fault, and why.
    pub failed: BTreeMap<DatabaseId, (ReplicaId, String)>,
    /// Why the node itself did not start.
    pub not_started: Option<String>,
    /// How often any of these changed.
    pub changes: u64,
    /// Its gate.
    pub gate: Option<Arc<SimGate>>,
    /// Its part in long operations.
    pub office: Option<Arc<Office>>,
    /// The applied control log.
    pub control: Option<Arc<ControlState>>,
    /// Databases whose copy here may not lead, whatever the gate says.
    pub barred: BTreeSet<DatabaseId>,
    place: Option<Arc<Place>>,
    attached: BTreeMap<DatabaseId, Attached>,
}

/// What was found when a copy was opened.
#[derive(Clone)]
pub struct Opened {
    /// Which copy.
    pub replica: ReplicaId,
    /// The copy.
    pub copy: Arc<OpenCopy>,
    /// The end of its log then.
    pub last: Option<LogId>,
    /// The term of its vote then.
    pub vote_term: u64,
    /// Whether it was made, not opened.
    pub made: bool,
    /// As what it was opened.
    pub assigned: Assigned,
    /// It was built from another copy.
    pub seeded: bool,
}

/// Where a node's copies lie, and what they are opened with.
pub struct Place {
    /// Who the node is.
    pub root: Arc<NodeRoot>,
    /// What states are opened with.
    pub engine: Arc<dyn StateEngine>,
    volume: Volume,
    cache: Arc<EntryCache>,
    flusher: Arc<Flusher>,
    folder: PathBuf,
}

impl Place {
    /// Where the copies of a database lie.
    pub fn of(&self, database: DatabaseId) -> CopyPlace {
        CopyPlace {
            root: self.root.clone(),
            volume: self.volume.clone(),
            cache: self.cache.clone(),
            folder: self.folder.join(format!("db-{database}")),
        }
    }

    /// The node's disk.
    pub fn disk(&self) -> Arc<dyn Disk> {
        self.volume.disk().clone()
    }
}

impl Node {
    /// A node with a formatted, empty disk, without power.
    pub fn new(id: u64, dice: &Dice, weather: &Weather, trace: &Trace) -> Self {
        let dice = dice.fork(&format!("node {id}"));
        let sim = SimDisk::new(dice.fork("disk").next(), SimDiskOptions::default());
        let disk = PowerDisk::new(sim);
        NodeRoot::format(&disk, &root_folder(id), NodeId(id), store(id)).expect("an empty disk");
        Self {
            id,
            disk,
            assigned: BTreeMap::new(),
            life: None,
            clock_permille: 1000,
            paused_ms: None,
            sleeps: false,
            ran_ms: 0,
            stopped_ran_ms: 0,
            fraction: 0,
            dice,
            starts: 0,
            weather: weather.clone(),
            trace: trace.clone(),
        }
    }

    /// Gives it power: it starts, opens its copies and runs their groups.
    pub fn start(&mut self, network: &Network, deliver: &Deliverer) {
        assert!(self.life.is_none(), "a node runs once");
        self.starts += 1;
        self.disk.restore();
        let mut dice = self.dice.fork(&format!("start {}", self.starts));
        let runtime = runtime(&mut dice);
        let shared = Arc::new(Shared {
            node: self.id,
            boot: Mutex::default(),
            clock: Arc::new(Clock { boottime: SWITCHED_ON.into(), asleep: 0.into() }),
            journal: Mutex::default(),
            state: Mutex::default(),
            seeding: Seeding::new(dice.fork("seeding")),
            disk: self.disk.clone(),
            trace: self.trace.clone(),
        });
        // Only a group that the run forms itself is opened by what the run knows. Whatever was given
        // to a node since is in its control log, and opened by that.
        let mut assigned = self.assigned.clone();
        assigned.retain(|database, _| *database == DatabaseId::CONTROL || self.starts == 1);
        let boot = BootOf {
            disk: self.disk.clone(),
            boot_id: dice.next(),
            weather: self.weather.clone(),
            assigned,
            network: network.clone(),
            deliver: deliver.clone(),
            shared: shared.clone(),
            dice: dice.fork("pace"),
        };
        network.back(self.id);
        runtime.spawn(Rt::scope(dice.next(), boot.run()));
        self.life = Some(Life { runtime, shared });
    }

    /// Ends its process. With `power_loss` what was not synced is torn or lost.
    pub fn stop(&mut self, network: &Network, power_loss: bool) -> Option<Arc<Shared>> {
        let life = self.life.take()?;
        self.disk.cut();
        // A life that could not start opened no log, and wrote no claim on what was told before.
        if life.shared.state().not_started.is_none() {
            self.stopped_ran_ms = self.ran_ms;
        }
        network.leave(self.id, power_loss);
        drop(life.runtime);
        if power_loss {
            self.disk.sim().crash();
        } else {
            self.disk.sim().kill();
        }
        (self.paused_ms, self.sleeps) = (None, false);
        let mut state = life.shared.state();
        *state = Running { failed: std::mem::take(&mut state.failed), ..Running::default() };
        drop(state);
        Some(life.shared)
    }

    /// One tick of the world's time.
    pub fn tick(&mut self) {
        let Some(life) = &self.life else { return };
        if let Some(paused) = &mut self.paused_ms {
            *paused += 1;
            return;
        }
        self.fraction += self.clock_permille;
        let whole = self.fraction / 1000;
        self.fraction %= 1000;
        self.ran_ms += whole;
        for _ in 0..whole {
            life.shared.clock.boottime.fetch_add(1, Ordering::SeqCst);
            life.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        }
    }

    /// Ends a pause: the clock went on meanwhile.
    pub fn resume(&mut self) {
        let Some(paused) = self.paused_ms.take() else { return };
        let slept = if std::mem::take(&mut self.sleeps) { paused } else { 0 };
        if let Some(life) = &self.life {
            let clock = &life.shared.clock;
            clock.boottime.fetch_add(paused, Ordering::SeqCst);
            clock.asleep.fetch_add(slept, Ordering::SeqCst);
            life.runtime.block_on(tokio::time::advance(Duration::from_millis(paused)));
        }
    }

    /// What its BOOTTIME clock reads now, also while it stands still.
    pub fn boottime(&self) -> Option<Millis> {
        let read = self.life.as_ref()?.shared.clock.boottime();
        Some(read + Millis(self.paused_ms.unwrap_or(0)))
    }

    /// Its gate, while it runs.
    pub fn gate(&self) -> Option<Arc<SimGate>> {
        self.life.as_ref()?.shared.state().gate.clone()
    }

    /// Its number in the random choices of its tasks.
    pub fn spawn<F>(&mut self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let seed = self.dice.next();
        if let Some(life) = &self.life {
            life.runtime.spawn(Rt::scope(seed, future));
        }
    }

    /// The group of a database, while it runs.
    pub fn group(&self, database: DatabaseId) -> Option<Group> {
        let life = self.life.as_ref()?;
        let registry = life.shared.state().registry.clone()?;
        registry.get(database)
    }
}

impl Life {
    /// Where tasks of this node are spawned.
    pub fn handle(&self) -> tokio::runtime::Handle {
        self.runtime.handle().clone()
    }
}

impl Shared {
    /// What the world looks at.
    pub fn state(&self) -> MutexGuard<'_, Running> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// The group of a database.
    pub fn group(&self, database: DatabaseId) -> Option<Group> {
        self.state().registry.as_ref()?.get(database)
    }

    /// All groups.
    pub fn groups(&self) -> Vec<Group> {
        let registry = self.state().registry.clone();
        registry.map(|registry| registry.groups()).unwrap_or_default()
    }

    /// Its part in long operations, once it is up.
    pub fn office(&self) -> Option<Arc<Office>> {
        self.state().office.clone()
    }

    /// What a wall clock reads that is right.
    pub fn now_ms(&self) -> u64 {
        self.trace.now_ns() / NANOS
    }

    /// Waits as long as the disk's last calls took.
    pub async fn disk_took(&self) {
        wait_for(&self.disk, self.disk.take_latency()).await;
    }

    /// Lets all groups know what the gate and the control log say now.
    pub fn settle_all(&self) {
        self.groups().iter().for_each(|group| gate::settle(self, group));
    }

    /// From now on the copy of a database here does not lead, whatever the gate says.
    pub fn bar(&self, database: DatabaseId) {
        self.state().barred.insert(database);
        if let Some(group) = self.group(database) {
            group.stand(Candidacy::Never);
        }
    }

    /// Writes into the journal that an answer leaves: what the gate does in the same millisecond stands
    /// before it or behind it as it happened.
    pub fn note_acknowledged(&self, acknowledged: Acknowledged) {
        let mut journal = self.journal.lock().unwrap_or_else(|poison| poison.into_inner());
        journal.push((acknowledged.at_ns, Noted::Acknowledged(acknowledged)));
    }

    /// Writes a line about the gate or a step into the journal.
    pub fn note(&self, event: journal::Event) {
        let now = self.trace.now_ns();
        self.trace.tell(format!("node {} {event:?}", self.node));
        let noted = Noted::Gate(self.clock.boottime().0 * NANOS, event);
        let mut journal = self.journal.lock().unwrap_or_else(|poison| poison.into_inner());
        journal.push((now, noted));
    }

    fn sink(self: &Arc<Self>) -> replication::EventSink {
        let shared = self.clone();
        Arc::new(move |event: GroupEvent| {
            let now = shared.trace.now_ns();
            match &event.event {
                Event::Durable { last } | Event::Applied { last } => {
                    let what = if matches!(event.event, Event::Durable { .. }) { 0 } else { 1 };
                    let (term, index) = (last.term, last.index);
                    let copy = [shared.node, event.database.0, what, term, index];
                    shared.trace.note("log", &copy);
                }
                other => shared
                    .trace
                    .tell(format!("node {} db {} {other:?}", shared.node, event.database)),
            }
            let mut journal = shared.journal.lock().unwrap_or_else(|poison| poison.into_inner());
            journal.push((now, Noted::Copy(event)));
        })
    }

    /// Where its copies lie, once it is up.
    pub fn place(&self) -> Option<Arc<Place>> {
        self.state().place.clone()
    }

    /// The copy of a database that a fault stopped here, and why.
    pub fn failed_copy(&self, database: DatabaseId) -> Option<(ReplicaId, String)> {
        self.state().failed.get(&database).cloned()
    }

    /// Something happened that is best told in words.
    pub fn tell(&self, what: String) {
        self.trace.tell(format!("node {} {what}", self.node));
    }

    /// Writes into the journal what happened to a copy that is built, given or compared.
    pub fn trace_seed(&self, database: DatabaseId, note: SeedNote) {
        self.tell(format!("db {database} {note:?}"));
        let mut journal = self.journal.lock().unwrap_or_else(|poison| poison.into_inner());
        journal.push((self.trace.now_ns(), Noted::Seed(database, note)));
    }

    /// Opens or makes a copy and starts its group; in the node's own runtime.
    pub async fn open(self: &Arc<Self>, database: DatabaseId, assigned: Assigned) {
        let Some(place) = self.place() else { return };
        match self.open_copy(&place, database, assigned) {
            Ok((directory, made)) => {
                self.run(&place, database, assigned, directory, (made, false)).await
            }
            Err(fault) => {
                wait_for(&self.disk, self.disk.take_latency()).await;
                self.trace.tell(format!("node {} db {database} not opened: {fault}", self.node));
                self.note_failed(database, assigned.replica, fault.to_string());
            }
        }
    }

    /// Starts the group of a copy that was opened.
    pub async fn run(
        self: &Arc<Self>,
        place: &Place,
        database: DatabaseId,
        assigned: Assigned,
        directory: CopyDirectory,
        (made, seeded): (bool, bool),
    ) {
        let registry = self.state().registry.clone();
        let Some(registry) = registry else { return };
        let log = &directory.log;
        let (last, vote) = (log.bounds().last, log.vote());
        let copy = OpenCopy::new(directory, place.engine.clone(), place.volume.clone());
        let (replica, vote_term) = (assigned.replica, vote.map_or(0, |vote| vote.term));
        let copied = copy.clone();
        let opened = Opened { replica, copy: copied, last, vote_term, made, assigned, seeded };
        wait_for(&self.disk, self.disk.take_latency()).await;
        self.trace_seed(database, SeedNote::Opened { replica });
        let attached = place.flusher.attach(copy.clone());
        {
            let mut state = self.state();
            state.opened.insert(database, opened);
            state.changes += 1;
            state.attached.insert(database, attached);
        }
        // The gate says more once the group is there.
        let ungated = database == DatabaseId::CONTROL;
        let spec = GroupSpec {
            database,
            generation: assigned.generation,
            replica,
            candidacy: if ungated { Candidacy::Freely } else { Candidacy::Never },
            may_mount: ungated,
        };
        match registry.start(spec, copy, machine(database)).await {
            Ok(group) => {
                self.state().failed.remove(&database);
                gate::settle(self, &group);
            }
            Err(error) => self.note_failed(database, replica, error.to_string()),
        }
    }

    /// A fault stopped a copy, or kept it from being opened.
    pub fn note_failed(&self, database: DatabaseId, replica: ReplicaId, why: String) {
        let mut state = self.state();
        state.failed.insert(database, (replica, why));
        state.changes += 1;
    }

    /// A running copy is damaged: it stops and counts for nothing.
    pub async fn fail_copy(self: &Arc<Self>, database: DatabaseId, why: &str) {
        let Some(group) = self.group(database) else { return };
        self.note_failed(database, group.replica(), why.to_owned());
        drop(group);
        self.close(database).await;
    }

    fn open_copy(
        &self,
        place: &Place,
        database: DatabaseId,
        assigned: Assigned,
    ) -> Result<(CopyDirectory, bool), OpenFault> {
        let identity = place.root.copy_identity(database, assigned.generation, assigned.replica);
        let copy_place = place.of(database);
        match CopyDirectory::open(&copy_place, identity, &*place.engine) {
            Err(OpenFault::Missing { .. }) if !assigned.born => {
                let start = CopyStart::Empty;
                let made = CopyDirectory::create(&copy_place, identity, start, &*place.engine)?;
                Ok((made, true))
            }
            opened => Ok((opened?, false)),
        }
    }

    /// Stops a copy and closes it.
    pub async fn close(&self, database: DatabaseId) {
        let registry = self.state().registry.clone();
        if let Some(registry) = registry {
            registry.stop(database).await;
        }
        self.seeding.close_source(database);
        let (opened, attached) = {
            let mut state = self.state();
            (state.opened.remove(&database), state.attached.remove(&database))
        };
        drop(attached);
        if let Some(opened) = opened {
            let (done, closed) = tokio::sync::oneshot::channel();
            opened.copy.close(Box::new(move |_| {
                let _ = done.send(());
            }));
            let _ = closed.await;
            self.trace_seed(database, SeedNote::Closed { replica: opened.replica });
        }
    }

    /// Takes a copy out of service and its directory away.
    pub async fn discard(&self, database: DatabaseId, assigned: Assigned) {
        self.state().failed.remove(&database);
        self.close(database).await;
        let Some(place) = self.place() else { return };
        let identity = place.root.copy_identity(database, assigned.generation, assigned.replica);
        if let Err(fault) = CopyDirectory::discard(&place.of(database), &identity) {
            self.trace.tell(format!("node {} db {database} not discarded: {fault}", self.node));
        }
    }
}

fn machine(database: DatabaseId) -> Arc<dyn Machine> {
    match database {
        DatabaseId::CONTROL => Arc::new(ControlMachine),
        _ => Arc::new(MailboxMachine),
    }
}

fn root_folder(id: u64) -> PathBuf {
    PathBuf::from(format!("/node-{id}"))
}

/// The store of a node: it is never formatted again.
pub fn store(id: u64) -> StoreId {
    StoreId([id as u8; 16])
}

/// A runtime whose clock stands still unless it is told otherwise, and whose own choices follow
/// from the dice. A panic in any task is a panic of the world, which looks for it after each tick:
/// tokio's own shutdown at a panic wakes tasks while it holds what waking needs, and ends the process.
pub fn runtime(dice: &mut Dice) -> tokio::runtime::Runtime {
    let seed = tokio::runtime::RngSeed::from_bytes(&dice.next().to_be_bytes());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(seed)
        .build()
        .expect("a runtime needs nothing from the system");
    // Puts the clock on a whole millisecond, which timers are rounded to.
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    runtime
}

/// What a node does at its start.
struct BootOf {
    disk: PowerDisk,
    boot_id: u64,
    weather: Weather,
    assigned: BTreeMap<DatabaseId, Assigned>,
    network: Network,
    deliver: Deliverer,
    shared: Arc<Shared>,
    dice: Dice,
}

impl BootOf {
    async fn run(self) {
        let id = self.shared.node;
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let folder = root_folder(id);
        let root = match NodeRoot::start(disk.clone(), &folder, NodeId(id), self.boot_id)
            .and_then(|root| root.join(DAG).map(|()| root))
        {
            Ok(root) => Arc::new(root),
            Err(fault) => {
                self.shared.trace.tell(format!("node {id} not started: {fault}"));
                let mut state = self.shared.state();
                state.not_started = Some(fault.to_string());
                state.changes += 1;
                return;
            }
        };
        *self.shared.boot.lock().unwrap_or_else(|poison| poison.into_inner()) =
            root.identity().boot;
        let began = Instant::now();
        let clock = move || Millis(began.elapsed().as_millis() as u64);
        let (volume, driver) = Volume::simulated(disk.clone(), volume_options(&self.weather));
        let wake = Arc::new(Notify::new());
        let ring = wake.clone();
        volume.set_waker(Arc::new(move || ring.notify_one()));
        let pace = self.weather.disk_pause_permille;
        let (power, pace_dice) = (self.disk.clone(), self.dice.fork("disk"));
        let _driving = Rt::spawn(drive(driver, power, wake, clock, pace_dice, pace));
        let flusher = Arc::new(Flusher::inline(flush_rules(&self.weather)));
        let _flushing = Rt::spawn(flush(flusher.clone(), clock));
        let peers = Arc::new(known_peers(&root.identity()));
        let NodeIdentity { node, store, boot, .. } = root.identity();
        let times = self.weather.lease_times();
        let gate = Arc::new(SimGate::at_boot(&self.shared, Holder { node, store, boot }, times));
        let registry = Arc::new(Registry::with_runtime::<Rt>(
            options(&self.weather),
            self.network.link(id),
            peers.clone(),
            self.shared.sink(),
            Some(gate.clone()),
        ));
        registry.serve_seeds(Arc::new(Giver(Arc::downgrade(&self.shared))));
        self.network.listen(id, registry.acceptor());
        let engine: Arc<dyn StateEngine> = Arc::new(MapEngine::new(disk));
        let cache = Arc::new(EntryCache::new(EntryCache::BUDGET_BYTES));
        let office = Office::new(id, self.network.clone(), self.deliver, root.clone());
        let office = Arc::new(office);
        {
            let mut state = self.shared.state();
            state.registry = Some(registry);
            state.gate = Some(gate.clone());
            state.office = Some(office.clone());
            let place = Place { root, volume, cache, engine, flusher, folder };
            state.place = Some(Arc::new(place));
        }
        let _keeping = Rt::spawn(gate::keep(self.shared.clone(), gate, peers, times));
        let _carrying = Rt::spawn(office::keep(self.shared.clone(), office.clone()));
        let _admitting = Rt::spawn(admitting::keep(self.shared.clone(), office));
        if id <= DATA_NODES {
            let _driving = Rt::spawn(driver::keep(self.shared.clone()));
            let _building = Rt::spawn(builder::keep(self.shared.clone()));
            let _tidying = Rt::spawn(builder::keep_house(self.shared.clone()));
        }
        for (database, assigned) in self.assigned {
            self.shared.open(database, assigned).await;
        }
    }
}

fn known_peers(identity: &NodeIdentity) -> KnownPeers {
    let peers = KnownPeers::new(PeerIdentity {
        dag: identity.dag,
        lineage: LINEAGE,
        node: identity.node,
        store: identity.store,
        boot: identity.boot,
    });
    for other in 1..=NODES {
        peers.register(NodeId(other), store(other), Boot::default());
    }
    peers
}

fn options(weather: &Weather) -> Options {
    Options {
        timeouts: weather.timeouts(),
        purge: Purge {
            keep_entries: weather.keep_entries,
            lagging_entries: weather.keep_entries * 8,
            batch_entries: 8,
            interval: Duration::from_millis(200),
        },
        offload: Offload::InPlace,
        ..Options::default()
    }
}

fn volume_options(weather: &Weather) -> VolumeOptions {
    let segments = SegmentSizes {
        bytes_min: weather.segment_bytes,
        bytes_max: weather.segment_bytes * 4,
        recycled_max: 2,
    };
    VolumeOptions { segments, ..VolumeOptions::default() }
}

fn flush_rules(weather: &Weather) -> FlushRules {
    FlushRules { age_max: Millis(weather.flush_age_ms), ..FlushRules::for_budget(4 << 20) }
}

/// The log thread, as a task. What a call takes is passed over or taken as a whole tick, by the
/// dice: virtual time has no finer grain, and crashes must be able to come between any two calls.
async fn drive(
    mut driver: VolumeDriver,
    disk: PowerDisk,
    wake: Arc<Notify>,
    clock: impl Fn() -> Millis,
    mut dice: Dice,
    pace_permille: u64,
) {
    loop {
        match driver.pump(clock()) {
            Pumped::Again(took) => {
                if dice.chance(pace_permille) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                wait_for(&disk, took).await;
                tokio::task::yield_now().await;
            }
            Pumped::Wait(None) => wake.notified().await,
            Pumped::Wait(Some(at)) => {
                let rest = Duration::from_millis(at.saturating_sub(clock()).0.max(1));
                tokio::select! {
                    biased;
                    () = wake.notified() => {}
                    () = tokio::time::sleep(rest) => {}
                }
            }
        }
    }
}

/// Waits as long as the disk took, but no longer than it is slow.
async fn wait_for(disk: &PowerDisk, took: Duration) {
    let mut left = took.as_millis() as u64;
    while left > 0 {
        let part = left.min(20);
        tokio::time::sleep(Duration::from_millis(part)).await;
        left = if disk.is_slow() { left - part } else { 0 };
    }
}

async fn flush(flusher: Arc<Flusher>, clock: impl Fn() -> Millis) {
    loop {
        let pause = if flusher.step(clock()) { 1 } else { 10 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}
