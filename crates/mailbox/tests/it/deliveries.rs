//! Deliveries: exactly once per mailbox, one body, never to the wrong mailbox.

use bytes::Bytes;
use mailbox::command::{Command, Content, Parsed, Recipient};
use mailbox::keys::{self, table};
use mailbox::query;
use mailbox::response::DeliverCode::{Duplicate, NoMailbox, Refused, Stored};
use mailbox::response::{DeliverCode, Reason};

use crate::world::*;

fn codes(world: &mut World, command: mailbox::command::Deliver) -> Vec<DeliverCode> {
    world.deliver(command).iter().map(|result| result.code()).collect()
}

#[test]
fn a_delivery_reaches_each_recipient_and_stores_one_body() {
    let mut world = anna_and_ben();
    assert_eq!(codes(&mut world, deliver("d", &[ANNA, BEN], "hello")), [Stored, Stored]);
    assert_eq!(world.rows(table::BODY), 1);
    for name in [ANNA, BEN] {
        let message = world.message(name, INBOX, 1).expect("there");
        let email = world.email(name, message.email_id);
        assert_eq!(
            world.view.rows()[&query::body_rows(&world.view, &email).expect("readable")[0].key],
            "hello"
        );
        assert_eq!(
            (email.delivery_id.as_str(), email.sender.as_str()),
            ("d", "sender@example.net")
        );
    }
}

#[test]
fn equal_bodies_of_different_deliveries_are_stored_once() {
    let mut world = anna_and_ben();
    world.deliver(deliver("d1", &[ANNA], "same"));
    world.deliver(deliver("d2", &[ANNA, BEN], "same"));
    world.append(append(BEN, INBOX, "same"));
    assert_eq!(world.rows(table::BODY), 1);
    assert_eq!(world.uids(ANNA, INBOX), [1, 2]);
}

/// A lost reply (RFC 2033 4.2) makes the transport try again: it must not double the message.
#[test]
fn a_repeated_delivery_stores_nothing_and_returns_the_first_result() {
    let mut world = anna_and_ben();
    let first = world.deliver(deliver("d", &[ANNA], "hello"));
    world.fill_inbox(2);
    let second = world.deliver(deliver("d", &[ANNA], "hello"));
    assert_eq!(second[0].code(), Duplicate);
    assert_eq!(second[0].stored, first[0].stored);
    assert_eq!(world.uids(ANNA, INBOX), [1, 2, 3]);
}

#[test]
fn a_repeat_reaches_the_recipients_that_the_first_attempt_did_not() {
    let mut world = anna_and_ben();
    assert_eq!(codes(&mut world, deliver("d", &[ANNA], "hello")), [Stored]);
    assert_eq!(codes(&mut world, deliver("d", &[ANNA, BEN], "hello")), [Duplicate, Stored]);
}

#[test]
fn a_repeat_after_the_message_was_expunged_does_not_bring_it_back() {
    let mut world = anna_and_ben();
    world.deliver(deliver("d", &[ANNA], "hello"));
    world.run(expunge(ANNA, &[(1, 1)]));
    assert_eq!(codes(&mut world, deliver("d", &[ANNA], "hello")), [Duplicate]);
    assert!(world.uids(ANNA, INBOX).is_empty());
}

#[test]
fn two_addresses_of_one_mailbox_get_one_message() {
    let mut world = anna_and_ben();
    let mut twice = deliver("d", &[ANNA, ANNA], "hello");
    twice.recipients[1].address = String::new();
    let results = world.deliver(twice);
    assert_eq!((results[0].code(), results[1].code()), (Stored, Duplicate));
    assert_eq!(results[0].stored, results[1].stored);
    assert_eq!(world.uids(ANNA, INBOX), [1]);
}

/// To call another message a duplicate would lose it.
#[test]
fn a_delivery_id_with_another_body_is_refused_and_not_taken_for_a_duplicate() {
    let mut world = anna_and_ben();
    world.deliver(deliver("d", &[ANNA], "hello"));
    let results = world.deliver(deliver("d", &[ANNA, BEN], "other"));
    assert_eq!((results[0].code(), results[1].code()), (Refused, Stored));
    let rejection = results[0].rejection.as_ref().expect("a reason");
    assert_eq!(rejection.reason(), Reason::DeliveryIdReused);
}

