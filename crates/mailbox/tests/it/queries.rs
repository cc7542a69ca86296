//! What readers see: pages, filters, the change feed.

use mailbox::command::FlagAction::Add;
use mailbox::flags::{DELETED, SEEN};
use mailbox::keys;
use mailbox::query::{
    self, Change, ChangeKind, Changes, ChangesSince, FeedPosition, MessageFilter,
};
use mailbox::records::FolderRecord;
use prost::Message;

use crate::world::*;

fn feed(world: &World, folder: Option<u32>, since: u64, limit: usize) -> Changes {
    feed_from(world, folder, FeedPosition::at(since), limit)
}

fn feed_from(world: &World, folder: Option<u32>, from: FeedPosition, limit: usize) -> Changes {
    match query::changes_since(&world.view, id(ANNA), folder, from, limit) {
        Ok(ChangesSince::Changes(changes)) => changes,
        other => panic!("no feed: {other:?}"),
    }
}

fn kinds(changes: &Changes) -> Vec<(u32, u32, ChangeKind)> {
    changes.changes.iter().map(|change| (change.folder, change.uid, change.kind)).collect()
}

#[test]
fn messages_come_in_pages_by_uid() {
    let mut world = anna_and_ben();
    world.fill_inbox(7);
    world.run(expunge(ANNA, &[(3, 3)]));
    let filter = MessageFilter::default();
    let mut uids = Vec::new();
    let mut after = None;
    loop {
        let page = query::list_messages(&world.view, id(ANNA), INBOX, &filter, after, 2)
            .expect("readable");
        uids.extend(page.items.iter().map(|message| message.uid));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(uids, [1, 2, 4, 5, 6, 7]);
}

#[test]
fn a_filter_shows_only_what_matches_all_of_it() {
    let mut world = anna_and_ben();
    world.fill_inbox(600);
    let before = world.folder(ANNA, INBOX).highest_modseq;
    world.run(store(ANNA, &[(300, 302)], Add, SEEN));
    world.run(store(ANNA, &[(302, 303)], Add, DELETED));
    let listed = |filter: MessageFilter| -> Vec<u32> {
        let page = query::list_messages(&world.view, id(ANNA), INBOX, &filter, None, 1_000);
        page.expect("readable").items.iter().map(|message| message.uid).collect()
    };
    let changed = MessageFilter { changed_since: before, ..MessageFilter::default() };
    assert_eq!(listed(changed.clone()), [300, 301, 302, 303]);
    assert_eq!(listed(MessageFilter { with_flags: DELETED, ..changed.clone() }), [302, 303]);
    assert_eq!(listed(MessageFilter { without_flags: SEEN, ..changed.clone() }), [303]);
    let uids = ranges(&[(301, 301), (599, 700), (303, 300)]);
    assert_eq!(listed(MessageFilter { uids, ..MessageFilter::default() }).len(), 6);
}

#[test]
fn folders_come_in_pages_with_their_names() {
    let mut world = anna_and_ben();
    for name in ["A", "B", "C"] {
        world.run(create_folder(ANNA, 0, name));
    }
    let first = query::list_folders(&world.view, id(ANNA), None, 3).expect("readable");
    let names: Vec<_> = first.items.iter().map(|folder| folder.name.as_str()).collect();
    assert_eq!((names, first.next), (vec!["INBOX", "A", "B"], Some(3)));
    let second = query::list_folders(&world.view, id(ANNA), first.next, 3).expect("readable");
    assert_eq!((second.items.len(), second.next), (1, None));
    assert_eq!(second.items[0].name, "C");
}

#[test]
fn mailboxes_come_in_pages_deleted_ones_too() {
    let mut world = anna_and_ben();
    world.run(delete_mailbox(BEN));
    let first = query::list_mailboxes(&world.view, None, 1).expect("readable");
    assert_eq!(first.items[0].id, id(ANNA));
    let second = query::list_mailboxes(&world.view, first.next, 2).expect("readable");
    assert_eq!(second.items[0].id, id(BEN));
    assert!(second.items[0].deleted.is_some() && second.next.is_none());
}

/// RFC 7162 3.1.4.1, RFC 8620 5.2: each message once, at its latest change.
#[test]
fn the_feed_has_each_message_once_at_its_latest_change() {
    let mut world = anna_and_ben();
    world.fill_inbox(3);
    let since = world.mailbox(ANNA).highest_modseq;
    world.run(store(ANNA, &[(1, 2)], Add, SEEN));
    world.run(store(ANNA, &[(1, 1)], Add, DELETED));
    world.run(expunge(ANNA, &[(3, 3)]));
    world.append(append(ANNA, INBOX, "new"));
    world.append(append(ANNA, INBOX, "short-lived"));
    world.run(expunge(ANNA, &[(5, 5)]));
    let changes = feed(&world, None, since, 100);
    let expected = [
        (1, 2, ChangeKind::Updated),
        (1, 1, ChangeKind::Updated),
        (1, 3, ChangeKind::Vanished),
        (1, 4, ChangeKind::Created),
        (1, 5, ChangeKind::CameAndVanished),
    ];
    assert_eq!(kinds(&changes), expected);
    let highest = world.mailbox(ANNA).highest_modseq;
    assert_eq!((changes.next, changes.more), (FeedPosition::at(highest), false));
    assert!(feed_from(&world, None, changes.next, 100).changes.is_empty());
}

#[test]
fn the_feed_of_a_mailbox_merges_its_folders_and_its_parts_make_the_whole() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Other"));
    for number in 0..10 {
        world.append(append(ANNA, 1 + number % 2, &number.to_string()));
    }
    world.run(store(ANNA, &[(1, 5)], Add, SEEN));
    let whole = feed(&world, None, 0, 1_000);
    assert!(whole.changes.is_sorted_by_key(|change| (change.modseq, change.folder, change.uid)));
    assert_eq!(whole.changes.len(), 10);
    let mut pieces: Vec<Change> = Vec::new();
    let mut position = FeedPosition::at(0);
    loop {
        let part = feed_from(&world, None, position, 2);
        pieces.extend(&part.changes);
        position = part.next;
        if !part.more {
            break;
        }
    }
    assert_eq!(pieces, whole.changes);
}

