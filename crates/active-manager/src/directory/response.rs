//! What became of a command. Rejections are part of the replicated result.

use alloc::string::String;

use bytes::Bytes;
use thiserror::Error;

/// The answer to a [`super::Command`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// What became of it.
    #[prost(oneof = "Outcome", tags = "1, 2, 15")]
    pub outcome: Option<Outcome>,
}

/// What became of a command.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Outcome {
    /// The address is held for this request.
    #[prost(message, tag = "1")]
    Reserved(Reservation),
    /// The mailbox can be found.
    #[prost(message, tag = "2")]
    Confirmed(Reservation),
    /// Nothing was changed.
    #[prost(message, tag = "15")]
    Rejected(Rejected),
}

/// A mailbox as it stands in the directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reservation {
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox: Bytes,
    /// Where it is, or shall be.
    #[prost(uint64, tag = "2")]
    pub database: u64,
    /// The same request came before.
    #[prost(bool, tag = "3")]
    pub replayed: bool,
    /// It was confirmed already.
    #[prost(bool, tag = "4")]
    pub confirmed: bool,
}

/// See [`Outcome::Rejected`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rejected {
    /// Why.
    #[prost(oneof = "Rejection", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub reason: Option<Rejection>,
}

/// Why a command was refused.
#[derive(Clone, PartialEq, prost::Oneof, Error)]
pub enum Rejection {
    /// The text is no address.
    #[error("{}", .0.problem)]
    #[prost(message, tag = "1")]
    InvalidAddress(InvalidAddress),
    /// The address has a mailbox.
    #[error("the address has a mailbox already")]
    #[prost(message, tag = "2")]
    AddressTaken(AddressTaken),
    /// Another request is making a mailbox of this address.
    #[error(
        "another request is making a mailbox of this address; it may be taken over in {} ms",
        .0.retry_after_ms
    )]
    #[prost(message, tag = "3")]
    BeingMade(BeingMade),
    /// There is no such database, or none at all.
    #[error("there is no such database; `dagctl db list` shows those there are")]
    #[prost(message, tag = "4")]
    NoDatabase(NoDatabase),
    /// The request id came before with another content, or is none.
    #[error("the request id was used for another request, or is none")]
    #[prost(message, tag = "5")]
    RequestIdReused(RequestIdReused),
    /// There is no such mailbox.
    #[error("there is no such mailbox")]
    #[prost(message, tag = "6")]
    NoMailbox(NoMailbox),
    /// Another request took the reservation over.
    #[error("another request took this reservation over")]
    #[prost(message, tag = "7")]
    TakenOver(TakenOver),
}

/// See [`Rejection::InvalidAddress`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct InvalidAddress {
    /// For people.
    #[prost(string, tag = "1")]
    pub problem: String,
}

/// See [`Rejection::AddressTaken`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddressTaken {
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox: Bytes,
    /// Where it is.
    #[prost(uint64, tag = "2")]
    pub database: u64,
}

/// See [`Rejection::BeingMade`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BeingMade {
    /// From now.
    #[prost(uint64, tag = "1")]
    pub retry_after_ms: u64,
}

/// See [`Rejection::NoDatabase`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct NoDatabase {}

/// See [`Rejection::RequestIdReused`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestIdReused {}

/// See [`Rejection::NoMailbox`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct NoMailbox {}

/// See [`Rejection::TakenOver`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct TakenOver {}

impl From<Rejection> for Response {
    fn from(rejection: Rejection) -> Self {
        let rejected = Rejected { reason: Some(rejection) };
        Self { outcome: Some(Outcome::Rejected(rejected)) }
    }
}

impl From<Outcome> for Response {
    fn from(outcome: Outcome) -> Self {
        Self { outcome: Some(outcome) }
    }
}
