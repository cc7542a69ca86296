//! How a node comes to belong to a DAG: two rounds, each of which may be repeated.
//!
//! ```text
//!  Unprovisioned ── PrepareDag ──► Prepared ── FormDag ──► Member
//!       └───────────────────── JoinDag ─────────────────────▲
//! ```
//!
//! A node never makes a DAG by itself. An empty store stays `Unprovisioned` until an operator runs
//! `dagctl dag create`, because an empty store may just as well be a member that lost its disk.
//! **Prepare** writes down which DAG the node shall belong to, and changes nothing else; only when
//! every node has done that does **form** make it a member, with the store of each node: from here
//! on a node that comes with another store is a stranger.
//!
//! A node that joins later is told in one round, because by then the control log holds its record:
//! who the others are, and which copy of the control group is its own. It makes nothing, and learns
//! everything else from that log.
//!
//! What was agreed stands in one file of the root, replaced whole, and is read at every start: it
//! is how a node finds the others before it has a control log to read. Once the control group is
//! there, its log counts.

use std::path::{Path, PathBuf};

use active_manager::control::definition::NodeDefinition;
use active_manager::control::{Definition, FoundingReplica, Timeouts};
use bytes::Bytes;
use dag_api::admin::v1 as api;
use dag_types::{ActivationId, DagId, Lineage, NodeId, ReplicaId, StoreId};
use prost::Message as _;
use storage::disk::{Disk, read_whole, replace_whole};
use thiserror::Error;

const FILE: &str = "formation";
/// Under this key the file's checksum is taken.
const FRAME_KEY: &[u8] = b"formation";

/// What a node agreed to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Formation {
    #[prost(bytes = "bytes", tag = "1")]
    dag: Bytes,
    #[prost(message, optional, tag = "2")]
    definition: Option<api::DagDefinition>,
    #[prost(message, repeated, tag = "3")]
    members: Vec<api::FoundingMember>,
    #[prost(bytes = "bytes", tag = "4")]
    activation: Bytes,
    /// The second round was carried out.
    #[prost(bool, tag = "5")]
    formed: bool,
    /// Of a node that joined a DAG that there was: this one; 0: it was among the first.
    #[prost(uint64, tag = "6")]
    joined_as: u64,
    /// Its copy of the control group.
    #[prost(uint64, tag = "7")]
    control_replica: u64,
}

/// How far a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// It belongs to nothing.
    Unprovisioned,
    /// It agreed to belong to a DAG.
    Prepared(Formation),
    /// It belongs to one.
    Member(Formation),
}

/// Why a node does not do what creation asks. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It belongs to another DAG.
    #[error("this node belongs to DAG {dag}; a node belongs to one DAG for ever")]
    BelongsElsewhere {
        /// To which.
        dag: DagId,
    },
    /// It is prepared for another DAG, or for another definition of this one.
    #[error(
        "this node is prepared for DAG {dag} by another definition; repeat that creation with the \
         same dag.toml, or stop the node, remove its root folder, and begin again"
    )]
    PreparedElsewhere {
        /// For which.
        dag: DagId,
    },
    /// The first round is missing.
    #[error(
        "this node is not prepared: its store is new or was wiped; run `dagctl dag create` only \
             where no node of the definition belongs to the DAG yet"
    )]
    NotPrepared,
    /// The definition's digest is another.
    #[error("the definition arrived damaged: its digest is another")]
    Digest,
    /// The definition cannot be used.
    #[error("the definition cannot be used: {}", .0.join("; "))]
    Definition(Vec<String>),
    /// The node is not in the definition, or stands in it with other addresses.
    #[error("{0}")]
    NotThisNode(String),
    /// The members named in the second round do not fit.
    #[error("{0}")]
    Members(String),
    /// The file could not be written.
    #[error("write down what was agreed: {0}")]
    Disk(String),
}

/// Why a start is refused.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("read {path}: {detail}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}

/// Who this node is, for the checks.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its number.
    pub node: NodeId,
    /// Its store.
    pub store: StoreId,
    /// Where it listens for the others; empty where it listens on all addresses.
    pub peer_address: String,
}

impl Formation {
    /// The DAG.
    pub fn dag(&self) -> DagId {
        DagId::from_slice(&self.dag).unwrap_or(DagId::NIL)
    }

    /// The first link.
    pub fn lineage(&self) -> Lineage {
        let activation = ActivationId::from_slice(&self.activation).unwrap_or(ActivationId::NIL);
        Lineage { epoch: 1, activation }
    }

    /// From what the DAG is created.
    pub fn definition(&self) -> Definition {
        definition(self.definition.as_ref().unwrap_or(&api::DagDefinition::default()))
    }

    /// The definition as it came.
    pub fn api_definition(&self) -> api::DagDefinition {
        self.definition.clone().unwrap_or_default()
    }

