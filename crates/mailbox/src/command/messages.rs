//! Commands that bring messages from one place to another: copy, move, multiple append, and what
//! concerns recoverable items.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message;

use super::{Content, UidRange};

/// From where to where messages are copied or moved.
#[derive(Clone, PartialEq, Message)]
pub struct Transfer {
    /// Whose folder; the request id belongs to it.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Which folder.
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// Refused when the folder's differs; 0 accepts any.
    #[prost(uint32, tag = "3")]
    pub expected_uid_validity: u32,
    /// Which messages. UIDs that do not exist are passed over.
    #[prost(message, repeated, tag = "4")]
    pub uids: Vec<UidRange>,
    /// Whose folder they go to, in the same database; empty is the same mailbox.
    #[prost(bytes = "bytes", tag = "5")]
    pub to_mailbox_id: Bytes,
    /// Which folder they go to.
    #[prost(uint32, tag = "6")]
    pub to_folder: u32,
    /// Refused when that folder's differs; 0 accepts any.
    #[prost(uint32, tag = "7")]
    pub to_expected_uid_validity: u32,
}

/// Copies messages, all or none, with flags, keywords and date, without touching a body
/// (RFC 9051 6.4.7).
#[derive(Clone, PartialEq, Message)]
pub struct CopyMessages {
    /// From where to where.
    #[prost(message, required, tag = "1")]
    pub transfer: Transfer,
}

/// Moves messages, all or none: in one log entry they leave one folder and come into the other
/// (RFC 6851 3.3).
#[derive(Clone, PartialEq, Message)]
pub struct MoveMessages {
    /// From where to where.
    #[prost(message, required, tag = "1")]
    pub transfer: Transfer,
}

/// Several messages into one folder, all or none (MULTIAPPEND, RFC 3502).
#[derive(Clone, PartialEq, Message)]
pub struct AppendMany {
    /// Whose folder.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Which folder.
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// Refused when the folder's differs; 0 accepts any.
    #[prost(uint32, tag = "3")]
    pub expected_uid_validity: u32,
    /// In the order of the UIDs that they get.
    #[prost(message, repeated, tag = "15")]
    pub messages: Vec<AppendItem>,
}

/// One message of a multiple append; the fields mean what they mean in [`super::Append`].
#[derive(Clone, PartialEq, Message)]
pub struct AppendItem {
    /// Bits of [`crate::flags`].
    #[prost(uint32, tag = "1")]
    pub system_flags: u32,
    /// Keywords, in any case.
    #[prost(string, repeated, tag = "2")]
    pub keywords: Vec<String>,
    /// INTERNALDATE, milliseconds since 1970; 0 means `proposed_at_ms`.
    #[prost(uint64, tag = "3")]
    pub internal_date_ms: u64,
    /// What is stored.
    #[prost(message, required, tag = "15")]
    pub content: Content,
}

/// Brings expunged messages back, all or none, each at a new UID.
#[derive(Clone, PartialEq, Message)]
pub struct RestoreItems {
    /// Whose.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Ids of recoverable items.
    #[prost(uint64, repeated, tag = "2")]
    pub items: Vec<u64>,
    /// To which folder; 0 is the one that each was in.
    #[prost(uint32, tag = "3")]
    pub folder: u32,
}

/// Removes expunged messages for good before their time. Refused while the mailbox is on hold.
#[derive(Clone, PartialEq, Message)]
pub struct PurgeItems {
    /// Whose.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Ids of recoverable items. Those that are gone already are passed over.
    #[prost(uint64, repeated, tag = "2")]
    pub items: Vec<u64>,
}

/// A part of a body that is too large for one entry. Harmless to repeat.
#[derive(Clone, PartialEq, Message)]
pub struct StageChunk {
    /// BLAKE3 of the whole body, 32 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub blake3: Bytes,
    /// Bytes of the whole body.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// CRC-32 of the whole body.
    #[prost(uint32, tag = "3")]
    pub crc32: u32,
    /// Which part, counted from 0. Each but the last has [`crate::limits::BODY_CHUNK_BYTES`].
    #[prost(uint32, tag = "4")]
    pub chunk: u32,
    /// Its bytes.
    #[prost(bytes = "bytes", tag = "15")]
    pub bytes: Bytes,
}

impl From<Transfer> for CopyMessages {
    fn from(transfer: Transfer) -> Self {
        Self { transfer }
    }
}

impl From<Transfer> for MoveMessages {
    fn from(transfer: Transfer) -> Self {
        Self { transfer }
    }
}
