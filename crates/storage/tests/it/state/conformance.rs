//! What both kinds of state promise.

use dag_types::{Chain, LogId};
use storage::state::{StateError, StateStore, applied, applied_write};

use super::history::{Model, Numbers, batch, whole_batches};
use super::subject::{Subject, all_rows, delete, put};

#[test]
fn a_batch_is_read_at_once_in_its_own_order() {
    for subject in Subject::both() {
        let state = subject.create();
        state
            .write(&[put([0x10, 1], "a"), put([0x10, 1], "b"), put([0x80, 1], ""), delete([0x90])])
            .unwrap();
        let name = subject.name;
        assert_eq!(state.get(&[0x10, 1]).unwrap().unwrap().as_ref(), b"b", "{name}");
        assert_eq!(state.get(&[0x80, 1]).unwrap().unwrap().as_ref(), b"", "{name}");
        assert_eq!(state.get(&[0x10, 2]).unwrap(), None, "{name}");
        state.write(&[delete([0x10, 1]), put([0x10, 2], "c"), delete([0x10, 2])]).unwrap();
        assert_eq!(all_rows(&*state).len(), 1, "{name}");
    }
}

#[test]
fn a_scan_is_ordered_bounded_and_goes_through_all_families() {
    for subject in Subject::both() {
        let state = subject.create();
        let firsts = [0x00, 0x10, 0x7f, 0x80, 0xbf, 0xc0, 0xff];
        let batch: Vec<_> = firsts.iter().rev().map(|first| put([*first, 1], [*first])).collect();
        state.write(&batch).unwrap();
        let ahead = |from: &[u8], to: &[u8], limit| -> Vec<u8> {
            state.scan(from, to, limit).unwrap().iter().map(|(key, _)| key[0]).collect()
        };
        let back = |from: &[u8], to: &[u8], limit| -> Vec<u8> {
            state.scan_back(from, to, limit).unwrap().iter().map(|(key, _)| key[0]).collect()
        };
        let name = subject.name;
        assert_eq!(ahead(&[0], &[0xff, 2], 99), firsts, "{name}");
        assert_eq!(ahead(&[0x10], &[0xff, 1], 99), firsts[1..6], "the end is not in it: {name}");
        assert_eq!(ahead(&[0x10, 1], &[0xff], 3), firsts[1..4], "the start is in it: {name}");
        assert_eq!(back(&[0x10, 1], &[0xff, 1], 3), [0xc0, 0xbf, 0x80], "{name}");
        assert_eq!(back(&[0], &[0xff, 2], 99).len(), 7, "{name}");
        assert_eq!(ahead(&[0x7f, 2], &[0x80], 9), [0; 0], "{name}");
        assert_eq!(ahead(&[0x80], &[0x10], 9), [0; 0], "turned round: {name}");
        assert_eq!(ahead(&[0], &[0xff], 0), [0; 0], "{name}");
    }
}

#[test]
fn a_snapshot_is_not_changed_by_later_writes_and_flushes() {
    for subject in Subject::both() {
        let state = subject.create();
        (1..=30).for_each(|n| state.write(&batch(3, n)).unwrap());
        let snapshot = state.snapshot();
        (31..=60).for_each(|n| state.write(&batch(3, n)).unwrap());
        state.flush().unwrap();
        assert_eq!(whole_batches(&*snapshot, 3, subject.name), 30);
        assert_eq!(whole_batches(&*state, 3, subject.name), 60);
        drop(state);
        assert_eq!(whole_batches(&*snapshot, 3, subject.name), 30, "the store was dropped");
    }
}

#[test]
fn what_was_flushed_comes_back_and_what_was_not_is_gone() {
    for subject in Subject::both() {
        let state = subject.create();
        (1..=40).for_each(|n| state.write(&batch(5, n)).unwrap());
        state.flush().unwrap();
        (41..=70).for_each(|n| state.write(&batch(5, n)).unwrap());
        drop(state);
        assert_eq!(whole_batches(&*subject.open(), 5, subject.name), 40);
    }
}

#[test]
fn unflushed_bytes_are_none_exactly_when_there_is_nothing_to_flush() {
    for subject in Subject::both() {
        let state = subject.create();
        assert_eq!(state.unflushed_bytes(), 0, "{}", subject.name);
        state.write(&[put([0x80], vec![7; 5000])]).unwrap();
        assert!((5001..6000).contains(&state.unflushed_bytes()), "{}", subject.name);
        state.write(&[delete([0x80])]).unwrap();
        let both = state.unflushed_bytes();
        assert!(both > 5001, "a deletion is something to flush: {}", subject.name);
        state.flush().unwrap();
        assert_eq!(state.unflushed_bytes(), 0, "{}", subject.name);
        drop(state);
        assert_eq!(subject.open().unflushed_bytes(), 0, "{}", subject.name);
    }
}

