//! Frames that do not belong here are refused before Raft sees them, with what is newer.

use dag_api::peer::v1 as pb;
use dag_api::peer::v1::control_answer::Answer;
use dag_api::peer::v1::frame::Frame;
use dag_types::{ActivationId, Boot, Candidacy, DagId, Generation, Lineage, NodeId, StoreId};
use futures::StreamExt;
use replication::link::{PeerLink, Pipe, StreamKind};
use replication::peer::PROTOCOL_VERSION;

use crate::cluster::{Cluster, DB, Ground, replica, until};

fn frame(frame: Frame) -> pb::Frame {
    pb::Frame { frame: Some(frame) }
}

/// What node 2 would say to node 1.
fn hello(kind: pb::StreamKind) -> pb::Hello {
    pb::Hello {
        kind: kind as i32,
        version: PROTOCOL_VERSION,
        dag: DagId([1; 16]).0.to_vec().into(),
        lineage: Some(lineage(1, 1)),
        node: 2,
        store: StoreId([2; 16]).0.to_vec().into(),
        boot_counter: 1000,
        boot_id: 5,
        to_node: 1,
    }
}

fn lineage(epoch: u64, activation: u8) -> pb::Lineage {
    pb::Lineage { epoch, activation: vec![activation; 16].into() }
}

async fn open(cluster: &Cluster, hello: pb::Hello) -> (Pipe, Option<Frame>) {
    let link = cluster.network.link(NodeId(hello.node));
    let mut pipe = link.connect(NodeId(1), StreamKind::Control).await.expect("a pipe");
    pipe.sender.send(frame(Frame::Hello(hello))).await.expect("sent");
    let answer = next(&mut pipe).await;
    (pipe, answer)
}

async fn next(pipe: &mut Pipe) -> Option<Frame> {
    pipe.receiver.next().await?.ok()?.frame
}

