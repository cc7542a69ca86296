//! M5: the flags of each message are linearizable.
//!
//! The model of a message is its flags and the MODSEQ of its last change, from its append to its
//! expunge. A store whose outcome is unknown changes the flags to what it must, and the MODSEQ to
//! one that nobody was told; the next answer that names it settles which.

use std::collections::BTreeMap;

use super::messages::{appended_at, reads};
use super::wgl::{self, Found, Model, Timed};
use super::{Evidence, Looking, Step};
use crate::history::History;
use crate::op::{Answer, Change, Flags, Op, Operation, Place, ReadMode, SeenMessage, StoreResult};

/// Steps that the search may take for one message before it gives up.
const STEPS_MAX: u64 = 2_000_000;

pub(super) fn check(looking: &mut Looking<'_>, history: &History) -> Step {
    history.places().into_iter().try_for_each(|place| {
        let folder = Folder::gather(history.at(place).collect(), place);
        folder.stored().try_for_each(|(uid, key)| folder.check_stored(looking, uid, key))?;
        folder.check_untouched(looking)
    })
}

/// One place: its operations, what its reads saw, and which key each UID has.
struct Folder<'a> {
    place: &'a Place,
    operations: Vec<&'a Operation>,
    /// By operation number: all messages that a read saw.
    seen: BTreeMap<u64, BTreeMap<u64, &'a SeenMessage>>,
    /// By UID: the key, wherever it was told.
    keys: BTreeMap<u64, &'a str>,
    /// By UID: the operations that name it.
    about: BTreeMap<u64, Vec<usize>>,
    /// Operations that may be about any message: reads, and appends without an answer.
    about_any: Vec<usize>,
}

impl<'a> Folder<'a> {
    fn gather(operations: Vec<&'a Operation>, place: &'a Place) -> Self {
        let (seen, keys) = (BTreeMap::new(), BTreeMap::new());
        let (about, about_any) = (BTreeMap::new(), Vec::new());
        let mut folder = Self { place, operations, seen, keys, about, about_any };
        folder.sort_out();
        for operation in &folder.operations {
            if let (Op::Append { key, .. }, Some(at)) =
                (&operation.op, appended_at(operation, place))
            {
                folder.keys.insert(at.uid, key);
            }
        }
        for (read, seen, _) in reads(&folder.operations) {
            let messages = seen.messages.iter().map(|message| (message.uid, message));
            folder.seen.insert(read.id, messages.clone().collect());
            folder.keys.extend(messages.map(|(uid, message)| (uid, message.key.as_str())));
        }
        folder
    }

    /// Each message is looked at beside the operations that may be about it, not beside all there are: a
    /// trial of ten minutes has thousands of messages and a hundred thousand operations.
    fn sort_out(&mut self) {
        for (at, operation) in self.operations.iter().enumerate() {
            let uids = match &operation.op {
                Op::Append { .. } => match appended_at(operation, self.place) {
                    Some(appended) => vec![appended.uid],
                    None => Vec::new(),
                },
                Op::Store { uid, .. } => vec![*uid],
                Op::Expunge { uids, .. } => uids.iter().copied().collect(),
                _ => Vec::new(),
            };
            if uids.is_empty() {
                self.about_any.push(at);
            }
            for uid in uids {
                self.about.entry(uid).or_default().push(at);
            }
        }
    }

