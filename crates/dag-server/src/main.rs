//! `holdfastd`: one node of a Holdfast DAG.
//!
//! ```text
//!  settings ─► store (root, volume, states) ─► formation ─► services + driver
//!                                                             │        │ decides by the control log
//!  front ends ─► service/mailbox ─┐                           │        ▼
//!  operators  ─► service/admin  ──┴─► node ─► replication: groups of copies ─► pure machines
//! ```
//! This is the one place where all parts meet; nothing is decided twice. What the log says is
//! decided in `active-manager` and `mailbox`, who leads in `replication`, what is durable in
//! `storage`. Here stand the order of things, the limits, and the words for people.

mod absence;
mod admission;
mod balance;
mod bulk;
mod clock;
mod driver;
mod failures;
mod formation;
mod gate;
mod held;
mod hooks;
mod journal;
mod leave;
mod logging;
mod machine;
mod memory;
mod node;
mod operations;
mod peers;
mod reports;
mod rounds;
mod run;
mod scrub;
mod seeds;
mod service;
mod settings;
mod snapshots;
mod status;
mod steps;
mod store;
mod sweep;
mod tidy;
mod tls;
mod watchers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use settings::Settings;

/// A delivery is many small allocations that are made by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One node of a Holdfast DAG.
#[derive(Debug, Parser)]
#[command(name = "holdfastd", version)]
struct Arguments {
    /// The node's settings file
    #[arg(long, value_name = "FILE")]
    settings: PathBuf,
    /// Check the settings and end
    #[arg(long)]
    check: bool,
}

/// The settings cannot be used.
const EXIT_SETTINGS: u8 = 2;

/// A check that failed means that something does not hold that everything else stands on. Going on
/// would be guessing, and ending is normal: another copy takes over, and the log brings all back.
fn end_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

fn main() -> ExitCode {
    end_on_panic();
    memory::tune();
    let arguments = Arguments::parse();
    let settings = match Settings::load(&arguments.settings) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("holdfastd: {error}");
            return ExitCode::from(EXIT_SETTINGS);
        }
    };
    if arguments.check {
        println!("{}: fine", arguments.settings.display());
        return ExitCode::SUCCESS;
    }
    if let Err(error) = logging::install(&settings.log_level, settings.node()) {
        eprintln!("holdfastd: {}: {error}", arguments.settings.display());
        return ExitCode::from(EXIT_SETTINGS);
    }
    match run::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the node cannot run");
            eprintln!("holdfastd: {error}");
            ExitCode::FAILURE
        }
    }
}
