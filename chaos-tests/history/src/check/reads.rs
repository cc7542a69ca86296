//! M6: reads are linearizable, or labelled. I13: no answer is older than what was seen before.
//!
//! Whether a read may lack a message is a question of two times: the message was known to be there
//! before the read was called (its append was acknowledged, or an earlier read showed it), and no
//! expunge of it was called before the read ended. Whether it may show one: no expunge of it was
//! acknowledged before the read was called.

use std::collections::{BTreeMap, BTreeSet};

use super::messages::{appended_at, reads};
use super::{Evidence, Looking, Step};
use crate::Nanos;
use crate::history::History;
use crate::op::{Answer, Op, Operation, Place, ReadMode, Seen};

/// M6.
pub(super) fn check(looking: &mut Looking<'_>, history: &History) -> Step {
    history.places().into_iter().try_for_each(|place| {
        let operations: Vec<&Operation> = history.at(place).collect();
        let known = Known::gather(&operations, place);
        reads(&operations).try_for_each(|(read, seen, mode)| match mode {
            ReadMode::Linearizable => known.fits(looking, read, seen, place),
            ReadMode::Labelled => known.is_a_beginning(looking, read, seen, place),
        })
    })
}

/// When messages of a place were known to be there, and when they may have gone.
struct Known {
    /// UID to the earliest moment at which somebody knew of the message, and the operation.
    there: BTreeMap<u64, (Nanos, u64)>,
    /// UID to the earliest call of an expunge that may have happened.
    may_go: BTreeMap<u64, Nanos>,
    /// UID to the earliest acknowledgement of an expunge that named it as gone.
    gone: BTreeMap<u64, (Nanos, u64)>,
}

impl Known {
    fn gather(operations: &[&Operation], place: &Place) -> Self {
        let mut known =
            Self { there: BTreeMap::new(), may_go: BTreeMap::new(), gone: BTreeMap::new() };
        for operation in operations {
            if let (Some(at), Some(when)) =
                (appended_at(operation, place), operation.acknowledged())
            {
                earliest(&mut known.there, at.uid, (when, operation.id));
            }
            let Op::Expunge { uids, .. } = &operation.op else { continue };
            if operation.may_have_happened() {
                uids.iter().for_each(|&uid| earliest(&mut known.may_go, uid, operation.invoked));
            }
            if let (Some(Answer::Expunged { uids, .. }), Some(when)) =
                (operation.answer(), operation.acknowledged())
            {
                uids.iter().for_each(|&uid| {
                    earliest(&mut known.gone, uid, (when, operation.id));
                });
            }
        }
        for (read, seen, _) in reads(operations) {
            let Some(when) = read.acknowledged() else { continue };
            for message in &seen.messages {
                earliest(&mut known.there, message.uid, (when, read.id));
            }
        }
        known
    }

    fn fits(
        &self,
        looking: &mut Looking<'_>,
        read: &Operation,
        seen: &Seen,
        place: &Place,
    ) -> Step {
        let shown: BTreeSet<u64> = seen.messages.iter().map(|message| message.uid).collect();
        let ended = read.returned.unwrap_or(Nanos::MAX);
        for (&uid, &(when, by)) in &self.there {
            looking.one();
            let may_be_gone = self.may_go.get(&uid).is_some_and(|called| *called <= ended);
            if when < read.invoked && !shown.contains(&uid) && !may_be_gone {
                looking.breach(
                    format!("stale read {place} {uid} {}", read.id),
                    format!(
                        "{place}: a linearizable read lacks UID {uid}, known before it was called"
                    ),
                    vec![Evidence::Operation(by), Evidence::Operation(read.id)],
                )?;
            }
        }
        for uid in shown {
            if let Some(&(when, by)) = self.gone.get(&uid)
                && when < read.invoked
            {
                looking.breach(
                    format!("expunged message read {place} {uid} {}", read.id),
                    format!("{place}: a read shows UID {uid}, expunged before it was called"),
                    vec![Evidence::Operation(by), Evidence::Operation(read.id)],
                )?;
            }
        }
        Ok(())
    }

    /// A labelled read shows some beginning of the log: below its UIDNEXT nothing known is missing.
    fn is_a_beginning(
        &self,
        looking: &mut Looking<'_>,
        read: &Operation,
        seen: &Seen,
        place: &Place,
    ) -> Step {
        looking.one();
        let shown: BTreeSet<u64> = seen.messages.iter().map(|message| message.uid).collect();
        let ended = read.returned.unwrap_or(Nanos::MAX);
        let missing = self.there.iter().find(|(uid, _)| {
            let may_be_gone = self.may_go.get(*uid).is_some_and(|called| *called <= ended);
            **uid < seen.uid_next && !shown.contains(*uid) && !may_be_gone
        });
        let Some((uid, &(_, by))) = missing else { return Ok(()) };
        looking.breach(
            format!("hole in a labelled read {place} {uid} {}", read.id),
            format!("{place}: a labelled read lacks UID {uid}, below its UIDNEXT"),
            vec![Evidence::Operation(by), Evidence::Operation(read.id)],
        )
    }
}

fn earliest<T: Ord + Copy>(map: &mut BTreeMap<u64, T>, uid: u64, value: T) {
    map.entry(uid).and_modify(|known| *known = (*known).min(value)).or_insert(value);
}

/// I13: what an answer speaks of never lies before what an earlier answer spoke of.
pub(super) fn never_older(looking: &mut Looking<'_>, history: &History) -> Step {
    let mut databases: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        if let Some(token) = operation.token() {
            databases.entry(token.database).or_default().push(operation);
        }
    }
    databases.values().try_for_each(|operations| positions_grow(looking, operations))
}

fn positions_grow(looking: &mut Looking<'_>, operations: &[&Operation]) -> Step {
    let mut over: Vec<(&Operation, Position)> = operations
        .iter()
        .filter_map(|operation| Some((*operation, position(operation)?)))
        .collect();
    over.sort_by_key(|(operation, _)| operation.returned);
    let mut over = over.into_iter().peekable();
    let mut greatest: Option<(&Operation, Position)> = None;
    for operation in operations {
        let earlier = |(before, _): &(&Operation, Position)| before.precedes(operation);
        while let Some(next) = over.next_if(&earlier) {
            if greatest.is_none_or(|(_, position)| position < next.1) {
                greatest = Some(next);
            }
        }
        let linearizable = matches!(operation.op, Op::Read { mode: ReadMode::Linearizable, .. });
        let (Some(here), Some((before, there))) = (position(operation), greatest) else { continue };
        looking.one();
        // A write may be a repetition that is answered with its first position.
        if linearizable && here < there {
            looking.breach(
                format!("older answer {} {}", before.id, operation.id),
                format!("a read speaks of {here:?}, though {there:?} was told before its call"),
                vec![Evidence::Operation(before.id), Evidence::Operation(operation.id)],
            )?;
        }
    }
    Ok(())
}

/// Epoch, generation, index: compared in this order.
type Position = (u64, u32, u64);

fn position(operation: &Operation) -> Option<Position> {
    let token = operation.token()?;
    operation.acknowledged()?;
    Some((token.lineage.epoch, token.generation, token.index))
}
