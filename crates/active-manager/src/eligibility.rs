//! How far the copies of a node may strive to be active while its gate is open, and which starts of nodes the
//! control leader still has to register. Both are asked again whenever the control log went on.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use dag_types::{Boot, Candidacy, DatabaseId, GrantId, NodeId, StoreId};

use crate::control::{ActivationPolicy, ControlState};

/// How far the copy on a node may strive for leadership, while the node's gate is open. `leads`: it
/// leads already, and keeps what it has; `led`: other mailbox databases that are led on the node.
///
/// Before the control log tells of the database nothing was decided about it.
pub fn candidacy(
    control: Option<&ControlState>,
    node: NodeId,
    database: DatabaseId,
    leads: bool,
    led: usize,
) -> Candidacy {
    let Some(state) = control else { return Candidacy::Freely };
    let allowed = allowed(state, node, database);
    if allowed > Candidacy::ForOthers && !leads && is_full(control, node, led) {
        return Candidacy::ForOthers;
    }
    allowed
}

fn allowed(state: &ControlState, node: NodeId, database: DatabaseId) -> Candidacy {
    let Some(record) = state.database(database) else { return Candidacy::Freely };
    let copy = state.copy_policy(database, node);
    // One that was never compared with the active copy, or differed, is not to be followed.
    let unfit = record.replica_on(node).is_some_and(|copy| !copy.unfit.is_empty());
    if copy.suspended || unfit {
        return Candidacy::Never;
    }
    let blocked = ActivationPolicy::Blocked as i32;
    let policies = [state.node_policy(node).policy, state.database_policy(database).policy];
    let only_here = policies.contains(&(ActivationPolicy::IntrasiteOnly as i32));
    let elsewhere = !record.active_site.is_empty() && state.site_of(node) != record.active_site;
    if copy.activation_suspended || policies.contains(&blocked) || (only_here && elsewhere) {
        return Candidacy::ForOthers;
    }
    // One that is built anew gives its place only while another one is active. Until then it is as good
    // as any, and where it is all there is, the seed waits.
    match state.seed(database, node) {
        Some(_) => Candidacy::InNeed,
        None => Candidacy::Freely,
    }
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::control::command::{
        CopySuspension, Order, SeedCopy, SetDatabasePolicy, SetNodePolicy,
    };
    use crate::control::{DagRecord, OpeningRecord, Outcome, Settings};
    use crate::scene::Scene;

    /// The most that anybody forbids counts.
    #[test]
    fn who_must_not_be_active_leads_for_others_and_who_is_built_anew_in_need() {
        use Candidacy::{ForOthers, Freely, InNeed, Never};
        let blocked: i32 = ActivationPolicy::Blocked.into();
        let seed = || {
            let request_id = "seed".into();
            Order::SeedCopy(SeedCopy { request_id, database: 16, node: 2, ..SeedCopy::default() })
        };
        let suspend = |activation_only| {
            Order::SuspendCopy(CopySuspension { database: 16, node: 2, activation_only })
        };
        let block = || {
            let policy = Some(blocked);
            Order::SetNodePolicy(SetNodePolicy { node: 2, policy, ..SetNodePolicy::default() })
        };
        let block_all =
            Order::SetDatabasePolicy(SetDatabasePolicy { database: 16, policy: blocked });
        let full = SetNodePolicy { node: 2, maximum_active: Some(1), ..SetNodePolicy::default() };
        let full = || Order::SetNodePolicy(full.clone());
        for (orders, led, expected) in [
            (vec![], 1, Freely),
            (vec![seed()], 0, InNeed),
            (vec![block()], 0, ForOthers),
            (vec![block_all], 0, ForOthers),
            (vec![full()], 0, Freely),
            (vec![full()], 1, ForOthers),
            (vec![full(), seed()], 1, ForOthers),
            (vec![seed(), block()], 0, ForOthers),
            (vec![suspend(true)], 0, ForOthers),
            (vec![suspend(false)], 0, Never),
        ] {
            let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
            let of = alloc::format!("{orders:?}");
            for order in orders {
                let outcome = scene.run(order);
                let taken = matches!(outcome, Outcome::Changed(_) | Outcome::OperationBegun(_));
                assert!(taken, "{outcome:?}");
            }
            let candidacy =
                |leads| candidacy(Some(&scene.control), NodeId(2), DatabaseId(16), leads, led);
            assert_eq!(candidacy(false), expected, "{of}");
            if led == 1 && expected == ForOthers {
                assert!(candidacy(true) > ForOthers, "{of}: it keeps what it has");
            }
        }
    }

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
