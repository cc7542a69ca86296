//! What a lying disk does to the files of a copy while its node is down.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dag_format::envelope::{Body, Envelope};
use dag_format::log::{BATCH_START_BYTES, BatchStart, LogRecord};
use dag_format::record::{self, Place};
use storage::disk::{AlignedBuffer, BLOCK, Disk, OpenMode, SimDisk, read_whole};

/// Flips a bit of some file of some copy; false where there is none.
pub fn rot(disk: &SimDisk, draw: u64) -> bool {
    let of_copies = |path: &PathBuf| {
        let path = path.to_string_lossy();
        path.contains("/db-") && !path.ends_with("LOCK") && !path.contains("/trash/")
    };
    let files: Vec<PathBuf> = disk.files().into_iter().filter(of_copies).collect();
    let Some(path) = files.get(draw as usize % files.len().max(1)) else { return false };
    let bytes = disk.open(path, OpenMode::Read).and_then(|file| file.len()).unwrap_or(0);
    // Most of a segment is room that was never written.
    let used = if is_segment(path) { (bytes / 8).max(4096).min(bytes) } else { bytes };
    used > 0 && disk.flip_bit(path, (draw >> 8) % used, (draw % 8) as u8).is_ok()
}

fn is_segment(path: &PathBuf) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}

/// The newest segment of each log.
pub fn newest_segments(disk: &SimDisk) -> Vec<PathBuf> {
    let mut newest: Vec<PathBuf> = Vec::new();
    for path in disk.files() {
        let path_text = path.to_string_lossy();
        if !is_segment(&path) || !path_text.contains("/db-") || path_text.contains("/trash/") {
            continue;
        }
        match newest.last_mut() {
            Some(last) if last.parent() == path.parent() => *last = path,
            _ => newest.push(path),
        }
    }
    newest
}

/// Empties one of the last written blocks of a log, though not the very last: those behind it vouch
/// for it.
pub fn lose_tail(disk: &SimDisk, draw: u64) -> bool {
    let logs = newest_segments(disk);
    let Some(path) = logs.get(draw as usize % logs.len().max(1)) else { return false };
    let emptied = || -> io::Result<bool> {
        let file = disk.open(path, OpenMode::Direct)?;
        let mut buffer = AlignedBuffer::new(BLOCK);
        let mut written = Vec::new();
        for at in (0..file.len()?).step_by(BLOCK) {
            let block = buffer.blocks_mut(BLOCK);
            file.read_at(block, at)?;
            if block.iter().any(|byte| *byte != 0) {
                written.push(at);
            }
        }
        // The first block is the segment's own header.
        let [_, ref middle @ .., _] = written[..] else { return Ok(false) };
        let behind = (draw >> 8) as usize % middle.len().clamp(1, LOST_BLOCKS);
        let Some(lost) = middle.iter().rev().nth(behind) else { return Ok(false) };
        let block = buffer.blocks_mut(BLOCK);
        block.fill(0);
        file.write_at(block, *lost)?;
        file.sync()?;
        Ok(true)
    };
    emptied().unwrap_or(false)
}

/// How far from its end a log may lose a block.
const LOST_BLOCKS: usize = 16;

/// Changes the request id of one of the last commands of a log and gives it the right checksum, as
/// memory does that loses a bit before the checksum is reckoned. Only the chain tells.
pub fn forge(disk: &SimDisk, draw: u64) -> bool {
    let mut logs = newest_segments(disk);
    logs.retain(|path| !path.to_string_lossy().contains("/db-0/"));
    let first = draw as usize % logs.len().max(1);
    logs.rotate_left(first);
    logs.iter().any(|path| forge_in(disk, path, draw >> 8).unwrap_or(false))
}

fn forge_in(disk: &SimDisk, path: &Path, draw: u64) -> io::Result<bool> {
    let mut whole = read_whole(disk, path)?;
    let commands = commands(path, &whole);
    let behind = draw as usize % commands.len().clamp(1, FORGED_ENTRIES);
    let Some(forged) = commands.iter().rev().nth(behind) else { return Ok(false) };
    let (at, place) = (forged.place.position as usize, forged.place);
    let (kind, version) = (whole[at + 8], whole[at + 9]);
    whole[forged.byte] ^= 1;
    let payload = &whole[at + record::HEADER_BYTES..at + forged.bytes];
    let header = record::header(kind, version, place, &[payload]);
    whole[at..at + record::HEADER_BYTES].copy_from_slice(&header);
    let mut buffer = AlignedBuffer::new(whole.len());
    buffer.push(&whole);
    let file = disk.open(path, OpenMode::Direct)?;
    file.write_at(buffer.padded(), 0)?;
    file.sync()?;
    Ok(true)
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
