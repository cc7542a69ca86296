//! What disks do to files: a flipped bit, a cut end.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// All files below a folder, the largest first.
pub fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let entries = fs::read_dir(&next).with_context(|| format!("read {}", next.display()))?;
        for entry in entries {
            let entry = entry?;
            let facts = entry.metadata()?;
            if facts.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((facts.len(), entry.path()));
            }
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Flips one bit of a byte.
pub fn flip_bit(file: &Path, at: u64) -> anyhow::Result<()> {
    let opened = OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0];
    opened
        .read_exact_at(&mut byte, at)
        .with_context(|| format!("read {} at {at}", file.display()))?;
    byte[0] ^= 0x10;
    opened.write_all_at(&byte, at)?;
    Ok(opened.sync_all()?)
}

/// Cuts a file off after this many bytes.
pub fn cut(file: &Path, size: u64) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).open(file)?;
    ensure!(opened.metadata()?.len() > size, "{} is not longer than {size}", file.display());
    opened.set_len(size)?;
    Ok(opened.sync_all()?)
}

/// Where the bytes of this text stand in a file; the first place.
pub fn find(file: &Path, text: &[u8]) -> anyhow::Result<Option<u64>> {
    let content = fs::read(file)?;
    Ok(content.windows(text.len()).position(|window| window == text).map(|at| at as u64))
}
