//! Request ids: the same answer however often, and whichever node asks.

use dag_types::Millis;
use mailbox::command::FlagAction::Add;
use mailbox::command::{Command, CreateMailbox, Parsed};
use mailbox::keys::table;
use mailbox::limits::REQUEST_ID_KEPT_MS;
use mailbox::response::{Outcome, Reason, Response};

use crate::world::*;

fn reason_of(response: &Response) -> Reason {
    response.rejection().expect("refused").reason()
}

#[test]
fn a_repeat_does_nothing_and_gets_the_first_answer() {
    let mut world = anna_and_ben();
    let first = world.run_as("r", append(ANNA, INBOX, "x"));
    let first_index = world.index;
    world.fill_inbox(2);
    let again = world.run_as("r", append(ANNA, INBOX, "x"));
    assert!(!first.replayed && again.replayed);
    assert_eq!((again.outcome, again.log_index), (first.outcome, first_index));
    assert_eq!(world.uids(ANNA, INBOX), [1, 2, 3]);
}

#[test]
fn every_operation_with_a_request_id_is_carried_out_once() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    let operations: Vec<mailbox::Operation> = vec![
        CreateMailbox::new(id("carl"), vec![]).into(),
        create_folder(ANNA, 0, "Work").into(),
        append(ANNA, INBOX, "x").into(),
        store(ANNA, &[(1, 1)], Add, 1).into(),
        expunge(ANNA, &[(1, 1)]).into(),
        delete_mailbox(ANNA).into(),
    ];
    for operation in operations {
        let first = world.run_as("r-once", operation.clone());
        let before = world.view.clone();
        let again = world.run_as("r-once", operation.clone());
        if let Some(rejection) = first.rejection() {
            assert_eq!(rejection.reason(), Reason::RequestIdReused);
            let first = world.run_as(&format!("{operation:?}")[..9], operation.clone());
            assert!(first.rejection().is_none(), "{first:?}");
            continue;
        }
        assert!(again.replayed, "{operation:?}");
        assert_eq!(again.outcome, first.outcome);
        assert_eq!(world.view, before, "{operation:?}");
    }
}

#[test]
fn the_same_id_for_another_request_is_refused() {
    let mut world = anna_and_ben();
    world.run_as("r", append(ANNA, INBOX, "x"));
    assert_eq!(reason_of(&world.run_as("r", append(ANNA, INBOX, "y"))), Reason::RequestIdReused);
    let mut flagged = append(ANNA, INBOX, "x");
    flagged.system_flags = 1;
    assert_eq!(reason_of(&world.run_as("r", flagged)), Reason::RequestIdReused);
    let other = world.run_as("r", expunge(ANNA, &[(1, 1)]));
    assert_eq!(reason_of(&other), Reason::RequestIdReused);
    assert!(world.run_as("r", append(ANNA, INBOX, "x")).replayed, "the first answer still stands");
    assert_eq!(world.uids(ANNA, INBOX), [1]);
}

#[test]
fn a_request_id_belongs_to_one_mailbox() {
    let mut world = anna_and_ben();
    world.run_as("r", append(ANNA, INBOX, "x"));
    assert!(!world.run_as("r", append(BEN, INBOX, "x")).replayed);
    assert_eq!(world.uids(BEN, INBOX), [1]);
}

/// Another attempt goes through another node: its clock and its parser may differ.
#[test]
fn a_repeat_with_another_stamp_and_another_parsers_results_is_the_same_request() {
    let mut world = anna_and_ben();
    world.run_as("r", append(ANNA, INBOX, "x"));
    world.now_ms += 500;
    let mut again = append(ANNA, INBOX, "x");
    again.content.parsed = Parsed { preview: "other".into(), ..Parsed::default() };
    assert!(world.run_as("r", again).replayed);
}

