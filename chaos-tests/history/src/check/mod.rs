//! The rules, and what a history says about each.
//!
//! A rule is one function from a history to a [`Verdict`]. A violation names its subject in a text
//! that stays the same when operations which do not matter are taken out of the history: this is
//! how [`crate::minimise`] knows that it still looks at the same violation.
//!
//! Most mailbox rules are direct scans, because UIDs give the order in which messages came. Only
//! the flags of a message need a search for an order that explains all answers ([`wgl`]).

use std::fmt;

use crate::history::History;

mod changes;
mod flags;
mod gate;
mod lineage;
mod messages;
mod monotonic;
mod ownership;
mod reads;
mod replicas;
mod uids;
mod validity;
pub mod wgl;

#[cfg(test)]
mod tests;

/// A promise of Holdfast (or, for `V1`, of the run itself).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Each acknowledged append exactly once, each unknown one at most once, nothing else.
    M1,
    /// UIDs strictly increasing and never reused.
    M2,
    /// Appends stand in the order in which they really happened.
    M3,
    /// MODSEQ strictly increasing with each change.
    M4,
    /// The flags of each message are linearizable.
    M5,
    /// Reads are linearizable, or labelled.
    M6,
    /// All copies have equal digests at one mark.
    M9,
    /// No acknowledgement in an older lineage after one in a newer.
    I1,
    /// One content per index, one acknowledging leader per term.
    I2,
    /// Lineage, vote and boot never go back.
    I3,
    /// Each counted answer had an open gate from request to deadline.
    I4,
    /// Each opening of a gate names a committed grant.
    I5,
    /// No answer is older than what was seen before.
    I13,
    /// A replica id belongs to one store for ever, a directory to one owner at a time.
    I14,
    /// The run did what it promised.
    V1,
}

impl Rule {
    /// All rules, in the order of a report.
    pub const ALL: [Self; 15] = [
        Self::V1,
        Self::M1,
        Self::M2,
        Self::M3,
        Self::M4,
        Self::M5,
        Self::M6,
        Self::M9,
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I13,
        Self::I14,
    ];

    /// The promise in a sentence.
    pub fn promise(self) -> &'static str {
        match self {
            Self::M1 => "each acknowledged append exactly once, each unknown one at most once",
            Self::M2 => "UIDs strictly increasing, never reused",
            Self::M3 => "appends in real-time order",
            Self::M4 => "MODSEQ strictly increasing with each change",
            Self::M5 => "flags linearizable per message",
            Self::M6 => "reads linearizable or labelled",
            Self::M9 => "equal digests on all copies at one mark",
            Self::I1 => "no acknowledgement in an older lineage after one in a newer",
            Self::I2 => "one content per index, one acknowledging leader per term",
            Self::I3 => "lineage, vote and boot never go back",
            Self::I4 => "an open gate from request to deadline for each answer",
            Self::I5 => "each gate opened by a committed grant of its lineage",
            Self::I13 => "no answer older than what was seen before",
            Self::I14 => "one store per replica id, one owner per directory",
            Self::V1 => "enough work before, during and after every promised fault",
        }
    }

    /// What the history says about this rule.
    pub fn check(self, history: &History) -> Verdict {
        self.look(history, None)
    }

    /// Whether the history breaks this rule on exactly this subject.
    pub fn is_broken_on(self, history: &History, subject: &str) -> bool {
        matches!(self.look(history, Some(subject)), Verdict::Violated(_))
    }

    fn look(self, history: &History, focus: Option<&str>) -> Verdict {
        if let Some(why) = self.not_promised(history) {
            return Verdict::NotPromised(why);
        }
        let mut looking = Looking { rule: self, looked_at: 0, focus };
        match self.steps()(&mut looking, history) {
            Ok(()) => Verdict::Held(looking.looked_at),
            Err(verdict) => *verdict,
        }
    }

    fn not_promised(self, history: &History) -> Option<&'static str> {
        match self {
            Self::I4 | Self::I5 => (!history.run.gated).then_some("the run has no gates"),
            Self::M9 => history.run.copies.is_empty().then_some("the run compares no copies"),
            _ => None,
        }
    }

    fn steps(self) -> fn(&mut Looking<'_>, &History) -> Step {
        match self {
            Self::M1 => messages::check,
            Self::M2 => uids::strictly_increasing,
            Self::M3 => uids::real_time_order,
            Self::M4 => changes::check,
            Self::M5 => flags::check,
            Self::M6 => reads::check,
            Self::M9 => replicas::check,
            Self::I1 => lineage::one_lineage,
            Self::I2 => lineage::one_content_one_leader,
            Self::I3 => monotonic::check,
            Self::I4 => gate::open_while_answering,
            Self::I5 => gate::opened_by_grant,
            Self::I13 => reads::never_older,
            Self::I14 => ownership::check,
            Self::V1 => validity::check,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a history says about a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It held for this many things that were looked at.
    Held(u64),
    /// It was broken.
    Violated(Violation),
    /// It cannot be told; counts as a failed run.
    Unknown(String),
    /// The run does not promise it.
    NotPromised(&'static str),
}

impl Verdict {
    /// Whether the run may count.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Held(_) | Self::NotPromised(_))
    }
}

/// A part of a history that shows a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// The operation of this number.
    Operation(u64),
    /// The journal line at this position.
    Journal(usize),
    /// The copy digest at this position.
    Digest(usize),
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub rule: Rule,
    /// What kind of breach, and of which thing; independent of the rest of the history.
    pub subject: String,
    /// The breach in a sentence, with figures.
    pub message: String,
    /// What shows it.
    pub evidence: Vec<Evidence>,
}

