//! Recoverable items: expunged messages that can be brought back, until their time is over, their
//! quota is exceeded, or somebody purges them. On a mailbox that is on hold none of that happens.
//!
//! Items are numbered in the order in which they came, which is the order of their time, so the
//! oldest is the first row. A mailbox stands in the due table once, under the time of its oldest
//! item: [`reschedule`] derives that time from the record and the oldest item alone, so a change of
//! retention, quota or hold counts for all items at once, however many there are.

use alloc::string::ToString;
use alloc::vec::Vec;

use dag_types::MailboxId;

use super::append::keyword_bits;
use super::message::{Target, check_quota, place};
use super::{access, email, exhausted, live_mailbox, parse_mailbox_id};
use crate::command::{PurgeItems, RestoreItems};
use crate::keys::{self, Due, table};
use crate::records::{
    EmailRecord, ItemRecord, KeywordTable, MailboxRecord, MailboxSettings, Marker, MessageRecord,
    Placement,
};
use crate::response::{ItemsPurged, Reason, Rejection, Restored, StoredAt};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{flags, limits};

/// Whether what is expunged becomes an item.
pub(super) fn keeps(settings: &MailboxSettings, beyond_recovery: bool) -> Result<bool, Rejection> {
    if settings.litigation_hold && beyond_recovery {
        return Err(Rejection::new(Reason::HoldActive).about("beyond_recovery"));
    }
    Ok(settings.litigation_hold || settings.retention_ms > 0 && !beyond_recovery)
}

/// On hold nothing makes room, so there the quota refuses; elsewhere the oldest items go.
pub(super) fn check_room(mailbox: &MailboxRecord, bytes: u64) -> Result<(), Rejection> {
    let settings = mailbox.settings();
    let (quota, needed) = (settings.quota_items_bytes, mailbox.items_bytes.saturating_add(bytes));
    if settings.litigation_hold && quota > 0 && needed > quota {
        return Err(Rejection::new(Reason::OverQuota)
            .about("recoverable_bytes")
            .with_value(needed)
            .with_limit(quota));
    }
    Ok(())
}

/// Makes an item of a message that was taken out of its folder. The caller writes the mailbox's
/// record.
pub(super) fn keep<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    mailbox: &mut MailboxRecord,
    folder: u32,
    uid: u32,
    message: &MessageRecord,
) -> Result<(), Stop<V::Error>> {
    let id = mailbox.last_item.checked_add(1).ok_or_else(|| exhausted("item", u64::MAX))?;
    let item = ItemRecord {
        email: message.email,
        folder,
        uid,
        flags: message.flags,
        keywords: keyword_names(transaction, mailbox_id, folder, message.keywords())?,
        size: message.size,
        deleted_ms: transaction.now_ms(),
        deleted_by: transaction.actor.first().cloned().unwrap_or_default(),
    };
    transaction.insert(keys::item(mailbox_id, id), &item);
    let key = keys::email(mailbox_id, message.email);
    let mut email = transaction.need::<EmailRecord>(&key)?;
    email.placements.retain(|other| *other != Placement { folder, uid });
    email.items += 1;
    transaction.update(&key, &email);
    let is_oldest = mailbox.items == 0;
    mailbox.last_item = id;
    mailbox.items += 1;
    mailbox.items_bytes += message.size;
    let oldest = if is_oldest { Some(item.deleted_ms) } else { None };
    reschedule_after_adding(transaction, mailbox_id, mailbox, oldest);
    Ok(())
}

fn keyword_names<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    folder: u32,
    bits: u128,
) -> Result<Vec<alloc::string::String>, Stop<V::Error>> {
    if bits == 0 {
        return Ok(Vec::new());
    }
    let table = transaction.need::<KeywordTable>(&keys::keywords(mailbox_id, folder))?;
    Ok(table.names_of(bits))
}

fn is_over_quota(mailbox: &MailboxRecord) -> bool {
    let quota = mailbox.settings.as_ref().map_or(0, |settings| settings.quota_items_bytes);
    quota > 0 && mailbox.items_bytes > quota
}

