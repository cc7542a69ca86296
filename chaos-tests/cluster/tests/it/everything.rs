//! Everything that happens to a DAG in a bad year, in minutes: kills, freezes, a site that is not
//! heard, moves, drains, balancing, under load. Every kind once in a fixed order, then at random
//! until the time is up.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use cluster::{ask, number};
use history::event::Phase;
use testkit::mail::Dice;
use testkit::scratch::Scratch;

/// Seconds of every day; the full run sets `HOLDFAST_TRIAL_SECONDS=600`.
const SECONDS: u64 = 60;
const DATABASES: [&str; 3] = ["DB1", "DB2", "DB3"];
const CALM: Duration = Duration::from_secs(60);
/// How long an active node is frozen the first time; another one takes over long before.
const FROZEN: Duration = Duration::from_secs(30);
/// The same from then on: longer than a lease.
const LONG: Duration = Duration::from_secs(9);

/// What happens, as the history calls it.
const KINDS: [&str; 8] = [
    "active node killed",
    "active node frozen",
    "control leader killed",
    "passive site silent",
    "moved",
    "node drained",
    "moved to another site",
    "rebalanced",
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_whatever_happens_one_after_the_other()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let seconds = number("HOLDFAST_TRIAL_SECONDS", SECONDS);
    let promise = Promise {
        reproduce: "HOLDFAST_TRIAL_SECONDS=600 cargo test --release -p cluster everything",
        faults: &KINDS,
        acknowledged_min: 100,
    };
    let scratch = Scratch::shape("two-site-witness");
    let mut trial = Trial::begin(scratch, &DATABASES, promise).await?;
    // Site moves and balancing follow one another here as they never do in a day.
    trial.cluster.dagctl(["dag", "set", "--move-block", "1", "--auto-balance", "false"])?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(200, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let seed = number("HOLDFAST_TRIAL_SEED", now());
    eprintln!("HOLDFAST_TRIAL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    for round in 0.. {
        let kind = match KINDS.get(round) {
            Some(kind) => kind,
            None if Instant::now() >= end => break,
            None => KINDS[dice.below(KINDS.len() as u64) as usize],
        };
        let database = DATABASES[dice.below(DATABASES.len() as u64) as usize];
        let frozen = if round < KINDS.len() { FROZEN } else { LONG };
        happen(&mut trial, &work, kind, database, frozen)
            .await
            .with_context(|| format!("round {round}: {kind}, {database}"))?;
        ask::wait_healthy(&trial.cluster, CALM).with_context(|| format!("after {kind}"))?;
        eprintln!("{round}: {kind}, {database}: {} acknowledged", work.acknowledged());
    }
    trial.phase(Phase::After)?;
    work.progress(200, CALM).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, CALM)?;
    trial.judge()
}

async fn happen(
    trial: &mut Trial,
    work: &Work,
    kind: &str,
    database: &str,
    frozen: Duration,
) -> anyhow::Result<()> {
    let from = now();
    let active = ask::active(&trial.cluster, database)?;
    let mut nodes = vec![active.clone()];
    match kind {
        "active node killed" => kill(trial, work, &active).await?,
        "control leader killed" => {
            let status = ask::status(&trial.cluster)?;
            let leader = status["control_leader"].as_str().context("it is healthy")?.to_owned();
            kill(trial, work, &leader).await?;
            nodes = vec![leader];
        }
        "active node frozen" => {
            trial.cluster.pause(&active)?;
            work.progress(50, CALM).await?;
            tokio::time::sleep(frozen).await;
            trial.cluster.resume(&active)?;
        }
        "passive site silent" => {
            // Nothing is promised to a database whose voters' majority is silent.
            let home = primary(trial)?;
            for name in DATABASES {
                tokio::time::sleep(Duration::from_secs(1)).await;
                bring(trial, name, &home)?;
            }
            let active = ask::active(&trial.cluster, database)?;
            nodes = site(trial, &active, false)?;
            for node in &nodes {
                trial.cluster.pause(node)?;
            }
            work.progress(50, CALM).await?;
            for node in &nodes {
                trial.cluster.resume(node)?;
            }
        }
        "moved" => {
            let skip = ["--skip", "move-block-time"];
            let end = Instant::now() + CALM;
            while let Err(error) =
                trial.cluster.dagctl(["db", "move", database].into_iter().chain(skip))
            {
                // A slow moment of the machine may have called an election.
                let passing = error.to_string().contains("mounted nowhere");
                ensure!(passing && Instant::now() < end, error);
                ask::active(&trial.cluster, database)?;
            }
        }
        "node drained" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            trial.cluster.dagctl(["node", "drain", active.as_str(), "--reason", "a bad year"])?;
            work.progress(30, CALM).await?;
            trial.cluster.dagctl(["node", "undrain", active.as_str()])?;
        }
        "moved to another site" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let other = site(trial, &active, false)?;
            let other = other.first().context("there is another site")?;
            let other = site_of(&ask::status(&trial.cluster)?, other)?;
            trial.cluster.dagctl(["db", "move", database, "--to-site", other.as_str()])?;
        }
        _ => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            trial.cluster.dagctl(["db", "rebalance", "--reason", "a bad year"])?;
        }
    }
    work.progress(30, CALM).await?;
    trial.fault(kind, &nodes, from, Some(now()))
}

/// Makes a database active in a site, with its voters; it may be there already.
fn bring(trial: &Trial, database: &str, home: &str) -> anyhow::Result<()> {
    let skip = ["--skip", "move-block-time"];
    let command = ["db", "move", database, "--to-site", home].into_iter().chain(skip);
    let active = ask::active(&trial.cluster, database)?;
    if site_of(&ask::status(&trial.cluster)?, &active)? != home {
        trial.cluster.dagctl(command)?;
    }
    Ok(())
}

/// The site of the first node.
fn primary(trial: &Trial) -> anyhow::Result<String> {
    site_of(&ask::status(&trial.cluster)?, "a1")
}

async fn kill(trial: &mut Trial, work: &Work, node: &str) -> anyhow::Result<()> {
    trial.cluster.kill(node)?;
    work.progress(50, CALM).await?;
    trial.cluster.restart(&[node.to_owned()]).await
}

/// The data nodes of a node's own site, or those of the other one.
fn site(trial: &Trial, node: &str, own: bool) -> anyhow::Result<Vec<String>> {
    let status = ask::status(&trial.cluster)?;
    let home = site_of(&status, node)?;
    let nodes = status["nodes"].as_array().context("a status has nodes")?;
    let wanted = nodes.iter().filter(|known| {
        known["witness"] == false && (known["site"].as_str() == Some(&home)) == own
    });
    Ok(wanted.filter_map(|known| known["name"].as_str()).map(str::to_owned).collect())
}

fn site_of(status: &serde_json::Value, node: &str) -> anyhow::Result<String> {
    let nodes = status["nodes"].as_array().context("a status has nodes")?;
    let found = nodes.iter().find(|known| known["name"] == node);
    let site = found.and_then(|known| known["site"].as_str());
    Ok(site.with_context(|| format!("{node} has a site"))?.to_owned())
}
