//! M1: each acknowledged append exactly once, each unknown one at most once, nothing else.
//!
//! The workload writes each key once, and the key travels in the message's body. So a read that
//! shows a key tells which append it comes from: a key that nobody appended is a phantom, a key at
//! two UIDs is a double, and an acknowledged key that the last read does not show is a loss, unless
//! an expunge of its UID was called.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Looking, Step, Verdict};
use crate::history::History;
use crate::op::{Answer, AppendedAt, Op, Operation, Place, ReadMode, Seen};

pub(super) fn check(looking: &mut Looking<'_>, history: &History) -> Step {
    history.places().into_iter().try_for_each(|place| check_place(looking, history, place))
}

fn check_place(looking: &mut Looking<'_>, history: &History, place: &Place) -> Step {
    let operations: Vec<&Operation> = history.at(place).collect();
    let appends = appends_by_key(looking, &operations)?;
    no_phantom_no_double(looking, &operations, &appends, place)?;
    nothing_lost(looking, &operations, place)
}

type Appends<'a> = BTreeMap<&'a str, (&'a Operation, &'a str)>;

fn appends_by_key<'a>(
    looking: &Looking<'_>,
    operations: &[&'a Operation],
) -> Result<Appends<'a>, Box<Verdict>> {
    let mut appends = Appends::new();
    for operation in operations {
        let Op::Append { key, body, .. } = &operation.op else { continue };
        if let Some((first, _)) = appends.insert(key, (operation, body)) {
            looking.breach(
                format!("key used twice {key}"),
                format!("the workload appended key {key} twice: it cannot be judged"),
                vec![Evidence::Operation(first.id), Evidence::Operation(operation.id)],
            )?;
        }
    }
    Ok(appends)
}

fn no_phantom_no_double(
    looking: &mut Looking<'_>,
    operations: &[&Operation],
    appends: &Appends<'_>,
    place: &Place,
) -> Step {
    let mut uid_of_key: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for append in operations {
        if let (Op::Append { key, .. }, Some(at)) = (&append.op, appended_at(append, place)) {
            uid_of_key.insert(key, (at.uid, append.id));
        }
    }
    for (read, seen, _) in reads(operations) {
        for message in &seen.messages {
            looking.one();
            let key = message.key.as_str();
            let here = Evidence::Operation(read.id);
            let Some((append, body)) = appends.get(key) else {
                looking.breach(
                    format!("phantom {place} {key}"),
                    format!(
                        "{place} shows key {key} at UID {}, which nobody appended",
                        message.uid
                    ),
                    vec![here],
                )?;
                continue;
            };
            let evidence = vec![Evidence::Operation(append.id), here];
            let too_early = read.returned.is_some_and(|returned| returned < append.invoked);
            if too_early || !append.may_have_happened() {
                looking.breach(
                    format!("not appended {place} {key}"),
                    format!("{place} shows key {key}, whose append failed or had not begun"),
                    evidence.clone(),
                )?;
            }
            if message.body != *body {
                looking.breach(
                    format!("other body {place} {key}"),
                    format!("{place} UID {} has not the body that was appended", message.uid),
                    evidence,
                )?;
            }
            let (uid, first) = *uid_of_key.entry(key).or_insert((message.uid, read.id));
            if uid != message.uid {
                looking.breach(
                    format!("double {place} {key}"),
                    format!("{place} has key {key} at UID {uid} and at UID {}", message.uid),
                    vec![Evidence::Operation(append.id), Evidence::Operation(first), here],
                )?;
            }
        }
    }
    Ok(())
}

fn nothing_lost(looking: &mut Looking<'_>, operations: &[&Operation], place: &Place) -> Step {
    let acknowledged: Vec<_> = operations
        .iter()
        .filter_map(|append| Some((*append, appended_at(append, place)?)))
        .collect();
    let Some((newest, _)) = acknowledged.last() else { return Ok(()) };
    let end = operations.iter().filter(|o| !o.op.is_read()).filter_map(|o| o.acknowledged()).max();
    let last_read = reads(operations)
        .filter(|(_, _, mode)| *mode == ReadMode::Linearizable)
        .filter(|(read, _, _)| end.is_some_and(|end| end < read.invoked))
        .last();
    let Some((read, seen, _)) = last_read else {
        return looking.unknown(format!(
            "{place} was not read after its last acknowledged change (operation {})",
            newest.id
        ));
    };
    let expunged = maybe_expunged(operations);
    let present: BTreeSet<u64> = seen.messages.iter().map(|message| message.uid).collect();
    for (append, at) in acknowledged {
        looking.one();
        if !present.contains(&at.uid) && !expunged.contains(&at.uid) {
            let Op::Append { key, .. } = &append.op else { unreachable!("an append") };
            looking.breach(
                format!("lost {place} {key}"),
                format!(
                    "{place}: key {key} was acknowledged at UID {} and is gone in the last read",
                    at.uid
                ),
                vec![Evidence::Operation(append.id), Evidence::Operation(read.id)],
            )?;
        }
    }
    Ok(())
}

/// Where an acknowledged append put its message in this place.
pub(super) fn appended_at(append: &Operation, place: &Place) -> Option<AppendedAt> {
    let (Op::Append { places, .. }, Some(Answer::Appended { at })) = (&append.op, append.answer())
    else {
        return None;
    };
    let position = places.iter().position(|other| other == place)?;
    at.get(position).copied()
}

/// All reads that were answered, by the time of their call.
pub(super) fn reads<'a>(
    operations: &[&'a Operation],
) -> impl Iterator<Item = (&'a Operation, &'a Seen, ReadMode)> {
    operations.iter().filter_map(|operation| match (&operation.op, operation.answer()) {
        (Op::Read { mode, .. }, Some(Answer::Seen(seen))) => Some((*operation, seen, *mode)),
        _ => None,
    })
}

/// UIDs whose expunge was called and did not fail.
pub(super) fn maybe_expunged(operations: &[&Operation]) -> BTreeSet<u64> {
    operations
        .iter()
        .filter(|operation| operation.may_have_happened())
        .filter_map(|operation| match &operation.op {
            Op::Expunge { uids, .. } => Some(uids),
            _ => None,
        })
        .flatten()
        .copied()
        .collect()
}
