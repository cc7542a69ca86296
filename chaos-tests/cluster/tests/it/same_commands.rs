//! Commands by chance through a real cluster whose active copy is killed and moved, again and again:
//! every answer is the one of the naive model, and so is what is there at the end.
//!
//! Commands and model are those of `crates/mailbox/tests/it`. What the API has no call for stays
//! out (removing a mailbox, staging, sweeps), and so does what depends on when a sweep comes by: of
//! Ben's mailbox, nothing is kept that was expunged, and only there folders are deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use cluster::{ask, number};
use dag_client::v1::{self as api, FlagOperation, MailboxRef, UidSet};
use dag_client::{Append, Client, Delivery, Error, Expunge, FieldMask, FlagChange, Reason};
use dag_types::{MailboxId, Millis};
use mailbox::command::{
    AppendMany, Content, CreateMailbox, Deliver, Recipient, SettingsChange, Transfer, UidRange,
    UpdateFolder, UpdateMailbox, id_bytes,
};
use mailbox::response::{Outcome, StoredAt, Transferred};
use mailbox::{Command, Operation, rights};
use proptest::prelude::{Strategy, prop};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use testkit::scratch::{Scratch, ScratchCluster};

use crate::commands::{Step, a_step};
use crate::model::{Model, name_of};
use crate::model_bodies::LARGE;
use crate::world::{ANNA, BEN, id};

/// Commands of every day.
const COMMANDS: u64 = 400;
const DATABASE: &str = "DB1";
/// The model's clock: nothing expires while the test runs.
const NOW: Millis = Millis(1_000);
/// Ninety days.
const RETENTION_MS: u64 = 90 * 24 * 3_600 * 1_000;

fn steps(seed: u64, commands: u64) -> Vec<Step> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let many = prop::collection::vec(a_step(), commands as usize);
    many.new_tree(&mut runner).expect("steps").current()
}

fn whole(content: &Content) -> Content {
    if content.staged { LARGE.clone() } else { content.clone() }
}

fn is_known(mailbox_id: &[u8]) -> bool {
    [ANNA, BEN].iter().any(|name| id(name).0 == mailbox_id)
}

/// What can be asked through the API and depends on no sweep; otherwise nothing.
fn fit(operation: Operation) -> Option<Operation> {
    let known = |mailbox_id: &Bytes| is_known(mailbox_id).then_some(());
    match operation {
        Operation::Append(mut append) => {
            known(&append.mailbox_id)?;
            append.content = whole(&append.content);
            Some(append.into())
        }
        Operation::AppendMany(append) => {
            known(&append.mailbox_id)?;
            let small = append.messages.iter().all(|item| item.content.size < 1_000);
            small.then_some(append.into())
        }
        Operation::Deliver(deliver) => deliver_fit(deliver).map(Into::into),
        Operation::StoreFlags(store) => known(&store.mailbox_id).map(|()| store.into()),
        Operation::Expunge(expunge) => known(&expunge.mailbox_id).map(|()| expunge.into()),
        Operation::CreateFolder(create) => known(&create.mailbox_id).map(|()| create.into()),
        Operation::UpdateFolder(update) => {
            known(&update.mailbox_id)?;
            (!folder_mask(&update).is_empty()).then_some(update.into())
        }
        Operation::DeleteFolder(delete) => {
            (delete.mailbox_id == id_bytes(id(BEN))).then_some(delete.into())
        }
        Operation::RenameInbox(rename) => known(&rename.mailbox_id).map(|()| rename.into()),
        Operation::SubscribeName(subscribe) => {
            known(&subscribe.mailbox_id).map(|()| subscribe.into())
        }
        Operation::SetRights(set) => known(&set.mailbox_id).map(|()| set.into()),
        Operation::CopyMessages(copy) => way_fit(&copy.transfer).then_some(copy.into()),
        Operation::MoveMessages(moved) => way_fit(&moved.transfer).then_some(moved.into()),
        Operation::RestoreItems(restore) => known(&restore.mailbox_id).map(|()| restore.into()),
        Operation::PurgeItems(purge) => known(&purge.mailbox_id).map(|()| purge.into()),
        Operation::UpdateMailbox(mut update) => {
            known(&update.mailbox_id)?;
            (update.change.retention_ms, update.change.quota_items_bytes) = (None, None);
            if update.mailbox_id == id_bytes(id(BEN)) {
                update.change.litigation_hold = None;
            }
            (!settings_mask(&update.change).is_empty()).then_some(update.into())
        }
        Operation::CreateMailbox(_)
        | Operation::DeleteMailbox(_)
        | Operation::Sweep(_)
        | Operation::StageChunk(_) => None,
    }
}

