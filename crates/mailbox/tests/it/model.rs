//! A naive model of a database: lists of messages, looked through from end to end. It knows nothing
//! of rows, digests or references, and says what each command must answer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mailbox::command::{
    Append, CreateFolder, Deliver, Expunge, FlagAction, Recipient, StoreFlags, UidRange,
};
use mailbox::flags::DELETED;
use mailbox::keys::{self, Due};
use mailbox::limits::{DELIVERY_ID_KEPT_MS, REQUEST_ID_KEPT_MS};
use mailbox::records::MailboxSettings;
use mailbox::response::{
    DeliverCode, Delivered, Expunged, FlagsStored, FolderCreated, MailboxCreated, MailboxDeleted,
    Outcome, Reason, RecipientResult, StoredAt,
};
use mailbox::{Command, Operation, Rejection, rights};

use crate::model_bodies::{BodyModel, asked, body_of, digest_of};
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
    pub floor: u64,
    pub special_use: u32,
    pub subscribed: bool,
    pub profile_modseq: u64,
    pub rights: BTreeMap<String, u32>,
}

#[derive(Debug, Clone)]
pub struct ItemModel {
    pub folder: u32,
    pub message: MessageModel,
    pub deleted_ms: u64,
    pub deleted_by: String,
}

#[derive(Debug, Clone, Default)]
pub struct MailboxModel {
    pub deleted: bool,
    pub modseq: u64,
    pub last_email: u64,
    pub folders: BTreeMap<u32, FolderModel>,
    pub last_folder: u32,
    pub dead: BTreeMap<u32, FolderModel>,
    /// When a folder went, by its id; the mod-sequence.
    pub gone: BTreeMap<u32, u64>,
    pub folders_floor: u64,
    pub settings: MailboxSettings,
    pub settings_modseq: u64,
    pub items: BTreeMap<u64, ItemModel>,
    pub last_item: u64,
    pub names: BTreeSet<String>,
}

impl MailboxModel {
    /// Every message with its folder, live or dead.
    pub fn placed(&self) -> impl Iterator<Item = (u32, u32, &MessageModel)> {
        self.folders.iter().chain(&self.dead).flat_map(|(id, folder)| {
            folder.messages.iter().map(move |(uid, message)| (*id, *uid, message))
        })
    }

    /// Every content, as often as something has it.
    pub fn contents(&self) -> impl Iterator<Item = &MessageModel> {
        let placed = self.placed().map(|(_, _, message)| message);
        placed.chain(self.items.values().map(|item| &item.message))
    }

    pub fn used(&self) -> (u64, u64) {
        let live = self.folders.values().flat_map(|folder| folder.messages.values());
        live.fold((0, 0), |(count, bytes), message| (count + 1, bytes + message.body.len() as u64))
    }

    pub fn items_bytes(&self) -> u64 {
        self.items.values().map(|item| item.message.body.len() as u64).sum()
    }

    pub fn room(&self, messages: u64, bytes: u64) -> Refused<()> {
        let (count, size) = self.used();
        let over = |needed: u64, quota: u64| quota > 0 && needed > quota;
        let full = over(count + messages, self.settings.quota_messages)
            || over(size + bytes, self.settings.quota_bytes);
        if full { Err(Reason::OverQuota) } else { Ok(()) }
    }

