//! `dagctl node join`, `node replace` and `witness replace`: nodes come to belong to the DAG.

use std::path::PathBuf;
use std::time::Duration;

use dag_api::admin::v1::{JoinKind, JoinNodeRequest, JoinNodeResponse};
use serde::Serialize;
use testkit::shape::DagFile;

use crate::admin::{Admin, Client};
use crate::command::checks::{CheckLine, check, refused, show_checks};
use crate::command::follow::{self, OperationLine};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Form;

const ATTEMPT: Duration = Duration::from_secs(8);

/// Which node joins, and where it is.
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// Its name, as in its own settings
    node: String,
    /// Where its holdfastd listens for operators; all else it says itself
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "from")]
    address: Option<String>,
    /// The site it stands in; a witness may stand in a place of its own
    #[arg(long, required_unless_present = "from")]
    site: Option<String>,
    /// It votes in the control group and holds no mail
    #[arg(long)]
    witness: bool,
    /// Number, addresses and site as a dag.toml has them for this node
    #[arg(long, value_name = "FILE", conflicts_with_all = ["address", "site", "witness"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// Which node is lost, and where the new machine is.
#[derive(Debug, clap::Args)]
pub struct ReplaceArgs {
    /// The node; the new machine has its number and its name
    pub node: String,
    /// Where the new machine listens for operators [default: where the lost one did]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    #[command(flatten)]
    how: How,
}

/// What can be done with the witness.
#[derive(Debug, clap::Subcommand)]
pub enum Witness {
    /// Let a new, empty witness take the place of the one there is, which may be dead
    Replace {
        /// Where the new witness listens for operators, its name before that if it shall be checked
        #[arg(long, value_name = "[NODE/]HOST:PORT")]
        to: String,
        /// The place it stands in [default: that of the old one]
        #[arg(long)]
        site: Option<String>,
        #[command(flatten)]
        how: How,
    },
}

/// Options of all of them.
#[derive(Debug, clap::Args)]
pub struct How {
    /// Only show the checks, and what would be done
    #[arg(long)]
    plan: bool,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    reason: String,
}

/// What is done, or would be.
#[derive(Debug, Serialize)]
struct Shown {
    node: String,
    node_id: u64,
    member: bool,
    /// It was so before.
    was_so: bool,
    steps: Vec<String>,
    checks: Vec<CheckLine>,
    operation: Option<OperationLine>,
    /// For people.
    #[serde(skip)]
    ends: &'static str,
}

/// A command, in the words that its answers need.
struct Told {
    node: String,
    /// `join`, `be replaced`.
    verb: &'static str,
    /// What it comes to.
    ends: &'static str,
    /// The same command again.
    again: String,
}

/// Lets a node join, and waits until it has.
pub async fn join(
    args: JoinArgs,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let (node, again) = (args.node.clone(), join_again(&args));
    let request = match &args.from {
        Some(file) => {
            let mut entry = from_file(file, &node)?;
            entry.kind = JoinKind::New.into();
            entry
        }
        None => JoinNodeRequest {
            kind: JoinKind::New.into(),
            name: node.clone(),
            site: args.site.unwrap_or_default(),
            witness: args.witness,
            admin_address: args.address.unwrap_or_default(),
            ..JoinNodeRequest::default()
        },
    };
    let ends = "a member; `dagctl copy add DB@NODE` gives it copies";
    let told = Told { node, verb: "join", ends, again };
    carry(request, args.how, told, (admin, patience, form)).await
}

/// Lets a new store take the place of a lost one, and waits until all copies are back.
pub async fn replace(
    args: ReplaceArgs,
    node_id: u64,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let address = args.address.clone().map(|at| format!(" --address {at}")).unwrap_or_default();
    let again = format!("dagctl node replace {}{address}", args.node);
    let request = JoinNodeRequest {
        kind: JoinKind::Replace.into(),
        node_id,
        admin_address: args.address.unwrap_or_default(),
        ..JoinNodeRequest::default()
    };
    let ends = "back with a new store; the lost one never counts again";
    let told = Told { node: args.node, verb: "be replaced", ends, again };
    carry(request, args.how, told, (admin, patience, form)).await
}

/// Lets another witness follow the one there is.
pub async fn witness(
    command: Witness,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let Witness::Replace { to, site, how } = command;
    let (name, address) = to.rsplit_once('/').unwrap_or(("", &to));
    let request = JoinNodeRequest {
        kind: JoinKind::Witness.into(),
        name: name.to_owned(),
        site: site.clone().unwrap_or_default(),
        admin_address: address.to_owned(),
        ..JoinNodeRequest::default()
    };
    let site = site.map(|site| format!(" --site {site}")).unwrap_or_default();
    let again = format!("dagctl witness replace --to {to}{site}");
    let node = if name.is_empty() { address } else { name }.to_owned();
    let ends = "the witness; stop the old one, and remove its root folder";
    let told = Told { node, verb: "be the witness", ends, again };
    carry(request, how, told, (admin, patience, form)).await
}

