//! What `apply` and the queries may see of a copy's state, and what a fault of it is.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use thiserror::Error;

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// The state that a command or a query reads: this batch's earlier writes over the store, or a
/// snapshot.
pub trait MailboxView {
    /// A fault of the store; it ends the copy, never the command. A record that cannot be read is
    /// such a fault too, hence the conversion.
    type Error: From<Fault>;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Self::Error>;

    /// Rows with `from <= key < to` in order, at most `limit`.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, Self::Error>;
}

/// Something that must not be: the copy that meets it fails, and writes nothing.
///
/// Never the caller's mistake; those are a [`crate::Rejection`], which all copies agree on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// A command that this version cannot read. To pass over it would make this copy differ from
    /// those that can.
    #[error(
        "cannot read a replicated command ({detail}): a newer version wrote it, or the entry is damaged"
    )]
    UnknownCommand {
        /// What is wrong with its bytes.
        detail: String,
    },
    /// A stored record that does not decode, or that contradicts another one.
    #[error("record {key} is damaged: {detail}; reseed this copy")]
    DamagedRecord {
        /// The key, in hexadecimal.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl Fault {
    /// A record that is not what its key promises.
    pub(crate) fn damaged(key: &[u8], detail: impl Into<String>) -> Self {
        use core::fmt::Write as _;
        let mut hex = String::with_capacity(key.len() * 2);
        for byte in key {
            write!(hex, "{byte:02x}").expect("writing to a string does not fail");
        }
        Self::DamagedRecord { key: hex, detail: detail.into() }
    }
}
