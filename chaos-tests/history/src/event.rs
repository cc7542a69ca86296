//! The lines of a history file.

use serde::{Deserialize, Serialize};

use crate::Nanos;
use crate::journal;
use crate::op::{Op, Outcome};

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// What the run promises; the first line.
    Run(Run),
    /// A client calls.
    Invoke {
        /// The operation's number.
        id: u64,
        /// Whose it is.
        client: u64,
        /// When.
        at: Nanos,
        /// What is asked.
        #[serde(flatten)]
        op: Op,
    },
    /// A client's call ends.
    Return {
        /// The operation's number.
        id: u64,
        /// When.
        at: Nanos,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// A fault that really happened.
    Fault(Fault),
    /// A part of the run begins.
    Phase {
        /// When.
        at: Nanos,
        /// Which part.
        phase: Phase,
    },
    /// What one copy holds at a mark.
    Digest(CopyDigest),
    /// What a node says about itself.
    Journal(journal::Entry),
}

/// What a run promises, so that a checker can say when the promise was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Run {
    /// How to make this run again.
    pub reproduce: String,
    /// Kinds of fault that must have happened.
    #[serde(default)]
    pub promised_faults: Vec<String>,
    /// The fewest acknowledged operations before, during and after the faults.
    #[serde(default)]
    pub acknowledged_min: u64,
    /// Databases whose copies must be compared at the end, and how many copies each has.
    #[serde(default)]
    pub copies: Vec<ExpectedCopies>,
    /// Whether nodes have gates. Without, the rules about gates are not promised.
    #[serde(default)]
    pub gated: bool,
    /// Activations that were rejected by a declared decision: what they acknowledged is reported
    /// entry by entry elsewhere and does not break the rule of one lineage.
    #[serde(default)]
    pub rejected_activations: Vec<String>,
}

/// How many copies of a database must show the same digest at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedCopies {
    /// The database.
    pub database: u64,
    /// Its copies.
    pub copies: usize,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No fault yet.
    Before,
    /// Faults come and go.
    Faults,
    /// All faults are over; everything must be well again.
    After,
}

/// A fault that really happened (not one that was only planned).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its kind, as promised in [`Run::promised_faults`].
    pub kind: String,
    /// The nodes that felt it.
    pub nodes: Vec<u64>,
    /// When it began.
    pub from: Nanos,
    /// When it ended; `None` where the run ended before.
    pub to: Option<Nanos>,
    /// Particulars for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What one copy holds at a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyDigest {
    /// The database.
    pub database: u64,
    /// The copy's replica id.
    pub replica: u64,
    /// Its node.
    pub node: u64,
    /// The index that the digest speaks of.
    pub index: u64,
    /// Digest of all logical content, in hexadecimal.
    pub digest: String,
}
