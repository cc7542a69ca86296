//! The simulated state on a simulated disk: what a crash, a full volume and rot do to it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use storage::disk::{Disk, SimDisk, SimDiskOptions};
use storage::state::map::{MapState, Planted};
use storage::state::{StateError, StateRead, StateStore};

use super::history::{Numbers, batch, whole_batches};
use super::subject::{all_rows, put};

const SEED: u64 = 11;

fn disk(seed: u64) -> (SimDisk, Arc<dyn Disk>) {
    let disk = SimDisk::new(seed, SimDiskOptions::default());
    disk.create_dir_all(Path::new("/copy")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk.clone(), Arc::new(disk))
}

fn folder() -> &'static Path {
    Path::new("/copy/state")
}

#[test]
fn a_crash_at_any_moment_leaves_whole_batches_through_the_last_flush() {
    for seed in 0..60 {
        let (sim, disk) = disk(seed);
        let mut state = MapState::create(disk.clone(), folder()).unwrap();
        let mut numbers = Numbers::new(seed + 1);
        let (mut written, mut flushed) = (0, 0);
        for step in 0..200 {
            match numbers.below(20) {
                0..14 => {
                    written += 1;
                    state.write(&batch(SEED, written)).unwrap();
                }
                14..18 => {
                    state.flush().unwrap();
                    flushed = written;
                }
                end => {
                    drop(state);
                    if end == 18 {
                        sim.crash()
                    } else {
                        sim.kill()
                    }
                    state = MapState::open(disk.clone(), folder()).unwrap();
                    let what = format!("seed {seed} step {step}");
                    written = whole_batches(&state, SEED, &what);
                    assert_eq!(written, flushed, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_crash_in_the_middle_of_a_flush_leaves_the_old_state_or_the_new() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..200 {
        let (sim, disk) = disk(seed);
        let state = MapState::create(disk.clone(), folder()).unwrap();
        (1..=10).for_each(|n| state.write(&batch(SEED, n)).unwrap());
        state.flush().unwrap();
        (11..=20).for_each(|n| state.write(&batch(SEED, n)).unwrap());
        // The flush writes its file, and the machine stops before or at one of its syncs.
        sim.fail_sync("state", seed % 2, ErrorKind::Other);
        assert!(state.flush().is_err());
        sim.crash();
        match whole_batches(&MapState::open(disk, folder()).unwrap(), SEED, "after the crash") {
            10 => old += 1,
            20 => new += 1,
            n => panic!("{n} batches"),
        }
    }
    assert!(old > 0 && new > 0, "both happen: {old} old, {new} new");
}

#[test]
fn a_full_volume_is_named_and_ends_writing() {
    let (sim, disk) = disk(1);
    let state = MapState::create(disk.clone(), folder()).unwrap();
    (1..=10).for_each(|n| state.write(&batch(SEED, n)).unwrap());
    state.flush().unwrap();
    sim.set_capacity(sim.used_bytes() + 100);
    state.write(&[put([0x80], vec![1; 5000])]).unwrap();
    let error = state.flush().unwrap_err();
    assert!(matches!(error, StateError::Full { .. }), "{error}");
    sim.set_capacity(1 << 30);
    assert_eq!(state.write(&[put([0x10], "more")]), Err(error.clone()), "no second try");
    assert_eq!(state.flush(), Err(error));
    drop(state);
    assert_eq!(whole_batches(&MapState::open(disk, folder()).unwrap(), SEED, "reopened"), 10);
}

#[test]
fn every_flipped_bit_of_a_file_is_noticed_at_open() {
    let (sim, disk) = disk(1);
    let state = MapState::create(disk.clone(), folder()).unwrap();
    (1..=3).for_each(|n| state.write(&batch(SEED, n)).unwrap());
    state.flush().unwrap();
    drop(state);
    let mut flips = 0;
    for path in sim.files() {
        for offset in 0..std::cmp::min(file_len(&*disk, &path), 300) {
            sim.flip_bit(&path, offset, (offset % 8) as u8).unwrap();
            let error = MapState::open(disk.clone(), folder()).err();
            assert!(matches!(error, Some(StateError::Damaged { .. })), "{path:?} {offset}");
            sim.flip_bit(&path, offset, (offset % 8) as u8).unwrap();
            flips += 1;
        }
    }
    assert!(flips > 100, "{flips}");
    assert_eq!(whole_batches(&MapState::open(disk, folder()).unwrap(), SEED, "whole again"), 3);
}

fn file_len(disk: &dyn Disk, path: &Path) -> u64 {
    disk.open(path, storage::disk::OpenMode::Read).unwrap().len().unwrap()
}

#[test]
fn a_missing_file_is_noticed_at_open() {
    let (sim, disk) = disk(1);
    let state = MapState::create(disk.clone(), folder()).unwrap();
    for n in 1..=3 {
        state.write(&batch(SEED, n)).unwrap();
        state.flush().unwrap();
    }
    drop(state);
    let second = sim.files().into_iter().find(|path| path.ends_with("0000000000000002.part"));
    disk.remove_file(&second.unwrap()).unwrap();
    let error = MapState::open(disk, folder()).err().unwrap();
    assert!(error.to_string().contains("file 0000000000000002"), "{error}");
}

#[test]
fn a_rotten_value_is_an_error_for_every_reader_that_meets_it() {
    let (_, disk) = disk(1);
    let state = MapState::create(disk, folder()).unwrap();
    state.write(&[put([0x10, 1], "one"), put([0x10, 2], "two"), put([0x10, 3], "three")]).unwrap();
    let before = state.snapshot();
    assert!(state.rot(&[0x10, 2], 13));
    assert!(!state.rot(&[0x10, 9], 13));
    let snapshot = state.snapshot();
    for read in [&state as &dyn StateRead, &*snapshot] {
        let error = read.get(&[0x10, 2]).unwrap_err();
        assert!(error.to_string().starts_with("record 1002 is corrupt"), "{error}");
        assert!(read.scan(&[0x10], &[0x11], 9).is_err());
        assert!(read.scan_back(&[0x10], &[0x11], 2).is_err());
        assert_eq!(read.scan(&[0x10], &[0x11], 1).unwrap().len(), 1);
    }
    assert_eq!(all_rows(&*before).len(), 3);
}

#[test]
fn planted_faults_hit_the_operation_they_are_for() {
    let (_, disk) = disk(1);
    let state = MapState::create(disk, folder()).unwrap();
    state.plant(Planted::Write);
    assert!(state.write(&[put([0x10], "lost")]).is_err());
    assert_eq!(all_rows(&state), []);
    state.write(&[put([0x10], "kept")]).unwrap();
    state.plant(Planted::Read);
    assert!(state.get(&[0x10]).is_err());
    assert!(state.get(&[0x10]).unwrap().is_some());
    state.plant(Planted::Flush);
    assert!(state.flush().is_err());
    assert!(state.flush().is_err(), "a failed flush is not tried again");
}

#[test]
fn many_flushes_are_gathered_into_one_file() {
    let (sim, disk) = disk(1);
    let state = MapState::create(disk.clone(), folder()).unwrap();
    for n in 1..=100 {
        state.write(&batch(SEED, n)).unwrap();
        state.flush().unwrap();
        assert!(sim.files().len() <= 17);
    }
    drop(state);
    assert_eq!(whole_batches(&MapState::open(disk, folder()).unwrap(), SEED, "gathered"), 100);
}
