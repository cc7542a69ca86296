//! The asking side of the append stream: sessions of many groups on one pipe.
//!
//! A session is one run of requests from a leader to one follower, as openraft hands it over: a
//! stream of requests in, a stream of results out, in order. The result stream drives everything
//! when it is polled: it takes requests while there is credit, puts them into the pipe's shared
//! outbox, and yields acks. Dropping it ends the session.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use dag_api::peer::v1 as pb;
use dag_types::NodeId;
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::PollSender;

use super::dial::{Dialer, Opened, Validity};
use crate::link::{LinkError, Pipe, StreamKind};
use crate::peer::Refusal;

/// Requests of all sessions that wait for the pipe.
const OUTBOX: usize = 32;
/// Requests are put together into one frame up to this size, so that many groups with little each
/// cost one message.
const FRAME_BYTES: usize = 256 << 10;
/// How long new sessions wait, and then fail, after a connection could not be made.
const PAUSE: Duration = Duration::from_millis(50);
/// A session without any ack for so long, with requests unanswered, is given up and begun anew.
const STALL: Duration = Duration::from_secs(30);

/// How much of a session may be unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credit {
    pub calls: usize,
    pub bytes: usize,
}

/// Opens sessions to one node; they share a pipe, which is opened at the first.
pub(crate) struct AppendClient {
    dialer: Arc<Dialer>,
    to: NodeId,
    current: tokio::sync::Mutex<Current>,
}

#[derive(Default)]
struct Current {
    connection: Option<Arc<Connection>>,
    failed: Option<(Instant, LinkError)>,
}

/// One pipe and its sessions.
struct Connection {
    outbox: mpsc::Sender<pb::AppendCall>,
    ended: mpsc::UnboundedSender<u64>,
    next_session: AtomicU64,
    sessions: Mutex<Sessions>,
}

/// Where acks go; `None` once the pipe is broken.
type Sessions = Option<BTreeMap<u64, mpsc::Sender<pb::AppendAck>>>;

impl AppendClient {
    pub fn new(dialer: Arc<Dialer>, to: NodeId) -> Self {
        Self { dialer, to, current: tokio::sync::Mutex::default() }
    }

    /// Opens a session. It is known to the follower with its first request.
    pub async fn open(
        &self,
        group: pb::Group,
        credit: Credit,
        deadline: Instant,
    ) -> Result<Session, LinkError> {
        let connection = tokio::time::timeout_at(deadline, self.connection())
            .await
            .map_err(|_| LinkError::Deadline)??;
        Session::begin(connection, group, credit)
            .ok_or_else(|| LinkError::broken("the append stream ended"))
    }

