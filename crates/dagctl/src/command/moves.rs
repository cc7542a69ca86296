//! `dagctl db move` and `db rebalance`: where databases are active, and how that is changed.

use std::time::Duration;

use dag_api::admin::v1::start_operation_request::What;
use dag_api::admin::v1::{
    EvacuateNode, MoveDatabaseRequest, MoveDatabaseResponse, PlanBalanceRequest, Rebalance,
};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::command::checks::{CheckLine, check, refused, show_checks};
use crate::command::follow::{self, OperationLine};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::Names;
use crate::output::{Form, span, table};

/// How long one attempt to move a database may take: its target may have to catch up first.
const MOVE: Duration = Duration::from_secs(20);

/// A database that is to be moved, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct MoveArgs {
    /// The database
    #[arg(required_unless_present = "from_node", conflicts_with = "from_node")]
    database: Option<String>,
    /// To the copy on this node [default: the best copy]
    #[arg(long)]
    to: Option<String>,
    /// To the best copy in this site; its copies become the majority of the voters first
    #[arg(long, conflicts_with = "to")]
    to_site: Option<String>,
    /// Every database that is active on this node
    #[arg(long, conflicts_with_all = ["to", "to_site", "apply", "plan"])]
    from_node: Option<String>,
    /// Only show what would be done, and its token
    #[arg(long, conflicts_with = "apply")]
    plan: bool,
    /// Do what was planned under this token; refused when the world moved since
    #[arg(long, value_name = "TOKEN")]
    apply: Option<String>,
    /// Move although this check fails
    #[arg(long, value_name = "CHECK")]
    skip: Vec<String>,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    reason: String,
}

/// What became of one database.
#[derive(Debug, Serialize)]
struct MoveLine {
    database: String,
    from: Option<String>,
    to: Option<String>,
    moved: bool,
    took_ms: Option<u64>,
    operation: Option<u64>,
    token: Option<String>,
    steps: Vec<String>,
    checks: Vec<CheckLine>,
    copies: Vec<String>,
}

/// Moves one database, or all of a node.
pub async fn run(
    args: MoveArgs,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let names = Names::of(&admin.get_status().await?);
    let Some(database) = &args.database else {
        let node = args.from_node.as_deref().unwrap_or_default();
        let node_id = names.number(node)?;
        let wish = EvacuateNode { node_id, draining: false, skip: args.skip };
        let doing = format!("Cannot move everything away from {node}.");
        return many((What::Evacuate(wish), &args.reason, &doing), admin, patience, form).await;
    };
    let to = args.to.as_ref().map_or(Ok(0), |node| names.number(node))?;
    let answer = ask(database, to, &args, admin).await?;
    let line = line(&answer, &names);
    form.print(&line, show)?;
    match refused(&line.checks, format!("{} would not be moved.", line.database)) {
        Some(refused) => Err(refused),
        None if args.plan => Err(planned(&line)),
        None => Ok(()),
    }
}

fn planned(line: &MoveLine) -> Failure {
    let token = line.token.as_deref().unwrap_or_default();
    let to = line.to.as_deref().unwrap_or_default();
    // A plan names the node, also where a site was asked for.
    Failure::new(Exit::WouldChange, format!("{} would be moved.", line.database))
        .next(format!("dagctl db move {} --to {to} --apply {token}", line.database))
}

/// Begins an operation on many databases, and follows it to its end.
async fn many(
    (what, reason, doing): (What, &str, &str),
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let begun = follow::start(what, reason, doing, admin).await?;
    if begun.operation == 0 {
        return form.print(&Vec::<OperationLine>::new(), |_| "nothing to move".into());
    }
    let lines = follow::follow(begun.operation, admin, patience, form).await?;
    form.print(&lines, |lines| follow::show_all(lines))?;
    follow::judge(&lines[0])
}

async fn ask(
    database: &str,
    to_node: u64,
    args: &MoveArgs,
    admin: &Admin,
) -> Result<MoveDatabaseResponse, Failure> {
    let request = MoveDatabaseRequest {
        database_name: database.to_owned(),
        to_node,
        to_site: args.to_site.clone().unwrap_or_default(),
        plan_only: args.plan,
        token: args.apply.clone().unwrap_or_default(),
        skip: args.skip.clone(),
        request_id: uuid::Uuid::new_v4().to_string(),
        reason: args.reason.clone(),
        draining: false,
        balancing: false,
    };
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.move_database(request).await }
    };
    admin.change(&format!("Cannot move {database}."), MOVE, call).await
}

fn line(answer: &MoveDatabaseResponse, names: &Names) -> MoveLine {
    let node = |id: u64| (id > 0).then(|| names.name(id));
    MoveLine {
        database: answer.database_name.clone(),
        from: node(answer.from_node),
        to: node(answer.to_node),
        moved: answer.moved,
        took_ms: answer.moved.then_some(answer.took_ms),
        operation: (answer.operation > 0).then_some(answer.operation),
        token: (!answer.token.is_empty()).then(|| answer.token.clone()),
        steps: answer.steps.clone(),
        checks: answer.checks.iter().map(check).collect(),
        copies: answer
            .verdicts
            .iter()
            .map(|verdict| format!("{}: {}", names.name(verdict.node_id), verdict.words))
            .collect(),
    }
}

fn show(line: &MoveLine) -> String {
    let dash = || "-".to_owned();
    let (from, to) = (line.from.clone().unwrap_or_else(dash), line.to.clone().unwrap_or_else(dash));
    if line.moved {
        let took = span(line.took_ms.unwrap_or(0));
        return format!("{}: moved from {from} to {to} in {took}", line.database);
    }
    let mut text = format!("{}: from {from} to {to}\n", line.database);
    for step in &line.steps {
        text.push_str(&format!("  {step}\n"));
    }
    text.push_str(&show_checks(&line.checks));
    for copy in &line.copies {
        text.push_str(&format!("\n{copy}"));
    }
    text
}

/// A move that balancing would make, or a database that stays.
#[derive(Debug, Serialize)]
struct BalanceLine {
    database: String,
    from: Option<String>,
    to: Option<String>,
    stays_because: Option<String>,
}

/// Moves databases back to their preferred copies.
pub async fn rebalance(
    reason: &str,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<(), Failure> {
    let doing = "Cannot move databases to their preferred copies.";
    many((What::Rebalance(Rebalance {}), reason, doing), admin, patience, form).await
}

/// Shows what balancing would do.
pub async fn plan_balance(admin: &Admin, form: Form) -> Result<(), Failure> {
    let names = Names::of(&admin.get_status().await?);
    let call = |mut client: Client| async move { client.plan_balance(PlanBalanceRequest {}).await };
    let plan = admin.ask("Cannot plan the balance.", call).await?;
    let moves = plan.moves.iter().map(|planned| BalanceLine {
        database: planned.database_name.clone(),
        from: Some(names.name(planned.from_node)),
        to: Some(names.name(planned.to_node)),
        stays_because: None,
    });
    let stays = plan.stays.iter().map(|stays| BalanceLine {
        database: stays.database_name.clone(),
        from: None,
        to: None,
        stays_because: Some(stays.why.clone()),
    });
    let lines: Vec<BalanceLine> = moves.chain(stays).collect();
    form.print(&lines, |lines| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let rows = lines.iter().map(|line| {
            [line.database.clone(), text(&line.from), text(&line.to), text(&line.stays_because)]
        });
        if lines.is_empty() {
            return "every database is where it should be".into();
        }
        table(["DATABASE", "FROM", "TO", "STAYS BECAUSE"], rows)
    })
}
