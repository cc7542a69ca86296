//! A cluster that lives as long as a test: in a temporary folder, killed and removed at its end.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::cluster::{LocalCluster, UpOptions, find_program};
use crate::process::Lifetime;
use crate::shape::{Setting, Timeouts};

/// The variable that names the folder of the programs under test.
pub const BINS: &str = "HOLDFAST_BIN";
/// Set to anything, a test's cluster folder stays where it is.
pub const KEEP: &str = "HOLDFAST_KEEP";

/// The folder of the programs under test. There is no guess: testing an old build unnoticed would
/// be worse than a failure.
pub fn bins() -> anyhow::Result<PathBuf> {
    let Some(folder) = std::env::var_os(BINS).map(PathBuf::from) else {
        bail!(
            "{BINS} is not set: it names the folder of holdfastd and dagctl (`make test` sets it)"
        );
    };
    for program in ["holdfastd", "dagctl"] {
        find_program(&folder, program).with_context(|| format!("{BINS}={}", folder.display()))?;
    }
    Ok(folder)
}

/// The folder of the shapes in this source tree.
pub fn shapes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cluster-configs")
}

/// What a test's cluster is made from.
#[derive(Debug, Clone)]
pub struct Scratch {
    shape: String,
    settings: Vec<Setting>,
    timeouts: Option<Timeouts>,
    tls: bool,
}

impl Scratch {
    /// A cluster of this shape below `cluster-configs/`.
    pub fn shape(shape: &str) -> Self {
        Self { shape: shape.to_owned(), settings: Vec::new(), timeouts: None, tls: false }
    }

    /// Changes a setting on every node: `budget.requests=64`.
    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.parse().expect("a test writes its settings rightly"));
        self
    }

    /// The nodes speak TLS.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Other timeouts than the shape's.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = Some(timeouts);
        self
    }

    /// Starts the nodes; every one answers, and none belongs to a DAG.
    pub async fn up(self) -> anyhow::Result<ScratchCluster> {
        let folder = tempfile::Builder::new().prefix("holdfast-").tempdir()?;
        let bins = bins()?;
        let cluster = LocalCluster::up(UpOptions {
            shape: shapes().join(&self.shape),
            folder: folder.path().to_path_buf(),
            bins: bins.clone(),
            lifetime: Lifetime::WithParent,
            settings: self.settings,
            timeouts: self.timeouts,
            tls: self.tls,
        })
        .await?;
        Ok(ScratchCluster { cluster, bins, folder: Some(folder) })
    }

    /// Starts the nodes and makes the DAG.
    pub async fn formed(self) -> anyhow::Result<ScratchCluster> {
        let cluster = self.up().await?;
        let file = cluster.dag_file();
        cluster.dagctl(["dag".as_ref(), "create".as_ref(), "--from".as_ref(), file.as_os_str()])?;
        Ok(cluster)
    }
}

/// A test's cluster; dropping it ends the nodes and removes the folder.
#[derive(Debug)]
pub struct ScratchCluster {
    cluster: LocalCluster,
    bins: PathBuf,
    folder: Option<TempDir>,
}

impl ScratchCluster {
    /// Runs `dagctl` against this cluster and gives what it wrote to standard output; an error
    /// when it fails, with what it wrote to standard error.
    pub fn dagctl<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<String> {
        let output = self.try_dagctl(arguments)?;
        ensure!(
            output.status.success(),
            "`dagctl` ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `dagctl` against this cluster, whatever comes of it.
    pub fn try_dagctl<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Output> {
        self.command(arguments).output().context("run dagctl")
    }

    /// A `dagctl` command for this cluster, still to be started.
    pub fn command<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(self.bins.join("dagctl"));
        command.args(arguments).env("HOLDFAST_CLUSTER", self.cluster.folder());
        command.env_remove("HOLDFAST_NODES");
        command
    }

    /// Starts nodes again that were killed, and waits until they answer.
    pub async fn restart(&mut self, names: &[String]) -> anyhow::Result<()> {
        self.cluster.start_all(names, Lifetime::WithParent).await
    }

    /// The folder of the programs under test.
    pub fn bins(&self) -> &Path {
        &self.bins
    }
}

impl Deref for ScratchCluster {
    type Target = LocalCluster;
    fn deref(&self) -> &LocalCluster {
        &self.cluster
    }
}

impl DerefMut for ScratchCluster {
    fn deref_mut(&mut self) -> &mut LocalCluster {
        &mut self.cluster
    }
}

/// A failed test shows the ends of its nodes' logs. One that fails with an error instead of a panic
/// cannot be told from one that passed, so the variable alone decides whether its folder stays.
impl Drop for ScratchCluster {
    fn drop(&mut self) {
        let keep = std::env::var_os(KEEP).is_some();
        if std::thread::panicking() || keep {
            for name in self.cluster.names() {
                let tail = self.cluster.log_tail(&name).unwrap_or_default();
                eprintln!("--- the last lines of node {name}:\n{tail}");
            }
        }
        if keep && let Some(folder) = self.folder.take() {
            eprintln!("--- the cluster's folder stays at {}", folder.keep().display());
        }
    }
}
