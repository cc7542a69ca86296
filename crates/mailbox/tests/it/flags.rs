//! Flags and mod-sequences: RFC 9051 6.4.6, RFC 7162 3.1.

use mailbox::command::FlagAction::{Add, Remove, Replace};
use mailbox::command::{FlagAction, StoreFlags};
use mailbox::flags::{ANSWERED, DELETED, FLAGGED, SEEN};
use mailbox::response::{FlagsStored, Outcome, Reason};

use crate::world::*;

fn stored(world: &mut World, command: StoreFlags) -> FlagsStored {
    match world.run(command) {
        Outcome::FlagsStored(stored) => stored,
        other => panic!("not stored: {other:?}"),
    }
}

fn with_keywords(mut command: StoreFlags, keywords: &[&str]) -> StoreFlags {
    command.keywords = keywords.iter().map(|keyword| keyword.to_string()).collect();
    command
}

fn since(mut command: StoreFlags, modseq: u64) -> StoreFlags {
    command.unchanged_since = Some(modseq);
    command
}

fn flags_of(world: &World, uid: u32) -> u32 {
    world.message(ANNA, INBOX, uid).expect("there").system_flags
}

fn keywords_of(world: &World, uid: u32) -> Vec<String> {
    world.message(ANNA, INBOX, uid).expect("there").keywords
}

fn modseq_of(world: &World, uid: u32) -> u64 {
    world.message(ANNA, INBOX, uid).expect("there").modseq
}

/// RFC 9051 6.4.6: +FLAGS, -FLAGS, FLAGS.
#[test]
fn flags_are_added_removed_and_replaced() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    world.run(store(ANNA, &[(1, 1)], Add, SEEN | FLAGGED));
    assert_eq!(flags_of(&world, 1), SEEN | FLAGGED);
    world.run(store(ANNA, &[(1, 1)], Remove, FLAGGED | DELETED));
    assert_eq!(flags_of(&world, 1), SEEN);
    world.run(store(ANNA, &[(1, 1)], Replace, ANSWERED));
    assert_eq!(flags_of(&world, 1), ANSWERED);
}

/// RFC 9051 6.4.6: flags and keywords are one set, and FLAGS replaces both.
#[test]
fn keywords_are_added_removed_and_replaced_with_the_flags() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    world.run(with_keywords(store(ANNA, &[(1, 1)], Add, 0), &["Work", "$Junk"]));
    assert_eq!(keywords_of(&world, 1), ["work", "$junk"]);
    world.run(with_keywords(store(ANNA, &[(1, 1)], Remove, 0), &["WORK", "never-used"]));
    assert_eq!(keywords_of(&world, 1), ["$junk"]);
    world.run(with_keywords(store(ANNA, &[(1, 1)], Replace, SEEN), &["home"]));
    assert_eq!((keywords_of(&world, 1), flags_of(&world, 1)), (vec!["home".into()], SEEN));
}

/// RFC 9051 2.3.2: keywords are not case-sensitive.
#[test]
fn a_keyword_in_another_case_is_the_same_and_changes_nothing() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    world.run(with_keywords(store(ANNA, &[(1, 1)], Add, 0), &["work"]));
    let before = modseq_of(&world, 1);
    let again = stored(&mut world, with_keywords(store(ANNA, &[(1, 1)], Add, 0), &["WORK"]));
    assert_eq!(again.unchanged, ranges(&[(1, 1)]));
    assert_eq!(modseq_of(&world, 1), before);
}

/// RFC 7162 3.1: each change gets a greater mod-sequence than any before.
#[test]
fn each_change_of_flags_gets_a_greater_modseq() {
    let mut world = anna_and_ben();
    world.fill_inbox(2);
    let before = world.folder(ANNA, INBOX).highest_modseq;
    let first = stored(&mut world, store(ANNA, &[(2, 2)], Add, SEEN));
    let second = stored(&mut world, store(ANNA, &[(1, 1)], Add, SEEN));
    assert!(before < first.modseq && first.modseq < second.modseq);
    assert_eq!((modseq_of(&world, 1), modseq_of(&world, 2)), (second.modseq, first.modseq));
    assert_eq!(world.folder(ANNA, INBOX).highest_modseq, second.modseq);
}

