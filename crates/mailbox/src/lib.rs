//! Mailboxes: the commands that a database replicates, and their effect. Pure.
//! See ARCHITECTURE.md.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod view;
