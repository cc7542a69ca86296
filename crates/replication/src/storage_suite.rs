//! openraft's own tests of a storage, on ours: maps on a simulated disk, and RocksDB.
//!
//! The suite writes what no group would write: it begins logs behind their first entry, purges what
//! no state has flushed, and applies entries that no log holds. Our storage asserts against all
//! that, so two wrappers make the circumstances true first: a log is filled up to what is appended,
//! the flushed position is moved before a purge, and a state machine has a log of its own that is
//! filled up to what the suite applies.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dag_types::{Chain, DatabaseId, Generation, LogId, Millis, NodeId, ReplicaId, StoreId};
use futures::{Stream, StreamExt, TryStreamExt};
use openraft::impls::TokioRuntime;
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, StorageError};
use storage::copy_directory::{CopyDirectory, CopyPlace, CopyStart};
use storage::disk::{Disk, RealDisk, SimDisk, SimDiskOptions};
use storage::identity::NodeRoot;
use storage::log::{CopyLog, EntryCache, LogEntry};
use storage::state::StateEngine;
use storage::state::map::MapEngine;
use storage::state::rocks::{SharedResources, StateBudget};
use storage::volume::{Volume, VolumeOptions};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::copy_store::OpenCopy;
use crate::event::Journal;
use crate::fault::CopyFault;
use crate::log_store::LogStore;
use crate::machine::{Effect, Machine, MachineFault};
use crate::offload::Offload;
use crate::snapshot::{Snapshot, SnapshotContent};
use crate::state_machine::{CopyState, PositionOnly, StateMachine};
use crate::types::{
    RaftEntry, RaftLogId, RaftVote, SnapshotMeta, StoredMembership, Types, log_id, raft_log_id,
};

type Config = Types<TokioRuntime>;
type SuiteOf = Suite<Config, SuiteLog, SuiteMachine, Ground, Made>;

struct Nothing;

impl Machine for Nothing {
    fn apply(
        &self,
        _view: &dyn storage::state::StateRead,
        _at: LogId,
        _command: &bytes::Bytes,
    ) -> Result<Effect, MachineFault> {
        Ok(Effect::default())
    }

    fn digest(&self, _view: &dyn storage::state::StateRead) -> Result<[u8; 16], MachineFault> {
        Ok([0; 16])
    }
}

/// Makes a fresh storage for every test of the suite.
struct Ground {
    disk: Arc<dyn Disk>,
    engine: Arc<dyn StateEngine>,
    folder: PathBuf,
    next: AtomicU64,
}

/// What must outlive a test of the suite.
struct Made {
    volume: Volume,
}

impl Drop for Made {
    fn drop(&mut self) {
        self.volume.stop();
    }
}

impl StoreBuilder<Config, SuiteLog, SuiteMachine, Made> for Ground {
    async fn build(&self) -> Result<(Made, SuiteLog, SuiteMachine), StorageError<Config>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(number.to_string());
        let clock = std::time::Instant::now();
        let volume = Volume::start(
            self.disk.clone(),
            VolumeOptions::default(),
            Arc::new(move || Millis(clock.elapsed().as_millis() as u64)),
        )
        .unwrap();
        NodeRoot::format(&*self.disk, &folder, NodeId(1), StoreId([1; 16])).unwrap();
        let root = Arc::new(NodeRoot::start(self.disk.clone(), &folder, NodeId(1), 1).unwrap());
        let copy = |database| {
            let place = CopyPlace {
                root: root.clone(),
                volume: volume.clone(),
                cache: Arc::new(EntryCache::new(1 << 20)),
                folder: folder.join(format!("{database}")),
            };
            let identity =
                root.copy_identity(DatabaseId(database), Generation::FIRST, ReplicaId(1));
            let directory =
                CopyDirectory::create(&place, identity, CopyStart::Empty, &*self.engine).unwrap();
            OpenCopy::new(directory, self.engine.clone(), volume.clone())
        };
        let journal =
            Journal { database: DatabaseId(1), replica: ReplicaId(1), sink: Arc::new(|_| {}) };
        let fault = Arc::new(CopyFault::new(journal, Arc::new(Notify::new())));
        let (log, state) = (copy(1), copy(2));
        let store = LogStore::new(log.log().clone(), fault.clone(), Offload::InPlace);
        let machine: Arc<dyn Machine> = Arc::new(Nothing);
        let behind = state.log().clone();
        let copy_state = CopyState::open(machine, state, fault, Offload::InPlace).unwrap();
        let inner = copy_state.next_instance().await;
        let log = SuiteLog { store, log: log.log().clone(), _copy: log };
        Ok((Made { volume }, log, SuiteMachine { inner, copy: copy_state, log: behind }))
    }
}

