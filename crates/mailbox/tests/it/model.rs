//! Generated commands against a naive model, with named invariants checked after each.
//!
//! The model knows nothing of rows, digests or references: it keeps lists of messages and looks
//! through all of them. It says what each command must answer; the invariants say what must hold
//! of the rows whatever was answered.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mailbox::command::{
    Append, Deliver, Expunge, FlagAction, Recipient, StoreFlags, UidRange, id_bytes,
};
use mailbox::flags::{DELETED, SEEN};
use mailbox::keys::{self, Due, table};
use mailbox::limits::{DELIVERY_ID_KEPT_MS, REQUEST_ID_KEPT_MS};
use mailbox::query::{self, ChangeKind, ChangesSince, FeedPosition, MessageFilter};
use mailbox::records::{BodyRecord, ChangeRecord, EmailRecord, MessageRecord};
use mailbox::response::{
    DeliverCode, Delivered, Expunged, FlagsStored, FolderCreated, MailboxCreated, MailboxDeleted,
    Outcome, Reason, StoredAt, Swept,
};
use mailbox::{Command, Operation};
use proptest::prelude::*;
use prost::Message;

use crate::world::*;

const NAMES: [&str; 3] = [ANNA, BEN, "carl"];
const BODIES: [&str; 4] = ["", "one", "two two", "three three three"];
const KEYWORDS: [&str; 3] = ["work", "Home", "WORK"];

#[derive(Debug, Clone)]
struct MessageModel {
    flags: u32,
    keywords: BTreeSet<String>,
    modseq: u64,
    email_id: u64,
    delivery_id: String,
    body: Bytes,
}

#[derive(Debug, Clone, Default)]
struct FolderModel {
    name: String,
    parent: u32,
    uid_validity: u32,
    uid_next: u32,
    highest_modseq: u64,
    messages: BTreeMap<u32, MessageModel>,
    vanished: BTreeMap<u32, u64>,
}

