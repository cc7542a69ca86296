//! The naive model, continued: folders that change, copies, moves, recoverable items, sweeps.

use std::collections::BTreeMap;

use mailbox::command::{
    AppendMany, CreateFolder, DeleteFolder, FlagAction, PurgeItems, RenameInbox, RestoreItems,
    SetRights, SubscribeName, Transfer, UpdateFolder, UpdateMailbox,
};
use mailbox::flags::DELETED;
use mailbox::keys::{self, Due};
use mailbox::limits::VANISHED_KEPT_MS;
use mailbox::response::{
    AppendedMany, FolderDeleted, FolderUpdated, InboxRenamed, ItemsPurged, MailboxUpdated,
    NameSubscribed, Outcome, Reason, Restored, Swept, Transferred,
};

use mailbox::{Operation, rights};

use crate::model::*;
use crate::model_bodies::body_of;
use crate::world::*;

impl Model {
    pub fn try_out_more(&mut self, operation: &Operation) -> Refused<Outcome> {
        match operation {
            Operation::UpdateMailbox(update) => self.update_mailbox(update),
            Operation::UpdateFolder(update) => self.update_folder(update),
            Operation::DeleteFolder(delete) => self.delete_folder(delete),
            Operation::RenameInbox(rename) => self.rename_inbox(rename),
            Operation::SubscribeName(subscribe) => self.subscribe_name(subscribe),
            Operation::SetRights(set) => self.set_rights(set),
            Operation::CopyMessages(copy) => self.transfer(&copy.transfer, false),
            Operation::MoveMessages(moved) => self.transfer(&moved.transfer, true),
            Operation::AppendMany(append) => self.append_many(append),
            Operation::RestoreItems(restore) => self.restore(restore),
            Operation::PurgeItems(purge) => self.purge(purge),
            Operation::StageChunk(chunk) => self.stage(chunk),
            other => panic!("carried out elsewhere: {other:?}"),
        }
    }

    fn update_mailbox(&mut self, command: &UpdateMailbox) -> Refused<Outcome> {
        let mailbox = self.live(name_of(&command.mailbox_id))?;
        if command.expected_modseq.is_some_and(|expected| expected != mailbox.settings_modseq) {
            return Err(Reason::PreconditionFailed);
        }
        let settings = command.change.of(&mailbox.settings);
        if settings != mailbox.settings {
            mailbox.modseq += 1;
            mailbox.settings_modseq = mailbox.modseq;
            mailbox.settings = settings.clone();
        }
        Ok(Outcome::MailboxUpdated(MailboxUpdated { settings, modseq: mailbox.settings_modseq }))
    }

    pub fn path(&self, name: &str, folder: u32) -> String {
        let folders = &self.mailboxes[name].folders;
        match folders[&folder].parent {
            0 => folders[&folder].name.clone(),
            parent => format!("{}/{}", self.path(name, parent), folders[&folder].name),
        }
    }

    fn update_folder(&mut self, command: &UpdateFolder) -> Refused<Outcome> {
        let name = name_of(&command.mailbox_id);
        let old = self.folder(name, command.folder, 0)?.clone();
        self.may_update_folder(name, command, old.parent)?;
        if command.expected_modseq.is_some_and(|expected| expected != old.profile_modseq) {
            return Err(Reason::PreconditionFailed);
        }
        let mut new = old.clone();
        let mailbox = self.live(name)?;
        if let Some(wanted) = command.special_use.filter(|wanted| *wanted != old.special_use) {
            if command.folder == INBOX {
                return Err(Reason::FolderProtected);
            }
            if wanted != 0 && mailbox.folders.values().any(|other| other.special_use == wanted) {
                return Err(Reason::SpecialUseTaken);
            }
            new.special_use = wanted;
        }
        new.subscribed = command.subscribed.unwrap_or(old.subscribed);
        new.parent = command.parent.unwrap_or(old.parent);
        new.name = command.name.clone().unwrap_or(old.name.clone());
        if (new.parent, &new.name) != (old.parent, &old.name) {
            if command.folder == INBOX {
                return Err(Reason::FolderProtected);
            }
            if new.parent == 0 && new.name.eq_ignore_ascii_case("inbox") {
                new.name = "INBOX".into();
            }
            let mut above = new.parent;
            while above != 0 {
                let parent = mailbox.folders.get(&above).ok_or(Reason::FolderNotFound)?.parent;
                if above == command.folder {
                    return Err(Reason::FolderLoop);
                }
                above = parent;
            }
            let taken =
                |other: &FolderModel| (other.parent, &other.name) == (new.parent, &new.name);
            if mailbox.folders.values().any(taken) {
                return Err(Reason::FolderExists);
            }
        }
        let moved = (new.parent, &new.name) != (old.parent, &old.name);
        mailbox.folders.insert(command.folder, new);
        if moved {
            let path = self.path(name, command.folder);
            let mailbox = self.live(name)?;
            let listed = mailbox.names.remove(&path);
            mailbox.folders.get_mut(&command.folder).expect("there").subscribed |= listed;
        }
        let said = |folder: &FolderModel| {
            (folder.parent, folder.name.clone(), folder.special_use, folder.subscribed)
        };
        let mailbox = self.live(name)?;
        let folder = mailbox.folders.get_mut(&command.folder).expect("there");
        if said(folder) != said(&old) {
            mailbox.modseq += 1;
            folder.profile_modseq = mailbox.modseq;
        }
        Ok(Outcome::FolderUpdated(FolderUpdated { modseq: folder.profile_modseq }))
    }

