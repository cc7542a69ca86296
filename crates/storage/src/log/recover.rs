//! Reading a log at open: what holds, where it ends, and whether it may end there.
//!
//! ```text
//!  segment 7                     segment 8                        segment 9 (prepared)
//!  |batch 41|batch 42|..  |seal| |batch 43|batch 44|#######|..  | |zeroes          |
//!                                                   ▲ the first batch that does not hold
//! ```
//! Batches are taken over while each is whole, follows the one before by number, and was written by
//! no earlier session. Where that ends is the tail. A tail like that is ordinary after a crash, and
//! cut, **unless** any claim, in the records that hold or in the blocks behind them, says that a
//! later batch was durable: then something that was acknowledged is gone, and the copy is Failed.
//! What a checksum confirms and this version does not understand is a fault, never skipped.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use dag_format::log::{BatchStart, EntryRecord, LogRecord, SegmentStart};
use dag_format::record::{self, Place};
use dag_format::{FormatError, chain};
use dag_types::{Chain, Mutant};

use super::index::{Index, Slot};
use super::segment::{self, Segment};
use super::types::{LogOpenFault, Position};
use super::writer::Summary;
use crate::disk::{AlignedBuffer, BLOCK, Disk, OpenMode};

/// A log that was read.
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) summary: Summary,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The last segment with a batch, and the end of that batch.
    pub(super) number: u64,
    pub(super) position: u64,
    pub(super) batch: u64,
    /// The segment behind it that lies ready.
    pub(super) next: Option<Segment>,
}

/// Whether a chain is what it should be.
pub(super) fn chain_holds(found: Chain, expected: Chain) -> bool {
    found == expected || Mutant::ChainNotChecked.planted()
}

/// Reads the log in a folder; `session` is the opening that reads it.
pub(super) fn recover(
    disk: &dyn Disk,
    folder: &Path,
    session: u64,
) -> Result<Recovered, LogOpenFault> {
    let numbers = numbers(disk, folder)?;
    let mut replay = Replay::new(session);
    let mut segments = BTreeMap::new();
    let mut buffer = AlignedBuffer::new(BLOCK);
    for number in numbers {
        let file = disk
            .open(&segment::path(folder, number), OpenMode::Direct)
            .map_err(|fault| LogOpenFault::from_io("open a segment", &fault))?;
        let bytes = load(&*file, &mut buffer)
            .map_err(|fault| LogOpenFault::from_io("read a segment", &fault))?;
        replay.segment(number, bytes, buffer.filled())?;
        segments.insert(number, Segment { file, bytes });
    }
    replay.check_tail(folder)?;
    let next = tidy_behind_tail(disk, folder, replay.number, &mut segments)
        .map_err(|fault| LogOpenFault::from_io("remove a segment", &fault))?;
    Ok(Recovered {
        index: replay.index,
        summary: replay.summary,
        segments,
        number: replay.number,
        position: replay.position,
        batch: replay.batch,
        next,
    })
}

/// The numbers of all segments, which follow one another.
fn numbers(disk: &dyn Disk, folder: &Path) -> Result<Vec<u64>, LogOpenFault> {
    let names = match disk.list(folder) {
        Ok(names) => names,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(fault) => return Err(LogOpenFault::from_io("list the log", &fault)),
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    if let Some(pair) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        return Err(LogOpenFault::SegmentMissing { segment: pair[0] + 1 });
    }
    if numbers.is_empty() {
        return Err(LogOpenFault::Missing { folder: folder.display().to_string() });
    }
    Ok(numbers)
}

/// Reads a whole file; a part of a block at its end is left out. Gives the file's length.
fn load(file: &dyn crate::disk::DiskFile, buffer: &mut AlignedBuffer) -> io::Result<u64> {
    let length = file.len()?;
    let whole = (length - length % BLOCK as u64) as usize;
    buffer.reset(whole);
    if whole > 0 {
        file.read_at(buffer.blocks_mut(whole), 0)?;
    }
    Ok(length)
}

