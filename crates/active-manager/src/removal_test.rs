//! Departures that are planned, and those that are refused, each by its own check.

use super::*;
use crate::control::command::BeginOperation;
use crate::control::{OperationKind, Order};
use crate::scene::Scene;

fn plan(scene: &Scene, node: u64) -> Removal {
    plan_removal(&scene.control, &scene.reports, scene.control.node(NodeId(node)).unwrap())
}

fn refused(scene: &Scene, node: u64) -> String {
    let record = scene.control.node(NodeId(node)).unwrap();
    let refusal = refusal(&plan(scene, node).checks, record);
    refusal.map_or_else(|| "nothing".into(), |refusal| refusal.check)
}

fn numbers(voters: Option<Vec<NodeId>>) -> Vec<u64> {
    voters.unwrap_or_default().into_iter().map(|node| node.0).collect()
}

#[test]
fn a_node_that_holds_nothing_may_go_and_the_voters_are_placed_anew_where_it_voted() {
    let scene = Scene::new("A1 A2 A3 A4 A5 A6", &[]);
    assert_eq!(refused(&scene, 6), "nothing");
    assert_eq!(plan(&scene, 6).voters, None, "a learner's departure changes no voter");
    assert_eq!(numbers(plan(&scene, 5).voters), [1, 2, 3, 4, 6]);
    let two = Scene::new("A1 A2 B3 B4 C5w", &[]);
    assert_eq!(numbers(plan(&two, 4).voters), [1, 3, 5], "the same number in both sites");
}

#[test]
fn every_departure_that_would_hurt_is_refused_by_its_own_check() {
    let worlds: [(&str, u64, fn(&mut Scene)); 9] = [
        ("control-leader", 3, |scene| scene.reports.control.leader = None),
        ("data-node", 5, |_| {}),
        ("not-control-leader", 3, |scene| {
            scene.reports.control.leader = Some(NodeId(3));
        }),
        ("site-list", 4, |scene| scene.lose(4)),
        ("control-majority", 4, |scene| {
            scene.lose(1);
            scene.lose(5);
        }),
        ("directory-not-active", 3, |scene| scene.mount("directory", 3)),
        ("directory-majority", 3, |scene| {
            scene.lose(1);
        }),
        ("operation-running", 3, |scene| {
            let (request_id, object) = ("r".into(), "node 3".into());
            let kind = OperationKind::DrainNode.into();
            let order = BeginOperation { request_id, kind, object, plan: String::new() };
            scene.run(Order::BeginOperation(order));
        }),
        ("operation-running", 3, |scene| {
            let (request_id, object) = ("r".into(), MEMBERS.into());
            let kind = OperationKind::RemoveNode.into();
            let order = BeginOperation { request_id, kind, object, plan: String::new() };
            scene.run(Order::BeginOperation(order));
        }),
    ];
    for (check, node, spoil) in worlds {
        let mut scene = Scene::new("A1 A2 B3 B4 C5w", &[]);
        assert_eq!(refused(&scene, 3), "nothing");
        spoil(&mut scene);
        assert_eq!(refused(&scene, node), check);
    }
    let holds = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    let holder = holds.database("DB1").replicas[0].node;
    assert_eq!(refused(&holds, holder), "holds-no-copies");
    assert_eq!(refused(&Scene::new("A1 A2 B3 C4w", &[]), 3), "site-keeps-a-node");
}

#[test]
fn a_dead_node_of_three_may_go_and_of_two_it_is_replaced() {
    let mut three = Scene::new("A1 A2 A3", &[]);
    three.lose(3);
    assert_eq!(refused(&three, 3), "nothing");
    let mut two = Scene::new("A1 A2 B3 B4 C5w", &[]);
    two.lose(4);
    assert_eq!(refused(&two, 4), "site-list");
}