    fn delete_folder(&mut self, command: &DeleteFolder) -> Refused<Outcome> {
        let (name, id_) = (name_of(&command.mailbox_id), command.folder);
        let folder = self.folder(name, id_, command.expected_uid_validity)?.clone();
        self.demand(name, id_, rights::DELETE_FOLDER)?;
        if id_ == INBOX {
            return Err(Reason::FolderProtected);
        }
        if self.live(name)?.folders.values().any(|other| other.parent == id_) {
            return Err(Reason::FolderHasChildren);
        }
        let bytes = folder.messages.values().map(|message| message.body.len() as u64).sum::<u64>();
        if self.live(name)?.settings.litigation_hold && bytes > self.items_room(name) {
            return Err(Reason::OverQuota);
        }
        if folder.subscribed {
            let path = self.path(name, id_);
            self.live(name)?.names.insert(path);
        }
        let now_ms = self.now_ms;
        let mailbox = self.live(name)?;
        mailbox.modseq += 1;
        let modseq = mailbox.modseq;
        let messages = folder.messages.len() as u32;
        mailbox.folders.remove(&id_);
        mailbox.dead.insert(id_, folder);
        mailbox.gone.insert(id_, modseq);
        let due = keys::due(now_ms, &Due::DeadFolder(id(name), id_));
        self.due.insert(due, DueModel::DeadFolder(name, id_));
        let due = keys::due(now_ms + VANISHED_KEPT_MS, &Due::GoneFolder(id(name), modseq, id_));
        self.due.insert(due, DueModel::GoneFolder(name, modseq, id_));
        Ok(Outcome::FolderDeleted(FolderDeleted { modseq, messages }))
    }

    fn rename_inbox(&mut self, command: &RenameInbox) -> Refused<Outcome> {
        let name = name_of(&command.mailbox_id);
        self.live(name)?;
        self.demand_owner(name)?;
        let create = CreateFolder::new(id(name), command.parent, command.name.as_str());
        let created = self.create_folder(&create)?;
        let Outcome::FolderCreated(created) = created else { panic!("{created:?}") };
        let uids: Vec<u32> = self.live(name)?.folders[&INBOX].messages.keys().copied().collect();
        for uid in &uids {
            let message = self.take(name, INBOX, *uid);
            self.put_again(name, created.folder, message);
        }
        if !uids.is_empty() {
            self.note_vanished(name, INBOX, created.modseq);
        }
        let moved = uids.len() as u32;
        Ok(Outcome::InboxRenamed(InboxRenamed { folder: created, moved, left: 0 }))
    }

    fn subscribe_name(&mut self, command: &SubscribeName) -> Refused<Outcome> {
        let name = name_of(&command.mailbox_id);
        self.live(name)?;
        self.demand_owner(name)?;
        let folders: Vec<u32> = self.live(name)?.folders.keys().copied().collect();
        let found = folders.into_iter().find(|folder| self.path(name, *folder) == command.path);
        let mailbox = self.live(name)?;
        let changed = match found {
            Some(folder) => {
                mailbox.names.remove(&command.path);
                let folder = mailbox.folders.get_mut(&folder).expect("there");
                let changed = folder.subscribed != command.subscribed;
                folder.subscribed = command.subscribed;
                if changed {
                    folder.profile_modseq = mailbox.modseq + 1;
                }
                changed
            }
            None if command.subscribed => mailbox.names.insert(command.path.clone()),
            None => mailbox.names.remove(&command.path),
        };
        mailbox.modseq += u64::from(changed);
        Ok(Outcome::NameSubscribed(NameSubscribed { modseq: mailbox.modseq }))
    }

