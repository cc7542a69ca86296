//! A copy becomes the first of a new generation of its group, offline.
//!
//! The group lost its majority, so nobody can say any more which of the last entries of its log were
//! agreed to. All of them are applied: keeping a write that nobody was told of is allowed, losing one
//! that somebody was told of is not. What comes of it is a state that ends where the log ended, with
//! the new copy as the only member.

use std::collections::BTreeMap;

use dag_types::{LogId, NodeId, ReplicaId};
use storage::log::CopyLog;
use storage::state::{self, Position, StateStore};

use crate::machine::{Machine, MachineFault};
use crate::rows;
use crate::state_machine::apply_offline;
use crate::types::{Member, RaftEntry, RaftMembership, StoredMembership, raft_log_id};
use crate::wire::payload_of;

/// Bytes of log that are held at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Applies the rest of a log to a state that is of the same copy and is used by nobody else, and
/// makes the new copy its only member. Gives where the state ends now; it is not flushed.
pub fn level(
    machine: &dyn Machine,
    log: &CopyLog,
    state: &dyn StateStore,
    (replica, node): (ReplicaId, NodeId),
) -> Result<Position, MachineFault> {
    let end = log.bounds().last.map_or(0, |last| last.index + 1);
    loop {
        let from = state::applied(state)?.map_or(0, |(at, _)| at.index + 1);
        if from >= end {
            break;
        }
        let read = log.read(from, end, CHUNK_BYTES);
        let entries = read.map_err(|fault| MachineFault::new(fault.to_string()))?;
        let entries: Result<Vec<RaftEntry>, MachineFault> =
            entries.into_iter().map(decode).collect();
        let entries = entries?;
        let Some(last) = entries.last() else {
            return Err(MachineFault::new(format!("the log has no entry {from}")));
        };
        let at = LogId { term: last.log_id.leader_id.term, index: last.log_id.index };
        let chain = log.chain_at(at.index).ok_or_else(|| {
            MachineFault::new(format!("the log does not know the chain at entry {at}"))
        })?;
        apply_offline(machine, state, &entries, (at, chain))?;
    }
    let position = state::applied(state)?
        .ok_or_else(|| MachineFault::new("the copy holds nothing: nothing can be made of it"))?;
    let members = BTreeMap::from([(replica.0, Member { node })]);
    let members = RaftMembership::from(members);
    let stored = StoredMembership::new(Some(raft_log_id(position.0)), members);
    state.write(&[rows::membership_write(&stored)])?;
    Ok(position)
}

fn decode(entry: storage::log::LogEntry) -> Result<RaftEntry, MachineFault> {
    let payload = payload_of(u32::from(entry.kind), entry.payload).map_err(|detail| {
        MachineFault::new(format!("entry {} of the log: {detail}", entry.id.index))
    })?;
    Ok(RaftEntry { log_id: raft_log_id(entry.id), payload })
}
