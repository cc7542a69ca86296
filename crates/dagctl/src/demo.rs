//! `dagctl demo`: the whole story in a minute, on this machine, with real processes.
//!
//! Two sites of two nodes and a witness; mails on their way in; the node that serves them killed
//! in the middle; every mail fetched again and compared byte for byte; all copies compared with one
//! another.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dag_client::Client;
use serde::Serialize;
use testkit::{Lifetime, LocalCluster, UpOptions};
use tokio::sync::mpsc;

use crate::admin::Admin;
use crate::command::{dag, db, local, status};
use crate::connect::{connect, failure};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::mail::import::{Import, Progress, Report};
use crate::mail::reader;
use crate::mail::source::{self, Mail};
use crate::output::{Form, bytes};
use crate::target::Target;
use crate::way::Way;

/// What the demonstration does.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Mails to use: a folder, an mbox, a Maildir [default: mails that are generated]
    #[arg(long)]
    mail: Option<PathBuf>,
    /// How many mails are generated
    #[arg(long, default_value_t = 5_000)]
    count: u64,
    /// Where the cluster lives while it runs [default: a temporary folder]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Leave the cluster running at the end
    #[arg(long, requires = "folder")]
    keep: bool,
    /// Folder of the programs [default: that of dagctl itself]
    #[arg(long)]
    bins: Option<PathBuf>,
}

/// What is held in memory for the comparison at the end.
const MAIL_BYTES_MAX: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(120);
const DATABASES: [&str; 2] = ["DB1", "DB2"];
const MAILBOXES: u64 = 8;

/// The times of a demonstration.
#[derive(Debug, Default, Serialize)]
struct Times {
    cluster_up_seconds: f64,
    dag_created_seconds: f64,
    databases_created_seconds: f64,
    import: Report,
    killed_node: String,
    new_active_node: String,
    failover_ms: u64,
    mails_compared: u64,
    bytes_compared: u64,
    compare_seconds: f64,
    node_back_seconds: f64,
    digests_equal: bool,
    total_seconds: f64,
}

/// Runs the demonstration; ends and removes the cluster, whatever happens.
pub async fn run(args: DemoArgs, form: Form) -> Result<(), Failure> {
    let begin = Instant::now();
    let scratch = tempfile::Builder::new().prefix("holdfast-demo-").tempdir()?;
    let folder = args.folder.clone().unwrap_or_else(|| scratch.path().join("cluster"));
    let lifetime = if args.keep { Lifetime::Detached } else { Lifetime::WithParent };
    form.say("A DAG of two sites, two nodes each, and a witness in a third place.");
    let mut cluster = LocalCluster::up(UpOptions {
        shape: local::find_shape("two-site-witness")?,
        folder,
        bins: args.bins.clone().map_or_else(local::own_folder, Ok)?,
        lifetime,
        settings: Vec::new(),
        timeouts: None,
        tls: false,
    })
    .await?;
    let mut times = Times { cluster_up_seconds: begin.elapsed().as_secs_f64(), ..Times::default() };
    let told = Story { args: &args, form, lifetime }.tell(&mut cluster, &mut times).await;
    if told.is_err() {
        for name in cluster.names() {
            let tail = cluster.log_tail(&name).unwrap_or_default();
            let lines: Vec<&str> = tail.lines().rev().take(5).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            form.say(format!("--- the last lines of node {name}:\n{}", lines.join("\n")));
        }
    }
    if !args.keep {
        cluster.down()?;
    }
    told?;
    times.total_seconds = begin.elapsed().as_secs_f64();
    form.print(&times, summary)
}

struct Story<'a> {
    args: &'a DemoArgs,
    form: Form,
    lifetime: Lifetime,
}

