//! Raft's messages as frames of `holdfast.peer.v1`, and back.
//!
//! Bodies are shared, never copied: an entry's payload is the same reference-counted bytes in the
//! log's cache, in the frame, and behind the decoder. Every entry carries a crc32 from the leader,
//! so that a body damaged on the way never reaches a follower's log.

use bytes::Bytes;
use dag_api::peer::v1 as pb;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AsyncRuntime, EntryPayload};
use thiserror::Error;

use crate::membership;
use crate::peer::Refusal;
use crate::types::{
    Payload, RaftEntry, RaftLogId, RaftPayload, RaftVote, Types, log_id, raft_log_id, raft_vote,
};

/// Kind of an entry, in the log and on the wire: what a leader writes when it takes office.
pub(crate) const KIND_BLANK: u8 = 0;
/// Kind of an entry: an envelope with a command, a mount or a digest mark.
pub(crate) const KIND_NORMAL: u8 = 1;
/// Kind of an entry: a membership.
pub(crate) const KIND_MEMBERSHIP: u8 = 2;

/// A frame that is not what it should be; the sender's session or stream ends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum WireError {
    #[error("a frame lacks its {0}")]
    Missing(&'static str),
    #[error("entry {index} arrived damaged: its checksum does not fit")]
    Checksum { index: u64 },
    #[error("entry {index} is malformed: {detail}")]
    Entry { index: u64, detail: String },
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Self::BadFrame { detail: error.to_string() }
    }
}

/// The kind and the bytes of an entry's payload.
pub(crate) fn payload_parts(payload: &RaftPayload) -> (u8, Bytes) {
    match payload {
        EntryPayload::Blank => (KIND_BLANK, Bytes::new()),
        EntryPayload::Normal(Payload(bytes)) => (KIND_NORMAL, bytes.clone()),
        EntryPayload::Membership(members) => (KIND_MEMBERSHIP, membership::encode(members)),
    }
}

/// The payload of an entry by its kind; `Err` where the kind is unknown or the bytes do not fit it.
pub(crate) fn payload_of(kind: u32, bytes: Bytes) -> Result<RaftPayload, String> {
    match u8::try_from(kind) {
        Ok(KIND_BLANK) => Ok(EntryPayload::Blank),
        Ok(KIND_NORMAL) => Ok(EntryPayload::Normal(Payload(bytes))),
        Ok(KIND_MEMBERSHIP) => {
            membership::decode(&bytes).map(EntryPayload::Membership).map_err(|e| e.to_string())
        }
        _ => Err(format!("kind {kind} is unknown; a newer Holdfast may have written it")),
    }
}

