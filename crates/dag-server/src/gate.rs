//! The node's gate: whether its databases may serve, driven by messages and clocks.
//!
//! ```text
//!  event ──► DacGate.step(BOOTTIME, input) ──► save (fsync) ──► send ──► let the groups know
//!    ▲                                                                        │
//!    └── deadline, message, applied control log, leadership, fault ◄──────────┘
//! ```
//! `dac` decides, its [`dac::Keeper`] in which order; here stand the clocks, the disk and the wire
//! (`docs/gate.md`). The gate lives behind one mutex that is never held across an `await`. Groups
//! ask it themselves, by time and not by what the loop said last: a node that was frozen and wakes
//! up in the middle of a request finds its gate closed before the loop has turned once.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`keeper`] | the loop: carries out what the keeper says, tells the groups |
//! | [`leader`] | quorum rounds and records, while the control group is led here |
//! | [`show`] | the gate in words, for operators |

pub mod keeper;
mod leader;
pub mod show;

use std::sync::Mutex;

use active_manager::control::Timeouts;
use dac::gate::Saved;
use dac::granter::Confirmation;
use dac::keeper::Heard;
use dac::message::Holder;
use dac::{Closed, DacGate, LeaseTimes, MountPermit};
use dag_api::peer::v1 as pb;
use dag_types::{DatabaseId, GrantId, Millis, NodeId};
use replication::peer::PeerIdentity;
use replication::{Leave, LockedGate, ServingGate, gate_wire};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::clock;

/// What the loop is told.
pub(super) enum Told {
    /// Of gates, for whoever decides.
    Heard(Heard),
    /// It is asked whether these nodes' gates are surely closed.
    Fence(Vec<NodeId>, oneshot::Sender<Fenced>),
}

/// Whether the gates of some nodes are surely closed, by the word of the granter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced {
    /// The control term of the granter.
    pub term: u64,
    /// What is left until then.
    pub left: Millis,
}

/// The gate of this node, shared by its groups, its services and its loop.
pub struct NodeGate {
    gate: LockedGate,
    own: NodeId,
    inbox: mpsc::UnboundedSender<Told>,
    /// Taken by the loop.
    arriving: Mutex<Option<mpsc::UnboundedReceiver<Told>>>,
    /// While the control group is led here: whether it may grant, and why.
    confirmation: Mutex<Option<Confirmation>>,
    leader: Mutex<Option<NodeId>>,
    /// Held while a group is told how the gate stands.
    settling: Mutex<()>,
}

impl std::fmt::Debug for NodeGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeGate")
    }
}

impl NodeGate {
    /// The gate of a node that starts, with what its disk remembers: closed.
    pub fn at_boot(holder: Holder, times: LeaseTimes, saved: Saved) -> Self {
        let (inbox, arriving) = mpsc::unbounded_channel();
        let gate = DacGate::at_boot(clock::boottime(), holder, times, saved);
        Self {
            gate: LockedGate::new(gate, Box::new(clock::boottime)),
            own: holder.node,
            inbox,
            arriving: Mutex::new(Some(arriving)),
            confirmation: Mutex::default(),
            leader: Mutex::default(),
            settling: Mutex::default(),
        }
    }

    /// Tells the loop. It hears nothing any more when the node stops.
    pub fn tell(&self, heard: Heard) {
        let _ = self.inbox.send(Told::Heard(heard));
    }

    /// How long until nothing that was granted to these nodes can be open any more; none where this
    /// node does not grant.
    pub async fn fence(&self, nodes: Vec<NodeId>) -> Option<Fenced> {
        let (answer, fenced) = oneshot::channel();
        let _ = self.inbox.send(Told::Fence(nodes, answer));
        fenced.await.ok()
    }

    /// The opening that this gate is open by.
    pub fn opening(&self) -> Option<GrantId> {
        let gate = self.gate();
        let open = gate.closed(clock::boottime()).is_none();
        gate.opening().filter(|_| open).map(|(grant, _)| grant)
    }

