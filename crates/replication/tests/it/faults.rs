//! Faults end a copy, and only that copy.

use dag_types::DatabaseId;
use replication::{Event, ProposeError, Role};

use crate::cluster::{Cluster, DB, Ground, patience, until};
use crate::machine::{PANIC, POISON, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_machines_fault_fails_the_copies_and_no_other_group() {
    let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    let other = DatabaseId(DB.0 + 1);
    cluster.create_database(other, 3, 3).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    let poisoned = cluster.group(active, DB).propose(put(POISON, b""), patience()).await;
    assert!(matches!(poisoned, Err(ProposeError::OutcomeUnknown { .. })), "{poisoned:?}");
    for id in 1..=3 {
        until("the copy is Failed", || cluster.status(id).failed.is_some()).await;
        let reason = cluster.status(id).failed.expect("a reason");
        assert!(reason.contains("poison"), "{reason}");
        assert!(cluster.life(id).told(|event| matches!(event, Event::Failed { .. })));
        until("it does not run", || cluster.status(id).role == Role::Stopped).await;
    }
    let refused = cluster.group(active, DB).propose(put("key", b"2"), patience()).await;
    assert!(matches!(refused, Err(ProposeError::Failed { .. })), "{refused:?}");
    cluster.put_in(other, "key", b"3").await;
    cluster.stop().await;
}

/// A copy that panicked would else hang: neither well nor Failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_rule_fails_the_copies_and_does_not_hang_them() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    let broken = cluster.group(active, DB).propose(put(PANIC, b""), patience()).await;
    assert!(matches!(broken, Err(ProposeError::OutcomeUnknown { .. })), "{broken:?}");
    for id in 1..=3 {
        until("the copy is Failed", || cluster.status(id).failed.is_some()).await;
        assert!(cluster.status(id).failed.expect("a reason").contains("a broken rule"));
        until("it does not run", || cluster.status(id).role == Role::Stopped).await;
    }
    cluster.stop().await;
}

/// The log is what acknowledgements stand on: when it cannot be made durable the copy counts for
/// nothing any more, and the others go on without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_synced_fails_its_copy_and_the_others_go_on() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("before", b"1").await;
    let active = cluster.active(DB).await;
    for id in 1..=3 {
        cluster.has(id, "before", b"1").await;
    }
    let sim = cluster.nodes[&active].sim.as_ref().expect("a simulated disk");
    sim.fail_write("db-16", 0, std::io::ErrorKind::Other);
    cluster.put("after", b"2").await;
    until("the copy is Failed", || cluster.status(active).failed.is_some()).await;
    until("it does not run", || cluster.status(active).role == Role::Stopped).await;
    let next = cluster.active(DB).await;
    assert_ne!(next, active);
    cluster.has(next, "before", b"1").await;
    cluster.has(next, "after", b"2").await;
    cluster.stop().await;
}

/// A state that cannot be flushed would let the log grow for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_cannot_be_flushed_fails_its_copy() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    cluster.has(2, "key", b"1").await;
    let sim = cluster.nodes[&2].sim.as_ref().expect("a simulated disk");
    sim.fail_write("/state/", 0, std::io::ErrorKind::Other);
    assert!(cluster.nodes[&2].try_flush(DB).await.is_err());
    until("the copy is Failed", || cluster.status(2).failed.is_some()).await;
    cluster.put("key", b"2").await;
    cluster.has(3, "key", b"2").await;
    cluster.stop().await;
}

/// The same replica twice on one node would vote twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_runs_once_on_a_node() {
    use replication::StartError;

    let mut cluster = Cluster::with_database(1, 1, Ground::Simulated).await;
    let second = cluster.node(1).start_again(DB).await;
    assert_eq!(second.err(), Some(StartError::RunsAlready { database: DB }));
    cluster.stop().await;
}
