//! The runbooks of `docs/runbooks`, command by command. A runbook's test has its name.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::damage::{files_below, find, flip_bit};
use cluster::trial::{Promise, Trial, now};
use cluster::work::{Load, Work};
use cluster::{ask, work};
use history::event::Phase;
use testkit::scratch::Scratch;

use crate::snapshots::{self, ADDRESS, Filed};

async fn under_load(promise: Promise<'_>, databases: &[&str]) -> anyhow::Result<(Trial, Work)> {
    under_load_in("three-node", promise, databases).await
}

async fn under_load_in(
    shape: &str,
    promise: Promise<'_>,
    databases: &[&str],
) -> anyhow::Result<(Trial, Work)> {
    let trial = Trial::begin(Scratch::shape(shape), databases, promise).await?;
    let work = Work::begin(&trial, &Load { mailboxes: 3, ..Load::default() }).await?;
    work.progress(100, Duration::from_secs(30)).await?;
    trial.phase(Phase::Faults)?;
    Ok((trial, work))
}

async fn end_of(trial: Trial, work: Work) -> anyhow::Result<()> {
    trial.phase(Phase::After)?;
    work.progress(100, Duration::from_secs(60)).await?;
    work.stop().await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.judge()
}

#[tokio::test(flavor = "multi_thread")]
async fn planned_switchover() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster planned_switchover",
        faults: &["moved"],
        acknowledged_min: 50,
    };
    let (trial, work) = under_load(promise, &["DB1"]).await?;
    let from = now();
    let (active, target) =
        (ask::active(&trial.cluster, "DB1")?, ask::passive(&trial.cluster, "DB1")?);
    let planned = trial.cluster.try_dagctl([
        "db",
        "move",
        "DB1",
        "--to",
        target.as_str(),
        "--plan",
        "-o",
        "json",
    ])?;
    ensure!(planned.status.code() == Some(10), "{planned:?}");
    let plan: serde_json::Value = serde_json::from_slice(&planned.stdout)?;
    let token = plan["token"].as_str().context("a plan has a token")?.to_owned();
    let moved = ask::json(&trial.cluster, &format!("db move DB1 --to {target} --apply {token}"))?;
    ensure!(moved["moved"] == true, "{moved}");
    ensure!(ask::active(&trial.cluster, "DB1")? == target);
    // The world moved: the same plan again is refused, and so is a move to where it is.
    ask::refused_by_check(
        &trial.cluster,
        &format!("db move DB1 --to {active} --apply {token}"),
        "the world moved",
    )?;
    ask::refused_by_check(
        &trial.cluster,
        &format!("db move DB1 --to {target}"),
        "not-active-already",
    )?;
    let unknown = trial.cluster.try_dagctl(["db", "move", "DB2", "--to", target.as_str()])?;
    let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
    ensure!(!unknown.status.success() && words.contains("perhaps DB1"), "{words}");
    let operations = ask::json(&trial.cluster, "ops list")?;
    ensure!(operations[0]["state"] == "Done", "{operations}");
    work.progress(50, Duration::from_secs(30)).await?;
    trial.fault("moved", &[active, target], from, Some(now()))?;
    end_of(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn node_maintenance() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster node_maintenance",
        faults: &["maintenance"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = under_load(promise, &["DB1", "DB2", "DB3"]).await?;
    let from = now();
    let node = ask::active(&trial.cluster, "DB1")?;
    trial.cluster.dagctl(["node", "drain", node.as_str(), "--reason", "a new disk"])?;
    for database in ["DB1", "DB2", "DB3"] {
        ensure!(ask::active(&trial.cluster, database)? != node, "{database} stayed on {node}");
    }
    ask::refused_by_check(&trial.cluster, &format!("db move DB1 --to {node}"), "node-policy")?;
    ensure!(trial.cluster.stop(&node)?, "{node} stops by itself");
    work.progress(50, Duration::from_secs(30)).await?;
    trial.cluster.restart(std::slice::from_ref(&node)).await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.cluster.dagctl(["node", "undrain", node.as_str()])?;
    trial.cluster.dagctl(["db", "move", "DB1", "--to", node.as_str()])?;
    ensure!(ask::active(&trial.cluster, "DB1")? == node);
    let events = trial.cluster.dagctl(["events"])?;
    ensure!(events.contains("drain") && events.contains("a new disk"), "{events}");
    trial.fault("maintenance", &[node], from, Some(now()))?;
    end_of(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn node_lost() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster node_lost",
        faults: &["node lost"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = under_load(promise, &["DB1"]).await?;
    let lost = ask::active(&trial.cluster, "DB1")?;
    let from = now();
    trial.cluster.kill(&lost)?;
    work.progress(50, Duration::from_secs(30)).await?;
    let served = |status: &serde_json::Value| {
        ask::active_in(status, "DB1").is_some_and(|active| active != lost)
    };
    ask::wait_for(&trial.cluster, "another node serves", Duration::from_secs(30), served)?;
    ask::refused_by_check(&trial.cluster, &format!("db move DB1 --to {lost}"), "reachable")?;
    trial.cluster.restart(std::slice::from_ref(&lost)).await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.fault("node lost", &[lost], from, Some(now()))?;
    end_of(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn witness_lost() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster witness_lost",
        faults: &["witness lost"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = under_load_in("two-site-witness", promise, &["DB1"]).await?;
    let active = ask::active(&trial.cluster, "DB1")?;
    let from = now();
    trial.cluster.kill("w")?;
    work.progress(50, Duration::from_secs(30)).await?;
    let unheard = |status: &serde_json::Value| {
        let nodes = status["nodes"].as_array();
        nodes.is_some_and(|all| all.iter().any(|n| n["name"] == "w" && n["reachable"] == false))
    };
    ask::wait_for(&trial.cluster, "the witness is missed", Duration::from_secs(30), unheard)?;
    // Longer than a lease: gates stay open, because the four others are a majority.
    tokio::time::sleep(Duration::from_secs(9)).await;
    work.progress(50, Duration::from_secs(10)).await?;
    ensure!(ask::active(&trial.cluster, "DB1")? == active, "it did not have to move");
    trial.cluster.restart(&["w".to_owned()]).await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.fault("witness lost", &["w".to_owned()], from, Some(now()))?;
    end_of(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn passive_site_lost() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster passive_site_lost",
        faults: &["passive site lost"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = under_load_in("two-site-witness", promise, &["DB1"]).await?;
    let active = ask::active(&trial.cluster, "DB1")?;
    let lost: Vec<String> = match active.starts_with('a') {
        true => vec!["b1".into(), "b2".into()],
        false => vec!["a1".into(), "a2".into()],
    };
    let from = now();
    trial.cluster.kill_all(&lost)?;
    work.progress(50, Duration::from_secs(10)).await?;
    tokio::time::sleep(Duration::from_secs(9)).await;
    work.progress(50, Duration::from_secs(10)).await?;
    ensure!(ask::active(&trial.cluster, "DB1")? == active, "it did not have to move");
    ask::refused_by_check(&trial.cluster, &format!("db move DB1 --to {}", lost[0]), "reachable")?;
    trial.cluster.restart(&lost).await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.fault("passive site lost", &lost, from, Some(now()))?;
    end_of(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_dag_powered_off() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster whole_dag_powered_off",
        faults: &["whole DAG powered off"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = under_load_in("two-site-witness", promise, &["DB1", "DB2"]).await?;
    let from = now();
    let all = trial.cluster.names();
    trial.cluster.kill_all(&all)?;
    // One data node stays dead: the others are enough, and nobody types anything.
    let dead = "a2".to_owned();
    let rest: Vec<String> = all.iter().filter(|name| **name != dead).cloned().collect();
    trial.cluster.restart(&rest).await?;
    let mounted = |status: &serde_json::Value| {
        ["DB1", "DB2"].iter().all(|name| ask::active_in(status, name).is_some())
    };
    ask::wait_for(&trial.cluster, "all is mounted", Duration::from_secs(30), mounted)?;
    work.progress(50, Duration::from_secs(30)).await?;
    trial.cluster.restart(std::slice::from_ref(&dead)).await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    trial.fault("whole DAG powered off", &all, from, Some(now()))?;
    end_of(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn path_move() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster path_move",
        faults: &["path moved"],
        acknowledged_min: 50,
    };
    let (trial, work) = under_load(promise, &["DB1"]).await?;
    let node = ask::passive(&trial.cluster, "DB1")?;
    let to = trial.cluster.node(&node)?.folder.with_file_name("new-disk").join("db1");
    let command = format!("db move-path DB1 --to {} --node {node}", to.display());
    let planned = ask::json(&trial.cluster, &format!("{command} --plan"))?;
    ensure!(planned["moves"][0]["node"] == node.as_str(), "{planned}");
    ensure!(!to.exists(), "a plan makes nothing");
    let from = now();
    let done = ask::json(&trial.cluster, &format!("{command} --follow"))?;
    ensure!(done["state"] == "Done", "{done}");
    trial.fault("path moved", std::slice::from_ref(&node), from, Some(now()))?;
    ensure!(to.join("OWNER").exists(), "{} says whose it is", to.display());
    let shown = ask::json(&trial.cluster, &format!("ops show {}", done["operation"]))?;
    ensure!(shown["state"] == "Done", "{shown}");
    end_of(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_failed() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster copy_failed",
        faults: &["bit flip"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = under_load(promise, &["DB1"]).await?;
    let victim = ask::passive(&trial.cluster, "DB1")?;
    let from = now();
    trial.cluster.kill(&victim)?;
    let database = cluster::work::database_id(&ask::status(&trial.cluster)?, "DB1")?;
    let copies = trial.cluster.node(&victim)?.folder.join("copies").join(database.to_string());
    let files = files_below(&copies)?;
    let is_log =
        |path: &&std::path::PathBuf| path.parent().is_some_and(|folder| folder.ends_with("log"));
    let mut logs = files.iter().filter(is_log);
    let mail = logs.find_map(|log| Some((log, find(log, b"From: ").ok()??)));
    let (log, at) = mail.context("a log with mail in it")?;
    flip_bit(log, at + 3)?;
    trial.cluster.restart(std::slice::from_ref(&victim)).await?;
    let is = |wanted: &'static str| {
        let victim = victim.clone();
        move |status: &serde_json::Value| {
            ask::copy_status(status, "DB1", &victim).is_some_and(|status| status == wanted)
        }
    };
    ask::wait_for(&trial.cluster, "Failed", Duration::from_secs(30), is("Failed"))?;
    trial.fault("bit flip", std::slice::from_ref(&victim), from, Some(now()))?;
    let command = format!("copy seed DB1@{victim} --limit 100MB/s --follow");
    let done = ask::json(&trial.cluster, &command)?;
    ensure!(done["state"] == "Done", "{done}");
    ask::wait_for(&trial.cluster, "Healthy", Duration::from_secs(30), is("Healthy"))?;
    ask::refused_by_check(&trial.cluster, &format!("copy seed DB1@{victim}"), "copy-not-sound")?;
    let events = trial.cluster.dagctl(["events"])?;
    ensure!(events.contains("admit copy"), "{events}");
    end_of(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn database_reformed() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster database_reformed",
        faults: &["majority lost"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = under_load_in("two-site-witness", promise, &["DB1"]).await?;
    ask::refused_by_check(&trial.cluster, "db reform DB1", "not-mounted")?;
    // The copy that is left has everything: what the verdict may not promise, the test sees to.
    work.rest().await;
    let status = ask::status(&trial.cluster)?;
    let voters = status["copies"]
        .as_array()
        .context("copies")?
        .iter()
        .filter(|copy| copy["database"] == "DB1" && copy["voter"] == true);
    let voters: Vec<String> =
        voters.filter_map(|copy| copy["node"].as_str().map(str::to_owned)).collect();
    let site = &ask::active(&trial.cluster, "DB1")?[..1];
    let (lost, kept): (Vec<String>, Vec<String>) =
        voters.into_iter().partition(|node| node.starts_with(site));
    ensure!(lost.len() == 2 && kept.len() == 1, "{lost:?} {kept:?}");
    ask::expect_equal(&trial.cluster, "DB1", 4)?;
    let from = now();
    trial.cluster.kill_all(&lost)?;
    let end = std::time::Instant::now() + Duration::from_secs(60);
    let plan = loop {
        let planned = trial.cluster.try_dagctl(["db", "reform", "DB1", "--plan", "-o", "json"])?;
        if planned.status.code() == Some(10) {
            break serde_json::from_slice::<serde_json::Value>(&planned.stdout)?;
        }
        ensure!(std::time::Instant::now() < end, "{planned:?}");
        std::thread::sleep(Duration::from_millis(300));
    };
    ensure!(plan["verdict"] == "UNKNOWN", "{plan:#}");
    ask::refused_by_check(&trial.cluster, "db reform DB1", "loss-acknowledged")?;
    let token = plan["token"].as_str().context("a plan has a token")?;
    let command = format!("db reform DB1 --apply {token} --reason fire --timeout 60");
    let done = ask::json(&trial.cluster, &command)?;
    ensure!(done["formed"] == true, "{done:#}");
    work.go_on();
    work.progress(50, Duration::from_secs(60)).await?;
    trial.cluster.restart(&lost).await?;
    ask::wait_healthy(&trial.cluster, Duration::from_secs(120))?;
    let events = trial.cluster.dagctl(["events", "--last", "1000"])?;
    ensure!(events.contains("form database anew") && events.contains("fire"), "{events}");
    trial.fault("majority lost", &lost, from, Some(now()))?;
    end_of(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mailbox_restored() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster mailbox_restored",
        faults: &["moved"],
        acknowledged_min: 50,
    };
    let (trial, work) = under_load(promise, &["DB1"]).await?;
    let filed = Filed::make(&trial.cluster, 120).await?;
    let (id, taken) = snapshots::create(&trial.cluster, "--protect --reason before")?;
    ensure!(taken["node"] != ask::active(&trial.cluster, "DB1")?.as_str(), "{taken}");
    let listed = ask::json(&trial.cluster, "snapshot list DB1")?;
    ensure!(listed["snapshots"][0]["snapshot_id"] == id.as_str(), "{listed}");
    let verified = ask::json(&trial.cluster, &format!("snapshot verify {}", &id[..12]))?;
    ensure!(verified["state"] == "Good", "{verified}");
    filed.destroy().await?;
    let restore = format!("mail restore {ADDRESS} --from-snapshot {id}");
    let (code, words) = snapshots::ended(&trial.cluster, &format!("{restore} --plan"))?;
    ensure!(code == 10 && words.contains("Projects/Äpfel (new)"), "{code}: {words}");
    ensure!(filed.client.mailbox(ADDRESS).await?.messages == 0, "a plan changes nothing");
    // Killed in the middle, several times, and the database fails over while it goes on.
    let (from, mut cut) = (now(), 0);
    for _ in 0..3 {
        let back = snapshots::killed_restore(&trial.cluster, &filed.client, &id).await?;
        cut += u32::from(back < filed.known.len() as u64);
    }
    ensure!(cut > 0, "the restore was always over before it could be killed");
    let (active, target) =
        (ask::active(&trial.cluster, "DB1")?, ask::passive(&trial.cluster, "DB1")?);
    let mut command = trial.cluster.command(restore.split_whitespace());
    let mut running = command.stdout(std::process::Stdio::null()).spawn()?;
    trial.cluster.dagctl(["db", "move", "DB1", "--to", target.as_str()])?;
    ensure!(running.wait()?.success(), "the restore goes on where the database is now");
    trial.fault("moved", &[active, target], from, Some(now()))?;
    filed.check("after kills and a failover").await?;
    let again = ask::json(&trial.cluster, &restore)?;
    ensure!(again["restored"] == 0 && again["folders_made"] == 0, "{again}");
    filed.check("typed again").await?;
    let (code, words) = snapshots::ended(&trial.cluster, &format!("{restore} --plan"))?;
    ensure!(code == 0, "nothing is left to do: {words}");
    // Gone once more within the same day: it comes back once more.
    filed.destroy().await?;
    let below = format!("{restore} --folder Projects --to Projects");
    let part = ask::json(&trial.cluster, &below)?;
    ensure!(part["restored"] == 30, "{part}");
    let once_more = ask::json(&trial.cluster, &restore)?;
    ensure!(once_more["already_there"] == 30, "{once_more}");
    filed.check("destroyed again and restored again").await?;
    end_of(trial, work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_replaced() -> anyhow::Result<()> {
    let _turn = cluster::turn().await;
    let promise = Promise {
        reproduce: "cargo test --release -p cluster disk_replaced",
        faults: &["disk replaced"],
        acknowledged_min: 50,
    };
    let (mut trial, work) = under_load(promise, &["DB1", "DB2"]).await?;
    let node = ask::passive(&trial.cluster, "DB1")?;
    let root = trial.cluster.node(&node)?.folder.clone();
    let other = root.with_file_name(format!("{node}-other-disk"));
    let path = other.join("db1").display().to_string();
    let moved = format!("db move-path DB1 --to {path} --node {node} --follow");
    ensure!(ask::json(&trial.cluster, &moved)?["state"] == "Done");
    ask::wait_healthy(&trial.cluster, Duration::from_secs(60))?;
    let second = work::database_id(&ask::status(&trial.cluster)?, "DB2")?;
    let from = now();
    trial.cluster.kill(&node)?;
    // Both disks are gone, and new ones stand in their place.
    std::fs::remove_dir_all(&other)?;
    std::fs::create_dir(&other)?;
    std::fs::remove_dir_all(root.join("copies").join(second.to_string()))?;
    work.progress(50, Duration::from_secs(60)).await?;
    trial.cluster.restart(std::slice::from_ref(&node)).await?;
    let is = |database: &'static str, wanted: &'static str| {
        let node = node.clone();
        move |status: &serde_json::Value| {
            ask::copy_status(status, database, &node).is_some_and(|status| status == wanted)
        }
    };
    let within = Duration::from_secs(60);
    let status = ask::wait_for(&trial.cluster, "Failed", within, is("DB1", "Failed"))?;
    ensure!(status.to_string().contains("there is no copy in"), "{status:#}");
    // The one below the root comes back by itself; the other one waits for a word.
    ask::wait_for(&trial.cluster, "DB2 is built anew", within, is("DB2", "Healthy"))?;
    let end = std::time::Instant::now() + within;
    loop {
        let operations = ask::json(&trial.cluster, "ops list")?.to_string();
        if operations.contains("OWNER is gone") {
            break;
        }
        ensure!(std::time::Instant::now() < end, "no seed was refused: {operations}");
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(!std::path::Path::new(&path).join("OWNER").exists(), "nothing was built there");
    let reseed = format!("copy reseed DB1@{node} --path {path} --follow");
    let done = ask::json(&trial.cluster, &reseed)?;
    ensure!(done["state"] == "Done", "{done}");
    ask::wait_healthy(&trial.cluster, within)?;
    ensure!(std::path::Path::new(&path).join("OWNER").exists(), "it lies on the new disk");
    for database in ["DB1", "DB2"] {
        ask::expect_equal(&trial.cluster, database, 3)?;
    }
    trial.fault("disk replaced", std::slice::from_ref(&node), from, Some(now()))?;
    end_of(trial, work).await
}
