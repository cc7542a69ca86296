//! How nodes and copies stand right now, as one node heard it. Decisions are made from the applied
//! control state and from these.

use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{CopyStatus, DatabaseId, Lineage, Millis, NodeId};

/// One copy of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyReport {
    /// The database.
    pub database: DatabaseId,
    /// Where the copy stands.
    pub node: NodeId,
    /// How it stands, in Exchange's words.
    pub status: CopyStatus,
    /// Since when it is so.
    pub since: Millis,
    /// Entries of the active copy's log that it does not have.
    pub copy_queue: u64,
    /// How far it is behind the active copy's log.
    pub copy_queue_age: Millis,
    /// Entries that it has and has not applied.
    pub replay_queue: u64,
    /// How far what it applied is behind what it has.
    pub replay_queue_age: Millis,
    /// Its content was equal to the active copy's at the last digest mark; a copy that was never
    /// compared says true until it is found otherwise.
    pub digest_equal: bool,
    /// Where its log ended by the last word of its node; 0: not told.
    pub last_index: u64,
}

impl CopyReport {
    /// Whether it takes part in its group as a copy should: it counts in majorities.
    pub fn is_sound(&self) -> bool {
        use CopyStatus as S;
        match self.status {
            S::Mounted | S::Dismounted | S::Mounting | S::Dismounting => true,
            S::Healthy | S::Resynchronizing | S::SeedingSource => true,
            S::Initializing | S::Seeding | S::Suspended | S::Failed | S::FailedAndSuspended => {
                false
            }
            S::DisconnectedAndHealthy | S::DisconnectedAndResynchronizing | S::ServiceDown => false,
        }
    }
}

/// A node's gate, as the node said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateReport {
    /// Open, for at least so long from when it was heard.
    Open(Millis),
    /// Closed, and why.
    Closed(String),
    /// A witness has none, and of a silent node nothing is known.
    Unknown,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Its number.
    pub node: NodeId,
    /// Frames are exchanged with it now.
    pub reachable: bool,
    /// Since it was heard last.
    pub last_heard: Millis,
    /// Its gate.
    pub gate: GateReport,
    /// The last link that it knows.
    pub lineage: Lineage,
    /// Its copy of the control group runs.
    pub control_copy_runs: bool,
    /// Its listener for operators answers.
    pub admin_answers: bool,
    /// Its disk has less free space than the reserve.
    pub disk_low: bool,
    /// How far its wall clock is from the reporter's.
    pub clock_skew: Millis,
    /// The version of its program; empty: it did not say.
    pub version: String,
    /// A listener of it is open to other machines without TLS.
    pub insecure: bool,
    /// Nodes that it says it does not hear, though it runs.
    pub does_not_hear: Vec<NodeId>,
}

/// The control group, as the reporter sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ControlReport {
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
}

/// Everything that was heard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reports {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The control group.
    pub control: ControlReport,
    /// In the order of their numbers.
    pub nodes: Vec<NodeReport>,
    /// Of all databases; the control group's copies are not among them.
    pub copies: Vec<CopyReport>,
}

impl Reports {
    /// What was heard of a node.
    pub fn node(&self, id: NodeId) -> Option<&NodeReport> {
        self.nodes.iter().find(|report| report.node == id)
    }

    /// Whether frames are exchanged with a node now.
    pub fn reaches(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|report| report.reachable)
    }

    /// What was heard of a copy.
    pub fn copy(&self, database: DatabaseId, node: NodeId) -> Option<&CopyReport> {
        self.copies.iter().find(|report| report.database == database && report.node == node)
    }

    /// Where a database is mounted.
    pub fn active(&self, database: DatabaseId) -> Option<NodeId> {
        let mounted = |report: &&CopyReport| {
            report.database == database && report.status == CopyStatus::Mounted
        };
        self.copies.iter().find(mounted).map(|report| report.node)
    }

    /// How many databases a node serves.
    pub fn active_on(&self, node: NodeId) -> u32 {
        let mounted =
            |report: &&CopyReport| report.node == node && report.status == CopyStatus::Mounted;
        self.copies.iter().filter(mounted).count() as u32
    }
}