/// A message that changes while a feed is read moves ahead of the reader: it is still told as new
/// to a reader who never heard of it, and as gone to one who may have.
#[test]
fn a_message_that_moves_ahead_of_a_reader_is_not_lost_on_it() {
    let mut world = anna_and_ben();
    let begin = FeedPosition::at(world.mailbox(ANNA).highest_modseq);
    world.fill_inbox(4);
    let first = feed_from(&world, None, begin, 2);
    assert_eq!(kinds(&first), [(1, 1, ChangeKind::Created), (1, 2, ChangeKind::Created)]);
    world.run(store(ANNA, &[(3, 3)], Add, SEEN));
    world.run(expunge(ANNA, &[(1, 1)]));
    let rest = feed_from(&world, None, first.next, 100);
    let expected =
        [(1, 4, ChangeKind::Created), (1, 3, ChangeKind::Created), (1, 1, ChangeKind::Vanished)];
    assert_eq!(kinds(&rest), expected);
}

#[test]
fn a_page_of_the_feed_never_cuts_one_command_in_two() {
    let mut world = anna_and_ben();
    world.fill_inbox(1_500);
    world.run(store(ANNA, &[(1, 1_000)], Add, SEEN));
    let newest = world.mailbox(ANNA).highest_modseq;
    let first = feed(&world, None, 0, 1);
    assert_eq!((first.changes.len(), first.more), (1, true));
    let last = feed(&world, None, newest - 1, 1);
    assert_eq!((last.changes.len(), last.more), (1_000, false));
    let both = feed(&world, None, newest - 2, 2);
    assert_eq!(both.changes.len(), 1_001);
}

#[test]
fn a_feed_of_one_folder_does_not_show_the_others() {
    let mut world = anna_and_ben();
    world.run(create_folder(ANNA, 0, "Other"));
    world.append(append(ANNA, 2, "x"));
    world.append(append(ANNA, INBOX, "y"));
    assert_eq!(kinds(&feed(&world, Some(2), 0, 10)), [(2, 1, ChangeKind::Created)]);
}

/// RFC 7162 5.3: below the floor a server must not pretend to know what vanished.
#[test]
fn a_feed_from_below_the_floor_is_refused_with_the_floor() {
    let mut world = anna_and_ben();
    world.fill_inbox(3);
    let key = keys::folder(id(ANNA), INBOX);
    let mut folder = FolderRecord::decode(world.view.rows()[&key].clone()).expect("a record");
    folder.vanished_floor = 3;
    let value = bytes::Bytes::from(folder.encode_to_vec());
    world.view.write(vec![dag_types::Write::Put { key, value }]);
    let ask = |since| {
        let from = FeedPosition::at(since);
        query::changes_since(&world.view, id(ANNA), None, from, 10).expect("readable")
    };
    assert_eq!(ask(2), ChangesSince::TooOld { floor: 3 });
    assert!(matches!(ask(3), ChangesSince::Changes(_)));
}

#[test]
fn a_feed_of_nothing_that_exists_is_not_found() {
    let world = anna_and_ben();
    let start = FeedPosition::at(0);
    let ask = |name, folder| query::changes_since(&world.view, id(name), folder, start, 10);
    assert_eq!(ask("carl", None), Ok(ChangesSince::NotFound));
    assert_eq!(ask(ANNA, Some(77)), Ok(ChangesSince::NotFound));
}

