//! The state of a simulated copy: an ordered map in memory, whose flushes are files.
//!
//! It keeps the promises of the real state and loses what that loses, but all it does to a disk
//! goes through [`Disk`]: on a simulated disk a crash, a torn write, a full volume and rot are the
//! disk's, and repeat by its seed. A copy's folder can be renamed, seeded and copied as files, as
//! the real one's.
//!
//! ```text
//!  0000000000000004.full   every row, as of some flush
//!  0000000000000005.part   the changes of one flush on top of it
//!  0000000000000006.part   ...
//! ```
//!
//! A flush makes the next file, which has its name only once it is whole and durable; so one that is
//! damaged or missing is an error, never an older state.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use bytes::Bytes;
use dag_types::Write;

use super::tree::Tree;
use super::{Row, StateEngine, StateError, StateRead, StateStore, cost, unframe};
use crate::disk::Disk;

mod file;

/// After so many files of changes, the next flush writes every row.
const PARTS_MAX: usize = 16;

/// A simulated copy's state.
pub struct MapState {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    live: RwLock<Live>,
    files: Mutex<Files>,
    planted: Mutex<VecDeque<Planted>>,
}

/// What readers see, and what the next flush will write.
#[derive(Default)]
struct Live {
    rows: Tree,
    /// Framed, in the order they were made; `None` is a deletion.
    unflushed: Vec<(Bytes, Option<Bytes>)>,
    unflushed_bytes: u64,
    /// Why no more writes are taken.
    failed: Option<StateError>,
}

/// The files that the durable state consists of; also the lock that flushes take.
struct Files {
    next: u64,
    parts: usize,
}

/// A fault that the next matching operation runs into, beside those that a disk has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planted {
    /// The next read of any kind fails in the engine.
    Read,
    /// The next write fails in the engine.
    Write,
    /// The next flush fails, and leaves nothing durable.
    Flush,
}

impl MapState {
    /// Makes an empty state; an error where the folder holds one.
    pub fn create(disk: Arc<dyn Disk>, folder: &Path) -> Result<Self, StateError> {
        disk.create_dir_all(folder).map_err(|error| StateError::io("create", &error))?;
        if !file::list(&*disk, folder)?.is_empty() {
            return Err(StateError::engine("create", "the folder holds a state already"));
        }
        file::write_full(&*disk, folder, 0, &Tree::default())?;
        sync_parent(&*disk, folder)?;
        Self::open(disk, folder)
    }

    /// Opens the state in a folder; an error where there is none, or where a file is missing.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path) -> Result<Self, StateError> {
        let (rows, next, parts) = file::load(&*disk, folder)?;
        Ok(Self {
            disk,
            folder: folder.to_owned(),
            live: RwLock::new(Live { rows, ..Live::default() }),
            files: Mutex::new(Files { next, parts }),
            planted: Mutex::default(),
        })
    }

    /// Makes a later operation fail.
    pub fn plant(&self, fault: Planted) {
        lock(&self.planted).push_back(fault);
    }

    /// Turns one bit of a value in memory, as a fault of memory or a file would; `false` where
    /// there is no such key.
    pub fn rot(&self, key: &[u8], bit: u32) -> bool {
        let mut live = self.live.write().expect(UNPOISONED);
        let Some(framed) = live.rows.get(key) else { return false };
        let mut framed = framed.to_vec();
        let at = bit as usize / 8 % framed.len();
        framed[at] ^= 1 << (bit % 8);
        live.rows.insert(Bytes::copy_from_slice(key), framed.into());
        true
    }

    fn view(&self) -> Result<MapSnapshot, StateError> {
        self.run_into(&Planted::Read, "read")?;
        Ok(MapSnapshot { rows: self.live.read().expect(UNPOISONED).rows.clone() })
    }

    fn run_into(&self, fault: &Planted, operation: &'static str) -> Result<(), StateError> {
        let mut planted = lock(&self.planted);
        if planted.front() == Some(fault) {
            planted.pop_front();
            return Err(StateError::engine(operation, "a planted fault"));
        }
        Ok(())
    }

    /// Takes what is unflushed, and the rows it led to.
    fn begin_flush(&self) -> Result<(Vec<(Bytes, Option<Bytes>)>, Tree, u64), StateError> {
        let mut live = self.live.write().expect(UNPOISONED);
        if let Some(failed) = &live.failed {
            return Err(failed.clone());
        }
        let bytes = live.unflushed_bytes;
        Ok((std::mem::take(&mut live.unflushed), live.rows.clone(), bytes))
    }

    fn flush_files(
        &self,
        files: &mut Files,
        changes: &[(Bytes, Option<Bytes>)],
        rows: &Tree,
    ) -> Result<(), StateError> {
        self.run_into(&Planted::Flush, "flush")?;
        let number = files.next;
        if files.parts < PARTS_MAX {
            file::write_part(&*self.disk, &self.folder, number, changes)?;
            files.parts += 1;
        } else {
            file::write_full(&*self.disk, &self.folder, number, rows)?;
            file::remove_before(&*self.disk, &self.folder, number)?;
            files.parts = 0;
        }
        files.next += 1;
        Ok(())
    }
}

