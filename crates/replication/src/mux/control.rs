//! The asking side of the control stream: heartbeats, votes, transfers of all groups.
//!
//! Calls carry ids and are answered in any order. A heartbeat may wait a moment
//! ([`Pace::MayWait`]) so that those of many groups leave in one frame; everything else takes what
//! waits along at once. The lease that a heartbeat renews counts from before that wait, so the wait
//! costs a little of the lease and never lengthens it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dag_api::peer::v1 as pb;
use dag_api::peer::v1::control_answer::Answer;
use dag_types::NodeId;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::dial::{Dialer, Opened};
use crate::link::{LinkError, StreamKind};
use crate::peer::Refusal;

/// Calls that may wait for the stream.
const QUEUE: usize = 4096;
/// Calls in one frame.
const FRAME_CALLS: usize = 1024;
/// How long calls fail at once after a connection could not be made.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a call may wait for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    AtOnce,
    MayWait(Duration),
}

/// A handle; the stream is opened by a task of its own at the first call.
#[derive(Clone)]
pub(crate) struct ControlClient {
    calls: mpsc::Sender<Call>,
}

struct Call {
    group: pb::Group,
    call: pb::control_call::Call,
    pace: Pace,
    answer: oneshot::Sender<Result<Answer, LinkError>>,
}

impl ControlClient {
    pub fn start(dialer: Arc<Dialer>, to: NodeId) -> Self {
        let (calls, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(ControlTask { dialer, to, waiting }.run());
        Self { calls }
    }

    /// Asks, and waits for the answer until the deadline. A refusal is an error.
    pub async fn call(
        &self,
        group: pb::Group,
        call: pb::control_call::Call,
        pace: Pace,
        deadline: Instant,
    ) -> Result<Answer, LinkError> {
        let (answer, answered) = oneshot::channel();
        let call = Call { group, call, pace, answer };
        self.calls.try_send(call).map_err(|_| LinkError::broken("too many calls wait"))?;
        match tokio::time::timeout_at(deadline, answered).await {
            Err(_) => Err(LinkError::Deadline),
            Ok(Err(_)) => Err(LinkError::broken("the control stream ended")),
            Ok(Ok(Ok(Answer::Refused(refusal)))) => Err(Refusal::from_wire(&refusal).into()),
            Ok(Ok(answer)) => answer,
        }
    }
}

impl ControlClient {
    /// Sends a message that is of no group. Nobody waits for an answer, and nothing is repeated.
    pub fn tell(&self, message: pb::GateMessage) {
        let (answer, _) = oneshot::channel();
        let call = pb::control_call::Call::Gate(message);
        // Where too much waits, a message is lost as it may be on the way.
        let call = Call { group: pb::Group::default(), call, pace: Pace::AtOnce, answer };
        let _ = self.calls.try_send(call);
    }
}

struct ControlTask {
    dialer: Arc<Dialer>,
    to: NodeId,
    waiting: mpsc::Receiver<Call>,
}

impl ControlTask {
    async fn run(mut self) {
        let stop = self.dialer.stop.clone();
        while let Some(Some(first)) = stop.run_until_cancelled(self.waiting.recv()).await {
            match self.dialer.open(self.to, StreamKind::Control).await {
                Ok(opened) => self.exchange(opened, first).await,
                Err(error) => {
                    tracing::debug!(peer = %self.to, %error, "no control stream");
                    let _ = first.answer.send(Err(error.clone()));
                    self.fail_for_a_moment(&error).await;
                }
            }
        }
    }

    /// Fails what waits and what comes, so that nobody waits for one connection attempt per call.
    async fn fail_for_a_moment(&mut self, error: &LinkError) {
        let until = Instant::now() + PAUSE;
        while let Ok(Some(call)) = tokio::time::timeout_at(until, self.waiting.recv()).await {
            let _ = call.answer.send(Err(error.clone()));
        }
    }

    async fn exchange(&mut self, opened: Opened, first: Call) {
        let (mut pipe, mut validity) = opened.split(&self.dialer);
        let mut under_way = UnderWay::default();
        under_way.add(first);
        loop {
            tokio::select! {
                biased;
                _ = validity.ended() => return,
                frame = pipe.receiver.next() => match frame {
                    Some(Ok(frame)) => {
                        if !under_way.answer(frame) {
                            return;
                        }
                    }
                    _ => return,
                },
                call = self.waiting.recv(), if under_way.has_room() => {
                    let Some(call) = call else { return };
                    under_way.add(call);
                    while under_way.has_room() && let Ok(call) = self.waiting.try_recv() {
                        under_way.add(call);
                    }
                }
                slot = under_way.slot(&pipe.sender), if under_way.something_to_send() => {
                    let Ok(slot) = slot else { return };
                    slot.send(under_way.take_frame());
                }
            }
        }
    }
}

/// Calls that were taken and not answered yet.
#[derive(Default)]
struct UnderWay {
    next_id: u64,
    outbox: Vec<pb::ControlCall>,
    /// When the outbox leaves; meaningful while something is in it.
    leaves: Option<Instant>,
    unanswered: BTreeMap<u64, oneshot::Sender<Result<Answer, LinkError>>>,
}

impl UnderWay {
    fn add(&mut self, call: Call) {
        let now = Instant::now();
        let leaves = match call.pace {
            Pace::AtOnce => now,
            Pace::MayWait(wait) => now + wait,
        };
        self.leaves = Some(self.leaves.map_or(leaves, |earlier| earlier.min(leaves)));
        self.next_id += 1;
        let id = self.next_id;
        self.outbox.push(pb::ControlCall { id, group: Some(call.group), call: Some(call.call) });
        self.unanswered.insert(id, call.answer);
    }

    fn has_room(&self) -> bool {
        self.outbox.len() < FRAME_CALLS
    }

    fn something_to_send(&self) -> bool {
        !self.outbox.is_empty()
    }

    async fn slot<'a>(
        &self,
        sender: &'a mpsc::Sender<pb::Frame>,
    ) -> Result<mpsc::Permit<'a, pb::Frame>, mpsc::error::SendError<()>> {
        if let Some(leaves) = self.leaves {
            tokio::time::sleep_until(leaves).await;
        }
        sender.reserve().await
    }

    fn take_frame(&mut self) -> pb::Frame {
        // Whoever asked and gave up at its deadline is not waited for.
        self.unanswered.retain(|_, answer| !answer.is_closed());
        self.leaves = None;
        let calls = std::mem::take(&mut self.outbox);
        pb::Frame { frame: Some(pb::frame::Frame::Calls(pb::ControlCalls { calls })) }
    }

    /// Completes calls; false where the stream must end.
    fn answer(&mut self, frame: pb::Frame) -> bool {
        let Some(pb::frame::Frame::Answers(answers)) = frame.frame else { return false };
        for pb::ControlAnswer { id, answer } in answers.answers {
            if let (Some(waiting), Some(answer)) = (self.unanswered.remove(&id), answer) {
                let _ = waiting.send(Ok(answer));
            }
        }
        true
    }
}