pub(crate) fn entry_crc(term: u64, index: u64, kind: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&term.to_le_bytes());
    hasher.update(&index.to_le_bytes());
    hasher.update(&kind.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

pub(crate) fn entry_to_wire(entry: &RaftEntry) -> pb::Entry {
    let (kind, payload) = payload_parts(&entry.payload);
    let (at, kind) = (log_id(&entry.log_id), u32::from(kind));
    let crc = entry_crc(at.term, at.index, kind, &payload);
    pb::Entry { term: at.term, index: at.index, kind, payload, crc }
}

pub(crate) fn entry_from_wire(entry: pb::Entry) -> Result<RaftEntry, WireError> {
    let pb::Entry { term, index, kind, payload, crc } = entry;
    if entry_crc(term, index, kind, &payload) != crc {
        return Err(WireError::Checksum { index });
    }
    let payload = payload_of(kind, payload).map_err(|detail| WireError::Entry { index, detail })?;
    Ok(RaftEntry { log_id: raft_log_id(dag_types::LogId { term, index }), payload })
}

pub(crate) fn id_to_wire(at: &RaftLogId) -> pb::LogId {
    let at = log_id(at);
    pb::LogId { term: at.term, index: at.index }
}

fn ids_to_wire(at: Option<&RaftLogId>) -> Option<pb::LogId> {
    at.map(id_to_wire)
}

pub(crate) fn id_from_wire(at: &pb::LogId) -> RaftLogId {
    raft_log_id(dag_types::LogId { term: at.term, index: at.index })
}

fn ids_from_wire(at: Option<&pb::LogId>) -> Option<RaftLogId> {
    at.map(id_from_wire)
}

pub(crate) fn vote_to_wire(vote: &RaftVote) -> pb::Vote {
    let leader = vote.leader_id();
    pb::Vote { term: leader.term, replica: leader.voted_for, committed: vote.is_committed() }
}

pub(crate) fn vote_from_wire(vote: Option<&pb::Vote>) -> Result<RaftVote, WireError> {
    let vote = vote.ok_or(WireError::Missing("vote"))?;
    Ok(raft_vote(vote.term, vote.replica, vote.committed))
}

/// An append request; session, seq and group are filled in by the session.
pub(crate) fn append_to_wire<R: AsyncRuntime>(
    request: &AppendEntriesRequest<Types<R>>,
) -> pb::AppendCall {
    pb::AppendCall {
        session: 0,
        seq: 0,
        group: None,
        vote: Some(vote_to_wire(&request.vote)),
        prev: ids_to_wire(request.prev_log_id.as_ref()),
        leader_commit: ids_to_wire(request.leader_commit.as_ref()),
        entries: request.entries.iter().map(entry_to_wire).collect(),
    }
}

pub(crate) fn append_from_wire<R: AsyncRuntime>(
    call: pb::AppendCall,
) -> Result<AppendEntriesRequest<Types<R>>, WireError> {
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(call.vote.as_ref())?,
        prev_log_id: ids_from_wire(call.prev.as_ref()),
        leader_commit: ids_from_wire(call.leader_commit.as_ref()),
        entries: call.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn heartbeat_to_wire<R: AsyncRuntime>(
    request: &AppendEntriesRequest<Types<R>>,
) -> pb::Heartbeat {
    pb::Heartbeat {
        vote: Some(vote_to_wire(&request.vote)),
        prev: ids_to_wire(request.prev_log_id.as_ref()),
        leader_commit: ids_to_wire(request.leader_commit.as_ref()),
    }
}

pub(crate) fn heartbeat_from_wire<R: AsyncRuntime>(
    beat: &pb::Heartbeat,
) -> Result<AppendEntriesRequest<Types<R>>, WireError> {
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(beat.vote.as_ref())?,
        prev_log_id: ids_from_wire(beat.prev.as_ref()),
        leader_commit: ids_from_wire(beat.leader_commit.as_ref()),
        entries: Vec::new(),
    })
}

pub(crate) fn result_to_wire<R: AsyncRuntime>(
    result: &StreamAppendResult<Types<R>>,
) -> pb::AppendResult {
    use pb::append_result::Result as Wire;
    let result = match result {
        Ok(last) => Wire::Matched(pb::Matched { last: ids_to_wire(last.as_ref()) }),
        Err(StreamAppendError::Conflict(at)) => Wire::Conflict(id_to_wire(at)),
        Err(StreamAppendError::HigherVote(vote)) => Wire::HigherVote(vote_to_wire(vote)),
    };
    pb::AppendResult { result: Some(result) }
}

/// An answer to an append or a heartbeat: what Raft said, or that the group refused the frame.
pub(crate) fn result_from_wire<R: AsyncRuntime>(
    result: pb::AppendResult,
) -> Result<StreamAppendResult<Types<R>>, Refusal> {
    use pb::append_result::Result as Wire;
    Ok(match result.result.ok_or(WireError::Missing("append result"))? {
        Wire::Matched(matched) => Ok(ids_from_wire(matched.last.as_ref())),
        Wire::Conflict(at) => Err(StreamAppendError::Conflict(id_from_wire(&at))),
        Wire::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from_wire(Some(&vote))?)),
        Wire::Refused(refusal) => return Err(Refusal::from_wire(&refusal)),
    })
}

