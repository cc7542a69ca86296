//! Whether a database whose majority is lost may go on from one copy, from which, and what of it may
//! be lost.
//!
//! Without a majority of its voters a database stops, and nothing brings it back but the missing
//! voters, or a person's word that they are given up: then the best copy that is left begins a new
//! generation with itself as the one voter, and the others are built anew from it.
//!
//! - **Nothing may serve the old generation any more.** The nodes that are given up are silent, with
//!   a closed gate, for the takeover wait; the others stop their copies before one is chosen.
//! - **The best copy** is the one whose log ends last, by term and then by index: whatever a majority
//!   agreed to is in it, if it is in any copy that is left.
//! - **The verdict** is zero only where the voters that are left meet every majority of all of them:
//!   one of two, two of four. Else the missing ones may have agreed to something by themselves, and
//!   how much that is, nobody knows.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::{CopyStatus, DatabaseId, LogId, Millis, NodeId, ReplicaId};
use prost::Message as _;

use crate::control::{ActivationPolicy, ControlState, DatabaseRecord, FailedCheck, ReplicaRecord};
use crate::movement::Check;
use crate::report::{GateReport, Reports};
use crate::seed;

/// How long the missing nodes are silent, beyond the takeover wait, before a database is formed anew
/// without anybody asking, where that loses nothing.
pub const BY_ITSELF_MS: u64 = 10_000;

/// A copy that is left: its node answers, and it runs or was stopped to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Where it stands.
    pub node: NodeId,
    /// Which copy.
    pub replica: ReplicaId,
    /// The end of its log.
    pub last: LogId,
    /// Who votes, by the last membership in its log.
    pub voters: Vec<ReplicaId>,
    /// A change of the voters was under way.
    pub joint: bool,
}

/// What may be lost of what was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Zero,
    /// Nobody knows.
    Unknown,
}

/// What forming a database anew takes, and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reform {
    /// All checks, also those that hold.
    pub checks: Vec<Check>,
    /// The copy that the new generation is made of; none where no copy is left.
    pub best: Option<Survivor>,
    /// What may be lost.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: String,
    /// The nodes whose copies are given up without having been asked.
    pub missing: Vec<NodeId>,
    /// Over everything that the plan rests on.
    pub token: String,
}

impl Reform {
    /// Whether nothing forbids it.
    pub fn is_possible(&self) -> bool {
        self.best.is_some() && self.checks.iter().all(|check| check.passed)
    }
}

/// The nodes with a copy of which nothing is heard that counts: neither that it runs, nor that it
/// has failed. Their gates must be closed.
pub fn missing(reports: &Reports, database: &DatabaseRecord, left: &[Survivor]) -> Vec<NodeId> {
    let given_up = |copy: &&ReplicaRecord| {
        !is_left(copy, left) && !has_failed(reports, database.id(), copy.node())
    };
    database.replicas.iter().filter(given_up).map(ReplicaRecord::node).collect()
}

fn is_left(copy: &ReplicaRecord, left: &[Survivor]) -> bool {
    left.iter().any(|left| left.replica == copy.id() && left.node == copy.node())
}

/// By the word of its own node, which answers: it does not run, and is not started again before the
/// node itself is, with a closed gate.
fn has_failed(reports: &Reports, database: DatabaseId, node: NodeId) -> bool {
    use CopyStatus as S;
    let copy = reports.copy(database, node);
    let failed = copy.is_some_and(|copy| matches!(copy.status, S::Failed | S::FailedAndSuspended));
    failed && reports.reaches(node)
}

/// Plans it. `left`: the copies that are left. `wait`: what is left of the takeover wait for
/// [`missing`]; none where this node cannot say.
pub fn plan_reform(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    left: &[Survivor],
    wait: Option<Millis>,
) -> Reform {
    let missing = missing(reports, database, left);
    let best = best(left).cloned();
    let (verdict, reason) = verdict(state, reports, database, left, best.as_ref());
    let mut checks = alloc::vec![seed::control_majority(reports)];
    checks.push(not_mounted(state, reports, database));
    checks.push(majority_lost(database, left));
    checks.push(survivor(state, best.as_ref()));
    checks.extend(best.as_ref().map(|best| may_serve(state, database, best.node)));
    checks.push(gates_closed(state, reports, &missing));
    checks.push(takeover_wait(state, &missing, wait));
    checks.push(nothing_runs(state, database));
    let token = token(state, database, best.as_ref(), &missing, &verdict);
    Reform { checks, best, verdict, reason, missing, token }
}

