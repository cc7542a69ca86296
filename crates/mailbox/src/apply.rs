//! The transition: a command against a state, giving writes and an answer.
//!
//! Every copy runs this with the same commands in the same order, years apart if need be, and must
//! write the same bytes. So nothing is decided here but by the arguments.
//!
//! A command goes through four steps: the stamp is moved on (never back), a repeat is answered from
//! memory, the operation is carried out or refused, the answer is remembered under its request id.
//! Refusals are remembered as well: an attempt that was delayed in an old leader's queue must not
//! succeed after a later attempt of the same request was told that it failed.

mod access;
mod append;
mod deliver;
mod email;
mod expunge;
mod flags;
mod folder;
mod folder_delete;
mod folder_update;
mod inbox;
mod items;
mod mailbox;
mod message;
mod staging;
mod subscription;
mod sweep;
mod thread;
mod trace;
mod transfer;

pub(crate) use access::modseq_of;
pub(crate) use deliver::stored_at;
pub(crate) use folder::{INBOX, normalise_name};

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{LogId, MailboxId, Millis, Write};

use crate::command::{Command, Content, Operation, Parsed};
use crate::keys::{self, Due};
use crate::limits;
use crate::records::{FolderRecord, MailboxRecord, Marker, RequestRecord};
use crate::response::{Outcome, Reason, Rejection, Response};
use crate::transaction::{Stop, Transaction};
use crate::view::{Fault, MailboxView};

/// What a command does to the state, and what its caller is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// To be written in one batch with the applied position. Each key at most once.
    pub writes: Vec<Write>,
    /// The answer; a refusal is one too.
    pub response: Response,
}

/// Carries out one committed command. `at` is its position in the log.
///
/// An error is a fault of this copy: nothing may be written, and the copy stops.
pub fn apply<V: MailboxView>(view: &V, at: LogId, command: &Command) -> Result<Applied, V::Error> {
    let Some(operation) = &command.operation else {
        let detail = "it has no operation that this version knows".to_string();
        return Err(Fault::UnknownCommand { detail }.into());
    };
    let mut transaction = Transaction::begin(view, Millis(command.proposed_at_ms))?;
    transaction.actor.clone_from(&command.actor);
    let response = match answer(&mut transaction, at, &command.request_id, operation) {
        Ok(response) => response,
        Err(Stop::Rejected(rejection)) => {
            transaction.undo();
            Response::new(at.index, Outcome::Rejected(rejection))
        }
        Err(Stop::Fault(fault)) => return Err(fault),
    };
    if command.traced && !response.replayed {
        match trace::note(&mut transaction, at.index, operation, &response) {
            Err(Stop::Fault(fault)) => return Err(fault),
            Ok(()) | Err(Stop::Rejected(_)) => {}
        }
    }
    Ok(Applied { writes: transaction.finish(), response })
}

/// Answers a repeat from memory, and anything else by carrying it out. A refusal that comes out of
/// here as an error is not remembered: it concerns the id itself.
fn answer<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    at: LogId,
    request_id: &str,
    operation: &Operation,
) -> Result<Response, Stop<V::Error>> {
    access::check_actor(&transaction.actor, operation)?;
    let Some(mailbox) = scope(operation)? else {
        staging::demand_staged(transaction, operation)?;
        return Ok(Response::new(at.index, carry_out(transaction, operation)?));
    };
    if request_id.is_empty() {
        return Err(Rejection::new(Reason::FieldMissing).about("request_id").into());
    }
    limits::REQUEST_ID_BYTES.check(request_id.len())?;
    let id = keys::hash_id(request_id);
    let key = keys::request(mailbox, &id);
    let digest = request_digest(operation, &transaction.actor);
    if let Some(seen) = transaction.remembered::<RequestRecord>(&key)? {
        if seen.digest != digest {
            return Err(Rejection::new(Reason::RequestIdReused).about(request_id).into());
        }
        let response = Response::decode_from(seen.response)
            .map_err(|error| Stop::Fault(Fault::damaged(&key, error.to_string()).into()))?;
        return Ok(Response { replayed: true, ..response });
    }
    staging::demand_staged(transaction, operation)?;
    let outcome = match carry_out(transaction, operation) {
        Ok(outcome) => outcome,
        Err(Stop::Rejected(rejection)) => {
            transaction.undo();
            Outcome::Rejected(rejection)
        }
        Err(fault) => return Err(fault),
    };
    let response = Response::new(at.index, outcome);
    let due_ms = transaction.now_ms().saturating_add(limits::REQUEST_ID_KEPT_MS);
    transaction.insert(key, &RequestRecord { digest, response: response.encode_to_bytes() });
    transaction.insert(keys::due(due_ms, &Due::Request(mailbox, id)), &Marker {});
    Ok(response)
}

