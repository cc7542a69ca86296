//! Why commands are refused.

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
    /// The mailbox is full; `subject` names the quota.
    OverQuota = 19,
    /// The folder has folders below it (HASCHILDREN, RFC 9051 6.3.5).
    FolderHasChildren = 20,
    /// The INBOX cannot be deleted, moved or renamed as a folder (RFC 9051 6.3.5, 6.3.6).
    FolderProtected = 21,
    /// A folder cannot come to stand below itself.
    FolderLoop = 22,
    /// Another folder has this special use (USEATTR, RFC 6154 3).
    SpecialUseTaken = 23,
    /// The actor does not have a right that is needed; `subject` has its letters (RFC 4314).
    AccessDenied = 24,
    /// The mailbox is on hold: nothing is removed for good.
    HoldActive = 25,
    /// There is no such recoverable item (any more).
    ItemNotFound = 26,
    /// It has changed since: `value` was expected, `limit` is the mod-sequence now.
    PreconditionFailed = 27,
    /// An earlier rename of the INBOX still has messages to move.
    InboxBusy = 28,
    /// A body that was to come in chunks before is not there whole: `value` are, `limit` are wanted.
    BodyNotStaged = 29,
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
            Self::FolderHasChildren => "FOLDER_HAS_CHILDREN",
            Self::FolderProtected => "FOLDER_PROTECTED",
            Self::FolderLoop => "FOLDER_LOOP",
            Self::SpecialUseTaken => "SPECIAL_USE_TAKEN",
            Self::AccessDenied => "ACCESS_DENIED",
            Self::HoldActive => "HOLD_ACTIVE",
            Self::ItemNotFound => "ITEM_NOT_FOUND",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::InboxBusy => "INBOX_BUSY",
            Self::BodyNotStaged => "BODY_NOT_STAGED",
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
            Self::FolderHasChildren => "delete or move the folders below it first",
            Self::FolderProtected => "the INBOX always exists; rename its content instead",
            Self::FolderLoop => "a folder cannot stand below itself; choose another parent",
            Self::SpecialUseTaken => {
                "another folder has this special use; take it away there first"
            }
            Self::AccessDenied => "ask an administrator of the folder for this right",
            Self::HoldActive => "the mailbox is on litigation hold; lift it first",
            Self::ItemNotFound => "it was restored or purged meanwhile; list the items again",
            Self::PreconditionFailed => "somebody else changed it; read it again",
            Self::InboxBusy => "an earlier rename still moves messages; try again in a minute",
            Self::BodyNotStaged => "the chunks of this body are not all here; send it again",
        }
    }
}