struct SuiteLog {
    store: LogStore<TokioRuntime>,
    log: CopyLog,
    _copy: Arc<OpenCopy>,
}

impl RaftLogReader<Config> for SuiteLog {
    async fn try_get_log_entries<B>(&mut self, range: B) -> Result<Vec<RaftEntry>, io::Error>
    where
        B: std::ops::RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        self.store.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        self.store.read_vote().await
    }
}

impl RaftLogStorage<Config> for SuiteLog {
    type LogReader = LogStore<TokioRuntime>;

    async fn get_log_state(&mut self) -> Result<LogState<Config>, io::Error> {
        self.store.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.store.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.store.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        self.store.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        self.store.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Config>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        let next = self.log.bounds().last.map_or(0, |last| last.index + 1);
        let first = log_id(&entries[0].log_id);
        let blank = |index| RaftEntry {
            log_id: raft_log_id(LogId { index, ..first }),
            payload: EntryPayload::Blank,
        };
        let entries = (next..first.index).map(blank).chain(entries).collect::<Vec<_>>();
        self.store.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.store.truncate_after(last).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        let at = log_id(&upto);
        self.log.set_flushed((at, self.log.chain_at(at.index).unwrap_or(Chain([7; 16]))));
        self.store.purge(upto).await
    }
}

struct SuiteMachine {
    inner: StateMachine<TokioRuntime>,
    copy: Arc<CopyState>,
    log: CopyLog,
}

impl SuiteMachine {
    /// The entries that a log would hold up to this one.
    fn filled(&self, entry: RaftEntry) -> Vec<RaftEntry> {
        let next = self.copy.applied().map_or(0, |at| at.index + 1);
        let before = self.copy.applied().map_or(0, |at| at.term);
        let blank = |index| RaftEntry {
            log_id: raft_log_id(LogId { term: before, index }),
            payload: EntryPayload::Blank,
        };
        let mut entries: Vec<RaftEntry> = (next..entry.log_id.index).map(blank).collect();
        entries.push(entry);
        entries
    }

    fn append(&self, entries: &[RaftEntry]) {
        let entry = |entry: &RaftEntry| LogEntry {
            id: log_id(&entry.log_id),
            kind: 0,
            payload: bytes::Bytes::new(),
        };
        self.log.append(entries.iter().map(entry).collect(), Box::new(|_| {}));
    }
}

