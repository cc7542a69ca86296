//! Subscriptions of names that are no folders: the store never takes a name off the list by itself,
//! even when its folder is deleted (RFC 9051 6.3.7).

use alloc::string::String;

use dag_types::MailboxId;

use super::folder::{ROOT, normalise_name};
use super::{access, live_mailbox, next_modseq, parse_mailbox_id};
use crate::command::SubscribeName;
use crate::records::{FolderName, FolderProfile, MailboxRecord, SubscribedName};
use crate::response::{NameSubscribed, Reason, Rejection};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{keys, limits};

pub(super) fn subscribe<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &SubscribeName,
) -> Result<NameSubscribed, Stop<V::Error>> {
    let id = parse_mailbox_id(&command.mailbox_id)?;
    check_path(&command.path)?;
    let mut mailbox = live_mailbox(transaction, id)?;
    access::demand_owner(transaction, id)?;
    let before = mailbox.highest_modseq;
    match find(transaction, id, &command.path)? {
        Some(folder) => {
            let key = keys::folder_profile(id, folder);
            let mut profile = transaction.need::<FolderProfile>(&key)?;
            if profile.subscribed != command.subscribed {
                profile.subscribed = command.subscribed;
                profile.modseq = next_modseq(&mut mailbox)?;
                transaction.update(&key, &profile);
            }
            set(transaction, id, &mut mailbox, &command.path, false)?;
        }
        None => {
            if set(transaction, id, &mut mailbox, &command.path, command.subscribed)? {
                next_modseq(&mut mailbox)?;
            }
        }
    }
    if mailbox.highest_modseq != before {
        transaction.update(&keys::mailbox(id), &mailbox);
    }
    Ok(NameSubscribed { modseq: mailbox.highest_modseq })
}

fn check_path(path: &str) -> Result<(), Rejection> {
    limits::FOLDER_PATH_BYTES.check(path.len())?;
    if path.is_empty() || path.chars().any(char::is_control) {
        return Err(Rejection::new(Reason::FolderNameInvalid).about("path"));
    }
    Ok(())
}

/// The folder that has a path.
fn find<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    path: &str,
) -> Result<Option<u32>, Stop<V::Error>> {
    let mut folder = ROOT;
    for name in path.split('/') {
        let key = keys::folder_name(id, folder, &normalise_name(folder, name));
        match transaction.get::<FolderName>(&key)? {
            Some(found) => folder = found.folder,
            None => return Ok(None),
        }
    }
    Ok(Some(folder))
}

/// Puts a name on the list or takes it off; tells whether that changed anything.
fn set<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    mailbox: &mut MailboxRecord,
    path: &str,
    subscribed: bool,
) -> Result<bool, Stop<V::Error>> {
    let key = keys::subscribed_name(id, path);
    let listed = transaction.get::<SubscribedName>(&key)?.is_some();
    if listed == subscribed {
        return Ok(false);
    }
    if subscribed {
        limits::SUBSCRIBED_NAMES.check(mailbox.subscribed_names as usize + 1)?;
        transaction.insert(key, &SubscribedName { path: path.into() });
        mailbox.subscribed_names += 1;
    } else {
        transaction.remove(&key);
        mailbox.subscribed_names -= 1;
    }
    Ok(true)
}

/// The path of a folder of this name below these folders, nearest first.
fn path_of(above: &[(u32, FolderProfile)], name: &str) -> String {
    let mut path = String::new();
    for (_, profile) in above.iter().rev() {
        path.push_str(&profile.name);
        path.push('/');
    }
    path.push_str(name);
    path
}

/// A folder comes to a name: takes the name off the list, and tells whether it stood there. The
/// caller writes the mailbox's record.
pub(super) fn take_name<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    mailbox: &mut MailboxRecord,
    above: &[(u32, FolderProfile)],
    name: &str,
) -> Result<bool, Stop<V::Error>> {
    match mailbox.subscribed_names {
        0 => Ok(false),
        _ => set(transaction, id, mailbox, &path_of(above, name), false),
    }
}

/// A subscribed folder goes: its name stays subscribed. The caller writes the mailbox's record.
pub(super) fn leave_name<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    mailbox: &mut MailboxRecord,
    above: &[(u32, FolderProfile)],
    name: &str,
) -> Result<(), Stop<V::Error>> {
    set(transaction, id, mailbox, &path_of(above, name), true).map(|_| ())
}
