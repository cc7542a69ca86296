//! Copies that are built, put in place, admitted, given up, removed.

use super::*;
use crate::control::Order;
use crate::control::command::{EndOperation, Ending};
use crate::scene::{Scene, TERM};

const DB1: u64 = 16;

fn seed(request: &str, node: u64, adds: bool) -> Order {
    let request_id = request.into();
    Order::SeedCopy(SeedCopy { request_id, database: DB1, node, adds, ..SeedCopy::default() })
}

fn advance(node: u64, replica: u64, term: u64) -> Order {
    let outcome = "built".into();
    Order::AdvanceSeed(AdvanceSeed { database: DB1, node, replica, term, outcome })
}

fn end(node: u64, replica: u64, succeeded: bool) -> Order {
    let (term, outcome) = (TERM, String::from("compared"));
    Order::EndSeed(EndSeed { database: DB1, node, replica, term, succeeded, outcome })
}

/// A database on three nodes; the copy on the second one is built anew.
fn reseeding() -> (Scene, SeedRecord) {
    let mut scene = Scene::new("A1 A2 A3 A4", &["DB1"]);
    let node = scene.database("DB1").replicas[1].node;
    scene.run(seed("r1", node, false));
    let seed = scene.control.seeds[0].clone();
    (scene, seed)
}

#[test]
fn a_seed_has_an_id_of_its_own_and_the_old_copy_goes_on_until_the_new_one_is_built() {
    let (mut scene, seed) = reseeding();
    let before = scene.database("DB1");
    assert_eq!(before.replicas[1].replica, seed.replaces);
    assert!(before.replicas.iter().all(|copy| copy.replica < seed.replica));
    assert_eq!(scene.control.next_replica, seed.replica + 1);
    scene.done(advance(seed.node, seed.replica, TERM));
    let joined = scene.database("DB1").replicas[1].clone();
    assert_eq!((joined.replica, joined.voter, joined.seeded), (seed.replica, false, true));
    scene.done(end(seed.node, seed.replica, true));
    assert!(scene.database("DB1").replicas[1].voter, "it votes as the old one did");
    assert!(scene.control.seeds.is_empty());
    let operation = &scene.control.operations[0];
    assert_eq!(operation.state(), OperationState::Done);
    assert!(operation.steps.len() == 2 && operation.steps.iter().all(|step| step.succeeded));
}

#[test]
fn of_three_voters_one_at_a_time_gives_its_place_to_a_new_copy() {
    let (mut scene, first) = reseeding();
    let other = scene.database("DB1").replicas[2].node;
    scene.run(seed("r2", other, false));
    let second = scene.control.seeds.iter().find(|seed| seed.node == other).unwrap().clone();
    assert!(first.voter && second.voter);
    scene.done(advance(first.node, first.replica, TERM));
    // Ordered by whoever had not seen the first one yet.
    assert_eq!(scene.refused(advance(other, second.replica, TERM)), "majority");
    scene.done(end(first.node, first.replica, true));
    scene.done(advance(other, second.replica, TERM));
    scene.done(end(other, second.replica, true));
    assert!(scene.database("DB1").replicas.iter().all(|copy| copy.voter));
}

fn moved(request: &str, database: u64, node: u64, path: &str) -> Order {
    let (request_id, path) = (request.into(), path.into());
    Order::SeedCopy(SeedCopy {
        request_id,
        database,
        node,
        from: node,
        path,
        ..SeedCopy::default()
    })
}

#[test]
fn a_copy_moves_to_a_path_of_its_own_and_keeps_it_when_it_is_built_anew() {
    let mut scene = Scene::new("A1 A2 A3 A4", &["DB1", "DB2"]);
    let node = scene.database("DB1").replicas[1].node;
    assert_eq!(scene.refused(moved("r1", DB1, node, "")), "path-differs");
    scene.run(moved("r2", DB1, node, "/data/db1"));
    let first = scene.control.seeds[0].clone();
    assert!(first.relocates() && first.path == "/data/db1");
    for taken in ["/data/db1", "/data/db1/in", "/data", "//data//db1/"] {
        assert_eq!(scene.refused(moved(taken, DB1 + 1, node, taken)), "path-free", "{taken}");
    }
    scene.done(advance(node, first.replica, TERM));
    scene.done(end(node, first.replica, true));
    assert_eq!(scene.database("DB1").replicas[1].path, "/data/db1");
    assert_eq!(scene.refused(moved("r3", DB1 + 1, node, "/data/db1")), "path-free");
    assert_eq!(scene.refused(moved("r4", DB1, node, "/data/db1")), "path-differs");
    scene.run(moved("r5", DB1 + 1, node, "/data/db10"));
    // Anew, from another copy: where it was.
    scene.run(seed("r6", node, false));
    let anew = scene.control.seed(DatabaseId(DB1), NodeId(node)).unwrap();
    assert!(!anew.relocates() && anew.path == "/data/db1");
}

