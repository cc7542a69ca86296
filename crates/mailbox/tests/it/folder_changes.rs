//! Rename, delete, special use, subscription: RFC 9051 6.3.5 to 6.3.8, RFC 6154, RFC 8474 4.

use mailbox::command::{
    CreateFolder, DeleteFolder, RenameInbox, SettingsChange, SubscribeName, UpdateFolder, id_bytes,
};
use mailbox::keys::table;
use mailbox::limits::VANISHED_KEPT_MS;
use mailbox::query::{self, ChangesSince, FeedPosition, FolderChanges};
use mailbox::response::{FolderUpdated, InboxRenamed, Outcome, Reason};
use mailbox::special_use::{JUNK, TRASH};

use crate::world::*;

fn update(folder: u32) -> UpdateFolder {
    UpdateFolder::new(id(ANNA), folder)
}

fn renamed(folder: u32, name: &str) -> UpdateFolder {
    UpdateFolder { name: Some(name.into()), ..update(folder) }
}

fn moved(folder: u32, parent: u32) -> UpdateFolder {
    UpdateFolder { parent: Some(parent), ..update(folder) }
}

fn rename_inbox(name: &str) -> RenameInbox {
    RenameInbox { mailbox_id: id_bytes(id(ANNA)), parent: 0, name: name.into() }
}

fn subscribe(path: &str, subscribed: bool) -> SubscribeName {
    SubscribeName { mailbox_id: id_bytes(id(ANNA)), path: path.into(), subscribed }
}

fn names(world: &World) -> Vec<String> {
    query::list_subscribed_names(&world.view, id(ANNA)).expect("readable")
}

/// RFC 8474 4: the MAILBOXID stays over a rename; RFC 9051 6.3.6: what is below moves along.
#[test]
fn a_renamed_folder_keeps_its_id_its_uids_and_what_is_below_it() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Work"));
    world.run(create_folder(ANNA, 2, "Plans"));
    world.append(append(ANNA, 2, "x"));
    let before = world.folder(ANNA, 2);
    assert!(matches!(world.run(renamed(2, "Old")), Outcome::FolderUpdated(_)));
    let after = world.folder(ANNA, 2);
    assert_eq!((after.uid_validity, after.uid_next), (before.uid_validity, before.uid_next));
    assert_eq!(after.highest_modseq, before.highest_modseq, "no message changed");
    assert!(after.profile_modseq > before.profile_modseq);
    assert_eq!((after.name.as_str(), world.folder(ANNA, 3).parent), ("Old", 2));
    let old = query::find_folder(&world.view, id(ANNA), 0, "Work").expect("readable");
    assert!(old.is_none(), "the old name is free");
}

#[test]
fn a_folder_cannot_come_below_itself_or_deeper_than_32_levels() {
    let mut world = anna_and_ben();
    let mut parent = 0;
    for _ in 0..31 {
        world.run(create_folder(ANNA, parent, "deeper"));
        parent = world.mailbox(ANNA).folders;
    }
    assert_eq!(world.reason(moved(2, 2)), Reason::FolderLoop);
    assert_eq!(world.reason(moved(2, parent)), Reason::FolderLoop);
    let Outcome::FolderCreated(top) = world.run(create_folder(ANNA, 0, "top")) else { panic!() };
    world.run(create_folder(ANNA, top.folder, "below"));
    let refused = world.refused(moved(top.folder, parent));
    assert_eq!((refused.subject.as_str(), refused.value), ("folder_depth", 33));
}

/// RFC 9051 6.3.5 and 6.3.6.
#[test]
fn the_inbox_can_neither_be_deleted_nor_renamed_as_a_folder() {
    let mut world = anna_and_ben();
    assert_eq!(world.reason(DeleteFolder::new(id(ANNA), INBOX)), Reason::FolderProtected);
    assert_eq!(world.reason(renamed(INBOX, "x")), Reason::FolderProtected);
    world.run(create_folder(ANNA, 0, "Work"));
    assert_eq!(world.reason(renamed(2, "inbox")), Reason::FolderExists);
}

#[test]
fn an_update_that_changes_nothing_takes_no_modseq_and_a_stale_one_is_refused() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Work"));
    let before = world.folder(ANNA, 2).profile_modseq;
    let same = Outcome::FolderUpdated(FolderUpdated { modseq: before });
    assert_eq!(world.run(renamed(2, "Work")), same);
    let mut stale = renamed(2, "x");
    stale.expected_modseq = Some(before - 1);
    let refused = world.refused(stale);
    assert_eq!((refused.reason(), refused.limit), (Reason::PreconditionFailed, before));
}

