//! The clients of a measurement: few microseconds for each delivery, so that the nodes are what is
//! measured.
//!
//! In a closed loop a client sends its next mail when the last one is acknowledged. With sessions
//! all clients of a database share one stream, as the deliveries of a front end do; one task per
//! database reads the answers and sends the next mail of the client that was answered. With calls
//! each client is a task of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use dag_api::mailbox::v1::deliver_messages_response::Outcome;
use dag_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use dag_api::mailbox::v1::{
    BodyChunk, DeliverHeader, DeliverMessageRequest, DeliverMessagesRequest,
};
use hdrhistogram::Histogram;
use testkit::mail::Pool;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use crate::arena::{Arena, Target};

/// How deliveries travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// One stream per database.
    Session,
    /// A call for each delivery.
    Unary,
}

impl Way {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Unary => "unary",
        }
    }
}

/// A longer answer counts as this long.
const LATENCY_MAX_US: u64 = 600_000_000;

/// What a loop did while it was counted.
#[derive(Debug)]
pub struct Tally {
    /// Microseconds from sending to acknowledgement.
    pub latency: Histogram<u64>,
    /// Deliveries acknowledged.
    pub acknowledged: u64,
    /// Deliveries refused; each was sent again as a new one.
    pub refused: u64,
    /// Bytes of the mails acknowledged.
    pub bytes: u64,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        // With fixed bounds: one that grows by itself saturates at the bound it has so far.
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("valid bounds");
        Self { latency, acknowledged: 0, refused: 0, bytes: 0 }
    }

    fn add(&mut self, size: usize, took: Duration) {
        self.acknowledged += 1;
        self.bytes += size as u64;
        self.latency.saturating_record(took.as_micros() as u64);
    }

    fn merge(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("both have three digits");
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.bytes += other.bytes;
    }
}

/// When a loop begins to count, and when it ends.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Deliveries acknowledged before are warm-up.
    pub from: Instant,
    /// Nothing is sent from here on.
    pub to: Instant,
}

/// What all loops of a measurement share.
pub struct Supply {
    pool: Pool,
    size: usize,
    /// Makes delivery ids of different runs different.
    run: u64,
}

impl Supply {
    /// Mails of one size.
    pub fn new(size: usize, run: u64) -> Arc<Self> {
        Arc::new(Self { pool: Pool::new(64, size), size, run })
    }

    fn header(&self, target: &Target, client: usize, count: u64) -> DeliverHeader {
        let mailbox = &target.mailboxes[client % target.mailboxes.len()];
        DeliverHeader {
            delivery_id: format!("{}-{}-{client}-{count}", self.run, target.database),
            database_id: target.database,
            envelope_from: "sender@example.net".to_owned(),
            recipients: vec![mailbox.clone()],
            size: self.size as u64,
            ..DeliverHeader::default()
        }
    }

    /// Equal bodies are stored once: no mail of a run, nor of another one, is like this.
    fn mail(&self, client: usize, count: u64) -> Bytes {
        self.pool.mail(self.run << 40 | client as u64 * 1_000_000_000 + count).into()
    }

    fn frame(&self, target: &Target, client: usize, count: u64) -> DeliverMessagesRequest {
        let header = self.header(target, client, count);
        let data = self.mail(client, count);
        let crc32 = crc32fast::hash(&data);
        DeliverMessagesRequest {
            delivery_id: header.delivery_id.clone(),
            header: Some(header),
            chunk: Some(BodyChunk { offset: 0, data, crc32 }),
        }
    }
}

/// Runs a closed loop of so many clients over all databases of the arena.
pub async fn closed(
    arena: &Arena,
    supply: &Arc<Supply>,
    clients: usize,
    way: Way,
    window: Window,
) -> anyhow::Result<Tally> {
    let mut loops = tokio::task::JoinSet::new();
    for (place, target) in arena.databases.iter().enumerate() {
        let share =
            clients / arena.databases.len() + usize::from(place < clients % arena.databases.len());
        if share == 0 {
            continue;
        }
        let node = arena.active(target.database).await?;
        match way {
            Way::Session => {
                let channel = arena.channel(&node).await?;
                let (supply, target) = (supply.clone(), target.clone());
                loops.spawn(session(channel, supply, target, share, window));
            }
            Way::Unary => {
                // As many connections as front ends would have, not one per client.
                let mut channels = Vec::new();
                for _ in 0..share.div_ceil(16) {
                    channels.push(arena.channel(&node).await?);
                }
                for client in 0..share {
                    let channel = channels[client % channels.len()].clone();
                    let (supply, target) = (supply.clone(), target.clone());
                    loops.spawn(unary(channel, supply, target, client, window));
                }
            }
        }
    }
    let mut tally = Tally::new();
    while let Some(done) = loops.join_next().await {
        tally.merge(&done??);
    }
    Ok(tally)
}

async fn session(
    channel: Channel,
    supply: Arc<Supply>,
    target: Target,
    clients: usize,
    window: Window,
) -> anyhow::Result<Tally> {
    let mut service = MailboxServiceClient::new(channel);
    let (frames, queue) = mpsc::unbounded_channel();
    let mut sent = vec![(0_u64, Instant::now()); clients];
    for (client, (count, _)) in sent.iter_mut().enumerate() {
        *count += 1;
        frames.send(supply.frame(&target, client, *count)).context("the stream is open")?;
    }
    let answers = service.deliver_messages(UnboundedReceiverStream::new(queue)).await?;
    let mut answers = answers.into_inner();
    let mut tally = Tally::new();
    let (mut open, mut frames) = (clients, Some(frames));
    while open > 0 {
        let answer = answers.message().await?.context("the node ended the session")?;
        let now = Instant::now();
        let client = client_of(&answer.delivery_id)?;
        let (count, since) = &mut sent[client];
        match answer.outcome.context("an answer has an outcome")? {
            Outcome::Delivered(_) if now >= window.from && now < window.to => {
                tally.add(supply.size, now - *since);
            }
            Outcome::Delivered(_) => {}
            Outcome::Failure(_) if now < window.from => {}
            Outcome::Failure(failure) if failure.reason == "OVERLOADED" => tally.refused += 1,
            Outcome::Failure(failure) => bail!("{}: {}", failure.reason, failure.message),
        }
        if now < window.to {
            (*count, *since) = (*count + 1, now);
            let frame = supply.frame(&target, client, *count);
            let frames = frames.as_ref().context("the stream is open")?;
            frames.send(frame).ok().context("the stream is open")?;
        } else {
            open -= 1;
        }
    }
    frames.take();
    Ok(tally)
}

