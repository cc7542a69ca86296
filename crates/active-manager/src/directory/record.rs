//! What the directory stores.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{DatabaseId, MailboxId};

use crate::address::Address;

pub(crate) const ADDRESSES: u8 = 0x10;
const MAILBOXES: u8 = 0x11;
const COUNTS: u8 = 0x12;

pub(crate) fn address_key(address: &Address) -> Vec<u8> {
    [&[ADDRESSES], address.as_str().as_bytes()].concat()
}

pub(crate) fn mailbox_key(mailbox: &[u8]) -> Vec<u8> {
    [&[MAILBOXES], mailbox].concat()
}

pub(crate) fn count_key(database: u64) -> Vec<u8> {
    [&[COUNTS][..], &database.to_be_bytes()].concat()
}

/// Whose address it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MailboxKey {
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox: Bytes,
}

/// A mailbox, and where it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MailboxRecord {
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox: Bytes,
    /// Where it is.
    #[prost(uint64, tag = "2")]
    pub database: u64,
    /// As its maker wrote it.
    #[prost(string, tag = "3")]
    pub address: String,
    /// The database has it. Until then the address is only held.
    #[prost(bool, tag = "4")]
    pub confirmed: bool,
    /// The request that holds or made it.
    #[prost(string, tag = "5")]
    pub request_id: String,
    /// When that request reserved it; milliseconds since 1970.
    #[prost(uint64, tag = "6")]
    pub reserved_at_ms: u64,
}

impl MailboxRecord {
    /// Its identity.
    pub fn id(&self) -> MailboxId {
        MailboxId::from_slice(&self.mailbox).unwrap_or(MailboxId::NIL)
    }

    /// Where it is.
    pub fn database(&self) -> DatabaseId {
        DatabaseId(self.database)
    }
}

/// Mailboxes of a database, reserved ones included.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MailboxCount {
    /// How many.
    #[prost(uint64, tag = "1")]
    pub mailboxes: u64,
}