fn deliver_fit(mut deliver: Deliver) -> Option<Deliver> {
    deliver.content = whole(&deliver.content);
    deliver.recipients.retain(|recipient| is_known(&recipient.mailbox_id));
    for recipient in &mut deliver.recipients {
        let name = name_of(&recipient.mailbox_id);
        *recipient = Recipient::new(address(name), id(name));
    }
    (!deliver.recipients.is_empty()).then_some(deliver)
}

fn way_fit(way: &Transfer) -> bool {
    is_known(&way.mailbox_id) && (way.to_mailbox_id.is_empty() || is_known(&way.to_mailbox_id))
}

fn address(name: &str) -> String {
    format!("{name}@example.org")
}

fn folder_mask(update: &UpdateFolder) -> Vec<String> {
    let fields = [
        ("parent_id", update.parent.is_some()),
        ("display_name", update.name.is_some()),
        ("special_use", update.special_use.is_some()),
        ("subscribed", update.subscribed.is_some()),
    ];
    named(&fields)
}

fn settings_mask(change: &SettingsChange) -> Vec<String> {
    let fields = [
        ("quota_bytes", change.quota_bytes.is_some()),
        ("quota_messages", change.quota_messages.is_some()),
        ("quota_folders", change.quota_folders.is_some()),
        ("litigation_hold", change.litigation_hold.is_some()),
        ("retention_ms", change.retention_ms.is_some()),
        ("owner", change.owner.is_some()),
        ("append_limit_bytes", change.append_limit.is_some()),
    ];
    named(&fields)
}

fn named(fields: &[(&str, bool)]) -> Vec<String> {
    let there = fields.iter().filter(|(_, there)| *there);
    there.map(|(name, _)| (*name).to_owned()).collect()
}

/// The calls of the API take the actor of these.
fn may_have_an_actor(operation: &Operation) -> bool {
    !matches!(
        operation,
        Operation::Append(_)
            | Operation::Deliver(_)
            | Operation::StoreFlags(_)
            | Operation::Expunge(_)
            | Operation::UpdateMailbox(_)
    )
}

/// The model's answer as the API would give it, as text.
fn expected(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Rejected(rejection) => refused(reason(rejection.reason())),
        Outcome::Appended(at) => stored(at),
        Outcome::AppendedMany(many) => {
            let first = &many.first;
            let (validity, uid, modseq) = (first.uid_validity, first.uid, first.modseq);
            format!("{} from {validity}/{uid} at {modseq}", many.messages)
        }
        Outcome::Delivered(delivered) => {
            let result = |result: &mailbox::response::RecipientResult| match &result.stored {
                Some(at) => stored(at),
                None => {
                    refused(reason(result.rejection.as_ref().expect("stored or refused").reason()))
                }
            };
            delivered.results.iter().map(result).collect::<Vec<_>>().join(", ")
        }
        Outcome::FlagsStored(done) => {
            let (changed, same) = (ranges(&done.changed), ranges(&done.unchanged));
            format!("{changed} {same} {} at {}", ranges(&done.modified), done.modseq)
        }
        Outcome::Expunged(gone) => format!("{} gone at {}", ranges(&gone.vanished), gone.modseq),
        Outcome::Transferred(done) => transferred(done),
        Outcome::FolderCreated(made) => {
            format!("f{} of {} at {}", made.folder, made.uid_validity, made.modseq)
        }
        Outcome::FolderUpdated(updated) => format!("folder at {}", updated.modseq),
        Outcome::FolderDeleted(gone) => format!("{} with it at {}", gone.messages, gone.modseq),
        Outcome::InboxRenamed(done) => {
            format!("f{} of {}, {} moved", done.folder.folder, done.folder.uid_validity, done.moved)
        }
        Outcome::NameSubscribed(done) => format!("name at {}", done.modseq),
        Outcome::MailboxUpdated(done) => format!("settings at {}", done.modseq),
        Outcome::Restored(done) => done.stored.iter().map(stored).collect::<Vec<_>>().join(", "),
        Outcome::ItemsPurged(done) => format!("{} purged", done.items),
        other => panic!("the API gives no {other:?}"),
    }
}

