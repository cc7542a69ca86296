//! What must hold of the rows after each command, whatever was answered. M1 to M9 are the names that
//! every checker of the project uses.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mailbox::flags::{DELETED, SEEN};
use mailbox::keys::{self, table};
use mailbox::query::{self, ChangeKind, ChangesSince, FeedPosition, FolderChanges, MessageFilter};
use mailbox::records::{BodyRecord, ChangeRecord, EmailRecord, MessageRecord};
use mailbox::response::{Delivered, Outcome, Reason};
use mailbox::{Command, Operation};
use prost::Message;

use crate::model::{FolderModel, Model};
use crate::model_bodies::digest_of;
use crate::world::*;

/// What is remembered over the whole run, to notice what comes twice.
#[derive(Debug, Default)]
pub struct Past {
    /// Email ids by mailbox, folder and UID: for ever.
    uids: BTreeMap<(&'static str, u32, u32), u64>,
    modseqs: BTreeMap<&'static str, u64>,
    uid_validities: BTreeSet<u32>,
}

fn rows<R: Message + Default>(world: &World, table: u8) -> Vec<(Bytes, R)> {
    let rows = world.view.rows().iter().filter(|(key, _)| key[0] == table);
    rows.map(|(key, value)| (key.clone(), R::decode(value.clone()).expect("a record"))).collect()
}

pub fn invariant_folders_and_messages_are_those_of_the_model(world: &World, model: &Model) {
    for (name, mailbox) in &model.mailboxes {
        let seen = world.mailbox(name);
        assert_eq!(
            (seen.highest_modseq, seen.deleted.is_some()),
            (mailbox.modseq, mailbox.deleted)
        );
        let page = query::list_folders(&world.view, id(name), None, 1_000).expect("readable");
        assert_eq!(page.items.len(), mailbox.folders.len());
        for folder in page.items {
            let expected = &mailbox.folders[&folder.id];
            assert_eq!((&folder.name, folder.parent), (&expected.name, expected.parent));
            assert_eq!(folder.uid_validity, expected.uid_validity);
            assert_eq!(folder.uid_next, expected.uid_next);
            assert_eq!(folder.highest_modseq, expected.highest_modseq);
            assert_eq!(
                (folder.vanished_floor, folder.subscribed),
                (expected.floor, expected.subscribed)
            );
            assert_eq!(folder.profile_modseq, expected.profile_modseq);
            assert!(folder.id == INBOX || folder.special_use == expected.special_use);
            let table = query::rights_table(&world.view, id(name), folder.id).expect("readable");
            let rights = table.entries.into_iter().map(|entry| (entry.identifier, entry.rights));
            assert_eq!(rights.collect::<BTreeMap<_, _>>(), expected.rights);
            messages_are_those_of(world, name, folder.id, expected);
        }
    }
}

fn messages_are_those_of(world: &World, name: &str, folder: u32, expected: &FolderModel) {
    let filter = MessageFilter::default();
    let page = query::list_messages(&world.view, id(name), folder, &filter, None, 10_000);
    let messages = page.expect("readable").items;
    assert_eq!(messages.len(), expected.messages.len());
    for message in messages {
        let model = &expected.messages[&message.uid];
        assert_eq!((message.system_flags, message.modseq), (model.flags, model.modseq));
        assert_eq!(message.keywords.iter().cloned().collect::<BTreeSet<_>>(), model.keywords);
        assert_eq!((message.email_id, message.size), (model.email_id, model.body.len() as u64));
        let email = world.email(name, message.email_id);
        assert_eq!(email.delivery_id, model.delivery_id);
        let rows = query::body_rows(&world.view, &email).expect("readable");
        let mut rest = model.body.as_ref();
        for row in rows {
            let (chunk, after) = rest.split_at(row.bytes as usize);
            assert_eq!(world.view.rows()[&row.key], chunk);
            rest = after;
        }
        assert!(rest.is_empty(), "the rows of a body hold all of it");
    }
}

pub fn invariant_counters_equal_a_count(world: &World, model: &Model) {
    let live = model.mailboxes.values().filter(|mailbox| !mailbox.deleted).count() as u64;
    assert_eq!(query::get_database(&world.view).expect("readable").mailboxes, live);
    for (name, mailbox) in &model.mailboxes {
        let seen = world.mailbox(name);
        let mut all = (0, 0);
        for folder_id in mailbox.folders.keys() {
            let folder = world.folder(name, *folder_id);
            let prefix = keys::message(id(name), *folder_id, 0).slice(..21);
            let messages: Vec<MessageRecord> = rows::<MessageRecord>(world, table::MESSAGE)
                .into_iter()
                .filter(|(key, _)| key.starts_with(&prefix))
                .map(|(_, record)| record)
                .collect();
            let count = |test: &dyn Fn(&MessageRecord) -> bool| {
                messages.iter().filter(|message| test(message)).count() as u32
            };
            assert_eq!(folder.exists, count(&|_| true));
            assert_eq!(folder.unseen, count(&|message| message.flags & SEEN == 0));
            assert_eq!(folder.deleted, count(&|message| message.flags & DELETED != 0));
            let bytes = messages.iter().map(|message| message.size).sum::<u64>();
            assert_eq!(folder.size_bytes, bytes);
            all = (all.0 + u64::from(folder.exists), all.1 + bytes);
        }
        assert_eq!((seen.messages, seen.size_bytes), all);
        assert_eq!(
            (seen.items, seen.items_bytes),
            (mailbox.items.len() as u64, mailbox.items_bytes())
        );
        assert_eq!(seen.folders as usize, mailbox.folders.len());
    }
}

/// M2.
pub fn invariant_uids_ascend_and_are_never_reused(world: &World, model: &Model, past: &mut Past) {
    for (name, mailbox) in &model.mailboxes {
        for folder in mailbox.folders.keys() {
            let filter = MessageFilter::default();
            let page = query::list_messages(&world.view, id(name), *folder, &filter, None, 10_000);
            for message in page.expect("readable").items {
                let known = past.uids.range((*name, *folder, 0)..=(*name, *folder, u32::MAX));
                let last = known.last().map_or(0, |((_, _, uid), _)| *uid);
                let first = past.uids.entry((*name, *folder, message.uid));
                let fresh = matches!(first, Entry::Vacant(_));
                assert!(!fresh || message.uid > last, "a new UID is greater than all before");
                assert_eq!(*first.or_insert(message.email_id), message.email_id);
            }
        }
    }
}

/// M4.
pub fn invariant_modseqs_never_go_back(world: &World, model: &Model, past: &mut Past) {
    for name in model.mailboxes.keys() {
        let highest = world.mailbox(name).highest_modseq;
        let before = past.modseqs.insert(name, highest).unwrap_or(0);
        assert!(
            highest >= before && highest - before <= 1,
            "one command, at most one mod-sequence"
        );
        let page = query::list_folders(&world.view, id(name), None, 1_000).expect("readable");
        assert!(page.items.iter().all(|folder| folder.highest_modseq <= highest));
        past.uid_validities.extend(page.items.iter().map(|folder| folder.uid_validity));
    }
    let folders =
        model.mailboxes.values().map(|mailbox| mailbox.last_folder as usize).sum::<usize>();
    assert_eq!(past.uid_validities.len(), folders, "no UIDVALIDITY is given out twice");
}

/// M1.
pub fn invariant_each_delivery_is_stored_exactly_once(world: &World) {
    let mut seen = BTreeSet::new();
    for (key, email) in rows::<EmailRecord>(world, table::EMAIL) {
        if email.delivery_id.is_empty() {
            continue;
        }
        let mailbox = key.slice(1..17);
        assert!(seen.insert((mailbox, email.delivery_id)), "a delivery id was stored twice");
    }
}

pub fn invariant_references_equal_emails(world: &World, model: &Model) {
    let emails = rows::<EmailRecord>(world, table::EMAIL);
    let records = rows::<BodyRecord>(world, table::BODY_RECORD);
    assert_eq!(records.len(), model.bodies.len());
    let chunks = model.bodies.values().map(|body| body.rows.len()).sum::<usize>();
    assert_eq!(world.rows(table::BODY), chunks);
    for (key, body) in records {
        let digest = &key[1..];
        let references = emails.iter().filter(|(_, email)| email.blake3 == digest).count() as u64;
        assert_eq!(body.references, references);
        assert_eq!(body.due_ms.is_some(), references == 0);
        let digest = digest.try_into().expect("32 bytes");
        let (whole, expected) =
            model.bodies.iter().find(|(body, _)| digest_of(body) == digest).expect("a body");
        assert_eq!((body.size, body.rows() as usize), (whole.len() as u64, expected.rows.len()));
        let mut begin = 0;
        for (row, bytes) in expected.rows.iter().enumerate() {
            let stored = &world.view.rows()[&keys::body(&digest, row as u32)];
            assert_eq!(stored, &whole[begin..begin + bytes]);
            begin += bytes;
        }
        assert_eq!(body.is_whole(), begin == whole.len());
    }
    let mut expected = BTreeMap::<Bytes, (BTreeSet<(u32, u32)>, u32)>::new();
    for (name, mailbox) in &model.mailboxes {
        for (folder, uid, message) in mailbox.placed() {
            let email = expected.entry(keys::email(id(name), message.email_id)).or_default();
            email.0.insert((folder, uid));
        }
        for item in mailbox.items.values() {
            expected.entry(keys::email(id(name), item.message.email_id)).or_default().1 += 1;
        }
    }
    let found = emails.into_iter().map(|(key, email)| {
        let placements = email.placements.iter().map(|place| (place.folder, place.uid)).collect();
        (key, (placements, email.items))
    });
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
}

/// The items, the subscribed names and the feed of folders are those of the model.
pub fn invariant_what_is_beside_messages_is_that_of_the_model(world: &World, model: &Model) {
    for (name, mailbox) in &model.mailboxes {
        let page = query::list_items(&world.view, id(name), None, 1_000).expect("readable");
        let items = page.items.iter().map(|item| {
            let by = item.deleted_by.as_str();
            (item.id, item.folder, item.email_id, item.deleted.0, by, item.system_flags)
        });
        let expected = mailbox.items.iter().map(|(id, item)| {
            let (message, by) = (&item.message, item.deleted_by.as_str());
            (*id, item.folder, message.email_id, item.deleted_ms, by, message.flags)
        });
        assert!(items.eq(expected), "items of {name}");
        assert_eq!(world.mailbox(name).settings, mailbox.settings);
        let names = query::list_subscribed_names(&world.view, id(name)).expect("readable");
        assert_eq!(names, mailbox.names.iter().cloned().collect::<Vec<_>>());
        let changes =
            query::folder_changes_since(&world.view, id(name), mailbox.folders_floor, 999);
        let Ok(FolderChanges::Changes { changes, .. }) = changes else { panic!("{changes:?}") };
        let gone = changes.iter().filter(|change| change.gone);
        let gone: BTreeMap<u32, u64> = gone.map(|change| (change.folder, change.modseq)).collect();
        assert_eq!(gone, mailbox.gone);
    }
}

pub fn invariant_due_rows_are_those_of_the_model(world: &World, model: &Model) {
    let due: Vec<_> = world.view.rows().keys().filter(|key| key[0] == table::DUE).collect();
    assert_eq!(due, model.due.keys().collect::<Vec<_>>());
    assert_eq!(world.rows(table::REQUEST), model.requests.len());
    assert_eq!(world.rows(table::DELIVERY), model.deliveries.len());
}

/// M8.
pub fn invariant_the_feed_holds_each_message_once(world: &World, model: &Model) {
    assert_eq!(
        rows::<ChangeRecord>(world, table::CHANGE).len(),
        model
            .mailboxes
            .values()
            .flat_map(|mailbox| mailbox.folders.values().chain(mailbox.dead.values()))
            .map(|folder| folder.messages.len() + folder.vanished.len())
            .sum::<usize>()
    );
    for (name, mailbox) in &model.mailboxes {
        let mut expected = BTreeSet::new();
        for (folder_id, folder) in &mailbox.folders {
            let live = folder.messages.iter().map(|(uid, message)| (message.modseq, *uid, false));
            let vanished = folder.vanished.iter().map(|(uid, modseq)| (*modseq, *uid, true));
            expected.extend(
                live.chain(vanished).map(|(modseq, uid, gone)| (modseq, *folder_id, uid, gone)),
            );
        }
        let middle = mailbox.modseq / 2;
        let floor = mailbox.folders.values().map(|folder| folder.floor).max().unwrap_or(0);
        if middle < floor {
            let start = FeedPosition::at(middle);
            let refused = query::changes_since(&world.view, id(name), None, start, 3);
            assert_eq!(refused, Ok(ChangesSince::TooOld { floor }));
            continue;
        }
        let expected: Vec<_> = expected.into_iter().filter(|change| change.0 > middle).collect();
        let mut told = Vec::new();
        let mut position = FeedPosition::at(middle);
        loop {
            let part = query::changes_since(&world.view, id(name), None, position, 3);
            let Ok(ChangesSince::Changes(part)) = part else { panic!("no feed: {part:?}") };
            told.extend(part.changes.iter().map(|change| {
                let gone =
                    matches!(change.kind, ChangeKind::Vanished | ChangeKind::CameAndVanished);
                (change.modseq, change.folder, change.uid, gone)
            }));
            position = part.next;
            if !part.more {
                break;
            }
        }
        assert_eq!(told, expected);
    }
}

/// M9.
pub fn invariant_digest_equals_recomputation(world: &World) {
    let kept = query::database_digest(&world.view).expect("readable");
    assert_eq!(query::recompute_digest(&world.view), Ok(kept));
}

pub fn invariant_a_repeat_gets_the_same_answer_and_changes_nothing(
    world: &World,
    command: &Command,
    outcome: &Outcome,
) {
    let has_an_id = !matches!(
        command.operation,
        Some(Operation::Deliver(_) | Operation::Sweep(_) | Operation::StageChunk(_))
    );
    // What concerns the id, the actor or the staged body is refused before anything is remembered.
    let unremembered = match outcome {
        Outcome::Rejected(refused) => match refused.reason() {
            Reason::RequestIdReused | Reason::BodyNotStaged => true,
            Reason::FieldInvalid => refused.subject == "actor",
            _ => false,
        },
        _ => false,
    };
    let mut copy = world.clone();
    let (again, _) = copy.apply(command);
    if has_an_id {
        assert_eq!(again.outcome.as_ref(), Some(outcome));
        assert!(again.replayed || unremembered);
        assert!(copy.view == world.view, "a repeat changes nothing");
    }
    if let (Outcome::Delivered(first), Some(Outcome::Delivered(second))) = (outcome, &again.outcome)
    {
        let places = |delivered: &Delivered| -> Vec<_> {
            delivered.results.iter().map(|result| result.stored.clone()).collect()
        };
        assert_eq!(places(first), places(second));
        assert_eq!(copy.view, world.view);
    }
}

pub fn check_all(world: &World, model: &Model, past: &mut Past) {
    invariant_folders_and_messages_are_those_of_the_model(world, model);
    invariant_counters_equal_a_count(world, model);
    invariant_uids_ascend_and_are_never_reused(world, model, past);
    invariant_modseqs_never_go_back(world, model, past);
    invariant_each_delivery_is_stored_exactly_once(world);
    invariant_references_equal_emails(world, model);
    invariant_due_rows_are_those_of_the_model(world, model);
    invariant_what_is_beside_messages_is_that_of_the_model(world, model);
    invariant_the_feed_holds_each_message_once(world, model);
    invariant_digest_equals_recomputation(world);
}