#[test]
fn nothing_is_admitted_before_it_is_in_its_place_and_nothing_by_a_deposed_leader() {
    let (mut scene, seed) = reseeding();
    assert_eq!(scene.refused(end(seed.node, seed.replica, true)), "seed-joined");
    assert_eq!(scene.refused(advance(seed.node, seed.replica, TERM - 1)), "control-term");
    assert_eq!(scene.refused(advance(seed.node, seed.replica + 1, TERM)), "seed-runs");
    assert_eq!(scene.database("DB1").replicas[1].replica, seed.replaces);
}

#[test]
fn a_copy_that_differs_is_unfit_and_never_votes() {
    let (mut scene, seed) = reseeding();
    scene.done(advance(seed.node, seed.replica, TERM));
    scene.done(end(seed.node, seed.replica, false));
    let copy = scene.database("DB1").replicas[1].clone();
    assert_eq!((copy.unfit.as_str(), copy.voter), ("compared", false));
    assert_eq!(scene.control.operations[0].state(), OperationState::Failed);
    scene.run(self::seed("r2", seed.node, false));
    assert_eq!(scene.control.seeds[0].replaces, seed.replica);
}

#[test]
fn a_vote_that_a_failed_seed_cost_comes_back_with_the_next_one() {
    let voters = |scene: &Scene| {
        let copies = scene.database("DB1").replicas;
        copies.iter().filter(|copy| copy.voter).map(ReplicaRecord::node).collect::<Vec<_>>()
    };
    let (mut scene, first) = reseeding();
    let before = voters(&scene);
    scene.done(advance(first.node, first.replica, TERM));
    scene.done(end(first.node, first.replica, false));
    assert!(voters(&scene).len() < before.len());
    scene.run(seed("r2", first.node, false));
    let second = scene.control.seeds[0].clone();
    scene.done(advance(second.node, second.replica, TERM));
    scene.done(end(second.node, second.replica, true));
    assert_eq!(voters(&scene), before);
}

#[test]
fn a_cancelled_seed_leaves_the_old_copy_and_only_before_the_new_one_is_in_its_place() {
    let (mut scene, seed) = reseeding();
    let (operation, outcome) = (seed.operation, String::new());
    let ending = |ending: Ending| {
        let outcome = outcome.clone();
        Order::EndOperation(EndOperation { operation, ending: ending.into(), outcome })
    };
    assert_eq!(scene.refused(ending(Ending::Failed)), "seed-ends-itself");
    scene.done(ending(Ending::Cancel));
    assert_eq!(scene.refused(advance(seed.node, seed.replica, TERM)), "seed-runs");
    scene.done(end(seed.node, seed.replica, false));
    assert_eq!(scene.control.operations[0].state(), OperationState::Cancelled);
    let kept = scene.database("DB1").replicas[1].clone();
    assert_eq!((kept.replica, kept.voter), (seed.replaces, true));
}

#[test]
fn one_seed_of_a_copy_at_a_time_and_the_same_request_begins_one() {
    let (mut scene, first) = reseeding();
    assert_eq!(scene.refused(seed("r2", first.node, false)), "operation-running");
    let again = OperationBegun { operation: first.operation, replayed: true };
    assert_eq!(scene.run(seed("r1", first.node, false)), Outcome::OperationBegun(again));
    assert_eq!(scene.control.seeds.len(), 1);
}

#[test]
fn a_copy_more_gets_the_vote_that_placement_wants() {
    let mut scene = Scene::new("A1 A2 A3", &[]);
    let order = crate::control::CreateDatabase {
        request_id: "db".into(),
        name: "DB1".into(),
        nodes: alloc::vec![1, 2],
        ..crate::control::CreateDatabase::default()
    };
    scene.run(Order::CreateDatabase(order));
    assert_eq!(scene.refused(seed("r1", 3, false)), "copy-exists");
    assert_eq!(scene.refused(seed("r2", 1, true)), "copy-absent");
    scene.run(seed("r3", 3, true));
    let new = scene.control.seeds[0].replica;
    scene.done(advance(3, new, TERM));
    scene.done(end(3, new, true));
    assert!(scene.database("DB1").replicas.iter().all(|copy| copy.voter));
    let remove = |node| Order::RemoveCopy(RemoveCopy { database: DB1, node });
    scene.done(remove(1));
    assert_eq!(scene.database("DB1").replicas.len(), 2);
    scene.done(remove(2));
    assert_eq!(scene.refused(remove(3)), "last-copy");
    assert_eq!(scene.refused(remove(1)), "copy-exists");
}

#[test]
fn a_removed_voter_of_two_sites_leaves_an_odd_number_with_the_majority_at_home() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    let voters = |scene: &Scene| -> Vec<u64> {
        let database = scene.database("DB1");
        database.replicas.iter().filter(|copy| copy.voter).map(|copy| copy.node).collect()
    };
    assert_eq!(voters(&scene).len(), 3);
    let gone = scene.database("DB1").replicas[1].node;
    scene.done(Order::RemoveCopy(RemoveCopy { database: DB1, node: gone }));
    assert_eq!(voters(&scene).len() % 2, 1);
    let home = scene.database("DB1").active_site;
    let at_home = voters(&scene);
    let at_home = at_home.iter().filter(|node| scene.control.site_of(NodeId(**node)) == home);
    assert!(at_home.count() * 2 > voters(&scene).len());
}
