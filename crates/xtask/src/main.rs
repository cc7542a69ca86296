//! Checks of the repository itself, kept small.
//!
//! `deps` holds the crates to the table in ARCHITECTURE.md; `docs` holds the documents to the files
//! and commands that they name. Both print every problem, not the first.

mod commands;
mod deps;
mod docs;

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
    };
    for problem in &problems {
        eprintln!("{what}: {problem}");
    }
    println!("{what}: {} problems", problems.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
