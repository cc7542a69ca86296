//! All nodes die at once, again and again, under load.

use std::time::Duration;

use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use cluster::{ask, number};
use history::event::Phase;
use testkit::mail::Dice;
use testkit::scratch::Scratch;

/// Rounds of every day; the full run sets `HOLDFAST_STORMS=20`.
const ROUNDS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_when_all_nodes_die_again_and_again()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let rounds = number("HOLDFAST_STORMS", ROUNDS);
    let promise = Promise {
        reproduce: "HOLDFAST_STORMS=20 cargo test --release -p cluster storm",
        faults: &["all nodes killed"],
        acknowledged_min: 100,
    };
    let mut trial = Trial::begin(Scratch::shape("three-node"), &["DB1", "DB2"], promise).await?;
    let work = Work::begin(&trial, &Load::default()).await?;
    work.progress(300, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let mut dice = Dice::new(now());
    for round in 1..=rounds {
        let names = trial.cluster.names();
        let from = now();
        trial.cluster.kill_all(&names)?;
        // Not in the order of the shape: who comes first may differ from who led.
        let mut order = names.clone();
        order.rotate_left(dice.below(names.len() as u64) as usize);
        trial.cluster.restart(&order).await?;
        trial.fault("all nodes killed", &names, from, Some(now()))?;
        work.progress(150, Duration::from_secs(60)).await?;
        eprintln!("storm {round} of {rounds}: {} acknowledged", work.acknowledged());
    }
    trial.phase(Phase::After)?;
    work.progress(300, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_when_the_active_node_dies_or_freezes()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let rounds = number("HOLDFAST_STORMS", ROUNDS);
    let promise = Promise {
        reproduce: "HOLDFAST_STORMS=20 cargo test --release -p cluster freezes",
        faults: &["active node killed", "active node frozen"],
        acknowledged_min: 100,
    };
    let scratch = Scratch::shape("two-site-witness");
    let mut trial = Trial::begin(scratch, &["DB1"], promise).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(200, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    for round in 1..=rounds {
        let victim = ask::active(&trial.cluster, "DB1")?;
        let from = now();
        let kind =
            if round.is_multiple_of(2) { "active node frozen" } else { "active node killed" };
        if round.is_multiple_of(2) {
            trial.cluster.pause(&victim)?;
            // Somebody else serves while it is frozen; it must not answer for a moment more after.
            work.progress(100, Duration::from_secs(30)).await?;
            trial.cluster.resume(&victim)?;
        } else {
            trial.cluster.kill(&victim)?;
            work.progress(100, Duration::from_secs(30)).await?;
            trial.cluster.restart(std::slice::from_ref(&victim)).await?;
        }
        trial.fault(kind, std::slice::from_ref(&victim), from, Some(now()))?;
        ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    }
    trial.phase(Phase::After)?;
    work.progress(200, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}
