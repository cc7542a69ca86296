//! What goes wrong on a node while a copy is moved.

use std::io;
use std::path::Path;

use dag_types::LogId;
use storage::copy_directory::OpenFault;
use storage::state::StateError;
use thiserror::Error;

use crate::wire::{Refusal, WireFault};

/// Why a seed, a delta or a move stopped. The old copy is as it was in every case.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SeedFault {
    /// The disk failed or is full.
    #[error("{operation} in {folder}: {detail}")]
    Disk {
        /// Verb and object.
        operation: &'static str,
        /// The folder.
        folder: String,
        /// The system's own words.
        detail: String,
    },
    /// Another task, or another process, builds in this folder.
    #[error("{folder} is being built by somebody else")]
    InUse {
        /// The folder.
        folder: String,
    },
    /// There is no seed to go on with.
    #[error("there is no seed in {folder}; start one")]
    NoSeed {
        /// The folder.
        folder: String,
    },
    /// The folder holds the beginnings of another replica.
    #[error("{folder} holds a seed of {found}, not of {expected}; cancel it first")]
    OtherSeed {
        /// The folder.
        folder: String,
        /// What was asked for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The volume is too small. Nothing was sent.
    #[error(
        "{folder} has {free} bytes free and the copy needs {needed}; make room or choose another path"
    )]
    TooSmall {
        /// The folder.
        folder: String,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The source is a copy of something else.
    #[error("the source's {what} is {found}, not {expected}; choose another source")]
    OtherSource {
        /// What differs.
        what: &'static str,
        /// What was asked for.
        expected: String,
        /// What the source has.
        found: String,
    },
    /// The source ends before the log that the group still has.
    #[error(
        "the source ends at {found:?}, and the log before {needed:?} is gone; choose another source"
    )]
    TooOld {
        /// Where a state must end at least.
        needed: LogId,
        /// Where the source's ends.
        found: LogId,
    },
    /// The other side does not speak as agreed, or bytes were damaged again and again.
    #[error(transparent)]
    Wire(#[from] WireFault),
    /// The other side said no.
    #[error("the source refused: {0}")]
    Refused(#[from] Refusal),
    /// The target path cannot be used. Nothing was changed.
    #[error("{path} cannot be used: {why}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The rest of a log cannot be applied.
    #[error("bring a copy to the end of its log: {detail}")]
    Level {
        /// Why.
        detail: String,
    },
    /// The step is not possible any more, or not yet.
    #[error("{what}: {why}")]
    Order {
        /// What was asked for.
        what: &'static str,
        /// Why not now.
        why: &'static str,
    },
    /// A state does not open or cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A copy is not made, opened or retired.
    #[error(transparent)]
    Copy(#[from] OpenFault),
}

impl SeedFault {
    /// Whether another source, or another connection, may do better.
    pub fn is_the_sources(&self) -> bool {
        matches!(
            self,
            Self::Wire(_) | Self::Refused(_) | Self::OtherSource { .. } | Self::TooOld { .. }
        )
    }

    /// Whether trying again would meet the same.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::TooSmall { .. } | Self::OtherSeed { .. } | Self::Path { .. })
    }

    /// Whether a state cannot be read or written, for another reason than a full disk: then files may
    /// do where rows do not.
    pub fn is_the_states(&self) -> bool {
        matches!(self, Self::State(fault) if !matches!(fault, StateError::Full { .. }))
    }
}

/// A disk's error as ours.
pub(crate) fn disk(
    operation: &'static str,
    folder: &Path,
) -> impl Fn(io::Error) -> SeedFault + use<> {
    let folder = folder.display().to_string();
    move |fault| SeedFault::Disk { operation, folder: folder.clone(), detail: fault.to_string() }
}
