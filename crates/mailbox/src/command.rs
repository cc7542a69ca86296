//! The commands that a database replicates, as they stand in the log.
//!
//! A command carries everything that `apply` may not find out by itself: the proposer's clock, ids
//! made at random, digests of bodies, what a MIME parser saw. UIDs, mod-sequences and all other
//! numbers are missing on purpose: only `apply` gives them out, from the state alone.
//!
//! An added field needs a new [`COMMAND_VERSION`], because a copy that does not know the field would
//! pass over it and differ from the others. A command that uses one says so in its `version`, and a
//! copy that does not know that version stops. What version 1 could say is encoded as it always was.

mod folders;
mod messages;
mod settings;

use alloc::format;
use alloc::string::String;
use alloc::string::ToString;
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{MailboxId, Millis};
use prost::{Message, Oneof};

use crate::limits;
use crate::records::{MailboxSettings, body_chunks, chunk_bytes};
use crate::view::Fault;

pub use folders::{DeleteFolder, RenameInbox, SetRights, SubscribeName, UpdateFolder};
pub use messages::{
    AppendItem, AppendMany, CopyMessages, MoveMessages, PurgeItems, RestoreItems, StageChunk,
    Transfer,
};
pub use settings::{SettingsChange, UpdateMailbox};

/// The newest version of the commands that this crate can read.
pub const COMMAND_VERSION: u32 = 4;

/// One replicated command.
#[derive(Clone, PartialEq, Message)]
pub struct Command {
    /// Chosen by the client, the same for each of its attempts; scoped by the mailbox. Needed for
    /// everything but a delivery, which has its own `delivery_id`, and a sweep.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// The proposer's clock, milliseconds since 1970. `apply` never lets it go back.
    #[prost(uint64, tag = "2")]
    pub proposed_at_ms: u64,
    /// Who it is done for: a user and its groups, as rights name them. Empty is the mailbox's owner,
    /// or somebody who may do everything. Part of what makes two requests equal.
    #[prost(string, repeated, tag = "3")]
    pub actor: Vec<String>,
    /// The version that is needed to read it; 0 is version 1.
    #[prost(uint32, tag = "4")]
    pub version: u32,
    /// What it does to messages is noted in the trace.
    #[prost(bool, tag = "5")]
    pub traced: bool,
    /// What to do. None: written by a newer version, which is a fault.
    #[prost(
        oneof = "Operation",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29"
    )]
    pub operation: Option<Operation>,
}

/// What a command does.
#[derive(Clone, PartialEq, Oneof)]
pub enum Operation {
    /// A new mailbox with its INBOX.
    #[prost(message, tag = "10")]
    CreateMailbox(CreateMailbox),
    /// Marks a mailbox as deleted.
    #[prost(message, tag = "11")]
    DeleteMailbox(DeleteMailbox),
    /// A new folder.
    #[prost(message, tag = "12")]
    CreateFolder(CreateFolder),
    /// A message from outside, to the INBOX of each recipient.
    #[prost(message, tag = "13")]
    Deliver(Deliver),
    /// A message from the mailbox's user, to one folder.
    #[prost(message, tag = "14")]
    Append(Append),
    /// Changes flags and keywords.
    #[prost(message, tag = "15")]
    StoreFlags(StoreFlags),
    /// Removes messages.
    #[prost(message, tag = "16")]
    Expunge(Expunge),
    /// Removes rows whose time is over.
    #[prost(message, tag = "17")]
    Sweep(Sweep),
    /// Changes a mailbox's settings.
    #[prost(message, tag = "18")]
    UpdateMailbox(UpdateMailbox),
    /// Changes a folder's name, place, use or subscription.
    #[prost(message, tag = "19")]
    UpdateFolder(UpdateFolder),
    /// Deletes a folder.
    #[prost(message, tag = "20")]
    DeleteFolder(DeleteFolder),
    /// Moves what is in the INBOX to a new folder.
    #[prost(message, tag = "21")]
    RenameInbox(RenameInbox),
    /// Subscribes a name that is no folder.
    #[prost(message, tag = "22")]
    SubscribeName(SubscribeName),
    /// Gives or takes rights on a folder.
    #[prost(message, tag = "23")]
    SetRights(SetRights),
    /// Copies messages.
    #[prost(message, tag = "24")]
    CopyMessages(CopyMessages),
    /// Moves messages.
    #[prost(message, tag = "25")]
    MoveMessages(MoveMessages),
    /// Several messages to one folder.
    #[prost(message, tag = "26")]
    AppendMany(AppendMany),
    /// Brings expunged messages back.
    #[prost(message, tag = "27")]
    RestoreItems(RestoreItems),
    /// Removes expunged messages for good.
    #[prost(message, tag = "28")]
    PurgeItems(PurgeItems),
    /// A part of a body whose message comes later.
    #[prost(message, tag = "29")]
    StageChunk(StageChunk),
}

