//! Databases that lost the majority of their voters: refused too early, formed anew from the best
//! copy, by itself where nothing is lost, through kills, and never served by what was left behind.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::ask;
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work, database_id};
use history::event::Phase;
use serde_json::Value;
use testkit::scratch::{Scratch, ScratchCluster};

const SHAPE: &str = "two-site-witness";

fn names(nodes: &[&str]) -> Vec<String> {
    nodes.iter().map(|node| (*node).to_owned()).collect()
}

fn plan(cluster: &ScratchCluster, database: &str) -> anyhow::Result<(Option<i32>, Value)> {
    let output = cluster.try_dagctl(["db", "reform", database, "--plan", "-o", "json"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let plan = serde_json::from_str(&text).with_context(|| format!("{text} {errors}"))?;
    Ok((output.status.code(), plan))
}

fn check<'a>(plan: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let checks = plan["checks"].as_array().context("checks")?;
    let found = checks.iter().find(|check| check["name"] == name);
    found.with_context(|| format!("no check {name} in {plan:#}"))
}

/// Waits until a plan may be carried out.
fn possible(cluster: &ScratchCluster, database: &str) -> anyhow::Result<Value> {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let last = plan(cluster, database);
        if let Ok((Some(10), plan)) = last {
            return Ok(plan);
        }
        ensure!(Instant::now() < end, "never possible: {last:#?}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn generation(status: &Value, database: &str) -> u64 {
    let mut copies = status["copies"].as_array().into_iter().flatten();
    let mounted = |copy: &&Value| copy["database"] == database && copy["status"] == "Mounted";
    copies.find(mounted).and_then(|copy| copy["generation"].as_u64()).unwrap_or(0)
}

/// What the nodes keep of a database is gone from their disks.
fn wipe_copies(
    cluster: &ScratchCluster,
    database: dag_types::DatabaseId,
    nodes: &[&str],
) -> anyhow::Result<()> {
    for node in nodes {
        let folder = cluster.node(node)?.folder.join("copies").join(database.to_string());
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

fn voters(status: &Value, database: &str) -> usize {
    let copies = status["copies"].as_array().into_iter().flatten();
    copies.filter(|copy| copy["database"] == database && copy["voter"] == true).count()
}

/// Copies of the second generation that count. Where the site in which it is active holds but one of
/// them, that one alone votes.
fn sound(status: &Value, database: &str) -> usize {
    let copies = status["copies"].as_array().into_iter().flatten();
    let ours = copies.filter(|copy| copy["database"] == database && copy["generation"] == 2);
    ours.filter(|copy| copy["status"] == "Mounted" || copy["status"] == "Healthy").count()
}

async fn trial(copies: &str, promise: Promise<'_>) -> anyhow::Result<(Trial, Work)> {
    let cluster = Scratch::shape(SHAPE).formed().await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    cluster.dagctl(["db", "create", "DB1", "--copies", copies])?;
    let trial = Trial::over(cluster, &["DB1"], promise)?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(100, Duration::from_secs(30)).await?;
    Ok((trial, work))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_copies_goes_on_by_itself_under_load_and_nothing_is_lost() -> anyhow::Result<()>
{
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster one_of_two_copies_goes_on_by_itself",
        faults: &["majority lost"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = trial("a1,a2", promise).await?;
    let lost = ask::active(&trial.cluster, "DB1")?;
    trial.phase(Phase::Faults)?;
    let from = now();
    trial.cluster.kill(&lost)?;
    // Nobody asks: after the takeover wait and some seconds it is known that nothing is lost.
    let anew = |status: &Value| generation(status, "DB1") == 2;
    ask::wait_for(&trial.cluster, "generation 2", Duration::from_secs(60), anew)?;
    work.progress(100, Duration::from_secs(30)).await?;
    // What was left behind comes back with its old log, serves nothing, and is built anew.
    trial.cluster.restart(std::slice::from_ref(&lost)).await?;
    let whole = |status: &Value| status["healthy"] == true && voters(status, "DB1") == 2;
    ask::wait_for(&trial.cluster, "two voters again", Duration::from_secs(90), whole)?;
    trial.fault("majority lost", &[lost.clone()], from, Some(now()))?;
    trial.cluster.dagctl(["db", "move", "DB1", "--to", lost.as_str()])?;
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_majority_is_given_up_by_a_plan_that_states_the_loss() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster a_lost_majority_is_given_up_by_a_plan",
        faults: &["majority lost"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = trial("a1,a2,b1", promise).await?;
    let (code, healthy) = plan(&trial.cluster, "DB1")?;
    ensure!(code == Some(4) && check(&healthy, "majority-lost")?["passed"] == false, "{healthy:#}");
    // The third copy has everything when the two others go; who knows that, and how, is not told.
    work.rest().await;
    ask::expect_equal(&trial.cluster, "DB1", 3)?;
    trial.phase(Phase::Faults)?;
    let from = now();
    let database = database_id(&ask::status(&trial.cluster)?, "DB1")?;
    trial.cluster.kill_all(&names(&["a1", "a2"]))?;
    wipe_copies(&trial.cluster, database, &["a1", "a2"])?;
    let led = |status: &Value| {
        let unheard = |node: &Value| node["reachable"] == false;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        status["control_leader"].as_str().is_some_and(|leader| !leader.starts_with('a'))
            && nodes.iter().filter(|node| unheard(node)).count() == 2
    };
    ask::wait_for(&trial.cluster, "they are missed", Duration::from_secs(30), led)?;
    let (code, early) = plan(&trial.cluster, "DB1")?;
    let wait = check(&early, "takeover-wait")?;
    ensure!(code == Some(4) && wait["passed"] == false, "{early:#}");
    let words = wait["value"].as_str().context("words")?;
    ensure!(words.contains(" s left for a1, a2"), "{words}");
    let found = possible(&trial.cluster, "DB1")?;
    ensure!(found["verdict"] == "UNKNOWN" && found["node"] == "b1", "{found:#}");
    // Without the token of the plan that states the loss, nothing happens.
    let unsaid = trial.cluster.try_dagctl(["db", "reform", "DB1"])?;
    let words = String::from_utf8_lossy(&unsaid.stderr).into_owned();
    ensure!(unsaid.status.code() == Some(4) && words.contains("loss-acknowledged"), "{words}");
    let other =
        trial.cluster.try_dagctl(["db", "reform", "DB1", "--apply", "r1-0000000000000000"])?;
    let words = String::from_utf8_lossy(&other.stderr).into_owned();
    ensure!(other.status.code() == Some(4) && words.contains("plan-token"), "{words}");
    ensure!(generation(&ask::status(&trial.cluster)?, "DB1") == 0, "it is mounted nowhere");
    let token = found["token"].as_str().context("a plan has a token")?;
    let command = format!("db reform DB1 --apply {token} --reason burnt --timeout 60");
    let done = ask::json(&trial.cluster, &command)?;
    ensure!(done["formed"] == true, "{done:#}");
    ensure!(generation(&ask::status(&trial.cluster)?, "DB1") == 2);
    work.go_on();
    work.progress(100, Duration::from_secs(60)).await?;
    trial.cluster.restart(&names(&["a1", "a2"])).await?;
    let whole = |status: &Value| status["healthy"] == true && sound(status, "DB1") == 3;
    ask::wait_for(&trial.cluster, "three sound copies again", Duration::from_secs(120), whole)?;
    ask::expect_equal(&trial.cluster, "DB1", 3)?;
    ensure!(ask::active(&trial.cluster, "DB1")? == "b1", "nothing pulls it away");
    work.progress(100, Duration::from_secs(60)).await?;
    trial.fault("majority lost", &names(&["a1", "a2"]), from, Some(now()))?;
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_node_that_answers_with_an_open_gate_is_not_given_up() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape(SHAPE).formed().await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    cluster.dagctl(["db", "create", "DB1", "--copies", "a1,a2,b1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    cluster.kill_all(&names(&["a1", "a2"]))?;
    let found = possible(&cluster, "DB1")?;
    let token = found["token"].as_str().context("a token")?.to_owned();
    // One of them comes back: with it there is a majority, and the plan is of another world.
    cluster.restart(&names(&["a1"])).await?;
    let mounted = |status: &Value| generation(status, "DB1") == 1;
    ask::wait_for(&cluster, "it serves again", Duration::from_secs(60), mounted)?;
    let late = cluster.try_dagctl(["db", "reform", "DB1", "--apply", token.as_str()])?;
    let words = String::from_utf8_lossy(&late.stderr).into_owned();
    ensure!(late.status.code() == Some(4) && words.contains("not-mounted"), "{words}");
    Ok(())
}

/// Kills the control leader, or the node whose copy goes on, once an operation has so many steps.
async fn killed_at(step: usize, leader: bool) -> anyhow::Result<()> {
    let mut cluster = Scratch::shape(SHAPE).formed().await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    cluster.dagctl(["db", "create", "DB1", "--copies", "a1,a2,b1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    cluster.kill_all(&names(&["a1", "a2"]))?;
    let found = possible(&cluster, "DB1")?;
    let token = found["token"].as_str().context("a token")?.to_owned();
    let mut command =
        cluster.command(["db", "reform", "DB1", "--apply", &token, "--timeout", "90"]);
    let mut running = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let known = ask::json(&cluster, "ops list").unwrap_or_default();
        let mut all = known.as_array().into_iter().flatten();
        let steps = all.find(|known| known["kind"] == "ReformDatabase");
        let steps = steps.and_then(|known| known["steps"].as_array()).map_or(0, Vec::len);
        if steps >= step {
            break;
        }
        ensure!(Instant::now() < end, "step {step} is never begun");
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = ask::status(&cluster)?;
    let led = status["control_leader"].as_str().unwrap_or("b2").to_owned();
    let victim = if leader { led } else { "b1".to_owned() };
    cluster.kill(&victim)?;
    // Of five control voters two are dead: the third makes a majority impossible until it is back.
    cluster.restart(std::slice::from_ref(&victim)).await?;
    let anew = |status: &Value| generation(status, "DB1") == 2;
    let formed = ask::wait_for(&cluster, "generation 2", Duration::from_secs(60), anew);
    if formed.is_err() {
        // A restart before the record of the new generation is the end of the operation, and
        // nothing has changed: the same plan again goes through.
        let found = possible(&cluster, "DB1")?;
        let token = found["token"].as_str().context("a token")?.to_owned();
        ask::json(&cluster, &format!("db reform DB1 --apply {token} --timeout 60"))?;
    }
    ask::wait_for(&cluster, "generation 2", Duration::from_secs(30), anew)?;
    drop(running.wait());
    cluster.restart(&names(&["a1", "a2"])).await?;
    let whole = |status: &Value| status["healthy"] == true && sound(status, "DB1") == 3;
    ask::wait_for(&cluster, "three sound copies again", Duration::from_secs(120), whole)?;
    ask::expect_equal(&cluster, "DB1", 3)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reforming_goes_on_when_a_node_is_killed_at_any_step() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    for (step, leader) in [(1, true), (2, true), (1, false), (2, false)] {
        killed_at(step, leader).await.with_context(|| format!("step {step}, leader {leader}"))?;
    }
    Ok(())
}
