//! The one loop that makes a node do what the control log says.
//!
//! ```text
//!  something happened ──► look (read the applied control log, see what runs)
//!                           ──► decide (plan.rs, pure) ──► act ──► wait for the next
//! ```
//! What needs a quorum is asked for by a task of its own, so that one group without a majority does
//! not hold up the others; each such step is under way at most once.

pub mod plan;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use active_manager::control::command::Founder;
use active_manager::control::{
    Command, ControlState, CreateDag, Order, Outcome, RegisterBoot, Response,
};
use dac::keeper::Heard;
use dag_types::{Boot, Candidacy, DatabaseId, Generation, LogId, NodeId, ReplicaId, StoreId};
use futures::{StreamExt, stream};
use prost::Message as _;
use replication::{Group, GroupSpec, Machine, Role};
use seeding::SeedFault;
use storage::copy_directory::OpenFault;
use tokio::time::Instant;

use crate::clock;
use crate::gate::keeper::settle;
use crate::journal::{CopyOf, Event};
use crate::machine::{ControlMachine, DirectoryMachine, MailboxMachine, View};
use crate::node::{Member, Node, journal_opening};
use crate::reports::{AdminChannels, INTERVAL, SEEDING};
use crate::service::health::Health;
use crate::store::Opened;
use plan::{Action, Place, Running, Situation};

/// How long nothing is looked at while nothing happens.
const LOOK: Duration = Duration::from_millis(500);
/// How long a step that needs a quorum may take.
const STEP: Duration = Duration::from_secs(5);
/// Copies that are opened side by side.
const OPENING: usize = 4;
/// How long a copy that could not be opened for a passing reason is left alone.
const AGAIN: Duration = Duration::from_secs(2);

