//! What the rows hold: integers and bytes, one encoding per value, so that equal state is equal
//! bytes. No maps and no floats. A tag is never used twice.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message;

use crate::limits;

/// The database's counters, and the sum of its digest.
#[derive(Clone, PartialEq, Message)]
pub struct DatabaseRecord {
    /// Upper half of the sum over all other rows; see [`crate::digest`].
    #[prost(fixed64, tag = "1")]
    pub digest_high: u64,
    /// Lower half of the sum.
    #[prost(fixed64, tag = "2")]
    pub digest_low: u64,
    /// The latest stamp of a proposer; never goes back.
    #[prost(uint64, tag = "3")]
    pub stamp_ms: u64,
    /// The UIDVALIDITY given out last. One counter for all mailboxes: a name that is deleted and
    /// made again gets a greater one (RFC 9051 2.3.1.1).
    #[prost(uint32, tag = "4")]
    pub last_uid_validity: u32,
    /// Mailboxes that are not deleted.
    #[prost(uint64, tag = "5")]
    pub mailboxes: u64,
}

/// A mailbox's counters.
#[derive(Clone, PartialEq, Message)]
pub struct MailboxRecord {
    /// The mod-sequence given out last; folders share the counter (RFC 7162 3.1 allows it).
    #[prost(uint64, tag = "1")]
    pub highest_modseq: u64,
    /// The email id given out last.
    #[prost(uint64, tag = "2")]
    pub last_email: u64,
    /// The folder id given out last.
    #[prost(uint32, tag = "3")]
    pub last_folder: u32,
    /// Folders that exist.
    #[prost(uint32, tag = "4")]
    pub folders: u32,
    /// Messages in all folders.
    #[prost(uint64, tag = "5")]
    pub messages: u64,
    /// Their bytes.
    #[prost(uint64, tag = "6")]
    pub size_bytes: u64,
    /// When it was made, by the database's stamp.
    #[prost(uint64, tag = "7")]
    pub created_ms: u64,
    /// When it was deleted.
    #[prost(uint64, optional, tag = "8")]
    pub deleted_ms: Option<u64>,
    /// What its operator decided; none is the same as all fields zero.
    #[prost(message, optional, tag = "9")]
    pub settings: Option<MailboxSettings>,
    /// The mod-sequence at which the settings changed last.
    #[prost(uint64, tag = "10")]
    pub settings_modseq: u64,
    /// Recoverable items.
    #[prost(uint64, tag = "11")]
    pub items: u64,
    /// Their bytes.
    #[prost(uint64, tag = "12")]
    pub items_bytes: u64,
    /// The id of a recoverable item given out last.
    #[prost(uint64, tag = "13")]
    pub last_item: u64,
    /// When the oldest item is due; the mailbox then stands in the due table under this time.
    #[prost(uint64, optional, tag = "14")]
    pub items_due_ms: Option<u64>,
    /// Which folders went at or below it is not known any more.
    #[prost(uint64, tag = "15")]
    pub folders_floor: u64,
    /// A rename of the INBOX that has messages left to move.
    #[prost(message, optional, tag = "16")]
    pub inbox_move: Option<InboxMove>,
    /// Subscribed names that are no folders.
    #[prost(uint32, tag = "17")]
    pub subscribed_names: u32,
}

impl MailboxRecord {
    /// What its operator decided.
    pub fn settings(&self) -> MailboxSettings {
        self.settings.clone().unwrap_or_default()
    }
}