#[derive(Debug, Clone, Default)]
struct MailboxModel {
    deleted: bool,
    modseq: u64,
    last_email: u64,
    folders: BTreeMap<u32, FolderModel>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    now_ms: u64,
    last_uid_validity: u32,
    mailboxes: BTreeMap<&'static str, MailboxModel>,
    requests: BTreeMap<(&'static str, String), (Operation, Outcome)>,
    deliveries: BTreeMap<(&'static str, String), (StoredAt, Bytes)>,
    bodies: BTreeSet<Bytes>,
    due: BTreeMap<Bytes, DueModel>,
}

#[derive(Debug, Clone)]
enum DueModel {
    Request(&'static str, String),
    Delivery(&'static str, String),
    Body(Bytes),
}

type Refused<T> = Result<T, Reason>;

fn name_of(mailbox_id: &[u8]) -> &'static str {
    NAMES.into_iter().find(|name| id(name).0 == mailbox_id).expect("a name of the model")
}

impl Model {
    fn run(&mut self, command: &Command) -> Outcome {
        self.now_ms = self.now_ms.max(command.proposed_at_ms);
        let operation = command.operation.as_ref().expect("an operation");
        let name = match operation {
            Operation::CreateMailbox(create) => name_of(&create.mailbox_id),
            Operation::DeleteMailbox(delete) => name_of(&delete.mailbox_id),
            Operation::CreateFolder(create) => name_of(&create.mailbox_id),
            Operation::Append(append) => name_of(&append.mailbox_id),
            Operation::StoreFlags(store) => name_of(&store.mailbox_id),
            Operation::Expunge(expunge) => name_of(&expunge.mailbox_id),
            Operation::Deliver(_) | Operation::Sweep(_) => return self.carry_out(operation),
        };
        let request = (name, command.request_id.clone());
        if let Some((first, outcome)) = self.requests.get(&request) {
            let reused = Outcome::Rejected(mailbox::Rejection::new(Reason::RequestIdReused));
            return if first == operation { outcome.clone() } else { reused };
        }
        let outcome = self.carry_out(operation);
        let hash = keys::hash_id(&command.request_id);
        let due = keys::due(self.now_ms + REQUEST_ID_KEPT_MS, &Due::Request(id(name), hash));
        self.due.insert(due, DueModel::Request(name, command.request_id.clone()));
        self.requests.insert(request, (operation.clone(), outcome.clone()));
        outcome
    }

    fn carry_out(&mut self, operation: &Operation) -> Outcome {
        let outcome = match operation {
            Operation::CreateMailbox(create) => self.create_mailbox(name_of(&create.mailbox_id)),
            Operation::DeleteMailbox(delete) => self.delete_mailbox(name_of(&delete.mailbox_id)),
            Operation::CreateFolder(create) => {
                self.create_folder(name_of(&create.mailbox_id), create.parent, &create.name)
            }
            Operation::Deliver(deliver) => Ok(self.deliver(deliver)),
            Operation::Append(append) => self.append(append).map(Outcome::Appended),
            Operation::StoreFlags(store) => self.store_flags(store).map(Outcome::FlagsStored),
            Operation::Expunge(expunge) => self.expunge(expunge).map(Outcome::Expunged),
            Operation::Sweep(sweep) => Ok(Outcome::Swept(self.sweep(sweep.limit as usize))),
        };
        outcome.unwrap_or_else(|reason| Outcome::Rejected(mailbox::Rejection::new(reason)))
    }

    fn live(&mut self, name: &str) -> Refused<&mut MailboxModel> {
        match self.mailboxes.get_mut(name) {
            None => Err(Reason::MailboxNotFound),
            Some(mailbox) if mailbox.deleted => Err(Reason::MailboxDeleted),
            Some(mailbox) => Ok(mailbox),
        }
    }

    fn create_mailbox(&mut self, name: &'static str) -> Refused<Outcome> {
        match self.live(name) {
            Ok(_) => return Err(Reason::MailboxExists),
            Err(Reason::MailboxDeleted) => return Err(Reason::MailboxDeleted),
            Err(_) => {}
        }
        self.mailboxes.insert(name, MailboxModel::default());
        let inbox = self.new_folder(name, 0, "INBOX");
        Ok(Outcome::MailboxCreated(MailboxCreated { inbox }))
    }

    fn delete_mailbox(&mut self, name: &str) -> Refused<Outcome> {
        self.live(name)?.deleted = true;
        Ok(Outcome::MailboxDeleted(MailboxDeleted { deleted_ms: self.now_ms }))
    }

    fn create_folder(&mut self, name: &str, parent: u32, folder: &str) -> Refused<Outcome> {
        let mailbox = self.live(name)?;
        if parent != 0 && !mailbox.folders.contains_key(&parent) {
            return Err(Reason::FolderNotFound);
        }
        let mut siblings = mailbox.folders.values().filter(|other| other.parent == parent);
        let same = |other: &FolderModel| match parent {
            0 if folder.eq_ignore_ascii_case("inbox") => other.name == "INBOX",
            _ => other.name == folder,
        };
        if siblings.any(same) {
            return Err(Reason::FolderExists);
        }
        Ok(Outcome::FolderCreated(self.new_folder(name, parent, folder)))
    }

    fn new_folder(&mut self, mailbox: &str, parent: u32, name: &str) -> FolderCreated {
        self.last_uid_validity += 1;
        let mailbox = self.mailboxes.get_mut(mailbox).expect("there");
        mailbox.modseq += 1;
        let folder = mailbox.folders.len() as u32 + 1;
        let model = FolderModel {
            name: name.into(),
            parent,
            uid_validity: self.last_uid_validity,
            uid_next: 1,
            highest_modseq: mailbox.modseq,
            ..FolderModel::default()
        };
        mailbox.folders.insert(folder, model);
        FolderCreated { folder, uid_validity: self.last_uid_validity, modseq: mailbox.modseq }
    }

    fn put(&mut self, name: &str, folder_id: u32, mut message: MessageModel) -> StoredAt {
        self.bodies.insert(message.body.clone());
        let body = message.body.clone();
        self.due.retain(|_, due| !matches!(due, DueModel::Body(gone) if *gone == body));
        let mailbox = self.mailboxes.get_mut(name).expect("there");
        mailbox.modseq += 1;
        mailbox.last_email += 1;
        message.modseq = mailbox.modseq;
        message.email_id = mailbox.last_email;
        let folder = mailbox.folders.get_mut(&folder_id).expect("there");
        folder.highest_modseq = mailbox.modseq;
        let uid = folder.uid_next;
        folder.uid_next += 1;
        folder.messages.insert(uid, message);
        StoredAt {
            folder: folder_id,
            uid_validity: folder.uid_validity,
            uid,
            email_id: mailbox.last_email,
            modseq: mailbox.modseq,
        }
    }

    fn deliver(&mut self, command: &Deliver) -> Outcome {
        let mut results = Vec::new();
        for recipient in &command.recipients {
            let mut result = mailbox::response::RecipientResult {
                address: recipient.address.clone(),
                ..Default::default()
            };
            match self.deliver_to(command, recipient) {
                Ok((code, at)) => {
                    result.code = code as i32;
                    result.stored = Some(at);
                }
                Err(reason) => {
                    let refused = reason == Reason::DeliveryIdReused;
                    let code = if refused { DeliverCode::Refused } else { DeliverCode::NoMailbox };
                    result.code = code as i32;
                    result.rejection = Some(mailbox::Rejection::new(reason));
                }
            }
            results.push(result);
        }
        Outcome::Delivered(Delivered { results })
    }

    fn deliver_to(
        &mut self,
        command: &Deliver,
        to: &Recipient,
    ) -> Refused<(DeliverCode, StoredAt)> {
        let name = name_of(&to.mailbox_id);
        if !self.mailboxes.contains_key(name) {
            return Err(Reason::MailboxNotFound);
        }
        if !to.address.is_empty() && to.address != format!("{name}@example.org") {
            return Err(Reason::AddressNotHere);
        }
        let key = (name, command.delivery_id.clone());
        let body = command.content.body.clone();
        if let Some((first, first_body)) = self.deliveries.get(&key) {
            let same = *first_body == body;
            return same
                .then(|| (DeliverCode::Duplicate, first.clone()))
                .ok_or(Reason::DeliveryIdReused);
        }
        self.live(name)?;
        let message = MessageModel {
            flags: 0,
            keywords: BTreeSet::new(),
            modseq: 0,
            email_id: 0,
            delivery_id: command.delivery_id.clone(),
            body: body.clone(),
        };
        let at = self.put(name, INBOX, message);
        self.deliveries.insert(key, (at.clone(), body));
        Ok((DeliverCode::Stored, at))
    }

    fn folder(&mut self, name: &str, folder: u32, validity: u32) -> Refused<&mut FolderModel> {
        let folder = self.live(name)?.folders.get_mut(&folder).ok_or(Reason::FolderNotFound)?;
        if validity != 0 && validity != folder.uid_validity {
            return Err(Reason::UidValidityChanged);
        }
        Ok(folder)
    }

    fn append(&mut self, command: &Append) -> Refused<StoredAt> {
        let name = name_of(&command.mailbox_id);
        self.folder(name, command.folder, command.expected_uid_validity)?;
        let message = MessageModel {
            flags: command.system_flags,
            keywords: lower(&command.keywords),
            modseq: 0,
            email_id: 0,
            delivery_id: String::new(),
            body: command.content.body.clone(),
        };
        Ok(self.put(name, command.folder, message))
    }

    fn store_flags(&mut self, command: &StoreFlags) -> Refused<FlagsStored> {
        let name = name_of(&command.mailbox_id);
        let next_modseq = self.live(name)?.modseq + 1;
        let folder = self.folder(name, command.folder, command.expected_uid_validity)?;
        let keywords = lower(&command.keywords);
        let (mut changed, mut unchanged, mut modified) = (Vec::new(), Vec::new(), Vec::new());
        for (uid, message) in
            folder.messages.iter_mut().filter(|(uid, _)| chosen(&command.uids, **uid))
        {
            if command.unchanged_since.is_some_and(|since| message.modseq > since) {
                modified.push(*uid);
                continue;
            }
            let before = (message.flags, message.keywords.clone());
            match command.action() {
                FlagAction::Add => {
                    message.flags |= command.system_flags;
                    message.keywords.extend(keywords.iter().cloned());
                }
                FlagAction::Remove => {
                    message.flags &= !command.system_flags;
                    message.keywords.retain(|keyword| !keywords.contains(keyword));
                }
                _ => {
                    message.flags = command.system_flags;
                    message.keywords.clone_from(&keywords);
                }
            }
            if before == (message.flags, message.keywords.clone()) {
                unchanged.push(*uid);
            } else {
                message.modseq = next_modseq;
                changed.push(*uid);
            }
        }
        if !changed.is_empty() {
            folder.highest_modseq = next_modseq;
        }
        let stored = FlagsStored {
            modseq: folder.highest_modseq,
            changed: set(&changed),
            unchanged: set(&unchanged),
            modified: set(&modified),
        };
        if !changed.is_empty() {
            self.live(name)?.modseq = next_modseq;
        }
        Ok(stored)
    }

    fn expunge(&mut self, command: &Expunge) -> Refused<Expunged> {
        let name = name_of(&command.mailbox_id);
        let next_modseq = self.live(name)?.modseq + 1;
        let folder = self.folder(name, command.folder, command.expected_uid_validity)?;
        let goes = |uid: u32, message: &MessageModel| {
            chosen(&command.uids, uid) && (!command.only_deleted || message.flags & DELETED != 0)
        };
        let uids = folder.messages.iter().filter(|(uid, message)| goes(**uid, message));
        let uids: Vec<u32> = uids.map(|(uid, _)| *uid).collect();
        let mut gone = Vec::new();
        for uid in &uids {
            gone.push(folder.messages.remove(uid).expect("there"));
            folder.vanished.insert(*uid, next_modseq);
        }
        if !gone.is_empty() {
            folder.highest_modseq = next_modseq;
        }
        let expunged = Expunged { modseq: folder.highest_modseq, vanished: set(&uids) };
        if !gone.is_empty() {
            self.live(name)?.modseq = next_modseq;
        }
        for message in gone {
            self.forget(name, message);
        }
        Ok(expunged)
    }

    fn forget(&mut self, name: &'static str, message: MessageModel) {
        if !message.delivery_id.is_empty() {
            let hash = keys::hash_id(&message.delivery_id);
            let due = keys::due(self.now_ms + DELIVERY_ID_KEPT_MS, &Due::Delivery(id(name), hash));
            self.due.insert(due, DueModel::Delivery(name, message.delivery_id));
        }
        if !self.messages().any(|(_, _, _, other)| other.body == message.body) {
            let digest = blake3_of(&message.body);
            self.due
                .insert(keys::due(self.now_ms, &Due::Body(digest)), DueModel::Body(message.body));
        }
    }

    fn sweep(&mut self, limit: usize) -> Swept {
        let mut swept = Swept::default();
        let end = keys::due(self.now_ms + 1, &Due::Body([0; 32])).slice(..9);
        let due: Vec<_> =
            self.due.range(..end).map(|(key, due)| (key.clone(), due.clone())).collect();
        swept.more = due.len() > limit;
        for (key, due) in due.into_iter().take(limit) {
            self.due.remove(&key);
            match due {
                DueModel::Request(name, request) => {
                    self.requests.remove(&(name, request));
                    swept.request_ids += 1;
                }
                DueModel::Delivery(name, delivery) => {
                    self.deliveries.remove(&(name, delivery));
                    swept.delivery_ids += 1;
                }
                DueModel::Body(body) => {
                    self.bodies.remove(&body);
                    swept.bodies += 1;
                }
            }
        }
        swept
    }

    /// All messages: mailbox, folder, UID, message.
    fn messages(&self) -> impl Iterator<Item = (&'static str, u32, u32, &MessageModel)> {
        self.mailboxes.iter().flat_map(|(name, mailbox)| {
            mailbox.folders.iter().flat_map(move |(folder_id, folder)| {
                folder.messages.iter().map(move |(uid, message)| (*name, *folder_id, *uid, message))
            })
        })
    }
}

fn blake3_of(body: &[u8]) -> [u8; 32] {
    let text = std::str::from_utf8(body).expect("the model's bodies are text");
    content(text).blake3.as_ref().try_into().expect("32 bytes")
}

fn lower(keywords: &[String]) -> BTreeSet<String> {
    keywords.iter().map(|keyword| keyword.to_lowercase()).collect()
}

fn chosen(uids: &[UidRange], uid: u32) -> bool {
    uids.iter()
        .any(|range| (range.first.min(range.last)..=range.first.max(range.last)).contains(&uid))
}

/// Ascending UIDs as ranges, joined naively.
fn set(uids: &[u32]) -> Vec<UidRange> {
    let mut ranges: Vec<UidRange> = Vec::new();
    for uid in uids {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == *uid => range.last = *uid,
            _ => ranges.push(UidRange::new(*uid, *uid)),
        }
    }
    ranges
}

/// The same answer; of a rejection only the reason counts.
fn assert_same(real: &Outcome, model: &Outcome) {
    let plain = |outcome: &Outcome| match outcome {
        Outcome::Rejected(rejection) => {
            Outcome::Rejected(mailbox::Rejection::new(rejection.reason()))
        }
        Outcome::Delivered(delivered) => {
            let mut delivered = delivered.clone();
            for result in &mut delivered.results {
                let reason = result.rejection.as_ref().map(|rejection| rejection.reason());
                result.rejection = reason.map(mailbox::Rejection::new);
            }
            Outcome::Delivered(delivered)
        }
        other => other.clone(),
    };
    assert_eq!(plain(real), plain(model));
}

/// What is remembered over the whole run, to notice what comes twice.
#[derive(Debug, Default)]
struct Past {
    /// Email ids by mailbox, folder and UID: for ever.
    uids: BTreeMap<(&'static str, u32, u32), u64>,
    modseqs: BTreeMap<&'static str, u64>,
    uid_validities: BTreeSet<u32>,
}

fn rows<R: Message + Default>(world: &World, table: u8) -> Vec<(Bytes, R)> {
    let rows = world.view.rows().iter().filter(|(key, _)| key[0] == table);
    rows.map(|(key, value)| (key.clone(), R::decode(value.clone()).expect("a record"))).collect()
}

fn invariant_folders_and_messages_are_those_of_the_model(world: &World, model: &Model) {
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
        assert_eq!(world.view.rows()[&email.body_keys()[0]], model.body);
    }
}

fn invariant_counters_equal_a_count(world: &World, model: &Model) {
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
        assert_eq!(seen.folders as usize, mailbox.folders.len());
    }
}

/// M2.
fn invariant_uids_ascend_and_are_never_reused(world: &World, model: &Model, past: &mut Past) {
    for (name, mailbox) in &model.mailboxes {
        for folder in mailbox.folders.keys() {
            let filter = MessageFilter::default();
            let page = query::list_messages(&world.view, id(name), *folder, &filter, None, 10_000);
            for message in page.expect("readable").items {
                let known = past.uids.range((*name, *folder, 0)..=(*name, *folder, u32::MAX));
                let last = known.last().map_or(0, |((_, _, uid), _)| *uid);
                let first = past.uids.entry((*name, *folder, message.uid));
                let fresh = matches!(first, std::collections::btree_map::Entry::Vacant(_));
                assert!(!fresh || message.uid > last, "a new UID is greater than all before");
                assert_eq!(*first.or_insert(message.email_id), message.email_id);
            }
        }
    }
}

/// M4.
fn invariant_modseqs_never_go_back(world: &World, model: &Model, past: &mut Past) {
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
    let folders = model.mailboxes.values().map(|mailbox| mailbox.folders.len()).sum::<usize>();
    assert_eq!(past.uid_validities.len(), folders, "no UIDVALIDITY is given out twice");
}

/// M1.
fn invariant_each_delivery_is_stored_exactly_once(world: &World) {
    let mut seen = BTreeSet::new();
    for (key, email) in rows::<EmailRecord>(world, table::EMAIL) {
        if email.delivery_id.is_empty() {
            continue;
        }
        let mailbox = key.slice(1..17);
        assert!(seen.insert((mailbox, email.delivery_id)), "a delivery id was stored twice");
    }
}

fn invariant_references_equal_emails(world: &World, model: &Model) {
    let emails = rows::<EmailRecord>(world, table::EMAIL);
    let records = rows::<BodyRecord>(world, table::BODY_RECORD);
    assert_eq!(records.len(), model.bodies.len());
    assert_eq!(world.rows(table::BODY), records.len());
    for (key, body) in records {
        let digest = &key[1..];
        let references = emails.iter().filter(|(_, email)| email.blake3 == digest).count() as u64;
        assert_eq!(body.references, references);
        assert_eq!(body.due_ms.is_some(), references == 0);
        let stored = &world.view.rows()[&keys::body(&digest.try_into().expect("32 bytes"), 0)];
        assert_eq!((blake3_of(stored).as_slice(), stored.len() as u64), (digest, body.size));
    }
    let messages = rows::<MessageRecord>(world, table::MESSAGE);
    assert_eq!(emails.len(), messages.len());
    assert!(emails.iter().all(|(_, email)| email.placements.len() == 1));
}

fn invariant_due_rows_are_those_of_the_model(world: &World, model: &Model) {
    let due: Vec<_> = world.view.rows().keys().filter(|key| key[0] == table::DUE).collect();
    assert_eq!(due, model.due.keys().collect::<Vec<_>>());
    assert_eq!(world.rows(table::REQUEST), model.requests.len());
    assert_eq!(world.rows(table::DELIVERY), model.deliveries.len());
}

/// M8.
fn invariant_the_feed_holds_each_message_once(world: &World, model: &Model) {
    assert_eq!(
        rows::<ChangeRecord>(world, table::CHANGE).len(),
        model
            .mailboxes
            .values()
            .flat_map(|mailbox| mailbox.folders.values())
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
fn invariant_digest_equals_recomputation(world: &World) {
    let kept = query::database_digest(&world.view).expect("readable");
    assert_eq!(query::recompute_digest(&world.view), Ok(kept));
}

fn invariant_a_repeat_gets_the_same_answer_and_changes_nothing(
    world: &World,
    command: &Command,
    outcome: &Outcome,
) {
    let remembered =
        !matches!(command.operation, Some(Operation::Deliver(_) | Operation::Sweep(_)));
    let mut copy = world.clone();
    let (again, _) = copy.apply(command);
    if remembered {
        assert_eq!(again.outcome.as_ref(), Some(outcome));
        assert!(
            again.replayed
                || matches!(outcome, Outcome::Rejected(refused) if refused.reason() == Reason::RequestIdReused)
        );
        assert_eq!(copy.view, world.view);
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

fn check_all(world: &World, model: &Model, past: &mut Past) {
    invariant_folders_and_messages_are_those_of_the_model(world, model);
    invariant_counters_equal_a_count(world, model);
    invariant_uids_ascend_and_are_never_reused(world, model, past);
    invariant_modseqs_never_go_back(world, model, past);
    invariant_each_delivery_is_stored_exactly_once(world);
    invariant_references_equal_emails(world, model);
    invariant_due_rows_are_those_of_the_model(world, model);
    invariant_the_feed_holds_each_message_once(world, model);
    invariant_digest_equals_recomputation(world);
}

fn a_name() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(ANNA), 3 => Just(BEN), 1 => Just("carl")]
}

fn a_folder() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(INBOX), 2 => Just(2u32), 1 => 3u32..5]
}

fn some_uids() -> impl Strategy<Value = Vec<UidRange>> {
    let end = prop_oneof![8 => 1u32..12, 1 => Just(u32::MAX)];
    prop::collection::vec(
        (1u32..12, end).prop_map(|(first, last)| UidRange::new(first, last)),
        1..3,
    )
}

fn some_keywords() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(&KEYWORDS[..]).prop_map(String::from), 0..3)
}

