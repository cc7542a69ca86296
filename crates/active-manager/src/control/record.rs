//! What the control group stores, and under which key.
//!
//! | table | key | record |
//! | --- | --- | --- |
//! | 0x10 | (one) | [`DagRecord`] |
//! | 0x11 | epoch | [`LineageLink`] |
//! | 0x12 | site's name | [`SiteRecord`] |
//! | 0x13 | node | [`NodeRecord`] |
//! | 0x14 | database | [`DatabaseRecord`] |
//! | 0x15 | name in lower case | [`NamedDatabase`] |
//! | 0x16 | number, counting up | [`AuditRow`] |
//! | 0x17 | (one) | [`Counters`] |
//! | 0x18 | node | [`NodePolicy`](super::NodePolicy) |
//! | 0x19 | database | [`DatabasePolicy`](super::DatabasePolicy) |
//! | 0x1a | database, node | [`CopyPolicy`](super::CopyPolicy) |
//! | 0x1b | operation | [`Operation`](super::Operation) |
//! | 0x1c | node | [`OpeningRecord`](super::OpeningRecord) |
//! | 0x1d | (one) | [`Settings`](super::Settings) |
//! | 0x1f | (one) | the content digest |
//! | 0x20 | database, node | [`SeedRecord`](super::SeedRecord) |
//! | 0xc0, 0xc1 | request id; time and request id | remembered requests |
//!
//! Numbers in keys are big endian, so that keys sort as numbers do.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{
    ActivationId, Boot, DagId, DatabaseId, Generation, Lineage, LineageKind, LineageStep, NodeId,
    ReplicaId, StoreId,
};

pub(crate) const DAG: &[u8] = &[0x10];
pub(crate) const LINEAGE: u8 = 0x11;
pub(crate) const SITES: u8 = 0x12;
pub(crate) const NODES: u8 = 0x13;
pub(crate) const DATABASES: u8 = 0x14;
pub(crate) const NAMES: u8 = 0x15;
pub(crate) const AUDIT: u8 = 0x16;
pub(crate) const COUNTERS: &[u8] = &[0x17];

/// A table's key for a number.
pub(crate) fn number_key(table: u8, number: u64) -> Vec<u8> {
    [&[table][..], &number.to_be_bytes()].concat()
}

/// A table's key for a text.
pub(crate) fn text_key(table: u8, text: &str) -> Vec<u8> {
    [&[table], text.as_bytes()].concat()
}

/// Raft's timeouts, the same on every node of a group.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timeouts {
    /// Between two heartbeats of a leader.
    #[prost(uint32, tag = "1")]
    pub heartbeat_ms: u32,
    /// The shortest time without one after which a copy asks for votes.
    #[prost(uint32, tag = "2")]
    pub election_ms_min: u32,
    /// The longest; also how long a vote is leased to a leader.
    #[prost(uint32, tag = "3")]
    pub election_ms_max: u32,
}

/// The DAG itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DagRecord {
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub dag: Bytes,
    /// For people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where databases are active unless said otherwise.
    #[prost(string, tag = "3")]
    pub primary_site: String,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub created_at_ms: u64,
    /// Of the mailbox databases and the directory.
    #[prost(message, optional, tag = "5")]
    pub database_timeouts: Option<Timeouts>,
    /// Of the control group.
    #[prost(message, optional, tag = "6")]
    pub control_timeouts: Option<Timeouts>,
}

impl DagRecord {
    /// The DAG's identity.
    pub fn id(&self) -> DagId {
        DagId::from_slice(&self.dag).unwrap_or(DagId::NIL)
    }
}

/// How a link of the lineage chain came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum LinkKind {
    /// Never written.
    Unspecified = 0,
    /// The DAG was created.
    First = 1,
    /// A site was stopped, with its consent.
    Stop = 2,
    /// A stopped site was started again.
    Start = 3,
    /// A site was activated by a control majority, after the takeover wait.
    ActivateFenced = 4,
    /// A site was activated without a control majority, on a person's word.
    ActivateUnfenced = 5,
    /// A person chose this branch of a fork.
    Accept = 6,
}

