//! The seam to a copy's state: an ordered map whose batches are atomic.
//!
//! Two implementations: RocksDB with its own log switched off, and an ordered map for simulations.
//! Both lose everything that was not flushed when the process or the power ends; Raft's log brings
//! it back.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dag_types::Write;
use thiserror::Error;

/// A key and its value, as a scan gives them.
pub type Row = (Bytes, Bytes);

/// A fault of the state: the copy fails and is reseeded. Never a question of what was asked.
#[derive(Debug, Clone, Error)]
pub enum StateError {
    /// A record's checksum or frame does not fit its key.
    #[error("record {key} is corrupt: {detail}")]
    Corrupt {
        /// The key, in hexadecimal.
        key: String,
        /// What does not fit.
        detail: String,
    },
    /// The engine failed.
    #[error("{operation} the state: {detail}")]
    Engine {
        /// Verb, as in "read".
        operation: &'static str,
        /// The engine's own words.
        detail: String,
    },
}

/// Reads at one moment: of the store itself, or of a snapshot.
pub trait StateRead: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError>;
    /// Rows with `from <= key < to` in order, at most `limit`.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError>;
    /// The same from the end: the greatest keys first.
    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError>;
}

/// The state of one copy.
pub trait StateStore: StateRead + 'static {
    /// Writes all of it or nothing. Not durable before [`StateStore::flush`]. Never waits for disk.
    fn write(&self, batch: &[Write]) -> Result<(), StateError>;
    /// Makes everything written before this call durable; blocks, so it runs on the flusher.
    fn flush(&self) -> Result<(), StateError>;
    /// Bytes that a flush would write now.
    fn unflushed_bytes(&self) -> u64;
    /// The state as it is now, unchanged by later writes.
    fn snapshot(&self) -> Arc<dyn StateRead>;
    /// Flushes, then makes a second copy of the files in `folder` (hard links where possible).
    fn checkpoint(&self, folder: &Path) -> Result<(), StateError>;
}
