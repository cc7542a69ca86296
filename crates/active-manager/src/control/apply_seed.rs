//! Copies that are built from others, and copies that are removed: the transitions.
//!
//! Only what the log itself can tell is checked here. Whether a source is healthy and a majority
//! stays is checked by whoever proposes, with reports in hand ([`crate::seed`]).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::{DatabaseId, LogId, NodeId, StateView, StoreId};
use prost::Message;

use super::apply::{Verdict, put_database};
use super::apply_activation::decided;
use super::apply_operation as operations;
use super::command::{AdvanceSeed, Command, EndSeed, RemoveCopy, SeedCopy};
use super::operation::{Operation, OperationKind, OperationState, StepRecord};
use super::record::{COUNTERS, Counters, DatabaseRecord, ReplicaRecord};
use super::response::{FailedCheck, NoDag, OperationBegun, Outcome, Rejection};
use super::seed::{SeedPhase, SeedRecord};
use super::state::ControlState;
use crate::change::{Change, Fault};
use crate::placement::{self, Wish};
use crate::request;

type Result<T, V> = core::result::Result<T, Fault<<V as StateView>::Error>>;

/// What operations about the copy on a node are about; one of them at a time.
pub(crate) fn object(database: u64, node: u64) -> String {
    format!("database {database} on node {node}")
}

/// What a move of a database is about.
pub fn move_object(database: u64) -> String {
    format!("database {database}")
}

pub(super) fn begin<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    command: &Command,
    order: &SeedCopy,
) -> Result<Verdict, V> {
    let content = order.encode_to_vec();
    if let Some(verdict) = operations::begun_before(change, &order.request_id, &content)? {
        return Ok(verdict);
    }
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    };
    let begun = match new_seed(&state, order) {
        Ok(seed) => record(change, &state, at, command, seed)?,
        Err(check) => return Ok(Verdict::failed(check)),
    };
    request::remember(change, command.at_ms, &order.request_id, &content, &begun)?;
    Ok(Verdict::Done(Outcome::OperationBegun(begun)))
}

fn new_seed(
    state: &ControlState,
    order: &SeedCopy,
) -> core::result::Result<SeedRecord, FailedCheck> {
    let database = seedable(state, order.database)?;
    let node = NodeId(order.node);
    let subject = format!("{} on node {node}", database.name);
    let record = state.node(node).filter(|record| !record.witness);
    let record = record.filter(|record| !record.is_leaving() && !record.is_joining());
    let Some(record) = record.filter(|record| record.store() != StoreId::NIL) else {
        return Err(FailedCheck::new("data-node", subject, "none", "a data node of this DAG"));
    };
    let old = database.replica_on(node);
    match (old, order.adds) {
        (Some(old), true) => {
            let value = format!("replica {}", old.replica);
            let check = FailedCheck::new("copy-absent", subject, value, "no copy yet");
            return Err(check.advice("`dagctl copy reseed` builds a copy anew"));
        }
        (None, false) => {
            let check = FailedCheck::new("copy-exists", subject, "none", "a copy there");
            return Err(check.advice("`dagctl copy add` makes another one"));
        }
        _ => {}
    }
    nothing_runs(state, object(order.database, order.node))?;
    // It may come to this node, and an active copy gives its place to no other.
    nothing_runs(state, move_object(order.database))?;
    let path = match (order.path.as_str(), old) {
        ("", Some(old)) => old.path.clone(),
        (path, _) => path.to_string(),
    };
    if order.from == order.node && old.is_none_or(|old| old.path == path) {
        let check = FailedCheck::new("path-differs", subject, path, "another path than now");
        return Err(check.advice("`dagctl copy reseed DB@NODE` builds it anew where it is"));
    }
    path_is_free(state, order, &path)?;
    Ok(SeedRecord {
        path,
        database: order.database,
        node: order.node,
        store: record.store.clone(),
        generation: database.generation,
        from: order.from,
        limit: order.limit,
        whole: order.whole,
        phase: SeedPhase::Building.into(),
        replaces: old.map_or(0, |old| old.replica),
        voter: old.is_some_and(|old| old.voter),
        // The vote of a copy that was found unfit was given up with it.
        returns: old.is_some_and(|old| old.left_behind || !old.unfit.is_empty()),
        ..SeedRecord::default()
    })
}

