//! Long operations that this node carries out as the control leader, and those that were left.
//!
//! A leader that dies between two steps leaves its operation running, and nobody else could begin
//! one on that object. So each new leader ends what it does not carry out itself: as failed, with
//! the advice to look and to ask again. Nothing is undone: a move is one handing over, which
//! happened or did not.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use active_manager::control::command::{BeginStep, EndOperation, EndStep, Ending};
use active_manager::control::{Command, Operation, Order, Outcome, Response};
use dag_types::DatabaseId;
use prost::Message as _;
use replication::{Group, Role};
use tokio::time::Instant;

use crate::clock;
use crate::node::Node;

/// How often it is looked for operations that were left.
const LOOK: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(5);
const LEFT: &str = "the control leader changed before the answer came; look with `dagctl status` \
                    where the database is active, and ask again";

/// Operations that this process carries out.
#[derive(Debug, Default)]
pub struct Operations(Mutex<BTreeSet<u64>>);

impl Operations {
    /// This process carries it out until the guard is dropped.
    pub fn begin(&self, operation: u64) -> Running<'_> {
        self.0.lock().expect(UNPOISONED).insert(operation);
        Running { operations: self, operation }
    }

    fn has(&self, operation: u64) -> bool {
        self.0.lock().expect(UNPOISONED).contains(&operation)
    }
}

/// An operation under way.
#[derive(Debug)]
pub struct Running<'a> {
    operations: &'a Operations,
    operation: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.operations.0.lock().expect(UNPOISONED).remove(&self.operation);
    }
}

/// Ends operations that an earlier leader left, until the node is stopped.
pub async fn end_left(node: Arc<Node>) {
    let mut seen = BTreeSet::new();
    while !node.stopping.is_cancelled() {
        seen = look(&node, &seen).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

/// Ends what was left at the last look already: what was begun a moment ago may not be in the set
/// of this process yet.
async fn look(node: &Node, seen: &BTreeSet<u64>) -> BTreeSet<u64> {
    let group = node.member().ok().and_then(|member| member.registry.get(DatabaseId::CONTROL));
    let (Some(group), Some(state)) = (group, node.control()) else { return BTreeSet::new() };
    let (Role::Leader, term) = group.role() else { return BTreeSet::new() };
    let left: Vec<Operation> =
        state.running().filter(|known| !node.operations.has(known.operation)).cloned().collect();
    for operation in left.iter().filter(|known| seen.contains(&known.operation)) {
        end(node, &group, operation, term).await;
    }
    left.iter().map(|known| known.operation).collect()
}

async fn end(node: &Node, group: &Group, operation: &Operation, term: u64) {
    let number = operation.operation;
    let outcome = LEFT.to_owned();
    if let Some(open) = operation.steps.last().filter(|step| !step.ended()) {
        let (step, to, what) = (open.step, open.node, open.what.clone());
        if open.term < term {
            let begin = BeginStep { operation: number, step, term, node: to, what, undoes: true };
            order(node, group, Order::BeginStep(begin)).await;
        }
        let (succeeded, outcome) = (false, outcome.clone());
        let ended = EndStep { operation: number, step, term, succeeded, outcome };
        order(node, group, Order::EndStep(ended)).await;
    }
    let ending = Ending::Failed.into();
    order(node, group, Order::EndOperation(EndOperation { operation: number, ending, outcome }))
        .await;
}

async fn order(node: &Node, group: &Group, order: Order) {
    let who = format!("node {}", node.id());
    let command = Command { at_ms: clock::wall().0, who, order: Some(order), ..Command::default() };
    let proposed = group.propose(command.encode_to_vec().into(), Instant::now() + STEP).await;
    match proposed.map(|committed| Response::decode(committed.reply)) {
        Ok(Ok(Response { outcome: Some(Outcome::Changed(_)) })) => {}
        Ok(other) => tracing::debug!(?other, "an operation that was left was not ended"),
        Err(error) => tracing::debug!(%error, "an operation that was left was not ended"),
    }
}

const UNPOISONED: &str = "no holder of this lock panics";
