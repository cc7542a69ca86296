//! What is read from the directory without changing it.

use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{DatabaseId, MailboxId, StateView};

use super::record::{
    ADDRESSES, MailboxCount, MailboxKey, MailboxRecord, address_key, count_key, mailbox_key,
};
use crate::address::Address;
use crate::change::{Fault, decode, read};

/// The mailbox of an address, reserved ones included.
pub fn by_address<V: StateView>(
    view: &V,
    address: &Address,
) -> Result<Option<MailboxRecord>, Fault<V::Error>> {
    match read::<V, MailboxKey>(view, &address_key(address), "an address")? {
        None => Ok(None),
        Some(key) => read(view, &mailbox_key(&key.mailbox), "a mailbox"),
    }
}

/// A mailbox by its id, reserved ones included.
pub fn by_id<V: StateView>(
    view: &V,
    mailbox: MailboxId,
) -> Result<Option<MailboxRecord>, Fault<V::Error>> {
    read(view, &mailbox_key(&mailbox.0), "a mailbox")
}

/// How many mailboxes the directory knows in a database.
pub fn count<V: StateView>(view: &V, database: DatabaseId) -> Result<u64, Fault<V::Error>> {
    let count: Option<MailboxCount> = read(view, &count_key(database.0), "a count")?;
    Ok(count.unwrap_or_default().mailboxes)
}

/// Mailboxes in the order of their folded addresses, from behind `after`, at most `limit`; each
/// with its folded address.
pub fn page<V: StateView>(
    view: &V,
    after: &str,
    limit: usize,
) -> Result<Vec<(String, MailboxRecord)>, Fault<V::Error>> {
    let mut from = [&[ADDRESSES], after.as_bytes()].concat();
    if !after.is_empty() {
        from.push(0);
    }
    let rows = view.scan(&from, &[ADDRESSES + 1], limit).map_err(Fault::Store)?;
    let mut mailboxes = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        let mailbox: MailboxKey = decode("an address", value)?;
        if let Some(record) = read(view, &mailbox_key(&mailbox.mailbox), "a mailbox")? {
            mailboxes.push((String::from_utf8_lossy(&key[1..]).into_owned(), record));
        }
    }
    Ok(mailboxes)
}
