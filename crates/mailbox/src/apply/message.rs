//! A message comes into a folder, and its body into the database: shared by delivery and append.

use alloc::vec;
use core::sync::atomic::{AtomicU32, Ordering};

use dag_types::{MailboxId, Mutant};

use super::{exhausted, next_modseq};
use crate::command::Content;
use crate::flags;
use crate::keys::{self, BodyDigest, Due};
use crate::limits;
use crate::records::{
    BodyRecord, ChangeRecord, EmailRecord, FolderRecord, MailboxRecord, Marker, MessageRecord,
    Placement,
};
use crate::response::{Reason, Rejection, StoredAt};
use crate::transaction::{Stop, Transaction};
use crate::view::{Fault, MailboxView};

/// A folder that is about to change: its address, its counters, and those of its mailbox.
pub(super) struct Target {
    pub(super) mailbox_id: MailboxId,
    pub(super) mailbox: MailboxRecord,
    pub(super) folder_id: u32,
    pub(super) folder: FolderRecord,
}

impl Target {
    /// Writes both counters back.
    pub(super) fn save<V: MailboxView>(&self, transaction: &mut Transaction<'_, V>) {
        transaction.update(&keys::mailbox(self.mailbox_id), &self.mailbox);
        transaction.update(&keys::folder(self.mailbox_id, self.folder_id), &self.folder);
    }

    /// Counts a message in or out of the folder's flag counters.
    pub(super) fn count_flags(&mut self, before: u32, after: u32) {
        let folder = &mut self.folder;
        folder.unseen += u32::from(before & flags::SEEN != 0 && after & flags::SEEN == 0);
        folder.unseen -= u32::from(before & flags::SEEN == 0 && after & flags::SEEN != 0);
        folder.deleted += u32::from(before & flags::DELETED == 0 && after & flags::DELETED != 0);
        folder.deleted -= u32::from(before & flags::DELETED != 0 && after & flags::DELETED == 0);
    }

    /// The next mod-sequence, for the mailbox and this folder.
    pub(super) fn next_modseq(&mut self) -> Result<u64, Rejection> {
        let modseq = next_modseq(&mut self.mailbox)?;
        self.folder.highest_modseq = modseq;
        Ok(modseq)
    }

    /// The UID for a new message, from the folder's own record, which is written in the same batch
    /// as the message: so no crash and no failover can give it out twice (RFC 9051 2.3.1.1).
    fn take_uid(&mut self) -> Result<u32, Rejection> {
        if Mutant::UidOutsideBatch.planted() {
            static LAST_UID: AtomicU32 = AtomicU32::new(0);
            return Ok(LAST_UID.fetch_add(1, Ordering::Relaxed) + 1);
        }
        let uid = self.folder.uid_next;
        if uid == u32::MAX {
            return Err(exhausted("uid", u64::from(u32::MAX)));
        }
        self.folder.uid_next = uid + 1;
        Ok(uid)
    }
}

/// What the operation says about a message, beside its content.
pub(super) struct NewMessage<'c> {
    pub(super) content: &'c Content,
    pub(super) internal_date_ms: u64,
    pub(super) flags: u32,
    pub(super) keywords: u128,
    pub(super) sender: &'c str,
    pub(super) delivery_id: &'c str,
}

/// Refuses a content that cannot be what its header says, before anything is read.
pub(super) fn check_content(content: &Content) -> Result<BodyDigest, Rejection> {
    limits::MESSAGE_BYTES.check(content.body.len())?;
    if content.size != content.body.len() as u64 {
        return Err(Rejection::new(Reason::SizeMismatch)
            .about("size")
            .with_value(content.body.len() as u64)
            .with_limit(content.size));
    }
    let parsed = &content.parsed;
    limits::PARSED_BYTES.check(
        parsed.message_id.len()
            + parsed.thread_key.len()
            + parsed.envelope.len()
            + parsed.body_structure.len()
            + parsed.preview.len(),
    )?;
    let digest = content.blake3.as_ref().try_into();
    digest.map_err(|_| Rejection::new(Reason::FieldInvalid).about("blake3"))
}

