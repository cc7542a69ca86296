//! Long operations: the transitions of their records.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{LogId, StateView};
use prost::Message;

use super::apply::Verdict;
use super::apply_activation::decided;
use super::apply_seed::{move_object, none_joins};
use super::command::{BeginOperation, BeginStep, Command, EndOperation, EndStep, Ending};
use super::operation::{
    OPERATIONS, OPERATIONS_KEPT, Operation, OperationKind, OperationState, StepRecord,
};
use super::record::{COUNTERS, Counters, DatabaseRecord, number_key};
use super::response::{FailedCheck, NoDag, OperationBegun, Outcome, Rejection, RequestIdReused};
use super::state::ControlState;
use crate::change::{Change, Fault, decode, read};
use crate::request::{self, Seen};

type Result<T, V> = core::result::Result<T, Fault<<V as StateView>::Error>>;

pub(super) fn begin<V: StateView>(
    change: &mut Change<'_, V>,
    command: &Command,
    order: &BeginOperation,
) -> Result<Verdict, V> {
    let content = order.encode_to_vec();
    if let Some(verdict) = begun_before(change, &order.request_id, &content)? {
        return Ok(verdict);
    }
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    };
    if let Some(check) = cannot_begin(&state, order) {
        return Ok(Verdict::failed(check));
    }
    let mut counters = change.pending_or_before::<Counters>(COUNTERS, "the counters")?;
    counters.operations += 1;
    let operation = Operation {
        operation: counters.operations,
        kind: order.kind,
        object: order.object.clone(),
        state: OperationState::Running.into(),
        begun: Some(decided(command)),
        steps: Vec::new(),
        outcome: String::new(),
        ended_ms: 0,
        plan: order.plan.clone(),
    };
    change.put(COUNTERS, &counters);
    put(change, &operation);
    forget_old(change, &state, counters.operations);
    let begun = OperationBegun { operation: operation.operation, replayed: false };
    request::remember(change, command.at_ms, &order.request_id, &content, &begun)?;
    Ok(Verdict::Done(Outcome::OperationBegun(begun)))
}

/// The answer to a request that begins an operation and came before, or whose id is another's.
pub(super) fn begun_before<V: StateView>(
    change: &Change<'_, V>,
    request_id: &str,
    content: &[u8],
) -> Result<Option<Verdict>, V> {
    let reused = || Verdict::refused(Rejection::RequestIdReused(RequestIdReused {}));
    if !request::is_request_id(request_id) {
        return Ok(Some(reused()));
    }
    Ok(match request::seen(change.before(), request_id, content)? {
        Seen::Replay(first) => {
            let mut first: OperationBegun = decode("a remembered answer", first)?;
            first.replayed = true;
            Some(Verdict::AlreadyDone(Outcome::OperationBegun(first)))
        }
        Seen::Reused => Some(reused()),
        Seen::New => None,
    })
}

/// Two administrators cannot work on one object at once.
fn cannot_begin(state: &ControlState, order: &BeginOperation) -> Option<FailedCheck> {
    let kind = OperationKind::try_from(order.kind).unwrap_or(OperationKind::Unspecified);
    if kind == OperationKind::Unspecified || order.object.is_empty() {
        return Some(FailedCheck::new("operation-known", "operation", "unknown", "a known kind"));
    }
    let moved = |database: &&DatabaseRecord| move_object(database.database) == order.object;
    if kind == OperationKind::MoveSite
        && let Some(database) = state.databases.iter().find(moved)
        && let Err(check) = none_joins(state, database)
    {
        return Some(check);
    }
    let running = state.running().find(|operation| operation.object == order.object)?;
    let who = running.begun.as_ref().map_or("?", |begun| begun.who.as_str());
    Some(
        FailedCheck::new(
            "operation-running",
            order.object.clone(),
            format!("operation {} of {who} is running", running.operation),
            "none",
        )
        .advice(format!(
            "follow it with `dagctl ops show {0}`, and repeat this when it is over",
            running.operation
        )),
    )
}

pub(super) fn forget_old<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    newest: u64,
) {
    let horizon = newest.saturating_sub(OPERATIONS_KEPT);
    let old = state.operations.iter().filter(|op| op.operation <= horizon && op.is_over());
    for operation in old {
        change.delete(number_key(OPERATIONS, operation.operation));
    }
}

pub(super) fn put<V: StateView>(change: &mut Change<'_, V>, operation: &Operation) {
    change.put(number_key(OPERATIONS, operation.operation), operation);
}

pub(super) fn find<V: StateView>(
    change: &Change<'_, V>,
    id: u64,
) -> Result<core::result::Result<Operation, FailedCheck>, V> {
    let found: Option<Operation> =
        read(change.before(), &number_key(OPERATIONS, id), "an operation")?;
    Ok(found.ok_or_else(|| {
        FailedCheck::new("operation-exists", format!("operation {id}"), "unknown", "a number")
            .advice("`dagctl ops list` shows them")
    }))
}

/// The term that a step names must be that of the entry: what a deposed leader proposed and a later
/// one committed on its behalf has no effect.
pub(super) fn wrong_term(subject: &str, at: LogId, term: u64) -> Option<FailedCheck> {
    (term != at.term).then(|| {
        FailedCheck::new("control-term", subject, format!("{term}"), format!("{}", at.term))
            .advice("the sender is no longer the control leader")
    })
}