fn refused(reason: impl std::fmt::Display) -> String {
    format!("refused: {reason}")
}

/// The reason on the wire of a reason of the core.
fn reason(core: mailbox::response::Reason) -> &'static str {
    use mailbox::response::Reason as Core;
    match core {
        Core::FieldMissing | Core::FieldInvalid | Core::FlagUnknown | Core::FolderLoop => {
            "INVALID_REQUEST"
        }
        Core::UidValidityChanged => "UIDVALIDITY_CHANGED",
        Core::SizeMismatch | Core::DigestConflict | Core::BodyNotStaged => "DIGEST_MISMATCH",
        other => other.name(),
    }
}

fn stored(at: &StoredAt) -> String {
    format!("{}/{} as {} at {}", at.uid_validity, at.uid, at.email_id, at.modseq)
}

fn transferred(done: &Transferred) -> String {
    let (source, target) = (ranges(&done.source), ranges(&done.target));
    format!("{source} to {}/{target} at {}", done.uid_validity, done.modseq)
}

fn ranges(uids: &[UidRange]) -> String {
    let uids = uids.iter().map(|range| format!("{}-{}", range.first, range.last));
    uids.collect::<Vec<_>>().join(";")
}

fn told(uids: Option<&UidSet>) -> String {
    let uids = uids.map(|set| set.ranges.as_slice()).unwrap_or_default();
    ranges(&uids.iter().map(|range| UidRange::new(range.first, range.last)).collect::<Vec<_>>())
}

fn told_at(uid_validity: u32, uid: u32, email_id: &str, modseq: u64) -> String {
    let email = email_id.rsplit('-').next().unwrap_or_default();
    format!("{uid_validity}/{uid} as {email} at {modseq}")
}

/// A client that asks the cluster what the model was asked.
struct Asker {
    client: Client,
    ids: BTreeMap<&'static str, MailboxId>,
    unknown: AtomicU64,
}

fn set_of(uids: &[UidRange]) -> UidSet {
    let range = |range: &UidRange| api::UidRange { first: range.first, last: range.last };
    UidSet { ranges: uids.iter().map(range).collect() }
}

fn folder_id(folder: u32) -> String {
    if folder == 0 { String::new() } else { format!("f{folder}") }
}

impl Asker {
    /// Asks until an answer counts: with the same id, so that what was carried out is not done
    /// again.
    async fn ask(&self, command: &Command) -> anyhow::Result<String> {
        for _ in 0..20 {
            match self.ask_once(command).await {
                Ok(answer) => return Ok(answer),
                Err(Error::Failed(problem)) if problem.reason != Reason::OutcomeUnknown => {
                    return Ok(refused(problem.reason));
                }
                Err(_) => self.unknown.fetch_add(1, Ordering::Relaxed),
            };
        }
        bail!("no answer counted: {command:?}")
    }

