//! M2: UIDs strictly increase and are never reused. M3: appends stand in real-time order.

use std::collections::BTreeMap;

use super::messages::{appended_at, reads};
use super::{Evidence, Looking, Step};
use crate::Nanos;
use crate::history::History;
use crate::op::{Op, Operation, Place, ReadMode};

/// M2.
pub(super) fn strictly_increasing(looking: &mut Looking<'_>, history: &History) -> Step {
    history.places().into_iter().try_for_each(|place| {
        let operations: Vec<&Operation> = history.at(place).collect();
        one_key_per_uid(looking, &operations, place)?;
        lists_in_order(looking, &operations, place)?;
        next_never_goes_back(looking, &operations, place)
    })
}

/// A UID under one UIDVALIDITY is one message for ever.
fn one_key_per_uid(looking: &mut Looking<'_>, operations: &[&Operation], place: &Place) -> Step {
    let mut owner: BTreeMap<(u64, u64), (&str, u64)> = BTreeMap::new();
    let mut claim = |looking: &mut Looking<'_>, validity, uid, key, id| {
        looking.one();
        let (first, by) = *owner.entry((validity, uid)).or_insert((key, id));
        if first == key {
            return Ok(());
        }
        looking.breach(
            format!("uid reused {place} {uid}"),
            format!("{place} UID {uid} was key {first} and then key {key}"),
            vec![Evidence::Operation(by), Evidence::Operation(id)],
        )
    };
    for operation in operations {
        if let (Op::Append { key, .. }, Some(at)) = (&operation.op, appended_at(operation, place)) {
            claim(looking, at.uid_validity, at.uid, key, operation.id)?;
        }
    }
    for (read, seen, _) in reads(operations) {
        for message in &seen.messages {
            claim(looking, seen.uid_validity, message.uid, &message.key, read.id)?;
        }
    }
    Ok(())
}

/// In each answer UIDs increase, and all stand below the next UID.
fn lists_in_order(looking: &mut Looking<'_>, operations: &[&Operation], place: &Place) -> Step {
    for (read, seen, _) in reads(operations) {
        looking.one();
        let uids = seen.messages.iter().map(|message| message.uid);
        let bounded = uids.clone().chain([seen.uid_next]);
        if let Some((before, after)) = bounded.clone().zip(bounded.skip(1)).find(|(a, b)| a >= b) {
            looking.breach(
                format!("list out of order {place} {before} {after}"),
                format!("{place}: a list shows UID {before} before {after} (UIDNEXT ends it)"),
                vec![Evidence::Operation(read.id)],
            )?;
        }
    }
    Ok(())
}

/// UIDNEXT and UIDVALIDITY, as reads and appends tell them, never go back in real time.
fn next_never_goes_back(
    looking: &mut Looking<'_>,
    operations: &[&Operation],
    place: &Place,
) -> Step {
    let told = operations.iter().filter_map(|operation| {
        let returned = operation.acknowledged()?;
        let (validity, least, most) = match &operation.op {
            Op::Append { .. } => {
                let at = appended_at(operation, place)?;
                (at.uid_validity, at.uid, at.uid + 1)
            }
            _ => {
                let (_, seen, mode) = reads(&[*operation]).next()?;
                if mode == ReadMode::Labelled {
                    return None;
                }
                (seen.uid_validity, seen.uid_next, seen.uid_next)
            }
        };
        Some(Span { operation, returned, least: (validity, least), most: (validity, most) })
    });
    let spans: Vec<_> = told.collect();
    for (before, after) in backward(spans) {
        looking.one();
        if let Some(before) = before {
            looking.breach(
                format!("uidnext went back {place} {:?} {:?}", before.most, after.least),
                format!(
                    "{place}: (UIDVALIDITY, UIDNEXT) was {:?}, and later a UID of {:?} was told",
                    before.most, after.least
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

/// M3. M2's look at UIDNEXT covers acknowledged pairs; here an append of unknown outcome counts
/// too, once a read shows its UID.
pub(super) fn real_time_order(looking: &mut Looking<'_>, history: &History) -> Step {
    history.places().into_iter().try_for_each(|place| {
        let operations: Vec<&Operation> = history.at(place).collect();
        appends_in_order(looking, &operations, place)
    })
}

fn appends_in_order(looking: &mut Looking<'_>, operations: &[&Operation], place: &Place) -> Step {
    let mut seen_uid: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, seen, _) in reads(operations) {
        seen_uid.extend(seen.messages.iter().map(|message| (message.key.as_str(), message.uid)));
    }
    let spans: Vec<_> = operations
        .iter()
        .filter_map(|operation| {
            let Op::Append { key, .. } = &operation.op else { return None };
            let told = appended_at(operation, place).map(|at| at.uid);
            let uid = told.or_else(|| seen_uid.get(key.as_str()).copied())?;
            let returned = operation.acknowledged().unwrap_or(Nanos::MAX);
            Some(Span { operation, returned, least: (0, uid), most: (0, uid + 1) })
        })
        .collect();
    for (before, after) in backward(spans) {
        looking.one();
        if let Some(before) = before {
            looking.breach(
                format!("order {place} {} {}", before.operation.id, after.operation.id),
                format!(
                    "{place}: an append that was over got UID {}, one called later UID {}",
                    before.least.1, after.least.1
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

/// An operation and the least and greatest value that it tells.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) operation: &'a Operation,
    pub(super) returned: Nanos,
    pub(super) least: (u64, u64),
    pub(super) most: (u64, u64),
}

/// Each span, with an earlier one (over before this was called) that told more than this one's
/// least. One sweep: spans by call, and by return for the greatest value told so far.
pub(super) fn backward(mut spans: Vec<Span<'_>>) -> Vec<(Option<Span<'_>>, Span<'_>)> {
    let mut by_return = spans.clone();
    by_return.sort_by_key(|span| span.returned);
    spans.sort_by_key(|span| span.operation.invoked);
    let mut over = by_return.into_iter().peekable();
    let mut greatest: Option<Span<'_>> = None;
    let mut pairs = Vec::with_capacity(spans.len());
    for span in spans {
        while let Some(next) = over.next_if(|next| next.returned < span.operation.invoked) {
            if greatest.is_none_or(|greatest| greatest.most < next.most) {
                greatest = Some(next);
            }
        }
        pairs.push((greatest.filter(|greatest| greatest.most > span.least), span));
    }
    pairs
}
