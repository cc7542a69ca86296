//! An open copy whose state can be replaced by a snapshot, and which is flushed by the node's
//! flusher.
//!
//! Nothing of an old state may be open when a new one takes its folder: the engine finds its files
//! by name. So every use of the state is counted (each handle and each view that is given out),
//! and a replacement goes: take the state away, wait until the last use has ended, put the new
//! state's folder in its place, open it. Meanwhile the state is *absent*: reads of it fail, nothing
//! is applied (the fence is held), nothing is flushed.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};

use bytes::Bytes;
use dag_types::{LogId, Write};
use storage::copy_directory::{CopyDirectory, OpenFault};
use storage::flusher::{FlushFault, Flushable, LogSynced};
use storage::log::{CopyLog, LogFault};
use storage::state::{self, Position, Row, StateEngine, StateError, StateRead, StateStore, Tidied};
use storage::volume::Volume;

/// A state that arrives is written here, beside the one that is used.
const INCOMING: &str = "state.incoming";

/// An open copy: its log, and its state until a snapshot brings another.
pub struct OpenCopy {
    log: CopyLog,
    engine: Arc<dyn StateEngine>,
    volume: Volume,
    /// `None` once it is closed.
    directory: Mutex<Option<CopyDirectory>>,
    slot: RwLock<Slot>,
    /// Held while space is taken back, which may take minutes.
    tidying: Mutex<()>,
    on_fault: OnceLock<OnFault>,
}

type OnFault = Box<dyn Fn(&str) + Send + Sync>;

/// The state that is used, and the count of its uses.
struct Slot {
    store: Arc<dyn StateStore>,
    uses: Arc<()>,
    /// The uses of the state that was taken away; those of its absence do not count.
    ending: Option<Arc<()>>,
}

impl Slot {
    fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store, uses: Arc::new(()), ending: None }
    }
}

impl OpenCopy {
    /// Takes over an open directory. `engine` is what its state was opened with, and `volume` the
    /// one that it lies on.
    pub fn new(
        mut directory: CopyDirectory,
        engine: Arc<dyn StateEngine>,
        volume: Volume,
    ) -> Arc<Self> {
        let store = std::mem::replace(&mut directory.state, Arc::new(Absent));
        let slot = Slot::new(store);
        Arc::new(Self {
            log: directory.log.clone(),
            engine,
            volume,
            directory: Mutex::new(Some(directory)),
            slot: RwLock::new(slot),
            tidying: Mutex::default(),
            on_fault: OnceLock::new(),
        })
    }

    /// The copy's log.
    pub fn log(&self) -> &CopyLog {
        &self.log
    }

    /// The state, for as long as the handle is held. Handles are held briefly: a snapshot waits
    /// for them.
    pub fn state(&self) -> Arc<dyn StateStore> {
        let slot = self.slot.read().expect("no panic while held");
        Arc::new(Used { store: slot.store.clone(), _use: slot.uses.clone() })
    }

    /// The last entry whose effects are on disk: log before it may be purged.
    pub fn flushed(&self) -> Option<Position> {
        self.log.flushed()
    }

    /// Takes back the space of deleted bodies where that pays, and says what it did. It may block
    /// for minutes: it runs on a thread that has nothing else to do, for one copy at a time. A
    /// snapshot that arrives meanwhile waits for it, and [`OpenCopy::close`] breaks it off.
    pub fn tidy_if_due(&self) -> Result<Option<Tidied>, StateError> {
        let _turn = self.tidying.lock().expect("no panic while held");
        self.state().tidy_if_due()
    }

    /// Whether space is being taken back at this moment.
    pub(crate) fn is_tidying(&self) -> bool {
        self.tidying.try_lock().is_err()
    }

    /// Closes the copy when everything asked of its log is durable, then calls `done`. Its group
    /// and whoever flushes it have been stopped, and no view of its state is held.
    pub fn close(&self, done: Box<dyn FnOnce(Result<(), LogFault>) + Send>) {
        self.state().end_work();
        self.take_away();
        drop(self.tidying.lock().expect("no panic while held"));
        match self.directory().take() {
            Some(directory) => directory.close(done),
            None => done(Err(LogFault::Closed)),
        }
    }

    /// Called with the words of a fault that the flusher met.
    pub(crate) fn on_fault(&self, tell: OnFault) {
        // A copy that is started again keeps its first listener, which told of the first fault.
        let _ = self.on_fault.set(tell);
    }

    /// An empty state for an arriving snapshot. What an earlier attempt left is removed.
    pub(crate) fn fresh(&self) -> Result<Arc<dyn StateStore>, StateError> {
        let folder = self.with_directory(|directory| Ok(directory.path().join(INCOMING)))?;
        self.volume.disk().remove_dir_all(&folder).map_err(|e| engine_error("clear", e))?;
        self.engine.create(&folder)
    }

    /// Takes the state away: from here on it is absent.
    pub(crate) fn take_away(&self) {
        let mut slot = self.slot.write().expect("no panic while held");
        let before = std::mem::replace(&mut *slot, Slot::new(Arc::new(Absent)));
        slot.ending = Some(before.ending.unwrap_or(before.uses));
    }

    /// Whether somebody still uses the state that was taken away.
    pub(crate) fn in_use(&self) -> bool {
        let slot = self.slot.read().expect("no panic while held");
        slot.ending.as_ref().is_some_and(|uses| Arc::strong_count(uses) > 1)
    }

