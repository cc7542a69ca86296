//! Databases that move to another folder while they go on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::damage::files_below;
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use cluster::{ask, work};
use history::event::Phase;
use serde_json::Value;
use testkit::scratch::{Scratch, ScratchCluster};

/// A folder of a database beside a node's root.
fn folder(cluster: &ScratchCluster, node: &str) -> anyhow::Result<PathBuf> {
    let root = &cluster.node(node)?.folder;
    Ok(root.with_file_name(format!("{node}-other-disk")).join("db1"))
}

fn move_path(cluster: &ScratchCluster, node: &str, to: &Path) -> anyhow::Result<Value> {
    let to = to.display();
    ask::json(cluster, &format!("db move-path DB1 --to {to} --node {node} --follow"))
}

/// The copy lies in the new folder, and what lay in the old one is in its trash.
fn expect_moved(cluster: &ScratchCluster, node: &str, to: &Path) -> anyhow::Result<()> {
    let metas = |folder: &Path| -> anyhow::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let files = files_below(folder)?.into_iter();
        let metas = files.filter(|file| file.file_name().is_some_and(|name| name == "META"));
        let in_trash = |file: &PathBuf| file.components().any(|part| part.as_os_str() == "trash");
        Ok(metas.partition(|file| !in_trash(file)))
    };
    let database = work::database_id(&ask::status(cluster)?, "DB1")?;
    let old = cluster.node(node)?.folder.join("copies").join(database.to_string());
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let (there, before) = (metas(to)?.0.len(), metas(&old)?);
        if (there, before.0.len(), before.1.len()) == (1, 0, 1) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{node}: {there} copies in {}, {before:?}", to.display());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_moves_to_another_folder_under_load_with_one_handing_over() -> anyhow::Result<()>
{
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster a_database_moves_to_another_folder",
        faults: &["path moved"],
        acknowledged_min: 50,
    };
    let trial = Trial::begin(Scratch::shape("three-node"), &["DB1"], promise).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(200, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let active = ask::active(&trial.cluster, "DB1")?;
    let mut nodes = trial.cluster.names();
    nodes.sort_by_key(|node| *node == active);
    let from = now();
    for node in &nodes {
        let to = folder(&trial.cluster, node)?;
        let moved = move_path(&trial.cluster, node, &to)?;
        ensure!(moved["state"] == "Done", "{moved}");
        work.progress(20, Duration::from_secs(30)).await?;
        let twice = move_path(&trial.cluster, node, &to)?;
        ensure!(twice["moves"].as_array().is_some_and(Vec::is_empty), "{twice}");
    }
    trial.fault("path moved", &nodes, from, Some(now()))?;
    let events = ask::json(&trial.cluster, "ops list")?;
    let handed = events.to_string().matches("MoveDatabase").count();
    ensure!(handed == 1, "{handed} times handed over: {events}");
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    for node in &nodes {
        expect_moved(&trial.cluster, node, &folder(&trial.cluster, node)?)?;
    }
    ask::expect_equal(&trial.cluster, "DB1", 3)?;
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    trial.judge()
}

/// Waits until the seed that moves a copy is at this step of its: 1 builds it, 2 has it join. A move
/// that is over was not killed on the way, and the test would show nothing.
fn until_step(cluster: &ScratchCluster, seed: u64, step: usize) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let shown = ask::json(cluster, &format!("ops show {seed}"));
        if let Ok(shown) = &shown {
            ensure!(shown["ended"].is_null(), "it was over before step {step}: {shown}");
            if shown["steps"].as_array().is_some_and(|steps| steps.len() == step) {
                return Ok(());
            }
        }
        ensure!(Instant::now() < end, "it does not come to step {step}: {shown:?}");
    }
}