#[test]
fn an_unknown_a_deleted_and_a_wrong_mailbox_are_refused_without_harm_to_the_others() {
    let mut world = anna_and_ben();
    world.run(delete_mailbox(BEN));
    let mut command = deliver("d", &["carl", BEN, ANNA, ANNA], "hello");
    command.recipients[2].address = "stranger@example.org".into();
    let results = world.deliver(command);
    let codes: Vec<_> = results.iter().map(|result| result.code()).collect();
    assert_eq!(codes, [NoMailbox, NoMailbox, NoMailbox, Stored]);
    let reasons: Vec<_> = results
        .iter()
        .filter_map(|result| result.rejection.as_ref())
        .map(|rejection| rejection.reason())
        .collect();
    let expected = [Reason::MailboxNotFound, Reason::MailboxDeleted, Reason::AddressNotHere];
    assert_eq!(reasons, expected);
}

/// A stale directory may misroute, never misdeliver.
#[test]
fn mail_for_an_address_that_the_mailbox_does_not_have_is_not_stored_in_it() {
    let mut world = anna_and_ben();
    let mut misrouted = deliver("d", &[], "for ben");
    misrouted.recipients = vec![Recipient::new("ben@example.org", id(ANNA))];
    assert_eq!(codes(&mut world, misrouted), [NoMailbox]);
    assert!(world.uids(ANNA, INBOX).is_empty());
}

/// The same message for two people, one of whom has moved: "duplicate" would lose her copy.
#[test]
fn a_misrouted_recipient_is_not_taken_for_a_duplicate_of_the_mailboxs_own_copy() {
    let mut world = anna_and_ben();
    let mut command = deliver("d", &[ANNA], "for both");
    command.recipients.push(Recipient::new("ben@example.org", id(ANNA)));
    assert_eq!(codes(&mut world, command.clone()), [Stored, NoMailbox]);
    assert_eq!(codes(&mut world, command), [Duplicate, NoMailbox]);
}

#[test]
fn a_repeat_after_the_mailbox_was_deleted_still_gets_the_first_answer() {
    let mut world = anna_and_ben();
    world.deliver(deliver("d", &[ANNA], "hello"));
    world.run(delete_mailbox(ANNA));
    assert_eq!(codes(&mut world, deliver("d", &[ANNA], "hello")), [Duplicate]);
    assert_eq!(codes(&mut world, deliver("e", &[ANNA], "hello")), [NoMailbox]);
}

#[test]
fn an_address_is_the_same_in_any_case() {
    let mut world = anna_and_ben();
    let mut loud = deliver("d", &[], "hello");
    loud.recipients = vec![Recipient::new("ANNA@Example.ORG", id(ANNA))];
    assert_eq!(codes(&mut world, loud), [Stored]);
}

#[test]
fn a_delivery_that_nobody_gets_stores_no_body() {
    let mut world = anna_and_ben();
    assert_eq!(codes(&mut world, deliver("d", &["carl"], "hello")), [NoMailbox]);
    assert_eq!((world.rows(table::BODY), world.rows(table::BODY_RECORD)), (0, 0));
}

#[test]
fn a_delivery_needs_an_id_recipients_and_a_body_as_declared() {
    let mut world = anna_and_ben();
    assert_eq!(world.refused(deliver("", &[ANNA], "x")).subject, "delivery_id");
    assert_eq!(world.refused(deliver("d", &[], "x")).subject, "recipients");
    let mut short = deliver("d", &[ANNA], "hello");
    short.content.size = 9;
    let refused = world.refused(short);
    assert_eq!(refused.reason(), Reason::SizeMismatch);
    assert_eq!((refused.value, refused.limit), (5, 9));
    let mut undigested = deliver("d", &[ANNA], "hello");
    undigested.content.blake3 = Bytes::from_static(b"short");
    assert_eq!(world.refused(undigested).subject, "blake3");
    assert!(world.uids(ANNA, INBOX).is_empty());
}