/// The mailbox within which a request id is unique; none for operations that are harmless to
/// repeat by themselves.
fn scope(operation: &Operation) -> Result<Option<MailboxId>, Rejection> {
    let mailbox_id = match operation {
        Operation::CreateMailbox(create) => &create.mailbox_id,
        Operation::DeleteMailbox(delete) => &delete.mailbox_id,
        Operation::CreateFolder(create) => &create.mailbox_id,
        Operation::Append(append) => &append.mailbox_id,
        Operation::StoreFlags(store) => &store.mailbox_id,
        Operation::Expunge(expunge) => &expunge.mailbox_id,
        Operation::UpdateMailbox(update) => &update.mailbox_id,
        Operation::UpdateFolder(update) => &update.mailbox_id,
        Operation::DeleteFolder(delete) => &delete.mailbox_id,
        Operation::RenameInbox(rename) => &rename.mailbox_id,
        Operation::SubscribeName(subscribe) => &subscribe.mailbox_id,
        Operation::SetRights(set) => &set.mailbox_id,
        Operation::CopyMessages(copy) => &copy.transfer.mailbox_id,
        Operation::MoveMessages(moved) => &moved.transfer.mailbox_id,
        Operation::AppendMany(append) => &append.mailbox_id,
        Operation::RestoreItems(restore) => &restore.mailbox_id,
        Operation::PurgeItems(purge) => &purge.mailbox_id,
        Operation::Deliver(_) | Operation::Sweep(_) | Operation::StageChunk(_) => return Ok(None),
    };
    parse_mailbox_id(mailbox_id).map(Some)
}

/// 16 bytes of BLAKE3 of what the client asked for. The body counts by its digest, and what the
/// proposer added (stamp, parser's results) does not count: another attempt through another node
/// may differ in it.
fn request_digest(operation: &Operation, actor: &[String]) -> Bytes {
    let mut encoded = match operation {
        Operation::Append(append) => {
            let mut request = append.clone();
            strip(&mut request.content);
            encode_operation(&Operation::Append(request))
        }
        Operation::AppendMany(append) => {
            let mut request = append.clone();
            request.messages.iter_mut().for_each(|message| strip(&mut message.content));
            encode_operation(&Operation::AppendMany(request))
        }
        other => encode_operation(other),
    };
    for identifier in actor {
        encoded.push(0);
        encoded.extend_from_slice(identifier.as_bytes());
    }
    Bytes::copy_from_slice(&keys::first_half(blake3::hash(&encoded).as_bytes()))
}

fn strip(content: &mut Content) {
    content.body = Bytes::new();
    content.staged = false;
    content.parsed = Parsed::default();
}

fn encode_operation(operation: &Operation) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(operation.encoded_len());
    operation.encode(&mut encoded);
    encoded
}

fn carry_out<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    operation: &Operation,
) -> Result<Outcome, Stop<V::Error>> {
    match operation {
        Operation::CreateMailbox(create) => {
            mailbox::create(transaction, create).map(Outcome::MailboxCreated)
        }
        Operation::DeleteMailbox(delete) => {
            mailbox::delete(transaction, delete).map(Outcome::MailboxDeleted)
        }
        Operation::CreateFolder(create) => {
            folder::create(transaction, create).map(Outcome::FolderCreated)
        }
        Operation::Deliver(deliver) => {
            deliver::deliver(transaction, deliver).map(Outcome::Delivered)
        }
        Operation::Append(append) => append::append(transaction, append).map(Outcome::Appended),
        Operation::StoreFlags(store) => flags::store(transaction, store).map(Outcome::FlagsStored),
        Operation::Expunge(expunge) => {
            expunge::expunge(transaction, expunge).map(Outcome::Expunged)
        }
        Operation::Sweep(sweep) => sweep::sweep(transaction, sweep).map(Outcome::Swept),
        Operation::StageChunk(chunk) => staging::stage(transaction, chunk).map(Outcome::Staged),
        Operation::UpdateMailbox(update) => {
            mailbox::update(transaction, update).map(Outcome::MailboxUpdated)
        }
        Operation::AppendMany(append) => {
            append::append_many(transaction, append).map(Outcome::AppendedMany)
        }
        Operation::CopyMessages(copy) => {
            transfer::copy(transaction, &copy.transfer).map(Outcome::Transferred)
        }
        Operation::MoveMessages(moved) => {
            transfer::relocate(transaction, &moved.transfer).map(Outcome::Transferred)
        }
        Operation::RestoreItems(restore) => {
            items::restore(transaction, restore).map(Outcome::Restored)
        }
        Operation::PurgeItems(purge) => {
            items::purge_items(transaction, purge).map(Outcome::ItemsPurged)
        }
        about_folders => carry_out_on_folder(transaction, about_folders),
    }
}

