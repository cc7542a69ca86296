//! A log on a simulated disk, driven by hand on virtual time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dag_types::{LogId, Millis};
use storage::disk::{SimDisk, SimDiskOptions};
use storage::log::{
    CopyLog, Done, EntryCache, LogEntry, LogExpectations, LogFault, LogObserver, LogOpenFault,
    LogPlace, Position, SegmentSizes, VoteRecord,
};
use storage::volume::{Pumped, Volume, VolumeDriver, VolumeOptions};

pub const FOLDER: &str = "/volume/log";

/// The same numbers for the same seed.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// How a request ended, once it did.
#[derive(Clone, Default)]
pub struct Outcome(Arc<Mutex<Option<Result<(), LogFault>>>>);

impl Outcome {
    pub fn done(&self) -> Done {
        let outcome = self.clone();
        Box::new(move |result| {
            let before = outcome.0.lock().unwrap().replace(result);
            assert_eq!(before, None, "a request ends once");
        })
    }

    pub fn get(&self) -> Option<Result<(), LogFault>> {
        self.0.lock().unwrap().clone()
    }

    pub fn is_ok(&self) -> bool {
        self.get() == Some(Ok(()))
    }
}

/// What a log told its copy.
#[derive(Default)]
pub struct Notes {
    pub purged: Mutex<Option<Position>>,
    pub votes: Mutex<Vec<VoteRecord>>,
}

impl LogObserver for Notes {
    fn before_purge(&self, point: Position) -> io::Result<()> {
        *self.purged.lock().unwrap() = Some(point);
        Ok(())
    }

    fn vote_saved(&self, vote: VoteRecord) {
        self.votes.lock().unwrap().push(vote);
    }
}

pub struct Rig {
    pub disk: SimDisk,
    pub options: VolumeOptions,
    pub notes: Arc<Notes>,
    pub cache_bytes: usize,
    session: u64,
    now: Millis,
    life: Option<Life>,
}

struct Life {
    volume: Volume,
    driver: VolumeDriver,
    log: CopyLog,
}

pub fn small_segments() -> VolumeOptions {
    let segments = SegmentSizes { bytes_min: 64 << 10, bytes_max: 256 << 10, recycled_max: 2 };
    VolumeOptions { segments, ..VolumeOptions::default() }
}

impl Rig {
    /// An empty log on a new disk.
    pub fn new(seed: u64, options: VolumeOptions) -> Self {
        Self::on(SimDisk::new(seed, SimDiskOptions::default()), options, None)
    }

    pub fn on(disk: SimDisk, options: VolumeOptions, start: Option<Position>) -> Self {
        let mut rig = Self {
            disk,
            options,
            notes: Arc::default(),
            cache_bytes: 1 << 20,
            session: 0,
            now: Millis(1000),
            life: None,
        };
        let (place, volume, driver) = rig.place();
        let log = CopyLog::create(place, start, None).expect("a log on an empty disk");
        storage::disk::Disk::sync_dir(&rig.disk, Path::new("/")).unwrap();
        storage::disk::Disk::sync_dir(&rig.disk, Path::new("/volume")).unwrap();
        rig.life = Some(Life { volume, driver, log });
        rig
    }

    fn place(&mut self) -> (LogPlace, Volume, VolumeDriver) {
        self.session += 1;
        let (volume, driver) = Volume::simulated(Arc::new(self.disk.clone()), self.options.clone());
        let place = LogPlace {
            volume: volume.clone(),
            cache: Arc::new(EntryCache::new(self.cache_bytes)),
            folder: PathBuf::from(FOLDER),
            session: self.session,
            observer: self.notes.clone(),
        };
        (place, volume, driver)
    }

    pub fn log(&self) -> &CopyLog {
        &self.life.as_ref().expect("the log is open").log
    }

    pub fn volume(&self) -> &Volume {
        &self.life.as_ref().expect("the log is open").volume
    }

