//! The smallest part of a history that still shows a violation.
//!
//! A run of ten thousand operations with one lost message is explained by two of them. Parts are
//! taken out as long as the same rule is broken on the same subject. Where taking out a change
//! could make a sound history look broken (flags: who reads a flag that nobody set any more?) only
//! reads are taken out, and changes of other messages.

use std::collections::BTreeSet;

use crate::check::{Evidence, Rule, Violation};
use crate::history::History;
use crate::op::Op;

/// The smallest part found, with the run's promises, phases and faults kept.
pub fn minimise(history: &History, violation: &Violation) -> History {
    let all = parts(history);
    let fixed = fixed(history, violation);
    let shows = |kept: &BTreeSet<Evidence>| {
        violation.rule.is_broken_on(&restrict(history, kept), &violation.subject)
    };
    let evidence: BTreeSet<_> = violation.evidence.iter().copied().chain(fixed.clone()).collect();
    let mut kept = if shows(&evidence) { evidence } else { all };
    let mut size = kept.len().div_ceil(2).max(1);
    loop {
        let mut smaller = false;
        let droppable: Vec<_> = kept.difference(&fixed).copied().collect();
        for chunk in droppable.chunks(size) {
            let mut without = kept.clone();
            chunk.iter().for_each(|part| {
                without.remove(part);
            });
            if shows(&without) {
                kept = without;
                smaller = true;
            }
        }
        if size > 1 {
            size = size.div_ceil(2);
        } else if !smaller {
            return restrict(history, &kept);
        }
    }
}

fn parts(history: &History) -> BTreeSet<Evidence> {
    let operations = history.operations.iter().map(|o| Evidence::Operation(o.id));
    let journal = (0..history.journal.len()).map(Evidence::Journal);
    let digests = (0..history.digests.len()).map(Evidence::Digest);
    operations.chain(journal).chain(digests).collect()
}

/// What may not be taken out: of a violation of flags, every change of its message.
fn fixed(history: &History, violation: &Violation) -> BTreeSet<Evidence> {
    if violation.rule != Rule::M5 {
        return BTreeSet::new();
    }
    violation
        .evidence
        .iter()
        .filter(|part| match part {
            Evidence::Operation(id) => {
                history.operation(*id).is_some_and(|o| !matches!(o.op, Op::Read { .. }))
            }
            Evidence::Journal(_) | Evidence::Digest(_) => false,
        })
        .copied()
        .collect()
}

fn restrict(history: &History, kept: &BTreeSet<Evidence>) -> History {
    let keep_position = |keep: bool, position| {
        let part = if keep { Evidence::Journal(position) } else { Evidence::Digest(position) };
        kept.contains(&part)
    };
    let journal = history.journal.iter().enumerate();
    let digests = history.digests.iter().enumerate();
    History {
        run: history.run.clone(),
        operations: history
            .operations
            .iter()
            .filter(|o| kept.contains(&Evidence::Operation(o.id)))
            .cloned()
            .collect(),
        faults: history.faults.clone(),
        phases: history.phases.clone(),
        digests: digests
            .filter(|(position, _)| keep_position(false, *position))
            .map(|(_, digest)| digest.clone())
            .collect(),
        journal: journal
            .filter(|(position, _)| keep_position(true, *position))
            .map(|(_, entry)| entry.clone())
            .collect(),
    }
}
