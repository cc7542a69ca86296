//! Messages that are not what they say they are.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{ask, trial};
use dag_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use dag_api::mailbox::v1::{
    BodyChunk, DeliverHeader, DeliverMessageRequest, DeliverMessagesRequest, Recipient,
    deliver_messages_response,
};
use dag_api::{Problem, Reason};
use dag_client::Delivery;
use testkit::scratch::{Scratch, ScratchCluster};
use tonic::transport::Channel;

const ADDRESS: &str = "reader@example.org";

/// A node with a mailbox, a connection, and the header of a delivery to it.
struct Desk {
    cluster: ScratchCluster,
    service: MailboxServiceClient<Channel>,
    header: DeliverHeader,
}

async fn desk() -> anyhow::Result<Desk> {
    let cluster = Scratch::shape("single-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    let client = trial::client(&cluster, Duration::from_secs(10))?;
    let made = client.create_mailbox(ADDRESS).await?;
    let endpoint = format!("http://{}", cluster.node("n1")?.clients);
    let service = MailboxServiceClient::connect(endpoint).await?;
    let recipient = Recipient {
        mailbox_id: made.place.mailbox.to_string(),
        address: ADDRESS.into(),
        ..Recipient::default()
    };
    let header = DeliverHeader {
        delivery_id: "bad".into(),
        database_id: made.place.database.0,
        recipients: vec![recipient],
        ..DeliverHeader::default()
    };
    Ok(Desk { cluster, service, header })
}

/// Nothing was stored, and the node works.
async fn expect_unharmed(desk: &Desk) -> anyhow::Result<()> {
    let client = trial::client(&desk.cluster, Duration::from_secs(10))?;
    ensure!(client.mailbox(ADDRESS).await?.messages == 0, "something was stored");
    let report =
        client.deliver(Delivery::new("good", [ADDRESS], "Subject: x\r\n\r\ny\r\n")).await?;
    ensure!(report.all_stored());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_size_or_digest_is_refused_by_name() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut desk = desk().await?;
    let content = testkit::mail::mixed(1);
    let right = blake3::hash(&content).as_bytes().to_vec();
    let wrong = blake3::hash(b"another").as_bytes().to_vec();
    for (size, digest) in [(content.len() as u64 + 1, right.clone()), (content.len() as u64, wrong)]
    {
        let header = DeliverHeader { size, blake3: digest.into(), ..desk.header.clone() };
        let request =
            DeliverMessageRequest { header: Some(header), content: content.clone().into() };
        let status = desk.service.deliver_message(request).await.expect_err("refused");
        let problem = Problem::from_status(&status).with_context(|| status.to_string())?;
        ensure!(problem.reason == Reason::DigestMismatch, "{problem}");
    }
    expect_unharmed(&desk).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_with_another_checksum_fails_its_message_and_not_the_session() -> anyhow::Result<()>
{
    let _turn = cluster::turn().await;
    let mut desk = desk().await?;
    let content = testkit::mail::mixed(2);
    let frame = |id: &str, crc32: u32| DeliverMessagesRequest {
        delivery_id: id.into(),
        header: Some(DeliverHeader {
            delivery_id: id.into(),
            size: content.len() as u64,
            ..desk.header.clone()
        }),
        chunk: Some(BodyChunk { offset: 0, data: content.clone().into(), crc32 }),
    };
    let right = crc32fast::hash(&content);
    let frames = [frame("torn", right ^ 1), frame("whole", right)];
    let session = desk.service.deliver_messages(tokio_stream::iter(frames)).await?;
    let mut answers = session.into_inner();
    let mut seen = Vec::new();
    while let Some(answer) = answers.message().await? {
        let outcome = answer.outcome.context("an answer has an outcome")?;
        let reason = match outcome {
            deliver_messages_response::Outcome::Delivered(_) => "stored".to_owned(),
            deliver_messages_response::Outcome::Failure(failure) => failure.reason,
        };
        seen.push((answer.delivery_id, reason));
    }
    seen.sort();
    let expected = [("torn", Reason::DigestMismatch.as_str()), ("whole", "stored")];
    let expected = expected.map(|(id, reason)| (id.to_owned(), reason.to_owned()));
    ensure!(seen == expected, "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_100_mebibytes_is_refused_by_name_and_costs_no_memory() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut desk = desk().await?;
    let before = desk.cluster.figures().anonymous_bytes;
    let total: u64 = 100 << 20;
    let part: usize = 256 << 10;
    let header = DeliverHeader {
        size: total,
        blake3: blake3::hash(b"never reached").as_bytes().to_vec().into(),
        ..desk.header.clone()
    };
    let data = bytes::Bytes::from(vec![b'x'; part]);
    let crc32 = crc32fast::hash(&data);
    let frames = (0..total / part as u64).map(move |number| DeliverMessagesRequest {
        delivery_id: "bad".into(),
        header: (number == 0).then(|| header.clone()),
        chunk: Some(BodyChunk { offset: number * part as u64, data: data.clone(), crc32 }),
    });
    let session = desk.service.deliver_messages(tokio_stream::iter(frames)).await;
    let reason = match session {
        Ok(session) => {
            let answer = session.into_inner().message().await?.context("an answer")?;
            match answer.outcome.context("an outcome")? {
                deliver_messages_response::Outcome::Failure(failure) => failure.reason,
                deliver_messages_response::Outcome::Delivered(_) => anyhow::bail!("it was stored"),
            }
        }
        Err(status) => {
            Problem::from_status(&status).context("a reason")?.reason.as_str().to_owned()
        }
    };
    ensure!(reason == Reason::TooLarge.as_str(), "{reason}");
    let grown = desk.cluster.figures().anonymous_bytes.saturating_sub(before);
    ensure!(grown < 64 << 20, "memory grew by {} MiB", grown >> 20);
    let client = trial::client(&desk.cluster, Duration::from_secs(10))?;
    let large = vec![b'x'; total as usize];
    let refused = client.deliver(Delivery::new("bad2", [ADDRESS], large)).await;
    let reason = refused.err().and_then(|error| error.problem().map(|problem| problem.reason));
    ensure!(reason == Some(Reason::TooLarge), "{reason:?}");
    expect_unharmed(&desk).await
}
