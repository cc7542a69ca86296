//! How copies that are being built look in a status.

use active_manager::control::{ControlState, DatabaseRecord, ReplicaRecord, SeedPhase, SeedRecord};
use active_manager::report::Reports;
use dag_api::admin::v1 as api;
use dag_types::{CopyStatus, DatabaseId, NodeId, ReplicaId};
use seeding::progress::Phase;
use seeding::target::Way;

use super::seed_plan;
use super::show::{blank_copy, others_copy, with_status};
use crate::node::Node;

/// The lines of copies that nodes are to have and have not yet.
pub(super) fn copies_more(
    node: &Node,
    state: &ControlState,
    record: &DatabaseRecord,
) -> Vec<api::DatabaseCopy> {
    let more = |seed: &&SeedRecord| {
        seed.database() == record.id() && record.replica_on(seed.node()).is_none()
    };
    let line = |seed: &SeedRecord| {
        let replica = ReplicaRecord {
            replica: seed.replica,
            node: seed.node,
            store: seed.store.clone(),
            seeded: true,
            ..ReplicaRecord::default()
        };
        if seed.node() != node.id() {
            return others_copy(node, record, &replica);
        }
        let copy = with_progress(node, blank_copy(record, &replica));
        let message = copy.seed.as_ref().map(words).unwrap_or_default();
        with_status(copy, CopyStatus::Seeding, message)
    };
    state.seeds.iter().filter(more).map(line).collect()
}

/// A line of this node's own copy, with the progress of the one that is built beside it.
pub(super) fn with_progress(node: &Node, mut copy: api::DatabaseCopy) -> api::DatabaseCopy {
    let Some(state) = node.control() else { return copy };
    let seed = state.seed(DatabaseId(copy.database_id), NodeId(copy.node_id));
    copy.seed = seed.map(|seed| progress(node, seed));
    copy
}

fn progress(node: &Node, seed: &SeedRecord) -> api::SeedProgress {
    let shown = node.seeds.shown(ReplicaId(seed.replica)).unwrap_or_default();
    let phase = match (seed.phase(), shown.progress.phase) {
        (SeedPhase::Joining, _) => api::SeedPhase::Joining,
        _ if shown.waits => api::SeedPhase::Waiting,
        (_, Phase::Opening) => api::SeedPhase::Opening,
        (_, Phase::Copying) => api::SeedPhase::Copying,
        (_, Phase::Verifying) => api::SeedPhase::Verifying,
        (_, Phase::Built | Phase::Installed) => api::SeedPhase::Built,
    };
    let copies = phase == api::SeedPhase::Copying;
    let (way, received_bytes, spared_bytes) = match shown.way {
        None => (api::SeedWay::Unspecified, 0, 0),
        Some(Way::Whole) => (api::SeedWay::Whole, shown.progress.bytes, 0),
        Some(Way::Delta { received, spared }) => (api::SeedWay::Delta, received, spared),
    };
    api::SeedProgress {
        replica_id: seed.replica,
        operation: seed.operation,
        phase: phase.into(),
        bytes: shown.progress.bytes,
        total_bytes: shown.progress.total,
        bytes_per_second: if copies { shown.progress.rate } else { 0 },
        left_ms: shown.progress.left.filter(|_| copies).map(|left| left.0),
        source_node: shown.source.map_or(0, |source| source.0),
        message: shown.message,
        failed: shown.failed,
        way: way.into(),
        received_bytes,
        spared_bytes,
    }
}

