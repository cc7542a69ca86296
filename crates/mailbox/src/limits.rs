//! Every bound of the mailbox core, in one table.
//!
//! What exceeds a bound is refused with [`Reason::LimitExceeded`], which names the bound, its value
//! and what was asked for. The bounds are checked in `apply`, so all copies refuse alike; they are
//! part of the replicated behaviour, and changing one needs a new command version.

use alloc::string::ToString;

use crate::response::{Reason, Rejection};

/// A bound with the stable name that callers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Stable, lower case, as in `messages_per_command`.
    pub name: &'static str,
    /// The greatest value that is accepted.
    pub max: u64,
}

impl Limit {
    const fn new(name: &'static str, max: u64) -> Self {
        Self { name, max }
    }

    /// Refuses a value beyond the bound.
    pub fn check(self, value: usize) -> Result<(), Rejection> {
        let value = value as u64;
        if value <= self.max {
            return Ok(());
        }
        Err(Rejection::new(Reason::LimitExceeded)
            .about(self.name.to_string())
            .with_value(value)
            .with_limit(self.max))
    }
}

/// Bytes of one message, header and body together (APPENDLIMIT, RFC 7889).
pub const MESSAGE_BYTES: Limit = Limit::new("message_bytes", 64 << 20);
/// Bytes of one chunk of a body that is too large for one entry. A fixed size, because where a body
/// is cut is part of what copies must have in common.
pub const BODY_CHUNK_BYTES: Limit = Limit::new("body_chunk_bytes", 4 << 20);
/// Bytes of what the proposer parsed out of one message. It is stored beside the message; the
/// proposer leaves out what would exceed the bound, since no mail is refused for its structure.
pub const PARSED_BYTES: Limit = Limit::new("parsed_bytes", 64 << 10);
/// Recipients of one delivery.
pub const RECIPIENTS_PER_DELIVERY: Limit = Limit::new("recipients_per_delivery", 1_000);
/// Messages that one command may look at. What is larger is split by its caller.
pub const MESSAGES_PER_COMMAND: Limit = Limit::new("messages_per_command", 1_000);
/// Ranges in one UID set.
pub const UID_RANGES_PER_COMMAND: Limit = Limit::new("uid_ranges_per_command", 1_000);
/// Addresses of one mailbox.
pub const ADDRESSES_PER_MAILBOX: Limit = Limit::new("addresses_per_mailbox", 256);
/// Bytes of an address (RFC 5321 4.5.3.1.3: a path has 256 octets, two of them brackets).
pub const ADDRESS_BYTES: Limit = Limit::new("address_bytes", 254);
/// Folders of one mailbox, INBOX included.
pub const FOLDERS_PER_MAILBOX: Limit = Limit::new("folders_per_mailbox", 10_000);
/// Levels of folders below the root.
pub const FOLDER_DEPTH: Limit = Limit::new("folder_depth", 32);
/// Bytes of one folder's own name, in UTF-8.
pub const FOLDER_NAME_BYTES: Limit = Limit::new("folder_name_bytes", 255);
/// Different keywords in use, now or earlier, in one folder.
pub const KEYWORDS_PER_FOLDER: Limit = Limit::new("keywords_per_folder", 128);
/// Bytes of one keyword (RFC 8621 4.1.1).
pub const KEYWORD_BYTES: Limit = Limit::new("keyword_bytes", 255);
/// Bytes of a `request_id`.
pub const REQUEST_ID_BYTES: Limit = Limit::new("request_id_bytes", 128);
/// Bytes of a `delivery_id`.
pub const DELIVERY_ID_BYTES: Limit = Limit::new("delivery_id_bytes", 512);
/// Rows that one sweep may expire.
pub const SWEEP_ROWS: Limit = Limit::new("sweep_rows", 1_000);
/// Bytes of all messages of one multiple append together (MULTIAPPEND, RFC 3502).
pub const APPEND_BYTES: Limit = Limit::new("append_bytes", 64 << 20);
/// Places that one email may have in its mailbox, copies in other folders included.
pub const PLACEMENTS_PER_EMAIL: Limit = Limit::new("placements_per_email", 256);
/// What one message may be grouped into threads by; the proposer leaves out what is more.
pub const THREAD_KEYS_PER_MESSAGE: Limit = Limit::new("thread_keys_per_message", 16);
/// Words of a header that can be searched for; the proposer leaves out what is more.
pub const HEADER_TOKENS_PER_MESSAGE: Limit = Limit::new("header_tokens_per_message", 256);
/// Identifiers that have rights on one folder (RFC 4314).
pub const RIGHTS_PER_FOLDER: Limit = Limit::new("rights_per_folder", 256);
/// Bytes of an identifier, its `-` included.
pub const IDENTIFIER_BYTES: Limit = Limit::new("identifier_bytes", 255);
/// Identifiers of one actor: the user and its groups.
pub const IDENTIFIERS_PER_ACTOR: Limit = Limit::new("identifiers_per_actor", 64);
/// Subscribed names that are no folders of the mailbox.
pub const SUBSCRIBED_NAMES: Limit = Limit::new("subscribed_names", 1_000);
/// Bytes of a folder's path: 32 levels of 255 bytes, and what separates them.
pub const FOLDER_PATH_BYTES: Limit = Limit::new("folder_path_bytes", 32 * 256 - 1);
/// Milliseconds for which expunged messages can be kept: ten years.
pub const RETENTION_MS: Limit = Limit::new("retention_ms", 10 * 365 * 24 * 60 * 60 * 1_000);

/// All bounds, for documentation and tests.
pub const ALL: [Limit; 26] = [
    MESSAGE_BYTES,
    BODY_CHUNK_BYTES,
    PARSED_BYTES,
    RECIPIENTS_PER_DELIVERY,
    MESSAGES_PER_COMMAND,
    UID_RANGES_PER_COMMAND,
    ADDRESSES_PER_MAILBOX,
    ADDRESS_BYTES,
    FOLDERS_PER_MAILBOX,
    FOLDER_DEPTH,
    FOLDER_NAME_BYTES,
    KEYWORDS_PER_FOLDER,
    KEYWORD_BYTES,
    REQUEST_ID_BYTES,
    DELIVERY_ID_BYTES,
    SWEEP_ROWS,
    APPEND_BYTES,
    PLACEMENTS_PER_EMAIL,
    THREAD_KEYS_PER_MESSAGE,
    HEADER_TOKENS_PER_MESSAGE,
    RIGHTS_PER_FOLDER,
    IDENTIFIER_BYTES,
    IDENTIFIERS_PER_ACTOR,
    SUBSCRIBED_NAMES,
    FOLDER_PATH_BYTES,
    RETENTION_MS,
];

/// How long chunks of a body wait for its message, from the last one on.
pub const STAGED_KEPT_MS: u64 = 60 * 60 * 1_000;
/// How long a request id is remembered: 24 hours.
pub const REQUEST_ID_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long a delivery id is remembered after its message is gone: 14 days.
pub const DELIVERY_ID_KEPT_MS: u64 = 14 * 24 * 60 * 60 * 1_000;
/// How long a folder tells which of its messages vanished, and a mailbox which folders did: 60 days
/// (RFC 8620 5.2 would have 30).
pub const VANISHED_KEPT_MS: u64 = 60 * 24 * 60 * 60 * 1_000;
/// The greatest mod-sequence: 63 bits (RFC 7162 3.1).
pub const MODSEQ_MAX: u64 = i64::MAX as u64;
/// How long the trace is kept: 30 days.
pub const TRACE_KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
