//! `cluster.json`: what a local cluster consists of, for the next command that asks.
//!
//! It is replaced by a rename after every change, so that a reader sees the old or the new one.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::process::ProcessName;
use crate::subnet::Subnet;

/// The record's name in the cluster's folder.
pub const FILE: &str = "cluster.json";
const VERSION: u32 = 1;

/// A local cluster as it was left by the last command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The version of this file's form.
    pub version: u32,
    /// The shape it was made from.
    pub shape: String,
    /// Its range of addresses.
    pub subnet: Subnet,
    /// The program of its nodes.
    pub holdfastd: PathBuf,
    /// Whether its nodes speak TLS, with the files of `authority`.
    #[serde(default)]
    pub tls: bool,
    /// The process that it ends with; nobody for one that `dagctl local down` ends.
    pub owner: Option<ProcessName>,
    /// Its nodes, in the order of the shape.
    pub nodes: Vec<NodeRecord>,
}

/// One node of a local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// Its number in the DAG.
    pub id: u64,
    /// Its name in the shape.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Whether it is the witness: a voter without mailbox data.
    pub witness: bool,
    /// Where the other nodes reach it.
    pub peers: SocketAddr,
    /// Where mail front ends reach it.
    pub clients: SocketAddr,
    /// Where operators reach it.
    pub admin: SocketAddr,
    /// Its settings file.
    pub settings: PathBuf,
    /// The folder that holds its data.
    pub folder: PathBuf,
    /// Where its standard output and standard error go.
    pub log: PathBuf,
    /// The process that runs it, or ran it last.
    pub process: Option<ProcessName>,
    /// Whether somebody wants it to run: false after `kill` and before `restart`.
    pub wanted: bool,
}

impl Record {
    /// A record of the present version.
    pub fn new(
        shape: String,
        subnet: Subnet,
        holdfastd: PathBuf,
        owner: Option<ProcessName>,
    ) -> Self {
        let nodes = Vec::new();
        Self { version: VERSION, shape, subnet, holdfastd, tls: false, owner, nodes }
    }

    /// Reads the record of the cluster in this folder.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join(FILE);
        let text = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let record: Self =
            serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))?;
        ensure!(record.version == VERSION, "{} is of another version", file.display());
        Ok(record)
    }

    /// Replaces the record of the cluster in this folder.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let (file, new) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
        let text = serde_json::to_vec_pretty(self)?;
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, &file).with_context(|| format!("write {}", file.display()))
    }
}
