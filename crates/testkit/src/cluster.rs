//! A cluster of real nodes on this machine.
//!
//! The cluster's folder holds everything of it:
//! ```text
//! cluster.json         what runs, see `record`
//! dag.toml             the DAG as `dagctl dag create` is to make it
//! NODE.toml            the settings in use
//! NODE.log             what the node wrote to its standard output and error
//! nodes/NODE/          the node's data
//! tls/                 certificates, where the nodes speak TLS: see `authority`
//! ```
//! A node is ready when it answers `GetNode`; nothing here waits for a fixed time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;

use crate::authority::{self, TlsFiles};
use crate::figures::Figures;
use crate::process::{Lifetime, ProcessName, start};
use crate::record::{FILE, NodeRecord, Record};
use crate::shape::{Setting, Shape, move_addresses, settings_file};
use crate::{ready, subnet};

/// How long a node may take to answer after its start.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may take to end after SIGTERM before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How a cluster is made.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// The folder of the shape.
    pub shape: PathBuf,
    /// The cluster's own folder; made when it is not there, refused when it holds a cluster.
    pub folder: PathBuf,
    /// The folder of the programs, `holdfastd` among them.
    pub bins: PathBuf,
    /// Whether the nodes outlive the process that starts them.
    pub lifetime: Lifetime,
    /// Settings that differ from the shape's, the same on every node.
    pub settings: Vec<Setting>,
    /// Whether the DAG gets other timeouts than the shape's.
    pub timeouts: Option<crate::shape::Timeouts>,
    /// Whether the nodes speak TLS, with certificates made for them.
    pub tls: bool,
}

/// A cluster on this machine, running or not.
#[derive(Debug)]
pub struct LocalCluster {
    folder: PathBuf,
    record: Record,
    /// Children of this process, to be waited for; those of others are known by name only.
    children: Vec<Child>,
    /// The commands that nodes are started through; see [`LocalCluster::start_through`].
    through: BTreeMap<String, Vec<OsString>>,
}

impl LocalCluster {
    /// Makes the cluster and starts its nodes; ready when every node answers.
    pub async fn up(options: UpOptions) -> anyhow::Result<Self> {
        let mut cluster = Self::make(&options)?;
        let names = cluster.names();
        if let Err(error) = cluster.start_all(&names, options.lifetime).await {
            cluster.down()?;
            return Err(error);
        }
        Ok(cluster)
    }

    /// Makes the cluster's folder and claims its addresses; starts nothing.
    pub fn make(options: &UpOptions) -> anyhow::Result<Self> {
        let holdfastd = find_program(&options.bins, "holdfastd")?;
        let mut shape = Shape::read(&options.shape)?;
        fs::create_dir_all(&options.folder)
            .with_context(|| format!("create {}", options.folder.display()))?;
        let folder = options.folder.canonicalize()?;
        ensure!(
            !folder.join(FILE).exists(),
            "there is a cluster in {} already; end it with: dagctl local down --folder {}",
            folder.display(),
            folder.display()
        );
        let owner = match options.lifetime {
            Lifetime::WithParent => Some(ProcessName::own()?),
            Lifetime::Detached => None,
        };
        let range = subnet::claim(&folder, owner.as_ref(), &shape.ports())?;
        let fill = || {
            shape.move_to(range)?;
            shape.root_at(&folder.join("nodes"));
            if options.tls {
                secure(&mut shape, &folder)?;
            }
            options.settings.iter().try_for_each(|setting| shape.set(setting))?;
            shape.dag.timeouts = options.timeouts.unwrap_or(shape.dag.timeouts);
            shape.write(&folder)?;
            let mut record = Record::new(shape.name.clone(), range, holdfastd, owner);
            record.tls = options.tls;
            record.nodes = nodes_of(&shape, &folder);
            record.write(&folder)?;
            Ok(Self {
                folder: folder.clone(),
                record,
                children: Vec::new(),
                through: BTreeMap::new(),
            })
        };
        fill().inspect_err(|_: &anyhow::Error| subnet::release(range, &folder))
    }

