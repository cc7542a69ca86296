//! What was asked of a log and is not durable yet.

use dag_types::Chain;

use super::types::{Done, LogEntry, Position, VoteRecord};

/// An entry with its chain.
#[derive(Debug, Clone)]
pub(super) struct Stamped {
    pub(super) entry: LogEntry,
    pub(super) chain: Chain,
}

/// What a job writes.
#[derive(Debug)]
pub(super) enum Work {
    Append(Vec<Stamped>),
    Truncate(Option<Position>),
    Vote(VoteRecord),
    Purge {
        point: Position,
        begins_anew: bool,
    },
    /// Nothing: it is done when everything before it is durable.
    Sync,
}

/// A job; the log's jobs are written in the order in which they came.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) done: Option<Done>,
}

impl Stamped {
    pub(super) fn position(&self) -> Position {
        (self.entry.id, self.chain)
    }
}
