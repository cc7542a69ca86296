//! Whether a copy may be built or removed, from where it is built, and which are built without
//! anybody asking.
//!
//! A copy is built from any sound copy: best from a passive one of the same site, last from the
//! active one, which has other things to do.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::{CopyStatus, DatabaseId, NodeId};

use crate::control::{
    ControlState, DatabaseRecord, FailedCheck, OperationKind, OperationState, SeedPhase, SeedRecord,
};
use crate::movement::Check;
use crate::report::Reports;
use crate::tolerance;

/// How long a copy is Failed before it is built anew by itself.
pub const DELAY_MS: u64 = 10_000;
/// How long after a seed that failed the next one is begun by itself.
pub const AGAIN_MS: u64 = 60_000;
/// Copies that are built on one node at a time.
pub const PER_NODE: usize = 2;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeedKind {
    /// Fill a copy that failed or is missing.
    Seed,
    /// Build a copy anew, sound or not.
    Reseed,
    /// Make a copy more.
    Add,
}

/// All checks of a seed, also those that hold.
pub fn check_seed(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
    kind: SeedKind,
    from: Option<NodeId>,
) -> Vec<Check> {
    let mut checks = alloc::vec![control_majority(reports), data_node(state, node)];
    checks.push(target_copy(state, database, node, kind));
    if kind == SeedKind::Seed {
        checks.push(not_sound(reports, database, node));
    }
    checks.push(not_active(state, reports, database, node));
    checks.push(mounted(state, reports, database));
    let reached = reports.reaches(node);
    let value = if reached { "reachable" } else { "silent" };
    checks.push(Check::new("target-reachable", reached, value.into(), "its node answers"));
    if kind != SeedKind::Add {
        checks.push(majority_without(state, reports, database, node));
    }
    checks.push(idle(state, database, node));
    checks.extend(source(state, reports, database, node, from));
    checks
}

/// All checks of moving a copy to another path of its node, which is a seed of it from itself; the
/// active one is handed over before.
pub fn check_relocation(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
) -> Vec<Check> {
    let mut checks = check_seed(state, reports, database, node, SeedKind::Reseed, Some(node));
    if reports.active(database.id()) == Some(node) {
        checks.retain(|check| check.name != "not-active");
        let others = sources(state, reports, database, node, None).len();
        let value = format!("{others} sound copies elsewhere");
        checks.push(Check::new("another-copy", others > 0, value, "at least 1 to take over"));
    }
    checks
}

/// The checks of a built copy that is to take its place, which stops the one that stands there.
pub fn place_checks(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    seed: &SeedRecord,
) -> Vec<Check> {
    let mut checks = alloc::vec![
        mounted(state, reports, database),
        not_active(state, reports, database, seed.node()),
        none_joins(state, database),
    ];
    if seed.replaces != 0 {
        checks.push(majority_without(state, reports, database, seed.node()));
    }
    checks
}

/// All checks of removing a copy.
pub fn check_removal(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
) -> Vec<Check> {
    let mut checks = alloc::vec![control_majority(reports)];
    checks.push(target_copy(state, database, node, SeedKind::Reseed));
    checks.push(not_active(state, reports, database, node));
    let tolerance = tolerance::of_database(state, reports, database);
    let others = tolerance.without(Some(node));
    let value = format!("{others} sound copies without it");
    checks.push(Check::new("last-healthy-copy", others >= 1, value, "at least 1"));
    checks.push(none_joins(state, database));
    checks.push(majority_after(state, reports, database, node));
    checks.push(idle(state, database, node));
    checks
}

/// The first check that fails, for a refusal.
pub fn refusal(checks: &[Check], subject: &str) -> Option<FailedCheck> {
    let check = checks.iter().find(|check| !check.passed)?;
    let refused = FailedCheck::new(check.name, subject, check.value.clone(), check.limit.clone());
    Some(match advice(check.name) {
        "" => refused,
        advice => refused.advice(advice),
    })
}

fn advice(check: &str) -> &'static str {
    match check {
        "not-active" => "move it first: `dagctl db move DB`",
        "copy-exists" => "`dagctl copy add DB@NODE` makes a copy there",
        "copy-absent" => "`dagctl copy reseed DB@NODE` builds it anew",
        "copy-not-sound" => "`dagctl copy reseed DB@NODE` builds a sound copy anew too",
        "another-copy" => "heal another copy, or make one with `dagctl copy add DB@NODE`",
        "mounted" => "`dagctl status` says why; a new copy is compared with the active one",
        "majority" => "heal or seed another copy first; `dagctl status` shows them",
        "last-healthy-copy" => "heal or seed another copy first",
        "seed-joins" => "repeat this when it is over: `dagctl ops list` shows it",
        "operation-running" => "`dagctl ops list` shows it; `dagctl ops cancel` ends it",
        _ => "",
    }
}