    async fn ask_once(&self, command: &Command) -> Result<String, Error> {
        let request_id = command.request_id.clone();
        match command.operation.as_ref().expect("an operation") {
            Operation::Append(append) => {
                let folder_id = folder_id(append.folder);
                let asked = Append {
                    folder_id,
                    content: append.content.body.clone(),
                    system_flags: append.system_flags,
                    keywords: append.keywords.clone(),
                    internal_date: None,
                    expected_uid_validity: append.expected_uid_validity,
                    request_id: Some(request_id),
                };
                let at = self.client.append(self.name(&append.mailbox_id), asked).await?;
                Ok(told_at(at.uid_validity, at.uid, &at.email_id, at.modseq))
            }
            Operation::AppendMany(append) => self.append_many(append, command).await,
            Operation::Deliver(deliver) => self.deliver(deliver).await,
            Operation::StoreFlags(store) => {
                let change = FlagChange {
                    folder_id: folder_id(store.folder),
                    uids: set_of(&store.uids),
                    operation: FlagOperation::try_from(store.action).expect("one of three"),
                    system_flags: store.system_flags,
                    keywords: store.keywords.clone(),
                    unchanged_since: store.unchanged_since,
                    expected_uid_validity: store.expected_uid_validity,
                    request_id: Some(request_id),
                };
                let done = self.client.store_flags(self.name(&store.mailbox_id), change).await?;
                let (changed, same) = (told(done.changed.as_ref()), told(done.unchanged.as_ref()));
                let modified = told(done.modified.as_ref());
                Ok(format!("{changed} {same} {modified} at {}", done.modseq))
            }
            Operation::Expunge(expunge) => {
                let asked = Expunge {
                    folder_id: folder_id(expunge.folder),
                    uids: set_of(&expunge.uids),
                    only_deleted: expunge.only_deleted,
                    beyond_recovery: expunge.beyond_recovery,
                    expected_uid_validity: expunge.expected_uid_validity,
                    request_id: Some(request_id),
                };
                let gone = self.client.expunge(self.name(&expunge.mailbox_id), asked).await?;
                Ok(format!("{} gone at {}", told(gone.vanished.as_ref()), gone.modseq))
            }
            Operation::CopyMessages(copy) => {
                let asked = self.way(&copy.transfer, command);
                let name = self.name(&copy.transfer.mailbox_id);
                let done = self.client.copy(name, asked).await?;
                let (source, target) = (told(done.source.as_ref()), told(done.target.as_ref()));
                Ok(format!("{source} to {}/{target} at {}", done.uid_validity, done.modseq))
            }
            Operation::MoveMessages(moved) => {
                let way = self.way(&moved.transfer, command);
                let asked = api::MoveMessagesRequest {
                    mailbox: way.mailbox,
                    folder_id: way.folder_id,
                    expected_uid_validity: way.expected_uid_validity,
                    uids: way.uids,
                    to_mailbox_id: way.to_mailbox_id,
                    to_folder_id: way.to_folder_id,
                    to_expected_uid_validity: way.to_expected_uid_validity,
                    request_id,
                };
                let name = self.name(&moved.transfer.mailbox_id);
                let done = self.client.move_messages(name, asked).await?;
                let (source, target) = (told(done.source.as_ref()), told(done.target.as_ref()));
                Ok(format!("{source} to {}/{target} at {}", done.uid_validity, done.modseq))
            }
            _ => self.ask_about_more(command).await,
        }
    }

    fn name(&self, mailbox_id: &[u8]) -> MailboxId {
        self.ids[name_of(mailbox_id)]
    }

    /// For whom it is asked; where the mailbox is, the client fills in.
    fn actor(&self, command: &Command) -> Option<MailboxRef> {
        Some(MailboxRef { actor: command.actor.clone(), ..MailboxRef::default() })
    }

    fn way(&self, way: &Transfer, command: &Command) -> api::CopyMessagesRequest {
        let to = match way.to_mailbox_id.is_empty() {
            true => String::new(),
            false => self.name(&way.to_mailbox_id).to_string(),
        };
        api::CopyMessagesRequest {
            mailbox: self.actor(command),
            folder_id: folder_id(way.folder),
            expected_uid_validity: way.expected_uid_validity,
            uids: Some(set_of(&way.uids)),
            to_mailbox_id: to,
            to_folder_id: folder_id(way.to_folder),
            to_expected_uid_validity: way.to_expected_uid_validity,
            request_id: command.request_id.clone(),
        }
    }

    async fn append_many(&self, append: &AppendMany, command: &Command) -> Result<String, Error> {
        let item = |item: &mailbox::command::AppendItem| api::AppendBatchItem {
            content: item.content.body.clone(),
            system_flags: item.system_flags,
            keywords: item.keywords.clone(),
            internal_date: None,
        };
        let asked = api::AppendBatchRequest {
            mailbox: self.actor(command),
            folder_id: folder_id(append.folder),
            expected_uid_validity: append.expected_uid_validity,
            messages: append.messages.iter().map(item).collect(),
            request_id: command.request_id.clone(),
        };
        let done = self.client.append_batch(self.name(&append.mailbox_id), asked).await?;
        let (validity, uid) = (done.uid_validity, done.first_uid);
        Ok(format!("{} from {validity}/{uid} at {}", done.messages, done.modseq))
    }

