//! Who comes to belong to the DAG: the transitions of its list of nodes.
//!
//! ```text
//!   nobody ── AdmitNode ──► joining ── PlaceControlVoters ──► SettleNode ──► member
//!      ▲                       │  ▲
//!      └───── DismissNode ─────┘  └── AdmitNode with a new store ── member whose store is lost
//! ```
//! While a node joins, its site has two lists, without it and with it, and whatever counts nodes
//! counts in both. A node whose store is lost keeps its number, its name and its place on the list;
//! only its store is another from that entry on, and there is no way back: the old store never
//! counts again. Its copies of databases are built anew one by one, as any copy that failed.
//!
//! Only what the log itself can tell is checked here; whether the node answers, is empty, and a
//! majority goes along is checked by whoever proposes ([`crate::joining`]).

use alloc::format;
use alloc::string::String;

use dag_types::{LogId, NodeId, StateView, StoreId};

use super::activation::OPENINGS;
use super::apply::{Verdict, node_record, put_database};
use super::apply_members::{control, forget, is_free, member, unsettled};
use super::apply_operation::wrong_term;
use super::apply_reform::last_opening;
use super::command::{AdmitNode, DismissNode, Founder, SettleNode};
use super::definition::{NodeDefinition, is_host_and_port, is_name};
use super::record::{COUNTERS, Counters, NODES, NodeRecord, ReplicaRecord, number_key};
use super::response::{FailedCheck, NoDag, Rejection};
use super::state::ControlState;
use crate::change::{Change, Fault};

type Result<T, V> = core::result::Result<T, Fault<<V as StateView>::Error>>;

/// A node begins to join, or a new store takes the place of a lost one.
pub(super) fn admit<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    order: &AdmitNode,
) -> Result<Verdict, V> {
    let node = order.node.clone().unwrap_or_default();
    if let Some(check) = wrong_term(&format!("node {}", node.node), at, order.term) {
        return Ok(Verdict::failed(check));
    }
    let Some(state) = ControlState::read(change.before())? else {
        return Ok(Verdict::refused(Rejection::NoDag(NoDag {})));
    };
    let known = state.node(NodeId(node.node));
    if known.is_some_and(|known| known.store == order.store) {
        return Ok(Verdict::was_so());
    }
    if let Some(check) = cannot_join(&state, &node, order) {
        return Ok(Verdict::failed(check));
    }
    let founder = Founder { node: node.node, store: order.store.clone() };
    let mut record = NodeRecord {
        joining_since: at.index,
        ..node_record(&node, core::slice::from_ref(&founder))
    };
    let mut counters = change.pending_or_before::<Counters>(COUNTERS, "the counters")?;
    let copy = ReplicaRecord {
        replica: counters.next_replica,
        node: node.node,
        store: order.store.clone(),
        ..ReplicaRecord::default()
    };
    counters.next_replica += 1;
    change.put(COUNTERS, &counters);
    let mut group = control(&state).clone();
    match group.replicas.iter_mut().find(|copy| copy.node == node.node) {
        Some(old) => {
            // One that never got the vote leaves it where it was.
            let kept = known.map_or(0, |known| known.replaced);
            record.replaced = if kept != 0 && !old.voter { kept } else { old.replica };
            *old = copy;
        }
        None => group.replicas.push(copy),
    }
    put_database(change, &group);
    change.put(number_key(NODES, node.node), &record);
    change.delete(number_key(OPENINGS, node.node));
    if let Some(witness) = state.node(NodeId(order.retires)) {
        let leaves = NodeRecord { leaving_since: at.index, ..witness.clone() };
        change.put(number_key(NODES, leaves.node), &leaves);
    }
    Ok(Verdict::changed())
}

/// Why a node cannot begin to join.
fn cannot_join(
    state: &ControlState,
    node: &NodeDefinition,
    order: &AdmitNode,
) -> Option<FailedCheck> {
    let failed = |check: &str, value: String, limit: &str| {
        Some(FailedCheck::new(check, node.name.clone(), value, limit))
    };
    if node.node == 0 || !is_name(&node.name) || !is_name(&node.site) {
        let value = format!("node {} {:?} in site {:?}", node.node, node.name, node.site);
        return failed("node-name", value, "a number above 0, and names of letters and digits");
    }
    if StoreId::from_slice(&order.store).is_none_or(|store| store == StoreId::NIL) {
        return failed("node-store", format!("{} bytes", order.store.len()), "sixteen bytes");
    }
    let old = state.node(NodeId(node.node));
    match (old, order.replaces) {
        (Some(old), false) => {
            return failed(
                "number-free",
                format!("{} has number {}", old.name, old.node),
                "unused",
            );
        }
        (None, true) => return failed("member", "no such node".into(), "a member of this DAG"),
        _ => {}
    }
    if let Some(value) = unsettled(state, old.map(NodeRecord::id)) {
        return failed("one-at-a-time", value, "no other node");
    }
    if let Some(old) = old {
        if old.is_leaving() {
            return failed(
                "one-at-a-time",
                format!("{} is leaving", old.name),
                "a node that stays",
            );
        }
        let same = (&old.name, &old.site, old.witness) == (&node.name, &node.site, node.witness);
        if !same {
            let value = format!("{} in site {}", node.name, node.site);
            return failed("same-node", value, &format!("{} in site {}", old.name, old.site));
        }
        let seen = order.opening.unwrap_or_default();
        if seen != last_opening(state, old.id()) {
            let value = format!("the gate of {} was opened", old.name);
            return failed("gates-closed", value, "no opening since the checks");
        }
    }
    name_taken(state, node)
        .or_else(|| address_taken(state, node))
        .or_else(|| misplaced(state, node, order))
}

