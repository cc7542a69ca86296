//! Copies that are built, put in place, admitted, given up, removed.

use super::*;
use crate::control::Order;
use alloc::collections::BTreeSet;

use crate::control::command::{BeginOperation, EndOperation, Ending, PlaceVoters};
use crate::scene::{Scene, TERM};

const DB1: u64 = 16;

fn seed(request: &str, node: u64, adds: bool) -> Order {
    let request_id = request.into();
    Order::SeedCopy(SeedCopy { request_id, database: DB1, node, adds, ..SeedCopy::default() })
}

fn advance(node: u64, replica: u64, term: u64) -> Order {
    let outcome = "built".into();
    Order::AdvanceSeed(AdvanceSeed {
        database: DB1,
        node,
        replica,
        term,
        outcome,
        voters: Vec::new(),
    })
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
    assert_eq!(scene.refused(advance(other, second.replica, TERM)), "seed-joins");
    scene.done(end(first.node, first.replica, true));
    scene.done(advance(other, second.replica, TERM));
    scene.done(end(other, second.replica, true));
    assert!(scene.database("DB1").replicas.iter().all(|copy| copy.voter));
}

#[test]
fn no_copy_is_removed_while_another_one_is_compared() {
    let (mut scene, seed) = reseeding();
    let other = scene.database("DB1").replicas[2].node;
    let remove =
        || Order::RemoveCopy(RemoveCopy { database: DB1, node: other, voters: Vec::new() });
    scene.done(advance(seed.node, seed.replica, TERM));
    // Placing the voters anew would let the new copy vote before its digest is known.
    assert_eq!(scene.refused(remove()), "seed-joins");
    assert!(!scene.database("DB1").replicas[1].voter);
    scene.done(end(seed.node, seed.replica, true));
    scene.done(remove());
}

#[test]
fn no_copy_stops_that_its_group_needs_to_change_its_voters() {
    let (mut scene, first) = reseeding();
    let copies = scene.database("DB1").replicas;
    let (other, before) = (copies[2].node, copies.iter().map(|copy| copy.replica).collect());
    scene.run(seed("r2", other, false));
    let second = scene.control.seeds.iter().find(|seed| seed.node == other).unwrap().replica;
    scene.done(advance(first.node, first.replica, TERM));
    scene.done(end(first.node, first.replica, true));
    // The group changes from the first three to those with the new one, for which two of the first three
    // are needed; one of them has stopped.
    let advance = |voters: Vec<u64>| match advance(other, second, TERM) {
        Order::AdvanceSeed(order) => Order::AdvanceSeed(AdvanceSeed { voters, ..order }),
        order => order,
    };
    let remove =
        |voters| Order::RemoveCopy(RemoveCopy { database: DB1, node: copies[0].node, voters });
    assert_eq!(scene.refused(advance(Vec::clone(&before))), "majority");
    assert_eq!(scene.refused(remove(before)), "majority");
    let copies = scene.database("DB1").replicas;
    let now = copies.iter().map(|copy| copy.replica).collect();
    scene.done(advance(now));
}

#[test]
fn of_two_voters_none_gives_its_place_away() {
    let mut scene = Scene::new("A1 A2", &["DB1"]);
    scene.run(seed("r1", 2, false));
    let replica = scene.control.seeds[0].replica;
    assert_eq!(scene.refused(advance(2, replica, TERM)), "majority");
}