/// Has the lines of copies that are built say what they wait for.
pub(super) fn explain(
    state: &ControlState,
    reports: &Reports,
    mut copies: Vec<api::DatabaseCopy>,
) -> Vec<api::DatabaseCopy> {
    let waits = |copy: &api::DatabaseCopy| {
        let progress = built(copy)?;
        let seed = state.seeds.iter().find(|seed| seed.replica == progress.replica_id)?;
        seed_plan::place(state, reports, &copies, seed).err().map(|check| check.to_string())
    };
    let waiting: Vec<Option<String>> = copies.iter().map(waits).collect();
    for (copy, check) in copies.iter_mut().zip(waiting) {
        let (Some(check), Some(seed)) = (check, copy.seed.as_mut()) else { continue };
        seed.message = format!("waits for its place: {check}");
        copy.message = beside(seed);
    }
    copies
}

/// The progress of a new copy that is built, and not in its place yet.
pub(super) fn built(copy: &api::DatabaseCopy) -> Option<&api::SeedProgress> {
    copy.seed.as_ref().filter(|seed| seed.phase() == api::SeedPhase::Built && !seed.failed)
}

fn beside(seed: &api::SeedProgress) -> String {
    format!("a new copy is built beside it: {}", words(seed))
}

/// What a line says where the copy itself has nothing to say: it was never admitted, or another one
/// is built in the place of one that failed.
pub(super) fn instead(
    node: &Node,
    replica: &ReplicaRecord,
    copy: &api::DatabaseCopy,
) -> Option<api::DatabaseCopy> {
    if let Some(seed) = copy.seed.as_ref().filter(|seed| seed.replica_id != replica.replica) {
        let state = node.control()?;
        let group = node.member().ok()?.registry.get(DatabaseId(copy.database_id));
        let failed = node.failed.of(DatabaseId(copy.database_id)).is_some();
        let sound = group.is_some() && !failed && replica.unfit.is_empty();
        let here = state.node(node.id()).is_some();
        if here && !sound {
            let message = words(seed);
            return Some(with_status(copy.clone(), CopyStatus::Seeding, message));
        }
        return None;
    }
    if replica.unfit.is_empty() {
        return None;
    }
    let message =
        format!("it was not admitted: {}; the copy comes back by reseeding", replica.unfit);
    Some(with_status(copy.clone(), CopyStatus::Failed, message))
}

/// The status of a copy that runs: one that is not admitted yet is not healthy.
pub(super) fn of_running(
    copy: &api::DatabaseCopy,
    replica: &ReplicaRecord,
    word: CopyStatus,
    message: &str,
) -> (CopyStatus, String) {
    match copy.seed.as_ref() {
        Some(seed) if seed.replica_id == replica.replica && word != CopyStatus::Failed => {
            (CopyStatus::Seeding, words(seed))
        }
        Some(seed) if message.is_empty() => (word, beside(seed)),
        _ => (word, message.to_owned()),
    }
}

/// One line for people.
pub(super) fn words(seed: &api::SeedProgress) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let amount = format!("{} of {} MiB", mib(seed.bytes), mib(seed.total_bytes));
    let doing = match seed.phase() {
        api::SeedPhase::Waiting => "waits for other seeds on its node".to_owned(),
        api::SeedPhase::Unspecified | api::SeedPhase::Opening => "waits for a source".to_owned(),
        api::SeedPhase::Copying => match seed.left_ms {
            Some(left) => {
                let rate = seed.bytes_per_second / 1_000_000;
                format!("{amount}, {rate} MB/s, {} s left", left / 1000)
            }
            None => amount,
        },
        api::SeedPhase::Verifying => format!("{amount} received, is read back"),
        api::SeedPhase::Built => "built".to_owned(),
        api::SeedPhase::Joining => "catches up and is compared".to_owned(),
    };
    let doing = match seed.way() {
        api::SeedWay::Delta => {
            let (sent, spared) = (mib(seed.received_bytes), mib(seed.spared_bytes));
            format!("{doing}; by delta: {sent} MiB sent, {spared} MiB taken from the old copy")
        }
        api::SeedWay::Whole | api::SeedWay::Unspecified => doing,
    };
    match seed.message.as_str() {
        "" => doing,
        message => format!("{doing}: {message}"),
    }
}
