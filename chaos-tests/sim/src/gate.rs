//! A simulated node's gate: the real holder, the real granter and the keeper of both, on the node's
//! own simulated clock. Their messages travel with the other frames between nodes.
//!
//! What the daemon's loop does is done here as well, by the same decisions: who is fed what is said
//! by [`dac::Keeper`], what a group may do by [`active_manager::eligibility`], what its requests may
//! do by [`LockedGate`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use active_manager::control::command::OpenGate;
use active_manager::control::{Command, ControlState, Order, Outcome, RegisterBoot, Response};
use active_manager::eligibility;
use bytes::Bytes;
use dac::gate::Saved;
use dac::granter::{Fence, Opening};
use dac::keeper::{Action, Heard, Lease, Seen};
use dac::message::Holder;
use dac::{Closed, DacGate, Keeper, LeaseTimes, MountPermit};
use dag_api::peer::v1 as pb;
use dag_types::{
    Boot, Candidacy, DatabaseId, GrantId, LineageChain, Millis, NodeId, Registry, StoreId,
};
use history::journal::{BootOf, Event, GateLease};
use openraft_rt::AsyncRuntime;
use prost::Message as _;
use replication::peer::{KnownPeers, PeerIdentity};
use replication::{Group, Leave, LockedGate, Role, ServingGate, gate_wire};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::machines::View;
use crate::node::{LINEAGE, NANOS, Rt, Shared};
use crate::world::lock;

/// The longest that nothing is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long an order of the node itself may take.
const ORDER: Duration = Duration::from_millis(1_000);

/// The gate of a running node.
pub struct SimGate {
    held: LockedGate,
    own: NodeId,
    keeper: Mutex<Keeper>,
    inbox: Mutex<Vec<Heard>>,
    bell: Notify,
    /// A copy of a strange group on this node goes by another gate, which is open.
    strange: AtomicBool,
}

impl SimGate {
    /// The gate of a node that starts: closed.
    pub fn at_boot(shared: &Arc<Shared>, holder: Holder, times: LeaseTimes) -> Self {
        let saved = Saved { chain: LineageChain::first(LINEAGE.activation), promise: None };
        let gate = DacGate::at_boot(shared.clock.boottime(), holder, times, saved);
        let clock = shared.clock.clone();
        Self {
            held: LockedGate::new(gate, Box::new(move || clock.boottime())),
            own: holder.node,
            keeper: Mutex::new(Keeper::new(holder, times)),
            inbox: Mutex::default(),
            bell: Notify::new(),
            strange: AtomicBool::new(false),
        }
    }

    /// Whether the gate is open at a moment of the node's clock.
    pub fn is_open_at(&self, now: Millis) -> bool {
        self.held.lock().closed(now).is_none()
    }

    /// The term in which this node leads the control group, and whether nothing that it or anybody
    /// before it granted to a node can still be open, as its granter reckons at a moment of its clock.
    pub fn fence(&self, now: Millis, node: NodeId) -> Option<(u64, bool)> {
        let keeper = lock(&self.keeper);
        let granter = keeper.granter()?;
        Some((granter.term(), granter.fence(now, &[node]) == Fence::Passed))
    }

    /// From now on whoever asks on this node is told that the gate is open: a node without databases
    /// runs a copy of another group, whose gate it is not.
    pub fn be_strange(&self) {
        self.strange.store(true, Ordering::SeqCst);
    }

    /// The opening that it is open by, at this moment of the node's clock.
    fn opening(&self) -> Option<GrantId> {
        let open = self.held.closed().is_none();
        self.held.lock().opening().filter(|_| open).map(|(grant, _)| grant)
    }

    /// For people: how it stands.
    pub fn words(&self) -> String {
        let gate = self.held.lock();
        match (gate.opening(), gate.silent_because(), gate.refused()) {
            (Some((grant, until)), ..) => format!("open by {grant} until {until}"),
            (None, Some(why), _) => format!("closed, silent: {why}"),
            (None, None, Some(why)) => format!("closed, refused: {why}"),
            (None, None, None) => "closed, asking".to_owned(),
        }
    }

    fn tell(&self, heard: Heard) {
        lock(&self.inbox).push(heard);
        self.bell.notify_one();
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        lock(&self.keeper)
    }
}

impl ServingGate for SimGate {
    fn is_open(&self) -> bool {
        self.strange.load(Ordering::SeqCst) || self.held.closed().is_none()
    }

    fn permit(&self, database: DatabaseId, deadline: Instant) -> Result<Leave, Closed> {
        self.held.permit(database, deadline)
    }

    fn upholds(&self, permit: &MountPermit) -> Result<(), Closed> {
        self.held.upholds(permit)
    }

    fn heard(&self, from: &PeerIdentity, message: pb::GateMessage) {
        let message = gate_wire::read(from, self.own, message);
        let message = message.expect("all nodes of a run are of one version");
        self.tell(Heard::Message { from: from.node, lineage: from.lineage, message });
    }
}

