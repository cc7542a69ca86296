//! UIDs, UIDVALIDITY, UIDNEXT: RFC 9051 2.3.1.1.

use bytes::Bytes;
use mailbox::command::CreateMailbox;
use mailbox::keys;
use mailbox::records::{DatabaseRecord, FolderRecord, MailboxRecord};
use mailbox::response::{Outcome, Reason};
use prost::Message;

use crate::world::*;

/// RFC 9051 2.3.1.1: "strictly ascending".
#[test]
fn uids_of_a_folder_ascend_one_by_one() {
    let mut world = anna_and_ben();
    let uids: Vec<u32> = (0..4).map(|_| world.append(append(ANNA, INBOX, "x")).uid).collect();
    assert_eq!(uids, [1, 2, 3, 4]);
}

/// RFC 9051 2.3.1.1: a UID is never used again, not even that of the last message.
#[test]
fn a_uid_is_not_given_out_again_after_its_message_is_gone() {
    let mut world = anna_and_ben();
    world.fill_inbox(3);
    world.run(expunge(ANNA, &[(1, u32::MAX)]));
    assert_eq!(world.append(append(ANNA, INBOX, "next")).uid, 4);
}

/// RFC 9051 2.3.1.1: UIDNEXT moves when a message comes, and only then.
#[test]
fn uidnext_moves_with_a_new_message_and_with_nothing_else() {
    let mut world = anna_and_ben();
    assert_eq!(world.folder(ANNA, INBOX).uid_next, 1);
    world.fill_inbox(2);
    assert_eq!(world.folder(ANNA, INBOX).uid_next, 3);
    world.run(store(ANNA, &[(1, 1)], mailbox::command::FlagAction::Add, mailbox::flags::SEEN));
    world.run(expunge(ANNA, &[(1, 2)]));
    world.refused(append(ANNA, 77, "nowhere"));
    world.run(create_folder(ANNA, 0, "Other"));
    assert_eq!(world.folder(ANNA, INBOX).uid_next, 3);
}

#[test]
fn folders_count_their_uids_each_for_itself() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Other"));
    world.fill_inbox(2);
    assert_eq!(world.append(append(ANNA, 2, "x")).uid, 1);
    assert_eq!(world.append(append(BEN, INBOX, "x")).uid, 1);
}

/// RFC 9051 2.3.1.1: "a global counter that gets incremented" for each new folder.
#[test]
fn uidvalidity_grows_with_each_folder_of_the_database() {
    let mut world = anna_and_ben();
    let before = world.folder(BEN, INBOX).uid_validity;
    assert!(world.folder(ANNA, INBOX).uid_validity < before);
    world.run(create_folder(ANNA, 0, "Other"));
    assert!(world.folder(ANNA, 2).uid_validity > before);
}

#[test]
fn a_refused_folder_takes_no_uidvalidity() {
    let mut world = anna_and_ben();
    world.refused(create_folder(ANNA, 77, "Orphan"));
    world.run(create_folder(ANNA, 0, "Other"));
    let validity = world.folder(ANNA, 2).uid_validity;
    assert_eq!(validity, world.folder(BEN, INBOX).uid_validity + 1);
}

/// RFC 9051 6.3.2: the caller's UIDs mean nothing under another UIDVALIDITY.
#[test]
fn a_wrong_uidvalidity_is_refused_with_both_values() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    let right = world.folder(ANNA, INBOX).uid_validity;
    let mut wrong = append(ANNA, INBOX, "x");
    wrong.expected_uid_validity = right + 7;
    let refused = world.refused(wrong);
    assert_eq!(refused.reason(), Reason::UidValidityChanged);
    assert_eq!((refused.value, refused.limit), (u64::from(right) + 7, u64::from(right)));
    let mut wrong = expunge(ANNA, &[(1, 1)]);
    wrong.expected_uid_validity = right + 7;
    assert_eq!(world.reason(wrong), Reason::UidValidityChanged);
    let mut wrong = store(ANNA, &[(1, 1)], mailbox::command::FlagAction::Add, 1);
    wrong.expected_uid_validity = right + 7;
    assert_eq!(world.reason(wrong), Reason::UidValidityChanged);
    assert_eq!(world.uids(ANNA, INBOX), [1]);
}

