//! The course of a long operation: which step comes next, from its plan and its record alone.
//!
//! A new control leader reads the same record as the one that died, so it goes on where that one was
//! left, and never does twice what was answered. Steps go forward until one fails or a person cancels;
//! then back, the last one first.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use crate::control::{Operation, OperationState, StepRecord};

/// Steps that take back what earlier ones did say so in their first word.
pub const UNDO: &str = "undo: ";

/// A step that is sent to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The voters of the database become the copies on these nodes.
    Voters(Vec<u64>),
    /// Leadership goes to the copy on this node.
    Transfer(u64),
}

/// What a control leader does next with an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next<S = Step> {
    /// Begin this step, or begin it again in the new term, and send it.
    Send {
        /// Its number in the record.
        number: u32,
        /// What it does.
        step: S,
        /// It takes back what an earlier one did.
        undoes: bool,
    },
    /// Nothing more: this is how it ended.
    End {
        /// Done, failed or cancelled.
        state: OperationState,
        /// For people.
        outcome: String,
    },
}

/// Steps in a row, and what takes them back.
pub struct Row<S, B> {
    /// In their order.
    pub forward: Vec<S>,
    /// What takes a step back; none where nothing has to be.
    pub back: B,
    /// A step that failed may have done a half of its work, which is taken back too.
    pub halves: bool,
}

impl<S: Clone, B: Fn(&S) -> Option<S>> Row<S, B> {
    /// What comes next. The words are those of the end, and of an end that a person wanted.
    pub fn next(&self, known: &Operation, reached: String, stays: String) -> Next<S> {
        let undone = |step: &&StepRecord| step.what.starts_with(UNDO);
        let ended = || known.steps.iter().filter(|step| step.ended());
        let done = ended().filter(|step| !undone(step) && step.succeeded).count();
        let failed = ended().find(|step| !step.succeeded);
        let cancelled = known.state() == OperationState::Cancelling;
        let open = known.steps.last().filter(|step| !step.ended());
        let number = match (open, known.steps.last()) {
            (Some(open), _) => open.step,
            (None, last) => last.map_or(1, |last| last.step + 1),
        };
        let backwards = open.map_or(failed.is_some() || cancelled, |open| undone(&open));
        if !backwards && let Some(step) = self.forward.get(done) {
            return Next::Send { number, step: step.clone(), undoes: false };
        }
        if done == self.forward.len() {
            return Next::End { state: OperationState::Done, outcome: reached };
        }
        let half = self.halves && failed.is_some_and(|failed| !undone(&failed));
        let begun = &self.forward[..(done + usize::from(half)).min(self.forward.len())];
        let back: Vec<S> = begun.iter().rev().filter_map(&self.back).collect();
        let gone_back = ended().filter(undone).count();
        match (back.get(gone_back), failed) {
            (Some(step), _) => Next::Send { number, step: step.clone(), undoes: true },
            (None, Some(failed)) => {
                Next::End { state: OperationState::Failed, outcome: failed.outcome.clone() }
            }
            (None, None) => Next::End { state: OperationState::Cancelled, outcome: stays },
        }
    }
}

/// One database that is made active on another copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveCourse<'a> {
    /// The database's name.
    pub name: &'a str,
    /// The node where it is active.
    pub from: u64,
    /// The node where it shall be.
    pub to: u64,
    /// The nodes that become the voters; empty: they stay.
    pub voters: &'a [u64],
    /// The nodes that were the voters before.
    pub earlier_voters: &'a [u64],
}

impl MoveCourse<'_> {
    fn forward(&self) -> Vec<Step> {
        let transfer = Step::Transfer(self.to);
        match self.voters {
            [] => vec![transfer],
            voters => vec![Step::Voters(voters.to_vec()), transfer],
        }
    }

    fn back(&self, step: &Step) -> Option<Step> {
        match step {
            Step::Voters(_) => Some(Step::Voters(self.earlier_voters.to_vec())),
            Step::Transfer(_) => None,
        }
    }

    /// A step for people, as its record has it.
    pub fn step_words(&self, step: &Step, undoes: bool) -> String {
        let undo = if undoes { UNDO } else { "" };
        match step {
            Step::Voters(nodes) => {
                format!("{undo}make nodes {} the voters of {}", list(nodes), self.name)
            }
            Step::Transfer(node) => format!("{undo}hand {} to node {node}", self.name),
        }
    }

    /// What comes next.
    pub fn next(&self, known: &Operation) -> Next {
        let row =
            Row { forward: self.forward(), back: |step: &Step| self.back(step), halves: false };
        let reached = format!("{} is active on node {}", self.name, self.to);
        row.next(known, reached, format!("{} stays on node {}", self.name, self.from))
    }
}

fn list(nodes: &[u64]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