/// What the operator of a mailbox decides. Zero is "no bound" everywhere.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MailboxSettings {
    /// Bytes of all messages (RFC 9208 5.1, STORAGE).
    #[prost(uint64, tag = "1")]
    pub quota_bytes: u64,
    /// Messages in all folders (RFC 9208 5.2, MESSAGE).
    #[prost(uint64, tag = "2")]
    pub quota_messages: u64,
    /// Folders, INBOX included (RFC 9208 5.3, MAILBOX).
    #[prost(uint32, tag = "3")]
    pub quota_folders: u32,
    /// Bytes of recoverable items. What is more goes before its time, oldest first.
    #[prost(uint64, tag = "4")]
    pub quota_items_bytes: u64,
    /// How long an expunged message can be restored, in milliseconds; 0 is not at all.
    #[prost(uint64, tag = "5")]
    pub retention_ms: u64,
    /// Litigation hold: nothing that was a message is removed for good.
    #[prost(bool, tag = "6")]
    pub litigation_hold: bool,
    /// The identifier that has all rights, beside a caller that names no actor.
    #[prost(string, tag = "7")]
    pub owner: String,
    /// Bytes of one message, below the limit for all (APPENDLIMIT, RFC 7889).
    #[prost(uint64, tag = "8")]
    pub append_limit: u64,
}

/// A rename of the INBOX goes on in sweeps.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct InboxMove {
    /// Where the messages go.
    #[prost(uint32, tag = "1")]
    pub folder: u32,
    /// The last UID that the INBOX had then: what came later stays.
    #[prost(uint32, tag = "2")]
    pub last_uid: u32,
}

/// A row whose key says everything.
#[derive(Clone, PartialEq, Message)]
pub struct Marker {}

/// A folder's counters.
#[derive(Clone, PartialEq, Message)]
pub struct FolderRecord {
    /// RFC 9051 2.3.1.1.
    #[prost(uint32, tag = "1")]
    pub uid_validity: u32,
    /// The UID that the next message gets.
    #[prost(uint32, tag = "2")]
    pub uid_next: u32,
    /// The greatest mod-sequence of its messages and of what vanished from it.
    #[prost(uint64, tag = "3")]
    pub highest_modseq: u64,
    /// What vanished at or below it is not known any more (RFC 7162 5.3).
    #[prost(uint64, tag = "4")]
    pub vanished_floor: u64,
    /// Messages.
    #[prost(uint32, tag = "5")]
    pub exists: u32,
    /// Messages without `\Seen`.
    #[prost(uint32, tag = "6")]
    pub unseen: u32,
    /// Messages with `\Deleted`.
    #[prost(uint32, tag = "7")]
    pub deleted: u32,
    /// Bytes of its messages.
    #[prost(uint64, tag = "8")]
    pub size_bytes: u64,
    /// The mod-sequence at which it was made.
    #[prost(uint64, tag = "9")]
    pub created_modseq: u64,
}

/// What changes seldom about a folder.
#[derive(Clone, PartialEq, Message)]
pub struct FolderProfile {
    /// 0 is the root.
    #[prost(uint32, tag = "1")]
    pub parent: u32,
    /// One level, as shown.
    #[prost(string, tag = "2")]
    pub name: String,
    /// A number of [`crate::special_use`]; 0 is none. The INBOX is one by its id.
    #[prost(uint32, tag = "3")]
    pub special_use: u32,
    /// The owner's subscription (RFC 9051 6.3.7).
    #[prost(bool, tag = "4")]
    pub subscribed: bool,
    /// The mod-sequence at which this record, or the folder's rights, changed last; 0 is that at
    /// which the folder was made.
    #[prost(uint64, tag = "5")]
    pub modseq: u64,
}

/// The folder that has a name.
#[derive(Clone, PartialEq, Message)]
pub struct FolderName {
    /// Its id.
    #[prost(uint32, tag = "1")]
    pub folder: u32,
}

/// A folder's keywords: the one at position n is bit n of its messages.
#[derive(Clone, PartialEq, Message)]
pub struct KeywordTable {
    /// In lower case; only ever appended to.
    #[prost(string, repeated, tag = "1")]
    pub names: Vec<String>,
}