impl Operation {
    /// The version that is needed to read it; 0 where version 1 will do.
    fn version(&self) -> u32 {
        let parsed_is_new = |content: &Content| {
            !content.parsed.thread_keys.is_empty() || !content.parsed.header_tokens.is_empty()
        };
        let is_staged = match self {
            Self::StageChunk(_) => true,
            Self::Deliver(deliver) => deliver.content.staged,
            Self::Append(append) => append.content.staged,
            Self::AppendMany(append) => append.messages.iter().any(|item| item.content.staged),
            _ => false,
        };
        if is_staged {
            return 4;
        }
        let uses_version_2 = match self {
            Self::CreateMailbox(create) => create.settings.is_some(),
            Self::CreateFolder(create) => create.special_use != 0,
            Self::Deliver(deliver) => parsed_is_new(&deliver.content),
            Self::Append(append) => parsed_is_new(&append.content),
            Self::Expunge(expunge) => expunge.beyond_recovery,
            Self::DeleteMailbox(_) | Self::StoreFlags(_) | Self::Sweep(_) => false,
            _ => true,
        };
        if uses_version_2 { 2 } else { 0 }
    }
}

impl Operation {
    /// Whether the trace has something to say about it.
    fn is_traced(&self) -> bool {
        matches!(
            self,
            Self::Deliver(_)
                | Self::Append(_)
                | Self::AppendMany(_)
                | Self::Expunge(_)
                | Self::MoveMessages(_)
                | Self::RestoreItems(_)
        )
    }
}

/// A new mailbox with its INBOX.
#[derive(Clone, PartialEq, Message)]
pub struct CreateMailbox {
    /// Sixteen random bytes, reserved in the directory before.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// The addresses it receives for. Compared without regard to ASCII case.
    #[prost(string, repeated, tag = "2")]
    pub addresses: Vec<String>,
    /// What its operator decides. None: no quota, no retention, as in version 1.
    #[prost(message, optional, tag = "3")]
    pub settings: Option<MailboxSettings>,
}

/// Marks a mailbox as deleted: it answers nothing any more, and its rows stay until retention ends.
#[derive(Clone, PartialEq, Message)]
pub struct DeleteMailbox {
    /// Which one.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
}

/// A new folder.
#[derive(Clone, PartialEq, Message)]
pub struct CreateFolder {
    /// In which mailbox.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// The folder that holds it; 0 is the root.
    #[prost(uint32, tag = "2")]
    pub parent: u32,
    /// Its own name, one level, in Unicode's normal form C (the proposer's duty: normalisation
    /// tables change between versions, so `apply` must not use them).
    #[prost(string, tag = "3")]
    pub name: String,
    /// A number of [`crate::special_use`] (CREATE-SPECIAL-USE, RFC 6154 3); 0 is none.
    #[prost(uint32, tag = "4")]
    pub special_use: u32,
}

