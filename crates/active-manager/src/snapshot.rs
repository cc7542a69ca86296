//! Which copy's snapshots are taken by schedule, when the next one is due, and which go.
//!
//! Every node decides for itself, with what it knows and without asking anybody: two that know
//! different things take one snapshot more, and that harms nothing. Time comes in as an argument.
//!
//! ```text
//!  age    0        24 h       48 h       72 h
//!         │  newest │  newest  │  newest  │   nothing that a schedule took
//!         └─ kept ──┴── kept ──┴── kept ──┘
//! ```

use alloc::vec::Vec;

use dag_types::{Millis, NodeId};

use crate::control::{ControlState, DatabaseRecord};

/// What is known of a node that could take a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which one.
    pub node: NodeId,
    /// Its copy follows or serves, as far as was heard.
    pub sound: bool,
    /// The database is active there.
    pub active: bool,
}

/// The node whose copy's snapshots are taken: of the sound passive copies the one that is the last
/// to become active, so that the choice stays when a database moves between the preferred ones. The
/// active copy only where it is the only one that the database has.
pub fn taker(
    state: &ControlState,
    database: &DatabaseRecord,
    known: &[Candidate],
) -> Option<NodeId> {
    let alone = database.replicas.len() == 1;
    let may = |node: &NodeId| {
        let known = known.iter().find(|known| known.node == *node);
        known.is_some_and(|known| known.sound && (alone || !known.active))
            && is_fit(state, database, *node)
    };
    state.preference(database).into_iter().rev().find(may)
}

/// Whether a copy is what the group's copies are, by the log alone.
fn is_fit(state: &ControlState, database: &DatabaseRecord, node: NodeId) -> bool {
    let admitted = database.replica_on(node).is_some_and(|replica| replica.unfit.is_empty());
    let built = state.seed(database.id(), node).is_some();
    let suspended = state.copy_policy(database.id(), node).suspended;
    let leaving = state.node(node).is_none_or(|node| node.is_leaving());
    admitted && !built && !suspended && !leaving
}

/// A snapshot that a node keeps of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept<Id> {
    /// Which one.
    pub id: Id,
    /// When it was taken.
    pub taken: Millis,
    /// It goes only when a person says so.
    pub protected: bool,
    /// Taken by schedule.
    pub scheduled: bool,
    /// It was found damaged.
    pub bad: bool,
}

/// Whether the next snapshot is to be taken. One of the future is of a clock that went wrong, and
/// does not count. A database is as old as `since`: nothing is due before it could have been kept
/// for a whole interval. `every` of 0: never.
pub fn is_due<Id>(kept: &[Kept<Id>], since: Millis, every: Millis, now: Millis) -> bool {
    let counts = |kept: &&Kept<Id>| kept.scheduled && !kept.bad && kept.taken <= now;
    let newest = kept.iter().filter(counts).map(|kept| kept.taken).max();
    every.0 > 0 && now.saturating_sub(newest.unwrap_or(since)) >= every
}

/// What is kept no longer, the oldest first. Of what a schedule took, the newest sound one of each
/// interval stays, `keep` of them; what a person took stays as long as the oldest of those would. What is
/// protected stays.
pub fn expired<Id: Copy>(kept: &[Kept<Id>], every: Millis, keep: u32, now: Millis) -> Vec<Id> {
    if every.0 == 0 {
        return Vec::new();
    }
    let window = |kept: &Kept<Id>| now.saturating_sub(kept.taken).0 / every.0;
    let newest = |one: &Kept<Id>| {
        let better = |other: &&Kept<Id>| {
            other.scheduled && !other.bad && window(other) == window(one) && other.taken > one.taken
        };
        !kept.iter().any(|other| better(&other))
    };
    let stays = |one: &Kept<Id>| {
        let young = window(one) < u64::from(keep);
        one.protected || (young && (!one.scheduled || (!one.bad && newest(one))))
    };
    let mut gone: Vec<&Kept<Id>> = kept.iter().filter(|one| !stays(one)).collect();
    gone.sort_by_key(|one| one.taken);
    gone.into_iter().map(|one| one.id).collect()
}

/// What goes next because the volume has too little left: a damaged one, or else the oldest. Never
/// a protected one.
pub fn squeezed<Id: Copy>(kept: &[Kept<Id>]) -> Option<Id> {
    let free = kept.iter().filter(|kept| !kept.protected);
    free.min_by_key(|kept| (!kept.bad, kept.taken)).map(|kept| kept.id)
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;
