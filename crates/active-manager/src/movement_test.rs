//! Moves: what is checked, what may be skipped, when a plan is too old.

use super::*;
use crate::control::MoveCause;
use crate::control::Order;
use crate::control::command::{
    CopySuspension, NodeOrder, RecordMove, SeedCopy, SetNodePolicy, SetPreference,
};
use crate::report::GateReport;
use crate::scene::Scene;
use dag_types::CopyStatus;

fn request(target: Target, skip: &[&str]) -> MoveRequest {
    let skip = skip.iter().map(ToString::to_string).collect();
    MoveRequest { target, motive: Motive::Operator, skip }
}

fn decide(scene: &Scene, target: Target, skip: &[&str]) -> MoveDecision {
    let database = scene.database("DB1");
    decide_move(&scene.control, &scene.reports, &database, &request(target, skip))
}

fn to(node: u64) -> Target {
    Target::Node(NodeId(node))
}

fn refused(scene: &Scene, target: Target, skip: &[&str]) -> String {
    let decision = decide(scene, target, skip);
    assert_eq!(decision.plan, None);
    decision.refusal("DB1").unwrap().check
}

#[test]
fn a_move_within_the_site_holds_awaits_transfers_and_mounts() {
    let scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    let plan = decide(&scene, to(2), &[]).plan.unwrap();
    assert_eq!((plan.from, plan.to), (Some(NodeId(1)), NodeId(2)));
    let two = NodeId(2);
    let steps = [
        MoveStep::HoldWrites,
        MoveStep::AwaitMatch(two),
        MoveStep::Transfer(two),
        MoveStep::AwaitMount(two),
    ];
    assert_eq!(plan.steps, steps);
}

#[test]
fn a_move_to_another_site_changes_the_voters_first() {
    let scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    for target in [Target::Site("B".into()), to(3), to(4)] {
        let plan = decide(&scene, target, &[]).plan.unwrap();
        let MoveStep::ChangeVoters(voters) = &plan.steps[0] else { panic!("{plan:?}") };
        assert_eq!(voters, &[NodeId(3), NodeId(4), NodeId(1)]);
    }
}

#[test]
fn every_target_that_cannot_serve_is_refused_by_its_own_check() {
    let cases: [(&str, fn(&mut Scene)); 9] = [
        ("not-active-already", |scene| scene.mount("DB1", 2)),
        ("reachable", |scene| scene.lose(2)),
        ("gate-open", |scene| scene.node(2).gate = GateReport::Closed("lease ended".into())),
        ("copy-status", |scene| scene.copy("DB1", 2).status = CopyStatus::Failed),
        ("digest", |scene| scene.copy("DB1", 2).digest_equal = false),
        ("suspended", |scene| {
            let (database, node, activation_only) = (16, 2, false);
            scene.done(Order::SuspendCopy(CopySuspension { database, node, activation_only }));
        }),
        ("no-seed", |scene| {
            let request_id = "seed".into();
            let seed = SeedCopy { request_id, database: 16, node: 2, ..SeedCopy::default() };
            scene.run(Order::SeedCopy(seed));
        }),
        ("maximum-active", |scene| {
            scene.mount("DB2", 2);
            let maximum_active = Some(1);
            scene.done(Order::SetNodePolicy(SetNodePolicy {
                node: 2,
                maximum_active,
                ..SetNodePolicy::default()
            }));
        }),
        ("control-leader", |scene| scene.reports.control.leader = None),
    ];
    for (check, spoil) in cases {
        let mut scene = Scene::new("A1 A2 A3", &["DB1", "DB2"]);
        spoil(&mut scene);
        assert_eq!(refused(&scene, to(2), &[check]), "skip-known", "{check} cannot be skipped");
        assert_eq!(refused(&scene, to(2), &[]), check);
    }
}

#[test]
fn a_skippable_check_is_skipped_by_its_own_name_only() {
    let cases: [(&str, fn(&mut Scene)); 4] = [
        ("node-policy", |scene| scene.done(Order::DrainNode(NodeOrder { node: 2 }))),
        ("activation-suspended", |scene| {
            let (database, node, activation_only) = (16, 2, true);
            scene.done(Order::SuspendCopy(CopySuspension { database, node, activation_only }));
        }),
        ("copy-queue", |scene| scene.copy("DB1", 2).copy_queue = 1001),
        ("replay-queue", |scene| scene.copy("DB1", 2).replay_queue = 1001),
    ];
    for (check, spoil) in cases {
        let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
        spoil(&mut scene);
        assert_eq!(refused(&scene, to(2), &["redundancy"]), check);
        let decision = decide(&scene, to(2), &[check]);
        assert!(decision.plan.is_some());
        let skipped: Vec<&str> =
            decision.checks.iter().filter(|c| c.skipped).map(|c| c.name).collect();
        assert_eq!(skipped, [check]);
    }
}

