//! Policies, suspensions, maintenance, openings: what they leave behind and what is refused.

use dag_types::GrantId;

use super::*;
use crate::control::Outcome;
use crate::control::command::NodeOrder;
use crate::control::response::Changed;
use crate::control::state::audit;
use crate::scene::{Scene, TERM, store};

const DB: u64 = 16;

fn policy_of(node: u64, policy: ActivationPolicy) -> Order {
    let policy = Some(policy.into());
    Order::SetNodePolicy(SetNodePolicy { node, policy, ..SetNodePolicy::default() })
}

fn drain(node: u64) -> Order {
    Order::DrainNode(NodeOrder { node })
}

fn undrain(node: u64) -> Order {
    Order::UndrainNode(NodeOrder { node })
}

fn policy_now(scene: &Scene, node: u64) -> ActivationPolicy {
    scene.control.node_policy(NodeId(node)).policy()
}

#[test]
fn undrain_restores_the_policy_that_was_there_before() {
    for before in [ActivationPolicy::Unrestricted, ActivationPolicy::IntrasiteOnly] {
        let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
        scene.done(policy_of(2, before));
        scene.done(drain(2));
        assert_eq!(policy_now(&scene, 2), ActivationPolicy::Blocked);
        scene.done(drain(2));
        scene.done(undrain(2));
        assert_eq!(policy_now(&scene, 2), before);
        scene.done(undrain(2));
        assert_eq!(policy_now(&scene, 2), before);
    }
}

#[test]
fn a_policy_set_during_maintenance_holds_from_its_end_on() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.done(drain(2));
    scene.done(policy_of(2, ActivationPolicy::IntrasiteOnly));
    assert_eq!(policy_now(&scene, 2), ActivationPolicy::Blocked);
    scene.done(undrain(2));
    assert_eq!(policy_now(&scene, 2), ActivationPolicy::IntrasiteOnly);
}

#[test]
fn limits_are_kept_apart_and_must_fit() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    let limits = |maximum, preferred| {
        Order::SetNodePolicy(SetNodePolicy {
            node: 1,
            policy: None,
            maximum_active: maximum,
            preferred_active: preferred,
        })
    };
    scene.done(limits(Some(10), Some(5)));
    scene.done(limits(None, Some(6)));
    let policy = scene.control.node_policy(NodeId(1));
    assert_eq!((policy.maximum_active, policy.preferred_active), (10, 6));
    assert_eq!(scene.refused(limits(Some(5), None)), "preferred-below-maximum");
    assert_eq!(scene.run(limits(Some(10), None)), Outcome::Changed(Changed { was_so: true }));
}

#[test]
fn a_suspension_knows_its_kind_and_resuming_takes_all_of_it_back() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    let order = |activation_only| CopySuspension { database: DB, node: 2, activation_only };
    scene.done(Order::SuspendCopy(order(true)));
    let policy = scene.control.copy_policy(DatabaseId(DB), NodeId(2));
    assert!(policy.activation_suspended && !policy.suspended);
    assert_eq!(policy.decided.unwrap().who, "ann");
    scene.done(Order::SuspendCopy(order(false)));
    scene.done(Order::ResumeCopy(order(true)));
    let policy = scene.control.copy_policy(DatabaseId(DB), NodeId(2));
    assert!(!policy.activation_suspended && policy.suspended);
    scene.done(Order::ResumeCopy(order(false)));
    assert_eq!(scene.control.copy_policies, []);
}

#[test]
fn preference_names_every_copy_once() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    let order =
        |nodes: &[u64]| Order::SetPreference(SetPreference { database: DB, nodes: nodes.to_vec() });
    assert_eq!(scene.refused(order(&[1, 2])), "preference-complete");
    assert_eq!(scene.refused(order(&[1, 2, 2])), "preference-complete");
    scene.done(order(&[3, 1, 2]));
    let database = scene.database("DB1");
    assert_eq!(scene.control.preference(&database), [NodeId(3), NodeId(1), NodeId(2)]);
    // Who initialised the group does not change with a wish.
    assert_eq!(database.replicas[0].node(), NodeId(1));
}

#[test]
fn what_does_not_exist_or_holds_no_databases_is_refused() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    assert!(scene.refused(drain(9)).contains("UnknownNode"));
    assert_eq!(scene.refused(drain(5)), "data-node");
    let order = |database| SetDatabasePolicy { database, policy: 2 };
    assert_eq!(scene.refused(Order::SetDatabasePolicy(order(99))), "database-exists");
    assert_eq!(scene.refused(Order::SetDatabasePolicy(order(0))), "database-exists");
    let wrong = SetDatabasePolicy { database: DB, policy: 9 };
    assert_eq!(scene.refused(Order::SetDatabasePolicy(wrong)), "policy-known");
    let nowhere = CopySuspension { database: DB, node: 5, activation_only: false };
    assert_eq!(scene.refused(Order::SuspendCopy(nowhere)), "copy-exists");
    let settings = Settings { move_block_ms: u64::MAX, ..Settings::DEFAULT };
    assert_eq!(scene.refused(Order::SetSettings(settings)), "settings");
}

