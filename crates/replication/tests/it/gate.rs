//! Who may lead: closed copies, demotion, transfer and its repair, dismounting.

use std::time::Duration;

use dag_types::{Candidacy, NodeId};
use replication::{Event, ProposeError, Role, TransferError};

use crate::cluster::{Cluster, DB, Ground, options, patience, replica, until};
use crate::machine::put;

/// Several election timeouts: what has not happened by then does not happen by itself.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(5 * options().timeouts.election_max)).await;
}

fn others(active: u64) -> Vec<u64> {
    (1..=3).filter(|id| *id != active).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_may_not_campaign_are_never_elected() {
    let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    let rest = others(active);
    rest.iter().for_each(|id| cluster.group(*id, DB).stand(Candidacy::Never));
    let term = cluster.status(rest[0]).term;
    cluster.kill(active).await;
    a_while().await;
    for id in &rest {
        let status = cluster.status(*id);
        assert_eq!((status.role, status.term), (Role::Follower, term));
    }
    cluster.group(rest[1], DB).stand(Candidacy::Freely);
    assert_eq!(cluster.active(DB).await, rest[1]);
    cluster.put("key", b"2").await;
    cluster.stop().await;
}

/// Three copies, of which the one that lags lacks what the active one and the other hold when the active
/// one is lost. Gives the one that lags and the other.
async fn bereft(cluster: &mut Cluster, rest: [Candidacy; 2]) -> [u64; 2] {
    cluster.put("before", b"1").await;
    let active = cluster.active(DB).await;
    let [lags, other] = [others(active)[0], others(active)[1]];
    for (id, candidacy) in [lags, other].into_iter().zip(rest) {
        cluster.group(id, DB).stand(candidacy);
        cluster.has(id, "before", b"1").await;
    }
    cluster.network.cut(NodeId(lags), NodeId(active));
    cluster.network.cut(NodeId(lags), NodeId(other));
    cluster.put("only two", b"2").await;
    cluster.kill(active).await;
    cluster.network.heal();
    [lags, other]
}

/// Its vote is needed, and it gives it to no shorter log.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_must_not_be_active_leads_until_another_one_has_all_it_holds() {
    for held in [Candidacy::ForOthers, Candidacy::InNeed] {
        let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
        let [lags, other] = bereft(&mut cluster, [Candidacy::Freely, held]).await;
        assert_eq!(cluster.active(DB).await, lags);
        cluster.has(lags, "only two", b"2").await;
        cluster.put("after", b"3").await;
        let led = |event: &Event| matches!(event, Event::Role { role: Role::Leader, .. });
        let served = |event: &Event| matches!(event, Event::Mounted(mounted) if mounted.node == NodeId(other));
        assert!(cluster.life(other).told(led), "{held:?}");
        assert!(!cluster.life(other).told(served), "{held:?}");
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_active_only_in_need_is_so_when_nobody_else_can_be() {
    let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    let [lags, other] = bereft(&mut cluster, [Candidacy::ForOthers, Candidacy::InNeed]).await;
    assert_eq!(cluster.active(DB).await, other);
    cluster.put("after", b"3").await;
    assert!(cluster.group(lags, DB).serving().is_err());
    cluster.stop().await;
    // Nor does it take a refusal.
    let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    others(active).iter().for_each(|id| cluster.group(*id, DB).stand(Candidacy::InNeed));
    cluster.kill(active).await;
    assert!(others(active).contains(&cluster.active(DB).await));
    cluster.put("key", b"2").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_may_not_campaign_is_not_handed_leadership() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    let target = others(active)[0];
    cluster.group(target, DB).stand(Candidacy::Never);
    let handed = cluster.group(active, DB).transfer(replica(target), patience()).await;
    assert_eq!(handed, Err(TransferError::MayNotCampaign));
    cluster.put("key", b"2").await;
    assert_eq!(cluster.active(DB).await, active);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_and_nothing_is_lost() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    for round in 0..6 {
        let key = format!("key {round}");
        cluster.put(&key, b"value").await;
        let active = cluster.active(DB).await;
        let target = others(active)[round % 2];
        let handed = cluster.group(active, DB).transfer(replica(target), patience()).await;
        assert_eq!(handed, Ok(()));
        assert_eq!(cluster.active(DB).await, target);
        cluster.has(target, &key, b"value").await;
    }
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_to_other_voters_only() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    for target in [replica(active), replica(9)] {
        let handed = cluster.group(active, DB).transfer(target, patience()).await;
        assert_eq!(handed, Err(TransferError::NotAVoter { target }));
    }
    let follower = others(active)[0];
    let handed = cluster.group(follower, DB).transfer(replica(active), patience()).await;
    assert!(matches!(handed, Err(TransferError::NotLeader(_))));
    cluster.stop().await;
}

/// With two of three alive and a target that closes at the wrong moment, openraft's transfer would
/// stall the group for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_transfer_is_repaired() {
    let mut cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let mut active = cluster.active(DB).await;
    let dead = others(active)[1];
    cluster.kill(dead).await;
    cluster.network.delay(Duration::from_millis(10));
    loop {
        let target = others(active).into_iter().find(|id| *id != dead).unwrap();
        let (from, to) = (cluster.group(active, DB), cluster.group(target, DB));
        let leader = from.clone();
        let transfer =
            tokio::spawn(async move { leader.transfer(replica(target), patience()).await });
        // The target was asked and said yes; it closes while the order is on its way.
        until("the leader drains", || from.serving().is_err() || transfer.is_finished()).await;
        to.stand(Candidacy::Never);
        match transfer.await.expect("no panic") {
            Err(TransferError::Repaired { .. }) => break,
            // The order was faster; once more, from the new leader.
            Ok(()) => {
                to.stand(Candidacy::Freely);
                active = target;
                until("the new leader serves", || to.serving().is_ok()).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    cluster.put("key", b"2").await;
    assert_eq!(cluster.active(DB).await, active, "the old leader leads again");
    cluster.stop().await;
}

/// Entries that were on their way to a disk when an instance was replaced are never answered by
/// openraft, and a leader sends no more than its credit allows.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_instance_is_replaced_while_it_appends_goes_on_following() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"0").await;
    let active = cluster.active(DB).await;
    let [replaced, other] = [others(active)[0], others(active)[1]];
    for follower in [replaced, other] {
        cluster.group(follower, DB).stand(Candidacy::Never);
    }
    let leader = cluster.group(active, DB);
    let writer = tokio::spawn(async move {
        for number in 0..400 {
            leader.propose(put(&number.to_string(), &[7; 8 << 10]), patience()).await.expect("put");
        }
    });
    while !writer.is_finished() {
        cluster.group(replaced, DB).demote().await.expect("replaced");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    writer.await.expect("no panic");
    // Sooner than a session that is never answered is given up.
    let level = cluster.has(replaced, "399", &[7; 8 << 10]);
    tokio::time::timeout(Duration::from_secs(20), level).await.expect("it follows");
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_leader_does_not_lead_again() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    cluster.group(active, DB).demote().await.expect("demoted");
    assert!(cluster.group(active, DB).serving().is_err());
    let next = cluster.active(DB).await;
    assert_ne!(next, active);
    cluster.put("key", b"2").await;
    cluster.has(active, "key", b"2").await;
    a_while().await;
    assert_eq!(cluster.status(active).role, Role::Follower);
    cluster.digests_are_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dismounted_leader_takes_nothing_and_mounts_again() {
    let cluster = Cluster::with_database(3, 3, Ground::Simulated).await;
    cluster.put("key", b"1").await;
    let active = cluster.active(DB).await;
    let group = cluster.group(active, DB);
    group.allow_mount(false);
    let refused = group.propose(put("key", b"2"), patience()).await;
    assert!(matches!(refused, Err(ProposeError::NotActive(_))));
    assert!(matches!(group.read_barrier(patience()).await, Err(_)));
    let told = Event::Dismounted { why: "it may not be mounted here" };
    until("it was told", || cluster.life(active).told(|e| *e == told)).await;
    group.allow_mount(true);
    until("it serves again", || group.serving().is_ok()).await;
    cluster.put("key", b"3").await;
    cluster.stop().await;
}
