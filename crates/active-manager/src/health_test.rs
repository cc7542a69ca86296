//! Each code has a world that shows it.

use dag_types::{Lineage, Millis};

use super::*;
use crate::control::Order;
use crate::control::command::{CopySuspension, NodeOrder};
use crate::scene::Scene;

fn scene() -> Scene {
    Scene::new("A1 A2 B3 B4 C5w", &["DB1"])
}

fn codes(scene: &Scene) -> Vec<Code> {
    findings(&scene.control, &scene.reports).iter().map(|finding| finding.code).collect()
}

#[test]
fn a_healthy_dag_has_no_findings() {
    assert_eq!(findings(&scene().control, &scene().reports), []);
}

#[test]
fn every_check_of_exchange_has_a_world_that_fails_it() {
    let worlds: [fn(&mut Scene); 18] = [
        |scene| scene.node(2).control_copy_runs = false,
        |scene| drop(scene.reports.nodes.remove(1)),
        |scene| scene.reports.control.leader = None,
        |scene| scene.node(2).admin_answers = false,
        |scene| scene.node(2).reachable = false,
        |scene| scene.copy("directory", 1).status = CopyStatus::Dismounted,
        |scene| scene.lose(2),
        |scene| scene.node(2).does_not_hear.push(NodeId(3)),
        |scene| {
            scene.lose(5);
            scene.lose(4);
        },
        |scene| scene.lose(5),
        |scene| {
            scene.lose(2);
            scene.lose(3);
            scene.lose(4);
        },
        |scene| scene.copy("DB1", 1).status = CopyStatus::Dismounted,
        |scene| {
            let order = CopySuspension { database: 16, node: 2, activation_only: true };
            scene.done(Order::SuspendCopy(order));
        },
        |scene| scene.copy("DB1", 2).status = CopyStatus::FailedAndSuspended,
        |scene| scene.copy("DB1", 2).status = CopyStatus::Initializing,
        |scene| scene.copy("DB1", 2).status = CopyStatus::DisconnectedAndHealthy,
        |scene| scene.copy("DB1", 2).copy_queue = 1001,
        |scene| scene.copy("DB1", 2).replay_queue = 1001,
    ];
    for ((exchange, code), spoil) in EXCHANGE.iter().zip(worlds) {
        let mut scene = scene();
        spoil(&mut scene);
        assert!(codes(&scene).contains(code), "{exchange}: {:?}", codes(&scene));
    }
}

#[test]
fn what_exchange_does_not_have_is_found_too() {
    let worlds: [(Code, fn(&mut Scene)); 9] = [
        (Code::GateClosed, |scene| scene.node(2).gate = GateReport::Closed("x".into())),
        (Code::LineageDiffers, |scene| scene.node(2).lineage = Lineage::default()),
        (Code::ControlMajorityLost, |scene| (3..6).for_each(|node| scene.lose(node))),
        (Code::DatabaseMajorityLost, |scene| (2..4).for_each(|node| scene.lose(node))),
        (Code::DatabaseOneFromStopping, |scene| scene.lose(3)),
        (Code::NotOnPreferredCopy, |scene| scene.mount("DB1", 2)),
        (Code::DiskLow, |scene| scene.node(2).disk_low = true),
        (Code::ClockSkew, |scene| scene.node(2).clock_skew = Millis(3000)),
        (Code::ContentDiffers, |scene| scene.copy("DB1", 2).digest_equal = false),
    ];
    for (code, spoil) in worlds {
        let mut scene = scene();
        spoil(&mut scene);
        assert!(codes(&scene).contains(&code), "{code:?}: {:?}", codes(&scene));
    }
    let mut scene = scene();
    scene.done(Order::DrainNode(NodeOrder { node: 2 }));
    scene.reports.at_ms += scene.control.settings.nag_after_ms;
    assert_eq!(codes(&scene), [Code::ForgottenByPeople]);
}

#[test]
fn errors_come_before_warnings() {
    let mut scene = scene();
    scene.mount("DB1", 2);
    scene.copy("DB1", 3).status = CopyStatus::Failed;
    assert_eq!(codes(&scene)[0], Code::CopyFailed);
    assert!(!codes(&scene).last().unwrap().is_error());
}

#[test]
fn every_code_stands_in_its_row_and_in_the_document() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/health.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), CODES.len());
    for (i, ((code, name, advice), row)) in CODES.iter().zip(rows).enumerate() {
        assert_eq!((*code as usize, code.name(), code.advice()), (i, *name, *advice));
        let kind = if code.is_error() { "error" } else { "warning" };
        let exchange =
            EXCHANGE.iter().find(|(_, same)| same == code).map_or("-", |(check, _)| check);
        assert_eq!(row, format!("| `{name}` | {kind} | {advice} | {exchange} |"));
    }
}
