//! Each code has a world that shows it, and only that.

use alloc::string::ToString;
use alloc::vec;

use dag_types::Millis;

use super::*;
use crate::control::command::{
    BeginOperation, CopySuspension, NodeOrder, PlaceControlVoters, RemoveCopy, SetNodePolicy,
};
use crate::control::{ActivationPolicy, CreateDatabase, OperationKind, Order, Settings, Timeouts};
use crate::scene::{Scene, TERM};

const SOUND: &str = "A1 A2 B3 B4 C5w";

/// A DAG of this shape with everything set that lint asks for.
fn tidy(shape: &str, names: &[&str]) -> Scene {
    let mut scene = Scene::new(shape, names);
    let nodes = scene.control.nodes.iter().filter(|node| !node.witness);
    let nodes: Vec<u64> = nodes.map(|node| node.node).collect();
    for node in nodes {
        limit(&mut scene, node, 10);
    }
    rush(&mut scene, Timeouts::WAN);
    scene
}

fn limit(scene: &mut Scene, node: u64, maximum: u32) {
    let maximum_active = Some(maximum);
    scene.done(Order::SetNodePolicy(SetNodePolicy { node, maximum_active, ..Default::default() }));
    rush(scene, Timeouts::WAN);
}

/// Every order reads the state anew, so timeouts are put in behind the last one.
fn rush(scene: &mut Scene, timeouts: Timeouts) {
    scene.control.dag.control_timeouts = Some(timeouts);
    scene.control.dag.database_timeouts = Some(timeouts);
}

fn block(scene: &mut Scene, node: u64) {
    let policy = Some(ActivationPolicy::Blocked.into());
    scene.done(Order::SetNodePolicy(SetNodePolicy { node, policy, ..Default::default() }));
    rush(scene, Timeouts::WAN);
}

fn set(scene: &mut Scene, change: impl FnOnce(&mut Settings)) {
    let mut settings = scene.control.settings.clone();
    change(&mut settings);
    scene.done(Order::SetSettings(settings));
    rush(scene, Timeouts::WAN);
}

fn create(scene: &mut Scene, name: &str, nodes: &[u64]) {
    let (request_id, name) = (name.to_string(), name.to_string());
    let order = CreateDatabase { request_id, name, nodes: nodes.to_vec(), ..Default::default() };
    scene.run(Order::CreateDatabase(order));
    rush(scene, Timeouts::WAN);
}

fn codes(scene: &Scene) -> Vec<Code> {
    lint(&scene.control, &scene.reports).iter().map(|finding| finding.code).collect()
}

#[test]
fn a_sound_layout_has_no_findings() {
    for shape in [SOUND, "A1 B2 C3"] {
        assert_eq!(lint(&tidy(shape, &["DB1"]).control, &tidy(shape, &["DB1"]).reports), []);
    }
}

#[test]
fn every_layout_that_a_loss_would_punish_is_named() {
    for (shape, code) in [
        ("A1 B2", Code::FewControlVoters),
        ("A1 A2 B3 B4", Code::NoWitness),
        ("A1 A2 B3 B4", Code::ControlMajorityInSite),
        ("A1 A2 B3 B4 A5w", Code::WitnessInDataSite),
        ("A1 A2 A3", Code::SingleSite),
        ("A1", Code::SingleSite),
        ("A1 A2 B3 C4w", Code::SiteWithOneNode),
        ("A1 B2 C3 D4w", Code::WitnessWithoutVote),
        ("A1 A2", Code::EvenVoters),
    ] {
        let codes = codes(&tidy(shape, &["DB1"]));
        assert!(codes.contains(&code), "{shape}: {code:?} not in {codes:?}");
    }
    // No layout gives an even number; a person may have.
    let mut even = tidy("A1 A2 B3 B4", &["DB1"]);
    let order = PlaceControlVoters { nodes: vec![1, 2, 3, 4], term: TERM };
    even.done(Order::PlaceControlVoters(order));
    assert!(codes(&even).contains(&Code::EvenControlVoters));
    // One node alone is one finding, not five.
    assert_eq!(codes(&tidy("A1", &["DB1"])), [Code::SingleSite]);
}

#[test]
fn a_site_that_holds_the_control_majority_is_named_once() {
    let mut scene = tidy("A1 B2 C3", &["DB1"]);
    let control = scene.control.databases.iter_mut().find(|db| db.id() == DatabaseId::CONTROL);
    for copy in &mut control.unwrap().replicas {
        copy.voter = copy.node == 2;
    }
    let found = lint(&scene.control, &scene.reports);
    let majority = found.iter().filter(|found| found.code == Code::ControlMajorityInSite);
    assert_eq!(majority.map(|found| found.subject.as_str()).collect::<Vec<_>>(), ["site B"]);
    let beside = codes(&tidy("A1 A2 B3 B4 A5w", &["DB1"]));
    assert!(!beside.contains(&Code::ControlMajorityInSite), "{beside:?}");
}

