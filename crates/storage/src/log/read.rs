//! Reading entries back: from those that wait, from the cache, from the segments.

use std::sync::Arc;

use bytes::Bytes;
use dag_format::FormatError;
use dag_format::log::LogRecord;
use dag_format::record::{self, Place};
use dag_types::LogId;

use super::batch::entry_bytes;
use super::types::{LogEntry, LogFault};
use crate::disk::{AlignedBuffer, BLOCK, DiskFile};

/// How much is read at once when entries stand side by side.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Where an entry is found.
pub(super) enum Source {
    Memory(LogEntry),
    Disk(Stored),
}

/// An entry in a segment.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) id: LogId,
    pub(super) segment: u64,
    pub(super) session: u64,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) offset: u64,
    pub(super) bytes: u32,
}

impl Stored {
    fn end(&self) -> u64 {
        self.offset + entry_bytes(self.bytes as usize) as u64
    }
}

/// Turns sources into entries; those that stand side by side are read in one piece.
pub(super) fn read_all(sources: Vec<Source>) -> Result<Vec<LogEntry>, LogFault> {
    let mut entries = Vec::with_capacity(sources.len());
    let mut run: Vec<Stored> = Vec::new();
    for source in sources {
        match source {
            Source::Memory(entry) => {
                read_run(&mut run, &mut entries)?;
                entries.push(entry);
            }
            Source::Disk(stored) => {
                if !run.first().is_none_or(|first| joins(first, &stored)) {
                    read_run(&mut run, &mut entries)?;
                }
                run.push(stored);
            }
        }
    }
    read_run(&mut run, &mut entries)?;
    Ok(entries)
}

/// Whether an entry is read together with those from `first` on.
fn joins(first: &Stored, next: &Stored) -> bool {
    first.segment == next.segment
        && next.offset >= first.offset
        && next.end() - first.offset <= READ_BYTES_MAX
}

fn read_run(run: &mut Vec<Stored>, entries: &mut Vec<LogEntry>) -> Result<(), LogFault> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
    let from = first.offset - first.offset % BLOCK as u64;
    let bytes = (last.end() - from).next_multiple_of(BLOCK as u64) as usize;
    let mut buffer = AlignedBuffer::new(bytes);
    first
        .file
        .read_at(buffer.blocks_mut(bytes), from)
        .map_err(|fault| LogFault::from_io("read the log", &fault))?;
    for stored in run.drain(..) {
        entries.push(decode(&stored, &buffer.filled()[(stored.offset - from) as usize..])?);
    }
    Ok(())
}

/// The index says where the entry stands, and the entry must say who it is.
fn decode(stored: &Stored, bytes: &[u8]) -> Result<LogEntry, LogFault> {
    let corrupt = |fault| LogFault::Corrupt { index: stored.id.index, fault };
    let place = Place { segment: stored.segment, position: stored.offset, session: stored.session };
    let record = record::read(bytes, place).map_err(corrupt)?;
    match LogRecord::decode(record).map_err(corrupt)? {
        LogRecord::Entry(entry) if entry.id == stored.id => Ok(LogEntry {
            id: entry.id,
            kind: entry.kind,
            payload: Bytes::copy_from_slice(entry.payload),
        }),
        _ => Err(corrupt(FormatError::Malformed {
            what: "an entry's record",
            why: "another record stands in its place",
        })),
    }
}
