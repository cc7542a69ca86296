//! `make bench`: how fast a local cluster of three voting copies is, beside what the disk allows.
//!
//! Every figure is of real processes with real fsync on this machine; client, nodes and disk share
//! it. Each result is a line of JSON on standard output and in a file; tables follow on standard
//! error. It can be run in parts; `bench merge` makes one JSON and the tables of all parts.
//!
//! | module | what it measures |
//! | --- | --- |
//! | [`limits`] | the disk and the loopback by themselves, in the same minute as each cell |
//! | [`load`] | closed and open loops of deliveries |
//! | [`cells`] | durable deliveries a second, latency, processor time, memory, bytes to disk |
//! | [`gap`] | from the kill of the active node to the next acknowledged write |
//! | [`flat`] | memory while mails come in for a long time |
//! | [`hundred`] | a hundred databases: made, written, idle, killed, opened again |
//! | [`mailboxes`] | a mailbox of a million messages beside one of a thousand, change feed, fetch |
//! | [`moves`] | planned switchovers and drains: the longest wait of a client's delivery |
//! | [`outages`] | power off and back, a silent site, failovers under full load for a long time |
//! | [`seeds`] | a large copy built beside `cp`, clients meanwhile, path moves, a long log replayed |
//! | [`watching`] | from a change to its notification; memory with many watchers |

mod arena;
mod cells;
mod flat;
mod gap;
mod hundred;
mod limits;
mod load;
mod mailboxes;
mod moves;
mod outages;
mod report;
mod seeds;
mod traffic;
mod watching;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use testkit::shape::Timeouts;

use crate::cells::{Cells, Grid};
use crate::report::{Line, Report};

