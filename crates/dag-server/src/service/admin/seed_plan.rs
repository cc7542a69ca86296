//! What a seed needs next, and what a comparison says of its copy. Pure: made of the control log and
//! of what nodes report, so that whoever simulates a control leader decides as the real one does.

use active_manager::control::{
    ControlState, FailedCheck, OperationState, SeedPhase, SeedRecord, move_object,
};
use active_manager::report::Reports;
use active_manager::seed;
use dag_api::admin::v1 as api;
use dag_types::{DatabaseId, NodeId, ReplicaId};

/// Entries that a copy may lack when it is compared: it applies them while the mark is on its way.
const NEAR: u64 = 2000;

/// What a seed needs next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on by itself.
    Wait,
    /// The built copy takes its place.
    Advance {
        /// How it was built, for people.
        outcome: String,
        /// See [`settled_voters`].
        voters: Vec<u64>,
    },
    /// Its content is compared with the active copy's.
    Compare,
    /// It is over, without a new copy.
    GiveUp(String),
}

/// What a seed needs next, by the control log and the last word of its node.
pub fn next(
    state: &ControlState,
    reports: &Reports,
    copies: &[api::DatabaseCopy],
    seed: &SeedRecord,
) -> Next {
    let operation = state.operations.iter().find(|known| known.operation == seed.operation);
    if operation.is_some_and(|known| known.state() == OperationState::Cancelling) {
        return Next::GiveUp("cancelled".into());
    }
    let here =
        |copy: &&api::DatabaseCopy| copy.database_id == seed.database && copy.node_id == seed.node;
    let Some(copy) = copies.iter().find(here) else { return Next::Wait };
    if !reports.reaches(seed.node()) {
        return Next::Wait;
    }
    match seed.phase() {
        SeedPhase::Building => built(state, reports, copies, copy, seed),
        SeedPhase::Joining if copy.replica_id != seed.replica => Next::Wait,
        SeedPhase::Joining if copy.status() == api::CopyStatus::Failed => {
            Next::GiveUp(copy.message.clone())
        }
        SeedPhase::Joining => {
            let near = copy.copy_queue_length + copy.replay_queue_length <= NEAR;
            let runs = copy.queues_known && copy.term > 0;
            if near && runs { Next::Compare } else { Next::Wait }
        }
    }
}

fn built(
    state: &ControlState,
    reports: &Reports,
    copies: &[api::DatabaseCopy],
    copy: &api::DatabaseCopy,
    seed: &SeedRecord,
) -> Next {
    let progress = copy.seed.as_ref().filter(|progress| progress.replica_id == seed.replica);
    let Some(progress) = progress else { return Next::Wait };
    if progress.failed {
        return Next::GiveUp(progress.message.clone());
    }
    if progress.phase() != api::SeedPhase::Built {
        return Next::Wait;
    }
    match place(state, reports, copies, seed) {
        Ok(voters) => Next::Advance { outcome: format!("{}, verified", sent(progress)), voters },
        Err(_) => Next::Wait,
    }
}

/// Whether a built copy may take its place: the voters of its group then. The old copy stops when the new
/// one comes: not while it serves, nor while its vote is needed.
///
/// # Errors
/// What it waits for.
pub fn place(
    state: &ControlState,
    reports: &Reports,
    copies: &[api::DatabaseCopy],
    seed: &SeedRecord,
) -> Result<Vec<u64>, FailedCheck> {
    let subject = format!("replica {}", seed.replica);
    let Some(record) = state.database(seed.database()) else {
        return Err(FailedCheck::new("database-exists", subject, "none", "a database of this DAG"));
    };
    let moving = state.running().find(|known| known.object == move_object(seed.database));
    if let Some(moving) = moving {
        let value = format!("operation {} moves the database", moving.operation);
        return Err(FailedCheck::new("operation-running", subject, value, "none"));
    }
    let checks = seed::place_checks(state, reports, record, seed);
    if let Some(refused) = seed::refusal(&checks, &subject) {
        return Err(refused);
    }
    let active = reports.active(record.id());
    active.and_then(|active| settled_voters(copies, record.id(), active)).ok_or_else(|| {
        let value = "the group changes its voters";
        FailedCheck::new("voters-settled", &subject, value, "no change under way")
            .advice("it goes on by itself when that is over")
    })
}

