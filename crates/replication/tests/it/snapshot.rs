//! A follower that lags beyond the purged log gets the whole state.

use std::time::Duration;

use dag_types::NodeId;
use replication::{Event, Group, Purge};

use crate::cluster::{Cluster, DB, Ground, until};

fn eager_purge() -> replication::Options {
    let purge = Purge {
        keep_entries: 10,
        lagging_entries: 10,
        batch_entries: 1,
        interval: Duration::from_millis(20),
    };
    replication::Options { purge, ..crate::cluster::options() }
}

/// Writes until the log of every living copy begins behind what node `lagging` has.
async fn purge_beyond(cluster: &Cluster, lagging: u64, has: u64) {
    for round in 0..60 {
        cluster.put(&format!("{round}"), &[round as u8; 20_000]).await;
    }
    let living: Vec<u64> = cluster.living().into_iter().filter(|id| *id != lagging).collect();
    for id in living {
        cluster.nodes[&id].flush(DB).await;
        until("the log is purged", || {
            let status = cluster.status(id);
            assert!(status.purged <= status.flushed, "purged beyond what a crash keeps");
            status.purged.is_some_and(|purged| purged.index > has)
        })
        .await;
    }
}

/// Readers do not stop for a replacement, and must neither hold it up nor trip it.
fn read_all_the_time(group: Group) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let _ = crate::machine::value(&*group.view(), "first");
            let _ = group.digest_marks();
            tokio::task::yield_now().await;
        }
    })
}

async fn a_lagging_follower_gets_a_snapshot(ground: Ground) {
    let mut cluster = Cluster::new(3, ground, eager_purge()).await;
    cluster.create_database(DB, 3, 3).await;
    cluster.put("first", b"1").await;
    cluster.has(3, "first", b"1").await;
    let has = cluster.status(3).last.expect("a log").index;
    cluster.kill(3).await;
    purge_beyond(&cluster, 3, has).await;
    cluster.start_node(3).await;
    let reader = read_all_the_time(cluster.group(3, DB));
    cluster.has(3, "59", &[59; 20_000]).await;
    reader.abort();
    let _ = reader.await;
    assert!(cluster.life(3).told(|event| matches!(event, Event::Installed { .. })));
    assert_eq!(cluster.status(3).failed, None);
    cluster.put("after", b"2").await;
    cluster.has(3, "after", b"2").await;
    cluster.digests_are_equal().await;
    // The state that was put in place is the one that is opened again.
    cluster.kill(3).await;
    cluster.start_node(3).await;
    cluster.has(3, "after", b"2").await;
    cluster.has(3, "7", &[7; 20_000]).await;
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_lags_beyond_the_log_gets_a_snapshot() {
    a_lagging_follower_gets_a_snapshot(Ground::Simulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_lags_beyond_the_log_gets_a_snapshot_over_grpc_and_rocksdb() {
    a_lagging_follower_gets_a_snapshot(Ground::Real).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_waits_for_the_views_of_the_old_state() {
    let mut cluster = Cluster::new(3, Ground::Simulated, eager_purge()).await;
    cluster.create_database(DB, 3, 3).await;
    cluster.put("first", b"1").await;
    cluster.has(3, "first", b"1").await;
    let has = cluster.status(3).last.expect("a log").index;
    let view = cluster.group(3, DB).view();
    cluster.network.cut(NodeId(1), NodeId(3));
    cluster.network.cut(NodeId(2), NodeId(3));
    purge_beyond(&cluster, 3, has).await;
    cluster.network.heal();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!cluster.life(3).told(|event| matches!(event, Event::Installed { .. })));
    assert_eq!(crate::machine::value(&*view, "first").as_deref(), Some(&b"1"[..]));
    drop(view);
    cluster.has(3, "59", &[59; 20_000]).await;
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

/// A power cut during and after the replacement leaves one of the two states, whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_put_in_place_survives_a_power_cut() {
    let mut cluster = Cluster::new(3, Ground::Simulated, eager_purge()).await;
    cluster.create_database(DB, 3, 3).await;
    cluster.put("first", b"1").await;
    cluster.has(3, "first", b"1").await;
    let has = cluster.status(3).last.expect("a log").index;
    cluster.kill(3).await;
    purge_beyond(&cluster, 3, has).await;
    cluster.start_node(3).await;
    until("a state was put in place", || {
        cluster.life(3).told(|event| matches!(event, Event::Installed { .. }))
    })
    .await;
    cluster.crash(3).await;
    cluster.start_node(3).await;
    cluster.has(3, "59", &[59; 20_000]).await;
    cluster.digests_are_equal().await;
    cluster.stop().await;
}
