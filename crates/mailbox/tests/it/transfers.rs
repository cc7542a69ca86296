//! Copy, move, multiple append: RFC 9051 6.4.7, RFC 6851 3.3, RFC 4315 3, RFC 3502.

use mailbox::command::FlagAction::Add;
use mailbox::command::{AppendMany, CopyMessages, MoveMessages, Transfer, id_bytes};
use mailbox::flags::{ANSWERED, DELETED};
use mailbox::keys::table;
use mailbox::response::{Outcome, Reason, Transferred};

use crate::world::*;

fn world_with_work() -> World {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Work"));
    world
}

fn copied(world: &mut World, transfer: Transfer) -> Transferred {
    match world.run(CopyMessages::from(transfer)) {
        Outcome::Transferred(transferred) => transferred,
        other => panic!("not copied: {other:?}"),
    }
}

fn moved(world: &mut World, transfer: Transfer) -> Transferred {
    match world.run(MoveMessages::from(transfer)) {
        Outcome::Transferred(transferred) => transferred,
        other => panic!("not moved: {other:?}"),
    }
}

/// RFC 9051 6.4.7: flags and date are those of the source; RFC 8474 5.1: so is the EMAILID;
/// RFC 8514 3: the save date is new.
#[test]
fn a_copy_shares_its_content_and_has_its_own_uid_flags_and_save_date() {
    let mut world = world_with_work();
    world.fill_inbox(2);
    let mut flags = store(ANNA, &[(2, 2)], Add, ANSWERED);
    flags.keywords = vec!["a".into(), "b".into()];
    world.run(flags);
    world.append({
        let mut other = append(ANNA, 2, "other");
        other.keywords = vec!["b".into()];
        other
    });
    world.now_ms = 9_000;
    let answer = copied(&mut world, transfer(&[(1, 9)], 2));
    assert_eq!((&answer.source, &answer.target), (&ranges(&[(1, 2)]), &ranges(&[(2, 3)])));
    let (source, copy) = (world.message(ANNA, INBOX, 2), world.message(ANNA, 2, 3));
    let (source, copy) = (source.expect("there"), copy.expect("there"));
    assert_eq!((copy.email_id, copy.system_flags), (source.email_id, ANSWERED));
    assert_eq!((copy.keywords, copy.saved.0), (vec!["b".to_string(), "a".into()], 9_000));
    assert_eq!((copy.modseq, source.modseq < copy.modseq), (answer.modseq, true));
    assert_eq!(world.rows(table::BODY), 3, "no body was written again");
    world.run(expunge(ANNA, &[(1, 2)]));
    world.run(sweep(u64::MAX, 1_000));
    assert_eq!(world.rows(table::BODY), 3, "the copies still have them");
}

/// RFC 6851 3.3: in one folder or in the other, and `\Deleted` is not set.
#[test]
fn a_move_is_one_change_in_both_folders() {
    let mut world = world_with_work();
    world.fill_inbox(3);
    let email = world.message(ANNA, INBOX, 2).expect("there").email_id;
    let before = world.mailbox(ANNA);
    let answer = moved(&mut world, transfer(&[(2, 3)], 2));
    assert_eq!(answer.modseq, before.highest_modseq + 1);
    assert_eq!(answer.modseq, answer.source_modseq);
    assert_eq!((world.uids(ANNA, INBOX), world.uids(ANNA, 2)), (vec![1], vec![1, 2]));
    let message = world.message(ANNA, 2, 1).expect("there");
    assert_eq!((message.email_id, message.system_flags & DELETED), (email, 0));
    let after = world.mailbox(ANNA);
    assert_eq!((after.messages, after.size_bytes), (before.messages, before.size_bytes));
}

#[test]
fn a_move_within_its_folder_gives_new_uids() {
    let mut world = anna_and_ben();
    world.fill_inbox(2);
    let answer = moved(&mut world, transfer(&[(1, 1)], INBOX));
    assert_eq!((answer.source, answer.target), (ranges(&[(1, 1)]), ranges(&[(3, 3)])));
    assert_eq!(world.uids(ANNA, INBOX), [2, 3]);
}

/// RFC 8474 5.1: what is shown as EMAILID is the origin's, in another mailbox as well.
#[test]
fn a_message_goes_to_another_mailbox_of_the_database_without_its_bytes() {
    let mut world = anna_and_ben();
    world.deliver(deliver("d", &[ANNA], "shared"));
    let to_ben = Transfer { to_mailbox_id: id_bytes(id(BEN)), ..transfer(&[(1, 1)], INBOX) };
    copied(&mut world, to_ben.clone());
    moved(&mut world, to_ben);
    assert_eq!((world.uids(ANNA, INBOX), world.uids(BEN, INBOX)), (vec![], vec![1, 2]));
    assert_eq!((world.rows(table::BODY), world.rows(table::EMAIL)), (1, 2));
    let email = world.email(BEN, 2);
    assert_eq!((email.origin, email.delivery_id.as_str()), (Some((id(ANNA), 1)), ""));
}

#[test]
fn a_transfer_that_is_refused_leaves_no_trace() {
    let mut world = world_with_work();
    world.fill_inbox(1_001);
    let before = (world.uids(ANNA, INBOX), world.folder(ANNA, 2));
    assert_eq!(world.refused(MoveMessages::from(transfer(&[(1, 1_001)], 2))).value, 1_001);
    let nowhere = CopyMessages::from(transfer(&[(1, 1)], 7));
    assert_eq!(world.reason(nowhere), Reason::FolderNotFound);
    let stale = Transfer { to_expected_uid_validity: 77, ..transfer(&[(1, 1)], 2) };
    assert_eq!(world.reason(CopyMessages::from(stale)), Reason::UidValidityChanged);
    assert_eq!((world.uids(ANNA, INBOX), world.folder(ANNA, 2)), before);
}

#[test]
fn an_email_has_256_places_and_no_more() {
    let mut world = world_with_work();
    world.fill_inbox(1);
    for _ in 1..256 {
        copied(&mut world, transfer(&[(1, 1)], 2));
    }
    let refused = world.refused(CopyMessages::from(transfer(&[(1, 1)], 2)));
    assert_eq!((refused.subject.as_str(), refused.value), ("placements_per_email", 257));
}

/// RFC 3502: all or none, in the order given.
#[test]
fn several_messages_are_appended_together_or_not_at_all() {
    let mut world = anna_and_ben();
    let Outcome::AppendedMany(answer) = world.run(append_many(ANNA, INBOX, &["a", "b", "a"]))
    else {
        panic!("not appended")
    };
    assert_eq!((answer.first.uid, answer.messages), (1, 3));
    let modseqs = [1, 2, 3].map(|uid| world.message(ANNA, INBOX, uid).expect("there").modseq);
    assert_eq!(modseqs, [answer.first.modseq; 3]);
    assert_eq!(world.rows(table::BODY), 2, "equal bodies are stored once");
    let mut bad: AppendMany = append_many(ANNA, INBOX, &["c", "d"]);
    bad.messages[1].content.size = 7;
    assert_eq!(world.reason(bad), Reason::SizeMismatch);
    assert_eq!((world.uids(ANNA, INBOX), world.rows(table::BODY)), (vec![1, 2, 3], 2));
    assert_eq!(world.reason(append_many(ANNA, INBOX, &[])), Reason::FieldMissing);
}