#[test]
fn what_exceeds_a_limit_is_refused_with_value_and_limit() {
    let mut world = anna_and_ben();
    let long_id = world.refused(deliver(&"d".repeat(513), &[ANNA], "x"));
    assert_eq!(
        (long_id.subject.as_str(), long_id.value, long_id.limit),
        ("delivery_id_bytes", 513, 512)
    );
    let many = world.refused(deliver("d", &[ANNA; 1_001], "x"));
    assert_eq!((many.value, many.limit), (1_001, 1_000));
    let mut large = deliver("d", &[ANNA], "");
    large.content.body = Bytes::from(vec![0; (64 << 20) + 1]);
    large.content.size = (64 << 20) + 1;
    let large = world.refused(large);
    assert_eq!((large.subject.as_str(), large.limit), ("message_bytes", 64 << 20));
    let mut talkative = deliver("d", &[ANNA], "x");
    talkative.content.parsed = Parsed { preview: "p".repeat(65_537), ..Parsed::default() };
    assert_eq!(world.refused(talkative).subject, "parsed_bytes");
}

#[test]
fn a_digest_that_belongs_to_a_body_of_another_length_is_refused() {
    let mut world = anna_and_ben();
    world.deliver(deliver("d", &[ANNA], "hello"));
    let mut forged = deliver("e", &[ANNA, BEN], "longer body");
    forged.content.blake3 = content("hello").blake3;
    assert_eq!(world.reason(forged), Reason::DigestConflict);
    assert_eq!((world.uids(ANNA, INBOX), world.uids(BEN, INBOX)), (vec![1], vec![]));
    assert_eq!(
        query::database_digest(&world.view).expect("readable"),
        query::recompute_digest(&world.view).expect("readable")
    );
}

#[test]
fn a_refused_delivery_writes_the_databases_stamp_and_nothing_else() {
    let mut world = anna_and_ben();
    let before = world.view.clone();
    world.now_ms += 1;
    world.deliver(deliver("d", &["carl"], "hello"));
    let changed: Vec<_> =
        world.view.rows().iter().filter(|row| before.rows().get(row.0) != Some(row.1)).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(*changed[0].0, keys::database());
}

#[test]
fn what_the_parser_saw_is_kept_with_the_message() {
    let mut world = anna_and_ben();
    let parsed = Parsed {
        message_id: "<1@example.net>".into(),
        thread_key: Bytes::from_static(b"t"),
        envelope: Bytes::from_static(b"e"),
        body_structure: Bytes::from_static(b"b"),
        preview: "Hello".into(),
        ..Parsed::default()
    };
    let mut command = deliver("d", &[ANNA], "hello");
    command.content = Content::new(Bytes::from_static(b"hello"), 7, parsed);
    command.received_ms = 42;
    world.deliver(command);
    let email = world.email(ANNA, 1);
    assert_eq!((email.message_id.as_str(), email.preview.as_str()), ("<1@example.net>", "Hello"));
    assert_eq!((&email.thread_key[..], &email.envelope[..]), (&b"t"[..], &b"e"[..]));
    assert_eq!((&email.body_structure[..], email.crc32), (&b"b"[..], 7));
    assert_eq!((email.internal_date.0, email.received.0), (42, 1_000));
}

#[test]
fn a_delivery_of_4_kb_reads_six_rows() {
    use mailbox::{Fault, MailboxView};
    use std::cell::Cell;

    struct Counting<'v>(&'v mailbox::map_view::MapView, Cell<usize>);
    impl MailboxView for Counting<'_> {
        type Error = Fault;
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
            self.1.set(self.1.get() + 1);
            self.0.get(key)
        }
        fn scan(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
            panic!("a delivery scans nothing")
        }
    }
    let world = anna_and_ben();
    let view = Counting(&world.view, Cell::new(0));
    let command = deliver("d", &[ANNA], &"x".repeat(4_096));
    let command = Command::new("", dag_types::Millis(1), command.into());
    mailbox::apply(&view, dag_types::LogId { term: 1, index: 9 }, &command).expect("no fault");
    assert_eq!(view.1.get(), 6);
}
