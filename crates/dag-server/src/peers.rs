//! What this node knows of the others, and whom it listens to.
//!
//! Every stream between nodes opens with an identity: DAG, lineage, node, store, boot. It is
//! checked here, against what this node's own applied control log says, before Raft sees a frame.
//! Until there is a control log to read, what was agreed when the DAG was formed counts.
//!
//! A boot counter greater than the registered one passes and is remembered: after a power loss of
//! everything, votes come before anything can be registered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use active_manager::control::ControlState;
use dac::keeper::Heard;
use dag_types::{Boot, DagId, Lineage, LineageChain, NodeId, StoreId};
use replication::peer::{PeerIdentity, PeerRegistry, Refusal};

use crate::formation::Formation;
use crate::gate::NodeGate;
use crate::tls::dial::Dial;

/// The other members, and this one.
#[derive(Debug)]
pub struct Peers {
    known: RwLock<Known>,
    /// Hears of newer chains.
    gate: OnceLock<Arc<NodeGate>>,
    /// Who said last that this node does not count, why, and when.
    not_counted: Mutex<Option<(Instant, NodeId, String)>>,
}

/// How long that is told after it was said.
const TOLD_FOR: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct Known {
    local: PeerIdentity,
    /// As it is on this node's disk.
    chain: LineageChain,
    members: BTreeMap<NodeId, Member>,
}

/// A member as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What people call it.
    pub name: String,
    /// Where it stands.
    pub site: String,
    /// Votes in the control group and holds no mail.
    pub witness: bool,
    /// The only store that is this node.
    pub store: StoreId,
    /// The greatest start that was registered or seen.
    pub boot: Boot,
    /// host:port for the other nodes.
    pub peer_address: String,
    /// host:port for front ends.
    pub client_address: String,
    /// host:port for operators.
    pub admin_address: String,
}

impl Peers {
    /// The members as they were agreed when the DAG was formed, in the lineage that is on the disk.
    pub fn founded(
        formation: &Formation,
        own: (NodeId, StoreId, Boot),
        chain: LineageChain,
    ) -> Self {
        let (lineage, (node, store, boot)) = (chain.last(), own);
        let members = formation.definition().nodes.into_iter().map(|node| {
            let member = Member {
                name: node.name,
                site: node.site,
                witness: node.witness,
                store: formation.store_of(NodeId(node.node)).unwrap_or(StoreId::NIL),
                boot: Boot::default(),
                peer_address: node.peer_address,
                client_address: node.client_address,
                admin_address: node.admin_address,
            };
            (NodeId(node.node), member)
        });
        let local = PeerIdentity { dag: formation.dag(), lineage, node, store, boot };
        let members = members.collect();
        let known = RwLock::new(Known { local, chain, members });
        Self { known, gate: OnceLock::new(), not_counted: Mutex::default() }
    }

    /// From now on this gate hears of newer chains.
    pub fn tell_of_chains(&self, gate: Arc<NodeGate>) {
        assert!(self.gate.set(gate).is_ok(), "a node has one gate");
    }

    /// A newer lineage is on the disk: frames and mounts carry it from here on.
    pub fn adopt(&self, chain: LineageChain) {
        let mut known = self.known.write().expect(UNPOISONED);
        known.local.lineage = chain.last();
        known.chain = chain;
    }

    /// The members as the applied control log says now. Gives whether anything is different, so that open
    /// streams are checked again.
    pub fn learn(&self, state: &ControlState) -> bool {
        let mut known = self.known.write().expect(UNPOISONED);
        let members: BTreeMap<NodeId, Member> = state
            .nodes
            .iter()
            .map(|node| {
                // What was seen may be ahead of what is registered, never of another store.
                let seen = known.members.get(&node.id()).filter(|seen| seen.store == node.store());
                let seen = seen.map_or(Boot::default(), |seen| seen.boot);
                let boot = if seen.counter > node.boot().counter { seen } else { node.boot() };
                let member = Member {
                    name: node.name.clone(),
                    site: node.site.clone(),
                    witness: node.witness,
                    store: node.store(),
                    boot,
                    peer_address: node.peer_address.clone(),
                    client_address: node.client_address.clone(),
                    admin_address: node.admin_address.clone(),
                };
                (node.id(), member)
            })
            .collect();
        let changed = known.members != members;
        known.members = members;
        changed
    }

    /// A member.
    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.known.read().expect(UNPOISONED).members.get(&node).cloned()
    }

    /// All members, this node too, in the order of their numbers.
    pub fn members(&self) -> Vec<(NodeId, Member)> {
        let known = self.known.read().expect(UNPOISONED);
        known.members.iter().map(|(node, member)| (*node, member.clone())).collect()
    }

    /// The newest lineage.
    pub fn lineage(&self) -> Lineage {
        self.known.read().expect(UNPOISONED).local.lineage
    }

    /// Who does not count this node, and why, where somebody said so a moment ago.
    pub fn not_counted(&self) -> Option<(NodeId, String)> {
        let said = self.not_counted.lock().expect(UNPOISONED).clone();
        said.filter(|(at, ..)| at.elapsed() < TOLD_FOR).map(|(_, peer, why)| (peer, why))
    }

    /// Where the link to a node connects to.
    pub fn endpoints(self: &Arc<Self>, dial: Dial) -> replication::link::grpc::Endpoints {
        let peers = self.clone();
        Arc::new(move |node| {
            let address = peers.member(node)?.peer_address;
            let endpoint = dial.endpoint(&dial.url(&address));
            let endpoint = endpoint.inspect_err(|error| {
                tracing::warn!(peer = %node, %error, "no way to a node");
            });
            endpoint.ok()
        })
    }
}

