//! How a node leaves, and what stops it.

use alloc::vec;

use super::*;
use crate::control::command::{CopySuspension, NodeOrder, RemoveCopy};
use crate::control::{CreateDatabase, Order, Outcome};
use crate::scene::{Scene, TERM};

const THREE: &str = "A1 A2 A3 A4";

fn retire(node: u64) -> Order {
    Order::RetireNode(RetireNode { node, stays: false, term: TERM })
}

fn place(nodes: &[u64]) -> Order {
    Order::PlaceControlVoters(PlaceControlVoters { nodes: nodes.to_vec(), term: TERM })
}

fn gone(node: u64) -> Order {
    Order::RemoveNode(RemoveNode { node, term: TERM })
}

fn no_directory(node: u64) -> Order {
    Order::RemoveCopy(RemoveCopy { database: DatabaseId::DIRECTORY.0, node, voters: Vec::new() })
}

fn lists(scene: &Scene) -> Vec<Vec<u64>> {
    let registry = scene.control.registry().unwrap();
    let lists = registry.sites[0].lists.iter();
    lists.map(|list| list.iter().map(|node| node.0).collect()).collect()
}

#[test]
fn a_node_leaves_step_by_step_and_nothing_of_it_stays() {
    let mut scene = Scene::new(THREE, &[]);
    let order = CopySuspension { database: 1, node: 3, activation_only: true };
    scene.run(Order::SuspendCopy(order));
    scene.done(Order::DrainNode(NodeOrder { node: 3 }));
    assert_eq!(lists(&scene), [[1, 2, 3, 4]]);
    scene.done(retire(3));
    assert_eq!(scene.control.node(NodeId(3)).unwrap().leaving_since, scene.index);
    assert_eq!(lists(&scene), [vec![1, 2, 3, 4], vec![1, 2, 4]], "old and new both count");
    scene.done(place(&[1, 2, 4]));
    scene.done(no_directory(3));
    scene.done(gone(3));
    assert_eq!(lists(&scene), [[1, 2, 4]]);
    let state = &scene.control;
    assert!(state.node(NodeId(3)).is_none());
    assert!(state.node_policies.iter().all(|policy| policy.node != 3));
    assert!(state.copy_policies.iter().all(|policy| policy.node != 3));
    assert!(state.databases.iter().all(|database| database.replica_on(NodeId(3)).is_none()));
    assert_eq!(scene.refused(gone(3)), "UnknownNode(UnknownNode { node: 3 })");
}

#[test]
fn every_order_of_a_departure_may_come_twice() {
    let mut scene = Scene::new(THREE, &[]);
    for order in [retire(3), retire(3), place(&[1, 2, 4]), place(&[1, 2, 4])] {
        scene.done(order);
    }
    let stays = || Order::RetireNode(RetireNode { node: 3, stays: true, term: TERM });
    scene.done(stays());
    scene.done(stays());
    assert_eq!(lists(&scene), [[1, 2, 3, 4]]);
}

#[test]
fn a_node_that_is_needed_does_not_begin_to_leave() {
    let mut scene = Scene::new("A1 A2 A3 B4 C5w", &["DB1"]);
    let holder = scene.database("DB1").replicas[0].node;
    assert_eq!(scene.refused(retire(holder)), "holds-no-copies");
    assert_eq!(scene.refused(retire(5)), "data-node");
    assert_eq!(scene.refused(retire(9)), "UnknownNode(UnknownNode { node: 9 })");
    let mut empty = Scene::new("A1 A2 A3 B4 C5w", &[]);
    assert_eq!(empty.refused(retire(4)), "site-keeps-a-node");
    empty.done(retire(3));
    assert_eq!(empty.refused(retire(2)), "one-at-a-time");
}

#[test]
fn a_node_is_gone_only_after_it_left_votes_and_copies() {
    let mut scene = Scene::new("A1 A2 A3", &[]);
    assert_eq!(scene.refused(gone(3)), "leaving");
    scene.done(retire(3));
    assert_eq!(scene.refused(gone(3)), "no-control-vote");
    scene.done(place(&[1]));
    assert_eq!(scene.refused(gone(3)), "holds-no-copies");
    scene.done(no_directory(3));
    scene.done(gone(3));
}

#[test]
fn nothing_new_is_put_on_a_node_that_is_leaving() {
    let mut scene = Scene::new(THREE, &[]);
    scene.done(retire(3));
    let create = |name: &str, nodes: &[u64]| {
        let (request_id, name) = (name.to_string(), name.to_string());
        let nodes = nodes.to_vec();
        Order::CreateDatabase(CreateDatabase { request_id, name, nodes, ..Default::default() })
    };
    for name in ["DB1", "DB2", "DB3"] {
        let outcome = scene.run(create(name, &[]));
        assert!(matches!(outcome, Outcome::DatabaseCreated(_)), "{outcome:?}");
        assert!(scene.database(name).replica_on(NodeId(3)).is_none());
    }
    assert!(scene.refused(create("DB4", &[1, 3])).contains("no node 3"));
    let seed = crate::control::command::SeedCopy {
        request_id: "seed".into(),
        database: 16,
        node: 3,
        adds: true,
        ..Default::default()
    };
    assert_eq!(scene.refused(Order::SeedCopy(seed)), "data-node");
}

#[test]
fn an_order_of_a_deposed_leader_changes_nothing() {
    let mut scene = Scene::new(THREE, &[]);
    scene.term += 1;
    assert_eq!(scene.refused(retire(3)), "control-term");
    assert_eq!(scene.refused(place(&[1, 2])), "control-term");
    assert_eq!(scene.refused(gone(3)), "control-term");
}

#[test]
fn control_voters_are_nodes_of_the_dag_and_not_too_many() {
    let mut scene = Scene::new("A1 A2 A3 A4 A5 A6", &[]);
    for nodes in [&[][..], &[1, 2, 9], &[1, 2, 3, 4, 5, 6]] {
        assert_eq!(scene.refused(place(nodes)), "control-voters");
    }
    scene.done(place(&[1, 2, 6]));
    let group = scene.control.database(DatabaseId::CONTROL).unwrap();
    let voters = group.replicas.iter().filter(|copy| copy.voter);
    let mut voters: Vec<u64> = voters.map(|copy| copy.node).collect();
    voters.sort_unstable();
    assert_eq!(voters, [1, 2, 6]);
}
