//! The scheduler by itself: what it says for what happened.

use super::*;

const A: LogKey = LogKey(1);
const B: LogKey = LogKey(2);

fn scheduler() -> Scheduler {
    let rules = Rules { write_bytes_max: 1000, claim_after: Millis(10) };
    let mut scheduler = Scheduler::new(rules);
    for log in [A, B] {
        assert_eq!(scheduler.step(Millis(0), Input::Attached(log)), []);
    }
    scheduler
}

fn queued(log: LogKey, bytes: usize) -> Input {
    Input::Queued { log, bytes }
}

fn write(log: LogKey, jobs: usize) -> Action {
    Action::Write { log, jobs }
}

fn wrote(log: LogKey) -> Input {
    Input::Wrote { log, ok: true }
}

fn synced() -> Input {
    Input::Synced { failed: Vec::new() }
}

#[test]
fn a_round_begins_with_the_first_job_and_does_not_linger() {
    let mut scheduler = scheduler();
    assert_eq!(scheduler.step(Millis(0), queued(A, 10)), [write(A, 1)]);
}

#[test]
fn what_arrives_in_a_round_goes_into_the_next_one_with_one_sync_for_all() {
    let mut scheduler = scheduler();
    let now = Millis(0);
    assert_eq!(scheduler.step(now, queued(A, 10)), [write(A, 1)]);
    for input in [queued(A, 10), queued(B, 10), queued(A, 10)] {
        assert_eq!(scheduler.step(now, input), []);
    }
    assert_eq!(scheduler.step(now, wrote(A)), [Action::Sync { logs: vec![A] }]);
    let next = [Action::Complete { log: A, jobs: 1 }, write(A, 2), write(B, 1)];
    assert_eq!(scheduler.step(now, synced()), next);
    assert_eq!(scheduler.step(now, wrote(A)), []);
    assert_eq!(scheduler.step(now, wrote(B)), [Action::Sync { logs: vec![A, B] }]);
}

#[test]
fn nothing_is_complete_before_its_sync() {
    let mut scheduler = scheduler();
    let mut actions = scheduler.step(Millis(0), queued(A, 10));
    actions.extend(scheduler.step(Millis(0), wrote(A)));
    assert!(!actions.iter().any(|action| matches!(action, Action::Complete { .. })));
    assert_eq!(scheduler.step(Millis(0), synced()), [Action::Complete { log: A, jobs: 1 }]);
}

#[test]
fn a_batch_holds_no_more_than_it_may_except_for_one_large_job() {
    let mut scheduler = scheduler();
    let now = Millis(0);
    assert_eq!(scheduler.step(now, queued(A, 5000)), [write(A, 1)]);
    for bytes in [600, 300, 200, 50] {
        scheduler.step(now, queued(A, bytes));
    }
    scheduler.step(now, wrote(A));
    assert_eq!(scheduler.step(now, synced())[1..], [write(A, 2)]);
    scheduler.step(now, wrote(A));
    assert_eq!(scheduler.step(now, synced())[1..], [write(A, 2)]);
}

#[test]
fn an_idle_log_claims_its_last_batch_once() {
    let mut scheduler = scheduler();
    scheduler.step(Millis(0), queued(A, 10));
    scheduler.step(Millis(0), wrote(A));
    scheduler.step(Millis(5), synced());
    assert_eq!(scheduler.next_deadline(), Some(Millis(10)), "log B was just opened");
    assert_eq!(scheduler.step(Millis(10), Input::Tick), [write(B, 0)]);
    scheduler.step(Millis(10), wrote(B));
    scheduler.step(Millis(10), synced());
    assert_eq!(scheduler.next_deadline(), Some(Millis(15)));
    assert_eq!(scheduler.step(Millis(14), Input::Tick), []);
    assert_eq!(scheduler.step(Millis(15), Input::Tick), [write(A, 0)]);
    scheduler.step(Millis(15), wrote(A));
    assert_eq!(scheduler.step(Millis(15), synced()), []);
    assert_eq!(scheduler.next_deadline(), None, "a claim needs no claim of its own");
}

#[test]
fn a_failed_write_ends_its_log_and_no_other() {
    let mut scheduler = scheduler();
    let now = Millis(0);
    scheduler.step(now, queued(A, 10));
    scheduler.step(now, queued(B, 10));
    scheduler.step(now, wrote(A));
    scheduler.step(now, synced());
    assert_eq!(scheduler.step(now, Input::Wrote { log: B, ok: false }), [Action::Fail { log: B }]);
    assert_eq!(scheduler.step(now, queued(B, 10)), [], "it takes no more");
    assert_eq!(scheduler.step(now, queued(A, 10)), [write(A, 1)]);
}

#[test]
fn a_failed_sync_ends_the_logs_it_was_for_and_is_not_tried_again() {
    let mut scheduler = scheduler();
    let now = Millis(0);
    scheduler.step(now, queued(A, 10));
    scheduler.step(now, wrote(A));
    let failed = Input::Synced { failed: vec![A] };
    assert_eq!(scheduler.step(now, failed), [Action::Fail { log: A }]);
    assert!(scheduler.is_idle());
}

#[test]
fn a_log_that_is_closed_in_a_round_holds_up_nobody() {
    let mut scheduler = scheduler();
    let now = Millis(0);
    scheduler.step(now, queued(A, 10));
    scheduler.step(now, queued(B, 10));
    assert_eq!(scheduler.step(now, Input::Detached(A)), [write(B, 1)]);
    assert_eq!(scheduler.step(now, wrote(A)), []);
    assert_eq!(scheduler.step(now, wrote(B)), [Action::Sync { logs: vec![B] }]);
}