    async fn deliver(&self, deliver: &Deliver) -> Result<String, Error> {
        let to = deliver.recipients.iter().map(|recipient| recipient.address.clone());
        let mut delivery =
            Delivery::new(deliver.delivery_id.clone(), to, deliver.content.body.clone());
        delivery.envelope_from.clone_from(&deliver.sender);
        let mut results = Vec::new();
        for recipient in self.client.deliver(delivery).await?.recipients {
            results.push(match recipient.result {
                Ok(stored) => {
                    let at = stored.result;
                    told_at(at.uid_validity, at.uid, &at.email_id, at.modseq)
                }
                Err(Error::Failed(problem)) if problem.reason != Reason::OutcomeUnknown => {
                    refused(problem.reason)
                }
                Err(error) => return Err(error),
            });
        }
        Ok(results.join(", "))
    }

    async fn ask_about_more(&self, command: &Command) -> Result<String, Error> {
        let (request_id, mailbox) = (command.request_id.clone(), self.actor(command));
        match command.operation.as_ref().expect("an operation") {
            Operation::SubscribeName(name) => {
                let (path, subscribed) = (name.path.clone(), name.subscribed);
                let asked = api::SetSubscriptionRequest { mailbox, path, subscribed, request_id };
                let name = self.name(&name.mailbox_id);
                let done = self.client.set_subscription(name, asked).await?;
                Ok(format!("name at {}", done.modseq))
            }
            Operation::SetRights(set) => {
                let entry = api::FolderRights {
                    identifier: set.identifier.clone(),
                    rights: rights::letters(set.rights),
                };
                let asked = api::SetFolderRightsRequest {
                    mailbox,
                    folder_id: folder_id(set.folder),
                    entry: Some(entry),
                    operation: set.action,
                    request_id,
                };
                let name = self.name(&set.mailbox_id);
                let done = self.client.set_folder_rights(name, asked).await?;
                Ok(format!("folder at {}", done.profile_modseq))
            }
            Operation::RestoreItems(restore) => {
                let asked = api::RestoreRecoverableItemsRequest {
                    mailbox,
                    item_ids: restore.items.clone(),
                    folder_id: folder_id(restore.folder),
                    request_id,
                };
                let name = self.name(&restore.mailbox_id);
                let done = self.client.restore_items(name, asked).await?;
                let at = |at: &api::RestoredItem| {
                    told_at(at.uid_validity, at.uid, &at.email_id, at.modseq)
                };
                Ok(done.items.iter().map(at).collect::<Vec<_>>().join(", "))
            }
            Operation::PurgeItems(purge) => {
                let item_ids = purge.items.clone();
                let asked = api::PurgeRecoverableItemsRequest { mailbox, item_ids, request_id };
                let done = self.client.purge_items(self.name(&purge.mailbox_id), asked).await?;
                Ok(format!("{} purged", done.purged))
            }
            Operation::UpdateMailbox(update) => self.change_settings(update, request_id).await,
            _ => self.ask_about_folders(command).await,
        }
    }

    async fn change_settings(
        &self,
        update: &UpdateMailbox,
        request_id: String,
    ) -> Result<String, Error> {
        let change = &update.change;
        let settings = api::MailboxSettings {
            quota_bytes: change.quota_bytes.unwrap_or(0),
            quota_messages: change.quota_messages.unwrap_or(0),
            quota_folders: change.quota_folders.unwrap_or(0),
            retention_ms: change.retention_ms.unwrap_or(0),
            litigation_hold: change.litigation_hold.unwrap_or(false),
            owner: change.owner.clone().unwrap_or_default(),
            append_limit_bytes: change.append_limit.unwrap_or(0),
            ..api::MailboxSettings::default()
        };
        let asked = api::UpdateMailboxRequest {
            mailbox: None,
            settings: Some(settings),
            update_mask: Some(FieldMask { paths: settings_mask(change) }),
            expected_settings_modseq: update.expected_modseq,
            request_id,
        };
        let done = self.client.update_mailbox(self.name(&update.mailbox_id), asked).await?;
        Ok(format!("settings at {}", done.settings_modseq))
    }