#[test]
fn a_new_copy_votes_as_the_old_one_did_when_it_gave_its_place() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    let voters = |scene: &Scene| {
        let copies = scene.database("DB1").replicas;
        copies.iter().filter(|copy| copy.voter).map(|copy| copy.node).collect::<BTreeSet<_>>()
    };
    let place =
        |nodes: &[u64]| Order::PlaceVoters(PlaceVoters { database: DB1, nodes: nodes.to_vec() });
    assert_eq!(voters(&scene), BTreeSet::from([1, 2, 3]));
    scene.run(seed("r1", 2, false));
    scene.run(seed("r2", 4, false));
    let replica = |scene: &Scene, node| {
        scene.control.seed(DatabaseId(DB1), NodeId(node)).expect("it runs").replica
    };
    let (at_home, elsewhere) = (replica(&scene, 2), replica(&scene, 4));
    // To the other site, while both are built.
    scene.done(place(&[3, 4, 1]));
    scene.done(advance(2, at_home, TERM));
    assert_eq!(scene.refused(place(&[1, 2, 3])), "seed-joins", "it would vote, uncompared");
    scene.done(end(2, at_home, true));
    assert_eq!(voters(&scene), BTreeSet::from([1, 3, 4]));
    scene.done(advance(4, elsewhere, TERM));
    assert_eq!(voters(&scene), BTreeSet::from([1, 3]));
    scene.done(end(4, elsewhere, true));
    assert_eq!(voters(&scene), BTreeSet::from([1, 3, 4]));
    // One that was found to differ is given no vote by a move.
    scene.run(seed("r3", 2, false));
    let replica = replica(&scene, 2);
    scene.done(advance(2, replica, TERM));
    scene.done(end(2, replica, false));
    assert_eq!(scene.refused(place(&[1, 2, 3])), "voters-admitted");
}

#[test]
fn a_database_that_moves_is_not_seeded_meanwhile() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    let moving = BeginOperation {
        request_id: "m1".into(),
        kind: OperationKind::MoveDatabase.into(),
        object: move_object(DB1),
        plan: "to node 2".into(),
    };
    scene.run(Order::BeginOperation(moving));
    assert_eq!(scene.refused(seed("r1", 2, false)), "operation-running");
    let operation = scene.control.operations[0].operation;
    let (ending, outcome) = (Ending::Done.into(), "moved".into());
    scene.done(Order::EndOperation(EndOperation { operation, ending, outcome }));
    scene.run(seed("r1", 2, false));
    assert_eq!(scene.control.seeds.len(), 1);
}

#[test]
fn a_built_copy_waits_for_a_move_and_a_move_to_another_site_for_a_comparison() {
    let (mut scene, seed) = reseeding();
    let begin = |request: &str, kind: OperationKind| {
        Order::BeginOperation(BeginOperation {
            request_id: request.into(),
            kind: kind.into(),
            object: move_object(DB1),
            plan: "elsewhere".into(),
        })
    };
    let over = |operation| {
        let (ending, outcome) = (Ending::Done.into(), "moved".into());
        Order::EndOperation(EndOperation { operation, ending, outcome })
    };
    scene.run(begin("m1", OperationKind::MoveSite));
    let advance = || advance(seed.node, seed.replica, TERM);
    // The move's step would make the new copy vote, which stands where the old one did.
    assert_eq!(scene.refused(advance()), "operation-running");
    let moving = scene.control.running().last().unwrap().operation;
    scene.done(over(moving));
    scene.done(advance());
    assert_eq!(scene.refused(begin("m2", OperationKind::MoveSite)), "seed-joins");
    scene.run(begin("m3", OperationKind::MoveDatabase));
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
    let remove = |node| Order::RemoveCopy(RemoveCopy { database: DB1, node, voters: Vec::new() });
    scene.done(remove(1));
    assert_eq!(scene.database("DB1").replicas.len(), 2);
    assert_eq!(scene.refused(remove(1)), "copy-exists");
    // Two vote, and the one that stops would have to agree that it goes.
    assert_eq!(scene.refused(remove(2)), "majority");
}

#[test]
fn the_last_copy_is_never_removed() {
    let mut scene = Scene::new("A1 A2 A3", &[]);
    let order = crate::control::CreateDatabase {
        request_id: "db".into(),
        name: "DB1".into(),
        nodes: alloc::vec![1],
        ..crate::control::CreateDatabase::default()
    };
    scene.run(Order::CreateDatabase(order));
    let remove = RemoveCopy { database: DB1, node: 1, voters: Vec::new() };
    assert_eq!(scene.refused(Order::RemoveCopy(remove)), "last-copy");
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
    scene.done(Order::RemoveCopy(RemoveCopy { database: DB1, node: gone, voters: Vec::new() }));
    assert_eq!(voters(&scene).len() % 2, 1);
    let home = scene.database("DB1").active_site;
    let at_home = voters(&scene);
    let at_home = at_home.iter().filter(|node| scene.control.site_of(NodeId(**node)) == home);
    assert!(at_home.count() * 2 > voters(&scene).len());
}
