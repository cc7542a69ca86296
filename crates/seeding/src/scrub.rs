//! Reading everything, slowly, to find what rotted before it is needed.
//!
//! A pass reads the log's closed segments batch by batch and the state row by row, all checksums
//! included: of records, of the engine's blocks and files, and of each value with its key. The
//! cursor is a value; one step reads a little and says what it found. A bad record is named by its
//! file and position, or by its key. What follows from it (the copy fails and is reseeded) is the
//! caller's.

use std::io;
use std::path::{Path, PathBuf};

use dag_format::log::{BATCH_START_BYTES, BatchStart, LogRecord};
use dag_format::record::{self, Place};
use dag_types::Millis;
use storage::disk::{BLOCK, Disk, DiskFile, OpenMode};
use storage::state::{StateError, StateRead};

use crate::fault::{SeedFault, disk as disk_fault};
use crate::limit::RateLimit;
use crate::pages::{after, end_of_keys};

/// Bytes that one step aims at.
const STEP_BYTES: u64 = 256 << 10;
/// Rows of a step at first.
const FIRST_ROWS: usize = 8;
const ROWS_MAX: usize = 1024;
/// A batch that claims to be longer is not one.
const BATCH_MAX: u64 = 1 << 30;

/// Where a pass stands. It can be kept, and gone on with after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// In the log.
    Log {
        /// The segment.
        segment: u64,
        /// The next batch's first byte.
        position: u64,
        /// The batch before it, where one was read.
        batch: Option<u64>,
    },
    /// In the state.
    State {
        /// The next key.
        from: Vec<u8>,
    },
    /// At the end.
    Done,
}

impl Cursor {
    /// Where a pass begins.
    pub fn start() -> Self {
        Self::Log { segment: 0, position: 0, batch: None }
    }
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A record of the log.
    Log {
        /// The segment's file.
        file: PathBuf,
        /// The first byte of the record, or of the batch that should stand there.
        position: u64,
        /// What is wrong.
        detail: String,
    },
    /// A row of the state.
    Row {
        /// Its key in hexadecimal.
        key: String,
        /// What is wrong.
        detail: String,
    },
    /// A file of the state; the engine's words name it.
    File {
        /// What is wrong.
        detail: String,
    },
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScrubStep {
    /// It read so many bytes and found nothing.
    Read(u64),
    /// The limit is spent; call again then.
    Later(Millis),
    /// Something does not hold. The pass can go on behind it.
    Found(Finding),
    /// Everything was read.
    Done,
}

/// What is read.
pub struct ScrubPlace<'a> {
    /// The volume.
    pub disk: &'a dyn Disk,
    /// The folder of the log's segments.
    pub log: &'a Path,
    /// The state.
    pub state: &'a dyn StateRead,
}

/// A pass over a copy.
pub struct Scrub {
    cursor: Cursor,
    limit: RateLimit,
    /// Rows of the next step.
    rows: usize,
    /// Bytes read by the last step, paid before the next one.
    owed: u64,
    read: u64,
}

impl Scrub {
    /// A pass from `cursor` on.
    pub fn new(cursor: Cursor, limit: RateLimit) -> Self {
        Self { cursor, limit, rows: FIRST_ROWS, owed: 0, read: 0 }
    }

    /// Where it stands.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Bytes read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read
    }

    /// Reads a little. An error is the disk itself, or the engine without a word about damage.
    pub fn step(&mut self, now: Millis, place: &ScrubPlace<'_>) -> Result<ScrubStep, SeedFault> {
        if let Err(later) = self.limit.take(now, self.owed) {
            return Ok(ScrubStep::Later(later));
        }
        self.owed = 0;
        let step = match self.cursor.clone() {
            Cursor::Log { segment, position, batch } => {
                self.log(place, segment, position, batch)?
            }
            Cursor::State { from } => self.state(place, &from)?,
            Cursor::Done => ScrubStep::Done,
        };
        if let ScrubStep::Read(bytes) = step {
            (self.owed, self.read) = (bytes, self.read + bytes);
        }
        Ok(step)
    }

    fn log(
        &mut self,
        place: &ScrubPlace<'_>,
        segment: u64,
        position: u64,
        batch: Option<u64>,
    ) -> Result<ScrubStep, SeedFault> {
        let io = disk_fault("read the log", place.log);
        let closed = closed_segments(place.disk, place.log).map_err(&io)?;
        let Some(&(number, next)) = closed.iter().find(|(number, _)| *number >= segment) else {
            self.cursor = Cursor::State { from: vec![0] };
            return Ok(ScrubStep::Read(0));
        };
        // A segment that was purged meanwhile takes its place in the count with it.
        let (at, batch) = if number == segment { (position, batch) } else { (0, None) };
        let path = segment_path(place.log, number);
        let file = match place.disk.open(&path, OpenMode::Read) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
                self.cursor = Cursor::Log { segment: number + 1, position: 0, batch: None };
                return Ok(ScrubStep::Read(0));
            }
            opened => opened.map_err(&io)?,
        };
        let mut walk = Walk { file: &*file, segment: number, at, batch, read: 0 };
        match walk.go().map_err(&io)? {
            Walked::More => {
                self.cursor = Cursor::Log { segment: number, position: walk.at, batch: walk.batch };
                Ok(ScrubStep::Read(walk.read))
            }
            Walked::End if walk.batch.is_none_or(|batch| batch + 1 == next) => {
                self.cursor = Cursor::Log { segment: number + 1, position: 0, batch: None };
                Ok(ScrubStep::Read(walk.read))
            }
            ended => {
                self.cursor = Cursor::Log { segment: number + 1, position: 0, batch: None };
                let (position, detail) = match ended {
                    Walked::Bad { position, detail } => (position, detail),
                    _ => (
                        walk.at,
                        format!("a batch is missing; the next segment begins with {next}"),
                    ),
                };
                Ok(ScrubStep::Found(Finding::Log { file: path, position, detail }))
            }
        }
    }

    fn state(&mut self, place: &ScrubPlace<'_>, from: &[u8]) -> Result<ScrubStep, SeedFault> {
        match place.state.scan_once(from, &end_of_keys(), self.rows) {
            Ok(rows) => {
                let bytes = crate::pages::bytes(&rows) as u64;
                self.cursor = match rows.last() {
                    Some((last, _)) => Cursor::State { from: after(last) },
                    None => Cursor::Done,
                };
                let average = bytes / (rows.len() as u64).max(1);
                self.rows = (STEP_BYTES / average.max(1)).clamp(1, ROWS_MAX as u64) as usize;
                Ok(ScrubStep::Read(bytes))
            }
            Err(StateError::Corrupt { key, detail }) => {
                self.cursor = behind(&key).map_or(Cursor::Done, |from| Cursor::State { from });
                Ok(ScrubStep::Found(Finding::Row { key, detail }))
            }
            Err(StateError::Damaged { detail, .. }) => {
                // The engine gets no further in this family; the next one has other files.
                let family = [0x80, 0xc0].into_iter().find(|start| *start > from[0]);
                self.cursor =
                    family.map_or(Cursor::Done, |start| Cursor::State { from: vec![start] });
                Ok(ScrubStep::Found(Finding::File { detail }))
            }
            Err(fault) => Err(fault.into()),
        }
    }
}

