//! What a log promises while nothing goes wrong.

use dag_types::LogId;
use storage::log::{LogBounds, LogExpectations, LogFault};

use super::rig::{Rig, all, entry, flushed, position, small_segments};

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

#[test]
fn entries_are_readable_at_once_and_durable_when_told() {
    let mut rig = Rig::new(1, small_segments());
    let entries = vec![entry(1, 0, 10), entry(1, 1, 10)];
    let outcome = rig.append(entries.clone());
    assert_eq!(all(rig.log()), entries);
    assert_eq!(outcome.get(), None);
    let last = Some(id(1, 1));
    assert_eq!(rig.log().bounds(), LogBounds { purged: None, last, durable: None });
    rig.settle();
    assert!(outcome.is_ok());
    assert_eq!(rig.log().bounds().durable, last);
}

#[test]
fn a_reopened_log_is_the_log_that_was_closed() {
    let mut rig = Rig::new(2, small_segments());
    rig.fill(1, 30, 5000);
    rig.vote(3);
    rig.log().save_committed(Some(id(1, 20)));
    rig.rest();
    let (before, chain) = (all(rig.log()), rig.log().chain_at(29));
    rig.crash();
    rig.open(LogExpectations::default()).unwrap();
    assert_eq!(all(rig.log()), before);
    assert_eq!(rig.log().chain_at(29), chain);
    assert_eq!(rig.log().vote().unwrap().term, 3);
    assert_eq!(rig.log().committed(), Some(id(1, 20)));
    assert_eq!(rig.log().bounds().durable, Some(id(1, 29)));
}

#[test]
fn entries_that_left_the_cache_are_read_from_the_segments() {
    let mut rig = Rig::new(3, small_segments());
    rig.cache_bytes = 0;
    rig.fill(1, 1, 10);
    rig.crash();
    rig.open(LogExpectations::default()).unwrap();
    for index in 1..60 {
        rig.append(vec![entry(1, index, 100 * index as usize)]);
        if index % 7 == 0 {
            rig.settle();
        }
    }
    rig.settle();
    for index in 1..60 {
        let read = rig.log().read(index, index + 3, 1).unwrap();
        assert_eq!(read, [entry(1, index, 100 * index as usize)], "one at least");
    }
    let read = rig.log().read(10, 60, 5000).unwrap();
    assert!(read.len() == 4 && read.iter().map(|entry| entry.payload.len()).sum::<usize>() <= 5000);
    assert_eq!(rig.log().read(60, 99, 5000), Ok(vec![]));
}

#[test]
fn a_cut_holds_through_a_restart_and_entries_of_the_new_term_follow() {
    let mut rig = Rig::new(4, small_segments());
    rig.fill(1, 10, 100);
    let cut = rig.truncate(Some(4));
    assert_eq!(rig.log().bounds().last, Some(id(1, 4)));
    assert_eq!(rig.log().bounds().durable, Some(id(1, 4)), "nothing beyond the end is durable");
    let appended = rig.append(vec![entry(2, 5, 50)]);
    assert_eq!(rig.log().read(4, 9, 999).unwrap(), [entry(1, 4, 100), entry(2, 5, 50)]);
    rig.settle();
    assert!(cut.is_ok() && appended.is_ok());
    rig.crash();
    rig.open(LogExpectations::default()).unwrap();
    assert_eq!(rig.log().bounds().last, Some(id(2, 5)));
    assert_eq!(rig.log().read(4, 9, 999).unwrap(), [entry(1, 4, 100), entry(2, 5, 50)]);
}

#[test]
fn a_cut_of_everything_leaves_the_purge_point() {
    let mut rig = Rig::new(5, small_segments());
    rig.fill(1, 10, 100);
    rig.flush_through(6);
    rig.log().purge(id(1, 3)).unwrap();
    let cut = rig.truncate(None);
    rig.settle();
    assert!(cut.is_ok());
    let last = Some(id(1, 3));
    assert_eq!(rig.log().bounds(), LogBounds { purged: last, last, durable: last });
    rig.append(vec![entry(2, 4, 10)]);
    rig.settle();
    assert_eq!(all(rig.log()), [entry(2, 4, 10)]);
}

#[test]
fn purged_segments_are_given_up_and_recycled_with_their_old_records_in_them() {
    let mut rig = Rig::new(6, small_segments());
    let mut most = 0;
    for round in 0..30 {
        rig.fill(1, 20, 9000);
        let upto = rig.log().bounds().last.unwrap();
        let point = rig.flush_through(upto.index - 2);
        rig.log().purge(point.0).unwrap();
        rig.rest();
        most = most.max(rig.segments().len());
        assert_eq!(*rig.notes.purged.lock().unwrap(), Some(point), "META knows first");
        assert_eq!(all(rig.log()).len(), 2);
        if round % 7 == 3 {
            rig.crash();
            rig.open(flushed(point)).unwrap();
            assert_eq!(all(rig.log()).len(), 2);
        }
    }
    assert!(most <= 8, "{most} segments at once");
    assert!(rig.disk.used_bytes() < 3 << 20, "{} bytes", rig.disk.used_bytes());
    let gone = rig.log().read(3, 5, 10);
    assert_eq!(gone, Err(LogFault::Gone { index: 3 }));
}

