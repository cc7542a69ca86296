//! Two states become equal, and little more is sent than what differs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dag_types::Write;
use proptest::prelude::*;
use seeding::delta::{
    DeltaContent, DeltaRequest, DeltaSource, DeltaStep, DeltaTally, DeltaTarget, LISTED_BYTES,
    RANGE_ROWS, SUM_BYTES_MAX,
};
use storage::disk::{Disk, SimDisk, SimDiskOptions};
use storage::state::map::MapState;
use storage::state::{APPLIED_KEY, StateStore, applied, applied_write};

use crate::common::{all_rows, noise, position, put};

type Rows = BTreeMap<Vec<u8>, Bytes>;

fn state(rows: &Rows, index: Option<u64>) -> Arc<dyn StateStore> {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1, SimDiskOptions::default()));
    let state = MapState::create(disk, Path::new("/state")).unwrap();
    let mut writes: Vec<Write> = rows.iter().map(|(key, value)| put(key, value.clone())).collect();
    writes.extend(index.map(|index| applied_write(position(index).0, position(index).1)));
    state.write(&writes).unwrap();
    state.flush().unwrap();
    Arc::new(state)
}

/// Runs to the end, or through so many answers.
fn run(target: &mut DeltaTarget, source: &DeltaSource, answers: usize) -> bool {
    let mut given = 0;
    loop {
        match target.step(None).unwrap() {
            DeltaStep::Done => return true,
            DeltaStep::Again => {}
            DeltaStep::Ask(_) if given == answers => return false,
            DeltaStep::Ask(request) => {
                given += 1;
                target.step(source.answer(&request).unwrap()).unwrap();
            }
        }
    }
}

fn row() -> impl Strategy<Value = (Vec<u8>, Bytes)> {
    let table = prop_oneof![1 => 0x01..0x80_u8, 6 => 0x80..0xc0_u8, 1 => 0xc0..=0xff_u8];
    let key = (table, prop::collection::vec(0..4_u8, 0..4));
    let value = (0..4_u64, 0..300_usize).prop_map(|(seed, bytes)| noise(seed, bytes));
    (key, value).prop_map(|((table, rest), value)| ([vec![table], rest].concat(), value))
}

fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::btree_map(row().prop_map(|(key, _)| key), row().prop_map(|(_, v)| v), 0..300)
}

fn is_body(key: &[u8]) -> bool {
    (0x80..0xc0).contains(&key[0])
}

/// What may be sent at most: bodies that the target lacks, the index, a line for each range, and a
/// list for each range in which something differs.
fn bound(source: &Rows, has: &[&Rows]) -> u64 {
    let cost = |(key, value): (&Vec<u8>, &Bytes)| (key.len() + value.len() + 8) as u64;
    let here = |key: &Vec<u8>, value: &Bytes| has.iter().any(|rows| rows.get(key) == Some(value));
    let lacking = source.iter().filter(|(key, value)| is_body(key) && !here(key, value));
    let index = source.iter().filter(|(key, _)| !is_body(key));
    let keys: Vec<&Vec<u8>> = source.keys().filter(|key| is_body(key)).collect();
    let key_max = source.keys().map(Vec::len).max().unwrap_or(1) as u64 + 1;
    // Each of the three parts ends with a range of its own, the last of them at the longest key.
    let ranges = source.len().div_ceil(RANGE_ROWS) as u64 + 3;
    let lines = ranges * (SUM_BYTES_MAX as u64 + 2 * key_max);
    let lists = keys.len() as u64 * (LISTED_BYTES as u64 + key_max);
    lacking.map(cost).sum::<u64>() + index.map(cost).sum::<u64>() + lines + lists + 1300
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_two_states_converge_and_what_is_sent_is_bounded_by_what_differs(
        wanted in rows(), staged in rows(), base in prop::option::of(rows()),
    ) {
        let view = state(&wanted, Some(9));
        let target = state(&staged, None);
        let old = base.as_ref().map(|rows| state(rows, Some(3)).snapshot());
        let mut delta = DeltaTarget::new(target.clone(), old);
        prop_assert!(run(&mut delta, &DeltaSource::new(view.snapshot()), usize::MAX));
        prop_assert_eq!(all_rows(&*target), all_rows(&*view));
        let mut has = vec![&staged];
        has.extend(&base);
        let (sent, allowed) = (delta.tally().received_bytes, bound(&wanted, &has));
        prop_assert!(sent <= allowed, "{} bytes sent, {} allowed", sent, allowed);
    }

    #[test]
    fn broken_off_anywhere_and_gone_on_with_another_source_it_converges_to_that_one(
        first in rows(), second in rows(), answers in 0..12_usize,
    ) {
        let target = state(&Rows::new(), Some(1));
        let mut delta = DeltaTarget::new(target.clone(), None);
        let one = state(&first, Some(5));
        if !run(&mut delta, &DeltaSource::new(one.snapshot()), answers) {
            prop_assert_eq!(target.get(APPLIED_KEY).unwrap(), None, "unfinished is seen");
        }
        let two = state(&second, Some(6));
        let mut delta = DeltaTarget::new(target.clone(), None);
        prop_assert!(run(&mut delta, &DeltaSource::new(two.snapshot()), usize::MAX));
        prop_assert_eq!(all_rows(&*target), all_rows(&*two));
        prop_assert_eq!(applied(&*target).unwrap(), Some(position(6)));
    }
}