    fn set_rights(&mut self, command: &SetRights) -> Refused<Outcome> {
        let name = name_of(&command.mailbox_id);
        let modseq = self.live(name)?.modseq + 1;
        self.folder(name, command.folder, 0)?;
        self.demand(name, command.folder, rights::ADMINISTER)?;
        let folder = self.folder(name, command.folder, 0)?;
        let before = folder.rights.get(&command.identifier).copied().unwrap_or(0);
        let after = match command.action() {
            FlagAction::Add => before | command.rights,
            FlagAction::Remove => before & !command.rights,
            _ => command.rights,
        };
        folder.rights.insert(command.identifier.clone(), after);
        folder.rights.retain(|_, rights| *rights != 0);
        if after != before {
            folder.profile_modseq = modseq;
        }
        let modseq = folder.profile_modseq;
        self.live(name)?.modseq += u64::from(after != before);
        Ok(Outcome::FolderUpdated(FolderUpdated { modseq }))
    }

    /// Takes a message out of a folder, at the mod-sequence that the mailbox has.
    fn take(&mut self, name: &str, folder: u32, uid: u32) -> MessageModel {
        let mailbox = self.mailboxes.get_mut(name).expect("there");
        let folder = mailbox.folders.get_mut(&folder).expect("there");
        folder.vanished.insert(uid, mailbox.modseq);
        folder.highest_modseq = mailbox.modseq;
        folder.messages.remove(&uid).expect("there")
    }

    fn transfer(&mut self, command: &Transfer, leaves: bool) -> Refused<Outcome> {
        let from = name_of(&command.mailbox_id);
        let to = match command.to_mailbox_id.is_empty() {
            true => from,
            false => name_of(&command.to_mailbox_id),
        };
        let source = self.folder(from, command.folder, 0)?.clone();
        let takes_out = if leaves { rights::DELETE_MESSAGES | rights::EXPUNGE } else { 0 };
        self.demand(from, command.folder, rights::READ | takes_out)?;
        let target = self.folder(to, command.to_folder, 0)?.clone();
        let (may, may_keywords) = self.changeable(to, command.to_folder, rights::INSERT)?;
        let chosen = source.messages.iter().filter(|(uid, _)| chosen(&command.uids, **uid));
        let chosen: Vec<(u32, MessageModel)> = chosen.map(|(uid, it)| (*uid, it.clone())).collect();
        let bytes = chosen.iter().map(|(_, message)| message.body.len() as u64).sum::<u64>();
        if from != to || !leaves {
            self.live(to)?.room(chosen.len() as u64, bytes)?;
        }
        let mut answer = Transferred {
            uid_validity: target.uid_validity,
            modseq: target.highest_modseq,
            source_modseq: source.highest_modseq,
            ..Transferred::default()
        };
        if chosen.is_empty() {
            return Ok(Outcome::Transferred(answer));
        }
        let now_ms = self.now_ms;
        let hold = self.live(from)?.settings.litigation_hold;
        if leaves && from != to && hold && bytes > self.items_room(from) {
            return Err(Reason::OverQuota);
        }
        if leaves || from == to {
            self.live(from)?.modseq += 1;
        }
        let mut left = Vec::new();
        if leaves {
            for (uid, _) in &chosen {
                left.push(self.take(from, command.folder, *uid));
            }
            let modseq = self.live(from)?.modseq;
            self.note_vanished(from, command.folder, modseq);
            answer.source_modseq = modseq;
        }
        if from != to {
            self.live(to)?.modseq += 1;
        }
        let mut uids = Vec::new();
        for (_, mut message) in chosen.clone() {
            message.flags &= may;
            if !may_keywords {
                message.keywords.clear();
            }
            let at = if from == to {
                self.put_again(to, command.to_folder, message)
            } else {
                message.delivery_id.clear();
                self.put_new(to, command.to_folder, message)
            };
            uids.push(at.uid);
            answer.modseq = at.modseq;
        }
        if from != to {
            for message in left {
                match hold {
                    true => self.keep(from, command.folder, message, now_ms),
                    false => self.forget(from, message),
                }
            }
        } else if command.folder == command.to_folder {
            answer.source_modseq = answer.modseq;
        }
        answer.source = set(&chosen.iter().map(|(uid, _)| *uid).collect::<Vec<_>>());
        answer.target = set(&uids);
        Ok(Outcome::Transferred(answer))
    }

