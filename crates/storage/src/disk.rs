//! The seam to a volume: everything that the log, META and seeding do to files goes through here.
//!
//! Two implementations: the real file system, and a simulated disk that keeps written and synced
//! apart, tears writes, fails, fills up and rots by a seed. The calls block; they are made from the
//! log thread (or from the simulation's own executor), never from a runtime thread.

mod aligned;
mod behind;
mod durable;
mod real;
mod sim;

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

pub use aligned::AlignedBuffer;
pub use behind::WriteBehind;
pub use durable::{read_whole, replace_whole, take_lock};
pub use real::RealDisk;
pub use sim::{SimDisk, SimDiskOptions};

/// Alignment, in bytes, of every offset, length and buffer of a file opened with `direct`.
pub const BLOCK: usize = 4096;

/// Bytes that are read, or written behind, at a time: a log on the same disk waits no longer than for
/// these.
const PIECE: usize = 512 << 10;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; reads only, and nothing is read ahead.
    Read,
    /// It must exist; reads and writes in place, unbuffered where the file system can.
    Direct,
    /// It must not exist; it is made empty, for writing.
    Create,
}

/// The names of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// How many there are.
    pub count: u64,
    /// Device and number: two names with the same are one file. None where there are no second
    /// names, so that nothing is said.
    pub file: Option<(u64, u64)>,
}

/// A volume's files.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file or folder over what may be there; durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The names in a folder, sorted; an error of kind `NotFound` where there is no such folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes a folder and those above it; harmless where it is there.
    fn create_dir_all(&self, folder: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, folder: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all in it; harmless where it is not there.
    fn remove_dir_all(&self, folder: &Path) -> io::Result<()>;
    /// Whether a file or folder of this name is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Gives a file a second name. An error of kind `CrossesDevices` or `Unsupported` where the
    /// file system cannot; then the file is copied instead.
    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// How many names a file has, and which file it is.
    fn links(&self, _path: &Path) -> io::Result<Links> {
        Ok(Links { count: 1, file: None })
    }
    /// The path of an existing file or folder without symbolic links and dots.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }
    /// Bytes that may still be written on the volume.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Makes this process the only owner of `path` (a file, made where it is missing) until the
    /// value is dropped; `owner` is written into it for people. An error of kind `WouldBlock`
    /// where somebody else is the owner.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<DiskLock>;
    /// What the calls since the last question would have taken on a real disk. A simulation lets
    /// this much virtual time pass before it counts their results; a real disk says zero, because
    /// its callers have waited already.
    fn take_latency(&self) -> Duration {
        Duration::ZERO
    }
}

/// Ownership of a folder; it ends when this is dropped, or with the process.
pub type DiskLock = Box<dyn Any + Send + Sync>;

/// A sync that is under way, or over.
#[derive(Debug)]
pub enum Syncing {
    /// What came of it.
    Over(io::Result<()>),
    /// Whoever carries it out tells.
    UnderWay(Receiver<io::Result<()>>),
}

impl Syncing {
    /// Whether it is over.
    pub fn is_over(&mut self) -> bool {
        let Self::UnderWay(told) = self else { return true };
        *self = match told.try_recv() {
            Ok(result) => Self::Over(result),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => Self::Over(Err(abandoned())),
        };
        true
    }

    /// Waits for what comes of it.
    pub fn wait(self) -> io::Result<()> {
        match self {
            Self::Over(result) => result,
            Self::UnderWay(told) => told.recv().unwrap_or_else(|_| Err(abandoned())),
        }
    }
}

fn abandoned() -> io::Error {
    io::Error::other("the thread that writes has ended")
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads exactly `buffer.len()` bytes at `offset`; `UnexpectedEof` where the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`; not durable before [`DiskFile::sync`].
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// The same for whole blocks, of a buffer that is kept for as long as that takes. Gives an empty one
    /// for as many bytes.
    fn write_buffer(&self, mut buffer: AlignedBuffer, offset: u64) -> io::Result<AlignedBuffer> {
        self.write_at(buffer.padded(), offset)?;
        buffer.reset(0);
        Ok(buffer)
    }
    /// Makes what was written durable. After an error nothing is known, and it is never retried.
    fn sync(&self) -> io::Result<()>;
    /// The same for everything that was written until now, without waiting where that is possible.
    fn begin_sync(&self) -> Syncing {
        Syncing::Over(self.sync())
    }
    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    fn len(&self) -> io::Result<u64>;
    /// Sets the length: the file is cut, or grows by zeroes.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Files with the same value share one cache that one sync empties: a sync of any of them
    /// makes durable every finished write to all of them, as long as it went to bytes that had
    /// been written and synced before (so that no file's own records change). `None`: a sync
    /// counts for this file alone.
    fn flush_group(&self) -> Option<u64>;
}
