//! Positions in a database's log.

use core::fmt;

/// The position of an entry: its index, and the Raft term of the leader that wrote it.
///
/// Ordered by term, then index, as Raft compares logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// Raft's term; its upper half is the group's generation.
    pub term: u64,
    /// The first entry of a log has index 0.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// The hash of an entry and of all entries before it:
/// `chain(i) = blake3(chain(i-1), term, index, payload digest)`, cut to 16 bytes.
///
/// Equal on all copies of a database at one index; a difference is a broken or forked log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Chain(pub [u8; 16]);

impl Chain {
    /// What stands before the first entry.
    pub const START: Self = Self([0; 16]);
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({self})")
    }
}
