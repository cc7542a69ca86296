//! Large entries, many bytes, and where they are refused.

use bytes::Bytes;
use replication::{MAX_COMMAND_BYTES, ProposeError};

use crate::cluster::{Cluster, DB, Ground, patience, until};
use crate::machine::put;

async fn entries_of_every_size(ground: Ground) {
    let cluster = Cluster::with_database(3, 3, ground).await;
    for kib in [0, 1, 64, 511, 512, 513, 1024, 4096, 8192] {
        let body = Bytes::from(vec![kib as u8; kib << 10]);
        cluster.put(&format!("{kib}"), &body).await;
    }
    for id in 1..=3 {
        cluster.has(id, "8192", &vec![0; 8192 << 10]).await;
        assert_eq!(cluster.value(id, "513").map(|body| body.len()), Some(513 << 10));
    }
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_every_size_reach_all_copies() {
    entries_of_every_size(Ground::Simulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_every_size_reach_all_copies_over_grpc_and_rocksdb() {
    entries_of_every_size(Ground::Real).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_beyond_the_limit_is_refused_before_it_is_proposed() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    let active = cluster.active(DB).await;
    let last = cluster.status(active).last;
    let large = put("key", &vec![0; MAX_COMMAND_BYTES]);
    let bytes = large.len();
    let refused = cluster.group(active, DB).propose(large, patience()).await;
    assert_eq!(refused, Err(ProposeError::TooLarge { bytes }));
    assert_eq!(cluster.status(active).last, last);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_bounded_by_bytes_and_the_room_comes_back() {
    let mut options = crate::cluster::options();
    options.group_bytes = MAX_COMMAND_BYTES;
    let mut cluster = Cluster::new(1, Ground::Simulated, options).await;
    cluster.create_database(DB, 1, 1).await;
    cluster.put("before", b"1").await;
    let (group, machine) = (cluster.group(1, DB), cluster.node(1).machines[&DB].clone());
    machine.hold();
    let quarter = vec![7; MAX_COMMAND_BYTES / 4 - 100];
    let under_way: Vec<_> = (0..4)
        .map(|number| {
            let (group, command) = (group.clone(), put(&format!("{number}"), &quarter));
            tokio::spawn(async move { group.propose(command, patience()).await })
        })
        .collect();
    until("all four are in the log", || cluster.status(1).last.is_some_and(|last| last.index >= 7))
        .await;
    let refused = group.propose(put("one more", &quarter), patience()).await;
    assert_eq!(refused, Err(ProposeError::Overloaded));
    machine.release();
    for proposal in under_way {
        proposal.await.expect("no panic").expect("committed");
    }
    group.propose(put("now", &quarter), patience()).await.expect("there is room again");
    cluster.stop().await;
}
