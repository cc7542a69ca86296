//! Checks of the repository itself, kept small.
//!
//! `deps` holds the crates to the table in ARCHITECTURE.md; `docs` holds the documents to the files
//! and commands that they name; `logs` holds the lines of the log to the names of their fields. Each
//! prints every problem, not the first.

mod commands;
mod deps;
mod docs;
mod logs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Checks of the repository itself.
#[derive(Parser)]
#[command(name = "xtask")]
struct Arguments {
    #[command(subcommand)]
    check: Check,
}

#[derive(Subcommand)]
enum Check {
    /// Who may depend on whom, and what the pure crates may use.
    Deps,
    /// The paths and links in the documents lead somewhere, and every command that a text names exists.
    Docs,
    /// What a node logs has one name each, and shows no mail.
    Logs,
}

fn main() -> anyhow::Result<ExitCode> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let (what, problems) = match Arguments::parse().check {
        Check::Deps => ("deps", deps::problems(&root)?),
        Check::Docs => {
            let mut problems = docs::problems(&root)?;
            problems.extend(commands::problems(&root)?);
            ("docs", problems)
        }
        Check::Logs => ("logs", logs::problems(&root)?),
    };
    for problem in &problems {
        eprintln!("{what}: {problem}");
    }
    println!("{what}: {} problems", problems.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
