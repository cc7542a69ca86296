//! What readers ask of a snapshot: pages of mailboxes, folders, messages and changes.
//!
//! Queries are not replicated and write nothing. They run over the same view as `apply`, usually a
//! snapshot of the store, and each does a bounded amount of work: what is longer comes in pages,
//! and a page says where the next one begins.

mod batches;
mod changes;
mod folders;
mod items;
mod messages;
mod search;
mod trace;
mod verify;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{MailboxId, Millis};

pub use batches::{Batch, next_batch};
pub use changes::{Change, ChangeKind, Changes, ChangesSince, FeedPosition, changes_since};
pub use folders::{
    FolderChange, FolderChanges, folder_changes_since, list_subscribed_names, rights_of,
    rights_table,
};
pub use items::{Item, get_item, list_items};
pub use messages::{
    BodyRow, Email, Message, MessageFilter, body_rows, find_delivery, get_email, get_message,
    list_messages,
};
pub use search::{Search, search_messages};
pub use trace::{TraceFilter, TracePosition, Traced, search_trace};
pub use verify::{MailboxDigest, database_digest, mailbox_digests, recompute_digest};

use crate::apply::{INBOX, modseq_of, normalise_name};
use crate::keys::{self, table};
use crate::records::{
    DatabaseRecord, FolderName, FolderProfile, FolderRecord, MailboxRecord, MailboxSettings,
};
use crate::transaction::decode;
use crate::view::{Fault, MailboxView};
use crate::{limits, special_use};

/// Some items, and where the next page begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T, K> {
    /// In the order of their keys.
    pub items: Vec<T>,
    /// Give it as `after` for the next page; none when this was the last. A page may be short, or
    /// even empty, and not be the last.
    pub next: Option<K>,
}

/// The database as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Database {
    /// Mailboxes that are not deleted.
    pub mailboxes: u64,
    /// The latest stamp of a proposer, since 1970.
    pub stamp: Millis,
    /// The UIDVALIDITY given out last.
    pub last_uid_validity: u32,
}

/// A mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Its id.
    pub id: MailboxId,
    /// What it receives for, in lower case, sorted. Only in [`get_mailbox`].
    pub addresses: Vec<String>,
    /// Its latest change.
    pub highest_modseq: u64,
    /// Folders.
    pub folders: u32,
    /// Messages in all folders.
    pub messages: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// When it was made, since 1970.
    pub created: Millis,
    /// When it was deleted, since 1970.
    pub deleted: Option<Millis>,
    /// What its operator decided.
    pub settings: MailboxSettings,
    /// The mod-sequence at which that changed last.
    pub settings_modseq: u64,
    /// Recoverable items.
    pub items: u64,
    /// Their bytes.
    pub items_bytes: u64,
}

/// A folder with its counters: what SELECT and STATUS need (RFC 9051 6.3.2, 6.3.11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Stable for its life (MAILBOXID, RFC 8474 4). INBOX is 1.
    pub id: u32,
    /// 0 is the root.
    pub parent: u32,
    /// One level, as shown.
    pub name: String,
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDNEXT.
    pub uid_next: u32,
    /// HIGHESTMODSEQ.
    pub highest_modseq: u64,
    /// What vanished at or below it is not known any more.
    pub vanished_floor: u64,
    /// Messages.
    pub exists: u32,
    /// Without `\Seen`.
    pub unseen: u32,
    /// With `\Deleted`.
    pub deleted: u32,
    /// Bytes of its messages.
    pub size_bytes: u64,
    /// A number of [`crate::special_use`].
    pub special_use: u32,
    /// The owner's subscription.
    pub subscribed: bool,
    /// The mod-sequence at which its name, place, use, subscription or rights changed last.
    pub profile_modseq: u64,
}

/// The database's counters.
pub fn get_database<V: MailboxView>(view: &V) -> Result<Database, V::Error> {
    let record: DatabaseRecord = read(view, &keys::database())?.unwrap_or_default();
    Ok(Database {
        mailboxes: record.mailboxes,
        stamp: Millis(record.stamp_ms),
        last_uid_validity: record.last_uid_validity,
    })
}

/// A mailbox with its addresses, deleted or not.
pub fn get_mailbox<V: MailboxView>(view: &V, id: MailboxId) -> Result<Option<Mailbox>, V::Error> {
    let Some(record) = read::<MailboxRecord, V>(view, &keys::mailbox(id))? else {
        return Ok(None);
    };
    let prefix = keys::of_mailbox(table::ADDRESS, id);
    let most = limits::ADDRESSES_PER_MAILBOX.max as usize;
    let rows = view.scan(&prefix, &keys::end_of(&prefix), most)?;
    let mut addresses = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        let address = core::str::from_utf8(&key[prefix.len()..])
            .map_err(|error| Fault::damaged(&key, error.to_string()))?;
        addresses.push(address.to_string());
    }
    Ok(Some(Mailbox { addresses, ..mailbox_of(id, &record) }))
}