    /// Opens the log after [`Rig::crash`] or [`Rig::kill`].
    pub fn open(&mut self, expected: LogExpectations) -> Result<(), LogOpenFault> {
        assert!(self.life.is_none(), "the log is not open");
        let (place, volume, driver) = self.place();
        let log = CopyLog::open(place, expected)?;
        self.life = Some(Life { volume, driver, log });
        Ok(())
    }

    /// The power goes; what is under way is never heard of again.
    pub fn crash(&mut self) {
        self.life = None;
        self.disk.crash();
    }

    /// The process ends.
    pub fn kill(&mut self) {
        self.life = None;
        self.disk.kill();
    }

    /// Does one thing; false where there is nothing to do now.
    pub fn pump(&mut self) -> bool {
        let life = self.life.as_mut().expect("the log is open");
        match life.driver.pump(self.now) {
            Pumped::Again(latency) => {
                self.now = self.now + Millis(latency.div_ceil_ms());
                true
            }
            Pumped::Wait(_) => false,
        }
    }

    /// Until there is nothing to do at this moment; claims that are not due stay unwritten.
    pub fn settle(&mut self) {
        let now = self.now;
        while self.pump() {
            self.now = now;
        }
    }

    /// Time passes, claims are written.
    pub fn rest(&mut self) {
        self.settle();
        self.now = self.now + Millis(50);
        self.settle();
    }

    pub fn append(&self, entries: Vec<LogEntry>) -> Outcome {
        let outcome = Outcome::default();
        self.log().append(entries, outcome.done());
        outcome
    }

    pub fn vote(&self, term: u64) -> Outcome {
        let outcome = Outcome::default();
        self.log().save_vote(VoteRecord { term, voted_for: 1, committed: false }, outcome.done());
        outcome
    }

    pub fn truncate(&self, index: Option<u64>) -> Outcome {
        let outcome = Outcome::default();
        self.log().truncate_after(index, outcome.done());
        outcome
    }

    /// Appends `count` entries of `bytes` each, of this term, and waits.
    pub fn fill(&mut self, term: u64, count: u64, bytes: usize) {
        for _ in 0..count {
            let next = self.log().bounds().last.map_or(0, |last| last.index + 1);
            let outcome = self.append(vec![entry(term, next, bytes)]);
            self.settle();
            assert!(outcome.is_ok(), "{:?}", outcome.get());
        }
    }

    /// The state flushed through here.
    pub fn flush_through(&self, index: u64) -> Position {
        let position = position(self.log(), index);
        self.log().set_flushed(position);
        position
    }

    pub fn segments(&self) -> Vec<PathBuf> {
        let mut files = self.disk.files();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        files
    }
}

trait DivCeilMs {
    fn div_ceil_ms(self) -> u64;
}

impl DivCeilMs for Duration {
    fn div_ceil_ms(self) -> u64 {
        u64::try_from(self.as_micros().div_ceil(1000)).expect("a short time")
    }
}

/// An entry whose payload can be told from every other's.
pub fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let mut rng = Rng(term << 32 ^ index);
    let payload: Vec<u8> = (0..bytes).map(|_| rng.next() as u8).collect();
    LogEntry { id: LogId { term, index }, kind: 1, payload: Bytes::from(payload) }
}

pub fn position(log: &CopyLog, index: u64) -> Position {
    let bounds = log.bounds();
    let chain = log.chain_at(index).expect("the entry is there");
    let read = log.read(index, index + 1, 1).ok().and_then(|entries| entries.first().cloned());
    let id = read.map(|entry| entry.id);
    (id.or(bounds.purged).expect("the entry or the purge point"), chain)
}

pub fn flushed(position: Position) -> LogExpectations {
    LogExpectations { flushed: Some(position), ..LogExpectations::default() }
}

/// Everything behind the purge point.
pub fn all(log: &CopyLog) -> Vec<LogEntry> {
    let bounds = log.bounds();
    let from = bounds.purged.map_or(0, |id| id.index + 1);
    let to = bounds.last.map_or(0, |id| id.index + 1);
    log.read(from, to, usize::MAX).expect("the log reads")
}