/// RFC 9051 6.3.5: HASCHILDREN.
#[test]
fn a_folder_with_folders_below_it_is_not_deleted() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Work"));
    world.run(create_folder(ANNA, 2, "Plans"));
    assert_eq!(world.reason(DeleteFolder::new(id(ANNA), 2)), Reason::FolderHasChildren);
}

/// RFC 9051 2.3.1.1: a name made again has a greater UIDVALIDITY; RFC 8474 4: and another id.
#[test]
fn a_deleted_folder_is_gone_at_once_and_its_rows_go_by_sweeps() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Work"));
    for number in 0..25 {
        world.append(append(ANNA, 2, &number.to_string()));
    }
    let old = world.folder(ANNA, 2);
    world.run(DeleteFolder::new(id(ANNA), 2));
    assert_eq!((world.mailbox(ANNA).messages, world.mailbox(ANNA).size_bytes), (0, 0));
    assert_eq!(world.reason(append(ANNA, 2, "x")), Reason::FolderNotFound);
    let Outcome::FolderCreated(new) = world.run(create_folder(ANNA, 0, "Work")) else { panic!() };
    assert!(new.uid_validity > old.uid_validity && new.folder != 2);
    // Bodies that lost their last message fall due as well, and share the budget.
    let mut left = 25;
    while left > 0 {
        let more = matches!(world.run(sweep(u64::MAX, 10)), Outcome::Swept(swept) if swept.more);
        let now = world.rows(table::MESSAGE);
        assert!(left - now <= 10 && (more || now == 0), "{left} messages, then {now}");
        left = now;
    }
    while matches!(world.run(sweep(u64::MAX, 1_000)), Outcome::Swept(swept) if swept.more) {}
    assert_eq!((world.rows(table::DEAD_FOLDER), world.rows(table::CHANGE)), (0, 0));
    assert_eq!((world.rows(table::EMAIL), world.rows(table::BODY)), (0, 0));
}

/// RFC 6154 3.
#[test]
fn a_special_use_has_one_folder_and_is_free_when_that_goes() {
    let mut world = anna_and_ben();
    let junk = |name| CreateFolder { special_use: JUNK, ..create_folder(ANNA, 0, name) };
    world.run(junk("Junk"));
    assert_eq!(world.reason(junk("Spam")), Reason::SpecialUseTaken);
    world.run(create_folder(ANNA, 0, "Bin"));
    let as_junk = UpdateFolder { special_use: Some(JUNK), ..update(3) };
    assert_eq!(world.refused(as_junk.clone()).subject, "2");
    world.run(UpdateFolder { special_use: Some(TRASH), ..update(2) });
    world.run(as_junk);
    let uses = (world.folder(ANNA, 2).special_use, world.folder(ANNA, 3).special_use);
    assert_eq!(uses, (TRASH, JUNK));
    world.run(DeleteFolder::new(id(ANNA), 3));
    assert!(matches!(world.run(junk("Junk2")), Outcome::FolderCreated(_)));
    let unknown = UpdateFolder { special_use: Some(10), ..update(2) };
    assert_eq!(world.reason(unknown), Reason::FieldInvalid);
}

/// RFC 9051 6.3.7: the server does not take a name off the list because its folder is gone.
#[test]
fn a_subscription_outlives_its_folder_and_comes_back_with_the_name() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Work"));
    world.run(create_folder(ANNA, 2, "Plans"));
    world.run(subscribe("Work/Plans", true));
    assert!(world.folder(ANNA, 3).subscribed && names(&world).is_empty());
    world.run(DeleteFolder::new(id(ANNA), 3));
    assert_eq!(names(&world), ["Work/Plans"]);
    world.run(create_folder(ANNA, 2, "Plans"));
    assert!(world.folder(ANNA, 4).subscribed && names(&world).is_empty());
    world.run(subscribe("Other Users/ben", true));
    assert_eq!(names(&world), ["Other Users/ben"]);
    world.run(subscribe("Other Users/ben", false));
    assert!(names(&world).is_empty());
}

