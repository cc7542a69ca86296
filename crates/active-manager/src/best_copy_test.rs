//! Verdicts.

use super::*;
use crate::control::Order;
use crate::control::command::{CopySuspension, NodeOrder, SetDatabasePolicy, SetNodePolicy};
use crate::scene::Scene;

fn select(scene: &Scene) -> BestCopy {
    select_best_copy(&scene.control, &scene.reports, &scene.database("DB1"))
}

fn checks(scene: &Scene, node: u64) -> Vec<&'static str> {
    let best = select(scene);
    let verdict = best.verdicts.into_iter().find(|verdict| verdict.node == NodeId(node)).unwrap();
    verdict.objections.iter().map(Objection::check).collect()
}

#[test]
fn preference_decides_between_copies_that_are_alike() {
    let scene = Scene::new("A1 A2 A3", &["DB1"]);
    let best = select(&scene);
    assert_eq!(best.chosen, Some(NodeId(2)));
    let shown: Vec<(NodeId, Option<usize>)> =
        best.verdicts.iter().map(|verdict| (verdict.node, verdict.place)).collect();
    assert_eq!(shown, [(NodeId(2), Some(1)), (NodeId(3), Some(2)), (NodeId(1), None)]);
    assert_eq!(best.verdicts[0].words, "preference 2, copy queue 0, replay queue 0");
    assert!(best.verdicts[2].words.contains("it is the active copy"));
}

#[test]
fn a_long_queue_outweighs_preference_and_a_short_one_does_not() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.copy("DB1", 2).replay_queue = SHORT_REPLAY_QUEUE - 1;
    assert_eq!(select(&scene).chosen, Some(NodeId(2)));
    scene.copy("DB1", 2).replay_queue = SHORT_REPLAY_QUEUE;
    assert_eq!(select(&scene).chosen, Some(NodeId(3)));
    scene.copy("DB1", 3).copy_queue = SHORT_COPY_QUEUE;
    scene.copy("DB1", 3).replay_queue = SHORT_REPLAY_QUEUE;
    assert_eq!(select(&scene).chosen, Some(NodeId(2)));
}

#[test]
fn every_objection_is_named() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.lose(2);
    assert_eq!(checks(&scene, 2), ["reachable", "copy-status"]);
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.node(2).gate = GateReport::Closed("no grant".into());
    scene.copy("DB1", 2).digest_equal = false;
    scene.copy("DB1", 2).status = CopyStatus::Failed;
    let suspension = CopySuspension { database: 16, node: 2, activation_only: true };
    scene.done(Order::SuspendCopy(suspension.clone()));
    scene.done(Order::SuspendCopy(CopySuspension { activation_only: false, ..suspension }));
    scene.done(Order::DrainNode(NodeOrder { node: 2 }));
    scene.done(Order::SetDatabasePolicy(SetDatabasePolicy { database: 16, policy: 2 }));
    let all = [
        "gate-open",
        "copy-status",
        "digest",
        "node-policy",
        "database-policy",
        "suspended",
        "activation-suspended",
    ];
    assert_eq!(checks(&scene, 2), all);
    let best = select(&scene);
    assert_eq!(best.chosen, None);
    let words = best.verdicts.iter().find(|v| v.node == NodeId(2)).unwrap().words.clone();
    assert!(words.contains("blocked by ann: because"), "{words}");
}

#[test]
fn a_learner_is_never_chosen() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    assert_eq!(checks(&scene, 4), ["voter"]);
    scene.lose(1);
    scene.lose(2);
    assert_eq!(select(&scene).chosen, Some(NodeId(3)));
}

#[test]
fn a_copy_of_the_active_site_comes_before_another_sites() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    scene.copy("DB1", 2).replay_queue = 10;
    assert_eq!(select(&scene).chosen, Some(NodeId(2)));
}

#[test]
fn intrasite_only_keeps_the_database_in_its_site() {
    for of_node in [true, false] {
        let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
        scene.lose(2);
        assert_eq!(select(&scene).chosen, Some(NodeId(3)));
        let policy: i32 = ActivationPolicy::IntrasiteOnly.into();
        scene.done(match of_node {
            true => Order::SetNodePolicy(SetNodePolicy {
                node: 3,
                policy: Some(policy),
                ..SetNodePolicy::default()
            }),
            false => Order::SetDatabasePolicy(SetDatabasePolicy { database: 16, policy }),
        });
        assert_eq!(checks(&scene, 3), ["site-policy"]);
        assert_eq!(select(&scene).chosen, None);
    }
}

#[test]
fn the_maximum_forbids_and_the_preferred_maximum_only_ranks() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1", "DB2", "DB3"]);
    scene.mount("DB2", 2);
    let limits = |maximum_active, preferred_active| {
        Order::SetNodePolicy(SetNodePolicy {
            node: 2,
            policy: None,
            maximum_active,
            preferred_active,
        })
    };
    scene.done(limits(None, Some(1)));
    assert_eq!(select(&scene).chosen, Some(NodeId(3)));
    assert_eq!(checks(&scene, 2), Vec::<&str>::new());
    scene.done(limits(Some(1), None));
    assert_eq!(checks(&scene, 2), ["maximum-active"]);
}
