//! Random work, random crashes: what was acknowledged is there, nothing else is made up.

use dag_format::chain;
use dag_format::log::LogRecord;
use dag_format::record::{self, Place};
use dag_types::{Chain, LogId};
use storage::disk::{Disk, OpenMode};
use storage::log::{LogEntry, LogExpectations, Position};

use super::rig::{Outcome, Rig, Rng, all, entry, small_segments};

/// What a log should hold after some of the requests.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    purged: Option<Position>,
    entries: Vec<(LogEntry, Chain)>,
    vote: u64,
}

impl Model {
    fn last(&self) -> Option<Position> {
        self.entries.last().map(|(entry, chain)| (entry.id, *chain)).or(self.purged)
    }

    fn next_index(&self) -> u64 {
        self.last().map_or(0, |(id, _)| id.index + 1)
    }

    fn append(&mut self, entry: LogEntry) {
        let before = self.last().map_or(Chain::START, |(_, chain)| chain);
        let chain = chain::next(before, entry.id, entry.kind, &entry.payload);
        self.entries.push((entry, chain));
    }

    fn truncate_after(&mut self, index: u64) {
        self.entries.retain(|(entry, _)| entry.id.index <= index);
    }

    fn purge(&mut self, upto: LogId) {
        let at = self.entries.iter().find(|(entry, _)| entry.id == upto).expect("held");
        self.purged = Some((at.0.id, at.1));
        self.entries.retain(|(entry, _)| entry.id.index > upto.index);
    }
}

fn found(rig: &Rig) -> Model {
    let log = rig.log();
    let purged = log.bounds().purged;
    let entries = all(log).into_iter().map(|entry| {
        let chain = log.chain_at(entry.id.index).expect("an entry that was read");
        (entry, chain)
    });
    Model {
        purged: purged.map(|id| (id, log.chain_at(id.index).expect("the purge point"))),
        entries: entries.collect(),
        vote: log.vote().map_or(0, |vote| vote.term),
    }
}

struct Run {
    rig: Rig,
    rng: Rng,
    /// What the log should hold after each request since the last open; the first is what it
    /// held then. With the acknowledgement of the request, where it has one.
    steps: Vec<(Model, Option<Outcome>)>,
    term: u64,
    flushed: Option<Position>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rig = Rig::new(seed, small_segments());
        rig.cache_bytes = 50_000;
        let steps = vec![(Model::default(), None)];
        Self { rig, rng: Rng(seed ^ 0xfeed), steps, term: 1, flushed: None }
    }

    fn model(&self) -> Model {
        self.steps.last().expect("never empty").0.clone()
    }

    fn request(&mut self) {
        match self.rng.below(20) {
            0 => self.vote(),
            1 | 2 => self.truncate(),
            3 => self.flush_and_purge(),
            4 => self.rig.log().save_committed(self.model().last().map(|(id, _)| id)),
            _ => self.append(),
        }
    }

    fn append(&mut self) {
        let mut model = self.model();
        let count = 1 + self.rng.below(6);
        let mut entries = Vec::new();
        for _ in 0..count {
            let bytes = match self.rng.below(100) {
                0 => 300_000,
                1..20 => self.rng.below(30_000),
                _ => self.rng.below(600),
            };
            let next = entry(self.term, model.next_index(), bytes as usize);
            entries.push(next.clone());
            model.append(next);
            self.steps.push((model.clone(), None));
        }
        let outcome = self.rig.append(entries);
        self.steps.last_mut().expect("never empty").1 = Some(outcome);
    }

    fn vote(&mut self) {
        self.term += 1;
        let mut model = self.model();
        model.vote = self.term;
        let outcome = self.rig.vote(self.term);
        self.steps.push((model, Some(outcome)));
    }

    fn truncate(&mut self) {
        let mut model = self.model();
        let flushed = self.flushed.map_or(0, |(id, _)| id.index + 1);
        let behind = model.next_index().saturating_sub(flushed);
        if behind == 0 || flushed == 0 {
            return;
        }
        let keep = flushed - 1 + self.rng.below(behind + 1);
        model.truncate_after(keep);
        self.term += 1;
        let outcome = self.rig.truncate(Some(keep));
        self.steps.push((model, Some(outcome)));
    }

    /// What is durable in the log is flushed, sometimes; then part of it is purged.
    fn flush_and_purge(&mut self) {
        let mut model = self.model();
        let Some(durable) = self.rig.log().bounds().durable else { return };
        let held = model.entries.iter().filter(|(entry, _)| entry.id.index <= durable.index);
        let Some((last, chain)) = held.last().cloned() else { return };
        if self.flushed.is_some_and(|(id, _)| id.index >= last.id.index) {
            return;
        }
        self.flushed = Some((last.id, chain));
        self.rig.log().set_flushed((last.id, chain));
        let back = self.rng.below(4) as usize;
        let upto = model.entries.iter().rev().filter(|(entry, _)| entry.id <= last.id).nth(back);
        if let Some(upto) = upto.map(|(entry, _)| entry.id) {
            model.purge(upto);
            self.rig.log().purge(upto).expect("a purge within what is flushed");
            self.steps.push((model, None));
        }
    }

    fn crash_and_check(&mut self) {
        let acknowledged = self
            .steps
            .iter()
            .rposition(|(_, outcome)| outcome.as_ref().is_some_and(Outcome::is_ok));
        self.rig.crash();
        let meta = *self.rig.notes.purged.lock().unwrap();
        let expected = LogExpectations { flushed: self.flushed, purged: meta, vote: None };
        self.rig.open(expected).expect("a crash alone never fails a copy");
        let found = found(&self.rig);
        let possible = &self.steps[acknowledged.unwrap_or(0)..];
        assert!(
            possible.iter().any(|(model, _)| *model == found),
            "the log holds what no run of requests gives: {:?} of {} possible",
            found.entries.iter().map(|(entry, _)| entry.id).collect::<Vec<_>>(),
            possible.len(),
        );
        if let Some((id, _)) = self.flushed
            && id.index >= found.next_index()
        {
            self.flushed = found.last();
        }
        self.steps = vec![(found, None)];
    }
}

