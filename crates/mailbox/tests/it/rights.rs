//! Shared folders: RFC 4314 3, 4, 6.

use mailbox::command::FlagAction::{Add, Remove, Replace};
use mailbox::command::{
    CopyMessages, DeleteFolder, FlagAction, MoveMessages, SetRights, SettingsChange, id_bytes,
};
use mailbox::flags::{ANSWERED, DELETED, SEEN};
use mailbox::response::{Outcome, Reason};
use mailbox::{query, rights};

use crate::world::*;

fn give(world: &mut World, identifier: &str, action: FlagAction, letters: &str) {
    let set = SetRights {
        mailbox_id: id_bytes(id(ANNA)),
        folder: INBOX,
        identifier: identifier.into(),
        action: action as i32,
        rights: rights::parse(letters).expect("rights"),
    };
    let outcome = world.run(set);
    assert!(matches!(outcome, Outcome::FolderUpdated(_)), "{outcome:?}");
}

fn refusal(outcome: Outcome) -> (Reason, String) {
    match outcome {
        Outcome::Rejected(rejection) => (rejection.reason(), rejection.subject),
        other => panic!("not refused: {other:?}"),
    }
}

/// RFC 4314 6: whoever may not look a folder up learns nothing of it.
#[test]
fn without_lookup_a_folder_does_not_exist_and_without_a_right_it_is_named() {
    let mut world = anna_and_ben();
    let attempt = |world: &mut World| refusal(world.run_for(&["ben"], append(ANNA, INBOX, "x")));
    assert_eq!(attempt(&mut world).0, Reason::FolderNotFound);
    give(&mut world, "ben", Replace, "lr");
    assert_eq!(attempt(&mut world), (Reason::AccessDenied, "i".into()));
    give(&mut world, "staff", Add, "i");
    let outcome = world.run_for(&["ben", "staff"], append(ANNA, INBOX, "x"));
    assert!(matches!(outcome, Outcome::Appended(_)));
    give(&mut world, "-ben", Replace, "i");
    assert_eq!(refusal(world.run_for(&["ben", "staff"], append(ANNA, INBOX, "x"))).1, "i");
}

/// RFC 4314 4, STORE: flags for which there is no right are passed over, none at all is refused.
#[test]
fn somebody_changes_those_flags_that_it_may_change() {
    let mut world = anna_and_ben();
    world.fill_inbox(1);
    give(&mut world, "ben", Replace, "lrs");
    world.run_for(&["ben"], store(ANNA, &[(1, 1)], Add, SEEN | DELETED | ANSWERED));
    assert_eq!(world.message(ANNA, INBOX, 1).expect("there").system_flags, SEEN);
    let denied = refusal(world.run_for(&["ben"], store(ANNA, &[(1, 1)], Add, DELETED)));
    assert_eq!(denied.0, Reason::AccessDenied);
    world.run(store(ANNA, &[(1, 1)], Add, ANSWERED));
    world.run_for(&["ben"], store(ANNA, &[(1, 1)], Replace, DELETED));
    assert_eq!(world.message(ANNA, INBOX, 1).expect("there").system_flags, ANSWERED);
}

/// RFC 4314 4, COPY/APPEND: never refused for a flag; the flag is not set.
#[test]
fn an_append_leaves_out_the_flags_that_its_author_may_not_set() {
    let mut world = anna_and_ben();
    give(&mut world, "ben", Replace, "lrit");
    let mut command = append(ANNA, INBOX, "x");
    (command.system_flags, command.keywords) = (SEEN | DELETED, vec!["work".into()]);
    world.run_for(&["ben"], command);
    let message = world.message(ANNA, INBOX, 1).expect("there");
    assert_eq!((message.system_flags, message.keywords), (DELETED, vec![]));
}

/// RFC 4314 4 and RFC 6851 4.4: a move needs `e` and `t` beside `r`, and `i` where it goes.
#[test]
fn copy_move_expunge_and_delete_ask_for_their_rights() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Work"));
    world.fill_inbox(1);
    give(&mut world, "ben", Replace, "lr");
    let run = |world: &mut World, operation: mailbox::Operation| {
        refusal(world.run_for(&["ben"], operation)).1
    };
    let there = transfer(&[(1, 1)], INBOX);
    assert_eq!(run(&mut world, CopyMessages::from(there.clone()).into()), "i");
    assert_eq!(run(&mut world, MoveMessages::from(there).into()), "te");
    assert_eq!(run(&mut world, expunge(ANNA, &[(1, 1)]).into()), "e");
    assert_eq!(run(&mut world, DeleteFolder::new(id(ANNA), INBOX).into()), "x");
    assert_eq!(run(&mut world, create_folder(ANNA, INBOX, "below").into()), "k");
    assert_eq!(run(&mut world, create_folder(ANNA, 0, "top").into()), "owner");
    give(&mut world, "ben", Remove, "lr");
    let table = query::rights_table(&world.view, id(ANNA), INBOX).expect("readable");
    assert!(table.entries.is_empty(), "who has no rights is not listed");
}

#[test]
fn the_owner_and_a_caller_without_actor_may_do_everything() {
    let mut world = anna_and_ben();
    world.set(SettingsChange { owner: Some("anna@x".into()), ..SettingsChange::default() });
    let outcome = world.run_for(&["anna@x"], append(ANNA, INBOX, "x"));
    assert!(matches!(outcome, Outcome::Appended(_)));
    let all = query::rights_of(&world.view, id(ANNA), INBOX, &["anna@x".into()]);
    assert_eq!(all, Ok(rights::ALL));
    assert_eq!(refusal(world.run_for(&["ben"], delete_mailbox(ANNA))).0, Reason::FieldInvalid);
}

#[test]
fn a_new_folder_has_the_rights_of_the_one_above_it() {
    let mut world = anna_and_ben();
    give(&mut world, "ben", Replace, "lrk");
    let made = world.run_for(&["ben"], create_folder(ANNA, INBOX, "below"));
    let Outcome::FolderCreated(made) = made else { panic!("{made:?}") };
    let has = query::rights_of(&world.view, id(ANNA), made.folder, &["ben".into()]);
    assert_eq!(has.map(rights::letters), Ok("lrk".into()));
}