    fn append_many(&mut self, command: &AppendMany) -> Refused<Outcome> {
        let name = name_of(&command.mailbox_id);
        self.folder(name, command.folder, command.expected_uid_validity)?;
        let (may, may_keywords) = self.changeable(name, command.folder, rights::INSERT)?;
        self.live(name)?.modseq += 1;
        let mut first = None;
        for item in &command.messages {
            self.live(name)?.takes(item.content.size)?;
            let keywords = if may_keywords { lower(&item.keywords) } else { Default::default() };
            let message = MessageModel {
                flags: item.system_flags & may,
                keywords,
                modseq: 0,
                email_id: 0,
                delivery_id: String::new(),
                body: body_of(&item.content),
            };
            let at = self.put_new(name, command.folder, message);
            first.get_or_insert(at);
        }
        let first = first.expect("at least one message");
        let messages = command.messages.len() as u32;
        Ok(Outcome::AppendedMany(AppendedMany { first, messages }))
    }

    fn restore(&mut self, command: &RestoreItems) -> Refused<Outcome> {
        let name = name_of(&command.mailbox_id);
        let mut once = command.items.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != command.items.len() {
            return Err(Reason::FieldInvalid);
        }
        self.live(name)?;
        self.demand_owner(name)?;
        let mailbox = self.live(name)?;
        let mut items = Vec::new();
        for item in &command.items {
            items.push(mailbox.items.get(item).ok_or(Reason::ItemNotFound)?.clone());
        }
        let bytes = items.iter().map(|item| item.message.body.len() as u64).sum();
        mailbox.room(items.len() as u64, bytes)?;
        mailbox.items.retain(|item, _| !command.items.contains(item));
        mailbox.modseq += 1;
        let mut restored = Restored::default();
        for mut item in items {
            let folder = if command.folder == 0 { item.folder } else { command.folder };
            self.folder(name, folder, 0)?;
            item.message.flags &= !DELETED;
            restored.stored.push(self.put_again(name, folder, item.message));
        }
        Ok(Outcome::Restored(restored))
    }

    fn purge(&mut self, command: &PurgeItems) -> Refused<Outcome> {
        let name = name_of(&command.mailbox_id);
        self.live(name)?;
        self.demand_owner(name)?;
        if self.live(name)?.settings.litigation_hold {
            return Err(Reason::HoldActive);
        }
        let mut purged = ItemsPurged::default();
        for item in &command.items {
            if let Some(item) = self.live(name)?.items.remove(item) {
                self.forget(name, item.message);
                purged.items += 1;
            }
        }
        Ok(Outcome::ItemsPurged(purged))
    }

    /// Whether what is expunged can be restored.
    pub fn keeps(&mut self, name: &str, beyond_recovery: bool) -> Refused<bool> {
        let settings = &self.live(name)?.settings;
        match settings.litigation_hold && beyond_recovery {
            true => Err(Reason::HoldActive),
            false => Ok(settings.litigation_hold || settings.retention_ms > 0 && !beyond_recovery),
        }
    }

    /// What else fits into the items on hold.
    pub fn items_room(&self, name: &str) -> u64 {
        let mailbox = &self.mailboxes[name];
        match (mailbox.settings.litigation_hold, mailbox.settings.quota_items_bytes) {
            (false, _) | (_, 0) => u64::MAX,
            (true, quota) => quota.saturating_sub(mailbox.items_bytes()),
        }
    }

    pub fn keep(&mut self, name: &str, folder: u32, message: MessageModel, deleted_ms: u64) {
        let deleted_by = self.actor.first().cloned().unwrap_or_default();
        let mailbox = self.mailboxes.get_mut(name).expect("there");
        mailbox.last_item += 1;
        let item = ItemModel { folder, message, deleted_ms, deleted_by };
        mailbox.items.insert(mailbox.last_item, item);
    }

    pub fn note_vanished(&mut self, name: &'static str, folder: u32, modseq: u64) {
        let what = Due::Vanished(id(name), folder, modseq);
        let due = keys::due(self.now_ms + VANISHED_KEPT_MS, &what);
        self.due.insert(due, DueModel::Vanished(name, folder, modseq));
    }

    fn items_due(mailbox: &MailboxModel) -> Option<u64> {
        let (settings, oldest) = (&mailbox.settings, mailbox.items.values().next()?);
        let quota = settings.quota_items_bytes;
        match () {
            () if settings.litigation_hold => None,
            () if quota > 0 && mailbox.items_bytes() > quota => Some(0),
            () => Some(oldest.deleted_ms + settings.retention_ms),
        }
    }

