//! The loop that keeps the gate: clocks, messages, disk, groups.
//!
//! One turn: what came is fed to the gate and, while the control group is led here, to the granter;
//! what they say is carried out in its order, saving before sending. Which is fed what and when is
//! decided by [`dac::Keeper`], and nothing of it here.

use std::sync::Arc;
use std::time::Duration;

use active_manager::eligibility;
use dac::granter::Fence;
use dac::keeper::{Action, Heard, Lease, Seen};
use dac::message::Holder;
use dac::{Closed, LeaseTimes};
use dag_format::links;
use dag_types::{ActivationId, Candidacy, DatabaseId, GrantId, LineageChain, Millis, NodeId};
use replication::{Group, Role, gate_wire};
use tokio::sync::mpsc;

use super::leader::{Office, control_group};
use super::{Fenced, NodeGate, Told, UNPOISONED};
use crate::clock;
use crate::journal::{Event, GateLease};
use crate::node::{Member, Node};

/// The longest that nothing is looked at: who leads the control group is not told, but seen.
const LOOK: Duration = Duration::from_millis(100);
/// Before a node is a member there is nothing to keep.
const NO_MEMBER: Duration = Duration::from_millis(50);
/// What is taken from the inbox at a time.
const AT_A_TIME: usize = 64;