#[test]
fn every_other_code_has_a_world_that_shows_it_alone() {
    let worlds: [(Code, fn(&mut Scene)); 19] = [
        (Code::SharedHost, |scene| {
            let host = scene.control.nodes[0].peer_address.replace(":1", ":9");
            scene.control.nodes[1].peer_address = host;
        }),
        (Code::ShortTimeouts, |scene| scene.control.dag.database_timeouts = None),
        (Code::OneCopy, |scene| create(scene, "DB2", &[2])),
        (Code::CopiesInOneSite, |scene| {
            create(scene, "DB2", &[2, 1, 3]);
            let last = scene.control.databases.last_mut().unwrap();
            last.replicas.retain(|copy| copy.node != 3);
            last.replicas[1].voter = false;
        }),
        (Code::UnfitCopy, |scene| {
            scene.control.databases.last_mut().unwrap().replicas[2].unfit = "another digest".into();
        }),
        (Code::DirectoryCopyMissing, |scene| {
            scene.done(Order::RemoveCopy(RemoveCopy {
                database: DatabaseId::DIRECTORY.0,
                node: 4,
                voters: Vec::new(),
            }));
            rush(scene, Timeouts::WAN);
        }),
        (Code::NoFailoverTarget, |scene| {
            for node in [1, 2, 3] {
                if scene.database("DB1").replica_on(NodeId(node)).is_some_and(|copy| copy.voter) {
                    let order = CopySuspension { database: 16, node, activation_only: true };
                    scene.done(Order::SuspendCopy(order));
                }
            }
            rush(scene, Timeouts::WAN);
        }),
        (Code::UnevenPreferences, |scene| {
            let active = scene.database("DB1").replicas[0].node;
            let other = 3 - active;
            create(scene, "DB2", &[active, other, 3, 4]);
        }),
        (Code::MaximaTooLow, |scene| {
            for node in 1..5 {
                limit(scene, node, 1);
            }
            for name in ["DB2", "DB3", "DB4"] {
                create(scene, name, &[]);
            }
        }),
        (Code::NoMaximum, |scene| limit(scene, 2, 0)),
        (Code::NodeBlocked, |scene| block(scene, 4)),
        (Code::BalancingOff, |scene| set(scene, |settings| settings.auto_balance = false)),
        (Code::ShortMoveBlock, |scene| set(scene, |settings| settings.move_block_ms = 59_999)),
        (Code::QueueLimitHigh, |scene| set(scene, |settings| settings.replay_queue_max = 10_001)),
        (Code::OldOperation, |scene| {
            let (request_id, object) = ("op".to_string(), "node 4".to_string());
            let kind = OperationKind::DrainNode.into();
            let order = BeginOperation { request_id, kind, object, plan: "{}".to_string() };
            scene.run(Order::BeginOperation(order));
            scene.reports.at_ms += scene.control.settings.nag_after_ms;
            rush(scene, Timeouts::WAN);
        }),
        (Code::DiskLow, |scene| scene.node(2).disk_low = true),
        (Code::ClockSkew, |scene| scene.node(2).clock_skew = Millis(2001)),
        (Code::VersionsDiffer, |scene| scene.node(2).version = "1.0.1".into()),
        (Code::InsecureListener, |scene| scene.node(5).insecure = true),
    ];
    for (code, spoil) in worlds {
        let mut scene = tidy(SOUND, &["DB1"]);
        spoil(&mut scene);
        assert_eq!(codes(&scene), [code], "{:#?}", lint(&scene.control, &scene.reports));
    }
}

#[test]
fn what_was_forgotten_is_told_and_maintenance_of_today_is_not() {
    let mut scene = tidy(SOUND, &["DB1"]);
    scene.done(Order::DrainNode(NodeOrder { node: 4 }));
    rush(&mut scene, Timeouts::WAN);
    assert_eq!(codes(&scene), []);
    scene.reports.at_ms += scene.control.settings.nag_after_ms;
    assert_eq!(codes(&scene), [Code::Forgotten]);
    let found = lint(&scene.control, &scene.reports);
    assert!(found[0].found.contains("dagctl node undrain"), "{found:?}");
}

#[test]
fn a_node_that_does_not_tell_is_never_passed_over() {
    let mut scene = tidy(SOUND, &["DB1"]);
    scene.node(2).version = String::new();
    scene.lose(3);
    scene.reports.nodes.remove(3);
    let found = lint(&scene.control, &scene.reports);
    let silent = found.iter().filter(|found| found.code == Code::NodeNotHeard);
    assert_eq!(silent.map(|found| found.node.unwrap().0).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn every_code_stands_in_its_row_and_in_the_document() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lint.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), CODES.len());
    for (i, ((code, name, why), row)) in CODES.iter().zip(rows).enumerate() {
        assert_eq!((*code as usize, code.name(), code.why()), (i, *name, *why));
        assert_eq!(row, alloc::format!("| `{name}` | {why} |"));
    }
}
