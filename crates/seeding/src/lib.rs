//! Moves a copy's bytes: seeding, delta, moving a path, trash, scrub.
//!
//! A copy is never repaired in place. A new replica, under a new id, is built **beside** what is
//! there, proven, and put in its place by renames; the old one goes to the trash by a rename. So at
//! any moment a killed process leaves the old copy or the new one, and never a mixture.
//!
//! ```text
//!  source                                  target
//!  state ──checkpoint──► files             seed-<replica>/record   what is durable here, and whence
//!            │             │                      │       state/   the files as they arrive
//!         manifest ──────► │ ───── frames ──────► │
//!  (position, members)     └ crc32 per frame,     └ verified ─► rename ─► gen-<g>-<replica>/state
//!                            blake3 per range
//! ```
//!
//! | module | what it is about |
//! | --- | --- |
//! | [`wire`] | manifest, frames, requests and their checks |
//! | [`source`] | checkpoints, their leases, serving ranges under a [`limit`] |
//! | [`target`] | the staged replica, its durable record, resuming, changing the source |
//! | [`install`] | the staged state becomes a copy; the old copy is retired |
//! | [`delta`] | two states are made equal by sending only the bodies that differ |
//! | [`relocate`] | a copy moves to another path of its node |
//! | [`reform`] | a copy is made anew of itself in the next generation |
//! | [`trash`] | what is kept for how long |
//! | [`snapshot`] | a copy's state as it was, kept beside it: taken, verified, read |
//! | [`scrub`] | reading everything in the background |
//! | [`progress`] | what people see; it never goes back |
//!
//! Nothing here knows Raft, sockets or clocks: requests and replies are values, time is an
//! argument, files go through [`storage::disk::Disk`]. Every machine does one piece of work per
//! call, so a simulation can end it between any two of them.
#![forbid(unsafe_code)]

pub mod delta;
mod fault;
pub mod install;
mod journal;
mod lent;
pub mod limit;
mod pages;
pub mod progress;
pub mod reform;
pub mod relocate;
pub mod scrub;
pub mod snapshot;
pub mod source;
pub mod target;
pub mod trash;
pub mod wire;

pub use fault::SeedFault;
