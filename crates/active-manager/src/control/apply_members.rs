//! Who belongs to the DAG: the transitions of its list of nodes.
//!
//! ```text
//!   member ── RetireNode ──► leaving ── PlaceControlVoters, RemoveCopy ──► RemoveNode ──► gone
//!      ▲                        │
//!      └───── stays ────────────┘
//! ```
//! While a node leaves, its site has two lists, the old and the new one, and whatever counts nodes
//! counts in both. The leader lets the new one count alone only after more than half of either has
//! the entry on its disk, which it knows from the matches of its followers; the entry's index stands
//! in the node's record for that. Only what the log itself can tell is checked here; whether a
//! majority stays is checked by whoever proposes ([`crate::removal`]).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::{DatabaseId, LogId, NodeId, StateView};

use super::activation::{CopyPolicy, NODE_POLICIES, OPENINGS};
use super::apply::{Verdict, put_database};
use super::apply_operation::wrong_term;
use super::command::{PlaceControlVoters, RemoveNode, RetireNode};
use super::record::{DatabaseRecord, NODES, NodeRecord, number_key};
use super::response::{FailedCheck, NoDag, Rejection, UnknownNode};
use super::state::ControlState;
use crate::change::{Change, Fault};
use crate::placement::VOTERS_MAX;

type Result<T, V> = core::result::Result<T, Fault<<V as StateView>::Error>>;

/// A node begins to leave, or stays after all.
pub(super) fn retire<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    order: &RetireNode,
) -> Result<Verdict, V> {
    let (state, mut node) = match member(change, at, order.node, order.term)? {
        Ok(found) => found,
        Err(verdict) => return Ok(verdict),
    };
    if node.is_leaving() != order.stays {
        return Ok(Verdict::was_so());
    }
    if !order.stays
        && let Some(check) = cannot_leave(&state, &node)
    {
        return Ok(Verdict::failed(check));
    }
    node.leaving_since = if order.stays { 0 } else { at.index };
    change.put(number_key(NODES, node.node), &node);
    Ok(Verdict::changed())
}

/// These nodes vote in the control group from now on.
pub(super) fn place_voters<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    order: &PlaceControlVoters,
) -> Result<Verdict, V> {
    if let Some(check) = wrong_term("control group", at, order.term) {
        return Ok(Verdict::failed(check));
    }
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    };
    let before = control(&state);
    let unknown = order.nodes.iter().find(|node| before.replica_on(NodeId(**node)).is_none());
    let count = order.nodes.len();
    if unknown.is_some() || count == 0 || count > VOTERS_MAX {
        let limit = format!("1 to {VOTERS_MAX} nodes of this DAG");
        let value = format!("nodes {:?}", order.nodes);
        let check = FailedCheck::new("control-voters", "control group", value, limit);
        return Ok(Verdict::failed(check));
    }
    let mut after = before.clone();
    for copy in &mut after.replicas {
        copy.voter = order.nodes.contains(&copy.node);
    }
    if after.replicas == before.replicas {
        return Ok(Verdict::was_so());
    }
    put_database(change, &after);
    Ok(Verdict::changed())
}

/// A node that was leaving is gone, and everything that was decided about it.
pub(super) fn remove<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    order: &RemoveNode,
) -> Result<Verdict, V> {
    let (state, node) = match member(change, at, order.node, order.term)? {
        Ok(found) => found,
        Err(verdict) => return Ok(verdict),
    };
    if let Some(check) = cannot_go(&state, &node) {
        return Ok(Verdict::failed(check));
    }
    forget(change, &state, &node);
    Ok(Verdict::changed())
}

/// The node's record and its copy of the control group are gone, and all that was decided about it.
pub(super) fn forget<V: StateView>(
    change: &mut Change<'_, V>,
    state: &ControlState,
    node: &NodeRecord,
) {
    let mut group = control(state).clone();
    group.replicas.retain(|copy| copy.node != node.node);
    put_database(change, &group);
    change.delete(number_key(NODES, node.node));
    change.delete(number_key(NODE_POLICIES, node.node));
    change.delete(number_key(OPENINGS, node.node));
    for policy in state.copy_policies.iter().filter(|policy| policy.node == node.node) {
        change.delete(CopyPolicy::key(policy.database, policy.node));
    }
}

