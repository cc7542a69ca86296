//! What goes into a log and comes out of it, and what can go wrong.

use std::io;

use bytes::Bytes;
use dag_format::FormatError;
use dag_types::{Chain, LogId};
use thiserror::Error;

pub use dag_format::log::VoteRecord;

/// A position in the log and the chain there.
pub type Position = (LogId, Chain);

/// An entry of a database's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position.
    pub id: LogId,
    /// What it is to `replication`: 0 blank, 1 normal, 2 membership. Not interpreted here.
    pub kind: u8,
    /// Its content, which begins with `dag_format::envelope` where the kind is normal.
    pub payload: Bytes,
}

/// Told once, from the log thread, how a request ended: durable, or why not.
///
/// It must not wait for anything, least of all for another request to this volume.
pub type Done = Box<dyn FnOnce(Result<(), LogFault>) + Send>;

/// Where a log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogBounds {
    /// The last entry that was purged; entries up to it cannot be read.
    pub purged: Option<LogId>,
    /// The last entry, durable or not; the purge point where there is no entry behind it.
    pub last: Option<LogId>,
    /// The last entry that is durable.
    pub durable: Option<LogId>,
}

/// Why a log cannot do what was asked. Except for [`LogFault::Gone`] the log takes nothing any
/// more: a write or sync that failed is never tried again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogFault {
    /// The volume is full. Nothing that was acknowledged is lost; the copy can be opened again
    /// when there is room.
    #[error("{operation}: the volume is full; make room, then resume this copy")]
    NoSpace {
        /// Verb and object, as in "make a segment".
        operation: &'static str,
    },
    /// The disk failed. The copy is lost and must be reseeded.
    #[error("{operation}: the disk failed ({detail}); reseed this copy on a healthy disk")]
    Disk {
        /// Verb and object.
        operation: &'static str,
        /// The system's own words.
        detail: String,
    },
    /// What was read back is not what was written. The copy must be reseeded.
    #[error("read entry {index} of the log: {fault}; reseed this copy")]
    Corrupt {
        /// The entry.
        index: u64,
        /// What is wrong.
        fault: FormatError,
    },
    /// The entry was purged, or cut, before it could be read. The log itself is well.
    #[error("entry {index} is not in the log any more")]
    Gone {
        /// The entry.
        index: u64,
    },
    /// The log may not be purged up to an entry that it does not hold and the state has not
    /// flushed: the chain there is not known.
    #[error("purge through {upto}: neither the log nor the flushed state ends there")]
    ChainUnknown {
        /// The entry.
        upto: LogId,
    },
    /// The log was closed.
    #[error("the log was closed")]
    Closed,
}

impl LogFault {
    /// Sorts a system error by what it means for the copy.
    pub fn from_io(operation: &'static str, fault: &io::Error) -> Self {
        match fault.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { operation }
            }
            _ => Self::Disk { operation, detail: fault.to_string() },
        }
    }

    /// Whether the log still works after it.
    pub fn is_harmless(&self) -> bool {
        match self {
            Self::Gone { .. } | Self::ChainUnknown { .. } => true,
            Self::NoSpace { .. } | Self::Disk { .. } | Self::Corrupt { .. } | Self::Closed => false,
        }
    }
}

/// Why a log is not opened. Each means that the copy is Failed: it does not vote, does not lead and
/// is not counted, and comes back by reseed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogOpenFault {
    /// The disk failed.
    #[error("{operation}: the disk failed ({detail})")]
    Disk {
        /// Verb and object.
        operation: &'static str,
        /// The system's own words.
        detail: String,
    },
    /// The volume is full.
    #[error("{operation}: the volume is full; make room, then resume this copy")]
    NoSpace {
        /// Verb and object.
        operation: &'static str,
    },
    /// There is no segment at all.
    #[error("there is no log in {folder}")]
    Missing {
        /// The folder.
        folder: String,
    },
    /// A segment between others is gone.
    #[error("segment {segment} of the log is gone, later ones are there")]
    SegmentMissing {
        /// Its number.
        segment: u64,
    },
    /// A segment's file is shorter than it was made.
    #[error("segment {segment} of the log was made with {made} bytes and has {found}")]
    SegmentCut {
        /// Its number.
        segment: u64,
        /// Bytes it was made with.
        made: u64,
        /// Bytes it has.
        found: u64,
    },
    /// A record with a right checksum that this version does not understand.
    #[error("segment {segment} of the log at {position}: {fault}")]
    Format {
        /// The segment's number.
        segment: u64,
        /// The record's place in it.
        position: u64,
        /// What is not understood.
        fault: FormatError,
    },
    /// A batch stands where another belongs.
    #[error(
        "the batch at {position} of segment {segment} belongs at {meant}: the disk wrote it to the \
         wrong place"
    )]
    Astray {
        /// The segment.
        segment: u64,
        /// Where it stands.
        position: u64,
        /// Where it was to be written.
        meant: u64,
    },
    /// The log ends before one of its own claims: something that was durable is lost.
    #[error("the log ends with batch {found}, but batch {claimed} was durable: records are lost")]
    TailLost {
        /// The last batch that can be read.
        found: u64,
        /// The greatest batch that is claimed to have been durable.
        claimed: u64,
    },
    /// The chain of hashes does not continue from one entry to the next.
    #[error("the chain of the log is broken at entry {index}")]
    BrokenChain {
        /// The entry.
        index: u64,
    },
    /// Entries do not follow one another.
    #[error("the log has no entry {index}, but later ones")]
    Hole {
        /// The missing entry.
        index: u64,
    },
    /// The log was purged beyond what the state holds: entries are lost.
    #[error("the log is purged through {purged:?}, the state was flushed through {flushed:?} only")]
    PurgedBeyondFlushed {
        /// The purge point.
        purged: Option<LogId>,
        /// What the state holds.
        flushed: Option<LogId>,
    },
    /// META knows a later purge point than the log: the log was turned back.
    #[error("META says that the log is purged through {meta}, the log says {log:?}")]
    PurgeWentBack {
        /// What META says.
        meta: LogId,
        /// What the log says.
        log: Option<LogId>,
    },
    /// The node remembers a vote that the log does not: the log was turned back.
    #[error("this copy voted in term {remembered}, its log knows {found:?} as the last term")]
    VoteWentBack {
        /// The term the node remembers.
        remembered: u64,
        /// The term the log knows.
        found: Option<u64>,
    },
    /// The log was written by a later opening than META knows: META was turned back.
    #[error("the log was written by opening {found}, META knows {known} openings")]
    SessionFromTheFuture {
        /// The opening that wrote it.
        found: u64,
        /// The opening that META knows as the last.
        known: u64,
    },
}

impl LogOpenFault {
    /// Sorts a system error by what it means for the copy.
    pub fn from_io(operation: &'static str, fault: &io::Error) -> Self {
        match LogFault::from_io(operation, fault) {
            LogFault::NoSpace { operation } => Self::NoSpace { operation },
            _ => Self::Disk { operation, detail: fault.to_string() },
        }
    }
}