impl LinkKind {
    /// The kind as chains have it; none for one that a newer version wrote.
    pub fn of_chain(self) -> Option<LineageKind> {
        Some(match self {
            Self::Unspecified => return None,
            Self::First => LineageKind::First,
            Self::Stop => LineageKind::Stop,
            Self::Start => LineageKind::Start,
            Self::ActivateFenced => LineageKind::ActivateFenced,
            Self::ActivateUnfenced => LineageKind::ActivateUnfenced,
            Self::Accept => LineageKind::Accept,
        })
    }
}

/// One link of the chain of site activations.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LineageLink {
    /// Grows by one with each link; the first is 1.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// Sixteen bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub activation: Bytes,
    /// How it came to be.
    #[prost(enumeration = "LinkKind", tag = "3")]
    pub kind: i32,
    /// The activation before it; empty in the first.
    #[prost(bytes = "bytes", tag = "4")]
    pub parent: Bytes,
    /// The sites whose databases may be mounted in this lineage.
    #[prost(string, repeated, tag = "5")]
    pub started_sites: Vec<String>,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "6")]
    pub at_ms: u64,
    /// Who asked.
    #[prost(string, tag = "7")]
    pub who: String,
    /// Sixteen bytes each: the last links of the branches that it rejects; only in an `accept`.
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub rejected: Vec<Bytes>,
}

impl LineageLink {
    /// The link as chains have it; none where its kind is unknown here.
    pub fn step(&self) -> Option<LineageStep> {
        let rejected = self.rejected.iter().map(|id| ActivationId::from_slice(id));
        Some(LineageStep {
            lineage: self.lineage(),
            kind: LinkKind::try_from(self.kind).ok()?.of_chain()?,
            rejected: rejected.collect::<Option<_>>()?,
        })
    }

    /// What frames and answers carry of it.
    pub fn lineage(&self) -> Lineage {
        let activation = ActivationId::from_slice(&self.activation).unwrap_or(ActivationId::NIL);
        Lineage { epoch: self.epoch, activation }
    }
}

/// A place whose nodes are lost together.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SiteRecord {
    /// What people call it.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its databases may be mounted.
    #[prost(bool, tag = "2")]
    pub started: bool,
}

/// A member of the DAG.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeRecord {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// For people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where it stands.
    #[prost(string, tag = "3")]
    pub site: String,
    /// Votes in the control group and holds no mail.
    #[prost(bool, tag = "4")]
    pub witness: bool,
    /// host:port for the other nodes.
    #[prost(string, tag = "5")]
    pub peer_address: String,
    /// host:port for front ends.
    #[prost(string, tag = "6")]
    pub client_address: String,
    /// host:port for operators.
    #[prost(string, tag = "7")]
    pub admin_address: String,
    /// Sixteen bytes: the only store that is this node.
    #[prost(bytes = "bytes", tag = "8")]
    pub store: Bytes,
    /// Of the last registered start; 0: none yet.
    #[prost(uint64, tag = "9")]
    pub boot_counter: u64,
    /// Of the last registered start.
    #[prost(fixed64, tag = "10")]
    pub boot_id: u64,
    /// The entry of the control log with which it began to leave; 0: it stays.
    #[prost(uint64, tag = "11")]
    pub leaving_since: u64,
    /// The entry of the control log with which it began to join, or its new store to take the place
    /// of the old one; 0: it is settled.
    #[prost(uint64, tag = "12")]
    pub joining_since: u64,
    /// While a new store takes the place of the old one: the copy of the control group that was
    /// there before, which keeps its vote until the new one has it. 0: none.
    #[prost(uint64, tag = "13")]
    pub replaced: u64,
}

impl NodeRecord {
    /// Whether it is about to be removed.
    pub fn is_leaving(&self) -> bool {
        self.leaving_since > 0
    }

    /// Whether it, or its new store, is not settled yet: nothing is put there.
    pub fn is_joining(&self) -> bool {
        self.joining_since > 0
    }

    /// Whether it was no member before: until it is settled its site has two lists.
    pub fn is_new(&self) -> bool {
        self.is_joining() && self.replaced == 0
    }

    /// Its number.
    pub fn id(&self) -> NodeId {
        NodeId(self.node)
    }

    /// The only store that is this node.
    pub fn store(&self) -> StoreId {
        StoreId::from_slice(&self.store).unwrap_or(StoreId::NIL)
    }

    /// The last registered start.
    pub fn boot(&self) -> Boot {
        Boot { counter: self.boot_counter, id: self.boot_id }
    }
}

