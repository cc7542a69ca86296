//! Mails from files into mailboxes, and back.

pub mod export;
pub mod import;
pub mod mbox;
pub mod places;
pub mod reader;
pub mod restore;
pub mod source;
