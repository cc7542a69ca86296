//! What a command answers: replicated, so that a repeat on any copy gives the same answer.

mod reason;

use alloc::string::String;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use prost::{Message, Oneof};

use crate::command::UidRange;
use crate::records::MailboxSettings;
use crate::view::Fault;

pub use reason::Reason;

/// The answer to a command.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// The answer was given before, to the same request id, and nothing was done this time.
    #[prost(bool, tag = "1")]
    pub replayed: bool,
    /// Index of the log entry that was carried out: for a replay, the first one's.
    #[prost(uint64, tag = "2")]
    pub log_index: u64,
    /// What came of it; always there.
    #[prost(
        oneof = "Outcome",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28"
    )]
    pub outcome: Option<Outcome>,
}

/// What came of a command.
#[derive(Clone, PartialEq, Oneof)]
pub enum Outcome {
    /// Nothing was done.
    #[prost(message, tag = "10")]
    Rejected(Rejection),
    /// To `CreateMailbox`.
    #[prost(message, tag = "11")]
    MailboxCreated(MailboxCreated),
    /// To `DeleteMailbox`.
    #[prost(message, tag = "12")]
    MailboxDeleted(MailboxDeleted),
    /// To `CreateFolder`.
    #[prost(message, tag = "13")]
    FolderCreated(FolderCreated),
    /// To `Deliver`.
    #[prost(message, tag = "14")]
    Delivered(Delivered),
    /// To `Append`.
    #[prost(message, tag = "15")]
    Appended(StoredAt),
    /// To `StoreFlags`.
    #[prost(message, tag = "16")]
    FlagsStored(FlagsStored),
    /// To `Expunge`.
    #[prost(message, tag = "17")]
    Expunged(Expunged),
    /// To `Sweep`.
    #[prost(message, tag = "18")]
    Swept(Swept),
    /// To `UpdateMailbox`.
    #[prost(message, tag = "19")]
    MailboxUpdated(MailboxUpdated),
    /// To `UpdateFolder` and `SetRights`.
    #[prost(message, tag = "20")]
    FolderUpdated(FolderUpdated),
    /// To `DeleteFolder`.
    #[prost(message, tag = "21")]
    FolderDeleted(FolderDeleted),
    /// To `RenameInbox`.
    #[prost(message, tag = "22")]
    InboxRenamed(InboxRenamed),
    /// To `SubscribeName`.
    #[prost(message, tag = "23")]
    NameSubscribed(NameSubscribed),
    /// To `CopyMessages` and `MoveMessages`.
    #[prost(message, tag = "24")]
    Transferred(Transferred),
    /// To `AppendMany`.
    #[prost(message, tag = "25")]
    AppendedMany(AppendedMany),
    /// To `RestoreItems`.
    #[prost(message, tag = "26")]
    Restored(Restored),
    /// To `PurgeItems`.
    #[prost(message, tag = "27")]
    ItemsPurged(ItemsPurged),
    /// To `StageChunk`.
    #[prost(message, tag = "28")]
    Staged(Staged),
}

/// How much of a body is there.
#[derive(Clone, PartialEq, Message)]
pub struct Staged {
    /// Chunks from the first on; the next one is wanted, if there is one.
    #[prost(uint32, tag = "1")]
    pub chunks: u32,
}

/// A new mailbox.
#[derive(Clone, PartialEq, Message)]
pub struct MailboxCreated {
    /// Its INBOX.
    #[prost(message, required, tag = "1")]
    pub inbox: FolderCreated,
}

/// A mailbox that answers nothing any more.
#[derive(Clone, PartialEq, Message)]
pub struct MailboxDeleted {
    /// When, by the database's stamp.
    #[prost(uint64, tag = "1")]
    pub deleted_ms: u64,
}

/// A new folder.
#[derive(Clone, PartialEq, Message)]
pub struct FolderCreated {
    /// Stable for the folder's life (MAILBOXID, RFC 8474 4).
    #[prost(uint32, tag = "1")]
    pub folder: u32,
    /// Greater than that of any folder made in this database before.
    #[prost(uint32, tag = "2")]
    pub uid_validity: u32,
    /// The mailbox's mod-sequence now.
    #[prost(uint64, tag = "3")]
    pub modseq: u64,
}

/// Where a message was stored (APPENDUID, RFC 4315 3).
#[derive(Clone, PartialEq, Message)]
pub struct StoredAt {
    /// The folder.
    #[prost(uint32, tag = "1")]
    pub folder: u32,
    /// The folder's UIDVALIDITY.
    #[prost(uint32, tag = "2")]
    pub uid_validity: u32,
    /// Its UID there.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// EMAILID (RFC 8474 5.1), unique in the mailbox.
    #[prost(uint64, tag = "4")]
    pub email_id: u64,
    /// Its mod-sequence.
    #[prost(uint64, tag = "5")]
    pub modseq: u64,
}

