//! The seam to the node's gate: whether anything may be served here, and until when.
//!
//! The daemon owns the gate ([`dac::DacGate`]) and drives it; groups only ask, each time anew and
//! never across an `await`. A group that needs a mount asks three times: before it campaigns or
//! mounts, before a proposal or a read round ([`ServingGate::permit`]), and before the answer
//! ([`ServingGate::upholds`]). Between the last two lies what may not be reported as success.
//!
//! The control group is not gated: it is what gates are opened by.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use dac::{Closed, DacGate, MountPermit};
use dag_api::peer::v1 as pb;
use dag_types::{DatabaseId, Millis};
use tokio::time::Instant;

use crate::peer::PeerIdentity;

/// The node's gate, as its groups see it.
pub trait ServingGate: Send + Sync + 'static {
    /// Whether the gate is open now, by its lease's end and no cached word.
    fn is_open(&self) -> bool;

    /// Leave to serve one request of a database. The deadline may come back shorter, never longer.
    fn permit(&self, database: DatabaseId, deadline: Instant) -> Result<Leave, Closed>;

    /// Whether an answer may still go out under a permit.
    fn upholds(&self, permit: &MountPermit) -> Result<(), Closed>;

    /// A message about gates came from another node, whose stream was admitted. May not wait.
    fn heard(&self, from: &PeerIdentity, message: pb::GateMessage);
}

/// A permit, and its end by this process's own clock.
#[derive(Debug)]
pub struct Leave {
    /// What the answer must still be covered by.
    pub permit: MountPermit,
    /// Nothing is waited for beyond it.
    pub deadline: Instant,
}

/// A gate behind the one lock that its keeper and its groups share, with the clock that it goes by.
///
/// The lock comes before the clock is read, always: else the keeper might have fed a later time
/// already, and this would look like a clock that went back.
pub struct LockedGate {
    gate: Mutex<DacGate>,
    clock: BootClock,
}

/// A node's BOOTTIME.
pub type BootClock = Box<dyn Fn() -> Millis + Send + Sync>;

impl LockedGate {
    /// A gate that goes by this clock.
    pub fn new(gate: DacGate, clock: BootClock) -> Self {
        Self { gate: Mutex::new(gate), clock }
    }

    /// The gate, for its keeper and for those who show it. Never held across an `await`.
    pub fn lock(&self) -> MutexGuard<'_, DacGate> {
        self.gate.lock().expect("no holder of this lock panics")
    }

    /// Why nothing may be served now; none: the gate is open.
    pub fn closed(&self) -> Option<Closed> {
        let gate = self.lock();
        gate.closed((self.clock)())
    }

    /// See [`ServingGate::permit`].
    pub fn permit(&self, database: DatabaseId, deadline: Instant) -> Result<Leave, Closed> {
        // The process's clock is read first: what passes between the two shortens the deadline.
        let gate = self.lock();
        let here = Instant::now();
        let now = (self.clock)();
        let left = deadline.saturating_duration_since(here).as_millis() as u64;
        let permit = gate.permit(now, database, Some(now + Millis(left)))?;
        let left = permit.deadline().saturating_sub(now);
        let deadline = deadline.min(here + Duration::from_millis(left.0));
        Ok(Leave { permit, deadline })
    }

    /// See [`ServingGate::upholds`].
    pub fn upholds(&self, permit: &MountPermit) -> Result<(), Closed> {
        let gate = self.lock();
        gate.upholds((self.clock)(), permit)
    }
}

/// What a request of one group goes on under.
#[derive(Debug)]
pub(crate) enum Under {
    /// The group has no gate: the control group, or a node that is run without one.
    NoGate,
    /// A permit.
    Permit(MountPermit),
}

impl Under {
    /// Until when it holds, by the gate's clock.
    pub fn deadline(&self) -> Option<Millis> {
        match self {
            Self::NoGate => None,
            Self::Permit(permit) => Some(permit.deadline()),
        }
    }
}
