//! What a lying disk does to the files of a copy while its node is down, or behind its back.
//!
//! A log's claims let it notice any one damage that takes from it what it told to be durable. Two
//! damages of one log can take what was told *and* the only claim on it, a block here and a block
//! there; nothing that is left says then that anything is missing, so nothing may be demanded. The
//! [`Atlas`] knows which logs were damaged, and damages none twice.
//!
//! Damage is done past the node's own calls ([`SimDisk::replace_bytes`]): a fault that waits for
//! one of those stays for the node. Otherwise the write that forges one entry could be the one that
//! is led astray, and would carry a whole segment, all its claims among it, to places where not one
//! of its checksums fits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dag_format::envelope::{Body, Envelope};
use dag_format::log::{BATCH_START_BYTES, BatchStart, LogRecord};
use dag_format::record::{self, Place};
use storage::disk::{BLOCK, SimDisk};

/// Which logs were damaged. A copy that comes back by reseed has a new folder, and a log that may
/// be damaged again.
#[derive(Debug, Default)]
pub struct Atlas {
    damaged: BTreeSet<PathBuf>,
}

impl Atlas {
    /// Flips a bit of some file of some copy; false where there is none.
    pub fn rot(&mut self, disk: &SimDisk, draw: u64) -> bool {
        let mut files: Vec<PathBuf> = disk.files();
        files.retain(|path| {
            let text = path.to_string_lossy();
            text.contains("/db-") && !text.ends_with("LOCK") && !text.contains("/trash/")
        });
        files.retain(|path| self.spares(path));
        let Some(path) = chosen(&files, draw) else { return false };
        let Ok(bytes) = disk.content(path).map(|content| content.len() as u64) else {
            return false;
        };
        // Most of a segment is room that was never written.
        let used = if is_segment(path) { (bytes / 8).max(4096).min(bytes) } else { bytes };
        let rotten = used > 0 && disk.flip_bit(path, (draw >> 8) % used, (draw % 8) as u8).is_ok();
        self.note(path, rotten)
    }

    /// Empties one of the last written blocks of a log, though not the very last: those behind it
    /// vouch for it.
    pub fn lose_tail(&mut self, disk: &SimDisk, draw: u64) -> bool {
        let logs = self.newest_segments(disk);
        let Some(path) = chosen(&logs, draw) else { return false };
        let Ok(content) = disk.content(path) else { return false };
        let is_written = |block: &(u64, &[u8])| block.1.iter().any(|byte| *byte != 0);
        let blocks = (0..).step_by(BLOCK).zip(content.chunks(BLOCK));
        let written: Vec<u64> = blocks.filter(is_written).map(|(at, _)| at).collect();
        // The first block is the segment's own header.
        let [_, ref middle @ .., _] = written[..] else { return false };
        let behind = (draw >> 8) as usize % middle.len().clamp(1, LOST_BLOCKS);
        let Some(lost) = middle.iter().rev().nth(behind) else { return false };
        let emptied = disk.replace_bytes(path, *lost, &[0; BLOCK]).is_ok();
        self.note(path, emptied)
    }

    /// Changes the request id of one of the last commands of a log and gives it the right checksum,
    /// as memory does that loses a bit before the checksum is reckoned. Only the chain tells.
    pub fn forge(&mut self, disk: &SimDisk, draw: u64) -> bool {
        let mut logs = self.newest_segments(disk);
        logs.retain(|path| !path.to_string_lossy().contains("/db-0/"));
        let first = draw as usize % logs.len().max(1);
        logs.rotate_left(first);
        logs.iter().any(|path| {
            let forged = forge_in(disk, path, draw >> 8);
            self.note(path, forged)
        })
    }

    /// The next write of a log lands in another place of its segment; false where there is no log.
    pub fn lead_astray(&mut self, disk: &SimDisk, draw: u64) -> bool {
        let logs = self.newest_segments(disk);
        let Some(path) = chosen(&logs, draw) else { return false };
        disk.misdirect_write(path, (draw >> 8) % 8 * BLOCK as u64);
        self.note(path, true)
    }

