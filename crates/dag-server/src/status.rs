//! One table: from every error of every part to the reason that a caller decides by.
//!
//! Three kinds, never mixed. A *rejection* is part of the replicated result and the same on every
//! copy. A *refusal* means that this node did nothing, and says who might. An *unknown outcome* is
//! neither, and must never be reported as one of them.

use std::time::Duration;

use active_manager::{control, directory};
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, NodeId};
use replication::{NotActive, ProposeError, ReadError};
use storage::state::StateError;

use crate::admission;
use crate::formation;
use crate::machine::ReadFault;

/// After how long a refused request may come again.
pub const SOON: Duration = Duration::from_millis(50);
/// After how long a disk may have been cleared.
const LATER: Duration = Duration::from_secs(5);

/// Where a database is active, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The node.
    pub node: NodeId,
    /// Its listener, as an URI.
    pub endpoint: String,
}

/// The node has no leave to serve now.
pub fn gate_closed(database: DatabaseId, why: &dac::Closed) -> Problem {
    let text = format!("the node's gate is closed: {why}");
    Problem::new(Reason::GateClosed, text).database(database)
}

/// This node's copy is not the active one.
pub fn not_active(database: DatabaseId, hint: Option<Hint>) -> Problem {
    match hint {
        Some(hint) => {
            let text = format!("database {database} is active on node {}", hint.node);
            Problem::new(Reason::NotActiveCopy, text)
                .database(database)
                .active(hint.node, hint.endpoint)
        }
        None => {
            let text = format!("no active copy of database {database} is known here; ask again");
            Problem::new(Reason::NotActiveCopy, text).database(database).retry_after(SOON)
        }
    }
}

/// A proposal without an answer.
pub fn propose(error: &ProposeError, database: DatabaseId, hint: Option<Hint>) -> Problem {
    let problem = |reason| Problem::new(reason, error.to_string()).database(database);
    match error {
        ProposeError::NotActive(NotActive { .. }) => not_active(database, hint),
        ProposeError::GateClosed(_) => elsewhere(problem(Reason::GateClosed), hint),
        ProposeError::NoQuorum => problem(Reason::NoQuorum).retry_after(SOON),
        ProposeError::Overloaded => problem(Reason::Overloaded).retry_after(SOON),
        ProposeError::TooLarge { bytes } => {
            problem(Reason::TooLarge).limit(*bytes as u64, replication::MAX_COMMAND_BYTES as u64)
        }
        ProposeError::Deadline => problem(Reason::DeadlineExceeded),
        ProposeError::Failed { .. } => elsewhere(problem(Reason::CopyFailed), hint),
        ProposeError::NotRunning => not_active(database, hint),
        ProposeError::OutcomeUnknown { .. } => problem(Reason::OutcomeUnknown),
    }
}

/// A read that is not safe.
pub fn read(error: &ReadError, database: DatabaseId, hint: Option<Hint>) -> Problem {
    let problem = |reason| Problem::new(reason, error.to_string()).database(database);
    match error {
        ReadError::NotActive(NotActive { .. }) | ReadError::NotRunning => {
            not_active(database, hint)
        }
        ReadError::GateClosed(_) => elsewhere(problem(Reason::GateClosed), hint),
        ReadError::NoQuorum => problem(Reason::NoQuorum).retry_after(SOON),
        ReadError::Deadline => problem(Reason::DeadlineExceeded),
    }
}

fn elsewhere(problem: Problem, hint: Option<Hint>) -> Problem {
    match hint {
        Some(hint) => problem.active(hint.node, hint.endpoint),
        None => problem,
    }
}

/// A request that was not let in.
pub fn admission(refusal: &admission::Refusal) -> Problem {
    let problem = |reason| Problem::new(reason, refusal.to_string());
    match refusal {
        admission::Refusal::Requests { value, limit } => {
            problem(Reason::Overloaded).check("requests").limit(*value, *limit).retry_after(SOON)
        }
        admission::Refusal::NodeBytes { value, limit } => {
            problem(Reason::Overloaded).check("in_flight").limit(*value, *limit).retry_after(SOON)
        }
        admission::Refusal::DatabaseBytes { database, value, limit } => problem(Reason::Overloaded)
            .check("in_flight_per_database")
            .database(*database)
            .limit(*value, *limit)
            .retry_after(SOON),
        admission::Refusal::Flushing => {
            problem(Reason::Overloaded).check("memory").retry_after(SOON)
        }
        admission::Refusal::DiskLow { free, reserve } => {
            problem(Reason::DiskLow).limit(*free, *reserve).retry_after(LATER)
        }
    }
}

