//! What a command answers: replicated, so that a repeat on any copy gives the same answer.

use alloc::string::String;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use prost::{Message, Oneof};

use crate::command::UidRange;
use crate::view::Fault;

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
    #[prost(oneof = "Outcome", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18")]
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
}

/// Why nothing was done. Stable: names and numbers are part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Reason {
    /// Never written.
    Unspecified = 0,
    /// A field that must be there is empty; `subject` names it.
    FieldMissing = 1,
    /// A field has a form that it cannot have; `subject` names it.
    FieldInvalid = 2,
    /// A bound of [`crate::limits`]; `subject` names it.
    LimitExceeded = 3,
    /// The request id was used for another request in the last 24 hours.
    RequestIdReused = 4,
    /// The delivery id was used for another message.
    DeliveryIdReused = 5,
    /// This database has no such mailbox.
    MailboxNotFound = 6,
    /// The mailbox was deleted.
    MailboxDeleted = 7,
    /// The mailbox is there already.
    MailboxExists = 8,
    /// The mailbox does not have that address.
    AddressNotHere = 9,
    /// The mailbox has no such folder (TRYCREATE, RFC 9051 6.3.12).
    FolderNotFound = 10,
    /// The parent has a folder of that name already.
    FolderExists = 11,
    /// Not a name that a folder can have.
    FolderNameInvalid = 12,
    /// Not a keyword (RFC 9051 9, `flag-keyword`).
    KeywordInvalid = 13,
    /// A bit that names no system flag.
    FlagUnknown = 14,
    /// The folder has another UIDVALIDITY than expected: `value` was expected, `limit` is.
    UidValidityChanged = 15,
    /// The body has another length than declared: `value` came, `limit` was declared.
    SizeMismatch = 16,
    /// A body with this digest is stored with another length or CRC-32.
    DigestConflict = 17,
    /// A counter is at its end; `subject` names it. The folder or mailbox must be made anew.
    CounterExhausted = 18,
    /// The mailbox is full.
    OverQuota = 19,
}

impl Reason {
    /// The stable name that the API shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "UNSPECIFIED",
            Self::FieldMissing => "FIELD_MISSING",
            Self::FieldInvalid => "FIELD_INVALID",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::DeliveryIdReused => "DELIVERY_ID_REUSED",
            Self::MailboxNotFound => "MAILBOX_NOT_FOUND",
            Self::MailboxDeleted => "MAILBOX_DELETED",
            Self::MailboxExists => "MAILBOX_EXISTS",
            Self::AddressNotHere => "ADDRESS_NOT_HERE",
            Self::FolderNotFound => "FOLDER_NOT_FOUND",
            Self::FolderExists => "FOLDER_EXISTS",
            Self::FolderNameInvalid => "FOLDER_NAME_INVALID",
            Self::KeywordInvalid => "KEYWORD_INVALID",
            Self::FlagUnknown => "FLAG_UNKNOWN",
            Self::UidValidityChanged => "UID_VALIDITY_CHANGED",
            Self::SizeMismatch => "SIZE_MISMATCH",
            Self::DigestConflict => "DIGEST_CONFLICT",
            Self::CounterExhausted => "COUNTER_EXHAUSTED",
            Self::OverQuota => "OVER_QUOTA",
        }
    }

    /// What it means and what to do next, for people.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unspecified => "no reason was given",
            Self::FieldMissing => "a needed field is empty; fill it in",
            Self::FieldInvalid => "a field has an impossible form; correct it",
            Self::LimitExceeded => "more than the limit allows; split or shrink the request",
            Self::RequestIdReused => {
                "this request id belongs to another request; use a fresh id for each request"
            }
            Self::DeliveryIdReused => {
                "this delivery id belongs to another message; use a fresh id for each message"
            }
            Self::MailboxNotFound => "this database has no such mailbox; locate it again",
            Self::MailboxDeleted => "the mailbox was deleted; restore it or locate it again",
            Self::MailboxExists => "a mailbox with this id exists; choose another id",
            Self::AddressNotHere => "the mailbox does not have this address; locate it again",
            Self::FolderNotFound => "there is no such folder; create it first",
            Self::FolderExists => "the parent has a folder of this name; choose another name",
            Self::FolderNameInvalid => {
                "a name needs one to 255 bytes, no '/', no control characters, and is not '.' or '..'"
            }
            Self::KeywordInvalid => {
                "a keyword is printable ASCII without ( ) { % * \" \\ ] and spaces"
            }
            Self::FlagUnknown => "only the five system flags of IMAP4rev2 exist",
            Self::UidValidityChanged => "the folder is not the one you knew; read it again",
            Self::SizeMismatch => "the body does not have the declared length; send it again",
            Self::DigestConflict => {
                "another body is stored under this digest; compute digest and CRC-32 again"
            }
            Self::CounterExhausted => "a counter is at its end; use a new folder or mailbox",
            Self::OverQuota => "the mailbox is full; remove messages or raise its quota",
        }
    }
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