/// Bodies with keys like real ones.
fn bodies(from: u64, count: u64, bytes: usize) -> Rows {
    let key = |n: u64| [&[0x80], &blake3::hash(&n.to_le_bytes()).as_bytes()[..]].concat();
    (from..from + count).map(|n| (key(n), noise(n, bytes))).collect()
}

fn delta(wanted: &Rows, staged: &Rows, base: Option<&Rows>) -> DeltaTally {
    let (view, target) = (state(wanted, Some(9)), state(staged, None));
    let base = base.map(|rows| state(rows, Some(1)).snapshot());
    let mut delta = DeltaTarget::new(target.clone(), base);
    assert!(run(&mut delta, &DeltaSource::new(view.snapshot()), usize::MAX));
    assert_eq!(all_rows(&*target), all_rows(&*view));
    delta.tally()
}

#[test]
fn the_list_of_what_is_no_range_is_not_given() {
    let source = DeltaSource::new(state(&bodies(0, RANGE_ROWS as u64 + 1, 10), Some(9)).snapshot());
    let list = |from: u8, to: u8| {
        let (from, to) = (vec![from].into(), vec![to].into());
        source.answer(&DeltaRequest::List { from, to }).unwrap()
    };
    assert!(list(0x80, 0xc0).is_none());
    assert!(list(0xc0, 0xc1).is_some());
}

#[test]
fn equal_bodies_cost_a_line_for_each_range_wherever_they_are() {
    let all = bodies(0, 3000, 2000);
    for tally in [delta(&all, &all, None), delta(&all, &Rows::new(), Some(&all))] {
        assert_eq!(tally.body_bytes, 0);
        assert!(tally.received_bytes < 3000 / 64 * 120 + 400, "{tally:?}");
    }
}

#[test]
fn scattered_changes_cost_at_most_a_fifth_more_than_themselves_at_the_size_of_mails() {
    let old = bodies(0, 2000, 50_000);
    let mut wanted = old.clone();
    wanted.extend(bodies(5000, 20, 50_000));
    let tally = delta(&wanted, &Rows::new(), Some(&old));
    assert_eq!((tally.bodies, tally.reused), (20, 2000));
    let limit = tally.body_bytes + tally.body_bytes / 5;
    assert!(tally.received_bytes <= limit, "{tally:?}");
}

#[test]
fn a_damaged_answer_is_asked_for_again_and_leaves_nothing() {
    let (wanted, old) = (bodies(0, 200, 500), bodies(0, 150, 500));
    for nth in 0..6 {
        let (view, target) = (state(&wanted, Some(9)), state(&old, None));
        let source = DeltaSource::new(view.snapshot());
        let mut delta = DeltaTarget::new(target.clone(), None);
        let mut seen = 0;
        loop {
            match delta.step(None).unwrap() {
                DeltaStep::Done => break,
                DeltaStep::Again => {}
                DeltaStep::Ask(request) => {
                    let mut reply = source.answer(&request).unwrap().unwrap();
                    if seen == nth {
                        damage(&mut reply.content);
                    }
                    seen += 1;
                    delta.step(Some(reply)).unwrap();
                }
            }
        }
        assert!(seen > nth, "there was such an answer");
        assert_eq!(all_rows(&*target), all_rows(&*view), "answer {nth}");
    }
}

fn damage(content: &mut DeltaContent) {
    match content {
        DeltaContent::Sums(sums) => sums[0].digest[3] ^= 1,
        DeltaContent::List(list) => list[0].bytes ^= 1,
        DeltaContent::Bodies(rows) | DeltaContent::Rows { rows, .. } => match rows.first_mut() {
            Some((_, value)) => *value = Bytes::from_static(b"changed"),
            None => rows.push((Bytes::from_static(&[0xc5]), Bytes::new())),
        },
    }
}