fn an_append() -> impl Strategy<Value = Operation> {
    let validity = prop_oneof![6 => Just(0u32), 1 => 1u32..4];
    let fields = (a_name(), a_folder(), validity, 0u32..32, some_keywords(), 0..BODIES.len());
    fields.prop_map(|(name, folder, validity, flags, keywords, body)| {
        let mut command = append(name, folder, BODIES[body]);
        command.expected_uid_validity = validity;
        command.system_flags = flags;
        command.keywords = keywords;
        command.into()
    })
}

fn a_delivery() -> impl Strategy<Value = Operation> {
    let recipient = (a_name(), 0..8u8).prop_map(|(name, kind)| match kind {
        0 => Recipient::new("", id(name)),
        1 => Recipient::new("ben@example.org", id(name)),
        _ => Recipient::new(format!("{name}@example.org"), id(name)),
    });
    let recipients = prop::collection::vec(recipient, 1..4);
    (0..6u8, 0..BODIES.len(), recipients, any::<bool>()).prop_map(|(delivery, body, to, honest)| {
        // An honest transport sends the same body under the same id.
        let body = if honest { usize::from(delivery) % BODIES.len() } else { body };
        let mut command = deliver(&format!("d{delivery}"), &[], BODIES[body]);
        command.recipients = to;
        command.into()
    })
}