    /// The store of each member.
    pub fn members(&self) -> &[api::FoundingMember] {
        &self.members
    }

    /// The store of a member.
    pub fn store_of(&self, node: NodeId) -> Option<StoreId> {
        let member = self.members.iter().find(|member| member.node_id == node.0)?;
        StoreId::from_slice(&member.store_id)
    }

    /// The DAG was there before this node.
    pub fn joined(&self) -> bool {
        self.joined_as != 0
    }

    /// The copies of the control group; of a node that joined, its own, which learns.
    pub fn control_replicas(&self) -> Vec<FoundingReplica> {
        if self.joined() {
            let (node, replica) = (NodeId(self.joined_as), ReplicaId(self.control_replica));
            return vec![FoundingReplica { node, replica, voter: false }];
        }
        self.definition().founding_replicas()
    }

    /// The one node that initialises the control group.
    pub fn first_voter(&self) -> Option<NodeId> {
        self.control_replicas().iter().find(|copy| copy.voter).map(|copy| copy.node)
    }
}

impl Stage {
    /// What was agreed, if anything.
    pub fn formation(&self) -> Option<&Formation> {
        match self {
            Self::Unprovisioned => None,
            Self::Prepared(formation) | Self::Member(formation) => Some(formation),
        }
    }

    /// The first round.
    pub fn prepare(&self, own: &Own, asked: &api::PrepareDagRequest) -> Result<Self, Refusal> {
        let wanted = asked.definition.clone().unwrap_or_default();
        let dag = dag_api::convert::dag_id(&asked.dag_id)
            .map_err(|bad| Refusal::Definition(vec![bad.to_string()]))?;
        if asked.definition_digest.as_ref() != wanted.digest() {
            return Err(Refusal::Digest);
        }
        if let Some(known) = self.formation() {
            let same = known.dag() == dag && known.api_definition() == wanted;
            return match (same, self) {
                (true, _) => Ok(self.clone()),
                (false, Self::Member(_)) => Err(Refusal::BelongsElsewhere { dag: known.dag() }),
                (false, _) => Err(Refusal::PreparedElsewhere { dag: known.dag() }),
            };
        }
        let problems = definition(&wanted).problems();
        if !problems.is_empty() {
            return Err(Refusal::Definition(problems));
        }
        check_own(own, &wanted)?;
        Ok(Self::Prepared(Formation {
            dag: asked.dag_id.clone(),
            definition: Some(wanted),
            ..Formation::default()
        }))
    }

    /// The second round.
    pub fn form(&self, own: &Own, asked: &api::FormDagRequest) -> Result<Self, Refusal> {
        let known = self.formation().ok_or(Refusal::NotPrepared)?;
        if known.dag != asked.dag_id {
            return Err(match self {
                Self::Member(_) => Refusal::BelongsElsewhere { dag: known.dag() },
                _ => Refusal::PreparedElsewhere { dag: known.dag() },
            });
        }
        if asked.definition_digest.as_ref() != known.api_definition().digest() {
            return Err(Refusal::Digest);
        }
        check_members(own, known, asked)?;
        let formed = Formation {
            members: asked.members.clone(),
            activation: asked.first_activation_id.clone(),
            formed: true,
            ..known.clone()
        };
        match self {
            Self::Member(formation) if *formation != formed => Err(Refusal::Members(
                "this node was formed with other stores or another first link".into(),
            )),
            _ => Ok(Self::Member(formed)),
        }
    }

    /// The one round of a node that joins. What came before it counts: the others may have changed
    /// meanwhile, and the control log tells.
    pub fn join(&self, own: &Own, asked: &api::JoinDagRequest) -> Result<Self, Refusal> {
        let dag = dag_api::convert::dag_id(&asked.dag_id)
            .map_err(|bad| Refusal::Definition(vec![bad.to_string()]))?;
        if let Some(known) = self.formation() {
            let same = known.dag() == dag && known.control_replica == asked.control_replica;
            return match (same && known.joined(), self) {
                (true, _) => Ok(self.clone()),
                (false, Self::Member(_)) => Err(Refusal::BelongsElsewhere { dag: known.dag() }),
                (false, _) => Err(Refusal::PreparedElsewhere { dag: known.dag() }),
            };
        }
        let wanted = asked.definition.clone().unwrap_or_default();
        check_own(own, &wanted)?;
        if asked.control_replica == 0 {
            return Err(Refusal::Members("its copy of the control group is not named".into()));
        }
        let known = Formation {
            dag: asked.dag_id.clone(),
            definition: Some(wanted),
            members: asked.members.clone(),
            activation: asked.first_activation_id.clone(),
            formed: true,
            joined_as: own.node.0,
            control_replica: asked.control_replica,
        };
        let round = api::FormDagRequest {
            members: asked.members.clone(),
            first_activation_id: asked.first_activation_id.clone(),
            ..api::FormDagRequest::default()
        };
        check_members(own, &known, &round)?;
        Ok(Self::Member(known))
    }