/// Keeps the gate of a node until it is stopped.
pub async fn run(node: Arc<Node>) {
    let Some((mut keeper, mut arriving)) = Keeper::of_member(&node).await else { return };
    let mut came = Vec::new();
    while !node.stopping.is_cancelled() {
        keeper.turn(&mut came).await;
        let sleep = keeper.until_next();
        tokio::select! {
            _ = arriving.recv_many(&mut came, AT_A_TIME) => {}
            () = tokio::time::sleep(sleep) => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

struct Keeper {
    node: Arc<Node>,
    gate: Arc<NodeGate>,
    times: LeaseTimes,
    decides: dac::Keeper,
    /// The control group, while it is led here.
    office: Option<Office>,
}

type Arriving = mpsc::UnboundedReceiver<Told>;

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
            times,
            decides: dac::Keeper::new(holder, times),
            office: None,
        };
        Some((keeper, arriving.expect("one loop per node")))
    }

    fn member(&self) -> &Member {
        self.node.member().expect("the loop begins with membership, which is for ever")
    }

    async fn turn(&mut self, came: &mut Vec<Told>) {
        self.look();
        self.compare_clocks().await;
        for told in came.drain(..) {
            match told {
                Told::Heard(heard) => self.decides.take_in(heard),
                // Without an office nobody is answered, and the question is dropped.
                Told::Fence(nodes, answer) => drop(self.fence(&nodes).map(|is| answer.send(is))),
            }
            self.carry_out_all().await;
        }
        self.decides.tick();
        self.carry_out_all().await;
        self.publish();
    }

    fn fence(&self, nodes: &[NodeId]) -> Option<Fenced> {
        let (granter, now) = (self.decides.granter()?, clock::boottime());
        let left = match granter.fence(now, nodes) {
            Fence::Passed => Millis(0),
            Fence::Wait { until } => until.saturating_sub(now).max(Millis(1)),
        };
        Some(Fenced { term: granter.term(), left })
    }

    fn until_next(&self) -> Duration {
        let now = clock::boottime();
        let next = self.decides.next_deadline(&self.gate.gate());
        let left = next.map_or(LOOK, |next| Duration::from_millis(next.saturating_sub(now).0));
        left.clamp(Duration::from_millis(1), LOOK)
    }

    /// Sees who leads the control group, and whether the disk still takes what it is given.
    fn look(&mut self) {
        let group = control_group(&self.node);
        let leader = group.as_ref().and_then(|group| group.leader()).map(|leader| leader.node);
        let role = group.as_ref().map(|group| group.role());
        let office = role.and_then(|(role, term)| (role == Role::Leader).then_some(term));
        let store_failed = self.node.store.root.fault().is_some();
        let took = self.decides.look(clock::boottime(), Seen { leader, office, store_failed });
        if took {
            tracing::info!(term = office, "this node grants gates");
        }
        self.office = group.zip(office).map(|(group, term)| {
            let (node, gate) = (self.node.clone(), self.gate.clone());
            let patience = Duration::from_millis(self.times.attempt.0);
            Office { node, gate, group, term, patience }
        });
    }

    /// The two clocks must be of one moment, so the step goes by the reading that was compared.
    async fn compare_clocks(&mut self) {
        let Some((now, monotonic)) = clock::both() else { return };
        let actions = self.decides.compare_clocks(&mut self.gate.gate(), now, monotonic);
        for action in actions {
            self.act(action).await;
        }
    }

    async fn carry_out_all(&mut self) {
        loop {
            let now = clock::boottime_ns();
            let Some(actions) = self.decides.step(&mut self.gate.gate(), now) else { return };
            for action in actions {
                self.act(action).await;
            }
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::SaveLineage(chain) => self.save(chain).await,
            Action::SavePromise(activation) => self.promise(activation).await,
            Action::RefusePart(reasons) => {
                tracing::warn!(?reasons, "takes no part in an activation");
            }
            Action::Tell(to, message) => {
                self.member().registry.tell(to, gate_wire::write(&message));
            }
            Action::Round { term, node, request } => {
                if let Some(office) = self.office_of(term) {
                    office.round(node, request);
                }
            }
            Action::Record { term, opening } => {
                if let Some(office) = self.office_of(term) {
                    office.record(opening);
                }
            }
            Action::Opened(grant, lease) => self.opened(grant, lease),
            Action::Extended(lease) => {
                if let Some(lease) = lease {
                    self.node.journal.write(&Event::GateExtended(journal_lease(lease)));
                }
            }
            Action::Closed(why) => self.closed(&why),
        }
    }

    fn office_of(&self, term: u64) -> Option<&Office> {
        self.office.as_ref().filter(|office| office.term == term)
    }

    fn opened(&mut self, grant: GrantId, lease: Option<Lease>) {
        tracing::info!(term = grant.term, grant = grant.number, "the gate is open");
        // The journal knows before any group may serve.
        if let Some(lease) = lease {
            self.node.journal.write(&Event::GateOpened(journal_lease(lease)));
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
                self.decides.take_in(Heard::LineageSaved(last));
                self.node.journal.set_lineage(last);
                let member = self.member();
                member.peers.adopt(chain);
                member.registry.recheck_peers();
            }
            Ok(Err(fault)) => {
                tracing::error!(%fault, "save the newest lineage");
                self.decides.take_in(Heard::StoreFailed);
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
                self.decides.take_in(Heard::PromiseSaved(activation));
            }
            Ok(Err(fault)) => {
                tracing::error!(%fault, "save a promise");
                self.decides.take_in(Heard::StoreFailed);
            }
            // The runtime ends.
            Err(_) => {}
        }
    }

    // --- The groups -----------------------------------------------------------------------------

    /// Lets every group know where the gate was opened or closed, and shows who leads the control
    /// group and whether it may grant.
    fn publish(&mut self) {
        *self.gate.leader.lock().expect(UNPOISONED) = self.decides.leader();
        *self.gate.confirmation.lock().expect(UNPOISONED) =
            self.decides.confirmation(clock::boottime());
        let open = self.gate.closed().is_none();
        if !self.decides.turned(open) {
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
    let control = node.control();
    let control = control.as_deref();
    // Whatever was decided before this gate was opened is known here: a copy whose database went on
    // without it serves nobody.
    let open = match member.gate.opening() {
        None => false,
        Some(grant) => eligibility::knows_opening(control, node.id(), grant),
    };
    let leads = group.role().0 == Role::Leader;
    let led = led_here(member, database);
    group.stand(match open {
        true => eligibility::candidacy(control, node.id(), database, leads, led),
        false => Candidacy::Never,
    });
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
