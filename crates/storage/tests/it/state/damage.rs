//! Damaged files of RocksDB: an error at open or at a read, never a wrong or a missing answer.

use std::fs;
use std::path::{Path, PathBuf};

use storage::state::rocks::RocksState;
use storage::state::{Row, StateError, StateRead, StateStore, applied};

use super::history::{Numbers, batch, whole_batches};
use super::subject::{all_rows, files, put, shared};

const SEED: u64 = 21;
const BATCHES: u64 = 120;

/// A flushed state with several files of each kind, closed.
fn make(folder: &Path) -> Vec<Row> {
    let state = RocksState::create(&shared(), folder).unwrap();
    for n in 1..=BATCHES {
        state.write(&batch(SEED, n)).unwrap();
        if n % 40 == 0 {
            state.flush().unwrap();
        }
    }
    all_rows(&state)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn flip(path: &Path, offset: usize, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

/// Opens a state and reads all of it.
fn read(folder: &Path) -> Result<Vec<Row>, StateError> {
    let state = RocksState::open(&shared(), folder)?;
    let rows = state.scan(&[0], &[0xff; 40], usize::MAX)?;
    for (key, value) in &rows {
        assert_eq!(state.get(key)?.as_ref(), Some(value), "a get answers as the scan did");
    }
    Ok(rows)
}

/// Flips bits here and there in the files with this ending; how many were noticed.
fn flips_noticed(end: &str, flips: u64, seed: u64) -> u64 {
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    let rows = make(&whole);
    let mut numbers = Numbers::new(seed);
    let mut noticed = 0;
    for turn in 0..flips {
        let damaged = home.path().join(turn.to_string());
        copy(&whole, &damaged);
        let files = files(&damaged, end);
        let file: &PathBuf = &files[numbers.below(files.len() as u64) as usize];
        let offset = numbers.below(fs::metadata(file).unwrap().len());
        let bit = numbers.below(8) as u8;
        flip(file, offset as usize, bit);
        match read(&damaged) {
            Ok(answer) => assert_eq!(answer, rows, "{}, byte {offset}, bit {bit}", file.display()),
            Err(_) => noticed += 1,
        }
        fs::remove_dir_all(&damaged).unwrap();
    }
    noticed
}

#[test]
fn a_flipped_bit_in_a_file_of_records_is_never_answered_from() {
    assert!(flips_noticed(".sst", 80, 1) > 60);
}

#[test]
fn a_flipped_bit_in_a_file_of_bodies_is_never_answered_from() {
    // A part of each file belongs to bodies that were replaced: nobody reads it.
    assert!(flips_noticed(".blob", 60, 2) > 20);
}

#[test]
fn a_flipped_bit_in_a_body_is_damage_and_other_bodies_are_still_read() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let state = RocksState::create(&shared(), &folder).unwrap();
    state.write(&[put([0x80, 1], vec![0xaa; 50_000]), put([0x80, 2], vec![0xbb; 50_000])]).unwrap();
    state.flush().unwrap();
    drop(state);
    let blob = files(&folder, ".blob").remove(0);
    let bytes = fs::read(&blob).unwrap();
    let inside = bytes.windows(64).position(|part| part == [0xaa; 64]).unwrap() + 20_000;
    flip(&blob, inside, 3);

    let state = RocksState::open(&shared(), &folder).unwrap();
    for read in [&state as &dyn StateRead, &*state.snapshot()] {
        let error = read.get(&[0x80, 1]).unwrap_err();
        assert!(matches!(error, StateError::Damaged { operation: "read", .. }), "{error}");
        assert!(read.scan(&[0x80], &[0x81], 9).is_err());
        assert!(read.scan_back(&[0x80], &[0x81], 9).is_err());
        assert_eq!(read.get(&[0x80, 2]).unwrap().unwrap().len(), 50_000);
    }
}

#[test]
fn a_missing_or_a_cut_file_is_damage() {
    for end in [".sst", ".blob", "CURRENT"] {
        for cut in [false, true] {
            let home = tempfile::tempdir().unwrap();
            let folder = home.path().join("state");
            make(&folder);
            let file = files(&folder, end).remove(0);
            if cut {
                let bytes = fs::read(&file).unwrap();
                fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
            } else {
                fs::remove_file(&file).unwrap();
            }
            let error = read(&folder).expect_err(end);
            assert!(matches!(error, StateError::Damaged { .. }), "{end}, cut {cut}: {error}");
        }
    }
}

/// The manifest lists the files; its last record may be lost with a flipped length, as if the
/// crash had come before the last flush was finished. Then the state is an older whole one, which
/// the copy notices by its flushed position; it is never a mixture.
#[test]
fn a_flipped_bit_in_the_manifest_is_noticed_or_leaves_an_older_whole_state() {
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    make(&whole);
    let mut numbers = Numbers::new(3);
    let (mut noticed, mut older) = (0, 0);
    for turn in 0..200 {
        let damaged = home.path().join(turn.to_string());
        copy(&whole, &damaged);
        let file = files(&damaged, "").into_iter().find(|path| named(path, "MANIFEST")).unwrap();
        let offset = numbers.below(fs::metadata(&file).unwrap().len());
        flip(&file, offset as usize, numbers.below(8) as u8);
        match RocksState::open(&shared(), &damaged) {
            Err(_) => noticed += 1,
            Ok(state) if whole_batches(&state, SEED, "a flipped manifest") < BATCHES => older += 1,
            Ok(_) => {}
        }
        fs::remove_dir_all(&damaged).unwrap();
    }
    assert!(noticed > 150, "{noticed} noticed, {older} older");
}

fn named(path: &Path, start: &str) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with(start)
}

#[test]
fn a_turned_type_in_the_manifest_is_an_error_and_not_an_open_without_end() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    make(&folder);
    let file = files(&folder, "").into_iter().find(|path| named(path, "MANIFEST")).unwrap();
    let bytes = fs::read(&file).unwrap();
    let first = 7 + usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
    let second = first + 6;
    assert_eq!(bytes[second], 1, "a whole record");
    flip(&file, second, 2);
    let error = RocksState::open(&shared(), &folder).err().unwrap();
    assert!(error.to_string().contains("has a record of type 5"), "{error}");
}

#[test]
fn a_body_that_is_under_another_key_is_corrupt() {
    let home = tempfile::tempdir().unwrap();
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    // Two states whose files have equal names and lengths, and equal checksums of the engine.
    for (folder, value) in [(&first, 0xaa), (&second, 0xbb)] {
        let state = RocksState::create(&shared(), folder).unwrap();
        state.write(&[put([0x80, value], vec![value; 50_000])]).unwrap();
        state.flush().unwrap();
    }
    let (from, to) = (files(&first, ".blob").remove(0), files(&second, ".blob").remove(0));
    fs::copy(from, to).unwrap();
    let state = RocksState::open(&shared(), &second).unwrap();
    let error = state.get(&[0x80, 0xbb]).unwrap_err();
    assert!(matches!(error, StateError::Damaged { .. } | StateError::Corrupt { .. }), "{error}");
    assert_eq!(applied(&state).unwrap(), None);
}