/// A message's bytes and what the proposer found out about them.
#[derive(Clone, PartialEq, Message)]
pub struct Content {
    /// Length of `body`. Said twice so that a body cut on its way is noticed.
    #[prost(uint64, tag = "1")]
    pub size: u64,
    /// BLAKE3 of `body`, 32 bytes: its identity. Equal bodies are stored once.
    #[prost(bytes = "bytes", tag = "2")]
    pub blake3: Bytes,
    /// CRC-32 of `body`, checked by whoever reads it.
    #[prost(uint32, tag = "3")]
    pub crc32: u32,
    /// What a parser saw. Not part of what makes two requests equal.
    #[prost(message, required, tag = "4")]
    pub parsed: Parsed,
    /// The bytes came before, by [`StageChunk`], and `body` is empty.
    #[prost(bool, tag = "5")]
    pub staged: bool,
    /// The message as received: header and body, byte for byte.
    #[prost(bytes = "bytes", tag = "15")]
    pub body: Bytes,
}

/// What MIME parsing yields, computed by the proposer, because two versions of a parser may differ.
#[derive(Clone, PartialEq, Message)]
pub struct Parsed {
    /// The `Message-ID` field.
    #[prost(string, tag = "1")]
    pub message_id: String,
    /// What groups messages into threads.
    #[prost(bytes = "bytes", tag = "2")]
    pub thread_key: Bytes,
    /// ENVELOPE, in the form that the API gives it.
    #[prost(bytes = "bytes", tag = "3")]
    pub envelope: Bytes,
    /// BODYSTRUCTURE with offsets, in the form that the API gives it.
    #[prost(bytes = "bytes", tag = "4")]
    pub body_structure: Bytes,
    /// At most 256 characters (RFC 8970 3.3).
    #[prost(string, tag = "5")]
    pub preview: String,
    /// What makes two messages one thread when they share it: keys of 16 bytes each, one after the
    /// other.
    #[prost(bytes = "bytes", tag = "6")]
    pub thread_keys: Bytes,
    /// Words of the header that can be searched for: hashes of 8 bytes each, ascending.
    #[prost(bytes = "bytes", tag = "7")]
    pub header_tokens: Bytes,
}

/// A message from outside, to the INBOX of each recipient.
#[derive(Clone, PartialEq, Message)]
pub struct Deliver {
    /// Chosen by the transport, the same for each of its attempts. A mailbox stores it once.
    #[prost(string, tag = "1")]
    pub delivery_id: String,
    /// The envelope's sender; empty for a bounce.
    #[prost(string, tag = "2")]
    pub sender: String,
    /// Those of this database.
    #[prost(message, repeated, tag = "3")]
    pub recipients: Vec<Recipient>,
    /// When it was received, milliseconds since 1970; 0 means `proposed_at_ms`.
    #[prost(uint64, tag = "4")]
    pub received_ms: u64,
    /// What is stored.
    #[prost(message, required, tag = "15")]
    pub content: Content,
}

/// One recipient, resolved by the directory.
#[derive(Clone, PartialEq, Message)]
pub struct Recipient {
    /// The envelope's address as the mailbox has it (without a `+tag`). Checked against the
    /// mailbox, so that a stale directory cannot misdeliver; empty means that the caller names
    /// the mailbox itself.
    #[prost(string, tag = "1")]
    pub address: String,
    /// Whose INBOX.
    #[prost(bytes = "bytes", tag = "2")]
    pub mailbox_id: Bytes,
}

/// A message from the mailbox's user, to one folder (RFC 9051 6.3.12).
#[derive(Clone, PartialEq, Message)]
pub struct Append {
    /// Whose folder.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Which folder.
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// Refused when the folder's differs; 0 accepts any.
    #[prost(uint32, tag = "3")]
    pub expected_uid_validity: u32,
    /// Bits of [`crate::flags`].
    #[prost(uint32, tag = "4")]
    pub system_flags: u32,
    /// Keywords, in any case.
    #[prost(string, repeated, tag = "5")]
    pub keywords: Vec<String>,
    /// INTERNALDATE, milliseconds since 1970; 0 means `proposed_at_ms`. A proposer never fills in
    /// its own clock here: the field is part of what makes two requests equal.
    #[prost(uint64, tag = "6")]
    pub internal_date_ms: u64,
    /// What is stored.
    #[prost(message, required, tag = "15")]
    pub content: Content,
}