/// Another node has the name.
pub(crate) fn name_taken(state: &ControlState, node: &NodeDefinition) -> Option<FailedCheck> {
    let same = |other: &&NodeRecord| {
        other.node != node.node && other.name.eq_ignore_ascii_case(&node.name)
    };
    let other = state.nodes.iter().find(same)?;
    let value = format!("node {} is called {}", other.node, other.name);
    Some(FailedCheck::new("name-free", node.name.clone(), value, "a name of its own"))
}

/// Another node has one of the addresses, or one is none.
pub(crate) fn address_taken(state: &ControlState, node: &NodeDefinition) -> Option<FailedCheck> {
    let own = [&node.peer_address, &node.client_address, &node.admin_address];
    let failed = |value: String| {
        let limit = "three addresses HOST:PORT that no other node has";
        Some(FailedCheck::new("address-free", node.name.clone(), value, limit))
    };
    for (place, address) in own.iter().enumerate() {
        if !is_host_and_port(address) {
            return failed(format!("{address:?} is no HOST:PORT"));
        }
        if own[..place].contains(address) {
            return failed(format!("{address} is given twice"));
        }
        let others = state.nodes.iter().filter(|other| other.node != node.node);
        let has = |other: &&NodeRecord| {
            [&other.peer_address, &other.client_address, &other.admin_address].contains(address)
        };
        if let Some(other) = others.into_iter().find(has) {
            return failed(format!("{address} is that of {}", other.name));
        }
    }
    None
}

/// A site that nobody knows, or a witness beside another one.
fn misplaced(
    state: &ControlState,
    node: &NodeDefinition,
    order: &AdmitNode,
) -> Option<FailedCheck> {
    let failed = |check: &str, value: String, limit: &str| {
        Some(FailedCheck::new(check, node.name.clone(), value, limit))
    };
    if !node.witness && !state.sites.iter().any(|site| site.name == node.site && site.started) {
        return failed("site-known", node.site.clone(), "a started site of this DAG");
    }
    let other = state.nodes.iter().find(|other| other.witness && other.node != node.node);
    match (other, order.retires) {
        (Some(other), retires) if node.witness && other.node != retires => {
            failed("one-witness", format!("{} is the witness", other.name), "no other witness")
        }
        (Some(_), _) if node.witness => None,
        (_, 0) => None,
        (_, retires) => {
            failed("witness", format!("node {retires}"), "the witness that this one follows")
        }
    }
}

/// A node that was joining is settled: its site's new list counts alone.
pub(super) fn settle<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    order: &SettleNode,
) -> Result<Verdict, V> {
    let (_, mut node) = match member(change, at, order.node, order.term)? {
        Ok(found) => found,
        Err(verdict) => return Ok(verdict),
    };
    if !node.is_joining() {
        return Ok(Verdict::was_so());
    }
    (node.joining_since, node.replaced) = (0, 0);
    change.put(number_key(NODES, node.node), &node);
    Ok(Verdict::changed())
}

/// A node that was joining does not join after all.
pub(super) fn dismiss<V: StateView>(
    change: &mut Change<'_, V>,
    at: LogId,
    order: &DismissNode,
) -> Result<Verdict, V> {
    let (state, node) = match member(change, at, order.node, order.term)? {
        Ok(found) => found,
        Err(verdict) => return Ok(verdict),
    };
    if !node.is_new() || node.store != order.store {
        let check = FailedCheck::new("joining", &node.name, "a member", "a node that is joining");
        return Ok(Verdict::failed(check));
    }
    if let Some(check) = is_free(&state, &node) {
        return Ok(Verdict::failed(check));
    }
    forget(change, &state, &node);
    if let Some(witness) = state.node(NodeId(order.keeps)).filter(|known| known.witness) {
        let stays = NodeRecord { leaving_since: 0, ..witness.clone() };
        change.put(number_key(NODES, stays.node), &stays);
    }
    Ok(Verdict::changed())
}

#[cfg(test)]
#[path = "apply_joining_test.rs"]
mod tests;
