//! A network of the test's own, in which nodes can be cut off.
//!
//! Nodes of local clusters have an address each. In a network namespace a route that swallows what
//! goes to such an address is a pulled cable: what others send to the node is lost, and nobody is told;
//! what it dials itself still works, which is the nastier half of a network that fails.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, ensure};
use testkit::cluster::LocalCluster;

/// Set where a test runs in a network of its own.
const OWN: &str = "HOLDFAST_OWN_NETWORK";

/// Whether this process has a network of its own. Where it has not, the test of this name has run to
/// its end in a process that has, and nothing is left to be done.
pub fn in_own_network(test: &str) -> anyhow::Result<bool> {
    if std::env::var_os(OWN).is_some() {
        ip(&["link", "set", "lo", "up"])?;
        return Ok(true);
    }
    let mut inner = Command::new("unshare");
    inner.args(["--user", "--map-root-user", "--net", "--"]).arg(std::env::current_exe()?);
    inner.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(OWN, "1");
    let status = inner.status().context("`unshare` of util-linux is needed")?;
    ensure!(
        status.success(),
        "the test failed in a network namespace of its own, or could not make one (user namespaces \
         must be allowed, or the test run as root)"
    );
    Ok(false)
}

/// Whatever goes to this node is lost from now on.
pub fn cut(cluster: &LocalCluster, node: &str) -> anyhow::Result<()> {
    route("add", cluster, node)
}

/// What goes to this node arrives again.
pub fn heal(cluster: &LocalCluster, node: &str) -> anyhow::Result<()> {
    route("del", cluster, node)
}

fn route(change: &str, cluster: &LocalCluster, node: &str) -> anyhow::Result<()> {
    let address: IpAddr = cluster.node(node)?.peers.ip();
    ip(&["route", change, "blackhole", &format!("{address}/32"), "table", "local"])
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let said = Command::new("ip").args(words).output().context("`ip` of iproute2 is needed")?;
    let why = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.status.success(), "`ip {}`: {}", words.join(" "), why.trim());
    Ok(())
}
