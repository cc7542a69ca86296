//! Front ends' deliveries while something happens to the cluster: one every few milliseconds, in
//! turn to all databases, whatever the answers do; each by the client library, which finds the
//! database again by itself. What a user notices of a move is the longest wait.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dag_client::{Client, Delivery};
use testkit::mail::Pool;
use tokio::task::JoinHandle;

use crate::arena::Arena;

/// Bytes of a mail.
const SIZE: usize = 4_096;
/// How often deliveries still under way are looked for at the end.
const POLL: Duration = Duration::from_millis(5);

/// A delivery that was acknowledged.
#[derive(Debug, Clone, Copy)]
struct Sample {
    sent: Instant,
    took: Duration,
}

#[derive(Debug, Default)]
struct Seen {
    acknowledged: Vec<Sample>,
    under_way: usize,
    failed: Vec<String>,
}

/// Deliveries that go on until this is dropped.
pub struct Traffic {
    seen: Arc<Mutex<Seen>>,
    sender: JoinHandle<()>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

impl Traffic {
    /// Begins to deliver, and comes back when the first mails are acknowledged.
    pub async fn begin(arena: &Arena, every: Duration, run: u64) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let addresses: Vec<String> =
            arena.databases.iter().map(|target| target.mailboxes[0].address.clone()).collect();
        let sender = tokio::spawn(send(arena.client()?, addresses, every, run, seen.clone()));
        let traffic = Self { seen, sender };
        let begin = Instant::now();
        while traffic.acknowledged() < 20 {
            ensure!(begin.elapsed() < Duration::from_secs(30), "no mail is acknowledged");
            tokio::time::sleep(POLL).await;
        }
        Ok(traffic)
    }

    /// Mails that are acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.seen.lock().expect("no panic with it").acknowledged.len()
    }

    /// The longest wait of a delivery that was sent since then, once all of them are answered.
    pub async fn longest_since(&self, from: Instant) -> anyhow::Result<Duration> {
        Ok(self.waits_since(from).await?.last().copied().unwrap_or_default())
    }

    /// The wait that 99 of 100 deliveries do not exceed that were sent since then.
    pub async fn p99_since(&self, from: Instant) -> anyhow::Result<Duration> {
        let waits = self.waits_since(from).await?;
        let place = (waits.len() * 99).div_ceil(100).max(1) - 1;
        waits.get(place).copied().context("nothing was sent")
    }

    /// All of these waits, the longest one last.
    async fn waits_since(&self, from: Instant) -> anyhow::Result<Vec<Duration>> {
        // What was sent at the very end is answered too.
        let until = Instant::now();
        loop {
            let waits = {
                let seen = self.seen.lock().expect("no panic with it");
                ensure!(seen.failed.is_empty(), "deliveries failed: {:?}", seen.failed);
                let newest = seen.acknowledged.iter().map(|sample| sample.sent).max();
                let answered = seen.under_way == 0 || until.elapsed() > Duration::from_secs(1);
                let since = seen.acknowledged.iter().filter(|sample| sample.sent >= from);
                let waits: Vec<Duration> = since.map(|sample| sample.took).collect();
                (answered && newest > Some(until)).then_some(waits)
            };
            if let Some(mut waits) = waits {
                waits.sort_unstable();
                return Ok(waits);
            }
            ensure!(until.elapsed() < Duration::from_secs(60), "mails stay unanswered");
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn send(
    client: Client,
    addresses: Vec<String>,
    every: Duration,
    run: u64,
    seen: Arc<Mutex<Seen>>,
) {
    let pool = Arc::new(Pool::new(run, SIZE));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for count in 0_u64.. {
        ticks.tick().await;
        let address = addresses[count as usize % addresses.len()].clone();
        let (client, seen, pool) = (client.clone(), seen.clone(), pool.clone());
        seen.lock().expect("no panic with it").under_way += 1;
        tokio::spawn(async move {
            let mail = pool.mail(run << 40 | count);
            let sent = Instant::now();
            let delivery = Delivery::new(format!("traffic-{run}-{count}"), [address], mail);
            let answer = client.deliver(delivery).await;
            let took = sent.elapsed();
            let mut seen = seen.lock().expect("no panic with it");
            seen.under_way -= 1;
            match answer {
                Ok(report) if report.all_stored() => {
                    seen.acknowledged.push(Sample { sent, took });
                }
                Ok(report) => seen.failed.push(format!("{:?}", report.recipients)),
                Err(error) => seen.failed.push(error.to_string()),
            }
        });
    }
}
