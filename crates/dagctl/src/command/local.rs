//! `dagctl local`: real nodes on this machine, from a shape.

use std::path::{Path, PathBuf};

use dag_api::admin::v1::NodeState;
use serde::Serialize;
use testkit::authority::FOLDER as TLS_FOLDER;
use testkit::record::FILE;
use testkit::shape::{Setting, Timeouts};
use testkit::{Lifetime, LocalCluster, UpOptions};

use crate::admin::get_node;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Form, table};
use crate::target::TargetArgs;
use crate::way::Way;

/// What can be done with a local cluster.
#[derive(Debug, clap::Subcommand)]
pub enum Local {
    /// Start the nodes of a shape: single-node, three-node, two-site, two-site-witness,
    /// many-databases, or a folder
    Up(UpArgs),
    /// End all nodes and give their addresses back
    Down {
        /// Also delete the nodes' data, settings and logs
        #[arg(long)]
        wipe: bool,
    },
    /// Which nodes run, and what they say of themselves
    Status,
    /// Kill nodes with SIGKILL, as a power cut would
    Kill(Nodes),
    /// Start nodes again; those that run are asked to stop first
    Restart(Nodes),
    /// Stop nodes' processes where they stand (SIGSTOP)
    Pause(Nodes),
    /// Let paused nodes go on (SIGCONT)
    Resume(Nodes),
}

/// How a local cluster is started.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// A shape's name, or a folder with dag.toml and a settings file per node
    shape: String,
    /// Folder of the programs [default: that of dagctl itself]
    #[arg(long)]
    bins: Option<PathBuf>,
    /// Change a setting of every node, for instance --set budget.requests=64
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<Setting>,
    /// Raft's timeouts: fast, default or wan [default: the shape's]
    #[arg(long, value_parser = parse_timeouts)]
    timeouts: Option<Timeouts>,
    /// Make certificates for the nodes, and have them speak TLS
    #[arg(long)]
    tls: bool,
}

/// Nodes by name.
#[derive(Debug, clap::Args)]
pub struct Nodes {
    /// Names as `dagctl local status` shows them
    #[arg(required_unless_present = "all")]
    names: Vec<String>,
    /// All nodes at the same moment
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

impl Nodes {
    fn of(&self, cluster: &LocalCluster) -> Result<Vec<String>, Failure> {
        if self.all {
            return Ok(cluster.names());
        }
        for name in &self.names {
            cluster.node(name)?;
        }
        Ok(self.names.clone())
    }
}

/// Reads the name of a set of timeouts.
pub fn parse_timeouts(text: &str) -> Result<Timeouts, String> {
    let all = [Timeouts::Fast, Timeouts::Default, Timeouts::Wan];
    let found = all.into_iter().find(|timeouts| timeouts.name() == text);
    found.ok_or_else(|| "fast, default and wan are known".to_owned())
}

/// A node's line in `local status`.
#[derive(Debug, Serialize)]
struct Line {
    node_id: u64,
    name: String,
    site: String,
    witness: bool,
    process: &'static str,
    pid: Option<i32>,
    clients: String,
    admin: String,
    state: Option<&'static str>,
    message: Option<String>,
}

/// The whole of `local status`.
#[derive(Debug, Serialize)]
struct Shown {
    folder: PathBuf,
    shape: String,
    nodes: Vec<Line>,
}

/// Carries a command out.
pub async fn run(local: Local, target: &TargetArgs, form: Form) -> Result<(), Failure> {
    let folder = target.folder();
    match local {
        Local::Up(args) => up(args, &folder, form).await,
        Local::Down { wipe } => down(&folder, wipe, form),
        Local::Status => status(&open(&folder)?, form).await,
        Local::Kill(nodes) => {
            let mut cluster = open(&folder)?;
            let names = nodes.of(&cluster)?;
            cluster.kill_all(&names)?;
            done(form, "killed", &names)
        }
        Local::Restart(nodes) => restart(&folder, &nodes, form).await,
        Local::Pause(nodes) => each(&folder, &nodes, form, "paused", LocalCluster::pause),
        Local::Resume(nodes) => each(&folder, &nodes, form, "resumed", LocalCluster::resume),
    }
}

async fn up(args: UpArgs, folder: &Path, form: Form) -> Result<(), Failure> {
    if folder.join("nodes").exists() && !folder.join(FILE).exists() {
        return Err(Failure::new(
            Exit::Failed,
            "Cannot start a cluster over the files of another.",
        )
        .why(format!("{} holds what an earlier cluster left", folder.display()))
        .next(format!("dagctl local down --wipe --cluster {}", folder.display())));
    }
    let cluster = LocalCluster::up(UpOptions {
        shape: find_shape(&args.shape)?,
        folder: folder.to_path_buf(),
        bins: args.bins.map_or_else(own_folder, Ok)?,
        lifetime: Lifetime::Detached,
        settings: args.settings,
        timeouts: args.timeouts,
        tls: args.tls,
    })
    .await?;
    status(&cluster, form).await?;
    form.say(format!("\nNext: {}", create_command(&cluster)));
    Ok(())
}

/// The command that makes a DAG of a cluster's nodes.
pub fn create_command(cluster: &LocalCluster) -> String {
    let file = cluster.dag_file();
    let here = std::env::current_dir().ok();
    let near = here.as_ref().and_then(|here| file.strip_prefix(here).ok()).unwrap_or(&file);
    format!("dagctl dag create --from {}", near.display())
}

fn down(folder: &Path, wipe: bool, form: Form) -> Result<(), Failure> {
    let running = folder.join(FILE).exists();
    if running {
        open(folder)?.down()?;
    } else if !(wipe && folder.join("nodes").exists()) {
        return Err(no_cluster(folder));
    }
    if wipe {
        remove(folder)?;
    }
    let text = match (running, wipe) {
        (true, false) => format!("down; data and logs are in {}", folder.display()),
        (true, true) => "down, and nothing is left of it".to_owned(),
        (false, _) => "nothing is left of it".to_owned(),
    };
    form.print(&serde_json::json!({ "folder": folder, "wiped": wipe }), |_| text)
}

/// Removes what a cluster's folder is known to hold, and nothing else.
fn remove(folder: &Path) -> Result<(), Failure> {
    std::fs::remove_dir_all(folder.join("nodes"))?;
    if folder.join(TLS_FOLDER).is_dir() {
        std::fs::remove_dir_all(folder.join(TLS_FOLDER))?;
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let ours = path.extension().is_some_and(|kind| kind == "toml" || kind == "log");
        if ours && path.is_file() {
            std::fs::remove_file(path)?;
        }
    }
    // It stays where somebody put something else into it.
    let _ = std::fs::remove_dir(folder);
    Ok(())
}

async fn restart(folder: &Path, nodes: &Nodes, form: Form) -> Result<(), Failure> {
    let mut cluster = open(folder)?;
    let names = nodes.of(&cluster)?;
    for name in &names {
        if cluster.is_running(name)? {
            cluster.stop(name)?;
        }
    }
    cluster.start_all(&names, Lifetime::Detached).await?;
    done(form, "restarted", &names)
}

fn each(
    folder: &Path,
    nodes: &Nodes,
    form: Form,
    verb: &str,
    act: impl Fn(&LocalCluster, &str) -> anyhow::Result<()>,
) -> Result<(), Failure> {
    let cluster = open(folder)?;
    let names = nodes.of(&cluster)?;
    for name in &names {
        act(&cluster, name)?;
    }
    done(form, verb, &names)
}

fn done(form: Form, verb: &str, names: &[String]) -> Result<(), Failure> {
    form.print(&serde_json::json!({ "nodes": names, "done": verb }), |_| {
        format!("{verb}: {}", names.join(", "))
    })
}

async fn status(cluster: &LocalCluster, form: Form) -> Result<(), Failure> {
    let way = Way::of(cluster)?;
    let mut nodes = Vec::new();
    for node in cluster.nodes() {
        let process = match &node.process {
            Some(process) if process.is_paused() => "paused",
            Some(process) if process.is_alive() => "running",
            Some(_) if node.wanted => "died",
            Some(_) => "killed",
            None => "never started",
        };
        let answer = match process {
            "running" => get_node(&way, node.admin).await.ok(),
            _ => None,
        };
        nodes.push(Line {
            node_id: node.id,
            name: node.name.clone(),
            site: node.site.clone(),
            witness: node.witness,
            process,
            pid: node
                .process
                .as_ref()
                .filter(|_| process == "running" || process == "paused")
                .map(|p| p.pid),
            clients: node.clients.to_string(),
            admin: node.admin.to_string(),
            state: answer.as_ref().map(|answer| state_name(answer.state())),
            message: answer.map(|answer| answer.message),
        });
    }
    let shape = cluster.record().shape.clone();
    form.print(&Shown { folder: cluster.folder().to_path_buf(), shape, nodes }, show)
}

/// A node's state in the words of the API.
pub fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Unspecified => "UNKNOWN",
        NodeState::Unprovisioned => "UNPROVISIONED",
        NodeState::Prepared => "PREPARED",
        NodeState::Member => "MEMBER",
    }
}

