//! Which copies of a node may become active while its gate is open, and which starts of nodes the
//! control leader still has to register. Both are asked again whenever the control log went on.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use dag_types::{Boot, DatabaseId, GrantId, NodeId, StoreId};

use crate::control::{ActivationPolicy, ControlState};

/// Whether the copy on a node may ask for votes or be handed leadership, while the node's gate is
/// open. `leads`: it leads already, and keeps what it has; `led`: other mailbox databases that are
/// led on the node.
pub fn may_campaign(
    control: Option<&ControlState>,
    node: NodeId,
    database: DatabaseId,
    leads: bool,
    led: usize,
) -> bool {
    (leads || !is_full(control, node, led)) && may_be_active(control, node, database)
}

/// The starts that were seen and are greater than the registered ones. `seen` holds the greatest
/// start of each node, with the store that it was seen from: another store is registered by a
/// person or not at all.
pub fn unregistered_starts(
    state: &ControlState,
    seen: &BTreeMap<NodeId, (StoreId, Boot)>,
) -> Vec<(NodeId, StoreId, Boot)> {
    let nodes = state.nodes.iter().filter_map(|node| {
        let (store, boot) = *seen.get(&node.id())?;
        let newer = store == node.store() && boot.counter > node.boot_counter;
        newer.then_some((node.id(), store, boot))
    });
    nodes.collect()
}

/// Whether a node serves as many databases as it may. A failover elsewhere counts too: else the
/// last node of many would be buried under all of them.
pub fn is_full(control: Option<&ControlState>, node: NodeId, served: usize) -> bool {
    let maximum = control.map_or(0, |state| state.node_policy(node).maximum_active);
    maximum != 0 && served >= maximum as usize
}

/// Whether the control log is applied here up to the record of an opening of this node's gate. Before
/// that, what was decided while the gate was closed may not be known here yet.
pub fn knows_opening(control: Option<&ControlState>, node: NodeId, grant: GrantId) -> bool {
    let known = control.into_iter().flat_map(|state| &state.openings);
    known.filter(|opening| opening.node == node.0).any(|opening| opening.grant() >= grant)
}

/// Whether the copy on a node may ask for votes or be handed leadership without a person asking.
///
/// Before the control log tells of the database nothing was decided about it.
pub fn may_be_active(control: Option<&ControlState>, node: NodeId, database: DatabaseId) -> bool {
    let Some(state) = control else { return true };
    let Some(record) = state.database(database) else { return true };
    let copy = state.copy_policy(database, node);
    let blocked = ActivationPolicy::Blocked as i32;
    let node_policy = state.node_policy(node);
    let only_here = [node_policy.policy, state.database_policy(database).policy]
        .contains(&(ActivationPolicy::IntrasiteOnly as i32));
    let elsewhere = !record.active_site.is_empty() && state.site_of(node) != record.active_site;
    // One that is built anew gives its place away in a moment; one that is not admitted never
    // was compared with the active copy.
    let replaced = state.seed(database, node).is_some();
    let unfit = record.replica_on(node).is_some_and(|copy| !copy.unfit.is_empty());
    !(copy.suspended
        || replaced
        || unfit
        || copy.activation_suspended
        || node_policy.policy == blocked
        || state.database_policy(database).policy == blocked
        || (only_here && elsewhere))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::control::{DagRecord, OpeningRecord, Settings};

    #[test]
    fn a_gate_counts_once_the_control_log_here_holds_its_opening() {
        let opening = |grant_term, grant_number| OpeningRecord {
            node: 2,
            grant_term,
            grant_number,
            ..OpeningRecord::default()
        };
        let state = |openings| ControlState {
            dag: DagRecord::default(),
            lineage: Vec::new(),
            sites: Vec::new(),
            nodes: Vec::new(),
            databases: Vec::new(),
            node_policies: Vec::new(),
            database_policies: Vec::new(),
            copy_policies: Vec::new(),
            operations: Vec::new(),
            openings,
            settings: Settings::DEFAULT,
            seeds: Vec::new(),
            next_replica: 9,
        };
        let knows = |openings: Vec<OpeningRecord>, node, term, number| {
            knows_opening(Some(&state(openings)), NodeId(node), GrantId { term, number })
        };
        assert!(knows(vec![opening(7, 2)], 2, 7, 2));
        assert!(knows(vec![opening(8, 1)], 2, 7, 2), "a later one is behind it");
        assert!(!knows(vec![opening(7, 1)], 2, 7, 2), "that of its earlier start");
        assert!(!knows(vec![opening(7, 2)], 3, 7, 2), "another node's");
        assert!(!knows_opening(None, NodeId(2), GrantId { term: 7, number: 2 }));
    }
}