    /// Room for one new message of that size.
    pub fn takes(&self, bytes: u64) -> Refused<()> {
        let limit = self.settings.append_limit;
        if limit > 0 && bytes > limit {
            return Err(Reason::LimitExceeded);
        }
        self.room(1, bytes)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub now_ms: u64,
    pub last_uid_validity: u32,
    pub mailboxes: BTreeMap<&'static str, MailboxModel>,
    pub requests: BTreeMap<(&'static str, String), Remembered>,
    pub deliveries: BTreeMap<(&'static str, String), (StoredAt, Bytes)>,
    pub bodies: BTreeMap<Bytes, BodyModel>,
    pub due: BTreeMap<Bytes, DueModel>,
    /// Whose rights are asked for by the command that runs.
    pub actor: Vec<String>,
}

/// A request as it was asked for, by whom, and its answer.
pub type Remembered = (Operation, Vec<String>, Outcome);

#[derive(Debug, Clone)]
pub enum DueModel {
    Request(&'static str, String),
    Delivery(&'static str, String),
    Body(Bytes),
    Vanished(&'static str, u32, u64),
    Items(&'static str),
    DeadFolder(&'static str, u32),
    GoneFolder(&'static str, u64, u32),
}

pub type Refused<T> = Result<T, Reason>;

pub fn name_of(mailbox_id: &[u8]) -> &'static str {
    NAMES.into_iter().find(|name| id(name).0 == mailbox_id).expect("a name of the model")
}

impl Model {
    pub fn run(&mut self, command: &Command) -> Outcome {
        self.now_ms = self.now_ms.max(command.proposed_at_ms);
        self.actor.clone_from(&command.actor);
        let operation = command.operation.as_ref().expect("an operation");
        let refused = |reason| Outcome::Rejected(Rejection::new(reason));
        if let Err(reason) = self.may_have_an_actor(operation) {
            return refused(reason);
        }
        let name = match operation {
            Operation::CreateMailbox(create) => name_of(&create.mailbox_id),
            Operation::DeleteMailbox(delete) => name_of(&delete.mailbox_id),
            Operation::CreateFolder(create) => name_of(&create.mailbox_id),
            Operation::Append(append) => name_of(&append.mailbox_id),
            Operation::StoreFlags(store) => name_of(&store.mailbox_id),
            Operation::Expunge(expunge) => name_of(&expunge.mailbox_id),
            Operation::UpdateMailbox(update) => name_of(&update.mailbox_id),
            Operation::UpdateFolder(update) => name_of(&update.mailbox_id),
            Operation::DeleteFolder(delete) => name_of(&delete.mailbox_id),
            Operation::RenameInbox(rename) => name_of(&rename.mailbox_id),
            Operation::SubscribeName(subscribe) => name_of(&subscribe.mailbox_id),
            Operation::SetRights(set) => name_of(&set.mailbox_id),
            Operation::CopyMessages(copy) => name_of(&copy.transfer.mailbox_id),
            Operation::MoveMessages(moved) => name_of(&moved.transfer.mailbox_id),
            Operation::AppendMany(append) => name_of(&append.mailbox_id),
            Operation::RestoreItems(restore) => name_of(&restore.mailbox_id),
            Operation::PurgeItems(purge) => name_of(&purge.mailbox_id),
            Operation::Deliver(_) | Operation::Sweep(_) | Operation::StageChunk(_) => {
                return match self.is_staged(operation) {
                    Ok(()) => self.carry_out(operation),
                    Err(reason) => refused(reason),
                };
            }
        };
        let request = (name, command.request_id.clone());
        let asked = asked(operation);
        if let Some((first, by, outcome)) = self.requests.get(&request) {
            let same = (first, by) == (&asked, &command.actor);
            return if same { outcome.clone() } else { refused(Reason::RequestIdReused) };
        }
        if let Err(reason) = self.is_staged(operation) {
            return refused(reason);
        }
        let outcome = self.carry_out(operation);
        let hash = keys::hash_id(&command.request_id);
        let due = keys::due(self.now_ms + REQUEST_ID_KEPT_MS, &Due::Request(id(name), hash));
        self.due.insert(due, DueModel::Request(name, command.request_id.clone()));
        self.requests.insert(request, (asked, command.actor.clone(), outcome.clone()));
        outcome
    }

    /// All or nothing: a refused operation leaves the model as it was.
    fn carry_out(&mut self, operation: &Operation) -> Outcome {
        let before = self.clone();
        let outcome = self.try_out(operation);
        if matches!(outcome, Outcome::Rejected(_)) {
            *self = before;
        }
        self.reschedule_items();
        outcome
    }

    fn try_out(&mut self, operation: &Operation) -> Outcome {
        let outcome = match operation {
            Operation::CreateMailbox(create) => {
                let settings = create.settings.clone().unwrap_or_default();
                self.create_mailbox(name_of(&create.mailbox_id), settings)
            }
            Operation::DeleteMailbox(delete) => self.delete_mailbox(name_of(&delete.mailbox_id)),
            Operation::CreateFolder(create) => self.create_folder(create),
            Operation::Deliver(deliver) => Ok(self.deliver(deliver)),
            Operation::Append(append) => self.append(append).map(Outcome::Appended),
            Operation::StoreFlags(store) => self.store_flags(store).map(Outcome::FlagsStored),
            Operation::Expunge(expunge) => self.expunge(expunge).map(Outcome::Expunged),
            Operation::Sweep(sweep) => Ok(Outcome::Swept(self.sweep(sweep.limit as usize))),
            other => self.try_out_more(other),
        };
        outcome.unwrap_or_else(|reason| Outcome::Rejected(Rejection::new(reason)))
    }

    pub fn live(&mut self, name: &str) -> Refused<&mut MailboxModel> {
        match self.mailboxes.get_mut(name) {
            None => Err(Reason::MailboxNotFound),
            Some(mailbox) if mailbox.deleted => Err(Reason::MailboxDeleted),
            Some(mailbox) => Ok(mailbox),
        }
    }

    fn create_mailbox(
        &mut self,
        name: &'static str,
        settings: MailboxSettings,
    ) -> Refused<Outcome> {
        match self.live(name) {
            Ok(_) => return Err(Reason::MailboxExists),
            Err(Reason::MailboxDeleted) => return Err(Reason::MailboxDeleted),
            Err(_) => {}
        }
        self.mailboxes.insert(name, MailboxModel { settings, ..MailboxModel::default() });
        let inbox = self.new_folder(name, 0, "INBOX");
        Ok(Outcome::MailboxCreated(MailboxCreated { inbox }))
    }

    fn delete_mailbox(&mut self, name: &str) -> Refused<Outcome> {
        self.live(name)?.deleted = true;
        Ok(Outcome::MailboxDeleted(MailboxDeleted { deleted_ms: self.now_ms }))
    }

    pub fn create_folder(&mut self, command: &CreateFolder) -> Refused<Outcome> {
        let name = name_of(&command.mailbox_id);
        let (parent, folder, special_use) = (command.parent, &command.name, command.special_use);
        self.live(name)?;
        self.demand_children(name, parent)?;
        let mailbox = self.live(name)?;
        let quota = mailbox.settings.quota_folders as usize;
        if quota > 0 && mailbox.folders.len() >= quota {
            return Err(Reason::OverQuota);
        }
        if parent != 0 && !mailbox.folders.contains_key(&parent) {
            return Err(Reason::FolderNotFound);
        }
        let mut siblings = mailbox.folders.values().filter(|other| other.parent == parent);
        let same = |other: &FolderModel| match parent {
            0 if folder.eq_ignore_ascii_case("inbox") => other.name == "INBOX",
            _ => other.name == *folder,
        };
        if siblings.any(same) {
            return Err(Reason::FolderExists);
        }
        let mut folders = mailbox.folders.values();
        if special_use != 0 && folders.any(|other| other.special_use == special_use) {
            return Err(Reason::SpecialUseTaken);
        }
        let created = self.new_folder(name, parent, folder);
        let path = self.path(name, created.folder);
        let mailbox = self.live(name)?;
        let subscribed = mailbox.names.remove(&path);
        let folder = mailbox.folders.get_mut(&created.folder).expect("there");
        (folder.subscribed, folder.special_use) = (subscribed, special_use);
        Ok(Outcome::FolderCreated(created))
    }

    fn new_folder(&mut self, mailbox: &str, parent: u32, name: &str) -> FolderCreated {
        self.last_uid_validity += 1;
        let mailbox = self.mailboxes.get_mut(mailbox).expect("there");
        mailbox.modseq += 1;
        mailbox.last_folder += 1;
        let folder = mailbox.last_folder;
        let rights = mailbox.folders.get(&parent).map(|parent| parent.rights.clone());
        let model = FolderModel {
            name: name.into(),
            parent,
            uid_validity: self.last_uid_validity,
            uid_next: 1,
            highest_modseq: mailbox.modseq,
            profile_modseq: mailbox.modseq,
            rights: rights.unwrap_or_default(),
            ..FolderModel::default()
        };
        mailbox.folders.insert(folder, model);
        FolderCreated { folder, uid_validity: self.last_uid_validity, modseq: mailbox.modseq }
    }

    fn put(&mut self, name: &str, folder_id: u32, message: MessageModel) -> StoredAt {
        self.mailboxes.get_mut(name).expect("there").modseq += 1;
        self.put_new(name, folder_id, message)
    }

    /// At the mod-sequence that the mailbox has, as a content of its own.
    pub fn put_new(&mut self, name: &str, folder_id: u32, mut message: MessageModel) -> StoredAt {
        let body = message.body.clone();
        self.bodies.entry(body.clone()).or_default().complete(&body);
        self.due.retain(|_, due| !matches!(due, DueModel::Body(gone) if *gone == body));
        let mailbox = self.mailboxes.get_mut(name).expect("there");
        mailbox.last_email += 1;
        message.email_id = mailbox.last_email;
        self.put_again(name, folder_id, message)
    }

    /// At the mod-sequence that the mailbox has, with the content that the message has.
    pub fn put_again(&mut self, name: &str, folder_id: u32, mut message: MessageModel) -> StoredAt {
        let mailbox = self.mailboxes.get_mut(name).expect("there");
        message.modseq = mailbox.modseq;
        let email_id = message.email_id;
        let folder = mailbox.folders.get_mut(&folder_id).expect("there");
        folder.highest_modseq = mailbox.modseq;
        let uid = folder.uid_next;
        folder.uid_next += 1;
        folder.messages.insert(uid, message);
        StoredAt {
            folder: folder_id,
            uid_validity: folder.uid_validity,
            uid,
            email_id,
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
                    let refused =
                        matches!(reason, Reason::DeliveryIdReused | Reason::LimitExceeded);
                    let code = match reason {
                        Reason::OverQuota => DeliverCode::OverQuota,
                        _ if refused => DeliverCode::Refused,
                        _ => DeliverCode::NoMailbox,
                    };
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
        let body = body_of(&command.content);
        if let Some((first, first_body)) = self.deliveries.get(&key) {
            let same = *first_body == body;
            return same
                .then(|| (DeliverCode::Duplicate, first.clone()))
                .ok_or(Reason::DeliveryIdReused);
        }
        self.live(name)?.takes(body.len() as u64)?;
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

    pub fn folder(&mut self, name: &str, folder: u32, validity: u32) -> Refused<&mut FolderModel> {
        let folder = self.live(name)?.folders.get_mut(&folder).ok_or(Reason::FolderNotFound)?;
        if validity != 0 && validity != folder.uid_validity {
            return Err(Reason::UidValidityChanged);
        }
        Ok(folder)
    }

    fn append(&mut self, command: &Append) -> Refused<StoredAt> {
        let name = name_of(&command.mailbox_id);
        self.folder(name, command.folder, command.expected_uid_validity)?;
        let (may, may_keywords) = self.changeable(name, command.folder, rights::INSERT)?;
        self.live(name)?.takes(command.content.size)?;
        let message = MessageModel {
            flags: command.system_flags & may,
            keywords: if may_keywords { lower(&command.keywords) } else { BTreeSet::new() },
            modseq: 0,
            email_id: 0,
            delivery_id: String::new(),
            body: body_of(&command.content),
        };
        Ok(self.put(name, command.folder, message))
    }

    fn store_flags(&mut self, command: &StoreFlags) -> Refused<FlagsStored> {
        let name = name_of(&command.mailbox_id);
        let next_modseq = self.live(name)?.modseq + 1;
        self.folder(name, command.folder, command.expected_uid_validity)?;
        let (may, may_keywords) = self.changeable(name, command.folder, 0)?;
        let replaces = command.action() == FlagAction::Replace;
        let asks_for_flags = command.system_flags != 0 || replaces;
        let asks_for_keywords = !command.keywords.is_empty() || replaces;
        let gets_flags = if replaces { may != 0 } else { command.system_flags & may != 0 };
        let gets_some = gets_flags || asks_for_keywords && may_keywords;
        if (asks_for_flags || asks_for_keywords) && !gets_some {
            return Err(Reason::AccessDenied);
        }
        let folder = self.folder(name, command.folder, command.expected_uid_validity)?;
        let named = command.system_flags & may;
        let keywords = if may_keywords { lower(&command.keywords) } else { BTreeSet::new() };
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
                    message.flags |= named;
                    message.keywords.extend(keywords.iter().cloned());
                }
                FlagAction::Remove => {
                    message.flags &= !named;
                    message.keywords.retain(|keyword| !keywords.contains(keyword));
                }
                _ => {
                    message.flags = message.flags & !may | named;
                    if may_keywords {
                        message.keywords.clone_from(&keywords);
                    }
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
        self.folder(name, command.folder, command.expected_uid_validity)?;
        self.demand(name, command.folder, rights::EXPUNGE)?;
        let keeps = self.keeps(name, command.beyond_recovery)?;
        let room = self.items_room(name);
        let now_ms = self.now_ms;
        let folder = self.folder(name, command.folder, command.expected_uid_validity)?;
        let goes = |uid: u32, message: &MessageModel| {
            chosen(&command.uids, uid) && (!command.only_deleted || message.flags & DELETED != 0)
        };
        let uids = folder.messages.iter().filter(|(uid, message)| goes(**uid, message));
        let uids: Vec<u32> = uids.map(|(uid, _)| *uid).collect();
        let bytes = uids.iter().map(|uid| folder.messages[uid].body.len() as u64).sum::<u64>();
        if keeps && !uids.is_empty() && bytes > room {
            return Err(Reason::OverQuota);
        }
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
            self.note_vanished(name, command.folder, next_modseq);
        }
        for message in gone {
            if keeps {
                self.keep(name, command.folder, message, now_ms);
            } else {
                self.forget(name, message);
            }
        }
        Ok(expunged)
    }

    /// A content that something does not have any more, and perhaps nothing.
    pub fn forget(&mut self, name: &'static str, message: MessageModel) {
        let mailbox = &self.mailboxes[name];
        if mailbox.contents().any(|other| other.email_id == message.email_id) {
            return;
        }
        if !message.delivery_id.is_empty() {
            let hash = keys::hash_id(&message.delivery_id);
            let due = keys::due(self.now_ms + DELIVERY_ID_KEPT_MS, &Due::Delivery(id(name), hash));
            self.due.insert(due, DueModel::Delivery(name, message.delivery_id));
        }
        let mut contents = self.mailboxes.values().flat_map(MailboxModel::contents);
        if !contents.any(|other| other.body == message.body) {
            let digest = digest_of(&message.body);
            self.due
                .insert(keys::due(self.now_ms, &Due::Body(digest)), DueModel::Body(message.body));
        }
    }
}

pub fn lower(keywords: &[String]) -> BTreeSet<String> {
    keywords.iter().map(|keyword| keyword.to_lowercase()).collect()
}

pub fn chosen(uids: &[UidRange], uid: u32) -> bool {
    uids.iter()
        .any(|range| (range.first.min(range.last)..=range.first.max(range.last)).contains(&uid))
}

/// Ascending UIDs as ranges, joined naively.
pub fn set(uids: &[u32]) -> Vec<UidRange> {
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
