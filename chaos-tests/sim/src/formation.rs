//! What was agreed when the DAG was formed, for the daemon's own decisions ([`crate::daemon`]): nothing,
//! because a run forms its groups itself before any node looks at the control log.

use active_manager::control::FoundingReplica;
use dag_types::NodeId;

/// Nothing that a node would still have to do.
pub(crate) struct Formation;

impl Formation {
    pub(crate) fn control_replicas(&self) -> Vec<FoundingReplica> {
        Vec::new()
    }

    pub(crate) fn first_voter(&self) -> Option<NodeId> {
        None
    }

    pub(crate) fn joined(&self) -> bool {
        true
    }
}
