//! Recoverable items: what was expunged and can be restored.

use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{MailboxId, Millis};

use super::{Page, read};
use crate::keys::{self, table};
use crate::records::{ItemRecord, MailboxRecord};
use crate::transaction::decode;
use crate::view::MailboxView;

/// An expunged message that can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its number in the mailbox; greater ones were expunged later.
    pub id: u64,
    /// EMAILID.
    pub email_id: u64,
    /// The folder it was in, which may be gone.
    pub folder: u32,
    /// Its UID there.
    pub uid: u32,
    /// Bits of [`crate::flags`].
    pub system_flags: u32,
    /// In lower case.
    pub keywords: Vec<String>,
    /// RFC822.SIZE.
    pub size: u64,
    /// When it was expunged, since 1970.
    pub deleted: Millis,
    /// Who did it; empty is the owner, or whoever may do everything.
    pub deleted_by: String,
    /// When it may be removed for good; none while the mailbox is on hold.
    pub purge: Option<Millis>,
}

/// A page of recoverable items, oldest first.
pub fn list_items<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    after: Option<u64>,
    limit: usize,
) -> Result<Page<Item, u64>, V::Error> {
    let record: MailboxRecord = read(view, &keys::mailbox(mailbox))?.unwrap_or_default();
    let prefix = keys::of_mailbox(table::ITEM, mailbox);
    let from = after.map_or(prefix.clone(), |item| keys::after(&keys::item(mailbox, item)));
    let rows = view.scan(&from, &keys::end_of(&prefix), limit)?;
    let full = rows.len() == limit;
    let mut items = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        items.push(item_of(keys::last_u64(&key), decode(&key, &value)?, &record));
    }
    let next = if full { items.last().map(|item| item.id) } else { None };
    Ok(Page { items, next })
}

/// One recoverable item.
pub fn get_item<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    item: u64,
) -> Result<Option<Item>, V::Error> {
    let record: MailboxRecord = read(view, &keys::mailbox(mailbox))?.unwrap_or_default();
    let found: Option<ItemRecord> = read(view, &keys::item(mailbox, item))?;
    Ok(found.map(|found| item_of(item, found, &record)))
}

fn item_of(id: u64, record: ItemRecord, mailbox: &MailboxRecord) -> Item {
    let settings = mailbox.settings();
    let purge_ms = record.deleted_ms.saturating_add(settings.retention_ms);
    Item {
        id,
        email_id: record.email,
        folder: record.folder,
        uid: record.uid,
        system_flags: record.flags,
        keywords: record.keywords,
        size: record.size,
        deleted: Millis(record.deleted_ms),
        deleted_by: record.deleted_by,
        purge: if settings.litigation_hold { None } else { Some(Millis(purge_ms)) },
    }
}