#[test]
fn a_delivery_is_found_by_its_id() {
    let mut world = anna_and_ben();
    let stored = world.deliver(deliver("d", &[ANNA], "x"))[0].stored.clone();
    let find = |name, delivery| query::find_delivery(&world.view, id(name), delivery);
    assert_eq!(find(ANNA, "d"), Ok(stored));
    assert_eq!(find(ANNA, "e"), Ok(None));
    assert_eq!(find(BEN, "d"), Ok(None));
}

#[test]
fn the_digest_tells_a_lost_a_changed_and_a_foreign_row() {
    let mut world = anna_and_ben();
    world.deliver(deliver("d", &[ANNA, BEN], "hello"));
    let kept = query::database_digest(&world.view).expect("readable");
    assert_eq!(query::recompute_digest(&world.view), Ok(kept));
    for key in world.view.rows().keys().cloned().collect::<Vec<_>>() {
        if key == keys::database() {
            continue;
        }
        let mut damaged = world.view.clone();
        damaged.write(vec![dag_types::Write::Delete { key: key.clone() }]);
        assert_ne!(query::recompute_digest(&damaged), Ok(kept), "lost {key:?}");
        let value = bytes::Bytes::from_static(b"something else");
        damaged.write(vec![dag_types::Write::Put { key: key.clone(), value }]);
        assert_ne!(query::recompute_digest(&damaged), Ok(kept), "changed {key:?}");
    }
}

#[test]
fn the_mailbox_that_a_row_names_is_the_one_whose_digest_tells_of_it() {
    let mut world = anna_and_ben();
    world.deliver(deliver("d", &[ANNA, BEN], "hello"));
    world.append(append(BEN, INBOX, "only here"));
    let digests = |view: &_| query::mailbox_digests(view, None, u64::MAX).expect("readable");
    let before = digests(&world.view);
    assert_eq!(before.iter().map(|one| one.mailbox).collect::<Vec<_>>(), sorted(&[ANNA, BEN]));
    let mut told = 0;
    for key in world.view.rows().keys().cloned().collect::<Vec<_>>() {
        let mut damaged = world.view.clone();
        damaged.write(vec![dag_types::Write::Delete { key: key.clone() }]);
        let after = digests(&damaged);
        let differs: Vec<_> = before.iter().filter(|one| !after.contains(one)).collect();
        let named = before.iter().filter(|one| key.get(1..17) == Some(&one.mailbox.0[..]));
        assert_eq!(differs, named.collect::<Vec<_>>(), "without {key:?}");
        told += differs.len();
    }
    let rows: u64 = before.iter().map(|one| one.rows).sum();
    assert_eq!(told as u64, rows, "each of its rows is told by one of them");
}

#[test]
fn mailboxes_come_page_by_page_in_order_and_a_row_without_its_mailbox_too() {
    let mut world = anna_and_ben();
    world.fill_inbox(3);
    let all = query::mailbox_digests(&world.view, None, u64::MAX).expect("readable");
    let mut paged = Vec::new();
    while let Some(next) = query::mailbox_digests(
        &world.view,
        paged.last().map(|one: &query::MailboxDigest| one.mailbox),
        1,
    )
    .expect("readable")
    .pop()
    {
        paged.push(next);
    }
    assert_eq!(paged, all);
    let stray = dag_types::MailboxId([0xff; 16]);
    let key = keys::request(stray, &[1; 16]);
    let value = bytes::Bytes::from_static(b"x");
    world.view.write(vec![dag_types::Write::Put { key, value }]);
    let last = query::mailbox_digests(&world.view, Some(all[1].mailbox), 1).expect("readable");
    assert_eq!(last.iter().map(|one| (one.mailbox, one.rows)).collect::<Vec<_>>(), [(stray, 1)]);
    assert_eq!(query::mailbox_digests(&world.view, Some(stray), 9), Ok(Vec::new()));
}

fn sorted(names: &[&str]) -> Vec<dag_types::MailboxId> {
    let mut mailboxes: Vec<_> = names.iter().map(|name| id(name)).collect();
    mailboxes.sort();
    mailboxes
}

#[test]
fn empty_databases_are_equal_and_stay_so_under_equal_commands() {
    let empty = World::default();
    assert_eq!(query::database_digest(&empty.view), query::recompute_digest(&empty.view));
    let (mut one, mut other) = (anna_and_ben(), anna_and_ben());
    for world in [&mut one, &mut other] {
        world.fill_inbox(2);
        world.run(expunge(ANNA, &[(1, 1)]));
    }
    assert_eq!(one.view, other.view);
    other.append(append(BEN, INBOX, "only here"));
    assert_ne!(query::database_digest(&one.view), query::database_digest(&other.view));
}
