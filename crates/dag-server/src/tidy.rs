//! Taking back the space of deleted bodies.
//!
//! A deleted body leaves its bytes in a file with others that are still needed. Each copy knows by
//! itself when moving those out pays; somebody has to ask it. That is a thread of its own, because
//! a pass writes for minutes, and it asks one copy after the other, because they share a disk.

use std::sync::Arc;
use std::time::Duration;

use crate::node::Node;
use crate::rounds;

/// Between two rounds over the copies of a node.
const INTERVAL: Duration = Duration::from_secs(300);

/// Starts the thread; it ends with the node.
pub fn start(node: &Arc<Node>) -> std::io::Result<()> {
    rounds::start(node, "tidy", INTERVAL, |node| round(node))
}

/// Asks each copy. One that cannot be tidied keeps its garbage and is otherwise well: what makes a
/// copy Failed is said by its reads and its flushes.
fn round(node: &Node) {
    for (database, copy) in node.store.copies() {
        if node.stopping.is_cancelled() {
            return;
        }
        if let Err(error) = copy.tidy_if_due() {
            tracing::warn!(db = %database, %error, "take back the space of deleted bodies");
        }
    }
}
