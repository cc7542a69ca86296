//! Messages: pages of UIDs with their flags, and the content of one.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{MailboxId, Millis};

use super::{Page, read};
use crate::apply::stored_at;
use crate::command::UidRange;
use crate::keys::{self, BodyDigest};
use crate::records::{
    BodyRecord, DeliveryRecord, EmailRecord, KeywordTable, MessageRecord, Placement,
};
use crate::response::StoredAt;
use crate::transaction::decode;
use crate::view::{Fault, MailboxView};

/// Rows read at a time.
const ROWS_PER_SCAN: usize = 256;
/// Rows that one page may look at, however few of them match.
const ROWS_PER_PAGE: usize = 10_000;

/// A message in its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// UID.
    pub uid: u32,
    /// EMAILID: its content, shared by all copies of it.
    pub email_id: u64,
    /// MODSEQ.
    pub modseq: u64,
    /// The mod-sequence at which it came into this folder.
    pub created_modseq: u64,
    /// Bits of [`crate::flags`].
    pub system_flags: u32,
    /// In lower case.
    pub keywords: Vec<String>,
    /// SAVEDATE, since 1970.
    pub saved: Millis,
    /// RFC822.SIZE.
    pub size: u64,
}

/// A message's content, without the body itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// EMAILID.
    pub id: u64,
    /// Where it stands.
    pub placements: Vec<Placement>,
    /// BLAKE3 of the body.
    pub digest: BodyDigest,
    /// CRC-32 of the body.
    pub crc32: u32,
    /// Bytes of the body.
    pub size: u64,
    /// INTERNALDATE, since 1970.
    pub internal_date: Millis,
    /// When the database took it, since 1970.
    pub received: Millis,
    /// The envelope's sender; empty when it was appended, or a bounce.
    pub sender: String,
    /// The delivery id that brought it; empty when it was appended.
    pub delivery_id: String,
    /// `Message-ID`.
    pub message_id: String,
    /// What groups messages into threads.
    pub thread_key: Bytes,
    /// ENVELOPE, as the proposer gave it.
    pub envelope: Bytes,
    /// BODYSTRUCTURE, as the proposer gave it.
    pub body_structure: Bytes,
    /// PREVIEW.
    pub preview: String,
    /// THREADID: the email that began the thread (RFC 8474 5.2).
    pub thread_id: u64,
    /// Where the content was first: its mailbox and id there. A copy keeps its EMAILID over
    /// mailboxes (RFC 8474 5.1), so this is what is shown.
    pub origin: Option<(MailboxId, u64)>,
}

/// A row that holds some of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyRow {
    /// Its key.
    pub key: Bytes,
    /// Bytes of its value.
    pub bytes: u64,
}

/// The rows of a message's body, in order: their values together are the message.
pub fn body_rows<V: MailboxView>(view: &V, email: &Email) -> Result<Vec<BodyRow>, V::Error> {
    let key = keys::body_record(&email.digest);
    let Some(body) = read::<BodyRecord, V>(view, &key)? else {
        return Err(Fault::damaged(&key, "an email names it, and it is not there").into());
    };
    let row = |row| BodyRow { key: keys::body(&email.digest, row), bytes: body.row_bytes(row) };
    Ok((0..body.rows()).map(row).collect())
}

/// Which messages of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageFilter {
    /// Their UIDs; empty means all.
    pub uids: Vec<UidRange>,
    /// Changed after this mod-sequence; 0 means all (CHANGEDSINCE, RFC 7162 3.1.4.1).
    pub changed_since: u64,
    /// With all of these flags.
    pub with_flags: u32,
    /// With none of these flags.
    pub without_flags: u32,
}

impl MessageFilter {
    /// Whether a row of the message table is asked for.
    pub fn matches(&self, uid: u32, record: &MessageRecord) -> bool {
        record.modseq > self.changed_since
            && record.flags & self.with_flags == self.with_flags
            && record.flags & self.without_flags == 0
            && (self.uids.is_empty() || self.uids.iter().any(|range| contains(range, uid)))
    }

    /// The smallest range that holds all UIDs asked for.
    pub(super) fn bounds(&self) -> (u32, u32) {
        let ends = self.uids.iter().flat_map(|range| [range.first, range.last]);
        (ends.clone().min().unwrap_or(1), ends.max().unwrap_or(u32::MAX))
    }
}

