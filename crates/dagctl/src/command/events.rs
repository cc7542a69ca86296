//! `dagctl events` and `dagctl ops`: who did what, and what is under way; any single node answers.

use dag_api::admin::v1::{DagEvent, ListEventsRequest, ListOperationsRequest, Operation};
use serde::Serialize;

use crate::admin::{Admin, Client};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Form, table};

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
}

#[derive(Debug, Serialize)]
struct EventLine {
    index: u64,
    time: Option<String>,
    who: String,
    from: String,
    action: String,
    object: String,
    accepted: bool,
    reason: String,
}

#[derive(Debug, Serialize)]
struct OperationLine {
    operation: u64,
    kind: String,
    object: String,
    state: String,
    plan: String,
    who: String,
    reason: String,
    began: Option<String>,
    ended: Option<String>,
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

/// Shows the audit, the newest last.
pub async fn run(last: usize, admin: &Admin, form: Form) -> Result<(), Failure> {
    let call = |mut client: Client| async move {
        client.list_events(ListEventsRequest { last: last as u32 }).await
    };
    let answer = admin.ask("Cannot read the events.", call).await?;
    let lines: Vec<EventLine> = answer.events.iter().map(event).collect();
    form.print(&lines, |lines| {
        let rows = lines.iter().map(|line| {
            [
                line.time.clone().unwrap_or_default(),
                line.who.clone(),
                line.from.clone(),
                line.action.clone(),
                line.object.clone(),
                if line.accepted { "done" } else { "REFUSED" }.to_owned(),
                line.reason.clone(),
            ]
        });
        table(["TIME", "WHO", "FROM", "ACTION", "OBJECT", "", "REASON"], rows)
    })
}

/// Shows operations.
pub async fn operations(ops: Ops, admin: &Admin, form: Form) -> Result<(), Failure> {
    let call =
        |mut client: Client| async move { client.list_operations(ListOperationsRequest {}).await };
    let answer = admin.ask("Cannot read the operations.", call).await?;
    let mut lines: Vec<OperationLine> = answer.operations.iter().map(operation).collect();
    if let Ops::Show { operation } = ops {
        lines.retain(|line| line.operation == operation);
        if lines.is_empty() {
            let what = format!("There is no operation {operation}.");
            return Err(Failure::new(Exit::Failed, what).next("dagctl ops list"));
        }
        return form.print(&lines[0], show);
    }
    form.print(&lines, |lines| {
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
    })
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

fn event(event: &DagEvent) -> EventLine {
    EventLine {
        index: event.index,
        time: time(event.time_ms),
        who: event.who.clone(),
        from: event.from.clone(),
        action: event.action.clone(),
        object: event.object.clone(),
        accepted: event.accepted,
        reason: event.reason.clone(),
    }
}

fn operation(known: &Operation) -> OperationLine {
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
        kind: known.kind.clone(),
        object: known.object.clone(),
        state: known.state.clone(),
        plan: known.plan.clone(),
        who: known.who.clone(),
        reason: known.reason.clone(),
        began: time(known.begin_ms),
        ended: time(known.end_ms),
        outcome: known.outcome.clone(),
        steps: known.steps.iter().map(step).collect(),
    }
}

/// Milliseconds since 1970 as people write a moment; none for none.
fn time(millis: u64) -> Option<String> {
    let moment = jiff::Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()?;
    (millis > 0).then(|| format!("{moment:.0}"))
}