    async fn connection(&self) -> Result<Arc<Connection>, LinkError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.connection.as_ref().filter(|c| c.is_open()) {
            return Ok(connection.clone());
        }
        if let Some((at, error)) = current.failed.clone()
            && at.elapsed() < PAUSE
        {
            // openraft waits only while it is asked for requests, which a session that was never
            // opened does not do: an answer at once would make it ask again at once.
            drop(current);
            tokio::time::sleep_until(at + PAUSE).await;
            return Err(error);
        }
        match self.dialer.open(self.to, StreamKind::Append).await {
            Ok(opened) => {
                let connection = Connection::start(opened, &self.dialer);
                current.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                current.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

impl Connection {
    fn start(opened: Opened, dialer: &Arc<Dialer>) -> Arc<Self> {
        let (outbox, calls) = mpsc::channel(OUTBOX);
        let (ended, endings) = mpsc::unbounded_channel();
        let connection = Arc::new(Self {
            outbox,
            ended,
            next_session: AtomicU64::new(1),
            sessions: Mutex::new(Some(BTreeMap::new())),
        });
        let (pipe, validity) = opened.split(dialer);
        tokio::spawn(connection.clone().run(pipe, validity, calls, endings));
        connection
    }

    fn is_open(&self) -> bool {
        self.sessions.lock().expect("no panic while held").is_some()
    }

    /// Runs both directions until either ends, then ends all sessions.
    async fn run(
        self: Arc<Self>,
        pipe: Pipe,
        mut validity: Validity,
        calls: mpsc::Receiver<pb::AppendCall>,
        endings: mpsc::UnboundedReceiver<u64>,
    ) {
        let Pipe { sender, mut receiver } = pipe;
        let acks = async {
            while let Some(Ok(frame)) = receiver.next().await {
                if !self.deliver(frame) {
                    return;
                }
            }
        };
        tokio::select! {
            _ = validity.ended() => {}
            () = acks => {}
            () = write(sender, calls, endings) => {}
        }
        // Dropping the senders ends every session's stream with an error.
        self.sessions.lock().expect("no panic while held").take();
    }

    /// Hands acks to their sessions, without waiting; false where the stream must end.
    fn deliver(&self, frame: pb::Frame) -> bool {
        let Some(pb::frame::Frame::Acks(acks)) = frame.frame else { return false };
        let mut sessions = self.sessions.lock().expect("no panic while held");
        let Some(sessions) = sessions.as_mut() else { return false };
        for ack in acks.acks {
            let session = ack.session;
            // A session has room for an ack of each of its unanswered requests; one that has not
            // got more acks than it asked for. An unknown one ended meanwhile.
            if let Some(acks) = sessions.get(&session)
                && acks.try_send(ack).is_err()
            {
                sessions.remove(&session);
            }
        }
        true
    }
}

/// Puts the requests of all sessions into frames.
async fn write(
    sender: mpsc::Sender<pb::Frame>,
    mut calls: mpsc::Receiver<pb::AppendCall>,
    mut endings: mpsc::UnboundedReceiver<u64>,
) {
    let mut waiting: VecDeque<pb::AppendCall> = VecDeque::new();
    loop {
        let mut appends = pb::Appends::default();
        if waiting.is_empty() {
            tokio::select! {
                Some(session) = endings.recv() => appends.ended.push(session),
                Some(call) = calls.recv() => waiting.push_back(call),
                else => return,
            }
        }
        while let Ok(session) = endings.try_recv() {
            appends.ended.push(session);
        }
        while waiting.len() < OUTBOX
            && let Ok(call) = calls.try_recv()
        {
            waiting.push_back(call);
        }
        let mut bytes = 0;
        while bytes < FRAME_BYTES
            && let Some(call) = waiting.pop_front()
        {
            bytes += call.encoded_len();
            appends.calls.push(call);
        }
        let frame = pb::Frame { frame: Some(pb::frame::Frame::Appends(appends)) };
        if sender.send(frame).await.is_err() {
            return;
        }
    }
}

/// A request that waits for its ack.
struct Unanswered {
    bytes: usize,
    /// Whether it only tells what is committed, and ends where the request before it ended.
    is_empty: bool,
}

/// A leader's end of a session.
pub(crate) struct Session {
    connection: Arc<Connection>,
    id: u64,
    group: pb::Group,
    credit: Credit,
    outbox: PollSender<pb::AppendCall>,
    acks: mpsc::Receiver<pb::AppendAck>,
    next_seq: u64,
    next_ack: u64,
    unanswered: VecDeque<Unanswered>,
    unanswered_bytes: usize,
    /// A request that waits for its place in the outbox.
    in_hand: Option<pb::AppendCall>,
    stall: Pin<Box<Sleep>>,
}

impl Session {
    fn begin(connection: Arc<Connection>, group: pb::Group, credit: Credit) -> Option<Self> {
        let id = connection.next_session.fetch_add(1, Ordering::Relaxed);
        let (to_me, acks) = mpsc::channel(credit.calls.max(1));
        connection.sessions.lock().expect("no panic while held").as_mut()?.insert(id, to_me);
        let outbox = PollSender::new(connection.outbox.clone());
        Some(Self {
            connection,
            id,
            group,
            credit,
            outbox,
            acks,
            next_seq: 0,
            next_ack: 0,
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            in_hand: None,
            stall: Box::pin(tokio::time::sleep(STALL)),
        })
    }

    /// Whether another request may be taken. One always may when nothing is unanswered, so that an
    /// entry larger than the credit passes.
    fn has_credit(&self) -> bool {
        self.in_hand.is_none()
            && (self.unanswered.is_empty()
                || (self.unanswered.len() < self.credit.calls
                    && self.unanswered_bytes < self.credit.bytes))
    }

    fn take(&mut self, mut call: pb::AppendCall) {
        call.session = self.id;
        call.seq = self.next_seq;
        call.group = Some(self.group);
        self.next_seq += 1;
        let (bytes, is_empty) = (call.encoded_len(), call.entries.is_empty());
        if self.unanswered.is_empty() {
            self.stall.as_mut().reset(Instant::now() + STALL);
        }
        self.unanswered.push_back(Unanswered { bytes, is_empty });
        self.unanswered_bytes += bytes;
        self.in_hand = Some(call);
    }

    /// Sends the request in hand; pending while the outbox is full.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.in_hand.is_none() {
            return Poll::Ready(Ok(()));
        }
        let closed = || LinkError::broken("the append stream ended");
        ready!(self.outbox.poll_reserve(cx)).map_err(|_| closed())?;
        let call = self.in_hand.take().expect("checked above");
        Poll::Ready(self.outbox.send_item(call).map_err(|_| closed()))
    }

    /// Whether the next ack says what this one says, because its request added no entry.
    ///
    /// openraft takes an ack for an answer to every request that ends at its position, and counts
    /// the leader's last word from the youngest of them. Given the ack of an entry, it would take
    /// an empty request behind it for answered, which may have been sent long after: an ack from
    /// before a cut, delivered after it, then confirmed a read that the new leader's writes had
    /// overtaken. So such an ack waits for that of the empty request.
    fn is_repeated(&self, result: &pb::AppendResult) -> bool {
        matches!(result.result, Some(pb::append_result::Result::Matched(_)))
            && self.unanswered.front().is_some_and(|next| next.is_empty)
    }

    fn poll_ack(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Result<pb::AppendResult, Refusal>, LinkError>> {
        let Poll::Ready(ack) = self.acks.poll_recv(cx) else {
            if !self.unanswered.is_empty() && self.stall.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(LinkError::Deadline));
            }
            return Poll::Pending;
        };
        let Some(ack) = ack else {
            return Poll::Ready(Err(LinkError::broken("the append stream ended")));
        };
        Poll::Ready(self.check(ack))
    }