    /// Puts a flushed state in the place of the one that was taken away, of which no use is left.
    /// After a crash there is the one or the other, whole.
    pub(crate) fn adopt(&self, fresh: Arc<dyn StateStore>) -> Result<(), StateError> {
        assert!(self.is_absent() && !self.in_use(), "the old state is open no longer");
        assert_eq!(Arc::strong_count(&fresh), 1, "the new state is held by nobody else");
        let position = state::applied(&*fresh)?;
        drop(fresh);
        let folder = self.with_directory(|directory| {
            directory.stage_state(&directory.path().join(INCOMING))?;
            directory.adopt_staged()?;
            Ok(directory.state_path())
        })?;
        self.put_back(&folder)?;
        if let Some(position) = position {
            self.log.set_flushed(position);
        }
        Ok(())
    }

    fn put_back(&self, folder: &Path) -> Result<(), StateError> {
        let store = self.engine.open(folder)?;
        *self.slot.write().expect("no panic while held") = Slot::new(store);
        Ok(())
    }

    fn with_directory<T>(
        &self,
        work: impl FnOnce(&CopyDirectory) -> Result<T, OpenFault>,
    ) -> Result<T, StateError> {
        let directory = self.directory();
        let directory = directory.as_ref().ok_or_else(|| engine_error("replace", "closed"))?;
        work(directory).map_err(|fault| engine_error("replace", fault))
    }

    fn directory(&self) -> MutexGuard<'_, Option<CopyDirectory>> {
        self.directory.lock().expect("no panic while held")
    }

    fn is_absent(&self) -> bool {
        self.slot.read().expect("no panic while held").ending.is_some()
    }
}

fn engine_error(operation: &'static str, detail: impl ToString) -> StateError {
    StateError::Engine { operation, detail: detail.to_string() }
}

impl Flushable for OpenCopy {
    fn unflushed_bytes(&self) -> u64 {
        self.slot.read().expect("no panic while held").store.unflushed_bytes()
    }

    fn applied(&self) -> Result<Option<Position>, StateError> {
        if self.is_absent() { Ok(None) } else { state::applied(&*self.state()) }
    }

    fn sync_log(&self, _through: LogId, synced: LogSynced) {
        // Everything appended so far, which holds everything that was applied.
        self.log.sync(Box::new(move |result| synced(result.map_err(|fault| fault.to_string()))));
    }

    fn flush_state(&self) -> Result<(), StateError> {
        if self.is_absent() { Ok(()) } else { self.state().flush() }
    }

    fn flushed(&self, position: Position) {
        self.log.set_flushed(position);
    }

    fn failed(&self, fault: FlushFault) {
        if let Some(tell) = self.on_fault.get() {
            tell(&fault.to_string());
        }
    }
}

/// A counted use of a state.
struct Used {
    store: Arc<dyn StateStore>,
    _use: Arc<()>,
}

/// A counted use of a state at one moment.
struct UsedView {
    view: Arc<dyn StateRead>,
    _use: Arc<()>,
}

impl StateRead for UsedView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.view.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.view.scan(from, to, limit)
    }
    fn scan_once(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.view.scan_once(from, to, limit)
    }
    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.view.scan_back(from, to, limit)
    }
}

impl StateRead for Used {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.store.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.store.scan(from, to, limit)
    }
    fn scan_once(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.store.scan_once(from, to, limit)
    }
    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.store.scan_back(from, to, limit)
    }
}

impl StateStore for Used {
    fn write(&self, batch: &[Write]) -> Result<(), StateError> {
        self.store.write(batch)
    }
    fn flush(&self) -> Result<(), StateError> {
        self.store.flush()
    }
    fn unflushed_bytes(&self) -> u64 {
        self.store.unflushed_bytes()
    }
    fn snapshot(&self) -> Arc<dyn StateRead> {
        Arc::new(UsedView { view: self.store.snapshot(), _use: self._use.clone() })
    }
    fn checkpoint(&self, folder: &Path) -> Result<(), StateError> {
        self.store.checkpoint(folder)
    }
    fn tidy_if_due(&self) -> Result<Option<Tidied>, StateError> {
        self.store.tidy_if_due()
    }
    fn end_work(&self) {
        self.store.end_work();
    }
}

/// What stands in the place of a state while it is replaced, or after it was closed.
struct Absent;

fn absent<T>() -> Result<T, StateError> {
    Err(engine_error("read", "it is being replaced, or was closed"))
}

impl StateRead for Absent {
    fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, StateError> {
        absent()
    }
    fn scan(&self, _from: &[u8], _to: &[u8], _limit: usize) -> Result<Vec<Row>, StateError> {
        absent()
    }
    fn scan_back(&self, _from: &[u8], _to: &[u8], _limit: usize) -> Result<Vec<Row>, StateError> {
        absent()
    }
}

impl StateStore for Absent {
    fn write(&self, _batch: &[Write]) -> Result<(), StateError> {
        absent()
    }
    fn flush(&self) -> Result<(), StateError> {
        absent()
    }
    fn unflushed_bytes(&self) -> u64 {
        0
    }
    fn snapshot(&self) -> Arc<dyn StateRead> {
        Arc::new(Absent)
    }
    fn checkpoint(&self, _folder: &Path) -> Result<(), StateError> {
        absent()
    }
}