    /// The newest segment of each log that was not damaged.
    fn newest_segments(&self, disk: &SimDisk) -> Vec<PathBuf> {
        let mut newest: Vec<PathBuf> = Vec::new();
        for path in disk.files() {
            let text = path.to_string_lossy();
            if !is_segment(&path) || !text.contains("/db-") || text.contains("/trash/") {
                continue;
            }
            match newest.last_mut() {
                Some(last) if last.parent() == path.parent() => *last = path,
                _ => newest.push(path),
            }
        }
        newest.retain(|path| self.spares(path));
        newest
    }

    /// Whether a file may be damaged: it belongs to no log, or to one that is whole.
    fn spares(&self, path: &Path) -> bool {
        !is_segment(path) || path.parent().is_none_or(|folder| !self.damaged.contains(folder))
    }

    /// Remembers the log of a file that was damaged, and gives whether it was.
    fn note(&mut self, path: &Path, damaged: bool) -> bool {
        if damaged && is_segment(path) {
            self.damaged.extend(path.parent().map(Path::to_path_buf));
        }
        damaged
    }
}

/// How far from its end a log may lose a block.
const LOST_BLOCKS: usize = 16;

fn chosen(paths: &[PathBuf], draw: u64) -> Option<&PathBuf> {
    paths.get(draw as usize % paths.len().max(1))
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}

fn forge_in(disk: &SimDisk, path: &Path, draw: u64) -> bool {
    let Ok(mut whole) = disk.content(path) else { return false };
    let commands = commands(path, &whole);
    let behind = draw as usize % commands.len().clamp(1, FORGED_ENTRIES);
    let Some(forged) = commands.iter().rev().nth(behind) else { return false };
    let (at, place) = (forged.place.position as usize, forged.place);
    let (kind, version) = (whole[at + 8], whole[at + 9]);
    whole[forged.byte] ^= 1;
    let payload = &whole[at + record::HEADER_BYTES..at + forged.bytes];
    let header = record::header(kind, version, place, &[payload]);
    whole[at..at + record::HEADER_BYTES].copy_from_slice(&header);
    disk.replace_bytes(path, place.position, &whole[at..at + forged.bytes]).is_ok()
}

/// How far from its end a log may have a forged command.
const FORGED_ENTRIES: usize = 4;

/// A command of a mailbox database in a segment.
struct Found {
    place: Place,
    /// Of its record.
    bytes: usize,
    /// Where the last byte of its request id stands in the segment.
    byte: usize,
}

/// The commands of a segment, in order.
fn commands(path: &Path, segment: &[u8]) -> Vec<Found> {
    let number = path.file_stem().and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
    let Some(number) = number else { return Vec::new() };
    let mut found = Vec::new();
    for at in (0..segment.len()).step_by(BLOCK) {
        let Some(LogRecord::BatchStart(start)) = record_at(number, at, 0, segment) else {
            continue;
        };
        found.extend(commands_of(number, at, start, segment));
    }
    found
}

fn commands_of(number: u64, at: usize, start: BatchStart, segment: &[u8]) -> Vec<Found> {
    let end = at + start.bytes as usize;
    let mut next = at + BATCH_START_BYTES;
    let mut found = Vec::new();
    while next < end {
        let place = Place { segment: number, position: next as u64, session: start.session };
        let Some(Ok(record)) = segment.get(next..).map(|bytes| record::read(bytes, place)) else {
            break;
        };
        let bytes = record.bytes();
        if let Ok(LogRecord::Entry(entry)) = LogRecord::decode(record)
            && let Some(id) = request_id(entry.payload)
            && let Some(within) = position_of(id.as_bytes(), &segment[next..next + bytes])
        {
            found.push(Found { place, bytes, byte: next + within + id.len() - 1 });
        }
        next += bytes;
    }
    found
}

/// The request id of a mailbox command.
fn request_id(payload: &[u8]) -> Option<String> {
    let envelope = Envelope::decode(&Bytes::copy_from_slice(payload)).ok()?;
    let Body::Command(command) = envelope.body else { return None };
    let id = mailbox::Command::decode_from(command).ok()?.request_id;
    (!id.is_empty()).then_some(id)
}

fn position_of(part: &[u8], whole: &[u8]) -> Option<usize> {
    whole.windows(part.len()).position(|window| window == part)
}

fn record_at(number: u64, at: usize, session: u64, segment: &[u8]) -> Option<LogRecord<'_>> {
    let place = Place { segment: number, position: at as u64, session };
    LogRecord::decode(record::read(segment.get(at..)?, place).ok()?).ok()
}
