//! Getting back the space of bodies that were deleted.
//!
//! A blob file goes by itself once nothing in it is referred to. Files of which a part is still
//! needed stay, and so do the many small files of a copy that is flushed often with little in it.
//! A pass over a state moves the live bodies out of its older files and drops those. It costs
//! writing them again, so it is done only where that pays: half of the bytes are garbage, or the
//! files are many and small.

use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::{Family, RocksState, StateError, fault};

const BLOB_FILES: &str = "rocksdb.num-blob-files";
const BLOB_BYTES: &str = "rocksdb.live-blob-file-size";
const BLOB_GARBAGE: &str = "rocksdb.live-blob-file-garbage-size";

/// Fewer bytes of garbage than this are left alone.
const GARBAGE_MIN: u64 = 64 << 20;
/// More files than this, with less than [`SMALL_FILE`] each on average, are too many.
const FILES_MAX: u64 = 64;
/// Bytes below which a blob file is small.
const SMALL_FILE: u64 = 8 << 20;

/// Why a pass would pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TidyReason {
    /// At least half of the bytes in blob files belong to deleted bodies.
    Garbage {
        /// Bytes of deleted bodies.
        garbage_bytes: u64,
        /// Bytes of all blob files.
        file_bytes: u64,
    },
    /// There are many small blob files.
    SmallFiles {
        /// How many files.
        files: u64,
        /// Bytes of all of them.
        file_bytes: u64,
    },
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tidied {
    /// Bytes in blob files before.
    pub bytes_before: u64,
    /// Bytes in blob files after.
    pub bytes_after: u64,
    /// Blob files after.
    pub files_after: u64,
}

/// The rule, for given counts.
pub(super) fn tidy_reason(files: u64, file_bytes: u64, garbage_bytes: u64) -> Option<TidyReason> {
    if garbage_bytes >= GARBAGE_MIN && garbage_bytes >= file_bytes / 2 {
        return Some(TidyReason::Garbage { garbage_bytes, file_bytes });
    }
    let small = file_bytes / files.max(1) < SMALL_FILE;
    (files > FILES_MAX && small).then_some(TidyReason::SmallFiles { files, file_bytes })
}

impl RocksState {
    /// Whether a pass would pay now.
    pub fn tidy_due(&self) -> Result<Option<TidyReason>, StateError> {
        let bytes = self.count(BLOB_BYTES)?;
        Ok(tidy_reason(self.count(BLOB_FILES)?, bytes, self.count(BLOB_GARBAGE)?))
    }

    /// Makes a pass: blocks for as long as writing the live bodies again takes. Reads, writes and
    /// flushes go on meanwhile.
    pub fn tidy(&self) -> Result<Tidied, StateError> {
        let bytes_before = self.count(BLOB_BYTES)?;
        self.collect(true)?;
        let column = self.engine.column(Family::Bodies);
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        options.set_exclusive_manual_compaction(false);
        self.engine.db.compact_range_cf_opt(column, None::<&[u8]>, None::<&[u8]>, &options);
        self.collect(false)?;
        let (bytes_after, files_after) = (self.count(BLOB_BYTES)?, self.count(BLOB_FILES)?);
        Ok(Tidied { bytes_before, bytes_after, files_after })
    }

    /// Lets compaction move live bodies, or forbids it again.
    fn collect(&self, on: bool) -> Result<(), StateError> {
        let on = if on { "true" } else { "false" };
        let settings =
            [("enable_blob_garbage_collection", on), ("blob_garbage_collection_age_cutoff", "1.0")];
        let column = self.engine.column(Family::Bodies);
        self.engine.db.set_options_cf(column, &settings).map_err(|error| fault("tidy", error))
    }

    fn count(&self, property: &str) -> Result<u64, StateError> {
        let column = self.engine.column(Family::Bodies);
        let count = self.engine.db.property_int_value_cf(column, property);
        let count = count.map_err(|error| fault("tidy", error))?;
        Ok(count.expect("RocksDB knows its own properties"))
    }
}
