//! What is refused, from where is seeded, and what is built by itself.

use super::*;
use crate::control::Order;
use crate::control::command::SeedCopy;
use crate::scene::Scene;

const NODES: [NodeId; 4] = [NodeId(1), NodeId(2), NodeId(3), NodeId(4)];

fn refused(scene: &Scene, node: NodeId, kind: SeedKind, from: Option<NodeId>) -> String {
    let database = scene.database("DB1");
    let checks = check_seed(&scene.control, &scene.reports, &database, node, kind, from);
    refusal(&checks, "DB1").map_or_else(String::new, |check| check.check)
}

fn removal(scene: &Scene, node: NodeId) -> String {
    let checks = check_removal(&scene.control, &scene.reports, &scene.database("DB1"), node);
    refusal(&checks, "DB1").map_or_else(String::new, |check| check.check)
}

fn scene() -> Scene {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    scene.mount("DB1", 1);
    scene
}

#[test]
fn the_active_copy_a_sound_copy_and_a_witness_are_not_seeded() {
    let scene = scene();
    assert_eq!(refused(&scene, NodeId(1), SeedKind::Reseed, None), "not-active");
    assert_eq!(refused(&scene, NodeId(2), SeedKind::Seed, None), "copy-not-sound");
    assert_eq!(refused(&scene, NodeId(5), SeedKind::Add, None), "data-node");
    assert_eq!(refused(&scene, NodeId(2), SeedKind::Add, None), "copy-absent");
    assert_eq!(refused(&scene, NodeId(2), SeedKind::Reseed, None), "");
}

#[test]
fn a_source_is_a_sound_copy_of_the_same_lineage() {
    let mut scene = scene();
    let reseed = |scene: &Scene, from| refused(scene, NodeId(2), SeedKind::Reseed, Some(from));
    assert_eq!(reseed(&scene, NodeId(5)), "source-exists");
    assert_eq!(reseed(&scene, NodeId(4)), "");
    // From itself, to another path of its node.
    assert_eq!(reseed(&scene, NodeId(2)), "");
    scene.copy("DB1", 2).status = CopyStatus::Failed;
    assert_eq!(reseed(&scene, NodeId(2)), "source-healthy");
    scene.copy("DB1", 2).status = CopyStatus::Healthy;
    scene.copy("DB1", 4).status = CopyStatus::Failed;
    assert_eq!(reseed(&scene, NodeId(4)), "source-healthy");
    scene.copy("DB1", 4).status = CopyStatus::Healthy;
    scene.node(4).lineage.epoch += 1;
    assert_eq!(reseed(&scene, NodeId(4)), "source-lineage");
}

#[test]
fn a_copy_moves_to_another_path_where_it_is_not_needed_or_another_can_take_over() {
    let mut scene = scene();
    let refused = |scene: &Scene, node| {
        let database = scene.database("DB1");
        let checks = check_relocation(&scene.control, &scene.reports, &database, NodeId(node));
        refusal(&checks, "DB1").map_or_else(String::new, |refusal| refusal.check)
    };
    assert_eq!((refused(&scene, 1), refused(&scene, 2)), (String::new(), String::new()));
    scene.lose(3);
    assert_eq!(refused(&scene, 1), "majority");
}

#[test]
fn a_copy_is_seeded_from_a_passive_copy_of_its_site_before_others_and_the_active_one_last() {
    let mut scene = scene();
    let sources = |scene: &Scene, target, wish| {
        sources(&scene.control, &scene.reports, &scene.database("DB1"), target, wish)
    };
    assert_eq!(sources(&scene, NODES[2], None), [NODES[3], NODES[1], NODES[0]]);
    assert_eq!(sources(&scene, NODES[2], Some(NODES[0])), [NODES[0], NODES[3], NODES[1]]);
    scene.lose(4);
    assert_eq!(sources(&scene, NODES[2], None), [NODES[1], NODES[0]]);
}

#[test]
fn neither_a_reseed_nor_a_removal_goes_below_the_majority_or_the_last_sound_copy() {
    let mut scene = scene();
    assert_eq!(removal(&scene, NodeId(1)), "not-active");
    assert_eq!(removal(&scene, NodeId(2)), "");
    scene.lose(3);
    assert_eq!(refused(&scene, NodeId(2), SeedKind::Reseed, None), "majority");
    assert_eq!(removal(&scene, NodeId(2)), "majority");
    scene.lose(4);
    scene.lose(1);
    assert_eq!(removal(&scene, NodeId(2)), "last-healthy-copy");
}

#[test]
fn a_failed_copy_is_built_by_itself_after_the_delay_and_not_on_a_busy_node() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1", "DB2", "DB3"]);
    for name in ["DB1", "DB2", "DB3"] {
        scene.mount(name, 1);
        scene.copy(name, 2).status = CopyStatus::Failed;
    }
    let failed: Vec<_> = failed_copies(&scene.reports).collect();
    assert_eq!(failed.len(), 3);
    let since: FailedSince = failed.iter().map(|copy| (*copy, 5)).collect();
    let due = |scene: &Scene, now| due_by_itself(&scene.control, &scene.reports, &since, now);
    assert_eq!(due(&scene, 5 + DELAY_MS - 1), []);
    assert_eq!(due(&scene, 5 + DELAY_MS), failed[..PER_NODE]);
    let order = SeedCopy {
        request_id: "r".into(),
        database: failed[0].0.0,
        node: 2,
        ..SeedCopy::default()
    };
    scene.run(Order::SeedCopy(order));
    assert_eq!(due(&scene, 5 + DELAY_MS), failed[1..PER_NODE]);
    scene.node(2).reachable = false;
    assert_eq!(due(&scene, 5 + DELAY_MS), []);
}
