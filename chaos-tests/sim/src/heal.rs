//! After the faults: everything has power and network again, and must become well.
//!
//! A copy that Failed on a harmed disk is replaced as an operator would replace it: a new copy with
//! a new replica id joins, catches up, takes the old one's vote, and the old one leaves. Within a
//! bounded time every database must serve and every copy must hold everything.

use std::collections::BTreeSet;
use std::time::Duration;

use dag_types::{DatabaseId, NodeId, ReplicaId};
use tokio::time::Instant;

use crate::node::Assigned;
use crate::shape::{NODES, databases};
use crate::world::World;

/// How long it may take until every database serves, in milliseconds.
const SERVE_MS: u64 = 15_000;
/// How long one step of a replacement may take.
const STEP_MS: u64 = 8_000;

/// Heals what is broken; false where something was found that does not heal.
pub fn heal(world: &mut World) -> bool {
    restart_harmed(world);
    for database in databases() {
        if !world.until(SERVE_MS, |world| world.serving(database).is_some()) {
            let how = standing(world, database);
            world.find(format!("L1: database {database} has no leader after healing: {how}"));
            return false;
        }
    }
    for (node, database) in broken(world) {
        if let Err(why) = replace(world, node, database) {
            let how = standing(world, database);
            world.find(format!("L2: node {node} database {database} not reseeded: {why}; {how}"));
            return false;
        }
    }
    for database in databases() {
        if !world.until(SERVE_MS, |world| is_level(world, database)) {
            let how = standing(world, database);
            world.find(format!("L3: copies of database {database} do not catch up: {how}"));
            return false;
        }
    }
    true
}

/// A full disk has room again, and a process whose copy Failed is started anew: what its disk still
/// holds shows at open.
fn restart_harmed(world: &mut World) {
    for id in 1..=NODES {
        let fails = world.failed.keys().any(|(node, _)| *node == id);
        let life = world.nodes[&id].life.as_ref();
        let not_started = life.is_some_and(|life| life.shared.state().not_started.is_some());
        if (fails || not_started) && world.harmed.contains(&id) {
            world.stop(id, false);
            world.start(id);
        }
    }
    world.advance(50);
}

/// Copies that are Failed, or whose loss no check could find.
fn broken(world: &World) -> BTreeSet<(u64, DatabaseId)> {
    let failed = world.failed.keys().copied();
    failed.chain(world.condemned.iter().copied()).collect()
}

fn replace(world: &mut World, node: u64, database: DatabaseId) -> Result<(), &'static str> {
    let Some(old) = world.nodes[&node].assigned.get(&database).copied() else {
        return Ok(());
    };
    let new = ReplicaId(world.next_replica);
    world.next_replica += 1;
    let assigned = Assigned { replica: new, born: false, ..old };
    world
        .ask(node, STEP_MS, |shared| async move { shared.discard(database, old).await })
        .ok_or("its directory cannot be discarded")?;
    world.nodes.get_mut(&node).expect("a node").assigned.insert(database, assigned);
    world.failed.remove(&(node, database));
    world.condemned.remove(&(node, database));
    world
        .ask(node, STEP_MS, |shared| async move { shared.open(database, assigned).await })
        .ok_or("the new copy cannot be made")?;
    let placement = world.placements.get_mut(&database).expect("a database of the shape");
    placement.members.remove(&old.replica);
    placement.members.insert(new, NodeId(node));
    let voted = placement.voters.remove(&old.replica);
    join(world, database)?;
    if voted {
        world.placements.get_mut(&database).expect("a database").voters.insert(new);
    }
    if !world.until(STEP_MS, |world| is_level(world, database)) {
        return Err("the new copy does not catch up");
    }
    settle(world, database)
}

/// The new copy receives the log.
fn join(world: &mut World, database: DatabaseId) -> Result<(), &'static str> {
    let members = world.placements[&database].as_members(false);
    repeat(world, database, move |group| {
        let members = members.clone();
        async move {
            let deadline = Instant::now() + Duration::from_millis(2_000);
            group.add_learners(&members, deadline).await.is_ok()
        }
    })
    .then_some(())
    .ok_or("the new copy cannot be added")
}

/// The membership is what the placement says.
fn settle(world: &mut World, database: DatabaseId) -> Result<(), &'static str> {
    let members = world.placements[&database].as_members(false);
    let voters = world.placements[&database].voters.clone();
    repeat(world, database, move |group| {
        let (members, voters) = (members.clone(), voters.clone());
        async move {
            let deadline = Instant::now() + Duration::from_millis(2_000);
            group.change_members(&members, &voters, deadline).await.is_ok()
        }
    })
    .then_some(())
    .ok_or("the membership cannot be changed")
}

/// Does something at whichever copy leads, until it succeeds or the time is over.
pub fn repeat<F>(
    world: &mut World,
    database: DatabaseId,
    make: impl Fn(replication::Group) -> F,
) -> bool
where
    F: Future<Output = bool> + Send + 'static,
{
    let limit = world.now_ms + STEP_MS;
    while world.now_ms < limit {
        let done = world.serving(database).and_then(|leader| {
            let group = world.nodes[&leader].group(database)?;
            let attempt = make(group);
            world.ask(leader, 3_000, |_| attempt)
        });
        if done == Some(true) {
            return true;
        }
        world.advance(20);
    }
    false
}

/// Whether a copy serves, and all copies that should hold the database hold what it holds.
pub fn is_level(world: &World, database: DatabaseId) -> bool {
    let Some(leader) = world.serving(database) else { return false };
    let last = world.nodes[&leader].group(database).and_then(|group| group.last());
    world.nodes.values().filter(|node| node.assigned.contains_key(&database)).all(|node| {
        if world.failed.contains_key(&(node.id, database)) {
            return true;
        }
        node.group(database).is_some_and(|group| group.status().applied >= last)
    })
}

/// How the copies of a database stand, for whoever reads a finding.
pub fn standing(world: &World, database: DatabaseId) -> String {
    let mut words = Vec::new();
    for node in world.nodes.values() {
        let Some(group) = node.group(database) else { continue };
        let status = group.status();
        let index = |at: Option<dag_types::LogId>| at.map(|at| at.index);
        words.push(format!(
            "node {} replica {} {:?} term {} last {:?} durable {:?} committed {:?} applied {:?} \
             purged {:?} failed {:?} voters {:?} followers {:?}",
            node.id,
            status.replica,
            status.role,
            status.term,
            index(status.last),
            index(status.durable),
            index(status.committed),
            index(status.applied),
            index(status.purged),
            status.failed,
            status.members.iter().filter(|m| m.voter).map(|m| m.replica.0).collect::<Vec<_>>(),
            status.followers.iter().map(|f| (f.replica.0, index(f.matched))).collect::<Vec<_>>(),
        ));
    }
    words.join("; ")
}
