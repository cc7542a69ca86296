//! `dagctl node` and `dagctl copy`: where databases may become active.

use std::time::Duration;

use dag_api::admin::v1::change_activation_request::Change;
use dag_api::admin::v1::start_operation_request::What;
use dag_api::admin::v1::{
    ChangeActivationRequest, ChangeActivationResponse, CopyActivation, EvacuateNode,
    NodeActivation, NodeLimits,
};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::command::follow::{self, OperationLine};
use crate::command::{joining, members, seed};
use crate::failure::Failure;
use crate::names::Names;
use crate::output::Form;

const ATTEMPT: Duration = Duration::from_secs(6);

/// What can be done with nodes.
#[derive(Debug, clap::Subcommand)]
pub enum Node {
    /// Begin maintenance: nothing becomes active there any more, and what is active is moved away
    Drain {
        /// The node
        node: String,
        /// Move although this check fails
        #[arg(long, value_name = "CHECK")]
        skip: Vec<String>,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// End maintenance: the policy from before holds again
    Undrain {
        /// The node
        node: String,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Nothing becomes active there by itself; what is active stays
    Block {
        /// The node
        node: String,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// At most so many databases are active there (Exchange: MaximumActiveDatabases)
    Limit {
        /// The node
        node: String,
        /// Whatever happens, failovers too; 0: no limit
        #[arg(long, required_unless_present = "preferred_active")]
        maximum_active: Option<u32>,
        /// More only where no other copy can serve; 0: no limit
        #[arg(long)]
        preferred_active: Option<u32>,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take a node out of the DAG for good; it holds no copies any more, and may be dead
    Remove(members::RemoveArgs),
    /// Let a new node join; it runs with an empty root folder (Exchange: Add-DatabaseAvailabilityGroupServer)
    Join(joining::JoinArgs),
    /// Let a new, empty machine take the place of a node that is lost for good
    Replace(joining::ReplaceArgs),
    /// Databases may become active there again
    Allow {
        /// The node
        node: String,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// What can be done with copies.
#[derive(Debug, clap::Subcommand)]
pub enum Copy {
    /// The copy is not made active; it takes log all the same
    Suspend(CopyArgs),
    /// The copy may be made active again
    Resume(CopyArgs),
    #[command(flatten)]
    Build(seed::Build),
}

/// Which copy.
#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    /// The database
    database: String,
    /// Where the copy stands
    #[arg(long)]
    node: String,
    /// Only activation; needed, because log cannot be held back yet
    #[arg(long, required = true)]
    activation_only: bool,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    reason: String,
}

/// What was changed.
#[derive(Debug, Serialize)]
struct Changed {
    object: String,
    /// It was so before.
    was_so: bool,
    /// Of a drain: its operation, and the moves that are parts of it.
    operations: Vec<OperationLine>,
}

/// Carries a command about a node out.
pub async fn run(
    command: Node,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let names = Names::of(&admin.get_status().await?);
    let blocked = |node_id, blocked| Change::Node(NodeActivation { node_id, blocked });
    let (node, change, reason) = match command {
        Node::Drain { node, skip, reason } => {
            let node_id = names.number(&node)?;
            let wish = EvacuateNode { node_id, draining: true, skip };
            return drain(&node, wish, &reason, (admin, patience, form)).await;
        }
        Node::Remove(args) => return members::remove(args, admin, patience, form).await,
        Node::Join(args) => return joining::join(args, admin, patience, form).await,
        Node::Replace(args) => {
            let number = names.number(&args.node)?;
            return joining::replace(args, number, admin, patience, form).await;
        }
        Node::Limit { node, maximum_active, preferred_active, reason } => {
            let node_id = names.number(&node)?;
            let limits = NodeLimits { node_id, maximum_active, preferred_active };
            (node, Change::Limits(limits), reason)
        }
        Node::Undrain { node, reason } => {
            let change = Change::UndrainNode(names.number(&node)?);
            (node, change, reason)
        }
        Node::Block { node, reason } => {
            let change = blocked(names.number(&node)?, true);
            (node, change, reason)
        }
        Node::Allow { node, reason } => {
            let change = blocked(names.number(&node)?, false);
            (node, change, reason)
        }
    };
    let changed = change_activation(change, &reason, admin).await?;
    let shown = Changed { object: node, was_so: changed.was_so, operations: Vec::new() };
    form.print(&shown, words)
}

fn words(changed: &Changed) -> String {
    let so = if changed.was_so { "was so already" } else { "done" };
    format!("{}: {so}", changed.object)
}

/// Begins maintenance. The control group moves everything away, also where nobody looks any more.
async fn drain(
    node: &str,
    wish: EvacuateNode,
    reason: &str,
    (admin, patience, form): (&Admin, Duration, Form),
) -> Result<(), Failure> {
    let doing = format!("Cannot drain {node}.");
    let begun = follow::start(What::Evacuate(wish), reason, &doing, admin).await?;
    let operations = match begun.operation {
        0 => Vec::new(),
        operation => follow::follow(operation, admin, patience, form).await?,
    };
    let shown = Changed { object: node.to_owned(), was_so: begun.was_so, operations };
    form.print(&shown, |shown| match shown.operations.as_slice() {
        [] => format!("{}; nothing was active there", words(shown)),
        lines => format!("{}\n{}", words(shown), follow::show_all(lines)),
    })?;
    let Some(whole) = shown.operations.first() else { return Ok(()) };
    follow::judge(whole).map_err(|failure| {
        failure.next(format!(
            "dagctl node drain {node} again, with --skip CHECK where that is wanted; or \
             dagctl node undrain {node}"
        ))
    })
}

/// Carries a command about a copy out.
pub async fn run_copy(command: Copy, admin: &Admin, form: Form) -> Result<(), Failure> {
    let (args, suspended) = match command {
        Copy::Suspend(args) => (args, true),
        Copy::Resume(args) => (args, false),
        Copy::Build(build) => return seed::run(build, admin, form).await,
    };
    let names = Names::of(&admin.get_status().await?);
    let (database_name, node_id) = (args.database.clone(), names.number(&args.node)?);
    let change = Change::Copy(CopyActivation { database_name, node_id, suspended });
    let changed = change_activation(change, &args.reason, admin).await?;
    let object = format!("{}\\{}", args.database, args.node);
    let shown = Changed { object, was_so: changed.was_so, operations: Vec::new() };
    form.print(&shown, words)
}

async fn change_activation(
    change: Change,
    reason: &str,
    admin: &Admin,
) -> Result<ChangeActivationResponse, Failure> {
    let request = ChangeActivationRequest { reason: reason.to_owned(), change: Some(change) };
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.change_activation(request).await }
    };
    admin.change("Cannot change where databases may be active.", ATTEMPT, call).await
}
