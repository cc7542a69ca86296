//! What front ends ask of mailboxes that are there: a large one beside a small one, the change feed
//! from anywhere, whole messages.
//!
//! Large and small mailbox stand in one database and are asked in turn, call by call, so that
//! whatever else the machine does meets both.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use dag_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use dag_api::mailbox::v1::{
    AppendBatchItem, AppendBatchRequest, FetchMessageRequest, Folder, GetChangesRequest,
    ListFoldersRequest, ListMessagesRequest, MailboxRef, MessageView, ReadConsistency, ReadOptions,
    UidSet,
};
use hdrhistogram::Histogram;
use rustix::process::getpid;
use serde::{Deserialize, Serialize};
use testkit::figures::Figures;
use testkit::mail::Pool;
use testkit::shape::Timeouts;
use tonic::transport::Channel;

use crate::arena::{Arena, Target};
use crate::report::{Line, Report};

type Service = MailboxServiceClient<Channel>;

/// Messages of the small mailbox.
const FEW: u64 = 1_000;
/// Messages of one append.
const AT_ONCE: u64 = 1_000;
/// Changes of a page of the feed: what changed at one mod-sequence is never on two pages.
const PAGE: u32 = AT_ONCE as u32;
/// Messages that are fetched, and their size.
const FETCHED: u64 = 1_000;
/// How long one append is repeated.
const PATIENCE: Duration = Duration::from_secs(30);
const FETCHED_BYTES: usize = 50 << 10;

/// A large mailbox beside a small one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sizes {
    /// Messages of the large one; the small one has a thousand.
    pub messages: u64,
    /// Messages a second while it was filled, a thousand at once.
    pub filled_per_second: f64,
    /// Folder counters and the flags of the newest hundred, of the large one; median, microseconds.
    pub select_large_us: u64,
    /// The same of the small one.
    pub select_small_us: u64,
    /// The 99th percentiles.
    pub select_large_p99_us: u64,
    /// The same of the small one.
    pub select_small_p99_us: u64,
    /// A page of a thousand changes from the beginning, the middle and near the end of the large
    /// one's feed; medians, microseconds.
    pub feed_us: [u64; 3],
    /// The same page of the small one's feed.
    pub feed_small_us: u64,
}

/// Whole messages fetched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fetches {
    /// Bytes of a message.
    pub size: usize,
    /// Clients, each with one call at a time.
    pub clients: usize,
    /// How new the answers had to be: linearizable, or at least as new as a list.
    pub consistency: String,
    /// Counted time.
    pub seconds: f64,
    /// Messages a second.
    pub per_second: f64,
    /// Milliseconds.
    pub p50_ms: f64,
    /// Milliseconds.
    pub p99_ms: f64,
    /// Processor microseconds of all nodes for each message.
    pub node_cpu_us: f64,
    /// Processor microseconds of the client for each message.
    pub client_cpu_us: f64,
}

impl Sizes {
    /// For the report.
    pub fn sentence(&self) -> String {
        let ratio = self.select_large_us as f64 / self.select_small_us.max(1) as f64;
        let [begin, middle, end] = self.feed_us;
        format!(
            "A mailbox of {} messages beside one of {FEW}: counters and flags of the newest 100 \
             take {} and {} us (p99 {} and {}), {ratio:.2} times as long; 1,000 changes of the \
             feed from its beginning, middle and end {begin}, {middle} and {end} us, of the small one \
             {} us; filled with {:.0} messages a second.",
            self.messages,
            self.select_large_us,
            self.select_small_us,
            self.select_large_p99_us,
            self.select_small_p99_us,
            self.feed_small_us,
            self.filled_per_second
        )
    }
}

impl Fetches {
    /// For the report.
    pub fn sentence(&self) -> String {
        format!(
            "Whole messages of {} bytes by {} clients, {}: {:.0} a second, p50 {:.2} ms, p99 {:.2} ms, \
             {:.0} us of the nodes' processor time for each and {:.0} us of the client's.",
            self.size,
            self.clients,
            self.consistency,
            self.per_second,
            self.p50_ms,
            self.p99_ms,
            self.node_cpu_us,
            self.client_cpu_us
        )
    }
}

/// A mailbox that is asked, and how to ask where it is active.
struct Desk {
    service: Service,
    mailbox: MailboxRef,
    inbox: Folder,
    /// How new what it reads has to be.
    read: Option<ReadOptions>,
}

impl Desk {
    async fn new(channel: Channel, target: &Target, number: usize) -> anyhow::Result<Self> {
        let mailbox_id = target.mailboxes[number].mailbox_id.clone();
        let mailbox =
            MailboxRef { mailbox_id, database_id: target.database, ..MailboxRef::default() };
        let service = MailboxServiceClient::new(channel).max_decoding_message_size(16 << 20);
        let mut desk = Self { service, mailbox, inbox: Folder::default(), read: None };
        desk.inbox = desk.select().await?;
        Ok(desk)
    }

