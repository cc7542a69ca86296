//! A network in parts: what the cut-off side may answer.

use std::time::Duration;

use dag_types::NodeId;
use replication::{ProposeError, ReadError, Role};
use tokio::time::Instant;

use crate::cluster::{Cluster, DB, Ground, options, patience, until};
use crate::machine::put;

fn others(active: u64) -> [u64; 2] {
    match active {
        1 => [2, 3],
        2 => [1, 3],
        _ => [1, 2],
    }
}

fn isolate(cluster: &Cluster, id: u64) {
    others(id).iter().for_each(|other| cluster.network.cut(NodeId(id), NodeId(*other)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_leader_says_that_the_outcome_is_unknown() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("before", b"1").await;
    let old = cluster.active(DB).await;
    isolate(&cluster, old);
    let soon = Instant::now() + Duration::from_millis(100);
    let proposed = cluster.group(old, DB).propose(put("cut", b"2"), soon).await;
    let error = proposed.expect_err("nobody confirmed it");
    assert!(matches!(error, ProposeError::OutcomeUnknown { .. }), "{error}");
    assert!(!error.is_refusal());
    cluster.network.heal();
    cluster.put("after", b"3").await;
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_leader_says_that_the_outcome_is_unknown() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("before", b"1").await;
    let old = cluster.active(DB).await;
    for other in others(old) {
        cluster.network.stall(NodeId(old), NodeId(other));
        cluster.network.stall(NodeId(other), NodeId(old));
    }
    let soon = Instant::now() + Duration::from_millis(100);
    let proposed = cluster.group(old, DB).propose(put("cut", b"2"), soon).await;
    assert!(matches!(proposed, Err(ProposeError::OutcomeUnknown { .. })), "{proposed:?}");
    cluster.network.heal();
    cluster.put("after", b"3").await;
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

/// The old leader still believes to lead; its beliefs prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_leader_answers_no_read_and_takes_no_write_after_another_was_elected() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"old").await;
    let old = cluster.active(DB).await;
    isolate(&cluster, old);
    let group = cluster.group(old, DB);
    let mut new = 0;
    until("another serves", || {
        let found = others(old).into_iter().find(|id| cluster.group(*id, DB).serving().is_ok());
        new = found.unwrap_or_default();
        found.is_some()
    })
    .await;
    let written = cluster.group(new, DB).propose(put("key", b"new"), patience()).await;
    written.expect("the majority goes on");
    let soon = Instant::now() + Duration::from_secs(2);
    let read = group.read_barrier(soon).await.expect_err("no majority confirms it");
    assert!(matches!(read, ReadError::NoQuorum | ReadError::Deadline), "{read}");
    let soon = Instant::now() + Duration::from_secs(2);
    let write = group.propose(put("key", b"stale"), soon).await.expect_err("no majority");
    let expected = matches!(write, ProposeError::NoQuorum | ProposeError::OutcomeUnknown { .. });
    assert!(expected, "{write}");
    cluster.network.heal();
    cluster.has(old, "key", b"new").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_copy_does_not_raise_the_term() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    let term = cluster.status(active).term;
    let cut = others(active)[0];
    isolate(&cluster, cut);
    tokio::time::sleep(Duration::from_millis(6 * options().timeouts.election_max)).await;
    assert_eq!(cluster.status(cut).term, term, "pre-votes that nobody granted");
    cluster.network.heal();
    cluster.put("key", b"2").await;
    cluster.has(cut, "key", b"2").await;
    assert_eq!(cluster.status(active).term, term);
    assert_eq!(cluster.status(active).role, Role::Leader);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_made_anew() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    for round in 0..20 {
        for (a, b) in [(1, 2), (2, 3), (1, 3)] {
            cluster.network.reset(NodeId(a), NodeId(b));
        }
        cluster.put(&format!("key {round}"), b"value").await;
    }
    for id in 1..=3 {
        cluster.has(id, "key 19", b"value").await;
    }
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_only_takes_longer() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.network.delay(Duration::from_millis(10));
    for round in 0..10 {
        cluster.put(&format!("key {round}"), b"value").await;
    }
    let active = cluster.active(DB).await;
    cluster.group(active, DB).read_barrier(patience()).await.expect("a barrier");
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

/// A node that is gone must not cost the others a core: each kind of stream has its pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_is_not_dialled_in_a_loop() {
    let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("before", b"1").await;
    let gone = others(cluster.active(DB).await)[0];
    cluster.kill(gone).await;
    cluster.put("after", b"2").await;
    let (began, before) = (Instant::now(), cluster.network.attempts());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (took, dialled) = (began.elapsed(), cluster.network.attempts() - before);
    // Two nodes, two kinds of stream, a pause of 50 ms each.
    let pauses = took.as_millis() as u64 / 50;
    assert!(dialled <= 4 * (pauses + 1), "{dialled} times in {took:?}");
    assert!(dialled > 0, "it would be found when it comes back");
    cluster.stop().await;
}