fn seedable(state: &ControlState, id: u64) -> core::result::Result<&DatabaseRecord, FailedCheck> {
    let found = state.database(DatabaseId(id)).filter(|_| DatabaseId(id) != DatabaseId::CONTROL);
    found.ok_or_else(|| {
        let subject = format!("database {id}");
        FailedCheck::new("database-exists", subject, "none", "a database of this DAG")
    })
}

/// A folder belongs to one database: none lies in that of another, nor around it.
fn path_is_free(
    state: &ControlState,
    order: &SeedCopy,
    path: &str,
) -> core::result::Result<(), FailedCheck> {
    let Some(own) = parts(path) else { return Ok(()) };
    let others = state.databases.iter().filter(|other| other.database != order.database);
    let copies = others.clone().flat_map(|other| {
        let here = other.replicas.iter().filter(|copy| copy.node == order.node);
        here.map(|copy| (other.name.as_str(), copy.path.as_str()))
    });
    let seeds = state.seeds.iter().filter(|seed| seed.node == order.node);
    let seeds = seeds.filter(|seed| seed.database != order.database);
    let seeds = seeds.map(|seed| ("a copy that is being built", seed.path.as_str()));
    for (whose, taken) in copies.chain(seeds) {
        let Some(taken) = parts(taken) else { continue };
        if own.iter().zip(&taken).all(|(own, taken)| own == taken) {
            let subject = format!("{path} on node {}", order.node);
            let check = FailedCheck::new("path-free", subject, whose, "no other database's folder");
            return Err(check.advice("give every database a folder of its own"));
        }
    }
    Ok(())
}

/// The names that lead to a folder; none where it is the one below the node's root.
fn parts(path: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then_some(parts)
}

/// Two administrators cannot work on one copy at once.
fn nothing_runs(state: &ControlState, object: String) -> core::result::Result<(), FailedCheck> {
    let Some(running) = state.running().find(|operation| operation.object == object) else {
        return Ok(());
    };
    let value = format!("operation {} is running", running.operation);
    let advice = format!("follow it with `dagctl ops show {}`", running.operation);
    Err(FailedCheck::new("operation-running", object, value, "none").advice(advice))
}

/// Gives out the replica id and writes the seed and its operation.
fn record<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    at: LogId,
    command: &Command,
    mut seed: SeedRecord,
) -> Result<OperationBegun, V> {
    let mut counters = change.pending_or_before::<Counters>(COUNTERS, "the counters")?;
    counters.operations += 1;
    (seed.operation, seed.replica) = (counters.operations, counters.next_replica);
    counters.next_replica += 1;
    change.put(COUNTERS, &counters);
    let mut operation = Operation {
        operation: seed.operation,
        kind: OperationKind::SeedCopy.into(),
        object: object(seed.database, seed.node),
        state: OperationState::Running.into(),
        begun: Some(decided(command)),
        plan: plan(state, &seed),
        ..Operation::default()
    };
    let what = format!("build replica {} beside what is there", seed.replica);
    begin_step(&mut operation, at, command, seed.node, what);
    operations::put(change, &operation);
    operations::forget_old(change, state, counters.operations);
    change.put(SeedRecord::key(seed.database, seed.node), &seed);
    Ok(OperationBegun { operation: seed.operation, replayed: false })
}