/// Puts a message into a folder. The caller saves the target, and refers to the body once for each
/// message that it stored.
pub(super) fn store<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    target: &mut Target,
    new: &NewMessage<'_>,
) -> Result<StoredAt, Rejection> {
    let email_id =
        target.mailbox.last_email.checked_add(1).ok_or_else(|| exhausted("email", u64::MAX))?;
    let modseq = target.next_modseq()?;
    let uid = target.take_uid()?;
    target.mailbox.last_email = email_id;
    target.mailbox.messages += 1;
    target.mailbox.size_bytes += new.content.size;
    target.folder.exists += 1;
    target.folder.unseen += u32::from(new.flags & flags::SEEN == 0);
    target.folder.deleted += u32::from(new.flags & flags::DELETED != 0);
    target.folder.size_bytes += new.content.size;
    let mut message = MessageRecord {
        email: email_id,
        modseq,
        created_modseq: modseq,
        flags: new.flags,
        saved_ms: transaction.now_ms(),
        size: new.content.size,
        ..MessageRecord::default()
    };
    message.set_keywords(new.keywords);
    let (mailbox_id, folder) = (target.mailbox_id, target.folder_id);
    let email = email_record(Placement { folder, uid }, transaction.now_ms(), new);
    transaction.insert(keys::message(mailbox_id, folder, uid), &message);
    transaction.insert(keys::email(mailbox_id, email_id), &email);
    transaction.insert(keys::change(mailbox_id, folder, modseq, uid), &change_of(&message));
    Ok(StoredAt { folder, uid_validity: target.folder.uid_validity, uid, email_id, modseq })
}

fn email_record(placement: Placement, now_ms: u64, new: &NewMessage<'_>) -> EmailRecord {
    let content = new.content;
    let parsed = content.parsed.clone();
    EmailRecord {
        placements: vec![placement],
        blake3: content.blake3.clone(),
        size: content.size,
        crc32: content.crc32,
        internal_date_ms: if new.internal_date_ms == 0 { now_ms } else { new.internal_date_ms },
        received_ms: now_ms,
        sender: new.sender.into(),
        delivery_id: new.delivery_id.into(),
        message_id: parsed.message_id,
        thread_key: parsed.thread_key,
        envelope: parsed.envelope,
        body_structure: parsed.body_structure,
        preview: parsed.preview,
    }
}

/// A message's row in the change feed follows from its record, so a later change can remove it
/// without reading it.
pub(super) fn change_of(message: &MessageRecord) -> ChangeRecord {
    ChangeRecord { email: message.email, created_modseq: message.created_modseq, vanished: false }
}

/// Counts references to a body, and stores it when it is the first of its kind.
pub(super) fn refer_to_body<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    digest: &BodyDigest,
    content: &Content,
    references: u64,
) -> Result<(), Stop<V::Error>> {
    let key = keys::body_record(digest);
    let Some(mut body) = transaction.get::<BodyRecord>(&key)? else {
        let body = BodyRecord {
            size: content.size,
            crc32: content.crc32,
            references,
            ..BodyRecord::default()
        };
        transaction.insert(key, &body);
        transaction.insert_body(digest, content.body.clone());
        return Ok(());
    };
    if (body.size, body.crc32) != (content.size, content.crc32) {
        return Err(Rejection::new(Reason::DigestConflict)
            .about("blake3")
            .with_value(content.size)
            .with_limit(body.size)
            .into());
    }
    if let Some(due_ms) = body.due_ms.take() {
        transaction.remove_known(keys::due(due_ms, &Due::Body(*digest)), &Marker {});
    }
    body.references += references;
    transaction.update(&key, &body);
    Ok(())
}

/// Counts a reference less. A body without references stays until a sweep removes it, so that an
/// expunge of a thousand large messages is a small batch.
pub(super) fn release_body<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    digest: &BodyDigest,
) -> Result<(), Stop<V::Error>> {
    let key = keys::body_record(digest);
    let mut body = transaction.need::<BodyRecord>(&key)?;
    let Some(references) = body.references.checked_sub(1) else {
        let detail = "it has no references, and a message has it";
        return Err(Stop::Fault(Fault::damaged(&key, detail).into()));
    };
    body.references = references;
    if body.references == 0 {
        let due_ms = transaction.now_ms();
        body.due_ms = Some(due_ms);
        transaction.insert(keys::due(due_ms, &Due::Body(*digest)), &Marker {});
    }
    transaction.update(&key, &body);
    Ok(())
}
