//! What rotted is found, and named.

use std::path::PathBuf;
use std::sync::Arc;

use dag_types::{LogId, Millis};
use seeding::limit::RateLimit;
use seeding::scrub::{Cursor, Finding, Scrub, ScrubPlace, ScrubStep};
use storage::disk::{Disk, SimDisk, SimDiskOptions};
use storage::log::LogEntry;
use storage::state::StateRead;
use storage::state::map::MapState;

use crate::common::*;

fn findings(node: &Node, log: &std::path::Path, state: &dyn StateRead) -> Vec<Finding> {
    let place = ScrubPlace { disk: &node.disk, log, state };
    let mut scrub = Scrub::new(Cursor::start(), RateLimit::none());
    let mut found = Vec::new();
    for _ in 0..100_000 {
        match scrub.step(Millis(0), &place).unwrap() {
            ScrubStep::Done => return found,
            ScrubStep::Found(finding) => found.push(finding),
            ScrubStep::Read(_) => {}
            ScrubStep::Later(_) => panic!("there is no limit"),
        }
    }
    panic!("a pass never ended");
}

/// A node whose copy has several closed segments.
fn node() -> (Node, storage::copy_directory::CopyDirectory) {
    let mut node = Node::new(1);
    let copy = node.create(3);
    for index in 0..60 {
        let entry =
            LogEntry { id: LogId { term: 1, index }, kind: 1, payload: noise(index, 20_000) };
        copy.log.append(vec![entry], Box::new(|done| done.unwrap()));
        node.settle();
    }
    fill(&*copy.state, 1, 20, 1000, 7);
    (node, copy)
}

fn segments(node: &Node, copy: &storage::copy_directory::CopyDirectory) -> Vec<PathBuf> {
    let log = copy.path().join("log");
    let names = node.disk.list(&log).unwrap();
    let segments =
        names.into_iter().filter(|name| name.extension().is_some_and(|kind| kind == "seg"));
    segments.map(|name| log.join(name)).collect()
}

#[test]
fn a_sound_copy_gives_no_finding() {
    let (node, copy) = node();
    assert!(segments(&node, &copy).len() >= 3, "there are closed segments");
    assert_eq!(findings(&node, &copy.path().join("log"), &*copy.state), []);
}

#[test]
fn a_flipped_bit_in_a_closed_segment_is_named_with_its_file_and_place() {
    let (node, copy) = node();
    let log = copy.path().join("log");
    let first = segments(&node, &copy)[0].clone();
    let mut missed = 0;
    for at in (0..200_000_u64).step_by(1777) {
        node.disk.sim.flip_bit(&first, at, (at % 8) as u8).unwrap();
        match &findings(&node, &log, &*copy.state)[..] {
            [Finding::Log { file, position, .. }] => {
                assert_eq!(*file, first);
                assert!(*position <= at, "{position} is said, {at} is wrong");
                assert!(at - *position < 25_000, "{position} is said, {at} is wrong");
            }
            // Zeroes that fill a batch's last block mean nothing.
            [] => missed += 1,
            other => panic!("{other:?}"),
        }
        node.disk.sim.flip_bit(&first, at, (at % 8) as u8).unwrap();
    }
    assert!(missed < 20, "{missed} flips went unseen");
}

#[test]
fn a_flipped_bit_in_a_value_is_named_with_its_key_and_the_pass_goes_on() {
    let node = Node::new(1);
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1, SimDiskOptions::default()));
    let state = MapState::create(disk, std::path::Path::new("/s")).unwrap();
    fill(&state, 1, 20, 1000, 7);
    let log = PathBuf::from("/volume/db-16/log");
    node.disk.create_dir_all(&log).unwrap();
    for key in [&[0x10, 3][..], &[0x10, 7]] {
        assert!(state.rot(key, 77));
    }
    let keys: Vec<String> = findings(&node, &log, &state)
        .into_iter()
        .map(|finding| match finding {
            Finding::Row { key, .. } => key,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(keys, ["1003", "1007"]);
}

#[test]
fn a_pass_keeps_to_its_rate_and_goes_on_from_its_cursor() {
    let (node, copy) = node();
    let log = copy.path().join("log");
    let place = ScrubPlace { disk: &node.disk, log: &log, state: &*copy.state };
    let mut now = Millis(0);
    let mut read = 0;
    let mut cursor = Cursor::start();
    'pass: loop {
        // A new life every few steps, with the same clock.
        let mut scrub = Scrub::new(cursor, RateLimit::new(Some(1 << 20), now));
        for _ in 0..4 {
            match scrub.step(now, &place).unwrap() {
                ScrubStep::Done => break 'pass,
                ScrubStep::Later(later) => now = later,
                ScrubStep::Read(bytes) => read += bytes,
                ScrubStep::Found(finding) => panic!("{finding:?}"),
            }
        }
        cursor = scrub.cursor().clone();
    }
    assert!(read > 400_000, "{read}");
    assert!(now.0 > 0, "it waited");
}
