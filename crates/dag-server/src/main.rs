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

mod admission;
mod clock;
mod driver;
mod formation;
mod journal;
mod logging;
mod machine;
mod memory;
mod node;
mod peers;
mod reports;
mod run;
mod service;
mod settings;
mod status;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use settings::Settings;

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

fn main() -> ExitCode {
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
    if let Err(error) = logging::install(&settings.log_level) {
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
