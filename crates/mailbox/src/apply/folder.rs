//! Folders: a tree of names over ids that never change.

use alloc::string::{String, ToString};

use dag_types::MailboxId;

use super::{exhausted, live_mailbox, next_modseq, parse_mailbox_id};
use crate::command::CreateFolder;
use crate::records::{FolderName, FolderProfile, FolderRecord, MailboxRecord};
use crate::response::{FolderCreated, Reason, Rejection};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{keys, limits};

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
    check_name(&command.name)?;
    limits::FOLDERS_PER_MAILBOX.check(mailbox.folders as usize + 1)?;
    check_depth(transaction, id, command.parent)?;
    let name = normalise_name(command.parent, &command.name);
    if transaction.get::<FolderName>(&keys::folder_name(id, command.parent, &name))?.is_some() {
        return Err(Rejection::new(Reason::FolderExists).about(name).into());
    }
    let created = make(transaction, id, &mut mailbox, command.parent, &name)?;
    transaction.update(&keys::mailbox(id), &mailbox);
    Ok(created)
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
    let profile = FolderProfile { parent, name: name.to_string() };
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
fn check_name(name: &str) -> Result<(), Rejection> {
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

/// Walks from the parent to the root: it must exist, and be near enough.
fn check_depth<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    parent: u32,
) -> Result<(), Stop<V::Error>> {
    let mut depth = 1;
    let mut above = parent;
    while above != ROOT {
        depth += 1;
        limits::FOLDER_DEPTH.check(depth)?;
        let key = keys::folder_profile(id, above);
        let Some(profile) = transaction.get::<FolderProfile>(&key)? else {
            return Err(Rejection::new(Reason::FolderNotFound).about(above.to_string()).into());
        };
        above = profile.parent;
    }
    Ok(())
}
