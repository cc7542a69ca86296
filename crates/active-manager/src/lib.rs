//! The DAG's own state: what the control group and the directory replicate, and every decision
//! about it. Pure.
//!
//! Two machines live here. Each takes the state before a command and gives the writes and the
//! response, the same on every copy, for ever; neither reads a clock, a random source or a file.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`control`] | nodes, sites, lineage, databases, replica ids, audit: the only authority on them |
//! | [`directory`] | address to mailbox to database |
//! | [`placement`] | where the copies and the voters of a database stand, and those of the control group |
//! | [`address`] | which addresses are the same mailbox |
//!
//! A refused command is a response that says why (a *rejection*). An error of `apply` is a fault of
//! the store or an unreadable record: nothing is written, and the copy fails.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod address;
mod change;
pub mod control;
pub mod directory;
pub mod placement;
mod request;
#[cfg(test)]
mod test_state;

pub use change::{Applied, Digest, Fault};
