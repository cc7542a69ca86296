//! What a node writes about itself, one JSON object per line, to `journal.jsonl` in its root.
//!
//! The checkers believe nothing else about a node: not its logs, not its status page. A line is
//! written when the thing happened and before anybody else can see an effect of it, except
//! [`Event::Acknowledged`], which is written right before the answer leaves. The file is appended
//! to without fsync: a crash may lose its tail, which is why no rule needs a line to be present
//! that follows the last answer a client saw.
//!
//! ```
//! let line = r#"{"at":81,"node":2,"boot":{"counter":1,"id":9},"event":"gate_closed","why":"lease end"}"#;
//! let entry: history::journal::Entry = serde_json::from_str(line).unwrap();
//! assert_eq!(entry.node, 2);
//! ```

use dag_types::Lineage;
use serde::{Deserialize, Serialize};

use crate::Nanos;

/// One line of a node's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When: BOOTTIME nanoseconds of the machine.
    pub at: Nanos,
    /// Which node.
    pub node: u64,
    /// Which start of it.
    pub boot: BootOf,
    /// What the node's own clock read, where it is not that of `at`: simulated nodes have clocks that
    /// run apart, and `at` is then the time that all share. Leases, and the deadlines of answers,
    /// are of the node's own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Nanos>,
    /// The newest lineage that the node knows; absent before it knows any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<LineageText>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Entry {
    /// When it happened by the node's own clock.
    pub fn own_time(&self) -> Nanos {
        self.clock.unwrap_or(self.at)
    }
}

/// A start of a node, as [`dag_types::Boot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootOf {
    /// Starts of this store so far.
    pub counter: u64,
    /// Random, made at the start.
    pub id: u64,
}

/// A lineage as text: `EPOCH-ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LineageText(#[serde(with = "crate::lineage_text")] pub Lineage);

/// Which copy an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CopyOf {
    /// The database.
    pub database: u64,
    /// The incarnation of its group.
    pub generation: u32,
    /// The copy's replica id.
    pub replica: u64,
}

/// A copy's place in its Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Leads the group.
    Leader,
    /// Asks for votes.
    Candidate,
    /// Votes and follows.
    Follower,
    /// Follows without a vote.
    Learner,
}

/// How far a step of a long operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// The node begins it.
    Begun,
    /// The node carried it out.
    Done,
    /// The node began it, and it did not succeed.
    Failed,
    /// The node refused it: a greater step or term was seen, or the operation is over.
    Refused,
}

/// What happened on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The daemon started. Its gate is closed and nothing is mounted.
    Started {
        /// The store that it runs from, in hexadecimal.
        store: String,
    },
    /// The daemon ends in good order.
    Stopped,
    /// The gate opened.
    GateOpened(GateLease),
    /// The open gate's lease was renewed.
    GateExtended(GateLease),
    /// The gate closed.
    GateClosed {
        /// Lease end, newer lineage, stopped list, clock jump, failed store.
        why: String,
    },
    /// As the control group's leader this node committed the opening of another node's gate.
    GrantCommitted {
        /// The grant's number.
        grant: u64,
        /// For which node.
        to_node: u64,
        /// For which start of it.
        to_boot: BootOf,
        /// The control group's term.
        term: u64,
    },
    /// A copy's place in its group changed.
    Role {
        /// Which copy.
        #[serde(flatten)]
        copy: CopyOf,
        /// Raft's term.
        term: u64,
        /// The new place.
        role: Role,
    },
    /// A vote is durable and about to be sent.
    Voted {
        /// Which copy.
        #[serde(flatten)]
        copy: CopyOf,
        /// The term voted in.
        term: u64,
        /// The replica that the vote is for.
        voted_for: u64,
    },
    /// A copy serves clients from here on: its mount entry is applied.
    Mounted {
        /// Which copy.
        #[serde(flatten)]
        copy: CopyOf,
        /// Raft's term.
        term: u64,
        /// Index of the mount entry.
        index: u64,
    },
    /// A copy stops serving clients.
    Dismounted {
        /// Which copy.
        #[serde(flatten)]
        copy: CopyOf,
        /// Lost leadership, closed gate, mounting not allowed, fault, stop.
        why: String,
    },
    /// A write is committed and applied, and its answer leaves now.
    Acknowledged {
        /// Which copy answers.
        #[serde(flatten)]
        copy: CopyOf,
        /// The term of the leader that answers.
        term: u64,
        /// The entry's index.
        index: u64,
        /// The log's chain at that index, in hexadecimal: the content up to it.
        chain: String,
        /// This copy's own durable index.
        durable: u64,
        /// This copy's applied index.
        applied: u64,
        /// The client's request id.
        request: String,
        /// Until when the answer counts for the client.
        deadline: Nanos,
    },
    /// A copy was made.
    ReplicaBorn {
        /// Which copy.
        #[serde(flatten)]
        copy: CopyOf,
        /// On which store, in hexadecimal.
        store: String,
        /// Its directory.
        path: String,
        /// Create, seed, reseed, rejoin, move.
        why: String,
    },
    /// A copy's directory was opened, with its lock held.
    ReplicaOpened {
        /// Which copy.
        #[serde(flatten)]
        copy: CopyOf,
        /// On which store, in hexadecimal.
        store: String,
        /// Its directory.
        path: String,
    },
    /// A copy's directory was closed and its lock let go.
    ReplicaClosed {
        /// Which copy.
        #[serde(flatten)]
        copy: CopyOf,
        /// Its directory.
        path: String,
    },
    /// A fault stopped a copy.
    ReplicaFailed {
        /// Which copy.
        #[serde(flatten)]
        copy: CopyOf,
        /// The fault.
        why: String,
    },
    /// A copy was taken out of its group and renamed away.
    ReplicaRemoved {
        /// Which copy.
        #[serde(flatten)]
        copy: CopyOf,
        /// Why.
        why: String,
    },
    /// A step of a long operation on this node.
    Step {
        /// The operation's number.
        operation: u64,
        /// What the step does, as in `transfer`.
        kind: String,
        /// The step's number.
        step: u64,
        /// The control group's term that ordered it.
        term: u64,
        /// How far it is.
        state: StepState,
    },
}

/// A lease on an open gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateLease {
    /// The grant's number.
    pub grant: u64,
    /// The control leader that gave it.
    pub granter: u64,
    /// The control group's term.
    pub term: u64,
    /// When the request left this node; the lease counts from here.
    pub sent: Nanos,
    /// How long it is.
    pub ttl: Nanos,
    /// When it ends: never after `sent + ttl`.
    pub until: Nanos,
}
