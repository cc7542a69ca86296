//! An entry that a newer Holdfast wrote: every copy that meets it must fail, and none may go on
//! without it, for that copy would be another database than its siblings.
//!
//! No fault of the catalogue makes such an entry. Here it is put behind the end of every copy's log
//! while nothing else happens, as if a newer leader had replicated it, and all nodes lose power.
//! The next leader commits it.

use bytes::Bytes;
use dag_types::{DatabaseId, LogId};
use storage::log::LogEntry;

use crate::heal::is_level;
use crate::run::setup;
use crate::schedule::Schedule;
use crate::shape::{FIRST_DATABASE, NODES};
use crate::world::World;

/// A type that no version has.
const UNKNOWN: [u8; 32] = [200; 32];
/// Raft's "normal" entry.
const NORMAL: u8 = 1;

/// What was found; empty where every copy stopped before the entry.
pub fn run(seed: u64) -> Vec<String> {
    let mut schedule = Schedule::draw(seed);
    schedule.faults.clear();
    schedule.asked.clear();
    let database = DatabaseId(FIRST_DATABASE);
    let mut world = World::new(&schedule, false);
    let found = scene(&mut world, database);
    world.end();
    found
}

fn scene(world: &mut World, database: DatabaseId) -> Vec<String> {
    if !setup(world) || !world.until(5_000, |world| is_level(world, database)) {
        return vec!["S9: the cluster does not come up".to_owned()];
    }
    let Some(unknown) = plant(world, database) else {
        return vec!["S9: the copies are not level".to_owned()];
    };
    (1..=NODES).for_each(|id| world.stop(id, true));
    (1..=NODES).for_each(|id| world.start(id));
    // Until the gates are open again, somebody leads, and whoever goes on has gone on.
    world.until(15_000, |world| world.failed.keys().any(|(_, failed)| *failed == database));
    world.advance(1_000);
    let beyond = |id: &u64| {
        let group = world.nodes[id].group(database);
        group.is_some_and(|group| group.status().applied >= Some(unknown))
    };
    let went_on: Vec<u64> = (1..=NODES).filter(beyond).collect();
    let failed = world.failed.keys().any(|(_, failed)| *failed == database);
    match (went_on.is_empty(), failed) {
        (true, true) => Vec::new(),
        (true, false) => vec!["U2: the entry was never met".to_owned()],
        (false, _) => vec![format!("U1: nodes {went_on:?} went on past an entry they cannot read")],
    }
}

/// Puts the entry behind the end of every copy's log, durably.
fn plant(world: &mut World, database: DatabaseId) -> Option<LogId> {
    let mut planted = None;
    for id in 1..=NODES {
        let Some(life) = &world.nodes[&id].life else { continue };
        let opened = life.shared.state().opened.get(&database).cloned();
        let Some(opened) = opened else { continue };
        let log = opened.copy.log();
        let last = log.bounds().last?;
        let at = LogId { term: last.term, index: last.index + 1 };
        if planted.is_some_and(|other| other != at) {
            return None;
        }
        planted = Some(at);
        let payload = Bytes::from_static(&UNKNOWN);
        log.append(vec![LogEntry { id: at, kind: NORMAL, payload }], Box::new(|_| ()));
    }
    // Durable everywhere; a heartbeat does not mind an entry that Raft has not heard of.
    world.advance(30);
    planted
}
