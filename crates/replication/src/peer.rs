//! Who may speak to this node: identities that streams open with, and refusals that say why not.
//!
//! A stream begins with a Hello each way. It names the DAG, the last link of the lineage, the node,
//! the store it runs from and which start of that store this is. Each side checks the other's
//! against what it knows **before** Raft sees a frame:
//!
//! - a frame of another DAG, an older lineage, an unknown node or another store is refused;
//! - a boot counter below the one known, or equal with another id, is a disk that was turned back
//!   or cloned: refused; a greater one passes and is remembered (after a total power loss votes
//!   come before the control group can register anything).
//!
//! Refusals name what is newer, so that the other side learns it from the refusal itself.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use dag_api::peer::v1 as pb;
use dag_format::links;
use dag_types::{
    ActivationId, Boot, DagId, Generation, Lineage, LineageChain, LineageKind, LineageStep, NodeId,
    StoreId,
};
use thiserror::Error;

use crate::link::StreamKind;

/// Version of the protocol between nodes.
pub const PROTOCOL_VERSION: u32 = 1;

/// Who a node says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerIdentity {
    /// The DAG it belongs to.
    pub dag: DagId,
    /// The last link of the lineage it knows.
    pub lineage: Lineage,
    /// Its number in the DAG.
    pub node: NodeId,
    /// The store it runs from.
    pub store: StoreId,
    /// Which start of that store this is.
    pub boot: Boot,
}

/// What this node knows about itself and the others; the daemon answers from its applied control
/// log. Asked when a stream opens, and again for every open stream after
/// [`crate::Registry::recheck_peers`].
pub trait PeerRegistry: Send + Sync + 'static {
    /// What this node says of itself.
    fn local(&self) -> PeerIdentity;

    /// The chain whose last link this node's frames and mounts carry.
    fn chain(&self) -> LineageChain;

    /// Whether a node with this identity may speak to this one. Remembers a newer boot.
    fn admit(&self, peer: &PeerIdentity) -> Result<(), Refusal>;

    /// Another node refused this one because its lineage is another, and named its own chain.
    fn refused_by(&self, newest: &LineageChain);

    /// Another node does not count this one: it knows no such node, or another store of it.
    fn not_counted_by(&self, _peer: NodeId, _why: &Refusal) {}
}

/// Why a stream or a frame was not accepted. This node, now: nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The peer belongs to another DAG.
    #[error("the peer belongs to another DAG")]
    OtherDag,
    /// The peer speaks for a lineage that a newer one replaced.
    #[error("the peer's lineage is older; {} is newer", .newest.last())]
    OlderLineage {
        /// The newer lineage, with all that led to it: whoever reads it can compare.
        newest: LineageChain,
    },
    /// No such node in this DAG.
    #[error("node {node} is not known here")]
    UnknownNode {
        /// Who spoke.
        node: NodeId,
    },
    /// The node runs from another store than the registered one.
    #[error("the node's store is not the registered one; it may come back only as a new store")]
    UnknownStore,
    /// The node's start is older than one seen before, or a clone of it.
    #[error("the node's boot is older than boot {newest}, or a clone of it")]
    OlderBoot {
        /// The greatest boot counter seen.
        newest: u64,
    },
    /// The frame was meant for another node.
    #[error("the frame was meant for node {meant}, this is another")]
    WrongNode {
        /// Whom it was meant for.
        meant: NodeId,
    },
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks protocol version {spoken}, this node speaks {PROTOCOL_VERSION}")]
    ProtocolVersion {
        /// What the peer speaks.
        spoken: u32,
    },
    /// This node holds no copy of the database.
    #[error("no copy of the database here")]
    NoSuchGroup,
    /// The frame belongs to another incarnation of the group.
    #[error("the frame is of another generation; generation {newest} is here")]
    WrongGeneration {
        /// The receiver's generation.
        newest: Generation,
    },
    /// The frame is from or for another replica than the one it reached.
    #[error("the frame names another replica: {detail}")]
    WrongReplica {
        /// Which.
        detail: String,
    },
    /// The copy is being started, stopped or rebuilt.
    #[error("the copy is not running now")]
    NotRunning,
    /// A fault stopped the copy.
    #[error("the copy is Failed")]
    Failed,
    /// The copy started a moment ago and may have promised a leader what it forgot.
    #[error("the copy started a moment ago and does not vote yet")]
    VoteQuarantine,
    /// The copy may not lead now.
    #[error("the copy may not campaign")]
    MayNotCampaign,
    /// A frame broke the rules of the protocol, or arrived damaged.
    #[error("bad frame: {detail}")]
    BadFrame {
        /// What is wrong with it.
        detail: String,
    },
    /// The receiver has as much under way as it can hold.
    #[error("the receiver has too much under way")]
    Overloaded,
}

