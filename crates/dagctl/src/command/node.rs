//! `dagctl node` and `dagctl copy`: where databases may become active.

use std::time::Duration;

use dag_api::admin::v1::change_activation_request::Change;
use dag_api::admin::v1::{
    ChangeActivationRequest, ChangeActivationResponse, CopyActivation, NodeActivation,
};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::command::moves::{self, MoveLine, Wish};
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
    moved: Vec<MoveLine>,
}

/// Carries a command about a node out.
pub async fn run(command: Node, admin: &Admin, form: Form) -> Result<(), Failure> {
    let names = Names::of(&admin.get_status().await?);
    let blocked = |node_id, blocked| Change::Node(NodeActivation { node_id, blocked });
    let (node, change, reason) = match &command {
        Node::Drain { node, reason, .. } => (node, Change::DrainNode(names.number(node)?), reason),
        Node::Undrain { node, reason } => (node, Change::UndrainNode(names.number(node)?), reason),
        Node::Block { node, reason } => (node, blocked(names.number(node)?, true), reason),
        Node::Allow { node, reason } => (node, blocked(names.number(node)?, false), reason),
    };
    let changed = change_activation(change, reason, admin).await?;
    let mut shown = Changed { object: node.clone(), was_so: changed.was_so, moved: Vec::new() };
    if let Node::Drain { node, skip, reason } = &command {
        let wish = Wish::drained(skip.clone(), reason.clone());
        shown.moved = moves::move_away(node, &wish, admin, form).await.map_err(|failure| {
            failure.next(format!(
                "dagctl node drain {node} again, with --skip CHECK where that is wanted; or \
                 dagctl node undrain {node}"
            ))
        })?;
    }
    form.print(&shown, |shown| {
        let so = if shown.was_so { "was so already" } else { "done" };
        match &command {
            Node::Drain { .. } => format!("{}\n{}", so, moves::show_all(&shown.moved)),
            _ => format!("{}: {so}", shown.object),
        }
    })
}

/// Carries a command about a copy out.
pub async fn run_copy(command: Copy, admin: &Admin, form: Form) -> Result<(), Failure> {
    let (args, suspended) = match command {
        Copy::Suspend(args) => (args, true),
        Copy::Resume(args) => (args, false),
    };
    let names = Names::of(&admin.get_status().await?);
    let (database_name, node_id) = (args.database.clone(), names.number(&args.node)?);
    let change = Change::Copy(CopyActivation { database_name, node_id, suspended });
    let changed = change_activation(change, &args.reason, admin).await?;
    let object = format!("{}\\{}", args.database, args.node);
    let shown = Changed { object, was_so: changed.was_so, moved: Vec::new() };
    form.print(&shown, |shown| {
        let so = if shown.was_so { "was so already" } else { "done" };
        format!("{}: {so}", shown.object)
    })
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
