//! Databases go back to their preferred copies by themselves, and not in a hurry.
//!
//! After a failover or a move a database stands on another copy than the preferred one. The control
//! leader watches how long the better copy could have served without a break; only after the block
//! time it begins the move. So a node that comes and goes is not moved to and fro, and an operator
//! who moved a database has that long before it goes back (or blocks the node, or switches the
//! balancing off). A new control leader counts from the beginning.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use active_manager::control::{Operation, OperationKind};
use dag_types::DatabaseId;
use replication::Role;
use tokio::time::Instant;

use crate::node::Node;
use crate::service::admin::plan::{Plan, Rebalance};
use crate::service::admin::{AdminServer, Asker};

const LOOK: Duration = Duration::from_secs(1);
const WHY: &str = "back to the preferred copies";

/// Since when each database could have moved, and where to.
#[derive(Debug, Default)]
struct Waiting {
    term: u64,
    since: BTreeMap<(u64, u64), Instant>,
}

/// Balances while this node leads the control group, until the node is stopped.
pub async fn run(node: Arc<Node>) {
    let mut waiting = Waiting::default();
    while !node.stopping.is_cancelled() {
        look(&node, &mut waiting).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

async fn look(node: &Arc<Node>, waiting: &mut Waiting) {
    let group = node.member().ok().and_then(|member| member.registry.get(DatabaseId::CONTROL));
    let (Some(group), Some(state)) = (group, node.control()) else { return };
    let (Role::Leader, term) = group.role() else {
        return *waiting = Waiting::default();
    };
    let moves = |known: &Operation| known.kind() != OperationKind::Hook;
    let quiet = !state.running().any(moves);
    if !state.settings.auto_balance || !quiet {
        // What an operation does to the copies is no opinion on where they should be.
        return *waiting = Waiting::default();
    }
    let orders = AdminServer::of(node.clone());
    let Ok(found) = orders.rebalancing(&state) else { return };
    let moves = match found {
        Some(Plan::Rebalance(Rebalance { moves })) => moves,
        _ => Vec::new(),
    };
    let block = Duration::from_millis(state.settings.move_block_ms);
    let due = waiting.due(term, moves, block, Instant::now());
    if due.is_empty() {
        return;
    }
    let asker =
        Asker { who: format!("node {}", node.id()), reason: WHY.into(), ..Asker::default() };
    let request = uuid::Uuid::new_v4().to_string();
    let plan = Plan::Rebalance(Rebalance { moves: due });
    match orders.start(&request, plan, term, asker).await {
        Ok(op) => tracing::info!(op, "databases go back to their preferred copies"),
        Err(error) => tracing::debug!(%error, "balancing was not begun"),
    }
}

type Move = (u64, String, u64);

impl Waiting {
    /// The moves that could have been made for the whole block time.
    fn due(&mut self, term: u64, moves: Vec<Move>, block: Duration, now: Instant) -> Vec<Move> {
        if self.term != term {
            *self = Self { term, ..Self::default() };
        }
        self.since.retain(|key, _| moves.iter().any(|(database, _, to)| (*database, *to) == *key));
        let mut due = Vec::new();
        for planned in moves {
            let since = *self.since.entry((planned.0, planned.2)).or_insert(now);
            if now.duration_since(since) >= block {
                due.push(planned);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Duration = Duration::from_secs(600);

    fn planned() -> Vec<Move> {
        vec![(16, "DB1".into(), 2)]
    }

    #[test]
    fn a_database_goes_back_only_after_the_better_copy_could_serve_for_the_whole_block_time() {
        let mut waiting = Waiting::default();
        let begin = Instant::now();
        assert!(waiting.due(5, planned(), BLOCK, begin).is_empty());
        assert!(waiting.due(5, planned(), BLOCK, begin + BLOCK / 2).is_empty());
        assert_eq!(waiting.due(5, planned(), BLOCK, begin + BLOCK), planned());
    }

    #[test]
    fn a_node_that_comes_and_goes_and_a_new_leader_count_from_the_beginning() {
        let mut waiting = Waiting::default();
        let begin = Instant::now();
        waiting.due(5, planned(), BLOCK, begin);
        waiting.due(5, Vec::new(), BLOCK, begin + BLOCK / 2);
        assert!(waiting.due(5, planned(), BLOCK, begin + BLOCK).is_empty());
        assert!(waiting.due(6, planned(), BLOCK, begin + BLOCK * 2).is_empty());
        assert_eq!(waiting.due(6, planned(), BLOCK, begin + BLOCK * 3), planned());
    }
}
