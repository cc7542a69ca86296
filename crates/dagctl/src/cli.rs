//! The command line.

use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::admin::Admin;
use crate::command::mailbox::MailboxCommand;
use crate::command::{
    completion, copies, dag, db, events, follow, gate, joining, lint, local, mail, mailbox,
    node as nodes, snapshot, status,
};
use crate::demo;
use crate::exit;
use crate::failure::Failure;
use crate::output::{Form, print};
use crate::target::TargetArgs;

/// Administers a Holdfast DAG.
///
/// Without --nodes, commands speak to the local cluster in data/local (or --cluster FOLDER).
#[derive(Debug, Parser)]
#[command(name = "dagctl", version, about, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// Form of the answer
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Form,
    /// Seconds to keep trying before giving up
    #[arg(long, global = true, default_value_t = 30)]
    pub timeout: u64,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a cluster of real nodes on this machine
    #[command(subcommand)]
    Local(local::Local),
    /// Make a DAG of empty nodes
    #[command(subcommand)]
    Dag(dag::Dag),
    /// Mailbox databases: create, list, verify
    #[command(subcommand)]
    Db(db::Db),
    /// How the DAG is (Exchange: Test-ReplicationHealth); any single node answers
    Status(status::StatusArgs),
    /// Every copy with its queues (Exchange: Get-MailboxDatabaseCopyStatus)
    Copies {
        /// Only those of this database
        database: Option<String>,
        /// Only those on this node
        #[arg(long)]
        node: Option<String>,
    },
    /// Nodes: drain, undrain, block, allow, join, replace, remove (Exchange: Set-MailboxServer)
    #[command(subcommand)]
    Node(nodes::Node),
    /// The witness: replace (Exchange: Set-DatabaseAvailabilityGroup -WitnessServer)
    #[command(subcommand)]
    Witness(joining::Witness),
    /// Copies: suspend, resume, seed, reseed, add, remove (Exchange: Update-MailboxDatabaseCopy)
    #[command(subcommand)]
    Copy(nodes::Copy),
    /// Who did what, the newest last; any single node answers
    Events(events::EventsArgs),
    /// Long operations: list, show, wait, cancel
    #[command(subcommand)]
    Ops(follow::Ops),
    /// Why nodes may or may not serve (Exchange: Datacenter Activation Coordination)
    #[command(subcommand)]
    Gate(gate::Gate),
    /// What is wrong with layout and settings while everything still works; changes nothing
    Lint(lint::LintArgs),
    /// Mailboxes: create, list, show, quota
    #[command(subcommand)]
    Mailbox(MailboxCommand),
    /// Databases as they were: list, create, delete, verify, and what is in them
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Mail: import, list, fetch, export, restore, trace
    #[command(subcommand)]
    Mail(mail::MailCommand),
    /// A cluster of two sites, mail in, its active node killed, every mail back
    Demo(demo::DemoArgs),
    /// The script that completes commands in a shell
    Completion {
        /// Which shell
        shell: completion::Shell,
    },
    /// What may follow these words; for that script
    #[command(hide = true)]
    Complete {
        /// As typed so far
        #[arg(last = true)]
        words: Vec<String>,
    },
    /// Help on commands, or on a topic: commands, exit-codes
    Help {
        /// A command or a topic
        topic: Vec<String>,
    },
}

/// Carries the command out.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let (form, patience) = (cli.output, Duration::from_secs(cli.timeout));
    let admin = || Ok::<_, Failure>(Admin::new(cli.target.resolve()?, patience));
    match cli.command {
        Command::Local(local) => local::run(local, &cli.target, form).await,
        Command::Dag(dag) => dag::run(dag, &cli.target, patience, form).await,
        Command::Db(db) => db::run(db, &admin()?, patience, form).await,
        Command::Status(args) => status::run(&args, &admin()?, patience, form).await,
        Command::Copies { database, node } => copies::run(database, node, &admin()?, form).await,
        Command::Node(command) => nodes::run(command, &admin()?, patience, form).await,
        Command::Witness(command) => joining::witness(command, &admin()?, patience, form).await,
        Command::Copy(command) => nodes::run_copy(command, &admin()?, form).await,
        Command::Events(args) => events::run(&args, &admin()?, form).await,
        Command::Ops(ops) => follow::run(ops, &admin()?, patience, form).await,
        Command::Gate(gate) => gate::run(gate, &admin()?, form).await,
        Command::Lint(args) => lint::run(&args, &admin()?, form).await,
        Command::Mailbox(MailboxCommand::List { db }) => mailbox::list(db, &admin()?, form).await,
        Command::Mailbox(MailboxCommand::Create { addresses, db }) => {
            mailbox::create(&addresses, db, &admin()?, patience, form).await
        }
        Command::Mailbox(MailboxCommand::Show { address }) => {
            mailbox::show_one(&address, &admin()?, patience, form).await
        }
        Command::Mailbox(MailboxCommand::SetQuota(args)) => {
            mailbox::set_quota(&args, &admin()?, patience, form).await
        }
        Command::Snapshot(command) => snapshot::run(command, &admin()?, patience, form).await,
        Command::Mail(mail) => mail::run(mail, &admin()?, patience, form).await,
        Command::Demo(args) => demo::run(args, form).await,
        Command::Completion { shell } => completion::script(shell),
        Command::Complete { words } => completion::complete(&words),
        Command::Help { topic } => help(&topic),
    }
}