fn name(state: &ControlState, node: NodeId) -> String {
    state.node(node).map_or_else(|| format!("node {node}"), |known| known.name.clone())
}

pub(crate) fn control_majority(reports: &Reports) -> Check {
    let leader = reports.control.leader;
    let value = leader.map_or_else(|| "none known".into(), |node| format!("node {node}"));
    Check::new("control-leader", leader.is_some(), value, "a leader of the control group")
}

fn data_node(state: &ControlState, node: NodeId) -> Check {
    let known = state.node(node);
    let value = match known {
        None => format!("no node {node}"),
        Some(known) if known.witness => format!("{} is a witness", known.name),
        Some(known) => known.name.clone(),
    };
    let holds = known.is_some_and(|known| !known.witness);
    Check::new("data-node", holds, value, "a node that holds databases")
}

fn target_copy(
    state: &ControlState,
    database: &DatabaseRecord,
    node: NodeId,
    kind: SeedKind,
) -> Check {
    let has = database.replica_on(node).is_some();
    let places: Vec<String> =
        database.replicas.iter().map(|copy| name(state, copy.node())).collect();
    let value = format!("copies on {}", places.join(", "));
    match kind {
        SeedKind::Add => Check::new("copy-absent", !has, value, "none there yet"),
        SeedKind::Seed | SeedKind::Reseed => Check::new("copy-exists", has, value, "one there"),
    }
}

fn not_sound(reports: &Reports, database: &DatabaseRecord, node: NodeId) -> Check {
    let copy = reports.copy(database.id(), node);
    let value = copy.map_or_else(|| "not heard of".into(), |copy| copy.status.to_string());
    let sound = copy.is_some_and(|copy| copy.is_sound());
    Check::new("copy-not-sound", !sound, value, "a copy that failed or is missing")
}

fn mounted(state: &ControlState, reports: &Reports, database: &DatabaseRecord) -> Check {
    let active = reports.active(database.id());
    let value = active.map_or_else(|| "nowhere".into(), |active| name(state, active));
    Check::new("mounted", active.is_some(), value, "mounted on some node")
}

fn not_active(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
) -> Check {
    let active = reports.active(database.id());
    let value = match active {
        Some(active) => format!("active on {}", name(state, active)),
        None => "active nowhere".into(),
    };
    Check::new("not-active", active != Some(node), value, "another copy is the active one")
}

/// Whether the voters go on without the copy on a node.
pub fn majority_without(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
) -> Check {
    let tolerance = tolerance::of_database(state, reports, database);
    let live = tolerance.live_voters.iter().filter(|voter| **voter != node).count();
    majority(live, tolerance.voters, "without it")
}

fn majority(live: usize, voters: usize, when: &str) -> Check {
    let needed = voters / 2 + 1;
    let value = format!("{live} of {voters} voters live {when}");
    Check::new("majority", live >= needed, value, format!("at least {needed}"))
}

/// Whether the voters that a removal leaves have a majority now.
fn majority_after(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
) -> Check {
    // Both the voters before and those after have to agree to the change.
    let before = majority_without(state, reports, database, node);
    if !before.passed {
        return before;
    }
    match crate::control::without(state, database.database, node) {
        Ok(after) => {
            let tolerance = tolerance::of_database(state, reports, &after);
            majority(tolerance.live_voters.len(), tolerance.voters, "after it")
        }
        Err(check) => Check::new("majority", false, check.value, check.limit),
    }
}

/// Whether nobody's vote depends on a comparison that is under way.
pub(crate) fn none_joins(state: &ControlState, database: &DatabaseRecord) -> Check {
    let joining = state.joining(database.id()).next();
    let value = match joining {
        Some(seed) => format!("operation {} compares replica {}", seed.operation, seed.replica),
        None => "nothing is compared".into(),
    };
    Check::new("seed-joins", joining.is_none(), value, "no new copy of the database is compared")
}

fn idle(state: &ControlState, database: &DatabaseRecord, node: NodeId) -> Check {
    let seed = state.seed(database.id(), node);
    let value = match seed {
        Some(seed) => format!("operation {} builds it", seed.operation),
        None => "nothing runs".into(),
    };
    Check::new("operation-running", seed.is_none(), value, "none on this copy")
}

