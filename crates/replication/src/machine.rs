//! What a group replicates, as this crate sees it: an effect for every committed command.

use bytes::Bytes;
use dag_types::{LogId, Write};
use storage::state::{StateError, StateRead};
use thiserror::Error;

/// Gives the effect of a committed command.
///
/// Same view, position and command give the same effect on every copy and for ever: no clock, no
/// randomness, nothing from outside.
pub trait Machine: Send + Sync + 'static {
    /// The effect of a command. `view` holds the effects of everything before it.
    ///
    /// A command that is refused is `Ok` with a reply that says so. `Err` is a fault: nothing is
    /// written, the group stops, the copy is Failed.
    fn apply(
        &self,
        view: &dyn StateRead,
        at: LogId,
        command: &Bytes,
    ) -> Result<Effect, MachineFault>;

    /// A digest of the content, equal on all copies that hold the same; computed where a digest
    /// mark is applied.
    fn digest(&self, view: &dyn StateRead) -> Result<[u8; 16], MachineFault>;

    /// Whether commands need a mount of their lineage and term. Databases do; the control group,
    /// which decides about lineages, does not. The same for all copies of a group, for ever.
    fn needs_mount(&self) -> bool {
        true
    }

    /// Whether the command touches a few rows only, so that applying it is a matter of
    /// microseconds. It decides where the work is done, never what it does.
    fn is_brief(&self, _command: &Bytes) -> bool {
        false
    }
}

/// What a command changes and answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    /// Changes, in order; later ones win.
    pub writes: Vec<Write>,
    /// The answer to the proposer.
    pub reply: Bytes,
}

/// A machine that cannot go on: its state or a command is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{detail}")]
pub struct MachineFault {
    /// What is wrong, for the operator who reseeds the copy.
    pub detail: String,
}

impl MachineFault {
    /// A fault with these words.
    pub fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into() }
    }
}

impl From<StateError> for MachineFault {
    fn from(error: StateError) -> Self {
        Self::new(error.to_string())
    }
}