/// An attempt that waited in an old leader's queue must not succeed after a later attempt of the
/// same request was told that it failed.
#[test]
fn a_refusal_is_remembered_even_when_it_would_succeed_now() {
    let mut world = anna_and_ben();
    let first = world.run_as("r", append(ANNA, 2, "x"));
    assert_eq!(reason_of(&first), Reason::FolderNotFound);
    world.run(create_folder(ANNA, 0, "Work"));
    let again = world.run_as("r", append(ANNA, 2, "x"));
    assert_eq!((again.replayed, reason_of(&again)), (true, Reason::FolderNotFound));
    assert!(world.uids(ANNA, 2).is_empty());
}

#[test]
fn a_request_id_is_remembered_for_24_hours() {
    let mut world = anna_and_ben();
    world.run_as("r", append(ANNA, INBOX, "x"));
    world.now_ms += REQUEST_ID_KEPT_MS - 1;
    world.run(sweep(u64::MAX, 1_000));
    assert!(world.run_as("r", append(ANNA, INBOX, "x")).replayed);
    world.now_ms += 1;
    world.run(sweep(u64::MAX, 1_000));
    assert_eq!(world.rows(table::REQUEST), 0);
    assert!(!world.run_as("r", append(ANNA, INBOX, "x")).replayed);
}

#[test]
fn a_request_without_an_id_or_with_an_endless_one_is_refused() {
    let mut world = anna_and_ben();
    let missing = world.run_as("", append(ANNA, INBOX, "x"));
    assert_eq!(reason_of(&missing), Reason::FieldMissing);
    let endless = world.run_as(&"r".repeat(129), append(ANNA, INBOX, "x"));
    let rejection = endless.rejection().expect("refused");
    assert_eq!((rejection.subject.as_str(), rejection.limit), ("request_id_bytes", 128));
    assert!(world.uids(ANNA, INBOX).is_empty());
}

/// A new leader's clock may be behind: nothing gets an older date, and nothing expires early or
/// late because of it.
#[test]
fn the_databases_time_never_goes_back() {
    let mut world = anna_and_ben();
    world.now_ms = 50_000;
    world.append(append(ANNA, INBOX, "x"));
    world.now_ms = 20_000;
    let at = world.append(append(ANNA, INBOX, "y"));
    assert_eq!(world.email(ANNA, at.email_id).received.0, 50_000);
    let database = mailbox::query::get_database(&world.view).expect("readable");
    assert_eq!(database.stamp.0, 50_000);
}

#[test]
fn a_command_without_an_operation_is_a_fault_and_not_a_refusal() {
    let world = anna_and_ben();
    let command = Command { operation: None, ..Command::default() };
    let at = dag_types::LogId::default();
    let fault = mailbox::apply(&world.view, at, &command).expect_err("a fault");
    assert!(matches!(fault, mailbox::Fault::UnknownCommand { .. }));
}

#[test]
fn a_damaged_record_is_a_fault_and_names_its_key() {
    let mut world = anna_and_ben();
    let key = mailbox::keys::mailbox(id(ANNA));
    let value = bytes::Bytes::from_static(&[0xff, 0xff, 0xff]);
    world.view.write(vec![dag_types::Write::Put { key, value }]);
    let command = Command::new("r", Millis(1), append(ANNA, INBOX, "x").into());
    let fault = mailbox::apply(&world.view, dag_types::LogId::default(), &command);
    let text = fault.expect_err("a fault").to_string();
    assert!(text.contains("11616e6e61"), "{text}");
}

#[test]
fn an_email_that_another_record_promises_and_is_missing_is_a_fault() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    world.view.write(vec![dag_types::Write::Delete { key: mailbox::keys::email(id(ANNA), 1) }]);
    let command = Command::new("r", Millis(1), expunge(ANNA, &[(1, 1)]).into());
    let fault = mailbox::apply(&world.view, dag_types::LogId::default(), &command);
    assert!(matches!(fault, Err(mailbox::Fault::DamagedRecord { .. })), "{fault:?}");
}

#[test]
fn outcomes_differ_from_one_another_in_their_encoding() {
    let swept = Response::new(1, Outcome::Swept(Default::default()));
    let delivered = Response::new(1, Outcome::Delivered(Default::default()));
    assert_ne!(swept.encode_to_bytes(), delivered.encode_to_bytes());
    assert_eq!(Response::decode_from(swept.encode_to_bytes()), Ok(swept));
}
