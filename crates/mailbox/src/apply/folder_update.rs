//! A folder gets another name, place, use or subscription; its id and its messages stay
//! (RFC 9051 6.3.6, RFC 8474 4).

use alloc::string::ToString;
use alloc::vec::Vec;

use dag_types::MailboxId;

use super::folder::{
    INBOX, ROOT, ancestors, check_name, claim_special_use, demand_children, normalise_name,
    refuse_taken_name,
};
use super::{access, live_folder, live_mailbox, next_modseq, parse_mailbox_id, subscription};
use crate::command::UpdateFolder;
use crate::keys::{self, table};
use crate::records::{FolderName, FolderProfile, MailboxRecord};
use crate::response::{FolderUpdated, Reason, Rejection};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{limits, rights, special_use};

pub(super) fn update<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &UpdateFolder,
) -> Result<FolderUpdated, Stop<V::Error>> {
    let id = parse_mailbox_id(&command.mailbox_id)?;
    let mut mailbox = live_mailbox(transaction, id)?;
    let folder = live_folder(transaction, id, command.folder, 0)?;
    demand_rights(transaction, id, command)?;
    let key = keys::folder_profile(id, command.folder);
    let old = transaction.need::<FolderProfile>(&key)?;
    let now = access::modseq_of(&old, &folder);
    check_expected(command.expected_modseq, now, command.folder)?;
    let mut new = old.clone();
    change_use(transaction, id, command, &mut new)?;
    new.subscribed = command.subscribed.unwrap_or(old.subscribed);
    change_place(transaction, id, &mut mailbox, command, &old, &mut new)?;
    if new == old {
        return Ok(FolderUpdated { modseq: now });
    }
    new.modseq = next_modseq(&mut mailbox)?;
    transaction.update(&key, &new);
    transaction.update(&keys::mailbox(id), &mailbox);
    Ok(FolderUpdated { modseq: new.modseq })
}

/// To rename needs `x` on the folder and `k` where it goes (RFC 4314 4, RENAME); its use is the
/// administrator's matter, its subscription the owner's.
fn demand_rights<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    command: &UpdateFolder,
) -> Result<(), Stop<V::Error>> {
    let renames = command.name.is_some() || command.parent.is_some();
    let mut needed = 0;
    needed |= if renames { rights::DELETE_FOLDER } else { 0 };
    needed |= if command.special_use.is_some() { rights::ADMINISTER } else { 0 };
    access::demand(transaction, id, command.folder, needed)?;
    if command.subscribed.is_some() {
        access::demand_owner(transaction, id)?;
    }
    if renames {
        let profile =
            transaction.need::<FolderProfile>(&keys::folder_profile(id, command.folder))?;
        demand_children(transaction, id, command.parent.unwrap_or(profile.parent))?;
    }
    Ok(())
}

pub(super) fn check_expected(
    expected: Option<u64>,
    now: u64,
    subject: impl ToString,
) -> Result<(), Rejection> {
    match expected {
        Some(expected) if expected != now => Err(Rejection::new(Reason::PreconditionFailed)
            .about(subject.to_string())
            .with_value(expected)
            .with_limit(now)),
        _ => Ok(()),
    }
}

fn change_use<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    command: &UpdateFolder,
    profile: &mut FolderProfile,
) -> Result<(), Stop<V::Error>> {
    let Some(wanted) = command.special_use.filter(|wanted| *wanted != profile.special_use) else {
        return Ok(());
    };
    special_use::check(wanted)?;
    if command.folder == INBOX {
        return Err(Rejection::new(Reason::FolderProtected).about("special_use").into());
    }
    release_special_use(transaction, id, profile.special_use)?;
    if wanted != special_use::NONE {
        claim_special_use(transaction, id, wanted, command.folder)?;
    }
    profile.special_use = wanted;
    Ok(())
}

/// Frees a special use that a folder has.
pub(super) fn release_special_use<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    special_use: u32,
) -> Result<(), Stop<V::Error>> {
    if special_use != special_use::NONE {
        let key = keys::special_use(id, special_use);
        transaction.need::<FolderName>(&key)?;
        transaction.remove(&key);
    }
    Ok(())
}

fn change_place<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    mailbox: &mut MailboxRecord,
    command: &UpdateFolder,
    old: &FolderProfile,
    new: &mut FolderProfile,
) -> Result<(), Stop<V::Error>> {
    let parent = command.parent.unwrap_or(old.parent);
    let name = command.name.as_deref().unwrap_or(&old.name);
    if parent == old.parent && name == old.name {
        return Ok(());
    }
    if command.folder == INBOX {
        return Err(Rejection::new(Reason::FolderProtected).about("INBOX").into());
    }
    check_name(name)?;
    let name = normalise_name(parent, name);
    let above = ancestors(transaction, id, parent)?;
    if above.iter().any(|(folder, _)| *folder == command.folder) {
        return Err(Rejection::new(Reason::FolderLoop).about(parent.to_string()).into());
    }
    if parent != old.parent {
        limits::FOLDER_DEPTH.check(above.len() + height(transaction, id, command.folder)?)?;
    }
    if (parent, name.as_str()) != (old.parent, old.name.as_str()) {
        refuse_taken_name(transaction, id, parent, &name)?;
    }
    let old_key = keys::folder_name(id, old.parent, &old.name);
    transaction.need::<FolderName>(&old_key)?;
    transaction.remove(&old_key);
    let named = FolderName { folder: command.folder };
    transaction.insert(keys::folder_name(id, parent, &name), &named);
    new.subscribed |= subscription::take_name(transaction, id, mailbox, &above, &name)?;
    (new.parent, new.name) = (parent, name);
    Ok(())
}

/// Levels of a folder and what is below it: 1 for a folder alone. A mailbox has few enough folders
/// to look at all.
fn height<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    folder: u32,
) -> Result<usize, Stop<V::Error>> {
    let most = limits::FOLDERS_PER_MAILBOX.max as usize;
    let mut level = alloc::vec![folder];
    let mut height = 0;
    while !level.is_empty() && height <= limits::FOLDER_DEPTH.max as usize {
        height += 1;
        let mut below = Vec::new();
        for parent in level {
            let prefix = keys::of_folder(table::FOLDER_NAME, id, parent);
            let rows = transaction.scan::<FolderName>(&prefix, &keys::end_of(&prefix), most)?;
            below.extend(rows.into_iter().map(|(_, child)| child.folder));
        }
        level = below;
    }
    Ok(height)
}

/// Whether a folder has folders below it.
pub(super) fn has_children<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    folder: u32,
) -> Result<bool, Stop<V::Error>> {
    assert_ne!(folder, ROOT, "the root is no folder");
    let prefix = keys::of_folder(table::FOLDER_NAME, id, folder);
    Ok(!transaction.scan::<FolderName>(&prefix, &keys::end_of(&prefix), 1)?.is_empty())
}
