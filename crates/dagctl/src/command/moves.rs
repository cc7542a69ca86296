//! `dagctl db move` and `db rebalance`: where databases are active, and how that is changed.

use std::time::Duration;

use dag_api::admin::v1::{
    MoveCheck, MoveDatabaseRequest, MoveDatabaseResponse, PlanBalanceRequest,
};
use serde::Serialize;

use crate::admin::{Admin, Client};
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
    /// Every database that is active on this node
    #[arg(long, conflicts_with = "to", conflicts_with = "apply")]
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
pub struct MoveLine {
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

/// A check of a move.
#[derive(Debug, Serialize)]
struct CheckLine {
    name: String,
    value: String,
    limit: String,
    passed: bool,
    skippable: bool,
    skipped: bool,
}

/// Moves one database, or all of a node.
pub async fn run(args: MoveArgs, admin: &Admin, form: Form) -> Result<(), Failure> {
    let names = Names::of(&admin.get_status().await?);
    let Some(database) = &args.database else {
        let node = args.from_node.as_deref().unwrap_or_default();
        let wish = Wish { draining: false, ..Wish::of(&args, 0) };
        let lines = move_away(node, &wish, admin, form).await?;
        return form.print(&lines, |lines| show_all(lines));
    };
    let to = args.to.as_ref().map_or(Ok(0), |node| names.number(node))?;
    let answer = ask(database, &Wish::of(&args, to), admin).await?;
    let line = line(&answer, &names);
    form.print(&line, show)?;
    let Some(failed) = line.checks.iter().find(|check| !check.passed && !check.skipped) else {
        return if args.plan { Err(planned(&line)) } else { Ok(()) };
    };
    let why = format!("{}: found {}; needed {}", failed.name, failed.value, failed.limit);
    Err(Failure::new(Exit::Refused, format!("{} would not be moved.", line.database)).why(why))
}

fn planned(line: &MoveLine) -> Failure {
    let token = line.token.as_deref().unwrap_or_default();
    let to = line.to.as_deref().unwrap_or_default();
    Failure::new(Exit::WouldChange, format!("{} would be moved.", line.database))
        .next(format!("dagctl db move {} --to {to} --apply {token}", line.database))
}

/// How a database shall be moved.
#[derive(Debug, Clone)]
pub struct Wish {
    to: u64,
    plan_only: bool,
    token: String,
    skip: Vec<String>,
    reason: String,
    /// Its node is drained.
    pub draining: bool,
}

impl Wish {
    fn of(args: &MoveArgs, to: u64) -> Self {
        Self {
            to,
            plan_only: args.plan,
            token: args.apply.clone().unwrap_or_default(),
            skip: args.skip.clone(),
            reason: args.reason.clone(),
            draining: false,
        }
    }

    /// To the best copy of each database, because its node is drained.
    pub fn drained(skip: Vec<String>, reason: String) -> Self {
        Self { to: 0, plan_only: false, token: String::new(), skip, reason, draining: true }
    }
}

/// Moves every database away that is active on a node, one after the other. What is refused stays,
/// and the others are moved all the same.
pub async fn move_away(
    node: &str,
    wish: &Wish,
    admin: &Admin,
    form: Form,
) -> Result<Vec<MoveLine>, Failure> {
    let status = admin.get_status().await?;
    let names = Names::of(&status);
    let number = names.number(node)?;
    let mut active: Vec<String> = status
        .copies
        .iter()
        .filter(|copy| {
            copy.node_id == number
                && copy.database_name != "control"
                && copy.status() == dag_api::admin::v1::CopyStatus::Mounted
        })
        .map(|copy| copy.database_name.clone())
        .collect();
    active.dedup();
    let (mut lines, mut failures) = (Vec::new(), Vec::new());
    for database in active {
        match ask(&database, wish, admin).await {
            Ok(answer) => {
                form.say(format!("{database}: {}", span(answer.took_ms)));
                lines.push(line(&answer, &names));
            }
            Err(failure) => failures.push((database, failure)),
        }
    }
    let Some((_, first)) = failures.first() else { return Ok(lines) };
    let mut failure = Failure::new(first.exit, format!("Not everything left {node}."));
    for (database, refused) in &failures {
        failure = failure.why(format!("{database}: {}", refused.why.join("; ")));
    }
    Err(failure)
}

async fn ask(database: &str, wish: &Wish, admin: &Admin) -> Result<MoveDatabaseResponse, Failure> {
    let request = MoveDatabaseRequest {
        database_name: database.to_owned(),
        to_node: wish.to,
        plan_only: wish.plan_only,
        token: wish.token.clone(),
        skip: wish.skip.clone(),
        request_id: uuid::Uuid::new_v4().to_string(),
        reason: wish.reason.clone(),
        draining: wish.draining,
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

fn check(check: &MoveCheck) -> CheckLine {
    CheckLine {
        name: check.name.clone(),
        value: check.value.clone(),
        limit: check.limit.clone(),
        passed: check.passed,
        skippable: check.skippable,
        skipped: check.skipped,
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
    let rows = line.checks.iter().map(|check| {
        let verdict = match (check.passed, check.skipped) {
            (true, _) => "holds",
            (false, true) => "SKIPPED",
            (false, false) => "FAILS",
        };
        [check.name.clone(), verdict.to_owned(), check.value.clone(), check.limit.clone()]
    });
    text.push_str(&table(["CHECK", "", "FOUND", "NEEDED"], rows));
    for copy in &line.copies {
        text.push_str(&format!("\n{copy}"));
    }
    text
}

/// Several moves as lines.
pub fn show_all(lines: &[MoveLine]) -> String {
    if lines.is_empty() {
        return "nothing to move".into();
    }
    lines.iter().map(show).collect::<Vec<_>>().join("\n")
}

/// A move that balancing would make, or a database that stays.
#[derive(Debug, Serialize)]
struct BalanceLine {
    database: String,
    from: Option<String>,
    to: Option<String>,
    stays_because: Option<String>,
}

/// Shows what balancing would do.
pub async fn rebalance(admin: &Admin, form: Form) -> Result<(), Failure> {
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
