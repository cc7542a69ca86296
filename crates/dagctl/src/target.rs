//! Which nodes a command speaks to.
//!
//! Named on the command line or in the environment, or those of the local cluster in a folder. One
//! reachable node is enough for everything that only shows.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use testkit::LocalCluster;
use testkit::record::FILE;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::way::{TlsArgs, Way};

/// Where `dagctl local` keeps its cluster unless `--folder` says otherwise.
pub const LOCAL_FOLDER: &str = "data/local";

/// The nodes that a command may ask.
#[derive(Debug, Clone)]
pub struct Target {
    /// Never empty.
    pub nodes: Vec<Known>,
    /// The folder of the local cluster that they belong to.
    pub folder: Option<PathBuf>,
    /// How they are reached.
    pub way: Way,
}

/// A node as the command line knows it, before it has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its number, where a local cluster's record tells it.
    pub id: Option<u64>,
    /// Its name, or else its address.
    pub name: String,
    /// Where it answers operators.
    pub admin: SocketAddr,
    /// Where it answers mail front ends.
    pub clients: SocketAddr,
}

/// How the nodes were named.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TargetArgs {
    /// Nodes to ask, as HOST:PORT of their API, separated by commas
    #[arg(long, global = true, value_delimiter = ',', env = "HOLDFAST_NODES")]
    pub nodes: Vec<SocketAddr>,
    /// Folder of the local cluster to ask [default: data/local]
    #[arg(long, global = true, env = "HOLDFAST_CLUSTER")]
    pub cluster: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsArgs,
}

impl TargetArgs {
    /// Finds the nodes, or says how a cluster is started.
    pub fn resolve(&self) -> Result<Target, Failure> {
        if !self.nodes.is_empty() {
            let known = |address: &SocketAddr| Known {
                id: None,
                name: address.to_string(),
                admin: *address,
                clients: *address,
            };
            let nodes = self.nodes.iter().map(known).collect();
            let way = Way::find(&self.tls, None)?;
            return Ok(Target { nodes, folder: None, way });
        }
        let folder = self.folder();
        if !folder.join(FILE).exists() {
            return Err(nothing_known(&folder));
        }
        let way = Way::find(&self.tls, Some(&folder))?;
        Ok(Target { way, ..Target::of(&LocalCluster::open(&folder)?)? })
    }

    /// The local cluster's folder.
    pub fn folder(&self) -> PathBuf {
        self.cluster.clone().unwrap_or_else(|| LOCAL_FOLDER.into())
    }
}

impl Target {
    /// The nodes of a local cluster.
    pub fn of(cluster: &LocalCluster) -> Result<Self, Failure> {
        let known = cluster.nodes().iter().map(|node| Known {
            id: Some(node.id),
            name: node.name.clone(),
            admin: node.admin,
            clients: node.clients,
        });
        let folder = Some(cluster.folder().to_path_buf());
        Ok(Self { nodes: known.collect(), folder, way: Way::of(cluster)? })
    }

    /// What to do when nobody answers.
    pub fn revive(&self) -> String {
        match &self.folder {
            Some(folder) => format!("dagctl local status --cluster {}", folder.display()),
            None => "check that holdfastd runs there: dagctl status --nodes HOST:PORT".to_owned(),
        }
    }
}

fn nothing_known(folder: &Path) -> Failure {
    Failure::new(Exit::Unreachable, "There is no cluster to speak to.")
        .why(format!(
            "no --nodes and no HOLDFAST_NODES, and no local cluster in {}",
            folder.display()
        ))
        .next("dagctl local up three-node    (or: dagctl --nodes HOST:PORT ...)")
}
