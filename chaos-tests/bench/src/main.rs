//! `make bench`: how fast a local cluster of three voting copies is, beside what the disk allows.
//!
//! Every figure is of real processes with real fsync on this machine; client, nodes and disk share
//! it. Each line is JSON on standard output; a table follows on standard error.
//!
//! | module | what it measures |
//! | --- | --- |
//! | [`limits`] | the disk and the loopback by themselves, in the same minute as each cell |
//! | [`load`] | closed and open loops of deliveries |
//! | [`cells`] | durable deliveries a second, latency, processor time, memory, bytes to disk |
//! | [`gap`] | from the kill of the active node to the next acknowledged write |
//! | [`hundred`] | a hundred databases: made, written, idle, killed, opened again |

mod arena;
mod cells;
mod gap;
mod hundred;
mod limits;
mod load;
mod report;

use clap::{Parser, Subcommand};
use testkit::shape::Timeouts;

use crate::cells::Cells;
use crate::report::Report;

#[derive(Debug, Parser)]
#[command(name = "bench", version, about = "Measures a local cluster beside the disk's limit")]
struct Cli {
    /// Length of a cell in seconds
    #[arg(long, global = true, default_value_t = 30)]
    seconds: u64,
    /// Folder for the clusters; it must lie on the disk to be measured [default: data/bench]
    #[arg(long, global = true, default_value = "data/bench")]
    folder: std::path::PathBuf,
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
    /// Many databases: made, written, idle, killed, opened again
    Hundred {
        /// How many
        #[arg(long, default_value_t = 100)]
        databases: usize,
    },
    /// What the disk and the loopback do by themselves
    Limits,
}

#[derive(Debug, clap::Args)]
struct CellArgs {
    /// Bytes of a mail
    #[arg(long, value_delimiter = ',', default_value = "4096,51200")]
    sizes: Vec<usize>,
    /// Deliveries that are unanswered at the same time
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    clients: Vec<usize>,
    /// Databases
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    databases: Vec<usize>,
    /// A call for each delivery, or one session per database
    #[arg(long, value_enum, value_delimiter = ',', default_value = "session,unary")]
    ways: Vec<load::Way>,
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
    std::fs::create_dir_all(&cli.folder)?;
    let seconds = std::time::Duration::from_secs(cli.seconds.max(1));
    let mut report = Report::default();
    match cli.what {
        What::Limits => report.limits(&limits::measure(&cli.folder)?)?,
        What::Cells(args) => {
            let cells = Cells { folder: &cli.folder, seconds, timeouts: timeouts(&args.timeouts)? };
            cells.run(&args.sizes, &args.clients, &args.databases, &args.ways, &mut report).await?;
        }
        What::Open { rate, size, databases } => {
            let cells = Cells { folder: &cli.folder, seconds, timeouts: Timeouts::Default };
            cells.open(rate, size, databases, &mut report).await?;
        }
        What::Gap { trials, timeouts: name } => {
            gap::run(&cli.folder, trials, timeouts(&name)?, &mut report).await?;
        }
        What::Hundred { databases } => {
            hundred::run(&cli.folder, databases, seconds, &mut report).await?;
        }
        What::All { trials } => {
            report.limits(&limits::measure(&cli.folder)?)?;
            let cells = Cells { folder: &cli.folder, seconds, timeouts: Timeouts::Default };
            let ways = [load::Way::Session, load::Way::Unary];
            cells.run(&[4_096, 51_200], &[1, 16, 64, 256], &[1, 4], &ways, &mut report).await?;
            for timeouts in [Timeouts::Default, Timeouts::Fast] {
                gap::run(&cli.folder, trials, timeouts, &mut report).await?;
            }
            hundred::run(&cli.folder, 100, seconds, &mut report).await?;
        }
    }
    report.table();
    Ok(())
}

fn timeouts(name: &str) -> anyhow::Result<Timeouts> {
    [Timeouts::Fast, Timeouts::Default, Timeouts::Wan]
        .into_iter()
        .find(|timeouts| timeouts.name() == name)
        .ok_or_else(|| anyhow::anyhow!("there are no timeouts `{name}`: fast, default, wan"))
}
