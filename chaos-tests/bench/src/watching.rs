//! Watchers: how long until one is told of a change, and what many of them take of memory.
//!
//! Each watcher is a stream of its own, over connections that many share. Mails come in at a fixed
//! rate; what a watcher is told is timed from the moment that the mail was sent, so it has the
//! commit in it, and from the moment that the sender was told.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dag_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use dag_api::mailbox::v1::watch_mailboxes_response::Event;
use dag_api::mailbox::v1::{
    DeliverHeader, DeliverMessageRequest, MailboxRef, WatchMailboxesRequest, WatchedMailbox,
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use testkit::mail::Pool;
use testkit::shape::Timeouts;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::arena::{Arena, Target};
use crate::report::{Line, Report};

/// Streams of one connection.
const STREAMS: usize = 100;
/// Between two samples of memory.
const EVERY: Duration = Duration::from_secs(2);

/// Watchers while mails came in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Watchers {
    /// Streams, each of one mailbox.
    pub watchers: usize,
    /// Mailboxes that they watch.
    pub mailboxes: usize,
    /// Mails a second.
    pub rate: u64,
    /// Counted time.
    pub seconds: f64,
    /// Notifications.
    pub told: u64,
    /// Mails whose watchers were told; all that were acknowledged have to be among them.
    pub mails: u64,
    /// From sending the mail to the notification: median and 99th percentile, milliseconds.
    pub p50_ms: f64,
    /// Milliseconds.
    pub p99_ms: f64,
    /// From the acknowledgement; 0 where the watcher knew first.
    pub after_acknowledgement_p99_ms: f64,
    /// Memory of all nodes that is no file's before the watchers came.
    pub anonymous_mib_before: f64,
    /// While they watched, every two seconds.
    pub anonymous_mib: Vec<f64>,
}

impl Watchers {
    /// For the report.
    pub fn sentence(&self) -> String {
        let (first, last) = (self.anonymous_mib.first(), self.anonymous_mib.last());
        format!(
            "{} watchers of {} mailboxes, {} mails a second for {:.0} s ({} notifications): from \
             sending to notification p50 {:.2} ms, p99 {:.2} ms, p99 {:.2} ms after the \
             acknowledgement; memory of all nodes {:.0} MiB before they came, {:.0} at first and \
             {:.0} at the end.",
            self.watchers,
            self.mailboxes,
            self.rate,
            self.seconds,
            self.told,
            self.p50_ms,
            self.p99_ms,
            self.after_acknowledgement_p99_ms,
            self.anonymous_mib_before,
            first.copied().unwrap_or(0.0),
            last.copied().unwrap_or(0.0)
        )
    }
}

/// A mailbox by its number, and a mod-sequence of it.
type Change = (usize, u64);

fn reference(target: &Target, number: usize) -> MailboxRef {
    let mailbox_id = target.mailboxes[number].mailbox_id.clone();
    MailboxRef { mailbox_id, database_id: target.database, ..MailboxRef::default() }
}