/// The first check that fails, for a refusal.
pub fn refusal(checks: &[Check], database: &str) -> Option<FailedCheck> {
    let check = checks.iter().find(|check| !check.passed)?;
    let refused = FailedCheck::new(check.name, database, check.value.clone(), check.limit.clone());
    Some(match check.name {
        "not-mounted" | "majority-lost" => {
            refused.advice("a database with a majority goes on by itself; `dagctl status` says how")
        }
        "survivor" => refused.advice("start a node that has a copy"),
        "survivor-may-serve" => refused.advice("`dagctl node allow`, `dagctl copy resume`"),
        "gates-closed" => {
            refused.advice("its copy may come back by itself; stop that node if it shall not")
        }
        "takeover-wait" => refused.advice("repeat this when it is over"),
        "operation-running" => {
            refused.advice("`dagctl ops list` shows it; `dagctl ops cancel` ends it")
        }
        _ => refused,
    })
}

/// The greatest by term, then by index: an entry that a majority agreed to is in the log of every
/// later leader, so of two logs the one with the later last entry holds whatever the other does.
fn best(left: &[Survivor]) -> Option<&Survivor> {
    left.iter().max_by_key(|left| (left.last, core::cmp::Reverse(left.node)))
}

fn name(state: &ControlState, node: NodeId) -> String {
    state.node(node).map_or_else(|| format!("node {node}"), |known| known.name.clone())
}

fn names(state: &ControlState, nodes: &[NodeId]) -> String {
    match nodes {
        [] => "none".into(),
        nodes => nodes.iter().map(|node| name(state, *node)).collect::<Vec<_>>().join(", "),
    }
}

fn voters(database: &DatabaseRecord) -> Vec<&ReplicaRecord> {
    database.replicas.iter().filter(|copy| copy.voter).collect()
}

fn not_mounted(state: &ControlState, reports: &Reports, database: &DatabaseRecord) -> Check {
    let active = reports.active(database.id());
    let value = active.map_or_else(|| "nowhere".into(), |node| name(state, node));
    Check::new("not-mounted", active.is_none(), value, "mounted nowhere")
}

fn majority_lost(database: &DatabaseRecord, left: &[Survivor]) -> Check {
    let voters = voters(database);
    let live = voters.iter().filter(|copy| is_left(copy, left)).count();
    let needed = voters.len() / 2 + 1;
    let value = format!("{live} of {} voters are left", voters.len());
    Check::new("majority-lost", live < needed, value, format!("fewer than {needed}"))
}

fn survivor(state: &ControlState, best: Option<&Survivor>) -> Check {
    let value = match best {
        None => "no copy answers".into(),
        Some(best) => format!("{}, whose log ends at {}", name(state, best.node), best.last),
    };
    Check::new("survivor", best.is_some(), value, "a copy that is left")
}

/// The one copy that is left must be able to lead.
fn may_serve(state: &ControlState, database: &DatabaseRecord, node: NodeId) -> Check {
    let blocked = ActivationPolicy::Blocked as i32;
    let copy = state.copy_policy(database.id(), node);
    let value = if copy.suspended || copy.activation_suspended {
        "the copy is suspended"
    } else if state.node_policy(node).policy == blocked {
        "its node is blocked"
    } else if state.database_policy(database.id()).policy == blocked {
        "the database is blocked"
    } else {
        "it may"
    };
    Check::new("survivor-may-serve", value == "it may", value.into(), "not blocked, not suspended")
}

fn gates_closed(state: &ControlState, reports: &Reports, missing: &[NodeId]) -> Check {
    let open = |node: &&NodeId| {
        reports.node(**node).is_some_and(|known| {
            known.reachable && matches!(known.gate, GateReport::Open(_) | GateReport::Unknown)
        })
    };
    let heard: Vec<NodeId> = missing.iter().filter(open).copied().collect();
    let value = match heard.is_empty() {
        true => format!("of {} none answers with an open gate", names(state, missing)),
        false => format!("{} answers, its gate is open", names(state, &heard)),
    };
    Check::new("gates-closed", heard.is_empty(), value, "silent, or a closed gate")
}

