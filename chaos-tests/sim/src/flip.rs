//! A bit that flips while a copy is built, and nothing else: the frame's checksum or the range's digest
//! tells, the range is asked for again, and the copy is admitted as if nothing had been.
//!
//! Schedules flip bits beside other faults; the scene here has the rule for its only subject.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dag_types::DatabaseId;

use crate::heal::is_level;
use crate::panics;
use crate::run::setup;
use crate::schedule::Schedule;
use crate::seeds::Wished;
use crate::shape::{DATA_NODES, FIRST_DATABASE};
use crate::world::World;

/// So slow that there is a middle, bytes a second.
const LIMIT: u64 = 2_000;
/// How long a seed of nearly nothing may take.
const OVER_MS: u64 = 15_000;

/// What was found; empty where the damage went no further than the wire.
pub fn run(seed: u64) -> Vec<String> {
    let mut schedule = Schedule::draw(seed);
    schedule.faults.clear();
    schedule.asked.clear();
    let mut world = World::new(&schedule, false);
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
    let Some(active) = world.serving(database) else { return Some("nobody serves") };
    let node = active % DATA_NODES + 1;
    drop(world.ask_for_seed(Wished { database, node, whole: true, limit: LIMIT }));
    let source = |world: &World| {
        let aim = world.aim(database, 0)?;
        Some((aim.source?, aim.target))
    };
    if !world.until(OVER_MS, |world| source(world).is_some()) {
        return Some("no source gives anything");
    }
    let (source, target) = source(world).expect("looked at above");
    world.network.flip(source, target, 12_345);
    let over = |world: &World| world.seeding().is_empty();
    if !world.until(OVER_MS, over) {
        return Some("the seed does not come to its end");
    }
    let counts = world.seed_counts();
    match (counts.flipped, counts.finished) {
        (1, 1) => None,
        (1, _) => Some("the copy is not admitted"),
        _ => Some("no bit flipped"),
    }
}
