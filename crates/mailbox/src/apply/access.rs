//! Who may do it: rights on folders (RFC 4314), checked against the state that the command meets.

use alloc::string::{String, ToString};

use dag_types::MailboxId;

use super::{live_folder, live_mailbox, next_modseq, parse_mailbox_id};
use crate::command::{FlagAction, Operation, SetRights};
use crate::records::{FolderProfile, FolderRecord, MailboxRecord, RightsEntry, RightsTable};
use crate::response::{FolderUpdated, Reason, Rejection};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{flags, keys, limits, rights};

/// Refuses an actor where nobody's rights can be asked for: what the operator does, what a transport
/// does, what the store does by itself.
pub(super) fn check_actor(actor: &[String], operation: &Operation) -> Result<(), Rejection> {
    if actor.is_empty() {
        return Ok(());
    }
    limits::IDENTIFIERS_PER_ACTOR.check(actor.len())?;
    for identifier in actor {
        limits::IDENTIFIER_BYTES.check(identifier.len())?;
        if identifier.is_empty() || identifier.starts_with('-') {
            return Err(Rejection::new(Reason::FieldInvalid).about("actor"));
        }
    }
    match operation {
        Operation::CreateMailbox(_)
        | Operation::DeleteMailbox(_)
        | Operation::UpdateMailbox(_)
        | Operation::Deliver(_)
        | Operation::Sweep(_)
        | Operation::StageChunk(_) => Err(Rejection::new(Reason::FieldInvalid).about("actor")),
        _ => Ok(()),
    }
}

/// Whether the actor is the owner of the mailbox, or may do everything.
fn is_owner<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
) -> Result<bool, Stop<V::Error>> {
    if transaction.actor.is_empty() {
        return Ok(true);
    }
    let mailbox = transaction.need::<MailboxRecord>(&keys::mailbox(mailbox_id))?;
    let owner = mailbox.settings().owner;
    Ok(!owner.is_empty() && transaction.actor.contains(&owner))
}

/// Refuses everybody but the owner of the mailbox.
pub(super) fn demand_owner<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
) -> Result<(), Stop<V::Error>> {
    match is_owner(transaction, mailbox_id)? {
        true => Ok(()),
        false => Err(Rejection::new(Reason::AccessDenied).about("owner").into()),
    }
}

/// Refuses an actor that lacks any of these rights; gives all rights that it has. Where it may not
/// even see the folder, there is none (RFC 4314 6).
pub(super) fn demand<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    folder_id: u32,
    needed: u32,
) -> Result<u32, Stop<V::Error>> {
    if is_owner(transaction, mailbox_id)? {
        return Ok(rights::ALL);
    }
    let key = keys::rights(mailbox_id, folder_id);
    let table = transaction.get::<RightsTable>(&key)?.unwrap_or_default();
    let has = rights::effective(&table, &transaction.actor);
    if has & rights::LOOKUP == 0 {
        return Err(Rejection::new(Reason::FolderNotFound).about(folder_id.to_string()).into());
    }
    match needed & !has {
        0 => Ok(has),
        missing => Err(denied(missing).into()),
    }
}

/// Says which rights are missing.
pub(super) fn denied(missing: u32) -> Rejection {
    Rejection::new(Reason::AccessDenied).about(rights::letters(missing))
}

/// The system flags that somebody may change, and whether keywords are among what it may change
/// (RFC 4314 4, STORE and COPY/APPEND).
pub(super) fn changeable(has: u32) -> (u32, bool) {
    let seen = if has & rights::KEEP_SEEN != 0 { flags::SEEN } else { 0 };
    let deleted = if has & rights::DELETE_MESSAGES != 0 { flags::DELETED } else { 0 };
    let others = flags::ALL & !flags::SEEN & !flags::DELETED;
    match has & rights::WRITE != 0 {
        true => (seen | deleted | others, true),
        false => (seen | deleted, false),
    }
}

/// A new folder has the rights of the one that holds it.
pub(super) fn inherit<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    parent: u32,
    folder: u32,
) -> Result<(), Stop<V::Error>> {
    if let Some(table) = transaction.get::<RightsTable>(&keys::rights(mailbox_id, parent))? {
        transaction.insert(keys::rights(mailbox_id, folder), &table);
    }
    Ok(())
}

pub(super) fn set_rights<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &SetRights,
) -> Result<FolderUpdated, Stop<V::Error>> {
    let mailbox_id = parse_mailbox_id(&command.mailbox_id)?;
    let action = super::flags::checked_action(command.action)?;
    check_entry(&command.identifier, command.rights)?;
    let mut mailbox = live_mailbox(transaction, mailbox_id)?;
    let folder = live_folder(transaction, mailbox_id, command.folder, 0)?;
    demand(transaction, mailbox_id, command.folder, rights::ADMINISTER)?;
    let key = keys::rights(mailbox_id, command.folder);
    let old = transaction.get::<RightsTable>(&key)?;
    let mut new = old.clone().unwrap_or_default();
    change(&mut new, &command.identifier, action, command.rights);
    limits::RIGHTS_PER_FOLDER.check(new.entries.len())?;
    let profile_key = keys::folder_profile(mailbox_id, command.folder);
    let mut profile = transaction.need::<FolderProfile>(&profile_key)?;
    if new == old.clone().unwrap_or_default() {
        return Ok(FolderUpdated { modseq: modseq_of(&profile, &folder) });
    }
    match old {
        Some(_) if new.entries.is_empty() => transaction.remove(&key),
        Some(_) => transaction.update(&key, &new),
        None => transaction.insert(key, &new),
    }
    profile.modseq = next_modseq(&mut mailbox)?;
    transaction.update(&profile_key, &profile);
    transaction.update(&keys::mailbox(mailbox_id), &mailbox);
    Ok(FolderUpdated { modseq: profile.modseq })
}

/// The mod-sequence of what is said about a folder.
pub(crate) fn modseq_of(profile: &FolderProfile, folder: &FolderRecord) -> u64 {
    if profile.modseq == 0 { folder.created_modseq } else { profile.modseq }
}

fn check_entry(identifier: &str, bits: u32) -> Result<(), Rejection> {
    limits::IDENTIFIER_BYTES.check(identifier.len())?;
    if matches!(identifier, "" | "-") || identifier.chars().any(char::is_control) {
        return Err(Rejection::new(Reason::FieldInvalid).about("identifier"));
    }
    if bits & !rights::ALL != 0 {
        return Err(Rejection::new(Reason::FieldInvalid)
            .about("rights")
            .with_value(u64::from(bits))
            .with_limit(u64::from(rights::ALL)));
    }
    Ok(())
}

fn change(table: &mut RightsTable, identifier: &str, action: FlagAction, bits: u32) {
    let found = table.entries.binary_search_by(|entry| entry.identifier.as_str().cmp(identifier));
    let before = found.map_or(0, |at| table.entries[at].rights);
    let rights = match action {
        FlagAction::Add => before | bits,
        FlagAction::Remove => before & !bits,
        FlagAction::Replace | FlagAction::Unspecified => bits,
    };
    match found {
        Ok(at) if rights == 0 => {
            table.entries.remove(at);
        }
        Ok(at) => table.entries[at].rights = rights,
        Err(_) if rights == 0 => {}
        Err(at) => {
            let entry = RightsEntry { identifier: identifier.to_string(), rights };
            table.entries.insert(at, entry);
        }
    }
}
