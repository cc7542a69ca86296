//! Expunge: messages go for good, and leave a row that says so (RFC 4315 2.1, RFC 7162 3.2.10).

use dag_types::MailboxId;

use super::flags::{forget_change, messages_in};
use super::message::{Target, release_body};
use super::{live_folder, live_mailbox, parse_mailbox_id};
use crate::command::Expunge;
use crate::keys::{self, BodyDigest, Due};
use crate::records::{ChangeRecord, EmailRecord, Marker, MessageRecord, Placement};
use crate::response::Expunged;
use crate::transaction::{Stop, Transaction};
use crate::view::{Fault, MailboxView};
use crate::{flags, limits, uid_set};

pub(super) fn expunge<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &Expunge,
) -> Result<Expunged, Stop<V::Error>> {
    let mailbox_id = parse_mailbox_id(&command.mailbox_id)?;
    let uids = uid_set::normalise(&command.uids)?;
    let mailbox = live_mailbox(transaction, mailbox_id)?;
    let folder_id = command.folder;
    let folder = live_folder(transaction, mailbox_id, folder_id, command.expected_uid_validity)?;
    let mut messages = messages_in(transaction, mailbox_id, folder_id, &uids)?;
    if command.only_deleted {
        messages.retain(|(_, message)| message.flags & flags::DELETED != 0);
    }
    let mut target = Target { mailbox_id, mailbox, folder_id, folder };
    let mut expunged = Expunged::default();
    if !messages.is_empty() {
        let modseq = target.next_modseq()?;
        for (uid, message) in &messages {
            vanish(transaction, &mut target, *uid, message, modseq)?;
            uid_set::push(&mut expunged.vanished, *uid);
        }
        target.save(transaction);
    }
    expunged.modseq = target.folder.highest_modseq;
    Ok(expunged)
}

/// Takes one message out of the folder; its content goes with its last placement.
fn vanish<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    target: &mut Target,
    uid: u32,
    message: &MessageRecord,
    modseq: u64,
) -> Result<(), Stop<V::Error>> {
    let (mailbox_id, folder_id) = (target.mailbox_id, target.folder_id);
    forget_change(transaction, target, uid, message);
    let gone = ChangeRecord {
        email: message.email,
        created_modseq: message.created_modseq,
        vanished: true,
    };
    transaction.insert(keys::change(mailbox_id, folder_id, modseq, uid), &gone);
    transaction.remove(&keys::message(mailbox_id, folder_id, uid));
    target.count_flags(message.flags, flags::SEEN);
    target.folder.exists -= 1;
    target.folder.size_bytes -= message.size;
    target.mailbox.messages -= 1;
    target.mailbox.size_bytes -= message.size;
    leave_placement(transaction, mailbox_id, message.email, Placement { folder: folder_id, uid })
}

fn leave_placement<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    email_id: u64,
    placement: Placement,
) -> Result<(), Stop<V::Error>> {
    let key = keys::email(mailbox_id, email_id);
    let mut email = transaction.need::<EmailRecord>(&key)?;
    email.placements.retain(|other| *other != placement);
    if !email.placements.is_empty() {
        transaction.update(&key, &email);
        return Ok(());
    }
    transaction.remove(&key);
    let digest = BodyDigest::try_from(email.blake3.as_ref())
        .map_err(|_| Stop::Fault(Fault::damaged(&key, "its digest is not 32 bytes").into()))?;
    release_body(transaction, &digest)?;
    if !email.delivery_id.is_empty() {
        let id = keys::hash_id(&email.delivery_id);
        let due_ms = transaction.now_ms().saturating_add(limits::DELIVERY_ID_KEPT_MS);
        transaction.insert(keys::due(due_ms, &Due::Delivery(mailbox_id, id)), &Marker {});
    }
    Ok(())
}