/// A check of one rule: counts what it looks at, and ends at the first breach. A focused check
/// passes over every breach but the one of its subject.
pub(crate) struct Looking<'a> {
    rule: Rule,
    looked_at: u64,
    focus: Option<&'a str>,
}

impl Looking<'_> {
    pub(crate) fn one(&mut self) {
        self.looked_at += 1;
    }

    pub(crate) fn breach(&self, subject: String, message: String, evidence: Vec<Evidence>) -> Step {
        if self.focus.is_some_and(|focus| focus != subject) {
            return Ok(());
        }
        let rule = self.rule;
        Err(Box::new(Verdict::Violated(Violation { rule, subject, message, evidence })))
    }

    pub(crate) fn unknown(&self, why: String) -> Step {
        match self.focus {
            Some(_) => Ok(()),
            None => Err(Box::new(Verdict::Unknown(why))),
        }
    }
}

/// A check that ends early with its verdict.
pub(crate) type Step = Result<(), Box<Verdict>>;

/// All verdicts about a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One for each rule, in the order of [`Rule::ALL`].
    pub verdicts: Vec<(Rule, Verdict)>,
}

impl Report {
    /// Whether the run counts and every promised rule held.
    pub fn is_good(&self) -> bool {
        self.verdicts.iter().all(|(_, verdict)| verdict.is_good())
    }

    /// The violations, validity last: a broken promise of Holdfast weighs more than one of the run.
    pub fn violations(&self) -> Vec<&Violation> {
        let (run, holdfast): (Vec<_>, Vec<_>) = self
            .verdicts
            .iter()
            .filter_map(|(_, verdict)| match verdict {
                Verdict::Violated(violation) => Some(violation),
                Verdict::Held(_) | Verdict::Unknown(_) | Verdict::NotPromised(_) => None,
            })
            .partition(|violation| violation.rule == Rule::V1);
        holdfast.into_iter().chain(run).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, verdict) in &self.verdicts {
            let name = format!("{rule:<4}");
            match verdict {
                Verdict::Held(count) => {
                    writeln!(f, "{name} held      {count:>7}  {}", rule.promise())?;
                }
                Verdict::Violated(violation) => {
                    writeln!(f, "{name} VIOLATED           {}", violation.message)?;
                }
                Verdict::Unknown(why) => writeln!(f, "{name} UNKNOWN            {why}")?,
                Verdict::NotPromised(why) => writeln!(f, "{name} not promised       {why}")?,
            }
        }
        Ok(())
    }
}

/// Judges a history by all rules.
pub fn judge(history: &History) -> Report {
    Report { verdicts: Rule::ALL.iter().map(|&rule| (rule, rule.check(history))).collect() }
}
