//! The shape of a cluster: what one folder below `cluster-configs/` describes.
//!
//! `dag.toml` defines the DAG (sites, nodes, timeouts); beside it stands one settings file per
//! node, `NODE.toml`. The runner of local clusters changes only what belongs to the machine: every
//! text that is an address of a node gets the claimed range, and `root` the cluster's own folder.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::subnet::Subnet;

/// The definition of a DAG, from which `dagctl dag create` makes it. Used once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DagFile {
    /// What people call the DAG.
    pub name: String,
    /// The timeouts of its Raft groups.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Its sites, in the order of preference.
    pub sites: Vec<SiteEntry>,
    /// Its nodes with mailbox data.
    pub nodes: Vec<NodeEntry>,
    /// A voter without mailbox data, in a third place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<NodeEntry>,
}

/// How fast the groups notice a lost leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timeouts {
    /// Nodes in one rack: heartbeat 20 ms, election 80 to 160 ms.
    Fast,
    /// Nodes in one site: heartbeat 150 ms, election 600 to 1200 ms.
    #[default]
    Default,
    /// Voters in several sites: heartbeat 300 ms, election 1000 to 2000 ms.
    Wan,
}

impl Timeouts {
    /// As it is written in `dag.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Default => "default",
            Self::Wan => "wan",
        }
    }
}

/// A place whose nodes are lost together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteEntry {
    /// What people call it.
    pub name: String,
}

/// A node of the DAG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeEntry {
    /// Its number, the same as in its own settings; 1 and above.
    pub id: u64,
    /// What people call it.
    pub name: String,
    /// The site it stands in. A witness may name a place that is no site.
    pub site: String,
    /// Where the other nodes reach it.
    pub peers: SocketAddr,
    /// Where mail front ends reach it.
    pub clients: SocketAddr,
    /// Where operators reach it.
    pub admin: SocketAddr,
}

impl NodeEntry {
    /// Its three addresses.
    pub fn addresses(&self) -> [SocketAddr; 3] {
        [self.peers, self.clients, self.admin]
    }
}

impl DagFile {
    /// Reads a definition and checks it.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let dag: Self =
            toml::from_str(&text).with_context(|| format!("read {}", file.display()))?;
        let problems = dag.problems();
        ensure!(problems.is_empty(), "{}: {}", file.display(), problems.join("; "));
        Ok(dag)
    }

    /// The nodes with data, and then the witness.
    pub fn members(&self) -> impl Iterator<Item = (&NodeEntry, bool)> {
        self.nodes.iter().map(|node| (node, false)).chain(self.witness.iter().map(|w| (w, true)))
    }

    /// Everything that is wrong with the definition, not only the first.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.nodes.is_empty() {
            problems.push("a DAG needs at least one node".to_owned());
        }
        let sites: BTreeSet<_> = self.sites.iter().map(|site| &site.name).collect();
        if sites.len() != self.sites.len() {
            problems.push("two sites have the same name".to_owned());
        }
        for node in self.nodes.iter().filter(|node| !sites.contains(&node.site)) {
            problems
                .push(format!("node {} stands in `{}`, which is no site", node.name, node.site));
        }
        for site in sites.iter().filter(|site| !self.nodes.iter().any(|n| &&n.site == *site)) {
            problems.push(format!("site {site} has no node"));
        }
        let members: Vec<_> = self.members().map(|(node, _)| node).collect();
        for (place, node) in members.iter().enumerate() {
            if node.id == 0 {
                problems.push(format!("node {} has the number 0; numbers begin at 1", node.name));
            }
            for other in &members[..place] {
                problems.extend(clash(node, other));
            }
        }
        problems
    }
}

fn clash(node: &NodeEntry, other: &NodeEntry) -> Vec<String> {
    let mut problems = Vec::new();
    if node.name == other.name {
        problems.push(format!("two nodes have the name {}", node.name));
    }
    if node.id == other.id {
        problems
            .push(format!("nodes {} and {} have the number {}", other.name, node.name, node.id));
    }
    if node.addresses().iter().any(|address| other.addresses().contains(address)) {
        problems.push(format!("nodes {} and {} have the same address", other.name, node.name));
    }
    problems
}

