//! A copy that started a moment ago has forgotten what it promised.

use dag_types::NodeId;
use replication::Role;

use crate::cluster::{Cluster, DB, Ground, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_copy_elects_nobody_while_it_may_have_promised_a_lease() {
    let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let leader = cluster.active(DB).await;
    let (restarted, candidate) = match leader {
        1 => (2, 3),
        2 => (1, 3),
        _ => (1, 2),
    };
    // The candidate hears nothing of the leader, and would be elected by one more vote.
    cluster.network.cut(NodeId(leader), NodeId(candidate));
    cluster.kill(restarted).await;
    cluster.network.cut(NodeId(leader), NodeId(restarted));
    cluster.start_node(restarted).await;
    assert!(cluster.status(restarted).vote_quarantine);
    while cluster.status(restarted).vote_quarantine {
        assert_ne!(cluster.status(candidate).role, Role::Leader);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    until("one of the two leads afterwards", || {
        [restarted, candidate].iter().any(|id| cluster.status(*id).role == Role::Leader)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_never_voted_has_promised_nothing() {
    let mut cluster = Cluster::new(1, Ground::Simulated, crate::cluster::options()).await;
    cluster.node(1).create_copy(DB).await;
    assert!(!cluster.status(1).vote_quarantine);
    cluster.stop().await;
}
