use alloc::vec;

use super::*;
use crate::scene::Scene;

/// The copies of a database on these nodes, whose logs end at these entries.
fn left(scene: &Scene, ends: &[(u64, u64, u64)]) -> Vec<Survivor> {
    let database = scene.database("DB1");
    let voters: Vec<ReplicaId> =
        database.replicas.iter().filter(|copy| copy.voter).map(|copy| copy.id()).collect();
    let survivor = |(node, term, index): &(u64, u64, u64)| Survivor {
        node: NodeId(*node),
        replica: database.replica_on(NodeId(*node)).unwrap().id(),
        last: LogId { term: *term, index: *index },
        voters: voters.clone(),
        joint: false,
    };
    ends.iter().map(survivor).collect()
}

/// DB1 with a copy on each of five nodes of a site; the first `lost` of them are gone.
fn lost(shape: &str, lost: &[u64]) -> Scene {
    let mut scene = Scene::new(shape, &["DB1"]);
    for node in lost {
        scene.lose(*node);
    }
    scene
}

fn plan(scene: &Scene, left: &[Survivor], wait: Option<Millis>) -> Reform {
    plan_reform(&scene.control, &scene.reports, &scene.database("DB1"), left, wait)
}

fn fails(reform: &Reform) -> Vec<&'static str> {
    reform.checks.iter().filter(|check| !check.passed).map(|check| check.name).collect()
}

#[test]
fn the_copy_whose_log_ends_last_by_term_and_then_by_index_is_taken() {
    let scene = lost("A1 A2 A3", &[1]);
    let best = |ends: &[(u64, u64, u64)]| {
        plan(&scene, &left(&scene, ends), Some(Millis(0))).best.unwrap().node.0
    };
    assert_eq!(best(&[(2, 5, 90), (3, 5, 91)]), 3);
    assert_eq!(best(&[(2, 6, 80), (3, 5, 91)]), 2);
    assert_eq!(best(&[(2, 5, 90), (3, 5, 90)]), 2, "of equal ones always the same");
}

#[test]
fn one_of_two_is_lossless_and_one_of_three_is_not() {
    let scene = lost("A1 A2", &[1]);
    let two = plan(&scene, &left(&scene, &[(2, 5, 90)]), Some(Millis(0)));
    assert_eq!((two.verdict.clone(), fails(&two)), (Verdict::Zero, vec![]));
    assert!(two.is_possible() && two.missing == [NodeId(1)]);
    let mut scene = lost("A1 A2 A3", &[1, 2]);
    scene.copy("DB1", 1).last_index = 95;
    let three = plan(&scene, &left(&scene, &[(3, 5, 90)]), Some(Millis(0)));
    assert_eq!((three.verdict.clone(), fails(&three)), (Verdict::Unknown, vec![]));
    assert!(three.reason.contains("5 more than the best copy's"), "{}", three.reason);
    assert_ne!(two.token, three.token);
}

#[test]
fn what_the_group_itself_agreed_to_counts_and_not_what_the_control_log_wants() {
    let scene = lost("A1 A2", &[1]);
    let mut other = left(&scene, &[(2, 5, 90)]);
    other[0].voters.pop();
    assert_eq!(plan(&scene, &other, Some(Millis(0))).verdict, Verdict::Unknown);
    let mut joint = left(&scene, &[(2, 5, 90)]);
    joint[0].joint = true;
    assert_eq!(plan(&scene, &joint, Some(Millis(0))).verdict, Verdict::Unknown);
}

#[test]
fn nothing_is_given_up_that_may_still_serve() {
    let mut scene = lost("A1 A2 A3", &[1, 2]);
    let alone = left(&scene, &[(3, 5, 90)]);
    let early = plan(&scene, &alone, Some(Millis(5230)));
    assert_eq!(fails(&early), ["takeover-wait"]);
    let check = early.checks.iter().find(|check| check.name == "takeover-wait").unwrap();
    assert_eq!(check.value, "5.2 s left for n1, n2");
    assert_eq!(fails(&plan(&scene, &alone, None)), ["takeover-wait"]);
    // One of them answers again, and its gate is open.
    scene.node(1).reachable = true;
    assert_eq!(fails(&plan(&scene, &alone, Some(Millis(0)))), ["gates-closed"]);
    scene.node(1).gate = GateReport::Closed("it started".into());
    assert!(fails(&plan(&scene, &alone, Some(Millis(0)))).is_empty());
    // A copy that its own node calls failed does not come back by itself.
    scene.node(1).gate = GateReport::Open(Millis(8000));
    scene.copy("DB1", 1).status = CopyStatus::Failed;
    let failed = plan(&scene, &alone, Some(Millis(0)));
    assert!(fails(&failed).is_empty() && failed.missing == [NodeId(2)]);
}

#[test]
fn a_database_that_has_a_majority_or_is_mounted_is_left_alone() {
    let scene = lost("A1 A2 A3", &[1]);
    let two = plan(&scene, &left(&scene, &[(2, 5, 90), (3, 5, 90)]), Some(Millis(0)));
    assert_eq!(fails(&two), ["majority-lost"]);
    let mut scene = lost("A1 A2 A3", &[1, 2]);
    scene.copy("DB1", 3).status = CopyStatus::Mounted;
    let mounted = plan(&scene, &left(&scene, &[(3, 5, 90)]), Some(Millis(0)));
    assert_eq!(fails(&mounted), ["not-mounted"]);
    let none = plan(&lost("A1 A2 A3", &[1, 2, 3]), &[], Some(Millis(0)));
    assert_eq!(fails(&none), ["survivor"]);
    assert!(!none.is_possible() && refusal(&none.checks, "DB1").is_some());
}