impl PeerRegistry for Peers {
    fn local(&self) -> PeerIdentity {
        self.known.read().expect(UNPOISONED).local
    }

    fn chain(&self) -> LineageChain {
        self.known.read().expect(UNPOISONED).chain.clone()
    }

    fn refused_by(&self, newest: &LineageChain) {
        if let Some(gate) = self.gate.get() {
            gate.tell(Heard::Chain(newest.clone()));
        }
    }

    fn not_counted_by(&self, peer: NodeId, why: &Refusal) {
        let why = why.to_string();
        let before = self.not_counted();
        *self.not_counted.lock().expect(UNPOISONED) = Some((Instant::now(), peer, why.clone()));
        if before.is_none() {
            tracing::warn!(%peer, why, "this node is not counted");
        }
    }

    fn admit(&self, peer: &PeerIdentity) -> Result<(), Refusal> {
        self.known.write().expect(UNPOISONED).admit(peer)
    }
}

impl Known {
    fn admit(&mut self, peer: &PeerIdentity) -> Result<(), Refusal> {
        check_dag(self.local.dag, peer.dag)?;
        // Of two nodes of different lineages the one that knows less learns it from the refusal,
        // which carries the whole chain; until then neither hears the other.
        if peer.lineage != self.local.lineage {
            return Err(Refusal::OlderLineage { newest: self.chain.clone() });
        }
        let unknown = Refusal::UnknownNode { node: peer.node };
        let member = self.members.get_mut(&peer.node).ok_or(unknown)?;
        if member.store != peer.store {
            return Err(Refusal::UnknownStore);
        }
        let (seen, shown) = (member.boot, peer.boot);
        if shown.counter < seen.counter || (shown.counter == seen.counter && shown.id != seen.id) {
            return Err(Refusal::OlderBoot { newest: seen.counter });
        }
        member.boot = shown;
        Ok(())
    }
}

fn check_dag(own: DagId, other: DagId) -> Result<(), Refusal> {
    if own == other { Ok(()) } else { Err(Refusal::OtherDag) }
}

const UNPOISONED: &str = "no holder of this lock panics";

#[cfg(test)]
mod tests {
    use super::*;
    use dag_types::ActivationId;

    const LINEAGE: Lineage = Lineage { epoch: 1, activation: ActivationId([9; 16]) };

    fn peers() -> Peers {
        let member = |number: u8| Member {
            name: format!("n{number}"),
            site: "A".into(),
            witness: false,
            store: StoreId([number; 16]),
            boot: Boot { counter: 5, id: 50 },
            peer_address: String::new(),
            client_address: String::new(),
            admin_address: String::new(),
        };
        let members = (1..=2).map(|number| (NodeId(number.into()), member(number))).collect();
        let chain = LineageChain::first(LINEAGE.activation);
        let known = RwLock::new(Known { local: peer(1, 5, 50), chain, members });
        Peers { known, gate: OnceLock::new(), not_counted: Mutex::default() }
    }

    fn peer(number: u8, counter: u64, id: u64) -> PeerIdentity {
        PeerIdentity {
            dag: DagId([7; 16]),
            lineage: LINEAGE,
            node: NodeId(number.into()),
            store: StoreId([number; 16]),
            boot: Boot { counter, id },
        }
    }

    #[test]
    fn a_member_with_its_store_and_its_boot_is_admitted() {
        assert_eq!(peers().admit(&peer(2, 5, 50)), Ok(()));
    }

    #[test]
    fn strangers_are_refused_with_what_is_wrong() {
        let other_dag = PeerIdentity { dag: DagId([8; 16]), ..peer(2, 5, 50) };
        let older = Lineage { epoch: 0, ..LINEAGE };
        let other_lineage = PeerIdentity { lineage: older, ..peer(2, 5, 50) };
        let other_store = PeerIdentity { store: StoreId([9; 16]), ..peer(2, 5, 50) };
        for (identity, refusal) in [
            (other_dag, Refusal::OtherDag),
            (other_lineage, Refusal::OlderLineage { newest: peers().chain() }),
            (peer(3, 1, 1), Refusal::UnknownNode { node: NodeId(3) }),
            (other_store, Refusal::UnknownStore),
            (peer(2, 4, 40), Refusal::OlderBoot { newest: 5 }),
            (peer(2, 5, 51), Refusal::OlderBoot { newest: 5 }),
        ] {
            assert_eq!(peers().admit(&identity), Err(refusal));
        }
    }

    #[test]
    fn a_newer_boot_is_remembered_and_the_older_one_is_gone() {
        let peers = peers();
        assert_eq!(peers.admit(&peer(2, 6, 60)), Ok(()));
        assert_eq!(peers.admit(&peer(2, 5, 50)), Err(Refusal::OlderBoot { newest: 6 }));
        assert_eq!(peers.admit(&peer(2, 6, 61)), Err(Refusal::OlderBoot { newest: 6 }));
        assert_eq!(peers.admit(&peer(2, 6, 60)), Ok(()));
    }

    #[test]
    fn who_does_not_count_this_node_is_told_with_the_reason() {
        let peers = peers();
        assert_eq!(peers.not_counted(), None);
        peers.not_counted_by(NodeId(2), &Refusal::UnknownStore);
        let (peer, why) = peers.not_counted().expect("said a moment ago");
        assert_eq!(peer, NodeId(2));
        assert!(why.contains("is not the registered one"), "{why}");
    }
}