async fn carry(
    mut request: JoinNodeRequest,
    how: How,
    told: Told,
    (admin, patience, form): (&Admin, Duration, Form),
) -> Result<(), Failure> {
    request.plan_only = how.plan;
    request.reason = how.reason;
    request.request_id = uuid::Uuid::new_v4().to_string();
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.join_node(request).await }
    };
    let doing = format!("{} cannot {}.", told.node, told.verb);
    let answer = admin.change(&doing, ATTEMPT, call).await?;
    if answer.was_so {
        return form.print(&shown(&told, &answer, None), show);
    }
    if how.plan {
        let shown = shown(&told, &answer, None);
        form.print(&shown, show)?;
        return Err(planned(&shown, &told));
    }
    let mut lines = follow::follow(answer.operation, admin, patience, form).await?;
    let whole = lines.swap_remove(0);
    let judged = follow::judge(&whole);
    form.print(&shown(&told, &answer, Some((whole, judged.is_ok()))), show)?;
    judged.map_err(|failure| failure.next(format!("{} --plan", told.again)))
}

/// The node's entry of a definition.
fn from_file(file: &std::path::Path, name: &str) -> Result<JoinNodeRequest, Failure> {
    let dag = DagFile::read(file)?;
    let found = dag.members().find(|(node, _)| node.name == name);
    let Some((node, witness)) = found else {
        let known: Vec<&str> = dag.members().map(|(node, _)| node.name.as_str()).collect();
        let what = format!("{} has no node `{name}`.", file.display());
        return Err(Failure::new(Exit::Usage, what).why(format!("it has {}", known.join(", "))));
    };
    Ok(JoinNodeRequest {
        name: node.name.clone(),
        site: node.site.clone(),
        witness,
        admin_address: node.admin.to_string(),
        peer_address: node.peers.to_string(),
        api_address: node.clients.to_string(),
        node_id: node.id,
        ..JoinNodeRequest::default()
    })
}

fn join_again(args: &JoinArgs) -> String {
    let mut again = format!("dagctl node join {}", args.node);
    let options = [
        ("--address", args.address.clone()),
        ("--site", args.site.clone()),
        ("--from", args.from.as_ref().map(|file| file.display().to_string())),
    ];
    for (option, value) in options {
        if let Some(value) = value {
            again.push_str(&format!(" {option} {value}"));
        }
    }
    if args.witness {
        again.push_str(" --witness");
    }
    again
}

fn shown(
    told: &Told,
    answer: &JoinNodeResponse,
    operation: Option<(OperationLine, bool)>,
) -> Shown {
    Shown {
        // A witness may be named by its address alone.
        node: if answer.node_name.is_empty() { &told.node } else { &answer.node_name }.clone(),
        node_id: answer.node_id,
        member: answer.was_so || operation.as_ref().is_some_and(|(_, done)| *done),
        was_so: answer.was_so,
        steps: answer.steps.clone(),
        checks: answer.checks.iter().map(check).collect(),
        operation: operation.map(|(line, _)| line),
        ends: told.ends,
    }
}

/// The exit code of a plan: refused, or it would change something.
fn planned(shown: &Shown, told: &Told) -> Failure {
    let (node, Told { verb, again, .. }) = (&shown.node, told);
    refused(&shown.checks, format!("{node} would not {verb}.")).unwrap_or_else(|| {
        Failure::new(Exit::WouldChange, format!("{node} would {verb}.")).next(again)
    })
}

fn show(shown: &Shown) -> String {
    let Shown { node, ends, .. } = shown;
    if shown.was_so {
        return format!("{node}: is a member with this store already; nothing was changed");
    }
    if shown.member {
        return format!("{node}: {ends}");
    }
    let mut text = format!("{node}:\n");
    for step in &shown.steps {
        text.push_str(&format!("  {step}\n"));
    }
    text.push_str(&show_checks(&shown.checks));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let again = "dagctl node join a4 --address h:1 --site A".into();
        Told { node: "a4".into(), verb: "join", ends: "a member", again }
    }

    fn plan(passed: bool) -> Shown {
        let check = dag_api::admin::v1::MoveCheck {
            name: "node-empty".into(),
            value: "of another DAG".into(),
            limit: "an empty store".into(),
            passed,
            ..Default::default()
        };
        let steps = vec!["put a4 on the list of site A".into()];
        let answer = JoinNodeResponse { checks: vec![check], steps, ..Default::default() };
        shown(&told(), &answer, None)
    }

    #[test]
    fn a_plan_ends_with_the_code_of_what_it_found() {
        let would = planned(&plan(true), &told());
        assert_eq!(would.exit, Exit::WouldChange);
        assert!(would.to_string().contains("--address h:1"), "{would}");
        let refused = planned(&plan(false), &told());
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.to_string().contains("node-empty: found of another DAG"), "{refused}");
        assert!(show(&plan(false)).contains("put a4 on the list"), "{}", show(&plan(false)));
    }

    #[test]
    fn the_same_command_twice_says_that_nothing_was_changed() {
        let answer = JoinNodeResponse { was_so: true, ..Default::default() };
        let shown = shown(&told(), &answer, None);
        assert!(shown.member && show(&shown).contains("nothing was changed"));
    }

    #[test]
    fn an_entry_of_a_definition_names_number_addresses_and_site() {
        let file = testkit::scratch::shapes().join("two-site-witness").join("dag.toml");
        let entry = from_file(&file, "w").expect("an entry");
        assert!(entry.witness && entry.node_id == 5 && entry.peer_address.ends_with(":7401"));
        let failure = from_file(&file, "z9").expect_err("none").to_string();
        assert!(failure.contains("a1, a2, b1, b2, w"), "{failure}");
    }
}