/// Segments behind the tail were begun by nobody whose batch held: one is kept as the next one.
fn tidy_behind_tail(
    disk: &dyn Disk,
    folder: &Path,
    tail: u64,
    segments: &mut BTreeMap<u64, Segment>,
) -> io::Result<Option<Segment>> {
    let behind = segments.split_off(&(tail + 1));
    let usable = |segment: &&Segment| {
        segment.bytes.is_multiple_of(BLOCK as u64) && segment.bytes >= 4 * BLOCK as u64
    };
    let next = behind.get(&(tail + 1)).filter(usable).cloned();
    let keep = tail + u64::from(next.is_some());
    // From the last to the first, so that those left follow one another at any moment.
    for number in behind.into_keys().rev().filter(|number| *number > keep) {
        disk.remove_file(&segment::path(folder, number))?;
        disk.sync_dir(folder)?;
    }
    Ok(next)
}

/// A log as it is being read.
struct Replay {
    session: u64,
    index: Index,
    summary: Summary,
    number: u64,
    position: u64,
    batch: u64,
    last_session: u64,
    begun: bool,
    /// The first batch that does not hold was met; only claims are looked for.
    ended: bool,
    claimed: u64,
    /// How many more beginnings that do not hold are compared with every place of their segment.
    strays_left: usize,
}

/// An interrupted write leaves a few beginnings that do not hold, and more say nothing new.
const STRAYS: usize = 64;

impl Replay {
    fn new(session: u64) -> Self {
        Self {
            session,
            index: Index::starting_at(0),
            summary: Summary::default(),
            number: 0,
            position: 0,
            batch: 0,
            last_session: 0,
            begun: false,
            ended: false,
            claimed: 0,
            strays_left: STRAYS,
        }
    }

    fn segment(&mut self, number: u64, file_bytes: u64, blocks: &[u8]) -> Result<(), LogOpenFault> {
        let mut at = 0;
        while !self.ended {
            match self.batch_at(number, at, blocks)? {
                Some((start, positions)) => {
                    if at == 0 {
                        check_length(number, file_bytes, blocks)?;
                    }
                    self.take(number, blocks, start, &positions)?;
                    at += u64::from(start.bytes).next_multiple_of(BLOCK as u64);
                    (self.number, self.position) = (number, at);
                }
                // A segment may end before its seal; then the next one goes on.
                None => break,
            }
        }
        if at == 0 && self.begun {
            self.ended = true;
        }
        self.look_for_claims(number, at, blocks)
    }

    /// The batch at a place and where its records begin, if one holds there.
    fn batch_at(
        &self,
        number: u64,
        at: u64,
        blocks: &[u8],
    ) -> Result<Option<(BatchStart, Vec<u64>)>, LogOpenFault> {
        let Some(LogRecord::BatchStart(start)) = record_at(number, at, 0, blocks)? else {
            return Ok(None);
        };
        if start.session > self.session {
            return Err(LogOpenFault::SessionFromTheFuture {
                found: start.session,
                known: self.session,
            });
        }
        let follows = !self.begun || start.batch == self.batch + 1;
        let in_order = start.session >= self.last_session;
        if !follows || !in_order {
            return Ok(None);
        }
        Ok(positions(number, at, blocks, &start).map(|positions| (start, positions)))
    }

    /// Takes a batch over, record by record.
    fn take(
        &mut self,
        number: u64,
        blocks: &[u8],
        start: BatchStart,
        positions: &[u64],
    ) -> Result<(), LogOpenFault> {
        let first = !self.begun;
        (self.batch, self.last_session, self.begun) = (start.batch, start.session, true);
        self.claimed = self.claimed.max(start.synced_through);
        for position in positions.iter().copied() {
            match record_at(number, position, start.session, blocks)? {
                Some(LogRecord::SegmentStart(begin)) => self.segment_start(first, begin)?,
                Some(LogRecord::Entry(entry)) => self.entry(number, position, entry)?,
                Some(other) => self.small(other)?,
                None => unreachable!("the batch was found to be whole"),
            }
        }
        Ok(())
    }