fn plan(state: &ControlState, seed: &SeedRecord) -> String {
    let name = state.database(seed.database()).map_or("?", |database| &database.name);
    let name_of = |node: u64| {
        let known = state.node(NodeId(node));
        known.map_or_else(|| format!("node {node}"), |known| known.name.clone())
    };
    let mut plan = format!("{name} on {} as replica {}", name_of(seed.node), seed.replica);
    match seed.replaces {
        0 => plan.push_str(", a copy more"),
        old => plan.push_str(&format!(" in the place of replica {old}")),
    }
    if !seed.path.is_empty() {
        plan.push_str(&format!(", in {}", seed.path));
    }
    if seed.from != 0 {
        plan.push_str(&format!(", from {}", name_of(seed.from)));
    }
    if seed.limit != 0 {
        plan.push_str(&format!(", at most {} bytes/s", seed.limit));
    }
    if seed.whole {
        plan.push_str(", whole");
    }
    plan
}

fn begin_step(operation: &mut Operation, at: LogId, command: &Command, node: u64, what: String) {
    operation.steps.push(StepRecord {
        step: operation.steps.len() as u32 + 1,
        term: at.term,
        node,
        what,
        begun_ms: command.at_ms,
        ..StepRecord::default()
    });
}

/// Zero would say that it has not ended.
pub(super) fn end_step(
    operation: &mut Operation,
    command: &Command,
    succeeded: bool,
    outcome: &str,
) {
    if let Some(last) = operation.steps.last_mut().filter(|step| !step.ended()) {
        last.ended_ms = command.at_ms.max(1);
        last.succeeded = succeeded;
        last.outcome = outcome.to_string();
    }
}

/// What an order about a seed is about: its record and its operation.
struct Found {
    state: ControlState,
    seed: SeedRecord,
    operation: Operation,
}

fn find<V: StateView>(
    change: &Change<'_, V>,
    at: LogId,
    (database, node, replica): (u64, u64, u64),
    term: u64,
) -> Result<core::result::Result<Found, FailedCheck>, V> {
    let subject = format!("the seed of replica {replica}");
    if let Some(check) = operations::wrong_term(&subject, at, term) {
        return Ok(Err(check));
    }
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Err(FailedCheck::new("seed-runs", subject, "no DAG", "a seed under way")));
    };
    let seed = state.seed(DatabaseId(database), NodeId(node));
    let Some(seed) = seed.filter(|seed| seed.replica == replica).cloned() else {
        return Ok(Err(FailedCheck::new("seed-runs", subject, "not so", "a seed under way")));
    };
    let operation = operations::find(change, seed.operation)?;
    Ok(operation.map(|operation| Found { state, seed, operation }))
}

/// The new copy takes the place of the old one. From here on the seed only goes forward.
pub(super) fn advance<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    command: &Command,
    order: &AdvanceSeed,
) -> Result<Verdict, V> {
    let about = (order.database, order.node, order.replica);
    let Found { state, mut seed, mut operation } = match find(change, at, about, order.term)? {
        Ok(found) => found,
        Err(check) => return Ok(Verdict::failed(check)),
    };
    if seed.phase() != SeedPhase::Building {
        return Ok(Verdict::was_so());
    }
    if operation.state() != OperationState::Running {
        let subject = format!("operation {}", seed.operation);
        let value = format!("{:?}", operation.state());
        return Ok(Verdict::failed(FailedCheck::new("seed-runs", subject, value, "Running")));
    }
    let mut database = match seedable(&state, order.database) {
        Ok(database) => database.clone(),
        Err(check) => return Ok(Verdict::failed(check)),
    };
    if let Err(check) = may_give_place(&state, &database, &seed, &order.voters) {
        return Ok(Verdict::failed(check));
    }
    let new = ReplicaRecord {
        replica: seed.replica,
        node: seed.node,
        store: seed.store.clone(),
        seeded: true,
        path: seed.path.clone(),
        ..ReplicaRecord::default()
    };
    match database.replicas.iter_mut().find(|copy| copy.node == seed.node) {
        // In the same place: the order is that of the activation preference.
        Some(old) => {
            // The database may have moved to another site since the seed began.
            seed.voter = old.voter;
            *old = new;
        }
        None => database.replicas.push(new),
    }
    put_database(change, &database);
    seed.phase = SeedPhase::Joining.into();
    change.put(SeedRecord::key(seed.database, seed.node), &seed);
    end_step(&mut operation, command, true, &order.outcome);
    let what = format!("replica {} catches up and is compared", seed.replica);
    begin_step(&mut operation, at, command, seed.node, what);
    operations::put(change, &operation);
    Ok(Verdict::changed())
}

