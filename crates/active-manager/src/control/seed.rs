//! Copies that are being built from another copy.
//!
//! ```text
//!   begin ──► Building ──────────────► Joining ─────────────────► admitted: a copy like any other
//!             a new replica id, built   in the place of the old     its digest was equal to the
//!             beside what is there      one, a learner, catches up  active copy's at one mark
//! ```
//! The record is what shall be, and every node does its part of it at every look: the target builds
//! and puts in place, the active copy's node changes the members, the control leader compares and
//! commits the next phase. So any of them may die at any moment, and the next one goes on.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{DatabaseId, Generation, NodeId, ReplicaId, StoreId};

use super::record::number_key;

pub(crate) const SEEDS: u8 = 0x20;

/// How far a seed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SeedPhase {
    /// The new copy is built beside what is there, which goes on.
    Building = 0,
    /// It took its place, and is not admitted yet.
    Joining = 1,
}

/// A copy that is being built.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SeedRecord {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// Where it is built.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// Its Raft id; never used before.
    #[prost(uint64, tag = "3")]
    pub replica: u64,
    /// On which disk.
    #[prost(bytes = "bytes", tag = "4")]
    pub store: Bytes,
    /// Of which incarnation of the group.
    #[prost(uint32, tag = "5")]
    pub generation: u32,
    /// From the copy on this node while it can be reached; 0: from the best one. The node itself:
    /// see [`SeedRecord::relocates`].
    #[prost(uint64, tag = "6")]
    pub from: u64,
    /// Bytes per second; 0: no limit.
    #[prost(uint64, tag = "7")]
    pub limit: u64,
    /// Its operation.
    #[prost(uint64, tag = "8")]
    pub operation: u64,
    /// How far it is.
    #[prost(enumeration = "SeedPhase", tag = "9")]
    pub phase: i32,
    /// The copy whose place it takes; 0: the node had none.
    #[prost(uint64, tag = "10")]
    pub replaces: u64,
    /// That one voted, and so will this one.
    #[prost(bool, tag = "11")]
    pub voter: bool,
    /// The folder of the database in which it is built; empty: below the node's root.
    #[prost(string, tag = "12")]
    pub path: String,
    /// It comes in the place of a copy that was left behind, or found unfit: the voters are placed anew
    /// with it.
    #[prost(bool, tag = "13")]
    pub returns: bool,
    /// Everything is sent, also what the copy has whose place it takes.
    #[prost(bool, tag = "14")]
    pub whole: bool,
}

impl SeedRecord {
    /// The database.
    pub fn database(&self) -> DatabaseId {
        DatabaseId(self.database)
    }

    /// Where it is built.
    pub fn node(&self) -> NodeId {
        NodeId(self.node)
    }

    /// Its Raft id.
    pub fn replica(&self) -> ReplicaId {
        ReplicaId(self.replica)
    }

    /// On which disk.
    pub fn store(&self) -> StoreId {
        StoreId::from_slice(&self.store).unwrap_or(StoreId::NIL)
    }

    /// Of which incarnation of the group.
    pub fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    /// It is built from the very copy whose place it takes: the copy moves to another path.
    pub fn relocates(&self) -> bool {
        self.from == self.node
    }

    pub(crate) fn key(database: u64, node: u64) -> Vec<u8> {
        let mut key = number_key(SEEDS, database);
        key.extend_from_slice(&node.to_be_bytes());
        key
    }
}
