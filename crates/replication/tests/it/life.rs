//! Electing, writing, dying, coming back.

use bytes::Bytes;
use replication::{Event, Role};

use crate::cluster::{Cluster, DB, Ground, patience, until};

async fn writes_reach_all_copies(nodes: u64, ground: Ground) {
    let cluster = Cluster::with_database(nodes, nodes, ground).await;
    for number in 0..20 {
        cluster.put(&format!("key {number}"), format!("value {number}").as_bytes()).await;
    }
    for id in cluster.living() {
        cluster.has(id, "key 19", b"value 19").await;
        assert_eq!(cluster.value(id, "key 3"), Some(Bytes::from_static(b"value 3")));
    }
    let active = cluster.active(DB).await;
    let at = cluster.group(active, DB).read_barrier(patience()).await.expect("a barrier");
    assert!(Some(at) <= cluster.status(active).applied);
    cluster.digests_are_equal().await;
    assert!(cluster.life(active).told(|event| matches!(event, Event::Mounted(_))));
    assert!(
        cluster
            .life(active)
            .told(|event| { matches!(event, Event::Role { role: Role::Leader, .. }) })
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_copies_elect_one_that_serves_and_all_get_its_writes() {
    writes_reach_all_copies(3, Ground::Simulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_copies_elect_one_that_serves_and_all_get_its_writes() {
    writes_reach_all_copies(5, Ground::Simulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_copies_over_grpc_and_rocksdb_get_all_writes() {
    writes_reach_all_copies(3, Ground::Real).await;
}

#[tokio::test]
async fn one_thread_is_enough_for_a_whole_cluster() {
    writes_reach_all_copies(3, Ground::Simulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_copy_serves_alone() {
    writes_reach_all_copies(1, Ground::Simulated).await;
}

async fn a_killed_active_loses_nothing(ground: Ground) {
    let mut cluster = Cluster::with_database(3, 3, ground).await;
    cluster.put("before", b"1").await;
    let first = cluster.active(DB).await;
    cluster.kill(first).await;
    let second = cluster.active(DB).await;
    assert_ne!(first, second);
    cluster.put("meanwhile", b"2").await;
    cluster.has(second, "before", b"1").await;
    cluster.start_node(first).await;
    cluster.has(first, "before", b"1").await;
    cluster.has(first, "meanwhile", b"2").await;
    cluster.put("after", b"3").await;
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_active_comes_back_from_its_files_and_nothing_is_lost() {
    a_killed_active_loses_nothing(Ground::Simulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_active_over_grpc_and_rocksdb_comes_back_and_nothing_is_lost() {
    a_killed_active_loses_nothing(Ground::Real).await;
}

/// What was acknowledged survives the loss of everything that no disk had synced.
#[tokio::test(flavor = "multi_thread")]
async fn power_loss_of_all_nodes_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    for round in 0..4 {
        for number in 0..10 {
            cluster.put(&format!("{round}-{number}"), b"body").await;
        }
        for id in cluster.living() {
            cluster.crash(id).await;
        }
        for id in 1..=3 {
            cluster.start_node(id).await;
        }
    }
    let active = cluster.active(DB).await;
    cluster.group(active, DB).read_barrier(patience()).await.expect("a barrier");
    for round in 0..4 {
        for number in 0..10 {
            assert!(cluster.value(active, &format!("{round}-{number}")).is_some());
        }
    }
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_leader_does_not_lead_in_its_old_term() {
    let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"value").await;
    let leader = cluster.active(DB).await;
    let term = cluster.status(leader).term;
    for id in cluster.living() {
        cluster.kill(id).await;
    }
    for id in 1..=3 {
        cluster.start_node(id).await;
    }
    let again = cluster.active(DB).await;
    assert!(cluster.status(again).term > term);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generation_stands_in_every_term() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"value").await;
    let active = cluster.active(DB).await;
    let status = cluster.status(active);
    assert_eq!(dag_types::Generation::of_term(status.term), dag_types::Generation::FIRST);
    let first = status.mounted.expect("a mount").at;
    assert_eq!(dag_types::Generation::of_term(first.term), dag_types::Generation::FIRST);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_initialised_once() {
    use std::collections::BTreeMap;

    use dag_types::NodeId;
    use replication::{InitializeError, Member};

    use crate::cluster::replica;

    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"value").await;
    until("node 2 has a log", || cluster.status(2).last.is_some()).await;
    let alone = BTreeMap::from([(replica(2), Member { node: NodeId(2) })]);
    let again = cluster.group(2, DB).initialize(&alone).await;
    assert_eq!(again, Err(InitializeError::Already));
    let others = BTreeMap::from([(replica(1), Member { node: NodeId(1) })]);
    let strange = cluster.group(2, DB).initialize(&others).await;
    assert_eq!(strange, Err(InitializeError::NotAMember));
    cluster.stop().await;
}
