//! What `dagctl` says of a cluster, as its JSON.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use testkit::scratch::ScratchCluster;

/// Runs a command with `-o json` and reads its answer.
pub fn json(cluster: &ScratchCluster, command: &str) -> anyhow::Result<Value> {
    let words = command.split_whitespace().chain(["-o", "json"]);
    let text = cluster.dagctl(words)?;
    serde_json::from_str(&text).with_context(|| format!("dagctl {command} answered {text}"))
}

/// What a refused command says.
pub fn refused(cluster: &ScratchCluster, command: &str) -> anyhow::Result<String> {
    let output = cluster.try_dagctl(command.split_whitespace())?;
    ensure!(!output.status.success(), "{command} was not refused");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Runs a command that a check must refuse, by this check's name and with its own exit code.
pub fn refused_by_check(
    cluster: &ScratchCluster,
    command: &str,
    check: &str,
) -> anyhow::Result<()> {
    let output = cluster.try_dagctl(command.split_whitespace())?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(4) && words.contains(check), "{command}: {words}");
    Ok(())
}

/// Begins a command, and does not wait for it.
pub fn begin(cluster: &ScratchCluster, command: &str) -> anyhow::Result<Child> {
    let mut command = cluster.command(command.split_whitespace());
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// The node that leads the control group, once there is one.
pub fn control_leader(cluster: &ScratchCluster) -> anyhow::Result<String> {
    let led = |status: &Value| status["control_leader"].is_string();
    let status = wait_for(cluster, "a control leader", Duration::from_secs(30), led)?;
    Ok(status["control_leader"].as_str().context("it is there")?.to_owned())
}

/// The status, healthy or not.
pub fn status(cluster: &ScratchCluster) -> anyhow::Result<Value> {
    let output = cluster.try_dagctl(["status", "-o", "json"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).with_context(|| format!("dagctl status answered {text} {errors}"))
}

/// Waits until a status is as wanted; shows the last one when it never is.
pub fn wait_for(
    cluster: &ScratchCluster,
    what: &str,
    within: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let end = Instant::now() + within;
    loop {
        let last = status(cluster);
        if let Ok(status) = &last
            && wanted(status)
        {
            return last;
        }
        if Instant::now() >= end {
            bail!("{what}: not within {within:?}; the last status was {last:#?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Watches for a while that something never comes about; for what must not happen there is no
/// event to wait for.
pub fn watch_never(
    cluster: &ScratchCluster,
    what: &str,
    during: Duration,
    unwanted: impl Fn(&Value) -> bool,
) -> anyhow::Result<()> {
    let end = Instant::now() + during;
    while Instant::now() < end {
        let status = status(cluster)?;
        ensure!(!unwanted(&status), "{what}: {status:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits until the DAG is healthy: all nodes, all copies, everything mounted.
pub fn wait_healthy(cluster: &ScratchCluster, within: Duration) -> anyhow::Result<Value> {
    wait_for(cluster, "healthy", within, |status| status["healthy"] == true)
}

/// The name of the node where a database is mounted.
pub fn active(cluster: &ScratchCluster, database: &str) -> anyhow::Result<String> {
    let found = |status: &Value| active_in(status, database);
    let status = wait_for(cluster, "mounted", Duration::from_secs(60), |s| found(s).is_some())?;
    found(&status).context("it was mounted a moment ago")
}

/// The name of the node where a status has a database mounted.
pub fn active_in(status: &Value, database: &str) -> Option<String> {
    let databases = status["databases"].as_array()?;
    let found = databases.iter().find(|known| known["name"] == database)?;
    found["active"].as_str().map(str::to_owned)
}

/// A node with a voting copy of a database that is not active there.
pub fn passive(cluster: &ScratchCluster, database: &str) -> anyhow::Result<String> {
    let active = active(cluster, database)?;
    let status = status(cluster)?;
    let copies = status["copies"].as_array().context("a status has copies")?;
    let found = copies.iter().find(|copy| {
        copy["database"] == database && copy["node"] != active.as_str() && copy["voter"] == true
    });
    let node = found.and_then(|copy| copy["node"].as_str());
    Ok(node.context("the database has a passive voter")?.to_owned())
}

/// The state of one copy, in Exchange's words.
pub fn copy_status(status: &Value, database: &str, node: &str) -> Option<String> {
    let copies = status["copies"].as_array()?;
    let found = copies.iter().find(|copy| copy["database"] == database && copy["node"] == node)?;
    found["status"].as_str().map(str::to_owned)
}

/// One copy's answer in a comparison.
#[derive(Debug, Clone)]
pub struct Digest {
    /// Its node.
    pub node_id: u64,
    /// Its replica id.
    pub replica_id: u64,
    /// What it holds; nothing where it did not say.
    pub digest: Option<String>,
}

/// Compares the copies of a database: the mark, and what each holds there.
pub fn digests(cluster: &ScratchCluster, database: &str) -> anyhow::Result<(u64, Vec<Digest>)> {
    let output = cluster.try_dagctl(["db", "verify", database, "--wait", "60", "-o", "json"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let verdicts: Value = serde_json::from_str(&text)
        .with_context(|| format!("dagctl db verify answered {text} {errors}"))?;
    let verdict = &verdicts[0];
    let copies = verdict["copies"].as_array().context("a verdict has copies")?;
    let digest = |copy: &Value| Digest {
        node_id: copy["node_id"].as_u64().unwrap_or(0),
        replica_id: copy["replica_id"].as_u64().unwrap_or(0),
        digest: copy["digest"].as_str().map(str::to_owned),
    };
    let mark = verdict["mark_index"].as_u64().context("a verdict has a mark")?;
    Ok((mark, copies.iter().map(digest).collect()))
}

/// Fails where the copies of a database are not equal, or are fewer than this.
pub fn expect_equal(cluster: &ScratchCluster, database: &str, copies: usize) -> anyhow::Result<()> {
    let (mark, digests) = digests(cluster, database)?;
    let first = digests.first().and_then(|copy| copy.digest.clone());
    let equal = digests.iter().all(|copy| copy.digest.is_some() && copy.digest == first);
    ensure!(digests.len() == copies && equal, "{database} at {mark}: {digests:#?}");
    Ok(())
}