/// Drives a node until it is stopped.
pub async fn run(node: Arc<Node>, mut health: Health) {
    let mut driver = Driver {
        node: node.clone(),
        applied: None,
        under_way: Arc::default(),
        not_before: BTreeMap::new(),
    };
    while !node.stopping.is_cancelled() {
        if let Ok(member) = node.member() {
            driver.look(member);
            driver.settle_limits(member);
            driver.act(member).await;
            health.update(&node).await;
        }
        tokio::select! {
            () = node.wake.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

/// Asks the others for their copies, once a second, and more often while a copy is built: its next step
/// waits for what is heard.
pub async fn collect_reports(node: Arc<Node>) {
    let mut channels = AdminChannels::new(node.dial.clone());
    while !node.stopping.is_cancelled() {
        if let Ok(member) = node.member() {
            let dag = member.formation.dag();
            for (id, peer) in member.peers.members() {
                if id != node.id()
                    && let Some(word) = channels.ask(id, &peer.admin_address, dag).await
                {
                    node.reports.heard(id, word);
                }
            }
        }
        let pause = if node.is_seeding() { SEEDING } else { INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

/// Measures the volume, and writes the journal out.
pub async fn keep_house(node: Arc<Node>) {
    const TICK: Duration = Duration::from_millis(20);
    const MEASURE: u32 = 25;
    let mut ticks = 0_u32;
    while !node.stopping.is_cancelled() {
        node.journal.flush();
        if ticks.is_multiple_of(MEASURE) {
            let measured = node.clone();
            let free = tokio::task::spawn_blocking(move || measured.store.free_bytes()).await;
            match free {
                Ok(Ok(free)) => node.admission.measured(free),
                Ok(Err(error)) => tracing::warn!(%error, "measure the volume"),
                Err(_) => {}
            }
        }
        ticks = ticks.wrapping_add(1);
        tokio::time::sleep(TICK).await;
    }
}

/// A copy that this store was given.
#[derive(Debug, Clone)]
struct CopyPlace {
    database: DatabaseId,
    generation: Generation,
    replica: ReplicaId,
    /// It was built from another copy, and is never made of nothing.
    seeded: bool,
    /// The database's folder; empty: the one below the root.
    path: String,
    /// The copy of the generation before that it is made of.
    from: Option<ReplicaId>,
}

/// Whether it may be over in a moment.
fn passes(fault: &SeedFault) -> bool {
    use OpenFault::{InUse, NoSpace};
    let folder_in_use = matches!(fault, SeedFault::InUse { .. });
    folder_in_use || matches!(fault, SeedFault::Copy(InUse { .. } | NoSpace { .. }))
}

/// Opens a copy on a thread that may wait for the disk; nothing where the runtime is ending.
async fn open(node: Arc<Node>, place: CopyPlace) -> Option<Result<Opened, SeedFault>> {
    let CopyPlace { database, generation, replica, seeded, path, from } = place;
    let machine = machine(database, &node);
    let opening = move || match (from, seeded) {
        (Some(from), _) => {
            node.store.open_reformed(database, (generation, replica), &path, from, &*machine)
        }
        (None, true) => node.store.open_seeded(database, generation, replica, &path),
        (None, false) => Ok(node.store.open_copy(database, generation, replica)?),
    };
    tokio::task::spawn_blocking(opening).await.ok()
}

struct Driver {
    node: Arc<Node>,
    /// Up to where the control log was read last.
    applied: Option<LogId>,
    /// Steps that a task is asking a quorum for.
    under_way: Arc<Mutex<HashSet<Step>>>,
    /// When a copy is tried again.
    not_before: BTreeMap<DatabaseId, Instant>,
}

/// A step that is under way at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    CreateDag,
    RegisterBoot(NodeId),
    /// One change of a group's members at a time.
    Members(DatabaseId),
}

impl Driver {
    /// Reads the applied control log where it went on.
    fn look(&mut self, member: &Member) {
        let Some(group) = member.registry.get(DatabaseId::CONTROL) else { return };
        let applied = group.status().applied;
        if applied.is_none() || applied == self.applied {
            return;
        }
        match ControlState::read(&View(&*group.view())) {
            Ok(Some(state)) => self.learn(member, state),
            Ok(None) => {}
            Err(fault) => {
                tracing::error!(%fault, "the control group's state cannot be read");
                return;
            }
        }
        self.applied = applied;
    }

    /// How many databases are led here changes without the control log: where it is limited, every
    /// change of a leadership is looked at.
    fn settle_limits(&self, member: &Member) {
        let control = self.node.control();
        let limited =
            control.is_some_and(|state| state.node_policy(self.node.id()).maximum_active != 0);
        if limited {
            member.registry.groups().iter().for_each(|group| settle(&self.node, group));
        }
    }

    fn learn(&self, member: &Member, state: ControlState) {
        match state.registry() {
            Ok(registry) => member.gate.tell(Heard::Applied(registry)),
            Err(error) => tracing::error!(%error, "the lineage of the control log is no chain"),
        }
        if member.peers.learn(&state) {
            member.registry.recheck_peers();
        }
        let seeded: BTreeSet<DatabaseId> =
            state.seeds.iter().map(active_manager::control::SeedRecord::database).collect();
        self.node.publish(state);
        for group in member.registry.groups() {
            settle(&self.node, &group);
            group.keep_log(seeded.contains(&group.spec().database));
        }
    }

    async fn act(&mut self, member: &Member) {
        let control = self.node.control();
        let running = running(member, &self.node);
        let failed = self.node.failed.replicas();
        let held = self.node.held.databases(control.as_deref());
        let actions = plan::decide(&Situation {
            node: self.node.id(),
            store: self.node.store_id(),
            formation: &member.formation,
            control: control.as_deref(),
            read_in: self.applied.map_or(0, |at| at.term),
            running: &running,
            failed: &failed,
            held: &held,
            seen: &seen(member, &self.node),
        });
        let (starts, others): (Vec<Action>, Vec<Action>) =
            actions.into_iter().partition(|action| matches!(action, Action::Start { .. }));
        self.start_all(member, starts).await;
        for action in others {
            self.perform(member, action).await;
        }
    }

    /// Opens copies side by side, because opening mostly waits for the disk, and starts each group
    /// as soon as its copy is open.
    async fn start_all(&mut self, member: &Member, starts: Vec<Action>) {
        let now = Instant::now();
        let due = |database: &DatabaseId| self.not_before.get(database).is_none_or(|at| *at <= now);
        let places = starts.into_iter().filter_map(|action| match action {
            Action::Start { database, generation, replica, seeded, path, from }
                if due(&database) =>
            {
                Some(CopyPlace { database, generation, replica, seeded, path, from })
            }
            _ => None,
        });
        let places: Vec<CopyPlace> = places.collect();
        let node = self.node.clone();
        let mut opening = stream::iter(places)
            .map(|place| {
                let node = node.clone();
                node.note_generation(place.database, place.generation);
                async move { (place.clone(), open(node, place).await) }
            })
            .buffer_unordered(OPENING);
        while let Some((place, opened)) = opening.next().await {
            match opened {
                Some(Ok(opened)) => self.start(member, place, opened).await,
                Some(Err(fault)) => self.not_opened(place, &fault),
                None => {}
            }
        }
    }

    async fn perform(&mut self, member: &Member, action: Action) {
        match action {
            Action::Start { .. } => unreachable!("started before all others"),
            Action::Initialize { database, voters } => {
                initialize(member, database, &voters).await;
            }
            Action::AddLearners { database, learners } => {
                self.add_learners(member, database, learners);
            }
            Action::ChangeVoters { database, voters } => {
                self.change_voters(member, database, voters);
            }
            Action::RemoveLearners { database, learners } => {
                self.remove_learners(member, database, learners);
            }
            Action::Stop { database } => self.stop(member, database).await,
            Action::LeftBehind { database, generation, replica, why } => {
                self.fail(database, generation, replica, &why);
            }
            Action::CreateDag => {
                let order = Order::CreateDag(creation(member));
                self.order(member, Step::CreateDag, order);
            }
            Action::RegisterBoot { node, store, boot } => {
                let order = Order::RegisterBoot(RegisterBoot {
                    node: node.0,
                    store: store.0.to_vec().into(),
                    boot_counter: boot.counter,
                    boot_id: boot.id,
                });
                self.order(member, Step::RegisterBoot(node), order);
            }
        }
    }

    async fn start(&mut self, member: &Member, place: CopyPlace, opened: Opened) {
        let CopyPlace { database, generation, replica, .. } = place;
        let copy = CopyOf::new(database, generation, replica);
        journal_opening(&self.node, copy, &opened.path, opened.born);
        // The gate says more once the group is there.
        let may_mount = database == DatabaseId::CONTROL;
        let candidacy = if may_mount { Candidacy::Freely } else { Candidacy::Never };
        let spec = GroupSpec { database, generation, replica, candidacy, may_mount };
        match member.registry.start(spec, opened.copy, machine(database, &self.node)).await {
            Ok(group) => {
                self.node.failed.forget(database);
                settle(&self.node, &group);
                tracing::info!(db = %database, %replica, born = opened.born.is_some(), "copy started");
                self.node.wake.notify_one();
            }
            Err(error) => self.fail(database, generation, replica, &error.to_string()),
        }
    }

    /// A passing reason is tried again; any other fault fails the copy for good.
    fn not_opened(&mut self, place: CopyPlace, fault: &SeedFault) {
        let CopyPlace { database, generation, replica, .. } = place;
        if passes(fault) {
            tracing::warn!(db = %database, %replica, %fault, "copy not opened; tried again");
            self.not_before.insert(database, Instant::now() + AGAIN);
            return;
        }
        self.fail(database, generation, replica, &fault.to_string());
    }

    fn fail(&self, database: DatabaseId, generation: Generation, replica: ReplicaId, why: &str) {
        let copy = CopyOf::new(database, generation, replica);
        self.node.failed.note(database, replica, why);
        tracing::error!(db = %database, why, "the copy is Failed");
        self.node.journal.write(&Event::ReplicaFailed { copy, why });
    }

    fn add_learners(&self, member: &Member, database: DatabaseId, learners: Vec<Place>) {
        let Some(group) = member.registry.get(database) else { return };
        self.once(Step::Members(database), async move {
            let added = group.add_learners(&members(&learners), Instant::now() + STEP).await;
            match added {
                Ok(()) => tracing::info!(db = %database, ?learners, "learners added"),
                Err(error) => tracing::debug!(db = %database, %error, "learners not added"),
            }
        });
    }

    fn change_voters(&self, member: &Member, database: DatabaseId, voters: BTreeSet<ReplicaId>) {
        let Some(group) = member.registry.get(database) else { return };
        self.once(Step::Members(database), async move {
            match group.change_voters(&voters, Instant::now() + STEP).await {
                Ok(()) => tracing::info!(db = %database, ?voters, "voters changed"),
                Err(error) => tracing::debug!(db = %database, %error, "voters not changed"),
            }
        });
    }

    fn remove_learners(
        &self,
        member: &Member,
        database: DatabaseId,
        learners: BTreeSet<ReplicaId>,
    ) {
        let Some(group) = member.registry.get(database) else { return };
        self.once(Step::Members(database), async move {
            match group.remove_learners(&learners, Instant::now() + STEP).await {
                Ok(()) => tracing::info!(db = %database, ?learners, "copies left the group"),
                Err(error) => tracing::debug!(db = %database, %error, "copies not removed"),
            }
        });
    }

    /// Stops and closes a copy that was replaced or taken away.
    async fn stop(&self, member: &Member, database: DatabaseId) {
        let Some(group) = member.registry.get(database) else { return };
        let spec = group.spec();
        drop(group);
        member.registry.stop(database).await;
        let node = self.node.clone();
        node.seeds.close_source(database);
        let closing = tokio::task::spawn_blocking(move || node.store.close_copy(database));
        if let Ok(Some(path)) = closing.await {
            let copy = CopyOf::new(database, spec.generation, spec.replica);
            self.node.journal.write(&Event::ReplicaClosed { copy, path: &path });
        }
        self.node.failed.forget(database);
        tracing::info!(db = %database, replica = %spec.replica, "copy stopped: it left its place");
        self.node.wake.notify_one();
    }

    /// Proposes an order of the node itself to the control group, which is led here.
    fn order(&self, member: &Member, step: Step, order: Order) {
        let Some(group) = member.registry.get(DatabaseId::CONTROL) else { return };
        let who = format!("node {}", self.node.id());
        self.once(step, async move { propose_order(&group, who, order).await });
    }

    fn once(&self, step: Step, work: impl Future<Output = ()> + Send + 'static) {
        if !self.under_way.lock().expect(UNPOISONED).insert(step) {
            return;
        }
        let (under_way, wake) = (self.under_way.clone(), self.node.wake.clone());
        tokio::spawn(async move {
            work.await;
            // A refused step is decided anew, and not faster than this.
            tokio::time::sleep(Duration::from_millis(50)).await;
            under_way.lock().expect(UNPOISONED).remove(&step);
            wake.notify_one();
        });
    }
}

async fn propose_order(group: &Group, who: String, order: Order) {
    let command = Command { at_ms: clock::wall().0, who, order: Some(order), ..Command::default() };
    let proposed = group.propose(command.encode_to_vec().into(), Instant::now() + STEP).await;
    let response = match proposed {
        Ok(committed) => Response::decode(committed.reply),
        Err(error) => return tracing::debug!(%error, "an order of this node was not carried out"),
    };
    if let Ok(Response { outcome: Some(Outcome::Rejected(rejected)) }) = response
        && let Some(reason) = rejected.reason
    {
        tracing::warn!(%reason, "the control group refused an order of this node");
    }
}

async fn initialize(member: &Member, database: DatabaseId, voters: &[Place]) {
    let Some(group) = member.registry.get(database) else { return };
    match group.initialize(&members(voters)).await {
        Ok(()) => tracing::info!(db = %database, ?voters, "group initialised"),
        Err(error) => tracing::warn!(db = %database, %error, "group not initialised"),
    }
}

fn members(places: &[Place]) -> BTreeMap<ReplicaId, replication::Member> {
    let member = |place: &Place| (place.replica, replication::Member { node: place.node });
    places.iter().map(member).collect()
}

fn machine(database: DatabaseId, node: &Node) -> Arc<dyn Machine> {
    match database {
        DatabaseId::CONTROL => Arc::new(ControlMachine),
        DatabaseId::DIRECTORY => Arc::new(DirectoryMachine),
        _ => Arc::new(MailboxMachine { database, watchers: node.watchers.clone() }),
    }
}

fn creation(member: &Member) -> CreateDag {
    let formation = &member.formation;
    let founder = |founder: &dag_api::admin::v1::FoundingMember| Founder {
        node: founder.node_id,
        store: founder.store_id.clone(),
    };
    CreateDag {
        dag: formation.dag().0.to_vec().into(),
        definition: Some(formation.definition()),
        founders: formation.members().iter().map(founder).collect(),
        activation: formation.lineage().activation.0.to_vec().into(),
    }
}

/// The copies that run here, and those that a fault has stopped.
fn running(member: &Member, node: &Node) -> BTreeMap<DatabaseId, Running> {
    let mut running = BTreeMap::new();
    for status in member.registry.status() {
        if let Some(reason) = &status.failed {
            node.failed.note(status.database, status.replica, reason);
        }
        let vote = node.store.copy(status.database).and_then(|copy| copy.log().vote());
        let voters = status.members.iter().filter(|member| member.voter);
        running.insert(
            status.database,
            Running {
                replica: status.replica,
                blank: status.last.is_none() && vote.is_none(),
                leads: status.role == Role::Leader,
                term: status.term,
                members: status.members.iter().map(|member| member.replica).collect(),
                voters: voters.map(|member| member.replica).collect(),
                joint: status.joint,
            },
        );
    }
    running
}

/// The starts that this node has seen, its own included.
fn seen(member: &Member, node: &Node) -> BTreeMap<NodeId, (StoreId, Boot)> {
    let peers = member.peers.members().into_iter();
    let mut seen: BTreeMap<NodeId, (StoreId, Boot)> =
        peers.map(|(id, peer)| (id, (peer.store, peer.boot))).collect();
    seen.insert(node.id(), (node.store_id(), node.boot()));
    seen
}

const UNPOISONED: &str = "no holder of this lock panics";
