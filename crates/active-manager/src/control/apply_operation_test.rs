//! Steps of long operations, leaders that change, administrators that meet.

use super::*;
use crate::control::Order;
use crate::control::operation::NextStep;
use crate::scene::{Scene, TERM};

fn begin(request: &str, object: &str) -> Order {
    Order::BeginOperation(BeginOperation {
        request_id: request.into(),
        kind: OperationKind::MoveDatabase.into(),
        object: object.into(),
        plan: "p1".into(),
    })
}

fn begin_step(step: u32, term: u64) -> Order {
    let what = "transfer".into();
    Order::BeginStep(BeginStep { operation: 1, step, term, node: 2, what, undoes: false })
}

fn end_step(step: u32, term: u64) -> Order {
    let outcome = "done".into();
    Order::EndStep(EndStep { operation: 1, step, term, succeeded: true, outcome })
}

fn end(ending: Ending) -> Order {
    Order::EndOperation(EndOperation {
        operation: 1,
        ending: ending.into(),
        outcome: String::new(),
    })
}

fn running() -> Scene {
    let mut scene = Scene::new("A1 A2 A3", &["DB1"]);
    let begun = OperationBegun { operation: 1, replayed: false };
    assert_eq!(scene.run(begin("r1", "database 16")), Outcome::OperationBegun(begun));
    scene
}

#[test]
fn two_administrators_cannot_move_one_database_at_once() {
    let mut scene = running();
    assert_eq!(scene.refused(begin("r2", "database 16")), "operation-running");
    let other = scene.run(begin("r3", "database 17"));
    assert_eq!(other, Outcome::OperationBegun(OperationBegun { operation: 2, replayed: false }));
    scene.done(end(Ending::Done));
    assert!(matches!(scene.run(begin("r4", "database 16")), Outcome::OperationBegun(_)));
}

#[test]
fn the_same_command_twice_begins_one_operation() {
    let mut scene = running();
    let again = OperationBegun { operation: 1, replayed: true };
    assert_eq!(scene.run(begin("r1", "database 16")), Outcome::OperationBegun(again));
    assert_eq!(scene.control.operations.len(), 1);
}

#[test]
fn a_step_is_begun_then_ended_then_the_next_one_follows() {
    let mut scene = running();
    assert_eq!(scene.refused(begin_step(2, TERM)), "step-order");
    scene.done(begin_step(1, TERM));
    assert_eq!(scene.refused(begin_step(1, TERM)), "step-begun");
    assert_eq!(scene.refused(begin_step(2, TERM)), "step-order");
    assert_eq!(scene.refused(end(Ending::Done)), "operation-running");
    scene.done(end_step(1, TERM));
    assert_eq!(scene.refused(end_step(1, TERM)), "step-begun");
    scene.done(begin_step(2, TERM));
}

#[test]
fn a_later_leader_resumes_the_step_that_has_no_answer() {
    let mut scene = running();
    scene.done(begin_step(1, TERM));
    scene.term = TERM + 1;
    let operation = scene.control.operations[0].clone();
    assert!(matches!(operation.next_step(TERM), NextStep::Wait(_)));
    assert!(matches!(operation.next_step(TERM + 1), NextStep::Resume(step) if step.step == 1));
    assert_eq!(scene.refused(end_step(1, TERM + 1)), "step-begun");
    scene.done(begin_step(1, TERM + 1));
    scene.done(end_step(1, TERM + 1));
    assert_eq!(scene.control.operations[0].next_step(TERM + 1), NextStep::Begin(2));
}

#[test]
fn what_a_deposed_leader_proposed_has_no_effect() {
    let mut scene = running();
    scene.term = TERM + 1;
    assert_eq!(scene.refused(begin_step(1, TERM)), "control-term");
    scene.done(begin_step(1, TERM + 1));
    assert_eq!(scene.refused(end_step(1, TERM)), "control-term");
}

#[test]
fn a_cancelled_operation_only_takes_back() {
    let mut scene = running();
    scene.done(begin_step(1, TERM));
    scene.done(end(Ending::Cancel));
    scene.done(end_step(1, TERM));
    assert_eq!(scene.refused(begin_step(2, TERM)), "operation-running");
    let undo = BeginStep {
        operation: 1,
        step: 2,
        term: TERM,
        node: 2,
        what: "transfer back".into(),
        undoes: true,
    };
    scene.done(Order::BeginStep(undo));
    scene.done(end_step(2, TERM));
    scene.done(end(Ending::Cancelled));
    assert_eq!(scene.control.operations[0].next_step(TERM), NextStep::Over);
    assert_eq!(scene.refused(end(Ending::Failed)), "operation-running");
}

#[test]
fn an_unknown_operation_is_refused_and_old_finished_ones_are_forgotten() {
    let mut scene = Scene::new("A1", &[]);
    assert_eq!(scene.refused(begin_step(1, TERM)), "operation-exists");
    scene.run(begin("r", "x"));
    scene.done(end(Ending::Done));
    for i in 0..OPERATIONS_KEPT {
        scene.run(begin(&format!("r{i}"), &format!("x{i}")));
    }
    assert_eq!(scene.control.operations.len() as u64, OPERATIONS_KEPT);
    assert!(scene.control.operations.iter().all(|operation| operation.operation > 1));
}
