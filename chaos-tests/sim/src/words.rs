//! What nodes say of themselves and their copies, and what one node makes of what it heard.
//!
//! Decisions about seeds are made from the control log and from these, as in the daemon: a node asks
//! the others through the network while a seed is under way, and what it heard is old after a moment.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use active_manager::control::{ControlState, SeedPhase, SeedRecord};
use active_manager::report::{ControlReport, CopyReport, GateReport, NodeReport, Reports};
use dag_api::admin::v1 as api;
use dag_types::{CopyStatus, DatabaseId, Millis, NodeId, ReplicaId};
use replication::{Group, Role};
use seeding::progress::Phase;

use crate::node::{LINEAGE, Shared};
use crate::shape::{NODES, mailbox_databases};
use crate::world::lock;

/// How often a node asks while a seed is under way.
pub const ASK: Duration = Duration::from_millis(60);
/// How long what was heard counts.
const STALE: Millis = Millis(400);

/// A copy, by the word of its node.
#[derive(Debug, Clone)]
pub struct CopyWord {
    database: DatabaseId,
    replica: ReplicaId,
    status: CopyStatus,
    message: String,
    last: u64,
    applied: u64,
    term: u64,
    /// Replicas; none where they are being changed.
    voters: Option<Vec<u64>>,
    seed: Option<api::SeedProgress>,
}

/// What a node heard of each other, and when.
#[derive(Default)]
pub struct Words(Mutex<BTreeMap<u64, (Millis, Vec<CopyWord>)>>);

impl Words {
    /// A node said this.
    pub fn heard(&self, node: u64, now: Millis, words: Vec<CopyWord>) {
        lock(&self.0).insert(node, (now, words));
    }

    /// How everything stands, as far as this node heard lately.
    pub fn reports(&self, shared: &Shared) -> (Reports, Vec<api::DatabaseCopy>) {
        let now = shared.clock.boottime();
        self.heard(shared.node, now, own(shared));
        let heard = lock(&self.0);
        let fresh = |at: Millis| now.saturating_sub(at) <= STALE;
        let known: Vec<(u64, &CopyWord)> = heard
            .iter()
            .filter(|(_, (at, _))| fresh(*at))
            .flat_map(|(node, (_, words))| words.iter().map(|word| (*node, word)))
            .collect();
        let leader = shared.group(DatabaseId::CONTROL).and_then(|group| group.leader());
        let reaches = |node: u64| heard.get(&node).is_some_and(|(at, _)| fresh(*at));
        let reports = Reports {
            at_ms: shared.now_ms(),
            control: ControlReport { leader: leader.map(|leader| leader.node), term: 0 },
            nodes: (1..=NODES).map(|node| node_report(node, reaches(node))).collect(),
            copies: known.iter().map(|(node, word)| word.report(*node, &known)).collect(),
        };
        (reports, known.iter().map(|(node, word)| word.line(*node, &known)).collect())
    }
}

/// What somebody says of a node that it hears, or does not hear.
pub fn node_report(node: u64, reachable: bool) -> NodeReport {
    NodeReport {
        node: NodeId(node),
        reachable,
        last_heard: Millis(0),
        gate: GateReport::Unknown,
        lineage: LINEAGE,
        control_copy_runs: reachable,
        admin_answers: reachable,
        disk_low: false,
        clock_skew: Millis(0),
        version: String::new(),
        insecure: false,
        does_not_hear: Vec::new(),
    }
}

/// What a node says of its copies of mailbox databases.
pub fn own(shared: &Shared) -> Vec<CopyWord> {
    let control = shared.state().control.clone();
    mailbox_databases()
        .filter_map(|database| {
            let mut word = own_copy(shared, control.as_deref(), database)?;
            let seed = control.as_ref().and_then(|state| state.seed(database, NodeId(shared.node)));
            word.seed = seed.map(|seed| progress(shared, seed));
            Some(word)
        })
        .collect()
}

/// The copy that the control log names, as it stands here; the one that it replaces may still be closing.
fn own_copy(
    shared: &Shared,
    control: Option<&ControlState>,
    database: DatabaseId,
) -> Option<CopyWord> {
    let named = control?.database(database)?.replica_on(NodeId(shared.node))?.id();
    if let Some((_, why)) = shared.failed_copy(database).filter(|(failed, _)| *failed == named) {
        return Some(CopyWord::silent(database, named, CopyStatus::Failed, why));
    }
    match shared.group(database).filter(|group| group.replica() == named) {
        Some(group) => Some(running(&group)),
        None => Some(CopyWord::silent(database, named, CopyStatus::Initializing, String::new())),
    }
}