    /// Adds a machine: settings like those of another node, with a number, a name and an address of its
    /// own, and an empty root. It is started and ended like the others, and belongs to no DAG.
    pub fn add(&mut self, like: &str, name: &str, id: u64) -> anyhow::Result<()> {
        ensure!(
            !self.record.tls,
            "a machine more has no certificate: start the cluster without TLS"
        );
        ensure!(self.node(name).is_err(), "there is a node {name} already");
        let model = self.node(like)?.clone();
        let place = u8::try_from(self.record.nodes.len() + 1).context("at most 254 nodes")?;
        let host = IpAddr::V4(self.record.subnet.address(place));
        let text = fs::read_to_string(&model.settings)?;
        let mut settings = toml::Value::Table(toml::from_str(&text)?);
        move_addresses(&mut settings, &[(model.admin.ip(), host)]);
        let folder = self.folder.join("nodes").join(name);
        let table = settings.as_table_mut().context("settings are a table")?;
        table.insert("node_id".into(), toml::Value::Integer(id.try_into()?));
        table.insert("name".into(), toml::Value::String(name.to_owned()));
        let root = folder.to_string_lossy().into_owned();
        table.insert("root".into(), toml::Value::String(root));
        let file = settings_file(&self.folder, name);
        fs::write(&file, toml::to_string(table)?)
            .with_context(|| format!("write {}", file.display()))?;
        let moved = |address: SocketAddr| SocketAddr::new(host, address.port());
        self.record.nodes.push(NodeRecord {
            id,
            name: name.to_owned(),
            peers: moved(model.peers),
            clients: moved(model.clients),
            admin: moved(model.admin),
            settings: file,
            folder,
            log: self.folder.join(format!("{name}.log")),
            process: None,
            wanted: false,
            ..model
        });
        self.record.write(&self.folder)
    }

