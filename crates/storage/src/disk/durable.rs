//! Small files that are read and replaced whole.

use std::io;
use std::path::Path;

use super::{Disk, DiskLock, OpenMode};

/// A whole file.
pub fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let length = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; length];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces a file, or makes it: after a crash it is the old one or the new one, whole; after the
/// return it is the new one. The new content is written beside it, synced, renamed over it, and the
/// folder is synced.
pub fn replace_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = path.to_path_buf();
    beside.as_mut_os_string().push(".new");
    if disk.exists(&beside)? {
        disk.remove_file(&beside)?;
    }
    let file = disk.open(&beside, OpenMode::Create)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    drop(file);
    disk.rename(&beside, path)?;
    disk.sync_dir(folder)
}

/// [`Disk::lock`] with an answer that names the folder instead of an error number.
pub fn take_lock(disk: &dyn Disk, path: &Path, owner: &str) -> io::Result<Option<DiskLock>> {
    match disk.lock(path, owner) {
        Ok(lock) => Ok(Some(lock)),
        Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(fault) => Err(fault),
    }
}
