//! `dagctl ops`: long operations, and following one to its end.
//!
//! The control group carries them out, so closing the terminal harms nothing: whoever follows only
//! looks, at any node that answers, and a new control leader goes on where the last one died.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dag_api::admin::v1::{
    CancelOperationRequest, ListOperationsRequest, Operation, start_operation_request::What,
};
use dag_api::admin::v1::{StartOperationRequest, StartOperationResponse};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::command::events::time;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Form, span, table};

/// Long operations.
#[derive(Debug, clap::Subcommand)]
pub enum Ops {
    /// Running operations, and the last that are over
    List,
    /// One operation with its steps
    Show {
        /// Its number
        operation: u64,
    },
    /// Wait until an operation is over, --timeout at most
    Wait {
        /// Its number
        operation: u64,
    },
    /// End an operation: no further step is begun, and what was done half way is taken back
    Cancel {
        /// Its number
        operation: u64,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// How long one attempt to change something may take.
const ATTEMPT: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(100);

/// An operation as it is shown.
#[derive(Debug, Serialize)]
pub struct OperationLine {
    operation: u64,
    /// The operation that it is a part of.
    parent: Option<u64>,
    kind: String,
    object: String,
    state: String,
    plan: String,
    who: String,
    reason: String,
    began: Option<String>,
    ended: Option<String>,
    took_ms: Option<u64>,
    outcome: String,
    steps: Vec<StepLine>,
}

#[derive(Debug, Serialize)]
struct StepLine {
    step: u32,
    control_term: u64,
    node_id: u64,
    what: String,
    began: Option<String>,
    ended: Option<String>,
    succeeded: bool,
    outcome: String,
}

/// Shows operations, waits for one, or ends one.
pub async fn run(ops: Ops, admin: &Admin, patience: Duration, form: Form) -> Result<(), Failure> {
    match ops {
        Ops::List => {
            let lines: Vec<OperationLine> = all(admin).await?.iter().map(line).collect();
            form.print(&lines, |lines| show_all(lines))
        }
        Ops::Show { operation } => {
            let known = all(admin).await?;
            form.print(&line(one(&known, operation)?), show)
        }
        Ops::Wait { operation } => {
            one(&all(admin).await?, operation)?;
            let lines = follow(operation, admin, patience, form).await?;
            form.print(&lines, |lines| show_all(lines))?;
            judge(&lines[0])
        }
        Ops::Cancel { operation, reason } => {
            let request = CancelOperationRequest { operation, reason };
            let call = |mut client: Client| {
                let request = request.clone();
                async move { client.cancel_operation(request).await }
            };
            let what = format!("Cannot cancel operation {operation}.");
            admin.change(&what, ATTEMPT, call).await?;
            let lines = follow(operation, admin, patience, form).await?;
            form.print(&lines[0], show)
        }
    }
}

/// Begins an operation on many databases; it goes on by itself from there.
pub async fn start(
    what: What,
    reason: &str,
    doing: &str,
    admin: &Admin,
) -> Result<StartOperationResponse, Failure> {
    let request = StartOperationRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        reason: reason.to_owned(),
        what: Some(what),
    };
    let call = |mut client: Client| {
        let request = request.clone();
        async move { client.start_operation(request).await }
    };
    admin.change(doing, ATTEMPT, call).await
}

/// Waits for the end of an operation, telling of its parts. Gives it and its parts.
pub async fn follow(
    operation: u64,
    admin: &Admin,
    patience: Duration,
    form: Form,
) -> Result<Vec<OperationLine>, Failure> {
    let end = Instant::now() + patience;
    let mut told = BTreeSet::new();
    loop {
        let known = all(admin).await?;
        let parts = known.iter().filter(|known| known.parent == operation);
        for part in parts.filter(|part| part.end_ms > 0 && told.insert(part.operation)) {
            form.say(format!("{}: {} in {}", part.plan, part.state, took(part)));
        }
        let whole = known.iter().find(|known| known.operation == operation);
        if let Some(whole) = whole.filter(|whole| whole.end_ms > 0) {
            let parts = known.iter().filter(|known| known.parent == operation);
            return Ok(std::iter::once(whole).chain(parts).map(line).collect());
        }
        if Instant::now() >= end {
            let failure =
                Failure::new(Exit::Unknown, format!("Operation {operation} is not over yet."));
            return Err(failure.next(format!("dagctl ops wait {operation}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The exit code of an operation that is over.
pub fn judge(line: &OperationLine) -> Result<(), Failure> {
    if line.state == "Done" {
        return Ok(());
    }
    let what = format!("Operation {} on {}: {}.", line.operation, line.object, line.state);
    let mut failure = Failure::new(Exit::Refused, what);
    for why in line.outcome.split("; ") {
        failure = failure.why(why);
    }
    Err(failure)
}

async fn all(admin: &Admin) -> Result<Vec<Operation>, Failure> {
    let call =
        |mut client: Client| async move { client.list_operations(ListOperationsRequest {}).await };
    Ok(admin.ask("Cannot read the operations.", call).await?.operations)
}

fn one(known: &[Operation], operation: u64) -> Result<&Operation, Failure> {
    known.iter().find(|known| known.operation == operation).ok_or_else(|| {
        let newest = known.iter().map(|known| known.operation).max();
        let limit = newest.map_or("there was none yet".to_owned(), |newest| {
            format!("the newest is {newest}, and of those that are over the last 100 are kept")
        });
        Failure::new(Exit::Failed, format!("There is no operation {operation}."))
            .why(limit)
            .next("dagctl ops list")
    })
}

/// Operations as a table.
pub fn show_all(lines: &[OperationLine]) -> String {
    let rows = lines.iter().map(|line| {
        [
            line.operation.to_string(),
            line.kind.clone(),
            line.object.clone(),
            line.state.clone(),
            line.who.clone(),
            line.began.clone().unwrap_or_default(),
            line.outcome.clone(),
        ]
    });
    table(["OP", "KIND", "OBJECT", "STATE", "WHO", "BEGAN", "OUTCOME"], rows)
}

fn show(line: &OperationLine) -> String {
    let mut text = format!(
        "operation {}: {} {}: {}\n  plan: {}\n  by {} at {}\n  {}",
        line.operation,
        line.kind,
        line.object,
        line.state,
        line.plan,
        line.who,
        line.began.as_deref().unwrap_or("?"),
        line.outcome
    );
    for step in &line.steps {
        let how = match (&step.ended, step.succeeded) {
            (None, _) => "under way",
            (Some(_), true) => "done",
            (Some(_), false) => "FAILED",
        };
        text.push_str(&format!("\n  {}. {}: {how}; {}", step.step, step.what, step.outcome));
    }
    text
}

fn took(known: &Operation) -> String {
    span(known.end_ms.saturating_sub(known.begin_ms))
}

fn line(known: &Operation) -> OperationLine {
    let step = |step: &dag_api::admin::v1::OperationStep| StepLine {
        step: step.step,
        control_term: step.control_term,
        node_id: step.node_id,
        what: step.what.clone(),
        began: time(step.begin_ms),
        ended: time(step.end_ms),
        succeeded: step.succeeded,
        outcome: step.outcome.clone(),
    };
    OperationLine {
        operation: known.operation,
        parent: (known.parent > 0).then_some(known.parent),
        kind: known.kind.clone(),
        object: known.object.clone(),
        state: known.state.clone(),
        plan: known.plan.clone(),
        who: known.who.clone(),
        reason: known.reason.clone(),
        began: time(known.begin_ms),
        ended: time(known.end_ms),
        took_ms: (known.end_ms > 0).then(|| known.end_ms.saturating_sub(known.begin_ms)),
        outcome: known.outcome.clone(),
        steps: known.steps.iter().map(step).collect(),
    }
}
