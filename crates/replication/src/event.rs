//! What happens to a node's groups, for its journal and for whoever decides about copies.
//!
//! Events are told in order for each group, from whatever thread made them happen: a sink may not
//! wait, and may not call back into the group.

use std::sync::Arc;

use dag_types::{DatabaseId, LogId, ReplicaId};

use crate::state_machine::Mounted;

/// What a copy is in its group, as openraft sees it. A cached role: never a proof of leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It receives the log and does not vote.
    #[default]
    Learner,
    /// It votes.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It was elected.
    Leader,
    /// Its instance does not run.
    Stopped,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The role or the term changed.
    Role {
        /// The role now.
        role: Role,
        /// The term now.
        term: u64,
    },
    /// A vote became durable.
    Voted {
        /// In which term.
        term: u64,
        /// For which replica.
        replica: ReplicaId,
        /// Whether a quorum gave it, so that this is a leader.
        committed: bool,
    },
    /// This copy refused a vote because its own log is greater: the candidate cannot win without
    /// the entries that this copy holds.
    LongerLog {
        /// Who asked.
        candidate: ReplicaId,
        /// The end of this copy's log.
        last: Option<LogId>,
    },
    /// The mount of this copy's node took effect: it may serve.
    Mounted(Mounted),
    /// It serves no longer.
    Dismounted {
        /// What took the mount from it, as it stood when this was noticed.
        why: &'static str,
    },
    /// Entries became durable here: an acknowledgement batch.
    Durable {
        /// The last of them.
        last: LogId,
    },
    /// Entries that another leader's log has no room for are taken out of the log. Told before, and
    /// once more when nothing brings them back.
    Cut {
        /// The last entry that stays.
        last: Option<LogId>,
        /// Whether it is done, and durable.
        durable: bool,
    },
    /// Entries were applied.
    Applied {
        /// The last of them.
        last: LogId,
    },
    /// A snapshot took the place of the state.
    Installed {
        /// The position of the new state.
        applied: LogId,
    },
    /// A fault stopped the copy. It counts for nothing until it is reseeded.
    Failed {
        /// What failed, for the operator.
        reason: String,
    },
}

/// An event and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEvent {
    /// The database.
    pub database: DatabaseId,
    /// The copy on this node.
    pub replica: ReplicaId,
    /// What happened.
    pub event: Event,
}

/// Takes events; called from log threads too, so it may not wait.
pub type EventSink = Arc<dyn Fn(GroupEvent) + Send + Sync>;

/// The sink of one copy.
#[derive(Clone)]
pub(crate) struct Journal {
    pub database: DatabaseId,
    pub replica: ReplicaId,
    pub sink: EventSink,
}

impl Journal {
    pub fn tell(&self, event: Event) {
        (self.sink)(GroupEvent { database: self.database, replica: self.replica, event });
    }
}