/// A copy of a database.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReplicaRecord {
    /// Its Raft id; never used twice.
    #[prost(uint64, tag = "1")]
    pub replica: u64,
    /// Where it stands.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// On which disk: a copy lives and dies with the store that it was made on.
    #[prost(bytes = "bytes", tag = "3")]
    pub store: Bytes,
    /// Whether it counts in quorums.
    #[prost(bool, tag = "4")]
    pub voter: bool,
    /// It was built from another copy, and is never made of nothing.
    #[prost(bool, tag = "5")]
    pub seeded: bool,
    /// Why it was never admitted as healthy; empty: nothing is held against it.
    #[prost(string, tag = "6")]
    pub unfit: String,
    /// The folder of the database on its node; empty: below the node's root.
    #[prost(string, tag = "7")]
    pub path: String,
    /// The copy of the generation before that it is made of; 0: none. Only the copy that a
    /// database was formed anew from has one.
    #[prost(uint64, tag = "8")]
    pub from_replica: u64,
    /// Its database went on without it in a new generation: there is no such copy, and one is
    /// built in its place.
    #[prost(bool, tag = "9")]
    pub left_behind: bool,
}

impl ReplicaRecord {
    /// Its Raft id.
    pub fn id(&self) -> ReplicaId {
        ReplicaId(self.replica)
    }

    /// Where it stands.
    pub fn node(&self) -> NodeId {
        NodeId(self.node)
    }

    /// The store that it was made on.
    pub fn store(&self) -> StoreId {
        StoreId::from_slice(&self.store).unwrap_or(StoreId::NIL)
    }
}

/// A replicated log and its copies: a mailbox database, the directory, the control group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DatabaseRecord {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// What people call it.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Which incarnation of its group.
    #[prost(uint32, tag = "3")]
    pub generation: u32,
    /// The site with the strict majority of the voters; empty: balanced.
    #[prost(string, tag = "4")]
    pub active_site: String,
    /// In the order of activation preference; the first one initialised the group.
    #[prost(message, repeated, tag = "5")]
    pub replicas: Vec<ReplicaRecord>,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "6")]
    pub created_at_ms: u64,
    /// Why the copies stand where they stand.
    #[prost(string, repeated, tag = "7")]
    pub reasons: Vec<String>,
    /// The operation that formed this generation anew, until it serves: old copies are kept as
    /// they are meanwhile. 0: none.
    #[prost(uint64, tag = "8")]
    pub reforming: u64,
}

impl DatabaseRecord {
    /// Its number.
    pub fn id(&self) -> DatabaseId {
        DatabaseId(self.database)
    }

    /// Which incarnation of its group.
    pub fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    /// Whether it holds mail.
    pub fn is_mailbox_database(&self) -> bool {
        self.id() >= DatabaseId::FIRST_MAILBOX_DATABASE
    }

    /// The copy on a node.
    pub fn replica_on(&self, node: NodeId) -> Option<&ReplicaRecord> {
        self.replicas.iter().find(|replica| replica.node() == node)
    }
}

/// The index from names to databases.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamedDatabase {
    /// Which one.
    #[prost(uint64, tag = "1")]
    pub database: u64,
}

/// Numbers that are given out once.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Counters {
    /// The next mailbox database.
    #[prost(uint64, tag = "1")]
    pub next_database: u64,
    /// The next copy of any database.
    #[prost(uint64, tag = "2")]
    pub next_replica: u64,
    /// The next audit row.
    #[prost(uint64, tag = "3")]
    pub next_audit: u64,
    /// How many operations there were.
    #[prost(uint64, tag = "4")]
    pub operations: u64,
}

/// Who did what, when, from where and why; refused commands too.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AuditRow {
    /// The entry of the control log.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Milliseconds since 1970 where it was proposed.
    #[prost(uint64, tag = "2")]
    pub at_ms: u64,
    /// Who asked.
    #[prost(string, tag = "3")]
    pub who: String,
    /// From where.
    #[prost(string, tag = "4")]
    pub from: String,
    /// Why.
    #[prost(string, tag = "5")]
    pub reason: String,
    /// What, such as `create database`.
    #[prost(string, tag = "6")]
    pub action: String,
    /// To what.
    #[prost(string, tag = "7")]
    pub object: String,
    /// Whether it was carried out.
    #[prost(bool, tag = "8")]
    pub accepted: bool,
}