    fn segment_start(&mut self, first: bool, start: SegmentStart) -> Result<(), LogOpenFault> {
        let says = Summary {
            last: start.last,
            purged: start.purged,
            vote: start.vote,
            committed: start.committed,
        };
        if first {
            let next = says.last.map_or(0, |(id, _)| id.index + 1);
            self.index = Index::starting_at(next);
            self.summary = says;
        } else if says != self.summary {
            let index = says.last.or(self.summary.last).map_or(0, |(id, _)| id.index);
            return Err(LogOpenFault::BrokenChain { index });
        }
        Ok(())
    }

    fn entry(
        &mut self,
        segment: u64,
        position: u64,
        entry: EntryRecord<'_>,
    ) -> Result<(), LogOpenFault> {
        let index = self.index.end();
        let before = self.summary.last;
        let follows = before.map_or(0, |(id, _)| id.index + 1) == entry.id.index
            && index == entry.id.index
            && before.is_none_or(|(id, _)| id.term <= entry.id.term);
        let before = before.map_or(Chain::START, |(_, chain)| chain);
        let expected = chain::next(before, entry.id, entry.kind, entry.payload);
        if !follows || !chain_holds(entry.chain, expected) {
            return Err(LogOpenFault::BrokenChain { index });
        }
        self.index.push(Slot {
            term: entry.id.term,
            chain: entry.chain,
            segment,
            session: self.last_session,
            offset: u32::try_from(position).expect("a segment under 4 GiB"),
            bytes: u32::try_from(entry.payload.len()).expect("a record under 4 GiB"),
        });
        self.summary.last = Some((entry.id, entry.chain));
        Ok(())
    }

    fn small(&mut self, record: LogRecord<'_>) -> Result<(), LogOpenFault> {
        match record {
            LogRecord::Truncate(kept) => self.truncate(kept)?,
            LogRecord::Vote(vote) => self.summary.vote = Some(vote),
            LogRecord::Committed(id) => self.summary.committed = id,
            LogRecord::Purge { point, begins_anew } => self.purge(point, begins_anew),
            LogRecord::Seal { .. }
            | LogRecord::BatchStart(_)
            | LogRecord::SegmentStart(_)
            | LogRecord::Entry(_) => {
                return Err(LogOpenFault::BrokenChain { index: self.index.end() });
            }
        }
        Ok(())
    }

    fn truncate(&mut self, kept: Option<Position>) -> Result<(), LogOpenFault> {
        let end = kept.map_or(0, |(id, _)| id.index + 1);
        if let Some((id, chain)) = kept
            && let Some(known) = self.index.position(id.index)
            && (known.0 != id || !chain_holds(known.1, chain))
        {
            return Err(LogOpenFault::BrokenChain { index: id.index });
        }
        self.index.truncate(end);
        if self.index.first() > end {
            self.index = Index::starting_at(end);
        }
        self.summary.last = kept;
        Ok(())
    }

    fn purge(&mut self, point: Position, begins_anew: bool) {
        let next = point.0.index + 1;
        self.summary.purged = Some(point);
        if begins_anew {
            self.index = Index::starting_at(next);
            self.summary.last = Some(point);
        } else {
            self.index.drop_before(next.min(self.index.end()));
        }
    }

    /// Claims count wherever they stand, also behind a batch that does not hold.
    fn look_for_claims(
        &mut self,
        number: u64,
        from: u64,
        blocks: &[u8],
    ) -> Result<(), LogOpenFault> {
        let mut at = from;
        while at < blocks.len() as u64 {
            if !LogRecord::may_claim(&blocks[at as usize..]) {
                at += BLOCK as u64;
                continue;
            }
            let claim = match record_at(number, at, 0, blocks)? {
                Some(LogRecord::BatchStart(start)) => start.synced_through,
                Some(LogRecord::Seal { synced_through }) => synced_through,
                None => self.check_not_astray(number, at, blocks)?,
                _ => 0,
            };
            self.claimed = self.claimed.max(claim);
            at += BLOCK as u64;
        }
        Ok(())
    }