fn opening(node: u64) -> OpenGate {
    OpenGate {
        node,
        store: store(node),
        boot_counter: 1,
        boot_id: node,
        epoch: 1,
        activation: alloc::vec![8; 16].into(),
        grant_term: TERM,
        grant_number: 3,
    }
}

#[test]
fn an_opening_is_recorded_for_the_registered_disk_and_start_and_lineage_only() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    let wrong: [(&str, fn(&mut OpenGate)); 5] = [
        ("grant-term", |order| order.grant_term = TERM - 1),
        ("store", |order| order.store = store(9)),
        ("boot", |order| order.boot_counter = 2),
        ("boot", |order| order.boot_id = 99),
        ("lineage", |order| order.epoch = 2),
    ];
    for (check, spoil) in wrong {
        let mut order = opening(1);
        spoil(&mut order);
        assert_eq!(scene.refused(Order::OpenGate(order)), check);
    }
    assert_eq!(scene.control.registry().unwrap().nodes[0].grant, None);
    scene.done(Order::OpenGate(opening(1)));
    let registry = scene.control.registry().unwrap();
    assert_eq!(registry.nodes[0].grant, Some(GrantId { term: TERM, number: 3 }));
    assert_eq!(registry.nodes.len(), 4, "a witness holds no gate");
    let sites: alloc::vec::Vec<&str> = registry.sites.iter().map(|s| &s.name[..]).collect();
    assert_eq!(sites, ["A", "B"]);
    assert_eq!(registry.sites[1].lists[0].len(), 2);
}

#[test]
fn an_opening_of_an_earlier_start_is_no_grant_of_this_one() {
    let mut scene = Scene::new("A1 A2 A3", &[]);
    scene.done(Order::OpenGate(opening(1)));
    let boot =
        crate::control::RegisterBoot { node: 1, store: store(1), boot_counter: 2, boot_id: 22 };
    scene.run(Order::RegisterBoot(boot));
    assert_eq!(scene.control.registry().unwrap().nodes[0].grant, None);
}

#[test]
fn moves_for_balance_or_a_site_keep_the_block_time() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    let of_operation = |operation, cause: MoveCause, acknowledged| {
        let cause = cause.into();
        let order = RecordMove { database: DB, from: 1, to: 2, cause, acknowledged, operation };
        Order::RecordMove(order)
    };
    let order = |cause, acknowledged| of_operation(0, cause, acknowledged);
    scene.done(of_operation(5, MoveCause::Balance, false));
    scene.done(of_operation(5, MoveCause::Balance, false));
    assert_eq!(scene.refused(of_operation(6, MoveCause::Balance, false)), "move-block-time");
    scene.now += Settings::DEFAULT.move_block_ms - 1;
    assert_eq!(scene.refused(order(MoveCause::Site, false)), "move-block-time");
    scene.done(order(MoveCause::Failover, false));
    scene.done(order(MoveCause::Drain, false));
    scene.done(order(MoveCause::Site, true));
    scene.now += Settings::DEFAULT.move_block_ms;
    scene.done(order(MoveCause::Balance, false));
}

#[test]
fn the_audit_says_who_from_where_why_and_what() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.done(drain(2));
    scene.refused(drain(9));
    let rows = audit(&scene.state, 0, 100).unwrap();
    let [.., drained, refused] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(
        (&drained.who[..], &drained.from[..], &drained.reason[..]),
        ("ann", "console", "because")
    );
    assert_eq!(
        (&drained.action[..], &drained.object[..], drained.accepted),
        ("drain", "node 2", true)
    );
    assert!(!refused.accepted);
}

#[test]
fn voters_stand_with_their_majority_where_the_database_is_active() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    let place =
        |nodes: &[u64]| Order::PlaceVoters(PlaceVoters { database: DB, nodes: nodes.to_vec() });
    let sites = |scene: &Scene| scene.database("DB1").active_site;
    let home = sites(&scene);
    scene.done(place(&[3, 4, 1]));
    let moved = scene.database("DB1");
    let voters: Vec<u64> =
        moved.replicas.iter().filter(|copy| copy.voter).map(|copy| copy.node).collect();
    assert_eq!(voters.len(), 3);
    assert!([1, 3, 4].iter().all(|node| voters.contains(node)));
    assert_ne!(moved.active_site, home);
    // The same again changes nothing, and back is back.
    scene.done(place(&[3, 4, 1]));
    scene.done(place(&[1, 2, 3]));
    assert_eq!(sites(&scene), home);
    assert_eq!(scene.refused(place(&[1, 2])), "voters-odd");
    assert_eq!(scene.refused(place(&[1, 2, 9])), "copy-exists");
    assert_eq!(scene.refused(place(&[])), "copy-exists");
}