fn help(topic: &[String]) -> Result<(), Failure> {
    use clap::CommandFactory as _;
    if topic == ["exit-codes"] {
        return print(&exit::page());
    }
    if topic == ["commands"] {
        return print(completion::page().trim_end());
    }
    let mut command = Cli::command();
    command.build();
    let mut found = &mut command;
    for name in topic {
        found = found.find_subcommand_mut(name).ok_or_else(|| {
            Failure::new(exit::Exit::Usage, format!("There is no help on `{name}`."))
                .next("dagctl help")
        })?;
    }
    let mut text = found.render_long_help().to_string();
    if topic.is_empty() {
        text.push_str("\nTopics: dagctl help commands, dagctl help exit-codes\n");
    }
    print(text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_usual_commands_are_understood() {
        for line in [
            "dagctl local up three-node --set budget.requests=64 --timeouts fast",
            "dagctl local kill --all --cluster /tmp/x",
            "dagctl local up three-node --tls",
            "dagctl dag create --from dag.toml -o json",
            "dagctl status --tls-authority a.pem --tls-certificate c.pem --tls-key c.key",
            "dagctl db create DB1 DB2 --copies n1,n2",
            "dagctl db verify",
            "dagctl status --watch",
            "dagctl status -w 5 --nodes 127.0.0.1:7403,127.0.0.2:7403",
            "dagctl copies DB1 --node n1",
            "dagctl db move DB1 --to n2 --plan",
            "dagctl db move DB1 --to n2 --apply p1-00000000-00000000-00000000-00000000",
            "dagctl db move DB1 --skip copy-queue --skip node-policy",
            "dagctl db move --from-node n1",
            "dagctl db move DB1 --to-site beta --plan",
            "dagctl db rebalance --dry-run",
            "dagctl db rebalance --reason evening",
            "dagctl node drain n1 --reason disks",
            "dagctl node undrain n1",
            "dagctl node block n1",
            "dagctl node remove n1 --plan",
            "dagctl node limit n1 --maximum-active 20",
            "dagctl dag settings",
            "dagctl dag hook add database-moved tell-the-pager --limit 5",
            "dagctl dag hook remove database-moved tell-the-pager",
            "dagctl dag set --move-block 600 --auto-balance false",
            "dagctl dag set --snapshot-every 86400 --snapshots-kept 3",
            "dagctl copy suspend DB1 --node n1 --activation-only",
            "dagctl copy reseed DB1@n1 --from n2 --limit 100MB/s --follow",
            "dagctl copy seed DB1@n1",
            "dagctl copy add DB1@n4 --reason growth",
            "dagctl copy remove DB1@n4",
            "dagctl events --last 5",
            "dagctl events --follow",
            "dagctl ops list",
            "dagctl ops show 3",
            "dagctl ops wait 3 --timeout 60",
            "dagctl ops cancel 3 --reason mistake",
            "dagctl status --exit-when-healthy",
            "dagctl gate explain",
            "dagctl gate explain n1 -o json",
            "dagctl lint --allow SINGLE_SITE --allow NO_MAXIMUM",
            "dagctl mailbox create a@example.org --db DB1",
            "dagctl mail import folder more.mbox --to a@example.org",
            "dagctl mail fetch a@example.org 7",
            "dagctl mail trace --to a@example.org --hours 2",
            "dagctl mail export a@example.org out --form maildir --folder Sent",
            "dagctl mail export a@example.org out --from-snapshot 0123abcd --folder Sent",
            "dagctl mail restore a@example.org --from-snapshot 0123abcd --plan",
            "dagctl mail restore a@example.org --from-snapshot 0123abcd --folder A/B --to C",
            "dagctl snapshot list DB1",
            "dagctl snapshot create DB1 --node n2 --protect --reason upgrade",
            "dagctl snapshot delete 0123abcd --skip snapshot-protected",
            "dagctl snapshot verify 0123abcd",
            "dagctl snapshot messages 0123abcd a@example.org INBOX",
            "dagctl mailbox show a@example.org",
            "dagctl mailbox set-quota a@example.org --storage 2GiB --hold true",
            "dagctl help local up",
        ] {
            let words = line.split_whitespace();
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
