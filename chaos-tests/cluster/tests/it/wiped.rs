//! Disks that are gone: an empty store never takes part in anything by itself.

use std::time::Duration;

use anyhow::ensure;
use cluster::ask;
use testkit::ready::get_node;
use testkit::scratch::Scratch;

#[tokio::test(flavor = "multi_thread")]
async fn after_the_loss_of_most_disks_nothing_mounts_and_the_message_names_the_command()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("two-site-witness").formed().await?;
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
    // Ten times the longest election: what could mount would have mounted.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let status = ask::status(&cluster)?;
    ensure!(
        status["databases"]
            .as_array()
            .is_some_and(|all| all.iter().all(|db| db["active"].is_null())),
        "{status:#}"
    );
    for name in wiped {
        let node = get_node(cluster.node(name)?.admin).await?;
        ensure!(node.message.contains("dagctl "), "{name} says: {}", node.message);
    }
    let created = cluster.try_dagctl(["dag", "create"])?;
    let words = String::from_utf8_lossy(&created.stderr).into_owned();
    ensure!(!created.status.success() && words.contains("lost its disk"), "{words}");
    Ok(())
}
