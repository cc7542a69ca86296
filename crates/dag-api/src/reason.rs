//! Why a call failed, by names that never change.
//!
//! A caller decides by the reason alone. Each one knows its gRPC code and what a repetition is good
//! for; both are exhaustive matches, so that a new reason cannot be forgotten in either.
//!
//! | kind | reasons | nature |
//! | --- | --- | --- |
//! | refusal | `NOT_ACTIVE_COPY`, `OVERLOADED`, ... | this node, now; nothing was proposed |
//! | rejection | `MAILBOX_NOT_FOUND`, `REQUEST_ID_REUSED`, ... | the same wherever and whenever it is asked, until something changes |
//! | unknown | `OUTCOME_UNKNOWN` | proposed, and nobody can say yet; the same id finds out |

use tonic::Code;

/// The domain of our `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "holdfast";

/// What a repetition of the call, with the same id, is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call would fail again.
    Never,
    /// The same node will be able to answer after a while.
    Later,
    /// Another node may be able to answer; the hint, if there is one, says which.
    Elsewhere,
    /// The caller's idea of where the mailbox is has to be renewed first.
    Relocate,
    /// It may have been carried out: only a repetition with the same id tells.
    SameId,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident, $retry:ident;)*) => {
        /// A stable reason of an error; its name on the wire is [`Reason::as_str`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The gRPC code that goes with it.
            pub fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)*
                }
            }

            /// What a repetition with the same id is good for.
            pub fn retry(self) -> Retry {
                match self {
                    $(Self::$name => Retry::$retry,)*
                }
            }

            /// Reads a name from the wire. `None` for one that a newer release brought.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    // Refusals: nothing was proposed.
    /// This node's copy is not the active one. Facts: active node and endpoint, where known.
    NotActiveCopy = "NOT_ACTIVE_COPY", Unavailable, Elsewhere;
    /// The copy leads and finds no majority that confirms it.
    NoQuorum = "NO_QUORUM", Unavailable, Elsewhere;
    /// The node has no leave to mount databases at present.
    GateClosed = "GATE_CLOSED", Unavailable, Elsewhere;
    /// A fault stopped this node's copy.
    CopyFailed = "COPY_FAILED", Unavailable, Elsewhere;
    /// The node is being stopped.
    ShuttingDown = "SHUTTING_DOWN", Unavailable, Elsewhere;
    /// The node belongs to no DAG yet. Fact: the command that helps.
    Unprovisioned = "UNPROVISIONED", FailedPrecondition, Elsewhere;
    /// More bytes or requests are in flight than the node admits. Facts: value and limit.
    Overloaded = "OVERLOADED", ResourceExhausted, Later;
    /// The disk is nearly full: writes are refused, reads are not. Facts: value and limit.
    DiskLow = "DISK_LOW", ResourceExhausted, Later;
    /// The deadline passed before anything was proposed.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded, Later;
    /// A node or a client knows a newer lineage. Fact: the lineage.
    StaleLineage = "STALE_LINEAGE", FailedPrecondition, Relocate;
    /// The node belongs to another DAG than the caller names.
    WrongDag = "WRONG_DAG", FailedPrecondition, Never;
    /// The store already belongs to a DAG, or is prepared for another.
    AlreadyProvisioned = "ALREADY_PROVISIONED", FailedPrecondition, Never;

    // Nobody can say yet.
    /// It was proposed and may or may not take effect. Repeat with the same id.
    OutcomeUnknown = "OUTCOME_UNKNOWN", Unknown, SameId;

    // Rejections.
    /// The mailbox is in another database now.
    MailboxMoved = "MAILBOX_MOVED", FailedPrecondition, Relocate;
    /// There is no such mailbox.
    MailboxNotFound = "MAILBOX_NOT_FOUND", NotFound, Never;
    /// The address has a mailbox already.
    MailboxExists = "MAILBOX_EXISTS", AlreadyExists, Never;
    /// The mailbox was deleted.
    MailboxDeleted = "MAILBOX_DELETED", NotFound, Never;
    /// There is no such folder in the mailbox.
    FolderNotFound = "FOLDER_NOT_FOUND", NotFound, Never;
    /// The name or the special use is taken.
    FolderExists = "FOLDER_EXISTS", AlreadyExists, Never;
    /// Not a name that a folder can have.
    FolderNameInvalid = "FOLDER_NAME_INVALID", InvalidArgument, Never;
    /// The folder has folders below it (HASCHILDREN, RFC 9051 6.3.5). Fact: the folder.
    FolderHasChildren = "FOLDER_HAS_CHILDREN", FailedPrecondition, Never;
    /// The INBOX cannot be deleted, moved or renamed as a folder.
    FolderProtected = "FOLDER_PROTECTED", FailedPrecondition, Never;
    /// Another folder has this special use (USEATTR, RFC 6154 3). Fact: that folder.
    SpecialUseTaken = "SPECIAL_USE_TAKEN", AlreadyExists, Never;
    /// The actor lacks a right (RFC 4314). Fact: the letters of the missing ones.
    AccessDenied = "ACCESS_DENIED", PermissionDenied, Never;
    /// The mailbox is on litigation hold.
    HoldActive = "HOLD_ACTIVE", FailedPrecondition, Never;
    /// There is no such recoverable item any more. Fact: the item.
    ItemNotFound = "ITEM_NOT_FOUND", NotFound, Never;
    /// It has changed since it was read. Fact: its mod-sequence now.
    PreconditionFailed = "PRECONDITION_FAILED", Aborted, Never;
    /// An earlier rename of the INBOX still moves messages. Try again in a minute, with a new id.
    InboxBusy = "INBOX_BUSY", FailedPrecondition, Never;
    /// Not a keyword (RFC 9051 9, `flag-keyword`).
    KeywordInvalid = "KEYWORD_INVALID", InvalidArgument, Never;
    /// There is no such message in the folder.
    MessageNotFound = "MESSAGE_NOT_FOUND", NotFound, Never;
    /// The message has no part of that name.
    SectionNotFound = "SECTION_NOT_FOUND", NotFound, Never;
    /// What vanished since then is not known any more. Fact: the oldest MODSEQ that can be asked for.
    ChangesTooOld = "CHANGES_TOO_OLD", OutOfRange, Never;
    /// There is no such database.
    DatabaseNotFound = "DATABASE_NOT_FOUND", NotFound, Never;
    /// The name is taken.
    DatabaseExists = "DATABASE_EXISTS", AlreadyExists, Never;
    /// There is no such snapshot on this node.
    SnapshotNotFound = "SNAPSHOT_NOT_FOUND", NotFound, Never;
    /// There is no such node in the DAG.
    NodeNotFound = "NODE_NOT_FOUND", NotFound, Never;
    /// The copies asked for cannot be placed. Fact: the check that failed.
    PlacementImpossible = "PLACEMENT_IMPOSSIBLE", FailedPrecondition, Never;
    /// A check of an operator's command failed. Facts: which one, and what was found and needed.
    CheckFailed = "CHECK_FAILED", FailedPrecondition, Never;
    /// The id was used before for something else.
    RequestIdReused = "REQUEST_ID_REUSED", InvalidArgument, Never;
    /// The delivery id was used before for another message.
    DeliveryIdReused = "DELIVERY_ID_REUSED", InvalidArgument, Never;
    /// The folder's UIDVALIDITY is another. Fact: the current one.
    UidValidityChanged = "UIDVALIDITY_CHANGED", FailedPrecondition, Never;
    /// The bytes are not those of the digest, checksum or size that came with them.
    DigestMismatch = "DIGEST_MISMATCH", InvalidArgument, Never;
    /// The message is too large. Facts: value and limit.
    TooLarge = "TOO_LARGE", InvalidArgument, Never;
    /// One of the API's limits. Facts: which, value and limit.
    LimitExceeded = "LIMIT_EXCEEDED", InvalidArgument, Never;
    /// The mailbox is full.
    OverQuota = "OVER_QUOTA", ResourceExhausted, Never;
    /// A counter of the folder or mailbox is at its end.
    CounterExhausted = "COUNTER_EXHAUSTED", FailedPrecondition, Never;
    /// The page token belongs to another query, or is none.
    PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument, Never;
    /// A field is missing or makes no sense. Fact: which.
    InvalidRequest = "INVALID_REQUEST", InvalidArgument, Never;

    // Faults.
    /// A record of this copy is damaged; the copy fails and another one takes over.
    RecordCorrupt = "RECORD_CORRUPT", DataLoss, Elsewhere;
    /// The snapshot is not as it was written; nothing is given out of it any more.
    SnapshotDamaged = "SNAPSHOT_DAMAGED", DataLoss, Never;
    /// A defect of the node, met before anything was proposed; its log says more. After a proposal
    /// the answer is [`Reason::OutcomeUnknown`] instead.
    Internal = "INTERNAL", Internal, Never;
}

impl Reason {
    /// Whether a repetition with the same id can succeed.
    pub fn is_retryable(self) -> bool {
        match self.retry() {
            Retry::Never => false,
            Retry::Later | Retry::Elsewhere | Retry::Relocate | Retry::SameId => true,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_reads_back_from_its_name() {
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len(), "two reasons share a name");
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::from_name("SOMETHING_NEWER"), None);
    }

    #[test]
    fn an_unavailable_node_is_never_a_reason_to_give_up() {
        for &reason in Reason::ALL {
            let passing = matches!(reason.code(), Code::Unavailable | Code::DeadlineExceeded);
            assert!(!passing || reason.is_retryable(), "{reason}");
            let lasting = matches!(
                reason.code(),
                Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::Internal
            );
            assert!(!lasting || !reason.is_retryable(), "{reason}");
            assert_ne!(reason.code(), Code::Ok, "{reason}");
        }
    }

    #[test]
    fn only_an_unknown_outcome_has_the_code_unknown() {
        for &reason in Reason::ALL {
            assert_eq!(reason.code() == Code::Unknown, reason.retry() == Retry::SameId, "{reason}");
        }
    }
}