impl Refusal {
    pub(crate) fn to_wire(&self) -> pb::Refusal {
        let mut wire = pb::Refusal {
            reason: self.reason() as i32,
            detail: self.to_string(),
            ..pb::Refusal::default()
        };
        match self {
            Self::OlderLineage { newest } => {
                wire.lineage = Some(lineage_to_wire(&newest.last()));
                wire.links = links::beside(newest);
            }
            Self::OlderBoot { newest } => wire.newest = *newest,
            Self::UnknownNode { node } | Self::WrongNode { meant: node } => wire.newest = node.0,
            Self::WrongGeneration { newest } => wire.newest = u64::from(newest.0),
            Self::ProtocolVersion { spoken } => wire.newest = u64::from(*spoken),
            Self::WrongReplica { detail } | Self::BadFrame { detail } => {
                wire.detail.clone_from(detail);
            }
            _ => {}
        }
        wire
    }

    pub(crate) fn from_wire(wire: &pb::Refusal) -> Self {
        use pb::RefusalReason as Reason;
        let detail = || wire.detail.clone();
        match wire.reason() {
            Reason::OtherDag => Self::OtherDag,
            Reason::OlderLineage => {
                let newest = lineage_from_wire(wire.lineage.as_ref());
                match links::chain_of(newest, &wire.links) {
                    Ok(newest) => Self::OlderLineage { newest },
                    Err(error) => Self::BadFrame { detail: error.to_string() },
                }
            }
            Reason::UnknownNode => Self::UnknownNode { node: NodeId(wire.newest) },
            Reason::UnknownStore => Self::UnknownStore,
            Reason::OlderBoot => Self::OlderBoot { newest: wire.newest },
            Reason::WrongNode => Self::WrongNode { meant: NodeId(wire.newest) },
            Reason::ProtocolVersion => Self::ProtocolVersion { spoken: wire.newest as u32 },
            Reason::NoSuchGroup => Self::NoSuchGroup,
            Reason::WrongGeneration => {
                Self::WrongGeneration { newest: Generation(wire.newest as u32) }
            }
            Reason::WrongReplica => Self::WrongReplica { detail: detail() },
            Reason::NotRunning => Self::NotRunning,
            Reason::Failed => Self::Failed,
            Reason::VoteQuarantine => Self::VoteQuarantine,
            Reason::MayNotCampaign => Self::MayNotCampaign,
            Reason::Overloaded => Self::Overloaded,
            Reason::BadFrame | Reason::Unspecified => Self::BadFrame { detail: detail() },
        }
    }

    fn reason(&self) -> pb::RefusalReason {
        use pb::RefusalReason as Reason;
        match self {
            Self::OtherDag => Reason::OtherDag,
            Self::OlderLineage { .. } => Reason::OlderLineage,
            Self::UnknownNode { .. } => Reason::UnknownNode,
            Self::UnknownStore => Reason::UnknownStore,
            Self::OlderBoot { .. } => Reason::OlderBoot,
            Self::WrongNode { .. } => Reason::WrongNode,
            Self::ProtocolVersion { .. } => Reason::ProtocolVersion,
            Self::NoSuchGroup => Reason::NoSuchGroup,
            Self::WrongGeneration { .. } => Reason::WrongGeneration,
            Self::WrongReplica { .. } => Reason::WrongReplica,
            Self::NotRunning => Reason::NotRunning,
            Self::Failed => Reason::Failed,
            Self::VoteQuarantine => Reason::VoteQuarantine,
            Self::MayNotCampaign => Reason::MayNotCampaign,
            Self::BadFrame { .. } => Reason::BadFrame,
            Self::Overloaded => Reason::Overloaded,
        }
    }
}

fn lineage_to_wire(lineage: &Lineage) -> pb::Lineage {
    pb::Lineage { epoch: lineage.epoch, activation: Bytes::copy_from_slice(&lineage.activation.0) }
}

fn lineage_from_wire(wire: Option<&pb::Lineage>) -> Lineage {
    wire.map_or_else(Lineage::default, |wire| Lineage {
        epoch: wire.epoch,
        activation: ActivationId::from_slice(&wire.activation).unwrap_or_default(),
    })
}

