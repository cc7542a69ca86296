//! After the faults: everything has power and network again, and must become well.
//!
//! A copy that Failed on a harmed disk is replaced as an operator would replace it: a new copy with
//! a new replica id joins, catches up, takes the old one's vote, and the old one leaves. Within a
//! bounded time every database must serve and every copy must hold everything.

use std::collections::BTreeSet;
use std::time::Duration;

use active_manager::control::ReplicaRecord;
use dag_types::{DatabaseId, NodeId, ReplicaId};
use tokio::time::Instant;

use crate::node::Assigned;
use crate::seeds::Wished;
use crate::shape::{NODES, databases, mailbox_databases};
use crate::world::World;

/// How long it may take until every database serves, in milliseconds.
const SERVE_MS: u64 = 15_000;
/// How long it may take until every copy is built that is to be.
const SEED_MS: u64 = 30_000;
/// So many copies that differ from the active one are enough: the next one will.
const DIFFERING_MAX: u32 = 6;
/// After how long it is looked again what is still to be built.
const ROUND_MS: u64 = 500;
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
    // First the control group: without its copy of it a node does not learn what else it is to hold.
    for (node, database) in broken(world) {
        if database != DatabaseId::CONTROL {
            continue;
        }
        if let Err(why) = replace(world, node, database) {
            let how = standing(world, database);
            world.find(format!("L2: node {node} database {database} not reseeded: {why}; {how}"));
            return false;
        }
    }
    if !reseed(world) {
        return false;
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
    failed.chain(world.condemned.keys().copied()).chain(world.unfit()).collect()
}

/// Lets every broken copy be built anew, and what is under way come to its end: a built copy may wait for
/// the vote of a broken one.
fn reseed(world: &mut World) -> bool {
    world.stop_wishing();
    let (limit, differing) = (world.now_ms + SEED_MS, world.differing());
    while world.now_ms < limit && world.differing() < differing + DIFFERING_MAX {
        let seeding = world.seeding();
        forget_replaced(world, &seeding);
        let mut broken = broken(world);
        if broken.is_empty() && seeding.is_empty() {
            broken.extend(world.still_wished());
        }
        if broken.is_empty() && seeding.is_empty() && is_held(world) {
            return true;
        }
        hand_over(world, &seeding);
        broken.retain(|copy| !seeding.contains(copy));
        for (at, (node, database)) in broken.into_iter().enumerate() {
            let whole = at % 2 == 1;
            drop(world.ask_for_seed(Wished { database, node, whole, limit: 0 }));
        }
        world.advance(ROUND_MS);
    }
    let (broken, seeding) = (broken(world), world.seeding());
    let how: Vec<String> = mailbox_databases().map(|database| standing(world, database)).collect();
    world.find(format!(
        "L2: copies are not reseeded: broken {broken:?}, under way {seeding:?}; {}",
        how.join("; ")
    ));
    false
}

/// A copy that became active while another one was built in its place gives it only when it is not.
fn hand_over(world: &mut World, seeding: &[(u64, DatabaseId)]) {
    for (node, database) in seeding {
        if world.serving(*database) == Some(*node) {
            world.bring_home(*database);
        }
    }
}

/// A copy whose loss no check could find is gone once another one has its place for good.
fn forget_replaced(world: &mut World, seeding: &[(u64, DatabaseId)]) {
    let nodes = &world.nodes;
    world.condemned.retain(|(node, database), replica| {
        let held = nodes[node].assigned.get(database).map(|held| held.replica);
        held == Some(*replica) || seeding.contains(&(*node, *database))
    });
}

/// Whether every node holds the copies that the control log gives it, and no others are members.
fn is_held(world: &World) -> bool {
    let Some(state) = world.control() else { return false };
    mailbox_databases().all(|database| {
        let Some(record) = state.database(database) else { return false };
        let named: BTreeSet<ReplicaId> = record.replicas.iter().map(ReplicaRecord::id).collect();
        let Some(leader) = world.serving(database) else { return false };
        let members = world.nodes[&leader].group(database).map(|group| group.status().members);
        let members = members.unwrap_or_default();
        let voters = members.iter().filter(|member| member.voter);
        let voting = record.replicas.iter().filter(|copy| copy.voter);
        members.iter().map(|member| member.replica).collect::<BTreeSet<_>>() == named
            && voters.map(|member| member.replica).collect::<BTreeSet<_>>()
                == voting.map(ReplicaRecord::id).collect()
            && record.replicas.iter().all(|copy| {
                let group = world.nodes[&copy.node().0].group(database);
                group.is_some_and(|group| group.replica() == copy.id())
            })
    })
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
