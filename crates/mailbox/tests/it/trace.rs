//! The trace: what became of messages, and that it leaves no mark where it is not asked for.

use dag_types::Millis;
use mailbox::command::{MoveMessages, Operation};
use mailbox::query::{self, TraceFilter, Traced};
use mailbox::records::TraceKind;
use mailbox::response::Outcome;
use mailbox::{Command, limits};

use crate::world::*;

fn traced(world: &mut World, operation: impl Into<Operation>) -> Outcome {
    world.fresh_id += 1;
    let id = format!("traced-{}", world.fresh_id);
    let command = Command::new(id, Millis(world.now_ms), operation.into()).traced();
    world.apply(&command).0.outcome.expect("an outcome")
}

fn find(world: &World, filter: &TraceFilter) -> Vec<Traced> {
    let (found, next) = query::search_trace(&world.view, filter, None, 100).expect("no fault");
    assert_eq!(next, None);
    found
}

#[test]
fn a_delivery_is_found_by_everything_that_names_it() {
    let mut world = anna_and_ben();
    traced(&mut world, deliver("d1", &[ANNA, BEN], "one"));
    traced(&mut world, deliver("d1", &[ANNA], "one"));
    traced(&mut world, deliver("d2", &["carl"], "two"));
    let filter = TraceFilter::default;
    let first = find(&world, &TraceFilter { delivery_id: "d1".into(), ..filter() });
    assert_eq!(first.len(), 2);
    assert_eq!(first[0].record.places.len(), 2);
    assert!(first[1].record.places[0].duplicate);
    let ben = TraceFilter { recipient: "BEN@example.org".into(), ..filter() };
    let ben = find(&world, &ben);
    assert_eq!((ben.len(), ben[0].record.places.len()), (1, 1));
    assert_eq!(ben[0].record.places[0].mailbox_id, id(BEN).0.to_vec());
    let failed = find(&world, &TraceFilter { delivery_id: "d2".into(), ..filter() });
    assert_ne!(failed[0].record.places[0].reason, 0);
    let sender = TraceFilter { sender: "nobody@example.net".into(), ..filter() };
    assert!(find(&world, &sender).is_empty());
    assert_eq!(find(&world, &filter()).len(), 3);
}

#[test]
fn moves_and_expunges_stand_in_the_trace_of_their_mailbox() {
    let mut world = anna_and_ben();
    traced(&mut world, deliver("d1", &[ANNA], "one"));
    world.run(create_folder(ANNA, 0, "work"));
    traced(&mut world, MoveMessages::from(transfer(&[(1, 1)], 2)));
    traced(&mut world, expunge(ANNA, &[(1, 9)]));
    let found = find(&world, &TraceFilter { mailbox: Some(id(ANNA)), ..TraceFilter::default() });
    let kinds: Vec<i32> = found.iter().map(|traced| traced.record.kind).collect();
    // The expunge found nothing, so it did nothing.
    assert_eq!(kinds, [TraceKind::Deliver as i32, TraceKind::Move as i32]);
    assert_eq!(found[1].record.places[0].to_folder, 2);
    let other = TraceFilter { mailbox: Some(id(BEN)), ..TraceFilter::default() };
    assert!(find(&world, &other).is_empty());
}

#[test]
fn the_trace_goes_after_thirty_days_and_not_before() {
    let mut world = anna_and_ben();
    traced(&mut world, deliver("d1", &[ANNA], "one"));
    world.now_ms += limits::TRACE_KEPT_MS - 1;
    world.run(sweep(world.now_ms, 1_000));
    assert_eq!(find(&world, &TraceFilter::default()).len(), 1);
    world.now_ms += 60 * 60 * 1_000 + 1;
    traced(&mut world, deliver("d2", &[ANNA], "two"));
    world.run(sweep(world.now_ms, 1_000));
    let left = find(&world, &TraceFilter::default());
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].record.delivery_id, "d2");
    assert_eq!(
        query::database_digest(&world.view).expect("no fault"),
        query::recompute_digest(&world.view).expect("no fault"),
    );
}

#[test]
fn pages_of_the_trace_follow_one_another() {
    let mut world = anna_and_ben();
    for n in 0..5 {
        world.now_ms += 1;
        traced(&mut world, deliver(&format!("d{n}"), &[ANNA], "one"));
    }
    let (mut after, mut ids) = (None, Vec::new());
    loop {
        let filter = TraceFilter::default();
        let (page, next) = query::search_trace(&world.view, &filter, after, 2).expect("no fault");
        ids.extend(page.into_iter().map(|traced| traced.record.delivery_id));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(ids, ["d0", "d1", "d2", "d3", "d4"]);
}

#[test]
fn a_command_that_is_not_traced_is_what_it_always_was() {
    let mut world = anna_and_ben();
    world.run(deliver("d1", &[ANNA], "one"));
    assert!(find(&world, &TraceFilter::default()).is_empty());
    let command = |operation: Operation| Command::new("r", Millis(1), operation).traced();
    assert_eq!(command(deliver("d", &[ANNA], "x").into()).version, 3);
    let folder = command(create_folder(ANNA, 0, "x").into());
    assert!(!folder.traced && folder.version < 3);
}
