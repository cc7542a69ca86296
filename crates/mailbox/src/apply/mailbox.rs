//! Mailboxes: made with an INBOX, set as their operators decide, deleted by a mark.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::MailboxId;

use super::folder_update::check_expected;
use super::{folder, items, live_mailbox, next_modseq, parse_mailbox_id};
use crate::command::{CreateMailbox, DeleteMailbox, UpdateMailbox};
use crate::records::{MailboxRecord, MailboxSettings, Marker};
use crate::response::{MailboxCreated, MailboxDeleted, MailboxUpdated, Reason, Rejection};
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
    command.settings.as_ref().map_or(Ok(()), check_settings)?;
    let mut mailbox = MailboxRecord {
        created_ms: transaction.now_ms(),
        settings: command.settings.clone(),
        ..MailboxRecord::default()
    };
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

fn check_settings(settings: &MailboxSettings) -> Result<(), Rejection> {
    limits::RETENTION_MS.check(settings.retention_ms as usize)?;
    limits::IDENTIFIER_BYTES.check(settings.owner.len())?;
    let is_no_user = settings.owner.starts_with('-') || settings.owner == "anyone";
    if is_no_user || settings.owner.chars().any(char::is_control) {
        return Err(Rejection::new(Reason::FieldInvalid).about("owner"));
    }
    Ok(())
}

/// Quota, retention and hold count from here on: for what is there as well, which sweeps then remove
/// or no longer remove.
pub(super) fn update<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &UpdateMailbox,
) -> Result<MailboxUpdated, Stop<V::Error>> {
    let id = parse_mailbox_id(&command.mailbox_id)?;
    let mut mailbox = live_mailbox(transaction, id)?;
    check_expected(command.expected_modseq, mailbox.settings_modseq, id)?;
    let old = mailbox.settings();
    let settings = command.change.of(&old);
    check_settings(&settings)?;
    if settings != old {
        mailbox.settings = Some(settings.clone());
        mailbox.settings_modseq = next_modseq(&mut mailbox)?;
        items::reschedule(transaction, id, &mut mailbox)?;
        transaction.update(&keys::mailbox(id), &mailbox);
    }
    Ok(MailboxUpdated { settings, modseq: mailbox.settings_modseq })
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
