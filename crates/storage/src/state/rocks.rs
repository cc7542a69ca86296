//! The real state of a copy: one RocksDB per copy, its own log switched off.
//!
//! Raft's log is the log. A batch goes to memory only; a flush makes all families' memory durable
//! at once (atomic flush), so the applied position and its effects are always of one moment. What
//! RocksDB would do by itself (flush when memory is short, flush at close, slow writers down, try
//! a failed flush again) is switched off or out of reach, because the order *log first, then
//! state, then purge* is kept by the [flusher](crate::flusher) alone.
//!
//! Small records, bodies and expiring records are column families; bodies lie in blob files, which
//! are written once and left alone until much of them is garbage ([`RocksState::tidy`]).

use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dag_types::Write;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, ErrorKind, FlushOptions, Options,
    ReadOptions, Snapshot, WriteBatch, WriteOptions,
};

use super::{Family, Row, StateEngine, StateError, StateRead, StateStore, cost, unframe};

mod manifest;
mod resources;
mod tidy;

pub use resources::{SharedResources, StateBudget};
pub use tidy::{Tidied, TidyReason};

/// The state of a copy in RocksDB.
pub struct RocksState {
    engine: Arc<Engine>,
}

/// An open database; closed when the store and its last snapshot are dropped.
struct Engine {
    db: DB,
    unflushed: AtomicU64,
    /// What the cache, the budget and the threads belong to must outlive the database.
    _shared: SharedResources,
}

impl Family {
    /// The column family; small records use the one that RocksDB always has.
    fn column(self) -> &'static str {
        match self {
            Self::Records => rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
            Self::Bodies => "bodies",
            Self::Expiring => "expiring",
        }
    }
}

impl RocksState {
    /// Makes an empty state; an error where the folder holds one.
    pub fn create(shared: &SharedResources, folder: &Path) -> Result<Self, StateError> {
        std::fs::create_dir_all(folder).map_err(|error| StateError::io("create", &error))?;
        let mut options = shared.state_options(folder, can_write_unbuffered(folder)?)?;
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_error_if_exists(true);
        let state = Self::open_with(shared, &options, folder, "create")?;
        sync_parent(folder).map_err(|error| StateError::io("create", &error))?;
        Ok(state)
    }

    /// Opens the state in a folder; an error where there is none, or where a file is missing.
    pub fn open(shared: &SharedResources, folder: &Path) -> Result<Self, StateError> {
        manifest::check(folder)?;
        let mut options = shared.state_options(folder, can_write_unbuffered(folder)?)?;
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        Self::open_with(shared, &options, folder, "open")
    }

    /// Opens the state in a folder that nobody writes to, and writes nothing to it either.
    pub fn open_read_only(shared: &SharedResources, folder: &Path) -> Result<Self, StateError> {
        manifest::check(folder)?;
        let mut options = shared.state_options(folder, false)?;
        options.create_if_missing(false);
        let db = DB::open_cf_descriptors_read_only(&options, folder, families(shared), false)
            .map_err(|error| fault("open", error))?;
        let engine = Engine { db, unflushed: AtomicU64::new(0), _shared: shared.clone() };
        Ok(Self { engine: Arc::new(engine) })
    }

    fn open_with(
        shared: &SharedResources,
        options: &Options,
        folder: &Path,
        operation: &'static str,
    ) -> Result<Self, StateError> {
        let db = DB::open_cf_descriptors(options, folder, families(shared))
            .map_err(|error| fault(operation, error))?;
        let engine = Engine { db, unflushed: AtomicU64::new(0), _shared: shared.clone() };
        Ok(Self { engine: Arc::new(engine) })
    }
}

fn families(shared: &SharedResources) -> [ColumnFamilyDescriptor; 3] {
    Family::ALL
        .map(|family| ColumnFamilyDescriptor::new(family.column(), shared.family_options(family)))
}

