//! One copy's log: votes, entries, cuts and purges as records of one stream of segments.
//!
//! ```text
//!  append ──► memory (readable) ──► job ──► scheduler ──► one aligned write ──► one sync ──► done
//!                                             (one per volume, all logs together)
//! ```
//! What was asked for is visible at once and durable when [`Done`] says so; requests to one log
//! become durable in the order in which they were made. A write or sync that fails ends the log:
//! everything that waits gets the fault, and nothing is written to it any more.
//!
//! Read on in: `writer` (how a batch is placed), `recover` (what open checks), [`scheduler`] (who
//! writes when), and `dag_format::log` (the bytes).

mod batch;
mod cache;
mod index;
mod job;
mod memory;
mod read;
mod recover;
pub mod scheduler;
mod segment;
mod types;
mod writer;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dag_types::{Chain, LogId, Millis, Mutant};

pub use self::cache::EntryCache;
use self::job::{Job, Work};
use self::memory::Memory;
use self::read::{Source, Stored};
use self::scheduler::LogKey;
pub use self::segment::SegmentSizes;
pub use self::types::{Done, LogBounds, LogEntry, LogFault, LogOpenFault, Position, VoteRecord};
use self::writer::{Next, Summary, Writer, Written};
use crate::disk::{AlignedBuffer, Disk, DiskFile};
use crate::volume::{Chore, Volume};

/// Who must know what becomes of a log: its copy's META and the node's root.
pub trait LogObserver: Send + Sync + 'static {
    /// Called before segments are given up, with the purge point that allows it, on the volume's
    /// background thread. The point must be durable on return; an error fails the log.
    fn before_purge(&self, point: Position) -> io::Result<()>;
    /// Called from the log thread when a vote is durable. It must not wait.
    fn vote_saved(&self, vote: VoteRecord);
}

/// What a log is opened with.
pub struct LogPlace {
    /// The volume it lies on.
    pub volume: Volume,
    /// The node's cache.
    pub cache: Arc<EntryCache>,
    /// Its folder.
    pub folder: PathBuf,
    /// Which opening of the copy this is. Durable before the log is opened, and never used twice:
    /// it tells what this opening writes from what an interrupted one left behind.
    pub session: u64,
    /// Who must know what becomes of it.
    pub observer: Arc<dyn LogObserver>,
}

/// What others know about a log; a log that knows less was turned back.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogExpectations {
    /// What the state has flushed. It may exceed the log's end; the purge point may not exceed it.
    pub flushed: Option<Position>,
    /// The purge point in META.
    pub purged: Option<Position>,
    /// The vote that the node remembers.
    pub vote: Option<VoteRecord>,
}

/// One copy's log. Clones are the same log.
#[derive(Clone)]
pub struct CopyLog {
    shared: Arc<Shared>,
}

/// What users and the volume's log thread share.
pub(crate) struct Shared {
    key: LogKey,
    volume: Volume,
    cache: Arc<EntryCache>,
    shelf: u64,
    folder: PathBuf,
    observer: Arc<dyn LogObserver>,
    memory: Mutex<Memory>,
    /// Never locked while `memory` is.
    writer: Mutex<Writer>,
}

impl CopyLog {
    /// Makes a log in a new folder: empty, or beginning behind `start` where the state was filled
    /// from elsewhere. Durable on return.
    pub fn create(
        place: LogPlace,
        start: Option<Position>,
        vote: Option<VoteRecord>,
    ) -> Result<Self, LogOpenFault> {
        let disk = place.volume.disk().clone();
        let made = |operation| move |fault: io::Error| LogOpenFault::from_io(operation, &fault);
        disk.create_dir_all(&place.folder).map_err(made("make the log's folder"))?;
        let sizes = place.volume.options().segments;
        segment::remove_passing(&*disk, &place.folder).map_err(made("clean the log's folder"))?;
        let first = segment::prepare(&*disk, &place.folder, segment::SPARE, sizes.bytes_min)
            .and_then(|bytes| segment::adopt(&*disk, &place.folder, segment::SPARE, 1, bytes))
            .map_err(made("make a segment"))?;
        let summary = Summary { last: start, purged: start, vote, committed: None };
        let mut writer =
            Writer { summary: summary.clone(), ..new_writer(&place, disk, first.clone(), 1) };
        write_first(&mut writer)?;
        let index = index::Index::starting_at(start.map_or(0, |(id, _)| id.index + 1));
        let memory = new_memory(index, &summary, start, [(1, first)].into());
        Ok(Self::attach(place, memory, writer))
    }

