//! Leaving in good order: before a node stops, what it serves is handed to other copies.
//!
//! A stop costs one pause then, as a planned move does, and not the timeout of an election. What
//! cannot be handed over in time is simply lost to this node, as at a kill: an election follows.

use std::time::Duration;

use dag_types::{DatabaseId, ReplicaId};
use futures::{StreamExt, stream};
use replication::{Group, GroupStatus};
use tokio::time::Instant;

use crate::node::Node;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one database may take to become level and be handed over.
const EACH: Duration = Duration::from_secs(2);
/// Databases that are handed over side by side.
const AT_A_TIME: usize = 8;

/// Hands over every database that is served here. The control group's leadership is not moved: its
/// voters elect another leader, and no gate closes for that.
pub async fn hand_over(node: &Node) {
    let Ok(member) = node.member() else { return };
    let served =
        member.registry.groups().into_iter().filter(|group| {
            group.spec().database != DatabaseId::CONTROL && group.serving().is_ok()
        });
    let handing = stream::iter(served).for_each_concurrent(AT_A_TIME, hand_over_one);
    if tokio::time::timeout(PATIENCE, handing).await.is_err() {
        tracing::warn!("not every database was handed over before the stop");
    }
}

async fn hand_over_one(group: Group) {
    let database = group.spec().database;
    for target in targets(&group.status()) {
        match group.transfer(target, Instant::now() + EACH).await {
            Ok(()) => return tracing::info!(db = %database, replica = %target, "handed over"),
            Err(error) => {
                tracing::info!(db = %database, replica = %target, %error, "not handed over");
            }
        }
    }
}

/// The other voters, the one with the longest log first.
fn targets(status: &GroupStatus) -> Vec<ReplicaId> {
    let votes = |replica: ReplicaId| {
        status.members.iter().any(|member| member.replica == replica && member.voter)
    };
    let mut others: Vec<_> = status
        .followers
        .iter()
        .filter(|follower| follower.replica != status.replica && votes(follower.replica))
        .collect();
    others.sort_by_key(|follower| std::cmp::Reverse(follower.matched));
    others.iter().map(|follower| follower.replica).collect()
}