/// Changes a stored record behind the core's back, to bring a counter near its end.
fn set<R: Message + Default>(world: &mut World, key: Bytes, change: impl FnOnce(&mut R)) {
    let mut record = R::decode(world.view.rows()[&key].clone()).expect("a record");
    change(&mut record);
    let value = Bytes::from(record.encode_to_vec());
    world.view.write(vec![dag_types::Write::Put { key, value }]);
}

/// RFC 9051 9: a UID has 32 bits. At the end the folder refuses; it never wraps.
#[test]
fn a_folder_whose_uids_are_used_up_refuses_messages() {
    let mut world = anna_and_ben();
    let key = keys::folder(id(ANNA), INBOX);
    set(&mut world, key, |folder: &mut FolderRecord| folder.uid_next = u32::MAX - 1);
    assert_eq!(world.append(append(ANNA, INBOX, "last")).uid, u32::MAX - 1);
    let refused = world.refused(append(ANNA, INBOX, "one more"));
    assert_eq!((refused.reason(), refused.subject.as_str()), (Reason::CounterExhausted, "uid"));
    assert_eq!(world.folder(ANNA, INBOX).exists, 1);
    assert_eq!(world.folder(ANNA, INBOX).uid_next, u32::MAX);
}

/// RFC 7162 3.1: a mod-sequence has 63 bits. At the end the mailbox refuses; it never wraps.
#[test]
fn a_mailbox_whose_modseqs_are_used_up_refuses_changes() {
    let mut world = anna_and_ben();
    let key = keys::mailbox(id(ANNA));
    let last = i64::MAX as u64;
    set(&mut world, key, |mailbox: &mut MailboxRecord| mailbox.highest_modseq = last - 1);
    assert_eq!(world.append(append(ANNA, INBOX, "last")).modseq, last);
    assert_eq!(world.refused(append(ANNA, INBOX, "x")).subject, "modseq");
    assert_eq!(world.refused(expunge(ANNA, &[(1, 1)])).subject, "modseq");
    assert_eq!(world.uids(ANNA, INBOX), [1]);
}

/// A refusal takes back what the command had counted before it was refused.
#[test]
fn a_folder_refused_at_the_last_step_takes_no_uidvalidity() {
    let mut world = anna_and_ben();
    let key = keys::mailbox(id(ANNA));
    let last = i64::MAX as u64;
    set(&mut world, key, |mailbox: &mut MailboxRecord| mailbox.highest_modseq = last);
    let before = mailbox::query::get_database(&world.view).expect("readable");
    assert_eq!(world.refused(create_folder(ANNA, 0, "Other")).subject, "modseq");
    assert_eq!(mailbox::query::get_database(&world.view), Ok(before));
    assert_eq!(world.mailbox(ANNA).folders, 1);
}

#[test]
fn a_delivery_to_a_folder_at_its_end_is_refused_for_that_recipient_alone() {
    let mut world = anna_and_ben();
    let key = keys::folder(id(ANNA), INBOX);
    set(&mut world, key, |folder: &mut FolderRecord| folder.uid_next = u32::MAX);
    let results = world.deliver(deliver("d", &[ANNA, BEN], "hello"));
    assert_eq!(results[0].code(), mailbox::response::DeliverCode::Refused);
    assert_eq!(results[1].code(), mailbox::response::DeliverCode::Stored);
    assert_eq!(world.mailbox(ANNA).messages, 0);
    assert_eq!(world.uids(BEN, INBOX), [1]);
}

#[test]
fn a_database_whose_uidvalidities_are_used_up_refuses_folders() {
    let mut world = anna_and_ben();
    set(&mut world, keys::database(), |database: &mut DatabaseRecord| {
        database.last_uid_validity = u32::MAX;
    });
    let refused = world.refused(CreateMailbox::new(id("carl"), vec![]));
    assert_eq!(refused.subject, "uid_validity");
    assert!(matches!(
        world.run(create_folder(ANNA, 0, "Other")),
        Outcome::Rejected(refused) if refused.subject == "uid_validity"
    ));
}
