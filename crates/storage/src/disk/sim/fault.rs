//! What a test may do to the disk on purpose.

use std::io;
use std::path::{Path, PathBuf};

use super::SimDisk;

/// Faults that wait to happen; a crash or a restart clears them.
#[derive(Debug, Default)]
pub(super) struct Faults {
    reads: Option<Trap>,
    writes: Option<Trap>,
    syncs: Option<Trap>,
    misdirect: Option<(PathBuf, u64)>,
}

/// The call on a path with this part fails, after some that do not.
#[derive(Debug)]
struct Trap {
    part: String,
    after: u64,
    kind: io::ErrorKind,
}

fn check(trap: &mut Option<Trap>, path: &Path) -> io::Result<()> {
    let Some(waiting) = trap else { return Ok(()) };
    if !path.to_string_lossy().contains(&waiting.part) {
        return Ok(());
    }
    if waiting.after > 0 {
        waiting.after -= 1;
        return Ok(());
    }
    let kind = waiting.kind;
    *trap = None;
    Err(io::Error::new(kind, "planted by the simulation"))
}

impl Faults {
    pub(super) fn check_read(&mut self, path: &Path) -> io::Result<()> {
        check(&mut self.reads, path)
    }

    pub(super) fn check_write(&mut self, path: &Path) -> io::Result<()> {
        check(&mut self.writes, path)
    }

    pub(super) fn check_sync(&mut self, path: &Path) -> io::Result<()> {
        check(&mut self.syncs, path)
    }

    pub(super) fn misdirect(&mut self, path: &Path, offset: u64) -> u64 {
        match self.misdirect.take_if(|(target, _)| target == path) {
            Some((_, elsewhere)) => elsewhere,
            None => offset,
        }
    }
}

impl SimDisk {
    /// One read of a path that contains `part` fails, after `after` that do not.
    pub fn fail_read(&self, part: &str, after: u64, kind: io::ErrorKind) {
        self.state().faults.reads = Some(Trap { part: part.into(), after, kind });
    }

    /// The same for a write.
    pub fn fail_write(&self, part: &str, after: u64, kind: io::ErrorKind) {
        self.state().faults.writes = Some(Trap { part: part.into(), after, kind });
    }

    /// The same for a sync, of a file or a folder. What it should have made durable is lost.
    pub fn fail_sync(&self, part: &str, after: u64, kind: io::ErrorKind) {
        self.state().faults.syncs = Some(Trap { part: part.into(), after, kind });
    }

    /// Faults that wait to happen do not happen any more.
    pub fn disarm(&self) {
        self.state().faults = Faults::default();
    }

    /// The next write to this file lands at another offset and reports success.
    pub fn misdirect_write(&self, path: &Path, offset: u64) {
        self.state().faults.misdirect = Some((path.to_path_buf(), offset));
    }

    /// One bit of a file rots.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.names.file(path)?;
        let content = state.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        if offset >= content.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.flip_bit(offset, bit);
        Ok(())
    }

    /// What a file holds, for whoever looks at the disk from outside: no call of the node's, so
    /// that no fault that waits for one happens here.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let inode = state.names.file(path)?;
        let content = state.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        Ok(content.whole())
    }

    /// Bytes of a file are others from now on, as [`SimDisk::flip_bit`] changes one. It is no
    /// write of the node's, so no fault that waits for one happens here.
    pub fn replace_bytes(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.names.file(path)?;
        let content = state.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        if offset + bytes.len() as u64 > content.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.replace(bytes, offset);
        Ok(())
    }

    /// A file ends early.
    pub fn cut_file(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.names.file(path)?;
        state.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?.cut(bytes);
        Ok(())
    }

    /// Changes how much fits.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().options.capacity_bytes = bytes;
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }
}
