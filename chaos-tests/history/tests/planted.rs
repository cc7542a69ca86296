//! The checkers against histories of a mailbox that is right by construction, and against the same
//! histories with one violation planted.

use dag_types::{ActivationId, Lineage};
use history::event::{CopyDigest, ExpectedCopies, Fault, Phase, Run};
use history::op::*;
use history::{History, Rule, Verdict, judge, minimise};

/// A small generator of numbers (xorshift*), so that a failing case can be made again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.roll(from.len() as u64) as usize])
    }
}

/// A mailbox folder that does what it should.
#[derive(Clone)]
struct Folder {
    place: Place,
    uid_next: u64,
    modseq: u64,
    messages: Vec<SeenMessage>,
}

impl Folder {
    fn seen(&self) -> Seen {
        Seen {
            uid_validity: 1,
            uid_next: self.uid_next,
            highest_modseq: self.modseq,
            messages: self.messages.clone(),
        }
    }

    fn change(&mut self) -> u64 {
        self.modseq += 1;
        self.modseq
    }

    fn carry_out(&mut self, op: &Op) -> Answer {
        match op {
            Op::Append { key, body, flags, .. } => {
                let (uid, modseq) = (self.uid_next, self.change());
                self.uid_next += 1;
                let (key, body, flags) = (key.clone(), body.clone(), flags.clone());
                self.messages.push(SeenMessage { uid, key, body, modseq, flags });
                Answer::Appended { at: vec![AppendedAt { uid_validity: 1, uid, modseq }] }
            }
            Op::Store { uid, change, flags, unchanged_since, .. } => {
                self.store(*uid, *change, flags, *unchanged_since)
            }
            Op::Expunge { uids, .. } => {
                let there = |uid: &u64| self.messages.iter().any(|message| message.uid == *uid);
                let gone: Vec<u64> = uids.iter().copied().filter(there).collect();
                self.messages.retain(|message| !gone.contains(&message.uid));
                let modseq = if gone.is_empty() { 0 } else { self.change() };
                Answer::Expunged { uids: gone, modseq }
            }
            Op::Read { .. } => Answer::Seen(self.seen()),
        }
    }

    fn store(&mut self, uid: u64, change: Change, flags: &Flags, since: Option<u64>) -> Answer {
        let next = self.modseq + 1;
        let Some(message) = self.messages.iter_mut().find(|message| message.uid == uid) else {
            return Answer::Stored { result: StoreResult::Missing, modseq: None, flags: None };
        };
        let told = |message: &SeenMessage, result| Answer::Stored {
            result,
            modseq: Some(message.modseq),
            flags: Some(message.flags.clone()),
        };
        if since.is_some_and(|since| message.modseq > since) {
            return told(message, StoreResult::Modified);
        }
        let after: Flags = match change {
            Change::Add => message.flags.union(flags).cloned().collect(),
            Change::Remove => message.flags.difference(flags).cloned().collect(),
            Change::Replace => flags.clone(),
        };
        if after == message.flags {
            return told(message, StoreResult::Same);
        }
        message.flags = after;
        message.modseq = next;
        let answer = told(message, StoreResult::Changed);
        self.modseq = next;
        answer
    }
}

const CLIENTS: u64 = 6;
const NAMES: [&str; 3] = ["seen", "flagged", "answered"];

fn draw_op(dice: &mut Dice, folder: &Folder, number: u64) -> Op {
    let place = folder.place.clone();
    let uid = dice.roll(folder.uid_next) + 1;
    let flags: Flags = dice.pick(&NAMES).map(|name| (*name).to_owned()).into_iter().collect();
    match dice.roll(10) {
        0..4 => {
            let key = format!("k{number}");
            Op::Append { places: vec![place], body: format!("body of {key}"), key, flags }
        }
        4..7 => {
            let change = [Change::Add, Change::Remove, Change::Replace][dice.roll(3) as usize];
            let unchanged_since = (dice.roll(3) == 0).then(|| dice.roll(folder.modseq + 1));
            Op::Store { place, uid, change, flags, unchanged_since }
        }
        7 => Op::Expunge { place, uids: vec![uid] },
        _ => Op::Read { place, mode: ReadMode::Linearizable },
    }
}