/// Opens a watch; it has begun on return.
async fn watch(
    channel: Channel,
    target: &Target,
    number: usize,
    told: mpsc::UnboundedSender<(Change, Instant)>,
) -> anyhow::Result<()> {
    let watched = WatchedMailbox { mailbox: Some(reference(target, number)), since_modseq: None };
    let asked = WatchMailboxesRequest { mailboxes: vec![watched], heartbeat_ms: 30_000 };
    let mut service = MailboxServiceClient::new(channel);
    let mut events = service.watch_mailboxes(asked).await?.into_inner();
    events.message().await?.context("a watch begins with a heartbeat")?;
    tokio::spawn(async move {
        while let Ok(Some(response)) = events.message().await {
            let modseq = match response.event {
                Some(Event::Changed(changed)) => changed.modseq,
                Some(Event::Overflow(overflow)) => overflow.modseq,
                _ => continue,
            };
            if told.send(((number, modseq), Instant::now())).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Sends mails at a rate; gives when each change was sent and acknowledged.
async fn deliver(
    channel: Channel,
    target: &Target,
    rate: u64,
    until: Instant,
) -> anyhow::Result<HashMap<Change, (Instant, Instant)>> {
    let pool = Pool::new(64, 2_048);
    let mut timer = tokio::time::interval(Duration::from_micros(1_000_000 / rate.max(1)));
    let mut calls = tokio::task::JoinSet::new();
    let mut count = 0_u64;
    while Instant::now() < until {
        timer.tick().await;
        count += 1;
        let number = (count * 7_919 % target.mailboxes.len() as u64) as usize;
        let content = pool.mail(count);
        let header = DeliverHeader {
            delivery_id: format!("watched-{count}"),
            database_id: target.database,
            envelope_from: "sender@example.net".to_owned(),
            recipients: vec![target.mailboxes[number].clone()],
            size: content.len() as u64,
            ..DeliverHeader::default()
        };
        let asked = DeliverMessageRequest { header: Some(header), content: content.into() };
        let mut service = MailboxServiceClient::new(channel.clone());
        calls.spawn(async move {
            let sent = Instant::now();
            let answer = service.deliver_message(asked).await?.into_inner();
            let delivered = answer.delivered.context("an answer")?;
            let modseq = delivered.results.first().context("one result")?.modseq;
            anyhow::Ok(((number, modseq), (sent, Instant::now())))
        });
    }
    let mut changes = HashMap::new();
    while let Some(done) = calls.join_next().await {
        let (change, times) = done??;
        changes.insert(change, times);
    }
    Ok(changes)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("valid bounds")
}

/// What is asked for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Wanted {
    /// Streams
    #[arg(long, default_value_t = 1_000)]
    pub watchers: usize,
    /// Mailboxes that get mail; watchers share them, and with fewer watchers some are not watched
    #[arg(long, default_value_t = 1_000)]
    pub mailboxes: usize,
    /// Mails a second
    #[arg(long, default_value_t = 200)]
    pub rate: u64,
}

/// So many watchers, for so long.
pub async fn run(
    folder: &Path,
    wanted: Wanted,
    seconds: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let Wanted { watchers, rate, .. } = wanted;
    let mailboxes = wanted.mailboxes.max(1);
    let arena = Arena::up(folder, "three-node", Timeouts::Default, 1, mailboxes).await?;
    let target = &arena.databases[0];
    let node = arena.active(target.database).await?;
    let memory = || arena.cluster.figures().anonymous_bytes as f64 / (1 << 20) as f64;
    let anonymous_mib_before = memory();
    let (told, mut heard) = mpsc::unbounded_channel();
    let mut channel = arena.channel(&node).await?;
    for watcher in 0..watchers {
        if watcher % STREAMS == 0 {
            channel = arena.channel(&node).await?;
        }
        watch(channel.clone(), target, watcher % mailboxes, told.clone()).await?;
    }
    let until = Instant::now() + seconds;
    let sample = async {
        let mut samples = vec![memory()];
        while Instant::now() + EVERY <= until {
            tokio::time::sleep(EVERY).await;
            samples.push(memory());
        }
        samples
    };
    let (sent, anonymous_mib) =
        tokio::join!(deliver(arena.channel(&node).await?, target, rate, until), sample);
    let mut sent = sent?;
    sent.retain(|(mailbox, _), _| *mailbox < watchers);
    // What is still on its way.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut latency, mut after) = (histogram(), histogram());
    let mut mails = HashMap::new();
    while let Ok((change, at)) = heard.try_recv() {
        let Some((begun, acknowledged)) = sent.get(&change) else { continue };
        latency.saturating_record((at - *begun).as_micros() as u64);
        after.saturating_record(at.saturating_duration_since(*acknowledged).as_micros() as u64);
        *mails.entry(change).or_insert(0_usize) += 1;
    }
    // Two mails into one mailbox at once may be told together, as of the later one.
    ensure!(mails.len() * 10 >= sent.len() * 9, "{} of {} were told", mails.len(), sent.len());
    let millis = |all: &Histogram<u64>, q| all.value_at_quantile(q) as f64 / 1_000.0;
    report.add(Line::Watchers(Watchers {
        watchers,
        mailboxes,
        rate,
        seconds: seconds.as_secs_f64(),
        told: latency.len(),
        mails: mails.len() as u64,
        p50_ms: millis(&latency, 0.5),
        p99_ms: millis(&latency, 0.99),
        after_acknowledgement_p99_ms: millis(&after, 0.99),
        anonymous_mib_before,
        anonymous_mib,
    }))?;
    arena.verify()
}