/// The frame that opens a stream.
pub(crate) fn hello(local: &PeerIdentity, kind: StreamKind, to: NodeId) -> pb::Hello {
    pb::Hello {
        kind: kind.to_wire() as i32,
        version: PROTOCOL_VERSION,
        dag: Bytes::copy_from_slice(&local.dag.0),
        lineage: Some(lineage_to_wire(&local.lineage)),
        node: local.node.0,
        store: Bytes::copy_from_slice(&local.store.0),
        boot_counter: local.boot.counter,
        boot_id: local.boot.id,
        to_node: to.0,
    }
}

/// Checks an arriving Hello; gives who speaks, and for what the stream is.
pub(crate) fn check_hello(
    hello: &pb::Hello,
    registry: &dyn PeerRegistry,
) -> Result<(PeerIdentity, StreamKind), Refusal> {
    if hello.version != PROTOCOL_VERSION {
        return Err(Refusal::ProtocolVersion { spoken: hello.version });
    }
    let bad = |what: &str| Refusal::BadFrame { detail: format!("the Hello's {what} is malformed") };
    let peer = PeerIdentity {
        dag: DagId::from_slice(&hello.dag).ok_or_else(|| bad("DAG"))?,
        lineage: lineage_from_wire(hello.lineage.as_ref()),
        node: NodeId(hello.node),
        store: StoreId::from_slice(&hello.store).ok_or_else(|| bad("store"))?,
        boot: Boot { counter: hello.boot_counter, id: hello.boot_id },
    };
    let kind = StreamKind::from_wire(hello.kind()).ok_or_else(|| bad("kind"))?;
    registry.admit(&peer)?;
    if hello.to_node != registry.local().node.0 {
        return Err(Refusal::WrongNode { meant: NodeId(hello.to_node) });
    }
    Ok((peer, kind))
}

/// A [`PeerRegistry`] of plain values: the rules, over a table that its owner keeps current.
#[derive(Debug)]
pub struct KnownPeers {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    local: PeerIdentity,
    chain: LineageChain,
    peers: BTreeMap<NodeId, (StoreId, Boot)>,
}

impl KnownPeers {
    /// Knows itself and nobody else.
    pub fn new(local: PeerIdentity) -> Self {
        let chain = LineageChain::first(local.lineage.activation);
        assert_eq!(chain.last(), local.lineage, "it begins with the first link");
        let known = Known { local, chain, peers: BTreeMap::new() };
        Self { known: Mutex::new(known) }
    }

    /// Registers a node's store and newest boot, or replaces what was known of it.
    pub fn register(&self, node: NodeId, store: StoreId, boot: Boot) {
        self.lock().peers.insert(node, (store, boot));
    }

    /// The others, each with its store and the greatest start that was seen of it.
    pub fn seen(&self) -> BTreeMap<NodeId, (StoreId, Boot)> {
        self.lock().peers.clone()
    }

    /// Forgets a node.
    pub fn forget(&self, node: NodeId) {
        self.lock().peers.remove(&node);
    }

    /// Adopts a newer lineage; the one before is refused from now on.
    ///
    /// # Panics
    /// Where its epoch does not follow the last one's.
    pub fn adopt_lineage(&self, lineage: Lineage) {
        let mut known = self.lock();
        let kind = LineageKind::ActivateFenced;
        let link = LineageStep { lineage, kind, rejected: Vec::new() };
        known.chain = known.chain.extended(link).expect("it follows the last link");
        known.local.lineage = lineage;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no panic while the table is held")
    }
}

impl PeerRegistry for KnownPeers {
    fn local(&self) -> PeerIdentity {
        self.lock().local
    }

    fn chain(&self) -> LineageChain {
        self.lock().chain.clone()
    }

    /// Its owner says what it adopts.
    fn refused_by(&self, _newest: &LineageChain) {}

    fn admit(&self, peer: &PeerIdentity) -> Result<(), Refusal> {
        let mut known = self.lock();
        if peer.dag != known.local.dag {
            return Err(Refusal::OtherDag);
        }
        if peer.lineage != known.local.lineage && known.chain.contains(peer.lineage) {
            return Err(Refusal::OlderLineage { newest: known.chain.clone() });
        }
        let unknown = Refusal::UnknownNode { node: peer.node };
        let (store, boot) = known.peers.get_mut(&peer.node).ok_or(unknown)?;
        if *store != peer.store {
            return Err(Refusal::UnknownStore);
        }
        admit_boot(boot, peer.boot)
    }
}

