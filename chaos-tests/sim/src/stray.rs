//! A copy of another generation: what a group that was formed anew leaves behind somewhere, and what
//! then speaks to the copies of today as if it were one of them.
//!
//! Its generation makes its terms greater than any of theirs, so that one frame taken for a frame of
//! their own group would depose their leader. Every frame therefore names its generation, and one of
//! another is refused before Raft sees it. Schedules make such a copy beside other faults; the scene
//! here makes nothing else, and has the rule for its only subject.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dag_types::{DatabaseId, Generation, NodeId, ReplicaId};
use replication::Member;

use crate::heal::is_level;
use crate::node::Assigned;
use crate::panics;
use crate::run::setup;
use crate::schedule::Schedule;
use crate::shape::{DATA_NODES, FIRST_DATABASE, WITNESS};
use crate::world::World;

/// The generation of the stray copy; that of all others is the first.
const OTHER: Generation = Generation(2);
/// How long the stray copy speaks to the others: several elections of the slowest weather.
const SPEAKS_MS: u64 = 4_000;

/// Makes a copy of generation 2 on the witness, which takes the others for its voters; `None` where
/// the witness does not run.
pub fn make(world: &mut World, database: DatabaseId) -> Option<Assigned> {
    let shared = world.nodes[&WITNESS].life.as_ref()?.shared.clone();
    let replica = ReplicaId(world.next_replica);
    world.next_replica += 1;
    let assigned = Assigned { replica, generation: OTHER, born: false };
    let mut members = world.placements[&database].as_members(true);
    members.pop_first();
    members.insert(replica, Member { node: NodeId(WITNESS) });
    // It goes by a gate of its own time, which is open: the witness's never is.
    if let Some(gate) = world.nodes[&WITNESS].gate() {
        gate.be_strange();
    }
    world.nodes.get_mut(&WITNESS)?.spawn(async move {
        shared.open(database, assigned).await;
        if let Some(group) = shared.group(database) {
            let _ = group.initialize(&members).await;
        }
    });
    Some(assigned)
}

/// What was found; empty where no copy minded the stray one.
pub fn run(seed: u64) -> Vec<String> {
    let mut schedule = Schedule::draw(seed);
    schedule.faults.clear();
    schedule.asked.clear();
    let mut world = World::new(&schedule, false);
    // Raft does not reckon with a term from nowhere: where the rule is left out, it may panic.
    let ended = catch_unwind(AssertUnwindSafe(|| scene(&mut world, DatabaseId(FIRST_DATABASE))));
    let mut found = std::mem::take(&mut world.findings);
    found.extend(match ended {
        Ok(missing) => missing.map(|what| format!("S9: {what}")),
        Err(_) => panics::take().map(|what| format!("P1: a task panicked: {what}")),
    });
    let _ = catch_unwind(AssertUnwindSafe(|| world.end()));
    let _ = catch_unwind(AssertUnwindSafe(|| drop(world)));
    let _ = panics::take();
    found
}

/// What the scene lacks to prove anything.
fn scene(world: &mut World, database: DatabaseId) -> Option<&'static str> {
    if !setup(world) || !world.until(5_000, |world| is_level(world, database)) {
        return Some("the cluster does not come up");
    }
    // Whoever has heard a leader a moment ago gives nobody a vote, and an election of their own may
    // come first: so their leader goes, and nobody but the stray copy asks to follow it.
    for id in 1..=DATA_NODES {
        if let Some(life) = world.nodes[&id].life.as_ref() {
            life.shared.bar(database);
        }
    }
    let Some(leader) = world.serving(database) else { return Some("nobody serves") };
    world.stop(leader, false);
    if make(world, database).is_none() {
        return Some("the witness does not run");
    }
    world.advance(SPEAKS_MS);
    let stray = world.nodes[&WITNESS].group(database);
    let asks = stray.is_some_and(|group| Generation::of_term(group.status().term) == OTHER);
    (!asks).then_some("the stray copy never asks for a vote")
}