pub(crate) fn vote_call_to_wire<R: AsyncRuntime>(request: &VoteRequest<Types<R>>) -> pb::VoteCall {
    pb::VoteCall {
        vote: Some(vote_to_wire(&request.vote)),
        last: ids_to_wire(request.last_log_id.as_ref()),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_call_from_wire<R: AsyncRuntime>(
    call: &pb::VoteCall,
) -> Result<VoteRequest<Types<R>>, WireError> {
    Ok(VoteRequest {
        vote: vote_from_wire(call.vote.as_ref())?,
        last_log_id: ids_from_wire(call.last.as_ref()),
        leadership_transfer: call.leadership_transfer,
    })
}

pub(crate) fn vote_answer_to_wire<R: AsyncRuntime>(
    answer: &VoteResponse<Types<R>>,
) -> pb::VoteAnswer {
    pb::VoteAnswer {
        vote: Some(vote_to_wire(&answer.vote)),
        granted: answer.vote_granted,
        last: ids_to_wire(answer.last_log_id.as_ref()),
    }
}

pub(crate) fn vote_answer_from_wire<R: AsyncRuntime>(
    answer: &pb::VoteAnswer,
) -> Result<VoteResponse<Types<R>>, WireError> {
    Ok(VoteResponse {
        vote: vote_from_wire(answer.vote.as_ref())?,
        vote_granted: answer.granted,
        last_log_id: ids_from_wire(answer.last.as_ref()),
    })
}

pub(crate) fn transfer_to_wire<R: AsyncRuntime>(
    request: &TransferLeaderRequest<Types<R>>,
) -> pb::TransferCall {
    pb::TransferCall {
        from_leader: Some(vote_to_wire(request.from_leader())),
        to_replica: *request.to_node_id(),
        last: ids_to_wire(request.last_log_id()),
    }
}

pub(crate) fn transfer_from_wire<R: AsyncRuntime>(
    call: &pb::TransferCall,
) -> Result<TransferLeaderRequest<Types<R>>, WireError> {
    let from = vote_from_wire(call.from_leader.as_ref())?;
    Ok(TransferLeaderRequest::new(from, call.to_replica, ids_from_wire(call.last.as_ref())))
}

pub(crate) fn transfer_answer_to_wire<R: AsyncRuntime>(
    answer: &TransferLeaderResponse<Types<R>>,
) -> pb::TransferAnswer {
    use pb::transfer_answer::Refused;
    let refused = answer.as_ref().err().map(|error| match error {
        TransferLeaderError::VoteChanged { expected, actual } => {
            Refused::VoteChanged(pb::TransferVoteChanged {
                expected: Some(vote_to_wire(expected)),
                actual: Some(vote_to_wire(actual)),
            })
        }
        TransferLeaderError::LogNotFlushed { expected, actual } => {
            Refused::NotFlushed(pb::TransferNotFlushed {
                expected: ids_to_wire(expected.as_ref()),
                actual: ids_to_wire(actual.as_ref()),
            })
        }
    });
    pb::TransferAnswer { refused }
}

pub(crate) fn transfer_answer_from_wire<R: AsyncRuntime>(
    answer: &pb::TransferAnswer,
) -> Result<TransferLeaderResponse<Types<R>>, WireError> {
    use pb::transfer_answer::Refused;
    Ok(match &answer.refused {
        None => Ok(()),
        Some(Refused::VoteChanged(changed)) => Err(TransferLeaderError::VoteChanged {
            expected: vote_from_wire(changed.expected.as_ref())?,
            actual: vote_from_wire(changed.actual.as_ref())?,
        }),
        Some(Refused::NotFlushed(behind)) => Err(TransferLeaderError::LogNotFlushed {
            expected: ids_from_wire(behind.expected.as_ref()),
            actual: ids_from_wire(behind.actual.as_ref()),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> RaftEntry {
        RaftEntry {
            log_id: raft_log_id(dag_types::LogId { term: 3, index: 7 }),
            payload: EntryPayload::Normal(Payload(Bytes::from_static(b"body"))),
        }
    }

    #[test]
    fn a_body_is_shared_on_its_way_and_not_copied() {
        let body = Bytes::from(vec![7; 1000]);
        let mut entry = entry();
        entry.payload = EntryPayload::Normal(Payload(body.clone()));
        let wire = entry_to_wire(&entry);
        assert_eq!(wire.payload.as_ptr(), body.as_ptr());
        let EntryPayload::Normal(Payload(back)) = entry_from_wire(wire).unwrap().payload else {
            panic!("a normal entry");
        };
        assert_eq!(back.as_ptr(), body.as_ptr());
    }

    #[test]
    fn an_entry_damaged_on_the_way_is_refused() {
        let good = entry_to_wire(&entry());
        assert!(entry_from_wire(good.clone()).is_ok());
        let body = pb::Entry { payload: Bytes::from_static(b"bodx"), ..good.clone() };
        let place = pb::Entry { index: 8, ..good.clone() };
        let kind = pb::Entry { kind: 0, ..good };
        for bad in [body, place, kind] {
            assert!(matches!(entry_from_wire(bad), Err(WireError::Checksum { .. })));
        }
    }

    #[test]
    fn an_entry_of_an_unknown_kind_is_refused() {
        let mut wire = entry_to_wire(&entry());
        wire.kind = 9;
        wire.crc = entry_crc(wire.term, wire.index, wire.kind, &wire.payload);
        assert!(matches!(entry_from_wire(wire), Err(WireError::Entry { index: 7, .. })));
    }
}