    async fn ask_about_folders(&self, command: &Command) -> Result<String, Error> {
        let (request_id, mailbox) = (command.request_id.clone(), self.actor(command));
        match command.operation.as_ref().expect("an operation") {
            Operation::CreateFolder(create) => {
                let asked = api::CreateFolderRequest {
                    mailbox,
                    parent_id: folder_id(create.parent),
                    display_name: create.name.clone(),
                    special_use: create.special_use as i32,
                    request_id,
                };
                let made = self.client.make_folder(self.name(&create.mailbox_id), asked).await?;
                let made = made.folder.unwrap_or_default();
                Ok(format!(
                    "{} of {} at {}",
                    made.folder_id, made.uid_validity, made.highest_modseq
                ))
            }
            Operation::UpdateFolder(update) => {
                let folder = api::Folder {
                    folder_id: folder_id(update.folder),
                    parent_id: folder_id(update.parent.unwrap_or(0)),
                    display_name: update.name.clone().unwrap_or_default(),
                    special_use: update.special_use.unwrap_or(0) as i32,
                    subscribed: update.subscribed.unwrap_or(false),
                    ..api::Folder::default()
                };
                let asked = api::UpdateFolderRequest {
                    mailbox,
                    folder: Some(folder),
                    update_mask: Some(FieldMask { paths: folder_mask(update) }),
                    expected_profile_modseq: update.expected_modseq,
                    request_id,
                };
                let name = self.name(&update.mailbox_id);
                let done = self.client.update_folder(name, asked).await?;
                Ok(format!("folder at {}", done.profile_modseq))
            }
            Operation::DeleteFolder(delete) => {
                let asked = api::DeleteFolderRequest {
                    mailbox,
                    folder_id: folder_id(delete.folder),
                    expected_uid_validity: delete.expected_uid_validity,
                    request_id,
                };
                let name = self.name(&delete.mailbox_id);
                let done = self.client.delete_folder(name, asked).await?;
                Ok(format!("{} with it at {}", done.messages, done.modseq))
            }
            Operation::RenameInbox(rename) => {
                let asked = api::RenameInboxRequest {
                    mailbox,
                    parent_id: folder_id(rename.parent),
                    display_name: rename.name.clone(),
                    request_id,
                };
                let done = self.client.rename_inbox(self.name(&rename.mailbox_id), asked).await?;
                let made = done.folder.unwrap_or_default();
                let (validity, moved) = (made.uid_validity, done.moved);
                Ok(format!("{} of {validity}, {moved} moved", made.folder_id))
            }
            other => panic!("asked elsewhere: {other:?}"),
        }
    }

    /// What a mailbox holds at the end, message by message, against the model.
    async fn compare(&self, model: &Model, name: &'static str) -> anyhow::Result<()> {
        let expected = &model.mailboxes[name];
        let folders = self.client.folders(self.ids[name]).await?;
        ensure!(folders.len() == expected.folders.len(), "{name} has {folders:#?}");
        for folder in folders {
            let number = folder.folder_id[1..].parse::<u32>()?;
            let of_model = &expected.folders[&number];
            let mut told = Vec::new();
            let mut token = String::new();
            loop {
                let page =
                    self.client.list(self.ids[name], &folder.folder_id, None, &token).await?;
                token.clone_from(&page.next_page_token);
                told.extend(page.messages);
                if token.is_empty() {
                    break;
                }
            }
            let seen = told.into_iter().map(|message| {
                let email = message.email_id.rsplit('-').next().unwrap_or_default().to_owned();
                let keywords = message.keywords.into_iter().collect::<Vec<_>>();
                let (uid, flags) = (message.uid, message.system_flags);
                (uid, flags, keywords, message.modseq, email, message.size)
            });
            let wanted = of_model.messages.iter().map(|(uid, message)| {
                let keywords = message.keywords.iter().cloned().collect::<Vec<_>>();
                let (email, size) = (message.email_id.to_string(), message.body.len() as u64);
                (*uid, message.flags, keywords, message.modseq, email, size)
            });
            let mut seen = seen.collect::<Vec<_>>();
            seen.iter_mut().for_each(|message| message.2.sort());
            ensure!(seen == wanted.collect::<Vec<_>>(), "{name}/{}: {seen:?}", of_model.name);
            ensure!(folder.uid_next == of_model.uid_next, "UIDNEXT of {}", of_model.name);
        }
        let items = api::ListRecoverableItemsRequest { page_size: 1_000, ..Default::default() };
        let items = self.client.recoverable_items(self.ids[name], items).await?.items;
        let items = items.iter().map(|item| item.item_id).collect::<Vec<_>>();
        let wanted = expected.items.keys().copied().collect::<Vec<_>>();
        ensure!(items == wanted, "{name} has the items {items:?}, not {wanted:?}");
        Ok(())
    }
}

