//! The cluster that is measured, and where its databases are active.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dag_api::admin::v1::dag_admin_service_client::DagAdminServiceClient;
use dag_api::admin::v1::{GetStatusRequest, GetStatusResponse};
use dag_api::mailbox::v1::Recipient;
use dag_client::{Client, Options};
use dag_types::DatabaseId;
use tempfile::TempDir;
use testkit::scratch::bins;
use testkit::shape::{Setting, Timeouts};
use testkit::{Lifetime, LocalCluster, UpOptions};
use tonic::transport::{Channel, Endpoint};

/// A cluster with databases and mailboxes, on the disk that is measured.
pub struct Arena {
    /// The nodes.
    pub cluster: LocalCluster,
    /// The databases, in the order of their creation.
    pub databases: Vec<Target>,
    bins: std::path::PathBuf,
    // Removed after the cluster's processes are gone: fields are dropped in their order.
    _folder: TempDir,
}

/// A database to deliver into.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its number.
    pub database: u64,
    /// Mailboxes in it.
    pub mailboxes: Vec<Recipient>,
}

impl Arena {
    /// A cluster of a shape, so many databases, so many mailboxes in each.
    pub async fn up(
        folder: &Path,
        shape: &str,
        timeouts: Timeouts,
        databases: usize,
        mailboxes: usize,
    ) -> anyhow::Result<Self> {
        Self::up_on(folder, shape, timeouts, databases, mailboxes, None).await
    }

    /// The same, with the copies of all databases on these nodes, the preferred one first.
    pub async fn up_on(
        folder: &Path,
        shape: &str,
        timeouts: Timeouts,
        databases: usize,
        mailboxes: usize,
        copies: Option<&str>,
    ) -> anyhow::Result<Self> {
        Self::up_as(folder, shape, timeouts, (databases, mailboxes, copies), Vec::new()).await
    }

    /// The same as [`up`](Self::up), with further settings for all nodes.
    pub async fn up_with(
        folder: &Path,
        shape: &str,
        timeouts: Timeouts,
        databases: usize,
        mailboxes: usize,
        settings: Vec<Setting>,
    ) -> anyhow::Result<Self> {
        Self::up_as(folder, shape, timeouts, (databases, mailboxes, None), settings).await
    }