impl Story<'_> {
    async fn tell(&self, cluster: &mut LocalCluster, times: &mut Times) -> Result<(), Failure> {
        let admin = Admin::new(Target::of(cluster)?, PATIENCE);
        self.form(cluster, &admin, times).await?;
        let client = connect(&admin, PATIENCE).await?;
        create_mailboxes(&client, &admin).await?;
        let mails = self.mails()?;
        self.deliver(cluster, &admin, &client, &mails, times).await?;
        self.compare(&client, &mails, times).await?;
        self.bring_back(cluster, times).await?;
        self.verify(&admin, times).await?;
        status::wait_healthy(&admin, PATIENCE).await?;
        // Programs get the summary alone.
        let shown = status::shown(&admin.get_status().await?);
        self.form.say(format!("\n{}", status::show(&shown)));
        Ok(())
    }

    async fn form(
        &self,
        cluster: &LocalCluster,
        admin: &Admin,
        times: &mut Times,
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        dag::create(&cluster.dag_file(), &Way::default(), PATIENCE, Form::Quiet).await?;
        times.dag_created_seconds = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        for name in DATABASES {
            db::create_one(name, &[], admin).await?;
        }
        times.databases_created_seconds = begin.elapsed().as_secs_f64();
        db::await_mounted(&DATABASES, admin, PATIENCE).await?;
        status::wait_healthy(admin, PATIENCE).await?;
        self.form.say(format!(
            "DAG created in {:.1} s, databases {} in {:.1} s.",
            times.dag_created_seconds,
            DATABASES.join(" and "),
            times.databases_created_seconds
        ));
        Ok(())
    }

    fn mails(&self) -> Result<Vec<Mail>, Failure> {
        let Some(path) = &self.args.mail else {
            let mail = |number| {
                let content = testkit::mail::mixed(number);
                Mail {
                    origin: format!("generated mail {number}"),
                    weight: content.len() as u64,
                    content,
                }
            };
            return Ok((0..self.args.count).map(mail).collect());
        };
        let files = source::files(std::slice::from_ref(path), source::Kind::Auto)?;
        let size: u64 = files.iter().map(|file| file.size).sum();
        if size > MAIL_BYTES_MAX {
            return Err(Failure::new(
                Exit::Failed,
                "Cannot use these mails for the demonstration.",
            )
            .why(format!(
                "{} has {}; the demonstration compares at most {}",
                path.display(),
                bytes(size),
                bytes(MAIL_BYTES_MAX)
            ))
            .next("dagctl mail import    (has no such limit)"));
        }
        let mut mails = Vec::new();
        for file in files {
            file.read(|mail| {
                mails.push(mail);
                true
            })?;
        }
        Ok(mails)
    }

    /// Delivers all mails; when a third is in, kills the node that serves the first database.
    async fn deliver(
        &self,
        cluster: &mut LocalCluster,
        admin: &Admin,
        client: &Client,
        mails: &[Mail],
        times: &mut Times,
    ) -> Result<(), Failure> {
        let victim = active_of(DATABASES[0], admin).await?;
        let size: u64 = mails.iter().map(|mail| mail.weight).sum();
        self.form.say(format!(
            "{} mails ({}) are on their way into {MAILBOXES} mailboxes; node {victim} serves {}.",
            mails.len(),
            bytes(size),
            DATABASES[0]
        ));
        let killing_at = mails.len() as u64 / 3;
        let (kill, killed) = (AtomicBool::new(false), Mutex::new(None));
        let cluster = Mutex::new(cluster);
        let acknowledged = |count: u64| {
            if count >= killing_at && !kill.swap(true, Ordering::Relaxed) {
                let done = cluster.lock().expect("one at a time").kill(&victim);
                *killed.lock().expect("one at a time") = Some((Instant::now(), done));
            }
        };
        let import = Import {
            client,
            in_flight: 64,
            recipient: &|n| address(n % MAILBOXES),
            acknowledged: &acknowledged,
        };
        let progress = Progress::new(size, self.form.is_lively());
        let (sender, receiver) = mpsc::channel(64);
        let feed = async {
            for mail in mails {
                if sender.send(Ok(mail.clone())).await.is_err() {
                    break;
                }
            }
            drop(sender);
        };
        let (report, ()) = tokio::join!(import.run(receiver, &progress), feed);
        times.import = report?;
        times.import.check()?;
        let (_, done) = killed.into_inner().expect("one at a time").ok_or_else(|| {
            Failure::new(Exit::Failed, "There were too few mails to kill a node in the middle.")
        })?;
        done?;
        times.failover_ms = times.import.longest_gap_ms;
        times.new_active_node = active_of(DATABASES[0], admin).await?;
        self.form.say(format!(
            "kill -9 of node {victim} in the middle: the longest pause was {} ms; node {} took {} over.\n\
             {} mails acknowledged in {:.1} s, {:.0} a second.",
            times.failover_ms,
            times.new_active_node,
            DATABASES[0],
            times.import.stored + times.import.already_there,
            times.import.seconds,
            times.import.rate
        ));
        times.killed_node = victim;
        Ok(())
    }

    /// Fetches every mail again. Each original must come back once, byte for byte, and nothing else.
    async fn compare(
        &self,
        client: &Client,
        mails: &[Mail],
        times: &mut Times,
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        let mut expected: HashMap<(String, Bytes), u64> = HashMap::new();
        for (number, mail) in (0..).zip(mails) {
            let content = Bytes::copy_from_slice(&mail.content);
            *expected.entry((address(number % MAILBOXES), content)).or_default() += 1;
        }
        for number in 0..MAILBOXES {
            let address = address(number);
            let inbox = reader::folder(client, &address, None).await?;
            let messages = reader::list(client, &address, &inbox).await?;
            let take = |fetched: dag_client::Fetched| {
                times.mails_compared += 1;
                times.bytes_compared += fetched.content.len() as u64;
                match expected.get_mut(&(address.clone(), fetched.content)) {
                    Some(left) if *left > 0 => {
                        *left -= 1;
                        Ok(())
                    }
                    _ => Err(Failure::new(
                        Exit::Failed,
                        format!(
                            "Message {} of {address} was never sent, or is there twice.",
                            fetched.message.uid
                        ),
                    )),
                }
            };
            reader::fetch_all(client, &address, &inbox, &messages, take).await?;
        }
        let missing: u64 = expected.values().sum();
        if missing > 0 {
            return Err(Failure::new(Exit::Failed, format!("{missing} mails are missing.")));
        }
        times.compare_seconds = begin.elapsed().as_secs_f64();
        self.form.say(format!(
            "All {} mails ({}) came back byte for byte in {:.1} s; none is missing, none is there twice.",
            times.mails_compared,
            bytes(times.bytes_compared),
            times.compare_seconds
        ));
        Ok(())
    }

    async fn bring_back(
        &self,
        cluster: &mut LocalCluster,
        times: &mut Times,
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        cluster.start(&times.killed_node, self.lifetime).await?;
        let admin = Admin::new(Target::of(cluster)?, PATIENCE);
        status::wait_healthy(&admin, PATIENCE).await?;
        times.node_back_seconds = begin.elapsed().as_secs_f64();
        self.form.say(format!(
            "Node {} is back, and its copies are healthy again, after {:.1} s.",
            times.killed_node, times.node_back_seconds
        ));
        Ok(())
    }

    async fn verify(&self, admin: &Admin, times: &mut Times) -> Result<(), Failure> {
        for name in DATABASES {
            let verdict = db::verify_one(name, 30, admin).await?;
            if !verdict.equal {
                return Err(Failure::new(Exit::Unhealthy, format!("The copies of {name} differ."))
                    .next("dagctl db verify"));
            }
            let copies = verdict.copies.len();
            self.form.say(format!(
                "{name}: the content of all {copies} copies is equal at entry {}.",
                verdict.mark_index
            ));
        }
        times.digests_equal = true;
        Ok(())
    }
}

