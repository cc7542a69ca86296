//! Folders: a tree of names over ids that never change.

use alloc::string::{String, ToString};

use dag_types::MailboxId;

use alloc::vec::Vec;

use super::{access, exhausted, live_mailbox, next_modseq, parse_mailbox_id, subscription};
use crate::command::CreateFolder;
use crate::records::{FolderName, FolderProfile, FolderRecord, MailboxRecord};
use crate::response::{FolderCreated, Reason, Rejection};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{keys, limits, rights, special_use};

/// The parent of top-level folders. Not a folder itself.
pub(crate) const ROOT: u32 = 0;
/// Every mailbox's first folder.
pub(crate) const INBOX: u32 = 1;
pub(crate) const INBOX_NAME: &str = "INBOX";

pub(super) fn create<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &CreateFolder,
) -> Result<FolderCreated, Stop<V::Error>> {
    let id = parse_mailbox_id(&command.mailbox_id)?;
    let mut mailbox = live_mailbox(transaction, id)?;
    special_use::check(command.special_use)?;
    demand_children(transaction, id, command.parent)?;
    let new =
        NewFolder { parent: command.parent, name: &command.name, special_use: command.special_use };
    let created = make_checked(transaction, id, &mut mailbox, &new)?;
    transaction.update(&keys::mailbox(id), &mailbox);
    Ok(created)
}

/// A folder that somebody asks for.
pub(super) struct NewFolder<'c> {
    pub(super) parent: u32,
    pub(super) name: &'c str,
    pub(super) special_use: u32,
}

/// Whether folders may be made below this one; below the root, only the owner may.
pub(super) fn demand_children<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    parent: u32,
) -> Result<(), Stop<V::Error>> {
    match parent {
        ROOT => access::demand_owner(transaction, id),
        parent => access::demand(transaction, id, parent, rights::CREATE).map(|_| ()),
    }
}

/// Makes a folder, if it may be. The caller writes the mailbox's record.
pub(super) fn make_checked<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    mailbox: &mut MailboxRecord,
    new: &NewFolder<'_>,
) -> Result<FolderCreated, Stop<V::Error>> {
    check_name(new.name)?;
    limits::FOLDERS_PER_MAILBOX.check(mailbox.folders as usize + 1)?;
    check_folder_quota(mailbox)?;
    let above = ancestors(transaction, id, new.parent)?;
    limits::FOLDER_DEPTH.check(above.len() + 1)?;
    let name = normalise_name(new.parent, new.name);
    refuse_taken_name(transaction, id, new.parent, &name)?;
    let subscribed = subscription::take_name(transaction, id, mailbox, &above, &name)?;
    let created = make(transaction, id, mailbox, new.parent, &name)?;
    access::inherit(transaction, id, new.parent, created.folder)?;
    if new.special_use != special_use::NONE {
        claim_special_use(transaction, id, new.special_use, created.folder)?;
    }
    if subscribed || new.special_use != special_use::NONE {
        let special_use = new.special_use;
        let profile =
            FolderProfile { parent: new.parent, name, special_use, subscribed, modseq: 0 };
        transaction.update(&keys::folder_profile(id, created.folder), &profile);
    }
    Ok(created)
}

/// RFC 9208 5.3, MAILBOX.
fn check_folder_quota(mailbox: &MailboxRecord) -> Result<(), Rejection> {
    let quota = mailbox.settings.as_ref().map_or(0, |settings| settings.quota_folders);
    if quota == 0 || mailbox.folders < quota {
        return Ok(());
    }
    Err(Rejection::new(Reason::OverQuota)
        .about("folders")
        .with_value(u64::from(mailbox.folders) + 1)
        .with_limit(u64::from(quota)))
}

pub(super) fn refuse_taken_name<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    parent: u32,
    name: &str,
) -> Result<(), Stop<V::Error>> {
    match transaction.get::<FolderName>(&keys::folder_name(id, parent, name))? {
        None => Ok(()),
        Some(_) => Err(Rejection::new(Reason::FolderExists).about(name).into()),
    }
}

/// Gives a folder a special use that no other has (RFC 6154 3).
pub(super) fn claim_special_use<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    special_use: u32,
    folder: u32,
) -> Result<(), Stop<V::Error>> {
    let key = keys::special_use(id, special_use);
    if let Some(other) = transaction.get::<FolderName>(&key)? {
        return Err(Rejection::new(Reason::SpecialUseTaken)
            .about(other.folder.to_string())
            .with_value(u64::from(special_use))
            .into());
    }
    transaction.insert(key, &FolderName { folder });
    Ok(())
}

/// Makes a folder whose name is free. The caller writes the mailbox's record.
pub(super) fn make<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    mailbox: &mut MailboxRecord,
    parent: u32,
    name: &str,
) -> Result<FolderCreated, Stop<V::Error>> {
    let uid_validity = next_uid_validity(&mut transaction.database.last_uid_validity)?;
    if mailbox.last_folder == u32::MAX {
        return Err(exhausted("folder", u64::from(u32::MAX)).into());
    }
    mailbox.last_folder += 1;
    mailbox.folders += 1;
    let folder = mailbox.last_folder;
    let modseq = next_modseq(mailbox)?;
    let record = FolderRecord {
        uid_validity,
        uid_next: 1,
        highest_modseq: modseq,
        created_modseq: modseq,
        ..FolderRecord::default()
    };
    transaction.insert(keys::folder(id, folder), &record);
    let profile = FolderProfile { parent, name: name.to_string(), ..FolderProfile::default() };
    transaction.insert(keys::folder_profile(id, folder), &profile);
    transaction.insert(keys::folder_name(id, parent, name), &FolderName { folder });
    Ok(FolderCreated { folder, uid_validity, modseq })
}

fn next_uid_validity(last: &mut u32) -> Result<u32, Rejection> {
    *last = last.checked_add(1).ok_or_else(|| exhausted("uid_validity", u64::from(u32::MAX)))?;
    Ok(*last)
}

/// One level of a path: `/` separates levels, and `.` and `..` would lead astray whoever exports
/// folders to files.
pub(super) fn check_name(name: &str) -> Result<(), Rejection> {
    limits::FOLDER_NAME_BYTES.check(name.len())?;
    let unusable = matches!(name, "" | "." | "..")
        || name.chars().any(|letter| letter == '/' || letter.is_control());
    if unusable {
        return Err(Rejection::new(Reason::FolderNameInvalid).about(name.to_string()));
    }
    Ok(())
}

/// The name as it is stored and compared: INBOX at the top level is the same in any case
/// (RFC 9051 5.1), all others differ by case.
pub(crate) fn normalise_name(parent: u32, name: &str) -> String {
    if parent == ROOT && name.eq_ignore_ascii_case(INBOX_NAME) {
        return INBOX_NAME.to_string();
    }
    name.to_string()
}

/// The folders from this one up to the top level, itself first; it must exist. None for the root.
pub(super) fn ancestors<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    folder: u32,
) -> Result<Vec<(u32, FolderProfile)>, Stop<V::Error>> {
    let mut all = Vec::new();
    let mut next = folder;
    while next != ROOT {
        let key = keys::folder_profile(id, next);
        let Some(profile) = transaction.get::<FolderProfile>(&key)? else {
            return Err(Rejection::new(Reason::FolderNotFound).about(next.to_string()).into());
        };
        let above = profile.parent;
        all.push((next, profile));
        next = above;
    }
    Ok(all)
}