/// Mailboxes in the order of their ids, deleted ones too, without their addresses.
pub fn list_mailboxes<V: MailboxView>(
    view: &V,
    after: Option<MailboxId>,
    limit: usize,
) -> Result<Page<Mailbox, MailboxId>, V::Error> {
    let prefix = Bytes::from_static(&[table::MAILBOX]);
    let from = after.map_or(prefix.clone(), |id| keys::after(&keys::mailbox(id)));
    let rows = view.scan(&from, &keys::end_of(&prefix), limit)?;
    let full = rows.len() == limit;
    let mut items = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let id = MailboxId::from_slice(&key[1..])
            .ok_or_else(|| Fault::damaged(&key, "its key is not a mailbox's id"))?;
        items.push(mailbox_of(id, &decode(&key, &value)?));
    }
    let next = if full { items.last().map(|mailbox| mailbox.id) } else { None };
    Ok(Page { items, next })
}

fn mailbox_of(id: MailboxId, record: &MailboxRecord) -> Mailbox {
    Mailbox {
        id,
        addresses: Vec::new(),
        highest_modseq: record.highest_modseq,
        folders: record.folders,
        messages: record.messages,
        size_bytes: record.size_bytes,
        created: Millis(record.created_ms),
        deleted: record.deleted_ms.map(Millis),
        settings: record.settings(),
        settings_modseq: record.settings_modseq,
        items: record.items,
        items_bytes: record.items_bytes,
    }
}

/// One folder.
pub fn get_folder<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    folder: u32,
) -> Result<Option<Folder>, V::Error> {
    let Some(counters) = read::<FolderRecord, V>(view, &keys::folder(mailbox, folder))? else {
        return Ok(None);
    };
    let key = keys::folder_profile(mailbox, folder);
    let profile = need(&key, read(view, &key)?)?;
    Ok(Some(folder_of(folder, counters, profile)))
}

/// The folder of that name below that parent (0 is the root); INBOX in any case.
pub fn find_folder<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    parent: u32,
    name: &str,
) -> Result<Option<Folder>, V::Error> {
    let key = keys::folder_name(mailbox, parent, &normalise_name(parent, name));
    match read::<FolderName, V>(view, &key)? {
        Some(found) => get_folder(view, mailbox, found.folder),
        None => Ok(None),
    }
}

/// Folders in the order of their ids.
pub fn list_folders<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    after: Option<u32>,
    limit: usize,
) -> Result<Page<Folder, u32>, V::Error> {
    let first = after.map_or(Some(0), |folder| folder.checked_add(1));
    let Some(first) = first else {
        return Ok(Page { items: Vec::new(), next: None });
    };
    let counters = view.scan(
        &keys::folder(mailbox, first),
        &keys::end_of(&keys::of_mailbox(table::FOLDER, mailbox)),
        limit,
    )?;
    let profiles = view.scan(
        &keys::folder_profile(mailbox, first),
        &keys::end_of(&keys::of_mailbox(table::FOLDER_PROFILE, mailbox)),
        limit,
    )?;
    let full = counters.len() == limit;
    let mut items = Vec::with_capacity(counters.len());
    let mut profiles = profiles.into_iter();
    for (key, value) in counters {
        let id = keys::last_u32(&key);
        let profile_key = keys::folder_profile(mailbox, id);
        let profile = profiles.next().filter(|(key, _)| *key == profile_key);
        let (_, profile) = need(&profile_key, profile)?;
        items.push(folder_of(id, decode(&key, &value)?, decode(&profile_key, &profile)?));
    }
    let next = if full { items.last().map(|folder| folder.id) } else { None };
    Ok(Page { items, next })
}

fn folder_of(id: u32, counters: FolderRecord, profile: FolderProfile) -> Folder {
    let special_use = if id == INBOX { special_use::INBOX } else { profile.special_use };
    Folder {
        special_use,
        subscribed: profile.subscribed,
        profile_modseq: modseq_of(&profile, &counters),
        id,
        parent: profile.parent,
        name: profile.name,
        uid_validity: counters.uid_validity,
        uid_next: counters.uid_next,
        highest_modseq: counters.highest_modseq,
        vanished_floor: counters.vanished_floor,
        exists: counters.exists,
        unseen: counters.unseen,
        deleted: counters.deleted,
        size_bytes: counters.size_bytes,
    }
}

/// Reads a record.
fn read<R: prost::Message + Default, V: MailboxView>(
    view: &V,
    key: &Bytes,
) -> Result<Option<R>, V::Error> {
    match view.get(key)? {
        Some(value) => Ok(Some(decode(key, &value)?)),
        None => Ok(None),
    }
}

/// What another record promises.
fn need<T>(key: &[u8], found: Option<T>) -> Result<T, Fault> {
    found.ok_or_else(|| Fault::damaged(key, "another record names it, and it is not there"))
}
