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
//! | [`report`] | how nodes and copies stand right now, as they were heard |
//! | [`best_copy`] | which copy becomes active, with a verdict per copy |
//! | [`eligibility`] | which copies may become active, which starts are still to be registered |
//! | [`movement`] | whether a database may move: checks, plan, token |
//! | [`course`] | which step of a long operation comes next |
//! | [`joining`] | whether a node may join or be replaced, and who votes with it |
//! | [`removal`] | whether a node may leave for good, and who votes without it |
//! | [`seed`] | whether a copy may be built or removed, from where, and which are built by themselves |
//! | [`snapshot`] | which copy's snapshots are taken by schedule, when, and which go |
//! | [`balance`] | back to the preferred copies, at most once per block time |
//! | [`maintenance`] | draining a node, and what was forgotten |
//! | [`tolerance`] | what one more loss would stop |
//! | [`health`] | everything that is wrong, with stable codes |
//! | [`lint`] | what is wrong with layout and settings while everything still works |
//! | [`names`] | the known names nearest to a mistyped one |
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
pub mod balance;
pub mod best_copy;
mod change;
pub mod control;
pub mod course;
pub mod directory;
pub mod eligibility;
#[cfg(test)]
#[path = "fuzz_test.rs"]
mod fuzz;
pub mod health;
pub mod joining;
pub mod lint;
pub mod maintenance;
pub mod movement;
pub mod names;
pub mod placement;
pub mod reform;
pub mod removal;
pub mod report;
mod request;
#[cfg(test)]
mod scene;
pub mod seed;
pub mod snapshot;
#[cfg(test)]
mod test_state;
pub mod tolerance;

pub use change::{Applied, Digest, Fault};
