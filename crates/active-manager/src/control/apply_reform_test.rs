use alloc::vec;

use super::*;
use crate::control::command::{AdvanceSeed, EndSeed, OpenGate, SeedCopy};
use crate::control::{Order, Outcome};
use crate::scene::{Scene, TERM, store};

/// DB1 lost the copies of nodes 1 and 2.
fn scene() -> (Scene, ReformDatabase) {
    let scene = Scene::new("A1 A2 A3", &["DB1"]);
    let database = scene.database("DB1");
    let order = ReformDatabase {
        database: database.database,
        generation: 1,
        node: 3,
        replica: database.replica_on(NodeId(3)).unwrap().replica,
        openings: openings_of(&scene.control, &[NodeId(1), NodeId(2)]),
        operation: 9,
        term: TERM,
    };
    (scene, order)
}

fn open_gate(scene: &mut Scene, node: u64, number: u64) {
    let lineage = scene.control.last_lineage();
    scene.done(Order::OpenGate(OpenGate {
        node,
        store: store(node),
        boot_counter: 1,
        boot_id: node,
        epoch: lineage.epoch,
        activation: lineage.activation.0.to_vec().into(),
        grant_term: TERM,
        grant_number: number,
    }));
}

#[test]
fn a_new_generation_has_one_voter_and_everybody_a_new_id() {
    let (mut scene, order) = scene();
    let before = scene.database("DB1");
    scene.done(Order::ReformDatabase(order.clone()));
    let after = scene.database("DB1");
    assert_eq!((after.generation, after.reforming), (2, 9));
    for (old, new) in before.replicas.iter().zip(&after.replicas) {
        assert!(new.replica > before.replicas.iter().map(|copy| copy.replica).max().unwrap());
        assert_eq!(
            (old.node, new.voter, new.left_behind),
            (new.node, new.node == 3, new.node != 3)
        );
        assert_eq!(new.from_replica, if new.node == 3 { old.replica } else { 0 });
        assert!(new.seeded && new.unfit.is_empty() == (new.node == 3));
    }
    // The same order of a later leader changes nothing, and an older one finds another generation.
    let again = scene.run(Order::ReformDatabase(order.clone()));
    assert!(matches!(again, Outcome::Changed(ref changed) if changed.was_so), "{again:?}");
    let other = ReformDatabase { operation: 10, ..order };
    assert_eq!(scene.refused(Order::ReformDatabase(other)), "generation");
    let end = EndReform { database: after.database, generation: 2, term: TERM };
    scene.done(Order::EndReform(end));
    assert_eq!(scene.database("DB1").reforming, 0);
}

#[test]
fn a_gate_that_was_opened_since_the_checks_keeps_the_old_generation() {
    let (mut scene, order) = scene();
    open_gate(&mut scene, 2, 1);
    assert_eq!(scene.refused(Order::ReformDatabase(order.clone())), "gates-closed");
    let stale = ReformDatabase { term: TERM - 1, ..order.clone() };
    assert_eq!(scene.refused(Order::ReformDatabase(stale)), "control-term");
    let wrong = ReformDatabase { replica: order.replica + 100, ..order.clone() };
    assert_eq!(scene.refused(Order::ReformDatabase(wrong)), "survivor");
    assert_eq!(scene.database("DB1").generation, 1);
    let openings = openings_of(&scene.control, &[NodeId(1), NodeId(2)]);
    scene.done(Order::ReformDatabase(ReformDatabase { openings, ..order }));
}

#[test]
fn what_was_built_of_the_old_generation_is_given_up_and_copies_that_come_back_vote() {
    let (mut scene, order) = scene();
    let database = order.database;
    let seed = |request: &str, node| {
        let request_id = request.into();
        Order::SeedCopy(SeedCopy { request_id, database, node, ..SeedCopy::default() })
    };
    scene.run(seed("r1", 2));
    scene.done(Order::ReformDatabase(order));
    assert!(scene.control.seeds.is_empty() && scene.control.running().next().is_none());
    for (request, node, voters) in [("r2", 1, vec![1, 3]), ("r3", 2, vec![1, 2, 3])] {
        scene.run(seed(request, node));
        let replica = scene.control.seeds[0].replica;
        let outcome = alloc::string::String::new();
        let term = TERM;
        scene.done(Order::AdvanceSeed(AdvanceSeed {
            database,
            node,
            replica,
            term,
            outcome: outcome.clone(),
            voters: Vec::new(),
        }));
        let succeeded = true;
        scene.done(Order::EndSeed(EndSeed { database, node, replica, term, succeeded, outcome }));
        let mut voting: vec::Vec<u64> = scene
            .database("DB1")
            .replicas
            .iter()
            .filter(|copy| copy.voter)
            .map(|copy| copy.node)
            .collect();
        voting.sort_unstable();
        assert_eq!(voting, voters);
    }
    assert!(scene.database("DB1").replicas.iter().all(|copy| !copy.left_behind));
}