/// RFC 7162 3.1.12: what was there before is no change, whatever the caller calls it.
#[test]
fn a_change_that_changes_nothing_moves_no_modseq() {
    let mut world = anna_and_ben();
    world.fill_inbox(2);
    world.run(store(ANNA, &[(1, 1)], Add, SEEN));
    let (folder, modseq) = (world.folder(ANNA, INBOX), modseq_of(&world, 1));
    for (action, flags) in [(Add, SEEN), (Remove, FLAGGED), (Replace, SEEN), (Add, 0)] {
        let answer = stored(&mut world, store(ANNA, &[(1, 1)], action, flags));
        assert_eq!(answer.unchanged, ranges(&[(1, 1)]), "{action:?}");
        assert_eq!((answer.changed, answer.modified), (vec![], vec![]), "{action:?}");
        assert_eq!(answer.modseq, folder.highest_modseq);
    }
    assert_eq!(world.folder(ANNA, INBOX), folder);
    assert_eq!(modseq_of(&world, 1), modseq);
}

/// RFC 7162 3.1.12: of several messages only those that change move.
#[test]
fn only_messages_that_change_get_the_new_modseq() {
    let mut world = anna_and_ben();
    world.fill_inbox(3);
    world.run(store(ANNA, &[(2, 2)], Add, SEEN));
    let before = modseq_of(&world, 2);
    let answer = stored(&mut world, store(ANNA, &[(1, 3)], Add, SEEN));
    assert_eq!(answer.changed, ranges(&[(1, 1), (3, 3)]));
    assert_eq!(answer.unchanged, ranges(&[(2, 2)]));
    assert_eq!(modseq_of(&world, 2), before);
    assert_eq!(modseq_of(&world, 1), modseq_of(&world, 3));
}

/// RFC 7162 3.1.3: the messages that changed since are listed in MODIFIED and left alone, the
/// others are changed all the same.
#[test]
fn unchangedsince_holds_back_changed_messages_and_changes_the_others() {
    let mut world = anna_and_ben();
    world.fill_inbox(3);
    let known = world.folder(ANNA, INBOX).highest_modseq;
    world.run(store(ANNA, &[(2, 2)], Add, FLAGGED));
    let answer = stored(&mut world, since(store(ANNA, &[(1, 3)], Add, DELETED), known));
    assert_eq!(answer.modified, ranges(&[(2, 2)]));
    assert_eq!(answer.changed, ranges(&[(1, 1), (3, 3)]));
    assert_eq!(flags_of(&world, 2), FLAGGED);
}

/// RFC 7162 3.1.3: equal is not greater.
#[test]
fn a_message_at_exactly_unchangedsince_is_changed() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    let exactly = modseq_of(&world, 1);
    let answer = stored(&mut world, since(store(ANNA, &[(1, 1)], Add, SEEN), exactly));
    assert_eq!(answer.changed, ranges(&[(1, 1)]));
}

/// RFC 7162 3.1.3: 0 fails for every message that exists, and for none that does not.
#[test]
fn unchangedsince_zero_fails_for_every_message_that_exists() {
    let mut world = anna_and_ben();
    world.fill_inbox(2);
    let answer = stored(&mut world, since(store(ANNA, &[(1, u32::MAX)], Add, SEEN), 0));
    assert_eq!(answer.modified, ranges(&[(1, 2)]));
    assert_eq!(flags_of(&world, 1), 0);
}

/// A keyword that only held-back messages would have got does not use up the folder's table.
#[test]
fn a_keyword_that_no_message_gets_is_not_remembered() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    let nobody = with_keywords(store(ANNA, &[(1, 1)], Add, 0), &["lost"]);
    stored(&mut world, since(nobody, 0));
    assert_eq!(world.rows(mailbox::keys::table::KEYWORDS), 0);
}