fn address(number: u64) -> String {
    format!("reader{number}@example.org")
}

async fn create_mailboxes(client: &Client, admin: &Admin) -> Result<(), Failure> {
    let status = admin.get_status().await?;
    let databases: Vec<_> = status.databases.iter().map(|db| db.database_id).collect();
    for number in 0..MAILBOXES {
        let database = dag_types::DatabaseId(databases[number as usize % databases.len()]);
        let id = uuid::Uuid::new_v4().to_string();
        let made = client.create_mailbox_in(&address(number), Some(database), id).await;
        made.map_err(|error| failure("Cannot create the mailboxes.", &error))?;
    }
    Ok(())
}

async fn active_of(database: &str, admin: &Admin) -> Result<String, Failure> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let status = admin.get_status().await?;
        let names = crate::names::Names::of(&status);
        let found = status.databases.iter().find(|known| known.name == database);
        if let Some(found) = found.filter(|found| found.active_node != 0) {
            return Ok(names.name(found.active_node));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Failure::new(Exit::Unhealthy, format!("Database {database} is mounted nowhere."))
        .next("dagctl copies"))
}

fn summary(times: &Times) -> String {
    format!(
        "\nDone in {:.1} s: up {:.1} s, DAG {:.1} s, databases {:.1} s, {} mails at {:.0}/s with a pause of {} ms \
         at the kill, all compared in {:.1} s, node back in {:.1} s. Nothing is left behind.",
        times.total_seconds,
        times.cluster_up_seconds,
        times.dag_created_seconds,
        times.databases_created_seconds,
        times.mails_compared,
        times.import.rate,
        times.failover_ms,
        times.compare_seconds,
        times.node_back_seconds,
    )
}