/// A message in its folder: the row that flag scans read, so it is kept below 64 bytes.
#[derive(Clone, PartialEq, Message)]
pub struct MessageRecord {
    /// Its content.
    #[prost(uint64, tag = "1")]
    pub email: u64,
    /// Its last change.
    #[prost(uint64, tag = "2")]
    pub modseq: u64,
    /// The mod-sequence at which it came into this folder.
    #[prost(uint64, tag = "3")]
    pub created_modseq: u64,
    /// Bits of [`crate::flags`].
    #[prost(uint32, tag = "4")]
    pub flags: u32,
    /// Keywords 0 to 63 of the folder's table.
    #[prost(uint64, tag = "5")]
    pub keywords_low: u64,
    /// Keywords 64 to 127.
    #[prost(uint64, tag = "6")]
    pub keywords_high: u64,
    /// SAVEDATE (RFC 8514): when it came into this folder.
    #[prost(uint64, tag = "7")]
    pub saved_ms: u64,
    /// RFC822.SIZE.
    #[prost(uint64, tag = "8")]
    pub size: u64,
}

impl MessageRecord {
    /// The keywords as one number.
    pub fn keywords(&self) -> u128 {
        u128::from(self.keywords_high) << 64 | u128::from(self.keywords_low)
    }

    /// Replaces the keywords.
    pub fn set_keywords(&mut self, bits: u128) {
        self.keywords_low = bits as u64;
        self.keywords_high = (bits >> 64) as u64;
    }
}

/// One UID of an email.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Placement {
    /// In this folder.
    #[prost(uint32, tag = "1")]
    pub folder: u32,
    /// Under this UID.
    #[prost(uint32, tag = "2")]
    pub uid: u32,
}

/// A message's content: what all its placements share.
#[derive(Clone, PartialEq, Message)]
pub struct EmailRecord {
    /// Where it stands. Empty only while it is recoverable.
    #[prost(message, repeated, tag = "1")]
    pub placements: Vec<Placement>,
    /// BLAKE3 of the body, 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub blake3: Bytes,
    /// Bytes of the body.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// CRC-32 of the body.
    #[prost(uint32, tag = "4")]
    pub crc32: u32,
    /// INTERNALDATE.
    #[prost(uint64, tag = "5")]
    pub internal_date_ms: u64,
    /// When the database took it, by its stamp.
    #[prost(uint64, tag = "6")]
    pub received_ms: u64,
    /// The envelope's sender, of a delivery.
    #[prost(string, tag = "7")]
    pub sender: String,
    /// The delivery id that brought it; empty when it was appended.
    #[prost(string, tag = "8")]
    pub delivery_id: String,
    /// `Message-ID`.
    #[prost(string, tag = "9")]
    pub message_id: String,
    /// What groups messages into threads.
    #[prost(bytes = "bytes", tag = "10")]
    pub thread_key: Bytes,
    /// ENVELOPE.
    #[prost(bytes = "bytes", tag = "11")]
    pub envelope: Bytes,
    /// BODYSTRUCTURE.
    #[prost(bytes = "bytes", tag = "12")]
    pub body_structure: Bytes,
    /// PREVIEW.
    #[prost(string, tag = "13")]
    pub preview: String,
    /// Recoverable items that have it.
    #[prost(uint32, tag = "14")]
    pub items: u32,
    /// THREADID (RFC 8474 5.2): the email that began the thread; 0 is itself.
    #[prost(uint64, tag = "15")]
    pub thread: u64,
    /// Keys of 16 bytes each, one after the other.
    #[prost(bytes = "bytes", tag = "16")]
    pub thread_keys: Bytes,
    /// Hashes of 8 bytes each of words of the header, one after the other, ascending.
    #[prost(bytes = "bytes", tag = "17")]
    pub header_tokens: Bytes,
    /// The mailbox that it was copied from; empty when it came from outside. Copies keep their
    /// EMAILID (RFC 8474 5.1), so whoever shows it shows the origin's.
    #[prost(bytes = "bytes", tag = "18")]
    pub origin_mailbox: Bytes,
    /// Its id there.
    #[prost(uint64, tag = "19")]
    pub origin_email: u64,
}