fn a_store() -> impl Strategy<Value = Operation> {
    let since = prop_oneof![3 => Just(None), 1 => (0u64..30).prop_map(Some)];
    let fields = (a_name(), a_folder(), some_uids(), 1i32..4, 0u32..32, some_keywords(), since);
    fields.prop_map(|(name, folder, uids, action, system_flags, keywords, unchanged_since)| {
        let store = StoreFlags {
            mailbox_id: id_bytes(id(name)),
            folder,
            expected_uid_validity: 0,
            uids,
            action,
            system_flags,
            keywords,
            unchanged_since,
        };
        store.into()
    })
}

fn an_expunge() -> impl Strategy<Value = Operation> {
    (a_name(), a_folder(), some_uids(), any::<bool>()).prop_map(
        |(name, folder, uids, only_deleted)| {
            let mailbox_id = id_bytes(id(name));
            Expunge { mailbox_id, folder, expected_uid_validity: 0, uids, only_deleted }.into()
        },
    )
}

fn an_operation() -> impl Strategy<Value = Operation> {
    let folder_names = prop::sample::select(&["Work", "work", "inbox", "Plans"][..]);
    prop_oneof![
        1 => a_name().prop_map(|name| {
            let addresses = vec![format!("{name}@example.org")];
            mailbox::command::CreateMailbox::new(id(name), addresses).into()
        }),
        1 => Just(delete_mailbox("carl").into()),
        2 => (a_name(), 0u32..4, folder_names)
            .prop_map(|(name, parent, folder)| create_folder(name, parent, folder).into()),
        8 => a_delivery(),
        6 => an_append(),
        6 => a_store(),
        4 => an_expunge(),
        2 => prop_oneof![Just(1u32), Just(3), Just(1_000)].prop_map(|limit| sweep(u64::MAX, limit).into()),
    ]
}