/// Who votes in the group itself, by the word of its active copy; none while that is being changed. The
/// control log decides by it whether a copy can be spared.
pub fn settled_voters(
    copies: &[api::DatabaseCopy],
    database: DatabaseId,
    active: NodeId,
) -> Option<Vec<u64>> {
    let said =
        |copy: &&api::DatabaseCopy| copy.database_id == database.0 && copy.node_id == active.0;
    let word = copies.iter().find(said).filter(|word| word.group_settled)?;
    Some(word.group_voters.clone())
}

/// Which way a seed was built, and what that spared.
fn sent(progress: &api::SeedProgress) -> String {
    match progress.way() {
        api::SeedWay::Delta => format!(
            "{} bytes; by delta: {} bytes were sent, {} taken from the old copy",
            progress.bytes, progress.received_bytes, progress.spared_bytes
        ),
        api::SeedWay::Whole | api::SeedWay::Unspecified => format!("{} bytes", progress.bytes),
    }
}

/// Whether the new copy's digest is the active copy's, with what was found; nothing where one of
/// them has not answered.
pub fn verdict(
    answer: &api::VerifyDatabaseResponse,
    active: NodeId,
    seed: &SeedRecord,
) -> Option<(bool, String)> {
    let known = |node: u64| {
        answer
            .copies
            .iter()
            .find(|copy| copy.node_id == node && copy.state() == api::DigestState::Known)
    };
    let new = known(seed.node).filter(|copy| ReplicaId(copy.replica_id) == seed.replica())?;
    let active = known(active.0)?;
    let equal = new.digest == active.digest && !new.digest.is_empty();
    let mark = answer.mark_index;
    Some(match equal {
        true => (true, format!("its digest is the active copy's at entry {mark}")),
        false => (false, format!("its digest differs from the active copy's at entry {mark}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(node: u64, replica: u64, digest: &'static [u8]) -> api::CopyDigest {
        api::CopyDigest {
            node_id: node,
            replica_id: replica,
            state: api::DigestState::Known.into(),
            digest: digest.into(),
            ..api::CopyDigest::default()
        }
    }

    #[test]
    fn who_votes_is_settled_by_the_active_copys_own_word() {
        let line = |node_id, group_settled| api::DatabaseCopy {
            database_id: 16,
            node_id,
            group_settled,
            group_voters: vec![3, 4, node_id],
            ..api::DatabaseCopy::default()
        };
        let copies = [line(1, false), line(2, true)];
        let settled = |active| settled_voters(&copies, DatabaseId(16), NodeId(active));
        assert_eq!(settled(2), Some(vec![3, 4, 2]));
        assert_eq!(settled(1), None, "a change is under way, or not known to be committed");
        assert_eq!(settled(3), None, "nothing was heard of it");
        assert_eq!(settled_voters(&copies, DatabaseId(17), NodeId(2)), None);
    }

    #[test]
    fn only_the_digest_of_this_very_copy_at_the_active_copys_mark_admits_it() {
        let seed = SeedRecord { node: 2, replica: 9, ..SeedRecord::default() };
        let judge = |copies: Vec<api::CopyDigest>| {
            let answer = api::VerifyDatabaseResponse { copies, ..Default::default() };
            verdict(&answer, NodeId(1), &seed).map(|(equal, _)| equal)
        };
        assert_eq!(judge(vec![digest(1, 1, b"a"), digest(2, 9, b"a")]), Some(true));
        assert_eq!(judge(vec![digest(1, 1, b"a"), digest(2, 9, b"b")]), Some(false));
        assert_eq!(judge(vec![digest(1, 1, b"a"), digest(2, 8, b"a")]), None, "the old copy's");
        assert_eq!(judge(vec![digest(2, 9, b"a")]), None, "the active one is silent");
        let pending = api::DigestState::Pending.into();
        let late = api::CopyDigest { state: pending, ..digest(2, 9, b"a") };
        assert_eq!(judge(vec![digest(1, 1, b"a"), late]), None);
    }
}