fn show(shown: &Shown) -> String {
    let rows = shown.nodes.iter().map(|line| {
        [
            line.name.clone(),
            line.node_id.to_string(),
            line.site.clone(),
            line.process.to_owned(),
            line.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            line.admin.clone(),
            line.state.unwrap_or("-").to_owned(),
        ]
    });
    let heads = ["NODE", "ID", "SITE", "PROCESS", "PID", "API", "STATE"];
    format!("{} in {}\n{}", shown.shape, shown.folder.display(), table(heads, rows))
}

fn open(folder: &Path) -> Result<LocalCluster, Failure> {
    if folder.join(FILE).exists() {
        Ok(LocalCluster::open(folder)?)
    } else {
        Err(no_cluster(folder))
    }
}

fn no_cluster(folder: &Path) -> Failure {
    Failure::new(Exit::Unreachable, format!("No local cluster runs in {}.", folder.display()))
        .next("dagctl local up three-node")
}

/// The folder in which this program lies.
pub fn own_folder() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    Ok(program.parent().expect("a program lies in a folder").to_path_buf())
}

/// A folder as it is; a name below `cluster-configs`, here or in the tree that dagctl was built in.
pub fn find_shape(shape: &str) -> Result<PathBuf, Failure> {
    let named = Path::new(shape);
    if named.join("dag.toml").exists() {
        return Ok(named.to_path_buf());
    }
    let program = own_folder()?;
    let places = std::iter::once(Path::new(".")).chain(program.ancestors());
    let mut folders = places.map(|place| place.join("cluster-configs"));
    let configs = folders.find(|folder| folder.is_dir()).ok_or_else(|| {
        Failure::new(Exit::Failed, format!("Cannot find the shape `{shape}`."))
            .why("there is no folder cluster-configs here or above dagctl")
            .next("dagctl local up FOLDER    (with dag.toml and one settings file per node)")
    })?;
    let folder = configs.join(shape);
    if folder.join("dag.toml").exists() {
        return Ok(folder);
    }
    let mut known: Vec<String> = std::fs::read_dir(&configs)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("dag.toml").exists())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    known.sort();
    Err(Failure::new(Exit::Usage, format!("There is no shape `{shape}`."))
        .why(format!("known shapes: {}", known.join(", "))))
}
