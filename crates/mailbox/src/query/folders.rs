//! What is asked about folders beside their counters: which changed, who may use them, which names
//! are subscribed without being folders.

use alloc::string::String;
use alloc::vec::Vec;

use dag_types::MailboxId;

use super::{list_folders, read};
use crate::keys::{self, table};
use crate::limits;
use crate::records::{GoneFolder, MailboxRecord, RightsTable, SubscribedName};
use crate::rights;
use crate::transaction::decode;
use crate::view::MailboxView;

/// A folder that was made, changed or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderChange {
    /// When.
    pub modseq: u64,
    /// Which.
    pub folder: u32,
    /// It is gone. Otherwise its name, place, use, subscription or rights are new.
    pub gone: bool,
}

/// What a reader gets who asks for changes of folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderChanges {
    /// There is no such mailbox.
    NotFound,
    /// Which folders went since then is not known any more: list all folders.
    TooOld {
        /// The oldest mod-sequence that can be asked for.
        floor: u64,
    },
    /// By mod-sequence; each folder once, at its latest change.
    Changes {
        /// At most as many as were asked for.
        changes: Vec<FolderChange>,
        /// Ask again from here.
        next: u64,
        /// There are more.
        more: bool,
    },
}

/// Folders that were made, changed or deleted after a mod-sequence. Looks at all live folders, of
/// which a mailbox has a bounded number, and at those that went since then.
pub fn folder_changes_since<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    since: u64,
    limit: usize,
) -> Result<FolderChanges, V::Error> {
    let Some(record) = read::<MailboxRecord, V>(view, &keys::mailbox(mailbox))? else {
        return Ok(FolderChanges::NotFound);
    };
    if since < record.folders_floor {
        return Ok(FolderChanges::TooOld { floor: record.folders_floor });
    }
    let limit = limit.max(1);
    let live = list_folders(view, mailbox, None, limits::FOLDERS_PER_MAILBOX.max as usize)?;
    let changed = live.items.iter().filter(|folder| folder.profile_modseq > since);
    let mut changes: Vec<FolderChange> = changed
        .map(|folder| FolderChange {
            modseq: folder.profile_modseq,
            folder: folder.id,
            gone: false,
        })
        .collect();
    let from = keys::gone_folder(mailbox, since.saturating_add(1), 0);
    let to = keys::end_of(&keys::of_mailbox(table::GONE_FOLDER, mailbox));
    for (key, value) in view.scan(&from, &to, limit + 1)? {
        let GoneFolder { .. } = decode(&key, &value)?;
        let (modseq, folder) = keys::parse_gone_folder(&key);
        changes.push(FolderChange { modseq, folder, gone: true });
    }
    changes.sort_unstable_by_key(|change| change.modseq);
    let more = changes.len() > limit;
    changes.truncate(limit);
    let last = changes.last().map(|change| change.modseq).filter(|_| more);
    let next = last.unwrap_or(record.highest_modseq);
    Ok(FolderChanges::Changes { changes, next, more })
}

/// What somebody may do with a folder: bits of [`crate::rights`]. An actor without identifiers, and
/// the mailbox's owner, may do everything.
pub fn rights_of<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    folder: u32,
    actor: &[String],
) -> Result<u32, V::Error> {
    let record: MailboxRecord = read(view, &keys::mailbox(mailbox))?.unwrap_or_default();
    let owner = record.settings().owner;
    if actor.is_empty() || !owner.is_empty() && actor.contains(&owner) {
        return Ok(rights::ALL);
    }
    Ok(rights::effective(&rights_table(view, mailbox, folder)?, actor))
}

/// All rights on a folder (GETACL, RFC 4314 3.3).
pub fn rights_table<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    folder: u32,
) -> Result<RightsTable, V::Error> {
    Ok(read(view, &keys::rights(mailbox, folder))?.unwrap_or_default())
}

/// Subscribed names that are no folders of the mailbox, sorted; there are never more than 1,000.
pub fn list_subscribed_names<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
) -> Result<Vec<String>, V::Error> {
    let prefix = keys::of_mailbox(table::SUBSCRIBED_NAME, mailbox);
    let most = limits::SUBSCRIBED_NAMES.max as usize;
    let mut names = Vec::new();
    for (key, value) in view.scan(&prefix, &keys::end_of(&prefix), most)? {
        names.push(decode::<SubscribedName>(&key, &value)?.path);
    }
    names.sort_unstable();
    Ok(names)
}
