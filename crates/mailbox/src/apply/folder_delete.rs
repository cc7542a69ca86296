//! A folder is deleted: for everybody at once, its rows some at a time (RFC 9051 6.3.5).
//!
//! The command takes the folder out of the tables of live folders, frees its name, its use and its
//! quota, and leaves its counters among the dead. Sweeps then expunge its messages: into the
//! recoverable items, where the mailbox keeps those.

use alloc::string::ToString;

use dag_types::MailboxId;

use super::folder::{INBOX, ancestors};
use super::folder_update::{has_children, release_special_use};
use super::message::change_of;
use super::{
    access, email, items, live_folder, live_mailbox, next_modseq, parse_mailbox_id, subscription,
};
use crate::command::DeleteFolder;
use crate::keys::{self, Due, table};
use crate::records::{
    ChangeRecord, FolderName, FolderProfile, FolderRecord, GoneFolder, KeywordTable, MailboxRecord,
    Marker, MessageRecord, Placement, RightsTable,
};
use crate::response::{FolderDeleted, Reason, Rejection, Swept};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{limits, rights};

pub(super) fn delete<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &DeleteFolder,
) -> Result<FolderDeleted, Stop<V::Error>> {
    let id = parse_mailbox_id(&command.mailbox_id)?;
    let mut mailbox = live_mailbox(transaction, id)?;
    let folder_id = command.folder;
    let folder = live_folder(transaction, id, folder_id, command.expected_uid_validity)?;
    access::demand(transaction, id, folder_id, rights::DELETE_FOLDER)?;
    if folder_id == INBOX {
        return Err(Rejection::new(Reason::FolderProtected).about("INBOX").into());
    }
    if has_children(transaction, id, folder_id)? {
        return Err(Rejection::new(Reason::FolderHasChildren).about(folder_id.to_string()).into());
    }
    items::check_room(&mailbox, folder.size_bytes)?;
    let modseq = next_modseq(&mut mailbox)?;
    mailbox.folders -= 1;
    mailbox.messages -= u64::from(folder.exists);
    mailbox.size_bytes -= folder.size_bytes;
    forget_profile(transaction, id, &mut mailbox, folder_id)?;
    transaction.update(&keys::mailbox(id), &mailbox);
    bury(transaction, id, folder_id, &folder, modseq);
    Ok(FolderDeleted { modseq, messages: folder.exists })
}

/// Name, use and rights go; a subscription stays with the name (RFC 9051 6.3.7).
fn forget_profile<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    mailbox: &mut MailboxRecord,
    folder: u32,
) -> Result<(), Stop<V::Error>> {
    let key = keys::folder_profile(id, folder);
    let profile = transaction.need::<FolderProfile>(&key)?;
    if profile.subscribed {
        let above = ancestors(transaction, id, profile.parent)?;
        subscription::leave_name(transaction, id, mailbox, &above, &profile.name)?;
    }
    transaction.remove(&key);
    let name_key = keys::folder_name(id, profile.parent, &profile.name);
    transaction.need::<FolderName>(&name_key)?;
    transaction.remove(&name_key);
    release_special_use(transaction, id, profile.special_use)?;
    let rights_key = keys::rights(id, folder);
    if transaction.get::<RightsTable>(&rights_key)?.is_some() {
        transaction.remove(&rights_key);
    }
    Ok(())
}

fn bury<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    folder_id: u32,
    folder: &FolderRecord,
    modseq: u64,
) {
    transaction.remove(&keys::folder(id, folder_id));
    transaction.insert(keys::dead_folder(id, folder_id), folder);
    let now_ms = transaction.now_ms();
    transaction.insert(keys::due(now_ms, &Due::DeadFolder(id, folder_id)), &Marker {});
    let gone = GoneFolder { created_modseq: folder.created_modseq };
    transaction.insert(keys::gone_folder(id, modseq, folder_id), &gone);
    let due_ms = now_ms.saturating_add(limits::VANISHED_KEPT_MS);
    let what = Due::GoneFolder(id, modseq, folder_id);
    transaction.insert(keys::due(due_ms, &what), &Marker {});
}

/// Removes some of a dead folder's rows; gives how many, and whether all are gone.
pub(super) fn sweep<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    folder: u32,
    budget: usize,
    swept: &mut Swept,
) -> Result<(usize, bool), Stop<V::Error>> {
    let prefix = keys::of_folder(table::MESSAGE, id, folder);
    let messages = transaction.scan::<MessageRecord>(&prefix, &keys::end_of(&prefix), budget)?;
    let expunged = messages.len();
    let mailbox_key = keys::mailbox(id);
    let mut mailbox = transaction.need::<MailboxRecord>(&mailbox_key)?;
    let keep = items::keeps(&mailbox.settings(), false)?;
    for (key, message) in messages {
        let uid = keys::last_u32(&key);
        transaction.remove(&key);
        let change_key = keys::change(id, folder, message.modseq, uid);
        transaction.remove_known(change_key, &change_of(&message));
        if keep {
            items::keep(transaction, id, &mut mailbox, folder, uid, &message)?;
        } else {
            email::leave(transaction, id, message.email, Placement { folder, uid })?;
        }
    }
    transaction.update(&mailbox_key, &mailbox);
    swept.messages += expunged as u32;
    let left = budget - expunged;
    let prefix = keys::of_folder(table::CHANGE, id, folder);
    let changes = transaction.scan::<ChangeRecord>(&prefix, &keys::end_of(&prefix), left)?;
    let forgotten = changes.len();
    for (key, _) in changes {
        transaction.remove(&key);
    }
    let finished = expunged + forgotten < budget;
    if finished {
        finish(transaction, id, folder)?;
        swept.folders += 1;
    }
    Ok((expunged + forgotten, finished))
}

fn finish<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    folder: u32,
) -> Result<(), Stop<V::Error>> {
    let key = keys::dead_folder(id, folder);
    transaction.need::<FolderRecord>(&key)?;
    transaction.remove(&key);
    let key = keys::keywords(id, folder);
    if transaction.get::<KeywordTable>(&key)?.is_some() {
        transaction.remove(&key);
    }
    Ok(())
}