fn takeover_wait(state: &ControlState, missing: &[NodeId], wait: Option<Millis>) -> Check {
    let passed = missing.is_empty() || wait == Some(Millis(0));
    let value = match wait {
        _ if missing.is_empty() => "no node to wait for".into(),
        None => "this node grants no gates".into(),
        Some(Millis(0)) => format!("over for {}", names(state, missing)),
        Some(Millis(left)) => {
            format!("{}.{} s left for {}", left / 1000, left % 1000 / 100, names(state, missing))
        }
    };
    Check::new("takeover-wait", passed, value, "0 s left: every gate there is surely closed")
}

fn nothing_runs(state: &ControlState, database: &DatabaseRecord) -> Check {
    let object = object(database.database);
    let running = state.running().find(|known| known.object == object);
    let value = match running {
        Some(known) => format!("operation {} is running", known.operation),
        None => "nothing runs".into(),
    };
    Check::new("operation-running", running.is_none(), value, "none on this database")
}

/// What operations about a database are about: one of them at a time.
pub fn object(database: u64) -> String {
    format!("database {database}")
}

fn verdict(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    left: &[Survivor],
    best: Option<&Survivor>,
) -> (Verdict, String) {
    let voters = voters(database);
    let gone: Vec<NodeId> =
        voters.iter().filter(|copy| !is_left(copy, left)).map(|copy| copy.node()).collect();
    let needed = voters.len() / 2 + 1;
    let mut known: Vec<ReplicaId> = voters.iter().map(|copy| copy.id()).collect();
    known.sort();
    // What the control log wants may be ahead of what the group itself agreed to.
    let agrees = |left: &&Survivor| {
        let mut own = left.voters.clone();
        own.sort();
        own == known && !left.joint
    };
    if gone.len() >= needed {
        let mut reason = format!(
            "{} of {} voters are missing ({}), a majority by themselves: they may have agreed to \
             what no other copy has",
            gone.len(),
            voters.len(),
            names(state, &gone)
        );
        if let Some(estimate) = best.and_then(|best| estimate(reports, database, best)) {
            reason.push_str(&estimate);
        }
        return (Verdict::Unknown, reason);
    }
    if left.iter().all(|left| agrees(&left)) && best.is_some() {
        let reason = format!(
            "of {} voters {} are left, and no majority is without one of them",
            voters.len(),
            voters.len() - gone.len()
        );
        return (Verdict::Zero, reason);
    }
    let reason = "the voters were being changed: which majority agreed to what is not known";
    (Verdict::Unknown, reason.to_string())
}

/// What the last words of the missing nodes let one expect; nothing may be built on it.
fn estimate(reports: &Reports, database: &DatabaseRecord, best: &Survivor) -> Option<String> {
    let heard = reports.copies.iter().filter(|copy| copy.database == database.id());
    let ends = heard.filter_map(|copy| (copy.node != best.node).then_some(copy.last_index));
    let greatest = ends.max().filter(|last| *last > 0)?;
    let lacks = greatest.saturating_sub(best.last.index);
    Some(format!(
        "; an estimate: by the last word of any copy its log ended at entry {greatest}, {lacks} \
         more than the best copy's that is left"
    ))
}

fn token(
    state: &ControlState,
    database: &DatabaseRecord,
    best: Option<&Survivor>,
    missing: &[NodeId],
    verdict: &Verdict,
) -> String {
    let mut hasher = blake3::Hasher::new();
    let lineage = state.last_lineage();
    hasher.update(&lineage.epoch.to_be_bytes()).update(&lineage.activation.0);
    hasher.update(&database.encode_to_vec());
    if let Some(best) = best {
        hasher.update(&best.replica.0.to_be_bytes());
    }
    for node in missing {
        hasher.update(&node.0.to_be_bytes());
    }
    hasher.update(&[u8::from(*verdict == Verdict::Zero)]);
    let head = hasher.finalize();
    let hex = head.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}"));
    format!("r1-{}", hex.collect::<String>())
}

#[cfg(test)]
#[path = "reform_test.rs"]
mod tests;