impl Engine {
    fn column(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.column()).expect("opened with all families")
    }

    fn get(&self, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>, StateError> {
        let column = self.column(Family::of(key));
        let framed = self
            .db
            .get_pinned_cf_opt(column, key, options)
            .map_err(|error| fault("read", error))?;
        // One copy, so that an answer on its way to a client holds neither a cached block nor the
        // whole database.
        framed.map(|framed| unframe(key, &Bytes::copy_from_slice(&framed))).transpose()
    }

    /// Writes without RocksDB's log. The count follows the write, so that a flush between the two
    /// leaves the count too high and never too low.
    fn write(&self, batch: &[Write]) -> Result<(), StateError> {
        let bytes = batch.iter().map(cost).sum();
        let mut rows = WriteBatch::with_capacity_bytes(usize::try_from(bytes).unwrap_or(0));
        let mut framed = Vec::new();
        for write in batch {
            let column = self.column(Family::of(write.key()));
            match write {
                Write::Put { key, value } => {
                    dag_format::value::frame_into(&mut framed, key, value);
                    rows.put_cf(column, key, &framed);
                }
                Write::Delete { key } => rows.delete_cf(column, key),
            }
        }
        self.db.write_opt(rows, &write_options()).map_err(|error| fault("write", error))?;
        self.unflushed.fetch_add(bytes, Ordering::AcqRel);
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        let before = self.unflushed.load(Ordering::Acquire);
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let columns = Family::ALL.map(|family| self.column(family));
        let columns: Vec<&&ColumnFamily> = columns.iter().collect();
        self.db.flush_cfs_opt(&columns, &options).map_err(|error| fault("flush", error))?;
        self.unflushed.fetch_sub(before, Ordering::AcqRel);
        Ok(())
    }
}

impl StateRead for RocksState {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.engine.get(key, &ReadOptions::default())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        RocksSnapshot::new(&self.engine).scan(from, to, limit)
    }

    fn scan_once(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        RocksSnapshot::new(&self.engine).scan_once(from, to, limit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        RocksSnapshot::new(&self.engine).scan_back(from, to, limit)
    }
}

impl StateStore for RocksState {
    fn write(&self, batch: &[Write]) -> Result<(), StateError> {
        self.engine.write(batch)
    }

    fn flush(&self) -> Result<(), StateError> {
        self.engine.flush()
    }

    fn unflushed_bytes(&self) -> u64 {
        self.engine.unflushed.load(Ordering::Acquire)
    }

    fn snapshot(&self) -> Arc<dyn StateRead> {
        Arc::new(RocksSnapshot::new(&self.engine))
    }

    fn checkpoint(&self, folder: &Path) -> Result<(), StateError> {
        self.engine.flush()?;
        Checkpoint::new(&self.engine.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(folder))
            .map_err(|error| fault("copy", error))?;
        sync_parent(folder).map_err(|error| StateError::io("copy", &error))
    }

    fn tidy_if_due(&self) -> Result<Option<Tidied>, StateError> {
        let Some(reason) = self.tidy_due()? else { return Ok(None) };
        let tidied = self.tidy()?;
        tracing::info!(?reason, ?tidied, "the space of deleted bodies was taken back");
        Ok(Some(tidied))
    }

    fn end_work(&self) {
        self.engine.db.cancel_all_background_work(true);
    }
}

impl StateEngine for SharedResources {
    fn create(&self, folder: &Path) -> Result<Arc<dyn StateStore>, StateError> {
        Ok(Arc::new(RocksState::create(self, folder)?))
    }

    fn open(&self, folder: &Path) -> Result<Arc<dyn StateStore>, StateError> {
        Ok(Arc::new(RocksState::open(self, folder)?))
    }

    fn open_read_only(&self, folder: &Path) -> Result<Arc<dyn StateRead>, StateError> {
        Ok(Arc::new(RocksState::open_read_only(self, folder)?))
    }
}

/// A state at one moment. It keeps the database open.
struct RocksSnapshot {
    /// Dropped first: it borrows the database that `engine` keeps alive.
    snapshot: Snapshot<'static>,
    engine: Arc<Engine>,
}