/// Whether the copy on the seed's node may stop. Whoever asks saw the control log as it was before.
fn may_give_place(
    state: &ControlState,
    database: &DatabaseRecord,
    seed: &SeedRecord,
    voters: &[u64],
) -> core::result::Result<(), FailedCheck> {
    // A step of a move names copies by their nodes, and makes them vote.
    nothing_runs(state, move_object(seed.database))?;
    none_joins(state, database)?;
    votes_suffice(database, voters, seed.node)
}

/// One copy of a database at a time is compared, and meanwhile nobody else's vote is given or taken: it
/// must not vote itself before its digest is known, and by its end its place among the voters is known.
/// Whoever asks saw the control log as it was before another copy was put in its place.
pub(super) fn none_joins(
    state: &ControlState,
    database: &DatabaseRecord,
) -> core::result::Result<(), FailedCheck> {
    let Some(seed) = state.joining(database.id()).next() else { return Ok(()) };
    let value = format!("replica {} on node {} is compared", seed.replica, seed.node);
    let check = FailedCheck::new("seed-joins", database.name.clone(), value, "none is compared");
    let show = format!("repeat this when `dagctl ops show {}` says Done", seed.operation);
    Err(check.advice(show))
}

/// Whether a majority stays when the copy on a node stops: of those who vote in the group itself, and of
/// those who vote here, to whom the group changes with the agreement of both.
fn votes_suffice(
    database: &DatabaseRecord,
    voting: &[u64],
    node: u64,
) -> core::result::Result<(), FailedCheck> {
    let copies = database.replicas.iter();
    let named: Vec<u64> =
        copies.clone().filter(|copy| copy.voter).map(|copy| copy.replica).collect();
    for voters in [voting, &named] {
        let stays =
            |voter: &&u64| copies.clone().any(|copy| copy.replica == **voter && copy.node != node);
        let stops = copies.clone().any(|copy| copy.node == node && voters.contains(&copy.replica));
        let (left, needed) = (voters.iter().filter(stays).count(), voters.len() / 2 + 1);
        if stops && left < needed {
            let subject = format!("{} without its copy on node {node}", database.name);
            let value = format!("{left} of {} voters stay", voters.len());
            let check = FailedCheck::new("majority", subject, value, format!("at least {needed}"));
            return Err(check.advice("heal or seed another copy first; `dagctl status` shows them"));
        }
    }
    Ok(())
}

pub(super) fn end<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    command: &Command,
    order: &EndSeed,
) -> Result<Verdict, V> {
    let about = (order.database, order.node, order.replica);
    let Found { state, seed, mut operation } = match find(change, at, about, order.term)? {
        Ok(found) => found,
        Err(check) => return Ok(Verdict::failed(check)),
    };
    let joining = seed.phase() == SeedPhase::Joining;
    if order.succeeded && !joining {
        let subject = format!("replica {}", seed.replica);
        let check = FailedCheck::new("seed-joined", subject, "being built", "in its place");
        return Ok(Verdict::failed(check));
    }
    if joining {
        let database = state.database(seed.database()).cloned();
        let mut database = database.expect("a database with a seed stays");
        judge(&state, &mut database, &seed, order);
        put_database(change, &database);
    }
    end_step(&mut operation, command, order.succeeded, &order.outcome);
    operation.state = match (order.succeeded, operation.state()) {
        (true, _) => OperationState::Done,
        (false, OperationState::Cancelling) => OperationState::Cancelled,
        (false, _) => OperationState::Failed,
    }
    .into();
    operation.outcome.clone_from(&order.outcome);
    operation.ended_ms = command.at_ms.max(1);
    operations::put(change, &operation);
    change.delete(SeedRecord::key(seed.database, seed.node));
    Ok(Verdict::changed())
}

