//! Frames that nobody wrote.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dag_api::peer::v1 as pb;
use dag_api::peer::v1::frame::Frame;
use dag_types::{LogId, NodeId};
use fuzzing::{Target, all, answer, kind};
use openraft::impls::TokioRuntime;
use prost::Message;

use crate::link::StreamKind;
use crate::membership;
use crate::peer::Refusal;
use crate::types::{Member, RaftMembership, StoredMembership, raft_log_id};
use crate::wire;

fn memberships() -> Vec<RaftMembership> {
    let set = |replicas: &[u64]| replicas.iter().copied().collect::<BTreeSet<u64>>();
    let members: BTreeMap<u64, Member> =
        (1..=4).map(|replica| (replica, Member { node: NodeId(replica) })).collect();
    let one = RaftMembership::new(vec![set(&[1, 2, 3])], members.clone()).expect("sound");
    let two = RaftMembership::new(vec![set(&[1, 2, 3]), set(&[2, 3, 4])], members).expect("sound");
    vec![one, two]
}

fn entries() -> Vec<pb::Entry> {
    let payload = membership::encode(&memberships()[1]);
    let kinds = [(0, Bytes::new()), (1, Bytes::from_static(b"a command")), (2, payload)];
    let entry = |(index, (kind, payload)): (u64, (u32, Bytes))| {
        let crc = wire::entry_crc(3, index, kind, &payload);
        pb::Entry { term: 3, index, kind, payload, crc }
    };
    (7..).zip(kinds).map(entry).collect()
}

fn call() -> pb::AppendCall {
    pb::AppendCall {
        session: 1,
        seq: 2,
        group: Some(pb::Group::default()),
        vote: Some(pb::Vote { term: 3, replica: 1, committed: true }),
        prev: Some(pb::LogId { term: 2, index: 6 }),
        leader_commit: Some(pb::LogId { term: 2, index: 6 }),
        entries: entries(),
    }
}

/// Any tag of a frame with a message of some fields in it.
fn frames() -> Vec<Vec<u8>> {
    let inner = b"\x08\x01\x10\x02\x1a\x02\x08\x01\x22\x02\x08\x01\x28\x03";
    let some = |tag: u8| [&[tag << 3 | 2, inner.len() as u8][..], inner].concat();
    let mut frames: Vec<Vec<u8>> = (1..=10).map(some).collect();
    let appends = pb::Appends { calls: vec![call()], ..pb::Appends::default() };
    frames.push(pb::Frame { frame: Some(Frame::Appends(appends)) }.encode_to_vec());
    frames
}

/// Checksums are made to fit for each second input, so that what stands behind them is met too.
fn read_call(mut call: pb::AppendCall, mend: bool) -> u64 {
    if mend {
        for entry in &mut call.entries {
            entry.crc = wire::entry_crc(entry.term, entry.index, entry.kind, &entry.payload);
        }
    }
    match wire::append_from_wire::<TokioRuntime>(call) {
        Err(error) => answer(&error),
        Ok(request) => {
            let again = wire::append_from_wire::<TokioRuntime>(wire::append_to_wire(&request));
            assert_eq!(again.expect("what was written").entries, request.entries);
            request.entries.len().min(4) as u64
        }
    }
}

fn read(frame: Frame, mend: bool) -> u64 {
    match frame {
        Frame::Hello(hello) => {
            answer(&(StreamKind::from_wire(hello.kind()), hello.dag.len() == 16))
        }
        Frame::Refusal(refusal) => kind(&Refusal::from_wire(&refusal)),
        Frame::Appends(appends) => {
            let answers: Vec<u64> =
                appends.calls.into_iter().take(4).map(|call| read_call(call, mend)).collect();
            all(&answers)
        }
        Frame::SnapshotBegin(begin) => {
            u64::from(membership::decode_stored(&begin.membership).is_ok())
        }
        other => kind(&other),
    }
}

#[test]
fn a_frame_is_read_or_refused() {
    let target = Target { name: "frame", samples: frames(), words: &[], longest: 2_000 };
    let mut mend = false;
    fuzzing::run(target, |bytes| {
        mend = !mend;
        match pb::Frame::decode(bytes) {
            Err(_) => 0,
            Ok(pb::Frame { frame: None }) => 1,
            Ok(pb::Frame { frame: Some(frame) }) => all(&[kind(&frame), read(frame, mend)]),
        }
    });
}

#[test]
fn an_entry_is_read_or_refused() {
    let samples = vec![call().encode_to_vec()];
    let target = Target { name: "append", samples, words: &[], longest: 2_000 };
    fuzzing::run(target, |bytes| match pb::AppendCall::decode(bytes) {
        Err(_) => 0,
        Ok(call) => all(&[read_call(call.clone(), false), read_call(call, true)]),
    });
}

#[test]
fn votes_beats_and_answers_are_read_or_refused() {
    let vote = Some(pb::Vote { term: 3, replica: 1, committed: true });
    let at = Some(pb::LogId { term: 2, index: 6 });
    let call = pb::VoteCall { vote, last: at, leadership_transfer: true };
    let beat = pb::Heartbeat { vote, prev: at, leader_commit: at };
    let transfer = pb::TransferCall { from_leader: vote, to_replica: 2, last: at };
    let samples = vec![call.encode_to_vec(), beat.encode_to_vec(), transfer.encode_to_vec()];
    let target = Target { name: "call", samples, words: &[], longest: 400 };
    fuzzing::run(target, |bytes| {
        type R = TokioRuntime;
        let mut read = Vec::new();
        let mut note = |ok: Option<bool>| read.push(ok.map_or(2, u64::from));
        note(
            pb::VoteCall::decode(bytes).ok().map(|it| wire::vote_call_from_wire::<R>(&it).is_ok()),
        );
        note(
            pb::VoteAnswer::decode(bytes)
                .ok()
                .map(|it| wire::vote_answer_from_wire::<R>(&it).is_ok()),
        );
        note(
            pb::Heartbeat::decode(bytes).ok().map(|it| wire::heartbeat_from_wire::<R>(&it).is_ok()),
        );
        note(
            pb::AppendResult::decode(bytes).ok().map(|it| wire::result_from_wire::<R>(it).is_ok()),
        );
        note(
            pb::TransferCall::decode(bytes)
                .ok()
                .map(|it| wire::transfer_from_wire::<R>(&it).is_ok()),
        );
        note(
            pb::TransferAnswer::decode(bytes)
                .ok()
                .map(|it| wire::transfer_answer_from_wire::<R>(&it).is_ok()),
        );
        all(&read)
    });
}

#[test]
fn a_membership_is_refused_or_reads_back() {
    let at = Some(raft_log_id(LogId { term: 1, index: 5 }));
    let stored = memberships().into_iter().map(|it| StoredMembership::new(at, it));
    let samples = stored.map(|it| membership::encode_stored(&it).to_vec()).collect();
    let target = Target { name: "membership", samples, words: &[], longest: 600 };
    fuzzing::run(target, |bytes| match membership::decode_stored(bytes) {
        Err(error) => answer(&error),
        Ok(stored) => {
            let again = membership::decode_stored(&membership::encode_stored(&stored));
            assert_eq!(again, Ok(stored.clone()));
            let sets = stored.membership().get_joint_config();
            all(&[sets.len() as u64, stored.membership().nodes().count().min(8) as u64])
        }
    });
}