/// The key behind one in hexadecimal.
fn behind(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    let key: Option<Vec<u8>> =
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    key.map(|key| after(&key))
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016x}.seg"))
}

/// Segments that are not written any more, each with the number of the first batch behind it: those
/// whose successor has begun.
fn closed_segments(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut numbers: Vec<u64> = disk.list(folder)?.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    let mut closed = Vec::new();
    for pair in numbers.windows(2) {
        let next = match disk.open(&segment_path(folder, pair[1]), OpenMode::Read) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        if pair[1] == pair[0] + 1
            && let Some(start) = batch_start(&*next, pair[1], 0)?
        {
            closed.push((pair[0], start.batch));
        }
    }
    Ok(closed)
}

fn number(name: &Path) -> Option<u64> {
    let stem = name.file_stem()?.to_str().filter(|stem| stem.len() == 16)?;
    (name.extension()? == "seg").then(|| u64::from_str_radix(stem, 16).ok())?
}

fn batch_start(file: &dyn DiskFile, segment: u64, position: u64) -> io::Result<Option<BatchStart>> {
    if position + BATCH_START_BYTES as u64 > file.len()? {
        return Ok(None);
    }
    let mut head = [0; BATCH_START_BYTES];
    file.read_at(&mut head, position)?;
    let place = Place { segment, position, session: 0 };
    let record = record::read(&head, place).ok().and_then(|record| LogRecord::decode(record).ok());
    Ok(match record {
        Some(LogRecord::BatchStart(start)) => Some(start),
        _ => None,
    })
}

/// A walk through a segment, from batch to batch.
struct Walk<'a> {
    file: &'a dyn DiskFile,
    segment: u64,
    at: u64,
    batch: Option<u64>,
    read: u64,
}

enum Walked {
    /// There may be more.
    More,
    /// No batch stands here that goes on.
    End,
    Bad {
        position: u64,
        detail: String,
    },
}

impl Walk<'_> {
    fn go(&mut self) -> io::Result<Walked> {
        while self.read < STEP_BYTES {
            let Some(start) = batch_start(self.file, self.segment, self.at)? else {
                return Ok(Walked::End);
            };
            if self.batch.is_some_and(|before| before + 1 != start.batch) {
                return Ok(Walked::End);
            }
            if let Some((position, detail)) = self.records(&start)? {
                return Ok(Walked::Bad { position, detail });
            }
            self.batch = Some(start.batch);
            self.at += u64::from(start.bytes).next_multiple_of(BLOCK as u64);
        }
        Ok(Walked::More)
    }

    /// The first record of a batch that does not hold.
    fn records(&mut self, start: &BatchStart) -> io::Result<Option<(u64, String)>> {
        let length = u64::from(start.bytes);
        let fits = length <= BATCH_MAX && self.at + length <= self.file.len()?;
        if !fits {
            return Ok(Some((self.at, "the batch is longer than its segment".to_owned())));
        }
        let mut bytes = vec![0; start.bytes as usize];
        self.file.read_at(&mut bytes, self.at)?;
        self.read += length.next_multiple_of(BLOCK as u64);
        let mut next = BATCH_START_BYTES;
        let mut count = 0;
        while next < bytes.len() {
            let position = self.at + next as u64;
            let place = Place { segment: self.segment, position, session: start.session };
            match record::read(&bytes[next..], place) {
                Ok(record) => next += record.bytes(),
                Err(fault) => return Ok(Some((position, fault.to_string()))),
            }
            count += 1;
        }
        let whole = next == bytes.len() && count == start.records;
        Ok((!whole).then(|| (self.at, "the batch has another number of records".to_owned())))
    }
}
