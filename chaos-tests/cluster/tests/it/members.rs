//! Nodes that leave the DAG: what is refused, what is left, and control leaders that die on the way.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::ask;
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use history::event::Phase;
use serde_json::Value;
use testkit::scratch::{Scratch, ScratchCluster};

pub(crate) fn nodes(status: &Value) -> Vec<String> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    nodes.filter_map(|node| node["name"].as_str().map(str::to_owned)).collect()
}

/// Whether a node is known not to answer.
pub(crate) fn misses(status: &Value, name: &str) -> bool {
    let mut nodes = status["nodes"].as_array().into_iter().flatten();
    nodes.any(|node| node["name"] == name && node["reachable"] == false)
}

fn removals(cluster: &ScratchCluster) -> anyhow::Result<Vec<Value>> {
    let known = ask::json(cluster, "ops list")?;
    let known = known.as_array().context("operations are a list")?;
    Ok(known.iter().filter(|known| known["kind"] == "RemoveNode").cloned().collect())
}

/// The newest removal once it is as wanted.
fn removal(
    cluster: &ScratchCluster,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        // While nobody leads, nobody is asked in vain: any node answers.
        let last = removals(cluster).ok().and_then(|known| known.last().cloned());
        if let Some(known) = last.as_ref().filter(|known| wanted(known)) {
            return Ok(known.clone());
        }
        ensure!(Instant::now() < end, "{what}: never so: {last:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The DAG goes on without the node, and the node itself, alive or started again, serves nothing.
async fn gone_for_good(cluster: &mut ScratchCluster, node: &str) -> anyhow::Result<()> {
    let without = |status: &Value| {
        let voters = status["control_voters"]
            .as_array()
            .is_some_and(|voters| !voters.is_empty() && voters.iter().all(|voter| voter != node));
        voters && !nodes(status).iter().any(|name| name == node) && status["healthy"] == true
    };
    ask::wait_for(cluster, "healthy without it", Duration::from_secs(60), without)?;
    let again = cluster.try_dagctl(["node", "remove", node])?;
    let words = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(again.status.code() == Some(2) && words.contains("There is no node"), "{words}");
    cluster.restart(&[node.to_owned()]).await?;
    let admin = cluster.node(node)?.admin.to_string();
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let own =
            cluster.try_dagctl(["gate", "explain", "--nodes", admin.as_str(), "-o", "json"])?;
        let text = String::from_utf8_lossy(&own.stdout).into_owned();
        let known: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let own = known["gates"].as_array().into_iter().flatten();
        let own = own.filter(|gate| gate["node"] == node).map(|gate| &gate["state"]);
        ensure!(own.clone().all(|state| state != "open"), "{node} opened its gate: {known:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ask::wait_for(cluster, "still without it", Duration::from_secs(30), without)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_removed_under_load_and_nothing_that_needs_it() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster a_node_is_removed_under_load",
        faults: &["node removed"],
        acknowledged_min: 50,
    };
    let cluster = Scratch::shape("two-site-witness").formed().await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    cluster.dagctl(["db", "create", "DB1", "--copies", "a1,a2,b1"])?;
    let mut trial = Trial::over(cluster, &["DB1"], promise)?;
    trial.cluster.dagctl(["db", "create", "DB2", "--copies", "a1,a2,b1,b2"])?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(100, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let from = now();
    // What holds mail, leads, or is no data node is refused, and says what to do.
    ask::refused_by_check(&trial.cluster, "node remove b2", "holds-no-copies")?;
    ask::refused_by_check(&trial.cluster, "node remove w", "data-node")?;
    led_by_another(&mut trial.cluster, "b2").await?;
    trial.cluster.dagctl(["copy", "remove", "DB2@b2"])?;
    let left = |status: &Value| ask::copy_status(status, "DB2", "b2").is_none();
    ask::wait_for(&trial.cluster, "the copy is gone", Duration::from_secs(30), left)?;
    let planned = trial.cluster.try_dagctl(["node", "remove", "b2", "--plan"])?;
    let words = String::from_utf8_lossy(&planned.stdout).into_owned();
    ensure!(planned.status.code() == Some(10), "{planned:?}");
    for part in ["off the list of its site", "voters of the control group", "site-list"] {
        ensure!(words.contains(part), "{words}");
    }
    ensure!(removals(&trial.cluster)?.is_empty(), "a plan is no operation");
    let done = ask::json(&trial.cluster, "node remove b2 --reason sold")?;
    ensure!(done["removed"] == true, "{done:#}");
    gone_for_good(&mut trial.cluster, "b2").await?;
    let events = trial.cluster.dagctl(["events", "--last", "1000"])?;
    for part in ["retire node", "place control voters", "remove node", "sold"] {
        ensure!(events.contains(part), "{part}: {events}");
    }
    // Two sites need a node each: the last one of a site stays.
    ask::refused_by_check(&trial.cluster, "node remove b1", "holds-no-copies")?;
    work.progress(50, Duration::from_secs(30)).await?;
    trial.fault("node removed", &["b2".to_owned()], from, Some(now()))?;
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_of_three_is_removed_and_of_two_it_is_refused() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    let leader = ask::control_leader(&cluster)?;
    let mut others = cluster.names();
    others.retain(|name| *name != leader);
    let dead = others.pop().context("three nodes")?;
    let copies = format!("{leader},{}", others[0]);
    cluster.dagctl(["db", "create", "DB1", "--copies", copies.as_str()])?;
    cluster.kill(&dead)?;
    ask::wait_for(&cluster, "it is missed", Duration::from_secs(30), |s| misses(s, &dead))?;
    // Where the dead one led the directory, another copy takes over first.
    let done = ask::json(&cluster, &format!("node remove {dead} --timeout 60"))?;
    ensure!(done["removed"] == true, "{done:#}");
    gone_for_good(&mut cluster, &dead).await?;
    // Two are left: the list of their site needs both. The one that dies now has no vote.
    let status = ask::status(&cluster)?;
    let votes = |name: &String| status["control_voters"][0] == name.as_str();
    let last = nodes(&status).into_iter().find(|name| !votes(name)).context("one of two")?;
    cluster.kill(&last)?;
    ask::wait_for(&cluster, "it is missed too", Duration::from_secs(30), |s| misses(s, &last))?;
    let planned = cluster.try_dagctl(["node", "remove", last.as_str(), "--plan", "-o", "json"])?;
    ensure!(planned.status.code() == Some(4), "{planned:?}");
    let plan: Value = serde_json::from_slice(&planned.stdout)?;
    let mut checks = plan["checks"].as_array().context("checks")?.iter();
    let list = checks.find(|check| check["name"] == "site-list").context("that check")?;
    ensure!(list["passed"] == false, "{plan:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_whose_list_is_on_no_majority_is_taken_back_or_cancelled() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("two-site-witness").formed().await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    let leader = led_by_another(&mut cluster, "b2").await?;
    // Of a site's two nodes both must have the new list: one that stands still has not.
    let began = freeze_and_begin(&cluster, "b2", &leader)?;
    removal(&cluster, "the first step", |known| known["steps"][0]["what"].is_string())?;
    let number =
        removal(&cluster, "it runs", |known| known["state"] == "Running")?["operation"].clone();
    let cancelled =
        cluster.try_dagctl(["ops", "cancel", number.to_string().as_str(), "--timeout", "60"])?;
    ensure!(cancelled.status.success(), "{}", String::from_utf8_lossy(&cancelled.stderr));
    cluster.resume("b2")?;
    let ended = removal(&cluster, "it ended", |known| known["ended"].is_string())?;
    ensure!(ended["state"] == "Failed" || ended["state"] == "Cancelled", "{ended:#}");
    let steps = ended["steps"].as_array().context("steps")?;
    let undone = |step: &Value| step["what"].as_str().is_some_and(|what| what.starts_with("undo:"));
    ensure!(steps.iter().any(undone), "the list was not taken back: {ended:#}");
    let output = began.wait_with_output()?;
    ensure!(output.status.code() == Some(4), "{output:?}");
    // Nothing is left of it: the same command goes through.
    let status = ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    ensure!(nodes(&status).len() == 5, "{status:#}");
    ensure!(status["control_voters"].as_array().is_some_and(|voters| voters.len() == 5));
    cluster.dagctl(["node", "remove", "b2", "--timeout", "60"])?;
    Ok(())
}

/// The checks take a node for one that answers for some seconds after its last word: it is frozen,
/// and the control leader is asked before they are over.
fn freeze_and_begin(cluster: &ScratchCluster, node: &str, leader: &str) -> anyhow::Result<Child> {
    let admin = cluster.node(leader)?.admin;
    cluster.pause(node)?;
    ask::begin(cluster, &format!("node remove {node} --timeout 90 --nodes {admin}"))
}

/// The control leader, which is another node than this one.
pub(crate) async fn led_by_another(
    cluster: &mut ScratchCluster,
    node: &str,
) -> anyhow::Result<String> {
    for _ in 0..5 {
        let leader = ask::control_leader(cluster)?;
        if leader != node {
            return Ok(leader);
        }
        // Its leadership is not moved by a command: the node is started again.
        cluster.restart(&[node.to_owned()]).await?;
        ask::wait_healthy(cluster, Duration::from_secs(60))?;
    }
    anyhow::bail!("{node} leads the control group after five starts")
}

/// Kills the control leader while a step is under way, brings it back, and sees the removal through.
async fn killed_at(step: usize) -> anyhow::Result<usize> {
    let mut cluster = Scratch::shape("two-site-witness").formed().await?;
    cluster.dagctl(["db", "create", "DB1", "--copies", "a1,a2,b1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    let leader = led_by_another(&mut cluster, "b2").await?;
    let removing = ask::begin(&cluster, "node remove b2 --timeout 90")?;
    let begun = |known: &Value| known["steps"].as_array().is_some_and(|steps| steps.len() >= step);
    removal(&cluster, "the step is begun", begun)?;
    cluster.kill(&leader)?;
    let met =
        removals(&cluster)?.last().map_or(0, |known| known["steps"].as_array().map_or(0, Vec::len));
    let ended = removal(&cluster, "it ended", |known| known["ended"].is_string())?;
    ensure!(ended["state"] == "Done", "killed at step {step}: {ended:#}");
    let steps = ended["steps"].as_array().context("steps")?;
    ensure!(steps.len() == 4 && steps.iter().all(|step| step["ended"].is_string()), "{ended:#}");
    cluster.restart(std::slice::from_ref(&leader)).await?;
    drop(removing.wait_with_output()?);
    gone_for_good(&mut cluster, "b2").await?;
    ask::expect_equal(&cluster, "DB1", 3)?;
    Ok(met)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_goes_on_when_its_control_leader_is_killed_at_any_step() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut met = Vec::new();
    for step in 1..=4 {
        met.push(killed_at(step).await?);
    }
    // Steps take some tens of milliseconds, so a kill may come one step late; not all of them.
    ensure!(met.iter().any(|steps| *steps < 4), "every kill came after the last step: {met:?}");
    Ok(())
}
