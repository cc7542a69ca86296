//! A disk that is nearly full refuses writes and reads go on; one that is full fails its copies.

use std::time::Duration;

use anyhow::ensure;
use cluster::trial::{Promise, Trial, now};
use cluster::volume::Volumes;
use cluster::work::{Load, Work};
use cluster::{ask, trial};
use dag_client::{Client, Delivery, Reason};
use history::event::Phase;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_its_copies_and_they_come_back_when_there_is_room() -> anyhow::Result<()>
{
    let _turn = cluster::turn().await;
    // Nothing is refused in time: the disk itself says that it is full.
    let scratch = Scratch::shape("three-node").set("budget.disk_reserve=0B");
    let mut cluster = scratch.up().await?;
    let volumes = Volumes::give(&mut cluster).await?;
    cluster.dagctl(["dag", "create"])?;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster full_disk",
        faults: &["disk full"],
        acknowledged_min: 100,
    };
    let mut trial = Trial::with(cluster, &["DB1"], promise)?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(200, Duration::from_secs(60)).await?;
    trial.phase(Phase::Faults)?;
    let victim = ask::active(&trial.cluster, "DB1")?;
    let from = now();
    volumes.fill(&trial.cluster, &victim)?;
    let within = Duration::from_secs(90);
    ask::wait_for(&trial.cluster, "the copy without room is Failed", within, |status| {
        let status = ask::copy_status(status, "DB1", &victim);
        status.is_some_and(|status| status.starts_with("Failed"))
    })?;
    work.progress(200, Duration::from_secs(60)).await?;
    volumes.free(&trial.cluster, &victim)?;
    trial.cluster.kill(&victim)?;
    trial.cluster.restart(std::slice::from_ref(&victim)).await?;
    trial.fault("disk full", std::slice::from_ref(&victim), from, Some(now()))?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.phase(Phase::After)?;
    work.progress(200, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}
