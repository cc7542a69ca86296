//! Messages that no single entry can carry.

use bytes::Bytes;
use dag_api::limits::CHUNK_BYTES_MAX;
use dag_api::mailbox::v1 as mail;
use dag_api::{Problem, Reason};
use tonic::{Response, Status};

use crate::cluster::{Mail, Nodes, delivery, fetch};

const LARGE: usize = 64 << 20;

/// Bytes that differ everywhere, so that none can stand at another's place.
fn body(bytes: usize) -> Bytes {
    let mut body = b"Subject: large\r\n\r\n".to_vec();
    let mut state = 1_u64;
    while body.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        body.extend_from_slice(&state.to_be_bytes());
    }
    body.truncate(bytes);
    body.into()
}

fn frames(mailbox: &mail::Mailbox, id: &str, body: &Bytes) -> Vec<mail::DeliverMessagesRequest> {
    let mut header = delivery(mailbox, id, b"").header;
    if let Some(header) = &mut header {
        header.size = body.len() as u64;
        header.blake3 = blake3::hash(body).as_bytes().to_vec().into();
    }
    let mut frames = Vec::new();
    for offset in (0..body.len()).step_by(CHUNK_BYTES_MAX) {
        let data = body.slice(offset..body.len().min(offset + CHUNK_BYTES_MAX));
        let crc32 = crc32fast::hash(&data);
        frames.push(mail::DeliverMessagesRequest {
            delivery_id: id.into(),
            header: header.take(),
            chunk: Some(mail::BodyChunk { offset: offset as u64, data, crc32 }),
        });
    }
    frames
}

/// One attempt at one node; what a session says of its message becomes the call's own status.
async fn send(
    mut client: Mail,
    frames: Vec<mail::DeliverMessagesRequest>,
) -> Result<Response<mail::Delivered>, Status> {
    use mail::deliver_messages_response::Outcome;
    let answers = client.deliver_messages(tokio_stream::iter(frames)).await?;
    match answers.into_inner().message().await?.and_then(|answer| answer.outcome) {
        Some(Outcome::Delivered(delivered)) => Ok(Response::new(delivered)),
        Some(Outcome::Failure(failure)) => Err(match Problem::from_failure(&failure) {
            Ok(problem) => problem.to_status(),
            Err(status) => status,
        }),
        None => Err(Status::unavailable("the session ended without an answer")),
    }
}

async fn deliver(
    nodes: &Nodes,
    mailbox: &mail::Mailbox,
    id: &str,
    body: &Bytes,
) -> mail::Delivered {
    let frames = frames(mailbox, id, body);
    nodes.anywhere(|client| send(client, frames.clone())).await.unwrap()
}

#[tokio::test]
async fn a_message_of_64_mebibytes_comes_back_whole_and_in_stretches() {
    let (nodes, _) = Nodes::with_database("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let large = body(LARGE);
    let delivered = deliver(&nodes, &mailbox, "d1", &large).await;
    assert_eq!(delivered.results[0].code(), mail::DeliverCode::Stored);
    assert_eq!(nodes.fetch(&mailbox, 1).await, large);
    // Over the border of two rows, and beyond the end.
    for (offset, length) in [((4 << 20) - 7, 20), (LARGE - 5, 100), (LARGE, 1)] {
        let request = mail::FetchMessageRequest {
            offset: offset as u64,
            length: length as u64,
            ..fetch(&mailbox, 1)
        };
        let stream = nodes.anywhere(|mut client| {
            let request = request.clone();
            async move { client.fetch_message(request).await }
        });
        let first = stream.await.unwrap().message().await.unwrap().unwrap();
        assert_eq!(first.section_size, LARGE as u64);
        let expected = large.slice(offset..LARGE.min(offset + length));
        assert_eq!(first.chunk.unwrap_or_default().data, expected, "{offset}+{length}");
    }
    let again = deliver(&nodes, &mailbox, "d1", &large).await;
    assert!(again.replayed);
    assert_eq!(nodes.inbox(&mailbox).await.len(), 1);
    assert!(nodes.verify("DB1").await.equal);
}

#[tokio::test]
async fn one_byte_more_than_64_mebibytes_is_refused_before_it_is_sent() {
    let (nodes, _) = Nodes::with_database("single-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let frames = frames(&mailbox, "d1", &body(LARGE + 1));
    let refused = nodes.anywhere(|client| send(client, frames[..1].to_vec())).await.unwrap_err();
    assert_eq!(refused.reason, Reason::TooLarge);
    let numbers = (refused.facts.value, refused.facts.limit);
    assert_eq!(numbers, (Some(LARGE as u64 + 1), Some(LARGE as u64)));
}

/// The active node is killed after some chunks are in the log: what they became is found by the next
/// attempt, and the message is there once.
#[tokio::test]
async fn the_active_node_dies_between_the_chunks_of_a_message() {
    let (mut nodes, database) = Nodes::unhurried("three-node").await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let active = nodes.until_mounted("DB1").await;
    let large = body(LARGE);
    let (client, frames) = (nodes.mail(&active).await, frames(&mailbox, "d1", &large));
    let node = nodes.cluster.node(&active).unwrap().id;
    let begun = applied(&nodes, &active, node, database).await;
    let attempt = tokio::spawn(send(client, frames));
    while applied(&nodes, &active, node, database).await < begun + 3 {
        if attempt.is_finished() {
            panic!("over before the third chunk was seen: {:?}", attempt.await);
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    nodes.cluster.kill(&active).unwrap();
    assert!(attempt.await.unwrap().is_err(), "it was killed before the last chunk");
    let delivered = deliver(&nodes, &mailbox, "d1", &large).await;
    assert_eq!(delivered.results[0].code(), mail::DeliverCode::Stored);
    nodes.start(std::slice::from_ref(&active)).await;
    assert_eq!(nodes.inbox(&mailbox).await.len(), 1);
    assert_eq!(nodes.fetch(&mailbox, 1).await, large);
    assert!(nodes.verify("DB1").await.equal);
}

async fn applied(nodes: &Nodes, at: &str, node: u64, database: u64) -> u64 {
    let status = nodes.status(at).await;
    let mut own = status.copies.iter();
    let own = own.find(|copy| copy.node_id == node && copy.database_id == database);
    own.map_or(0, |copy| copy.applied_index)
}