    pub fn reschedule_items(&mut self) {
        self.due.retain(|_, due| !matches!(due, DueModel::Items(_)));
        for (name, mailbox) in &self.mailboxes {
            if let Some(due_ms) = Self::items_due(mailbox) {
                let due = keys::due(due_ms, &Due::Items(id(name)));
                self.due.insert(due, DueModel::Items(name));
            }
        }
    }

    pub fn sweep(&mut self, limit: usize) -> Swept {
        let mut swept = Swept::default();
        let end = keys::due(self.now_ms + 1, &Due::Body([0; 32])).slice(..9);
        let due: BTreeMap<_, _> =
            self.due.range(..end).map(|(key, due)| (key.clone(), due.clone())).collect();
        let mut budget = limit;
        for (key, due) in due.into_iter().take(limit + 1) {
            let (rows, finished) = match budget {
                0 => (1, false),
                budget => self.expire(due, budget, &mut swept),
            };
            if !finished {
                swept.more = true;
                break;
            }
            self.due.remove(&key);
            budget -= rows.clamp(1, budget);
        }
        swept
    }

    fn expire(&mut self, due: DueModel, budget: usize, swept: &mut Swept) -> (usize, bool) {
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
            DueModel::GoneFolder(name, modseq, folder) => {
                let mailbox = self.mailboxes.get_mut(name).expect("there");
                mailbox.gone.remove(&folder);
                mailbox.folders_floor = mailbox.folders_floor.max(modseq);
                swept.vanished += 1;
            }
            DueModel::Vanished(name, folder, modseq) => {
                return self.forget_vanished(name, folder, modseq, budget, swept);
            }
            DueModel::Items(name) => return self.sweep_items(name, budget, swept),
            DueModel::DeadFolder(name, folder) => {
                return self.sweep_folder(name, folder, budget, swept);
            }
        }
        (1, true)
    }

    fn forget_vanished(
        &mut self,
        name: &str,
        folder: u32,
        modseq: u64,
        budget: usize,
        swept: &mut Swept,
    ) -> (usize, bool) {
        let mailbox = self.mailboxes.get_mut(name).expect("there");
        let Some(folder) = mailbox.folders.get_mut(&folder) else { return (1, true) };
        folder.floor = folder.floor.max(modseq);
        let gone = folder.vanished.iter().filter(|(_, at)| **at == modseq).map(|(uid, _)| *uid);
        let gone: Vec<u32> = gone.collect();
        gone.iter().take(budget).for_each(|uid| {
            folder.vanished.remove(uid);
        });
        let rows = gone.len().min(budget);
        swept.vanished += rows as u32;
        (rows, gone.len() <= budget)
    }

    fn sweep_items(
        &mut self,
        name: &'static str,
        budget: usize,
        swept: &mut Swept,
    ) -> (usize, bool) {
        let mut rows = 0;
        while let Some(due_ms) = Self::items_due(&self.mailboxes[name]) {
            if due_ms > self.now_ms {
                break;
            }
            if rows == budget {
                return (rows, false);
            }
            let mailbox = self.mailboxes.get_mut(name).expect("there");
            let (_, item) = mailbox.items.pop_first().expect("there");
            self.forget(name, item.message);
            swept.items += 1;
            rows += 1;
        }
        (rows, true)
    }

    fn sweep_folder(
        &mut self,
        name: &'static str,
        folder: u32,
        budget: usize,
        swept: &mut Swept,
    ) -> (usize, bool) {
        let now_ms = self.now_ms;
        let keeps = {
            let settings = &self.mailboxes[name].settings;
            settings.litigation_hold || settings.retention_ms > 0
        };
        let mut rows = 0;
        while rows < budget {
            let mailbox = self.mailboxes.get_mut(name).expect("there");
            let dead = mailbox.dead.get_mut(&folder).expect("there");
            if let Some((_, message)) = dead.messages.pop_first() {
                match keeps {
                    true => self.keep(name, folder, message, now_ms),
                    false => self.forget(name, message),
                }
                swept.messages += 1;
            } else if let Some(first) = dead.vanished.iter().map(|(uid, at)| (*at, *uid)).min() {
                dead.vanished.remove(&first.1);
            } else {
                mailbox.dead.remove(&folder);
                swept.folders += 1;
                return (rows, true);
            }
            rows += 1;
        }
        (rows, false)
    }
}
