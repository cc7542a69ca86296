//! The runbooks of `docs/runbooks`, command by command. A runbook's test has its name.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::ask;
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use history::event::Phase;
use testkit::scratch::{Scratch, ScratchCluster};

/// Runs a command that a check must refuse; gives what it said.
fn refused(cluster: &ScratchCluster, command: &str, check: &str) -> anyhow::Result<()> {
    let output = cluster.try_dagctl(command.split_whitespace())?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(4) && words.contains(check), "{command}: {words}");
    Ok(())
}

async fn under_load(promise: Promise<'_>, databases: &[&str]) -> anyhow::Result<(Trial, Work)> {
    let trial = Trial::begin(Scratch::shape("three-node"), databases, promise).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(100, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    Ok((trial, work))
}

async fn end(trial: Trial, work: Work) -> anyhow::Result<()> {
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn planned_switchover() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster planned_switchover",
        faults: &["moved"],
        acknowledged_min: 50,
    };
    let (trial, work) = under_load(promise, &["DB1"]).await?;
    let from = now();
    let (active, target) =
        (ask::active(&trial.cluster, "DB1")?, ask::passive(&trial.cluster, "DB1")?);
    let planned = trial.cluster.try_dagctl([
        "db",
        "move",
        "DB1",
        "--to",
        target.as_str(),
        "--plan",
        "-o",
        "json",
    ])?;
    ensure!(planned.status.code() == Some(10), "{planned:?}");
    let plan: serde_json::Value = serde_json::from_slice(&planned.stdout)?;
    let token = plan["token"].as_str().context("a plan has a token")?.to_owned();
    let moved = ask::json(&trial.cluster, &format!("db move DB1 --to {target} --apply {token}"))?;
    ensure!(moved["moved"] == true, "{moved}");
    ensure!(ask::active(&trial.cluster, "DB1")? == target);
    // The world moved: the same plan again is refused, and so is a move to where it is.
    refused(
        &trial.cluster,
        &format!("db move DB1 --to {active} --apply {token}"),
        "the world moved",
    )?;
    refused(&trial.cluster, &format!("db move DB1 --to {target}"), "not-active-already")?;
    let unknown = trial.cluster.try_dagctl(["db", "move", "DB2", "--to", target.as_str()])?;
    let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
    ensure!(!unknown.status.success() && words.contains("perhaps DB1"), "{words}");
    let operations = ask::json(&trial.cluster, "ops list")?;
    ensure!(operations[0]["state"] == "Done", "{operations}");
    work.progress(50, Duration::from_secs(30)).await?;
    trial.fault("moved", &[active, target], from, Some(now()))?;
    end(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn node_maintenance() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster node_maintenance",
        faults: &["maintenance"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = under_load(promise, &["DB1", "DB2", "DB3"]).await?;
    let from = now();
    let node = ask::active(&trial.cluster, "DB1")?;
    trial.cluster.dagctl(["node", "drain", node.as_str(), "--reason", "a new disk"])?;
    for database in ["DB1", "DB2", "DB3"] {
        ensure!(ask::active(&trial.cluster, database)? != node, "{database} stayed on {node}");
    }
    refused(&trial.cluster, &format!("db move DB1 --to {node}"), "node-policy")?;
    ensure!(trial.cluster.stop(&node)?, "{node} stops by itself");
    work.progress(50, Duration::from_secs(30)).await?;
    trial.cluster.restart(std::slice::from_ref(&node)).await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.cluster.dagctl(["node", "undrain", node.as_str()])?;
    trial.cluster.dagctl(["db", "move", "DB1", "--to", node.as_str()])?;
    ensure!(ask::active(&trial.cluster, "DB1")? == node);
    let events = trial.cluster.dagctl(["events"])?;
    ensure!(events.contains("drain") && events.contains("a new disk"), "{events}");
    trial.fault("maintenance", &[node], from, Some(now()))?;
    end(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn node_lost() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster node_lost",
        faults: &["node lost"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = under_load(promise, &["DB1"]).await?;
    let lost = ask::active(&trial.cluster, "DB1")?;
    let from = now();
    trial.cluster.kill(&lost)?;
    work.progress(50, Duration::from_secs(30)).await?;
    let served = |status: &serde_json::Value| {
        ask::active_in(status, "DB1").is_some_and(|active| active != lost)
    };
    ask::wait_for(&trial.cluster, "another node serves", Duration::from_secs(30), served)?;
    refused(&trial.cluster, &format!("db move DB1 --to {lost}"), "reachable")?;
    trial.cluster.restart(std::slice::from_ref(&lost)).await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.fault("node lost", &[lost], from, Some(now()))?;
    end(trial, work).await
}
