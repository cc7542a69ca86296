//! What was replaced is kept for a while: `trash/` below a database's folder.
//!
//! A copy gets there by one rename and loses no byte. It is removed when it has lain there for the
//! time it is kept, or sooner, oldest first, when the volume needs the space. When it came is
//! written beside it; where a kill prevented that, it counts from when it is first seen.

use std::io;
use std::path::{Path, PathBuf};

use dag_types::Millis;
use storage::disk::{Disk, OpenMode, read_whole, replace_whole};

use crate::fault::{SeedFault, disk as disk_fault};

/// Its name in a database's folder.
pub const TRASH: &str = "trash";
/// How long something is kept.
pub const KEEP: Millis = Millis(7 * 24 * 60 * 60 * 1000);
const SINCE: &str = "since";

/// Something in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discarded {
    /// Its folder's name.
    pub name: PathBuf,
    /// When it came, in milliseconds since 1970.
    pub since: Millis,
    /// Bytes in it. Files that have other names too are counted in full.
    pub bytes: u64,
}

/// What must go: everything kept longer than `keep`, then the oldest until `wanted_bytes` more are
/// free. Ordered as it should be removed.
pub fn due(entries: &[Discarded], now: Millis, keep: Millis, wanted_bytes: u64) -> Vec<PathBuf> {
    let mut entries: Vec<&Discarded> = entries.iter().collect();
    entries.sort_by_key(|entry| (entry.since, &entry.name));
    let mut freed = 0;
    let mut due = Vec::new();
    for entry in entries {
        let old = now.saturating_sub(entry.since) >= keep;
        if old || freed < wanted_bytes {
            freed += entry.bytes;
            due.push(entry.name.clone());
        }
    }
    due
}

/// Writes down when what is new in the trash came. Durable on return.
pub fn note(disk: &dyn Disk, database_folder: &Path, now: Millis) -> Result<(), SeedFault> {
    let trash = database_folder.join(TRASH);
    let io = disk_fault("note the trash", &trash);
    for name in folders(disk, &trash).map_err(&io)? {
        let path = stamp(&trash, &name);
        if !disk.exists(&path).map_err(&io)? {
            replace_whole(disk, &path, now.0.to_string().as_bytes()).map_err(&io)?;
        }
    }
    Ok(())
}

/// What lies in the trash of a database.
pub fn list(
    disk: &dyn Disk,
    database_folder: &Path,
    now: Millis,
) -> Result<Vec<Discarded>, SeedFault> {
    note(disk, database_folder, now)?;
    let trash = database_folder.join(TRASH);
    let io = disk_fault("list the trash", &trash);
    let mut entries = Vec::new();
    for name in folders(disk, &trash).map_err(&io)? {
        let since = since(disk, &stamp(&trash, &name)).map_err(&io)?.unwrap_or(now);
        let bytes = size(disk, &trash.join(&name));
        entries.push(Discarded { name, since, bytes });
    }
    Ok(entries)
}

/// Removes what is due. Gives the names of what went.
pub fn empty(
    disk: &dyn Disk,
    database_folder: &Path,
    now: Millis,
    keep: Millis,
    wanted_bytes: u64,
) -> Result<Vec<PathBuf>, SeedFault> {
    let due = due(&list(disk, database_folder, now)?, now, keep, wanted_bytes);
    let trash = database_folder.join(TRASH);
    for name in &due {
        remove(disk, &trash, name).map_err(disk_fault("empty the trash", &trash))?;
    }
    Ok(due)
}

/// The folder goes first: a stamp without one is harmless.
fn remove(disk: &dyn Disk, trash: &Path, name: &Path) -> io::Result<()> {
    disk.remove_dir_all(&trash.join(name))?;
    let stamp = stamp(trash, name);
    if disk.exists(&stamp)? {
        disk.remove_file(&stamp)?;
    }
    disk.sync_dir(trash)
}

fn stamp(trash: &Path, name: &Path) -> PathBuf {
    let mut stamp = trash.join(name);
    stamp.as_mut_os_string().push(format!(".{SINCE}"));
    stamp
}

/// A stamp that cannot be read counts as none.
fn since(disk: &dyn Disk, stamp: &Path) -> io::Result<Option<Millis>> {
    match read_whole(disk, stamp) {
        Ok(bytes) => {
            Ok(std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()).map(Millis))
        }
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn folders(disk: &dyn Disk, trash: &Path) -> io::Result<Vec<PathBuf>> {
    let names = match disk.list(trash) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let is_folder = |name: &PathBuf| disk.list(&trash.join(name)).is_ok();
    Ok(names.into_iter().filter(is_folder).collect())
}

/// What cannot be read counts as nothing; it only orders what is removed.
fn size(disk: &dyn Disk, path: &Path) -> u64 {
    let Ok(names) = disk.list(path) else {
        return disk.open(path, OpenMode::Read).and_then(|file| file.len()).unwrap_or(0);
    };
    names.iter().map(|name| size(disk, &path.join(name))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::disk::{SimDisk, SimDiskOptions};

    fn entry(name: &str, since: u64, bytes: u64) -> Discarded {
        Discarded { name: name.into(), since: Millis(since), bytes }
    }

    #[test]
    fn what_was_kept_long_enough_goes_and_the_oldest_goes_sooner_for_space() {
        let entries = [entry("c", 30, 7), entry("a", 10, 5), entry("b", 20, 6)];
        let names = |now, wanted| due(&entries, Millis(now), Millis(100), wanted);
        assert_eq!(names(50, 0), Vec::<PathBuf>::new());
        assert_eq!(names(115, 0), [PathBuf::from("a")]);
        assert_eq!(names(50, 5), [PathBuf::from("a")]);
        assert_eq!(names(50, 6), [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(names(125, 1), [PathBuf::from("a"), PathBuf::from("b")]);
    }

    #[test]
    fn time_in_the_trash_counts_from_when_it_was_first_seen_and_survives_a_restart() {
        let disk = SimDisk::new(1, SimDiskOptions::default());
        let (db, gone) = (Path::new("/db"), Path::new("/db/trash/gen-1-3"));
        disk.create_dir_all(gone).unwrap();
        for folder in ["/", "/db", "/db/trash"] {
            disk.sync_dir(Path::new(folder)).unwrap();
        }
        assert_eq!(list(&disk, db, Millis(5)).unwrap()[0].since, Millis(5));
        disk.crash();
        assert_eq!(list(&disk, db, Millis(9)).unwrap()[0].since, Millis(5));
        assert!(empty(&disk, db, Millis(9), Millis(10), 0).unwrap().is_empty());
        assert_eq!(empty(&disk, db, Millis(15), Millis(10), 0).unwrap().len(), 1);
        assert!(!disk.exists(gone).unwrap());
        assert!(list(&disk, db, Millis(20)).unwrap().is_empty());
    }
}
