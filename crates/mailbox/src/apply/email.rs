//! Emails: what all places of a message share. It lasts as long as a folder or a recoverable item
//! has it.

use alloc::vec;

use bytes::Bytes;
use dag_types::MailboxId;

use super::message::release_body;
use super::{exhausted, thread};
use crate::keys::{self, BodyDigest, Due};
use crate::limits;
use crate::records::{BodyRecord, EmailRecord, MailboxRecord, Marker, Placement};
use crate::response::Rejection;
use crate::transaction::{Stop, Transaction, fault};
use crate::view::{Fault, MailboxView};

/// The next email id of a mailbox. The caller writes the mailbox's record.
pub(super) fn next_id(mailbox: &mut MailboxRecord) -> Result<u64, Rejection> {
    let next = mailbox.last_email.checked_add(1).ok_or_else(|| exhausted("email", u64::MAX))?;
    mailbox.last_email = next;
    Ok(next)
}

/// A further place in the same mailbox.
pub(super) fn enter<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    email_id: u64,
    placement: Placement,
) -> Result<(), Stop<V::Error>> {
    let key = keys::email(mailbox_id, email_id);
    let mut email = transaction.need::<EmailRecord>(&key)?;
    limits::PLACEMENTS_PER_EMAIL.check(email.placements.len() + 1)?;
    email.placements.push(placement);
    transaction.update(&key, &email);
    Ok(())
}

/// One place for another in the same mailbox.
pub(super) fn change_place<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    email_id: u64,
    from: Placement,
    to: Placement,
) -> Result<(), Stop<V::Error>> {
    let key = keys::email(mailbox_id, email_id);
    let mut email = transaction.need::<EmailRecord>(&key)?;
    email.placements.retain(|other| *other != from);
    email.placements.push(to);
    transaction.update(&key, &email);
    Ok(())
}

/// The same content in another mailbox, under an id of its own, which the caller took; the body is
/// referred to once more.
pub(super) fn adopt<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    from: (MailboxId, u64),
    mut email: EmailRecord,
    to: (MailboxId, u64),
    placement: Placement,
) -> Result<(), Stop<V::Error>> {
    let (mailbox_id, email_id) = to;
    let digest = digest_of(&keys::email(from.0, from.1), &email)?;
    if email.origin_mailbox.is_empty() {
        email.origin_mailbox = Bytes::copy_from_slice(&from.0.0);
        email.origin_email = from.1;
    }
    email.placements = vec![placement];
    email.items = 0;
    email.delivery_id.clear();
    email.thread = thread::join(transaction, mailbox_id, email_id, &email.thread_keys)?;
    transaction.insert(keys::email(mailbox_id, email_id), &email);
    let key = keys::body_record(&digest);
    let mut body = transaction.need::<BodyRecord>(&key)?;
    if let Some(due_ms) = body.due_ms.take() {
        transaction.remove_known(keys::due(due_ms, &Due::Body(digest)), &Marker {});
    }
    body.references += 1;
    transaction.update(&key, &body);
    Ok(())
}

/// A place less.
pub(super) fn leave<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    email_id: u64,
    placement: Placement,
) -> Result<(), Stop<V::Error>> {
    let key = keys::email(mailbox_id, email_id);
    let mut email = transaction.need::<EmailRecord>(&key)?;
    email.placements.retain(|other| *other != placement);
    settle(transaction, mailbox_id, email_id, &email)
}

/// Writes an email back, or removes it when nothing has it any more.
pub(super) fn settle<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    email_id: u64,
    email: &EmailRecord,
) -> Result<(), Stop<V::Error>> {
    let key = keys::email(mailbox_id, email_id);
    if !email.placements.is_empty() || email.items > 0 {
        transaction.update(&key, email);
        return Ok(());
    }
    transaction.remove(&key);
    release_body(transaction, &digest_of(&key, email)?)?;
    thread::leave(transaction, mailbox_id, email_id, email.thread, &email.thread_keys)?;
    if !email.delivery_id.is_empty() {
        let id = keys::hash_id(&email.delivery_id);
        let due_ms = transaction.now_ms().saturating_add(limits::DELIVERY_ID_KEPT_MS);
        transaction.insert(keys::due(due_ms, &Due::Delivery(mailbox_id, id)), &Marker {});
    }
    Ok(())
}

fn digest_of<E: From<Fault>>(key: &[u8], email: &EmailRecord) -> Result<BodyDigest, Stop<E>> {
    let digest = BodyDigest::try_from(email.blake3.as_ref());
    digest.map_err(|_| fault(Fault::damaged(key, "its digest is not 32 bytes")))
}
