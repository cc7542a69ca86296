//! The pure machines as `replication` runs them: bytes in, effect out, over a copy's state.

use bytes::Bytes;
use dag_types::{LogId, StateView};
use mailbox::view::MailboxView;
use prost::Message as _;
use replication::{Effect, Machine, MachineFault};
use storage::state::{Row, StateError, StateRead};

/// A copy's state as the pure crates read it.
#[derive(Clone, Copy)]
pub struct View<'s>(pub &'s dyn StateRead);

/// A fault met while reading.
#[derive(Debug, Clone)]
pub struct ReadFault(pub String);

impl From<StateError> for ReadFault {
    fn from(error: StateError) -> Self {
        Self(error.to_string())
    }
}

impl From<mailbox::Fault> for ReadFault {
    fn from(fault: mailbox::Fault) -> Self {
        Self(fault.to_string())
    }
}

impl std::fmt::Display for ReadFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
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
pub struct MailboxMachine;

/// The control group.
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
        Ok(Effect { writes: applied.writes, reply: applied.response.encode_to_bytes() })
    }

    fn digest(&self, view: &dyn StateRead) -> Result<[u8; 16], MachineFault> {
        // Both: what was kept with every command, and what all rows give now.
        let kept = mailbox::query::database_digest(&View(view)).map_err(fault)?;
        let counted = mailbox::query::recompute_digest(&View(view)).map_err(fault)?;
        if kept == counted {
            return Ok(kept);
        }
        Err(MachineFault::new("the digest that was kept is not that of the rows"))
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

    fn needs_mount(&self) -> bool {
        false
    }
}

fn fault(error: impl std::fmt::Display) -> MachineFault {
    MachineFault::new(error.to_string())
}
