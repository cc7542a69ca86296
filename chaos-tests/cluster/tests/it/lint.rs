//! What `dagctl lint` finds in real DAGs: what was chosen and what was left, and that looking changes
//! nothing.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::ask;
use serde_json::Value;
use testkit::scratch::{Scratch, ScratchCluster};

/// The codes that lint finds with these options, and how it ends.
fn codes(cluster: &ScratchCluster, options: &[&str]) -> anyhow::Result<(Vec<String>, Option<i32>)> {
    let command = ["lint", "-o", "json"].into_iter().chain(options.iter().copied());
    let output = cluster.try_dagctl(command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("{output:?}"))?;
    let found = answer["findings"].as_array().context("findings are a list")?;
    for finding in found {
        for field in ["subject", "found", "why", "advice"] {
            ensure!(finding[field].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        }
    }
    let codes = found.iter().filter_map(|finding| finding["code"].as_str());
    Ok((codes.map(str::to_owned).collect(), output.status.code()))
}

fn expect(cluster: &ScratchCluster, options: &[&str], wanted: &[&str]) -> anyhow::Result<()> {
    let (found, code) = codes(cluster, options)?;
    ensure!(found == wanted, "found {found:?}, wanted {wanted:?}");
    let allowed = wanted.iter().all(|code| options.contains(code));
    ensure!(code == Some(if allowed { 0 } else { 3 }), "ended with {code:?}: {found:?}");
    Ok(())
}

/// Waits until every node has told of itself.
async fn all_heard(cluster: &ScratchCluster) -> anyhow::Result<()> {
    for _ in 0..100 {
        if !codes(cluster, &[])?.0.iter().any(|code| code == "NODE_NOT_HEARD") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("nodes never told of themselves")
}

#[tokio::test(flavor = "multi_thread")]
async fn lint_names_what_was_chosen_and_left_and_changes_nothing() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    all_heard(&cluster).await?;
    let before = ask::json(&cluster, "events")?;
    expect(&cluster, &[], &["SINGLE_SITE", "NO_MAXIMUM"])?;
    let allowing = ["--allow", "SINGLE_SITE", "--allow", "NO_MAXIMUM"];
    expect(&cluster, &allowing, &["SINGLE_SITE", "NO_MAXIMUM"])?;
    let unknown = cluster.try_dagctl(["lint", "--allow", "SINGLESITE"])?;
    let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
    ensure!(unknown.status.code() == Some(2) && words.contains("perhaps SINGLE_SITE"), "{words}");
    ensure!(ask::json(&cluster, "events")? == before, "looking left a trace");
    let names = cluster.names();
    for name in &names {
        cluster.dagctl(["node", "limit", name.as_str(), "--maximum-active", "1"])?;
    }
    expect(&cluster, &[], &["SINGLE_SITE"])?;
    // Each thing that people do is named as long as it holds.
    let last = names.last().context("three nodes")?.clone();
    cluster.dagctl(["db", "create", "DB2", "--copies", last.as_str()])?;
    cluster.dagctl(["db", "create", "DB3"])?;
    cluster.dagctl(["node", "block", last.as_str(), "--reason", "a noisy fan"])?;
    cluster.dagctl(["dag", "set", "--auto-balance", "false", "--copy-queue-max", "20000"])?;
    let chosen = [
        "SINGLE_SITE",
        "ONE_COPY",
        "MAXIMA_TOO_LOW",
        "NODE_BLOCKED",
        "BALANCING_OFF",
        "QUEUE_LIMIT_HIGH",
    ];
    expect(&cluster, &[], &chosen)?;
    let shown = cluster.try_dagctl(["lint"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.contains("a noisy fan") && shown.contains("dagctl node allow"), "{shown}");
    cluster.dagctl(["node", "allow", last.as_str()])?;
    cluster.dagctl(["dag", "set", "--auto-balance", "true", "--copy-queue-max", "1000"])?;
    expect(&cluster, &[], &["SINGLE_SITE", "ONE_COPY", "MAXIMA_TOO_LOW"])?;
    // A single node is left: it answers without a quorum, and says whom it did not hear.
    cluster.kill_all(&names[1..])?;
    let silent = || Ok::<_, anyhow::Error>(codes(&cluster, &[])?.0);
    for _ in 0..100 {
        if silent()?.iter().filter(|code| *code == "NODE_NOT_HEARD").count() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let found = silent()?;
    ensure!(found.iter().filter(|code| *code == "NODE_NOT_HEARD").count() == 2, "{found:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lint_judges_two_sites_with_and_without_a_witness() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    for (shape, wanted) in [
        ("two-site-witness", vec!["SHORT_TIMEOUTS", "SHORT_TIMEOUTS", "NO_MAXIMUM"]),
        (
            "two-site",
            vec![
                "NO_WITNESS",
                "CONTROL_MAJORITY_IN_SITE",
                "SHORT_TIMEOUTS",
                "SHORT_TIMEOUTS",
                "NO_MAXIMUM",
            ],
        ),
    ] {
        let cluster = Scratch::shape(shape).formed().await?;
        cluster.dagctl(["db", "create", "DB1"])?;
        ask::wait_healthy(&cluster, Duration::from_secs(60))?;
        all_heard(&cluster).await?;
        expect(&cluster, &[], &wanted)?;
    }
    Ok(())
}
