//! The loop that keeps the gate: clocks, messages, disk, groups.
//!
//! One turn: what came is fed to the gate and, while the control group is led here, to the granter;
//! what they say is carried out in its order, saving before sending. What this node says to itself
//! goes the same way as what it says to others, without the wire.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dac::message::{Grant, Holder};
use dac::{Closed, Granter, LeaseTimes, gate, granter};
use dag_api::peer::v1 as pb;
use dag_format::links;
use dag_types::{ActivationId, DatabaseId, GrantId, LineageChain, Millis, NodeId, Registry};
use replication::peer::PeerIdentity;
use replication::{Group, Role};
use tokio::sync::mpsc;

use super::leader::{Office, control_group};
use super::wire::{self, Read};
use super::{Heard, NodeGate, UNPOISONED, policy};
use crate::clock;
use crate::journal::{Event, GateLease};
use crate::node::{Member, Node};

/// The longest that nothing is looked at: who leads the control group is not told, but seen.
const LOOK: Duration = Duration::from_millis(100);
/// Before a node is a member there is nothing to keep.
const NO_MEMBER: Duration = Duration::from_millis(50);
/// Sending times that are remembered; far more than requests are ever under way.
const REMEMBERED: usize = 64;

/// Keeps the gate of a node until it is stopped.
pub async fn run(node: Arc<Node>) {
    let Some((mut keeper, mut arriving)) = Keeper::of_member(&node).await else { return };
    let mut came = Vec::new();
    while !node.stopping.is_cancelled() {
        keeper.turn(&mut came).await;
        let sleep = keeper.until_next();
        tokio::select! {
            _ = arriving.recv_many(&mut came, REMEMBERED) => {}
            () = tokio::time::sleep(sleep) => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

/// What is to be fed, in its order.
enum Work {
    Gate(gate::Input),
    Granter(granter::Input),
}

struct Keeper {
    node: Arc<Node>,
    gate: Arc<NodeGate>,
    holder: Holder,
    times: LeaseTimes,
    granter: Option<(Granter, Office)>,
    /// The newest control state that was seen.
    registry: Option<Registry>,
    work: VecDeque<Work>,
    /// When each request left, in nanoseconds; what the journal says of a lease rests on it.
    sent: BTreeMap<u64, u64>,
    /// The lease of the grant that is being fed.
    lease: Option<GateLease>,
    last_look: LastLook,
}

/// What was last told to the gate.
#[derive(Default)]
struct LastLook {
    leader: Option<NodeId>,
    store_failed: bool,
    open: bool,
}

type Arriving = mpsc::UnboundedReceiver<Heard>;

impl Keeper {
    async fn of_member(node: &Arc<Node>) -> Option<(Self, Arriving)> {
        let member = loop {
            if let Ok(member) = node.member() {
                break member;
            }
            tokio::select! {
                () = tokio::time::sleep(NO_MEMBER) => {}
                () = node.stopping.cancelled() => return None,
            }
        };
        let gate = member.gate.clone();
        let arriving = gate.arriving.lock().expect(UNPOISONED).take();
        let holder = Holder { node: node.id(), store: node.store_id(), boot: node.boot() };
        let times = member.lease_times();
        let keeper = Self {
            node: node.clone(),
            gate,
            holder,
            times,
            granter: None,
            registry: None,
            work: VecDeque::new(),
            sent: BTreeMap::new(),
            lease: None,
            last_look: LastLook::default(),
        };
        Some((keeper, arriving.expect("one loop per node")))
    }

    fn member(&self) -> &Member {
        self.node.member().expect("the loop begins with membership, which is for ever")
    }

    async fn turn(&mut self, came: &mut Vec<Heard>) {
        self.look();
        self.compare_clocks().await;
        for heard in came.drain(..) {
            self.take_in(heard);
            self.carry_out_all().await;
        }
        self.work.push_back(Work::Gate(gate::Input::Tick));
        if self.granter.is_some() {
            self.work.push_back(Work::Granter(granter::Input::Tick));
        }
        self.carry_out_all().await;
        self.publish();
    }

    fn until_next(&self) -> Duration {
        let now = clock::boottime();
        let granter = self.granter.as_ref().map(|(granter, _)| granter.next_deadline());
        let next = [self.gate.gate().next_deadline(), granter].into_iter().flatten().min();
        let left = next.map_or(LOOK, |next| Duration::from_millis(next.saturating_sub(now).0));
        left.clamp(Duration::from_millis(1), LOOK)
    }

    // --- Looking --------------------------------------------------------------------------------

    /// Sees who leads the control group, and whether the disk still takes what it is given.
    fn look(&mut self) {
        let group = control_group(&self.node);
        let leader = group.as_ref().and_then(|group| group.leader()).map(|leader| leader.node);
        if leader != self.last_look.leader {
            self.last_look.leader = leader;
            self.work.push_back(Work::Gate(gate::Input::ControlLeader(leader)));
        }
        if self.node.store.root.fault().is_some() && !self.last_look.store_failed {
            self.last_look.store_failed = true;
            self.work.push_back(Work::Gate(gate::Input::StoreFailed));
        }
        let office = group.map(|group| (group.role(), group));
        let (term, group) = match office {
            Some(((Role::Leader, term), group)) => (term, group),
            _ => {
                self.granter = None;
                return;
            }
        };
        if self.granter.as_ref().is_none_or(|(granter, _)| granter.term() != term) {
            let (own, now) = (self.holder.node, clock::boottime());
            let granter = Granter::take_office(now, own, term, self.times);
            let (node, gate) = (self.node.clone(), self.gate.clone());
            let patience = Duration::from_millis(self.times.attempt.0);
            tracing::info!(term, "this node grants gates");
            self.granter = Some((granter, Office { node, gate, group, term, patience }));
        }
    }

    fn take_in(&mut self, heard: Heard) {
        let term = self.granter.as_ref().map(|(granter, _)| granter.term());
        match heard {
            Heard::Message(from, message) => self.message(&from, *message),
            Heard::Applied(registry) => {
                self.registry = Some(registry.clone());
                self.work.push_back(Work::Gate(gate::Input::Applied(registry)));
            }
            Heard::Chain(chain) => self.work.push_back(Work::Gate(gate::Input::Chain(chain))),
            Heard::Round(done) if Some(done.term) == term => {
                self.registry = Some(done.registry);
                let (node, request) = (done.node, done.request);
                self.work.push_back(Work::Granter(granter::Input::RoundDone { node, request }));
            }
            Heard::Recorded(done) if Some(done.term) == term => {
                self.registry = Some(done.registry);
                self.work.push_back(Work::Granter(granter::Input::Recorded(done.grant)));
            }
            // Of an earlier term: for nobody.
            Heard::Round(_) | Heard::Recorded(_) => {}
        }
    }

    fn message(&mut self, from: &PeerIdentity, message: pb::GateMessage) {
        let Some(read) = wire::read(from, message) else {
            return tracing::warn!(peer = %from.node, "a message about gates cannot be read");
        };
        let (node, lineage) = (from.node, from.lineage);
        let peer = gate::Input::Peer { node, lineage, open_for: None };
        self.work.push_back(Work::Gate(peer));
        let work = match read {
            Read::Renewal(renewal) => Work::Granter(granter::Input::Renewal(renewal)),
            Read::Answer(answer) => Work::Granter(granter::Input::Answer(answer)),
            Read::Grant(grant) => {
                let grant = wire::addressed(grant, self.holder.node);
                self.note_lease(from.node, &grant);
                Work::Gate(gate::Input::Grant(grant))
            }
            Read::Refusal(refusal) => Work::Gate(gate::Input::Refusal(refusal)),
            Read::Question(question) => Work::Gate(gate::Input::Question(question)),
            Read::Lineage(chain) => Work::Gate(gate::Input::Chain(chain)),
            Read::AskLineage => {
                let chain = self.gate.gate().chain().clone();
                return self.member().registry.tell(node, wire::chain(&chain));
            }
        };
        self.work.push_back(work);
    }

    /// What the journal says of the lease that this grant may open or extend.
    fn note_lease(&mut self, granter: NodeId, grant: &Grant) {
        self.lease = self.sent.get(&grant.request).map(|sent| GateLease {
            grant: grant.grant.number,
            granter: granter.0,
            term: grant.grant.term,
            sent: *sent,
            ttl: grant.ttl.0 * NANOS,
            until: 0,
        });
    }

    // --- Carrying out ---------------------------------------------------------------------------

    /// The two clocks must be of one moment, so the step goes by the reading that was compared.
    async fn compare_clocks(&mut self) {
        let Some((now, monotonic)) = clock::both() else { return };
        let input = gate::Input::Clocks { monotonic };
        let actions = self.gate.gate().step(Millis(now / NANOS), input);
        for action in actions {
            self.act(action, now).await;
        }
    }

    async fn carry_out_all(&mut self) {
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Gate(input) => {
                    // Read before the step: a request is never younger than it says.
                    let now = clock::boottime_ns();
                    let actions = self.gate.gate().step(Millis(now / NANOS), input);
                    for action in actions {
                        self.act(action, now).await;
                    }
                }
                Work::Granter(input) => self.grant(input),
            }
        }
    }

    async fn act(&mut self, action: gate::Action, now: u64) {
        use gate::Action as A;
        match action {
            A::SaveLineage(chain) => self.save(chain).await,
            A::SavePromise(activation) => self.promise(activation).await,
            A::RefusePart(reasons) => tracing::warn!(?reasons, "takes no part in an activation"),
            A::Request(to, renewal) => {
                self.sent.insert(renewal.request, now);
                while self.sent.len() > REMEMBERED {
                    self.sent.pop_first();
                }
                if to == self.holder.node {
                    self.work.push_back(Work::Granter(granter::Input::Renewal(renewal)));
                } else {
                    self.member().registry.tell(to, wire::renewal(&renewal));
                }
            }
            A::Answer(to, answer) if to == self.holder.node => {
                self.work.push_back(Work::Granter(granter::Input::Answer(answer)));
            }
            A::Answer(to, answer) => self.member().registry.tell(to, wire::answer(&answer)),
            A::AskChain(node) => self.member().registry.tell(node, wire::ask_lineage()),
            A::Opened { grant, until } => self.opened(grant, until),
            A::Extended { until } => {
                if let Some(lease) = self.lease_until(until) {
                    self.node.journal.write(&Event::GateExtended(lease));
                }
            }
            A::Closed(why) => self.closed(&why),
        }
    }

    fn lease_until(&self, until: Millis) -> Option<GateLease> {
        self.lease.map(|lease| GateLease { until: until.0 * NANOS, ..lease })
    }

    fn opened(&mut self, grant: GrantId, until: Millis) {
        tracing::info!(term = grant.term, grant = grant.number, "the gate is open");
        // The journal knows before any group may serve.
        if let Some(lease) = self.lease_until(until) {
            self.node.journal.write(&Event::GateOpened(lease));
        }
        self.publish();
    }

    fn closed(&mut self, why: &Closed) {
        tracing::warn!(%why, "the gate is closed");
        self.node.journal.write(&Event::GateClosed { why: &why.to_string() });
        self.publish();
    }

    /// A newer lineage counts once it is on the disk. A disk that does not take it has failed.
    async fn save(&mut self, chain: LineageChain) {
        let root = self.node.store.root.clone();
        let (last, beside) = (chain.last(), links::beside(&chain));
        let saving = move || root.save_lineage(last, beside);
        match tokio::task::spawn_blocking(saving).await {
            Ok(Ok(())) => {
                self.work.push_back(Work::Gate(gate::Input::LineageSaved(last)));
                self.node.journal.set_lineage(last);
                let member = self.member();
                member.peers.adopt(chain);
                member.registry.recheck_peers();
            }
            Ok(Err(fault)) => {
                tracing::error!(%fault, "save the newest lineage");
                self.work.push_back(Work::Gate(gate::Input::StoreFailed));
            }
            // The runtime ends.
            Err(_) => {}
        }
    }

    /// A promise counts once it is on the disk, and outlives every start of the node: until the
    /// activation is complete or called off, it answers no control leader.
    async fn promise(&mut self, activation: ActivationId) {
        let root = self.node.store.root.clone();
        let saved = tokio::task::spawn_blocking(move || root.save_promise(Some(activation))).await;
        match saved {
            Ok(Ok(())) => {
                tracing::warn!(%activation, "takes part in an unfenced activation");
                self.work.push_back(Work::Gate(gate::Input::PromiseSaved(activation)));
            }
            Ok(Err(fault)) => {
                tracing::error!(%fault, "save a promise");
                self.work.push_back(Work::Gate(gate::Input::StoreFailed));
            }
            // The runtime ends.
            Err(_) => {}
        }
    }

    fn grant(&mut self, input: granter::Input) {
        let Some(registry) = &self.registry else { return };
        let Some((granter, office)) = &mut self.granter else { return };
        let now = clock::boottime();
        let actions = granter.step(now, registry, input);
        *self.gate.confirmation.lock().expect(UNPOISONED) =
            Some(granter.confirmation(now, registry));
        let office = office.clone();
        for action in actions {
            self.act_for_granter(&office, action);
        }
    }

    fn act_for_granter(&mut self, office: &Office, action: granter::Action) {
        use granter::Action as A;
        let own = self.holder.node;
        let work = match action {
            A::Round { node, request } => return office.round(node, request),
            A::Record(opening) => return office.record(opening),
            A::Ask(to, question) if to == own => gate::Input::Question(question),
            A::Refuse(to, refusal) if to == own => gate::Input::Refusal(refusal),
            A::Send(to, grant) if to == own => {
                self.note_lease(own, &grant);
                gate::Input::Grant(grant)
            }
            A::Ask(to, question) => return self.tell(to, wire::question(&question)),
            A::Refuse(to, refusal) => return self.tell(to, wire::refusal(&refusal)),
            A::Send(to, grant) => return self.tell(to, wire::grant(&grant)),
        };
        self.work.push_back(Work::Gate(work));
    }

    fn tell(&self, to: NodeId, message: pb::GateMessage) {
        self.member().registry.tell(to, message);
    }

    // --- The groups -----------------------------------------------------------------------------

    /// Lets every group know where the gate was opened or closed, and shows who leads the control
    /// group.
    fn publish(&mut self) {
        *self.gate.leader.lock().expect(UNPOISONED) = self.last_look.leader;
        if self.granter.is_none() {
            *self.gate.confirmation.lock().expect(UNPOISONED) = None;
        }
        let open = self.gate.closed().is_none();
        if std::mem::replace(&mut self.last_look.open, open) == open {
            return;
        }
        for group in self.member().registry.groups() {
            settle(&self.node, &group);
            // Another node may serve what this one may not, but not while this one leads.
            if !open && group.spec().database != DatabaseId::CONTROL {
                tokio::spawn(step_down(group));
            }
        }
    }
}

async fn step_down(group: Group) {
    if let Err(error) = group.step_down().await {
        tracing::error!(db = %group.spec().database, %error, "end a leadership");
    }
}

/// Opens or closes a group's way to leadership and to serving, as the gate stands now. The control
/// group has no gate.
pub fn settle(node: &Node, group: &Group) {
    let database = group.spec().database;
    let Ok(member) = node.member() else { return };
    if database == DatabaseId::CONTROL {
        return;
    }
    // One at a time, so that the last one goes by the newest state of the gate.
    let _turn = member.gate.settling.lock().expect(UNPOISONED);
    let open = member.gate.closed().is_none();
    let control = node.control();
    let control = control.as_deref();
    let leads = group.role().0 == Role::Leader;
    let full = !leads && policy::is_full(control, node.id(), led_here(member, database));
    let allowed = open && !full && policy::may_be_active(control, node.id(), database);
    group.allow_campaign(allowed);
    group.allow_mount(open);
}

/// Mailbox databases that are led here, but for one.
fn led_here(member: &Member, but: DatabaseId) -> usize {
    let mail = |group: &Group| {
        let database = group.spec().database;
        database >= DatabaseId::FIRST_MAILBOX_DATABASE && database != but
    };
    let groups = member.registry.groups().into_iter();
    groups.filter(|group| mail(group) && group.role().0 == Role::Leader).count()
}

/// Nanoseconds of a millisecond.
const NANOS: u64 = 1_000_000;
