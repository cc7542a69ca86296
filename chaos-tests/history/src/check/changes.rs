//! M4: MODSEQ strictly increases with each change, and no read ever sees it go back.

use std::collections::BTreeMap;

use super::messages::{appended_at, reads};
use super::uids::{Span, backward};
use super::{Evidence, Looking, Step};
use crate::history::History;
use crate::op::{Answer, Flags, Op, Operation, Place, ReadMode, StoreResult};

pub(super) fn check(looking: &mut Looking<'_>, history: &History) -> Step {
    history.places().into_iter().try_for_each(|place| {
        let operations: Vec<&Operation> = history.at(place).collect();
        each_change_its_own(looking, &operations, place)?;
        never_goes_back(looking, &operations, place)?;
        below_the_highest(looking, &operations, place)?;
        other_flags_other_modseq(looking, &operations, place)
    })
}

/// The MODSEQ of the change that an operation made in this place, if it made one.
fn change_of(operation: &Operation, place: &Place) -> Option<u64> {
    match (operation.answer()?, &operation.op) {
        (Answer::Appended { .. }, _) => appended_at(operation, place).map(|at| at.modseq),
        (Answer::Stored { result: StoreResult::Changed, modseq, .. }, _) => *modseq,
        (Answer::Expunged { uids, modseq }, _) if !uids.is_empty() => Some(*modseq),
        _ => None,
    }
}

fn each_change_its_own(
    looking: &mut Looking<'_>,
    operations: &[&Operation],
    place: &Place,
) -> Step {
    let mut owner: BTreeMap<u64, u64> = BTreeMap::new();
    for operation in operations {
        let Some(modseq) = change_of(operation, place) else { continue };
        looking.one();
        if let Some(first) = owner.insert(modseq, operation.id) {
            looking.breach(
                format!("modseq twice {place} {modseq}"),
                format!("{place}: two changes have MODSEQ {modseq}"),
                vec![Evidence::Operation(first), Evidence::Operation(operation.id)],
            )?;
        }
    }
    Ok(())
}

fn never_goes_back(looking: &mut Looking<'_>, operations: &[&Operation], place: &Place) -> Step {
    let spans = operations.iter().filter_map(|operation| {
        let returned = operation.acknowledged()?;
        let (least, most) = match change_of(operation, place) {
            // The next change must be greater by one at least.
            Some(modseq) => (modseq, modseq + 1),
            None => {
                let (_, seen, mode) = reads(&[*operation]).next()?;
                if mode == ReadMode::Labelled {
                    return None;
                }
                // A read after a change may show the change itself: it tells "at least this".
                (seen.highest_modseq + 1, seen.highest_modseq + 1)
            }
        };
        Some(Span { operation, returned, least: (0, least), most: (0, most) })
    });
    for (before, after) in backward(spans.collect()) {
        looking.one();
        if let Some(before) = before {
            looking.breach(
                format!("modseq went back {place} {} {}", before.operation.id, after.operation.id),
                format!(
                    "{place}: MODSEQ {} was told, and an operation called later tells {}",
                    before.most.1 - 1,
                    after.operation_modseq(place)
                ),
                vec![
                    Evidence::Operation(before.operation.id),
                    Evidence::Operation(after.operation.id),
                ],
            )?;
        }
    }
    Ok(())
}

impl Span<'_> {
    fn operation_modseq(&self, place: &Place) -> u64 {
        change_of(self.operation, place).unwrap_or(self.least.1 - 1)
    }
}

fn below_the_highest(looking: &mut Looking<'_>, operations: &[&Operation], place: &Place) -> Step {
    for (read, seen, _) in reads(operations) {
        looking.one();
        let above = seen.messages.iter().find(|message| message.modseq > seen.highest_modseq);
        if let Some(message) = above {
            looking.breach(
                format!("modseq above highest {place} {} {}", message.uid, message.modseq),
                format!(
                    "{place} UID {} has MODSEQ {}, above HIGHESTMODSEQ {}",
                    message.uid, message.modseq, seen.highest_modseq
                ),
                vec![Evidence::Operation(read.id)],
            )?;
        }
    }
    Ok(())
}

/// One MODSEQ of a message means one set of flags, in whichever read it is seen.
fn other_flags_other_modseq(
    looking: &mut Looking<'_>,
    operations: &[&Operation],
    place: &Place,
) -> Step {
    let mut known: BTreeMap<(u64, u64), (&Flags, u64)> = BTreeMap::new();
    let stored =
        operations.iter().filter_map(|operation| match (&operation.op, operation.answer()) {
            (
                Op::Store { uid, .. },
                Some(Answer::Stored { result, modseq: Some(modseq), flags: Some(flags) }),
            ) if *result == StoreResult::Changed => Some((operation.id, *uid, *modseq, flags)),
            _ => None,
        });
    let read = reads(operations).flat_map(|(read, seen, _)| {
        let shown = seen.messages.iter();
        shown.map(move |message| (read.id, message.uid, message.modseq, &message.flags))
    });
    for (id, uid, modseq, flags) in stored.chain(read) {
        looking.one();
        let (first, by) = *known.entry((uid, modseq)).or_insert((flags, id));
        if first != flags {
            looking.breach(
                format!("flags changed under one modseq {place} {uid} {modseq}"),
                format!("{place} UID {uid}: {first:?} and {flags:?} under one MODSEQ {modseq}"),
                vec![Evidence::Operation(by), Evidence::Operation(id)],
            )?;
        }
    }
    Ok(())
}
