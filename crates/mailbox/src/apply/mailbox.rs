//! Mailboxes: made with an INBOX, deleted by a mark.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::MailboxId;

use super::{folder, live_mailbox, parse_mailbox_id};
use crate::command::{CreateMailbox, DeleteMailbox};
use crate::records::{MailboxRecord, Marker};
use crate::response::{MailboxCreated, MailboxDeleted, Reason, Rejection};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{keys, limits};

pub(super) fn create<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &CreateMailbox,
) -> Result<MailboxCreated, Stop<V::Error>> {
    let id = parse_mailbox_id(&command.mailbox_id)?;
    let addresses = normalise_addresses(&command.addresses)?;
    let key = keys::mailbox(id);
    refuse_existing(transaction, id)?;
    let mut mailbox =
        MailboxRecord { created_ms: transaction.now_ms(), ..MailboxRecord::default() };
    let inbox = folder::make(transaction, id, &mut mailbox, folder::ROOT, folder::INBOX_NAME)?;
    assert_eq!(inbox.folder, folder::INBOX, "the first folder of a mailbox is its INBOX");
    transaction.insert(key, &mailbox);
    for address in addresses {
        transaction.insert(keys::address(id, &address), &Marker {});
    }
    transaction.database.mailboxes += 1;
    Ok(MailboxCreated { inbox })
}

fn refuse_existing<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
) -> Result<(), Stop<V::Error>> {
    let reason = match transaction.get::<MailboxRecord>(&keys::mailbox(id))? {
        None => return Ok(()),
        Some(record) if record.deleted_ms.is_some() => Reason::MailboxDeleted,
        Some(_) => Reason::MailboxExists,
    };
    Err(Rejection::new(reason).about(id.to_string()).into())
}

/// Sorted, in lower case, each once.
fn normalise_addresses(addresses: &[String]) -> Result<Vec<String>, Rejection> {
    limits::ADDRESSES_PER_MAILBOX.check(addresses.len())?;
    let mut normal = Vec::with_capacity(addresses.len());
    for address in addresses {
        limits::ADDRESS_BYTES.check(address.len())?;
        if address.is_empty() || address.chars().any(char::is_control) {
            return Err(Rejection::new(Reason::FieldInvalid).about("addresses"));
        }
        normal.push(address.to_ascii_lowercase());
    }
    normal.sort_unstable();
    normal.dedup();
    Ok(normal)
}

/// The rows stay: they are what a restore within the retention brings back.
pub(super) fn delete<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &DeleteMailbox,
) -> Result<MailboxDeleted, Stop<V::Error>> {
    let id = parse_mailbox_id(&command.mailbox_id)?;
    let mut mailbox = live_mailbox(transaction, id)?;
    let deleted_ms = transaction.now_ms();
    mailbox.deleted_ms = Some(deleted_ms);
    transaction.update(&keys::mailbox(id), &mailbox);
    transaction.database.mailboxes -= 1;
    Ok(MailboxDeleted { deleted_ms })
}
