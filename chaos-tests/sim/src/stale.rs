//! An old leader that is still asked: its clock is slow, it is cut off from the others, they elect
//! another, and that one acknowledges a write. A reader who has heard of nothing must not be told
//! the state from before that write.
//!
//! A lease would say otherwise: by the old leader's own clock its followers promised only a moment
//! ago to wait. No fault of the catalogue is needed here, and no dice: one scene, in this order.

use std::collections::BTreeSet;

use dag_types::{DatabaseId, Millis};
use mailbox::Command;
use mailbox::command::CreateMailbox;
use tokio::sync::oneshot;

use crate::network::sides;
use crate::run::setup;
use crate::schedule::Schedule;
use crate::server::{Reply, Request};
use crate::shape::{DATA_NODES, FIRST_DATABASE, NODES};
use crate::work::{address, mailbox_id};
use crate::world::World;

/// How slow the old leader's clock is, in thousandths.
const SLOW: u64 = 50;
/// A mailbox that no schedule makes.
const NEW_MAILBOX: u64 = 9;

/// What was found; empty where the old leader answered nothing.
pub fn run(seed: u64) -> Vec<String> {
    let mut schedule = Schedule::draw(seed);
    schedule.faults.clear();
    schedule.asked.clear();
    schedule.weather.loss_permille = 0;
    let database = DatabaseId(FIRST_DATABASE);
    let mut world = World::new(&schedule, false);
    let found = match scene(&mut world, database) {
        Ok(None | Some(Reply::Refused(_))) => Vec::new(),
        Ok(Some(Reply::Seen(seen, _))) => vec![format!("R1: an old leader answered with {seen:?}")],
        Ok(Some(other)) => vec![format!("S9: the read was answered with {other:?}")],
        Err(what) => vec![format!("S9: {what}")],
    };
    world.end();
    found
}

/// What the old leader answered to a read of what it cannot know.
fn scene(world: &mut World, database: DatabaseId) -> Result<Option<Reply>, &'static str> {
    if !setup(world) || !world.until(5_000, |world| world.serving(database).is_some()) {
        return Err("the cluster does not come up");
    }
    let old = world.serving(database).ok_or("nobody serves")?;
    let cuts = sides(&BTreeSet::from([old]), 1..=NODES);
    cuts.into_iter().for_each(|(from, to)| world.network.cut(from, to));
    world.nodes.get_mut(&old).expect("a node").clock_permille = SLOW;
    if !world.until(10_000, |world| leads_beside(world, old, database).is_some()) {
        return Err("no other leader is elected");
    }
    let new = leads_beside(world, old, database).ok_or("nobody serves")?;
    let mailbox = mailbox_id(database, NEW_MAILBOX);
    let create = CreateMailbox::new(mailbox, vec![address(mailbox)]);
    let request_id = "behind the old leader's back".to_owned();
    let command = Command::new(request_id.clone(), Millis(1), create.into()).encode_to_bytes();
    let written = ask(world, new, Request::Write { database, request_id, command });
    if !matches!(written, Some(Reply::Written(..))) {
        return Err("the new leader does not acknowledge a write");
    }
    if !serves(world, old, database) {
        return Err("the old leader knows already that it leads no more");
    }
    Ok(ask(world, old, Request::Read { database, mailbox }))
}

fn serves(world: &World, node: u64, database: DatabaseId) -> bool {
    world.nodes[&node].group(database).is_some_and(|group| group.serving().is_ok())
}

fn leads_beside(world: &World, old: u64, database: DatabaseId) -> Option<u64> {
    (1..=DATA_NODES).find(|node| *node != old && serves(world, *node, database))
}

/// One attempt of a client at one node.
fn ask(world: &mut World, node: u64, request: Request) -> Option<Reply> {
    let (done, mut waiting) = oneshot::channel();
    let work = world.work.clone();
    world.spawn_client(async move { drop(done.send(work.ask(node, request).await)) });
    let mut answer = None;
    for _ in 0..1_000 {
        world.tick();
        if let Ok(reply) = waiting.try_recv() {
            answer = reply;
            break;
        }
    }
    answer
}