/// The node that an order of the control leader of this term is about.
#[allow(clippy::type_complexity)]
pub(super) fn member<V: StateView>(
    change: &Change<'_, V>,
    at: LogId,
    node: u64,
    term: u64,
) -> Result<core::result::Result<(ControlState, NodeRecord), Verdict>, V> {
    if let Some(check) = wrong_term(&format!("node {node}"), at, term) {
        return Ok(Err(Verdict::failed(check)));
    }
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Err(Verdict::refused(Rejection::NoDag(NoDag {}))));
    };
    Ok(match state.node(NodeId(node)).cloned() {
        Some(found) => Ok((state, found)),
        None => Err(Verdict::refused(Rejection::UnknownNode(UnknownNode { node }))),
    })
}

pub(super) fn control(state: &ControlState) -> &DatabaseRecord {
    state.database(DatabaseId::CONTROL).expect("written with the DAG")
}

/// Why a node cannot begin to leave.
fn cannot_leave(state: &ControlState, node: &NodeRecord) -> Option<FailedCheck> {
    let failed = |check: &str, value: String, limit: &str| {
        Some(FailedCheck::new(check, node.name.clone(), value, limit))
    };
    if node.witness {
        let check = failed("data-node", "a witness".into(), "a node that holds databases");
        return check.map(|check| {
            check.advice("a witness is replaced, not removed: `dagctl witness replace`")
        });
    }
    let held = held(state, node.id(), |database| database.is_mailbox_database());
    if !held.is_empty() {
        let check = failed("holds-no-copies", format!("copies of {}", held.join(", ")), "none");
        return check.map(|check| check.advice("`dagctl copy remove DB@NODE` takes each away"));
    }
    if let Some(value) = unsettled(state, None) {
        return failed("one-at-a-time", value, "no other node");
    }
    let beside =
        |other: &&NodeRecord| !other.witness && other.site == node.site && other.node != node.node;
    if !state.nodes.iter().any(|other| beside(&other)) {
        let value = format!("the only data node of site {}", node.site);
        return failed("site-keeps-a-node", value, "another data node in its site");
    }
    None
}

/// A node, other than this one, that is joining or leaving, for people.
pub(crate) fn unsettled(state: &ControlState, but: Option<NodeId>) -> Option<String> {
    let others = state.nodes.iter().filter(|other| Some(other.id()) != but);
    let found = others.into_iter().find(|other| other.is_leaving() || other.is_joining())?;
    let does = if found.is_leaving() { "leaving" } else { "joining" };
    Some(format!("{} is {does}", found.name))
}

/// Why a node that is leaving cannot be gone yet.
fn cannot_go(state: &ControlState, node: &NodeRecord) -> Option<FailedCheck> {
    if !node.is_leaving() {
        let value = "a member that stays";
        let check = FailedCheck::new("leaving", &node.name, value, "a node that is leaving");
        return Some(check);
    }
    is_free(state, node)
}

/// Why a node cannot be taken out: it votes, or holds copies.
pub(super) fn is_free(state: &ControlState, node: &NodeRecord) -> Option<FailedCheck> {
    let failed = |check: &str, value: String, limit: &str| {
        Some(FailedCheck::new(check, node.name.clone(), value, limit))
    };
    if control(state).replica_on(node.id()).is_some_and(|copy| copy.voter) {
        return failed("no-control-vote", "it votes in the control group".into(), "no vote");
    }
    let held = held(state, node.id(), |database| database.id() != DatabaseId::CONTROL);
    if !held.is_empty() {
        return failed("holds-no-copies", format!("copies of {}", held.join(", ")), "none");
    }
    None
}

/// The databases that have a copy on a node, or are about to.
fn held(
    state: &ControlState,
    node: NodeId,
    wanted: impl Fn(&DatabaseRecord) -> bool,
) -> Vec<String> {
    let there = |database: &&DatabaseRecord| {
        database.replica_on(node).is_some() || state.seed(database.id(), node).is_some()
    };
    let held = state.databases.iter().filter(|database| wanted(database)).filter(there);
    held.map(|database| database.name.to_string()).collect()
}

#[cfg(test)]
#[path = "apply_members_test.rs"]
mod tests;
