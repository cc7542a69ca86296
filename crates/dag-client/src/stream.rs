//! The stream of one session to one database: keeps messages in flight, meets answers by delivery
//! id, and carries everything unanswered over to the next stream when one breaks.
//!
//! A message is in one of four states: queued for sending, sent and awaited, paused (the node asked
//! to come back), or held back because another one of the same delivery id is under way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dag_api::mailbox::v1::deliver_messages_response::Outcome as Answered;
use dag_api::mailbox::v1::{
    DeliverHeader, DeliverMessagesRequest, DeliverMessagesResponse, Delivered, Failure,
};
use dag_api::{Problem, Retry};
use dag_types::DatabaseId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::ask::{Shared, service};
use crate::deliver::frames;
use crate::error::{Error, Stop, is_passing, was_never_sent};
use crate::nodes::{Node, Whom};
use crate::places::MailboxName;
use crate::trial::Trial;

/// How often deadlines are looked at while something is in flight.
const TICK: Duration = Duration::from_millis(20);
/// Frames handed to the transport ahead of what it has sent.
const FRAMES_AHEAD: usize = 16;

/// One message for one database.
pub(crate) struct Job {
    pub(crate) header: DeliverHeader,
    pub(crate) content: Bytes,
    pub(crate) trial: Trial,
    pub(crate) answer: oneshot::Sender<Result<Delivered, Stop>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Flight {
    Queued,
    Sent(Instant),
    Paused(Instant),
}

/// How one stream ended.
enum End {
    /// Nobody needs it any more.
    Finished,
    /// Another node is the one: go there at once.
    Hint(Node),
    /// Broken, silent, late, or no longer the active one.
    Broken,
}

pub(crate) struct DatabaseStream {
    shared: Arc<Shared>,
    database: DatabaseId,
    jobs: mpsc::Receiver<Job>,
    /// False when no more jobs will come.
    more: bool,
    flights: HashMap<String, (Job, Flight)>,
    held_back: VecDeque<Job>,
    /// Pauses between streams.
    pause: Duration,
    hints: u32,
}

/// What belongs to one stream alone.
struct Wire {
    node: Node,
    outbox: VecDeque<DeliverMessagesRequest>,
    /// The last answer, or the beginning.
    heard: Instant,
}

impl DatabaseStream {
    pub(crate) fn new(
        shared: Arc<Shared>,
        database: DatabaseId,
        jobs: mpsc::Receiver<Job>,
    ) -> Self {
        let pause = shared.options.pause_first;
        let (flights, held_back) = (HashMap::new(), VecDeque::new());
        Self { shared, database, jobs, more: true, flights, held_back, pause, hints: 0 }
    }

    fn whom(&self) -> Whom {
        Whom::Active(self.database)
    }

    pub(crate) async fn run(mut self) {
        let mut hint = None;
        loop {
            if self.flights.is_empty() {
                match self.jobs.recv().await {
                    Some(job) => self.admit(job, None),
                    None => return,
                }
            }
            let node = hint.take().unwrap_or_else(|| self.shared.nodes.choose(self.whom()));
            match self.serve(node).await {
                End::Finished => return,
                End::Hint(node) if self.hints < 3 => {
                    self.hints += 1;
                    hint = Some(node);
                }
                End::Hint(_) | End::Broken => {
                    self.hints = 0;
                    self.rest().await;
                }
            }
            self.expire(None);
        }
    }

    /// Waits before the next stream, longer each time until an answer counts.
    async fn rest(&mut self) {
        let options = &self.shared.options;
        tokio::time::sleep(options.jitter.spread(self.pause)).await;
        self.pause = (self.pause * 2).min(options.pause_max);
    }

    /// Takes a job into flight, unless one of the same delivery id is under way.
    fn admit(&mut self, job: Job, wire: Option<&mut Wire>) {
        let id = job.header.delivery_id.clone();
        if self.flights.contains_key(&id) {
            self.held_back.push_back(job);
            return;
        }
        if let Some(wire) = wire {
            wire.outbox.extend(frames(job.header.clone(), &job.content));
        }
        self.flights.insert(id, (job, Flight::Queued));
    }

