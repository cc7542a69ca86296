//! openraft's type configuration, and short names for its types.
//!
//! The runtime is a parameter: tokio in production, tokio with a seeded random source in the
//! simulation. Nothing else depends on it, so the short names below hold for every runtime.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use dag_types::{LogId, NodeId};
use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::RaftLeaderId;
use openraft::{AsyncRuntime, EntryPayload, OptionalSend};

use crate::state_machine::Mounted;

/// The types that a group's Raft instance is made of, on the runtime `R`.
pub struct Types<R>(PhantomData<fn() -> R>);

// Derives would ask for the same traits of `R`, which is only a marker.
impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Types<R> {}
impl<R> Default for Types<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<R> Eq for Types<R> {}
impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl<R: AsyncRuntime> openraft::RaftTypeConfig for Types<R> {
    type D = Payload;
    type R = Reply;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = RaftVote;
    type Payload = EntryPayload<Payload, u64, Member>;
    type Entry = RaftEntry;
    type AsyncRuntime = R;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

/// What a proposal carries: an entry's envelope and command, as `entry` encodes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What applying an entry answered to its proposer. It never leaves the leader's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The machine's answer to a command.
    Command(Bytes),
    /// A mount entry took effect.
    Mounted(Mounted),
    /// The entry was written under another mount than the one applied last. Nothing was changed,
    /// on any copy.
    StaleMount {
        /// The mount that holds, if any.
        mounted: Option<Mounted>,
    },
    /// The digest of the state at a mark.
    Digest([u8; 16]),
    /// Entries of Raft itself.
    Nothing,
}

/// A copy, as the group's membership knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Member {
    /// The DAG member that holds the copy. Its address is the business of `PeerLink`.
    pub node: NodeId,
}

pub(crate) type CommittedLeaderId = <LeaderId<u64, u64> as RaftLeaderId>::Committed;
pub(crate) type RaftLogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type RaftVote = openraft::impls::Vote<LeaderId<u64, u64>>;
pub(crate) type RaftPayload = EntryPayload<Payload, u64, Member>;
pub(crate) type RaftEntry = openraft::impls::Entry<CommittedLeaderId, RaftPayload>;
pub(crate) type RaftMembership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Member>;

/// Raft's position of ours.
pub(crate) fn raft_log_id(at: LogId) -> RaftLogId {
    RaftLogId { leader_id: CommittedLeaderId::new(at.term), index: at.index }
}

/// Our position of Raft's.
pub(crate) fn log_id(at: &RaftLogId) -> LogId {
    LogId { term: at.leader_id.term, index: at.index }
}

/// A vote by its parts.
pub(crate) fn raft_vote(term: u64, replica: u64, committed: bool) -> RaftVote {
    if committed { RaftVote::new_committed(term, replica) } else { RaftVote::new(term, replica) }
}