    async fn up_as(
        folder: &Path,
        shape: &str,
        timeouts: Timeouts,
        (databases, mailboxes, copies): (usize, usize, Option<&str>),
        mut settings: Vec<Setting>,
    ) -> anyhow::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("cluster-").tempdir_in(folder)?;
        let bins = bins()?;
        settings.push("log_level=warn".parse()?);
        let cluster = LocalCluster::up(UpOptions {
            shape: testkit::scratch::shapes().join(shape),
            folder: scratch.path().to_path_buf(),
            bins: bins.clone(),
            lifetime: Lifetime::WithParent,
            settings,
            timeouts: Some(timeouts),
            tls: false,
        })
        .await?;
        let mut arena = Self { cluster, databases: Vec::new(), bins, _folder: scratch };
        arena.without_journal().await?;
        arena.dagctl(&["dag", "create"])?;
        let names: Vec<String> = (1..=databases).map(|number| format!("DB{number}")).collect();
        for name in &names {
            let words = ["db", "create", name.as_str()].into_iter();
            let placed = copies.into_iter().flat_map(|copies| ["--copies", copies]);
            arena.dagctl(&words.chain(placed).collect::<Vec<_>>())?;
        }
        arena.wait_mounted(databases, Duration::from_secs(120)).await?;
        arena.make_mailboxes(mailboxes).await?;
        Ok(arena)
    }

    /// A journal is for checkers; no node in service writes one line for each delivery.
    async fn without_journal(&mut self) -> anyhow::Result<()> {
        let names = self.cluster.names();
        for node in self.cluster.nodes() {
            let text = std::fs::read_to_string(&node.settings)?;
            let kept = text.lines().filter(|line| !line.starts_with("journal"));
            std::fs::write(&node.settings, kept.collect::<Vec<_>>().join("\n"))?;
        }
        self.cluster.kill_all(&names)?;
        self.cluster.start_all(&names, Lifetime::WithParent).await
    }

    /// Runs `dagctl` against the cluster.
    pub fn dagctl(&self, words: &[&str]) -> anyhow::Result<String> {
        answer(words, self.command(words).output()?)
    }

    /// The same, while clients go on.
    pub async fn dagctl_beside(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(words);
        answer(words, tokio::task::spawn_blocking(move || command.output()).await??)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.bins.join("dagctl"));
        command.args(words).env("HOLDFAST_CLUSTER", self.cluster.folder());
        command.env_remove("HOLDFAST_NODES");
        command
    }

    async fn make_mailboxes(&mut self, mailboxes: usize) -> anyhow::Result<()> {
        let client = self.client()?;
        let status = self.status().await?;
        for database in status.databases {
            let mut target = Target { database: database.database_id, mailboxes: Vec::new() };
            for number in 0..mailboxes {
                let address = format!("m{number}.{}@example.org", database.database_id);
                let id = format!("make-{address}");
                let place = Some(DatabaseId(database.database_id));
                let made = client.create_mailbox_in(&address, place, id).await?;
                let mailbox_id = made.place.mailbox.to_string();
                target.mailboxes.push(Recipient { mailbox_id, address });
            }
            self.databases.push(target);
        }
        Ok(())
    }

    /// A client as front ends have it.
    pub fn client(&self) -> anyhow::Result<Client> {
        let endpoints = self.cluster.nodes().iter().map(|node| format!("http://{}", node.clients));
        Ok(Client::connect(endpoints, Options::default())?)
    }

    /// The DAG as the node sees it that heard last from a leader.
    pub async fn status(&self) -> anyhow::Result<GetStatusResponse> {
        let mut best: Option<GetStatusResponse> = None;
        for node in self.cluster.nodes() {
            if !self.cluster.is_running(&node.name)? {
                continue;
            }
            let Ok(status) = status_of(&node.admin.to_string()).await else { continue };
            let age =
                |status: &GetStatusResponse| status.age.as_ref().map_or(u64::MAX, |a| a.age_ms);
            if best.as_ref().is_none_or(|best| age(&status) < age(best)) {
                best = Some(status);
            }
        }
        best.context("no node answers")
    }

    /// Waits until so many databases are mounted; says how long that took.
    pub async fn wait_mounted(&self, count: usize, within: Duration) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        loop {
            let status = self.status().await;
            let mounted = status.as_ref().map_or(0, |status| {
                status.databases.iter().filter(|database| database.active_node != 0).count()
            });
            if mounted >= count {
                return Ok(begin.elapsed());
            }
            ensure!(begin.elapsed() < within, "{mounted} of {count} databases are mounted");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The name of the node where a database is mounted.
    pub async fn active(&self, database: u64) -> anyhow::Result<String> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            let status = self.status().await?;
            let found = status.databases.iter().find(|known| known.database_id == database);
            if let Some(found) = found.filter(|found| found.active_node != 0) {
                return Ok(self.cluster.node_by_id(found.active_node)?.name.clone());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::bail!("database {database} is mounted nowhere")
    }

    /// A connection to a node's listener for front ends.
    pub async fn channel(&self, node: &str) -> anyhow::Result<Channel> {
        let endpoint =
            Endpoint::from_shared(format!("http://{}", self.cluster.node(node)?.clients))?
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(8 << 20)
                .max_frame_size(256 << 10)
                .tcp_nodelay(true);
        Ok(endpoint.connect().await?)
    }

    /// What the copies are compared for: no figure counts where they differ.
    pub fn verify(&self) -> anyhow::Result<()> {
        self.dagctl(&["db", "verify", "--wait", "60"]).map(|_| ())
    }
}

fn answer(words: &[&str], output: Output) -> anyhow::Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "dagctl {}: {errors}", words.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

async fn status_of(admin: &str) -> anyhow::Result<GetStatusResponse> {
    let endpoint = Endpoint::from_shared(format!("http://{admin}"))?;
    let patience = Duration::from_secs(2);
    let channel = endpoint.connect_timeout(patience).timeout(patience).connect().await?;
    Ok(DagAdminServiceClient::new(channel).get_status(GetStatusRequest {}).await?.into_inner())
}
