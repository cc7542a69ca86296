//! A database whose majority is lost goes on in a new generation: the transitions.
//!
//! ```text
//!   generation 1, no majority ── ReformDatabase ──► generation 2: one voter, made of the copy that
//!                                                   was chosen; all others are left behind
//!                             ── EndReform ───────► it serves; what was left behind is built anew
//! ```
//! From the first of the two entries on, the old generation is no more: every node that applies it
//! stops its old copy, and a node that was away opens its gate only with a record that stands behind
//! it. So the entry names the last opening of every gate that its proposer took for closed, and has
//! no effect where one of them was opened since.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::{DatabaseId, LogId, NodeId, StateView};

use super::apply::{Verdict, put_database};
use super::apply_operation::{self as operations, wrong_term};
use super::apply_seed::{end_step, place_voters};
use super::command::{Command, EndReform, ReformDatabase, SeenOpening};
use super::operation::OperationState;
use super::record::{COUNTERS, Counters, DatabaseRecord, ReplicaRecord};
use super::response::{FailedCheck, NoDag, Rejection};
use super::seed::SeedRecord;
use super::state::ControlState;
use crate::change::{Change, Fault};

type Result<T, V> = core::result::Result<T, Fault<<V as StateView>::Error>>;

/// What is held against a copy of an earlier generation.
pub const LEFT_BEHIND: &str = "its database went on without it";

pub(super) fn reform<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    command: &Command,
    order: &ReformDatabase,
) -> Result<Verdict, V> {
    if let Some(check) = wrong_term(&format!("database {}", order.database), at, order.term) {
        return Ok(Verdict::failed(check));
    }
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    };
    let database = match reformable(&state, order) {
        Ok(Some(database)) => database,
        Ok(None) => return Ok(Verdict::was_so()),
        Err(check) => return Ok(Verdict::failed(check)),
    };
    let mut counters = change.pending_or_before::<Counters>(COUNTERS, "the counters")?;
    let mut anew = database.clone();
    anew.generation += 1;
    anew.reforming = order.operation;
    for copy in &mut anew.replicas {
        *copy = next_copy(copy, order, counters.next_replica, anew.generation);
        counters.next_replica += 1;
    }
    anew.active_site = String::new();
    place_voters(&state, &mut anew);
    change.put(COUNTERS, &counters);
    put_database(change, &anew);
    for seed in state.seeds.iter().filter(|seed| seed.database == order.database) {
        give_up(change, command, seed)?;
    }
    Ok(Verdict::changed())
}

/// The database as it is; none where this very operation did it already.
fn reformable<'a>(
    state: &'a ControlState,
    order: &ReformDatabase,
) -> core::result::Result<Option<&'a DatabaseRecord>, FailedCheck> {
    let id = DatabaseId(order.database);
    let found = state.database(id).filter(|_| id != DatabaseId::CONTROL);
    let database = found.ok_or_else(|| {
        let subject = format!("database {id}");
        FailedCheck::new("database-exists", subject, "none", "a database of this DAG")
    })?;
    let name = || database.name.clone();
    if database.reforming == order.operation && database.generation == order.generation + 1 {
        return Ok(None);
    }
    if database.generation != order.generation {
        let value = format!("generation {}", database.generation);
        let limit = format!("generation {}", order.generation);
        return Err(FailedCheck::new("generation", name(), value, limit));
    }
    let copy = database.replica_on(NodeId(order.node));
    if copy.is_none_or(|copy| copy.replica != order.replica || copy.left_behind) {
        let limit = format!("replica {} on node {}", order.replica, order.node);
        return Err(FailedCheck::new("survivor", name(), "another copy", limit));
    }
    let given_up = database.replicas.iter().filter(|copy| copy.node != order.node);
    let opened = given_up.into_iter().find(|copy| {
        let seen = order.openings.iter().find(|seen| seen.node == copy.node);
        seen.is_some_and(|seen| *seen != last_opening(state, copy.node()))
    });
    if let Some(copy) = opened {
        let value = format!("the gate of node {} was opened since", copy.node);
        return Err(FailedCheck::new("gates-closed", name(), value, "no opening since the checks"));
    }
    Ok(Some(database))
}

/// The last opening of a node's gate.
pub fn last_opening(state: &ControlState, node: NodeId) -> SeenOpening {
    let known = state.openings.iter().find(|opening| opening.node == node.0);
    let grant = known.map(|opening| opening.grant()).unwrap_or_default();
    SeenOpening { node: node.0, grant_term: grant.term, grant_number: grant.number }
}

fn next_copy(
    old: &ReplicaRecord,
    order: &ReformDatabase,
    replica: u64,
    generation: u32,
) -> ReplicaRecord {
    let chosen = old.replica == order.replica;
    ReplicaRecord {
        replica,
        node: old.node,
        store: old.store.clone(),
        voter: chosen,
        seeded: true,
        unfit: match chosen {
            true => String::new(),
            false => format!("{LEFT_BEHIND} in generation {generation}"),
        },
        path: old.path.clone(),
        from_replica: if chosen { old.replica } else { 0 },
        left_behind: !chosen,
    }
}

/// What was being built is of the old generation.
fn give_up<V: StateView>(
    change: &mut Change<'_, V>,
    command: &Command,
    seed: &SeedRecord,
) -> Result<(), V> {
    change.delete(SeedRecord::key(seed.database, seed.node));
    if let Ok(mut operation) = operations::find(change, seed.operation)? {
        let outcome = "its database was formed anew".to_string();
        end_step(&mut operation, command, false, &outcome);
        operation.state = OperationState::Failed.into();
        operation.outcome = outcome;
        operation.ended_ms = command.at_ms.max(1);
        operations::put(change, &operation);
    }
    Ok(())
}

pub(super) fn end<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    order: &EndReform,
) -> Result<Verdict, V> {
    if let Some(check) = wrong_term(&format!("database {}", order.database), at, order.term) {
        return Ok(Verdict::failed(check));
    }
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    };
    let database = state.database(DatabaseId(order.database));
    let same = |database: &&DatabaseRecord| {
        database.generation == order.generation && database.reforming != 0
    };
    let Some(mut database) = database.filter(same).cloned() else { return Ok(Verdict::was_so()) };
    database.reforming = 0;
    put_database(change, &database);
    Ok(Verdict::changed())
}

/// The gates that must not be opened from now on, for an order.
pub fn openings_of(state: &ControlState, nodes: &[NodeId]) -> Vec<SeenOpening> {
    nodes.iter().map(|node| last_opening(state, *node)).collect()
}

#[cfg(test)]
#[path = "apply_reform_test.rs"]
mod tests;
