//! What a lying disk does to the files of a copy while its node is down.

use std::io;
use std::path::{Path, PathBuf};

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

/// Empties the last written block of a log but one: the last one vouches for it.
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
        let [_, .., lost, _] = written[..] else { return Ok(false) };
        let block = buffer.blocks_mut(BLOCK);
        block.fill(0);
        file.write_at(block, lost)?;
        file.sync()?;
        Ok(true)
    };
    emptied().unwrap_or(false)
}

/// Changes the last byte of the last entry of a log and gives it the right checksum, as memory does
/// that loses a bit before the checksum is reckoned. Only the chain tells.
pub fn forge(disk: &SimDisk, draw: u64) -> bool {
    let logs = newest_segments(disk);
    let Some(path) = logs.get(draw as usize % logs.len().max(1)) else { return false };
    let forged = || -> io::Result<bool> {
        let mut whole = read_whole(disk, path)?;
        let Some((place, bytes)) = last_entry(path, &whole) else { return Ok(false) };
        let at = place.position as usize;
        let (kind, version) = (whole[at + 8], whole[at + 9]);
        whole[at + bytes - 1] ^= 1;
        let payload = &whole[at + record::HEADER_BYTES..at + bytes];
        let header = record::header(kind, version, place, &[payload]);
        whole[at..at + record::HEADER_BYTES].copy_from_slice(&header);
        let mut buffer = AlignedBuffer::new(whole.len());
        buffer.push(&whole);
        let file = disk.open(path, OpenMode::Direct)?;
        file.write_at(buffer.padded(), 0)?;
        file.sync()?;
        Ok(true)
    };
    forged().unwrap_or(false)
}

/// Where the last entry of a segment that carries something stands, and the bytes of its record.
fn last_entry(path: &Path, segment: &[u8]) -> Option<(Place, usize)> {
    let number = u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()?;
    let mut last = None;
    for at in (0..segment.len()).step_by(BLOCK) {
        let Some(LogRecord::BatchStart(start)) = record_at(number, at, 0, segment) else {
            continue;
        };
        last = entries(number, at, start, segment).last().or(last);
    }
    last
}

fn entries(
    number: u64,
    at: usize,
    start: BatchStart,
    segment: &[u8],
) -> impl Iterator<Item = (Place, usize)> {
    let end = at + start.bytes as usize;
    let mut next = at + BATCH_START_BYTES;
    std::iter::from_fn(move || {
        while next < end {
            let place = Place { segment: number, position: next as u64, session: start.session };
            let bytes = record::read(segment.get(next..)?, place).ok()?.bytes();
            let record = record_at(number, next, start.session, segment);
            next += bytes;
            if let Some(LogRecord::Entry(entry)) = record
                && !entry.payload.is_empty()
            {
                return Some((place, bytes));
            }
        }
        None
    })
}

fn record_at(number: u64, at: usize, session: u64, segment: &[u8]) -> Option<LogRecord<'_>> {
    let place = Place { segment: number, position: at as u64, session };
    LogRecord::decode(record::read(segment.get(at..)?, place).ok()?).ok()
}
