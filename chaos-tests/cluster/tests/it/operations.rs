//! Long operations: what becomes of them when their control leader dies, and of two at once.

use std::process::{Child, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use cluster::ask;
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use history::event::Phase;
use serde_json::Value;
use testkit::scratch::{Scratch, ScratchCluster};

/// Databases that a drain has to move, so that it can be met half way.
const MANY: usize = 16;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The newest operation of a kind, as any node knows it.
fn newest(cluster: &ScratchCluster, kind: &str) -> anyhow::Result<Option<Value>> {
    let known = ask::json(cluster, "ops list")?;
    let known = known.as_array().context("operations are a list")?;
    Ok(known.iter().filter(|known| known["kind"] == kind).next_back().cloned())
}

/// Begins a drain and comes back while it is under way.
fn drain_half_way(cluster: &ScratchCluster, node: &str) -> anyhow::Result<Child> {
    for _ in 0..10 {
        let mut draining = ask::begin(cluster, &format!("node drain {node} --timeout 90"))?;
        let before = newest(cluster, "DrainNode")?.map(|known| known["operation"].clone());
        while draining.try_wait()?.is_none() {
            let known = newest(cluster, "DrainNode")?;
            let running = known.is_some_and(|known| {
                known["state"] == "Running" && Some(&known["operation"]) != before.as_ref()
            });
            if running {
                return Ok(draining);
            }
        }
        // It was over too soon; everything goes back, and again.
        cluster.dagctl(["node", "undrain", node])?;
        for number in 1..=MANY {
            let name = format!("DB{number}");
            if ask::active(cluster, &name)? != node {
                cluster.dagctl(["db", "move", name.as_str(), "--to", node])?;
            }
        }
    }
    bail!("ten drains of {MANY} databases were over before anybody could look")
}

async fn drained_without_its_leader(kill: bool) -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let kind = if kill { "control leader killed" } else { "control leader frozen" };
    let promise = Promise {
        reproduce: "cargo test --release -p cluster operations",
        faults: &[kind],
        acknowledged_min: 50,
    };
    let mut trial = Trial::begin(Scratch::shape("three-node"), &["WORK"], promise).await?;
    let leader = ask::control_leader(&trial.cluster)?;
    let others: Vec<String> =
        trial.cluster.names().into_iter().filter(|name| *name != leader).collect();
    // All of them prefer the node that is drained, and it does not lead the control group.
    let order = [others.clone(), vec![leader]].concat().join(",");
    let names: Vec<String> = (1..=MANY).map(|number| format!("DB{number}")).collect();
    let create = ["db", "create", "--copies", order.as_str()].into_iter();
    trial.cluster.dagctl(create.chain(names.iter().map(String::as_str)))?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(100, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let node = others[0].clone();
    let leader = ask::control_leader(&trial.cluster)?;
    ensure!(leader != node, "the control leader changed without a fault");
    let draining = drain_half_way(&trial.cluster, &node)?;
    let from = now();
    match kill {
        true => trial.cluster.kill(&leader)?,
        false => trial.cluster.pause(&leader)?,
    }
    // With one node drained and one gone a single node may serve, so nothing is refused for that
    // and what can move has moved; the operation reaches an end all the same.
    let end = Instant::now() + Duration::from_secs(60);
    let ended = loop {
        let known = newest(&trial.cluster, "DrainNode")?.context("the drain is on record")?;
        if known["ended"].is_string() {
            break known;
        }
        ensure!(Instant::now() < end, "nobody took the drain up: {known:#}");
        std::thread::sleep(Duration::from_millis(100));
    };
    match kill {
        true => trial.cluster.restart(std::slice::from_ref(&leader)).await?,
        false => trial.cluster.resume(&leader)?,
    }
    trial.fault(kind, std::slice::from_ref(&leader), from, Some(now()))?;
    let output = draining.wait_with_output()?;
    ensure!(output.status.code().is_some(), "the drain's own command ends: {}", said(&output));
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    // What was refused while the leader was gone is moved by the same command again.
    trial.cluster.dagctl(["node", "drain", node.as_str(), "--timeout", "60"])?;
    for name in &names {
        ensure!(ask::active(&trial.cluster, name)? != node, "{name} stayed: {ended:#}");
    }
    let known = ask::json(&trial.cluster, "ops list")?;
    for known in known.as_array().context("a list")? {
        ensure!(known["ended"].is_string(), "left behind: {known:#}");
        let steps = known["steps"].as_array().context("steps")?;
        ensure!(steps.iter().all(|step| step["ended"].is_string()), "{known:#}");
    }
    trial.cluster.dagctl(["node", "undrain", node.as_str()])?;
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_whose_control_leader_is_killed_is_taken_up_by_the_next() -> anyhow::Result<()>
{
    drained_without_its_leader(true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_leader_that_wakes_up_repeats_no_step() -> anyhow::Result<()> {
    drained_without_its_leader(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_administrators_cannot_move_one_database_at_once_and_the_same_move_twice_is_refused()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    let mut met = false;
    for _ in 0..20 {
        let active = ask::active(&cluster, "DB1")?;
        let others: Vec<String> =
            cluster.names().into_iter().filter(|name| *name != active).collect();
        let moves =
            others.iter().map(|node| ask::begin(&cluster, &format!("db move DB1 --to {node}")));
        let moves: Vec<Child> = moves.collect::<anyhow::Result<_>>()?;
        let ends: Vec<Output> =
            moves.into_iter().map(Child::wait_with_output).collect::<Result<_, _>>()?;
        ensure!(ends.iter().any(|end| end.status.success()), "one of them moves it: {ends:?}");
        for refused in ends.iter().filter(|end| !end.status.success()) {
            ensure!(refused.status.code() == Some(4), "{}", said(refused));
            met |= said(refused).contains("operation-running");
        }
        ask::wait_healthy(&cluster, Duration::from_secs(30))?;
        if met {
            break;
        }
    }
    ensure!(met, "twenty pairs of moves never met");
    let active = ask::active(&cluster, "DB1")?;
    let again = cluster.try_dagctl(["db", "move", "DB1", "--to", active.as_str()])?;
    let words = said(&again);
    ensure!(again.status.code() == Some(4) && words.contains("not-active-already"), "{words}");
    // An operation that is over is not cancelled, and one that never was is not found.
    let last = newest(&cluster, "MoveDatabase")?.context("a move")?["operation"].to_string();
    cluster.dagctl(["ops", "wait", last.as_str()])?;
    let late = cluster.try_dagctl(["ops", "cancel", last.as_str()])?;
    let words = said(&late);
    ensure!(late.status.code() == Some(4) && words.contains("operation-running"), "{words}");
    let unknown = cluster.try_dagctl(["ops", "wait", "9999"])?;
    ensure!(said(&unknown).contains("There is no operation 9999"), "{}", said(&unknown));
    Ok(())
}

/// Two voters and the leader where the database is active, and one voter where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_moves_to_another_site_with_its_voters_and_back() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster a_database_moves_to_another_site",
        faults: &["moved to another site"],
        acknowledged_min: 50,
    };
    let trial = Trial::begin(Scratch::shape("two-site-witness"), &["DB1"], promise).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(100, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    let (cluster, from) = (&trial.cluster, now());
    let site_of = |status: &Value, node: &str| -> Option<String> {
        let nodes = status["nodes"].as_array()?;
        let found = nodes.iter().find(|known| known["name"] == node)?;
        found["site"].as_str().map(str::to_owned)
    };
    let status = ask::status(cluster)?;
    let before = ask::active(cluster, "DB1")?;
    let home = site_of(&status, &before).context("the active node has a site")?;
    let nodes = status["nodes"].as_array().context("nodes")?;
    let away = nodes.iter().filter(|node| node["witness"] == false);
    let away = away.filter_map(|node| node["site"].as_str()).find(|site| *site != home);
    let away = away.context("there is another site")?.to_owned();
    let planned =
        cluster.try_dagctl(["db", "move", "DB1", "--to-site", away.as_str(), "--plan"])?;
    let words = String::from_utf8_lossy(&planned.stdout).into_owned();
    ensure!(planned.status.code() == Some(10) && words.contains("the voters"), "{words}");
    cluster.dagctl(["db", "move", "DB1", "--to-site", away.as_str()])?;
    let moved = |status: &Value| -> Option<bool> {
        let databases = status["databases"].as_array()?;
        let found = databases.iter().find(|known| known["name"] == "DB1")?;
        let voters = found["voters"].as_array()?;
        let there = voters.iter().filter(|node| {
            node.as_str().and_then(|node| site_of(status, node)).as_deref() == Some(away.as_str())
        });
        let active = site_of(status, found["active"].as_str()?)?;
        Some(active == away && voters.len() == 3 && there.count() == 2)
    };
    let there = |status: &Value| moved(status) == Some(true);
    ask::wait_for(cluster, "two voters and the leader away", Duration::from_secs(10), there)?;
    work.progress(50, Duration::from_secs(30)).await?;
    let back = cluster.try_dagctl(["db", "move", "DB1", "--to-site", home.as_str()])?;
    let words = said(&back);
    ensure!(back.status.code() == Some(4) && words.contains("move-block-time"), "{words}");
    let skipped = ["db", "move", "DB1", "--to-site", home.as_str(), "--skip", "move-block-time"];
    cluster.dagctl(skipped)?;
    ensure!(site_of(&status, &ask::active(cluster, "DB1")?).as_deref() == Some(home.as_str()));
    let unknown = cluster.try_dagctl(["db", "move", "DB1", "--to-site", "nowhere"])?;
    ensure!(said(&unknown).contains("there is no site nowhere"), "{}", said(&unknown));
    trial.fault("moved to another site", &[before], from, Some(now()))?;
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_at_its_maximum_is_not_elected_and_databases_go_back_by_themselves()
-> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let mut cluster = Scratch::shape("three-node").formed().await?;
    let names = cluster.names();
    let [first, second, third] = [&names[0], &names[1], &names[2]];
    let create = |name: &str, order: [&String; 3]| {
        let order = order.map(String::as_str).join(",");
        cluster.dagctl(["db", "create", name, "--copies", order.as_str()])
    };
    create("DB1", [first, second, third])?;
    create("DB2", [second, first, third])?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    for (name, node) in [("DB1", first), ("DB2", second)] {
        if ask::active(&cluster, name)? != *node {
            cluster.dagctl(["db", "move", name, "--to", node.as_str()])?;
        }
    }
    let unknown = cluster.try_dagctl(["node", "limit", "n9", "--maximum-active", "1"])?;
    ensure!(said(&unknown).contains("There is no node `n9`"), "{}", said(&unknown));
    cluster.dagctl(["node", "limit", second.as_str(), "--maximum-active", "1"])?;
    let full = cluster.try_dagctl(["db", "move", "DB1", "--to", second.as_str()])?;
    let words = said(&full);
    ensure!(full.status.code() == Some(4) && words.contains("maximum-active"), "{words}");
    cluster.kill(first)?;
    let elsewhere = |status: &Value| ask::active_in(status, "DB1").as_ref() == Some(third);
    ask::wait_for(&cluster, "the third copy serves", Duration::from_secs(30), elsewhere)?;
    cluster.restart(std::slice::from_ref(first)).await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    // Not at once: the block time counts from when the preferred copy could serve again.
    ensure!(ask::active(&cluster, "DB1")? == *third);
    cluster.dagctl(["dag", "set", "--move-block", "2"])?;
    let back = |status: &Value| ask::active_in(status, "DB1").as_ref() == Some(first);
    ask::wait_for(&cluster, "back on the preferred copy", Duration::from_secs(20), back)?;
    let known = newest(&cluster, "Rebalance")?.context("it is an operation")?;
    ensure!(known["who"].as_str().is_some_and(|who| who.starts_with("node ")), "{known:#}");
    let wrong = cluster.try_dagctl(["dag", "set", "--nag-after", "1"])?;
    ensure!(wrong.status.code() == Some(4) && said(&wrong).contains("nag_after_ms"));
    Ok(())
}

/// A hook that hangs and one that fails are shown, and nothing waits for them.
#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_with_their_operation_and_a_failing_one_blocks_nothing() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let _turn = cluster::turn().await;
    let folder = tempfile::tempdir()?;
    let told = folder.path().join("told");
    let make = |name: &str, body: String| -> anyhow::Result<()> {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
        Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
    };
    make("tell", format!("cat >> {}", told.display()))?;
    make("fail", "echo no such pager >&2; exit 3".into())?;
    make("hang", "exec sleep 60".into())?;
    let setting = format!("hooks=\"{}\"", folder.path().display());
    let mut cluster = Scratch::shape("two-site-witness").set(&setting).formed().await?;
    cluster.dagctl(["db", "create", "DB1"])?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    for hook in ["tell", "fail", "hang", "missing"] {
        cluster.dagctl(["dag", "hook", "add", "database-moved", hook, "--limit", "2"])?;
    }
    cluster.dagctl(["dag", "hook", "add", "gate-closed", "tell"])?;
    let wrong = cluster.try_dagctl(["dag", "hook", "add", "database-moves", "../tell"])?;
    ensure!(wrong.status.code() == Some(4) && said(&wrong).contains("there is no event"));
    let to = ask::passive(&cluster, "DB1")?;
    cluster.dagctl(["db", "move", "DB1", "--to", to.as_str()])?;
    let ended = |cluster: &ScratchCluster| -> anyhow::Result<Vec<Value>> {
        let known = ask::json(cluster, "ops list")?;
        let known = known.as_array().context("a list")?.iter();
        Ok(known.filter(|op| op["kind"] == "Hook" && op["ended"].is_string()).cloned().collect())
    };
    let end = Instant::now() + Duration::from_secs(30);
    let over = loop {
        let over = ended(&cluster)?;
        if over.len() >= 4 {
            break over;
        }
        ensure!(Instant::now() < end, "hooks end: {over:#?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let outcome = |program: &str| {
        let found =
            over.iter().find(|op| op["plan"].as_str().is_some_and(|p| p.starts_with(program)));
        found.map(|op| (op["state"].to_string(), op["outcome"].to_string())).unwrap_or_default()
    };
    ensure!(outcome("tell").0.contains("Done"), "{over:#?}");
    ensure!(outcome("fail").1.contains("no such pager"), "{over:#?}");
    ensure!(outcome("hang").1.contains("killed after 2000 ms"), "{over:#?}");
    ensure!(outcome("missing").0.contains("Failed"), "{over:#?}");
    let text = std::fs::read_to_string(&told)?;
    let first: Value = serde_json::from_str(text.lines().next().context("a line")?)?;
    ensure!(first["event"] == "database-moved" && first["operation"].is_number(), "{text}");
    // The next leader begins nothing twice. With one site silent after a power cut it leads the
    // control group and opens no gate, and a hook tells of each that is closed.
    let all = cluster.names();
    cluster.kill_all(&all)?;
    let some = ["a1", "a2", "w"].map(str::to_owned);
    cluster.restart(&some).await?;
    let end = Instant::now() + Duration::from_secs(30);
    while !std::fs::read_to_string(&told)?.contains("gate-closed") {
        ensure!(Instant::now() < end, "a gate that is closed is told");
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.restart(&["b1", "b2"].map(str::to_owned)).await?;
    ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    let text = std::fs::read_to_string(&told)?;
    let moves = text.lines().filter(|line| line.contains("database-moved")).count();
    ensure!(moves == 1, "{text}");
    Ok(())
}
