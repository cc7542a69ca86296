//! A mail's way in and out, and what bad input gets.

use bytes::{Buf, BufMut, Bytes};
use dag_api::Reason;
use dag_api::mailbox::v1 as mail;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use crate::cluster::{INBOX, Nodes, delivery, fetch, problem, reason, reference};

#[tokio::test]
async fn what_is_delivered_comes_back_byte_for_byte() {
    let (nodes, _) = Nodes::with_database("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("Ann@Example.org").await.mailbox.unwrap();
    let large: Vec<u8> = (0..700_000_u32).map(|i| (i * 31) as u8).collect();
    let bodies: [&[u8]; 3] = [b"From: a\r\n\r\nhello\r\n", b"", &large];
    for (i, body) in bodies.iter().enumerate() {
        let delivered = nodes.deliver(&mailbox, &format!("d{i}"), body).await;
        assert_eq!(delivered.results[0].code(), mail::DeliverCode::Stored);
        assert_eq!(delivered.results[0].uid, i as u32 + 1);
        assert!(delivered.token.unwrap().log_index > 0);
    }
    for (i, body) in bodies.iter().enumerate() {
        assert_eq!(nodes.fetch(&mailbox, i as u32 + 1).await, *body);
    }
    let listed = nodes.inbox(&mailbox).await;
    let sizes: Vec<u64> = listed.iter().map(|message| message.size).collect();
    assert_eq!(sizes, [bodies[0].len() as u64, 0, 700_000]);
    assert!(nodes.verify("DB1").await.equal);
}

#[tokio::test]
async fn a_delivery_that_is_repeated_adds_nothing() {
    let (nodes, _) = Nodes::with_database("single-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let first = nodes.deliver(&mailbox, "d1", b"hello").await;
    let again = nodes.deliver(&mailbox, "d1", b"hello").await;
    assert!(again.replayed && !first.replayed);
    assert_eq!(again.results[0].code(), mail::DeliverCode::Duplicate);
    assert_eq!(again.results[0].uid, first.results[0].uid);
    assert_eq!(nodes.inbox(&mailbox).await.len(), 1);
}

#[tokio::test]
async fn a_mailbox_is_made_once_and_found_by_its_address_in_any_case() {
    let (nodes, database) = Nodes::with_database("three-node", &[]).await;
    let made = nodes.create_mailbox("ann@example.org").await;
    let again = nodes.create_mailbox("ann@example.org").await;
    assert!(again.replayed && !made.replayed);
    assert_eq!(again.mailbox.as_ref().unwrap().mailbox_id, made.mailbox.unwrap().mailbox_id);
    let other = mail::CreateMailboxRequest {
        address: "ANN@example.org".into(),
        request_id: "another".into(),
        ..mail::CreateMailboxRequest::default()
    };
    let taken = nodes.anywhere(|mut mail| {
        let other = other.clone();
        async move { mail.create_mailbox(other).await }
    });
    assert_eq!(taken.await.unwrap_err().reason, Reason::MailboxExists);
    let wanted = mail::LocateMailboxRequest {
        mailbox: Some(mail::locate_mailbox_request::Mailbox::Address("Ann@EXAMPLE.org".into())),
        authoritative: true,
    };
    let found = nodes.anywhere(|mut mail| {
        let wanted = wanted.clone();
        async move { mail.locate_mailbox(wanted).await }
    });
    let found = found.await.unwrap();
    assert_eq!(found.mailbox.unwrap().database_id, database);
    assert!(found.active_endpoint.starts_with("http://127."), "{}", found.active_endpoint);
    assert_eq!(found.lineage_chain.len(), 1);
}

#[tokio::test]
async fn flags_and_removal_answer_with_sets_of_uids() {
    let (nodes, _) = Nodes::with_database("single-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    for i in 1..=3 {
        nodes.deliver(&mailbox, &format!("d{i}"), b"x").await;
    }
    let mut client = nodes.mail("n1").await;
    let store = mail::StoreFlagsRequest {
        mailbox: Some(reference(&mailbox)),
        folder_id: INBOX.into(),
        uids: Some(mail::UidSet::range(1, 2)),
        operation: mail::FlagOperation::Add.into(),
        system_flags: mail::SystemFlag::Deleted as u32,
        request_id: "flags".into(),
        ..mail::StoreFlagsRequest::default()
    };
    let stored = client.store_flags(store.clone()).await.unwrap().into_inner();
    assert_eq!(stored.changed.unwrap().iter().collect::<Vec<_>>(), [1, 2]);
    assert!(client.store_flags(store).await.unwrap().into_inner().replayed);
    let expunge = mail::ExpungeMessagesRequest {
        mailbox: Some(reference(&mailbox)),
        folder_id: INBOX.into(),
        uids: Some(mail::UidSet::range(1, u32::MAX)),
        only_deleted: true,
        request_id: "expunge".into(),
        ..mail::ExpungeMessagesRequest::default()
    };
    let gone = client.expunge_messages(expunge).await.unwrap().into_inner();
    assert_eq!(gone.vanished.unwrap().iter().collect::<Vec<_>>(), [1, 2]);
    let left: Vec<u32> = nodes.inbox(&mailbox).await.iter().map(|message| message.uid).collect();
    assert_eq!(left, [3]);
}

#[tokio::test]
async fn a_session_answers_every_message_and_survives_broken_ones() {
    let (nodes, _) = Nodes::with_database("three-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let active = nodes.until_mounted("DB1").await;
    let frame = |id: &str, body: &'static [u8], damage: u32| {
        let single = delivery(&mailbox, id, body);
        let chunk = mail::BodyChunk {
            offset: 0,
            data: Bytes::from_static(body),
            crc32: crc32(body) ^ damage,
        };
        mail::DeliverMessagesRequest {
            delivery_id: id.into(),
            header: single.header,
            chunk: Some(chunk),
        }
    };
    let mut frames: Vec<mail::DeliverMessagesRequest> =
        (0..50).map(|i| frame(&format!("d{i}"), b"body", 0)).collect();
    frames.insert(25, frame("broken", b"body", 1));
    let mut client = nodes.mail(&active).await;
    let answers = client.deliver_messages(tokio_stream::iter(frames)).await.unwrap();
    let mut answers = answers.into_inner();
    let (mut stored, mut failed) = (0, Vec::new());
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.outcome.unwrap() {
            mail::deliver_messages_response::Outcome::Delivered(_) => stored += 1,
            mail::deliver_messages_response::Outcome::Failure(failure) => {
                failed.push((answer.delivery_id, failure.reason));
            }
        }
    }
    assert_eq!(stored, 50);
    assert_eq!(failed, [("broken".to_owned(), "DIGEST_MISMATCH".to_owned())]);
    assert_eq!(nodes.inbox(&mailbox).await.len(), 50);
}

fn crc32(data: &[u8]) -> u32 {
    // IEEE 802.3, bit by bit: slow, and not the code under test.
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[tokio::test]
async fn bad_input_gets_a_typed_error_and_stores_nothing() {
    let (nodes, database) = Nodes::with_database("single-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    let mut client = nodes.mail("n1").await;
    let good = || delivery(&mailbox, "d1", b"hello");
    let with = |change: &dyn Fn(&mut mail::DeliverHeader)| {
        let mut request = good();
        change(request.header.as_mut().unwrap());
        request
    };
    let mut oversized = good();
    oversized.content = vec![0; 2 << 20].into();
    oversized.header.as_mut().unwrap().size = 2 << 20;
    let no_header = mail::DeliverMessageRequest { header: None, ..good() };
    for (what, request, expected) in [
        ("no header", no_header, Reason::InvalidRequest),
        ("no recipients", with(&|h| h.recipients.clear()), Reason::InvalidRequest),
        ("other size", with(&|h| h.size = 4), Reason::DigestMismatch),
        ("other digest", with(&|h| h.blake3 = vec![0; 32].into()), Reason::DigestMismatch),
        ("short digest", with(&|h| h.blake3 = vec![0; 3].into()), Reason::DigestMismatch),
        ("two frames' worth", oversized, Reason::TooLarge),
        ("no id", with(&|h| h.delivery_id.clear()), Reason::InvalidRequest),
        ("id with a space", with(&|h| h.delivery_id = "a b".into()), Reason::InvalidRequest),
        ("no such database", with(&|h| h.database_id = 999), Reason::DatabaseNotFound),
        ("the directory", with(&|h| h.database_id = 1), Reason::DatabaseNotFound),
    ] {
        let refused = client.deliver_message(request).await;
        assert_eq!(reason(refused), expected, "{what}");
    }
    let stranger = mail::Mailbox {
        mailbox_id: "ab".repeat(16),
        database_id: database,
        addresses: vec!["x@example.org".into()],
        ..mail::Mailbox::default()
    };
    let delivered = nodes.deliver(&stranger, "d2", b"hello").await;
    assert_eq!(delivered.results[0].code(), mail::DeliverCode::NoMailbox);
    let missing = client.fetch_message(fetch(&mailbox, 77)).await;
    assert_eq!(reason(missing), Reason::MessageNotFound);
    let moved = client.fetch_message(fetch(&stranger, 1)).await;
    assert!(matches!(reason(moved), Reason::MailboxMoved | Reason::FolderNotFound));
    assert_eq!(nodes.inbox(&mailbox).await.len(), 0);
}

#[tokio::test]
async fn a_reused_id_is_refused() {
    let (nodes, _) = Nodes::with_database("single-node", &[]).await;
    let mailbox = nodes.create_mailbox("ann@example.org").await.mailbox.unwrap();
    nodes.deliver(&mailbox, "d1", b"hello").await;
    let mut client = nodes.mail("n1").await;
    let other = client.deliver_message(delivery(&mailbox, "d1", b"other")).await;
    match other {
        Err(status) => assert_eq!(problem(status).reason, Reason::DeliveryIdReused),
        Ok(answer) => {
            let result = answer.into_inner().delivered.unwrap().results.remove(0);
            assert_eq!(result.failure.unwrap().reason, "DELIVERY_ID_REUSED");
        }
    }
    assert_eq!(nodes.inbox(&mailbox).await.len(), 1);
}

/// Sends bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[tokio::test]
async fn broken_utf8_and_broken_frames_are_refused_and_the_node_goes_on() {
    let (nodes, _) = Nodes::with_database("single-node", &[]).await;
    let address = nodes.cluster.node("n1").unwrap().clients;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = channel.connect().await.unwrap();
    // Field 1 of CreateMailboxRequest is the address: two bytes that are no UTF-8.
    let broken = Bytes::from_static(&[0x0a, 0x02, 0xff, 0xfe]);
    let truncated = Bytes::from_static(&[0x0a, 0x7f, 0x61]);
    for bytes in [broken, truncated] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let path = "/holdfast.mailbox.v1.MailboxService/CreateMailbox".parse().unwrap();
        let refused = client.unary(tonic::Request::new(bytes), path, Raw).await.unwrap_err();
        assert!(matches!(refused.code(), Code::Internal | Code::InvalidArgument), "{refused:?}");
    }
    nodes.create_mailbox("ann@example.org").await;
}

#[tokio::test]
async fn health_tells_where_a_database_is_mounted() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let (nodes, _) = Nodes::with_database("three-node", &[]).await;
    let active = nodes.until_mounted("DB1").await;
    // The driver tells within one look.
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    for name in nodes.names() {
        let address = nodes.cluster.node(&name).unwrap().clients;
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let mut health = HealthClient::new(endpoint.unwrap().connect().await.unwrap());
        let service = "holdfast.mailbox.v1.MailboxService/DB1".to_owned();
        let answer = health.check(HealthCheckRequest { service }).await.unwrap().into_inner();
        let expected =
            if name == active { ServingStatus::Serving } else { ServingStatus::NotServing };
        assert_eq!(answer.status(), expected, "{name}");
    }
}
