//! How a node joins, how a new store takes a lost one's place, and what stops both.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::DatabaseId;

use super::*;
use crate::control::command::{PlaceControlVoters, RegisterBoot, RemoveNode, RetireNode};
use crate::control::definition::example;
use crate::control::{CreateDatabase, Order, Outcome};
use crate::scene::{Scene, TERM};

fn store(byte: u8) -> Bytes {
    vec![byte; 16].into()
}

/// A node of a shape as [`example`] has it.
fn node(word: &str) -> NodeDefinition {
    let nodes = example(word).nodes;
    nodes.into_iter().next().unwrap()
}

fn order(word: &str, store_byte: u8) -> AdmitNode {
    AdmitNode {
        node: Some(node(word)),
        store: store(store_byte),
        term: TERM,
        ..AdmitNode::default()
    }
}

fn admit(word: &str) -> Order {
    Order::AdmitNode(order(word, 99))
}

fn settle(node: u64) -> Order {
    Order::SettleNode(SettleNode { node, term: TERM })
}

fn dismiss(node: u64, keeps: u64) -> Order {
    Order::DismissNode(DismissNode { node, store: store(99), keeps, term: TERM })
}

fn place(nodes: &[u64]) -> Order {
    Order::PlaceControlVoters(PlaceControlVoters { nodes: nodes.to_vec(), term: TERM })
}

fn replace(scene: &Scene, number: u64, byte: u8) -> AdmitNode {
    let old = scene.control.node(NodeId(number)).unwrap();
    let word = format!("{}{number}{}", old.site, if old.witness { "w" } else { "" });
    let opening = Some(last_opening(&scene.control, NodeId(number)));
    AdmitNode { replaces: true, opening, ..order(&word, byte) }
}

fn lists(scene: &Scene) -> Vec<Vec<u64>> {
    let registry = scene.control.registry().unwrap();
    let lists = registry.sites[0].lists.iter();
    lists.map(|list| list.iter().map(|node| node.0).collect()).collect()
}

fn control_copy(scene: &Scene, node: u64) -> ReplicaRecord {
    let group = scene.control.database(DatabaseId::CONTROL).unwrap();
    group.replica_on(NodeId(node)).unwrap().clone()
}

#[test]
fn a_node_joins_step_by_step_and_both_lists_count_meanwhile() {
    let mut scene = Scene::new("A1 A2 A3", &[]);
    let next = scene.control.next_replica;
    scene.done(admit("A4"));
    let record = scene.control.node(NodeId(4)).unwrap();
    assert_eq!((record.joining_since, record.replaced), (scene.index, 0));
    assert_eq!(lists(&scene), [vec![1, 2, 3], vec![1, 2, 3, 4]]);
    let copy = control_copy(&scene, 4);
    assert_eq!((copy.replica, copy.voter, copy.store), (next, false, store(99)));
    scene.done(admit("A4"));
    assert_eq!(scene.control.next_replica, next + 1, "given out once");
    let create = |nodes: &[u64]| {
        let (request_id, nodes) = ("r".into(), nodes.to_vec());
        Order::CreateDatabase(CreateDatabase {
            request_id,
            name: "DB1".into(),
            nodes,
            ..CreateDatabase::default()
        })
    };
    assert!(scene.refused(create(&[1, 4])).contains("no node 4"), "nothing is put there yet");
    scene.done(settle(4));
    scene.done(settle(4));
    assert_eq!(lists(&scene), [[1, 2, 3, 4]]);
    assert!(matches!(scene.run(create(&[1, 4])), Outcome::DatabaseCreated(_)));
}

#[test]
fn a_node_that_does_not_join_after_all_leaves_nothing_behind() {
    let mut scene = Scene::new("A1 A2 A3", &[]);
    scene.done(admit("A4"));
    scene.done(place(&[1, 2, 4]));
    assert_eq!(scene.refused(dismiss(4, 0)), "no-control-vote");
    scene.done(place(&[1, 2, 3]));
    scene.done(dismiss(4, 0));
    assert_eq!(lists(&scene), [[1, 2, 3]]);
    assert!(scene.control.node(NodeId(4)).is_none());
    assert_eq!(scene.refused(dismiss(3, 0)), "joining", "a member is removed, not dismissed");
    assert_eq!(scene.refused(dismiss(4, 0)), "UnknownNode(UnknownNode { node: 4 })");
}

