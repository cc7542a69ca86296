//! The answering side of all streams.
//!
//! Nothing in the receiving loops waits: a control call gets a task of its own, an append call goes
//! to its session's queue, answers go to a writer. A session that sends more than its credit is
//! ended, not waited for.

use std::collections::BTreeMap;
use std::sync::Arc;

use dag_api::peer::v1 as pb;
use dag_api::peer::v1::control_answer::Answer;
use dag_api::peer::v1::control_call::Call;
use dag_types::NodeId;
use futures::StreamExt;
use openraft::AsyncRuntime;
use openraft::raft::AppendEntriesResponse;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::dial::Dialer;
use crate::gate::ServingGate;
use crate::group::RaftGroup;
use crate::link::{Pipe, StreamKind};
use crate::peer::{PeerIdentity, Refusal};
use crate::registry::GroupTable;
use crate::snapshot;
use crate::wire;

/// Calls of one control stream that may be under way.
const CALLS: usize = 4096;
/// Answers or acks in one frame.
const FRAME_ANSWERS: usize = 1024;
/// Calls of one session that may wait for Raft; more than any leader's credit.
pub(crate) const SESSION_QUEUE: usize = 64;

/// Serves a pipe that another node opened, until either side ends it.
pub(crate) async fn serve<R: AsyncRuntime>(
    dialer: Arc<Dialer>,
    table: Arc<GroupTable<R>>,
    pipe: Pipe,
) {
    let opened = match dialer.accept(pipe).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%error, "a stream was not accepted");
            return;
        }
    };
    let (kind, peer, from) = (opened.kind, opened.peer, opened.peer.node);
    let (gate, seeds) = (dialer.gate.clone(), dialer.seeds.get().cloned());
    let (pipe, mut validity) = opened.split(&dialer);
    let sender = pipe.sender.clone();
    let served = async {
        match kind {
            StreamKind::Control => control(table, Sender { peer, gate }, pipe).await,
            StreamKind::Append => append(table, from, pipe).await,
            StreamKind::Bulk => snapshot::receive(&table, from, pipe).await,
            StreamKind::Seed => match seeds {
                Some(seeds) => seeds.serve(from, pipe).await,
                None => tracing::warn!(peer = %from, "a seed stream, and nobody gives seeds here"),
            },
        }
    };
    tokio::select! {
        refusal = validity.ended() => {
            if let Some(refusal) = refusal {
                let frame = pb::frame::Frame::Refusal(refusal.to_wire());
                let _ = sender.try_send(pb::Frame { frame: Some(frame) });
            }
        }
        () = served => {}
    }
}

/// Who asks on a control stream, and who hears what is of no group.
struct Sender {
    peer: PeerIdentity,
    gate: Option<Arc<dyn ServingGate>>,
}

async fn control<R: AsyncRuntime>(table: Arc<GroupTable<R>>, from: Sender, pipe: Pipe) {
    let Pipe { sender, mut receiver } = pipe;
    let (answers, waiting) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(CALLS));
    let calls = async {
        while let Some(Ok(frame)) = receiver.next().await {
            let Some(pb::frame::Frame::Calls(calls)) = frame.frame else { return };
            for mut call in calls.calls {
                // In the order of their sending, so not in tasks of their own.
                if let Some(Call::Gate(message)) = call.call.take_if(|c| matches!(c, Call::Gate(_)))
                {
                    let answer = Some(from.hear(message));
                    let _ = answers.send(pb::ControlAnswer { id: call.id, answer });
                    continue;
                }
                let (id, answers) = (call.id, answers.clone());
                let Ok(room) = room.clone().try_acquire_owned() else {
                    let answer = Some(Answer::Refused(Refusal::Overloaded.to_wire()));
                    let _ = answers.send(pb::ControlAnswer { id, answer });
                    continue;
                };
                let (table, from) = (table.clone(), from.peer.node);
                let _task = R::spawn(async move {
                    let answer = answer(&table, from, call).await;
                    let answer =
                        answer.unwrap_or_else(|refusal| Answer::Refused(refusal.to_wire()));
                    let _ = answers.send(pb::ControlAnswer { id, answer: Some(answer) });
                    drop(room);
                });
            }
        }
    };
    let frame = |answers| pb::frame::Frame::Answers(pb::ControlAnswers { answers });
    tokio::select! {
        () = calls => {}
        () = write(sender, waiting, frame) => {}
    }
}

impl Sender {
    fn hear(&self, message: pb::GateMessage) -> Answer {
        if let Some(gate) = &self.gate {
            gate.heard(&self.peer, message);
        }
        Answer::Gate(pb::GateHeard {})
    }
}

