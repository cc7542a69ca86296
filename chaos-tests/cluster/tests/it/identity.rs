//! A node is who its settings, its disk and its DAG say, or it is nobody.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use cluster::ask;
use testkit::LocalCluster;
use testkit::scratch::{Scratch, ScratchCluster};

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_nobody_knows_keeps_a_node_from_starting_and_is_named() -> anyhow::Result<()>
{
    let _turn = cluster::turn().await;
    let started = Scratch::shape("single-node").set("budget.rams=\"1GiB\"").up().await;
    let words = format!("{:#}", started.expect_err("an unknown key"));
    ensure!(words.contains("rams"), "{words}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_with_a_key_that_nobody_knows_is_refused_and_named() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let cluster = Scratch::shape("single-node").up().await?;
    let file = cluster.dag_file();
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("colour = \"red\"\n{text}"))?;
    let output = cluster.try_dagctl(["dag", "create"])?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && words.contains("colour"), "{words}");
    Ok(())
}

/// Rewrites one node's settings.
fn rewrite(cluster: &ScratchCluster, node: &str, from: &str, to: &str) -> anyhow::Result<()> {
    let file = &cluster.node(node)?.settings;
    let text = std::fs::read_to_string(file)?;
    ensure!(text.contains(from), "{text}");
    Ok(std::fs::write(file, text.replace(from, to))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_number_make_no_dag() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").up().await?;
    cluster.kill("n2")?;
    let folder = cluster.node("n2")?.folder.clone();
    std::fs::remove_dir_all(&folder)?;
    std::fs::create_dir(&folder)?;
    rewrite(&cluster, "n2", "node_id = 2", "node_id = 1")?;
    cluster.restart(&["n2".to_owned()]).await?;
    let output = cluster.try_dagctl(["dag", "create"])?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && words.contains("number 1"), "{words}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_from_the_disk_of_another_number() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.kill("n3")?;
    rewrite(&cluster, "n3", "node_id = 3", "node_id = 2")?;
    let started = cluster.restart(&["n3".to_owned()]).await;
    let words = format!("{:#}", started.expect_err("another number than the disk's"));
    ensure!(words.contains("ended at its start"), "{words}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_disk_runs_one_node_at_a_time() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let cluster = Scratch::shape("single-node").formed().await?;
    let node = cluster.node("n1")?;
    // Other addresses, the same root.
    let twin = cluster.folder().join("twin.toml");
    let text = std::fs::read_to_string(&node.settings)?;
    std::fs::write(&twin, text.replace(":740", ":750"))?;
    let mut second = Command::new(cluster.bins().join("holdfastd"));
    let output = second.arg("--settings").arg(&twin).output()?;
    ensure!(!output.status.success(), "two nodes on one disk");
    ensure!(cluster.is_running("n1")?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_dag_is_let_in_nowhere_and_disturbs_nobody() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut stranger = Scratch::shape("three-node").formed().await?;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    stranger.destroy()?;
    cluster.kill("n3")?;
    let is_heard = |status: &serde_json::Value| {
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let third = nodes.iter().find(|node| node["name"] == "n3");
        status["answered_by"] != "n3" && third.is_some_and(|node| node["reachable"] == true)
    };
    // What n3 itself said last has to be forgotten first.
    let within = Duration::from_secs(30);
    ask::wait_for(&cluster, "n3 is gone", within, |status| !is_heard(status))?;
    let folder = cluster.node("n3")?.folder.clone();
    let own = folder.with_extension("own");
    std::fs::rename(&folder, &own)?;
    std::fs::rename(&stranger.node("n3")?.folder, &folder)?;
    let started = cluster.restart(&["n3".to_owned()]).await;
    if started.is_ok() {
        // It asks to be let in several times a second.
        let during = Duration::from_secs(3);
        ask::watch_never(&cluster, "a stranger was let in", during, is_heard)?;
        cluster.kill("n3")?;
    }
    ask::active(&cluster, "DB1")?;
    std::fs::remove_dir_all(&folder)?;
    std::fs::rename(&own, &folder)?;
    cluster.restart(&["n3".to_owned()]).await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_run_side_by_side_and_end_without_a_trace() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let first = Scratch::shape("single-node").formed().await?;
    let second = Scratch::shape("single-node").formed().await?;
    ensure!(ask::status(&first)?["dag_id"] != ask::status(&second)?["dag_id"]);
    let folder = first.folder().to_path_buf();
    let process = first.node("n1")?.process.clone();
    drop(first);
    ensure!(!folder.exists(), "{} is left", folder.display());
    ensure!(!process.is_some_and(|process| process.is_alive()), "a process is left");
    ensure!(ask::status(&second)?["state"] == "MEMBER");
    ensure!(LocalCluster::open(&folder).is_err());
    Ok(())
}