/// A greater boot counter passes and is remembered; a smaller one, or an equal one with another
/// id, comes from a disk that was turned back or cloned.
pub fn admit_boot(known: &mut Boot, seen: Boot) -> Result<(), Refusal> {
    if seen.counter > known.counter {
        *known = seen;
        return Ok(());
    }
    if *known == seen { Ok(()) } else { Err(Refusal::OlderBoot { newest: known.counter }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node: u64) -> PeerIdentity {
        PeerIdentity {
            dag: DagId([1; 16]),
            lineage: Lineage { epoch: 1, activation: ActivationId([5; 16]) },
            node: NodeId(node),
            store: StoreId([node as u8; 16]),
            boot: Boot { counter: 3, id: 33 },
        }
    }

    fn registry() -> KnownPeers {
        let peers = KnownPeers::new(identity(1));
        let peer = identity(2);
        peers.register(peer.node, peer.store, peer.boot);
        peers
    }

    #[test]
    fn a_known_peer_passes_and_strangers_get_the_reason() {
        let peers = registry();
        assert_eq!(peers.admit(&identity(2)), Ok(()));
        let other = PeerIdentity { dag: DagId([9; 16]), ..identity(2) };
        assert_eq!(peers.admit(&other), Err(Refusal::OtherDag));
        assert_eq!(peers.admit(&identity(7)), Err(Refusal::UnknownNode { node: NodeId(7) }));
        let wiped = PeerIdentity { store: StoreId([8; 16]), ..identity(2) };
        assert_eq!(peers.admit(&wiped), Err(Refusal::UnknownStore));
    }

    #[test]
    fn an_older_or_cloned_boot_is_refused_and_a_newer_one_remembered() {
        let peers = registry();
        let boot = |counter, id| PeerIdentity { boot: Boot { counter, id }, ..identity(2) };
        assert_eq!(peers.admit(&boot(2, 22)), Err(Refusal::OlderBoot { newest: 3 }));
        assert_eq!(peers.admit(&boot(3, 34)), Err(Refusal::OlderBoot { newest: 3 }));
        assert_eq!(peers.admit(&boot(4, 44)), Ok(()));
        assert_eq!(peers.admit(&boot(3, 33)), Err(Refusal::OlderBoot { newest: 4 }));
    }

    #[test]
    fn a_superseded_lineage_is_told_the_newer_one() {
        let peers = registry();
        let newer = Lineage { epoch: 2, activation: ActivationId([6; 16]) };
        peers.adopt_lineage(newer);
        let newest = peers.chain();
        assert_eq!(newest.last(), newer);
        assert_eq!(peers.admit(&identity(2)), Err(Refusal::OlderLineage { newest }));
        assert_eq!(peers.admit(&PeerIdentity { lineage: newer, ..identity(2) }), Ok(()));
    }

    #[test]
    fn a_hello_for_another_node_or_of_another_version_is_refused() {
        let peers = registry();
        let good = hello(&identity(2), StreamKind::Append, NodeId(1));
        assert_eq!(check_hello(&good, &peers), Ok((identity(2), StreamKind::Append)));
        let astray = pb::Hello { to_node: 3, ..good.clone() };
        let refused = check_hello(&astray, &peers);
        assert_eq!(refused, Err(Refusal::WrongNode { meant: NodeId(3) }));
        let newer = pb::Hello { version: 2, ..good };
        assert_eq!(check_hello(&newer, &peers), Err(Refusal::ProtocolVersion { spoken: 2 }));
    }

    fn two_links() -> LineageChain {
        let peers = registry();
        peers.adopt_lineage(Lineage { epoch: 2, activation: ActivationId([6; 16]) });
        peers.chain()
    }

    #[test]
    fn every_refusal_survives_the_wire() {
        let all = [
            Refusal::OtherDag,
            Refusal::OlderLineage { newest: two_links() },
            Refusal::UnknownNode { node: NodeId(4) },
            Refusal::UnknownStore,
            Refusal::OlderBoot { newest: 5 },
            Refusal::WrongNode { meant: NodeId(6) },
            Refusal::ProtocolVersion { spoken: 7 },
            Refusal::NoSuchGroup,
            Refusal::WrongGeneration { newest: Generation(8) },
            Refusal::WrongReplica { detail: "9 for 10".to_owned() },
            Refusal::NotRunning,
            Refusal::Failed,
            Refusal::VoteQuarantine,
            Refusal::MayNotCampaign,
            Refusal::BadFrame { detail: "11".to_owned() },
            Refusal::Overloaded,
        ];
        for refusal in all {
            assert_eq!(Refusal::from_wire(&refusal.to_wire()), refusal);
        }
    }
}