/// A folder of settings: one DAG and a file per node.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Its folder's name.
    pub name: String,
    /// The DAG as the folder defines it.
    pub dag: DagFile,
    /// The settings of each member, in the order of [`DagFile::members`].
    pub settings: Vec<Table>,
}

/// A value that replaces one of a shape's settings: `limits.bytes_in_flight=1MiB`.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The names on the way to the value.
    pub path: Vec<String>,
    /// The new value.
    pub value: Value,
}

impl std::str::FromStr for Setting {
    type Err = anyhow::Error;

    /// The value is read as TOML, and as plain text where it is no TOML.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some((path, value)) = text.split_once('=') else {
            bail!("`{text}` is no setting: write NAME=VALUE, for instance log.level=debug");
        };
        let path: Vec<String> = path.split('.').map(|name| name.trim().to_owned()).collect();
        ensure!(path.iter().all(|name| !name.is_empty()), "`{text}` has an empty name");
        let value = value.trim();
        let parsed = toml::from_str::<Table>(&format!("value = {value}"));
        let value = parsed
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(value.to_owned()));
        Ok(Self { path, value })
    }
}

impl Setting {
    fn apply(&self, settings: &mut Table) -> anyhow::Result<()> {
        let (last, tables) = self.path.split_last().expect("a setting has a name");
        let mut table = settings;
        for name in tables {
            let next = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Some(next) = next.as_table_mut() else {
                bail!("setting {}: `{name}` is no group of settings", self.path.join("."));
            };
            table = next;
        }
        table.insert(last.clone(), self.value.clone());
        Ok(())
    }
}

impl Shape {
    /// Reads a shape from its folder.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let dag = DagFile::read(&folder.join("dag.toml"))?;
        let settings = dag.members().map(|(node, _)| read_table(folder, &node.name));
        let settings = settings.collect::<anyhow::Result<_>>()?;
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Self { name: name.unwrap_or_default(), dag, settings })
    }

    /// The ports on which its nodes listen.
    pub fn ports(&self) -> Vec<u16> {
        let addresses = self.dag.members().flat_map(|(node, _)| node.addresses());
        addresses.map(|address| address.port()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Moves every node to its address in this range: the n-th member gets the n-th address.
    pub fn move_to(&mut self, subnet: Subnet) -> anyhow::Result<()> {
        let hosts: Vec<IpAddr> = self.dag.members().map(|(node, _)| node.admin.ip()).collect();
        ensure!(hosts.len() < 255, "a local cluster has at most 254 nodes");
        let moves: Vec<(IpAddr, IpAddr)> = hosts
            .into_iter()
            .zip(1_u8..)
            .map(|(old, place)| (old, IpAddr::V4(subnet.address(place))))
            .collect();
        for table in &mut self.settings {
            table.iter_mut().for_each(|(_, value)| move_addresses(value, &moves));
        }
        let moved = |address: &mut SocketAddr| {
            if let Some((_, new)) = moves.iter().find(|(old, _)| *old == address.ip()) {
                address.set_ip(*new);
            }
        };
        for node in self.dag.nodes.iter_mut().chain(&mut self.dag.witness) {
            moved(&mut node.peers);
            moved(&mut node.clients);
            moved(&mut node.admin);
        }
        Ok(())
    }

    /// Gives every node a folder below this one as its root.
    pub fn root_at(&mut self, folder: &Path) {
        for ((node, _), table) in self.dag.members().zip(&mut self.settings) {
            let root = folder.join(&node.name).to_string_lossy().into_owned();
            table.insert("root".to_owned(), Value::String(root));
        }
    }

    /// Changes a setting on every node.
    pub fn set(&mut self, setting: &Setting) -> anyhow::Result<()> {
        self.settings.iter_mut().try_for_each(|table| setting.apply(table))
    }

    /// Writes the shape as a folder again.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        write_text(&folder.join("dag.toml"), &toml::to_string(&self.dag)?)?;
        for ((node, _), table) in self.dag.members().zip(&self.settings) {
            write_text(&settings_file(folder, &node.name), &toml::to_string(table)?)?;
        }
        Ok(())
    }
}

/// Where a shape's folder holds the settings of a node.
pub fn settings_file(folder: &Path, node: &str) -> PathBuf {
    folder.join(format!("{node}.toml"))
}