#[test]
fn a_state_is_never_made_over_another_and_never_made_by_opening() {
    for subject in Subject::both() {
        let refused = subject.engine.open(&subject.folder()).err();
        let name = subject.name;
        assert!(matches!(refused, Some(StateError::Damaged { .. })), "{name}: {refused:?}");
        assert!(!subject.folder().exists(), "{name}");
        std::fs::create_dir(subject.folder()).unwrap();
        let refused = subject.engine.open(&subject.folder()).err();
        assert!(matches!(refused, Some(StateError::Damaged { .. })), "{name}: {refused:?}");
        let state = subject.create();
        state.write(&[put([0x10], "kept")]).unwrap();
        state.flush().unwrap();
        drop(state);
        assert!(subject.engine.create(&subject.folder()).is_err(), "{name}");
        assert_eq!(all_rows(&*subject.open()).len(), 1, "{name}");
    }
}

#[test]
fn a_checkpoint_is_a_state_of_its_own() {
    for subject in Subject::both() {
        let state = subject.create();
        (1..=20).for_each(|n| state.write(&batch(9, n)).unwrap());
        state.flush().unwrap();
        (21..=40).for_each(|n| state.write(&batch(9, n)).unwrap());
        let folder = subject.beside("checkpoint");
        state.checkpoint(&folder).unwrap();
        (41..=60).for_each(|n| state.write(&batch(9, n)).unwrap());
        state.flush().unwrap();
        assert!(state.checkpoint(&folder).is_err(), "over another: {}", subject.name);

        let copy = subject.engine.open(&folder).unwrap();
        assert_eq!(whole_batches(&*copy, 9, subject.name), 40);
        (41..=50).for_each(|n| copy.write(&batch(9, n)).unwrap());
        copy.flush().unwrap();
        drop((copy, state));
        assert_eq!(whole_batches(&*subject.open(), 9, subject.name), 60);
        assert_eq!(whole_batches(&*subject.engine.open(&folder).unwrap(), 9, subject.name), 50);
    }
}

#[test]
fn the_applied_position_is_a_row_of_the_state() {
    for subject in Subject::both() {
        let state = subject.create();
        assert_eq!(applied(&*state).unwrap(), None, "{}", subject.name);
        let position = (LogId { term: 7, index: 41 }, Chain([5; 16]));
        state.write(&[applied_write(position.0, position.1), put([0x10], "effect")]).unwrap();
        assert_eq!(applied(&*state).unwrap(), Some(position), "{}", subject.name);
        assert_eq!(applied(&*state.snapshot()).unwrap(), Some(position), "{}", subject.name);
        state.write(&[put([0x00], "short")]).unwrap();
        let error = applied(&*state).unwrap_err();
        assert!(matches!(error, StateError::Corrupt { .. }), "{}: {error}", subject.name);
    }
}

/// Reads of every kind against the model.
fn compare(state: &dyn StateStore, model: &Model, numbers: &mut Numbers, what: &str) {
    let mut key = || {
        let table = [0x00, 0x10, 0x7f, 0x80, 0x81, 0xbf, 0xc0, 0xff][numbers.below(8) as usize];
        [&[table][..], &numbers.below(60).to_be_bytes()].concat()
    };
    let (one, from, to) = (key(), key(), key());
    let limit = numbers.below(30) as usize;
    assert_eq!(state.get(&one).unwrap().as_ref(), model.get(&one), "{what}");
    assert_eq!(
        state.scan(&from, &to, limit).unwrap(),
        model.scan(&from, &to, limit, false),
        "{what}"
    );
    assert_eq!(
        state.scan_back(&from, &to, limit).unwrap(),
        model.scan(&from, &to, limit, true),
        "{what}"
    );
}

/// One seed: batches, reads, flushes, checkpoints and reopenings in any order.
fn random_operations(subject: &Subject, seed: u64) {
    let mut numbers = Numbers::new(seed);
    let mut state = subject.create();
    let (mut written, mut flushed, mut model) = (0, 0, Model::default());
    for step in 0..400 {
        let what = format!("{} seed {seed} step {step}", subject.name);
        match numbers.below(100) {
            0..70 => {
                written += 1;
                let batch = batch(seed, written);
                state.write(&batch).unwrap();
                model.apply(&batch);
            }
            70..90 => compare(&*state, &model, &mut numbers, &what),
            90..97 => {
                state.flush().unwrap();
                flushed = written;
            }
            97..99 => {
                drop(state);
                state = subject.open();
                written = whole_batches(&*state, seed, &what);
                assert_eq!(written, flushed, "{what}");
                model = Model::after(seed, written);
            }
            _ => {
                let folder = subject.beside(&format!("checkpoint {step}"));
                state.checkpoint(&folder).unwrap();
                flushed = written;
                let copy = subject.engine.open(&folder).unwrap();
                assert_eq!(whole_batches(&*copy, seed, &what), written);
            }
        }
    }
    assert_eq!(all_rows(&*state), model.rows());
}

#[test]
fn random_operations_answer_as_a_sorted_map_does_and_reopen_to_whole_batches() {
    for seed in 1..=8 {
        for subject in Subject::both() {
            random_operations(&subject, seed);
        }
    }
}
