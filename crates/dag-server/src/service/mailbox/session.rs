//! Sessions: many messages on one stream, answers by id, in any order.
//!
//! Each message that is whole becomes a task; a failed one is answered and the session goes on. A
//! session has a bounded number of messages under way: beyond it the stream is not read, which is
//! how a client is slowed down without being refused.

use std::sync::Arc;

use bytes::Bytes;
use dag_api::Problem;
use dag_api::mailbox::v1 as api;
use dag_types::DatabaseId;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Frames, MailboxServer};
use crate::admission::{Kind, Permit};
use crate::service::deadline;
use crate::service::upload::{Assembler, Frame, Header, Step};

/// Messages of one session that are under way.
const UNDER_WAY: usize = 256;
/// Answers that wait for the client to read them.
const ANSWERS: usize = 64;

/// What differs between the sessions.
pub(super) trait Session: Send + 'static {
    /// What the client sends.
    type Request: Send + 'static;
    /// What it gets.
    type Response: Send + 'static;
    /// What stands before a message.
    type Header: Header + Send + 'static;
    /// What a message that was carried out is answered with.
    type Done: Send + 'static;

    /// A frame of a message.
    fn frame(request: Self::Request) -> Frame<Self::Header>;
    /// Whose budget a message counts against.
    fn database(header: &Self::Header) -> DatabaseId;
    /// Carries a message out.
    fn carry_out(
        server: MailboxServer,
        header: Self::Header,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Self::Done, Problem>>;
    /// The answer to a message.
    fn answer(id: String, outcome: Result<Self::Done, Problem>) -> Self::Response;
}

/// A session of deliveries.
pub(super) struct Deliveries;

/// A session of appends.
pub(super) struct Appends;

/// Runs a session until the client has sent its last message and every answer is given.
pub(super) fn run<S: Session>(
    server: MailboxServer,
    requests: Streaming<S::Request>,
) -> Frames<S::Response> {
    let (answers, stream) = mpsc::channel(ANSWERS);
    tokio::spawn(read::<S>(server, requests, answers));
    Box::pin(ReceiverStream::new(stream))
}

async fn read<S: Session>(
    server: MailboxServer,
    mut requests: Streaming<S::Request>,
    answers: mpsc::Sender<Result<S::Response, Status>>,
) {
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let mut frames = Assembler::new(server.message_limit());
    let mut admitted: Option<Permit> = None;
    let stopping = server.node.stopping.clone();
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            // What is under way is still answered.
            () = stopping.cancelled() => break,
        };
        let Ok(Some(request)) = request else { break };
        let frame = S::frame(request);
        // One that is too large is refused for that, whatever else is under way.
        let limit = server.message_limit();
        if let Some(header) = frame.header.as_ref().filter(|header| header.size() <= limit) {
            match server.node.admit(S::database(header), Kind::Write, header.size()) {
                Ok(permit) => admitted = Some(permit),
                Err(problem) => {
                    let id = frame.id.clone();
                    frames.abandon(&id);
                    if answers.send(Ok(S::answer(id, Err(problem)))).await.is_err() {
                        break;
                    }
                    continue;
                }
            }
        }
        match frames.take(frame) {
            Step::Wait => {}
            Step::Failed(id, problem) => {
                admitted = None;
                if answers.send(Ok(S::answer(id, Err(problem)))).await.is_err() {
                    break;
                }
            }
            Step::Complete(header, body) => {
                let permit = admitted.take();
                let Ok(place) = room.clone().acquire_owned().await else { break };
                let (server, answers) = (server.clone(), answers.clone());
                tokio::spawn(async move {
                    let id = header.id().to_owned();
                    let attempt = server.node.settings.attempt.0;
                    let deadline = deadline::of_upload(header.attempt_ms(), attempt);
                    let outcome = S::carry_out(server, header, body, deadline).await;
                    drop(permit);
                    // A client that has gone asks again with the same id.
                    let _ = answers.send(Ok(S::answer(id, outcome))).await;
                    drop(place);
                });
            }
        }
    }
}

impl Session for Deliveries {
    type Request = api::DeliverMessagesRequest;
    type Response = api::DeliverMessagesResponse;
    type Header = api::DeliverHeader;
    type Done = api::Delivered;

    fn frame(request: Self::Request) -> Frame<Self::Header> {
        Frame { id: request.delivery_id, header: request.header, chunk: request.chunk }
    }

    fn database(header: &Self::Header) -> DatabaseId {
        DatabaseId(header.database_id)
    }

    fn carry_out(
        server: MailboxServer,
        header: Self::Header,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Self::Done, Problem>> {
        Box::pin(async move { server.deliver(header, body, 0, deadline).await })
    }

    fn answer(delivery_id: String, outcome: Result<Self::Done, Problem>) -> Self::Response {
        use api::deliver_messages_response::Outcome;
        let outcome = Some(match outcome {
            Ok(delivered) => Outcome::Delivered(delivered),
            Err(problem) => Outcome::Failure(problem.to_failure()),
        });
        api::DeliverMessagesResponse { delivery_id, outcome }
    }
}

impl Session for Appends {
    type Request = api::AppendMessagesRequest;
    type Response = api::AppendMessagesResponse;
    type Header = api::AppendHeader;
    type Done = api::Appended;

    fn frame(request: Self::Request) -> Frame<Self::Header> {
        Frame { id: request.request_id, header: request.header, chunk: request.chunk }
    }

    fn database(header: &Self::Header) -> DatabaseId {
        DatabaseId(header.mailbox.as_ref().map_or(0, |mailbox| mailbox.database_id))
    }

    fn carry_out(
        server: MailboxServer,
        header: Self::Header,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Self::Done, Problem>> {
        Box::pin(async move { server.append(header, body, 0, deadline).await })
    }

    fn answer(request_id: String, outcome: Result<Self::Done, Problem>) -> Self::Response {
        use api::append_messages_response::Outcome;
        let outcome = Some(match outcome {
            Ok(appended) => Outcome::Appended(appended),
            Err(problem) => Outcome::Failure(problem.to_failure()),
        });
        api::AppendMessagesResponse { request_id, outcome }
    }
}
