//! Changing who belongs to a group.
//!
//! Every change goes through joint consensus, and only the leader can make it. A copy joins as a
//! learner first; it becomes a voter when the caller finds it close enough. A replica id is used
//! once for ever, so a copy that left never comes back under the same id.

use std::collections::{BTreeMap, BTreeSet};

use dag_types::ReplicaId;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{AsyncRuntime, ChangeMembers};
use thiserror::Error;
use tokio::time::Instant;

use super::{NotActive, RaftGroup};
use crate::types::{Member, Types};

/// Why a change of members was not made, or not known to be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MembersError {
    /// This copy does not lead.
    #[error(transparent)]
    NotLeader(#[from] NotActive),
    /// The change is not possible now; nothing was changed.
    #[error("change the members: {detail}")]
    Refused {
        /// Why.
        detail: String,
    },
    /// The deadline passed, or leadership was lost, while the change was under way. The membership
    /// in the status says what became of it; a change that is half made is completed by the next
    /// leader's next change.
    #[error("the outcome of the change is unknown: {why}")]
    OutcomeUnknown {
        /// What happened.
        why: &'static str,
    },
}

type Changed<R> = Result<
    openraft::raft::ClientWriteResponse<Types<R>>,
    RaftError<Types<R>, ClientWriteError<Types<R>>>,
>;

impl<R: AsyncRuntime> RaftGroup<R> {
    pub async fn add_learners(
        &self,
        learners: &BTreeMap<ReplicaId, Member>,
        deadline: Instant,
    ) -> Result<(), MembersError> {
        let nodes = learners.iter().map(|(replica, member)| (replica.0, *member)).collect();
        self.change(ChangeMembers::AddNodes(nodes), true, deadline).await
    }

    pub async fn change_voters(
        &self,
        voters: &BTreeSet<ReplicaId>,
        deadline: Instant,
    ) -> Result<(), MembersError> {
        let voters: BTreeSet<u64> = voters.iter().map(|replica| replica.0).collect();
        self.change(ChangeMembers::ReplaceAllVoters(voters), true, deadline).await
    }

    pub async fn remove_learners(
        &self,
        learners: &BTreeSet<ReplicaId>,
        deadline: Instant,
    ) -> Result<(), MembersError> {
        let learners: BTreeSet<u64> = learners.iter().map(|replica| replica.0).collect();
        self.change(ChangeMembers::RemoveNodes(learners), true, deadline).await
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, Member>,
        retain: bool,
        deadline: Instant,
    ) -> Result<(), MembersError> {
        let instance = self.instance().ok_or_else(|| self.not_active())?;
        let change = instance.raft.change_membership(change, retain);
        match tokio::time::timeout_at(deadline, change).await {
            Err(_) => Err(MembersError::OutcomeUnknown { why: "the deadline passed" }),
            Ok(changed) => self.judge(changed),
        }
    }

    fn judge(&self, changed: Changed<R>) -> Result<(), MembersError> {
        match changed {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(_)) => {
                Err(MembersError::OutcomeUnknown { why: "the copy stopped" })
            }
            Err(RaftError::APIError(error)) => match error {
                ClientWriteError::ForwardToLeader(_) => Err(self.not_active().into()),
                ClientWriteError::LogEntryDiscarded(_) => {
                    Err(MembersError::OutcomeUnknown { why: "another leader took over" })
                }
                ClientWriteError::ChangeMembershipError(error) => {
                    Err(MembersError::Refused { detail: error.to_string() })
                }
                ClientWriteError::PreconditionFailed(error) => {
                    Err(MembersError::Refused { detail: error.to_string() })
                }
            },
        }
    }
}