/// When a sweep has something to do: never on hold or without items, at once over quota, else when
/// the oldest item's time is over.
fn due_of(mailbox: &MailboxRecord, oldest_ms: u64) -> Option<u64> {
    let settings = mailbox.settings();
    if settings.litigation_hold || mailbox.items == 0 {
        return None;
    }
    match is_over_quota(mailbox) {
        true => Some(0),
        false => Some(oldest_ms.saturating_add(settings.retention_ms)),
    }
}

/// An added item is the youngest, so it changes the time only when it is the first, or too much.
fn reschedule_after_adding<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    mailbox: &mut MailboxRecord,
    oldest_ms: Option<u64>,
) {
    if let Some(oldest_ms) = oldest_ms {
        let due_ms = due_of(mailbox, oldest_ms);
        move_due(transaction, mailbox_id, mailbox, due_ms);
    } else if is_over_quota(mailbox) {
        let due_ms = due_of(mailbox, 0);
        move_due(transaction, mailbox_id, mailbox, due_ms);
    }
}

/// Puts a mailbox where it belongs in the due table. The caller writes its record.
pub(super) fn reschedule<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    mailbox: &mut MailboxRecord,
) -> Result<(), Stop<V::Error>> {
    let oldest = oldest_items(transaction, mailbox_id, 1)?;
    let due_ms = oldest.first().and_then(|(_, item)| due_of(mailbox, item.deleted_ms));
    move_due(transaction, mailbox_id, mailbox, due_ms);
    Ok(())
}

fn move_due<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    mailbox: &mut MailboxRecord,
    due_ms: Option<u64>,
) {
    if mailbox.items_due_ms == due_ms {
        return;
    }
    if let Some(old_ms) = mailbox.items_due_ms {
        transaction.remove_known(keys::due(old_ms, &Due::Items(mailbox_id)), &Marker {});
    }
    if let Some(due_ms) = due_ms {
        transaction.insert(keys::due(due_ms, &Due::Items(mailbox_id)), &Marker {});
    }
    mailbox.items_due_ms = due_ms;
}

fn oldest_items<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    limit: usize,
) -> Result<Vec<(u64, ItemRecord)>, Stop<V::Error>> {
    let prefix = keys::of_mailbox(table::ITEM, mailbox_id);
    let rows = transaction.scan::<ItemRecord>(&prefix, &keys::end_of(&prefix), limit)?;
    Ok(rows.into_iter().map(|(key, item)| (keys::last_u64(&key), item)).collect())
}

/// Removes items for good whose time is over, or that are too much, oldest first; at most `budget`.
/// Gives how many, and whether more of them are due.
pub(super) fn sweep<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    until_ms: u64,
    budget: usize,
) -> Result<(u32, bool), Stop<V::Error>> {
    let key = keys::mailbox(mailbox_id);
    let mut mailbox = transaction.need::<MailboxRecord>(&key)?;
    let mut purged = 0;
    for (id, item) in oldest_items(transaction, mailbox_id, budget)? {
        if due_of(&mailbox, item.deleted_ms).is_none_or(|due_ms| due_ms > until_ms) {
            break;
        }
        purge(transaction, mailbox_id, &mut mailbox, id, &item)?;
        purged += 1;
    }
    reschedule(transaction, mailbox_id, &mut mailbox)?;
    transaction.update(&key, &mailbox);
    Ok((purged, mailbox.items_due_ms.is_some_and(|due_ms| due_ms <= until_ms)))
}

fn purge<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    mailbox: &mut MailboxRecord,
    id: u64,
    item: &ItemRecord,
) -> Result<(), Stop<V::Error>> {
    forget(transaction, mailbox_id, mailbox, id, item);
    let mut email = transaction.need::<EmailRecord>(&keys::email(mailbox_id, item.email))?;
    email.items -= 1;
    email::settle(transaction, mailbox_id, item.email, &email)
}

fn forget<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    mailbox: &mut MailboxRecord,
    id: u64,
    item: &ItemRecord,
) {
    transaction.remove(&keys::item(mailbox_id, id));
    mailbox.items -= 1;
    mailbox.items_bytes -= item.size;
}