#[test]
fn an_idle_log_costs_less_than_a_mebibyte() {
    let mut rig = Rig::new(7, storage::volume::VolumeOptions::default());
    rig.fill(1, 5, 500);
    for _ in 0..10 {
        rig.rest();
        rig.kill();
        rig.open(LogExpectations::default()).unwrap();
        rig.vote(1);
    }
    rig.rest();
    assert!(rig.disk.used_bytes() <= 768 << 10, "{} bytes", rig.disk.used_bytes());
}

#[test]
fn an_entry_larger_than_any_segment_gets_one_of_its_own_size() {
    let mut rig = Rig::new(8, small_segments());
    rig.fill(1, 2, 10);
    let large = entry(1, 2, 3 << 20);
    let outcome = rig.append(vec![large.clone(), entry(1, 3, 10)]);
    rig.settle();
    assert!(outcome.is_ok());
    rig.crash();
    rig.open(LogExpectations::default()).unwrap();
    assert_eq!(rig.log().read(2, 3, 1).unwrap(), [large]);
    assert_eq!(rig.log().bounds().last, Some(id(1, 3)));
}

#[test]
fn a_large_append_is_split_and_done_with_its_last_part() {
    let mut rig = Rig::new(9, Default::default());
    let entries: Vec<_> = (0..64).map(|index| entry(1, index, 50_000)).collect();
    let outcome = rig.append(entries.clone());
    while outcome.get().is_none() {
        assert!(rig.pump());
    }
    assert_eq!(rig.log().bounds().durable, Some(id(1, 63)));
    rig.crash();
    rig.open(LogExpectations::default()).unwrap();
    assert_eq!(all(rig.log()), entries);
}

#[test]
fn a_log_begins_behind_a_seeded_state() {
    let mut rig = Rig::new(10, small_segments());
    rig.fill(7, 12, 10);
    let start = position(rig.log(), 11);
    let disk = storage::disk::SimDisk::new(1, Default::default());
    let mut seeded = Rig::on(disk, small_segments(), Some(start));
    assert_eq!(seeded.log().bounds().last, Some(id(7, 11)));
    seeded.append(vec![entry(7, 12, 10)]);
    rig.append(vec![entry(7, 12, 10)]);
    seeded.settle();
    assert_eq!(seeded.log().chain_at(12), rig.log().chain_at(12), "equal on all copies");
    seeded.crash();
    seeded.open(flushed(start)).unwrap();
    assert_eq!(all(seeded.log()), [entry(7, 12, 10)]);
}

#[test]
fn a_log_that_lost_its_tail_begins_anew_behind_the_flushed_state() {
    let mut rig = Rig::new(11, small_segments());
    rig.fill(1, 8, 10);
    let ahead = position(rig.log(), 7);
    rig.truncate(Some(3));
    rig.rest();
    rig.crash();
    rig.open(flushed(ahead)).unwrap();
    assert_eq!(rig.log().bounds().last, Some(id(1, 3)), "the state may be ahead of the log");
    rig.log().purge(ahead.0).unwrap();
    rig.append(vec![entry(2, 8, 10)]);
    rig.rest();
    for _ in 0..2 {
        assert_eq!(all(rig.log()), [entry(2, 8, 10)]);
        assert_eq!(rig.log().bounds().purged, Some(ahead.0));
        rig.crash();
        rig.open(flushed(ahead)).unwrap();
    }
}

#[test]
fn a_purge_to_where_neither_log_nor_state_ends_is_refused() {
    let mut rig = Rig::new(12, small_segments());
    rig.fill(1, 4, 10);
    rig.log().set_flushed((id(1, 20), Default::default()));
    let upto = id(1, 10);
    assert_eq!(rig.log().purge(upto), Err(LogFault::ChainUnknown { upto }));
    assert_eq!(rig.log().fault(), None);
}

#[test]
fn a_closed_log_finishes_what_was_asked_and_takes_no_more() {
    let mut rig = Rig::new(13, small_segments());
    let outcome = rig.append(vec![entry(1, 0, 10)]);
    let closed = super::rig::Outcome::default();
    rig.log().close(closed.done());
    assert_eq!(rig.append(vec![entry(1, 1, 10)]).get(), Some(Err(LogFault::Closed)));
    rig.settle();
    assert!(outcome.is_ok() && closed.is_ok());
}

#[test]
fn commits_do_not_wait_for_the_background_that_makes_segments() {
    let mut rig = Rig::new(14, small_segments());
    for index in 0..200 {
        let outcome = rig.append(vec![entry(1, index, 8000)]);
        while outcome.get().is_none() {
            assert!(rig.pump(), "a commit came to rest");
        }
    }
    rig.crash();
    rig.open(LogExpectations::default()).unwrap();
    assert_eq!(all(rig.log()).len(), 200);
}
