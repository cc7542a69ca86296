//! Long operations that this node carries out as the control leader, and those that were left.
//!
//! A leader that dies between two steps leaves its operation running, and nobody else could begin
//! one on that object. So each new leader takes up what it does not carry out itself: the record
//! says how far it came, the node that was sent a step says whether it took it, and nothing is done
//! twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use active_manager::control::{Operation, OperationKind};
use dag_types::DatabaseId;
use replication::Role;

use crate::node::Node;
use crate::service::admin::AdminServer;

/// How often it is looked for operations that were left.
const LOOK: Duration = Duration::from_secs(1);

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

/// Takes up operations that an earlier leader left, until the node is stopped.
pub async fn take_up_left(node: Arc<Node>) {
    let mut seen = BTreeSet::new();
    while !node.stopping.is_cancelled() {
        seen = look(&node, &seen);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

/// Takes up what was left at the last look already: what was begun a moment ago may not be in the
/// set of this process yet.
fn look(node: &Arc<Node>, seen: &BTreeSet<u64>) -> BTreeSet<u64> {
    let group = node.member().ok().and_then(|member| member.registry.get(DatabaseId::CONTROL));
    let (Some(group), Some(state)) = (group, node.control()) else { return BTreeSet::new() };
    let (Role::Leader, term) = group.role() else { return BTreeSet::new() };
    // A seed is carried on by every leader, from its record.
    let ours = |known: &&Operation| {
        known.kind() != OperationKind::SeedCopy && !node.operations.has(known.operation)
    };
    let left: Vec<Operation> = state.running().filter(ours).cloned().collect();
    let numbers = left.iter().map(|known| known.operation).collect();
    for operation in left.into_iter().filter(|known| seen.contains(&known.operation)) {
        let node = node.clone();
        tokio::spawn(async move { AdminServer::of(node).take_up(&operation, term).await });
    }
    numbers
}

const UNPOISONED: &str = "no holder of this lock panics";
