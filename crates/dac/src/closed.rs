//! Why a gate is closed, in words that name what to do.

use alloc::string::String;

use dag_types::{ActivationId, Lineage, Millis, NodeId};
use thiserror::Error;

/// Why nothing is served here now.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
pub enum Closed {
    /// The node started and was granted nothing yet.
    #[error("the gate is closed since the node started and waits for a grant")]
    NeverOpened,
    /// The lease ran out.
    #[error("the lease ended: the control leader's grants did not arrive in time")]
    LeaseEnded,
    /// The DAG went on in another lineage.
    #[error("the DAG went on in lineage {0}")]
    NewerLineage(Lineage),
    /// The node's site is on the list of stopped ones.
    #[error("site {0} is stopped: the DAG serves elsewhere until the site is started again")]
    SiteStopped(String),
    /// The node's clocks disagree: it was suspended, or a clock was set.
    #[error("the node's clocks jumped by {0}; it was suspended, or its clock is broken")]
    ClockJump(Millis),
    /// The control log holds another start of this node.
    #[error(
        "a later start of this node is registered: its disk was turned back or cloned; it comes \
         back as a new store"
    )]
    Superseded,
    /// The node's disk failed.
    #[error("the node's store failed")]
    StoreFailed,
    /// Two sites were activated apart.
    #[error(
        "FORKED: lineage {0} is no continuation of this one; both sides stay closed \
         until a person chooses a branch"
    )]
    Forked(Lineage),
    /// The node promised to take part in an unfenced activation.
    #[error("the node takes part in the unfenced activation {0}, which is not complete")]
    Promised(ActivationId),
    /// Open, but not for as long as this attempt may take.
    #[error("the lease ends in {left} and the attempt may take {wanted}; try again")]
    TooShort {
        /// What is left.
        left: Millis,
        /// What the attempt may take.
        wanted: Millis,
    },
    /// The permit is of an opening that ended; what was proposed under it has an unknown outcome.
    #[error("the gate closed after this permit was given")]
    AnotherOpening,
    /// The attempt's deadline passed.
    #[error("the attempt's deadline passed")]
    Deadline,
}

/// Why a node does not take part in an unfenced activation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
pub enum NoPart {
    /// It answered a control leader who would not take part.
    #[error("it gave its word to the control leader on node {leader} for another {left}")]
    WordGiven {
        /// Who asked.
        leader: NodeId,
        /// How long the word still binds.
        left: Millis,
    },
    /// It heard a node that would not take part.
    #[error("it heard node {node} {ago} ago, which would not take part")]
    Heard {
        /// Whom.
        node: NodeId,
        /// When.
        ago: Millis,
    },
    /// It has listened too short to know who lives.
    #[error(
        "it started {ago} ago and listens for {needed} before it believes that others are gone"
    )]
    JustStarted {
        /// When.
        ago: Millis,
        /// How long.
        needed: Millis,
    },
    /// It takes part in another one.
    #[error("it promised to take part in activation {0}; abort that one first")]
    OtherPromise(ActivationId),
    /// Its lineage is in dispute.
    #[error("it is FORKED")]
    Forked,
}
