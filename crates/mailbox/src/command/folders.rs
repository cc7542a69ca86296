//! Commands about folders: their names, uses, subscriptions, rights, and their end.

use alloc::string::String;

use bytes::Bytes;
use dag_types::MailboxId;
use prost::Message;

use super::id_bytes;

/// Changes what is said about a folder; what is missing stays as it is. A name or a parent moves the
/// folder with everything below it (RENAME, RFC 9051 6.3.6); its id, UIDVALIDITY and UIDs stay.
#[derive(Clone, PartialEq, Message)]
pub struct UpdateFolder {
    /// In which mailbox.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Which folder. The INBOX can neither be renamed nor moved; see [`RenameInbox`].
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// The folder that holds it; 0 is the root.
    #[prost(uint32, optional, tag = "3")]
    pub parent: Option<u32>,
    /// Its own name, in Unicode's normal form C.
    #[prost(string, optional, tag = "4")]
    pub name: Option<String>,
    /// A number of [`crate::special_use`]; 0 takes it away.
    #[prost(uint32, optional, tag = "5")]
    pub special_use: Option<u32>,
    /// The owner's subscription (RFC 9051 6.3.7).
    #[prost(bool, optional, tag = "6")]
    pub subscribed: Option<bool>,
    /// Refused when the folder's own mod-sequence differs.
    #[prost(uint64, optional, tag = "7")]
    pub expected_modseq: Option<u64>,
}

/// Deletes a folder with its messages, which are then expunged some at a time by sweeps. Its name is
/// free at once. A folder with folders below it is refused (HASCHILDREN, RFC 9051 6.3.5).
#[derive(Clone, PartialEq, Message)]
pub struct DeleteFolder {
    /// In which mailbox.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Which folder; never the INBOX.
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// Refused when the folder's differs; 0 accepts any.
    #[prost(uint32, tag = "3")]
    pub expected_uid_validity: u32,
}

/// Moves all messages of the INBOX to a new folder; the INBOX stays, empty, and so do the folders
/// below it (RFC 9051 6.3.6). Of a large INBOX, sweeps move what is left.
#[derive(Clone, PartialEq, Message)]
pub struct RenameInbox {
    /// In which mailbox.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// The folder that holds the new one; 0 is the root.
    #[prost(uint32, tag = "2")]
    pub parent: u32,
    /// The new folder's name, in Unicode's normal form C.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// Subscribes a name that is no folder of this mailbox, or gives up that subscription: one of another
/// namespace, or one that a deleted folder left (RFC 9051 6.3.7 keeps it).
#[derive(Clone, PartialEq, Message)]
pub struct SubscribeName {
    /// Whose subscription.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Levels joined by `/`. Where a folder has this path, its own subscription is meant.
    #[prost(string, tag = "2")]
    pub path: String,
    /// To have it or to give it up.
    #[prost(bool, tag = "3")]
    pub subscribed: bool,
}

/// Gives or takes rights on a folder (SETACL and DELETEACL, RFC 4314 3.1 and 3.2).
#[derive(Clone, PartialEq, Message)]
pub struct SetRights {
    /// In which mailbox.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// Which folder.
    #[prost(uint32, tag = "2")]
    pub folder: u32,
    /// A user, a group, `anyone`, or one of them after a `-`; prepared by the front end
    /// (RFC 4314 3).
    #[prost(string, tag = "3")]
    pub identifier: String,
    /// Add, remove or replace. To replace by none is DELETEACL.
    #[prost(enumeration = "super::FlagAction", tag = "4")]
    pub action: i32,
    /// Bits of [`crate::rights`].
    #[prost(uint32, tag = "5")]
    pub rights: u32,
}

impl UpdateFolder {
    /// Of that folder, nothing changed yet.
    pub fn new(mailbox: MailboxId, folder: u32) -> Self {
        Self { mailbox_id: id_bytes(mailbox), folder, ..Self::default() }
    }
}

impl DeleteFolder {
    /// Of that folder, whatever its UIDVALIDITY.
    pub fn new(mailbox: MailboxId, folder: u32) -> Self {
        Self { mailbox_id: id_bytes(mailbox), folder, expected_uid_validity: 0 }
    }
}