#[derive(Debug, Parser)]
#[command(name = "bench", version, about = "Measures a local cluster beside the disk's limit")]
struct Cli {
    /// Length of a cell in seconds
    #[arg(long, global = true, default_value_t = 30)]
    seconds: u64,
    /// Folder for the clusters; it must lie on the disk to be measured [default: data/bench]
    #[arg(long, global = true, default_value = "data/bench")]
    folder: PathBuf,
    /// Results are added to this file [default: results.jsonl in the folder]
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Everything below, one after the other
    All {
        /// Kills per set of timeouts
        #[arg(long, default_value_t = 30)]
        trials: u32,
    },
    /// Deliveries: a closed loop for each size, number of clients and number of databases
    Cells(CellArgs),
    /// Deliveries at a fixed rate, whatever the answers do
    Open {
        /// Deliveries a second
        #[arg(long)]
        rate: u64,
        /// Bytes of a mail
        #[arg(long, default_value_t = 4_096)]
        size: usize,
        /// Databases
        #[arg(long, default_value_t = 1)]
        databases: usize,
    },
    /// kill -9 of the active node to the next acknowledged write
    Gap {
        /// Kills
        #[arg(long, default_value_t = 30)]
        trials: u32,
        /// fast, default
        #[arg(long, default_value = "default")]
        timeouts: String,
    },
    /// Planned switchovers under load
    Moves {
        /// Moves
        #[arg(long, default_value_t = 100)]
        trials: u32,
    },
    /// A node with many active databases is drained under load
    Drain {
        /// How many
        #[arg(long, default_value_t = 100)]
        databases: usize,
    },
    /// All nodes killed and started again: all, and all but one
    Power {
        /// How often
        #[arg(long, default_value_t = 5)]
        trials: u32,
    },
    /// The passive site silent
    Silence {
        /// How often
        #[arg(long, default_value_t = 5)]
        trials: u32,
    },
    /// Full load, and failovers that nobody asked for
    Steady,
    /// A large copy is built beside `cp`, from the active copy under load, and moved to another path
    Seed {
        /// MiB of mail
        #[arg(long, default_value_t = 2_048)]
        mib: u64,
        /// How often it is built
        #[arg(long, default_value_t = 3)]
        trials: u32,
    },
    /// All nodes killed with a log that no flush has written
    Replay {
        /// MiB of mail
        #[arg(long, default_value_t = 512)]
        mib: u64,
    },
    /// Many databases: made, written, idle, killed, opened again
    Hundred {
        /// How many
        #[arg(long, default_value_t = 100)]
        databases: usize,
    },
    /// What the disk and the loopback do by themselves
    Limits,
    /// Memory while mails come in at a fixed rate
    Flat {
        /// Deliveries a second
        #[arg(long, default_value_t = 500)]
        rate: u64,
        /// Bytes of a mail
        #[arg(long, default_value_t = 4_096)]
        size: usize,
    },
    /// A large mailbox beside one of a thousand messages: select, newest flags, change feed
    Mailbox {
        /// Messages of the large one
        #[arg(long, default_value_t = 1_000_000)]
        messages: u64,
    },
    /// Whole messages of 50 KB
    Fetch {
        /// Clients, each with one call at a time
        #[arg(long, default_value_t = 16)]
        clients: usize,
    },
    /// From a change to its notification, and memory meanwhile
    Watch(watching::Wanted),
    /// One JSON array and the tables from the results of several runs; later ones count
    Merge {
        /// Files of results
        files: Vec<PathBuf>,
        /// Where the array is written
        #[arg(long)]
        into: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct CellArgs {
    #[command(flatten)]
    grid: Grid,
    /// fast, default
    #[arg(long, default_value = "default")]
    timeouts: String,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // One thread for the client: the nodes need the processors.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(cli))
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    if let What::Merge { files, into } = &cli.what {
        return merge(files, into.as_deref());
    }
    std::fs::create_dir_all(&cli.folder)?;
    let file = cli.json.clone().unwrap_or_else(|| cli.folder.join("results.jsonl"));
    let mut report = Report::into_file(&file);
    measure(cli, &mut report).await?;
    eprint!("\n{}", report.tables());
    Ok(())
}

fn merge(files: &[PathBuf], into: Option<&Path>) -> anyhow::Result<()> {
    let report = Report::read(files)?;
    if let Some(into) = into {
        std::fs::write(into, report.json()? + "\n")?;
    }
    print!("{}", report.tables());
    Ok(())
}

async fn measure(cli: Cli, report: &mut Report) -> anyhow::Result<()> {
    let (folder, seconds) = (cli.folder.as_path(), Duration::from_secs(cli.seconds.max(1)));
    match cli.what {
        What::Limits => report.add(Line::Limits(limits::measure(folder)?)),
        What::Cells(args) => {
            let cells = Cells { folder, seconds, timeouts: timeouts(&args.timeouts)? };
            cells.run(&args.grid, report).await
        }
        What::Open { rate, size, databases } => {
            let cells = Cells { folder, seconds, timeouts: Timeouts::Default };
            cells.open(rate, size, databases, report).await
        }
        What::Gap { trials, timeouts: name } => {
            gap::run(folder, trials, timeouts(&name)?, report).await
        }
        What::Moves { trials } => moves::switchovers(folder, trials, report).await,
        What::Drain { databases } => moves::drain(folder, databases, report).await,
        What::Power { trials } => outages::power(folder, trials, report).await,
        What::Silence { trials } => outages::silence(folder, trials, report).await,
        What::Steady => outages::steady(folder, seconds, report).await,
        What::Seed { mib, trials } => seeds::run(folder, mib, trials, report).await,
        What::Replay { mib } => seeds::replay(folder, mib, report).await,
        What::Hundred { databases } => hundred::run(folder, databases, seconds, report).await,
        What::Mailbox { messages } => mailboxes::sizes(folder, messages, seconds, report).await,
        What::Fetch { clients } => mailboxes::fetches(folder, clients, seconds, report).await,
        What::Watch(wanted) => watching::run(folder, wanted, seconds, report).await,
        What::Flat { rate, size } => flat::run(folder, size, rate, seconds, report).await,
        What::All { trials } => everything(folder, seconds, trials, report).await,
        What::Merge { .. } => unreachable!("merging measures nothing"),
    }
}

async fn everything(
    folder: &Path,
    seconds: Duration,
    trials: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.add(Line::Limits(limits::measure(folder)?))?;
    let cells = Cells { folder, seconds, timeouts: Timeouts::Default };
    cells.run(&Grid::all(), report).await?;
    for (rate, size) in [(2_000, 4_096), (500, 51_200)] {
        cells.open(rate, size, 1, report).await?;
    }
    for timeouts in [Timeouts::Default, Timeouts::Fast] {
        gap::run(folder, trials, timeouts, report).await?;
    }
    moves::switchovers(folder, 100, report).await?;
    moves::drain(folder, 100, report).await?;
    outages::power(folder, 5, report).await?;
    outages::silence(folder, 5, report).await?;
    outages::steady(folder, 20 * seconds, report).await?;
    seeds::run(folder, 2_048, 3, report).await?;
    seeds::replay(folder, 512, report).await?;
    mailboxes::sizes(folder, 1_000_000, seconds, report).await?;
    mailboxes::fetches(folder, 16, seconds, report).await?;
    // The same mails without a watcher say what of the memory is the mails'.
    for (watchers, rate) in [(1_000, 200), (10_000, 20), (0, 20)] {
        let wanted = watching::Wanted { watchers, mailboxes: 1_000, rate };
        watching::run(folder, wanted, seconds, report).await?;
    }
    hundred::run(folder, 100, seconds, report).await?;
    flat::run(folder, 4_096, 500, 10 * seconds, report).await
}

fn timeouts(name: &str) -> anyhow::Result<Timeouts> {
    [Timeouts::Fast, Timeouts::Default, Timeouts::Wan]
        .into_iter()
        .find(|timeouts| timeouts.name() == name)
        .ok_or_else(|| anyhow::anyhow!("there are no timeouts `{name}`: fast, default, wan"))
}