    /// The INBOX with its counters.
    async fn select(&mut self) -> anyhow::Result<Folder> {
        let asked =
            ListFoldersRequest { mailbox: Some(self.mailbox.clone()), ..Default::default() };
        let folders = self.service.list_folders(asked).await?.into_inner().folders;
        folders.into_iter().next().context("a mailbox has an INBOX")
    }

    /// From here on, reads that are as new as what is there now: what a front end that has listed
    /// a folder may ask for, since content never changes.
    async fn read_at_least_now(&mut self) -> anyhow::Result<()> {
        let asked =
            ListFoldersRequest { mailbox: Some(self.mailbox.clone()), ..Default::default() };
        let min_token = self.service.list_folders(asked).await?.into_inner().token;
        let consistency = ReadConsistency::AtLeast.into();
        self.read = Some(ReadOptions { consistency, min_token });
        Ok(())
    }

    /// What a front end asks when somebody opens the folder.
    async fn open(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let folder = self.select().await?;
        let newest = folder.uid_next - 1;
        let asked = ListMessagesRequest {
            mailbox: Some(self.mailbox.clone()),
            folder_id: folder.folder_id,
            uids: Some(UidSet::range(newest.saturating_sub(99).max(1), newest)),
            page_size: 100,
            view: MessageView::Flags.into(),
            ..Default::default()
        };
        let page = self.service.list_messages(asked).await?.into_inner();
        let took = begun.elapsed();
        ensure!(page.messages.len() == 100, "{} of the newest 100", page.messages.len());
        Ok(took)
    }

    /// A page of changes since a mod-sequence.
    async fn feed(&mut self, since_modseq: u64) -> anyhow::Result<Duration> {
        let asked = GetChangesRequest {
            mailbox: Some(self.mailbox.clone()),
            since_modseq,
            page_size: PAGE,
            ..Default::default()
        };
        let begun = Instant::now();
        let page = self.service.get_changes(asked).await?.into_inner();
        let took = begun.elapsed();
        ensure!(page.changes.len() == PAGE as usize, "{} changes", page.changes.len());
        Ok(took)
    }

    /// Puts so many messages into the INBOX; each is another.
    async fn fill(&mut self, pool: &Pool, messages: u64, at_once: u64) -> anyhow::Result<()> {
        let mut number = 0;
        while number < messages {
            let some = number..messages.min(number + at_once);
            let item = |number| AppendBatchItem {
                content: Bytes::from(pool.mail(number)),
                ..AppendBatchItem::default()
            };
            let asked = AppendBatchRequest {
                mailbox: Some(self.mailbox.clone()),
                folder_id: self.inbox.folder_id.clone(),
                messages: some.clone().map(item).collect(),
                request_id: format!("fill-{number}"),
                ..Default::default()
            };
            self.append(asked).await?;
            number = some.end;
        }
        self.inbox = self.select().await?;
        Ok(())
    }

    /// Repeats it under its own id while its outcome is unknown: a busy machine takes its time.
    async fn append(&mut self, asked: AppendBatchRequest) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.service.append_batch(asked.clone()).await {
                Err(error) if error.code() == tonic::Code::Unknown && Instant::now() < end => {}
                answer => return answer.context("an append of many").map(drop),
            }
        }
    }

    /// One whole message.
    async fn fetch(&mut self, uid: u32) -> anyhow::Result<()> {
        let asked = FetchMessageRequest {
            mailbox: Some(self.mailbox.clone()),
            folder_id: self.inbox.folder_id.clone(),
            uid,
            content: true,
            read: self.read.clone(),
            ..Default::default()
        };
        let mut frames = self.service.fetch_message(asked).await?.into_inner();
        let mut bytes = 0;
        while let Some(frame) = frames.message().await? {
            let chunk = frame.chunk.unwrap_or_default();
            ensure!(crc32fast::hash(&chunk.data) == chunk.crc32, "a chunk arrived damaged");
            bytes += chunk.data.len();
        }
        ensure!(bytes == FETCHED_BYTES, "{bytes} bytes of a message");
        Ok(())
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("valid bounds")
}

fn note(into: &mut Histogram<u64>, took: Duration) {
    into.saturating_record(took.as_micros() as u64);
}