fn check_items(items: &[u64]) -> Result<Vec<u64>, Rejection> {
    limits::MESSAGES_PER_COMMAND.check(items.len())?;
    if items.is_empty() {
        return Err(Rejection::new(Reason::FieldMissing).about("items"));
    }
    let mut sorted = items.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    Ok(sorted)
}

pub(super) fn purge_items<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &PurgeItems,
) -> Result<ItemsPurged, Stop<V::Error>> {
    let mailbox_id = parse_mailbox_id(&command.mailbox_id)?;
    let ids = check_items(&command.items)?;
    let mut mailbox = live_mailbox(transaction, mailbox_id)?;
    access::demand_owner(transaction, mailbox_id)?;
    if mailbox.settings().litigation_hold {
        return Err(Rejection::new(Reason::HoldActive).about("items").into());
    }
    let mut purged = ItemsPurged::default();
    for id in ids {
        if let Some(item) = transaction.get::<ItemRecord>(&keys::item(mailbox_id, id))? {
            purge(transaction, mailbox_id, &mut mailbox, id, &item)?;
            purged.items += 1;
        }
    }
    if purged.items > 0 {
        reschedule(transaction, mailbox_id, &mut mailbox)?;
        transaction.update(&keys::mailbox(mailbox_id), &mailbox);
    }
    Ok(purged)
}

/// Brings items back. An item may be named once; what it was flagged with comes back, but for
/// `\Deleted`, which would have the next expunge take it again.
pub(super) fn restore<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &RestoreItems,
) -> Result<Restored, Stop<V::Error>> {
    let mailbox_id = parse_mailbox_id(&command.mailbox_id)?;
    if check_items(&command.items)?.len() != command.items.len() {
        return Err(Rejection::new(Reason::FieldInvalid).about("items").into());
    }
    let mut mailbox = live_mailbox(transaction, mailbox_id)?;
    access::demand_owner(transaction, mailbox_id)?;
    let mut items = Vec::with_capacity(command.items.len());
    for id in &command.items {
        match transaction.get::<ItemRecord>(&keys::item(mailbox_id, *id))? {
            Some(item) => items.push((*id, item)),
            None => {
                return Err(Rejection::new(Reason::ItemNotFound).about(id.to_string()).into());
            }
        }
    }
    let bytes = items.iter().map(|(_, item)| item.size).sum();
    check_quota(&mailbox, bytes, items.len() as u64)?;
    for (id, item) in &items {
        forget(transaction, mailbox_id, &mut mailbox, *id, item);
    }
    reschedule(transaction, mailbox_id, &mut mailbox)?;
    let modseq = super::next_modseq(&mut mailbox)?;
    transaction.update(&keys::mailbox(mailbox_id), &mailbox);
    let mut restored = Restored::default();
    for (_, item) in &items {
        let folder = if command.folder == 0 { item.folder } else { command.folder };
        restored.stored.push(bring_back(transaction, mailbox_id, folder, item, modseq)?);
    }
    Ok(restored)
}

fn bring_back<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    folder: u32,
    item: &ItemRecord,
    modseq: u64,
) -> Result<StoredAt, Stop<V::Error>> {
    let keywords = item.keywords.clone();
    let mut target = Target::load(transaction, mailbox_id, folder, 0)?;
    let message = MessageRecord {
        email: item.email,
        size: item.size,
        flags: item.flags & !flags::DELETED,
        ..MessageRecord::default()
    };
    let keywords = keyword_bits(transaction, mailbox_id, folder, keywords)?;
    let uid = place(transaction, &mut target, message, keywords, modseq)?;
    target.save(transaction);
    let key = keys::email(mailbox_id, item.email);
    let mut email = transaction.need::<EmailRecord>(&key)?;
    limits::PLACEMENTS_PER_EMAIL.check(email.placements.len() + 1)?;
    email.items -= 1;
    email.placements.push(Placement { folder, uid });
    transaction.update(&key, &email);
    let uid_validity = target.folder.uid_validity;
    Ok(StoredAt { folder, uid_validity, uid, email_id: item.email, modseq })
}
