//! What one more loss stops.

use super::*;
use crate::scene::Scene;
use dag_types::CopyStatus;

fn of(scene: &Scene, name: &str) -> Tolerance {
    of_database(&scene.control, &scene.reports, &scene.database(name))
}

#[test]
fn a_database_names_the_losses_that_it_survives() {
    let mut scene = Scene::new("A1 A2 A3", &["DB7"]);
    assert_eq!(of(&scene, "DB7").words(), "DB7 goes on when any one more node is lost");
    scene.lose(3);
    let one = of(&scene, "DB7");
    assert_eq!(one.words(), "lose one more of nodes 1, 2 and DB7 stops");
    assert_eq!(one.critical(), [NodeId(1), NodeId(2)]);
    assert!(!one.survives(NodeId(1)) && one.survives(NodeId(3)));
    scene.copy("DB7", 2).status = CopyStatus::Failed;
    assert_eq!(of(&scene, "DB7").words(), "DB7 has no majority: 1 of 3 voters live");
}

#[test]
fn a_learner_is_redundancy_and_no_vote() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    scene.lose(1);
    let tolerance = of(&scene, "DB1");
    assert_eq!(tolerance.can_lose, Some(0));
    assert_eq!(tolerance.live_voters, [NodeId(2), NodeId(3)]);
    assert_eq!(tolerance.sound_copies.len(), 3);
    assert_eq!(tolerance.without(Some(NodeId(2))), 2);
}

#[test]
fn the_control_group_counts_its_witness_and_comes_first_where_it_is_weakest() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    scene.lose(5);
    scene.lose(4);
    let all = of_all(&scene.control, &scene.reports);
    assert_eq!(all[0].database, DatabaseId::CONTROL);
    assert_eq!((all[0].can_lose, all[0].voters), (Some(0), 5));
}
