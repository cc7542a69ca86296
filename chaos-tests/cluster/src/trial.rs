//! A cluster under test with the history of all that was done to it.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use dag_client::{Client, Options};
use history::event::{CopyDigest, ExpectedCopies, Fault, Line, Phase, Run};
use history::{History, Nanos, Recorder, judge, minimise, timeline};
use testkit::scratch::{Scratch, ScratchCluster};

use crate::ask;

/// The machine's time since its boot, which all its processes share.
pub fn now() -> Nanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A cluster with databases, a recorder, and what the run promises.
pub struct Trial {
    /// The nodes.
    pub cluster: ScratchCluster,
    /// Everything that clients ask and are told.
    pub recorder: Arc<Recorder<Vec<u8>>>,
    databases: Vec<String>,
}

/// What a run promises to have done.
pub struct Promise<'a> {
    /// The command that makes the run again.
    pub reproduce: &'a str,
    /// Kinds of fault that must have happened.
    pub faults: &'a [&'a str],
    /// The fewest acknowledged operations before, during and after them.
    pub acknowledged_min: u64,
}

impl Trial {
    /// Starts a cluster of a shape, makes the DAG and these databases, and waits until all is well.
    pub async fn begin(
        scratch: Scratch,
        databases: &[&str],
        promise: Promise<'_>,
    ) -> anyhow::Result<Self> {
        Self::with(scratch.formed().await?, databases, promise)
    }

    /// The same with a cluster whose DAG is made already.
    pub fn with(
        cluster: ScratchCluster,
        databases: &[&str],
        promise: Promise<'_>,
    ) -> anyhow::Result<Self> {
        for name in databases {
            cluster.dagctl(["db", "create", name])?;
        }
        Self::over(cluster, databases, promise)
    }

    /// The same with databases that are made already.
    pub fn over(
        cluster: ScratchCluster,
        databases: &[&str],
        promise: Promise<'_>,
    ) -> anyhow::Result<Self> {
        let status = ask::wait_healthy(&cluster, Duration::from_secs(60))?;
        let known = status["databases"].as_array().context("a status has databases")?;
        let copies = known.iter().map(|database| ExpectedCopies {
            database: database["database_id"].as_u64().unwrap_or(0),
            copies: database["copies"].as_array().map_or(0, Vec::len),
        });
        let run = Run {
            reproduce: promise.reproduce.to_owned(),
            promised_faults: promise.faults.iter().map(|kind| (*kind).to_owned()).collect(),
            acknowledged_min: promise.acknowledged_min,
            copies: copies.collect(),
            gated: true,
            rejected_activations: Vec::new(),
        };
        let recorder = Arc::new(Recorder::new(Vec::new()));
        recorder.line(&Line::Run(run))?;
        let databases = databases.iter().map(|name| (*name).to_owned()).collect();
        let trial = Self { cluster, recorder, databases };
        trial.phase(Phase::Before)?;
        Ok(trial)
    }

    /// A client that gives an operation up after this time.
    pub fn client(&self, patience: Duration) -> anyhow::Result<Client> {
        client(&self.cluster, patience)
    }

    /// The names of the databases.
    pub fn databases(&self) -> &[String] {
        &self.databases
    }

    /// A part of the run begins.
    pub fn phase(&self, phase: Phase) -> anyhow::Result<()> {
        Ok(self.recorder.line(&Line::Phase { at: now(), phase })?)
    }

    /// A fault that happened to these nodes.
    pub fn fault(
        &self,
        kind: &str,
        nodes: &[String],
        from: Nanos,
        to: Option<Nanos>,
    ) -> anyhow::Result<()> {
        let nodes = nodes.iter().map(|name| Ok(self.cluster.node(name)?.id));
        let fault = Fault {
            kind: kind.to_owned(),
            nodes: nodes.collect::<anyhow::Result<_>>()?,
            from,
            to,
            detail: String::new(),
        };
        Ok(self.recorder.line(&Line::Fault(fault))?)
    }

    /// Compares the copies, gathers what the nodes said about themselves, and judges all of it. The
    /// clients must have ended.
    pub fn judge(self) -> anyhow::Result<()> {
        let status = ask::status(&self.cluster)?;
        for name in &self.databases {
            let known = status["databases"].as_array().context("a status has databases")?;
            let database = known.iter().find(|known| known["name"] == name.as_str());
            let database = database.and_then(|known| known["database_id"].as_u64());
            let (index, digests) = ask::digests(&self.cluster, name)?;
            for copy in digests {
                let digest = copy.digest.context("a copy did not say what it holds")?;
                self.recorder.line(&Line::Digest(CopyDigest {
                    database: database.context("a database has a number")?,
                    replica: copy.replica_id,
                    node: copy.node_id,
                    index,
                    digest,
                }))?;
            }
        }
        let recorder = Arc::into_inner(self.recorder).context("a client still records")?;
        let text = recorder.into_inner()?;
        let mut history = History::read(text.as_slice())?;
        for node in self.cluster.nodes() {
            let journal = node.folder.join("journal.jsonl");
            let file =
                File::open(&journal).with_context(|| format!("open {}", journal.display()))?;
            history.add_journal(BufReader::new(file))?;
        }
        let report = judge(&history);
        eprintln!("{} operations\n{report}", history.operations.len());
        for violation in report.violations() {
            let shown = minimise::minimise(&history, violation);
            eprintln!(
                "{}: {}\n{}",
                violation.rule,
                violation.message,
                timeline::draw(&history, &shown)
            );
        }
        if !report.is_good() && std::env::var_os(testkit::scratch::KEEP).is_some() {
            std::fs::write(self.cluster.folder().join("history.jsonl"), &text)?;
        }
        ensure!(report.is_good(), "the run broke a promise; see above");
        Ok(())
    }
}

/// A client of a cluster that gives an operation up after this time.
pub fn client(cluster: &ScratchCluster, patience: Duration) -> anyhow::Result<Client> {
    let endpoints = cluster.nodes().iter().filter(|node| !node.witness);
    let endpoints = endpoints.map(|node| format!("http://{}", node.clients));
    Ok(Client::connect(endpoints, Options { patience, ..Options::default() })?)
}
