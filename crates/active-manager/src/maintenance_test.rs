//! Drains and what was forgotten.

use super::*;
use crate::control::Order;
use crate::control::command::{CopySuspension, NodeOrder};
use crate::scene::{NOW, Scene};

#[test]
fn a_drain_moves_every_active_database_and_says_that_it_is_safe() {
    let scene = Scene::new("A1 A2 A3", &["DB1", "DB2", "DB3", "DB4"]);
    let plan = plan_drain(&scene.control, &scene.reports, NodeId(1), &[]);
    assert!(plan.is_safe(), "{plan:?}");
    assert!(plan.leads_control);
    let names: Vec<&str> = plan.moves.iter().map(|moved| &moved.name[..]).collect();
    assert_eq!(names, ["directory", "DB1", "DB4"]);
}

#[test]
fn a_drain_that_leaves_one_sound_copy_is_refused_by_name() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.lose(3);
    let plan = plan_drain(&scene.control, &scene.reports, NodeId(1), &[]);
    assert!(!plan.is_safe());
    let stops: Vec<&str> = plan.at_risk.iter().map(|risk| &risk.why[..]).collect();
    assert!(stops.contains(&"DB1 stops: 1 of 3 voters would live"), "{stops:?}");
    let moved = plan.moves.iter().find(|moved| moved.name == "DB1").unwrap();
    assert_eq!(moved.decision.refusal("DB1").unwrap().check, "redundancy");
    // With the skip the database can be moved; that the group stops is still said.
    let skip = [String::from("redundancy")];
    let plan = plan_drain(&scene.control, &scene.reports, NodeId(1), &skip);
    assert!(plan.moves.iter().all(|moved| moved.decision.plan.is_some()));
    assert!(!plan.is_safe());
}

#[test]
fn a_drained_node_is_no_target_and_its_return_is() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.done(Order::DrainNode(NodeOrder { node: 2 }));
    let plan = plan_drain(&scene.control, &scene.reports, NodeId(1), &[]);
    let target = |plan: &DrainPlan| {
        plan.moves
            .iter()
            .find(|moved| moved.name == "DB1")
            .unwrap()
            .decision
            .plan
            .clone()
            .unwrap()
            .to
    };
    assert_eq!(target(&plan), NodeId(3));
    scene.done(Order::UndrainNode(NodeOrder { node: 2 }));
    let plan = plan_drain(&scene.control, &scene.reports, NodeId(1), &[]);
    assert_eq!(target(&plan), NodeId(2));
}

#[test]
fn what_people_forgot_is_named_with_the_command_that_ends_it() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.done(Order::DrainNode(NodeOrder { node: 2 }));
    let suspension = CopySuspension { database: 16, node: 3, activation_only: true };
    scene.done(Order::SuspendCopy(suspension));
    let after = scene.control.settings.nag_after_ms;
    assert_eq!(forgotten(&scene.control, NOW + after - 1), []);
    let found = forgotten(&scene.control, NOW + after);
    assert_eq!(
        found[0].words,
        "node n2 is in maintenance for 4 h by ann (because); `dagctl node undrain n2` ends it"
    );
    assert!(found[1].words.contains("activation of the copy of DB1 on n3"), "{found:?}");
    scene.done(Order::UndrainNode(NodeOrder { node: 2 }));
    assert_eq!(forgotten(&scene.control, NOW + after).len(), 1);
}