    /// Runs one stream, first with everything that is still unanswered.
    async fn serve(&mut self, node: Node) -> End {
        let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
        let mut wire = Wire { node, outbox: VecDeque::new(), heard: Instant::now() };
        for (job, flight) in self.flights.values_mut() {
            if !matches!(flight, Flight::Paused(_)) {
                *flight = Flight::Queued;
                wire.outbox.extend(frames(job.header.clone(), &job.content));
            }
        }
        // The node may want to see a frame before it answers the call, so both go on at once.
        let mut client = service(&wire.node);
        let mut opening = Box::pin(client.deliver_messages(ReceiverStream::new(receiver)));
        let mut answers: Option<Streaming<DeliverMessagesResponse>> = None;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !self.more && self.flights.is_empty() {
                return End::Finished;
            }
            let busy = !self.flights.is_empty();
            let end = tokio::select! {
                opened = &mut opening, if answers.is_none() => match opened {
                    Ok(stream) => { answers = Some(stream.into_inner()); None }
                    Err(status) => Some(self.broken(&wire, &status)),
                },
                slot = sender.reserve(), if !wire.outbox.is_empty() => match slot {
                    Ok(slot) => { slot.send(self.next_frame(&mut wire)); None }
                    Err(_) => Some(self.broken(&wire, &Status::unavailable("the stream was cut"))),
                },
                answer = next_answer(&mut answers) => match answer {
                    Ok(answer) => self.answered(&mut wire, answer).await,
                    Err(status) => Some(self.broken(&wire, &status)),
                },
                job = self.jobs.recv(), if self.more => {
                    match job {
                        Some(job) => self.admit(job, Some(&mut wire)),
                        None => self.more = false,
                    }
                    None
                },
                _ = ticks.tick(), if busy => self.tick(&mut wire),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// The next frame to be sent; with a message's last one its attempt begins.
    fn next_frame(&mut self, wire: &mut Wire) -> DeliverMessagesRequest {
        let frame = wire.outbox.pop_front().expect("the outbox was looked at just now");
        let next_begins = wire.outbox.front().is_none_or(|next| next.header.is_some());
        if let Some((_, flight)) = self.flights.get_mut(&frame.delivery_id)
            && next_begins
        {
            *flight = Flight::Sent(Instant::now());
        }
        frame
    }

    async fn answered(&mut self, wire: &mut Wire, answer: DeliverMessagesResponse) -> Option<End> {
        wire.heard = Instant::now();
        let id = answer.delivery_id;
        // An answer to something that was already settled: sent twice, answered twice.
        let (_, flight) = self.flights.get(&id)?;
        let flight = *flight;
        match answer.outcome {
            Some(Answered::Delivered(delivered)) => {
                self.delivered(wire, &id, flight, delivered).await
            }
            Some(Answered::Failure(failure)) => self.failed(wire, &id, &failure),
            None => Some(self.broken(wire, &Status::internal("an answer has no outcome"))),
        }
    }

    async fn delivered(
        &mut self,
        wire: &mut Wire,
        id: &str,
        flight: Flight,
        delivered: Delivered,
    ) -> Option<End> {
        let attempt = self.shared.options.attempt;
        let (job, _) = &self.flights[id];
        let mailbox = job.header.recipients.first().map_or("", |recipient| &recipient.mailbox_id);
        let subject = mailbox.parse().map_or(MailboxName::from(mailbox), MailboxName::Id).subject();
        let until = Instant::now() + attempt;
        let token = delivered.token.as_ref();
        if !self.shared.is_newest(token, &wire.node, &subject, until).await {
            return Some(
                self.broken(wire, &Status::unknown("the answer's lineage does not count")),
            );
        }
        match flight {
            Flight::Sent(at) if Instant::now() <= at + attempt => {}
            Flight::Sent(_) => return Some(self.late(wire)),
            // Nothing of this id is awaited on this stream.
            Flight::Queued | Flight::Paused(_) => return None,
        }
        self.shared.nodes.worked(self.whom(), &wire.node);
        (self.pause, self.hints) = (self.shared.options.pause_first, 0);
        self.settle(wire, id, Ok(delivered));
        None
    }

    fn failed(&mut self, wire: &mut Wire, id: &str, failure: &Failure) -> Option<End> {
        let problem = match Problem::from_failure(failure) {
            Ok(problem) => problem,
            Err(status) if is_passing(&status) => {
                self.again(id, self.shared.options.pause_max, status.message());
                return None;
            }
            Err(status) => {
                let endpoint = wire.node.endpoint.to_string();
                let error = Error::Foreign { endpoint, status: Box::new(status) };
                self.settle(wire, id, Err(Stop::Failed(error)));
                return None;
            }
        };
        let wait = problem.retry_after.unwrap_or(self.shared.options.pause_first);
        match problem.reason.retry() {
            Retry::Never => self.settle(wire, id, Err(Stop::Failed(problem.into()))),
            Retry::Relocate => self.settle(wire, id, Err(Stop::Relocate(problem))),
            Retry::SameId => self.again(id, wait, &problem.message),
            Retry::Later => {
                let (job, flight) = self.flights.get_mut(id).expect("looked up by the caller");
                job.trial.not_done(problem.to_string());
                *flight = Flight::Paused(Instant::now() + wait);
            }
            Retry::Elsewhere => return Some(self.elsewhere(wire, Some(id), &problem)),
        }
        None
    }

    /// This node is not the one: everything that was sent to it is sent again elsewhere.
    fn elsewhere(&mut self, wire: &Wire, refused: Option<&str>, problem: &Problem) -> End {
        for (id, (job, flight)) in &mut self.flights {
            if refused == Some(id.as_str()) {
                job.trial.not_done(problem.to_string());
            } else if matches!(flight, Flight::Sent(_)) {
                job.trial.maybe_done(problem.to_string());
            }
        }
        match self.shared.follow(self.whom(), &wire.node, problem) {
            Some(node) => End::Hint(node),
            None => End::Broken,
        }
    }

    /// The stream is of no use any more; what was sent on it has an unknown outcome.
    fn broken(&mut self, wire: &Wire, status: &Status) -> End {
        if let Some(problem) = Problem::from_status(status) {
            return self.elsewhere(wire, None, &problem);
        }
        let why = format!("{}: {}", wire.node.endpoint, status.message());
        let sent = !was_never_sent(status);
        for (job, flight) in self.flights.values_mut() {
            if sent && matches!(flight, Flight::Sent(_)) {
                job.trial.maybe_done(why.clone());
            } else {
                job.trial.not_done(why.clone());
            }
        }
        self.shared.nodes.failed(self.whom(), &wire.node);
        End::Broken
    }

    /// Sends one message again after a while: it may have been carried out.
    fn again(&mut self, id: &str, wait: Duration, why: &str) {
        let (job, flight) = self.flights.get_mut(id).expect("looked up by the caller");
        job.trial.maybe_done(why.to_owned());
        *flight = Flight::Paused(Instant::now() + wait);
    }

    fn settle(&mut self, wire: &mut Wire, id: &str, outcome: Result<Delivered, Stop>) {
        let (job, _) = self.flights.remove(id).expect("looked up by the caller");
        // Where the caller is gone, so is the interest.
        let _ = job.answer.send(outcome);
        let held = self.held_back.iter().position(|job| job.header.delivery_id == id);
        if let Some(job) = held.and_then(|at| self.held_back.remove(at)) {
            self.admit(job, Some(wire));
        }
    }

    /// Looks at every deadline: pauses that are over, answers that are overdue, patience at its end.
    fn tick(&mut self, wire: &mut Wire) -> Option<End> {
        self.expire(Some(wire));
        let (now, attempt) = (Instant::now(), self.shared.options.attempt);
        let mut overdue = false;
        for (job, flight) in self.flights.values_mut() {
            match *flight {
                Flight::Sent(at) => overdue |= now > at + attempt,
                Flight::Paused(due) if now >= due => {
                    *flight = Flight::Queued;
                    wire.outbox.extend(frames(job.header.clone(), &job.content));
                }
                Flight::Queued | Flight::Paused(_) => {}
            }
        }
        overdue.then(|| self.late(wire))
    }

    /// An answer is overdue. The stream is given up, because an answer carries no number of its
    /// attempt: on the same stream the late one would pass for the answer to the next attempt. The
    /// node is given up only where it has been silent altogether.
    fn late(&mut self, wire: &Wire) -> End {
        if Instant::now() > wire.heard + self.shared.options.attempt {
            return self.broken(wire, &Status::unavailable("the node is silent"));
        }
        for (job, flight) in self.flights.values_mut() {
            if matches!(flight, Flight::Sent(_)) {
                job.trial.maybe_done(format!("{} did not answer in time", wire.node.endpoint));
            }
        }
        End::Broken
    }

    /// Answers everything whose patience is over, and lets go on what was held back by it.
    fn expire(&mut self, mut wire: Option<&mut Wire>) {
        let now = Instant::now();
        let over = |job: &Job| now >= job.trial.deadline() || job.answer.is_closed();
        let ended =
            self.flights.extract_if(|_, (job, _)| over(job)).map(|(_, (mut job, flight))| {
                if matches!(flight, Flight::Sent(_)) {
                    job.trial.maybe_done("no answer came in time".into());
                }
                job
            });
        let ended: Vec<_> = ended.collect();
        let (held_ended, held): (Vec<_>, Vec<_>) = self.held_back.drain(..).partition(over);
        for job in ended.into_iter().chain(held_ended) {
            let error = job.trial.timed_out();
            let _ = job.answer.send(Err(Stop::Failed(error)));
        }
        for job in held {
            self.admit(job, wire.as_deref_mut());
        }
    }
}

async fn next_answer(
    answers: &mut Option<Streaming<DeliverMessagesResponse>>,
) -> Result<DeliverMessagesResponse, Status> {
    match answers {
        Some(stream) => {
            let answer = stream.message().await?;
            answer.ok_or_else(|| Status::unavailable("the node ended the stream"))
        }
        None => std::future::pending().await,
    }
}