fn read_table(folder: &Path, node: &str) -> anyhow::Result<Table> {
    let file = settings_file(folder, node);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    toml::from_str(&text).with_context(|| format!("read {}", file.display()))
}

fn write_text(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

pub(crate) fn move_addresses(value: &mut Value, moves: &[(IpAddr, IpAddr)]) {
    match value {
        Value::String(text) => {
            if let Ok(mut address) = text.parse::<SocketAddr>()
                && let Some((_, new)) = moves.iter().find(|(old, _)| *old == address.ip())
            {
                address.set_ip(*new);
                *text = address.to_string();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| move_addresses(value, moves)),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| move_addresses(value, moves)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAG: &str = r#"
        name = "small"
        sites = [{ name = "alpha" }]
        nodes = [
            { id = 1, name = "a1", site = "alpha", peers = "127.20.0.1:7401", clients = "127.20.0.1:7402", admin = "127.20.0.1:7403" },
            { id = 2, name = "a2", site = "alpha", peers = "127.20.0.2:7401", clients = "127.20.0.2:7402", admin = "127.20.0.2:7403" },
        ]
    "#;

    fn shape() -> Shape {
        let settings = ["127.20.0.1:7402", "127.20.0.2:7402"];
        let settings = settings
            .map(|address| format!("[listen]\nclients = \"{address}\"\n[limits]\nrequests = 5\n"));
        Shape {
            name: "small".into(),
            dag: toml::from_str(DAG).expect("a definition"),
            settings: settings.map(|text| toml::from_str(&text).expect("settings")).into(),
        }
    }

    #[test]
    fn a_moved_shape_has_every_address_in_its_range() {
        let mut shape = shape();
        shape.move_to(Subnet(77, 8)).expect("moved");
        assert_eq!(shape.dag.nodes[1].peers.to_string(), "127.77.8.2:7401");
        assert_eq!(shape.settings[1]["listen"]["clients"].as_str(), Some("127.77.8.2:7402"));
        assert_eq!(shape.dag.problems(), Vec::<String>::new());
    }

    #[test]
    fn a_setting_is_changed_on_every_node_and_read_as_toml() {
        let mut shape = shape();
        shape.set(&"limits.requests=7".parse().expect("a setting")).expect("set");
        shape.set(&"log.level=debug".parse().expect("a setting")).expect("set");
        for table in &shape.settings {
            assert_eq!(table["limits"]["requests"].as_integer(), Some(7));
            assert_eq!(table["log"]["level"].as_str(), Some("debug"));
        }
    }

    #[test]
    fn a_definition_names_all_its_problems_at_once() {
        let mut dag: DagFile = toml::from_str(DAG).expect("a definition");
        dag.nodes[1].id = 1;
        dag.nodes[1].name = "a1".into();
        dag.nodes[1].site = "beta".into();
        let problems = dag.problems().join("; ");
        for expected in ["number 1", "the name a1", "`beta`, which is no site"] {
            assert!(problems.contains(expected), "{problems}");
        }
    }

    #[test]
    fn every_shape_of_this_tree_agrees_with_itself() {
        let folders: Vec<PathBuf> = fs::read_dir(crate::scratch::shapes())
            .expect("the shapes")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_dir())
            .collect();
        assert!(folders.len() >= 5, "{folders:?}");
        for folder in folders {
            let shape = Shape::read(&folder).expect("a shape");
            assert_eq!(shape.dag.name, shape.name);
            for ((node, _), settings) in shape.dag.members().zip(&shape.settings) {
                let listen = |name: &str| settings["listen"][name].as_str().map(str::to_owned);
                assert_eq!(settings["node_id"].as_integer(), Some(node.id as i64), "{}", node.name);
                assert_eq!(settings["name"].as_str(), Some(node.name.as_str()));
                assert_eq!(listen("peers"), Some(node.peers.to_string()), "{}", node.name);
                assert_eq!(listen("clients"), Some(node.clients.to_string()), "{}", node.name);
                assert_eq!(listen("admin"), Some(node.admin.to_string()), "{}", node.name);
            }
        }
    }

    #[test]
    fn an_unknown_key_in_a_definition_is_refused() {
        let text = format!("colour = \"red\"\n{DAG}");
        let error = toml::from_str::<DagFile>(&text).expect_err("unknown key").to_string();
        assert!(error.contains("colour"), "{error}");
    }
}