/// An expunged message that can be restored.
#[derive(Clone, PartialEq, Message)]
pub struct ItemRecord {
    /// Its content.
    #[prost(uint64, tag = "1")]
    pub email: u64,
    /// The folder it was in.
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// Its UID there.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Bits of [`crate::flags`].
    #[prost(uint32, tag = "4")]
    pub flags: u32,
    /// In lower case.
    #[prost(string, repeated, tag = "5")]
    pub keywords: Vec<String>,
    /// RFC822.SIZE.
    #[prost(uint64, tag = "6")]
    pub size: u64,
    /// When it was expunged, by the database's stamp.
    #[prost(uint64, tag = "7")]
    pub deleted_ms: u64,
    /// Who did it; empty is the owner, or whoever may do everything.
    #[prost(string, tag = "8")]
    pub deleted_by: String,
}

/// A folder that was deleted.
#[derive(Clone, PartialEq, Message)]
pub struct GoneFolder {
    /// When it was made: a reader who saw less never knew it.
    #[prost(uint64, tag = "1")]
    pub created_modseq: u64,
}

/// Who may do what with a folder (RFC 4314 2).
#[derive(Clone, PartialEq, Message)]
pub struct RightsTable {
    /// Ascending by identifier, each once, none without rights.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<RightsEntry>,
}

/// What one identifier may do.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RightsEntry {
    /// A user, a group, `anyone`; with a `-` before it, what is taken from it.
    #[prost(string, tag = "1")]
    pub identifier: String,
    /// Bits of [`crate::rights`].
    #[prost(uint32, tag = "2")]
    pub rights: u32,
}

/// A subscribed name that is no folder of the mailbox: one that was deleted (RFC 9051 6.3.7), or one
/// of another namespace.
#[derive(Clone, PartialEq, Message)]
pub struct SubscribedName {
    /// As given.
    #[prost(string, tag = "1")]
    pub path: String,
}

/// The thread that a thread key belongs to.
#[derive(Clone, PartialEq, Message)]
pub struct ThreadKey {
    /// The email that began it.
    #[prost(uint64, tag = "1")]
    pub thread: u64,
    /// Emails that have the key.
    #[prost(uint64, tag = "2")]
    pub references: u64,
}

/// The latest change of a message, or that it vanished. A message has one such row: its next
/// change removes it, so that a feed costs what it returns.
#[derive(Clone, PartialEq, Message)]
pub struct ChangeRecord {
    /// Its content.
    #[prost(uint64, tag = "1")]
    pub email: u64,
    /// When it came into the folder: a reader who saw less calls it created.
    #[prost(uint64, tag = "2")]
    pub created_modseq: u64,
    /// It is gone.
    #[prost(bool, tag = "3")]
    pub vanished: bool,
}

/// A stored body.
#[derive(Clone, PartialEq, Message)]
pub struct BodyRecord {
    /// Its bytes.
    #[prost(uint64, tag = "1")]
    pub size: u64,
    /// Its CRC-32.
    #[prost(uint32, tag = "2")]
    pub crc32: u32,
    /// Emails that have it.
    #[prost(uint64, tag = "3")]
    pub references: u64,
    /// Since when there are none; it then stands in the due table under this time.
    #[prost(uint64, optional, tag = "4")]
    pub due_ms: Option<u64>,
    /// Where the bytes are: 0 is the body table.
    #[prost(uint32, tag = "5")]
    pub location: u32,
    /// Chunks that are there of a body that was staged; 0 for one that came with its message.
    #[prost(uint32, tag = "6")]
    pub chunks: u32,
}

impl BodyRecord {
    /// Whether all its bytes are there.
    pub fn is_whole(&self) -> bool {
        self.chunks == 0 || self.chunks == body_chunks(self.size)
    }

    /// Rows of the body table that hold it.
    pub fn rows(&self) -> u32 {
        self.chunks.max(1)
    }

