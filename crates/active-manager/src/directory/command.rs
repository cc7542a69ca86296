//! What is asked of the directory. Tags are for ever.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

/// One entry of the directory's log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// Milliseconds since 1970 where it was proposed; expiry only.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// What.
    #[prost(oneof = "Order", tags = "10, 11")]
    pub order: Option<Order>,
}

/// What is asked.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Order {
    /// The first step of making a mailbox.
    #[prost(message, tag = "10")]
    Reserve(Reserve),
    /// The last step.
    #[prost(message, tag = "11")]
    Confirm(Confirm),
}

/// Holds an address, and decides id and database of its mailbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reserve {
    /// Chosen by the caller; a repetition gets the first answer.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// As the caller wrote it.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Sixteen random bytes: the mailbox's id, unless this request reserved one before.
    #[prost(bytes = "bytes", tag = "3")]
    pub mailbox: Bytes,
    /// The database that the caller wants; 0: the one of `candidates` with the fewest mailboxes.
    #[prost(uint64, tag = "4")]
    pub database: u64,
    /// The databases that there are.
    #[prost(uint64, repeated, tag = "5")]
    pub candidates: Vec<u64>,
}

/// The mailbox is there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Confirm {
    /// That of the reservation.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub mailbox: Bytes,
}
