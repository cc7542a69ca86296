//! What became of a command. Rejections are part of the replicated result.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use thiserror::Error;

use super::record::DatabaseRecord;

/// The answer to a [`super::Command`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// What became of it.
    #[prost(oneof = "Outcome", tags = "1, 2, 3, 4, 5, 15")]
    pub outcome: Option<Outcome>,
}

/// What became of a command.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Outcome {
    /// The DAG is there: made by this command, or by the same one before.
    #[prost(message, tag = "1")]
    DagCreated(DagCreated),
    /// The start is registered: by this command, or by the same one before.
    #[prost(message, tag = "2")]
    BootRegistered(BootRegistered),
    /// The database is there.
    #[prost(message, tag = "3")]
    DatabaseCreated(DatabaseCreated),
    /// It is as was asked: by this command, or it was before.
    #[prost(message, tag = "4")]
    Changed(Changed),
    /// The operation is recorded.
    #[prost(message, tag = "5")]
    OperationBegun(OperationBegun),
    /// Nothing was changed.
    #[prost(message, tag = "15")]
    Rejected(Rejected),
}

/// See [`Outcome::DagCreated`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DagCreated {
    /// An equal command came before.
    #[prost(bool, tag = "1")]
    pub replayed: bool,
}

/// See [`Outcome::BootRegistered`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BootRegistered {
    /// An equal command came before.
    #[prost(bool, tag = "1")]
    pub replayed: bool,
}

/// See [`Outcome::DatabaseCreated`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DatabaseCreated {
    /// As it stands in the control group.
    #[prost(message, optional, tag = "1")]
    pub database: Option<DatabaseRecord>,
    /// The same request came before.
    #[prost(bool, tag = "2")]
    pub replayed: bool,
}

/// See [`Outcome::Changed`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Changed {
    /// It was so before.
    #[prost(bool, tag = "1")]
    pub was_so: bool,
}

/// See [`Outcome::OperationBegun`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperationBegun {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub operation: u64,
    /// The same request came before.
    #[prost(bool, tag = "2")]
    pub replayed: bool,
}

/// See [`Outcome::Rejected`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rejected {
    /// Why.
    #[prost(oneof = "Rejection", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub reason: Option<Rejection>,
}

/// Why a command was refused.
#[derive(Clone, PartialEq, prost::Oneof, Error)]
pub enum Rejection {
    /// There is another DAG in this log.
    #[error("this log belongs to another DAG")]
    #[prost(message, tag = "1")]
    DagExists(DagExists),
    /// Nothing but its creation can be asked of a DAG that is not there.
    #[error("there is no DAG yet; run `dagctl dag create`")]
    #[prost(message, tag = "2")]
    NoDag(NoDag),
    /// The definition does not fit; everything that is wrong.
    #[error("the definition cannot be used: {}", .0.problems.join("; "))]
    #[prost(message, tag = "3")]
    InvalidDefinition(Problems),
    /// No such node.
    #[error("there is no node {}", .0.node)]
    #[prost(message, tag = "4")]
    UnknownNode(UnknownNode),
    /// The node's disk is not the one that it is known by: lost, or a clone.
    #[error(
        "node {} runs on another store than the registered one: its disk was lost or exchanged; \
         it comes back as a new store", .0.node
    )]
    #[prost(message, tag = "5")]
    UnknownStore(UnknownStore),
    /// The start is not newer than the registered one: the disk was turned back, or cloned.
    #[error(
        "node {}: start {} is not newer than the registered start {}: its disk was turned back or \
         cloned; it is in quarantine and comes back only as a new store",
        .0.node, .0.counter, .0.registered_counter
    )]
    #[prost(message, tag = "6")]
    BootTurnedBack(BootTurnedBack),
    /// The name cannot be used.
    #[error("{}", .0.problem)]
    #[prost(message, tag = "7")]
    InvalidName(InvalidName),
    /// Another database has the name.
    #[error("the name {:?} belongs to database {}", .0.name, .0.database)]
    #[prost(message, tag = "8")]
    NameTaken(NameTaken),
    /// The copies cannot stand where they were wished.
    #[error("no placement: {}", .0.problems.join("; "))]
    #[prost(message, tag = "9")]
    NoPlacement(Problems),
    /// The request id came before with another content, or is no request id.
    #[error("the request id was used for another request, or is none")]
    #[prost(message, tag = "10")]
    RequestIdReused(RequestIdReused),
    /// A check failed; which one, with its value and its limit.
    #[error("{}", .0)]
    #[prost(message, tag = "11")]
    Check(FailedCheck),
}

/// A check that failed: every refusal of an operator's command looks like this.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FailedCheck {
    /// Stable, such as `node-exists` or `move-block-time`.
    #[prost(string, tag = "1")]
    pub check: String,
    /// About what.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// What was found.
    #[prost(string, tag = "3")]
    pub value: String,
    /// What it should have been.
    #[prost(string, tag = "4")]
    pub limit: String,
    /// What to do about it.
    #[prost(string, tag = "5")]
    pub advice: String,
}

impl FailedCheck {
    /// A failed check without advice.
    pub fn new(
        check: &str,
        subject: impl Into<String>,
        value: impl Into<String>,
        limit: impl Into<String>,
    ) -> Self {
        let (subject, value, limit) = (subject.into(), value.into(), limit.into());
        Self { check: check.into(), subject, value, limit, advice: String::new() }
    }

    /// With advice.
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

/// See [`Rejection::DagExists`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DagExists {
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub dag: Bytes,
}

/// See [`Rejection::NoDag`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct NoDag {}

/// All that is wrong.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Problems {
    /// Each a sentence for people.
    #[prost(string, repeated, tag = "1")]
    pub problems: Vec<String>,
}

/// See [`Rejection::UnknownNode`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct UnknownNode {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
}

/// See [`Rejection::UnknownStore`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct UnknownStore {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Sixteen bytes: the registered store.
    #[prost(bytes = "bytes", tag = "2")]
    pub registered: Bytes,
}

/// See [`Rejection::BootTurnedBack`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BootTurnedBack {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Of the start that was refused.
    #[prost(uint64, tag = "2")]
    pub counter: u64,
    /// Of the last registered start.
    #[prost(uint64, tag = "3")]
    pub registered_counter: u64,
}

/// See [`Rejection::InvalidName`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct InvalidName {
    /// For people.
    #[prost(string, tag = "1")]
    pub problem: String,
}

/// See [`Rejection::NameTaken`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct NameTaken {
    /// As asked for.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Who has it.
    #[prost(uint64, tag = "2")]
    pub database: u64,
}

/// See [`Rejection::RequestIdReused`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestIdReused {}

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

/// As people read it: the check, what it is about, what was found, what is needed, what to do.
impl core::fmt::Display for FailedCheck {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { check, subject, value, limit, advice } = self;
        write!(f, "{check}: {subject}: {value}, needed: {limit}")?;
        if advice.is_empty() { Ok(()) } else { write!(f, "; {advice}") }
    }
}
