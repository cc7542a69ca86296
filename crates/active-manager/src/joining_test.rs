//! Joins that are planned, and those that are refused, each by its own check.

use super::*;
use crate::control::OperationKind;
use crate::control::Order;
use crate::control::command::{AdmitNode, BeginOperation};
use crate::control::definition::example;
use crate::scene::{Scene, TERM};

const VERSION: &str = "1.0.0";
const OVER: Option<Millis> = Some(Millis(0));

fn candidate(word: &str) -> Candidate {
    let node = example(word).nodes.into_iter().next().unwrap();
    let answer = Answer {
        node: node.node,
        name: node.name.clone(),
        store: StoreId([99; 16]),
        dag: None,
        version: VERSION.into(),
    };
    Candidate { node, answer: Ok(answer) }
}

fn plan(scene: &Scene, kind: Kind, candidate: &Candidate) -> Joining {
    plan_joining(&scene.control, &scene.reports, kind, candidate, VERSION, OVER)
}

fn refused(scene: &Scene, kind: Kind, candidate: &Candidate) -> String {
    let refusal = refusal(&plan(scene, kind, candidate).checks, &candidate.node.name);
    refusal.map_or_else(|| "nothing".into(), |refusal| refusal.check)
}

fn numbers(voters: Option<Vec<NodeId>>) -> Vec<u64> {
    voters.unwrap_or_default().into_iter().map(|node| node.0).collect()
}

#[test]
fn the_voters_are_placed_by_the_one_rule_that_made_the_dag() {
    for (shape, word, kind, voters) in [
        ("A1 A2 A3", "A4", Kind::New, &[][..]),
        ("A1 A2 A3 A4", "A5", Kind::New, &[1, 2, 3, 4, 5]),
        ("A1 A2 B3 B4", "C5w", Kind::New, &[1, 2, 3, 4, 5]),
        ("A1 A2 B3 C5w", "B4", Kind::New, &[1, 2, 3, 4, 5]),
        ("A1 A2 A3", "A3", Kind::Store, &[1, 2, 3]),
        ("A1 A2 A3 A4", "A4", Kind::Store, &[]),
        ("A1 A2 B3 B4 C5w", "D6w", Kind::Witness(NodeId(5)), &[1, 2, 3, 4, 6]),
    ] {
        let mut scene = Scene::new(shape, &[]);
        let candidate = candidate(word);
        if kind == Kind::Store {
            scene.lose(candidate.node.node);
        }
        assert_eq!(refused(&scene, kind, &candidate), "nothing", "{word} into {shape}");
        assert_eq!(numbers(plan(&scene, kind, &candidate).voters), voters, "{word} into {shape}");
        // What a DAG of these nodes would have been made with.
        let mut whole = shape.to_string();
        if kind == Kind::New {
            whole.push_str(&format!(" {word}"));
            let made = placement::control_voters(&example(&whole).dag()).voters;
            let after = plan(&scene, kind, &candidate).voters;
            assert_eq!(after.unwrap_or_else(|| voters_of(&scene.control)), made);
        }
    }
}

#[test]
fn every_node_that_may_not_join_is_refused_by_its_own_check() {
    let spoilt = |spoil: fn(&mut Answer)| {
        let mut candidate = candidate("A6");
        spoil(candidate.answer.as_mut().unwrap());
        candidate
    };
    let scene = Scene::new("A1 A2 B3 B4 C5w", &[]);
    let silent = Candidate { answer: Err("connection refused".into()), ..candidate("A6") };
    let mut renamed = candidate("A6");
    renamed.node.name = "n1".into();
    renamed.answer.as_mut().unwrap().name = "n1".into();
    let mut beside = candidate("A6");
    beside.node.client_address = "127.0.0.1:1".into();
    for (check, candidate) in [
        ("node-answers", silent),
        ("node-number", spoilt(|answer| answer.node = 7)),
        ("node-name", spoilt(|answer| answer.name = "other".into())),
        ("other-dag", spoilt(|answer| answer.dag = Some(DagId([9; 16])))),
        ("node-empty", spoilt(|answer| answer.dag = Some(DagId([7; 16])))),
        ("same-version", spoilt(|answer| answer.version = "0.9.0".into())),
        ("name-free", renamed),
        ("address-free", beside),
        ("number-free", {
            let mut taken = candidate("A1");
            taken.node.name = "n9".into();
            taken.answer.as_mut().unwrap().name = "n9".into();
            taken
        }),
        ("site-known", candidate("Z6")),
        ("one-witness", candidate("D6w")),
    ] {
        assert_eq!(refused(&scene, Kind::New, &candidate), check);
    }
    let worlds: [(&str, fn(&mut Scene)); 5] = [
        ("control-leader", |scene| scene.reports.control.leader = None),
        ("site-list", |scene| scene.lose(2)),
        ("control-majority", |scene| {
            scene.lose(3);
            scene.lose(4);
            scene.lose(5);
        }),
        ("operation-running", |scene| {
            let (request_id, object) = ("r".into(), MEMBERS.into());
            let kind = OperationKind::RemoveNode.into();
            let order = BeginOperation { request_id, kind, object, plan: String::new() };
            scene.run(Order::BeginOperation(order));
        }),
        ("one-at-a-time", |scene| {
            let node = Some(candidate("A7").node);
            let store = alloc::vec![98; 16].into();
            scene.done(Order::AdmitNode(AdmitNode {
                node,
                store,
                term: TERM,
                ..AdmitNode::default()
            }));
        }),
    ];
    for (check, spoil) in worlds {
        let mut scene = Scene::new("A1 A2 B3 B4 C5w", &[]);
        assert_eq!(refused(&scene, Kind::New, &candidate("A6")), "nothing");
        spoil(&mut scene);
        assert_eq!(refused(&scene, Kind::New, &candidate("A6")), check);
    }
}

#[test]
fn a_node_that_answers_or_may_still_serve_is_not_replaced() {
    let mut scene = Scene::new("A1 A2 A3", &[]);
    let new = candidate("A3");
    assert_eq!(refused(&scene, Kind::Store, &new), "old-silent");
    scene.lose(3);
    assert_eq!(refused(&scene, Kind::Store, &new), "nothing");
    for wait in [None, Some(Millis(1))] {
        let plan = plan_joining(&scene.control, &scene.reports, Kind::Store, &new, VERSION, wait);
        assert_eq!(refusal(&plan.checks, "n3").unwrap().check, "takeover-wait");
    }
    let mut old = new.clone();
    old.answer.as_mut().unwrap().store = StoreId([3; 16]);
    assert_eq!(refused(&scene, Kind::Store, &old), "old-silent", "it was not heard, and answers");
    scene.lose(2);
    assert_eq!(refused(&scene, Kind::Store, &new), "control-majority");
    assert_eq!(refused(&scene, Kind::Store, &candidate("A9")), "member");
}

#[test]
fn a_node_that_was_admitted_with_this_store_goes_on() {
    let mut scene = Scene::new("A1 A2 A3", &[]);
    let mut new = candidate("A4");
    let (node, store) = (Some(new.node.clone()), alloc::vec![99; 16].into());
    scene.done(Order::AdmitNode(AdmitNode { node, store, term: TERM, ..AdmitNode::default() }));
    new.answer.as_mut().unwrap().dag = Some(DagId([7; 16]));
    assert_eq!(refused(&scene, Kind::New, &new), "nothing");
    new.answer.as_mut().unwrap().store = StoreId([98; 16]);
    assert_eq!(refused(&scene, Kind::New, &new), "node-empty");
}