fn source(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
    from: Option<NodeId>,
) -> Vec<Check> {
    let Some(from) = from else {
        let sources = sources(state, reports, database, node, None);
        let value = format!("{} sound copies elsewhere", sources.len());
        return alloc::vec![Check::new("source", !sources.is_empty(), value, "at least 1")];
    };
    // From itself: the copy moves to another path of its node.
    let copy = database.replica_on(from);
    let places = database.replicas.iter();
    let places: Vec<String> = places.map(|copy| name(state, copy.node())).collect();
    let limit = format!("a copy on one of {}", places.join(", "));
    let mut checks =
        alloc::vec![Check::new("source-exists", copy.is_some(), name(state, from), limit)];
    let lineage = reports.node(from).map(|report| report.lineage).unwrap_or_default();
    let newest = state.last_lineage();
    let same = lineage == newest;
    checks.push(Check::new("source-lineage", same, lineage.to_string(), newest.to_string()));
    let status = reports.copy(database.id(), from).map(|copy| copy.status);
    let value = match reports.reaches(from) {
        false => "its node is silent".into(),
        true => status.map_or_else(|| "not heard of".into(), |status| status.to_string()),
    };
    let fit = is_source(state, reports, database, from);
    checks.push(Check::new("source-healthy", fit, value, "Healthy or Mounted"));
    checks
}

fn is_source(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
) -> bool {
    use CopyStatus as S;
    let heard = reports.node(node);
    let same_lineage = heard.is_some_and(|node| node.lineage == state.last_lineage());
    let copy = reports.copy(database.id(), node);
    let sound = copy.is_some_and(|copy| {
        matches!(copy.status, S::Healthy | S::SeedingSource | S::Mounted) && copy.digest_equal
    });
    let fit = database.replica_on(node).is_some_and(|copy| copy.unfit.is_empty());
    let joins = state.seed(database.id(), node);
    let joins = joins.is_some_and(|seed| seed.phase() == SeedPhase::Joining);
    reports.reaches(node) && same_lineage && sound && fit && !joins
}

/// The nodes that a copy may be built from, the best first: the wished one, passive ones of the
/// same site, passive ones elsewhere, the active one.
pub fn sources(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    target: NodeId,
    wish: Option<NodeId>,
) -> Vec<NodeId> {
    let active = reports.active(database.id());
    let site = state.site_of(target);
    let fit = |node: &NodeId| *node != target && is_source(state, reports, database, *node);
    let nodes = database.replicas.iter().map(crate::control::ReplicaRecord::node);
    let mut nodes: Vec<NodeId> = nodes.filter(fit).collect();
    nodes.sort_by_key(|node| {
        (wish != Some(*node), active == Some(*node), state.site_of(*node) != site, *node)
    });
    nodes
}

/// A copy that failed, and since when this was seen, by the watcher's own clock.
pub type FailedSince = BTreeMap<(DatabaseId, NodeId), u64>;

/// The copies to build anew now without anybody asking: failed for a while, on a node that
/// answers, with a source, and within the limit of the node. `since` and `now` are of one clock.
pub fn due_by_itself(
    state: &ControlState,
    reports: &Reports,
    since: &FailedSince,
    now: u64,
) -> Vec<(DatabaseId, NodeId)> {
    let mut building: BTreeMap<NodeId, usize> = BTreeMap::new();
    for seed in &state.seeds {
        *building.entry(seed.node()).or_default() += 1;
    }
    let mut due = Vec::new();
    for (&(database, node), &failed_at) in since {
        let running = building.entry(node).or_default();
        let late = now.saturating_sub(failed_at) >= DELAY_MS;
        if late && *running < PER_NODE && may_begin(state, reports, database, node) {
            *running += 1;
            due.push((database, node));
        }
    }
    due
}

fn may_begin(state: &ControlState, reports: &Reports, database: DatabaseId, node: NodeId) -> bool {
    let Some(record) = state.database(database).filter(|db| db.id() != DatabaseId::CONTROL) else {
        return false;
    };
    let held = state.copy_policy(database, node).suspended;
    let checks = check_seed(state, reports, record, node, SeedKind::Seed, None);
    let object = crate::control::copy_object(database.0, node.0);
    let failed_just_now = state.operations.iter().any(|operation| {
        operation.object == object
            && operation.kind() == OperationKind::SeedCopy
            && matches!(operation.state(), OperationState::Failed | OperationState::Cancelled)
            && reports.at_ms.saturating_sub(operation.ended_ms) < AGAIN_MS
    });
    !held && !failed_just_now && refusal(&checks, "").is_none()
}

/// Every copy that its own node reports as failed.
pub fn failed_copies(reports: &Reports) -> impl Iterator<Item = (DatabaseId, NodeId)> {
    let failed = reports.copies.iter().filter(|copy| copy.status == CopyStatus::Failed);
    failed.map(|copy| (copy.database, copy.node))
}

#[cfg(test)]
#[path = "seed_test.rs"]
mod tests;