/// A large mailbox beside a small one, for so long.
pub async fn sizes(
    folder: &Path,
    messages: u64,
    seconds: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    ensure!(messages > FEW, "the large mailbox has more than {FEW} messages");
    let arena = Arena::up(folder, "three-node", Timeouts::Default, 1, 2).await?;
    let target = &arena.databases[0];
    let channel = arena.channel(&arena.active(target.database).await?).await?;
    let mut large = Desk::new(channel.clone(), target, 0).await?;
    let mut small = Desk::new(channel, target, 1).await?;
    let pool = Pool::new(64, 600);
    let begun = Instant::now();
    large.fill(&pool, messages, AT_ONCE).await?;
    let filled_per_second = messages as f64 / begun.elapsed().as_secs_f64();
    small.fill(&pool, FEW, FEW).await?;
    let last = large.inbox.highest_modseq;
    let places = [0, last / 2, last - 1];
    let (mut selects, mut feeds) = ([histogram(), histogram()], [(); 4].map(|()| histogram()));
    let end = Instant::now() + seconds;
    while Instant::now() < end {
        note(&mut selects[0], large.open().await?);
        note(&mut selects[1], small.open().await?);
        for (feed, since) in feeds.iter_mut().zip(places) {
            note(feed, large.feed(since).await?);
        }
        note(&mut feeds[3], small.feed(0).await?);
    }
    let [p50, p99] = [0.5, 0.99].map(|q| selects.each_ref().map(|all| all.value_at_quantile(q)));
    let feeds = feeds.map(|all| all.value_at_quantile(0.5));
    report.add(Line::Sizes(Sizes {
        messages,
        filled_per_second,
        select_large_us: p50[0],
        select_small_us: p50[1],
        select_large_p99_us: p99[0],
        select_small_p99_us: p99[1],
        feed_us: [feeds[0], feeds[1], feeds[2]],
        feed_small_us: feeds[3],
    }))?;
    arena.verify()
}

/// Whole messages, for so long, linearizable and then as new as a list.
pub async fn fetches(
    folder: &Path,
    clients: usize,
    seconds: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let arena = Arena::up(folder, "three-node", Timeouts::Default, 1, 1).await?;
    let target = &arena.databases[0];
    let node = arena.active(target.database).await?;
    let mut desk = Desk::new(arena.channel(&node).await?, target, 0).await?;
    desk.fill(&Pool::new(64, FETCHED_BYTES), FETCHED, 20).await?;
    // A connection for each four, as front ends have them.
    let mut services = Vec::new();
    for _ in 0..clients.div_ceil(4) {
        services.push(MailboxServiceClient::new(arena.channel(&node).await?));
    }
    for consistency in ["linearizable", "at-least"] {
        if consistency == "at-least" {
            desk.read_at_least_now().await?;
        }
        let desks = (0..clients).map(|client| Desk {
            service: services[client / 4].clone(),
            mailbox: desk.mailbox.clone(),
            inbox: desk.inbox.clone(),
            read: desk.read.clone(),
        });
        let (latency, nodes, client) = fetch_for(&arena, desks.collect(), seconds).await?;
        let count = latency.len().max(1) as f64;
        let millis = |q| latency.value_at_quantile(q) as f64 / 1_000.0;
        report.add(Line::Fetches(Fetches {
            size: FETCHED_BYTES,
            clients,
            consistency: consistency.to_owned(),
            seconds: seconds.as_secs_f64(),
            per_second: latency.len() as f64 / seconds.as_secs_f64(),
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
            node_cpu_us: nodes.cpu.as_secs_f64() * 1e6 / count,
            client_cpu_us: client.cpu.as_secs_f64() * 1e6 / count,
        }))?;
    }
    arena.verify()
}

/// Latencies, and what the nodes and this process used, after two seconds that do not count.
async fn fetch_for(
    arena: &Arena,
    desks: Vec<Desk>,
    seconds: Duration,
) -> anyhow::Result<(Histogram<u64>, Figures, Figures)> {
    let from = Instant::now() + Duration::from_secs(2);
    let to = from + seconds;
    let mut loops = tokio::task::JoinSet::new();
    for (client, mut desk) in desks.into_iter().enumerate() {
        loops.spawn(async move {
            let mut latency = histogram();
            let mut uid = client as u64 * 61;
            while Instant::now() < to {
                uid = (uid + 7) % FETCHED;
                let begun = Instant::now();
                desk.fetch(uid as u32 + 1).await?;
                if begun >= from {
                    note(&mut latency, begun.elapsed());
                }
            }
            anyhow::Ok(latency)
        });
    }
    let own = getpid().as_raw_nonzero().get();
    tokio::time::sleep_until(from.into()).await;
    let before = (arena.cluster.figures(), Figures::of(own)?);
    tokio::time::sleep_until(to.into()).await;
    let (nodes, client) = (arena.cluster.figures() - before.0, Figures::of(own)? - before.1);
    let mut latency = histogram();
    while let Some(done) = loops.join_next().await {
        latency.add(&done??)?;
    }
    Ok((latency, nodes, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_tells_how_much_longer_the_large_one_takes() {
        let sizes = Sizes {
            messages: 5_000,
            filled_per_second: 1.0,
            select_large_us: 300,
            select_small_us: 200,
            select_large_p99_us: 3,
            select_small_p99_us: 2,
            feed_us: [1, 2, 3],
            feed_small_us: 4,
        };
        assert!(sizes.sentence().contains("1.50 times as long"), "{}", sizes.sentence());
    }
}
