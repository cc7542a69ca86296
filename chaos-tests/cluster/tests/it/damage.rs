//! A passive copy whose files are damaged is Failed; nothing is lost, the service goes on, and a new
//! copy is built by itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::damage::{cut, files_below, find, flip_bit};
use cluster::{ask, trial, work};
use dag_client::Delivery;
use dag_types::Write;
use storage::state::StateEngine as _;
use storage::state::rocks::{SharedResources, StateBudget};
use testkit::scratch::{Scratch, ScratchCluster};

const ADDRESS: &str = "reader@example.org";
/// Stands in every mail, so that a test finds where mails lie in a file.
const SIGN: &[u8] = b"From: Sender ";

/// Delivers mails of these numbers.
async fn deliver(cluster: &ScratchCluster, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    let client = trial::client(cluster, Duration::from_secs(20))?;
    for number in numbers {
        let mail = Delivery::new(format!("mail-{number}"), [ADDRESS], testkit::mail::mixed(number));
        let mut report = client.deliver(mail).await?;
        report.recipients.remove(0).result?;
    }
    Ok(())
}

/// Every mail of these numbers is there once, byte for byte, and no other.
async fn expect_mails(cluster: &ScratchCluster, count: u64) -> anyhow::Result<()> {
    let client = trial::client(cluster, Duration::from_secs(20))?;
    let inbox = client.inbox(ADDRESS).await?;
    let listed = client.list_all(ADDRESS, &inbox.folder_id).await?;
    ensure!(listed.len() as u64 == count, "{} mails instead of {count}", listed.len());
    for (number, message) in (0..).zip(&listed) {
        let fetched = client.fetch(ADDRESS, &inbox.folder_id, message.uid).await?;
        ensure!(fetched.content[..] == testkit::mail::mixed(number)[..], "mail {number} differs");
    }
    Ok(())
}

/// The files of DB1's log or state on a node, the largest first.
fn files_of(cluster: &ScratchCluster, node: &str, part: &str) -> anyhow::Result<Vec<PathBuf>> {
    let database = work::database_id(&ask::status(cluster)?, "DB1")?;
    let copies = cluster.node(node)?.folder.join("copies").join(database.to_string());
    let files = files_below(&copies)?;
    let inside = |path: &&PathBuf| path.components().any(|name| name.as_os_str() == part);
    Ok(files.iter().filter(inside).cloned().collect())
}

/// The file of a node's log or state that holds mail, and where the first one lies in it.
fn mail_in(cluster: &ScratchCluster, node: &str, part: &str) -> anyhow::Result<(PathBuf, u64)> {
    for file in files_of(cluster, node, part)? {
        if let Some(at) = find(&file, SIGN)? {
            return Ok((file, at));
        }
    }
    anyhow::bail!("no file below {part} of {node} holds mail")
}