impl StateRead for MapState {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.view()?.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.view()?.scan(from, to, limit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.view()?.scan_back(from, to, limit)
    }
}

impl StateStore for MapState {
    fn write(&self, batch: &[Write]) -> Result<(), StateError> {
        self.run_into(&Planted::Write, "write")?;
        let mut live = self.live.write().expect(UNPOISONED);
        if let Some(failed) = &live.failed {
            return Err(failed.clone());
        }
        batch.iter().for_each(|write| live.apply(write));
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        let mut files = lock(&self.files);
        let (changes, rows, bytes) = self.begin_flush()?;
        if changes.is_empty() {
            return Ok(());
        }
        let flushed = self.flush_files(&mut files, &changes, &rows);
        let mut live = self.live.write().expect(UNPOISONED);
        match &flushed {
            Ok(()) => live.unflushed_bytes -= bytes,
            Err(error) => live.failed = Some(error.clone()),
        }
        flushed
    }

    fn unflushed_bytes(&self) -> u64 {
        self.live.read().expect(UNPOISONED).unflushed_bytes
    }

    fn snapshot(&self) -> Arc<dyn StateRead> {
        Arc::new(MapSnapshot { rows: self.live.read().expect(UNPOISONED).rows.clone() })
    }

    fn checkpoint(&self, folder: &Path) -> Result<(), StateError> {
        self.flush()?;
        let there = self.disk.exists(folder).map_err(|error| StateError::io("copy", &error))?;
        if there {
            return Err(StateError::engine("copy", "the folder is there already"));
        }
        self.disk.create_dir_all(folder).map_err(|error| StateError::io("copy", &error))?;
        let rows = self.live.read().expect(UNPOISONED).rows.clone();
        file::write_full(&*self.disk, folder, 0, &rows)?;
        sync_parent(&*self.disk, folder)
    }
}

impl Live {
    fn apply(&mut self, write: &Write) {
        assert!(!write.key().is_empty(), "a key begins with its table byte");
        let key = write.key().clone();
        let framed = match write {
            Write::Put { key, value } => Some(dag_format::value::frame(key, value)),
            Write::Delete { .. } => None,
        };
        match &framed {
            Some(framed) => self.rows.insert(key.clone(), framed.clone()),
            None => self.rows.remove(&key),
        }
        self.unflushed.push((key, framed));
        self.unflushed_bytes += cost(write);
    }
}

/// Makes the folder's own name durable.
fn sync_parent(disk: &dyn Disk, folder: &Path) -> Result<(), StateError> {
    let Some(parent) = folder.parent() else { return Ok(()) };
    disk.sync_dir(parent).map_err(|error| StateError::io("create", &error))
}

/// A state at one moment.
struct MapSnapshot {
    rows: Tree,
}

impl StateRead for MapSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.rows.get(key).map(|framed| unframe(key, framed)).transpose()
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        unframe_all(self.rows.scan(from, to, limit))
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        unframe_all(self.rows.scan_back(from, to, limit))
    }
}

fn unframe_all(rows: Vec<Row>) -> Result<Vec<Row>, StateError> {
    let unframed = |(key, framed): Row| unframe(&key, &framed).map(|value| (key, value));
    rows.into_iter().map(unframed).collect()
}

/// The states of a simulated node's copies.
pub struct MapEngine {
    disk: Arc<dyn Disk>,
}

impl MapEngine {
    /// States on this disk.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }
}

impl StateEngine for MapEngine {
    fn create(&self, folder: &Path) -> Result<Arc<dyn StateStore>, StateError> {
        Ok(Arc::new(MapState::create(self.disk.clone(), folder)?))
    }

    fn open(&self, folder: &Path) -> Result<Arc<dyn StateStore>, StateError> {
        Ok(Arc::new(MapState::open(self.disk.clone(), folder)?))
    }
}

const UNPOISONED: &str = "no holder of this lock panics";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect(UNPOISONED)
}
