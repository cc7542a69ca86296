//! What a node takes from its operating system: open files.
//!
//! Every copy holds files open all the time (its log, its lock, its state's bookkeeping), and its
//! state more while it is read, up to a number that it is given. The limit of the process is
//! raised as far as it goes at start, and the number is reckoned from it, so that a node with many
//! copies says at start what it lacks instead of failing some open in the middle of a failover.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// Files of a copy that are always open: log segments, META, lock, and the state's own lock,
/// manifest, log and folders.
pub const COPY_FIXED: u64 = 16;
/// Files of its state that a copy can do with.
pub const COPY_MIN: u64 = 32;
/// More than this many files of a state gain nothing.
pub const COPY_MAX: u64 = 512;
/// Files of the node itself: connections, listeners, settings.
pub const NODE_RESERVE: u64 = 1024;

/// Why open files cannot be reckoned.
#[derive(Debug, Error)]
pub enum OpenFilesError {
    /// There are too few for so many copies.
    #[error(
        "{copies} copies need {needed} open files and the limit is {limit}: raise it \
         (ulimit -n, or LimitNOFILE= in the service) or hold fewer copies on this node"
    )]
    TooFew {
        /// Copies on this node.
        copies: u64,
        /// Files that they and the node need at least.
        needed: u64,
        /// Files that the process may open.
        limit: u64,
    },
    /// The operating system refused to raise the limit.
    #[error("raise the limit of open files from {from} to {to}: {source}")]
    Raise {
        /// The limit as it was.
        from: u64,
        /// The limit that the system said to allow.
        to: u64,
        /// The system's answer.
        source: Errno,
    },
}

/// Raises the process's limit of open files as far as it goes; gives what it is then.
pub fn raise_open_files() -> Result<u64, OpenFilesError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (from, to) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(UNLIMITED));
    if from >= to {
        return Ok(from);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(to), maximum })
        .map_err(|source| OpenFilesError::Raise { from, to, source })?;
    Ok(to)
}

/// What "no limit" is taken for: systems cap it themselves, at this value or above.
const UNLIMITED: u64 = 1 << 20;

/// Files of its state that each of so many copies may hold open.
pub fn open_files_per_copy(limit: u64, copies: u64) -> Result<u64, OpenFilesError> {
    let copies = copies.max(1);
    let needed = NODE_RESERVE + copies * (COPY_FIXED + COPY_MIN);
    if limit < needed {
        return Err(OpenFilesError::TooFew { copies, needed, limit });
    }
    Ok(((limit - NODE_RESERVE) / copies - COPY_FIXED).min(COPY_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shared_between_the_copies() {
        assert_eq!(open_files_per_copy(20_000, 100).unwrap(), (20_000 - 1024) / 100 - 16);
        assert_eq!(open_files_per_copy(1 << 20, 4).unwrap(), COPY_MAX);
        assert_eq!(open_files_per_copy(1024 + 48, 1).unwrap(), COPY_MIN);
        assert_eq!(open_files_per_copy(20_000, 0).unwrap(), COPY_MAX);
    }

    #[test]
    fn too_few_files_are_refused_with_the_number_needed() {
        let error = open_files_per_copy(4096, 100).unwrap_err();
        assert!(error.to_string().starts_with("100 copies need 5824 open files"), "{error}");
    }

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        let raised = raise_open_files().unwrap();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current.unwrap_or(u64::MAX), raised);
        assert_eq!(raise_open_files().unwrap(), raised);
    }
}