/// A sound history: each operation takes effect at one moment between its call and its end.
fn sound(seed: u64, operations: u64) -> History {
    let mut dice = Dice(seed * 2 + 1);
    let place = |name: &str| Place { mailbox: name.into(), folder: "INBOX".into() };
    let mut folders = ["ada", "bob"].map(|name| Folder {
        place: place(name),
        uid_next: 1,
        modseq: 1,
        messages: Vec::new(),
    });
    let mut history = History::default();
    let mut free_at = [0_u64; CLIENTS as usize];
    let mut now = 100;
    for number in 1..=operations {
        let last = number + 2 > operations;
        now += 1 + dice.roll(20);
        let client = dice.roll(CLIENTS);
        // The last two operations read both folders when all is over.
        let folder = &mut folders[if last { number % 2 } else { dice.roll(2) } as usize];
        let op = match last {
            true => Op::Read { place: folder.place.clone(), mode: ReadMode::Linearizable },
            false => draw_op(&mut dice, folder, number),
        };
        if last {
            now += 1000;
        }
        let begin =
            if last { now } else { free_at[client as usize].max(now - dice.roll(60).min(now)) };
        let begin = begin.min(now);
        let end = now + dice.roll(60);
        free_at[client as usize] = end + 1;
        let lost_before = !last && dice.roll(40) == 0;
        let lost_after = !last && dice.roll(40) == 0;
        let answer = (!lost_before).then(|| folder.carry_out(&op));
        let token = Token {
            database: 16,
            lineage: Lineage { epoch: 1, activation: ActivationId([1; 16]) },
            generation: 1,
            index: number,
        };
        let outcome = match answer {
            Some(answer) if !lost_after => Outcome::Ok { answer, token: Some(token) },
            _ => Outcome::Unknown { reason: "no answer".into() },
        };
        let (invoked, returned) = (begin, Some(end));
        let client = client + 1;
        history.operations.push(Operation { id: number, client, invoked, returned, op, outcome });
    }
    history.operations.sort_by_key(|operation| (operation.invoked, operation.id));
    promise(&mut history, now);
    history
}

fn promise(history: &mut History, end: u64) {
    history.run = Run {
        promised_faults: vec!["crash".into()],
        acknowledged_min: 1,
        copies: vec![ExpectedCopies { database: 16, copies: 2 }],
        ..Run::default()
    };
    history.phases =
        vec![(0, Phase::Before), (end / 3, Phase::Faults), (end / 3 * 2, Phase::After)];
    let kind = "crash".to_owned();
    history.faults = vec![Fault {
        kind,
        nodes: vec![1],
        from: end / 3,
        to: Some(end / 2),
        detail: String::new(),
    }];
    for replica in [1, 2] {
        let digest = "d".to_owned();
        history.digests.push(CopyDigest { database: 16, replica, node: replica, index: 9, digest });
    }
}

fn seen_mut(operation: &mut Operation) -> Option<&mut Seen> {
    match &mut operation.outcome {
        Outcome::Ok { answer: Answer::Seen(seen), .. } => Some(seen),
        _ => None,
    }
}

fn token_mut(operation: &mut Operation) -> Option<&mut Token> {
    match &mut operation.outcome {
        Outcome::Ok { token, .. } => token.as_mut(),
        _ => None,
    }
}

/// Plants a violation of a rule at a random place; false where the history offers none.
fn plant(rule: Rule, history: &mut History, dice: &mut Dice) -> bool {
    let count = history.operations.len() as u64;
    let from = dice.roll(count) as usize;
    let mut order: Vec<usize> = (from..count as usize).chain(0..from).collect();
    let acknowledged_uid = |operation: &Operation| match operation.answer() {
        Some(Answer::Appended { at }) => Some(at[0].uid),
        _ => None,
    };
    match rule {
        // The last read of a folder lacks a message.
        Rule::M1 => {
            order.sort_by_key(|&i| std::cmp::Reverse(history.operations[i].invoked));
            order.into_iter().any(|i| {
                let Some(seen) = seen_mut(&mut history.operations[i]) else { return false };
                if seen.messages.is_empty() {
                    return false;
                }
                let lost = dice.roll(seen.messages.len() as u64) as usize;
                seen.messages[lost].key.push_str("-not-this");
                true
            })
        }
        // An append gets the UID of an earlier one.
        Rule::M2 => plant_pair(history, &order, acknowledged_uid, |after, uid| {
            let Outcome::Ok { answer: Answer::Appended { at }, .. } = &mut after.outcome else {
                return false;
            };
            at[0].uid = uid;
            true
        }),
        // Two appends swap their UIDs against their order in time.
        Rule::M3 => plant_pair(history, &order, acknowledged_uid, |after, uid| {
            let Outcome::Ok { answer: Answer::Appended { at }, .. } = &mut after.outcome else {
                return false;
            };
            at[0].uid = uid.saturating_sub(1);
            true
        }),
        Rule::M4 => order.into_iter().any(|i| {
            let Outcome::Ok { answer: Answer::Appended { at }, .. } =
                &mut history.operations[i].outcome
            else {
                return false;
            };
            at[0].modseq = 1;
            history.operations[i].invoked > 400
        }),
        // A read shows flags that a message never had.
        Rule::M5 => order.into_iter().any(|i| {
            let Some(seen) = seen_mut(&mut history.operations[i]) else { return false };
            let Some(message) = seen.messages.last_mut() else { return false };
            message.flags.insert("planted".into())
        }),
        // A read lacks a message that an earlier read showed and nobody expunged.
        Rule::M6 => plant_stale_read(history, &order),
        Rule::M9 => {
            history.digests[1].digest = "other".into();
            true
        }
        Rule::I1 => order.into_iter().any(|i| {
            let early = history.operations[i].invoked < 400;
            token_mut(&mut history.operations[i]).is_some_and(|token| {
                token.lineage.epoch = 2;
                early
            })
        }),
        // Two appends at one index.
        Rule::I2 => {
            let appends: Vec<usize> = order
                .into_iter()
                .filter(|&i| acknowledged_uid(&history.operations[i]).is_some())
                .collect();
            let [first, second, ..] = appends[..] else { return false };
            let index = history.operations[first].token().map(|token| token.index);
            token_mut(&mut history.operations[second]).zip(index).is_some_and(|(token, index)| {
                token.index = index;
                true
            })
        }
        Rule::I13 => order.into_iter().any(|i| {
            let late = history.operations[i].op.is_read() && history.operations[i].invoked > 400;
            late && token_mut(&mut history.operations[i]).is_some_and(|token| {
                token.index = 0;
                true
            })
        }),
        Rule::V1 => {
            history.faults.clear();
            true
        }
        Rule::I3 | Rule::I4 | Rule::I5 | Rule::I14 => false,
    }
}

