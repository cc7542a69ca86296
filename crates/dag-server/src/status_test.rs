//! Every variant of every error, and what becomes of it.

use super::*;
use dag_api::Retry;
use dag_types::DagId;
use replication::LeaderHint;

const DB: DatabaseId = DatabaseId(16);

fn hint() -> Option<Hint> {
    Some(Hint { node: NodeId(2), endpoint: "http://127.0.0.2:1".into() })
}

#[test]
fn a_proposal_is_unknown_exactly_where_something_was_proposed() {
    let leader = Some(LeaderHint { replica: dag_types::ReplicaId(1), node: NodeId(2) });
    let errors = [
        ProposeError::NotActive(NotActive { leader, term: 3 }),
        ProposeError::NoQuorum,
        ProposeError::Overloaded,
        ProposeError::TooLarge { bytes: 1 << 30 },
        ProposeError::Deadline,
        ProposeError::Failed { reason: "crc".into() },
        ProposeError::NotRunning,
        ProposeError::OutcomeUnknown { why: "deadline" },
    ];
    for error in errors {
        let problem = propose(&error, DB, hint());
        let unknown = problem.reason == Reason::OutcomeUnknown;
        assert_eq!(unknown, !error.is_refusal(), "{error}");
        assert_eq!(unknown, problem.reason.retry() == Retry::SameId, "{error}");
        assert_eq!(problem.facts.database, Some(DB), "{error}");
    }
}

#[test]
fn who_is_sent_elsewhere_is_told_where() {
    let not_active = NotActive { leader: None, term: 3 };
    for problem in [
        propose(&ProposeError::NotActive(not_active), DB, hint()),
        propose(&ProposeError::NotRunning, DB, hint()),
        propose(&ProposeError::Failed { reason: "crc".into() }, DB, hint()),
        read(&ReadError::NotActive(not_active), DB, hint()),
        read(&ReadError::NotRunning, DB, hint()),
    ] {
        assert_eq!(problem.reason.retry(), Retry::Elsewhere);
        assert_eq!(problem.facts.active_node, Some(NodeId(2)));
    }
    assert_eq!(read(&ReadError::NoQuorum, DB, None).reason, Reason::NoQuorum);
    assert_eq!(read(&ReadError::Deadline, DB, None).reason, Reason::DeadlineExceeded);
}

#[test]
fn who_comes_too_early_is_told_when_to_come_again() {
    for refusal in [
        admission::Refusal::Requests { value: 2, limit: 1 },
        admission::Refusal::NodeBytes { value: 2, limit: 1 },
        admission::Refusal::DatabaseBytes { database: DB, value: 2, limit: 1 },
        admission::Refusal::Flushing,
        admission::Refusal::DiskLow { free: 1, reserve: 2 },
    ] {
        let problem = admission(&refusal);
        assert_eq!(problem.reason.retry(), Retry::Later, "{refusal}");
        assert!(problem.retry_after.is_some(), "{refusal}");
    }
}

#[test]
fn no_rejection_of_the_mailbox_core_asks_for_a_blind_repetition() {
    let mut count = 0;
    for code in 1.. {
        let Ok(reason) = mailbox::Reason::try_from(code) else { break };
        let problem = mailbox(&mailbox::Rejection::new(reason), DB);
        let retry = problem.reason.retry();
        assert!(matches!(retry, Retry::Never | Retry::Relocate), "{reason:?}: {retry:?}");
        assert_ne!(problem.reason, Reason::Internal, "{reason:?}");
        count += 1;
    }
    assert!(count >= 19, "only {count} reasons were walked");
}

#[test]
fn every_rejection_of_the_control_group_has_a_reason() {
    use control::Rejection as R;
    use control::response as r;
    for (rejection, reason) in [
        (R::DagExists(r::DagExists::default()), Reason::AlreadyProvisioned),
        (R::NoDag(r::NoDag {}), Reason::Unprovisioned),
        (R::InvalidDefinition(r::Problems::default()), Reason::InvalidRequest),
        (R::UnknownNode(r::UnknownNode::default()), Reason::NodeNotFound),
        (R::UnknownStore(r::UnknownStore::default()), Reason::AlreadyProvisioned),
        (R::BootTurnedBack(r::BootTurnedBack::default()), Reason::AlreadyProvisioned),
        (R::InvalidName(r::InvalidName::default()), Reason::InvalidRequest),
        (R::NameTaken(r::NameTaken::default()), Reason::DatabaseExists),
        (R::NoPlacement(r::Problems::default()), Reason::PlacementImpossible),
        (R::RequestIdReused(r::RequestIdReused {}), Reason::RequestIdReused),
        (R::Check(r::FailedCheck::default()), Reason::CheckFailed),
    ] {
        assert_eq!(control(&rejection).reason, reason);
    }
}

#[test]
fn every_rejection_of_the_directory_has_a_reason() {
    use directory::Rejection as R;
    use directory::response as r;
    for (rejection, reason) in [
        (R::InvalidAddress(r::InvalidAddress::default()), Reason::InvalidRequest),
        (R::AddressTaken(r::AddressTaken::default()), Reason::MailboxExists),
        (R::BeingMade(r::BeingMade { retry_after_ms: 9 }), Reason::Overloaded),
        (R::NoDatabase(r::NoDatabase {}), Reason::DatabaseNotFound),
        (R::RequestIdReused(r::RequestIdReused {}), Reason::RequestIdReused),
        (R::NoMailbox(r::NoMailbox {}), Reason::MailboxNotFound),
        (R::TakenOver(r::TakenOver {}), Reason::MailboxExists),
    ] {
        assert_eq!(directory(&rejection).reason, reason);
    }
}

#[test]
fn every_refusal_of_creation_has_a_reason() {
    use formation::Refusal as R;
    for (refusal, reason) in [
        (R::BelongsElsewhere { dag: DagId::NIL }, Reason::AlreadyProvisioned),
        (R::PreparedElsewhere { dag: DagId::NIL }, Reason::AlreadyProvisioned),
        (R::NotPrepared, Reason::Unprovisioned),
        (R::Digest, Reason::DigestMismatch),
        (R::Definition(vec![]), Reason::InvalidRequest),
        (R::NotThisNode(String::new()), Reason::NodeNotFound),
        (R::Members(String::new()), Reason::InvalidRequest),
        (R::Disk(String::new()), Reason::Internal),
    ] {
        assert_eq!(formation(&refusal).reason, reason);
    }
}

#[test]
fn damage_is_told_from_an_engine_that_failed() {
    let text = String::new;
    for (state, reason) in [
        (StateError::Corrupt { key: text(), detail: text() }, Reason::RecordCorrupt),
        (StateError::Damaged { operation: "read", detail: text() }, Reason::RecordCorrupt),
        (StateError::Full { operation: "read", detail: text() }, Reason::CopyFailed),
        (StateError::Engine { operation: "read", detail: text() }, Reason::CopyFailed),
    ] {
        assert_eq!(fault(&ReadFault::Store(state), DB).reason, reason);
    }
    let record = mailbox::Fault::UnknownCommand { detail: text() };
    assert_eq!(fault(&ReadFault::Record(record), DB).reason, Reason::RecordCorrupt);
}
