//! A state is kept as it was at a mark that asks for it.

use replication::KEEP_STATE;

use crate::cluster::{Cluster, DB, Ground, options, until};
use crate::machine::value;

async fn kept_everywhere(ground: Ground) {
    let mut cluster = Cluster::new(3, ground, options()).await;
    cluster.create_database(DB, 3, 3).await;
    cluster.put("first", b"1").await;
    let plain = cluster.mark_digest(7).await;
    let noted = cluster.mark_digest(0x800 | KEEP_STATE).await;
    cluster.put("first", b"2").await;
    for id in cluster.living() {
        cluster.has(id, "first", b"2").await;
        let group = cluster.group(id, DB);
        until("the state is kept", || group.kept_view(noted.at.index).is_some()).await;
        let kept = group.kept_view(noted.at.index).expect("just seen");
        assert_eq!(value(&*kept, "first").as_deref(), Some(&b"1"[..]), "as it was at the mark");
        assert!(group.kept_view(plain.at.index).is_none(), "nobody asked for this one");
        assert_eq!(group.digest_marks().expect("readable").last().map(|m| m.at), Some(noted.at));
    }
    let next = cluster.mark_digest(0x900 | KEEP_STATE).await;
    let group = cluster.group(1, DB);
    until("the next one is kept", || group.kept_view(next.at.index).is_some()).await;
    assert!(group.kept_view(noted.at.index).is_none(), "one at a time");
    drop(group);
    cluster.digests_are_equal().await;
    // Nothing is kept of a copy that is closed: it opens again.
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_copy_keeps_the_state_of_a_mark_that_asks_for_it() {
    kept_everywhere(Ground::Simulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_copy_keeps_the_state_of_a_mark_that_asks_for_it_over_rocksdb() {
    kept_everywhere(Ground::Real).await;
}
