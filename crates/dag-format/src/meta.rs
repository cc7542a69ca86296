//! A copy's META and a node's root record: small files that are replaced whole.
//!
//! Both are one framed record (see [`crate::record`]) whose version is the version of the whole
//! format underneath: a directory that a newer Holdfast wrote is refused by reading this record,
//! before a byte of it is touched.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{
    ActivationId, Chain, DagId, DatabaseId, Generation, Lineage, LogId, NodeId, ReplicaId, StoreId,
};
use prost::Message;

use crate::FormatError;
use crate::log::VoteRecord;
use crate::record::{self, Place, check_version};

/// The format of a copy's directory that this Holdfast writes, and the newest that it reads.
pub const COPY_FORMAT: u8 = 1;
/// The same of a node's root. Version 2 adds the promise and the steps; a record that holds neither
/// is written as version 1, so that a node that never needed them can go back.
pub const NODE_FORMAT: u8 = 2;

const COPY: u8 = 0x41;
const NODE: u8 = 0x42;

/// A copy's META.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyMeta {
    /// The Holdfast that wrote it last, for people.
    pub writer: String,
    /// Whose it is.
    pub dag: DagId,
    /// The node whose copy it is.
    pub node: NodeId,
    /// The store of that node.
    pub store: StoreId,
    /// The database.
    pub database: DatabaseId,
    /// The incarnation of its group.
    pub generation: Generation,
    /// The copy's own id.
    pub replica: ReplicaId,
    /// How often it was opened; also the session of its log.
    pub opens: u64,
    /// The node's boot counter when it was opened last.
    pub boot_counter: u64,
    /// Everything up to here has left the log for good.
    pub purged: Option<(LogId, Chain)>,
}

/// A node's root record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeMeta {
    /// The Holdfast that wrote it last, for people.
    pub writer: String,
    /// The DAG, or [`DagId::NIL`] while the node is not provisioned.
    pub dag: DagId,
    /// The node.
    pub node: NodeId,
    /// Made when the root was formatted.
    pub store: StoreId,
    /// Starts of this store so far.
    pub boot_counter: u64,
    /// The random half of the last start.
    pub boot_id: u64,
    /// The newest lineage that this node knows.
    pub lineage: Lineage,
    /// The chain of links behind it, in the control group's own encoding.
    pub links: Bytes,
    /// What the node remembers of each of its copies, ordered by database and replica.
    pub copies: Vec<CopyMemory>,
    /// The unfenced activation that the node promised to take part in, while it is neither complete
    /// nor called off.
    pub promise: Option<ActivationId>,
    /// The highest step of each long operation that the node took, ordered by operation.
    pub steps: Vec<TakenStep>,
}

/// The highest step of a long operation that a node took: it takes no lower one any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenStep {
    /// Which operation.
    pub operation: u64,
    /// The control term in which the step was sent.
    pub term: u64,
    /// Counts the steps of the operation.
    pub step: u32,
}

/// What a node's root remembers of a copy, so that a copy that was turned back is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyMemory {
    /// The database.
    pub database: DatabaseId,
    /// The copy.
    pub replica: ReplicaId,
    /// How often it was opened.
    pub opens: u64,
    /// The node's boot counter when it was opened last.
    pub boot_counter: u64,
    /// A vote that the copy cast and must still know.
    pub vote: Option<VoteRecord>,
}

