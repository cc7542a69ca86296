//! Groups on a node with a gate: what a closed one keeps from happening.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dac::gate::{Input, Saved};
use dac::message::{Grant, Holder};
use dac::{Closed, DacGate, LeaseTimes, MountPermit};
use dag_api::peer::v1 as pb;
use dag_types::{
    ActivationId, Boot, Candidacy, DatabaseId, GrantId, LineageChain, Millis, NodeId,
    RegisteredNode, RegisteredSite, Registry, StoreId,
};
use replication::peer::PeerIdentity;
use replication::{Leave, ProposeError, ReadError, Role, ServingGate};
use tokio::time::Instant;

use crate::cluster::{Cluster, DB, Ground, options, patience, until};
use crate::machine::put;

/// A gate whose clock stands still until a test moves it.
pub struct HandGate {
    gate: Mutex<(DacGate, Millis)>,
}

const TIMES: LeaseTimes = LeaseTimes::DEFAULT;

impl HandGate {
    pub fn closed() -> Arc<Self> {
        let holder =
            Holder { node: NodeId(1), store: StoreId([1; 16]), boot: Boot { counter: 1, id: 1 } };
        let chain = LineageChain::first(ActivationId([1; 16]));
        let now = Millis(1_000);
        let saved = Saved { chain: chain.clone(), promise: None };
        let mut gate = DacGate::at_boot(now, holder, TIMES, saved);
        let Holder { node, store, boot } = holder;
        let site = String::from("alpha");
        let lists = vec![[node].into()];
        gate.step(
            now,
            Input::Applied(Registry {
                chain,
                sites: vec![RegisteredSite { name: site.clone(), started: true, lists }],
                nodes: vec![RegisteredNode { node, site, store, boot, grant: None }],
            }),
        );
        Arc::new(Self { gate: Mutex::new((gate, now)) })
    }

    /// A control leader grants what the gate asks for.
    pub fn open(&self) {
        let (gate, now) = &mut *self.gate.lock().unwrap();
        // A gate that finds its lease over closes, and asks anew.
        gate.step(*now, Input::Tick);
        gate.step(*now, Input::ControlLeader(None));
        let asked = gate.step(*now, Input::ControlLeader(Some(NodeId(9))));
        let request = asked.iter().find_map(|action| match action {
            dac::gate::Action::Request(_, renewal) => Some(renewal.request),
            _ => None,
        });
        let (holder, lineage) = (gate.holder(), gate.chain().last());
        let grant = GrantId { term: 1, number: request.expect("it asks") };
        let grant = Grant { request: grant.number, holder, lineage, grant, ttl: TIMES.lease };
        gate.step(*now, Input::Grant(grant));
        assert_eq!(gate.closed(*now), None);
    }

    /// Time passes, and nobody turns the gate's own loop.
    pub fn pass(&self, time: Millis) {
        let (_, now) = &mut *self.gate.lock().unwrap();
        *now = *now + time;
    }
}

impl ServingGate for HandGate {
    fn is_open(&self) -> bool {
        let (gate, now) = &*self.gate.lock().unwrap();
        gate.closed(*now).is_none()
    }

    fn permit(&self, database: DatabaseId, deadline: Instant) -> Result<Leave, Closed> {
        let (gate, now) = &*self.gate.lock().unwrap();
        Ok(Leave { permit: gate.permit(*now, database, None)?, deadline })
    }

    fn upholds(&self, permit: &MountPermit) -> Result<(), Closed> {
        let (gate, now) = &*self.gate.lock().unwrap();
        gate.upholds(*now, permit)
    }

    fn heard(&self, _: &PeerIdentity, _: pb::GateMessage) {}
}

async fn cluster(nodes: u64, gate: &Arc<HandGate>) -> Cluster {
    let mut cluster = Cluster::gated(nodes, Ground::Simulated, options(), gate.clone()).await;
    cluster.create_database(DB, nodes, nodes).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_closed_gate_nothing_is_elected_or_mounted() {
    let gate = HandGate::closed();
    let cluster = cluster(3, &gate).await;
    tokio::time::sleep(Duration::from_millis(5 * options().timeouts.election_max)).await;
    for id in 1..=3 {
        // A copy that nobody wrote to does not know yet that it votes.
        assert!(matches!(cluster.status(id).role, Role::Follower | Role::Learner));
        let refused = cluster.group(id, DB).propose(put("key", b"1"), patience()).await;
        assert!(matches!(refused, Err(ProposeError::NotActive(_))), "{refused:?}");
    }
    gate.open();
    // What the instances were started with is set anew by whoever opens the gate.
    (1..=3).for_each(|id| cluster.group(id, DB).stand(Candidacy::Freely));
    cluster.put("key", b"2").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_closes_ends_serving_at_once() {
    let gate = HandGate::closed();
    gate.open();
    let cluster = cluster(1, &gate).await;
    cluster.put("key", b"1").await;
    let group = cluster.group(1, DB);
    let read = group.confirm_read(patience()).await.expect("confirmed");
    assert_eq!(group.still_read(&read), Ok(()));
    // Nothing but time: no loop has noticed anything, and the copy leads and is mounted.
    gate.pass(TIMES.lease);
    assert!(group.serving().is_err() && !group.may_campaign());
    assert!(group.still_read(&read).is_err());
    assert_eq!(group.status().role, Role::Leader);
    let refused = group.propose(put("key", b"2"), patience()).await;
    assert!(matches!(refused, Err(ProposeError::NotActive(_))), "{refused:?}");
    let refused = group.confirm_read(patience()).await.expect_err("closed");
    assert!(matches!(refused, ReadError::NotActive(_)), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_closes_under_way_makes_the_outcome_unknown() {
    let gate = HandGate::closed();
    gate.open();
    let cluster = cluster(1, &gate).await;
    cluster.put("key", b"1").await;
    let (group, machine) = (cluster.group(1, DB), cluster.nodes[&1].machines[&DB].clone());
    for (key, time) in [("late", TIMES.attempt), ("closed", TIMES.lease)] {
        machine.hold();
        let before = group.last();
        let proposer = group.clone();
        let proposed =
            tokio::spawn(async move { proposer.propose(put(key, b"2"), patience()).await });
        until("it is in the log", || group.last() > before).await;
        gate.pass(time);
        machine.release();
        let outcome = proposed.await.expect("no panic");
        assert!(matches!(outcome, Err(ProposeError::OutcomeUnknown { .. })), "{key}: {outcome:?}");
        // It was carried out all the same.
        cluster.has(1, key, b"2").await;
    }
    // A new opening: the same mount holds, and what is proposed now counts.
    gate.pass(TIMES.lease);
    gate.open();
    cluster.put("after", b"3").await;
    cluster.stop().await;
}
