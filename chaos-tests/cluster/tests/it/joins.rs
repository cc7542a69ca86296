//! Nodes that come to belong to the DAG: new ones, those with a new disk, and a witness that follows
//! another; what is refused, and control leaders that die on the way.

use std::net::SocketAddr;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::ask;
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use history::event::Phase;
use serde_json::Value;
use testkit::ready::get_node;
use testkit::scratch::{Scratch, ScratchCluster};

use crate::members::{led_by_another, misses, nodes};
use crate::seeding::{every_mail_is_there, fill};

const SOON: Duration = Duration::from_secs(60);

/// Starts a machine more, with an empty store. Gives where it listens for operators.
async fn machine(
    cluster: &mut ScratchCluster,
    like: &str,
    name: &str,
    id: u64,
) -> anyhow::Result<SocketAddr> {
    cluster.add(like, name, id)?;
    cluster.restart(&[name.to_owned()]).await?;
    Ok(cluster.node(name)?.admin)
}

fn words(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// All operations of a kind.
fn joins(cluster: &ScratchCluster, kind: &str) -> anyhow::Result<Vec<Value>> {
    let known = ask::json(cluster, "ops list")?;
    let known = known.as_array().context("operations are a list")?;
    Ok(known.iter().filter(|known| known["kind"] == kind).cloned().collect())
}

/// The newest operation of a kind once it is as wanted.
fn operation(
    cluster: &ScratchCluster,
    kind: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let end = Instant::now() + 2 * SOON;
    loop {
        // While nobody leads, nobody is asked in vain: any node answers.
        let last = joins(cluster, kind).ok().and_then(|known| known.last().cloned());
        if let Some(known) = last.as_ref().filter(|known| wanted(known)) {
            return Ok(known.clone());
        }
        ensure!(Instant::now() < end, "{what}: never so: {last:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn steps(known: &Value) -> usize {
    known["steps"].as_array().map_or(0, Vec::len)
}

/// Healthy, with so many nodes and control voters.
fn whole(count: usize, voters: usize) -> impl Fn(&Value) -> bool {
    move |status| {
        let voting = status["control_voters"].as_array().map_or(0, Vec::len);
        status["healthy"] == true && nodes(status).len() == count && voting == voters
    }
}

/// A machine that nobody counts any more: by its own word its gate never opens.
async fn stays_out(cluster: &ScratchCluster, machine: &str, name: &str) -> anyhow::Result<()> {
    let admin = cluster.node(machine)?.admin.to_string();
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let said =
            cluster.try_dagctl(["gate", "explain", "--nodes", admin.as_str(), "-o", "json"])?;
        let known: Value = serde_json::from_slice(&said.stdout).with_context(|| words(&said))?;
        let gates = known["gates"].as_array().into_iter().flatten();
        let mut own = gates.filter(|gate| gate["node"] == name).map(|gate| &gate["state"]);
        ensure!(own.all(|state| state != "open"), "{machine} opened its gate: {known:#}");
        if Instant::now() >= end {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_joined() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster node_joined",
        faults: &["node joined"],
        acknowledged_min: 50,
    };
    let mut trial = Trial::begin(Scratch::shape("three-node"), &["DB1"], promise).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(100, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let from = now();
    let at = machine(&mut trial.cluster, "n3", "n4", 4).await?;
    // What does not fit is refused, and says what was found.
    for (command, check) in [
        (format!("node join n5 --address {at} --site alpha"), "node-name"),
        (format!("node join n4 --address {at} --site nowhere"), "site-known"),
        ("node join n4 --address 127.0.0.1:1 --site alpha".to_owned(), "node-answers"),
        ("node replace n2".to_owned(), "old-silent"),
    ] {
        ask::refused_by_check(&trial.cluster, &command, check)?;
    }
    let join = format!("node join n4 --address {at} --site alpha");
    let planned = trial.cluster.try_dagctl(format!("{join} --plan").split_whitespace())?;
    ensure!(planned.status.code() == Some(10), "{planned:?}");
    for part in ["on the list of site alpha", "which DAG it belongs to", "site-list"] {
        ensure!(words(&planned).contains(part), "{}", words(&planned));
    }
    ensure!(joins(&trial.cluster, "JoinNode")?.is_empty(), "a plan is no operation");
    let done = ask::json(&trial.cluster, &format!("{join} --reason growing --timeout 90"))?;
    ensure!(done["member"] == true && done["was_so"] == false, "{done:#}");
    let again = ask::json(&trial.cluster, &join)?;
    ensure!(again["was_so"] == true && again["operation"].is_null(), "{again:#}");
    ensure!(joins(&trial.cluster, "JoinNode")?.len() == 1, "twice is once");
    // An even number of nodes: three of them vote.
    let status = ask::wait_for(&trial.cluster, "four nodes", SOON, whole(4, 3))?;
    ensure!(ask::copy_status(&status, "directory", "n4").is_some(), "{status:#}");
    let events = trial.cluster.dagctl(["events", "--last", "1000"])?;
    for part in ["admit node", "settle node", "growing"] {
        ensure!(events.contains(part), "{part}: {events}");
    }
    // It takes a copy, and serves.
    let added = ask::json(&trial.cluster, "copy add DB1@n4 --follow --timeout 90")?;
    ensure!(added["state"] == "Done", "{added:#}");
    let spare = ask::passive(&trial.cluster, "DB1")?;
    trial.cluster.dagctl(["copy", "remove", &format!("DB1@{spare}")])?;
    ask::wait_for(&trial.cluster, "healthy", SOON, whole(4, 3))?;
    trial.cluster.dagctl(["db", "move", "DB1", "--to", "n4"])?;
    ensure!(ask::active(&trial.cluster, "DB1")? == "n4");
    work.progress(50, Duration::from_secs(30)).await?;
    // And one of the others may be lost.
    trial.cluster.kill(&spare)?;
    work.progress(50, Duration::from_secs(30)).await?;
    trial.cluster.restart(std::slice::from_ref(&spare)).await?;
    trial.fault("node joined", &["n4".to_owned()], from, Some(now()))?;
    trial.phase(Phase::After)?;
    work.progress(100, SOON).await?;
    work.stop().await?;
    ask::wait_for(&trial.cluster, "healthy", SOON, whole(4, 3))?;
    trial.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_dag_does_not_join_and_an_empty_one_does_not_replace_a_live_one()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    let other = Scratch::shape("single-node").formed().await?;
    ask::wait_healthy(&cluster, SOON)?;
    let foreign = other.node("n1")?.admin;
    let join = format!("node join n1 --address {foreign} --site alpha");
    ask::refused_by_check(&cluster, &join, "other-dag")?;
    // An empty machine with a live node's number is no replacement for it.
    let at = machine(&mut cluster, "n2", "n2-new", 2).await?;
    let join = format!("node join n2-new --address {at} --site alpha");
    ask::refused_by_check(&cluster, &join, "number-free")?;
    let replace = format!("node replace n2 --address {at}");
    ask::refused_by_check(&cluster, &replace, "node-name")?;
    ask::refused_by_check(&cluster, &format!("witness replace --to {at}"), "witness")?;
    let status = ask::wait_healthy(&cluster, SOON)?;
    ensure!(nodes(&status).len() == 3 && joins(&cluster, "JoinNode")?.is_empty(), "{status:#}");
    Ok(())
}

/// A command by which a node comes to belong to the DAG, and what it comes to.
struct Scene {
    cluster: ScratchCluster,
    command: String,
    kind: &'static str,
    count: usize,
    voters: usize,
}

impl Scene {
    /// A machine more, which gets no vote.
    async fn joining() -> anyhow::Result<Self> {
        let mut cluster = formed("three-node").await?;
        let at = machine(&mut cluster, "n3", "x", 4).await?;
        let command = format!("node join x --address {at} --site alpha");
        Ok(Self { cluster, command, kind: "JoinNode", count: 4, voters: 3 })
    }

    /// A witness where there was none, which gets a vote.
    async fn joining_as_witness() -> anyhow::Result<Self> {
        let mut cluster = formed("two-site").await?;
        let at = machine(&mut cluster, "b2", "x", 5).await?;
        let command = format!("node join x --address {at} --site third --witness");
        Ok(Self { cluster, command, kind: "JoinNode", count: 5, voters: 5 })
    }

    /// An empty machine in the place of a lost one, whose gate is surely closed by now.
    async fn replacing() -> anyhow::Result<Self> {
        let mut cluster = formed("two-site-witness").await?;
        let leader = ask::control_leader(&cluster)?;
        let lost = ask::passive(&cluster, "DB1")?;
        let lost = if lost == leader { ask::active(&cluster, "DB1")? } else { lost };
        cluster.kill(&lost)?;
        std::fs::remove_dir_all(&cluster.node(&lost)?.folder)?;
        cluster.restart(std::slice::from_ref(&lost)).await?;
        ask::wait_for(&cluster, "it is missed", SOON, |status| misses(status, &lost))?;
        let command = format!("node replace {lost}");
        let plan =
            once_over(&cluster, &format!("{command} --plan"), "takeover-wait: found").await?;
        ensure!(plan.status.code() == Some(10), "{}", words(&plan));
        Ok(Self { cluster, command, kind: "ReplaceNode", count: 5, voters: 5 })
    }

    /// A witness that follows a dead one.
    async fn following() -> anyhow::Result<Self> {
        let mut cluster = formed("two-site-witness").await?;
        led_by_another(&mut cluster, "w").await?;
        cluster.kill("w")?;
        ask::wait_for(&cluster, "it is missed", SOON, |status| misses(status, "w"))?;
        let at = machine(&mut cluster, "w", "w2", 6).await?;
        let command = format!("witness replace --to w2/{at}");
        Ok(Self { cluster, command, kind: "ReplaceWitness", count: 5, voters: 5 })
    }

    /// Kills the control leader while a step is under way, brings it back once another one leads, and
    /// sees the operation through. Tells whether the kill came before the step's end.
    async fn killed_at(mut self, step: usize) -> anyhow::Result<bool> {
        let (cluster, kind) = (&mut self.cluster, self.kind);
        let leader = ask::control_leader(cluster)?;
        let begun = ask::begin(cluster, &format!("{} --timeout 90", self.command))?;
        operation(cluster, kind, "the step is begun", |known| steps(known) >= step)?;
        cluster.kill(&leader)?;
        let met = joins(cluster, kind)?.last().map_or(0, steps) == step;
        // With a site of two, neither its list nor a database may be whole without it.
        ask::wait_for(cluster, "another one leads", SOON, |status| {
            status["control_leader"].as_str().is_some_and(|known| known != leader)
        })?;
        cluster.restart(std::slice::from_ref(&leader)).await?;
        let ended = operation(cluster, kind, "it ended", |known| known["ended"].is_string())?;
        ensure!(ended["state"] == "Done", "killed at step {step}: {ended:#}");
        drop(begun.wait_with_output()?);
        ask::wait_for(cluster, "it belongs to them", SOON, whole(self.count, self.voters))?;
        let again = ask::json(cluster, &self.command)?;
        ensure!(again["was_so"] == true, "{again:#}");
        Ok(met)
    }
}

/// With a database, and healthy.
async fn formed(shape: &str) -> anyhow::Result<ScratchCluster> {
    let cluster = Scratch::shape(shape).formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, SOON)?;
    Ok(cluster)
}

/// Steps take some tens of milliseconds, so a kill may come one step late; not all of them.
fn some_met(met: &[bool]) -> anyhow::Result<()> {
    ensure!(met.contains(&true), "every kill came after its step: {met:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_goes_on_when_its_control_leader_is_killed_at_any_step() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut met = Vec::new();
    // A witness gets a vote, a data node a copy of the directory: all steps that there are.
    for step in 1..=5 {
        met.push(Scene::joining_as_witness().await?.killed_at(step).await?);
    }
    met.push(Scene::joining().await?.killed_at(5).await?);
    some_met(&met)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_goes_on_when_its_control_leader_is_killed_at_any_step() -> anyhow::Result<()>
{
    let _turn = cluster::turn().await;
    let mut met = Vec::new();
    // Admitted, formed, level, voting, settled; then its copies of the directory and of DB1.
    for step in 1..=7 {
        met.push(Scene::replacing().await?.killed_at(step).await?);
    }
    some_met(&met)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_follows_when_the_control_leader_is_killed_at_any_step() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut met = Vec::new();
    // Admitted, formed, level, voting, the old one gone, settled.
    for step in 1..=6 {
        met.push(Scene::following().await?.killed_at(step).await?);
    }
    some_met(&met)
}

/// Repeats a command while its refusal passes by itself.
async fn once_over(cluster: &ScratchCluster, command: &str, check: &str) -> anyhow::Result<Output> {
    let end = Instant::now() + SOON;
    loop {
        let output = cluster.try_dagctl(command.split_whitespace())?;
        if !words(&output).contains(check) || Instant::now() >= end {
            return Ok(output);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_replaced() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    const MAILS: u64 = 12;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, SOON)?;
    fill(&cluster, MAILS).await?;
    let lost = ask::active(&cluster, "DB1")?;
    let number = cluster.node(&lost)?.id;
    cluster.kill(&lost)?;
    let root = cluster.node(&lost)?.folder.clone();
    let aside = root.with_file_name("returns");
    std::fs::rename(&root, &aside)?;
    ask::refused_by_check(&cluster, &format!("node replace {lost}"), "node-answers")?;
    // The new machine has the name, the number and the address of the lost one.
    cluster.restart(std::slice::from_ref(&lost)).await?;
    ask::wait_for(&cluster, "it is missed", SOON, |status| misses(status, &lost))?;
    let plan = format!("node replace {lost} --plan");
    let planned = once_over(&cluster, &plan, "takeover-wait: found").await?;
    ensure!(planned.status.code() == Some(10), "{}", words(&planned));
    ensure!(words(&planned).contains("build a copy of DB1"), "{}", words(&planned));
    let replace = format!("node replace {lost} --reason burnt --timeout 120");
    let done = ask::json(&cluster, &replace)?;
    ensure!(done["member"] == true, "{done:#}");
    ask::wait_for(&cluster, "healthy", SOON, whole(3, 3))?;
    ask::expect_equal(&cluster, "DB1", 3)?;
    every_mail_is_there(&cluster, MAILS).await?;
    let again = ask::json(&cluster, &replace)?;
    ensure!(again["was_so"] == true, "{again:#}");
    // The old disk comes back elsewhere: nobody counts it, and it says why.
    cluster.add(&lost, "returns", number)?;
    cluster.restart(&["returns".to_owned()]).await?;
    stays_out(&cluster, "returns", &lost).await?;
    let said = get_node(cluster.node("returns")?.admin).await?.message;
    ensure!(said.contains("is not the registered one"), "it says why: {said}");
    ask::wait_for(&cluster, "still whole", SOON, whole(3, 3))?;
    cluster.kill("returns")?;
    // The new store counts: another node may be lost.
    let other = cluster.names().into_iter().find(|name| *name != lost && name != "returns");
    let other = other.context("three nodes")?;
    cluster.kill(&other)?;
    ask::wait_for(&cluster, "it is missed", SOON, |status| misses(status, &other))?;
    ensure!(ask::active(&cluster, "DB1")? != other);
    every_mail_is_there(&cluster, MAILS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn witness_replaced() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("two-site-witness").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, SOON)?;
    fill(&cluster, 3).await?;
    led_by_another(&mut cluster, "w").await?;
    cluster.kill("w")?;
    ask::wait_for(&cluster, "it is missed", SOON, |status| misses(status, "w"))?;
    let at = machine(&mut cluster, "w", "w2", 6).await?;
    let join = format!("node join w2 --address {at} --site third-place --witness");
    ask::refused_by_check(&cluster, &join, "one-witness")?;
    let replace = format!("witness replace --to w2/{at} --timeout 90");
    let planned = cluster.try_dagctl(format!("{replace} --plan").split_whitespace())?;
    ensure!(planned.status.code() == Some(10), "{}", words(&planned));
    let done = ask::json(&cluster, &replace)?;
    ensure!(done["member"] == true, "{done:#}");
    let follows = |name: &'static str, gone: &'static str| {
        move |status: &Value| {
            let voters = status["control_voters"].as_array().cloned().unwrap_or_default();
            let votes = voters.iter().any(|voter| voter == name);
            votes && whole(5, 5)(status) && !nodes(status).iter().any(|known| known == gone)
        }
    };
    ask::wait_for(&cluster, "the new one votes", SOON, follows("w2", "w"))?;
    let again = ask::json(&cluster, &replace)?;
    ensure!(again["was_so"] == true, "{again:#}");
    // The old one comes back and is none of them; with a site lost, the new one's vote counts.
    cluster.restart(&["w".to_owned()]).await?;
    cluster.kill_all(&["b1".to_owned(), "b2".to_owned()])?;
    ask::wait_for(&cluster, "they are missed", SOON, |status| misses(status, "b1"))?;
    tokio::time::sleep(Duration::from_secs(9)).await;
    every_mail_is_there(&cluster, 3).await?;
    cluster.restart(&["b1".to_owned(), "b2".to_owned()]).await?;
    ask::wait_for(&cluster, "whole", SOON, follows("w2", "w"))?;
    // One that is alive is followed in the same way.
    let at = machine(&mut cluster, "w", "w3", 7).await?;
    let done = ask::json(&cluster, &format!("witness replace --to {at} --timeout 90"))?;
    ensure!(done["member"] == true, "{done:#}");
    ask::wait_for(&cluster, "the third one votes", SOON, follows("w3", "w2"))?;
    Ok(())
}