    /// Why nothing may be served now; none: the gate is open.
    pub fn closed(&self) -> Option<Closed> {
        self.gate.closed()
    }

    fn gate(&self) -> std::sync::MutexGuard<'_, DacGate> {
        self.gate.lock()
    }
}

impl ServingGate for NodeGate {
    fn is_open(&self) -> bool {
        self.closed().is_none()
    }

    fn permit(&self, database: DatabaseId, deadline: Instant) -> Result<Leave, Closed> {
        self.gate.permit(database, deadline)
    }

    fn upholds(&self, permit: &MountPermit) -> Result<(), Closed> {
        self.gate.upholds(permit)
    }

    fn heard(&self, from: &PeerIdentity, message: pb::GateMessage) {
        match gate_wire::read(from, self.own, message) {
            None => tracing::warn!(peer = %from.node, "a message about gates cannot be read"),
            Some(message) => {
                self.tell(Heard::Message { from: from.node, lineage: from.lineage, message });
            }
        }
    }
}

/// The lease of a DAG whose control group has these timeouts.
///
/// Eight seconds, and longer only where the control group needs longer to find another leader: the
/// death of a control leader closes no gate. A faster control group does not make leases shorter,
/// because a shorter one would close gates when a machine is only busy.
pub fn lease_times(control: Option<Timeouts>) -> LeaseTimes {
    /// Leases are whole multiples of it.
    const STEP: u64 = 500;
    let default = LeaseTimes::DEFAULT;
    let election = control.map_or(0, |timeouts| u64::from(timeouts.election_ms_max));
    let control_election_max = default.control_election_max.max(Millis(election));
    // One hundredth of the lease may be drift, and must fit into the margin; the lease is little
    // more than four elections.
    let margin = default.margin.0.max(control_election_max.0 / 20);
    let needed = 2 * default.renewal.0 + default.attempt.0 + 4 * control_election_max.0 + margin;
    let lease = default.lease.0.max(needed.next_multiple_of(STEP));
    LeaseTimes { lease: Millis(lease), margin: Millis(margin), control_election_max, ..default }
}

const UNPOISONED: &str = "no holder of this lock panics";

#[cfg(test)]
mod tests {
    use super::*;
    use dag_types::{ActivationId, Boot, LineageChain, StoreId};
    use std::time::Duration;

    const CHAIN: [u8; 16] = [1; 16];

    fn gate() -> NodeGate {
        let holder =
            Holder { node: NodeId(1), store: StoreId([1; 16]), boot: Boot { counter: 1, id: 1 } };
        NodeGate::at_boot(holder, LeaseTimes::DEFAULT, saved(None))
    }

    fn saved(promise: Option<ActivationId>) -> Saved {
        Saved { chain: LineageChain::first(ActivationId(CHAIN)), promise }
    }

    #[test]
    fn leases_are_sound_for_every_timeout_that_a_definition_may_name() {
        for election_ms_max in (1..=60_000).step_by(97).chain([160, 1200, 2000, 60_000]) {
            let timeouts = Timeouts { election_ms_max, ..Timeouts::DEFAULT };
            let times = lease_times(Some(timeouts));
            assert_eq!(times.problems(), Vec::<String>::new(), "{election_ms_max}");
        }
        assert_eq!(lease_times(Some(Timeouts::FAST)), LeaseTimes::DEFAULT);
        assert_eq!(lease_times(Some(Timeouts::WAN)).lease, Millis(11_000));
    }

    #[tokio::test]
    async fn a_node_that_starts_permits_nothing_and_says_why() {
        let gate = gate();
        assert!(!gate.is_open());
        let refused = gate.permit(DatabaseId(16), Instant::now() + Duration::from_secs(1));
        assert_eq!(refused.err(), Some(Closed::NeverOpened));
    }
}
