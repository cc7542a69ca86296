//! What all copies of a node share: memory, background threads, and the settings of their states.
//!
//! A node holds up to hundreds of copies, each a RocksDB of its own, so nothing that costs memory
//! or threads may be counted per copy:
//!
//! * **One block cache**, which index and filter blocks count against, so that it is the whole
//!   memory that reading costs.
//! * **One write-buffer budget.** RocksDB's own answer to a spent budget is to flush whichever
//!   state is being written; choosing is the [flusher](crate::flusher)'s work here, so RocksDB is
//!   given twice the budget, as a backstop that is not reached while the flusher runs.
//! * **One pool of threads** for flushes and compactions.
//!
//! The settings that differ from RocksDB's own have their reasons beside them.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, Env, InfoLogger, LogLevel, Options,
    WriteBufferManager,
};

use super::{Family, StateError, fault};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Bytes and counts that the states of a node may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateBudget {
    /// Bytes of blocks, indexes and filters kept in memory; at least 8 MiB. Default 256 MiB.
    pub block_cache_bytes: usize,
    /// Bytes written and not yet flushed, as the flusher aims for them; default 256 MiB.
    pub unflushed_bytes: usize,
    /// Threads that compact; flushes have one of their own. At least 1; default 2.
    pub compaction_threads: i32,
    /// Files of state that one copy may hold open; at least 32; default 128. What is open beyond
    /// it is closed, the longest unused first. See [`crate::resources`] for reckoning it.
    pub open_files_per_copy: i32,
}

impl Default for StateBudget {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 * MIB,
            unflushed_bytes: 256 * MIB,
            compaction_threads: 2,
            open_files_per_copy: 128,
        }
    }
}

/// The shared memory and threads of a node's states. Made once per node; cheap to clone.
#[derive(Clone)]
pub struct SharedResources {
    inner: Arc<Inner>,
}

struct Inner {
    budget: StateBudget,
    cache: Cache,
    write_buffers: WriteBufferManager,
    env: Env,
}

impl SharedResources {
    /// Sets up the cache, the write-buffer budget and the threads.
    pub fn new(budget: StateBudget) -> Result<Self, StateError> {
        assert!(budget.block_cache_bytes >= 8 * MIB, "a block cache below 8 MiB holds no index");
        assert!(budget.compaction_threads >= 1, "somebody must compact");
        assert!(budget.open_files_per_copy >= 32, "a state needs 32 files open to be read");
        let mut env = Env::new().map_err(|error| fault("set up", error))?;
        env.set_low_priority_background_threads(budget.compaction_threads);
        env.set_high_priority_background_threads(1);
        Ok(Self {
            inner: Arc::new(Inner {
                budget,
                cache: Cache::new_lru_cache(budget.block_cache_bytes),
                write_buffers: WriteBufferManager::new_write_buffer_manager(
                    budget.unflushed_bytes.saturating_mul(2),
                    false,
                ),
                env,
            }),
        })
    }

    /// Bytes that all states hold in memory because they are not flushed, overhead included.
    pub fn write_buffer_bytes(&self) -> u64 {
        self.inner.write_buffers.get_usage() as u64
    }

    /// Bytes in the block cache.
    pub fn block_cache_bytes(&self) -> u64 {
        self.inner.cache.get_usage() as u64
    }

    /// Options of a whole state in `folder`; `direct` where its file system can do unbuffered IO.
    pub(super) fn state_options(&self, folder: &Path, direct: bool) -> Result<Options, StateError> {
        let mut options = unnamed_options()?;
        options.set_env(&self.inner.env);
        options.set_write_buffer_manager(&self.inner.write_buffers);
        set_safety(&mut options);
        set_small_when_idle(&mut options, self.inner.budget.open_files_per_copy);
        options.set_info_logger(logger(folder));
        // What is flushed or compacted is not read again soon: it would only push out of the page
        // cache what is, and its write-back would come in bursts at the log's expense.
        options.set_use_direct_io_for_flush_and_compaction(direct);
        options.set_bytes_per_sync(MIB as u64);
        options.set_max_background_jobs(self.inner.budget.compaction_threads + 1);
        Ok(options)
    }

    /// Options of one family.
    pub(super) fn family_options(&self, family: Family) -> Options {
        let mut options = Options::default();
        options.set_block_based_table_factory(&self.table_options(family));
        self.set_memory(&mut options);
        set_no_stalls(&mut options);
        match family {
            Family::Records => set_records(&mut options),
            Family::Bodies => set_bodies(&mut options),
            Family::Expiring => set_expiring(&mut options),
        }
        options
    }