/// Puts what waits into frames, as many as there are.
async fn write<T>(
    sender: mpsc::Sender<pb::Frame>,
    mut waiting: mpsc::UnboundedReceiver<T>,
    frame: impl Fn(Vec<T>) -> pb::frame::Frame,
) {
    let mut answers = Vec::new();
    while waiting.recv_many(&mut answers, FRAME_ANSWERS).await > 0 {
        let frame = frame(std::mem::take(&mut answers));
        if sender.send(pb::Frame { frame: Some(frame) }).await.is_err() {
            return;
        }
    }
}

async fn answer<R: AsyncRuntime>(
    table: &GroupTable<R>,
    from: NodeId,
    call: pb::ControlCall,
) -> Result<Answer, Refusal> {
    let group = table.find(call.group.as_ref(), from)?;
    match call.call.ok_or(wire::WireError::Missing("call"))? {
        Call::Heartbeat(beat) => heartbeat(&group, &beat).await,
        Call::Vote(call) => vote(&group, &call, false).await,
        Call::PreVote(call) => vote(&group, &call, true).await,
        Call::Transfer(call) => transfer(&group, &call).await,
        Call::Gate(_) => Err(Refusal::BadFrame { detail: "a gate's message for a group".into() }),
        Call::Readiness(_) => Ok(Answer::Readiness(pb::Readiness {
            may_campaign: group.is_candidate(),
            last: group.last().map(|last| pb::LogId { term: last.term, index: last.index }),
        })),
    }
}

async fn heartbeat<R: AsyncRuntime>(
    group: &RaftGroup<R>,
    beat: &pb::Heartbeat,
) -> Result<Answer, Refusal> {
    use pb::append_result::Result as Wire;
    let request = wire::heartbeat_from_wire(beat)?;
    let instance = group.running()?;
    let answer = instance.unless_ended(instance.raft.append_entries(request)).await;
    let answer = answer.and_then(Result::ok).ok_or_else(|| group.why_stopped())?;
    let result = match answer {
        AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => {
            group.heard_leader();
            Wire::Matched(pb::Matched { last: beat.prev })
        }
        // Only a position can conflict.
        AppendEntriesResponse::Conflict => Wire::Conflict(beat.prev.unwrap_or_default()),
        AppendEntriesResponse::HigherVote(vote) => Wire::HigherVote(wire::vote_to_wire(&vote)),
    };
    Ok(Answer::Heartbeat(pb::AppendResult { result: Some(result) }))
}

async fn vote<R: AsyncRuntime>(
    group: &RaftGroup<R>,
    call: &pb::VoteCall,
    pre_vote: bool,
) -> Result<Answer, Refusal> {
    let request = wire::vote_call_from_wire(call)?;
    // A transfer is authorised by the leader whose lease the quarantine protects.
    if group.in_vote_quarantine() && !request.leadership_transfer {
        return Err(Refusal::VoteQuarantine);
    }
    let (candidate, instance) = (request.vote.leader_id().voted_for, group.running()?);
    let asked_for = request.last_log_id;
    let asking = async {
        match pre_vote {
            true => instance.raft.pre_vote(request).await,
            false => instance.raft.vote(request).await,
        }
    };
    let answer = instance.unless_ended(asking).await;
    let answer = answer.and_then(Result::ok).ok_or_else(|| group.why_stopped())?;
    if !answer.vote_granted && asked_for < answer.last_log_id {
        let last = answer.last_log_id.as_ref().map(crate::types::log_id);
        group.refused_shorter(dag_types::ReplicaId(candidate), last);
    }
    Ok(Answer::Vote(wire::vote_answer_to_wire(&answer)))
}

async fn transfer<R: AsyncRuntime>(
    group: &RaftGroup<R>,
    call: &pb::TransferCall,
) -> Result<Answer, Refusal> {
    if call.to_replica == group.replica().0 && !group.is_candidate() {
        return Err(Refusal::MayNotCampaign);
    }
    let request = wire::transfer_from_wire(call)?;
    let instance = group.running()?;
    let answer = instance.unless_ended(instance.raft.handle_transfer_leader(request)).await;
    let answer = answer.and_then(Result::ok).ok_or_else(|| group.why_stopped())?;
    Ok(Answer::Transfer(wire::transfer_answer_to_wire(&answer)))
}

/// The sessions of one append stream.
struct AppendServer<R: AsyncRuntime> {
    table: Arc<GroupTable<R>>,
    from: NodeId,
    sessions: BTreeMap<u64, SessionEnd>,
    acks: mpsc::UnboundedSender<pb::AppendAck>,
}

/// The receiving loop's end of a session; dropping it ends the session.
struct SessionEnd {
    group: pb::Group,
    queue: mpsc::Sender<pb::AppendCall>,
}