impl CopyMeta {
    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let stored = StoredCopyMeta {
            writer: self.writer.clone(),
            dag: self.dag.0.to_vec(),
            node: self.node.0,
            store: self.store.0.to_vec(),
            database: self.database.0,
            generation: self.generation.0,
            replica: self.replica.0,
            opens: self.opens,
            boot_counter: self.boot_counter,
            purged: self.purged.map(StoredPoint::from),
        };
        file(COPY, COPY_FORMAT, &stored.encode_to_vec())
    }

    /// Reads the whole file.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "META";
        let stored = StoredCopyMeta::decode(payload(WHAT, COPY, COPY_FORMAT, bytes)?);
        let stored = stored.map_err(|_| malformed(WHAT))?;
        Ok(Self {
            writer: stored.writer,
            dag: DagId::from_slice(&stored.dag).ok_or(malformed(WHAT))?,
            node: NodeId(stored.node),
            store: StoreId::from_slice(&stored.store).ok_or(malformed(WHAT))?,
            database: DatabaseId(stored.database),
            generation: Generation(stored.generation),
            replica: ReplicaId(stored.replica),
            opens: stored.opens,
            boot_counter: stored.boot_counter,
            purged: stored.purged.map(|point| point.read(WHAT)).transpose()?,
        })
    }
}

impl NodeMeta {
    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let stored = StoredNodeMeta {
            writer: self.writer.clone(),
            dag: self.dag.0.to_vec(),
            node: self.node.0,
            store: self.store.0.to_vec(),
            boot_counter: self.boot_counter,
            boot_id: self.boot_id,
            epoch: self.lineage.epoch,
            activation: self.lineage.activation.0.to_vec(),
            links: self.links.to_vec(),
            copies: self.copies.iter().map(StoredCopyMemory::from).collect(),
            promise: self.promise.map(|promise| promise.0.to_vec()),
            steps: self.steps.iter().map(StoredStep::from).collect(),
        };
        let plain = self.promise.is_none() && self.steps.is_empty();
        let version = if plain { 1 } else { NODE_FORMAT };
        file(NODE, version, &stored.encode_to_vec())
    }

    /// Reads the whole file.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "node.meta";
        let stored = StoredNodeMeta::decode(payload(WHAT, NODE, NODE_FORMAT, bytes)?);
        let stored = stored.map_err(|_| malformed(WHAT))?;
        let activation = ActivationId::from_slice(&stored.activation).ok_or(malformed(WHAT))?;
        Ok(Self {
            writer: stored.writer,
            dag: DagId::from_slice(&stored.dag).ok_or(malformed(WHAT))?,
            node: NodeId(stored.node),
            store: StoreId::from_slice(&stored.store).ok_or(malformed(WHAT))?,
            boot_counter: stored.boot_counter,
            boot_id: stored.boot_id,
            lineage: Lineage { epoch: stored.epoch, activation },
            links: stored.links.into(),
            copies: stored.copies.iter().map(CopyMemory::from).collect(),
            promise: match stored.promise {
                Some(id) => Some(ActivationId::from_slice(&id).ok_or(malformed(WHAT))?),
                None => None,
            },
            steps: stored.steps.iter().map(TakenStep::from).collect(),
        })
    }
}

fn file(kind: u8, version: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = record::header(kind, version, Place::default(), &[payload]).to_vec();
    out.extend_from_slice(payload);
    out
}

fn payload<'a>(
    what: &'static str,
    kind: u8,
    known: u8,
    bytes: &'a [u8],
) -> Result<&'a [u8], FormatError> {
    let record = record::read(bytes, Place::default()).map_err(|fault| match fault {
        FormatError::Checksum { .. } => FormatError::Checksum { what },
        FormatError::Short { have, .. } => FormatError::Short { what, have },
        other => other,
    })?;
    if record.kind != kind {
        return Err(FormatError::UnknownType { what, found: record.kind });
    }
    check_version(what, record.version, known)?;
    if record.bytes() != bytes.len() {
        return Err(FormatError::Malformed { what, why: "bytes are left over" });
    }
    Ok(record.payload)
}

fn malformed(what: &'static str) -> FormatError {
    FormatError::Malformed { what, why: "a field is missing or has a wrong length" }
}

