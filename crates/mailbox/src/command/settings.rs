//! The command that changes a mailbox's settings.

use alloc::string::String;

use bytes::Bytes;
use dag_types::MailboxId;
use prost::Message;

use super::id_bytes;
use crate::records::MailboxSettings;

/// Changes settings; what is missing stays as it is.
#[derive(Clone, PartialEq, Message)]
pub struct UpdateMailbox {
    /// Which one.
    #[prost(bytes = "bytes", tag = "1")]
    pub mailbox_id: Bytes,
    /// What changes.
    #[prost(message, required, tag = "2")]
    pub change: SettingsChange,
    /// Refused when the settings changed at another mod-sequence.
    #[prost(uint64, optional, tag = "3")]
    pub expected_modseq: Option<u64>,
}

/// The fields of [`MailboxSettings`], as far as they change.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SettingsChange {
    /// Bytes of all messages.
    #[prost(uint64, optional, tag = "1")]
    pub quota_bytes: Option<u64>,
    /// Messages in all folders.
    #[prost(uint64, optional, tag = "2")]
    pub quota_messages: Option<u64>,
    /// Folders, INBOX included.
    #[prost(uint32, optional, tag = "3")]
    pub quota_folders: Option<u32>,
    /// Bytes of recoverable items.
    #[prost(uint64, optional, tag = "4")]
    pub quota_items_bytes: Option<u64>,
    /// How long an expunged message can be restored, in milliseconds.
    #[prost(uint64, optional, tag = "5")]
    pub retention_ms: Option<u64>,
    /// Litigation hold.
    #[prost(bool, optional, tag = "6")]
    pub litigation_hold: Option<bool>,
    /// The identifier that has all rights.
    #[prost(string, optional, tag = "7")]
    pub owner: Option<String>,
    /// Bytes of one message.
    #[prost(uint64, optional, tag = "8")]
    pub append_limit: Option<u64>,
}

impl SettingsChange {
    /// The settings after the change.
    pub fn of(&self, old: &MailboxSettings) -> MailboxSettings {
        MailboxSettings {
            quota_bytes: self.quota_bytes.unwrap_or(old.quota_bytes),
            quota_messages: self.quota_messages.unwrap_or(old.quota_messages),
            quota_folders: self.quota_folders.unwrap_or(old.quota_folders),
            quota_items_bytes: self.quota_items_bytes.unwrap_or(old.quota_items_bytes),
            retention_ms: self.retention_ms.unwrap_or(old.retention_ms),
            litigation_hold: self.litigation_hold.unwrap_or(old.litigation_hold),
            owner: self.owner.clone().unwrap_or_else(|| old.owner.clone()),
            append_limit: self.append_limit.unwrap_or(old.append_limit),
        }
    }
}

impl UpdateMailbox {
    /// Of that mailbox.
    pub fn new(mailbox: MailboxId, change: SettingsChange) -> Self {
        Self { mailbox_id: id_bytes(mailbox), change, expected_modseq: None }
    }
}