fn running(group: &Group) -> CopyWord {
    let status = group.status();
    let word = match status.role {
        _ if status.failed.is_some() => CopyStatus::Failed,
        Role::Leader if status.serving => CopyStatus::Mounted,
        Role::Leader => CopyStatus::Mounting,
        Role::Stopped => CopyStatus::Dismounted,
        _ if status.leader.is_none() => CopyStatus::DisconnectedAndHealthy,
        _ => CopyStatus::Healthy,
    };
    CopyWord {
        database: status.database,
        replica: status.replica,
        status: word,
        message: status.failed.unwrap_or_default(),
        last: status.last.map_or(0, |at| at.index),
        applied: status.applied.map_or(0, |at| at.index),
        term: status.term,
        voters: status.settled.then(|| {
            let voters = status.members.iter().filter(|member| member.voter);
            voters.map(|member| member.replica.0).collect()
        }),
        seed: None,
    }
}

fn progress(shared: &Shared, seed: &SeedRecord) -> api::SeedProgress {
    let shown = shared.seeding.shown(seed.replica());
    let phase = match (seed.phase(), shown.progress.phase) {
        (SeedPhase::Joining, _) => api::SeedPhase::Joining,
        (_, Phase::Opening) => api::SeedPhase::Opening,
        (_, Phase::Copying) => api::SeedPhase::Copying,
        (_, Phase::Verifying) => api::SeedPhase::Verifying,
        (_, Phase::Built | Phase::Installed) => api::SeedPhase::Built,
    };
    api::SeedProgress {
        replica_id: seed.replica,
        operation: seed.operation,
        phase: phase.into(),
        bytes: shown.progress.bytes,
        total_bytes: shown.progress.total,
        source_node: shown.source.unwrap_or_default(),
        message: shown.message,
        failed: shown.failed,
        ..api::SeedProgress::default()
    }
}

impl CopyWord {
    fn silent(
        database: DatabaseId,
        replica: ReplicaId,
        status: CopyStatus,
        message: String,
    ) -> Self {
        let (last, applied, term, voters, seed) = (0, 0, 0, None, None);
        Self { database, replica, status, message, last, applied, term, voters, seed }
    }

    /// Entries that the active copy has and this one has not; nothing where nobody is active.
    fn behind(&self, known: &[(u64, &Self)]) -> Option<u64> {
        let active = |other: &&(u64, &Self)| {
            other.1.database == self.database && other.1.status == CopyStatus::Mounted
        };
        let (_, active) = known.iter().find(active)?;
        Some(active.last.saturating_sub(self.last))
    }

    fn report(&self, node: u64, known: &[(u64, &Self)]) -> CopyReport {
        CopyReport {
            database: self.database,
            node: NodeId(node),
            status: self.status,
            since: Millis(0),
            copy_queue: self.behind(known).unwrap_or_default(),
            copy_queue_age: Millis(0),
            replay_queue: self.last.saturating_sub(self.applied),
            replay_queue_age: Millis(0),
            last_index: self.last,
            digest_equal: true,
        }
    }

    fn line(&self, node: u64, known: &[(u64, &Self)]) -> api::DatabaseCopy {
        let status = match self.status {
            CopyStatus::Failed => api::CopyStatus::Failed,
            CopyStatus::Mounted => api::CopyStatus::Mounted,
            _ => api::CopyStatus::Healthy,
        };
        let behind = self.behind(known);
        api::DatabaseCopy {
            database_id: self.database.0,
            node_id: node,
            replica_id: self.replica.0,
            status: status.into(),
            copy_queue_length: behind.unwrap_or_default(),
            replay_queue_length: self.last.saturating_sub(self.applied),
            last_log_index: self.last,
            applied_index: self.applied,
            term: self.term,
            queues_known: behind.is_some(),
            message: self.message.clone(),
            seed: self.seed.clone(),
            group_settled: self.voters.is_some(),
            group_voters: self.voters.clone().unwrap_or_default(),
            ..api::DatabaseCopy::default()
        }
    }
}
