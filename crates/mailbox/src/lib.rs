//! Mailboxes: the commands that a database replicates, and their effect. Pure.
//!
//! # The model
//!
//! A **database** is one replicated log and the state that follows from it. It holds **mailboxes**;
//! a mailbox holds **folders**, a folder holds **messages**, each under a **UID** that is given out
//! once and never again. What a message contains is an **email**: one record however many folders
//! show it. The bytes behind it are a **body**, stored once for all emails of the database that are
//! equal to the byte.
//!
//! ```text
//!   database ── stamp, UIDVALIDITY counter, digest
//!      ├── mailbox ── MODSEQ and id counters, addresses
//!      │      ├── folder ── UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ, counts, keywords
//!      │      │      ├── message (uid) ── flags, keywords, MODSEQ ─┐
//!      │      │      └── change (modseq, uid)                      │
//!      │      ├── email ── dates, sender, envelope, placements ◄───┘ ─┐
//!      │      ├── request ids, delivery ids: what was answered        │
//!      └── body ── size, references, bytes ◄──────────────────────────┘
//!      └── due ── what a sweep removes, and when
//! ```
//!
//! # The rules
//!
//! 1. **Same commands, same bytes.** [`apply`] reads the view and its arguments, nothing else: no
//!    clock, no randomness, no map without order. Every copy of a database writes the same bytes at
//!    the same log index, which the [`digest`] proves: 16 bytes, kept with each command, equal
//!    exactly when all rows are.
//! 2. **Time comes with the command.** The proposer stamps it; `apply` never lets it go back, so a
//!    new leader with a slow clock cannot make anything younger than it was.
//! 3. **Numbers come from the state.** UIDs, UIDVALIDITY, mod-sequences and ids are counters in
//!    records that are written in the same batch as what they number. No crash and no failover gives
//!    one out twice.
//! 4. **One change, one mod-sequence.** Each command that changes something in a mailbox takes one
//!    number of the mailbox's own counter (RFC 7162 3.1), and each message it changes moves to that
//!    place in the change feed. A command that changes nothing takes none.
//! 5. **Once.** A client repeats an attempt whose outcome it does not know under the same
//!    `request_id`, a transport under the same `delivery_id`; the repeat gets the first answer.
//! 6. **Refusals are answers.** What the state or the request forbids is a
//!    [`Rejection`](response::Rejection): all copies agree on it, nothing but the memory of it is
//!    written. An `Err` is a fault of one copy, which then stops.
//! 7. **Bounded.** A command looks at no more than 1,000 messages, and [`limits`] has a bound for
//!    everything else. What expires goes by [`Sweep`](command::Sweep) commands, some rows at a time.
//!
//! # Reading the crate
//!
//! [`command`] is what stands in the log, [`response`] what comes back, [`keys`] and [`records`]
//! where and how the state is laid out. [`apply`] is the way from the one to the other, with one
//! file per operation, over the transaction that keeps the digest. [`query`] reads.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod apply;
pub mod command;
pub mod digest;
pub mod flags;
pub mod keys;
pub mod keywords;
pub mod limits;
pub mod map_view;
pub mod query;
pub mod records;
pub mod response;
pub mod rights;
pub mod special_use;
mod transaction;
pub mod uid_set;
pub mod view;

pub use apply::{Applied, apply};
pub use command::{COMMAND_VERSION, Command, Operation};
pub use digest::Digest;
pub use response::{Outcome, Reason, Rejection, Response};
pub use view::{Fault, MailboxView};