/// Admits the new copy, or writes down why not.
fn judge(state: &ControlState, database: &mut DatabaseRecord, seed: &SeedRecord, order: &EndSeed) {
    let own = database.replicas.iter_mut().find(|copy| copy.replica == seed.replica);
    let own = own.expect("a copy that joins is in its database's record");
    match (order.succeeded, seed.replaces) {
        (true, _) if seed.replaces == 0 || seed.returns => place_voters(state, database),
        (true, _) => own.voter = seed.voter,
        (false, _) => own.unfit.clone_from(&order.outcome),
    }
}

/// Lets those vote whom placement wants, of the copies that there are.
pub(crate) fn place_voters(state: &ControlState, database: &mut DatabaseRecord) {
    let fit = |copy: &&ReplicaRecord| copy.unfit.is_empty();
    let nodes: Vec<NodeId> =
        database.replicas.iter().filter(fit).map(ReplicaRecord::node).collect();
    let site = match database.active_site.as_str() {
        "" => {
            // Where it is active now: a copy that comes back does not pull it away.
            let voter = database.replicas.iter().filter(fit).find(|copy| copy.voter);
            let first = voter.map(ReplicaRecord::node).or_else(|| nodes.first().copied());
            first.map(|node| state.site_of(node).to_string())
        }
        site => Some(site.to_string()),
    };
    let site = site.filter(|site| nodes.iter().any(|node| state.site_of(*node) == site));
    let wish = Wish { site, nodes, everywhere: false };
    // Copies stand on known data nodes, each once: there is nothing to refuse.
    let Ok(placed) = placement::place(&state.placement(), &wish) else { return };
    for copy in &mut database.replicas {
        copy.voter = placed.copies.iter().any(|placed| placed.node == copy.node() && placed.voter);
    }
    database.active_site = placed.active_site.unwrap_or_default();
    database.reasons = placed.reasons;
}

pub(super) fn remove<V: StateView>(
    change: &mut Change<'_, V>,
    order: &RemoveCopy,
) -> Result<Verdict, V> {
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    };
    let removed = match without(&state, order.database, NodeId(order.node)) {
        Ok(removed) => removed,
        Err(check) => return Ok(Verdict::failed(check)),
    };
    let before = seedable(&state, order.database).expect("it has just been found");
    if let Err(check) = votes_suffice(before, &order.voters, order.node) {
        return Ok(Verdict::failed(check));
    }
    put_database(change, &removed);
    Ok(Verdict::changed())
}

/// A database without its copy on a node.
pub(crate) fn without(
    state: &ControlState,
    id: u64,
    node: NodeId,
) -> core::result::Result<DatabaseRecord, FailedCheck> {
    let mut database = seedable(state, id)?.clone();
    let subject = format!("{} on node {node}", database.name);
    if database.replica_on(node).is_none() {
        return Err(FailedCheck::new("copy-exists", subject, "none", "a copy there"));
    }
    if database.replicas.len() == 1 {
        let check = FailedCheck::new("last-copy", subject, "the only one", "another copy");
        return Err(check.advice("its mail would be gone; `dagctl copy add` makes another copy"));
    }
    nothing_runs(state, object(id, node.0))?;
    none_joins(state, &database)?;
    database.replicas.retain(|copy| copy.node() != node);
    place_voters(state, &mut database);
    Ok(database)
}

#[cfg(test)]
#[path = "apply_seed_test.rs"]
mod tests;
