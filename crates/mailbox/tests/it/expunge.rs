//! Expunge, vanished messages, bodies: RFC 4315 2.1, RFC 7162 3.2.

use mailbox::command::FlagAction::Add;
use mailbox::flags::{DELETED, SEEN};
use mailbox::keys::table;
use mailbox::limits::DELIVERY_ID_KEPT_MS;
use mailbox::query::{self, ChangeKind, ChangesSince, FeedPosition};
use mailbox::response::{Expunged, Outcome, Reason, Swept};

use crate::world::*;

fn expunged(world: &mut World, command: mailbox::command::Expunge) -> Expunged {
    match world.run(command) {
        Outcome::Expunged(expunged) => expunged,
        other => panic!("not expunged: {other:?}"),
    }
}

fn swept(world: &mut World, limit: u32) -> Swept {
    match world.run(sweep(u64::MAX, limit)) {
        Outcome::Swept(swept) => swept,
        other => panic!("not swept: {other:?}"),
    }
}

/// RFC 4315 2.1: UID EXPUNGE removes what is in the set and `\Deleted`, and nothing else.
#[test]
fn uid_expunge_takes_only_messages_that_are_deleted_and_in_the_set() {
    let mut world = anna_and_ben();
    world.fill_inbox(4);
    world.run(store(ANNA, &[(2, 4)], Add, DELETED));
    let mut command = expunge(ANNA, &[(1, 3)]);
    command.only_deleted = true;
    assert_eq!(expunged(&mut world, command).vanished, ranges(&[(2, 3)]));
    assert_eq!(world.uids(ANNA, INBOX), [1, 4]);
}

/// RFC 7162 3.2.7: an expunge raises HIGHESTMODSEQ.
#[test]
fn an_expunge_raises_the_highest_modseq() {
    let mut world = anna_and_ben();
    world.fill_inbox(2);
    let before = world.folder(ANNA, INBOX).highest_modseq;
    let answer = expunged(&mut world, expunge(ANNA, &[(2, 2)]));
    assert!(answer.modseq > before);
    assert_eq!(world.folder(ANNA, INBOX).highest_modseq, answer.modseq);
}

#[test]
fn an_expunge_of_nothing_changes_nothing() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    let before = world.folder(ANNA, INBOX);
    let answer = expunged(&mut world, expunge(ANNA, &[(7, 9)]));
    assert_eq!((answer.vanished, answer.modseq), (vec![], before.highest_modseq));
    assert_eq!(world.folder(ANNA, INBOX), before);
}

/// RFC 7162 3.2.6: QRESYNC gets the UIDs that vanished since the mod-sequence it knows.
#[test]
fn vanished_uids_are_told_to_whoever_knew_them() {
    let mut world = anna_and_ben();
    world.fill_inbox(3);
    let known = world.folder(ANNA, INBOX).highest_modseq;
    world.run(expunge(ANNA, &[(1, 1)]));
    world.run(expunge(ANNA, &[(3, 3)]));
    let feed =
        query::changes_since(&world.view, id(ANNA), Some(INBOX), FeedPosition::at(known), 100);
    let Ok(ChangesSince::Changes(feed)) = feed else { panic!("{feed:?}") };
    let seen: Vec<_> = feed.changes.iter().map(|change| (change.uid, change.kind)).collect();
    assert_eq!(seen, [(1, ChangeKind::Vanished), (3, ChangeKind::Vanished)]);
}

#[test]
fn counters_follow_an_expunge() {
    let mut world = anna_and_ben();
    world.fill_inbox(3);
    world.run(store(ANNA, &[(1, 2)], Add, SEEN | DELETED));
    world.run(expunge(ANNA, &[(2, 3)]));
    let folder = world.folder(ANNA, INBOX);
    assert_eq!((folder.exists, folder.unseen, folder.deleted, folder.size_bytes), (1, 0, 1, 1));
    let mailbox = world.mailbox(ANNA);
    assert_eq!((mailbox.messages, mailbox.size_bytes), (1, 1));
}