/// RFC 9051 6.4.9: UIDs that do not exist are passed over without an error.
#[test]
fn uids_that_do_not_exist_are_passed_over() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    let answer = stored(&mut world, store(ANNA, &[(1, 1), (5, 9)], Add, SEEN));
    assert_eq!(answer.changed, ranges(&[(1, 1)]));
}

#[test]
fn unseen_and_deleted_follow_the_flags() {
    let mut world = anna_and_ben();
    world.fill_inbox(3);
    world.run(store(ANNA, &[(1, 2)], Add, SEEN | DELETED));
    let folder = world.folder(ANNA, INBOX);
    assert_eq!((folder.exists, folder.unseen, folder.deleted), (3, 1, 2));
    world.run(store(ANNA, &[(1, 3)], Replace, 0));
    let folder = world.folder(ANNA, INBOX);
    assert_eq!((folder.unseen, folder.deleted), (3, 0));
}

#[test]
fn a_thousand_messages_are_changed_and_one_more_is_refused_with_value_and_limit() {
    let mut world = anna_and_ben();
    world.fill_inbox(1_001);
    let refused = world.refused(store(ANNA, &[(1, u32::MAX)], Add, SEEN));
    assert_eq!(refused.reason(), Reason::LimitExceeded);
    assert_eq!(refused.subject, "messages_per_command");
    assert_eq!((refused.value, refused.limit), (1_001, 1_000));
    assert_eq!(world.folder(ANNA, INBOX).unseen, 1_001);
    let answer = stored(&mut world, store(ANNA, &[(1, 1_000)], Add, SEEN));
    assert_eq!(answer.changed, ranges(&[(1, 1_000)]));
}

#[test]
fn unknown_flags_and_actions_and_bad_keywords_are_refused() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    let unknown = world.refused(store(ANNA, &[(1, 1)], Add, 1 << 5));
    assert_eq!((unknown.reason(), unknown.value), (Reason::FlagUnknown, 32));
    let unsaid = world.reason(store(ANNA, &[(1, 1)], FlagAction::Unspecified, SEEN));
    assert_eq!(unsaid, Reason::FieldInvalid);
    let mut beyond = store(ANNA, &[(1, 1)], Add, SEEN);
    beyond.action = 77;
    assert_eq!(world.reason(beyond), Reason::FieldInvalid);
    let bad = with_keywords(store(ANNA, &[(1, 1)], Add, 0), &["\\Recent"]);
    assert_eq!(world.reason(bad), Reason::KeywordInvalid);
    let long = with_keywords(store(ANNA, &[(1, 1)], Add, 0), &["k".repeat(256).as_str()]);
    assert_eq!(world.refused(long).limit, 255);
    assert_eq!(modseq_of(&world, 1), world.folder(ANNA, INBOX).highest_modseq);
}

/// RFC 9051 6.3.12: APPEND takes flags, keywords and a date as they are given.
#[test]
fn an_appended_message_has_the_flags_and_the_date_that_were_given() {
    let mut world = anna_and_ben();
    let mut given = append(ANNA, INBOX, "x");
    given.system_flags = SEEN | DELETED;
    given.keywords = vec!["Work".into()];
    given.internal_date_ms = 77;
    let at = world.append(given);
    let message = world.message(ANNA, INBOX, at.uid).expect("there");
    assert_eq!(message.system_flags, SEEN | DELETED);
    assert_eq!(message.keywords, ["work"]);
    assert_eq!(world.email(ANNA, at.email_id).internal_date.0, 77);
    let folder = world.folder(ANNA, INBOX);
    assert_eq!((folder.unseen, folder.deleted), (0, 1));
}

/// RFC 9051 6.3.12: without a date, the time of arrival.
#[test]
fn an_appended_message_without_a_date_has_the_databases_time() {
    let mut world = anna_and_ben();
    world.now_ms = 5_000;
    let at = world.append(append(ANNA, INBOX, "x"));
    assert_eq!(world.email(ANNA, at.email_id).internal_date.0, 5_000);
}
