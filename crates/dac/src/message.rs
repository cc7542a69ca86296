//! What holder and granter say to each other.

use dag_types::{Boot, GrantId, Lineage, LineageChain, Millis, NodeId, StoreId};
use thiserror::Error;

/// One message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// From a node to the control leader.
    Renewal(Renewal),
    /// From the control leader to a node.
    Grant(Grant),
    /// From the control leader to a node.
    Refusal(Refusal),
    /// From the control leader to a data node.
    Question(Question),
    /// From a data node to the control leader.
    Answer(Answer),
    /// Any node asks for the whole chain.
    AskLineage,
    /// The whole chain, all links of it complete.
    Lineage(LineageChain),
}

/// Who holds a gate: the node, its disk, its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Its number.
    pub node: NodeId,
    /// The disk that it runs from.
    pub store: StoreId,
    /// This start of it.
    pub boot: Boot,
}

/// A request for a grant, or for more time on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Renewal {
    /// Counts the requests of this start of the node. The answer names it, because the lease counts
    /// from the sending of exactly this request.
    pub request: u64,
    /// Who asks.
    pub holder: Holder,
    /// The lineage that the holder stands in.
    pub lineage: Lineage,
    /// The opening to extend; none: the gate is closed and asks for a new one.
    pub holds: Option<GrantId>,
}

/// Permission to keep the gate open for `ttl` from the sending of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The request that it answers.
    pub request: u64,
    /// For whom. A grant for another disk or start opens nothing.
    pub holder: Holder,
    /// In which lineage.
    pub lineage: Lineage,
    /// Which opening; recorded in the control log before this is sent.
    pub grant: GrantId,
    /// For how long.
    pub ttl: Millis,
}

/// No grant, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The request that it answers.
    pub request: u64,
    /// Why.
    pub why: NotGranted,
}

/// Why a control leader grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
pub enum NotGranted {
    /// The control log knows no such data node.
    #[error("node {0} is no data node of this DAG")]
    UnknownNode(NodeId),
    /// The node runs on another disk than the registered one.
    #[error("node {0} runs on another store than the registered one; it comes back as a new store")]
    UnknownStore(NodeId),
    /// This start of the node is not in the control log, or a later one is.
    #[error("start {} of node {node} is not the registered one ({})", .asked.counter, .registered.counter)]
    BootNotRegistered {
        /// Who asked.
        node: NodeId,
        /// The start that asked.
        asked: Boot,
        /// The start in the log.
        registered: Boot,
    },
    /// The holder stands in another lineage.
    #[error("the node stands in lineage {asked} and the DAG in {current}")]
    OtherLineage {
        /// The holder's.
        asked: Lineage,
        /// The DAG's.
        current: Lineage,
    },
    /// The node's site is stopped.
    #[error("site {0} is stopped: the DAG serves elsewhere until the site is started again")]
    SiteStopped(alloc::string::String),
    /// The control leader has heard too little to rule out that a site was activated elsewhere.
    #[error("the control leader is not confirmed: {0}")]
    NotConfirmed(alloc::string::String),
    /// The grant that should be extended is not the last one of this node.
    #[error("opening {0} is not the last one that the control log holds for this node")]
    NotTheLastOpening(GrantId),
}

/// Names one question of one control leader's term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId {
    /// The control group's term.
    pub term: u64,
    /// Counts the questions of that term.
    pub number: u64,
}

/// A control leader asks a data node how it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question {
    /// What the answer names.
    pub id: QuestionId,
    /// Who asks.
    pub from: NodeId,
    /// The lineage of whoever asks; another one gets no answer.
    pub lineage: Lineage,
}

/// A data node says how it stands. It is also a promise: for two lease times it takes part in no
/// unfenced activation without the node that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The question.
    pub id: QuestionId,
    /// Who answers.
    pub holder: Holder,
    /// The lineage that it stands in.
    pub lineage: Lineage,
    /// What is left of its grant; none: its gate is closed.
    pub held: Option<Millis>,
}
