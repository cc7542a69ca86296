//! What open does with a log that is not as it was left. One test per rule; each fails when the
//! rule is taken out.

use dag_format::log::{BATCH_START_BYTES, BatchStart, EntryRecord, LogRecord};
use dag_format::record::{self, Place};
use dag_types::{Chain, LogId};
use storage::disk::{Disk, OpenMode};
use storage::log::{LogEntry, LogExpectations, LogOpenFault, VoteRecord};

use super::rig::{Rig, Rng, all, entry, flushed, position, small_segments};

fn open(rig: &mut Rig) -> Result<Vec<LogEntry>, LogOpenFault> {
    rig.open(LogExpectations::default()).map(|()| all(rig.log()))
}

/// Where the batch with this number begins, and in which segment.
fn find_batch(rig: &Rig, wanted: u64) -> (std::path::PathBuf, u64, BatchStart) {
    for (number, path) in (1..).zip(rig.segments()) {
        let bytes = contents(rig, &path);
        for position in (0..bytes.len() as u64).step_by(4096) {
            let place = Place { segment: number, position, session: 0 };
            let Ok(record) = record::read(&bytes[position as usize..], place) else { continue };
            if let Ok(LogRecord::BatchStart(start)) = LogRecord::decode(record)
                && start.batch == wanted
            {
                return (path, position, start);
            }
        }
    }
    panic!("there is no batch {wanted}");
}

fn contents(rig: &Rig, path: &std::path::Path) -> Vec<u8> {
    storage::disk::read_whole(&rig.disk, path).unwrap()
}

