//! Copies that are built from other copies: under load, through kills, by themselves, refused.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::damage::{files_below, find, flip_bit};
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use cluster::{ask, trial, work};
use dag_client::Delivery;
use history::event::Phase;
use serde_json::Value;
use testkit::mail::Template;
use testkit::scratch::{Scratch, ScratchCluster};

const ADDRESS: &str = "reader@example.org";

/// One copy's line in a status.
pub(crate) fn copy<'a>(status: &'a Value, database: &str, node: &str) -> Option<&'a Value> {
    let copies = status["copies"].as_array()?;
    copies.iter().find(|copy| copy["database"] == database && copy["node"] == node)
}

pub(crate) fn replica(cluster: &ScratchCluster, database: &str, node: &str) -> anyhow::Result<u64> {
    let status = ask::status(cluster)?;
    let line = copy(&status, database, node).context("a line for the copy")?;
    line["replica_id"].as_u64().context("a copy has an id")
}

/// The operation of a seed that is to begin now.
pub(crate) fn begin(cluster: &ScratchCluster, command: &str) -> anyhow::Result<u64> {
    let begun = ask::json(cluster, command)?;
    begun["operation"].as_u64().context("a seed is an operation")
}

pub(crate) fn operation(cluster: &ScratchCluster, number: u64) -> anyhow::Result<Value> {
    ask::json(cluster, &format!("ops show {number}"))
}