/// Finds an operation that tells a value and one that was called after it was over; changes that.
fn plant_pair(
    history: &mut History,
    order: &[usize],
    value: impl Fn(&Operation) -> Option<u64>,
    change: impl Fn(&mut Operation, u64) -> bool,
) -> bool {
    for &i in order {
        let before = history.operations[i].clone();
        let Some(told) = value(&before) else { continue };
        for &j in order {
            let after = &history.operations[j];
            let same_place = after.op.places() == before.op.places();
            if same_place && before.precedes(after) && value(after).is_some() {
                return change(&mut history.operations[j], told);
            }
        }
    }
    false
}

fn plant_stale_read(history: &mut History, order: &[usize]) -> bool {
    let calls = history.operations.iter().map(|operation| &operation.op);
    let expunged: Vec<u64> = calls
        .filter_map(|op| match op {
            Op::Expunge { uids, .. } => Some(uids.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    for &i in order {
        let before = history.operations[i].clone();
        let Some(Answer::Seen(shown)) = before.answer() else { continue };
        for &j in order {
            let after = &mut history.operations[j];
            if after.op.places() != before.op.places() || !before.precedes(after) {
                continue;
            }
            let Some(seen) = seen_mut(after) else { continue };
            let both = |message: &SeenMessage| {
                shown.message(message.uid).is_some() && !expunged.contains(&message.uid)
            };
            if let Some(position) = seen.messages.iter().position(both) {
                seen.messages.remove(position);
                return true;
            }
        }
    }
    false
}

const PLANTED: [Rule; 11] = [
    Rule::M1,
    Rule::M2,
    Rule::M3,
    Rule::M4,
    Rule::M5,
    Rule::M6,
    Rule::M9,
    Rule::I1,
    Rule::I2,
    Rule::I13,
    Rule::V1,
];

#[test]
fn sound_histories_are_never_blamed() {
    for seed in 1..=200 {
        let history = sound(seed, 150);
        let report = judge(&history);
        assert!(report.is_good(), "seed {seed}\n{report}");
    }
}

#[test]
fn each_planted_violation_is_found_and_cut_down() {
    for rule in PLANTED {
        let mut planted = 0;
        for seed in 1..=60 {
            let mut history = sound(seed, 120);
            if !plant(rule, &mut history, &mut Dice(seed * 7 + 3)) {
                continue;
            }
            planted += 1;
            let Verdict::Violated(violation) = rule.check(&history) else {
                panic!("seed {seed}: a planted violation of {rule} was not found");
            };
            let part = minimise::minimise(&history, &violation);
            assert!(rule.is_broken_on(&part, &violation.subject), "seed {seed}: {rule}");
            if rule != Rule::M5 {
                assert!(part.operations.len() <= 3, "seed {seed}: {rule} needs few operations");
            }
        }
        assert!(planted > 30, "{rule} was planted {planted} times only");
    }
}

#[test]
fn ten_thousand_operations_are_judged_within_seconds() {
    let history = sound(5, 10_000);
    let begin = std::time::Instant::now();
    let report = judge(&history);
    assert!(report.is_good(), "{report}");
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}