#[derive(Clone, PartialEq, Message)]
struct StoredCopyMeta {
    #[prost(string, tag = "1")]
    writer: String,
    #[prost(bytes = "vec", tag = "2")]
    dag: Vec<u8>,
    #[prost(uint64, tag = "3")]
    node: u64,
    #[prost(bytes = "vec", tag = "4")]
    store: Vec<u8>,
    #[prost(uint64, tag = "5")]
    database: u64,
    #[prost(uint32, tag = "6")]
    generation: u32,
    #[prost(uint64, tag = "7")]
    replica: u64,
    #[prost(uint64, tag = "8")]
    opens: u64,
    #[prost(uint64, tag = "9")]
    boot_counter: u64,
    #[prost(message, optional, tag = "10")]
    purged: Option<StoredPoint>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredPoint {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(bytes = "vec", tag = "3")]
    chain: Vec<u8>,
}

impl From<(LogId, Chain)> for StoredPoint {
    fn from((id, chain): (LogId, Chain)) -> Self {
        Self { term: id.term, index: id.index, chain: chain.0.to_vec() }
    }
}

impl StoredPoint {
    fn read(self, what: &'static str) -> Result<(LogId, Chain), FormatError> {
        let chain = self.chain.as_slice().try_into().map_err(|_| malformed(what))?;
        Ok((LogId { term: self.term, index: self.index }, Chain(chain)))
    }
}

#[derive(Clone, PartialEq, Message)]
struct StoredNodeMeta {
    #[prost(string, tag = "1")]
    writer: String,
    #[prost(bytes = "vec", tag = "2")]
    dag: Vec<u8>,
    #[prost(uint64, tag = "3")]
    node: u64,
    #[prost(bytes = "vec", tag = "4")]
    store: Vec<u8>,
    #[prost(uint64, tag = "5")]
    boot_counter: u64,
    #[prost(fixed64, tag = "6")]
    boot_id: u64,
    #[prost(uint64, tag = "7")]
    epoch: u64,
    #[prost(bytes = "vec", tag = "8")]
    activation: Vec<u8>,
    #[prost(bytes = "vec", tag = "9")]
    links: Vec<u8>,
    #[prost(message, repeated, tag = "10")]
    copies: Vec<StoredCopyMemory>,
    #[prost(bytes = "vec", optional, tag = "11")]
    promise: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "12")]
    steps: Vec<StoredStep>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredStep {
    #[prost(uint64, tag = "1")]
    operation: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint32, tag = "3")]
    step: u32,
}

impl From<&TakenStep> for StoredStep {
    fn from(taken: &TakenStep) -> Self {
        Self { operation: taken.operation, term: taken.term, step: taken.step }
    }
}

impl From<&StoredStep> for TakenStep {
    fn from(stored: &StoredStep) -> Self {
        Self { operation: stored.operation, term: stored.term, step: stored.step }
    }
}

#[derive(Clone, PartialEq, Message)]
struct StoredCopyMemory {
    #[prost(uint64, tag = "1")]
    database: u64,
    #[prost(uint64, tag = "2")]
    replica: u64,
    #[prost(uint64, tag = "3")]
    opens: u64,
    #[prost(uint64, tag = "4")]
    boot_counter: u64,
    #[prost(message, optional, tag = "5")]
    vote: Option<StoredVote>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StoredVote {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    voted_for: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

impl From<&CopyMemory> for StoredCopyMemory {
    fn from(memory: &CopyMemory) -> Self {
        let vote = memory.vote.map(|vote| StoredVote {
            term: vote.term,
            voted_for: vote.voted_for,
            committed: vote.committed,
        });
        Self {
            database: memory.database.0,
            replica: memory.replica.0,
            opens: memory.opens,
            boot_counter: memory.boot_counter,
            vote,
        }
    }
}

impl From<&StoredCopyMemory> for CopyMemory {
    fn from(stored: &StoredCopyMemory) -> Self {
        let vote = stored.vote.map(|vote| VoteRecord {
            term: vote.term,
            voted_for: vote.voted_for,
            committed: vote.committed,
        });
        Self {
            database: DatabaseId(stored.database),
            replica: ReplicaId(stored.replica),
            opens: stored.opens,
            boot_counter: stored.boot_counter,
            vote,
        }
    }
}