    /// The operations that may be about a message, in their order.
    fn about(&self, uid: u64) -> impl Iterator<Item = &'a Operation> {
        let mut at = self.about_any.clone();
        at.extend(self.about.get(&uid).into_iter().flatten());
        at.sort_unstable();
        at.into_iter().map(|at| self.operations[at])
    }

    /// The messages whose flags somebody tried to change.
    fn stored(&self) -> impl Iterator<Item = (u64, Option<&'a str>)> {
        let mut uids: Vec<u64> = self
            .operations
            .iter()
            .filter_map(|operation| match &operation.op {
                Op::Store { uid, .. } => Some(*uid),
                _ => None,
            })
            .collect();
        uids.sort_unstable();
        uids.dedup();
        uids.into_iter().map(|uid| (uid, self.keys.get(&uid).copied()))
    }

    fn check_stored(&self, looking: &mut Looking<'_>, uid: u64, key: Option<&str>) -> Step {
        let mut calls = Vec::new();
        let mut evidence = Vec::new();
        for operation in self.about(uid) {
            let Some(call) = self.call_on(operation, uid, key) else { continue };
            let (invoked, returned) = (operation.invoked, operation.acknowledged());
            calls.push(Timed { invoked, returned, call });
            evidence.push(Evidence::Operation(operation.id));
        }
        looking.one();
        let place = self.place;
        match wgl::search(&Message, None, &calls, STEPS_MAX) {
            Found::Order => Ok(()),
            Found::NoOrder => looking.breach(
                format!("flags {place} {uid}"),
                format!("{place} UID {uid}: no order of the stores explains what was answered"),
                evidence,
            ),
            Found::GaveUp => looking.unknown(format!(
                "{place} UID {uid}: no order found within {STEPS_MAX} steps; fewer clients per \
                 mailbox make it decidable"
            )),
        }
    }

    /// A message whose flags nobody tried to change has those of its append.
    fn check_untouched(&self, looking: &mut Looking) -> Step {
        let stored: Vec<u64> = self.stored().map(|(uid, _)| uid).collect();
        let mut appended: BTreeMap<&str, (&Flags, u64)> = BTreeMap::new();
        for operation in &self.operations {
            if let Op::Append { key, flags, .. } = &operation.op {
                appended.insert(key, (flags, operation.id));
            }
        }
        for (read, messages) in &self.seen {
            for (uid, message) in messages {
                let Some((flags, by)) = appended.get(message.key.as_str()) else { continue };
                looking.one();
                if **flags != message.flags && stored.binary_search(uid).is_err() {
                    looking.breach(
                        format!("flags from nowhere {} {uid}", self.place),
                        format!(
                            "{} UID {uid} has flags {:?}; it was appended with {flags:?} and \
                             nobody changed them",
                            self.place, message.flags
                        ),
                        vec![Evidence::Operation(*by), Evidence::Operation(*read)],
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// What an operation did to, or saw of, one message.
#[derive(Debug, Clone)]
enum Call {
    Append { flags: Flags, modseq: Option<u64> },
    Store { change: Change, flags: Flags, unchanged_since: Option<u64>, told: Option<Told> },
    Expunge { gone: Option<bool> },
    Saw(Option<(Flags, u64)>),
}

#[derive(Debug, Clone)]
struct Told {
    result: StoreResult,
    modseq: Option<u64>,
    flags: Option<Flags>,
}

impl Folder<'_> {
    /// What the operation did to, or saw of, this message; nothing where it certainly did nothing.
    fn call_on(&self, operation: &Operation, uid: u64, key: Option<&str>) -> Option<Call> {
        if !operation.may_have_happened() {
            return None;
        }
        match (&operation.op, operation.answer()) {
            (Op::Append { flags, .. }, Some(_)) => {
                let at = appended_at(operation, self.place).filter(|at| at.uid == uid)?;
                Some(Call::Append { flags: flags.clone(), modseq: Some(at.modseq) })
            }
            // Where nobody was told the key of this UID, any unanswered append may have made it.
            (Op::Append { key: appended, flags, .. }, None) => key
                .is_none_or(|key| key == appended)
                .then(|| Call::Append { flags: flags.clone(), modseq: None }),
            (Op::Store { uid: stored, change, flags, unchanged_since, .. }, answer)
                if *stored == uid =>
            {
                let told = match answer {
                    Some(Answer::Stored { result, modseq, flags }) => {
                        Some(Told { result: *result, modseq: *modseq, flags: flags.clone() })
                    }
                    _ => None,
                };
                let (change, unchanged_since) = (*change, *unchanged_since);
                Some(Call::Store { change, flags: flags.clone(), unchanged_since, told })
            }
            (Op::Expunge { uids, .. }, answer) if uids.contains(&uid) => {
                let gone = match answer {
                    Some(Answer::Expunged { uids, .. }) => Some(uids.contains(&uid)),
                    _ => None,
                };
                Some(Call::Expunge { gone })
            }
            (Op::Read { mode: ReadMode::Linearizable, .. }, Some(_)) => {
                let message = self.seen.get(&operation.id)?.get(&uid);
                Some(Call::Saw(message.map(|message| (message.flags.clone(), message.modseq))))
            }
            _ => None,
        }
    }
}

struct Message;

/// Flags, and the MODSEQ of the last change where somebody was told it; `None` is no message.
type State = Option<(Flags, Option<u64>)>;

impl Model for Message {
    type State = State;
    type Call = Call;

    fn step(&self, state: &State, call: &Call) -> Option<State> {
        match (call, state) {
            (Call::Append { flags, modseq }, None) => Some(Some((flags.clone(), *modseq))),
            (Call::Append { .. }, Some(_)) => None,
            (Call::Saw(None), None) => Some(None),
            (Call::Saw(Some((flags, modseq))), Some((have, last))) => (flags == have
                && last.is_none_or(|last| last == *modseq))
            .then(|| Some((flags.clone(), Some(*modseq)))),
            (Call::Saw(_), _) => None,
            (Call::Expunge { gone: Some(false) }, None) => Some(None),
            (Call::Expunge { gone: Some(true) | None }, Some(_)) => Some(None),
            (Call::Expunge { gone: None }, None) => Some(None),
            (Call::Expunge { .. }, _) => None,
            (Call::Store { told, .. }, None) => {
                told.as_ref().is_none_or(|told| told.result == StoreResult::Missing).then_some(None)
            }
            (Call::Store { change, flags, unchanged_since, told }, Some((have, last))) => {
                store(have, *last, *change, flags, *unchanged_since, told.as_ref())
            }
        }
    }
}

fn store(
    have: &Flags,
    last: Option<u64>,
    change: Change,
    flags: &Flags,
    unchanged_since: Option<u64>,
    told: Option<&Told>,
) -> Option<State> {
    let after: Flags = match change {
        Change::Add => have.union(flags).cloned().collect(),
        Change::Remove => have.difference(flags).cloned().collect(),
        Change::Replace => flags.clone(),
    };
    // Whether the condition holds; not decided where the MODSEQ of the last change is unknown.
    let may_apply = unchanged_since.is_none_or(|since| last.is_none_or(|last| last <= since));
    let may_refuse = unchanged_since.is_some_and(|since| last.is_none_or(|last| last > since));
    let Some(told) = told else {
        let changed = may_apply && after != *have;
        // An undecided condition may go either way; "not applied" is the same as never having
        // happened, which the search allows for unknown outcomes anyway.
        return Some(Some(if changed { (after, None) } else { (have.clone(), last) }));
    };
    let fits = |flags: &Flags| told.flags.as_ref().is_none_or(|told| told == flags);
    let settled = match (last, told.modseq) {
        (Some(last), Some(told)) => last == told,
        _ => true,
    };
    match told.result {
        StoreResult::Changed => (may_apply && after != *have && fits(&after))
            .then(|| Some((after.clone(), told.modseq))),
        StoreResult::Same => (may_apply && after == *have && fits(have) && settled)
            .then(|| Some((have.clone(), told.modseq.or(last)))),
        StoreResult::Modified => (may_refuse && fits(have) && settled)
            .then(|| Some((have.clone(), told.modseq.or(last)))),
        StoreResult::Missing => None,
    }
}