    /// Opens a log: reads it, checks it, cuts a torn tail.
    pub fn open(place: LogPlace, expected: LogExpectations) -> Result<Self, LogOpenFault> {
        let disk = place.volume.disk().clone();
        let found = recover::recover(&*disk, &place.folder, place.session)?;
        check_expectations(&found, expected)?;
        let io = |operation| move |fault: io::Error| LogOpenFault::from_io(operation, &fault);
        segment::remove_passing(&*disk, &place.folder).map_err(io("clean the log's folder"))?;
        let segment = found.segments[&found.number].clone();
        // What was read may still lie in a cache; nothing is counted as durable before it is.
        for number in [found.number.wrapping_sub(1), found.number] {
            if let Some(segment) = found.segments.get(&number) {
                segment.file.sync().map_err(io("sync the log"))?;
            }
        }
        let mut writer = Writer {
            summary: found.summary.clone(),
            position: found.position,
            batch: found.batch,
            synced_through: found.batch,
            ..new_writer(&place, disk, segment, found.number)
        };
        if let Some(next) = found.next {
            writer.next = Next::Numbered(next);
        }
        let memory = new_memory(found.index, &found.summary, expected.flushed, found.segments);
        Ok(Self::attach(place, memory, writer))
    }

    fn attach(place: LogPlace, memory: Memory, writer: Writer) -> Self {
        let shared = Arc::new(Shared {
            key: place.volume.new_key(),
            shelf: place.cache.shelf(),
            volume: place.volume,
            cache: place.cache,
            folder: place.folder,
            observer: place.observer,
            memory: Mutex::new(memory),
            writer: Mutex::new(writer),
        });
        shared.volume.attach(shared.key, shared.clone());
        Self { shared }
    }