fn carry_out_on_folder<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    operation: &Operation,
) -> Result<Outcome, Stop<V::Error>> {
    match operation {
        Operation::UpdateFolder(update) => {
            folder_update::update(transaction, update).map(Outcome::FolderUpdated)
        }
        Operation::DeleteFolder(delete) => {
            folder_delete::delete(transaction, delete).map(Outcome::FolderDeleted)
        }
        Operation::RenameInbox(rename) => {
            inbox::rename(transaction, rename).map(Outcome::InboxRenamed)
        }
        Operation::SubscribeName(subscribe) => {
            subscription::subscribe(transaction, subscribe).map(Outcome::NameSubscribed)
        }
        Operation::SetRights(set) => {
            access::set_rights(transaction, set).map(Outcome::FolderUpdated)
        }
        other => unreachable!("{other:?} is carried out elsewhere"),
    }
}

fn parse_mailbox_id(bytes: &[u8]) -> Result<MailboxId, Rejection> {
    match MailboxId::from_slice(bytes) {
        Some(id) if id != MailboxId::NIL => Ok(id),
        _ => Err(Rejection::new(Reason::FieldInvalid).about("mailbox_id")),
    }
}

/// A mailbox that exists and is not deleted.
fn live_mailbox<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
) -> Result<MailboxRecord, Stop<V::Error>> {
    let record = known_mailbox(transaction, id)?;
    refuse_deleted(id, &record)?;
    Ok(record)
}

/// A mailbox that exists, deleted or not.
fn known_mailbox<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
) -> Result<MailboxRecord, Stop<V::Error>> {
    let record = transaction.get::<MailboxRecord>(&keys::mailbox(id))?;
    record.ok_or_else(|| Rejection::new(Reason::MailboxNotFound).about(id.to_string()).into())
}

fn refuse_deleted(id: MailboxId, record: &MailboxRecord) -> Result<(), Rejection> {
    match record.deleted_ms {
        None => Ok(()),
        Some(_) => Err(Rejection::new(Reason::MailboxDeleted).about(id.to_string())),
    }
}

/// A folder that exists, with the UIDVALIDITY that the caller knows it by (0: any).
fn live_folder<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox: MailboxId,
    folder: u32,
    expected_uid_validity: u32,
) -> Result<FolderRecord, Stop<V::Error>> {
    let Some(record) = transaction.get::<FolderRecord>(&keys::folder(mailbox, folder))? else {
        return Err(Rejection::new(Reason::FolderNotFound).about(folder.to_string()).into());
    };
    if expected_uid_validity != 0 && expected_uid_validity != record.uid_validity {
        return Err(Rejection::new(Reason::UidValidityChanged)
            .about(folder.to_string())
            .with_value(u64::from(expected_uid_validity))
            .with_limit(u64::from(record.uid_validity))
            .into());
    }
    Ok(record)
}

/// The next mod-sequence of a mailbox: one per command that changes something in it.
fn next_modseq(mailbox: &mut MailboxRecord) -> Result<u64, Rejection> {
    if mailbox.highest_modseq >= limits::MODSEQ_MAX {
        return Err(exhausted("modseq", limits::MODSEQ_MAX));
    }
    mailbox.highest_modseq += 1;
    Ok(mailbox.highest_modseq)
}

fn exhausted(counter: &str, limit: u64) -> Rejection {
    Rejection::new(Reason::CounterExhausted).about(counter).with_value(limit).with_limit(limit)
}