/// Keeps a node's gate until its life ends.
pub async fn keep(
    shared: Arc<Shared>,
    gate: Arc<SimGate>,
    peers: Arc<KnownPeers>,
    times: LeaseTimes,
) {
    let mut keeping =
        Keeping { shared, gate, peers, times, applied: None, registering: Arc::default() };
    loop {
        keeping.turn();
        let (sleep, bell) = (keeping.until_next(), keeping.gate.clone());
        tokio::select! {
            biased;
            () = bell.bell.notified() => {}
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

struct Keeping {
    shared: Arc<Shared>,
    gate: Arc<SimGate>,
    peers: Arc<KnownPeers>,
    times: LeaseTimes,
    /// The control log's index that was read last.
    applied: Option<u64>,
    /// An order to register a start is under way.
    registering: Arc<AtomicBool>,
}

impl Keeping {
    fn turn(&mut self) {
        let group = self.shared.group(DatabaseId::CONTROL);
        if let Some(group) = &group {
            self.read_control(group);
        }
        self.look(group.as_ref());
        self.compare_clocks();
        let came = std::mem::take(&mut *lock(&self.gate.inbox));
        for heard in came {
            self.gate.keeper().take_in(heard);
            self.carry_out_all();
        }
        self.gate.keeper().tick();
        self.carry_out_all();
        self.publish();
    }

    fn until_next(&self) -> Duration {
        let next = self.gate.keeper().next_deadline(&self.gate.held.lock());
        let now = self.shared.clock.boottime();
        let left = next.map_or(LOOK, |next| Duration::from_millis(next.saturating_sub(now).0));
        left.clamp(Duration::from_millis(1), LOOK)
    }

    /// Reads the applied control log where it went on, and does what follows from it.
    fn read_control(&mut self, group: &Group) {
        let applied = group.status().applied.map(|at| at.index);
        if applied != self.applied
            && let Ok(Some(state)) = ControlState::read(&View(&*group.view()))
        {
            let registry = state.registry().expect("the log of a run has one lineage");
            self.gate.tell(Heard::Applied(registry));
            self.shared.state().control = Some(Arc::new(state));
            self.applied = applied;
            self.shared.settle_all();
        }
        self.register_starts(group);
    }

    /// The control leader registers the starts that it has seen, one at a time.
    fn register_starts(&self, group: &Group) {
        let Some(state) = self.shared.state().control.clone() else { return };
        if group.role().0 != Role::Leader || self.registering.load(Ordering::SeqCst) {
            return;
        }
        let starts = eligibility::unregistered_starts(&state, &self.seen());
        let Some((node, store, boot)) = starts.into_iter().next() else { return };
        let order = Order::RegisterBoot(RegisterBoot {
            node: node.0,
            store: Bytes::copy_from_slice(&store.0),
            boot_counter: boot.counter,
            boot_id: boot.id,
        });
        self.registering.store(true, Ordering::SeqCst);
        let (group, registering) = (group.clone(), self.registering.clone());
        let command = self.order(order);
        let _registering = Rt::spawn(async move {
            let _ = group.propose(command, Instant::now() + ORDER).await;
            tokio::time::sleep(LOOK).await;
            registering.store(false, Ordering::SeqCst);
        });
    }

    /// The greatest start of each node that this one has seen, its own included.
    fn seen(&self) -> BTreeMap<NodeId, (StoreId, Boot)> {
        use replication::peer::PeerRegistry as _;
        let own = self.peers.local();
        let mut seen = self.peers.seen();
        seen.insert(own.node, (own.store, own.boot));
        seen
    }

    fn order(&self, order: Order) -> Bytes {
        let who = format!("node {}", self.shared.node);
        Command { at_ms: 1, who, order: Some(order), ..Command::default() }.encode_to_vec().into()
    }

    fn look(&self, group: Option<&Group>) {
        let leader = group.and_then(Group::leader).map(|leader| leader.node);
        let role = group.map(Group::role);
        let office = role.and_then(|(role, term)| (role == Role::Leader).then_some(term));
        let seen = Seen { leader, office, store_failed: false };
        self.gate.keeper().look(self.shared.clock.boottime(), seen);
    }

    fn compare_clocks(&self) {
        let (now, monotonic) =
            (self.shared.clock.boottime().0 * NANOS, self.shared.clock.monotonic());
        let actions = self.gate.keeper().compare_clocks(&mut self.gate.held.lock(), now, monotonic);
        actions.into_iter().for_each(|action| self.act(action));
    }

    fn carry_out_all(&self) {
        loop {
            let now = self.shared.clock.boottime().0 * NANOS;
            let step = self.gate.keeper().step(&mut self.gate.held.lock(), now);
            let Some(actions) = step else { return };
            actions.into_iter().for_each(|action| self.act(action));
        }
    }

    fn act(&self, action: Action) {
        match action {
            Action::SaveLineage(_) | Action::SavePromise(_) | Action::RefusePart(_) => {
                panic!("a run has one lineage, and nobody activates a site in it")
            }
            Action::Tell(to, message) => {
                let registry = self.shared.state().registry.clone();
                registry.expect("up").tell(to, gate_wire::write(&message));
            }
            Action::Round { term, node, request } => self.round(term, node, request),
            Action::Record { term, opening } => self.record(term, opening),
            Action::Opened(_, lease) => {
                if let Some(lease) = lease {
                    self.shared.note(Event::GateOpened(journal_lease(lease)));
                }
                self.publish();
            }
            Action::Extended(lease) => {
                if let Some(lease) = lease {
                    self.shared.note(Event::GateExtended(journal_lease(lease)));
                }
            }
            Action::Closed(why) => {
                self.shared.note(Event::GateClosed { why: why.to_string() });
                self.publish();
            }
        }
    }

    /// The control group, while this node leads it in this term by what it knows.
    fn office(&self, term: u64) -> Option<Group> {
        let group = self.shared.group(DatabaseId::CONTROL)?;
        (group.role() == (Role::Leader, term)).then_some(group)
    }

    fn round(&self, term: u64, node: NodeId, request: u64) {
        let Some(group) = self.office(term) else { return };
        let (gate, patience) = (self.gate.clone(), self.patience());
        let _round = Rt::spawn(async move {
            if group.read_barrier(Instant::now() + patience).await.is_ok()
                && let Some(registry) = registry_of(&group)
            {
                gate.tell(Heard::Round { term, node, request, registry });
            }
        });
    }

    fn record(&self, term: u64, opening: Opening) {
        let Some(group) = self.office(term) else { return };
        let Opening { grant, holder, lineage } = opening;
        let Holder { node, store, boot } = holder;
        let command = self.order(Order::OpenGate(OpenGate::new(node, store, boot, lineage, grant)));
        let (gate, shared, patience) = (self.gate.clone(), self.shared.clone(), self.patience());
        let _record = Rt::spawn(async move {
            let Ok(committed) = group.propose(command, Instant::now() + patience).await else {
                return;
            };
            let reply = Response::decode(committed.reply).expect("the machine's own answer");
            if !matches!(reply.outcome, Some(Outcome::Changed(_))) {
                return;
            }
            shared.note(Event::GrantCommitted {
                grant: grant.number,
                to_node: node.0,
                to_boot: BootOf { counter: boot.counter, id: boot.id },
                term: grant.term,
            });
            if let Some(registry) = registry_of(&group) {
                gate.tell(Heard::Recorded { term, grant, registry });
            }
        });
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.times.attempt.0)
    }

    /// Lets every group know where the gate was opened or closed.
    fn publish(&self) {
        let open = self.gate.held.closed().is_none();
        if !self.gate.keeper().turned(open) {
            return;
        }
        self.shared.settle_all();
        let gated = |group: &Group| group.spec().database != DatabaseId::CONTROL;
        for group in self.shared.groups().into_iter().filter(gated) {
            if !open {
                let _stepping = Rt::spawn(async move { drop(group.step_down().await) });
            }
        }
    }
}

fn registry_of(group: &Group) -> Option<Registry> {
    ControlState::read(&View(&*group.view())).ok()??.registry().ok()
}

fn journal_lease(lease: Lease) -> GateLease {
    let Lease { grant, granter, sent, ttl, until } = lease;
    GateLease {
        grant: grant.number,
        granter: granter.0,
        term: grant.term,
        sent,
        ttl: ttl.0 * NANOS,
        until: until.0 * NANOS,
    }
}

/// Opens or closes a group's way to leadership and to serving, as the node's gate stands now.
pub fn settle(shared: &Shared, group: &Group) {
    let database = group.spec().database;
    let (gate, control, barred) = {
        let state = shared.state();
        (state.gate.clone(), state.control.clone(), state.barred.contains(&database))
    };
    let Some(gate) = gate else { return };
    let unless_barred = |candidacy| if barred { Candidacy::Never } else { candidacy };
    if database == DatabaseId::CONTROL {
        return group.stand(unless_barred(Candidacy::Freely));
    }
    if gate.strange.load(Ordering::SeqCst) {
        // Nothing that this DAG's log says is about it.
        group.stand(unless_barred(Candidacy::Freely));
        return group.allow_mount(true);
    }
    let node = NodeId(shared.node);
    // Whatever was decided before the gate was opened is known here.
    let open = match gate.opening() {
        Some(grant) => eligibility::knows_opening(control.as_deref(), node, grant),
        None => false,
    };
    let leads = group.role().0 == Role::Leader;
    let led = |other: &Group| {
        let mail = other.spec().database >= DatabaseId::FIRST_MAILBOX_DATABASE;
        mail && other.spec().database != database && other.role().0 == Role::Leader
    };
    let led = shared.groups().iter().filter(|other| led(other)).count();
    group.stand(unless_barred(match open {
        true => eligibility::candidacy(control.as_deref(), node, database, leads, led),
        false => Candidacy::Never,
    }));
    group.allow_mount(open);
}