async fn append<R: AsyncRuntime>(table: Arc<GroupTable<R>>, from: NodeId, pipe: Pipe) {
    let Pipe { sender, mut receiver } = pipe;
    let (acks, waiting) = mpsc::unbounded_channel();
    let mut server = AppendServer { table, from, sessions: BTreeMap::new(), acks };
    let calls = async {
        while let Some(Ok(frame)) = receiver.next().await {
            let Some(pb::frame::Frame::Appends(appends)) = frame.frame else { return };
            appends.calls.into_iter().for_each(|call| server.take(call));
            for session in appends.ended {
                server.sessions.remove(&session);
            }
        }
    };
    let frame = |acks| pb::frame::Frame::Acks(pb::AppendAcks { acks });
    tokio::select! {
        () = calls => {}
        () = write(sender, waiting, frame) => {}
    }
}

impl<R: AsyncRuntime> AppendServer<R> {
    fn take(&mut self, call: pb::AppendCall) {
        let (session, seq) = (call.session, call.seq);
        if let Err(refusal) = self.try_take(call) {
            self.sessions.remove(&session);
            let _ = self.acks.send(refused(session, seq, &refusal));
        }
    }

    fn try_take(&mut self, call: pb::AppendCall) -> Result<(), Refusal> {
        let session = call.session;
        if call.seq == 0 {
            self.begin(session, call.group)?;
        }
        // A later call of a session that is over here was on its way when it ended.
        let Some(end) = self.sessions.get(&session) else { return Ok(()) };
        if call.group != Some(end.group) {
            return Err(Refusal::BadFrame { detail: "a session of two groups".to_owned() });
        }
        match end.queue.try_send(call) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refusal::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.sessions.remove(&session);
                Ok(())
            }
        }
    }

    fn begin(&mut self, session: u64, header: Option<pb::Group>) -> Result<(), Refusal> {
        let group = self.table.find(header.as_ref(), self.from)?;
        let header = header.ok_or(wire::WireError::Missing("group"))?;
        // A leader has one session with a follower; an older one of the same pair is left over.
        self.sessions.retain(|_, other| other.group != header);
        let (queue, calls) = mpsc::channel(SESSION_QUEUE);
        let task = SessionTask { session, next_seq: 0, acks: self.acks.clone() };
        let _task = R::spawn(task.run(group, calls));
        self.sessions.insert(session, SessionEnd { group: header, queue });
        Ok(())
    }
}

fn refused(session: u64, seq: u64, refusal: &Refusal) -> pb::AppendAck {
    let result = pb::append_result::Result::Refused(refusal.to_wire());
    pb::AppendAck { session, seq, result: Some(pb::AppendResult { result: Some(result) }) }
}

/// Feeds one session's calls to Raft and its results back.
struct SessionTask {
    session: u64,
    next_seq: u64,
    acks: mpsc::UnboundedSender<pb::AppendAck>,
}

impl SessionTask {
    async fn run<R: AsyncRuntime>(
        mut self,
        group: RaftGroup<R>,
        calls: mpsc::Receiver<pb::AppendCall>,
    ) {
        if let Err(refusal) = self.feed(&group, calls).await {
            let _ = self.acks.send(refused(self.session, self.next_seq, &refusal));
        }
    }

    async fn feed<R: AsyncRuntime>(
        &mut self,
        group: &RaftGroup<R>,
        calls: mpsc::Receiver<pb::AppendCall>,
    ) -> Result<(), Refusal> {
        let instance = group.running()?;
        let (bad, mut malformed) = mpsc::channel(1);
        // A damaged request ends the input; what came before it is still answered.
        let requests =
            ReceiverStream::new(calls).map(wire::append_from_wire).scan(bad, |bad, request| {
                let request = request.map_err(|error| bad.try_send(error)).ok();
                std::future::ready(request)
            });
        let mut results = std::pin::pin!(instance.raft.stream_append(requests));
        loop {
            let result = instance.unless_ended(results.next()).await;
            let Some(result) = result.ok_or_else(|| group.why_stopped())? else { break };
            let result = result.map_err(|_| group.why_stopped())?;
            let ack = pb::AppendAck {
                session: self.session,
                seq: self.next_seq,
                result: Some(wire::result_to_wire(&result)),
            };
            self.next_seq += 1;
            if self.acks.send(ack).is_err() {
                return Ok(());
            }
        }
        // openraft ends the results without a word where the instance ends between two of them. A
        // leader that ended the session itself does not hear this any more.
        Err(malformed.try_recv().map_or_else(|_| group.why_stopped(), Into::into))
    }
}
