//! A naive model of a database: lists of messages, looked through from end to end. It knows nothing
//! of rows, digests or references, and says what each command must answer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mailbox::command::{Append, Deliver, Expunge, FlagAction, Recipient, StoreFlags, UidRange};
use mailbox::flags::DELETED;
use mailbox::keys::{self, Due};
use mailbox::limits::{DELIVERY_ID_KEPT_MS, REQUEST_ID_KEPT_MS};
use mailbox::response::{
    DeliverCode, Delivered, Expunged, FlagsStored, FolderCreated, MailboxCreated, MailboxDeleted,
    Outcome, Reason, RecipientResult, StoredAt, Swept,
};
use mailbox::{Command, Operation, Rejection};

use crate::world::*;

const NAMES: [&str; 3] = [ANNA, BEN, "carl"];

#[derive(Debug, Clone)]
pub struct MessageModel {
    pub flags: u32,
    pub keywords: BTreeSet<String>,
    pub modseq: u64,
    pub email_id: u64,
    pub delivery_id: String,
    pub body: Bytes,
}

#[derive(Debug, Clone, Default)]
pub struct FolderModel {
    pub name: String,
    pub parent: u32,
    pub uid_validity: u32,
    pub uid_next: u32,
    pub highest_modseq: u64,
    pub messages: BTreeMap<u32, MessageModel>,
    pub vanished: BTreeMap<u32, u64>,
}

#[derive(Debug, Clone, Default)]
pub struct MailboxModel {
    pub deleted: bool,
    pub modseq: u64,
    pub last_email: u64,
    pub folders: BTreeMap<u32, FolderModel>,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub now_ms: u64,
    pub last_uid_validity: u32,
    pub mailboxes: BTreeMap<&'static str, MailboxModel>,
    pub requests: BTreeMap<(&'static str, String), (Operation, Outcome)>,
    pub deliveries: BTreeMap<(&'static str, String), (StoredAt, Bytes)>,
    pub bodies: BTreeSet<Bytes>,
    pub due: BTreeMap<Bytes, DueModel>,
}

#[derive(Debug, Clone)]
pub enum DueModel {
    Request(&'static str, String),
    Delivery(&'static str, String),
    Body(Bytes),
}

pub type Refused<T> = Result<T, Reason>;

pub fn name_of(mailbox_id: &[u8]) -> &'static str {
    NAMES.into_iter().find(|name| id(name).0 == mailbox_id).expect("a name of the model")
}

impl Model {
    pub fn run(&mut self, command: &Command) -> Outcome {
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
            let reused = Outcome::Rejected(Rejection::new(Reason::RequestIdReused));
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
        outcome.unwrap_or_else(|reason| Outcome::Rejected(Rejection::new(reason)))
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
            let mut result =
                RecipientResult { address: recipient.address.clone(), ..Default::default() };
            match self.deliver_to(command, recipient) {
                Ok((code, at)) => {
                    result.code = code as i32;
                    result.stored = Some(at);
                }
                Err(reason) => {
                    let refused = reason == Reason::DeliveryIdReused;
                    let code = if refused { DeliverCode::Refused } else { DeliverCode::NoMailbox };
                    result.code = code as i32;
                    result.rejection = Some(Rejection::new(reason));
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

pub fn blake3_of(body: &[u8]) -> [u8; 32] {
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
pub fn assert_same(real: &Outcome, model: &Outcome) {
    let plain = |outcome: &Outcome| match outcome {
        Outcome::Rejected(rejection) => Outcome::Rejected(Rejection::new(rejection.reason())),
        Outcome::Delivered(delivered) => {
            let mut delivered = delivered.clone();
            for result in &mut delivered.results {
                let reason = result.rejection.as_ref().map(|rejection| rejection.reason());
                result.rejection = reason.map(Rejection::new);
            }
            Outcome::Delivered(delivered)
        }
        other => other.clone(),
    };
    assert_eq!(plain(real), plain(model));
}