/// An operation, the request id (few of them, so that some come twice), and how the clock moves:
/// mostly a little, sometimes back, sometimes by hours or weeks.
fn a_step() -> impl Strategy<Value = (Operation, u16, i64)> {
    let hour = 3_600_000;
    let clock = prop_oneof![
        10 => 0i64..100,
        2 => -1_000i64..0,
        1 => Just(13 * hour),
        1 => Just(8 * 24 * hour),
    ];
    (an_operation(), prop_oneof![1 => 0u16..6, 4 => any::<u16>()], clock)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_command_does_what_the_naive_model_says(steps in prop::collection::vec(a_step(), 1..80)) {
        let mut world = anna_and_ben();
        let mut model = Model::default();
        let mut past = Past::default();
        for (at, name) in [ANNA, BEN].into_iter().enumerate() {
            let addresses = vec![format!("{name}@example.org")];
            let create = mailbox::command::CreateMailbox::new(id(name), addresses);
            let request = format!("fresh-{}", at + 1);
            model.run(&Command::new(request, dag_types::Millis(1_000), create.into()));
        }
        check_all(&world, &model, &mut past);
        let mut clock = 1_000i64;
        for (operation, request, moved) in steps {
            clock = (clock + moved).max(1);
            let now = dag_types::Millis(clock as u64);
            let command = Command::new(format!("r{request}"), now, operation);
            let expected = model.run(&command);
            let outcome = world.apply(&command).0.outcome.expect("an outcome");
            assert_same(&outcome, &expected);
            check_all(&world, &model, &mut past);
            invariant_a_repeat_gets_the_same_answer_and_changes_nothing(&world, &command, &outcome);
        }
    }

    /// Whatever the bytes of an entry are, reading and applying it never panics, and what it
    /// writes keeps the digest.
    #[test]
    fn scrambled_entries_never_panic(
        operation in an_operation(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut world = anna_and_ben();
        world.fill_inbox(2);
        let command = Command::new("r", dag_types::Millis(2_000), operation);
        let mut entry = command.encode_to_vec();
        for (place, value) in places {
            let at = place.index(entry.len());
            entry[at] = value;
        }
        if let Ok(command) = Command::decode_from(Bytes::from(entry)) {
            let at = dag_types::LogId { term: 1, index: 99 };
            let applied = mailbox::apply(&world.view, at, &command).expect("no fault");
            world.view.write(applied.writes);
            invariant_digest_equals_recomputation(&world);
        }
    }
}