#[test]
fn every_node_that_cannot_join_is_refused_by_its_own_check() {
    let shape = "A1 A2 A3 B4 C5w";
    let taken = |change: fn(&mut NodeDefinition)| {
        let mut order = order("A6", 99);
        change(order.node.as_mut().unwrap());
        Order::AdmitNode(order)
    };
    for (check, order) in [
        ("number-free", admit("A2")),
        ("name-free", taken(|node| node.name = "N2".into())),
        ("address-free", taken(|node| node.peer_address = "127.0.0.2:3".into())),
        ("address-free", taken(|node| node.peer_address = "nowhere".into())),
        ("address-free", taken(|node| node.peer_address = node.admin_address.clone())),
        ("site-known", admit("Z6")),
        ("one-witness", admit("D6w")),
        ("node-name", taken(|node| node.name = "a b".into())),
        ("node-name", taken(|node| node.node = 0)),
        ("node-store", Order::AdmitNode(AdmitNode { store: Bytes::new(), ..self::order("A6", 1) })),
        ("member", Order::AdmitNode(AdmitNode { replaces: true, ..self::order("A6", 1) })),
        ("witness", Order::AdmitNode(AdmitNode { retires: 5, ..self::order("A6", 1) })),
        ("control-term", Order::AdmitNode(AdmitNode { term: TERM + 1, ..self::order("A6", 1) })),
    ] {
        let mut scene = Scene::new(shape, &[]);
        assert_eq!(scene.refused(order), check);
    }
    let mut scene = Scene::new(shape, &[]);
    scene.done(admit("A6"));
    assert_eq!(scene.refused(admit("A7")), "one-at-a-time");
    let retire = |node| Order::RetireNode(RetireNode { node, stays: false, term: TERM });
    assert_eq!(scene.refused(retire(2)), "one-at-a-time");
    assert_eq!(scene.refused(Order::AdmitNode(replace(&scene, 2, 9))), "one-at-a-time");
    scene.done(settle(6));
    scene.done(retire(6));
    assert_eq!(scene.refused(admit("A7")), "one-at-a-time");
}

#[test]
fn a_lost_store_never_counts_again_and_its_vote_stays_until_the_new_one_has_it() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    let old = control_copy(&scene, 3);
    assert!(old.voter);
    scene.done(Order::AdmitNode(replace(&scene, 3, 99)));
    let record = scene.control.node(NodeId(3)).unwrap().clone();
    assert_eq!((record.store.clone(), record.boot_counter), (store(99), 0));
    assert_eq!(record.replaced, old.replica);
    assert_eq!(lists(&scene), [[1, 2, 3]], "its place on the list stays");
    assert!(!control_copy(&scene, 3).voter);
    let boot = |byte| RegisterBoot { node: 3, store: store(byte), boot_counter: 9, boot_id: 1 };
    let refused = scene.refused(Order::RegisterBoot(boot(3)));
    assert!(refused.contains("UnknownStore"), "{refused}");
    assert!(matches!(scene.run(Order::RegisterBoot(boot(99))), Outcome::BootRegistered(_)));
    // The new machine dies too, before it had the vote: the first one's place is still kept.
    scene.done(Order::AdmitNode(replace(&scene, 3, 98)));
    assert_eq!(scene.control.node(NodeId(3)).unwrap().replaced, old.replica);
    let second = control_copy(&scene, 3);
    scene.done(place(&[1, 2, 3]));
    scene.done(Order::AdmitNode(replace(&scene, 3, 97)));
    assert_eq!(scene.control.node(NodeId(3)).unwrap().replaced, second.replica);
    // Its copies are built anew one by one: they are those of the old store until then.
    assert_eq!(scene.database("DB1").replica_on(NodeId(3)).unwrap().store, store(3));
    assert_eq!(scene.refused(dismiss(3, 0)), "joining", "there is no way back to a lost store");
}

#[test]
fn a_store_whose_gate_was_opened_since_the_checks_is_not_given_up() {
    use crate::control::command::OpenGate;
    use dag_types::{Boot, GrantId};
    let mut scene = Scene::new("A1 A2 A3", &[]);
    let order = replace(&scene, 3, 99);
    let (boot, lineage) = (Boot { counter: 1, id: 3 }, scene.control.last_lineage());
    let grant = GrantId { term: TERM, number: 1 };
    let open = OpenGate::new(NodeId(3), StoreId([3; 16]), boot, lineage, grant);
    scene.done(Order::OpenGate(open));
    assert_eq!(scene.refused(Order::AdmitNode(order)), "gates-closed");
    let other = AdmitNode { node: Some(node("A2")), ..replace(&scene, 3, 99) };
    assert_eq!(scene.refused(Order::AdmitNode(other)), "gates-closed", "another node's opening");
    let mut moved = replace(&scene, 3, 99);
    moved.node.as_mut().unwrap().name = "n9".into();
    assert_eq!(scene.refused(Order::AdmitNode(moved)), "same-node");
}

#[test]
fn a_witness_follows_another_and_the_first_one_goes_last() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &[]);
    let follow = || Order::AdmitNode(AdmitNode { retires: 5, ..order("D6w", 99) });
    scene.done(follow());
    assert!(scene.control.node(NodeId(5)).unwrap().is_leaving());
    let gone = || Order::RemoveNode(RemoveNode { node: 5, term: TERM });
    assert_eq!(scene.refused(gone()), "no-control-vote", "not before its vote is the other's");
    scene.done(place(&[1, 2, 3, 4, 6]));
    scene.done(gone());
    scene.done(settle(6));
    assert!(scene.control.node(NodeId(5)).is_none());
    let mut back = Scene::new("A1 A2 B3 B4 C5w", &[]);
    back.done(follow());
    back.done(dismiss(6, 5));
    assert!(!back.control.node(NodeId(5)).unwrap().is_leaving());
}