fn run(seed: u64, requests: u64) -> (u64, u64) {
    let mut run = Run::new(seed);
    let (mut crashes, mut acknowledged) = (0, 0);
    for _ in 0..requests {
        run.request();
        for _ in 0..run.rng.below(12) {
            run.rig.pump();
        }
        if run.rng.below(25) == 0 {
            run.rig.rest();
        }
        if run.rng.below(30) == 0 {
            acknowledged += run
                .steps
                .iter()
                .filter(|(_, outcome)| outcome.as_ref().is_some_and(Outcome::is_ok))
                .count() as u64;
            run.crash_and_check();
            crashes += 1;
        }
    }
    (crashes, acknowledged)
}

#[test]
fn everything_acknowledged_is_there_after_every_crash() {
    let (mut crashes, mut acknowledged) = (0, 0);
    for seed in 0..60 {
        let (these, those) = run(seed, 400);
        crashes += these;
        acknowledged += those;
    }
    assert!(crashes > 500 && acknowledged > 5000, "{crashes} crashes, {acknowledged} acknowledged");
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let disk = |seed| {
        let mut run = Run::new(seed);
        for _ in 0..150 {
            run.request();
            run.rig.pump();
        }
        run.rig.crash();
        let read = |path: &std::path::PathBuf| {
            storage::disk::read_whole(&run.rig.disk, path).expect("a file of the list")
        };
        run.rig.disk.files().iter().map(|path| (path.clone(), read(path))).collect::<Vec<_>>()
    };
    assert_eq!(disk(5), disk(5));
}

/// Where a record stands in the only segment of [`small_log`], and how long its payload is.
struct Found {
    at: usize,
    session: u64,
    payload: usize,
}

const SEGMENT: u64 = 1;

/// A log with a bit of everything, closed.
fn small_log() -> Rig {
    let mut rig = Rig::new(7, small_segments());
    rig.fill(1, 4, 100);
    rig.vote(2);
    rig.truncate(Some(2));
    rig.fill(2, 2, 60);
    rig.rest();
    rig.kill();
    rig
}

fn records(image: &[u8]) -> Vec<Found> {
    let read = |at: usize, session| {
        let place = Place { segment: SEGMENT, position: at as u64, session };
        record::read(&image[at..], place).ok()
    };
    let mut all = Vec::new();
    for block in (0..image.len()).step_by(4096) {
        let Some(first) = read(block, 0) else { continue };
        all.push(Found { at: block, session: 0, payload: first.payload.len() });
        let Ok(LogRecord::BatchStart(start)) = LogRecord::decode(first) else { continue };
        let mut at = block + first.bytes();
        for _ in 0..start.records {
            let next = read(at, start.session).expect("a record of the batch");
            let payload = next.payload.len();
            all.push(Found { at, session: start.session, payload });
            at += next.bytes();
        }
    }
    all
}

/// Makes the checksums fit to what the records say now.
fn mend(image: &mut [u8], records: &[Found]) {
    for found in records {
        let begin = found.at + record::HEADER_BYTES;
        let (head, payload) = (&image[found.at..begin], &image[begin..begin + found.payload]);
        let place = Place { segment: SEGMENT, position: found.at as u64, session: found.session };
        let head = record::header(head[8], head[9], place, &[payload]);
        image[found.at..begin].copy_from_slice(&head);
    }
}

/// The input names bytes of records and what they become. With every second one, checksums are made
/// to fit: what a program with a fault would have written, and no disk.
#[test]
fn a_segment_that_says_anything_is_opened_or_refused() {
    let rig = small_log();
    let path = rig.segments().remove(0);
    let pristine = storage::disk::read_whole(&rig.disk, &path).expect("the segment");
    let found = records(&pristine);
    assert!(found.len() > 8, "{} records", found.len());
    let samples = vec![vec![1, 0, 20, 255], vec![0, 3, 24, 0, 4, 30, 255], vec![1, 2, 10, 9]];
    let target = fuzzing::Target { name: "segment", samples, words: &[], longest: 24 };
    fuzzing::run(target, |input| {
        let Some((fits, changes)) = input.split_first() else { return 0 };
        let mut image = pristine.clone();
        for change in changes.chunks_exact(3) {
            let record = &found[usize::from(change[0]) % found.len()];
            let length = record::HEADER_BYTES + record.payload;
            image[record.at + usize::from(change[1]) % length] = change[2];
        }
        if fits & 1 == 1 {
            mend(&mut image, &found);
        }
        let mut rig = small_log();
        overwrite_whole(&rig, &path, &image);
        match rig.open(LogExpectations::default()) {
            Err(fault) => fuzzing::answer(&fault),
            Ok(()) => 1 + all(rig.log()).len().min(9) as u64,
        }
    });
}

fn overwrite_whole(rig: &Rig, path: &std::path::Path, bytes: &[u8]) {
    let file = rig.disk.open(path, OpenMode::Direct).expect("the segment");
    let mut buffer = storage::disk::AlignedBuffer::new(bytes.len());
    buffer.push(bytes);
    file.write_at(buffer.padded(), 0).expect("room");
    file.sync().expect("a disk without faults");
}
