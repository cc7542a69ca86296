//! A message comes into a folder or leaves it, and its body comes into the database: shared by all
//! that brings, copies, moves and removes messages.

use alloc::vec;
use core::sync::atomic::{AtomicU32, Ordering};

use dag_types::{MailboxId, Mutant};

use super::{email, exhausted, live_folder, live_mailbox, next_modseq, thread};
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
    /// Reads both counters, as the command has left them.
    pub(super) fn load<V: MailboxView>(
        transaction: &mut Transaction<'_, V>,
        mailbox_id: MailboxId,
        folder_id: u32,
        expected_uid_validity: u32,
    ) -> Result<Self, Stop<V::Error>> {
        let mailbox = live_mailbox(transaction, mailbox_id)?;
        let folder = live_folder(transaction, mailbox_id, folder_id, expected_uid_validity)?;
        Ok(Self { mailbox_id, mailbox, folder_id, folder })
    }

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
    if content.staged {
        limits::MESSAGE_BYTES.check(usize::try_from(content.size).unwrap_or(usize::MAX))?;
        if !content.body.is_empty() || content.size <= limits::BODY_CHUNK_BYTES.max {
            return Err(Rejection::new(Reason::FieldInvalid).about("staged"));
        }
    } else {
        check_body(content)?;
    }
    let parsed = &content.parsed;
    limits::PARSED_BYTES.check(
        parsed.message_id.len()
            + parsed.thread_key.len()
            + parsed.envelope.len()
            + parsed.body_structure.len()
            + parsed.preview.len()
            + parsed.thread_keys.len()
            + parsed.header_tokens.len(),
    )?;
    limits::THREAD_KEYS_PER_MESSAGE.check(parsed.thread_keys.len() / 16)?;
    limits::HEADER_TOKENS_PER_MESSAGE.check(parsed.header_tokens.len() / 8)?;
    thread::check_ascending::<16>(&parsed.thread_keys, "thread_keys")?;
    thread::check_ascending::<8>(&parsed.header_tokens, "header_tokens")?;
    let digest = content.blake3.as_ref().try_into();
    digest.map_err(|_| Rejection::new(Reason::FieldInvalid).about("blake3"))
}

fn check_body(content: &Content) -> Result<(), Rejection> {
    limits::MESSAGE_BYTES.check(content.body.len())?;
    if content.size == content.body.len() as u64 {
        return Ok(());
    }
    Err(Rejection::new(Reason::SizeMismatch)
        .about("size")
        .with_value(content.body.len() as u64)
        .with_limit(content.size))
}

/// Refuses what would exceed the mailbox's quota (RFC 9208 4.3.1, OVERQUOTA).
pub(super) fn check_quota(
    mailbox: &MailboxRecord,
    bytes: u64,
    messages: u64,
) -> Result<(), Rejection> {
    let Some(settings) = &mailbox.settings else { return Ok(()) };
    let needed = [
        ("storage_bytes", mailbox.size_bytes.saturating_add(bytes), settings.quota_bytes),
        ("messages", mailbox.messages.saturating_add(messages), settings.quota_messages),
    ];
    match needed.into_iter().find(|(_, needed, quota)| *quota > 0 && needed > quota) {
        None => Ok(()),
        Some((name, needed, quota)) => {
            Err(Rejection::new(Reason::OverQuota).about(name).with_value(needed).with_limit(quota))
        }
    }
}

/// Refuses a message that is larger than its mailbox takes (APPENDLIMIT, RFC 7889).
pub(super) fn check_append_limit(mailbox: &MailboxRecord, bytes: u64) -> Result<(), Rejection> {
    let limit = mailbox.settings.as_ref().map_or(0, |settings| settings.append_limit);
    if limit == 0 || bytes <= limit {
        return Ok(());
    }
    Err(Rejection::new(Reason::LimitExceeded)
        .about("append_limit")
        .with_value(bytes)
        .with_limit(limit))
}

/// Gives a message a UID in the folder. Of the record, the email, its size and its flags count. The
/// caller saves the target.
pub(super) fn place<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    target: &mut Target,
    mut message: MessageRecord,
    keywords: u128,
    modseq: u64,
) -> Result<u32, Rejection> {
    let uid = target.take_uid()?;
    target.mailbox.messages += 1;
    target.mailbox.size_bytes += message.size;
    target.folder.highest_modseq = modseq;
    target.folder.exists += 1;
    target.folder.unseen += u32::from(message.flags & flags::SEEN == 0);
    target.folder.deleted += u32::from(message.flags & flags::DELETED != 0);
    target.folder.size_bytes += message.size;
    message.modseq = modseq;
    message.created_modseq = modseq;
    message.saved_ms = transaction.now_ms();
    message.set_keywords(keywords);
    let (mailbox_id, folder) = (target.mailbox_id, target.folder_id);
    transaction.insert(keys::message(mailbox_id, folder, uid), &message);
    transaction.insert(keys::change(mailbox_id, folder, modseq, uid), &change_of(&message));
    Ok(uid)
}

