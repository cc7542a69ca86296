//! `dagctl`: what operators type.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`target`] | which nodes a command speaks to |
//! | [`way`] | plainly or with TLS |
//! | [`admin`] | calls of the admin service, to any node or to the one that leads |
//! | [`command`] | one file per noun: local, dag, db, status, copies, mailbox, mail |
//! | [`snapshots`] | databases as they were, asked of every node |
//! | [`mail`] | files of mail, the import, reading mailboxes |
//! | [`demo`] | the whole story in a minute |
//! | [`output`], [`failure`], [`exit`] | what people and programs get to see |

mod admin;
mod cli;
mod command;
mod connect;
mod definition;
mod demo;
mod exit;
mod failure;
mod mail;
mod names;
mod output;
mod snapshots;
mod target;
mod way;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let form = cli.output;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::from(exit::Exit::Done as u8),
        Err(failure) => {
            match form {
                output::Form::Table | output::Form::Quiet => eprintln!("{failure}"),
                output::Form::Json => eprintln!("{}", failure.json()),
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}