fn reason(answer: Option<Frame>) -> pb::RefusalReason {
    match answer {
        Some(Frame::Refusal(refusal)) => refusal.reason(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_stranger_is_refused_with_the_reason() {
    use pb::RefusalReason as Reason;
    let cluster = Cluster::with_database(1, 1, Ground::Simulated).await;
    let good = || hello(pb::StreamKind::Control);
    let (_pipe, answer) = open(&cluster, good()).await;
    assert!(matches!(answer, Some(Frame::Hello(_))), "{answer:?}");
    let cases = [
        (pb::Hello { dag: vec![9; 16].into(), ..good() }, Reason::OtherDag),
        (pb::Hello { node: 77, ..good() }, Reason::UnknownNode),
        (pb::Hello { store: vec![9; 16].into(), ..good() }, Reason::UnknownStore),
        (pb::Hello { boot_counter: 999, ..good() }, Reason::OlderBoot),
        (pb::Hello { boot_id: 6, ..good() }, Reason::OlderBoot),
        (pb::Hello { to_node: 3, ..good() }, Reason::WrongNode),
        (pb::Hello { version: 99, ..good() }, Reason::ProtocolVersion),
        (pb::Hello { kind: 0, ..good() }, Reason::BadFrame),
    ];
    for (hello, expected) in cases {
        let (mut pipe, answer) = open(&cluster, hello).await;
        assert_eq!(reason(answer), expected);
        assert!(next(&mut pipe).await.is_none(), "the stream is closed");
    }
    cluster.stop().await;
}

fn group() -> pb::Group {
    pb::Group {
        database: DB.0,
        generation: Generation::FIRST.0,
        from_replica: replica(2).0,
        to_replica: replica(1).0,
    }
}

fn wrong_groups() -> [(pb::Group, pb::RefusalReason); 4] {
    use pb::RefusalReason as Reason;
    [
        (pb::Group { database: 99, ..group() }, Reason::NoSuchGroup),
        (pb::Group { generation: 2, ..group() }, Reason::WrongGeneration),
        (pb::Group { to_replica: 5, ..group() }, Reason::WrongReplica),
        // Replica 1 is on node 1, and node 2 speaks.
        (pb::Group { from_replica: replica(1).0, ..group() }, Reason::WrongReplica),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_for_another_group_generation_or_replica_is_refused() {
    let cluster = Cluster::with_database(1, 1, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let term = cluster.status(1).term;
    let (mut pipe, _) = open(&cluster, hello(pb::StreamKind::Control)).await;
    for (id, (group, expected)) in wrong_groups().into_iter().enumerate() {
        let vote = pb::Vote { term: term + 100, replica: group.from_replica, committed: false };
        let last = Some(pb::LogId { term: term + 100, index: 1 << 40 });
        let vote = pb::VoteCall { vote: Some(vote), last, leadership_transfer: true };
        let call = pb::ControlCall {
            id: id as u64,
            group: Some(group),
            call: Some(pb::control_call::Call::Vote(vote)),
        };
        let calls = Frame::Calls(pb::ControlCalls { calls: vec![call] });
        pipe.sender.send(frame(calls)).await.expect("sent");
        let Some(Frame::Answers(answers)) = next(&mut pipe).await else { panic!("no answer") };
        let Some(Answer::Refused(refusal)) = &answers.answers[0].answer else {
            panic!("not refused: {answers:?}")
        };
        assert_eq!(refusal.reason(), expected);
        if expected == pb::RefusalReason::WrongGeneration {
            assert_eq!(refusal.newest, u64::from(Generation::FIRST.0));
        }
    }
    assert_eq!(cluster.status(1).term, term, "Raft saw none of them");
    cluster.stop().await;
}

fn append(session: u64, seq: u64, group: pb::Group, entries: Vec<pb::Entry>) -> pb::AppendCall {
    let vote = pb::Vote { term: 1 << 40, replica: group.from_replica, committed: true };
    pb::AppendCall {
        session,
        seq,
        group: Some(group),
        vote: Some(vote),
        prev: None,
        leader_commit: None,
        entries,
    }
}

async fn ack_of(pipe: &mut Pipe, call: pb::AppendCall) -> pb::RefusalReason {
    let session = call.session;
    let appends = pb::Appends { calls: vec![call], ended: vec![] };
    pipe.sender.send(frame(Frame::Appends(appends))).await.expect("sent");
    let Some(Frame::Acks(acks)) = next(pipe).await else { panic!("no ack") };
    assert_eq!(acks.acks[0].session, session);
    match acks.acks[0].result.as_ref().and_then(|result| result.result.as_ref()) {
        Some(pb::append_result::Result::Refused(refusal)) => refusal.reason(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_another_group_generation_or_replica_are_refused() {
    let cluster = Cluster::with_database(1, 1, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let last = cluster.status(1).last;
    let (mut pipe, _) = open(&cluster, hello(pb::StreamKind::Append)).await;
    for (session, (group, expected)) in wrong_groups().into_iter().enumerate() {
        let call = append(session as u64, 0, group, vec![]);
        assert_eq!(ack_of(&mut pipe, call).await, expected);
    }
    let damaged = pb::Entry { term: 1 << 40, index: 0, kind: 0, payload: vec![].into(), crc: 1 };
    let call = append(50, 0, group(), vec![damaged]);
    assert_eq!(ack_of(&mut pipe, call).await, pb::RefusalReason::BadFrame);
    assert_eq!(cluster.status(1).last, last, "Raft saw none of them");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_an_older_lineage_hears_nothing_until_it_adopts_the_newer() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("old", b"1").await;
    let active = cluster.active(DB).await;
    let late = if active == 3 { 2 } else { 3 };
    let newer = Lineage { epoch: 2, activation: ActivationId([2; 16]) };
    let adopt = |id| {
        cluster.life(id).peers.adopt_lineage(newer);
        cluster.life(id).registry.recheck_peers();
    };
    (1..=3).filter(|id| *id != late).for_each(adopt);
    cluster.group(late, DB).stand(Candidacy::Never);
    until("the new lineage is mounted", || {
        cluster.living().iter().any(|id| {
            let status = cluster.status(*id);
            status.serving && status.mounted.is_some_and(|mounted| mounted.lineage == newer)
        })
    })
    .await;
    cluster.put("new", b"2").await;
    assert_eq!(cluster.value(late, "new"), None);
    adopt(late);
    cluster.has(late, "new", b"2").await;
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_ends_when_a_newer_boot_of_its_node_is_seen() {
    let cluster = Cluster::with_database(1, 1, Ground::Simulated).await;
    let (mut old, _) = open(&cluster, hello(pb::StreamKind::Control)).await;
    let newer = pb::Hello { boot_counter: 1001, boot_id: 6, ..hello(pb::StreamKind::Control) };
    let (_new, answer) = open(&cluster, newer).await;
    assert!(matches!(answer, Some(Frame::Hello(_))));
    cluster.life(1).registry.recheck_peers();
    assert_eq!(reason(next(&mut old).await), pb::RefusalReason::OlderBoot);
    assert!(next(&mut old).await.is_none());
    let known = Boot { counter: 1001, id: 6 };
    cluster.life(1).peers.register(NodeId(2), StoreId([2; 16]), known);
    cluster.stop().await;
}