/// A cluster with mail in it, one passive node of which is killed, damaged, and started again; its
/// copy must be Failed, all mail there, and new mail accepted.
async fn expect_failed_copy(
    damage: impl Fn(&ScratchCluster, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    cluster.dagctl(["mailbox", "create", ADDRESS])?;
    deliver(&cluster, 0..200).await?;
    ask::expect_equal(&cluster, "DB1", 3)?;
    let victim = ask::passive(&cluster, "DB1")?;
    cluster.kill(&victim)?;
    damage(&cluster, &victim)?;
    cluster.restart(std::slice::from_ref(&victim)).await?;
    let failed = |status: &serde_json::Value| {
        ask::copy_status(status, "DB1", &victim).is_some_and(|status| status.starts_with("Failed"))
    };
    let status = ask::wait_for(&cluster, "the copy is Failed", Duration::from_secs(30), failed)?;
    deliver(&cluster, 200..300).await?;
    expect_mails(&cluster, 300).await?;
    // Nobody has to do anything: a new copy is built from a sound one.
    let before = replica(&status, &victim);
    let new =
        |status: &serde_json::Value| status["healthy"] == true && replica(status, &victim) > before;
    ask::wait_for(&cluster, "a new copy by itself", Duration::from_secs(90), new)?;
    ask::expect_equal(&cluster, "DB1", 3)
}

/// The id of DB1's copy on a node.
fn replica(status: &serde_json::Value, node: &str) -> Option<u64> {
    let copies = status["copies"].as_array()?;
    let found = copies.iter().find(|copy| copy["database"] == "DB1" && copy["node"] == node)?;
    found["replica_id"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_flip_in_the_log_of_a_passive_copy_fails_it_and_nothing_else() -> anyhow::Result<()> {
    expect_failed_copy(|cluster, victim| {
        let (file, at) = mail_in(cluster, victim, "log")?;
        flip_bit(&file, at + 5)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_log_segment_of_a_passive_copy_fails_it_and_nothing_else() -> anyhow::Result<()>
{
    expect_failed_copy(|cluster, victim| {
        let (file, at) = mail_in(cluster, victim, "log")?;
        cut(&file, at)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_flip_in_the_table_of_contents_of_a_state_fails_the_copy_and_nothing_else()
-> anyhow::Result<()> {
    expect_failed_copy(|cluster, victim| {
        let manifests = files_of(cluster, victim, "state")?;
        let is_manifest = |path: &&PathBuf| name(path).starts_with("MANIFEST");
        let of_mail = |path: &&PathBuf| !path.to_string_lossy().contains("trash");
        let mut damaged = 0;
        for manifest in manifests.iter().filter(is_manifest).filter(of_mail) {
            flip_bit(manifest, std::fs::metadata(manifest)?.len() / 2)?;
            damaged += 1;
        }
        ensure!(damaged > 0, "no manifest below {manifests:?}");
        Ok(())
    })
    .await
}

/// What lies in a table is found damaged when it is read, and only the active copy is read from.
#[tokio::test(flavor = "multi_thread")]
async fn a_bit_flip_in_a_mail_of_the_state_fails_the_copy_that_reads_it_and_another_answers()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    cluster.dagctl(["mailbox", "create", ADDRESS])?;
    deliver(&cluster, 0..200).await?;
    let victim = ask::passive(&cluster, "DB1")?;
    // A node that ends in good order has flushed its states.
    ensure!(cluster.stop(&victim)?, "{victim} had to be killed");
    let files = files_of(&cluster, &victim, "state")?;
    let of_kind = |kind: &'static str| {
        move |path: &&PathBuf| path.extension().is_some_and(|suffix| suffix == kind)
    };
    let bodies = files.iter().find(of_kind("blob")).or(files.iter().find(of_kind("sst")));
    let bodies = bodies.context("the state has tables")?;
    flip_bit(bodies, std::fs::metadata(bodies)?.len() / 2)?;
    cluster.restart(std::slice::from_ref(&victim)).await?;
    let status = ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    let before = replica(&status, &victim);
    // Its gate opens a moment after its start, and what the others heard of it is older.
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let moved = cluster.try_dagctl(["db", "move", "DB1", "--to", victim.as_str()])?;
        if moved.status.success() {
            break;
        }
        ensure!(Instant::now() < end, "{}", String::from_utf8_lossy(&moved.stderr));
        std::thread::sleep(Duration::from_millis(200));
    }
    expect_mails(&cluster, 200).await?;
    let new =
        |status: &serde_json::Value| status["healthy"] == true && replica(status, &victim) > before;
    ask::wait_for(&cluster, "a new copy by itself", Duration::from_secs(90), new)?;
    ask::expect_equal(&cluster, "DB1", 3)?;
    expect_mails(&cluster, 200).await
}

/// Nobody reads a passive copy, so its node does.
#[tokio::test(flavor = "multi_thread")]
async fn what_rots_in_a_passive_copy_is_found_by_reading_it_through() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let scratch = Scratch::shape("three-node").set("scrub.rate=64MiB").set("scrub.every=2s");
    let mut cluster = scratch.formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    cluster.dagctl(["mailbox", "create", ADDRESS])?;
    deliver(&cluster, 0..200).await?;
    let victim = ask::passive(&cluster, "DB1")?;
    // A node that ends in good order has flushed its states.
    ensure!(cluster.stop(&victim)?, "{victim} had to be killed");
    cluster.restart(std::slice::from_ref(&victim)).await?;
    let status = ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    let before = replica(&status, &victim);
    let read = |status: &serde_json::Value| {
        let copies = status["copies"].as_array().into_iter().flatten();
        let mut ours = copies.filter(|copy| copy["database"] == "DB1");
        ours.clone().count() == 3 && ours.all(|copy| copy["scrub"]["sound_at_ms"].is_u64())
    };
    ask::wait_for(&cluster, "every copy is read through", Duration::from_secs(30), read)?;
    let (file, at) = mail_in(&cluster, &victim, "state")?;
    flip_bit(&file, at + 5)?;
    let new =
        |status: &serde_json::Value| status["healthy"] == true && replica(status, &victim) > before;
    ask::wait_for(&cluster, "a new copy by itself", Duration::from_secs(90), new)?;
    let log = std::fs::read_to_string(&cluster.node(&victim)?.log)?;
    ensure!(log.contains("scrub: "), "{victim} does not say how it was found");
    ask::expect_equal(&cluster, "DB1", 3)?;
    expect_mails(&cluster, 200).await
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_of_the_log_behind_the_last_claim_is_cut_and_the_copy_catches_up()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    cluster.dagctl(["mailbox", "create", ADDRESS])?;
    let victim = ask::passive(&cluster, "DB1")?;
    for round in 0..3 {
        deliver(&cluster, round * 50..(round + 1) * 50).await?;
        cluster.kill(&victim)?;
        cluster.restart(std::slice::from_ref(&victim)).await?;
    }
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    ask::expect_equal(&cluster, "DB1", 3)?;
    expect_mails(&cluster, 150).await.context("after three kills of a passive node")
}

/// Takes away a row of a closed copy's state, with a frame around everything that holds: no checksum
/// tells of it, nor does the digest that is kept with every command.
fn lose_a_row(cluster: &ScratchCluster, node: &str) -> anyhow::Result<()> {
    let manifests = files_of(cluster, node, "state")?;
    let manifest = manifests.iter().find(|path| name(path) == "CURRENT").context("a state")?;
    let folder = manifest.parent().context("a state's folder")?;
    let engine = SharedResources::new(StateBudget::default())?;
    let state = engine.open(folder)?;
    // A change of the reader's INBOX.
    let row = state.scan(&[0x19], &[0x1a], 1)?.pop().context("a change")?;
    state.write(&[Write::Delete { key: row.0 }])?;
    Ok(state.flush()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_lost_behind_a_copys_back_is_found_by_comparing_deeply() -> anyhow::Result<()>
{
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    cluster.dagctl(["mailbox", "create", ADDRESS])?;
    cluster.dagctl(["mailbox", "create", "other@example.org"])?;
    deliver(&cluster, 0..50).await?;
    let deep = |cluster: &ScratchCluster| -> anyhow::Result<(bool, serde_json::Value)> {
        let output =
            cluster.try_dagctl(["db", "verify", "DB1", "--wait", "60", "--deep", "-o", "json"])?;
        let said: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((output.status.success(), said[0].clone()))
    };
    let (well, said) = deep(&cluster)?;
    ensure!(well && said["deep"]["compared"] == 2, "{said:#}");
    let victim = ask::passive(&cluster, "DB1")?;
    // A node that ends in good order has flushed its states.
    ensure!(cluster.stop(&victim)?, "{victim} had to be killed");
    lose_a_row(&cluster, &victim)?;
    cluster.restart(std::slice::from_ref(&victim)).await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    ask::expect_equal(&cluster, "DB1", 3).context("the kept digest does not tell of it")?;
    let (well, said) = deep(&cluster)?;
    ensure!(!well && said["equal"] == true, "{said:#}");
    let differing = said["deep"]["differing"].as_array().context("mailboxes")?;
    ensure!(differing.len() == 1 && differing[0]["address"] == ADDRESS, "{said:#}");
    ensure!(differing[0]["alone"] == serde_json::json!([victim]), "{said:#}");
    let words = cluster.try_dagctl(["db", "verify", "DB1", "--deep"])?;
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    let command = format!("dagctl copy reseed DB1@{victim}");
    ensure!(words.contains(&command), "{words}");
    let done = ask::json(&cluster, &format!("copy reseed DB1@{victim} --follow"))?;
    ensure!(done["state"] == "Done", "{done}");
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    let (well, said) = deep(&cluster)?;
    ensure!(well && said["deep"]["differing_count"] == 0, "{said:#}");
    expect_mails(&cluster, 50).await
}
