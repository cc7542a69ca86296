//! Failing disks and full ones.

use std::io::ErrorKind;

use storage::log::{LogExpectations, LogFault};

use super::rig::{Rig, all, entry, small_segments};

#[test]
fn a_failed_sync_fails_everyone_who_waits_and_is_never_tried_again() {
    let mut rig = Rig::new(1, small_segments());
    rig.fill(1, 3, 100);
    rig.disk.fail_sync(".seg", 0, ErrorKind::Other);
    let under_way = rig.append(vec![entry(1, 3, 100)]);
    assert!(rig.pump());
    let behind = rig.append(vec![entry(1, 4, 100)]);
    rig.settle();
    for outcome in [under_way, behind, rig.append(vec![entry(1, 5, 100)]), rig.vote(9)] {
        assert!(matches!(outcome.get(), Some(Err(LogFault::Disk { .. }))), "{:?}", outcome.get());
    }
    assert!(matches!(rig.log().fault(), Some(LogFault::Disk { .. })));
    assert_eq!(rig.log().bounds().durable.unwrap().index, 2);
}

#[test]
fn a_failed_write_fails_everyone_who_waits() {
    let mut rig = Rig::new(2, small_segments());
    rig.disk.fail_write(".seg", 0, ErrorKind::Other);
    let outcome = rig.append(vec![entry(1, 0, 100)]);
    rig.settle();
    assert!(matches!(outcome.get(), Some(Err(LogFault::Disk { .. }))));
    rig.crash();
    rig.open(LogExpectations::default()).unwrap();
    assert!(all(rig.log()).is_empty());
}

#[test]
fn a_full_volume_is_told_apart_from_a_failed_one_and_loses_nothing() {
    let mut rig = Rig::new(3, small_segments());
    rig.fill(1, 3, 10_000);
    rig.disk.set_capacity(rig.disk.used_bytes());
    let mut acknowledged = 3;
    let refused = loop {
        let outcome = rig.append(vec![entry(1, acknowledged, 10_000)]);
        rig.settle();
        match outcome.get().expect("it ends") {
            Ok(()) => acknowledged += 1,
            Err(fault) => break fault,
        }
        assert!(acknowledged < 1000, "the volume is full some time");
    };
    assert!(matches!(refused, LogFault::NoSpace { .. }), "{refused:?}");
    rig.crash();
    rig.disk.set_capacity(1 << 30);
    rig.open(LogExpectations::default()).unwrap();
    assert_eq!(all(rig.log()).len() as u64, acknowledged);
    rig.fill(1, 50, 10_000);
}

#[test]
fn free_bytes_shrink_with_the_log() {
    let mut rig = Rig::new(4, small_segments());
    let free = |rig: &Rig| rig.volume().free_bytes(std::path::Path::new("/volume")).unwrap();
    let before = free(&rig);
    rig.fill(1, 40, 10_000);
    assert!(before - free(&rig) >= 400_000);
}

#[test]
fn a_segment_that_cannot_be_prepared_stops_nothing_while_there_is_room() {
    let mut rig = Rig::new(5, small_segments());
    rig.disk.fail_write("spare.tmp", 0, ErrorKind::Other);
    rig.fill(1, 100, 3000);
    assert_eq!(rig.log().fault(), None);
}

#[test]
fn a_damaged_entry_is_a_fault_of_the_log_not_an_answer() {
    let mut rig = Rig::new(6, small_segments());
    rig.cache_bytes = 0;
    rig.fill(1, 1, 10);
    rig.crash();
    rig.open(LogExpectations::default()).unwrap();
    rig.fill(1, 4, 4000);
    let segment = rig.segments()[0].clone();
    rig.disk.flip_bit(&segment, 2 * 4096 + 1000, 3).unwrap();
    let under_way = rig.append(vec![entry(1, 5, 10)]);
    let read = rig.log().read(0, 5, usize::MAX);
    assert!(matches!(read, Err(LogFault::Corrupt { .. })), "{read:?}");
    let after = rig.append(vec![entry(1, 6, 10)]);
    rig.settle();
    for outcome in [under_way, after] {
        assert!(matches!(outcome.get(), Some(Err(LogFault::Corrupt { .. }))));
    }
}

#[test]
fn every_file_is_synced_where_the_device_is_not_trusted_or_the_cache_not_bypassed() {
    for (direct, sync_every_file) in [(true, true), (false, false)] {
        let options = storage::disk::SimDiskOptions { direct, ..Default::default() };
        let disk = storage::disk::SimDisk::new(7, options);
        let volume = storage::volume::VolumeOptions { sync_every_file, ..small_segments() };
        let mut rig = Rig::on(disk, volume, None);
        rig.fill(1, 100, 5000);
        rig.crash();
        rig.open(LogExpectations::default()).unwrap();
        assert_eq!(all(rig.log()).len(), 100);
    }
}

#[test]
fn what_an_open_found_in_a_cache_is_durable_before_it_counts() {
    for seed in 0..30 {
        let mut rig = Rig::new(seed, small_segments());
        rig.append(vec![entry(1, 0, 5000)]);
        // The first pump writes; the sync would come with the next one.
        assert!(rig.pump());
        rig.kill();
        rig.open(LogExpectations::default()).unwrap();
        let durable = rig.log().bounds().durable;
        rig.crash();
        rig.open(LogExpectations::default()).unwrap();
        assert_eq!(rig.log().bounds().last, durable, "seed {seed}");
    }
}

#[test]
fn a_segment_that_is_given_up_before_its_seal_is_never_written_to_again() {
    let mut rig = Rig::new(9, small_segments());
    rig.cache_bytes = 0;
    rig.fill(1, 1, 10);
    rig.kill();
    rig.open(LogExpectations::default()).unwrap();
    let mut point = None;
    for index in 1..150 {
        let outcome = rig.append(vec![entry(1, index, 30_000)]);
        point = Some(rig.flush_through(index - 1));
        rig.log().purge(point.unwrap().0).unwrap();
        rig.settle();
        assert!(outcome.is_ok(), "{:?}", outcome.get());
        assert_eq!(all(rig.log()), [entry(1, index, 30_000)]);
    }
    rig.rest();
    rig.kill();
    rig.open(super::rig::flushed(point.unwrap())).unwrap();
    assert_eq!(all(rig.log()), [entry(1, 149, 30_000)]);
}
