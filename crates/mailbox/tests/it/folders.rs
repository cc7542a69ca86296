//! Mailboxes and folders: RFC 9051 5.1, 6.3.4.

use mailbox::command::CreateMailbox;
use mailbox::query;
use mailbox::response::{Outcome, Reason};

use crate::world::*;

#[test]
fn a_mailbox_begins_with_an_empty_inbox() {
    let world = anna_and_ben();
    let inbox = world.folder(ANNA, INBOX);
    assert_eq!((inbox.name.as_str(), inbox.parent, inbox.uid_next), ("INBOX", 0, 1));
    assert_eq!((inbox.exists, inbox.unseen, inbox.deleted, inbox.size_bytes), (0, 0, 0, 0));
}

/// RFC 7162 3.1.2.1: HIGHESTMODSEQ is positive even for a folder that never had a message.
#[test]
fn an_empty_folder_has_a_positive_highest_modseq() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Other"));
    assert!(world.folder(ANNA, INBOX).highest_modseq > 0);
    assert!(world.folder(ANNA, 2).highest_modseq > world.folder(ANNA, INBOX).highest_modseq);
}

#[test]
fn a_mailbox_id_is_used_once_even_after_the_mailbox_is_deleted() {
    let mut world = anna_and_ben();
    assert_eq!(world.reason(CreateMailbox::new(id(ANNA), vec![])), Reason::MailboxExists);
    world.run(delete_mailbox(ANNA));
    assert_eq!(world.reason(CreateMailbox::new(id(ANNA), vec![])), Reason::MailboxDeleted);
}

#[test]
fn a_deleted_mailbox_answers_nothing_and_keeps_its_messages() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    world.now_ms = 9_000;
    world.run(delete_mailbox(ANNA));
    assert_eq!(world.reason(append(ANNA, INBOX, "x")), Reason::MailboxDeleted);
    assert_eq!(world.reason(create_folder(ANNA, 0, "x")), Reason::MailboxDeleted);
    assert_eq!(world.reason(expunge(ANNA, &[(1, 1)])), Reason::MailboxDeleted);
    assert_eq!(world.reason(delete_mailbox(ANNA)), Reason::MailboxDeleted);
    assert_eq!(world.mailbox(ANNA).deleted.map(|at| at.0), Some(9_000));
    assert_eq!(world.uids(ANNA, INBOX), [1]);
    assert_eq!(query::get_database(&world.view).expect("readable").mailboxes, 1);
}

#[test]
fn an_unknown_mailbox_and_an_impossible_id_are_told_apart() {
    let mut world = anna_and_ben();
    assert_eq!(world.reason(append("carl", INBOX, "x")), Reason::MailboxNotFound);
    let mut short = append(ANNA, INBOX, "x");
    short.mailbox_id = short.mailbox_id.slice(..15);
    assert_eq!(world.refused(short).subject, "mailbox_id");
    assert_eq!(world.refused(append("", INBOX, "x")).subject, "mailbox_id");
}

#[test]
fn addresses_are_kept_in_lower_case_each_once() {
    let mut world = anna_and_ben();
    let addresses = ["B@x", "a@X", "b@x"].map(String::from).to_vec();
    world.run(CreateMailbox::new(id("carl"), addresses));
    assert_eq!(world.mailbox("carl").addresses, ["a@x", "b@x"]);
}

#[test]
fn impossible_addresses_are_refused() {
    let mut world = anna_and_ben();
    for address in [String::new(), "a\nb@x".into()] {
        assert_eq!(
            world.reason(CreateMailbox::new(id("carl"), vec![address])),
            Reason::FieldInvalid
        );
    }
    let long = CreateMailbox::new(id("carl"), vec!["a".repeat(255)]);
    assert_eq!(world.refused(long).limit, 254);
    let many = CreateMailbox::new(id("carl"), vec!["a@x".into(); 257]);
    assert_eq!(world.refused(many).limit, 256);
    assert!(query::get_mailbox(&world.view, id("carl")).expect("readable").is_none());
}

/// RFC 9051 5.1: INBOX is INBOX in any case; other names differ by case.
#[test]
fn inbox_is_the_same_in_any_case_and_other_names_are_not() {
    let mut world = anna_and_ben();
    assert_eq!(world.reason(create_folder(ANNA, 0, "inBox")), Reason::FolderExists);
    for name in ["Work", "work"] {
        assert!(matches!(world.run(create_folder(ANNA, 0, name)), Outcome::FolderCreated(_)));
    }
    assert_eq!(world.reason(create_folder(ANNA, 0, "work")), Reason::FolderExists);
    let found = query::find_folder(&world.view, id(ANNA), 0, "iNbOx").expect("readable");
    assert_eq!(found.expect("there").id, INBOX);
}

#[test]
fn a_name_is_unique_below_its_parent_only() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Work"));
    assert!(matches!(world.run(create_folder(ANNA, 2, "Work")), Outcome::FolderCreated(_)));
    assert!(matches!(world.run(create_folder(ANNA, INBOX, "inbox")), Outcome::FolderCreated(_)));
    let found = query::find_folder(&world.view, id(ANNA), 2, "Work").expect("readable");
    assert_eq!(found.expect("there").id, 3);
}

#[test]
fn a_name_that_would_lead_astray_is_refused() {
    let mut world = anna_and_ben();
    for name in ["", ".", "..", "a/b", "a\0b", "a\nb", "\u{85}"] {
        assert_eq!(
            world.reason(create_folder(ANNA, 0, name)),
            Reason::FolderNameInvalid,
            "{name:?}"
        );
    }
    let long = world.refused(create_folder(ANNA, 0, &"n".repeat(4_096)));
    assert_eq!((long.subject.as_str(), long.value, long.limit), ("folder_name_bytes", 4_096, 255));
    let widest = "n".repeat(255);
    assert!(matches!(world.run(create_folder(ANNA, 0, &widest)), Outcome::FolderCreated(_)));
}

#[test]
fn a_folder_needs_a_parent_that_exists() {
    let mut world = anna_and_ben();
    let refused = world.refused(create_folder(ANNA, 77, "Orphan"));
    assert_eq!((refused.reason(), refused.subject.as_str()), (Reason::FolderNotFound, "77"));
}

#[test]
fn folders_nest_32_levels_deep_and_no_deeper() {
    let mut world = anna_and_ben();
    let mut parent = 0;
    for _ in 0..32 {
        let Outcome::FolderCreated(created) = world.run(create_folder(ANNA, parent, "deeper"))
        else {
            panic!("refused at {parent}")
        };
        parent = created.folder;
    }
    let refused = world.refused(create_folder(ANNA, parent, "deeper"));
    assert_eq!((refused.subject.as_str(), refused.value, refused.limit), ("folder_depth", 33, 32));
}

#[test]
fn a_mailbox_has_10_000_folders_and_no_more() {
    let mut world = anna_and_ben();
    for number in 1..10_000 {
        world.run(create_folder(ANNA, 0, &number.to_string()));
    }
    assert_eq!(world.mailbox(ANNA).folders, 10_000);
    let refused = world.refused(create_folder(ANNA, 0, "one-more"));
    assert_eq!((refused.value, refused.limit), (10_001, 10_000));
}

/// RFC 9051 6.3.12: a missing folder is not made by an append; the caller may create it.
#[test]
fn an_append_to_a_missing_folder_is_refused_and_makes_none() {
    let mut world = anna_and_ben();
    assert_eq!(world.reason(append(ANNA, 2, "x")), Reason::FolderNotFound);
    assert_eq!(world.mailbox(ANNA).folders, 1);
}
