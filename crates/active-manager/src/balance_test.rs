//! Balancing.

use super::*;
use crate::control::MoveCause;
use crate::control::Order;
use crate::control::command::{RecordMove, SetNodePolicy};
use crate::scene::Scene;

fn moves(plan: &BalancePlan) -> Vec<(&str, u64, u64)> {
    plan.moves.iter().map(|moved| (&moved.name[..], moved.from.0, moved.to.0)).collect()
}

fn plan(scene: &Scene) -> BalancePlan {
    plan_balance(&scene.control, &scene.reports)
}

#[test]
fn databases_go_back_to_their_preferred_copies_and_then_nothing_moves() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1", "DB2"]);
    assert_eq!(plan(&scene), BalancePlan::default());
    scene.mount("DB1", 3);
    scene.mount("DB2", 1);
    let planned = plan(&scene);
    assert_eq!(moves(&planned), [("DB1", 3, 1), ("DB2", 1, 2)]);
    scene.mount("DB1", 1);
    scene.mount("DB2", 2);
    assert_eq!(plan(&scene), BalancePlan::default());
}

#[test]
fn the_next_best_preferred_copy_is_taken_where_the_first_cannot_serve() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.mount("DB1", 3);
    scene.lose(1);
    assert_eq!(moves(&plan(&scene)), [("DB1", 3, 2)]);
    scene.lose(2);
    let planned = plan(&scene);
    assert_eq!(planned.moves, []);
    assert!(planned.stays[0].why.contains("node 1 is not reachable"), "{planned:?}");
}

#[test]
fn a_database_that_just_moved_stays_for_the_block_time() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.mount("DB1", 2);
    let cause = MoveCause::Balance.into();
    let order =
        RecordMove { database: 16, from: 1, to: 2, cause, acknowledged: false, operation: 0 };
    scene.done(Order::RecordMove(order));
    let planned = plan(&scene);
    assert_eq!((planned.moves.len(), planned.stays.len()), (0, 1));
    scene.reports.at_ms += 600_000;
    assert_eq!(plan(&scene).moves.len(), 1);
}

#[test]
fn moves_never_cross_sites() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    scene.mount("DB1", 3);
    assert_eq!(plan(&scene), BalancePlan::default());
}

#[test]
fn several_moves_together_do_not_pass_a_nodes_limit() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1", "DB2", "DB3", "DB4"]);
    let homes: Vec<(String, u64)> = ["DB1", "DB2", "DB3", "DB4"]
        .iter()
        .map(|name| (String::from(*name), scene.database(name).replicas[0].node))
        .filter(|(_, home)| *home == 1)
        .collect();
    assert_eq!(homes.len(), 2, "{homes:?}");
    for (name, _) in &homes {
        scene.mount(name, 2);
    }
    // The directory is active on node 1 and counts like any database.
    let limit = SetNodePolicy { node: 1, maximum_active: Some(2), ..SetNodePolicy::default() };
    scene.done(Order::SetNodePolicy(limit));
    let planned = plan(&scene);
    assert_eq!(planned.moves.len(), 1, "{planned:?}");
    assert!(planned.stays[0].why.contains("serves 2 databases of at most 2"), "{planned:?}");
}