/// What came of a delivery.
#[derive(Clone, PartialEq, Message)]
pub struct Delivered {
    /// One per recipient, in the order of the command.
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<RecipientResult>,
}

/// What a delivery did for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum DeliverCode {
    /// Never written.
    Unspecified = 0,
    /// Stored now.
    Stored = 1,
    /// Stored by an earlier attempt; `stored` says where.
    Duplicate = 2,
    /// The mailbox is full.
    OverQuota = 3,
    /// This database has no such mailbox, or it does not have that address any more.
    NoMailbox = 4,
    /// Refused for another reason; `rejection` says which.
    Refused = 5,
}

/// What a delivery did for one recipient.
#[derive(Clone, PartialEq, Message)]
pub struct RecipientResult {
    /// As in the command.
    #[prost(string, tag = "1")]
    pub address: String,
    /// What happened.
    #[prost(enumeration = "DeliverCode", tag = "2")]
    pub code: i32,
    /// Where, for `Stored` and `Duplicate`.
    #[prost(message, optional, tag = "3")]
    pub stored: Option<StoredAt>,
    /// Why not, for the other codes.
    #[prost(message, optional, tag = "4")]
    pub rejection: Option<Rejection>,
}

/// What came of a change of flags.
#[derive(Clone, PartialEq, Message)]
pub struct FlagsStored {
    /// The mod-sequence of all messages in `changed`; the folder's highest when there are none.
    #[prost(uint64, tag = "1")]
    pub modseq: u64,
    /// UIDs whose flags are different now.
    #[prost(message, repeated, tag = "2")]
    pub changed: Vec<UidRange>,
    /// UIDs that had these flags already; their mod-sequence did not move (RFC 7162 3.1.12).
    #[prost(message, repeated, tag = "3")]
    pub unchanged: Vec<UidRange>,
    /// UIDs left alone because of UNCHANGEDSINCE (response code MODIFIED, RFC 7162 3.1.3).
    #[prost(message, repeated, tag = "4")]
    pub modified: Vec<UidRange>,
}

/// What came of an expunge.
#[derive(Clone, PartialEq, Message)]
pub struct Expunged {
    /// The mod-sequence at which they vanished; the folder's highest when none did.
    #[prost(uint64, tag = "1")]
    pub modseq: u64,
    /// UIDs that are gone.
    #[prost(message, repeated, tag = "2")]
    pub vanished: Vec<UidRange>,
}

/// What a sweep removed.
#[derive(Clone, PartialEq, Message)]
pub struct Swept {
    /// Request ids forgotten.
    #[prost(uint32, tag = "1")]
    pub request_ids: u32,
    /// Delivery ids forgotten.
    #[prost(uint32, tag = "2")]
    pub delivery_ids: u32,
    /// Bodies removed.
    #[prost(uint32, tag = "3")]
    pub bodies: u32,
    /// More rows are due: propose another one.
    #[prost(bool, tag = "4")]
    pub more: bool,
    /// Rows that told what had vanished.
    #[prost(uint32, tag = "5")]
    pub vanished: u32,
    /// Recoverable items removed for good.
    #[prost(uint32, tag = "6")]
    pub items: u32,
    /// Messages of deleted folders expunged.
    #[prost(uint32, tag = "7")]
    pub messages: u32,
    /// Deleted folders of which nothing is left.
    #[prost(uint32, tag = "8")]
    pub folders: u32,
    /// Messages moved out of an INBOX that was renamed.
    #[prost(uint32, tag = "9")]
    pub moved: u32,
}

/// Settings as they are now.
#[derive(Clone, PartialEq, Message)]
pub struct MailboxUpdated {
    /// All of them.
    #[prost(message, required, tag = "1")]
    pub settings: MailboxSettings,
    /// The mod-sequence at which they changed last.
    #[prost(uint64, tag = "2")]
    pub modseq: u64,
}

/// A folder that is, or was already, as it was asked for.
#[derive(Clone, PartialEq, Message)]
pub struct FolderUpdated {
    /// The mod-sequence at which its profile or rights changed last.
    #[prost(uint64, tag = "1")]
    pub modseq: u64,
}

/// A folder that is gone.
#[derive(Clone, PartialEq, Message)]
pub struct FolderDeleted {
    /// The mod-sequence at which it went.
    #[prost(uint64, tag = "1")]
    pub modseq: u64,
    /// Messages that it had.
    #[prost(uint32, tag = "2")]
    pub messages: u32,
}

/// An INBOX whose messages are, or will be, in another folder.
#[derive(Clone, PartialEq, Message)]
pub struct InboxRenamed {
    /// Where they go.
    #[prost(message, required, tag = "1")]
    pub folder: FolderCreated,
    /// Messages moved already.
    #[prost(uint32, tag = "2")]
    pub moved: u32,
    /// Messages that sweeps will move.
    #[prost(uint32, tag = "3")]
    pub left: u32,
}