impl RocksSnapshot {
    fn new(engine: &Arc<Engine>) -> Self {
        let engine = engine.clone();
        // SAFETY: the snapshot borrows `engine.db`, which lies behind the `Arc`: it does not move
        // and lives until `self.engine` is dropped, which is after `self.snapshot`, because fields
        // are dropped in the order of their declaration. The borrow never leaves this struct.
        let snapshot =
            unsafe { mem::transmute::<Snapshot<'_>, Snapshot<'static>>(engine.db.snapshot()) };
        Self { snapshot, engine }
    }

    fn read_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }

    fn rows(
        &self,
        mut options: ReadOptions,
        from: &[u8],
        to: &[u8],
        family: Family,
    ) -> DBRawIterator<'_> {
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        self.engine.db.raw_iterator_cf_opt(self.engine.column(family), options)
    }

    fn forward(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
        into_cache: bool,
    ) -> Result<Vec<Row>, StateError> {
        let mut found = Vec::new();
        for family in Family::ALL {
            let Some((from, to)) = family.part(from, to) else { continue };
            let mut options = self.read_options();
            options.fill_cache(into_cache);
            let mut rows = self.rows(options, from, to, family);
            rows.seek_to_first();
            take(&mut rows, limit, &mut found, DBRawIterator::next)?;
        }
        Ok(found)
    }
}

impl StateRead for RocksSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.engine.get(key, &self.read_options())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.forward(from, to, limit, true)
    }

    fn scan_once(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.forward(from, to, limit, false)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        let mut found = Vec::new();
        for family in Family::ALL.into_iter().rev() {
            let Some((from, to)) = family.part(from, to) else { continue };
            let mut rows = self.rows(self.read_options(), from, to, family);
            rows.seek_to_last();
            take(&mut rows, limit, &mut found, DBRawIterator::prev)?;
        }
        Ok(found)
    }
}

/// Takes rows until there are `limit`. Where the iterator ends it is asked why: damage looks like
/// an end until then.
fn take<'a>(
    rows: &mut DBRawIterator<'a>,
    limit: usize,
    found: &mut Vec<Row>,
    step: impl Fn(&mut DBRawIterator<'a>),
) -> Result<(), StateError> {
    while found.len() < limit {
        let Some((key, framed)) = rows.item() else {
            return rows.status().map_err(|error| fault("read", error));
        };
        let key = Bytes::copy_from_slice(key);
        let value = unframe(&key, &Bytes::copy_from_slice(framed))?;
        found.push((key, value));
        step(rows);
    }
    Ok(())
}

fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// Makes the folder's own name durable.
fn sync_parent(folder: &Path) -> std::io::Result<()> {
    folder.parent().map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
}

/// Whether files in this folder can be written without the page cache (some file systems cannot).
fn can_write_unbuffered(folder: &Path) -> Result<bool, StateError> {
    use rustix::fs::{Mode, OFlags};
    let probe = folder.join("unbuffered.probe");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&probe, flags, Mode::RUSR | Mode::WUSR);
    let refused = opened.as_ref().err().copied();
    drop(opened);
    if refused.is_some_and(|error| error != rustix::io::Errno::INVAL) {
        return Err(StateError::io("open", &refused.expect("just seen").into()));
    }
    // Where it is refused, the file may have been made all the same.
    match std::fs::remove_file(&probe) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StateError::io("open", &error))
        }
        _ => Ok(refused.is_none()),
    }
}

/// What the system says where there is no more room: on the volume, for the user, for the process.
const FULL: [&str; 3] = ["No space left on device", "Disk quota exceeded", "File too large"];

/// The engine's error as ours.
fn fault(operation: &'static str, error: rocksdb::Error) -> StateError {
    let detail = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => StateError::Damaged { operation, detail },
        ErrorKind::IOError if FULL.iter().any(|full| detail.contains(full)) => {
            StateError::Full { operation, detail }
        }
        // A file that the state names and that is not there.
        ErrorKind::IOError if detail.contains("No such file or directory") => {
            StateError::Damaged { operation, detail }
        }
        _ => StateError::Engine { operation, detail },
    }
}
