//! Bytes on disk: how every record that Holdfast writes is framed, versioned and checked.
//!
//! Nothing here decides or does anything; it turns values into bytes and back, and says exactly
//! what is wrong with bytes that are not what they should be. Everything carries a type and a
//! version, and an unknown one is an error with a name: skipping what one does not understand is
//! how acknowledged mail gets lost after a downgrade.
//!
//! | module | what it frames |
//! | --- | --- |
//! | [`record`] | the frame of all records: crc32 over header, payload and the place they stand at |
//! | [`log`] | what stands in a log segment: batches with claims, entries, votes, cuts, purges |
//! | [`chain`] | the hash that makes two logs comparable by one value |
//! | [`envelope`] | the head of an entry's payload: command, mount, digest mark |
//! | [`links`] | the chain of site activations |
//! | [`value`] | a record of the state, checked together with its key |
//! | [`meta`] | a copy's META and a node's root record |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod chain;
mod cursor;
pub mod envelope;
pub mod links;
pub mod log;
pub mod meta;
pub mod record;
pub mod value;

use thiserror::Error;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormatError {
    /// They end too early.
    #[error("{what} ends after {have} bytes")]
    Short {
        /// The record or field.
        what: &'static str,
        /// Bytes that are there.
        have: usize,
    },
    /// The checksum does not fit.
    #[error("{what} has a wrong checksum")]
    Checksum {
        /// The record.
        what: &'static str,
    },
    /// A type that this version of Holdfast does not know.
    #[error("{what} of unknown type {found}; a newer Holdfast may have written it")]
    UnknownType {
        /// The family of records.
        what: &'static str,
        /// The type's number.
        found: u8,
    },
    /// A version that this version of Holdfast does not know.
    #[error("{what} has version {found}, known are versions up to {known}; use a newer Holdfast")]
    UnknownVersion {
        /// The record.
        what: &'static str,
        /// The version's number.
        found: u8,
        /// The greatest known.
        known: u8,
    },
    /// The checksum fits and the content makes no sense.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// The record.
        what: &'static str,
        /// What makes no sense.
        why: &'static str,
    },
}
