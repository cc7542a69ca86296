//! Long operations as replicated records.
//!
//! A drain or a move to another site takes many steps on many nodes, and the control leader may die
//! between any two. So the operation is a record; a step is committed as *begun* before it is sent,
//! and as *ended* after its answer. A new leader reads how far it went and goes on.
//!
//! ```text
//!   begin ──► begin step 1 ──► (sent, answered) ──► end step 1 ──► begin step 2 ... ──► end
//!                 │ the leader dies
//!                 └──► begin step 1 again, in the new term: the node knows whether it was taken
//! ```
//!
//! Both kinds of record name the control term, and it must be the term of the very entry that
//! carries them. What a deposed leader proposes is never committed in its own term again, and nodes
//! refuse its steps because they keep the highest term per operation.

use alloc::string::String;
use alloc::vec::Vec;

use super::activation::Decided;

pub(crate) const OPERATIONS: u8 = 0x1b;

/// Finished operations that are kept.
pub const OPERATIONS_KEPT: u64 = 100;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum OperationKind {
    /// Never written.
    Unspecified = 0,
    /// A database is made active on another copy.
    MoveDatabase = 1,
    /// A node is freed of active copies.
    DrainNode = 2,
    /// Databases are moved back to their preferred copies.
    Rebalance = 3,
    /// A database is moved to another site, voters and all.
    MoveSite = 4,
    /// A hook is run.
    Hook = 5,
    /// A node leaves for good.
    RemoveNode = 6,
    /// A node joins.
    JoinNode = 7,
    /// A new store takes the place of a node's lost one.
    ReplaceNode = 8,
    /// A new witness takes the place of the old one.
    ReplaceWitness = 9,
    /// A copy is built from another one.
    SeedCopy = 20,
    /// The copies of a database move to another path, one after the other.
    MovePath = 21,
    /// A database whose majority is lost goes on from one copy.
    ReformDatabase = 22,
}

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum OperationState {
    /// It goes on.
    Running = 0,
    /// A person asked to end it; only steps that undo are begun.
    Cancelling = 1,
    /// It reached its end.
    Done = 2,
    /// It could not go on, and says why.
    Failed = 3,
    /// It was ended by a person.
    Cancelled = 4,
}

/// One step.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct StepRecord {
    /// Counts from 1, undone steps included.
    #[prost(uint32, tag = "1")]
    pub step: u32,
    /// The control term in which it was begun last.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// To whom it is sent.
    #[prost(uint64, tag = "3")]
    pub node: u64,
    /// What, such as `transfer DB7 to node 2`.
    #[prost(string, tag = "4")]
    pub what: String,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "5")]
    pub begun_ms: u64,
    /// Milliseconds since 1970; 0: not ended.
    #[prost(uint64, tag = "6")]
    pub ended_ms: u64,
    /// It did what it should.
    #[prost(bool, tag = "7")]
    pub succeeded: bool,
    /// What came of it, for people.
    #[prost(string, tag = "8")]
    pub outcome: String,
}

impl StepRecord {
    /// Its answer is recorded.
    pub fn ended(&self) -> bool {
        self.ended_ms != 0
    }
}

/// A long operation.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Operation {
    /// Never used twice.
    #[prost(uint64, tag = "1")]
    pub operation: u64,
    /// What it does.
    #[prost(enumeration = "OperationKind", tag = "2")]
    pub kind: i32,
    /// To what: `database 17`, `node 2`. One running operation per object.
    #[prost(string, tag = "3")]
    pub object: String,
    /// How it stands.
    #[prost(enumeration = "OperationState", tag = "4")]
    pub state: i32,
    /// Who asked, and why.
    #[prost(message, optional, tag = "5")]
    pub begun: Option<Decided>,
    /// In their order.
    #[prost(message, repeated, tag = "6")]
    pub steps: Vec<StepRecord>,
    /// How it ended, for people.
    #[prost(string, tag = "7")]
    pub outcome: String,
    /// Milliseconds since 1970; 0: not ended.
    #[prost(uint64, tag = "8")]
    pub ended_ms: u64,
    /// The plan that it carries out, as the shell wrote it.
    #[prost(string, tag = "9")]
    pub plan: String,
}

/// What a control leader does next with an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep<'a> {
    /// Nothing: it is over.
    Over,
    /// The last step was begun and has no answer: begin the same one again in this term, send it,
    /// and let the node say whether it was taken.
    Resume(&'a StepRecord),
    /// The last step was begun in this very term: wait for its answer.
    Wait(&'a StepRecord),
    /// Begin the step with this number.
    Begin(u32),
}

impl Operation {
    /// Whether nothing more is done for it.
    pub fn is_over(&self) -> bool {
        matches!(
            self.state(),
            OperationState::Done | OperationState::Failed | OperationState::Cancelled
        )
    }

    /// What a leader of this control term does next.
    pub fn next_step(&self, term: u64) -> NextStep<'_> {
        if self.is_over() {
            return NextStep::Over;
        }
        match self.steps.last() {
            Some(step) if !step.ended() && step.term == term => NextStep::Wait(step),
            Some(step) if !step.ended() => NextStep::Resume(step),
            Some(step) => NextStep::Begin(step.step + 1),
            None => NextStep::Begin(1),
        }
    }
}
