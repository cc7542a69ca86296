//! One group that does not move holds up nobody else.

use dag_types::{Candidacy, DatabaseId};
use replication::Group;

use crate::cluster::{Cluster, DB, Ground, patience, until};
use crate::machine::{put, value};

const GROUPS: u64 = 8;

/// A busy machine may cost a leader its lease for a moment; that is no answer yet.
async fn put_surely(group: &Group, key: &str, body: &[u8]) {
    let limit = patience();
    while let Err(error) = group.propose(put(key, body), patience()).await {
        assert!(tokio::time::Instant::now() < limit, "never put: {error}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Node 1 leads every group; node 2 applies nothing of the first one, and gets more of it than all
/// queues on the way can hold. The other seven go on, on the same streams.
async fn a_held_copy_holds_up_no_other_group(ground: Ground) {
    let mut cluster = Cluster::new(3, ground, crate::cluster::options()).await;
    let databases: Vec<DatabaseId> = (0..GROUPS).map(|n| DatabaseId(DB.0 + n)).collect();
    for database in &databases {
        cluster.create_database(*database, 3, 3).await;
        for follower in [2, 3] {
            cluster.group(follower, *database).stand(Candidacy::Never);
        }
        until("node 1 serves", || cluster.group(1, *database).serving().is_ok()).await;
    }
    cluster.put_in(DB, "before", b"1").await;
    until("node 2 has it", || value(&*cluster.group(2, DB).view(), "before").is_some()).await;
    let held = cluster.node(2).machines[&DB].clone();
    held.hold();

    let flood = {
        let group = cluster.group(1, DB);
        tokio::spawn(async move {
            let mut put_so_far = 0;
            for number in 0..600 {
                put_surely(&group, &format!("{number}"), &[7; 16 << 10]).await;
                put_so_far += 1;
            }
            put_so_far
        })
    };
    let mut writers = Vec::new();
    for database in databases[1..].iter().copied() {
        let group = cluster.group(1, database);
        writers.push(tokio::spawn(async move {
            for number in 0..100 {
                put_surely(&group, &format!("{number}"), &[1; 4 << 10]).await;
            }
        }));
    }
    for writer in writers {
        writer.await.expect("no panic");
    }
    for database in &databases[1..] {
        let group = cluster.group(2, *database);
        until("node 2 has all of the others", || value(&*group.view(), "99").is_some()).await;
    }
    // The third copy is enough for the first group's majority.
    assert_eq!(flood.await.expect("no panic"), 600);
    let (behind, ahead) = (cluster.status(2), cluster.status(1));
    assert!(behind.applied < ahead.applied, "node 2 was held all the time");
    assert!(value(&*cluster.group(2, DB).view(), "0").is_none());

    held.release();
    until("node 2 catches up", || value(&*cluster.group(2, DB).view(), "599").is_some()).await;
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_copy_holds_up_no_other_group_of_the_same_nodes() {
    a_held_copy_holds_up_no_other_group(Ground::Simulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_copy_holds_up_no_other_group_over_grpc() {
    a_held_copy_holds_up_no_other_group(Ground::Real).await;
}

/// The same on one runtime thread: what waits for a disk waits beside it.
#[tokio::test]
async fn a_held_copy_holds_up_no_other_group_on_one_runtime_thread() {
    a_held_copy_holds_up_no_other_group(Ground::Simulated).await;
}

/// The leader's own state is held: it answers nothing of that group, and everything of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_leader_holds_up_no_other_group() {
    let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    let other = DatabaseId(DB.0 + 1);
    cluster.create_database(other, 3, 3).await;
    cluster.put_in(other, "before", b"1").await;
    cluster.put("before", b"1").await;
    let active = cluster.active(DB).await;
    let held = cluster.node(active).machines[&DB].clone();
    held.hold();
    let group = cluster.group(active, DB);
    let waiting = tokio::spawn(async move { group.propose(put("held", b"2"), patience()).await });
    for number in 0..50 {
        cluster.put_in(other, &format!("{number}"), b"value").await;
    }
    assert!(!waiting.is_finished());
    held.release();
    waiting.await.expect("no panic").expect("committed");
    cluster.stop().await;
}
