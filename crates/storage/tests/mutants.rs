//! Planted faults: each must break what its rule promises, or the tests of that rule prove nothing.
//!
//! One test, because a fault is planted for the whole process.
#![cfg(feature = "mutants")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dag_format::envelope::Envelope;
use dag_types::{LogId, Millis, Mutant};
use storage::disk::{Disk, OpenMode, SimDisk, SimDiskOptions};
use storage::log::{
    CopyLog, EntryCache, LogEntry, LogExpectations, LogObserver, LogOpenFault, LogPlace, Position,
    VoteRecord,
};
use storage::volume::{Pumped, Volume, VolumeDriver, VolumeOptions};

struct Nobody;

impl LogObserver for Nobody {
    fn before_purge(&self, _point: Position) -> std::io::Result<()> {
        Ok(())
    }

    fn vote_saved(&self, _vote: VoteRecord) {}
}

fn place(disk: &SimDisk, session: u64) -> (LogPlace, VolumeDriver) {
    let (volume, driver) = Volume::simulated(Arc::new(disk.clone()), VolumeOptions::default());
    let cache = Arc::new(EntryCache::new(1 << 20));
    let observer = Arc::new(Nobody);
    (LogPlace { volume, cache, folder: "/log".into(), session, observer }, driver)
}

fn create(seed: u64) -> (SimDisk, CopyLog, VolumeDriver) {
    let disk = SimDisk::new(seed, SimDiskOptions::default());
    let (place, driver) = place(&disk, 1);
    let log = CopyLog::create(place, None, None).unwrap();
    disk.sync_dir(std::path::Path::new("/")).unwrap();
    (disk, log, driver)
}

fn open(disk: &SimDisk) -> Result<CopyLog, LogOpenFault> {
    let (place, _driver) = place(disk, 2);
    CopyLog::open(place, LogExpectations::default())
}

fn settle(driver: &mut VolumeDriver, now: u64) {
    while !matches!(driver.pump(Millis(now)), Pumped::Wait(_)) {}
}

fn entry(index: u64) -> LogEntry {
    let payload = Bytes::from(vec![index as u8; 5000]);
    LogEntry { id: LogId { term: 1, index }, kind: 1, payload }
}

fn append(log: &CopyLog, index: u64) -> Arc<AtomicBool> {
    let told = Arc::new(AtomicBool::new(false));
    let teller = told.clone();
    let done = Box::new(move |result| teller.store(result == Ok(()), Ordering::Relaxed));
    log.append(vec![entry(index)], done);
    told
}

/// Whether an acknowledged entry is gone after a crash at the moment of its acknowledgement.
fn acknowledged_entry_is_lost(seed: u64) -> bool {
    let (disk, log, mut driver) = create(seed);
    let told = append(&log, 0);
    while !told.load(Ordering::Relaxed) {
        driver.pump(Millis(0));
    }
    drop(driver);
    disk.crash();
    open(&disk).expect("a crash fails nothing").bounds().last.is_none()
}

/// Whether a vote that was answered is gone after a crash.
fn answered_vote_is_lost(seed: u64) -> bool {
    let (disk, log, mut driver) = create(seed);
    let told = Arc::new(AtomicBool::new(false));
    let teller = told.clone();
    let vote = VoteRecord { term: 3, voted_for: 1, committed: false };
    log.save_vote(vote, Box::new(move |_| teller.store(true, Ordering::Relaxed)));
    while !told.load(Ordering::Relaxed) {
        driver.pump(Millis(0));
    }
    drop(driver);
    disk.crash();
    open(&disk).expect("a crash fails nothing").vote().is_none()
}

/// Three entries, claimed; then a bit of the segment flips.
fn opened_after_flip(offset: u64) -> Result<CopyLog, LogOpenFault> {
    let (disk, log, mut driver) = create(1);
    for index in 0..3 {
        append(&log, index);
        settle(&mut driver, 0);
    }
    settle(&mut driver, 50);
    drop(driver);
    disk.kill();
    disk.flip_bit(&disk.files()[0], offset, 0).unwrap();
    open(&disk)
}

/// Three entries of which the second names a wrong chain under a right checksum.
fn opened_with_broken_chain() -> Result<CopyLog, LogOpenFault> {
    use dag_format::log::{BATCH_START_BYTES, EntryRecord, LogRecord};
    use dag_format::record::Place;
    let (disk, log, mut driver) = create(1);
    for index in 0..3 {
        append(&log, index);
        settle(&mut driver, 0);
    }
    drop(driver);
    disk.kill();
    // One block for the segment's start, two for each entry.
    let position = 3 * 4096 + BATCH_START_BYTES as u64;
    let (path, forged) = (disk.files()[0].clone(), entry(1));
    let record = LogRecord::Entry(EntryRecord {
        id: forged.id,
        kind: 1,
        chain: Default::default(),
        payload: &forged.payload,
    });
    let mut whole = storage::disk::read_whole(&disk, &path).unwrap();
    let mut bytes = Vec::new();
    record.encode(Place { segment: 1, position, session: 1 }, &mut bytes);
    whole[position as usize..][..bytes.len()].copy_from_slice(&bytes);
    let mut buffer = storage::disk::AlignedBuffer::new(whole.len());
    buffer.push(&whole);
    let file = disk.open(&path, OpenMode::Direct).unwrap();
    file.write_at(buffer.padded(), 0).unwrap();
    open(&disk)
}

fn purges_past_flushed() -> bool {
    let (_disk, log, mut driver) = create(1);
    for index in 0..3 {
        append(&log, index);
    }
    settle(&mut driver, 0);
    let purge = || log.purge(LogId { term: 1, index: 1 });
    catch_unwind(AssertUnwindSafe(purge)).is_ok()
}

fn skips_unknown_entry() -> bool {
    Envelope::decode(&Bytes::from(vec![99; 40])).is_ok()
}

#[test]
fn every_planted_fault_breaks_what_its_rule_promises() {
    std::panic::set_hook(Box::new(|_| ()));
    let lost_entry = || (0..30).any(acknowledged_entry_is_lost);
    let lost_vote = || (0..30).any(answered_vote_is_lost);
    let wrong_chain = || opened_with_broken_chain().is_ok();
    let lost_tail = || opened_after_flip(5 * 4096 + 100).is_ok();
    let checks: [(Mutant, &dyn Fn() -> bool); 6] = [
        (Mutant::AckBeforeFsync, &lost_entry),
        (Mutant::VoteNotDurable, &lost_vote),
        (Mutant::ChainNotChecked, &wrong_chain),
        (Mutant::TailNotChecked, &lost_tail),
        (Mutant::PurgePastFlushed, &purges_past_flushed),
        (Mutant::UnknownEntrySkipped, &skips_unknown_entry),
    ];
    for (mutant, broken) in checks {
        Mutant::plant(None);
        let before = broken();
        Mutant::plant(Some(mutant));
        let after = broken();
        Mutant::plant(None);
        drop(std::panic::take_hook());
        std::panic::set_hook(Box::new(|_| ()));
        if before || !after {
            drop(std::panic::take_hook());
            panic!("{mutant:?}: broken without it: {before}, with it: {after}");
        }
    }
}