    /// Reads what was agreed.
    pub fn load(disk: &dyn Disk, root: &Path) -> Result<Self, LoadError> {
        let path = root.join(FILE);
        let broken = |detail: String| LoadError::Read { path: path.clone(), detail };
        if !disk.exists(&path).map_err(|e| broken(e.to_string()))? {
            return Ok(Self::Unprovisioned);
        }
        let framed = read_whole(disk, &path).map_err(|e| broken(e.to_string()))?;
        let bytes = dag_format::value::payload(FRAME_KEY, &framed.into())
            .map_err(|e| broken(e.to_string()))?;
        let formation = Formation::decode(bytes).map_err(|e| broken(e.to_string()))?;
        Ok(if formation.formed { Self::Member(formation) } else { Self::Prepared(formation) })
    }

    /// Makes it durable.
    pub fn save(&self, disk: &dyn Disk, root: &Path) -> Result<(), Refusal> {
        let Some(formation) = self.formation() else { return Ok(()) };
        let framed = dag_format::value::frame(FRAME_KEY, &formation.encode_to_vec());
        replace_whole(disk, &root.join(FILE), &framed).map_err(|e| Refusal::Disk(e.to_string()))
    }
}

/// The definition has to name this node with the address that it listens on: a node that was given
/// another's number would otherwise be formed in its place.
fn check_own(own: &Own, wanted: &api::DagDefinition) -> Result<(), Refusal> {
    let Some(node) = wanted.nodes.iter().find(|node| node.node_id == own.node.0) else {
        let text = format!("this is node {}, which the definition does not name", own.node);
        return Err(Refusal::NotThisNode(text));
    };
    if !own.peer_address.is_empty() && node.peer_address != own.peer_address {
        return Err(Refusal::NotThisNode(format!(
            "this is node {} and listens for the others on {}; the definition says {}",
            own.node, own.peer_address, node.peer_address
        )));
    }
    Ok(())
}

fn check_members(own: &Own, known: &Formation, asked: &api::FormDagRequest) -> Result<(), Refusal> {
    let wrong = |text: String| Err(Refusal::Members(text));
    if asked.first_activation_id.len() != 16 {
        return wrong("the first link's id needs sixteen bytes".into());
    }
    let mut named: Vec<u64> = asked.members.iter().map(|member| member.node_id).collect();
    let mut wanted: Vec<u64> =
        known.api_definition().nodes.iter().map(|node| node.node_id).collect();
    named.sort_unstable();
    wanted.sort_unstable();
    if named != wanted {
        return wrong(format!("the members are nodes {wanted:?}, and {named:?} were named"));
    }
    for member in &asked.members {
        let store = dag_api::convert::store_id(&member.store_id);
        match store {
            Err(bad) => return wrong(format!("node {}: {bad}", member.node_id)),
            Ok(store) if member.node_id == own.node.0 && store != own.store => {
                return wrong(format!(
                    "this node's store is {}, and {store} was named: it was wiped or exchanged \
                     since it was prepared",
                    own.store
                ));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

/// The definition as the control group has it.
pub fn definition(api: &api::DagDefinition) -> Definition {
    let node = |node: &api::NodeDefinition| NodeDefinition {
        node: node.node_id,
        name: if node.name.is_empty() { node.node_id.to_string() } else { node.name.clone() },
        site: node.site.clone(),
        witness: node.witness,
        peer_address: node.peer_address.clone(),
        client_address: node.api_address.clone(),
        admin_address: node.admin_address.clone(),
    };
    Definition {
        name: api.name.clone(),
        sites: api.sites.iter().map(|site| site.name.clone()).collect(),
        nodes: api.nodes.iter().map(node).collect(),
        control_voters: api.control_voters.clone(),
        database_timeouts: Some(timeouts(api.database_timeouts.as_ref())),
        control_timeouts: Some(timeouts(api.control_timeouts.as_ref())),
    }
}

/// A shape by its name, or by its numbers where it has some.
fn timeouts(shape: Option<&api::TimeoutShape>) -> Timeouts {
    match shape {
        None => Timeouts::DEFAULT,
        Some(shape) if shape.heartbeat_ms > 0 => Timeouts {
            heartbeat_ms: shape.heartbeat_ms,
            election_ms_min: shape.election_ms_min,
            election_ms_max: shape.election_ms_max,
        },
        Some(shape) => match shape.name.as_str() {
            "fast" => Timeouts::FAST,
            "wan" => Timeouts::WAN,
            "" | "default" => Timeouts::DEFAULT,
            // Refused by the definition's own checks: no heartbeat is zero.
            _ => Timeouts { heartbeat_ms: 0, election_ms_min: 0, election_ms_max: 0 },
        },
    }
}

#[cfg(test)]
#[path = "formation_test.rs"]
mod tests;