    /// Appends entries, which follow the last one. Readable on return, durable when `done` says so.
    pub fn append(&self, entries: Vec<LogEntry>, done: Done) {
        let mut memory = self.shared.memory();
        if let Some(fault) = memory.fault.clone() {
            drop(memory);
            return done(Err(fault));
        }
        let limit = self.shared.volume.options().write_bytes_max;
        let mut done = Some(done);
        let mut part = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let more = batch::entry_bytes(entry.payload.len());
            if bytes + more > limit && !part.is_empty() {
                self.shared.queue(&mut memory, Work::Append(std::mem::take(&mut part)), None);
                bytes = 0;
            }
            bytes += more;
            part.push(memory.append(entry));
        }
        let work = if part.is_empty() { Work::Sync } else { Work::Append(part) };
        self.shared.queue(&mut memory, work, done.take());
    }

    /// Cuts everything behind `index`; `None`: everything that is not purged.
    pub fn truncate_after(&self, index: Option<u64>, done: Done) {
        self.shared.request(done, |memory| {
            let kept = memory.truncate_after(index);
            let end = index.map_or(memory.index.first(), |index| index + 1);
            self.shared.cache.forget(self.shared.shelf, end, u64::MAX);
            Work::Truncate(kept)
        });
    }

    /// Saves Raft's vote, which never goes back to an earlier term.
    pub fn save_vote(&self, vote: VoteRecord, done: Done) {
        let done = if Mutant::VoteNotDurable.planted() {
            done(Ok(()));
            Box::new(|_| ())
        } else {
            done
        };
        self.shared.request(done, |memory| {
            let term = memory.vote.map_or(0, |before| before.term);
            assert!(vote.term >= term, "a vote does not go back from term {term}");
            memory.vote = Some(vote);
            Work::Vote(vote)
        });
    }

    /// Notes the commit position. It rides with the next write and has no sync of its own.
    pub fn save_committed(&self, id: Option<LogId>) {
        let mut memory = self.shared.memory();
        if memory.committed != id {
            memory.committed = id;
            memory.committed_changed = true;
        }
    }

    /// Gives up the log through `upto`, in whole segments, once the purge point is durable. Never
    /// beyond what the state has flushed: a crash would need those entries again.
    ///
    /// An entry that the log does not hold is allowed where the flushed state ends exactly there:
    /// then the log begins anew behind it.
    pub fn purge(&self, upto: LogId) -> Result<(), LogFault> {
        let mut memory = self.shared.memory();
        if let Some(fault) = memory.fault.clone() {
            return Err(fault);
        }
        if memory.purged.is_some_and(|(purged, _)| purged.index >= upto.index) {
            return Ok(());
        }
        assert!(
            memory.flushed.is_some_and(|(flushed, _)| flushed.index >= upto.index)
                || Mutant::PurgePastFlushed.planted(),
            "the log is purged through {upto} only after the state has flushed as far"
        );
        let before = memory.index.first();
        let work = memory.purge(upto).ok_or(LogFault::ChainUnknown { upto })?;
        let to = if memory.last == memory.purged { u64::MAX } else { upto.index + 1 };
        self.shared.cache.forget(self.shared.shelf, before, to);
        self.shared.queue(&mut memory, work, None);
        Ok(())
    }

    /// Tells the log what the state has flushed: the flusher calls it after each flush, and
    /// whoever fills a copy's state from elsewhere.
    pub fn set_flushed(&self, position: Position) {
        let mut memory = self.shared.memory();
        if memory.flushed.is_none_or(|(before, _)| before.index <= position.0.index) {
            memory.flushed = Some(position);
        }
    }

    /// What the state has flushed, as far as the log was told.
    pub fn flushed(&self) -> Option<Position> {
        self.shared.memory().flushed
    }

    /// Calls `done` when everything asked for so far is durable.
    pub fn sync(&self, done: Done) {
        self.shared.request(done, |_| Work::Sync);
    }

    /// Closes the log when everything asked for so far is durable; later requests get
    /// [`LogFault::Closed`].
    pub fn close(&self, done: Done) {
        let Shared { volume, key, cache, shelf, .. } = &*self.shared;
        let (volume, key, cache, shelf) = (volume.clone(), *key, cache.clone(), *shelf);
        let close: Done = Box::new(move |result| {
            volume.detach(key);
            cache.forget(shelf, 0, u64::MAX);
            done(result);
        });
        let mut memory = self.shared.memory();
        if let Some(fault) = memory.fault.clone() {
            drop(memory);
            return close(Err(fault));
        }
        self.shared.queue(&mut memory, Work::Sync, Some(close));
        memory.fault = Some(LogFault::Closed);
    }

    /// Where the log begins and ends.
    pub fn bounds(&self) -> LogBounds {
        self.shared.memory().bounds()
    }

    /// The last vote, durable or not.
    pub fn vote(&self) -> Option<VoteRecord> {
        self.shared.memory().vote
    }

    /// The last commit position that was noted, or that the log held at open.
    pub fn committed(&self) -> Option<LogId> {
        self.shared.memory().committed
    }

    /// Bytes of the payloads behind the purge point: what a purge can give back, roughly.
    pub fn payload_bytes(&self) -> u64 {
        self.shared.memory().index.payload_bytes()
    }

    /// Why the log takes nothing any more, if so.
    pub fn fault(&self) -> Option<LogFault> {
        self.shared.memory().fault.clone()
    }

    /// Entries in `from..to`, in order, as many as there are and fit into `max_bytes` of payload,
    /// but one at least if there is one. May read the disk.
    pub fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<LogEntry>, LogFault> {
        let sources = self.shared.sources(from, to, max_bytes)?;
        read::read_all(sources).map_err(|fault| self.shared.explain(from, fault))
    }

    /// Whether an entry is in memory: then those behind it most likely are too, and reading them
    /// does not wait for the disk.
    pub fn in_memory(&self, index: u64) -> bool {
        self.shared.memory().waiting.contains_key(&index)
            || self.shared.cache.get(self.shared.shelf, index).is_some()
    }

    /// The chain at an entry that is in the log, at the last one, or at the purge point.
    pub fn chain_at(&self, index: u64) -> Option<Chain> {
        self.shared.memory().position(index).map(|(_, chain)| chain)
    }
}

