//! More than a node can take is refused at once, and costs no memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use cluster::{ask, trial};
use dag_client::{Client, Delivery, Reason};
use testkit::mail::Template;
use testkit::scratch::Scratch;

const CLIENTS: u64 = 1_024;
const ADDRESS: &str = "busy@example.org";

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_follower_under_1024_clients_costs_no_memory_and_the_surplus_is_refused()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let scratch = Scratch::shape("three-node")
        .set("budget.requests=16")
        .set("budget.in_flight=16MiB")
        .set("budget.in_flight_per_database=8MiB")
        .set("budget.message=4MiB");
    let cluster = scratch.formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    cluster.dagctl(["mailbox", "create", ADDRESS])?;
    let follower = ask::passive(&cluster, "DB1")?;
    cluster.pause(&follower)?;

    let flood = Arc::new(Flood::default());
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        // Impatient, so that a refusal is seen instead of waited for.
        let client = trial::client(&cluster, Duration::from_millis(300))?;
        clients.spawn(flood.clone().send(client, number));
    }
    flood.until_stored(1_000).await?;
    let early = cluster.figures();
    flood.until_stored(4_000).await?;
    let late = cluster.figures();
    flood.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    let refused = flood.refused.load(Ordering::Relaxed);
    let mib = |bytes: u64| bytes >> 20;
    eprintln!(
        "{} stored, {refused} refused as OVERLOADED; memory {} -> {} MiB",
        flood.stored.load(Ordering::Relaxed),
        mib(early.anonymous_bytes),
        mib(late.anonymous_bytes)
    );
    ensure!(refused > 0, "nothing was refused");
    let grown = late.anonymous_bytes.saturating_sub(early.anonymous_bytes);
    ensure!(grown < 256 << 20, "memory grew by {} MiB for 3,000 mails", mib(grown));

    cluster.resume(&follower)?;
    ask::wait_healthy(&cluster, Duration::from_secs(120))?;
    ask::expect_equal(&cluster, "DB1", 3)?;
    flood.expect_exactly_once(&trial::client(&cluster, Duration::from_secs(20))?).await
}

/// What a thousand clients send, and what became of it.
#[derive(Default)]
struct Flood {
    stop: AtomicBool,
    stored: AtomicU64,
    refused: AtomicU64,
    /// Every mail by its digest, and whether it was acknowledged.
    sent: Mutex<HashMap<[u8; 32], bool>>,
}

impl Flood {
    /// One client, until all are told to stop. What was refused is not sent again.
    async fn send(self: Arc<Self>, client: Client, number: u64) {
        let template = Template::new(number, 8_000);
        let mut count = 0;
        while !self.stop.load(Ordering::Relaxed) {
            count += 1;
            let id = number * 1_000_000 + count;
            let content = template.stamped(id);
            let digest = *blake3::hash(&content).as_bytes();
            self.sent.lock().expect("no panic inside").insert(digest, false);
            let mail = Delivery::new(format!("flood-{id}"), [ADDRESS], content);
            let report = client.deliver(mail).await;
            match report.and_then(|mut report| report.recipients.remove(0).result) {
                Ok(_) => {
                    self.sent.lock().expect("no panic inside").insert(digest, true);
                    self.stored.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if says_overloaded(&error) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {}
            }
        }
    }

    async fn until_stored(&self, count: u64) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(180);
        loop {
            let stored = self.stored.load(Ordering::Relaxed);
            if stored >= count {
                return Ok(());
            }
            ensure!(Instant::now() < end, "only {stored} mails were stored beside the frozen node");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What was acknowledged is there once, what was not at most once, and nothing else is.
    async fn expect_exactly_once(&self, client: &Client) -> anyhow::Result<()> {
        let inbox = client.inbox(ADDRESS).await?;
        let mut there: HashMap<[u8; 32], u64> = HashMap::new();
        for message in client.list_all(ADDRESS, &inbox.folder_id).await? {
            *there.entry(message.blake3[..].try_into()?).or_default() += 1;
        }
        let sent = self.sent.lock().expect("no panic inside");
        for (digest, count) in &there {
            ensure!(*count == 1, "a mail is there {count} times");
            ensure!(sent.contains_key(digest), "a mail is there that nobody sent");
        }
        let lost = sent.iter().filter(|(digest, stored)| **stored && !there.contains_key(*digest));
        ensure!(lost.count() == 0, "an acknowledged mail is lost");
        Ok(())
    }
}

fn says_overloaded(error: &dag_client::Error) -> bool {
    match error {
        dag_client::Error::Failed(problem) => problem.reason == Reason::Overloaded,
        dag_client::Error::TimedOut { last, .. } => last.contains(Reason::Overloaded.as_str()),
        dag_client::Error::Foreign { .. } => false,
    }
}
