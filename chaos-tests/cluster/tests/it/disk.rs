//! A disk that is nearly full refuses writes, and reads go on.

use std::time::Duration;

use anyhow::ensure;
use cluster::{ask, trial};
use dag_client::{Client, Delivery, Reason};
use testkit::scratch::{Scratch, ScratchCluster};

const ADDRESS: &str = "reader@example.org";

async fn deliver(client: &Client, number: u64, size: usize) -> Result<(), dag_client::Error> {
    let content = testkit::mail::Template::new(number + 1, size).stamped(number);
    let mail = Delivery::new(format!("mail-{number}"), [ADDRESS], content);
    client.deliver(mail).await?.recipients.remove(0).result.map(|_| ())
}

async fn with_mailbox(scratch: Scratch) -> anyhow::Result<ScratchCluster> {
    let cluster = scratch.formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    cluster.dagctl(["mailbox", "create", ADDRESS])?;
    Ok(cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_below_the_disk_reserve_is_refused_by_name_and_reads_go_on() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = with_mailbox(Scratch::shape("three-node")).await?;
    let client = trial::client(&cluster, Duration::from_secs(2))?;
    deliver(&client, 1, 4_096).await?;
    let names = cluster.names();
    for name in &names {
        let file = cluster.node(name)?.settings.clone();
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, format!("{text}\n[budget]\ndisk_reserve = \"1024TiB\"\n"))?;
    }
    cluster.kill_all(&names)?;
    cluster.restart(&names).await?;
    ask::active(&cluster, "DB1")?;
    let error = deliver(&client, 2, 4_096).await.expect_err("the disk is said to be full");
    ensure!(error.to_string().contains(Reason::DiskLow.as_str()), "{error}");
    let inbox = client.inbox(ADDRESS).await?;
    let listed = client.list_all(ADDRESS, &inbox.folder_id).await?;
    ensure!(listed.len() == 1, "{} mails", listed.len());
    client.fetch(ADDRESS, &inbox.folder_id, listed[0].uid).await?;
    Ok(())
}
