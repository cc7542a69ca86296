//! Whom to flush, as a plain decision with its reason.

use std::fmt;

use dag_types::Millis;
use thiserror::Error;

/// A copy's place at the flusher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

/// When a state is flushed. Bytes count what is in memory and not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushRules {
    /// Of all copies together: from here on the one with the most is flushed. Default 128 MiB.
    pub node_bytes: u64,
    /// Of one copy: it is flushed from here on, whatever the others hold; below `node_bytes`.
    /// Default 64 MiB: a flush is then a second's writing and costs few large files.
    pub copy_bytes: u64,
    /// Of all copies together: from here on proposals are slowed down. Above `node_bytes`; default
    /// 192 MiB.
    pub slow_bytes: u64,
    /// Of all copies together: from here on no proposals are taken. Above `slow_bytes`; default
    /// 256 MiB, which is also what memory is reckoned for.
    pub stop_bytes: u64,
    /// What is unflushed this long is flushed, however little it is: it bounds the log that a
    /// start replays, and what a purge must keep. Default 5 minutes.
    pub age_max: Millis,
}

impl Default for FlushRules {
    fn default() -> Self {
        Self::for_budget(256 << 20)
    }
}

/// Why a flush is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushReason {
    /// Somebody waits for it.
    Asked,
    /// The node closes.
    Closing,
    /// The copy holds more than one copy may.
    CopyBytes {
        /// What it holds.
        bytes: u64,
    },
    /// All copies hold more than they may together, and this one the most.
    NodeBytes {
        /// What they hold.
        node_bytes: u64,
        /// What it holds.
        bytes: u64,
    },
    /// Its oldest change waits longest, and too long.
    Age {
        /// How long.
        age: Millis,
    },
}

impl fmt::Display for FlushReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => write!(f, "asked for"),
            Self::Closing => write!(f, "the node closes"),
            Self::CopyBytes { bytes } => write!(f, "the copy holds {bytes} bytes"),
            Self::NodeBytes { node_bytes, bytes } => {
                write!(f, "all copies hold {node_bytes} bytes, this one {bytes} of them")
            }
            Self::Age { age } => write!(f, "unflushed for {age}"),
        }
    }
}

/// Which copy to flush, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushChoice {
    /// The copy.
    pub slot: Slot,
    /// What for.
    pub reason: FlushReason,
}

/// A copy, as the decision sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyLoad {
    /// The copy.
    pub slot: Slot,
    /// Its unflushed bytes.
    pub unflushed_bytes: u64,
    /// Since when it has any.
    pub since: Option<Millis>,
    /// Whether somebody waits for a flush of it.
    pub asked: bool,
}

/// What a group does with proposals while states hold too much in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Takes them.
    None,
    /// Takes them, but slower.
    Slow,
    /// Refuses them as overloaded.
    Stop,
}

/// Rules that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RulesError {
    /// A limit is not above the one that must come first.
    #[error("{higher} ({higher_bytes}) must be above {lower} ({lower_bytes})")]
    Order {
        /// The limit that must be lower.
        lower: &'static str,
        /// Its value.
        lower_bytes: u64,
        /// The limit that must be higher.
        higher: &'static str,
        /// Its value.
        higher_bytes: u64,
    },
}

impl FlushRules {
    /// Rules for a node that may hold this many unflushed bytes in memory.
    pub fn for_budget(bytes: u64) -> Self {
        Self {
            node_bytes: bytes / 2,
            copy_bytes: bytes / 4,
            slow_bytes: bytes / 4 * 3,
            stop_bytes: bytes,
            age_max: Millis(300_000),
        }
    }

    /// Every contradiction in these rules.
    pub fn validate(&self) -> Vec<RulesError> {
        let limits = [
            ("0", 0),
            ("copy_bytes", self.copy_bytes),
            ("node_bytes", self.node_bytes),
            ("slow_bytes", self.slow_bytes),
            ("stop_bytes", self.stop_bytes),
        ];
        let wrong = |pair: &[(&'static str, u64)]| {
            let ((lower, lower_bytes), (higher, higher_bytes)) = (pair[0], pair[1]);
            let error = RulesError::Order { lower, lower_bytes, higher, higher_bytes };
            (lower_bytes >= higher_bytes).then_some(error)
        };
        limits.windows(2).filter_map(wrong).collect()
    }

    /// Whom to flush now, if anybody. Asked for comes first; then memory, because it stops
    /// proposals; then age.
    pub fn choose(&self, now: Millis, closing: bool, copies: &[CopyLoad]) -> Option<FlushChoice> {
        if let Some(copy) = copies.iter().find(|copy| copy.asked) {
            return Some(FlushChoice { slot: copy.slot, reason: FlushReason::Asked });
        }
        let most = copies.iter().max_by_key(|copy| (copy.unflushed_bytes, copy.slot))?;
        let reason = self.full(closing, most, copies);
        reason.map(|reason| FlushChoice { slot: most.slot, reason }).or_else(|| {
            let oldest = copies.iter().filter(|copy| copy.unflushed_bytes > 0);
            let (since, slot) = oldest.filter_map(|copy| Some((copy.since?, copy.slot))).min()?;
            let age = now.saturating_sub(since);
            let reason = FlushReason::Age { age };
            (age >= self.age_max).then_some(FlushChoice { slot, reason })
        })
    }

    /// Why the copy with the most must be flushed for its bytes, if it must.
    fn full(&self, closing: bool, most: &CopyLoad, copies: &[CopyLoad]) -> Option<FlushReason> {
        let bytes = most.unflushed_bytes;
        let node_bytes = copies.iter().map(|copy| copy.unflushed_bytes).sum();
        if bytes == 0 {
            None
        } else if closing {
            Some(FlushReason::Closing)
        } else if bytes >= self.copy_bytes {
            Some(FlushReason::CopyBytes { bytes })
        } else if node_bytes >= self.node_bytes {
            Some(FlushReason::NodeBytes { node_bytes, bytes })
        } else {
            None
        }
    }

    /// What groups do with proposals, by the unflushed bytes of all copies.
    pub fn pressure(&self, node_bytes: u64) -> Pressure {
        match node_bytes {
            bytes if bytes >= self.stop_bytes => Pressure::Stop,
            bytes if bytes >= self.slow_bytes => Pressure::Slow,
            _ => Pressure::None,
        }
    }
}
