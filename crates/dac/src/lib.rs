//! Datacenter activation coordination: the lease that lets a node's databases serve. Pure.
//!
//! Each data node has a **gate**. It is closed at every start and opens only by a grant of the
//! control group's leader, who checks on state of a quorum round that began after the request
//! arrived. A grant is a lease: it ends by itself, so a node that is cut off stops serving without
//! being told.
//!
//! ```text
//!   holder (gate.rs)                            control leader (granter.rs)
//!   request, sent at s ───────────────────────► a quorum round that begins now
//!                                               lists, lineage, store, boot; confirmed?
//!   open until s + lease    ◄─────────────────  its own end: now + lease + drift + margin
//!                           ◄─────────────────  "do you hold a grant?"   (question, each renewal)
//!   answer: remaining time, and a promise ────► confirmed for one lease time from its asking
//! ```
//!
//! The holder counts from before the sending and the granter from after the round, with clocks that
//! may run apart by the drift bound, so the holder's end is always the earlier one.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`times`] | the lease's numbers, and the inequalities between them |
//! | [`message`] | what holder and granter say to each other |
//! | [`gate`] | the holder: opens, extends, closes; the only place that makes a [`MountPermit`] |
//! | [`permit`] | what a request carries from the check before the proposal to that before the answer |
//! | [`closed`] | why a gate is closed, and what to do about it |
//! | [`granter`] | the control leader: confirmation, grants, the takeover wait |
//! | [`keeper`] | one node's part: feeds gate and granter in the right order, for every shell |
//! | [`mount`] | which entries `apply` still accepts under a mount |
//! | [`step_fence`] | which step of an operation a node still carries out |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod closed;
pub mod gate;
pub mod granter;
pub mod keeper;
pub mod message;
pub mod mount;
pub mod permit;
pub mod step_fence;
pub mod times;

pub use closed::Closed;
pub use gate::DacGate;
pub use granter::Granter;
pub use keeper::Keeper;
pub use permit::MountPermit;
pub use times::LeaseTimes;