    /// Bytes of one of its rows.
    pub fn row_bytes(&self, row: u32) -> u64 {
        if self.chunks == 0 { self.size } else { chunk_bytes(self.size, row) }
    }
}

/// Chunks of a staged body of this size.
pub fn body_chunks(size: u64) -> u32 {
    size.div_ceil(limits::BODY_CHUNK_BYTES.max) as u32
}

/// Bytes of one of them.
pub fn chunk_bytes(size: u64, chunk: u32) -> u64 {
    let before = u64::from(chunk).saturating_mul(limits::BODY_CHUNK_BYTES.max);
    size.saturating_sub(before).min(limits::BODY_CHUNK_BYTES.max)
}

/// What a request id was answered.
#[derive(Clone, PartialEq, Message)]
pub struct RequestRecord {
    /// 16 bytes of BLAKE3 of the request.
    #[prost(bytes = "bytes", tag = "1")]
    pub digest: Bytes,
    /// The encoded response.
    #[prost(bytes = "bytes", tag = "2")]
    pub response: Bytes,
}

/// Where a delivery id was stored.
#[derive(Clone, PartialEq, Message)]
pub struct DeliveryRecord {
    /// The first 16 bytes of the body's BLAKE3: another body under the same id is refused.
    #[prost(bytes = "bytes", tag = "1")]
    pub digest: Bytes,
    /// In this folder.
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// With this UIDVALIDITY.
    #[prost(uint32, tag = "3")]
    pub uid_validity: u32,
    /// Under this UID.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// With this content.
    #[prost(uint64, tag = "5")]
    pub email: u64,
    /// At this mod-sequence.
    #[prost(uint64, tag = "6")]
    pub modseq: u64,
}

/// What one command did to messages.
#[derive(Clone, PartialEq, Message)]
pub struct TraceRecord {
    /// What.
    #[prost(enumeration = "TraceKind", tag = "1")]
    pub kind: i32,
    /// `Message-ID`, of what came in.
    #[prost(string, tag = "2")]
    pub message_id: String,
    /// The delivery id that brought it.
    #[prost(string, tag = "3")]
    pub delivery_id: String,
    /// The envelope's sender.
    #[prost(string, tag = "4")]
    pub sender: String,
    /// Bytes, of what came in.
    #[prost(uint64, tag = "5")]
    pub size: u64,
    /// One for each message and mailbox.
    #[prost(message, repeated, tag = "6")]
    pub places: Vec<TracePlace>,
}

/// What happened in one mailbox.
#[derive(Clone, PartialEq, Message)]
pub struct TracePlace {
    /// Whose.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// In which folder: for a move, where it was.
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// Under which UIDs.
    #[prost(message, repeated, tag = "3")]
    pub uids: Vec<crate::command::UidRange>,
    /// The recipient's address, of a delivery.
    #[prost(string, tag = "4")]
    pub address: String,
    /// Its content, where one is meant.
    #[prost(uint64, tag = "5")]
    pub email: u64,
    /// Number of the reason, where it was refused.
    #[prost(enumeration = "crate::response::Reason", tag = "6")]
    pub reason: i32,
    /// Stored by an earlier attempt.
    #[prost(bool, tag = "7")]
    pub duplicate: bool,
    /// Of a move: to which folder, in which mailbox.
    #[prost(uint32, tag = "8")]
    pub to_folder: u32,
    /// Empty: the same one.
    #[prost(bytes = "bytes", tag = "9")]
    pub to_mailbox_id: Bytes,
    /// Of a move: the UIDs there, in the same order.
    #[prost(message, repeated, tag = "10")]
    pub to_uids: Vec<crate::command::UidRange>,
}

/// What became of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum TraceKind {
    /// Never written.
    Unspecified = 0,
    /// They were delivered.
    Deliver = 1,
    /// They were appended.
    Append = 2,
    /// They were expunged.
    Expunge = 3,
    /// They were moved.
    Move = 4,
    /// They were brought back.
    Restore = 5,
}
