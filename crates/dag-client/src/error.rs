//! How an operation ends when it does not succeed.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use dag_api::Problem;
use tonic::{Code, Status};

use crate::tls::Trouble;

/// Whether an operation that got no counted answer may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// No attempt got as far as being carried out.
    NotCarriedOut,
    /// An attempt may have been carried out, now or later. The same id finds out.
    Unknown,
}

/// Why an operation did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It was refused for good.
    #[error(transparent)]
    Failed(#[from] Problem),
    /// A node failed in a way that has no reason of ours, and repeating it would not help.
    #[error("{}", foreign(.endpoint, .status))]
    Foreign {
        /// Who answered.
        endpoint: String,
        /// What it answered.
        status: Box<Status>,
    },
    /// The patience was over before an answer counted.
    #[error("no answer counted within {patience:?} ({outcome:?}); last: {last}")]
    TimedOut {
        /// How long it was tried.
        patience: Duration,
        /// What may have become of it.
        outcome: Outcome,
        /// How the last attempt ended.
        last: String,
    },
}

fn foreign(endpoint: &str, status: &Status) -> String {
    match Trouble::of(status) {
        Some(trouble) => format!("{endpoint}: {trouble}"),
        None => format!("{endpoint} answered {}: {}", status.code(), status.message()),
    }
}

impl Error {
    /// The typed refusal, if it is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Failed(problem) => Some(problem),
            Self::Foreign { .. } | Self::TimedOut { .. } => None,
        }
    }

    /// Whether the same call with the same id may succeed later. A mail gateway answers 4xx then,
    /// and 5xx else.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed(problem) => problem.is_retryable(),
            Self::Foreign { .. } => false,
            Self::TimedOut { .. } => true,
        }
    }
}

/// Why a series of attempts stopped before its patience was over.
pub(crate) enum Stop {
    /// The place of the mailbox has to be looked up again.
    Relocate(Problem),
    /// For good.
    Failed(Error),
}

/// Whether a status without a reason of ours comes from the way to the node, or from a node that is
/// going down, so that another attempt makes sense.
pub(crate) fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Aborted
        | Code::Internal => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// Whether the call cannot have reached the node: nobody listened there.
pub(crate) fn was_never_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}