/// What the mailbox core refused.
pub fn mailbox(rejection: &mailbox::Rejection, database: DatabaseId) -> Problem {
    use mailbox::Reason as Core;
    let reason = match rejection.reason() {
        Core::Unspecified => Reason::Internal,
        Core::FieldMissing | Core::FieldInvalid | Core::FlagUnknown => Reason::InvalidRequest,
        Core::LimitExceeded => Reason::LimitExceeded,
        Core::RequestIdReused => Reason::RequestIdReused,
        Core::DeliveryIdReused => Reason::DeliveryIdReused,
        // Only the directory knows whether the mailbox is anywhere.
        Core::MailboxNotFound | Core::AddressNotHere => Reason::MailboxMoved,
        Core::MailboxDeleted => Reason::MailboxDeleted,
        Core::MailboxExists => Reason::MailboxExists,
        Core::FolderNotFound => Reason::FolderNotFound,
        Core::FolderExists => Reason::FolderExists,
        Core::FolderNameInvalid => Reason::FolderNameInvalid,
        Core::KeywordInvalid => Reason::KeywordInvalid,
        Core::UidValidityChanged => Reason::UidValidityChanged,
        Core::SizeMismatch | Core::DigestConflict | Core::BodyNotStaged => Reason::DigestMismatch,
        Core::CounterExhausted => Reason::CounterExhausted,
        Core::OverQuota => Reason::OverQuota,
        Core::FolderHasChildren => Reason::FolderHasChildren,
        Core::FolderProtected => Reason::FolderProtected,
        Core::FolderLoop => Reason::InvalidRequest,
        Core::SpecialUseTaken => Reason::SpecialUseTaken,
        Core::AccessDenied => Reason::AccessDenied,
        Core::HoldActive => Reason::HoldActive,
        Core::ItemNotFound => Reason::ItemNotFound,
        Core::PreconditionFailed => Reason::PreconditionFailed,
        Core::InboxBusy => Reason::InboxBusy,
    };
    let mut problem = Problem::new(reason, rejection.to_string()).database(database);
    if !rejection.subject.is_empty() {
        problem = problem.check(rejection.subject.clone());
    }
    if matches!(reason, Reason::UidValidityChanged | Reason::PreconditionFailed) {
        problem = problem.current(rejection.limit);
    } else if rejection.value != 0 || rejection.limit != 0 {
        problem = problem.limit(rejection.value, rejection.limit);
    }
    problem
}

/// What the control group refused.
pub fn control(rejection: &control::Rejection) -> Problem {
    use control::Rejection as Control;
    let problem = |reason| Problem::new(reason, rejection.to_string());
    match rejection {
        Control::DagExists(_) => problem(Reason::AlreadyProvisioned),
        Control::NoDag(_) => problem(Reason::Unprovisioned).next(CREATE),
        Control::InvalidDefinition(_) => problem(Reason::InvalidRequest).check("definition"),
        Control::UnknownNode(_) => problem(Reason::NodeNotFound),
        Control::UnknownStore(_) => problem(Reason::AlreadyProvisioned).check("store"),
        Control::BootTurnedBack(boot) => {
            problem(Reason::AlreadyProvisioned).check("boot").current(boot.registered_counter)
        }
        Control::InvalidName(_) => problem(Reason::InvalidRequest).check("name"),
        Control::NameTaken(taken) => {
            problem(Reason::DatabaseExists).database(DatabaseId(taken.database))
        }
        Control::NoPlacement(_) => problem(Reason::PlacementImpossible).check("placement"),
        Control::RequestIdReused(_) => problem(Reason::RequestIdReused),
        Control::Check(failed) => problem(Reason::CheckFailed).check(failed.check.clone()),
    }
}

/// What the directory refused.
pub fn directory(rejection: &directory::Rejection) -> Problem {
    use directory::Rejection as Directory;
    let problem = |reason| Problem::new(reason, rejection.to_string());
    match rejection {
        Directory::InvalidAddress(_) => problem(Reason::InvalidRequest).check("address"),
        Directory::AddressTaken(taken) => {
            problem(Reason::MailboxExists).database(DatabaseId(taken.database))
        }
        Directory::BeingMade(made) => problem(Reason::Overloaded)
            .check("address")
            .retry_after(Duration::from_millis(made.retry_after_ms)),
        Directory::NoDatabase(_) => problem(Reason::DatabaseNotFound),
        Directory::RequestIdReused(_) => problem(Reason::RequestIdReused),
        Directory::NoMailbox(_) => problem(Reason::MailboxNotFound),
        Directory::TakenOver(_) => problem(Reason::MailboxExists).check("request_id"),
    }
}

/// What creation of a DAG is refused for.
pub fn formation(refusal: &formation::Refusal) -> Problem {
    let problem = |reason| Problem::new(reason, refusal.to_string());
    match refusal {
        formation::Refusal::BelongsElsewhere { dag }
        | formation::Refusal::PreparedElsewhere { dag } => {
            problem(Reason::AlreadyProvisioned).current(dag)
        }
        formation::Refusal::NotPrepared => problem(Reason::Unprovisioned).next(CREATE),
        formation::Refusal::Digest => problem(Reason::DigestMismatch).check("definition_digest"),
        formation::Refusal::Definition(_) => problem(Reason::InvalidRequest).check("definition"),
        formation::Refusal::NotThisNode(_) => problem(Reason::NodeNotFound).check("node_id"),
        formation::Refusal::Members(_) => problem(Reason::InvalidRequest).check("members"),
        formation::Refusal::Disk(_) => problem(Reason::Internal),
    }
}

/// A fault met by a read: this copy is not what it must be.
pub fn fault(fault: &ReadFault, database: DatabaseId) -> Problem {
    let reason = match fault {
        ReadFault::Store(StateError::Corrupt { .. } | StateError::Damaged { .. })
        | ReadFault::Record(_) => Reason::RecordCorrupt,
        ReadFault::Store(StateError::Full { .. } | StateError::Engine { .. }) => Reason::CopyFailed,
    };
    tracing::error!(db = %database, %fault, "a read met a fault");
    Problem::new(reason, fault.to_string()).database(database)
}

/// The node belongs to no DAG.
pub fn unprovisioned() -> Problem {
    let text = "this node belongs to no DAG yet; create one, or find out why its disk is empty";
    Problem::new(Reason::Unprovisioned, text).next(CREATE)
}

/// The node is being stopped.
pub fn shutting_down() -> Problem {
    Problem::new(Reason::ShuttingDown, "this node is being stopped; ask another one")
}

/// The command that makes a DAG.
pub const CREATE: &str = "dagctl dag create --from dag.toml";

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
