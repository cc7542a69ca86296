//! A history as the checkers read it: calls and ends paired, everything in the order of time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};

use thiserror::Error;

use crate::Nanos;
use crate::event::{CopyDigest, Fault, Line, Phase, Run};
use crate::journal;
use crate::op::{Operation, Outcome, Place};

/// A history that cannot be read.
#[derive(Debug, Error)]
pub enum Error {
    /// The file failed.
    #[error("read line {line}: {source}")]
    Io {
        /// Counted from 1.
        line: usize,
        /// What the system says.
        source: io::Error,
    },
    /// A line is none.
    #[error("line {line} is no line of a history: {source}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// An operation ended that never began, began twice, or ended twice.
    #[error("line {line}: operation {id} {what}")]
    Unpaired {
        /// Counted from 1.
        line: usize,
        /// The operation.
        id: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Everything that is known about a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// What it promised.
    pub run: Run,
    /// All operations by the time of their call.
    pub operations: Vec<Operation>,
    /// All faults that happened.
    pub faults: Vec<Fault>,
    /// The parts of the run and when each began.
    pub phases: Vec<(Nanos, Phase)>,
    /// What copies held at marks.
    pub digests: Vec<CopyDigest>,
    /// What the nodes said about themselves: in the order of time, and of the file within one
    /// instant.
    pub journal: Vec<journal::Entry>,
}

impl History {
    /// Reads a history. A last line without its end is what a dying harness leaves, and is passed
    /// over; any other broken line is an error.
    pub fn read(mut from: impl BufRead) -> Result<Self, Error> {
        let mut reading = Reading::default();
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            let bytes = from.read_line(&mut text).map_err(|source| Error::Io { line, source })?;
            if bytes == 0 || !text.ends_with('\n') {
                break;
            }
            if text.trim().is_empty() {
                continue;
            }
            let parsed =
                serde_json::from_str(&text).map_err(|source| Error::Json { line, source })?;
            reading.take(line, parsed)?;
        }
        Ok(reading.finish())
    }

    /// Adds what was recorded elsewhere, as a node's own journal file.
    pub fn add_journal(&mut self, mut from: impl BufRead) -> Result<(), Error> {
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            let bytes = from.read_line(&mut text).map_err(|source| Error::Io { line, source })?;
            if bytes == 0 || !text.ends_with('\n') {
                break;
            }
            let entry =
                serde_json::from_str(&text).map_err(|source| Error::Json { line, source })?;
            self.journal.push(entry);
        }
        self.journal.sort_by_key(|entry| entry.at);
        Ok(())
    }

    /// The history as lines, to be stored; reading it back gives an equal one.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = vec![Line::Run(self.run.clone())];
        lines.extend(self.phases.iter().map(|&(at, phase)| Line::Phase { at, phase }));
        for operation in &self.operations {
            let Operation { id, client, invoked, op, .. } = operation.clone();
            lines.push(Line::Invoke { id, client, at: invoked, op });
            if let Some(at) = operation.returned {
                lines.push(Line::Return { id, at, outcome: operation.outcome.clone() });
            }
        }
        lines.extend(self.faults.iter().cloned().map(Line::Fault));
        lines.extend(self.digests.iter().cloned().map(Line::Digest));
        lines.extend(self.journal.iter().cloned().map(Line::Journal));
        lines
    }

    /// All places that operations touch, in order.
    pub fn places(&self) -> BTreeSet<&Place> {
        self.operations.iter().flat_map(|operation| operation.op.places()).collect()
    }

    /// The operations on one place, by the time of their call.
    pub fn at<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a Operation> + Clone {
        self.operations.iter().filter(move |operation| operation.op.places().contains(place))
    }

    /// The operation of this number.
    pub fn operation(&self, id: u64) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.id == id)
    }

    /// The part of the run that an instant belongs to.
    pub fn phase_at(&self, at: Nanos) -> Phase {
        let begun = self.phases.iter().filter(|(from, _)| *from <= at);
        begun.map(|&(_, phase)| phase).max().unwrap_or(Phase::Before)
    }
}

#[derive(Default)]
struct Reading {
    history: History,
    open: BTreeMap<u64, usize>,
    ended: BTreeSet<u64>,
}

impl Reading {
    fn take(&mut self, line: usize, parsed: Line) -> Result<(), Error> {
        match parsed {
            Line::Run(run) => self.history.run = run,
            Line::Fault(fault) => self.history.faults.push(fault),
            Line::Phase { at, phase } => self.history.phases.push((at, phase)),
            Line::Digest(digest) => self.history.digests.push(digest),
            Line::Journal(entry) => self.history.journal.push(entry),
            Line::Invoke { id, client, at, op } => {
                if self.ended.contains(&id) || self.open.contains_key(&id) {
                    return Err(Error::Unpaired { line, id, what: "was called twice" });
                }
                self.open.insert(id, self.history.operations.len());
                let outcome = Outcome::Unknown { reason: "the history ends before".into() };
                let operation = Operation { id, client, invoked: at, returned: None, op, outcome };
                self.history.operations.push(operation);
            }
            Line::Return { id, at, outcome } => {
                let Some(position) = self.open.remove(&id) else {
                    return Err(Error::Unpaired { line, id, what: "ended without a call" });
                };
                self.ended.insert(id);
                let operation = &mut self.history.operations[position];
                operation.returned = Some(at);
                operation.outcome = outcome;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> History {
        self.history.operations.sort_by_key(|operation| (operation.invoked, operation.id));
        self.history.journal.sort_by_key(|entry| entry.at);
        self.history
    }
}