fn contains(range: &UidRange, uid: u32) -> bool {
    (range.first.min(range.last)..=range.first.max(range.last)).contains(&uid)
}

/// A page of a folder's messages by UID. Looks at a bounded number of rows, so a page of a narrow
/// filter may be short and still name a next one.
pub fn list_messages<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    folder: u32,
    filter: &MessageFilter,
    after: Option<u32>,
    limit: usize,
) -> Result<Page<Message, u32>, V::Error> {
    let keywords = keyword_table(view, mailbox, folder)?;
    let (first, last) = filter.bounds();
    let mut from = keys::message(mailbox, folder, first);
    if let Some(uid) = after.filter(|uid| *uid >= first) {
        from = keys::after(&keys::message(mailbox, folder, uid));
    }
    let to = keys::after(&keys::message(mailbox, folder, last));
    let mut items = Vec::new();
    let mut looked_at = 0;
    while from < to {
        let rows = view.scan(&from, &to, ROWS_PER_SCAN)?;
        let full = rows.len() == ROWS_PER_SCAN;
        for (key, value) in rows {
            let uid = keys::last_u32(&key);
            let record: MessageRecord = decode(&key, &value)?;
            looked_at += 1;
            if filter.matches(uid, &record) {
                items.push(message_of(uid, &record, &keywords));
            }
            if items.len() >= limit || looked_at >= ROWS_PER_PAGE {
                return Ok(Page { items, next: Some(uid) });
            }
            from = keys::after(&key);
        }
        if !full {
            break;
        }
    }
    Ok(Page { items, next: None })
}

/// One message.
pub fn get_message<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    folder: u32,
    uid: u32,
) -> Result<Option<Message>, V::Error> {
    let key = keys::message(mailbox, folder, uid);
    let Some(record) = read::<MessageRecord, V>(view, &key)? else {
        return Ok(None);
    };
    let keywords = match record.keywords() {
        0 => KeywordTable::default(),
        _ => keyword_table(view, mailbox, folder)?,
    };
    Ok(Some(message_of(uid, &record, &keywords)))
}

pub(super) fn keyword_table<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    folder: u32,
) -> Result<KeywordTable, V::Error> {
    Ok(read(view, &keys::keywords(mailbox, folder))?.unwrap_or_default())
}

pub(super) fn message_of(uid: u32, record: &MessageRecord, keywords: &KeywordTable) -> Message {
    Message {
        uid,
        email_id: record.email,
        modseq: record.modseq,
        created_modseq: record.created_modseq,
        system_flags: record.flags,
        keywords: keywords.names_of(record.keywords()),
        saved: Millis(record.saved_ms),
        size: record.size,
    }
}

/// A message's content record; the body is behind [`body_rows`].
pub fn get_email<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    email: u64,
) -> Result<Option<Email>, V::Error> {
    let key = keys::email(mailbox, email);
    let Some(record) = read::<EmailRecord, V>(view, &key)? else {
        return Ok(None);
    };
    let digest = need_digest(&key, &record)?;
    Ok(Some(Email {
        id: email,
        placements: record.placements,
        digest,
        crc32: record.crc32,
        size: record.size,
        internal_date: Millis(record.internal_date_ms),
        received: Millis(record.received_ms),
        sender: record.sender,
        delivery_id: record.delivery_id,
        message_id: record.message_id,
        thread_key: record.thread_key,
        envelope: record.envelope,
        body_structure: record.body_structure,
        preview: record.preview,
        thread_id: if record.thread == 0 { email } else { record.thread },
        origin: MailboxId::from_slice(&record.origin_mailbox).map(|id| (id, record.origin_email)),
    }))
}

fn need_digest(key: &[u8], record: &EmailRecord) -> Result<BodyDigest, Fault> {
    let digest = BodyDigest::try_from(record.blake3.as_ref());
    digest.map_err(|_| Fault::damaged(key, "its digest is not 32 bytes"))
}

/// Where a delivery id was stored, if this mailbox remembers it: the answer to "did my mail
/// arrive?", from a snapshot.
pub fn find_delivery<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    delivery_id: &str,
) -> Result<Option<StoredAt>, V::Error> {
    let key = keys::delivery(mailbox, &keys::hash_id(delivery_id));
    let record: Option<DeliveryRecord> = read(view, &key)?;
    Ok(record.map(|record| stored_at(&record)))
}