/// A name that is, or is not any more, subscribed.
#[derive(Clone, PartialEq, Message)]
pub struct NameSubscribed {
    /// The mailbox's mod-sequence now.
    #[prost(uint64, tag = "1")]
    pub modseq: u64,
}

/// Messages that were copied or moved (COPYUID, RFC 4315 3). The sets have equally many UIDs, and
/// the n-th of the one became the n-th of the other.
#[derive(Clone, PartialEq, Message)]
pub struct Transferred {
    /// UIDVALIDITY of the folder that they came to.
    #[prost(uint32, tag = "1")]
    pub uid_validity: u32,
    /// Their UIDs in the folder that they were taken from.
    #[prost(message, repeated, tag = "2")]
    pub source: Vec<UidRange>,
    /// Their UIDs in the folder that they came to.
    #[prost(message, repeated, tag = "3")]
    pub target: Vec<UidRange>,
    /// The mod-sequence that they have there; that folder's highest when there are none.
    #[prost(uint64, tag = "4")]
    pub modseq: u64,
    /// The mod-sequence at which they vanished; the folder's highest when none did.
    #[prost(uint64, tag = "5")]
    pub source_modseq: u64,
}

/// Where several messages were stored: their UIDs and email ids follow one another.
#[derive(Clone, PartialEq, Message)]
pub struct AppendedMany {
    /// The first of them.
    #[prost(message, required, tag = "1")]
    pub first: StoredAt,
    /// How many.
    #[prost(uint32, tag = "2")]
    pub messages: u32,
}

/// Where restored messages are.
#[derive(Clone, PartialEq, Message)]
pub struct Restored {
    /// One per item, in the order of the command.
    #[prost(message, repeated, tag = "1")]
    pub stored: Vec<StoredAt>,
}

/// Items that cannot be restored any more.
#[derive(Clone, PartialEq, Message)]
pub struct ItemsPurged {
    /// How many.
    #[prost(uint32, tag = "1")]
    pub items: u32,
}

/// A refusal that all copies agree on.
#[derive(Clone, PartialEq, Message)]
pub struct Rejection {
    /// Why.
    #[prost(enumeration = "Reason", tag = "1")]
    pub code: i32,
    /// What it is about: the name of a limit, of a field, of a folder, an id.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// The value that was given, where a number was refused.
    #[prost(uint64, tag = "3")]
    pub value: u64,
    /// The limit, or the value that is true now.
    #[prost(uint64, tag = "4")]
    pub limit: u64,
}

impl Rejection {
    /// A refusal that says nothing but its reason.
    pub fn new(reason: Reason) -> Self {
        Self { code: reason as i32, ..Self::default() }
    }

    /// Says what it is about.
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Says which number was refused.
    pub fn with_value(mut self, value: u64) -> Self {
        self.value = value;
        self
    }

    /// Says what would have been accepted.
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.code()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason().name())?;
        if !self.subject.is_empty() {
            write!(f, " {}", self.subject)?;
        }
        if self.value != 0 || self.limit != 0 {
            write!(f, " ({} given, {} allowed)", self.value, self.limit)?;
        }
        write!(f, ": {}", self.reason().advice())
    }
}

impl Response {
    /// An answer given for the first time.
    pub fn new(log_index: u64, outcome: Outcome) -> Self {
        Self { replayed: false, log_index, outcome: Some(outcome) }
    }

    /// The rejection, if it is one.
    pub fn rejection(&self) -> Option<&Rejection> {
        match &self.outcome {
            Some(Outcome::Rejected(rejection)) => Some(rejection),
            _ => None,
        }
    }

    /// The bytes that `propose` answers with.
    pub fn encode_to_bytes(&self) -> Bytes {
        Bytes::from(self.encode_to_vec())
    }

    /// Reads an answer. An unknown outcome is a fault: this version cannot tell what was done.
    pub fn decode_from(bytes: Bytes) -> Result<Self, Fault> {
        let response = Self::decode(bytes)
            .map_err(|error| Fault::UnknownCommand { detail: error.to_string() })?;
        if response.outcome.is_none() {
            let detail = "its answer has no outcome that this version knows".to_string();
            return Err(Fault::UnknownCommand { detail });
        }
        Ok(response)
    }
}

impl RecipientResult {
    pub(crate) fn stored(address: &str, code: DeliverCode, stored: StoredAt) -> Self {
        Self { address: address.into(), code: code as i32, stored: Some(stored), rejection: None }
    }

    pub(crate) fn refused(address: &str, code: DeliverCode, rejection: Rejection) -> Self {
        Self {
            address: address.into(),
            code: code as i32,
            stored: None,
            rejection: Some(rejection),
        }
    }
}