impl RaftStateMachine<Config> for SuiteMachine {
    type SnapshotData = SnapshotContent;
    type SnapshotBuilder = PositionOnly<TokioRuntime>;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
        self.inner.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Config>, io::Error>> + Unpin + OptionalSend,
    {
        let entries: Vec<EntryResponder<Config>> = entries.try_collect().await?;
        for (entry, responder) in entries {
            let mut filled = self.filled(entry);
            self.append(&filled);
            let last = filled.pop().expect("the entry itself");
            let before = filled.into_iter().map(|entry| Ok((entry, None)));
            let items = before.chain([Ok((last, responder))]);
            self.inner.apply(futures::stream::iter(items.collect::<Vec<_>>())).await?;
        }
        let at = self.copy.applied().expect("something was applied");
        self.log.set_flushed((at, self.log.chain_at(at.index).expect("it was appended")));
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> PositionOnly<TokioRuntime> {
        self.inner.get_snapshot_builder().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotContent,
    ) -> Result<(), io::Error> {
        self.inner.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.inner.get_current_snapshot().await
    }
}

/// Every test of the suite but `transfer_snapshot`, which hands a built snapshot from one state
/// machine to another without a stream between them; `tests/it/snapshot.rs` does that with one.
macro_rules! suite {
    ($ground:expr; $($test:ident),* $(,)?) => {
        $({
            let (_made, log, machine) = $ground.build().await.unwrap();
            SuiteOf::$test(log, machine).await.expect(stringify!($test));
        })*
    };
}

async fn run(ground: Ground) {
    suite!(ground;
        last_membership_in_log_initial, last_membership_in_log, last_membership_in_log_multi_step,
        get_membership_initial, get_membership_from_log_and_empty_sm,
        get_membership_from_empty_log_and_sm, get_membership_from_log_le_sm_last_applied,
        get_membership_from_log_gt_sm_last_applied_1, get_membership_from_log_gt_sm_last_applied_2,
        get_initial_state_without_init, get_initial_state_with_state,
        get_initial_state_membership_from_empty_log_and_sm,
        get_initial_state_membership_from_sm_inlog_is_smaller,
        get_initial_state_membership_from_log_insm_is_smaller,
        get_initial_state_last_log_gt_sm, get_initial_state_last_log_lt_sm,
        get_initial_state_log_ids, get_initial_state_re_apply_committed,
        save_vote, get_log_entries, limited_get_log_entries, leader_bounded_stream,
        entries_stream, try_get_log_entry, log_reader_reads_new_entries, initial_logs,
        get_log_state, get_log_id, last_id_in_log, last_applied_state,
        purge_logs_upto_0, purge_logs_upto_5, purge_logs_upto_20,
        delete_logs_after_11, delete_logs_after_5, delete_logs_after_0, delete_logs_after_none,
        append_to_log, snapshot_meta, snapshot_meta_optional, apply_single, apply_multiple,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_on_a_simulated_disk_pass_openrafts_suite() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1, SimDiskOptions::default()));
    let engine = Arc::new(MapEngine::new(disk.clone()));
    run(Ground { disk, engine, folder: "/node".into(), next: AtomicU64::new(0) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rocksdb_on_a_real_disk_passes_openrafts_suite() {
    let folder = TempDir::new().unwrap();
    let budget = StateBudget { block_cache_bytes: 16 << 20, ..StateBudget::default() };
    let engine = Arc::new(SharedResources::new(budget).unwrap());
    let disk = Arc::new(RealDisk::new());
    run(Ground { disk, engine, folder: folder.path().into(), next: AtomicU64::new(0) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_message_holds_at_least_one_entry_and_no_more_bytes_than_its_bound() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(2, SimDiskOptions::default()));
    let engine = Arc::new(MapEngine::new(disk.clone()));
    let ground = Ground { disk, engine, folder: "/node".into(), next: AtomicU64::new(0) };
    let (_made, mut log, _machine) = ground.build().await.unwrap();
    let sizes = [100 << 10, 100 << 10, 400 << 10, 3 << 20, 10, 10];
    let entries: Vec<LogEntry> = (0..)
        .zip(sizes)
        .map(|(index, bytes)| LogEntry {
            id: LogId { term: 1, index },
            kind: crate::wire::KIND_NORMAL,
            payload: vec![0; bytes].into(),
        })
        .collect();
    log.log.append(entries, Box::new(|_| {}));
    let mut reader = log.get_log_reader().await;
    for (from, expected) in [(0, 2), (2, 1), (3, 1), (4, 2), (5, 1)] {
        let read = reader.limited_get_log_entries(from, 6).await.unwrap();
        assert_eq!(read.len(), expected, "from {from}");
    }
    let all: Vec<_> = reader.entries_stream(0..6).await.collect().await;
    assert_eq!(all.len(), 6, "what is applied is read to its end, in pieces");
}