    /// Opens the cluster in this folder, which another process may have started.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        ensure!(
            folder.join(FILE).exists(),
            "there is no cluster in {}; start one with: dagctl local up three-node --folder {}",
            folder.display(),
            folder.display()
        );
        let folder = folder.canonicalize()?;
        Ok(Self {
            record: Record::read(&folder)?,
            folder,
            children: Vec::new(),
            through: BTreeMap::new(),
        })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What its operator shows and trusts; none where its nodes speak without TLS.
    pub fn operator(&self) -> Option<TlsFiles> {
        self.record.tls.then(|| TlsFiles::of(&self.folder, authority::OPERATOR))
    }

    /// The definition for `dagctl dag create`.
    pub fn dag_file(&self) -> PathBuf {
        self.folder.join("dag.toml")
    }

    /// What is on record of it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its nodes, in the order of the shape.
    pub fn nodes(&self) -> &[NodeRecord] {
        &self.record.nodes
    }

    /// The names of its nodes.
    pub fn names(&self) -> Vec<String> {
        self.nodes().iter().map(|node| node.name.clone()).collect()
    }

    /// The node of this name, or an error that says which there are.
    pub fn node(&self, name: &str) -> anyhow::Result<&NodeRecord> {
        let found = self.nodes().iter().find(|node| node.name == name);
        found.with_context(|| format!("no node `{name}`; there are {}", self.names().join(", ")))
    }

    /// Its node of this number.
    pub fn node_by_id(&self, id: u64) -> anyhow::Result<&NodeRecord> {
        let found = self.nodes().iter().find(|node| node.id == id);
        found.with_context(|| format!("no node has the number {id}"))
    }

    /// Whether the node's process runs (paused counts).
    pub fn is_running(&self, name: &str) -> anyhow::Result<bool> {
        Ok(self.node(name)?.process.as_ref().is_some_and(ProcessName::is_alive))
    }

    /// Starts the nodes of these names that do not run, and waits until they answer.
    pub async fn start_all(&mut self, names: &[String], lifetime: Lifetime) -> anyhow::Result<()> {
        self.launch(names, lifetime)?;
        self.wait_ready(names).await
    }

    /// Starts a node and waits until it answers.
    pub async fn start(&mut self, name: &str, lifetime: Lifetime) -> anyhow::Result<()> {
        self.start_all(&[name.to_owned()], lifetime).await
    }

    /// Starts the nodes of these names that do not run, without waiting for an answer.
    pub fn launch(&mut self, names: &[String], lifetime: Lifetime) -> anyhow::Result<()> {
        for name in names {
            if self.is_running(name)? {
                continue;
            }
            let node = self.node(name)?;
            let through = self.through.get(name).map_or(&[][..], Vec::as_slice);
            let mut child = launch(&self.record.holdfastd, node, through)
                .and_then(|command| Ok(start(command, lifetime)?))
                .with_context(|| format!("start node {name}"))?;
            let process = ProcessName::of(child.id(), &self.record.holdfastd)?;
            // Until the command has executed the program, it is another process by its name.
            while !process.is_alive() && child.try_wait()?.is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.children.push(child);
            let node = self.node_mut(name);
            (node.process, node.wanted) = (Some(process), true);
            self.record.write(&self.folder)?;
        }
        Ok(())
    }

    /// From now on this node's program is handed to a command, which executes it in its own place:
    /// `nsenter`, or a shell that sets a limit first.
    pub fn start_through(&mut self, name: &str, command: Vec<OsString>) {
        self.through.insert(name.to_owned(), command);
    }

    /// Waits until each of these nodes answers; names the one that ended instead, and shows the
    /// end of its log.
    pub async fn wait_ready(&self, names: &[String]) -> anyhow::Result<()> {
        let end = Instant::now() + READY_WITHIN;
        let tls = self.operator().map(|files| files.client()).transpose()?;
        for name in names {
            let node = self.node(name)?;
            while !ready::answers(node.admin, tls.as_ref()).await {
                if !self.is_running(name)? {
                    bail!("node {name} ended at its start; it wrote:\n{}", self.log_tail(name)?);
                }
                if Instant::now() > end {
                    bail!("node {name} does not answer; it wrote:\n{}", self.log_tail(name)?);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Kills a node with SIGKILL and waits until it is gone.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.kill_all(&[name.to_owned()])
    }

    /// Kills these nodes with SIGKILL at the same moment, and waits until they are gone.
    pub fn kill_all(&mut self, names: &[String]) -> anyhow::Result<()> {
        for name in names {
            self.signal(name, Signal::KILL)?;
        }
        for name in names {
            self.await_end(name, Duration::from_secs(30))?;
            self.node_mut(name).wanted = false;
        }
        self.record.write(&self.folder)
    }

    /// Asks a node to stop with SIGTERM; kills it when it takes too long. Says whether it stopped
    /// by itself.
    pub fn stop(&mut self, name: &str) -> anyhow::Result<bool> {
        // A paused process would not see the request.
        self.signal(name, Signal::CONT)?;
        self.signal(name, Signal::TERM)?;
        let by_itself = self.await_end(name, STOP_WITHIN).is_ok();
        if !by_itself {
            self.signal(name, Signal::KILL)?;
            self.await_end(name, Duration::from_secs(30))?;
        }
        self.node_mut(name).wanted = false;
        self.record.write(&self.folder)?;
        Ok(by_itself)
    }

    /// Stops a node's process where it stands (SIGSTOP).
    pub fn pause(&self, name: &str) -> anyhow::Result<()> {
        ensure!(self.signal(name, Signal::STOP)?, "node {name} does not run");
        Ok(())
    }

    /// Lets a paused node go on (SIGCONT).
    pub fn resume(&self, name: &str) -> anyhow::Result<()> {
        ensure!(self.signal(name, Signal::CONT)?, "node {name} does not run");
        Ok(())
    }

    /// Ends all nodes, gives the addresses back and forgets the cluster. Its data, settings and
    /// logs stay in the folder.
    pub fn down(&mut self) -> anyhow::Result<()> {
        let names = self.names();
        // All are asked before any is waited for.
        for name in &names {
            self.signal(name, Signal::CONT)?;
            self.signal(name, Signal::TERM)?;
        }
        for name in &names {
            self.stop(name)?;
        }
        self.forget()
    }

    /// Kills all nodes at once and forgets the cluster.
    pub fn destroy(&mut self) -> anyhow::Result<()> {
        let names = self.names();
        self.kill_all(&names)?;
        self.forget()
    }

    fn forget(&self) -> anyhow::Result<()> {
        let file = self.folder.join(FILE);
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        subnet::release(self.record.subnet, &self.folder);
        Ok(())
    }

    /// What the running nodes use, together.
    pub fn figures(&self) -> Figures {
        let processes = self.nodes().iter().filter_map(|node| node.process.as_ref());
        processes.filter_map(|process| Figures::of(process.pid).ok()).sum()
    }

    /// What one node uses.
    pub fn figures_of(&self, name: &str) -> anyhow::Result<Figures> {
        let process = self.node(name)?.process.as_ref().context("it was never started")?;
        Figures::of(process.pid).with_context(|| format!("read the figures of node {name}"))
    }

    /// The last lines that a node wrote.
    pub fn log_tail(&self, name: &str) -> anyhow::Result<String> {
        const BYTES: i64 = 4_096;
        let mut file = File::open(&self.node(name)?.log)?;
        if file.metadata()?.len() > BYTES as u64 {
            file.seek(SeekFrom::End(-BYTES))?;
        }
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }

    fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<bool> {
        match &self.node(name)?.process {
            Some(process) => process.signal(signal).with_context(|| format!("signal node {name}")),
            None => Ok(false),
        }
    }

    fn await_end(&mut self, name: &str, at_most: Duration) -> anyhow::Result<()> {
        let Some(process) = self.node(name)?.process.clone() else { return Ok(()) };
        ensure!(process.wait_gone(at_most), "node {name} (process {}) does not end", process.pid);
        self.children.retain_mut(|child| child.id() != process.pid as u32 || child.wait().is_err());
        Ok(())
    }

    fn node_mut(&mut self, name: &str) -> &mut NodeRecord {
        let found = self.record.nodes.iter_mut().find(|node| node.name == name);
        found.expect("the name was looked up before")
    }
}

/// What a process owns ends with it: nothing of a test's cluster stays behind. Others may open the
/// cluster meanwhile, and close it without harm.
impl Drop for LocalCluster {
    fn drop(&mut self) {
        let owned = self.record.owner.is_some() && self.record.owner == ProcessName::own().ok();
        if owned && self.folder.join(FILE).exists() {
            let _ = self.destroy();
        }
    }
}

/// Finds a program, or says how it is made.
pub fn find_program(bins: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let file = bins.join(name);
    file.canonicalize().with_context(|| {
        format!("there is no program {}; build it with: make build", file.display())
    })
}

/// Makes certificates for the nodes, and settings that use them.
fn secure(shape: &mut Shape, folder: &Path) -> anyhow::Result<()> {
    let nodes: Vec<_> = shape.dag.members().map(|(node, _)| node.clone()).collect();
    let addresses = nodes.iter().map(|node| {
        let mut all = node.addresses().map(|address| address.ip()).to_vec();
        all.dedup();
        (node.name.as_str(), all)
    });
    authority::provide(folder, addresses)?;
    for (node, settings) in nodes.iter().zip(&mut shape.settings) {
        let files = TlsFiles::of(folder, &node.name);
        let text = |path: PathBuf| toml::Value::String(path.to_string_lossy().into_owned());
        let table = settings.entry("tls").or_insert_with(|| toml::Table::new().into());
        let table = table.as_table_mut().context("the setting `tls` is no group of settings")?;
        table.insert("authority".into(), text(files.authority));
        table.insert("certificate".into(), text(files.certificate));
        table.insert("key".into(), text(files.key));
    }
    Ok(())
}

fn nodes_of(shape: &Shape, folder: &Path) -> Vec<NodeRecord> {
    let members = shape.dag.members();
    members
        .map(|(node, witness)| NodeRecord {
            id: node.id,
            name: node.name.clone(),
            site: node.site.clone(),
            witness,
            peers: node.peers,
            clients: node.clients,
            admin: node.admin,
            settings: settings_file(folder, &node.name),
            folder: folder.join("nodes").join(&node.name),
            log: folder.join(format!("{}.log", node.name)),
            process: None,
            wanted: false,
        })
        .collect()
}

fn launch(holdfastd: &Path, node: &NodeRecord, through: &[OsString]) -> anyhow::Result<Command> {
    fs::create_dir_all(&node.folder)?;
    let log = OpenOptions::new().create(true).append(true).open(&node.log)?;
    let mut words = through.iter().map(OsString::as_os_str).chain([holdfastd.as_os_str()]);
    let mut command = Command::new(words.next().expect("the program itself is one of them"));
    command.args(words).arg("--settings").arg(&node.settings).stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    Ok(command)
}
