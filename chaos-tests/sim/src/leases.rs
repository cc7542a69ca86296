//! Scenes of gates, without dice: what schedules make too seldom.
//!
//! - A site that falls silent for good: nobody grants anything until half of it is heard, neither a
//!   leader that heard it once nor a new one; with half of it there, the gates open by themselves.
//! - A holder whose clock is as slow as clocks may be, and a granter whose clock is as fast: when the
//!   granter says that a takeover may begin, the holder's gate is closed.
//!
//! Both are judged by the rules of [`crate::gates`].

use std::collections::BTreeSet;

use dag_types::DatabaseId;
use history::journal::Event;

use crate::network::sides;
use crate::run::setup;
use crate::schedule::Schedule;
use crate::shape::{DATA_NODES, NODES, WITNESS};
use crate::world::World;

/// The clocks of holder and granter, in thousandths: the bound of what the protocol reckons with.
const SLOW: u64 = 990;
const FAST: u64 = 1010;

/// What was found when site beta falls silent; empty where no gate opens before half of it is back.
pub fn silent_site(seed: u64) -> Vec<String> {
    play(seed, silent)
}

/// What was found when a holder with a slow clock is cut off from a granter with a fast one.
pub fn drift(seed: u64) -> Vec<String> {
    play(seed, drifting)
}

fn play(seed: u64, scene: impl FnOnce(&mut World) -> Result<(), &'static str>) -> Vec<String> {
    let mut schedule = Schedule::draw(seed);
    schedule.faults.clear();
    schedule.asked.clear();
    let weather = &mut schedule.weather;
    (weather.loss_permille, weather.between_sites_ms, weather.delay_ms) = (0, 0, (1, 1));
    // With calm disks and the longest leases the bound on drift alone decides.
    (weather.timeouts_ms, weather.disk_pause_permille) = ((100, 400, 800), 100);
    let mut world = World::new(&schedule, false);
    let ended = match setup(&mut world) && world.until(6_000, all_open) {
        true => scene(&mut world),
        false => Err("the cluster does not come up"),
    };
    let mut found = std::mem::take(&mut world.findings);
    found.extend(ended.err().map(|what| format!("S9: {what}")));
    world.end();
    found
}

fn all_open(world: &World) -> bool {
    (1..=DATA_NODES).all(|id| world.gate_is_open(id))
}

/// The node that leads the control group by its own word.
fn control_leader(world: &World) -> Option<u64> {
    world.serving(DatabaseId::CONTROL)
}

/// The data nodes do not ask for votes of the control group.
fn leave_control_alone(world: &World) {
    for id in 1..=DATA_NODES {
        if let Some(life) = &world.nodes[&id].life {
            life.shared.bar(DatabaseId::CONTROL);
        }
    }
}

fn silent(world: &mut World) -> Result<(), &'static str> {
    let wait = world.schedule.weather.outlasting_ms();
    leave_control_alone(world);
    if let Some(leader) = control_leader(world).filter(|leader| *leader != WITNESS) {
        world.stop(leader, false);
        if !world.until(6_000, |world| control_leader(world) == Some(WITNESS)) {
            return Err("the witness does not lead the control group");
        }
        world.start(leader);
        leave_control_alone(world);
    }
    if !world.until(10_000, all_open) {
        return Err("the gates do not open under the witness");
    }
    // Longer than anything that was said may count.
    (1..=DATA_NODES).for_each(|id| world.stop(id, true));
    world.advance(2 * wait + 200);
    for id in [1, 2] {
        world.start(id);
    }
    leave_control_alone(world);
    world.advance(2 * wait);
    if (1..=DATA_NODES).any(|id| world.gate_is_open(id)) {
        // The rule has told of it already, where it is broken.
        return Ok(());
    }
    world.start(3);
    match world.until(10_000, |world| (1..=3).all(|id| world.gate_is_open(id))) {
        true => Ok(()),
        false => Err("half of each site is there, and the gates do not open"),
    }
}

fn drifting(world: &mut World) -> Result<(), &'static str> {
    let leader = control_leader(world).ok_or("nobody leads the control group")?;
    let holder = if leader == 1 { 2 } else { 1 };
    world.nodes.get_mut(&holder).expect("a node").clock_permille = SLOW;
    world.nodes.get_mut(&leader).expect("a node").clock_permille = FAST;
    // Until what was granted with other clocks is over.
    world.advance(2 * world.schedule.weather.outlasting_ms());
    let extended = |world: &World| {
        let mut lines = world.journal.iter().rev().take_while(|line| line.at == world.now_ns());
        lines.any(|line| line.node == holder && matches!(line.event, Event::GateExtended(_)))
    };
    if !world.until(2_000, extended) {
        return Err("the holder's lease is not renewed");
    }
    let cuts = sides(&BTreeSet::from([holder]), 1..=NODES);
    cuts.into_iter().for_each(|(from, to)| world.network.cut(from, to));
    world.advance(2 * world.schedule.weather.outlasting_ms());
    match world.gate_is_open(holder) {
        true => Err("the gate of a node that is cut off does not close"),
        false => Ok(()),
    }
}