/// The third of the four parts of a delivery id.
fn client_of(delivery_id: &str) -> anyhow::Result<usize> {
    let part = delivery_id.split('-').nth(2).context("an id of ours has four parts")?;
    Ok(part.parse()?)
}

async fn unary(
    channel: Channel,
    supply: Arc<Supply>,
    target: Target,
    client: usize,
    window: Window,
) -> anyhow::Result<Tally> {
    let mut service = MailboxServiceClient::new(channel);
    let mut tally = Tally::new();
    for count in 1.. {
        let since = Instant::now();
        if since >= window.to {
            break;
        }
        let header = Some(supply.header(&target, client, count));
        let request = DeliverMessageRequest { header, content: supply.mail(client, count) };
        let answer = service.deliver_message(request).await;
        let now = Instant::now();
        match answer {
            Ok(_) if now >= window.from && now < window.to => tally.add(supply.size, now - since),
            Ok(_) => {}
            Err(_) if now < window.from => {}
            Err(status) if status.code() == tonic::Code::ResourceExhausted => tally.refused += 1,
            Err(status) => return Err(status.into()),
        }
    }
    Ok(tally)
}

/// Sends at a fixed rate, whatever the answers do; latency counts from the moment at which a mail
/// was due.
pub async fn open(
    arena: &Arena,
    supply: &Arc<Supply>,
    rate: u64,
    window: Window,
) -> anyhow::Result<Tally> {
    let share = (rate / arena.databases.len() as u64).max(1);
    let mut loops = tokio::task::JoinSet::new();
    for target in &arena.databases {
        let node = arena.active(target.database).await?;
        let channel = arena.channel(&node).await?;
        loops.spawn(open_session(channel, supply.clone(), target.clone(), share, window));
    }
    let mut tally = Tally::new();
    while let Some(done) = loops.join_next().await {
        tally.merge(&done??);
    }
    Ok(tally)
}

async fn open_session(
    channel: Channel,
    supply: Arc<Supply>,
    target: Target,
    rate: u64,
    window: Window,
) -> anyhow::Result<Tally> {
    let mut service = MailboxServiceClient::new(channel);
    let (frames, queue) = mpsc::unbounded_channel();
    let begin = Instant::now();
    let due = move |count: u64| begin + Duration::from_nanos(count * 1_000_000_000 / rate);
    let sender = {
        let (supply, target) = (supply.clone(), target.clone());
        async move {
            for count in 0.. {
                let at = due(count);
                if at >= window.to {
                    break;
                }
                tokio::time::sleep_until(at.into()).await;
                if frames.send(supply.frame(&target, 0, count)).is_err() {
                    break;
                }
            }
        }
    };
    let mut answers =
        service.deliver_messages(UnboundedReceiverStream::new(queue)).await?.into_inner();
    let sender = tokio::spawn(sender);
    let mut tally = Tally::new();
    while let Some(answer) = answers.message().await? {
        let now = Instant::now();
        let count: u64 = answer.delivery_id.rsplit('-').next().unwrap_or_default().parse()?;
        match answer.outcome.context("an answer has an outcome")? {
            Outcome::Delivered(_) if due(count) >= window.from => {
                tally.add(supply.size, now.saturating_duration_since(due(count)));
            }
            Outcome::Delivered(_) => {}
            Outcome::Failure(failure) if failure.reason == "OVERLOADED" => tally.refused += 1,
            Outcome::Failure(failure) => bail!("{}: {}", failure.reason, failure.message),
        }
    }
    sender.await?;
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dag_api::mailbox::v1::Recipient;

    #[test]
    fn a_delivery_id_tells_which_client_was_answered() {
        let supply = Supply::new(1_000, 7);
        let target = Target { database: 16, mailboxes: vec![Recipient::default()] };
        let frame = supply.frame(&target, 5, 9);
        assert_eq!(frame.delivery_id, "7-16-5-9");
        assert_eq!(client_of(&frame.delivery_id).expect("ours"), 5);
        let chunk = frame.chunk.expect("the whole mail");
        assert_eq!((chunk.data.len(), chunk.crc32), (1_000, crc32fast::hash(&chunk.data)));
    }

    #[test]
    fn a_latency_is_found_again_as_it_was_added() {
        let mut tally = Tally::new();
        for millis in 1..=100 {
            tally.add(10, Duration::from_millis(millis));
        }
        let median = tally.latency.value_at_quantile(0.5);
        assert!(median.abs_diff(50_000) < 100, "{median} us");
        assert_eq!((tally.acknowledged, tally.bytes), (100, 1_000));
    }

    #[test]
    fn no_two_mails_of_a_run_are_equal() {
        let supply = Supply::new(1_000, 1);
        assert_ne!(supply.mail(1, 64), supply.mail(2, 64));
        assert_ne!(supply.mail(1, 64), supply.mail(1, 128));
    }
}