    fn check(
        &mut self,
        ack: pb::AppendAck,
    ) -> Result<Result<pb::AppendResult, Refusal>, LinkError> {
        let result = ack.result.unwrap_or_default();
        if let Some(pb::append_result::Result::Refused(refusal)) = &result.result {
            return Ok(Err(Refusal::from_wire(refusal)));
        }
        let answered = self.unanswered.pop_front().filter(|_| ack.seq == self.next_ack);
        let Some(answered) = answered else {
            return Err(LinkError::broken("an ack out of order"));
        };
        self.unanswered_bytes -= answered.bytes;
        self.next_ack += 1;
        self.stall.as_mut().reset(Instant::now() + STALL);
        Ok(Ok(result))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(sessions) =
            self.connection.sessions.lock().expect("no panic while held").as_mut()
        {
            sessions.remove(&self.id);
        }
        // The follower heard of the session only with its first request.
        if self.next_seq > 0 {
            let _ = self.connection.ended.send(self.id);
        }
    }
}

/// The results of a session, driven by polling.
pub(crate) struct Results<S> {
    session: Session,
    /// `None` once it has ended.
    input: Option<S>,
    over: bool,
}

impl<S> Results<S> {
    pub fn new(session: Session, input: S) -> Self {
        Self { session, input: Some(input), over: false }
    }
}

impl<S> Results<S>
where
    S: Stream<Item = pb::AppendCall> + Unpin,
{
    /// Takes and sends requests until credit, outbox or input say stop.
    fn pump(&mut self, cx: &mut Context<'_>) -> Result<(), LinkError> {
        loop {
            match self.session.poll_send(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(sent) => sent?,
            }
            if !self.session.has_credit() {
                return Ok(());
            }
            let Some(input) = &mut self.input else { return Ok(()) };
            match input.poll_next_unpin(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => self.input = None,
                Poll::Ready(Some(call)) => self.session.take(call),
            }
        }
    }

    fn end(&mut self, error: LinkError) -> Poll<Option<Result<pb::AppendResult, LinkError>>> {
        self.over = true;
        Poll::Ready(Some(Err(error)))
    }
}

impl<S> Stream for Results<S>
where
    S: Stream<Item = pb::AppendCall> + Unpin,
{
    type Item = Result<pb::AppendResult, LinkError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        loop {
            if let Err(error) = this.pump(cx) {
                return this.end(error);
            }
            if this.input.is_none() && this.session.unanswered.is_empty() {
                this.over = true;
                return Poll::Ready(None);
            }
            match ready!(this.session.poll_ack(cx)) {
                Ok(Ok(result)) if this.session.is_repeated(&result) => {}
                Ok(Ok(result)) => return Poll::Ready(Some(Ok(result))),
                Ok(Err(refusal)) => return this.end(refusal.into()),
                Err(error) => return this.end(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use pb::append_result::Result as Wire;

    use super::*;

    fn connection() -> (Arc<Connection>, mpsc::Receiver<pb::AppendCall>) {
        let (outbox, sent) = mpsc::channel(OUTBOX);
        let (ended, _) = mpsc::unbounded_channel();
        let sessions = Mutex::new(Some(BTreeMap::new()));
        (Arc::new(Connection { outbox, ended, next_session: AtomicU64::new(1), sessions }), sent)
    }

    fn ack(seq: u64, index: u64) -> pb::Frame {
        let last = Some(pb::LogId { term: 1, index });
        let result = Some(pb::AppendResult { result: Some(Wire::Matched(pb::Matched { last })) });
        let ack = pb::AppendAck { session: 1, seq, result };
        pb::Frame { frame: Some(pb::frame::Frame::Acks(pb::AppendAcks { acks: vec![ack] })) }
    }

    #[tokio::test]
    async fn an_ack_from_before_an_empty_request_does_not_answer_it() {
        let (connection, _sent) = connection();
        let credit = Credit { calls: 8, bytes: 1 << 20 };
        let session = Session::begin(connection.clone(), pb::Group::default(), credit).unwrap();
        let entry = pb::AppendCall { entries: vec![pb::Entry::default()], ..Default::default() };
        let requests = [entry.clone(), pb::AppendCall::default(), entry];
        let input = stream::iter(requests).chain(stream::pending());
        let mut results = Results::new(session, Box::pin(input));
        assert!(futures::poll!(results.next()).is_pending(), "all three are sent");
        assert!(connection.deliver(ack(0, 7)));
        assert!(futures::poll!(results.next()).is_pending(), "the empty one is not answered");
        assert!(connection.deliver(ack(1, 7)));
        assert!(futures::poll!(results.next()).is_ready());
        assert!(connection.deliver(ack(2, 8)));
        assert!(futures::poll!(results.next()).is_ready(), "an entry's ack waits for nothing");
    }
}