#[test]
fn a_refusal_names_check_value_limit_and_the_way_out() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    scene.copy("DB1", 2).copy_queue = 5000;
    let refusal = decide(&scene, to(2), &[]).refusal("DB1").unwrap();
    assert_eq!(
        alloc::format!("{refusal}"),
        "copy-queue: DB1: 5000 entries, needed: at most 1000 entries; \
         `--skip copy-queue` moves it all the same"
    );
}

#[test]
fn an_unknown_target_or_skip_is_refused() {
    let scene = Scene::new("A1 A2 A3", &["DB1"]);
    assert_eq!(refused(&scene, to(9), &[]), "copy-exists");
    let decision = decide(&scene, to(2), &["copy-que"]);
    let refusal = decision.refusal("DB1").unwrap();
    assert_eq!((&refusal.check[..], &refusal.limit[..]), ("skip-known", "perhaps copy-queue"));
}

#[test]
fn without_a_target_the_best_copy_is_chosen_and_every_verdict_is_shown() {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    let decision = decide(&scene, Target::Best, &[]);
    assert_eq!(decision.plan.unwrap().to, NodeId(2));
    assert_eq!(decision.selection.unwrap().verdicts.len(), 3);
    scene.lose(2);
    scene.lose(3);
    let decision = decide(&scene, Target::Best, &[]);
    let refusal = decision.refusal("DB1").unwrap();
    assert_eq!(refusal.check, "best-copy");
    assert!(refusal.value.contains("node 2: not eligible: node 2 is not reachable"), "{refusal}");
}

#[test]
fn a_plan_is_refused_once_what_it_rests_on_has_changed() {
    let changes: [(&str, fn(&mut Scene)); 3] = [
        ("the active copy", |scene| scene.mount("DB1", 3)),
        ("a policy or suspension", |scene| scene.done(Order::DrainNode(NodeOrder { node: 3 }))),
        ("a policy or suspension", |scene| {
            let nodes = alloc::vec![2, 1, 3];
            scene.done(Order::SetPreference(SetPreference { database: 16, nodes }));
        }),
    ];
    for (part, change) in changes {
        let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
        let token = decide(&scene, to(2), &[]).plan.unwrap().token;
        let read: PlanToken = token.to_string().parse().unwrap();
        let now = |scene: &Scene| {
            PlanToken::of(&scene.control, &scene.reports, &scene.database("DB1"), NodeId(2))
        };
        assert_eq!(read.check(&now(&scene)), Ok(()));
        // A queue that grew does not make a plan stale: its checks are made anew.
        scene.copy("DB1", 2).copy_queue = 5;
        assert_eq!(read.check(&now(&scene)), Ok(()));
        change(&mut scene);
        assert_eq!(read.check(&now(&scene)), Err(StalePlan::Changed(part)));
    }
    for text in ["", "p1", "p1-1-2-3-4", "p1-00000000-00000000-00000000", "p1-zzzzzzzz-0-0-0"] {
        assert_eq!(text.parse::<PlanToken>(), Err(StalePlan::Unreadable), "{text}");
    }
}

#[test]
fn a_site_move_keeps_the_block_time_and_a_move_within_the_site_does_not() {
    let mut scene = Scene::new("A1 A2 B3 B4 C5w", &["DB1"]);
    let cause = MoveCause::Site.into();
    let order =
        RecordMove { database: 16, from: 3, to: 1, cause, acknowledged: false, operation: 0 };
    scene.done(Order::RecordMove(order));
    scene.reports.at_ms += 599_000;
    assert_eq!(refused(&scene, to(3), &[]), "move-block-time");
    assert!(decide(&scene, to(3), &["move-block-time"]).plan.is_some());
    assert!(decide(&scene, to(2), &[]).plan.is_some());
    scene.reports.at_ms += 1000;
    assert!(decide(&scene, to(3), &[]).plan.is_some());
}
