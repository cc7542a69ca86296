//! Disks that are gone: an empty store never takes part in anything by itself.

use std::time::Duration;

use anyhow::ensure;
use cluster::ask;
use serde_json::Value;
use testkit::ready::get_node;
use testkit::scratch::Scratch;
use testkit::shape::Timeouts;

#[tokio::test(flavor = "multi_thread")]
async fn after_the_loss_of_most_disks_nothing_mounts_and_the_message_names_the_command()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("two-site-witness").timeouts(Timeouts::Fast).formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    let names = cluster.names();
    cluster.kill_all(&names)?;
    let wiped = ["a1", "a2", "b1"];
    for name in wiped {
        let folder = cluster.node(name)?.folder.clone();
        std::fs::remove_dir_all(&folder)?;
        std::fs::create_dir(&folder)?;
    }
    cluster.restart(&names).await?;
    // Twenty elections of the longest kind: what could mount would have mounted.
    let is_mounted = |database: &Value| !database["active"].is_null();
    ask::watch_never(&cluster, "mounted", Duration::from_secs(4), |status| {
        status["databases"].as_array().is_some_and(|all| all.iter().any(is_mounted))
    })?;
    for name in wiped {
        let node = get_node(cluster.node(name)?.admin).await?;
        ensure!(node.message.contains("dagctl "), "{name} says: {}", node.message);
    }
    let created = cluster.try_dagctl(["dag", "create"])?;
    let words = String::from_utf8_lossy(&created.stderr).into_owned();
    ensure!(!created.status.success() && words.contains("lost its disk"), "{words}");
    Ok(())
}