/// Asks model and cluster one command after the other; gives how many were refused.
async fn play(asker: &Asker, model: &mut Model, steps: Vec<Step>) -> anyhow::Result<(u64, u64)> {
    let (mut asked, mut refusals) = (0, 0);
    for (operation, actor, request, _) in steps {
        let Some(operation) = fit(operation) else { continue };
        let actor = if may_have_an_actor(&operation) { actor } else { &[] };
        let actor = actor.iter().map(|name| (*name).to_owned()).collect();
        let command = Command::new(format!("r{request}"), NOW, operation).on_behalf_of(actor);
        let wanted = expected(&model.run(&command));
        let answer = asker.ask(&command).await?;
        ensure!(answer == wanted, "{command:#?}\nwas answered {answer}, and not {wanted}");
        asked += 1;
        refusals += u64::from(answer.contains("refused"));
    }
    Ok((asked, refusals))
}

/// Kills the active node or moves the database away, until the commands are done.
async fn disturb(cluster: &mut ScratchCluster, done: &AtomicBool) -> anyhow::Result<u64> {
    let mut times = 0;
    while !done.load(Ordering::Relaxed) {
        if times % 2 == 0 {
            let victim = ask::active(cluster, DATABASE)?;
            cluster.kill(&victim)?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.restart(std::slice::from_ref(&victim)).await?;
        } else {
            cluster.dagctl(["db", "move", DATABASE])?;
        }
        ask::wait_healthy(cluster, Duration::from_secs(90))?;
        times += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(times)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_the_models_while_the_active_copy_is_killed_and_moved() -> anyhow::Result<()>
{
    let _turn = cluster::turn().await;
    let (seed, commands) = (number("HOLDFAST_SEED", 1), number("HOLDFAST_COMMANDS", COMMANDS));
    let mut cluster = Scratch::shape("three-node").formed().await?;
    cluster.dagctl(["db", "create", DATABASE])?;
    // The same database may move as often as it is told to.
    cluster.dagctl(["dag", "set", "--move-block", "1", "--auto-balance", "false"])?;
    let status = ask::wait_healthy(&cluster, Duration::from_secs(60))?;
    let database = cluster::work::database_id(&status, DATABASE)?;
    let client = cluster::trial::client(&cluster, Duration::from_secs(60))?;
    let (mut model, mut ids) = (Model::default(), BTreeMap::new());
    for name in [ANNA, BEN] {
        let make = format!("make-{name}");
        let made = client.create_mailbox_in(&address(name), Some(database), make.clone()).await?;
        ids.insert(name, made.place.mailbox);
        let create = CreateMailbox::new(id(name), vec![address(name)]);
        model.run(&Command::new(make, NOW, create.into()));
    }
    let asker = Arc::new(Asker { client, ids, unknown: AtomicU64::new(0) });
    let keeps = SettingsChange { retention_ms: Some(RETENTION_MS), ..SettingsChange::default() };
    let keep = Command::new("keep", NOW, UpdateMailbox::new(id(ANNA), keeps).into());
    let wanted = expected(&model.run(&keep));
    ensure!(asker.ask(&keep).await? == wanted, "Anna keeps what she expunges");

    let done = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let playing = tokio::spawn({
        let (asker, done) = (asker.clone(), done.clone());
        async move {
            let played = play(&asker, &mut model, steps(seed, commands)).await;
            done.store(true, Ordering::Relaxed);
            played.map(|counts| (counts, model))
        }
    });
    let disturbed = disturb(&mut cluster, &done).await;
    let ((asked, refusals), model) =
        playing.await?.with_context(|| format!("HOLDFAST_SEED={seed}"))?;
    let (took, unknown) = (begun.elapsed(), asker.unknown.load(Ordering::Relaxed));
    let disturbed = disturbed?;
    eprintln!(
        "seed {seed}: {asked} commands in {took:.1?}, {refusals} refused, {unknown} asked again, \
         {disturbed} failovers and moves"
    );
    ensure!(asked * 10 > commands * 5, "too few of the commands could be asked: {asked}");
    ensure!(refusals * 10 < asked * 8, "too many of the commands are refused: {refusals}");
    ensure!(disturbed >= 2, "nothing failed over: {disturbed}");
    for name in [ANNA, BEN] {
        asker.compare(&model, name).await?;
    }
    ask::expect_equal(&cluster, DATABASE, 3)
}
