//! Planted faults do what their names say, so that a harness that finds none of them is wrong.
//!
//! One test in a binary of its own: a fault is planted for the whole process. Run it with
//! `--features mutants`.

#[allow(dead_code)]
#[path = "it/world.rs"]
mod world;

use dag_types::Mutant;
use mailbox::response::DeliverCode;
use world::*;

#[test]
fn each_planted_fault_breaks_its_rule_and_only_while_it_is_planted() {
    request_ids_are_ignored();
    uids_come_from_outside_the_batch();
    Mutant::plant(None);
    assert_eq!(uids_after_a_repeat(), [1]);
    assert_eq!(uids_of_two_databases(), ([1, 2], [1, 2]));
}

fn request_ids_are_ignored() {
    Mutant::plant(Some(Mutant::RequestIdIgnored));
    assert_eq!(uids_after_a_repeat(), [1, 2]);
    let mut world = anna_and_ben();
    for _ in 0..2 {
        let results = world.deliver(deliver("d", &[ANNA], "x"));
        assert_eq!(results[0].code(), DeliverCode::Stored);
    }
}

fn uids_after_a_repeat() -> Vec<u32> {
    let mut world = anna_and_ben();
    for _ in 0..2 {
        apply_once(&mut world, "r", "x");
    }
    world.uids(ANNA, INBOX)
}

/// Two copies of one database that apply the same commands end up with different UIDs.
fn uids_come_from_outside_the_batch() {
    Mutant::plant(Some(Mutant::UidOutsideBatch));
    let (one, other) = uids_of_two_databases();
    assert_ne!(one, other);
}

fn uids_of_two_databases() -> ([u32; 2], [u32; 2]) {
    let uids = || {
        let mut world = anna_and_ben();
        apply_once(&mut world, "r1", "x");
        apply_once(&mut world, "r2", "y");
        let uids = world.uids(ANNA, INBOX);
        uids.try_into().expect("two messages")
    };
    (uids(), uids())
}

/// Applies without the check that a second application writes the same: it would not.
fn apply_once(world: &mut World, request_id: &str, body: &str) {
    world.index += 1;
    let now = dag_types::Millis(world.now_ms);
    let command = mailbox::Command::new(request_id, now, append(ANNA, INBOX, body).into());
    let at = dag_types::LogId { term: 1, index: world.index };
    let applied = mailbox::apply(&world.view, at, &command).expect("no fault");
    world.view.write(applied.writes);
}
