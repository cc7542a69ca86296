//! Recoverable items, retention, hold, quota: RFC 9208 4.3.1, RFC 7889.

use mailbox::command::FlagAction::Add;
use mailbox::command::{Expunge, PurgeItems, RestoreItems, SettingsChange, id_bytes};
use mailbox::flags::{DELETED, SEEN};
use mailbox::keys::table;
use mailbox::query;
use mailbox::response::{DeliverCode, Outcome, Reason};

use crate::world::*;

const DAY: u64 = 24 * 60 * 60 * 1_000;

fn with_retention() -> World {
    let mut world = anna_and_ben();
    world.set(SettingsChange { retention_ms: Some(14 * DAY), ..SettingsChange::default() });
    world
}

fn restore(items: &[u64], folder: u32) -> RestoreItems {
    RestoreItems { mailbox_id: id_bytes(id(ANNA)), items: items.to_vec(), folder }
}

fn purge(items: &[u64]) -> PurgeItems {
    PurgeItems { mailbox_id: id_bytes(id(ANNA)), items: items.to_vec() }
}

fn hold(world: &mut World, litigation_hold: bool) {
    let litigation_hold = Some(litigation_hold);
    world.set(SettingsChange { litigation_hold, ..SettingsChange::default() });
}

fn items(world: &World) -> Vec<u64> {
    let page = query::list_items(&world.view, id(ANNA), None, 1_000).expect("readable");
    page.items.iter().map(|item| item.id).collect()
}

fn sweep_all(world: &mut World) {
    while matches!(world.run(sweep(u64::MAX, 1_000)), Outcome::Swept(swept) if swept.more) {}
}

#[test]
fn a_restored_message_has_a_new_uid_its_flags_and_the_same_email_id() {
    let mut world = with_retention();
    world.fill_inbox(2);
    world.run(store(ANNA, &[(1, 1)], Add, SEEN | DELETED));
    let email = world.message(ANNA, INBOX, 1).expect("there").email_id;
    world.run(expunge(ANNA, &[(1, 1)]));
    assert_eq!(items(&world), [1]);
    let Outcome::Restored(restored) = world.run(restore(&[1], 0)) else { panic!() };
    assert_eq!((restored.stored[0].uid, restored.stored[0].email_id), (3, email));
    assert_eq!(world.message(ANNA, INBOX, 3).expect("there").system_flags, SEEN);
    assert_eq!(world.reason(restore(&[1], 0)), Reason::ItemNotFound);
    assert!(items(&world).is_empty());
}

#[test]
fn an_item_goes_when_its_time_is_over_and_not_before() {
    let mut world = with_retention();
    world.fill_inbox(1);
    world.run(expunge(ANNA, &[(1, 1)]));
    world.now_ms += 14 * DAY - 1;
    sweep_all(&mut world);
    assert_eq!(items(&world), [1]);
    world.now_ms += 1;
    sweep_all(&mut world);
    assert!(items(&world).is_empty());
    sweep_all(&mut world);
    assert_eq!((world.rows(table::EMAIL), world.rows(table::BODY)), (0, 0));
}

#[test]
fn beyond_recovery_there_is_nothing_to_restore() {
    let mut world = with_retention();
    world.fill_inbox(1);
    world.run(Expunge { beyond_recovery: true, ..expunge(ANNA, &[(1, 1)]) });
    assert!(items(&world).is_empty());
}

#[test]
fn on_hold_nothing_is_removed_for_good_by_anybody() {
    let mut world = with_retention();
    world.fill_inbox(2);
    world.run(expunge(ANNA, &[(1, 1)]));
    hold(&mut world, true);
    world.now_ms += 100 * DAY;
    sweep_all(&mut world);
    assert_eq!(items(&world), [1]);
    assert_eq!(world.reason(purge(&[1])), Reason::HoldActive);
    let gone = Expunge { beyond_recovery: true, ..expunge(ANNA, &[(2, 2)]) };
    assert_eq!(world.reason(gone), Reason::HoldActive);
    hold(&mut world, false);
    sweep_all(&mut world);
    assert!(items(&world).is_empty(), "its time was over long ago");
}

#[test]
fn on_hold_what_is_expunged_is_kept_even_without_a_retention() {
    let mut world = anna_and_ben();
    hold(&mut world, true);
    world.fill_inbox(1);
    world.run(expunge(ANNA, &[(1, 1)]));
    assert_eq!(items(&world), [1]);
}

#[test]
fn over_the_quota_of_items_the_oldest_go_first() {
    let mut world = with_retention();
    world.set(SettingsChange { quota_items_bytes: Some(2), ..SettingsChange::default() });
    world.fill_inbox(4);
    world.run(expunge(ANNA, &[(1, 4)]));
    assert_eq!(items(&world), [1, 2, 3, 4]);
    sweep_all(&mut world);
    assert_eq!(items(&world), [3, 4]);
    hold(&mut world, true);
    world.fill_inbox(1);
    assert_eq!(world.refused(expunge(ANNA, &[(5, 5)])).subject, "recoverable_bytes");
}

#[test]
fn a_shorter_retention_counts_for_what_was_expunged_before() {
    let mut world = with_retention();
    world.fill_inbox(1);
    world.run(expunge(ANNA, &[(1, 1)]));
    world.now_ms += DAY;
    world.set(SettingsChange { retention_ms: Some(DAY), ..SettingsChange::default() });
    sweep_all(&mut world);
    assert!(items(&world).is_empty());
}

/// RFC 9208 4.3.1: APPEND and COPY beyond the quota are refused with OVERQUOTA.
#[test]
fn a_full_mailbox_takes_no_message_by_any_way_and_says_how_full_it_is() {
    let mut world = with_retention();
    world.fill_inbox(2);
    world.run(expunge(ANNA, &[(1, 1)]));
    world.set(SettingsChange { quota_bytes: Some(2), ..SettingsChange::default() });
    let refused = world.refused(append(ANNA, INBOX, "xx"));
    assert_eq!((refused.reason(), refused.value, refused.limit), (Reason::OverQuota, 3, 2));
    assert_eq!(world.deliver(deliver("d", &[ANNA], "xx"))[0].code(), DeliverCode::OverQuota);
    world.append(append(ANNA, INBOX, "x"));
    assert_eq!(world.refused(restore(&[1], 0)).subject, "storage_bytes");
    let copy = mailbox::command::CopyMessages::from(transfer(&[(1, 9)], INBOX));
    assert_eq!(world.reason(copy), Reason::OverQuota);
}

/// RFC 9208 5.2.
#[test]
fn the_quota_of_messages_counts_messages() {
    let mut world = anna_and_ben();
    world.set(SettingsChange { quota_messages: Some(1), ..SettingsChange::default() });
    world.fill_inbox(1);
    assert_eq!(world.refused(append(ANNA, INBOX, "x")).subject, "messages");
}

/// RFC 7889.
#[test]
fn a_mailbox_can_have_a_limit_of_its_own_for_one_message() {
    let mut world = anna_and_ben();
    world.set(SettingsChange { append_limit: Some(3), ..SettingsChange::default() });
    world.append(append(ANNA, INBOX, "xxx"));
    let refused = world.refused(append(ANNA, INBOX, "xxxx"));
    assert_eq!((refused.subject.as_str(), refused.value, refused.limit), ("append_limit", 4, 3));
}
