//! Removing what has expired: request ids, delivery ids, bodies without references.
//!
//! No copy removes anything by itself, because then two copies would differ. The active copy looks
//! now and then whether rows are due, and proposes their removal as a log entry like any other.

use std::sync::Arc;
use std::time::Duration;

use mailbox::command::Sweep;
use mailbox::keys::table;
use mailbox::limits::SWEEP_ROWS;
use mailbox::{Command, Outcome, Response};
use replication::Group;
use tokio::time::Instant;

use crate::clock;
use crate::node::Node;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long one sweep may take.
const STEP: Duration = Duration::from_secs(5);
/// Sweeps of one database in one look; what is left comes at the next.
const ROUNDS: usize = 20;

/// Sweeps the databases that are mounted here, until the node is stopped.
pub async fn run(node: Arc<Node>) {
    while !node.stopping.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = node.stopping.cancelled() => return,
        }
        let (Ok(member), Some(control)) = (node.member(), node.control()) else { continue };
        for database in control.databases.iter().filter(|db| db.is_mailbox_database()) {
            if let Some(group) = member.registry.get(database.id())
                && group.serving().is_ok()
            {
                sweep(&group).await;
            }
        }
    }
}

async fn sweep(group: &Group) {
    for _ in 0..ROUNDS {
        let now = clock::wall().0;
        if !is_due(group, now) {
            return;
        }
        let sweep = Sweep { before_ms: now, limit: SWEEP_ROWS.max as u32 };
        let command = Command::new("", clock::wall(), sweep.into()).encode_to_bytes();
        let swept = group.propose(command, Instant::now() + STEP).await;
        let outcome = swept.ok().and_then(|swept| Response::decode_from(swept.reply).ok());
        match outcome.and_then(|response| response.outcome) {
            Some(Outcome::Swept(swept)) if swept.more => {}
            _ => return,
        }
    }
}

/// Due rows are ordered by their time, so the first one tells.
fn is_due(group: &Group, now_ms: u64) -> bool {
    let to = [&[table::DUE][..], &now_ms.to_be_bytes()].concat();
    group.view().scan(&[table::DUE], &to, 1).is_ok_and(|rows| !rows.is_empty())
}
