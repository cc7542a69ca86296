//! More than a node can take is refused at once, and costs no memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use cluster::{ask, trial};
use dag_client::Delivery;
use dag_client::Reason;
use testkit::mail::Pool;
use testkit::scratch::Scratch;

const CLIENTS: u64 = 1_024;

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_follower_under_1024_clients_costs_no_memory_and_the_surplus_is_refused()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let scratch = Scratch::shape("three-node")
        .set("budget.requests=256")
        .set("budget.in_flight=16MiB")
        .set("budget.in_flight_per_database=8MiB")
        .set("budget.message=4MiB");
    let cluster = scratch.formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    cluster.dagctl(["mailbox", "create", "busy@example.org"])?;
    let follower = ask::passive(&cluster, "DB1")?;
    cluster.pause(&follower)?;

    let pool = Arc::new(Pool::new(16, 8_000));
    let (stop, stored, refused) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        // Impatient, so that a refusal is seen instead of waited for.
        let client = trial::client(&cluster, Duration::from_millis(300))?;
        let (pool, stop, stored, refused) =
            (pool.clone(), stop.clone(), stored.clone(), refused.clone());
        clients.spawn(async move {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                let id = number * 1_000_000 + count;
                let mail =
                    Delivery::new(format!("flood-{id}"), ["busy@example.org"], pool.mail(id));
                let result = client.deliver(mail).await;
                match result.and_then(|mut report| report.recipients.remove(0).result) {
                    Ok(_) => stored.fetch_add(1, Ordering::Relaxed),
                    Err(error) if says_overloaded(&error) => {
                        refused.fetch_add(1, Ordering::Relaxed)
                    }
                    Err(_) => 0,
                };
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let early = cluster.figures();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let late = cluster.figures();
    stop.store(true, Ordering::Relaxed);
    while clients.join_next().await.is_some() {}
    let (stored, refused) = (stored.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    let mib = |bytes: u64| bytes >> 20;
    eprintln!(
        "{stored} stored, {refused} refused as OVERLOADED; memory {} -> {} MiB",
        mib(early.anonymous_bytes),
        mib(late.anonymous_bytes)
    );
    ensure!(stored > 1_000, "only {stored} mails were stored beside a frozen follower");
    ensure!(refused > 0, "nothing was refused");
    let grown = late.anonymous_bytes.saturating_sub(early.anonymous_bytes);
    ensure!(grown < 256 << 20, "memory grew by {} MiB in 20 s", mib(grown));

    cluster.resume(&follower)?;
    ask::wait_healthy(&cluster, Duration::from_secs(120))?;
    ask::expect_equal(&cluster, "DB1", 3)
}

fn says_overloaded(error: &dag_client::Error) -> bool {
    match error {
        dag_client::Error::Failed(problem) => problem.reason == Reason::Overloaded,
        dag_client::Error::TimedOut { last, .. } => last.contains(Reason::Overloaded.as_str()),
        dag_client::Error::Foreign { .. } => false,
    }
}
