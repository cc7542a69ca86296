//! A disk that is only a value: everything a real one may do to a database, by a seed.
//!
//! It keeps apart what was written and what is durable, file by file and name by name:
//! - a write is in the file at once and durable after a sync; a crash keeps or loses every sector
//!   (512 bytes or 4 KiB) of an unsynced write on its own, so writes are torn;
//! - a new, renamed or removed name is durable after a sync of its folder; a crash keeps a part of
//!   the unsynced changes, oldest first, as a file system's journal does;
//! - files opened with [`OpenMode::Direct`] share the device's cache: a sync of one of them covers
//!   the finished writes to all of them, unless the option `direct` is off;
//! - a failed sync loses what it should have made durable, for good: a second sync that succeeds
//!   says nothing about it;
//! - it can be full, fail, rot, cut files short and write to the wrong place.
//!
//! The same seed and the same calls give the same disk, bit for bit.

mod fault;
mod file;
mod names;
mod pages;
mod rng;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use self::file::{Content, SimFile};
use self::names::Names;
use self::rng::Rng;
use super::{Disk, DiskFile, DiskLock, OpenMode};

/// How a simulated disk behaves.
#[derive(Debug, Clone)]
pub struct SimDiskOptions {
    /// Bytes that fit; beyond it writes get `StorageFull`.
    pub capacity_bytes: u64,
    /// Whether unbuffered files share one cache; off, as on a file system without O_DIRECT.
    pub direct: bool,
    /// What a call costs, and what a MiB read or written costs.
    pub call_latency: Duration,
    /// See `call_latency`.
    pub mebibyte_latency: Duration,
    /// What a sync costs; each sync takes between this and twice this.
    pub sync_latency: Duration,
}

impl Default for SimDiskOptions {
    fn default() -> Self {
        Self {
            capacity_bytes: 64 << 30,
            direct: true,
            call_latency: Duration::from_micros(10),
            mebibyte_latency: Duration::from_micros(500),
            sync_latency: Duration::from_micros(80),
        }
    }
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    options: SimDiskOptions,
    rng: Rng,
    names: Names,
    files: BTreeMap<u64, Content>,
    locks: BTreeSet<PathBuf>,
    /// Grows with each crash; files and locks of an earlier life are dead.
    life: u64,
    latency: Duration,
    faults: fault::Faults,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64, options: SimDiskOptions) -> Self {
        let state = State {
            options,
            rng: Rng::new(seed),
            names: Names::default(),
            files: BTreeMap::new(),
            locks: BTreeSet::new(),
            life: 0,
            latency: Duration::ZERO,
            faults: fault::Faults::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The power goes and comes back: unsynced writes are torn or lost, unsynced names are lost in
    /// part, open files and locks are dead.
    pub fn crash(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.names.crash(&mut state.rng);
        let reachable = state.names.files();
        state.files.retain(|inode, _| reachable.contains(inode));
        for content in state.files.values_mut() {
            content.crash(&mut state.rng);
        }
        state.end_life();
    }

    /// The process ends and the machine goes on: nothing written is lost, open files and locks are
    /// dead. What was not durable still is not.
    pub fn kill(&self) {
        self.state().end_life();
    }

    /// Every file that is there, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().names.paths().into_iter().map(|(path, _)| path).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the simulated disk is locked")
    }
}

impl State {
    fn end_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.latency = Duration::ZERO;
        self.faults = fault::Faults::default();
    }

    /// Bytes of all files that a name leads to now.
    fn used_bytes(&self) -> u64 {
        let files = self.names.files();
        files.iter().filter_map(|inode| self.files.get(inode)).map(Content::len).sum()
    }

    /// Gives up the content of a file that no name leads to.
    fn forget(&mut self, inode: Option<u64>) {
        if let Some(inode) = inode
            && !self.names.mentions(inode)
        {
            self.files.remove(&inode);
        }
    }

    fn spend(&mut self, bytes: usize) {
        let share = u32::try_from(bytes >> 12).unwrap_or(u32::MAX);
        self.latency += self.options.call_latency + self.options.mebibyte_latency / 256 * share;
    }

    fn spend_sync(&mut self) {
        let base = self.options.sync_latency;
        let jitter = self.rng.below(1000) as u32;
        self.latency += base + base * jitter / 1000;
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.spend(0);
        let inode = match mode {
            OpenMode::Create => {
                let inode = state.names.create(path)?;
                state.files.insert(inode, Content::default());
                inode
            }
            OpenMode::Read | OpenMode::Direct => state.names.file(path)?,
        };
        let life = state.life;
        Ok(Arc::new(SimFile { disk: self.clone(), inode, mode, life, path: path.to_path_buf() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.spend(0);
        let replaced = state.names.rename(from, to)?;
        state.forget(replaced);
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.state().names.list(folder)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.state().names.create_dir_all(folder)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.spend_sync();
        state.faults.check_sync(folder)?;
        state.names.sync(folder)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.spend(0);
        let inode = state.names.remove_file(path)?;
        state.forget(Some(inode));
        Ok(())
    }

    fn remove_dir_all(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.names.remove_dir_all(folder)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.state().names.exists(path))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.spend(0);
        state.names.link(from, to)
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.options.capacity_bytes.saturating_sub(state.used_bytes()))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<DiskLock> {
        if self.state().locks.contains(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !self.exists(path)? {
            self.open(path, OpenMode::Create)?;
        }
        let file = self.open(path, OpenMode::Direct)?;
        file.set_len(0)?;
        let mut state = self.state();
        let inode = state.names.file(path)?;
        state.write(inode, owner.as_bytes(), 0, false)?;
        state.locks.insert(path.to_path_buf());
        let life = state.life;
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf(), life }))
    }

    fn take_latency(&self) -> Duration {
        std::mem::take(&mut self.state().latency)
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}
