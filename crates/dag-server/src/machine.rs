//! The pure machines as `replication` runs them: bytes in, effect out, over a copy's state.

use std::sync::Arc;

use bytes::Bytes;
use dag_types::{DatabaseId, LogId, StateView};
use mailbox::command::Operation;
use mailbox::view::MailboxView;
use prost::Message as _;
use replication::{Effect, Machine, MachineFault};
use storage::state::{Row, StateError, StateRead};
use thiserror::Error;

use crate::watchers::Watchers;

/// A copy's state as the pure crates read it.
#[derive(Clone, Copy)]
pub struct View<'s>(pub &'s dyn StateRead);

/// A fault met while reading a mailbox database.
#[derive(Debug, Clone, Error)]
pub enum ReadFault {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StateError),
    /// A record is not what it must be.
    #[error(transparent)]
    Record(#[from] mailbox::Fault),
}

impl StateView for View<'_> {
    type Error = StateError;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.0.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.0.scan(from, to, limit)
    }
}

impl MailboxView for View<'_> {
    type Error = ReadFault;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        Ok(self.0.get(key)?)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, ReadFault> {
        Ok(self.0.scan(from, to, limit)?)
    }
}

/// A mailbox database.
#[derive(Debug, Clone)]
pub struct MailboxMachine {
    /// Which one.
    pub database: DatabaseId,
    /// Who is told of its changes.
    pub watchers: Arc<Watchers>,
}

/// The directory.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryMachine;

/// The control group.
#[derive(Debug, Clone, Copy)]
pub struct ControlMachine;

impl Machine for MailboxMachine {
    fn apply(
        &self,
        view: &dyn StateRead,
        at: LogId,
        command: &Bytes,
    ) -> Result<Effect, MachineFault> {
        let command = mailbox::Command::decode_from(command.clone()).map_err(fault)?;
        let applied = mailbox::apply(&View(view), at, &command).map_err(fault)?;
        self.watchers.touch(self.database, &applied.writes);
        Ok(Effect { writes: applied.writes, reply: applied.response.encode_to_bytes() })
    }

    fn digest(&self, view: &dyn StateRead) -> Result<[u8; 16], MachineFault> {
        mailbox::query::database_digest(&View(view)).map_err(fault)
    }

    fn is_brief(&self, command: &Bytes) -> bool {
        let command = mailbox::Command::decode_from(command.clone()).ok();
        match command.and_then(|command| command.operation) {
            Some(Operation::Deliver(deliver)) => deliver.recipients.len() <= 2,
            Some(Operation::Append(_)) => true,
            _ => false,
        }
    }
}

impl Machine for DirectoryMachine {
    fn apply(
        &self,
        view: &dyn StateRead,
        at: LogId,
        command: &Bytes,
    ) -> Result<Effect, MachineFault> {
        let command = active_manager::directory::Command::decode(command.clone()).map_err(fault)?;
        let applied = active_manager::directory::apply(&View(view), at, &command).map_err(fault)?;
        Ok(Effect { writes: applied.writes, reply: applied.response.encode_to_vec().into() })
    }

    fn digest(&self, view: &dyn StateRead) -> Result<[u8; 16], MachineFault> {
        let digest = active_manager::directory::digest(&View(view)).map_err(fault)?;
        Ok(digest.0.to_be_bytes())
    }
}

impl Machine for ControlMachine {
    fn apply(
        &self,
        view: &dyn StateRead,
        at: LogId,
        command: &Bytes,
    ) -> Result<Effect, MachineFault> {
        let command = active_manager::control::Command::decode(command.clone()).map_err(fault)?;
        let applied = active_manager::control::apply(&View(view), at, &command).map_err(fault)?;
        Ok(Effect { writes: applied.writes, reply: applied.response.encode_to_vec().into() })
    }

    fn digest(&self, view: &dyn StateRead) -> Result<[u8; 16], MachineFault> {
        let digest = active_manager::control::digest(&View(view)).map_err(fault)?;
        Ok(digest.0.to_be_bytes())
    }

    /// The control group decides about lineages, so its own entries cannot stand under a mount.
    fn needs_mount(&self) -> bool {
        false
    }
}

fn fault(error: impl std::fmt::Display) -> MachineFault {
    MachineFault::new(error.to_string())
}
