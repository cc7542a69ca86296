//! What is asked of the DAG. Tags are for ever: a log written today is read by every later version.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::definition::Definition;

/// One entry of the control log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// Milliseconds since 1970 where it was proposed; stamps and expiry only.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// Who asked, for the audit: an operator, or `node 3`.
    #[prost(string, tag = "2")]
    pub who: String,
    /// From where.
    #[prost(string, tag = "3")]
    pub from: String,
    /// Why, in the operator's words.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// What.
    #[prost(oneof = "Order", tags = "10, 11, 12")]
    pub order: Option<Order>,
}

/// What is asked.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Order {
    /// The first entry of a DAG.
    #[prost(message, tag = "10")]
    CreateDag(CreateDag),
    /// A node started.
    #[prost(message, tag = "11")]
    RegisterBoot(RegisterBoot),
    /// A new mailbox database.
    #[prost(message, tag = "12")]
    CreateDatabase(CreateDatabase),
}

/// Makes the DAG: its nodes, the first link of its lineage, the directory.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateDag {
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub dag: Bytes,
    /// From `dag.toml`.
    #[prost(message, optional, tag = "2")]
    pub definition: Option<Definition>,
    /// The store of each node of the definition.
    #[prost(message, repeated, tag = "3")]
    pub founders: Vec<Founder>,
    /// Sixteen bytes: the id of the first link.
    #[prost(bytes = "bytes", tag = "4")]
    pub activation: Bytes,
}

/// A node as it was when the DAG was created.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Founder {
    /// The node's number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub store: Bytes,
}

/// Registers a start of a node. Registered iff the counter is greater than the registered one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegisterBoot {
    /// The node's number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub store: Bytes,
    /// Starts of this store so far.
    #[prost(uint64, tag = "3")]
    pub boot_counter: u64,
    /// Tells a clone's start from the original's.
    #[prost(fixed64, tag = "4")]
    pub boot_id: u64,
}

/// Makes a mailbox database, with its replica ids.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateDatabase {
    /// Chosen by the caller; a repetition gets the first answer.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// Unique regardless of case.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where the copies stand, in the order of preference; empty: chosen by load.
    #[prost(uint64, repeated, tag = "3")]
    pub nodes: Vec<u64>,
    /// The site where it is active; empty: the primary site.
    #[prost(string, tag = "4")]
    pub site: String,
}