/// RFC 9051 6.3.6: the messages go to a new folder; INBOX and what is below it stay. RFC 8474 4: the
/// new folder has a new id.
#[test]
fn a_rename_of_the_inbox_moves_its_messages_and_leaves_it_empty() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, INBOX, "below"));
    world.fill_inbox(3);
    let before = world.folder(ANNA, INBOX);
    let Outcome::InboxRenamed(answer) = world.run(rename_inbox("Old")) else { panic!() };
    assert_eq!((answer.folder.folder, answer.moved, answer.left), (3, 3, 0));
    assert_eq!(world.uids(ANNA, 3), [1, 2, 3]);
    let after = world.folder(ANNA, INBOX);
    assert_eq!((after.exists, after.uid_validity, after.uid_next), (0, before.uid_validity, 4));
    assert_eq!(world.folder(ANNA, 2).parent, INBOX);
    assert_eq!(world.reason(rename_inbox("Old")), Reason::FolderExists);
}

#[test]
fn a_large_inbox_is_renamed_in_steps_and_keeps_what_arrives_meanwhile() {
    let mut world = anna_and_ben();
    world.fill_inbox(1_010);
    let answer = world.run(rename_inbox("Old"));
    let Outcome::InboxRenamed(InboxRenamed { moved: 1_000, left: 10, .. }) = answer else {
        panic!("{answer:?}")
    };
    world.append(append(ANNA, INBOX, "new"));
    assert_eq!(world.reason(rename_inbox("Older")), Reason::InboxBusy);
    world.run(sweep(u64::MAX, 4));
    assert_eq!(world.folder(ANNA, 2).exists, 1_004);
    while matches!(world.run(sweep(u64::MAX, 1_000)), Outcome::Swept(swept) if swept.more) {}
    assert_eq!((world.folder(ANNA, 2).exists, world.uids(ANNA, INBOX)), (1_010, vec![1_011]));
    assert!(matches!(world.run(rename_inbox("Older")), Outcome::InboxRenamed(_)));
}

/// RFC 7162 5.3: below the floor the server behaves as if asked for everything.
#[test]
fn what_vanished_is_forgotten_after_60_days_and_the_floor_says_so() {
    let mut world = anna_and_ben();
    world.fill_inbox(2);
    world.run(expunge(ANNA, &[(1, 1)]));
    let gone_at = world.folder(ANNA, INBOX).highest_modseq;
    world.now_ms += VANISHED_KEPT_MS;
    while matches!(world.run(sweep(u64::MAX, 1_000)), Outcome::Swept(swept) if swept.more) {}
    assert_eq!(world.folder(ANNA, INBOX).vanished_floor, gone_at);
    let ask = |modseq| {
        let position = FeedPosition::at(modseq);
        query::changes_since(&world.view, id(ANNA), Some(INBOX), position, 10).expect("readable")
    };
    assert_eq!(ask(gone_at - 1), ChangesSince::TooOld { floor: gone_at });
    assert!(matches!(ask(gone_at), ChangesSince::Changes(_)));
}

#[test]
fn the_feed_of_folders_tells_what_was_made_changed_and_deleted() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Work"));
    world.run(create_folder(ANNA, 0, "Plans"));
    let known = world.mailbox(ANNA).highest_modseq;
    world.run(renamed(3, "Old"));
    world.run(DeleteFolder::new(id(ANNA), 2));
    let answer = query::folder_changes_since(&world.view, id(ANNA), known, 10);
    let Ok(FolderChanges::Changes { changes, more: false, .. }) = answer else { panic!() };
    let seen: Vec<_> = changes.iter().map(|change| (change.folder, change.gone)).collect();
    assert_eq!(seen, [(3, false), (2, true)]);
    world.now_ms += VANISHED_KEPT_MS;
    while matches!(world.run(sweep(u64::MAX, 1_000)), Outcome::Swept(swept) if swept.more) {}
    let answer = query::folder_changes_since(&world.view, id(ANNA), known, 10);
    assert!(matches!(answer, Ok(FolderChanges::TooOld { .. })));
}

/// RFC 9208 5.3.
#[test]
fn the_quota_of_folders_counts_the_inbox() {
    let mut world = anna_and_ben();
    world.set(SettingsChange { quota_folders: Some(2), ..SettingsChange::default() });
    world.run(create_folder(ANNA, 0, "Work"));
    let refused = world.refused(create_folder(ANNA, 0, "Plans"));
    assert_eq!((refused.reason(), refused.value, refused.limit), (Reason::OverQuota, 3, 2));
}