fn new_writer(
    place: &LogPlace,
    disk: Arc<dyn Disk>,
    segment: segment::Segment,
    number: u64,
) -> Writer {
    let sizes = place.volume.options().segments;
    Writer {
        disk,
        folder: place.folder.clone(),
        sizes,
        session: place.session,
        summary: Summary::default(),
        number,
        segment,
        position: 0,
        begun: Millis(0),
        step_bytes: sizes.bytes_min,
        batch: 0,
        synced_through: 0,
        next: Next::Wanted,
        unsealed: None,
        in_flight: VecDeque::new(),
    }
}

/// The batch with the first segment's start; durable on return.
fn write_first(writer: &mut Writer) -> Result<(), LogOpenFault> {
    let mut buffer = AlignedBuffer::new(batch::FRAME_BYTES);
    let written = writer
        .write(Millis(0), VecDeque::new(), None, &mut buffer)
        .map_err(|fault| open_fault("write the log", fault))?;
    for file in written.files {
        file.sync().map_err(|fault| LogOpenFault::from_io("sync the log", &fault))?;
    }
    writer.synced();
    Ok(())
}

fn open_fault(operation: &'static str, fault: LogFault) -> LogOpenFault {
    match fault {
        LogFault::NoSpace { operation } => LogOpenFault::NoSpace { operation },
        other => LogOpenFault::Disk { operation, detail: other.to_string() },
    }
}

fn new_memory(
    index: index::Index,
    summary: &Summary,
    flushed: Option<Position>,
    segments: std::collections::BTreeMap<u64, segment::Segment>,
) -> Memory {
    let last = summary.last.map(|(id, _)| id);
    Memory {
        index,
        purged: summary.purged,
        last: summary.last,
        durable: last,
        vote: summary.vote,
        committed: summary.committed.filter(|id| last.is_some_and(|last| id.index <= last.index)),
        committed_changed: false,
        flushed,
        waiting: Default::default(),
        jobs: VecDeque::new(),
        segments,
        fault: None,
    }
}

