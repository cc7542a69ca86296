//! A group's membership as it stands in log entries, in the state and on the wire.
//!
//! ```text
//! version | voter sets (one, or two while a joint change is under way) | every member and its node
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dag_types::{LogId, NodeId};
use prost::Message;
use thiserror::Error;

use crate::types::{Member, RaftMembership, StoredMembership, log_id, raft_log_id};

const VERSION: u32 = 1;

/// A membership record that cannot be read; the copy that meets it fails.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum MembershipError {
    #[error("read a membership record: {0}")]
    Malformed(String),
    #[error("a membership record has version {found}, known is {VERSION}; use a newer Holdfast")]
    UnknownVersion { found: u32 },
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, repeated, tag = "2")]
    voter_sets: Vec<VoterSet>,
    #[prost(message, repeated, tag = "3")]
    members: Vec<MemberRecord>,
    /// The entry that brought it; only in the state and in snapshots, never in an entry.
    #[prost(message, optional, tag = "4")]
    at: Option<Position>,
}

#[derive(Clone, PartialEq, Message)]
struct VoterSet {
    #[prost(uint64, repeated, tag = "1")]
    replicas: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct MemberRecord {
    #[prost(uint64, tag = "1")]
    replica: u64,
    #[prost(uint64, tag = "2")]
    node: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Position {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

/// The payload of a membership entry.
pub(crate) fn encode(membership: &RaftMembership) -> Bytes {
    record(membership, None).encode_to_vec().into()
}

/// The membership of a membership entry.
pub(crate) fn decode(payload: &[u8]) -> Result<RaftMembership, MembershipError> {
    membership(&read(payload)?)
}

/// The membership together with the entry that brought it.
pub(crate) fn encode_stored(stored: &StoredMembership) -> Bytes {
    let at = stored.log_id().as_ref().map(log_id);
    record(stored.membership(), at).encode_to_vec().into()
}

/// What [`encode_stored`] made.
pub(crate) fn decode_stored(bytes: &[u8]) -> Result<StoredMembership, MembershipError> {
    let record = read(bytes)?;
    let at = record.at.as_ref().map(|at| LogId { term: at.term, index: at.index });
    Ok(StoredMembership::new(at.map(raft_log_id), membership(&record)?))
}

fn read(bytes: &[u8]) -> Result<Record, MembershipError> {
    let record = Record::decode(bytes).map_err(|e| MembershipError::Malformed(e.to_string()))?;
    if record.version != VERSION {
        return Err(MembershipError::UnknownVersion { found: record.version });
    }
    Ok(record)
}

fn record(membership: &RaftMembership, at: Option<LogId>) -> Record {
    let voter_sets = membership
        .get_joint_config()
        .iter()
        .map(|set| VoterSet { replicas: set.iter().copied().collect() })
        .collect();
    let members = membership
        .nodes()
        .map(|(replica, member)| MemberRecord { replica: *replica, node: member.node.0 })
        .collect();
    let at = at.map(|at| Position { term: at.term, index: at.index });
    Record { version: VERSION, voter_sets, members, at }
}

fn membership(record: &Record) -> Result<RaftMembership, MembershipError> {
    let sets: Vec<BTreeSet<u64>> =
        record.voter_sets.iter().map(|set| set.replicas.iter().copied().collect()).collect();
    let members: BTreeMap<u64, Member> =
        record.members.iter().map(|m| (m.replica, Member { node: NodeId(m.node) })).collect();
    if sets.is_empty() && members.is_empty() {
        return Ok(RaftMembership::default());
    }
    RaftMembership::new(sets, members).map_err(|e| MembershipError::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint() -> RaftMembership {
        let members = [1, 2, 3, 4].map(|id| (id, Member { node: NodeId(10 + id) }));
        RaftMembership::new(
            vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3])],
            BTreeMap::from(members),
        )
        .unwrap()
    }

    #[test]
    fn a_joint_membership_with_a_learner_reads_back() {
        assert_eq!(decode(&encode(&joint())), Ok(joint()));
    }

    #[test]
    fn a_stored_membership_keeps_its_position() {
        let at = raft_log_id(LogId { term: (1 << 32) + 7, index: 9 });
        let stored = StoredMembership::new(Some(at), joint());
        assert_eq!(decode_stored(&encode_stored(&stored)), Ok(stored));
        let empty = StoredMembership::default();
        assert_eq!(decode_stored(&encode_stored(&empty)), Ok(empty));
    }

    #[test]
    fn a_record_of_another_version_or_shape_is_an_error() {
        let newer = Record { version: 2, ..record(&joint(), None) }.encode_to_vec();
        assert_eq!(decode(&newer), Err(MembershipError::UnknownVersion { found: 2 }));
        assert!(matches!(decode(&[0xff, 0xff]), Err(MembershipError::Malformed(_))));
        let stranger = Record {
            version: VERSION,
            voter_sets: vec![VoterSet { replicas: vec![5] }],
            members: vec![],
            at: None,
        };
        assert!(matches!(decode(&stranger.encode_to_vec()), Err(MembershipError::Malformed(_))));
    }
}
