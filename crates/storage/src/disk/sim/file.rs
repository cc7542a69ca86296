//! Open files of the simulated disk, and what they hold.

use std::io;
use std::path::PathBuf;

use super::super::{BLOCK, DiskFile, OpenMode};
use super::pages::Pages;
use super::rng::Rng;
use super::{SimDisk, State};

/// A file's content: as it reads now, as it would be after the worst crash, and what differs.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) now: Pages,
    pub(super) durable: Pages,
    unsynced: Vec<Unsynced>,
}

/// A range that was written and not synced.
#[derive(Debug)]
struct Unsynced {
    offset: u64,
    bytes: usize,
    /// Whether it waits in the device's cache, where a sync of another file reaches it.
    in_device: bool,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.now.length
    }

    fn write(&mut self, data: &[u8], offset: u64, direct: bool) {
        let inside = offset + data.len() as u64 <= self.durable.length;
        self.now.write(data, offset);
        let in_device = direct && inside;
        self.unsynced.push(Unsynced { offset, bytes: data.len(), in_device });
    }

    /// A sync of this file.
    fn sync(&mut self) {
        self.durable.set_len(self.now.length);
        for range in std::mem::take(&mut self.unsynced) {
            self.keep(range.offset, range.bytes);
        }
    }

    /// A sync of another file that shares the device's cache.
    fn sync_device(&mut self) {
        let (reached, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|range| range.in_device);
        self.unsynced = rest;
        for range in reached {
            self.keep(range.offset, range.bytes);
        }
    }

    /// A failed sync: the ranges will never be durable, whatever comes after.
    fn lose_unsynced(&mut self) {
        self.unsynced.clear();
    }

    fn keep(&mut self, offset: u64, bytes: usize) {
        let end = (offset + bytes as u64).min(self.durable.length);
        let bytes = end.saturating_sub(offset) as usize;
        self.durable.copy_from(&self.now, offset, bytes);
    }

    /// Each sector of each unsynced write survives or not; a growth survives or not.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        if self.now.length != self.durable.length && rng.below(2) == 0 {
            self.durable.set_len(self.now.length);
        }
        let sector: u64 = if rng.below(2) == 0 { 512 } else { BLOCK as u64 };
        for range in std::mem::take(&mut self.unsynced) {
            let odds = rng.below(4);
            let end = range.offset + range.bytes as u64;
            let mut at = range.offset;
            while at < end {
                let next = ((at / sector + 1) * sector).min(end);
                if rng.below(3) < odds {
                    self.keep(at, (next - at) as usize);
                }
                at = next;
            }
        }
        self.now = self.durable.clone();
    }

    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        for pages in [&mut self.now, &mut self.durable] {
            let mut byte = [0];
            pages.read(&mut byte, offset);
            byte[0] ^= 1 << (bit % 8);
            pages.replace(&byte, offset);
        }
    }

    pub(super) fn whole(&self) -> Vec<u8> {
        let length = usize::try_from(self.now.length).expect("a file that fits into memory");
        let mut bytes = vec![0; length];
        self.now.read(&mut bytes, 0);
        bytes
    }

    pub(super) fn replace(&mut self, bytes: &[u8], offset: u64) {
        self.now.replace(bytes, offset);
        self.durable.replace(bytes, offset);
    }

    pub(super) fn cut(&mut self, length: u64) {
        self.now.set_len(length);
        self.durable.set_len(length);
    }
}

impl State {
    pub(super) fn write(
        &mut self,
        inode: u64,
        data: &[u8],
        offset: u64,
        direct: bool,
    ) -> io::Result<()> {
        let length = self.files.get(&inode).ok_or(io::ErrorKind::NotFound)?.len();
        let growth = (offset + data.len() as u64).saturating_sub(length);
        if growth > 0 && self.used_bytes() + growth > self.options.capacity_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = self.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        content.write(data, offset, direct && self.options.direct);
        self.spend(data.len());
        Ok(())
    }

    fn sync_file(&mut self, inode: u64, direct: bool) {
        if let Some(content) = self.files.get_mut(&inode) {
            content.sync();
        }
        if direct && self.options.direct {
            self.files.values_mut().for_each(Content::sync_device);
        }
    }

    fn fail_sync(&mut self, inode: u64, direct: bool) {
        if let Some(content) = self.files.get_mut(&inode) {
            content.lose_unsynced();
        }
        if direct && self.options.direct {
            for content in self.files.values_mut() {
                content.unsynced.retain(|range| !range.in_device);
            }
        }
    }
}

/// An open file; dead once the disk has crashed.
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: u64,
    pub(super) mode: OpenMode,
    pub(super) life: u64,
    pub(super) path: PathBuf,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.life != self.life {
            return Err(io::Error::other("the machine crashed since this file was opened"));
        }
        act(&mut state)
    }

    fn is_direct(&self) -> bool {
        self.mode == OpenMode::Direct
    }

    fn check_alignment(&self, bytes: &[u8], offset: u64) {
        let whole = bytes.as_ptr().addr().is_multiple_of(BLOCK)
            && bytes.len().is_multiple_of(BLOCK)
            && offset.is_multiple_of(BLOCK as u64);
        assert!(!self.is_direct() || whole, "unbuffered files take whole, aligned blocks");
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.check_alignment(buffer, offset);
        self.with(|state| {
            state.faults.check_read(&self.path)?;
            state.spend(buffer.len());
            let content = state.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
            if offset + buffer.len() as u64 > content.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            content.now.read(buffer, offset);
            Ok(())
        })
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_alignment(data, offset);
        assert!(self.mode != OpenMode::Read, "the file was opened for reading only");
        self.with(|state| {
            state.faults.check_write(&self.path)?;
            let offset = state.faults.misdirect(&self.path, offset);
            state.write(self.inode, data, offset, self.is_direct())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state| {
            state.spend_sync();
            if let Err(fault) = state.faults.check_sync(&self.path) {
                state.fail_sync(self.inode, self.is_direct());
                return Err(fault);
            }
            state.sync_file(self.inode, self.is_direct());
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state| Ok(state.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?.len()))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with(|state| {
            let length = state.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?.len();
            let growth = bytes.saturating_sub(length);
            if growth > 0 && state.used_bytes() + growth > state.options.capacity_bytes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let content = state.files.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
            content.now.set_len(bytes);
            Ok(())
        })
    }

    fn flush_group(&self) -> Option<u64> {
        (self.is_direct() && self.disk.state().options.direct).then_some(0)
    }
}
