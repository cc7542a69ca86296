//! Copies that are built while nodes die, fall silent or are cut off at random moments, under load.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use cluster::{ask, cuts, number, work};
use history::event::Phase;
use serde_json::Value;
use testkit::mail::Dice;
use testkit::scratch::{Scratch, ScratchCluster};

use crate::seeding::{begin, copy, ended, every_mail_is_there, fill, operation, replica};

const TEST: &str = "seeds_disturbed::\
                    copies_are_built_whatever_node_dies_falls_silent_or_is_cut_off_at_whatever_moment";

/// Seeds of a run.
const ROUNDS: u64 = 20;
/// Mails of 250 KB, which a seed has to bring over.
const MAILS: u64 = 64;
/// Seconds that a seed takes by its limit, however much there is by then.
const SECONDS: u64 = 4;
/// Bytes a second while most of it is in memory only, and written when the seed begins.
const LIMIT_MIN: u64 = 5_000_000;
/// A fault comes within this time after the command.
const WITHIN_MS: u64 = 3_500;
const CALM: Duration = Duration::from_secs(60);

/// What happens in the middle of a seed, as the history calls it.
const KINDS: [&str; 7] = [
    "source killed",
    "target killed",
    "control leader killed",
    "source silent",
    "target silent",
    "source cut off",
    "target cut off",
];

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_built_whatever_node_dies_falls_silent_or_is_cut_off_at_whatever_moment()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    if !cuts::in_own_network(TEST)? {
        return Ok(());
    }
    let promise = Promise {
        reproduce: "cargo test --release -p cluster copies_are_built_whatever",
        faults: &KINDS,
        acknowledged_min: 100,
    };
    let mut trial = Trial::begin(Scratch::shape("three-node"), &["DB1"], promise).await?;
    fill(&trial.cluster, MAILS).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(100, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let seed = number("HOLDFAST_TRIAL_SEED", now());
    eprintln!("HOLDFAST_TRIAL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let (rounds, mut met) = (number("HOLDFAST_TRIAL_ROUNDS", ROUNDS), 0);
    for round in 0..rounds {
        let kind = match KINDS.get(round as usize) {
            Some(kind) => kind,
            None => KINDS[dice.below(KINDS.len() as u64) as usize],
        };
        let after = Duration::from_millis(dice.below(WITHIN_MS));
        let running = disturbed(&mut trial, &work, kind, after)
            .await
            .with_context(|| format!("round {round}: {kind} after {after:?}"))?;
        met += u64::from(running);
        eprintln!("{round}: {kind} after {after:?}, {}", if running { "met" } else { "too late" });
    }
    ensure!(2 * met >= rounds, "{met} of {rounds} seeds were still running when it happened");
    trial.phase(Phase::After)?;
    work.progress(100, CALM).await?;
    every_mail_is_there(&trial.cluster, MAILS).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, CALM)?;
    trial.judge()
}

/// From whom the copy on a node is built, once that is chosen.
fn source_of<'a>(status: &'a Value, target: &str) -> Option<&'a str> {
    copy(status, "DB1", target)?["seed"]["source"].as_str()
}

/// How much the state of a copy has on disk.
fn state_bytes(cluster: &ScratchCluster, node: &str, replica: u64) -> anyhow::Result<u64> {
    let database = work::database_id(&ask::status(cluster)?, "DB1")?;
    let copies = cluster.node(node)?.folder.join("copies").join(database.to_string());
    let files = std::fs::read_dir(copies.join(format!("gen-1-{replica}")).join("state"))?;
    // Compaction takes files away.
    Ok(files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum())
}

/// One seed with something in its middle, seen to its end. Tells whether it was running by then.
async fn disturbed(
    trial: &mut Trial,
    work: &Work,
    kind: &str,
    after: Duration,
) -> anyhow::Result<bool> {
    let target = ask::passive(&trial.cluster, "DB1")?;
    let before = replica(&trial.cluster, "DB1", &target)?;
    let limit = state_bytes(&trial.cluster, &target, before)? / SECONDS;
    let limit = limit.max(LIMIT_MIN);
    let command = format!("copy reseed DB1@{target} --whole --limit {limit}B/s");
    let operation_number = begin(&trial.cluster, &command)?;
    tokio::time::sleep(after).await;
    let mut status = ask::status(&trial.cluster)?;
    // A cut keeps others from reaching a node, and not the node from reaching others: a leader stays one.
    while kind == "source cut off" && source_of(&status, &target).is_none() {
        ensure!(operation(&trial.cluster, operation_number)?["state"] == "Running", "it has ended");
        status = ask::status(&trial.cluster)?;
    }
    let source = source_of(&status, &target);
    let active = ask::active_in(&status, "DB1").context("a database of two voters is mounted")?;
    // Before a source is chosen, and when it has sent everything: the active copy decides.
    let source = source.unwrap_or(&active).to_owned();
    let victim = match kind {
        "source killed" | "source silent" | "source cut off" => source,
        "target killed" | "target silent" | "target cut off" => target.clone(),
        _ => status["control_leader"].as_str().context("there is a leader")?.to_owned(),
    };
    let running = operation(&trial.cluster, operation_number)?["state"] == "Running";
    let from = now();
    match kind {
        _ if kind.ends_with("silent") => trial.cluster.pause(&victim)?,
        _ if kind.ends_with("cut off") => cuts::cut(&trial.cluster, &victim)?,
        _ => trial.cluster.kill(&victim)?,
    }
    if work.progress(20, CALM / 4).await.is_err() {
        // From the moment in which the new copy is in its place until it is admitted its vote is
        // missing, and three voters have none to spare then.
        let waits = replica(&trial.cluster, "DB1", &target)? > before
            && operation(&trial.cluster, operation_number)?["state"] == "Running";
        ensure!(waits, "nothing is acknowledged, and no new copy waits for its vote");
    }
    // Streams to whoever does not answer are given up meanwhile.
    tokio::time::sleep(Duration::from_secs(4)).await;
    match kind {
        _ if kind.ends_with("silent") => trial.cluster.resume(&victim)?,
        _ if kind.ends_with("cut off") => cuts::heal(&trial.cluster, &victim)?,
        _ => trial.cluster.restart(std::slice::from_ref(&victim)).await?,
    }
    work.progress(20, CALM).await?;
    trial.fault(kind, std::slice::from_ref(&victim), from, Some(now()))?;
    let done = ended(&trial.cluster, operation_number, 2 * CALM)?;
    ensure!(done["state"] == "Done", "{done}");
    ask::wait_healthy(&trial.cluster, CALM)?;
    ask::expect_equal(&trial.cluster, "DB1", 3)?;
    let now_there = replica(&trial.cluster, "DB1", &target)?;
    ensure!(now_there > before, "replica {now_there} on {target} is the old one");
    work.progress(10, CALM).await?;
    Ok(running)
}
