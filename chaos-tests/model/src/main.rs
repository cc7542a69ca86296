//! Explores the protocol: `model check --minutes 5`, `model mutant NAME`, `model mutants`.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use dag_types::Mutant;
use model::explore::{check, hunt};

/// Explores the protocol over the code that runs.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Explores every model; fails where anything is broken.
    Check {
        /// In all.
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
    },
    /// Leaves one rule out and shows the shortest run that breaks something.
    Mutant {
        /// As in the list that `mutants` prints.
        name: String,
        /// Gives up after so long.
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
    },
    /// Leaves each rule out in turn.
    Mutants {
        /// For each.
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
    },
}

fn minutes(minutes: f64) -> Duration {
    Duration::from_secs_f64(minutes * 60.0)
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Check { minutes: time } => {
            let mut broken = 0;
            for explored in check(minutes(time)) {
                println!("{}", explored.words());
                broken += usize::from(explored.broken.is_some());
            }
            if broken > 0 {
                bail!("{broken} models found something broken");
            }
            Ok(())
        }
        What::Mutant { name, minutes: time } => {
            let named = |mutant: &&Mutant| format!("{mutant:?}") == name;
            let known: Vec<String> = Mutant::PROTOCOL.iter().map(|m| format!("{m:?}")).collect();
            let mutant = Mutant::PROTOCOL.iter().find(named).with_context(|| {
                format!("there is no mutant {name:?}; there are {}", known.join(", "))
            })?;
            one(*mutant, minutes(time))
        }
        What::Mutants { minutes: time } => {
            Mutant::PROTOCOL.iter().try_for_each(|mutant| one(*mutant, minutes(time)))
        }
    }
}

fn one(mutant: Mutant, time: Duration) -> anyhow::Result<()> {
    let explored = hunt(mutant, time);
    println!("{mutant:?}: {}", explored.words());
    match explored.broken {
        Some(_) => Ok(()),
        None => bail!("{mutant:?} was not found"),
    }
}
