//! An import goes through the loss of the node that serves it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{ask, trial};
use testkit::scratch::Scratch;

const ADDRESS: &str = "archive@example.org";

/// The folder of mails: `MAIL_CORPUS`, or mails made here.
fn mails(scratch: &Path) -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("MAIL_CORPUS") {
        return Ok(folder.into());
    }
    let folder = scratch.join("mails");
    std::fs::create_dir(&folder)?;
    for number in 0..3_000 {
        std::fs::write(folder.join(format!("{number:05}.eml")), testkit::mail::mixed(number))?;
    }
    Ok(folder)
}

/// Every content below a folder, and how often it is there.
fn contents(folder: &Path) -> anyhow::Result<BTreeMap<[u8; 32], u64>> {
    let mut found = BTreeMap::new();
    for file in cluster::damage::files_below(folder)? {
        *found.entry(*blake3::hash(&std::fs::read(file)?).as_bytes()).or_default() += 1;
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mail_is_back_once_after_the_active_node_was_killed_in_the_middle()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let scratch = tempfile::tempdir()?;
    let folder = mails(scratch.path())?;
    let count: u64 = contents(&folder)?.values().sum();
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    cluster.dagctl(["mailbox", "create", ADDRESS])?;
    let victim = ask::active(&cluster, "DB1")?;

    let from = folder.to_string_lossy().into_owned();
    let words = ["mail", "import", from.as_str(), "--to", ADDRESS, "-o", "json"];
    let mut command = cluster.command(words);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let import = command.spawn()?;
    let client = trial::client(&cluster, Duration::from_secs(20))?;
    let end = Instant::now() + Duration::from_secs(60);
    let stored = loop {
        let stored = client.mailbox(ADDRESS).await?.messages;
        if stored >= count / 3 {
            break stored;
        }
        ensure!(Instant::now() < end, "only {stored} of {count} mails were imported");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    ensure!(stored < count, "the import was over before a node could be killed");
    cluster.kill(&victim)?;
    let output = import.wait_with_output()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(output.status.success(), "{report}");
    eprintln!("killed {victim} after {stored} of {count}: {report}");

    let again = ask::json(&cluster, &format!("mail import {from} --to {ADDRESS}"))?;
    ensure!(again["stored"] == 0 && again["already_there"] == count, "twice: {again}");
    let exported = scratch.path().join("exported");
    let into = exported.to_string_lossy().into_owned();
    cluster.dagctl(["mail", "export", ADDRESS, into.as_str()])?;
    ensure!(contents(&exported)? == contents(&folder)?, "what came back is not what was sent");
    cluster.restart(&[victim]).await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    ask::expect_equal(&cluster, "DB1", 3)
}