/// Waits until an operation is over; gives its last state.
pub(crate) fn ended(
    cluster: &ScratchCluster,
    number: u64,
    within: Duration,
) -> anyhow::Result<Value> {
    let end = Instant::now() + within;
    loop {
        // Nodes may be down and the control group without a leader meanwhile.
        let shown = operation(cluster, number);
        if let Ok(shown) = &shown
            && shown["ended"].is_string()
        {
            return Ok(shown.clone());
        }
        ensure!(Instant::now() < end, "operation {number} runs on: {shown:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Three copies that vote, all healthy and equal, and the replaced one in the trash.
fn expect_whole(cluster: &ScratchCluster, node: &str, before: u64) -> anyhow::Result<()> {
    let whole = |status: &Value| {
        let voters = |status: &Value| {
            let copies = status["copies"].as_array().cloned().unwrap_or_default();
            copies.iter().filter(|c| c["database"] == "DB1" && c["voter"] == true).count()
        };
        status["healthy"] == true && voters(status) == 3
    };
    ask::wait_for(cluster, "three healthy voters", Duration::from_secs(60), whole)?;
    ask::expect_equal(cluster, "DB1", 3)?;
    let after = replica(cluster, "DB1", node)?;
    ensure!(after > before, "replica {after} on {node} has no new id after {before}");
    let database = work::database_id(&ask::status(cluster)?, "DB1")?;
    let folder = cluster.node(node)?.folder.join("copies").join(database.to_string());
    let old = folder.join("trash").join(format!("gen-1-{before}"));
    let end = Instant::now() + Duration::from_secs(20);
    while !old.exists() {
        ensure!(Instant::now() < end, "{} is not in the trash", old.display());
        std::thread::sleep(Duration::from_millis(100));
    }
    let staged = folder.join(format!("seed-{after}"));
    ensure!(!staged.exists(), "{} is left", staged.display());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_copy_is_reseeded_under_load_and_nothing_is_lost_or_doubled() -> anyhow::Result<()>
{
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster a_sound_copy_is_reseeded_under_load",
        faults: &["reseeded"],
        acknowledged_min: 50,
    };
    let trial = Trial::begin(Scratch::shape("three-node"), &["DB1"], promise).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(200, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let from = now();
    let target = ask::passive(&trial.cluster, "DB1")?;
    let before = replica(&trial.cluster, "DB1", &target)?;
    let done = ask::json(&trial.cluster, &format!("copy reseed DB1@{target} --follow"))?;
    ensure!(done["state"] == "Done", "{done}");
    work.progress(100, Duration::from_secs(30)).await?;
    trial.fault("reseeded", std::slice::from_ref(&target), from, Some(now()))?;
    expect_whole(&trial.cluster, &target, before)?;
    // The new copy can become active, and serves.
    trial.cluster.dagctl(["db", "move", "DB1", "--to", target.as_str()])?;
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    trial.judge()
}

/// Mails that do not compress well, so that a slow seed takes a while.
pub(crate) async fn fill(cluster: &ScratchCluster, mails: u64) -> anyhow::Result<()> {
    cluster.dagctl(["mailbox", "create", ADDRESS])?;
    deliver(cluster, 0..mails).await
}

async fn deliver(cluster: &ScratchCluster, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    let client = trial::client(cluster, Duration::from_secs(20))?;
    for number in numbers {
        let content = noise(number);
        let mail = Delivery::new(format!("mail-{number}"), [ADDRESS], content);
        client.deliver(mail).await?.recipients.remove(0).result?;
    }
    Ok(())
}

fn noise(number: u64) -> Vec<u8> {
    const BODY: usize = 250_000;
    let mut mail = Template::new(number, 600).stamped(number);
    let mut body = vec![0; BODY];
    let seed = blake3::hash(&number.to_le_bytes());
    blake3::Hasher::new_keyed(seed.as_bytes()).finalize_xof().fill(&mut body);
    // Bytes of a mail's text: printable, six bits each.
    body.iter_mut().for_each(|byte| *byte = b'0' + (*byte & 0x3f));
    mail.extend(body.chunks(70).flat_map(|line| [line, b"\r\n"].concat()));
    mail
}

pub(crate) async fn every_mail_is_there(
    cluster: &ScratchCluster,
    mails: u64,
) -> anyhow::Result<()> {
    let client = trial::client(cluster, Duration::from_secs(20))?;
    let inbox = client.inbox(ADDRESS).await?;
    let listed = client.list_all(ADDRESS, &inbox.folder_id).await?;
    ensure!(listed.len() as u64 == mails, "{} mails instead of {mails}", listed.len());
    for (number, message) in (0..).zip(&listed) {
        let fetched = client.fetch(ADDRESS, &inbox.folder_id, message.uid).await?;
        ensure!(fetched.content[..] == noise(number)[..], "mail {number} differs");
    }
    Ok(())
}

/// Whom a kill in the middle of a seed hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Source,
    Target,
    ControlLeader,
}

/// A slow seed, one node of which is killed in the middle and started again; it must end with a
/// whole copy, and without receiving everything twice.
async fn expect_resumed(victim: Victim) -> anyhow::Result<()> {
    const MAILS: u64 = 80;
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    fill(&cluster, MAILS).await?;
    let target = ask::passive(&cluster, "DB1")?;
    let before = replica(&cluster, "DB1", &target)?;
    let number = begin(&cluster, &format!("copy reseed DB1@{target} --whole --limit 3MB/s"))?;
    let halfway = |status: &Value| {
        let seed = copy(status, "DB1", &target).map(|copy| copy["seed"].clone());
        seed.is_some_and(|seed| seed["phase"] == "Copying" && seed["source"].is_string())
    };
    let status = ask::wait_for(&cluster, "it copies", Duration::from_secs(30), halfway)?;
    std::thread::sleep(Duration::from_secs(2));
    let source = copy(&status, "DB1", &target).context("a line")?["seed"]["source"].clone();
    let source = source.as_str().context("a source has a name")?.to_owned();
    let killed = match victim {
        Victim::Source => source,
        Victim::Target => target.clone(),
        Victim::ControlLeader => status["control_leader"].as_str().context("a leader")?.to_owned(),
    };
    let shown = operation(&cluster, number)?;
    ensure!(shown["state"] == "Running", "it was over before the kill: {shown}");
    cluster.kill(&killed)?;
    std::thread::sleep(Duration::from_secs(2));
    cluster.restart(std::slice::from_ref(&killed)).await?;
    let done = ended(&cluster, number, Duration::from_secs(120))?;
    ensure!(done["state"] == "Done", "{victim:?} killed: {done}");
    expect_whole(&cluster, &target, before)?;
    every_mail_is_there(&cluster, MAILS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_goes_on_from_another_source_when_its_source_is_killed() -> anyhow::Result<()> {
    expect_resumed(Victim::Source).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_goes_on_where_it_was_when_its_target_is_killed() -> anyhow::Result<()> {
    expect_resumed(Victim::Target).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_goes_on_when_the_leader_of_control_is_killed() -> anyhow::Result<()> {
    expect_resumed(Victim::ControlLeader).await
}

/// The log waits for a checkpoint only while a seed is under way. A copy built from one that the log has
/// left behind would be sent whole once more, as a snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_seed_takes_what_its_source_has_by_then() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    let (source, target) = (ask::active(&cluster, "DB1")?, ask::passive(&cluster, "DB1")?);
    let reseed = format!("copy reseed DB1@{target} --whole --from {source} --follow");
    cluster.dagctl(["mailbox", "create", ADDRESS])?;
    for mails in [0..10, 10..20] {
        deliver(&cluster, mails).await?;
        let done = ask::json(&cluster, &reseed)?;
        ensure!(done["state"] == "Done", "{done}");
    }
    let written = std::fs::read_to_string(&cluster.node(&source)?.log)?;
    let taken = written.lines().filter(|line| line.contains("checkpoint taken")).count();
    ensure!(taken == 2, "two seeds, one after the other, began at {taken} checkpoints");
    ask::expect_equal(&cluster, "DB1", 3)?;
    every_mail_is_there(&cluster, 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_seed_leaves_the_old_copy_and_no_files() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    fill(&cluster, 40).await?;
    let target = ask::passive(&cluster, "DB1")?;
    let before = replica(&cluster, "DB1", &target)?;
    let number = begin(&cluster, &format!("copy reseed DB1@{target} --whole --limit 1MB/s"))?;
    std::thread::sleep(Duration::from_secs(2));
    cluster.dagctl(["ops", "cancel", &number.to_string()])?;
    let over = ended(&cluster, number, Duration::from_secs(20))?;
    ensure!(over["state"] == "Cancelled", "{over}");
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    ensure!(replica(&cluster, "DB1", &target)? == before);
    ask::expect_equal(&cluster, "DB1", 3)?;
    let folder = cluster.node(&target)?.folder.join("copies");
    let staged = |path: &PathBuf| path.to_string_lossy().contains("/seed-");
    let end = Instant::now() + Duration::from_secs(20);
    while files_below(&folder)?.iter().any(staged) {
        ensure!(Instant::now() < end, "files of the seed are left");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_added_and_removed_with_the_votes_that_their_number_asks_for()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1", "--copies", "n1,n2"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    fill(&cluster, 5).await?;
    let voters = |wanted: usize, copies: usize| {
        move |status: &Value| {
            let all = status["copies"].as_array().cloned().unwrap_or_default();
            let here: Vec<_> = all.iter().filter(|copy| copy["database"] == "DB1").collect();
            let voting = here.iter().filter(|copy| copy["voter"] == true).count();
            status["healthy"] == true && voting == wanted && here.len() == copies
        }
    };
    let within = Duration::from_secs(60);
    ask::wait_for(&cluster, "two voters", within, voters(2, 2))?;
    let added = ask::json(&cluster, "copy add DB1@n3 --follow")?;
    ensure!(added["state"] == "Done", "{added}");
    ask::wait_for(&cluster, "three voters", within, voters(3, 3))?;
    ask::expect_equal(&cluster, "DB1", 3)?;
    // The group itself has them too: one of three may be lost.
    cluster.dagctl(["db", "move", "DB1", "--to", "n3"])?;
    cluster.dagctl(["copy", "remove", "DB1@n1"])?;
    ask::wait_for(&cluster, "two voters again", within, voters(2, 2))?;
    ask::expect_equal(&cluster, "DB1", 2)?;
    let words = ask::refused(&cluster, "copy remove DB1@n3")?;
    ensure!(words.contains("not-active"), "{words}");
    let again = ask::json(&cluster, "copy add DB1@n1 --follow")?;
    ensure!(again["state"] == "Done", "{again}");
    ask::wait_for(&cluster, "three voters again", within, voters(3, 3))?;
    every_mail_is_there(&cluster, 5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_that_make_no_sense_are_refused_by_check_value_and_limit() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    let (active, passive) = (ask::active(&cluster, "DB1")?, ask::passive(&cluster, "DB1")?);
    let before = ask::json(&cluster, "ops list")?;
    for (command, check) in [
        (format!("copy reseed DB1@{active}"), "not-active"),
        (format!("copy seed DB1@{passive}"), "copy-not-sound"),
        (format!("copy add DB1@{passive}"), "copy-absent"),
        (format!("copy reseed DB1@{passive} --from {passive}"), "path-differs"),
        (format!("copy remove DB1@{active}"), "not-active"),
        (format!("copy reseed DB2@{passive}"), "perhaps DB1"),
        ("copy reseed DB1@n9".to_owned(), "known nodes: n1, n2, n3"),
        (format!("copy reseed DB1@{passive} --limit 0MB/s"), "is no rate"),
        ("copy reseed DB1".to_owned(), "DATABASE@NODE"),
    ] {
        let words = ask::refused(&cluster, &command)?;
        ensure!(words.contains(check), "{command}: {words}");
    }
    let third = cluster.names().into_iter().find(|node| *node != active && *node != passive);
    let third = third.context("three nodes")?;
    cluster.kill(&third)?;
    let lost = |status: &Value| {
        ask::copy_status(status, "DB1", &third).is_some_and(|status| status == "ServiceDown")
    };
    ask::wait_for(&cluster, "a node is lost", Duration::from_secs(30), lost)?;
    for (command, check) in [
        (format!("copy reseed DB1@{passive}"), "majority"),
        (format!("copy remove DB1@{passive}"), "majority"),
        (format!("copy reseed DB1@{third}"), "target-reachable"),
        (format!("copy reseed DB1@{passive} --from {third}"), "majority"),
    ] {
        let words = ask::refused(&cluster, &command)?;
        ensure!(words.contains(check), "{command}: {words}");
    }
    ensure!(ask::json(&cluster, "ops list")? == before, "a refusal began an operation");
    Ok(())
}

/// Stands in every mail, so that a test finds where mails lie in a file.
const SIGN: &[u8] = b"From: Sender ";

/// Flips a bit of a mail in a copy's log or state.
fn rot(cluster: &ScratchCluster, node: &str, part: &str) -> anyhow::Result<()> {
    let database = work::database_id(&ask::status(cluster)?, "DB1")?;
    let copies = cluster.node(node)?.folder.join("copies").join(database.to_string());
    for file in files_below(&copies)? {
        let inside = file.components().any(|name| name.as_os_str() == part);
        if inside && let Some(at) = find(&file, SIGN)? {
            return flip_bit(&file, at + 5);
        }
    }
    anyhow::bail!("no file below {part} of {node} holds mail")
}

/// A cluster with mails in it, and a passive node whose copy is Failed: its log does not hold, one
/// mail of its state rotted, and it lacks what was delivered last.
async fn with_failed_copy(mails: u64, more: u64) -> anyhow::Result<(ScratchCluster, String, u64)> {
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    fill(&cluster, mails).await?;
    ask::expect_equal(&cluster, "DB1", 3)?;
    let victim = ask::passive(&cluster, "DB1")?;
    let before = replica(&cluster, "DB1", &victim)?;
    // A node that ends in good order has flushed its states.
    ensure!(cluster.stop(&victim)?, "{victim} had to be killed");
    rot(&cluster, &victim, "log")?;
    rot(&cluster, &victim, "state")?;
    deliver(&cluster, mails..mails + more).await?;
    cluster.restart(std::slice::from_ref(&victim)).await?;
    Ok((cluster, victim, before))
}

/// The bytes that a seed which is over was sent, and those that the old copy spared it.
fn by_delta(shown: &Value) -> anyhow::Result<(u64, u64)> {
    let outcome = shown["steps"][0]["outcome"].as_str().context("a step has an outcome")?;
    let (_, said) = outcome.split_once("by delta: ").with_context(|| outcome.to_owned())?;
    let number = |text: &str| -> anyhow::Result<u64> {
        Ok(text.split(' ').next().context("a number")?.parse()?)
    };
    let (sent, spared) = said.split_once(" bytes were sent, ").with_context(|| said.to_owned())?;
    Ok((number(sent)?, number(spared)?))
}

/// Every mail of the copy on this node, which becomes the active one.
async fn its_mails_are_whole(
    cluster: &ScratchCluster,
    node: &str,
    mails: u64,
) -> anyhow::Result<()> {
    cluster.dagctl(["db", "move", "DB1", "--to", node])?;
    every_mail_is_there(cluster, mails).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_copy_is_built_anew_of_itself_and_is_sent_only_what_it_lacks() -> anyhow::Result<()>
{
    const MAILS: u64 = 120;
    const MORE: u64 = 10;
    let _turn = cluster::turn().await;
    let (cluster, victim, before) = with_failed_copy(MAILS, MORE).await?;
    let new = |status: &Value| {
        let id = copy(status, "DB1", &victim).and_then(|copy| copy["replica_id"].as_u64());
        status["healthy"] == true && id > Some(before)
    };
    ask::wait_for(&cluster, "a new copy by itself", Duration::from_secs(90), new)?;
    let operations = ask::json(&cluster, "ops list")?;
    let all = operations.as_array().context("operations")?;
    let seeds = all.iter().filter(|known| known["kind"] == "SeedCopy");
    let number = seeds.filter_map(|known| known["operation"].as_u64()).max();
    let shown = operation(&cluster, number.context("a seed is an operation")?)?;
    let (sent, spared) = by_delta(&shown)?;
    // What was delivered last, and the mail that rotted.
    let changed = (MAILS..=MAILS + MORE).map(|number| noise(number).len() as u64).sum::<u64>();
    eprintln!("{sent} bytes were sent for {changed} changed; {spared} were spared");
    ensure!(sent >= changed - changed / 50, "{sent} bytes sent of {changed}: the rotten mail too?");
    ensure!(sent <= changed + changed / 5, "{sent} bytes were sent for {changed}");
    ensure!(spared >= 20 * 1_000_000, "only {spared} bytes were spared");
    expect_whole(&cluster, &victim, before)?;
    // What was built is not read back before it joins: so it is the first that is read through.
    let read = |status: &Value| {
        let lines = |node: &str| copy(status, "DB1", node).map(|copy| copy["scrub"].clone());
        lines(&victim).is_some_and(|scrub| scrub["sound_at_ms"].is_u64())
    };
    let status = ask::wait_for(&cluster, "it is read through", Duration::from_secs(60), read)?;
    let passed = status["copies"].as_array().into_iter().flatten();
    let passed = passed.filter(|copy| copy["scrub"]["sound_at_ms"].is_u64()).count();
    ensure!(passed == 1, "{passed} copies were read through, and one was built: {status}");
    its_mails_are_whole(&cluster, &victim, MAILS + MORE).await?;
    // A sound copy that goes on meanwhile gives what it has too, unless that is not wanted.
    let target = ask::passive(&cluster, "DB1")?;
    for (command, delta) in [("", true), (" --whole", false)] {
        let number = begin(&cluster, &format!("copy reseed DB1@{target}{command}"))?;
        let done = ended(&cluster, number, Duration::from_secs(60))?;
        ensure!(done["state"] == "Done", "{done}");
        ensure!(by_delta(&done).is_ok() == delta, "{done}");
        if delta {
            let (sent, _) = by_delta(&done)?;
            ensure!(sent < 1_000_000, "{sent} bytes were sent for nothing");
        }
        ask::wait_healthy(&cluster, Duration::from_secs(30))?;
    }
    ask::expect_equal(&cluster, "DB1", 3)?;
    its_mails_are_whole(&cluster, &target, MAILS + MORE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_goes_on_whichever_of_its_nodes_is_killed() -> anyhow::Result<()> {
    const MAILS: u64 = 60;
    const MORE: u64 = 60;
    let _turn = cluster::turn().await;
    for kind in ["target", "source", "control leader"] {
        let (mut cluster, target, before) = with_failed_copy(MAILS, MORE).await?;
        let failed = |status: &Value| {
            let said = ask::copy_status(status, "DB1", &target);
            said.is_some_and(|status| status.starts_with("Failed"))
        };
        ask::wait_for(&cluster, "the copy is Failed", Duration::from_secs(30), failed)?;
        let number = begin(&cluster, &format!("copy seed DB1@{target} --limit 1500KB/s"))?;
        let copies = |status: &Value| {
            let seed = copy(status, "DB1", &target).map(|copy| copy["seed"].clone());
            seed.is_some_and(|seed| seed["phase"] == "Copying" && seed["way"] == "Delta")
        };
        ask::wait_for(&cluster, "a delta", Duration::from_secs(30), copies)?;
        std::thread::sleep(Duration::from_secs(3));
        let status = ask::status(&cluster)?;
        let word = match kind {
            "target" => Some(target.as_str()),
            "source" => copy(&status, "DB1", &target).and_then(|it| it["seed"]["source"].as_str()),
            _ => status["control_leader"].as_str(),
        };
        let victim = word.with_context(|| format!("no {kind}: {status}"))?.to_owned();
        let shown = operation(&cluster, number)?;
        ensure!(shown["state"] == "Running", "it was over before the kill: {shown}");
        cluster.kill(&victim)?;
        std::thread::sleep(Duration::from_secs(1));
        cluster.restart(std::slice::from_ref(&victim)).await?;
        let done = ended(&cluster, number, Duration::from_secs(120))?;
        ensure!(done["state"] == "Done", "{kind}: {done}");
        let (sent, spared) = by_delta(&done)?;
        eprintln!("{kind} {victim} killed: {sent} bytes were sent, {spared} spared");
        expect_whole(&cluster, &target, before)?;
        ask::wait_healthy(&cluster, Duration::from_secs(30))?;
        ask::expect_equal(&cluster, "DB1", 3)?;
        its_mails_are_whole(&cluster, &target, MAILS + MORE).await?;
    }
    Ok(())
}