    fn table_options(&self, family: Family) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.inner.cache);
        // Otherwise a hundred copies' indexes and filters are memory that no budget counts.
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_bloom_filter(10.0, false);
        table.set_optimize_filters_for_memory(true);
        table.set_block_size(match family {
            Family::Records | Family::Bodies => 8 * KIB,
            Family::Expiring => 16 * KIB,
        });
        table
    }

    /// Memory that is not flushed yet: the flusher decides, not the size of one buffer.
    fn set_memory(&self, options: &mut Options) {
        options.set_write_buffer_size(self.inner.budget.unflushed_bytes.saturating_mul(2));
        // A flush leaves the old buffer in memory while it runs; writers may never wait for it.
        options.set_max_write_buffer_number(16);
        options.set_arena_block_size(ARENA_BLOCK);
    }
}

/// Memory is taken from the allocator in pieces of this size, the first with the first write; a
/// hundred copies with a little in each of three families must not cost much. Larger values get a
/// piece of their own.
const ARENA_BLOCK: usize = 64 * KIB;

/// Settings that the binding has no function for.
fn unnamed_options() -> Result<Options, StateError> {
    // A flush at close would write what the log was not synced for, and a failed flush is not
    // tried again: after a failed fsync nobody knows what is on the disk.
    let settings = "avoid_flush_during_shutdown=true;max_bgerror_resume_count=0";
    Options::default().get_options_from_string(settings).map_err(|error| fault("set up", error))
}

/// One atomic history over all families, and no damage unnoticed.
fn set_safety(options: &mut Options) {
    // Without the log of RocksDB, only this keeps the families of one batch together.
    options.set_atomic_flush(true);
    options.set_paranoid_checks(true);
    options.set_use_fsync(false);
}

/// What a copy costs that nobody uses: its memory, its files, its share of the threads.
fn set_small_when_idle(options: &mut Options, open_files: i32) {
    options.set_max_open_files(open_files);
    options.set_max_file_opening_threads(1);
    options.set_table_cache_num_shard_bits(1);
    options.set_manifest_preallocation_size(16 * KIB);
    options.set_max_manifest_file_size(4 * MIB);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
}

/// The engine's warnings go where the node's own go; it keeps no log file in the folder.
fn logger(folder: &Path) -> InfoLogger {
    let folder = folder.to_owned();
    // The engine writes the settings of every state at whatever level it is given; at this one they
    // can be told from its warnings.
    InfoLogger::new_callback_logger(LogLevel::Info, move |level, message| match level {
        LogLevel::Error | LogLevel::Fatal => {
            tracing::error!(state = %folder.display(), "{message}");
        }
        LogLevel::Warn => tracing::warn!(state = %folder.display(), "{message}"),
        LogLevel::Header | LogLevel::Info | LogLevel::Debug => {}
    })
}

/// Writers never wait: what is applied was acknowledged, and slowing down belongs before a
/// proposal (see [`crate::flusher::Pressure`]), not behind it.
fn set_no_stalls(options: &mut Options) {
    options.set_level_zero_file_num_compaction_trigger(4);
    options.set_level_zero_slowdown_writes_trigger(10_000);
    options.set_level_zero_stop_writes_trigger(20_000);
    options.set_soft_pending_compaction_bytes_limit(0);
    options.set_hard_pending_compaction_bytes_limit(0);
}

/// Young files are written again within a minute, so only what lasts is compressed.
const COMPRESSION: [DBCompressionType; 7] = {
    use DBCompressionType::{Lz4, None};
    [None, None, Lz4, Lz4, Lz4, Lz4, Lz4]
};

fn set_records(options: &mut Options) {
    options.set_compression_per_level(&COMPRESSION);
    options.set_target_file_size_base(32 * MIB as u64);
    options.set_max_bytes_for_level_base(128 * MIB as u64);
}

/// Values of at least this many bytes go to blob files, which compaction leaves alone.
pub(super) const BODY_MIN: u64 = KIB as u64;

/// Size that a blob file is closed at.
const BODY_FILE: u64 = 256 * MIB as u64;

fn set_bodies(options: &mut Options) {
    options.set_enable_blob_files(true);
    options.set_min_blob_size(BODY_MIN);
    options.set_blob_file_size(BODY_FILE);
    // Collection during ordinary compactions moves live bodies out of the oldest files, however
    // little of them is garbage. It is switched on for one pass where much is (see `tidy`).
    options.set_enable_blob_gc(false);
    options.set_blob_compression_type(DBCompressionType::None);
    options.set_compression_type(DBCompressionType::None);
    options.set_target_file_size_base(16 * MIB as u64);
    options.set_max_bytes_for_level_base(64 * MIB as u64);
}

fn set_expiring(options: &mut Options) {
    options.set_compression_per_level(&COMPRESSION);
    options.set_target_file_size_base(16 * MIB as u64);
    options.set_max_bytes_for_level_base(32 * MIB as u64);
    // Expiry deletes from one end: runs of deletions are compacted away early, so that a scan
    // does not wade through them.
    options.add_compact_on_deletion_collector_factory(4096, 2048, 0.5);
}
