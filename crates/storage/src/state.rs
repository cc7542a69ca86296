//! The seam to a copy's state: an ordered map whose batches are atomic.
//!
//! Two implementations: RocksDB with its own log switched off ([`rocks`]), and an ordered map for
//! simulations ([`map`]). Both lose everything that was not flushed when the process or the power
//! ends; Raft's log brings it back. What comes back is always what the first so many batches made,
//! never a part of a batch.
//!
//! The first byte of a key names its table, and the table decides how its records are kept
//! ([`Family`]). The first table belongs to this crate and to `replication`; its first row is the
//! applied position ([`applied`]), which is written in the same batch as its effects: that row is
//! how a state says which entries it holds.
//!
//! ```text
//!  write ──► memory ──(flush: the log first, then this, then "flushed")──► files
//!               │                                                            │
//!              get, scan, snapshot                                        checkpoint
//! ```
//!
//! Every value carries a frame with a checksum over its key and itself, added when it is written
//! and checked whenever it is read, so that a value that rotted, or came back under another key,
//! is a [`StateError::Corrupt`] and never an answer.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dag_types::Write;
use thiserror::Error;

mod applied;
mod family;
pub mod map;
pub mod rocks;
mod tree;

pub use applied::{APPLIED_KEY, Position, applied, applied_write};
pub use family::Family;
pub use rocks::Tidied;

/// A key and its value, as a scan gives them.
pub type Row = (Bytes, Bytes);

/// A fault of the state: the copy fails and is reseeded. Never a question of what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// A record's checksum or frame does not fit its key.
    #[error("record {key} is corrupt: {detail}")]
    Corrupt {
        /// The key, in hexadecimal.
        key: String,
        /// What does not fit.
        detail: String,
    },
    /// A file of the state is damaged or missing.
    #[error("{operation} the state: its files are damaged: {detail}; reseed this copy")]
    Damaged {
        /// Verb, as in "read".
        operation: &'static str,
        /// The engine's own words.
        detail: String,
    },
    /// The volume is full. Writes should have been refused long before.
    #[error("{operation} the state: the volume is full: {detail}")]
    Full {
        /// Verb, as in "flush".
        operation: &'static str,
        /// The engine's own words.
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

impl StateError {
    fn corrupt(key: &[u8], detail: impl ToString) -> Self {
        Self::Corrupt { key: hex(key), detail: detail.to_string() }
    }

    fn damaged(operation: &'static str, detail: impl ToString) -> Self {
        Self::Damaged { operation, detail: detail.to_string() }
    }

    fn engine(operation: &'static str, detail: impl ToString) -> Self {
        Self::Engine { operation, detail: detail.to_string() }
    }

    fn io(operation: &'static str, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full { operation, detail: error.to_string() };
        }
        Self::engine(operation, error)
    }
}

/// Reads at one moment: of the store itself, or of a snapshot.
pub trait StateRead: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError>;
    /// Rows with `from <= key < to` in order, at most `limit`.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError>;
    /// The same for a reader that comes by once, and reads everything: it leaves nothing in caches,
    /// where it would find it again instead of on the disk.
    fn scan_once(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.scan(from, to, limit)
    }
    /// The same from the end: the greatest keys first.
    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError>;
}

/// The state of one copy.
pub trait StateStore: StateRead + 'static {
    /// Writes all of it or nothing. Not durable before [`StateStore::flush`]. Never waits for disk.
    fn write(&self, batch: &[Write]) -> Result<(), StateError>;
    /// Makes everything written before this call durable; blocks, so it runs on the flusher.
    ///
    /// After an error the store takes no more writes: a flush that failed is never tried again.
    fn flush(&self) -> Result<(), StateError>;
    /// Bytes that a flush would write now; 0 exactly where there is nothing to flush.
    fn unflushed_bytes(&self) -> u64;
    /// The state as it is now, unchanged by later writes.
    ///
    /// A snapshot keeps the store open: a copy's folder can be opened again, or given away, only
    /// after its store and all its snapshots were dropped.
    fn snapshot(&self) -> Arc<dyn StateRead>;
    /// Flushes, then makes a second copy of the files in `folder` (hard links where possible).
    /// The folder must not exist yet. The copy holds at least what was written before this call.
    fn checkpoint(&self, folder: &Path) -> Result<(), StateError>;
    /// Gets back the space of deleted bodies where that pays, and says what it did. It may block
    /// for minutes while the rest of the state goes on as usual, so it runs on a thread that has
    /// nothing else to do, now and then, for one copy of a volume at a time.
    fn tidy_if_due(&self) -> Result<Option<Tidied>, StateError> {
        Ok(None)
    }
    /// Breaks off a pass of [`StateStore::tidy_if_due`], because the state is to be closed. Nothing
    /// is flushed or tidied any more afterwards.
    fn end_work(&self) {}
}

/// Makes and opens the states of a node's copies: RocksDB, or maps on a simulated disk.
pub trait StateEngine: Send + Sync + 'static {
    /// Makes an empty state in a folder that holds none, and opens it.
    fn create(&self, folder: &Path) -> Result<Arc<dyn StateStore>, StateError>;
    /// Opens the state in a folder. Where there is none it is an error: a state that is gone must
    /// never come back as an empty one.
    fn open(&self, folder: &Path) -> Result<Arc<dyn StateStore>, StateError>;
    /// Opens the state in a folder for reading, as often at a time as wanted, and changes nothing
    /// there. Only for a folder that nobody writes to: a checkpoint.
    fn open_read_only(&self, folder: &Path) -> Result<Arc<dyn StateRead>, StateError> {
        Ok(self.open(folder)?)
    }
}

/// A key as people see it.
fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |text, byte| text + &format!("{byte:02x}"))
}

/// Checks the frame of what was found under a key.
fn unframe(key: &[u8], framed: &Bytes) -> Result<Bytes, StateError> {
    dag_format::value::payload(key, framed).map_err(|error| StateError::corrupt(key, error))
}

/// What a row costs in memory beside its key and value: a node of the list and the allocator.
const ROW_OVERHEAD: u64 = 64;

/// Bytes that a change adds to what a flush would write.
fn cost(write: &Write) -> u64 {
    let value = match write {
        Write::Put { value, .. } => value.len(),
        Write::Delete { .. } => 0,
    };
    (write.key().len() + value) as u64 + ROW_OVERHEAD
}