pub(super) fn begin_step<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    command: &Command,
    order: &BeginStep,
) -> Result<Verdict, V> {
    let mut operation = match find(change, order.operation)? {
        Ok(operation) => operation,
        Err(check) => return Ok(Verdict::failed(check)),
    };
    if let Some(check) = cannot_step(&operation, at, order) {
        return Ok(Verdict::failed(check));
    }
    let step = StepRecord {
        step: order.step,
        term: order.term,
        node: order.node,
        what: order.what.clone(),
        begun_ms: command.at_ms,
        ended_ms: 0,
        succeeded: false,
        outcome: String::new(),
    };
    match operation.steps.last_mut().filter(|last| last.step == order.step) {
        // Begun again by a later leader: the same step to the same node, in the new term.
        Some(last) => last.term = order.term,
        None => operation.steps.push(step),
    }
    put(change, &operation);
    Ok(Verdict::changed())
}

fn cannot_step(operation: &Operation, at: LogId, order: &BeginStep) -> Option<FailedCheck> {
    let subject = format!("operation {} step {}", order.operation, order.step);
    let found = |check: &str, value: String, limit: String| {
        Some(FailedCheck::new(check, subject.clone(), value, limit))
    };
    let wrong = wrong_term(&subject, at, order.term);
    if wrong.is_some() {
        return wrong;
    }
    if operation.is_over() {
        return found("operation-running", format!("{:?}", operation.state()), "Running".into());
    }
    if operation.state() == OperationState::Cancelling && !order.undoes {
        return found("operation-running", "Cancelling".into(), "a step that undoes".into());
    }
    let last = operation.steps.last();
    let expected = match last {
        None => 1,
        Some(last) if last.ended() => last.step + 1,
        Some(last) => last.step,
    };
    if order.step != expected {
        return found("step-order", format!("{}", order.step), format!("{expected}"));
    }
    // The last step again: only as a later leader resumes it, to the same node.
    let again = last.filter(|last| !last.ended())?;
    if again.term >= order.term || again.node != order.node {
        return found(
            "step-begun",
            format!("begun in term {} for node {}", again.term, again.node),
            "a later term and the same node".into(),
        );
    }
    None
}

pub(super) fn end_step<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    command: &Command,
    order: &EndStep,
) -> Result<Verdict, V> {
    let mut operation = match find(change, order.operation)? {
        Ok(operation) => operation,
        Err(check) => return Ok(Verdict::failed(check)),
    };
    let subject = format!("operation {} step {}", order.operation, order.step);
    if let Some(check) = wrong_term(&subject, at, order.term) {
        return Ok(Verdict::failed(check));
    }
    let last = operation.steps.last_mut().filter(|last| last.step == order.step);
    let Some(last) = last.filter(|last| last.term == order.term && !last.ended()) else {
        let limit = "begun in this term and not ended";
        return Ok(Verdict::failed(FailedCheck::new("step-begun", subject, "not so", limit)));
    };
    // Zero would say that it has not ended.
    last.ended_ms = command.at_ms.max(1);
    last.succeeded = order.succeeded;
    last.outcome.clone_from(&order.outcome);
    put(change, &operation);
    Ok(Verdict::changed())
}

pub(super) fn end<V: StateView>(
    change: &mut Change<'_, V>,
    command: &Command,
    order: &EndOperation,
) -> Result<Verdict, V> {
    let mut operation = match find(change, order.operation)? {
        Ok(operation) => operation,
        Err(check) => return Ok(Verdict::failed(check)),
    };
    let ending = Ending::try_from(order.ending).unwrap_or(Ending::Unspecified);
    if operation.kind() == OperationKind::SeedCopy && ending != Ending::Cancel {
        let subject = format!("operation {}", order.operation);
        let check = FailedCheck::new("seed-ends-itself", subject, "a seed", "cancelled only");
        return Ok(Verdict::failed(check.advice("a seed ends with its own records")));
    }
    let after = match ending {
        Ending::Done => OperationState::Done,
        Ending::Failed => OperationState::Failed,
        Ending::Cancel => OperationState::Cancelling,
        Ending::Cancelled => OperationState::Cancelled,
        Ending::Unspecified => {
            let limit = "done, failed, cancel or cancelled";
            let check = FailedCheck::new("ending-known", "ending", "unknown", limit);
            return Ok(Verdict::failed(check));
        }
    };
    if operation.state() == after {
        return Ok(Verdict::was_so());
    }
    let open = operation.steps.last().is_some_and(|step| !step.ended());
    if operation.is_over() || (open && after != OperationState::Cancelling) {
        let value = if open { "a step without an answer" } else { "over" };
        let subject = format!("operation {}", order.operation);
        let check = FailedCheck::new("operation-running", subject, value, "every step answered");
        return Ok(Verdict::failed(check));
    }
    operation.state = after.into();
    operation.outcome.clone_from(&order.outcome);
    if operation.is_over() {
        operation.ended_ms = command.at_ms.max(1);
    }
    put(change, &operation);
    Ok(Verdict::changed())
}

#[cfg(test)]
#[path = "apply_operation_test.rs"]
mod tests;
