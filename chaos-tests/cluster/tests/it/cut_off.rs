//! Nodes that run and may not serve: a site that lost the control group, a node that was frozen.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::ask;
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use history::event::Phase;
use history::journal::{Entry, Event};
use serde_json::Value;
use testkit::scratch::Scratch;

/// The longest lease of a DAG with default timeouts.
const LEASE: Duration = Duration::from_secs(8);

/// What a node wrote of itself after a moment.
fn journal_after(trial: &Trial, node: &str, from: u64) -> anyhow::Result<Vec<Entry>> {
    let path = trial.cluster.node(node)?.folder.join("journal.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path:?}"))?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
    Ok(lines.filter(|entry| entry.at > from).collect())
}

fn gate_of<'a>(status: &'a Value, node: &str) -> Option<&'a str> {
    let nodes = status["nodes"].as_array()?;
    nodes.iter().find(|known| known["name"] == node)?["gate"].as_str()
}

/// The site that is left has the majority of the database's voters, so Raft alone would go on for
/// ever; the other side may have been told to take over. Only the lease ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_cut_off_acknowledges_nothing_after_its_lease_and_follows_when_healed()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster a_site_that_is_cut_off",
        faults: &["site cut off"],
        acknowledged_min: 50,
    };
    let trial = Trial::begin(Scratch::shape("two-site-witness"), &["DB1"], promise).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(100, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let (cut, left) = (["b1", "b2", "w"], ["a1", "a2"]);
    let from = now();
    for node in cut {
        trial.cluster.pause(node)?;
    }
    // Leases that were given still hold: the site serves on.
    work.progress(50, LEASE).await?;
    let closed = |status: &Value| left.iter().all(|node| gate_of(status, node) == Some("closed"));
    ask::wait_for(&trial.cluster, "the gates are closed", 2 * LEASE, closed)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let served = |status: &Value| ask::active_in(status, "DB1").is_some();
    ask::watch_never(&trial.cluster, "served behind closed gates", LEASE / 4, served)?;
    for node in left {
        let explained = trial.cluster.try_dagctl(["gate", "explain", node])?;
        let words = String::from_utf8_lossy(&explained.stdout).into_owned();
        ensure!(explained.status.code() == Some(3) && words.contains("the lease ended"), "{words}");
        let told = journal_after(&trial, node, from)?;
        let ended = told.iter().any(|entry| matches!(entry.event, Event::GateClosed { .. }));
        ensure!(ended, "{node} closed no gate");
        let end = from + LEASE.as_nanos() as u64;
        let late = |entry: &&Entry| {
            entry.at > end
                && matches!(entry.event, Event::Acknowledged { .. } | Event::Mounted { .. })
        };
        let late: Vec<_> = told.iter().filter(late).collect();
        ensure!(late.is_empty(), "{node} served after its lease: {late:?}");
    }
    for node in cut {
        trial.cluster.resume(node)?;
    }
    trial.fault("site cut off", &left.map(str::to_owned), from, Some(now()))?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}

/// Longer than its lease, so that it wakes with a gate that time alone has closed.
#[tokio::test(flavor = "multi_thread")]
async fn the_late_answers_of_a_frozen_node_count_for_nobody() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster the_late_answers",
        faults: &["active node frozen"],
        acknowledged_min: 50,
    };
    let trial = Trial::begin(Scratch::shape("three-node"), &["DB1"], promise).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(100, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let frozen = ask::active(&trial.cluster, "DB1")?;
    let from = now();
    trial.cluster.pause(&frozen)?;
    work.progress(100, Duration::from_secs(30)).await?;
    tokio::time::sleep(LEASE + LEASE / 4).await;
    let woken = now();
    trial.cluster.resume(&frozen)?;
    trial.fault("active node frozen", std::slice::from_ref(&frozen), from, Some(woken))?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    let told = journal_after(&trial, &frozen, woken)?;
    let first = told.iter().position(|entry| matches!(entry.event, Event::GateOpened(_)));
    let first = first.context("the gate of the woken node opened again")?;
    let late = |entry: &&Entry| matches!(entry.event, Event::Acknowledged { .. });
    let late: Vec<_> = told[..first].iter().filter(late).collect();
    ensure!(late.is_empty(), "{frozen} answered before its gate opened again: {late:?}");
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}