/// What to do with the flags named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum FlagAction {
    /// Not said; refused.
    Unspecified = 0,
    /// `+FLAGS`
    Add = 1,
    /// `-FLAGS`
    Remove = 2,
    /// `FLAGS`
    Replace = 3,
}

/// UIDs from `first` to `last`, both included, in either order (RFC 9051 9, `seq-range`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct UidRange {
    /// 1 and above.
    #[prost(uint32, tag = "1")]
    pub first: u32,
    /// `u32::MAX` reaches to the end of the folder.
    #[prost(uint32, tag = "2")]
    pub last: u32,
}

/// Changes flags and keywords (RFC 9051 6.4.6, RFC 7162 3.1.3).
#[derive(Clone, PartialEq, Message)]
pub struct StoreFlags {
    /// Whose folder.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Which folder.
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// Refused when the folder's differs; 0 accepts any.
    #[prost(uint32, tag = "3")]
    pub expected_uid_validity: u32,
    /// Which messages. UIDs that do not exist are passed over.
    #[prost(message, repeated, tag = "4")]
    pub uids: Vec<UidRange>,
    /// Add, remove or replace.
    #[prost(enumeration = "FlagAction", tag = "5")]
    pub action: i32,
    /// Bits of [`crate::flags`].
    #[prost(uint32, tag = "6")]
    pub system_flags: u32,
    /// Keywords, in any case.
    #[prost(string, repeated, tag = "7")]
    pub keywords: Vec<String>,
    /// UNCHANGEDSINCE: messages with a greater mod-sequence are left alone and listed.
    #[prost(uint64, optional, tag = "8")]
    pub unchanged_since: Option<u64>,
}

/// Removes messages (RFC 4315 2.1).
#[derive(Clone, PartialEq, Message)]
pub struct Expunge {
    /// Whose folder.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Which folder.
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// Refused when the folder's differs; 0 accepts any.
    #[prost(uint32, tag = "3")]
    pub expected_uid_validity: u32,
    /// Which messages. UIDs that do not exist are passed over.
    #[prost(message, repeated, tag = "4")]
    pub uids: Vec<UidRange>,
    /// Only those that are `\Deleted` too.
    #[prost(bool, tag = "5")]
    pub only_deleted: bool,
    /// They cannot be restored, whatever the retention. Refused while the mailbox is on hold.
    #[prost(bool, tag = "6")]
    pub beyond_recovery: bool,
}

/// Removes rows whose time is over. Only a log entry may do that, never a copy by itself.
#[derive(Clone, PartialEq, Message)]
pub struct Sweep {
    /// Rows due up to this instant, and never later than the database's own stamp.
    #[prost(uint64, tag = "1")]
    pub before_ms: u64,
    /// Rows at most.
    #[prost(uint32, tag = "2")]
    pub limit: u32,
}

impl Command {
    /// A command as the proposer makes it. `now` is its clock, since 1970.
    pub fn new(request_id: impl Into<String>, now: Millis, operation: Operation) -> Self {
        Self {
            request_id: request_id.into(),
            proposed_at_ms: now.0,
            actor: Vec::new(),
            version: operation.version(),
            traced: false,
            operation: Some(operation),
        }
    }

    /// The same, noted in the trace if it brings, moves or removes messages.
    pub fn traced(mut self) -> Self {
        self.traced = self.operation.as_ref().is_some_and(Operation::is_traced);
        if self.traced {
            self.version = self.version.max(3);
        }
        self
    }

    /// The same for somebody whose rights are to be checked: a user and its groups.
    pub fn on_behalf_of(mut self, actor: Vec<String>) -> Self {
        if !actor.is_empty() {
            self.version = self.version.max(2);
        }
        self.actor = actor;
        self
    }

