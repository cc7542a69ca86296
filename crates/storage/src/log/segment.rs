//! Segment files: their names, how they are made, recycled and given up.
//!
//! A segment is a file whose every byte has been written and synced before the log uses it, so
//! that a commit changes nothing but bytes in place. It is made under a passing name, by the
//! volume's background work where there is time, and gets its number when the log takes it over.
//! A segment that was purged is kept under another passing name to become the next one: its old
//! records cannot be taken for new ones, because their checksums cover the old number.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dag_types::Millis;

use crate::disk::{AlignedBuffer, BLOCK, Disk, DiskFile, OpenMode};

/// Bytes that are written at once while a segment is filled with zeroes.
const FILL_BYTES: usize = 1 << 20;
/// A segment that was full after this time is followed by a larger one.
const GROW_WITHIN: Millis = Millis(10_000);
/// A segment that lasted this long is followed by a smaller one.
const SHRINK_AFTER: Millis = Millis(300_000);
/// The factor between steps.
const STEP: u64 = 4;

/// The passing names.
pub(super) const SPARE: &str = "spare.tmp";
pub(super) const HASTY: &str = "hasty.tmp";
const RECYCLED: &str = "recycled-";

/// A segment that the log holds.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) bytes: u64,
}

impl Segment {
    /// Where the seal stands; batches end before it.
    pub(super) fn seal_position(&self) -> u64 {
        self.bytes - BLOCK as u64
    }
}

/// How large segments are.
#[derive(Debug, Clone, Copy)]
pub struct SegmentSizes {
    /// The first segment of a log, and of one that rests; bytes, a multiple of 4 KiB.
    pub bytes_min: u64,
    /// The largest step; bytes.
    pub bytes_max: u64,
    /// Purged segments that a log keeps for later.
    pub recycled_max: usize,
}

impl Default for SegmentSizes {
    fn default() -> Self {
        Self { bytes_min: 256 << 10, bytes_max: 64 << 20, recycled_max: 2 }
    }
}

impl SegmentSizes {
    /// The size that follows a segment of `bytes` that lasted for `lasted`.
    pub(super) fn after(&self, bytes: u64, lasted: Millis) -> u64 {
        let next = match lasted {
            short if short < GROW_WITHIN => bytes.saturating_mul(STEP),
            long if long > SHRINK_AFTER => bytes / STEP,
            _ => bytes,
        };
        let steps = [self.bytes_min, self.bytes_max];
        next.clamp(steps[0], steps[1]).next_multiple_of(BLOCK as u64)
    }
}

pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016x}.seg"))
}

/// The number in a segment's name.
pub(super) fn number(name: &Path) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".seg")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

pub(super) fn is_passing(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "tmp")
}

/// Makes a file of `bytes` written and synced bytes under a passing name; gives its length.
pub(super) fn prepare(disk: &dyn Disk, folder: &Path, name: &str, bytes: u64) -> io::Result<u64> {
    let path = folder.join(name);
    if disk.exists(&path)? {
        disk.remove_file(&path)?;
    }
    drop(disk.open(&path, OpenMode::Create)?);
    complete(disk, &path, bytes)
}

/// The same out of a recycled segment, where there is one. For the background only, which alone
/// deals with recycled ones.
pub(super) fn prepare_or_recycle(
    disk: &dyn Disk,
    folder: &Path,
    name: &str,
    bytes: u64,
) -> io::Result<u64> {
    match recycled(disk, folder)?.first() {
        Some(old) => {
            let path = folder.join(name);
            disk.rename(&folder.join(old), &path)?;
            complete(disk, &path, bytes)
        }
        None => prepare(disk, folder, name, bytes),
    }
}

fn complete(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<u64> {
    let file = disk.open(path, OpenMode::Direct)?;
    let length = file.len()?;
    if length < bytes {
        fill(&*file, length - length % BLOCK as u64, bytes)?;
    }
    file.sync()?;
    Ok(length.max(bytes))
}

/// Gives a prepared file its number; it is durable on return, name and all.
pub(super) fn adopt(
    disk: &dyn Disk,
    folder: &Path,
    name: &str,
    number: u64,
    bytes: u64,
) -> io::Result<Segment> {
    let path = path(folder, number);
    disk.rename(&folder.join(name), &path)?;
    disk.sync_dir(folder)?;
    Ok(Segment { file: disk.open(&path, OpenMode::Direct)?, bytes })
}

/// Makes a segment larger, before anything was written to it.
pub(super) fn grow(segment: &mut Segment, bytes: u64) -> io::Result<()> {
    fill(&*segment.file, segment.bytes, bytes)?;
    segment.file.sync()?;
    segment.bytes = bytes;
    Ok(())
}

fn fill(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut zeroes = AlignedBuffer::new(FILL_BYTES);
    let mut at = from;
    while at < to {
        let bytes = (to - at).min(FILL_BYTES as u64) as usize;
        file.write_at(zeroes.blocks_mut(bytes), at)?;
        at += bytes as u64;
    }
    Ok(())
}

/// Gives up segments that were purged, oldest first, so that those left follow one another after
/// a crash as well. Some are kept to be recycled.
pub(super) fn give_up(
    disk: &dyn Disk,
    folder: &Path,
    numbers: &[u64],
    sizes: SegmentSizes,
) -> io::Result<()> {
    for number in numbers {
        let kept = recycled(disk, folder)?.len();
        let old = path(folder, *number);
        let bytes = disk.open(&old, OpenMode::Read)?.len()?;
        if kept < sizes.recycled_max && bytes <= sizes.bytes_max {
            disk.rename(&old, &folder.join(format!("{RECYCLED}{number:016x}.tmp")))?;
        } else {
            disk.remove_file(&old)?;
        }
        disk.sync_dir(folder)?;
    }
    Ok(())
}

fn recycled(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = disk.list(folder)?;
    names.retain(|name| name.to_string_lossy().starts_with(RECYCLED));
    Ok(names)
}

/// Removes what passing names an earlier life left behind.
pub(super) fn remove_passing(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let mut names = disk.list(folder)?;
    names.retain(|name| is_passing(name));
    for name in &names {
        disk.remove_file(&folder.join(name))?;
    }
    if names.is_empty() { Ok(()) } else { disk.sync_dir(folder) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_and_shrink_in_steps_with_the_rate() {
        let sizes = SegmentSizes::default();
        let mut bytes = sizes.bytes_min;
        for expected in [1 << 20, 4 << 20, 16 << 20, 64 << 20, 64 << 20] {
            bytes = sizes.after(bytes, Millis(500));
            assert_eq!(bytes, expected);
        }
        assert_eq!(sizes.after(bytes, Millis(60_000)), bytes);
        assert_eq!(sizes.after(bytes, Millis(400_000)), 16 << 20);
        assert_eq!(sizes.after(sizes.bytes_min, Millis(400_000)), sizes.bytes_min);
    }

    #[test]
    fn only_whole_names_are_segments() {
        assert_eq!(number(Path::new("00000000000000ff.seg")), Some(255));
        for name in ["ff.seg", "00000000000000ff.tmp", "000000000000000g.seg", SPARE] {
            assert_eq!(number(Path::new(name)), None, "{name}");
        }
    }
}