#[test]
fn a_body_goes_with_its_last_message_and_not_before() {
    let mut world = anna_and_ben();
    world.deliver(deliver("d", &[ANNA, BEN], "shared"));
    world.run(expunge(ANNA, &[(1, 1)]));
    swept(&mut world, 1_000);
    assert_eq!(world.rows(table::BODY), 1, "Ben still has it");
    world.run(expunge(BEN, &[(1, 1)]));
    assert_eq!(world.rows(table::BODY), 1, "only a sweep removes it");
    assert_eq!(swept(&mut world, 1_000).bodies, 1);
    assert_eq!((world.rows(table::BODY), world.rows(table::BODY_RECORD)), (0, 0));
}

#[test]
fn a_body_that_comes_again_before_the_sweep_stays() {
    let mut world = anna_and_ben();
    world.append(append(ANNA, INBOX, "again"));
    world.run(expunge(ANNA, &[(1, 1)]));
    world.append(append(ANNA, INBOX, "again"));
    assert_eq!(swept(&mut world, 1_000).bodies, 0);
    assert_eq!(world.rows(table::BODY), 1);
    world.run(expunge(ANNA, &[(2, 2)]));
    assert_eq!(swept(&mut world, 1_000).bodies, 1);
}

#[test]
fn a_sweep_takes_no_more_rows_than_it_is_told_and_says_that_more_are_due() {
    let mut world = anna_and_ben();
    world.fill_inbox(5);
    world.run(expunge(ANNA, &[(1, 5)]));
    let first = swept(&mut world, 3);
    assert_eq!((first.bodies, first.more), (3, true));
    let second = swept(&mut world, 3);
    assert_eq!((second.bodies, second.more), (2, false));
}

#[test]
fn a_sweep_of_too_many_rows_or_none_is_refused() {
    let mut world = anna_and_ben();
    assert_eq!(world.reason(sweep(0, 1_001)), Reason::LimitExceeded);
    assert_eq!(world.reason(sweep(0, 0)), Reason::FieldMissing);
}

#[test]
fn a_sweep_from_the_future_expires_nothing_before_its_time() {
    let mut world = anna_and_ben();
    world.append(append(ANNA, INBOX, "x"));
    let remembered = world.rows(table::REQUEST);
    assert_eq!(swept(&mut world, 1_000).request_ids, 0);
    assert_eq!(world.rows(table::REQUEST), remembered);
}

#[test]
fn a_delivery_id_is_kept_while_its_message_exists_and_14_days_longer() {
    let mut world = anna_and_ben();
    world.deliver(deliver("d", &[ANNA], "x"));
    world.now_ms += 10 * DELIVERY_ID_KEPT_MS;
    while swept(&mut world, 1_000).more {}
    assert_eq!(world.rows(table::DELIVERY), 1, "the message exists");
    world.run(expunge(ANNA, &[(1, 1)]));
    world.now_ms += DELIVERY_ID_KEPT_MS - 1;
    assert_eq!(swept(&mut world, 1_000).delivery_ids, 0);
    world.now_ms += 1;
    assert_eq!(swept(&mut world, 1_000).delivery_ids, 1);
    assert_eq!(world.rows(table::DELIVERY), 0);
}

#[test]
fn more_than_a_thousand_messages_are_not_expunged_at_once() {
    let mut world = anna_and_ben();
    world.fill_inbox(1_001);
    assert_eq!(world.refused(expunge(ANNA, &[(1, u32::MAX)])).value, 1_001);
    let vanished = expunged(&mut world, expunge(ANNA, &[(1, 1_000)])).vanished;
    assert_eq!(vanished, ranges(&[(1, 1_000)]));
    assert_eq!(world.uids(ANNA, INBOX), [1_001]);
}
