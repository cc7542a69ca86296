//! What any shape must do, on the smallest one.

use std::time::Duration;

use anyhow::ensure;
use cluster::ask;
use testkit::scratch::Scratch;

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_goes_in_and_comes_out_byte_for_byte() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let cluster = Scratch::shape("single-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    let folder = tempfile::tempdir()?;
    for number in 0..20 {
        std::fs::write(
            folder.path().join(format!("{number:02}.eml")),
            testkit::mail::mixed(number),
        )?;
    }
    let from = folder.path().to_string_lossy().into_owned();
    let report = ask::json(&cluster, &format!("mail import {from} --to a@example.org --create"))?;
    ensure!(report["stored"] == 20, "{report}");
    let list = ask::json(&cluster, "mail list a@example.org")?;
    let uid = list[7]["uid"].as_u64().unwrap_or_default().to_string();
    let fetched = cluster.try_dagctl(["mail", "fetch", "a@example.org", uid.as_str()])?.stdout;
    let sent = (0..20).map(testkit::mail::mixed).any(|mail| mail == fetched);
    ensure!(sent, "what came back was never sent");
    ask::expect_equal(&cluster, "DB1", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_a_dag_twice_changes_nothing_and_says_so() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let cluster = Scratch::shape("three-node").formed().await?;
    let before = ask::status(&cluster)?;
    let again = ask::json(&cluster, "dag create")?;
    ensure!(again["changed"] == false, "{again}");
    ensure!(ask::status(&cluster)?["dag_id"] == before["dag_id"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dag_is_not_created_while_a_node_is_missing() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").up().await?;
    cluster.kill("n2")?;
    let refused = cluster.try_dagctl(["dag", "create"])?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && words.contains("node n2"), "{words}");
    let status = ask::status(&cluster)?;
    ensure!(status["state"] == "UNPROVISIONED", "{status:#}");
    cluster.restart(&["n2".to_owned()]).await?;
    cluster.dagctl(["dag", "create"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_single_node_answers_status() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    cluster.kill_all(&["n1".to_owned(), "n2".to_owned()])?;
    let status = ask::wait_for(&cluster, "answered by n3", Duration::from_secs(10), |status| {
        status["answered_by"] == "n3" && status["healthy"] == false
    })?;
    ensure!(status["age_ms"].is_u64() && status["databases"][0]["name"] == "DB1", "{status:#}");
    Ok(())
}