/// Waits until an operation is over; nodes may be down meanwhile.
fn ended(cluster: &ScratchCluster, operation: u64) -> anyhow::Result<Value> {
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        let shown = ask::json(cluster, &format!("ops show {operation}"));
        if let Ok(shown) = &shown
            && shown["ended"].is_string()
        {
            return Ok(shown.clone());
        }
        ensure!(Instant::now() < end, "operation {operation} runs on: {shown:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The node whose copy moves, or the leader of the control group, is killed while the new copy is
/// built, and while it joins: the move goes on, and every copy opens where it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_move_goes_on_after_kills() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster a_path_move_goes_on_after_kills",
        faults: &["killed while it moves"],
        acknowledged_min: 50,
    };
    let mut trial = Trial::begin(Scratch::shape("three-node"), &["DB1"], promise).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(200, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let node = ask::passive(&trial.cluster, "DB1")?;
    for (round, (leads, step)) in
        [(false, 1), (true, 1), (false, 2), (true, 2)].into_iter().enumerate()
    {
        let victim = if leads { ask::control_leader(&trial.cluster)? } else { node.clone() };
        // Where the one that moves has become active meanwhile, another one has to be.
        let passive = ask::passive(&trial.cluster, "DB1")?;
        if ask::active(&trial.cluster, "DB1")? == node {
            trial.cluster.dagctl(["db", "move", "DB1", "--to", passive.as_str()])?;
        }
        let to = folder(&trial.cluster, &node)?.with_file_name(format!("db1-{round}"));
        let from = now();
        let command = format!("db move-path DB1 --to {} --node {node}", to.display());
        let begun = ask::json(&trial.cluster, &command)?;
        let operation = begun["operation"].as_u64().context("a move is an operation")?;
        until_step(&trial.cluster, operation + 1, step)?;
        trial.cluster.kill(&victim)?;
        std::thread::sleep(Duration::from_millis(300));
        trial.cluster.restart(std::slice::from_ref(&victim)).await?;
        trial.fault("killed while it moves", &[victim], from, Some(now()))?;
        let over = ended(&trial.cluster, operation)?;
        ensure!(over["state"] == "Done", "{over}");
        ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
        ensure!(to.join("OWNER").exists(), "{} says whose it is", to.display());
    }
    let last = folder(&trial.cluster, &node)?.with_file_name("db1-3");
    expect_moved(&trial.cluster, &node, &last)?;
    ask::expect_equal(&trial.cluster, "DB1", 3)?;
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    trial.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_cannot_be_a_databases_are_refused_and_nothing_is_left_there()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    cluster.dagctl(["db", "create", "DB2"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    let status = ask::status(&cluster)?;
    let (one, two) = (work::database_id(&status, "DB1")?, work::database_id(&status, "DB2")?);
    let root = cluster.node("n1")?.folder.clone();
    let beside = root.with_file_name("beside");
    std::fs::create_dir_all(beside.join("full/things"))?;
    std::fs::write(beside.join("file"), "a file")?;
    std::os::unix::fs::symlink(&beside, root.with_file_name("link"))?;
    let copies = root.join("copies");
    for (to, words) in [
        ("relative/folder".into(), "must be absolute"),
        (root.with_file_name("../away").display().to_string(), "without dots"),
        (beside.join("full").display().to_string(), "not empty"),
        (beside.join("file").display().to_string(), "it is a file"),
        (root.with_file_name("link").join("db1").display().to_string(), "symbolic link"),
        (copies.join(two.to_string()).display().to_string(), "the folder of database"),
        (copies.join(one.to_string()).join("in").display().to_string(), "inside the other"),
        (root.join("other").display().to_string(), "this node's root"),
        ("/proc/db1".into(), "cannot make files"),
    ] {
        let said = ask::refused(&cluster, &format!("db move-path DB1 --to {to} --node n1"))?;
        ensure!(said.contains(words), "{to}: {said}");
    }
    let said = ask::refused(&cluster, "db move-path DB9 --to /db9")?;
    ensure!(said.contains("perhaps DB1"), "{said}");
    // One folder for the copies of several nodes of one machine: the second node sees the owner.
    let shared = beside.join("shared");
    let passive = ask::passive(&cluster, "DB1")?;
    let planned = format!("db move-path DB1 --to {} --node {passive} --plan", shared.display());
    let shown = ask::json(&cluster, &planned)?;
    ensure!(shown["moves"][0]["linked"] == true, "{shown}");
    ensure!(!shared.exists(), "a plan makes nothing");
    let moved = move_path(&cluster, &passive, &shared)?;
    ensure!(moved["state"] == "Done", "{moved}");
    let other = cluster.names().into_iter().find(|node| *node != passive).context("a node")?;
    let said = ask::refused(
        &cluster,
        &format!("db move-path DB1 --to {} --node {other}", shared.display()),
    )?;
    ensure!(said.contains("OWNER"), "{said}");
    let said = ask::refused(
        &cluster,
        &format!("db move-path DB2 --to {} --node {passive}", shared.display()),
    )?;
    ensure!(said.contains("the folder of database"), "{said}");
    ask::expect_equal(&cluster, "DB1", 3)
}