/// Compares a log with what META, the node's root and the state know of it.
fn check_expectations(
    found: &recover::Recovered,
    expected: LogExpectations,
) -> Result<(), LogOpenFault> {
    let index_of = |position: Option<Position>| position.map(|(id, _)| id.index);
    let (purged, flushed) = (found.summary.purged, expected.flushed);
    if index_of(purged) > index_of(flushed) {
        let id = |position: Option<Position>| position.map(|(id, _)| id);
        return Err(LogOpenFault::PurgedBeyondFlushed { purged: id(purged), flushed: id(flushed) });
    }
    if let Some((meta, _)) = expected.purged
        && index_of(purged) < Some(meta.index)
    {
        let log = purged.map(|(id, _)| id);
        return Err(LogOpenFault::PurgeWentBack { meta, log });
    }
    for known in [flushed, expected.purged].into_iter().flatten() {
        let here = [purged, found.summary.last, found.index.position(known.0.index)];
        let differs = here.into_iter().flatten().any(|(id, chain)| {
            id.index == known.0.index && (id != known.0 || !recover::chain_holds(chain, known.1))
        });
        if differs {
            return Err(LogOpenFault::BrokenChain { index: known.0.index });
        }
    }
    let term = found.summary.vote.map(|vote| vote.term);
    match expected.vote {
        Some(vote) if term < Some(vote.term) => {
            Err(LogOpenFault::VoteWentBack { remembered: vote.term, found: term })
        }
        _ => Ok(()),
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no panic while a log's memory is locked")
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect("no panic while a log's end is locked")
    }

    /// Puts a job behind the others. The lock is held so that the scheduler hears of jobs in their
    /// order.
    fn queue(&self, memory: &mut Memory, work: Work, done: Option<Done>) {
        let bytes = batch::job_bytes(&work);
        memory.jobs.push_back(Job { work, done });
        self.volume.queued(self.key, bytes);
    }

    fn request(&self, done: Done, work: impl FnOnce(&mut Memory) -> Work) {
        let mut memory = self.memory();
        if let Some(fault) = memory.fault.clone() {
            drop(memory);
            return done(Err(fault));
        }
        let work = work(&mut memory);
        self.queue(&mut memory, work, Some(done));
    }

    fn sources(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Source>, LogFault> {
        let memory = self.memory();
        if from < memory.index.first() && from < to {
            return Err(LogFault::Gone { index: from });
        }
        let mut sources = Vec::new();
        let mut bytes = 0;
        for index in from..to.min(memory.index.end()) {
            let slot = memory.index.get(index).expect("the index has no gap");
            bytes += slot.bytes as usize;
            if bytes > max_bytes && !sources.is_empty() {
                break;
            }
            sources.push(self.source(&memory, LogId { term: slot.term, index }, slot)?);
        }
        Ok(sources)
    }

    fn source(&self, memory: &Memory, id: LogId, slot: &index::Slot) -> Result<Source, LogFault> {
        let cached = || self.cache.get(self.shelf, id.index).filter(|entry| entry.id == id);
        if let Some(entry) = memory.waiting.get(&id.index).cloned().or_else(cached) {
            return Ok(Source::Memory(entry));
        }
        let segment =
            memory.segments.get(&slot.segment).ok_or(LogFault::Gone { index: id.index })?;
        Ok(Source::Disk(Stored {
            id,
            segment: slot.segment,
            session: slot.session,
            file: segment.file.clone(),
            offset: u64::from(slot.offset),
            bytes: slot.bytes,
        }))
    }

    /// A segment that was recycled while it was being read gives nonsense: that is no fault of the
    /// log. Anything else is one, and ends it.
    fn explain(&self, from: u64, fault: LogFault) -> LogFault {
        let mut memory = self.memory();
        if from < memory.index.first() {
            return LogFault::Gone { index: from };
        }
        if !fault.is_harmless() && memory.fault.is_none() {
            memory.fault = Some(fault.clone());
        }
        fault
    }

    // The rest is called by the volume's driver only.

    pub(crate) fn key(&self) -> LogKey {
        self.key
    }

    /// Writes the next jobs as one batch; gives the files that the sync must cover.
    pub(crate) fn write(
        &self,
        now: Millis,
        jobs: usize,
        buffer: &mut AlignedBuffer,
    ) -> Result<Vec<Arc<dyn DiskFile>>, LogFault> {
        let (taken, committed) = self.take(jobs)?;
        let mut writer = self.writer();
        let written = writer.write(now, taken, committed, buffer)?;
        self.note(&writer, &written);
        if let Some(bytes) = writer.wants() {
            let folder = self.folder.clone();
            self.volume.chore(Chore::Prepare { log: self.key, folder, bytes });
        }
        Ok(written.files)
    }

    fn take(&self, jobs: usize) -> Result<(VecDeque<Job>, Option<Option<LogId>>), LogFault> {
        let mut memory = self.memory();
        if let Some(fault) = memory.fault.clone().filter(|fault| *fault != LogFault::Closed) {
            return Err(fault);
        }
        let rest = memory.jobs.split_off(jobs);
        let taken = std::mem::replace(&mut memory.jobs, rest);
        let writes = jobs == 0 || taken.iter().any(|job| !matches!(job.work, Work::Sync));
        let committed =
            (writes && std::mem::take(&mut memory.committed_changed)).then_some(memory.committed);
        Ok((taken, committed))
    }

    /// Notes where entries stand now; from here on they are read from the cache or the segment.
    fn note(&self, writer: &Writer, written: &Written) {
        let mut memory = self.memory();
        if let Some((number, segment)) = &written.begun {
            memory.segments.insert(*number, segment.clone());
        }
        let stamped = writer.in_flight.iter().flat_map(|job| match &job.work {
            Work::Append(entries) => entries.as_slice(),
            _ => &[],
        });
        let placed: Vec<LogEntry> = stamped
            .zip(&written.offsets)
            .filter_map(|(stamped, offset)| {
                memory.placed(stamped, written.segment, writer.session, *offset)
            })
            .collect();
        self.cache.put(self.shelf, placed.into_iter());
    }

    /// Everything written so far is durable.
    pub(crate) fn synced(&self) {
        self.writer().synced();
    }

    /// The oldest jobs are done.
    pub(crate) fn complete(self: &Arc<Self>, jobs: usize) {
        let done: Vec<Job> = self.writer().in_flight.drain(..jobs).collect();
        let mut memory = self.memory();
        done.iter().for_each(|job| memory.completed(&job.work));
        let purge = done.iter().rev().find_map(|job| match job.work {
            Work::Purge { point, .. } => Some(point),
            _ => None,
        });
        drop(memory);
        for job in &done {
            if let Work::Vote(vote) = job.work {
                self.observer.vote_saved(vote);
            }
        }
        for finished in done.into_iter().filter_map(|job| job.done) {
            finished(Ok(()));
        }
        if let Some(point) = purge {
            self.retire(point);
        }
    }

    /// Gives up the segments before that of the first entry behind the purge point.
    fn retire(self: &Arc<Self>, point: Position) {
        let active = self.writer().number;
        let mut memory = self.memory();
        let first = memory.index.oldest_segment().unwrap_or(active);
        let kept = memory.segments.split_off(&first);
        let old: Vec<u64> = std::mem::replace(&mut memory.segments, kept).into_keys().collect();
        drop(memory);
        if !old.is_empty() {
            self.volume.chore(Chore::GiveUp { log: self.clone(), point, segments: old });
        }
    }

    /// The log failed: everyone who waits hears why, and nothing is written any more.
    pub(crate) fn fail(&self, fault: LogFault) {
        let mut waiting: Vec<Job> = self.writer().in_flight.drain(..).collect();
        let mut memory = self.memory();
        if matches!(memory.fault, None | Some(LogFault::Closed)) {
            memory.fault = Some(fault.clone());
        }
        waiting.extend(memory.jobs.drain(..));
        drop(memory);
        for done in waiting.into_iter().filter_map(|job| job.done) {
            done(Err(fault.clone()));
        }
    }

    /// The machine is gone: nothing is written any more, and nobody hears of it.
    pub(crate) fn forget(&self) {
        // Whatever ended the machine may have been a panic with one of these held.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let in_flight = std::mem::take(&mut writer.in_flight);
        drop(writer);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = std::mem::take(&mut memory.jobs);
        drop(memory);
        drop((in_flight, waiting));
    }

    /// Background: META first, then the files.
    pub(crate) fn give_up(&self, point: Position, segments: &[u64]) -> io::Result<()> {
        self.observer.before_purge(point)?;
        let sizes = self.volume.options().segments;
        segment::give_up(&**self.volume.disk(), &self.folder, segments, sizes)
    }

    /// A segment lies ready under its passing name; or it could not be made, and the next commit
    /// that needs one finds out for itself.
    pub(crate) fn prepared(&self, bytes: Option<u64>) {
        let mut writer = self.writer();
        if matches!(writer.next, Next::Asked) {
            writer.next = bytes.map_or(Next::Unavailable, |bytes| Next::Spare { bytes });
        }
    }
}

/// Background: makes a segment.
pub(crate) fn prepare(disk: &dyn Disk, folder: &Path, bytes: u64) -> io::Result<u64> {
    segment::prepare_or_recycle(disk, folder, segment::SPARE, bytes)
}