/// Takes a message out of its folder; what becomes of its content is the caller's matter, and so are
/// the target's records.
pub(super) fn take_out<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    target: &mut Target,
    uid: u32,
    message: &MessageRecord,
    modseq: u64,
) {
    let (mailbox_id, folder_id) = (target.mailbox_id, target.folder_id);
    forget_change(transaction, target, uid, message);
    let gone = ChangeRecord { vanished: true, ..change_of(message) };
    transaction.insert(keys::change(mailbox_id, folder_id, modseq, uid), &gone);
    transaction.remove(&keys::message(mailbox_id, folder_id, uid));
    target.count_flags(message.flags, flags::SEEN);
    target.folder.exists -= 1;
    target.folder.size_bytes -= message.size;
    target.mailbox.messages -= 1;
    target.mailbox.size_bytes -= message.size;
}

/// What vanished at one mod-sequence is told for some time, and then a sweep forgets it.
pub(super) fn note_vanished<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    target: &Target,
    modseq: u64,
) {
    let due_ms = transaction.now_ms().saturating_add(limits::VANISHED_KEPT_MS);
    let what = Due::Vanished(target.mailbox_id, target.folder_id, modseq);
    transaction.insert(keys::due(due_ms, &what), &Marker {});
}

/// Removes a message's row from the change feed, because it is about to get a newer one.
pub(super) fn forget_change<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    target: &Target,
    uid: u32,
    message: &MessageRecord,
) {
    let key = keys::change(target.mailbox_id, target.folder_id, message.modseq, uid);
    transaction.remove_known(key, &change_of(message));
}

/// Puts a new message into a folder. The caller saves the target, and refers to the body once for
/// each message that it stored. All that can refuse comes before the first write.
pub(super) fn store<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    target: &mut Target,
    new: &NewMessage<'_>,
    modseq: u64,
) -> Result<StoredAt, Stop<V::Error>> {
    let size = new.content.size;
    check_append_limit(&target.mailbox, size)?;
    check_quota(&target.mailbox, size, 1)?;
    let email_id = email::next_id(&mut target.mailbox)?;
    let message =
        MessageRecord { email: email_id, size, flags: new.flags, ..MessageRecord::default() };
    let uid = place(transaction, target, message, new.keywords, modseq)?;
    let (mailbox_id, folder) = (target.mailbox_id, target.folder_id);
    let mut email = email_record(Placement { folder, uid }, transaction.now_ms(), new);
    email.thread = thread::join(transaction, mailbox_id, email_id, &email.thread_keys)?;
    transaction.insert(keys::email(mailbox_id, email_id), &email);
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
        thread_keys: parsed.thread_keys,
        header_tokens: parsed.header_tokens,
        ..EmailRecord::default()
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
        transaction.insert_body(digest, 0, content.body.clone());
        return Ok(());
    };
    check_same_body(&body, content.size, content.crc32)?;
    if !body.is_whole() {
        finish_body(transaction, &mut body, digest, content);
    }
    if let Some(due_ms) = body.due_ms.take() {
        transaction.remove_known(keys::due(due_ms, &Due::Body(*digest)), &Marker {});
    }
    body.references += references;
    transaction.update(&key, &body);
    Ok(())
}

/// Refuses another body under the digest of this one.
pub(super) fn check_same_body(body: &BodyRecord, size: u64, crc32: u32) -> Result<(), Rejection> {
    if (body.size, body.crc32) == (size, crc32) {
        return Ok(());
    }
    let rejection = Rejection::new(Reason::DigestConflict).about("blake3");
    Err(rejection.with_value(size).with_limit(body.size))
}

/// Some chunks were staged, and then the whole body came with a message.
fn finish_body<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    body: &mut BodyRecord,
    digest: &BodyDigest,
    content: &Content,
) {
    assert!(!content.staged, "a staged body was found to be whole");
    let mut begin = (0..body.chunks).map(|row| body.row_bytes(row)).sum::<u64>() as usize;
    while !body.is_whole() {
        let end = begin + body.row_bytes(body.chunks) as usize;
        transaction.insert_body(digest, body.chunks, content.body.slice(begin..end));
        body.chunks += 1;
        begin = end;
    }
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
