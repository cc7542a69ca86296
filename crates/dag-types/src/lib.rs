//! The words that all of Holdfast shares: identities, positions in a log, instants.
//!
//! Values only, with their order, their parsing and their display. No decision is made here, and
//! nothing here can read a clock, a file or a random source: the crate is `no_std`.
//!
//! | value | meaning |
//! | --- | --- |
//! | [`DagId`], [`NodeId`], [`StoreId`], [`Boot`] | who is speaking, from which disk, since which start |
//! | [`Lineage`], [`LineageChain`] | the last link of the chain of site activations; the chain, which alone says what is newer |
//! | [`Registry`] | who may hold a gate's lease, as the control log says |
//! | [`DatabaseId`], [`Generation`], [`ReplicaId`] | which Raft group, which incarnation of it, which copy |
//! | [`CopyStatus`], [`Candidacy`] | how a copy stands, and how far it may strive for leadership |
//! | [`LogId`], [`Chain`] | a position in a database's log, and the hash of all that stands before it |
//! | [`Millis`] | an instant or a span, handed in by the caller |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod candidacy;
mod copy;
mod ids;
mod lineage;
mod log_id;
mod mutant;
mod registry;
mod time;
mod view;
mod write;

pub use candidacy::Candidacy;
pub use copy::CopyStatus;
pub use ids::{
    ActivationId, Boot, DagId, DatabaseId, Generation, Lineage, MailboxId, NodeId, ParseIdError,
    ReplicaId, StoreId,
};
pub use lineage::{ChainProblem, Kinship, LineageChain, LineageKind, LineageStep};
pub use log_id::{Chain, LogId};
pub use mutant::Mutant;
pub use registry::{GrantId, RegisteredNode, RegisteredSite, Registry};
pub use time::Millis;
pub use view::StateView;
pub use write::Write;