    /// The bytes for the log entry.
    pub fn encode_to_bytes(&self) -> Bytes {
        Bytes::from(self.encode_to_vec())
    }

    /// Reads a log entry. A body becomes a slice of `bytes`, not a copy.
    pub fn decode_from(bytes: Bytes) -> Result<Self, Fault> {
        let command = Self::decode(bytes)
            .map_err(|error| Fault::UnknownCommand { detail: error.to_string() })?;
        if command.version > COMMAND_VERSION {
            let detail = format!("it needs version {}", command.version);
            return Err(Fault::UnknownCommand { detail });
        }
        if command.operation.is_none() {
            let detail = "it has no operation that this version knows".to_string();
            return Err(Fault::UnknownCommand { detail });
        }
        Ok(command)
    }
}

impl Content {
    /// Takes the bytes out, where they are too many for one entry, as the commands that come before
    /// the message. The message then refers to them; nothing is taken out of a smaller one.
    pub fn stage(&mut self) -> Vec<StageChunk> {
        if self.body.len() as u64 <= limits::BODY_CHUNK_BYTES.max {
            return Vec::new();
        }
        let body = core::mem::take(&mut self.body);
        self.staged = true;
        let chunk = |chunk| {
            let begin = (u64::from(chunk) * limits::BODY_CHUNK_BYTES.max) as usize;
            StageChunk {
                blake3: self.blake3.clone(),
                size: self.size,
                crc32: self.crc32,
                chunk,
                bytes: body.slice(begin..begin + chunk_bytes(self.size, chunk) as usize),
            }
        };
        (0..body_chunks(self.size)).map(chunk).collect()
    }

    /// Measures a body. The CRC-32 comes from the caller, who has it from the upload.
    pub fn new(body: Bytes, crc32: u32, parsed: Parsed) -> Self {
        let digest = blake3::hash(&body);
        Self {
            size: body.len() as u64,
            blake3: Bytes::copy_from_slice(digest.as_bytes()),
            crc32,
            parsed,
            staged: false,
            body,
        }
    }
}

impl Recipient {
    /// A recipient as the directory resolved it.
    pub fn new(address: impl Into<String>, mailbox: MailboxId) -> Self {
        Self { address: address.into(), mailbox_id: id_bytes(mailbox) }
    }
}

impl UidRange {
    /// Both ends included.
    pub fn new(first: u32, last: u32) -> Self {
        Self { first, last }
    }
}

impl CreateMailbox {
    /// A mailbox with the id that the directory reserved.
    pub fn new(mailbox: MailboxId, addresses: Vec<String>) -> Self {
        Self { mailbox_id: id_bytes(mailbox), addresses, settings: None }
    }
}

impl DeleteMailbox {
    /// Of that mailbox.
    pub fn new(mailbox: MailboxId) -> Self {
        Self { mailbox_id: id_bytes(mailbox) }
    }
}

impl CreateFolder {
    /// Below `parent`; 0 is the root.
    pub fn new(mailbox: MailboxId, parent: u32, name: impl Into<String>) -> Self {
        Self { mailbox_id: id_bytes(mailbox), parent, name: name.into(), special_use: 0 }
    }
}

/// A mailbox's id as the commands carry it.
pub fn id_bytes(mailbox: MailboxId) -> Bytes {
    Bytes::copy_from_slice(&mailbox.0)
}

macro_rules! operation_from {
    ($($name:ident),*) => {$(
        impl From<$name> for Operation {
            fn from(operation: $name) -> Self {
                Self::$name(operation)
            }
        }
    )*};
}

operation_from!(
    CreateMailbox,
    DeleteMailbox,
    CreateFolder,
    Deliver,
    Append,
    StoreFlags,
    Expunge,
    Sweep,
    UpdateMailbox,
    UpdateFolder,
    DeleteFolder,
    RenameInbox,
    SubscribeName,
    SetRights,
    CopyMessages,
    MoveMessages,
    AppendMany,
    RestoreItems,
    PurgeItems,
    StageChunk
);