    /// A batch that a disk wrote to the wrong place may have overwritten the only batch that it
    /// vouches for, and may be the last one that was told to be durable: nothing else would tell.
    /// Its checksum fits in the place that was meant.
    fn check_not_astray(
        &mut self,
        number: u64,
        at: u64,
        blocks: &[u8],
    ) -> Result<u64, LogOpenFault> {
        let Some(left) = self.strays_left.checked_sub(1) else { return Ok(0) };
        self.strays_left = left;
        let bytes = &blocks[usize::try_from(at).expect("a segment in memory")..];
        let places = (0..blocks.len() as u64).step_by(BLOCK);
        let places = places.map(|position| Place { segment: number, position, session: 0 });
        let mut fitting =
            places.filter_map(|place| Some((place, record::read(bytes, place).ok()?)));
        let Some((meant, record)) = fitting.next() else { return Ok(0) };
        match LogRecord::decode(record) {
            Ok(LogRecord::BatchStart(start)) if start.batch > self.batch => {
                let (position, meant) = (at, meant.position);
                Err(LogOpenFault::Astray { segment: number, position, meant })
            }
            _ => Ok(0),
        }
    }

    /// The durable tail may not lie behind the log's end.
    fn check_tail(&self, folder: &Path) -> Result<(), LogOpenFault> {
        if self.claimed > self.batch && !Mutant::TailNotChecked.planted() {
            return Err(LogOpenFault::TailLost { found: self.batch, claimed: self.claimed });
        }
        if !self.begun {
            return Err(LogOpenFault::Missing { folder: folder.display().to_string() });
        }
        let purged = self.summary.purged.map_or(0, |(id, _)| id.index + 1);
        if self.index.first() > purged {
            return Err(LogOpenFault::Hole { index: purged });
        }
        Ok(())
    }
}

/// The record at a place, if its checksum fits; a fault if it does and makes no sense.
fn record_at(
    segment: u64,
    position: u64,
    session: u64,
    blocks: &[u8],
) -> Result<Option<LogRecord<'_>>, LogOpenFault> {
    let Some(bytes) = usize::try_from(position).ok().and_then(|at| blocks.get(at..)) else {
        return Ok(None);
    };
    match record::read(bytes, Place { segment, position, session }) {
        Ok(record) => LogRecord::decode(record).map(Some).map_err(|fault| LogOpenFault::Format {
            segment,
            position,
            fault,
        }),
        Err(FormatError::Short { .. } | FormatError::Checksum { .. }) => Ok(None),
        Err(fault) => Err(LogOpenFault::Format { segment, position, fault }),
    }
}

/// Where the records of a batch behind its start stand, if every one of them holds and they are as
/// many and as long as the start says.
fn positions(segment: u64, at: u64, blocks: &[u8], start: &BatchStart) -> Option<Vec<u64>> {
    let end = at + u64::from(start.bytes);
    let mut next = at + dag_format::log::BATCH_START_BYTES as u64;
    let mut positions = Vec::new();
    while next < end {
        let place = Place { segment, position: next, session: start.session };
        let record = record::read(blocks.get(usize::try_from(next).ok()?..)?, place).ok()?;
        positions.push(next);
        next += record.bytes() as u64;
    }
    (next == end && positions.len() == start.records as usize).then_some(positions)
}

/// A segment is as long as its start says.
fn check_length(segment: u64, found: u64, blocks: &[u8]) -> Result<(), LogOpenFault> {
    let session = match record_at(segment, 0, 0, blocks)? {
        Some(LogRecord::BatchStart(start)) => start.session,
        _ => return Ok(()),
    };
    let position = dag_format::log::BATCH_START_BYTES as u64;
    match record_at(segment, position, session, blocks)? {
        Some(LogRecord::SegmentStart(start)) if start.bytes > found => {
            Err(LogOpenFault::SegmentCut { segment, made: start.bytes, found })
        }
        Some(LogRecord::SegmentStart(start)) if start.segment == segment => Ok(()),
        _ => Err(LogOpenFault::BrokenChain { index: 0 }),
    }
}
