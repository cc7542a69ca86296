//! Members come, vote, and go.

use std::collections::{BTreeMap, BTreeSet};

use dag_types::NodeId;
use replication::{Member, MembersError, Role};

use crate::cluster::{Cluster, DB, Ground, patience, replica, until};

fn voters(cluster: &Cluster, id: u64) -> Vec<u64> {
    let members = cluster.status(id).members;
    members.iter().filter(|member| member.voter).map(|member| member.node.0).collect()
}

/// Two sites with two nodes each: A is 1 and 2, B is 3 and 4. The database moves from A to B.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_moves_to_the_other_site_by_a_joint_change_and_a_transfer() {
    let mut cluster = Cluster::new(4, Ground::Simulated, crate::cluster::options()).await;
    cluster.create_database(DB, 4, 3).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    let learner = BTreeMap::from([(replica(4), Member { node: NodeId(4) })]);
    cluster.group(active, DB).add_learners(&learner, patience()).await.expect("B2 learns");
    cluster.has(4, "key", b"1").await;
    until("B2 knows its place", || voters(&cluster, 4) == [1, 2, 3]).await;
    assert_eq!(cluster.status(4).role, Role::Learner);

    let moved = BTreeSet::from([replica(3), replica(4), replica(1)]);
    cluster.group(active, DB).change_voters(&moved, patience()).await.expect("B1 B2 A1 vote");
    let status = cluster.status(active);
    assert!(!status.joint);
    assert_eq!(voters(&cluster, active), [1, 3, 4]);
    let active = cluster.active(DB).await;
    if active != 4 {
        cluster.group(active, DB).transfer(replica(4), patience()).await.expect("B2 leads");
    }
    cluster.put("key", b"2").await;
    assert_eq!(cluster.active(DB).await, 4);
    let gone = BTreeSet::from([replica(2)]);
    cluster.group(4, DB).remove_learners(&gone, patience()).await.expect("A2 leaves");
    until("A2 is no member", || cluster.status(4).members.len() == 3).await;
    cluster.put("key", b"3").await;
    for id in [1, 3, 4] {
        cluster.has(id, "key", b"3").await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_does_not_count_for_a_majority() {
    let mut cluster = Cluster::new(3, Ground::Simulated, crate::cluster::options()).await;
    cluster.create_database(DB, 3, 2).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    let learner = BTreeMap::from([(replica(3), Member { node: NodeId(3) })]);
    cluster.group(active, DB).add_learners(&learner, patience()).await.expect("learns");
    cluster.has(3, "key", b"1").await;
    let voter = if active == 1 { 2 } else { 1 };
    cluster.kill(voter).await;
    let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
    let command = crate::machine::put("key", b"2");
    cluster.group(active, DB).propose(command, soon).await.expect_err("one of two voters");
    cluster.start_node(voter).await;
    cluster.put("key", b"3").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_changed_by_the_leader_only() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    let follower = if active == 1 { 2 } else { 1 };
    let two = BTreeSet::from([replica(1), replica(2)]);
    let refused = cluster.group(follower, DB).change_voters(&two, patience()).await;
    assert!(matches!(refused, Err(MembersError::NotLeader(_))), "{refused:?}");
    let unknown = BTreeSet::from([replica(1), replica(8)]);
    let refused = cluster.group(active, DB).change_voters(&unknown, patience()).await;
    assert!(matches!(refused, Err(MembersError::Refused { .. })), "{refused:?}");
    cluster.stop().await;
}
