//! Delivery: one message into the INBOX of each recipient, exactly once per delivery id.
//!
//! A mailbox is one recipient, however many of its addresses the transport names: it stores a
//! delivery id once, and further addresses get the first result as a duplicate.

use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::MailboxId;

use super::folder::INBOX;
use super::message::{self, NewMessage, Target};
use super::{known_mailbox, live_folder, parse_mailbox_id, refuse_deleted};
use crate::command::{Deliver, Recipient};
use crate::keys::{self, BodyDigest, IdHash};
use crate::limits;
use crate::records::{DeliveryRecord, Marker};
use crate::response::{DeliverCode, Delivered, Reason, RecipientResult, Rejection, StoredAt};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;

pub(super) fn deliver<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &Deliver,
) -> Result<Delivered, Stop<V::Error>> {
    let digest = check(command)?;
    let id = keys::hash_id(&command.delivery_id);
    let mut results = Vec::with_capacity(command.recipients.len());
    let mut stored = 0;
    for recipient in &command.recipients {
        let result = match deliver_to(transaction, command, recipient, &digest, id) {
            Ok((code, at)) => {
                stored += u64::from(code == DeliverCode::Stored);
                RecipientResult::stored(&recipient.address, code, at)
            }
            Err(Stop::Rejected(rejection)) => {
                let code = code_of(rejection.reason());
                RecipientResult::refused(&recipient.address, code, rejection)
            }
            Err(fault) => return Err(fault),
        };
        results.push(result);
    }
    if stored > 0 {
        message::refer_to_body(transaction, &digest, &command.content, stored)?;
    }
    Ok(Delivered { results })
}

fn check(command: &Deliver) -> Result<BodyDigest, Rejection> {
    if command.delivery_id.is_empty() {
        return Err(Rejection::new(Reason::FieldMissing).about("delivery_id"));
    }
    if command.recipients.is_empty() {
        return Err(Rejection::new(Reason::FieldMissing).about("recipients"));
    }
    limits::DELIVERY_ID_BYTES.check(command.delivery_id.len())?;
    limits::RECIPIENTS_PER_DELIVERY.check(command.recipients.len())?;
    limits::ADDRESS_BYTES.check(command.sender.len())?;
    message::check_content(&command.content)
}

fn code_of(reason: Reason) -> DeliverCode {
    match reason {
        Reason::MailboxNotFound | Reason::MailboxDeleted | Reason::AddressNotHere => {
            DeliverCode::NoMailbox
        }
        Reason::OverQuota => DeliverCode::OverQuota,
        _ => DeliverCode::Refused,
    }
}

/// Everything that can refuse comes before the first write: a recipient who is refused leaves no
/// trace, and the others are not concerned.
///
/// The address is checked before the delivery id: where the directory still names this mailbox for
/// an address that has moved away, "duplicate" would lose that recipient's copy.
fn deliver_to<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &Deliver,
    recipient: &Recipient,
    digest: &BodyDigest,
    id: IdHash,
) -> Result<(DeliverCode, StoredAt), Stop<V::Error>> {
    let mailbox_id = parse_mailbox_id(&recipient.mailbox_id)?;
    limits::ADDRESS_BYTES.check(recipient.address.len())?;
    let mailbox = known_mailbox(transaction, mailbox_id)?;
    check_address(transaction, recipient, mailbox_id)?;
    let delivery_key = keys::delivery(mailbox_id, &id);
    if let Some(seen) = transaction.remembered::<DeliveryRecord>(&delivery_key)? {
        if seen.digest != digest[..16] {
            return Err(Rejection::new(Reason::DeliveryIdReused)
                .about(&command.delivery_id)
                .into());
        }
        return Ok((DeliverCode::Duplicate, stored_at(&seen)));
    }
    refuse_deleted(mailbox_id, &mailbox)?;
    let folder = live_folder(transaction, mailbox_id, INBOX, 0)?;
    let mut target = Target { mailbox_id, mailbox, folder_id: INBOX, folder };
    let new = NewMessage {
        content: &command.content,
        internal_date_ms: command.received_ms,
        flags: 0,
        keywords: 0,
        sender: &command.sender,
        delivery_id: &command.delivery_id,
    };
    let modseq = target.next_modseq()?;
    let at = message::store(transaction, &mut target, &new, modseq)?;
    target.save(transaction);
    transaction.insert(delivery_key, &delivery_record(&at, digest));
    Ok((DeliverCode::Stored, at))
}

/// The directory may be behind: an address that now belongs to another mailbox must not bring this
/// one the other's mail.
fn check_address<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    recipient: &Recipient,
    mailbox_id: MailboxId,
) -> Result<(), Stop<V::Error>> {
    if recipient.address.is_empty() {
        return Ok(());
    }
    let key = keys::address(mailbox_id, &recipient.address.to_ascii_lowercase());
    match transaction.get::<Marker>(&key)? {
        Some(Marker {}) => Ok(()),
        None => Err(Rejection::new(Reason::AddressNotHere).about(&recipient.address).into()),
    }
}

fn delivery_record(at: &StoredAt, digest: &BodyDigest) -> DeliveryRecord {
    DeliveryRecord {
        digest: Bytes::copy_from_slice(&digest[..16]),
        folder: at.folder,
        uid_validity: at.uid_validity,
        uid: at.uid,
        email: at.email_id,
        modseq: at.modseq,
    }
}

pub(crate) fn stored_at(record: &DeliveryRecord) -> StoredAt {
    StoredAt {
        folder: record.folder,
        uid_validity: record.uid_validity,
        uid: record.uid,
        email_id: record.email,
        modseq: record.modseq,
    }
}