/// Exchanges bytes of a file for good.
fn overwrite(rig: &Rig, path: &std::path::Path, at: u64, bytes: &[u8]) {
    let mut whole = contents(rig, path);
    whole[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    let file = rig.disk.open(path, OpenMode::Direct).unwrap();
    let mut buffer = storage::disk::AlignedBuffer::new(whole.len());
    buffer.push(&whole);
    file.write_at(buffer.padded(), 0).unwrap();
    file.sync().unwrap();
}

#[test]
fn a_torn_tail_behind_the_last_claim_is_cut() {
    let mut rig = Rig::new(1, small_segments());
    rig.fill(1, 5, 100);
    rig.kill();
    let (path, position, _) = find_batch(&rig, 6);
    rig.disk.flip_bit(&path, position + 60, 1).unwrap();
    assert_eq!(open(&mut rig).unwrap().len(), 4);
}

#[test]
fn a_batch_that_was_claimed_is_not_cut() {
    let mut rig = Rig::new(2, small_segments());
    rig.fill(1, 5, 100);
    rig.rest();
    rig.kill();
    let (path, position, _) = find_batch(&rig, 6);
    rig.disk.flip_bit(&path, position + 60, 1).unwrap();
    assert_eq!(open(&mut rig), Err(LogOpenFault::TailLost { found: 5, claimed: 6 }));
}

#[test]
fn claims_behind_several_bad_batches_count_too() {
    let mut rig = Rig::new(3, small_segments());
    rig.fill(1, 40, 4000);
    rig.kill();
    for batch in 10..30 {
        let (path, position, _) = find_batch(&rig, batch);
        rig.disk.flip_bit(&path, position + 8, 0).unwrap();
    }
    assert_eq!(open(&mut rig), Err(LogOpenFault::TailLost { found: 9, claimed: 40 }));
}

#[test]
fn a_last_segment_that_is_gone_is_noticed_by_the_seal_before_it() {
    let mut rig = Rig::new(4, small_segments());
    while rig.segments().len() < 3 {
        rig.fill(1, 1, 9000);
    }
    rig.fill(1, 10, 4000);
    rig.rest();
    rig.kill();
    let last_used = rig.segments().len();
    for path in &rig.segments()[1..last_used] {
        rig.disk.remove_file(path).unwrap();
    }
    assert!(matches!(open(&mut rig), Err(LogOpenFault::TailLost { .. })));
}

#[test]
fn a_vote_that_is_gone_from_the_end_of_a_segment_is_noticed() {
    let mut rig = Rig::new(17, small_segments());
    rig.fill(1, 13, 100);
    rig.vote(3);
    rig.settle();
    rig.fill(1, 5, 100);
    rig.kill();
    let (path, position, _) = find_batch(&rig, 15);
    assert_eq!((&path, position), (&rig.segments()[0], 14 * 4096), "the last one before the seal");
    rig.disk.flip_bit(&path, position + 60, 1).unwrap();
    assert!(matches!(open(&mut rig), Err(LogOpenFault::TailLost { found: 14, .. })));
}

#[test]
fn a_segment_missing_in_the_middle_is_noticed() {
    let mut rig = Rig::new(5, small_segments());
    rig.fill(1, 60, 9000);
    rig.kill();
    rig.disk.remove_file(&rig.segments()[1]).unwrap();
    assert_eq!(open(&mut rig), Err(LogOpenFault::SegmentMissing { segment: 2 }));
}

#[test]
fn a_first_segment_that_is_gone_without_a_purge_is_a_hole() {
    let mut rig = Rig::new(6, small_segments());
    rig.fill(1, 60, 9000);
    rig.kill();
    rig.disk.remove_file(&rig.segments()[0]).unwrap();
    assert_eq!(open(&mut rig), Err(LogOpenFault::Hole { index: 0 }));
}

#[test]
fn a_truncated_segment_is_noticed() {
    for keep in [0, 1000, 4096, 20_000, 65_000] {
        let mut rig = Rig::new(7, small_segments());
        rig.fill(1, 60, 9000);
        rig.rest();
        rig.kill();
        let path = rig.segments()[0].clone();
        rig.disk.cut_file(&path, keep).unwrap();
        assert!(open(&mut rig).is_err(), "{keep} bytes left");
    }
}

#[test]
fn a_broken_chain_is_noticed() {
    let mut rig = Rig::new(8, small_segments());
    rig.fill(1, 5, 100);
    rig.rest();
    rig.kill();
    let (path, at, start) = find_batch(&rig, 4);
    let place = Place { segment: 1, position: at + BATCH_START_BYTES as u64, session: 1 };
    let forged = entry(1, 2, 100);
    let record = LogRecord::Entry(EntryRecord {
        id: forged.id,
        kind: 1,
        chain: Chain([7; 16]),
        payload: &forged.payload,
    });
    let mut bytes = Vec::new();
    record.encode(place, &mut bytes);
    assert_eq!(bytes.len() + BATCH_START_BYTES, start.bytes as usize, "the forgery fits");
    overwrite(&rig, &path, place.position, &bytes);
    assert_eq!(open(&mut rig), Err(LogOpenFault::BrokenChain { index: 2 }));
}

#[test]
fn a_state_whose_chain_differs_from_the_logs_is_noticed() {
    let mut rig = Rig::new(9, small_segments());
    rig.fill(1, 5, 100);
    rig.rest();
    rig.kill();
    let other = (LogId { term: 1, index: 3 }, Chain([9; 16]));
    assert_eq!(rig.open(flushed(other)), Err(LogOpenFault::BrokenChain { index: 3 }));
}

#[test]
fn a_log_purged_beyond_the_flushed_state_is_noticed() {
    let mut rig = Rig::new(10, small_segments());
    rig.fill(1, 9, 100);
    let early = position(rig.log(), 2);
    let point = rig.flush_through(6);
    rig.log().purge(point.0).unwrap();
    rig.rest();
    rig.kill();
    let fault = rig.open(flushed(early)).unwrap_err();
    let (purged, flushed) = (Some(point.0), Some(early.0));
    assert_eq!(fault, LogOpenFault::PurgedBeyondFlushed { purged, flushed });
}

#[test]
#[should_panic(expected = "only after the state has flushed as far")]
fn a_purge_beyond_the_flushed_state_is_not_made() {
    let mut rig = Rig::new(11, small_segments());
    rig.fill(1, 9, 100);
    rig.flush_through(3);
    let _ = rig.log().purge(LogId { term: 1, index: 4 });
}

#[test]
fn a_log_older_than_the_purge_point_in_meta_is_noticed() {
    let mut rig = Rig::new(12, small_segments());
    rig.fill(1, 9, 100);
    let point = position(rig.log(), 5);
    rig.rest();
    rig.kill();
    let expected =
        LogExpectations { flushed: Some(point), purged: Some(point), ..Default::default() };
    assert_eq!(rig.open(expected), Err(LogOpenFault::PurgeWentBack { meta: point.0, log: None }));
}

#[test]
fn a_log_older_than_the_vote_that_the_node_remembers_is_noticed() {
    let mut rig = Rig::new(13, small_segments());
    rig.vote(4);
    rig.rest();
    rig.kill();
    let vote = Some(VoteRecord { term: 5, voted_for: 1, committed: false });
    let fault = rig.open(LogExpectations { vote, ..Default::default() }).unwrap_err();
    assert_eq!(fault, LogOpenFault::VoteWentBack { remembered: 5, found: Some(4) });
}

#[test]
fn a_record_of_an_unknown_type_or_version_is_never_skipped() {
    for (kind, version) in [(99, 1), (3, 2)] {
        let mut rig = Rig::new(14, small_segments());
        rig.fill(1, 5, 100);
        rig.kill();
        let (path, at, _) = find_batch(&rig, 6);
        let position = at + BATCH_START_BYTES as u64;
        let place = Place { segment: 1, position, session: 1 };
        let old = contents(&rig, &path);
        let payload = record::read(&old[position as usize..], place).unwrap().payload.to_vec();
        let head = record::header(kind, version, place, &[&payload]);
        overwrite(&rig, &path, position, &head);
        assert!(matches!(open(&mut rig), Err(LogOpenFault::Format { .. })));
    }
}

#[test]
fn a_batch_from_an_opening_that_meta_does_not_know_is_noticed() {
    let mut rig = Rig::new(15, small_segments());
    rig.fill(1, 5, 100);
    rig.kill();
    let (path, at, start) = find_batch(&rig, 6);
    let mut bytes = Vec::new();
    LogRecord::BatchStart(BatchStart { session: 9, ..start })
        .encode(Place { segment: 1, position: at, session: 0 }, &mut bytes);
    overwrite(&rig, &path, at, &bytes);
    let fault = open(&mut rig).unwrap_err();
    assert_eq!(fault, LogOpenFault::SessionFromTheFuture { found: 9, known: 2 });
}

#[test]
fn what_an_interrupted_opening_left_behind_the_end_is_never_taken_for_new() {
    // A torn batch is followed by one that holds: both are behind the end and are cut. What is
    // written over the first ends exactly where the second begins.
    let mut rig = Rig::new(16, small_segments());
    rig.fill(1, 2, 100);
    let torn = rig.append(vec![entry(1, 2, 100)]);
    rig.settle();
    assert!(torn.is_ok());
    rig.fill(1, 1, 100);
    rig.kill();
    let (path, at, start) = find_batch(&rig, 5);
    // The second did not know that the first was durable.
    let mut bytes = Vec::new();
    LogRecord::BatchStart(BatchStart { synced_through: 3, ..start })
        .encode(Place { segment: 1, position: at, session: 0 }, &mut bytes);
    overwrite(&rig, &path, at, &bytes);
    let (path, at, _) = find_batch(&rig, 4);
    rig.disk.flip_bit(&path, at + 70, 2).unwrap();
    assert_eq!(open(&mut rig).unwrap().len(), 2);
    rig.fill(1, 1, 100);
    rig.kill();
    assert_eq!(open(&mut rig).unwrap().len(), 3, "the old fourth entry does not come back");
}

/// A log with all that a log can hold, and what of it was acknowledged.
fn rich(seed: u64, rest: bool) -> (Rig, Vec<LogEntry>, LogExpectations) {
    let mut rig = Rig::new(seed, small_segments());
    rig.fill(1, 20, 3000);
    rig.vote(2);
    rig.truncate(Some(16));
    rig.fill(2, 10, 7000);
    let point = rig.flush_through(8);
    rig.log().purge(point.0).unwrap();
    rig.log().save_committed(Some(point.0));
    rig.fill(2, 10, 500);
    if rest {
        rig.rest();
    }
    let held = all(rig.log());
    rig.kill();
    (rig, held, flushed(point))
}

#[test]
fn a_flipped_bit_anywhere_fails_the_copy_or_changes_nothing_that_was_claimed() {
    let mut rng = Rng(77);
    let (mut failed, mut whole) = (0, 0);
    for case in 0..600 {
        let rest = case % 2 == 0;
        let (mut rig, held, expected) = rich(case, rest);
        let files = rig.segments();
        let path = files[rng.below(files.len() as u64) as usize].clone();
        let bytes = rig.disk.open(&path, OpenMode::Read).unwrap().len().unwrap();
        let at = rng.below(bytes);
        rig.disk.flip_bit(&path, at, rng.below(8) as u8).unwrap();
        match rig.open(expected) {
            Err(_) => failed += 1,
            Ok(()) => {
                let found = all(rig.log());
                whole += usize::from(found == held);
                let last_is_gone = !rest && found == held[..held.len() - 1];
                assert!(
                    found == held || last_is_gone,
                    "case {case}: {} of {} entries after a flip in {path:?} at {at}",
                    found.len(),
                    held.len()
                );
            }
        }
    }
    assert!(failed > 100 && whole > 100, "{failed} failed, {whole} were whole");
}

#[test]
fn a_write_to_the_wrong_place_is_noticed() {
    let mut rig = Rig::new(18, small_segments());
    rig.fill(1, 8, 100);
    let path = rig.segments()[0].clone();
    rig.disk.misdirect_write(&path, 3 * 4096);
    rig.fill(1, 3, 100);
    rig.kill();
    let fault = open(&mut rig).unwrap_err();
    assert!(matches!(fault, LogOpenFault::Astray { position: 12_288, .. }), "{fault}");
}

#[test]
fn a_claim_that_overwrites_what_it_vouches_for_is_noticed() {
    let mut rig = Rig::new(19, small_segments());
    rig.fill(1, 8, 100);
    let (path, position, _) = find_batch(&rig, 9);
    rig.disk.misdirect_write(&path, position);
    rig.rest();
    rig.kill();
    let fault = open(&mut rig).unwrap_err();
    assert!(
        matches!(fault, LogOpenFault::Astray { position: at, .. } if at == position),
        "{fault}"
    );
}

#[test]
fn a_last_batch_that_stands_elsewhere_is_noticed() {
    let mut rig = Rig::new(20, small_segments());
    rig.fill(1, 8, 100);
    let (path, position, _) = find_batch(&rig, 9);
    let elsewhere = position + 3 * 4096;
    rig.disk.misdirect_write(&path, elsewhere);
    rig.vote(3);
    rig.settle();
    rig.kill();
    let fault = open(&mut rig).unwrap_err();
    assert!(
        matches!(fault, LogOpenFault::Astray { position: at, .. } if at == elsewhere),
        "{fault}"
    );
}
