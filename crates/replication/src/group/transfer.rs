//! Handing leadership to another copy, and getting out when that fails.
//!
//! In openraft a transfer is sticky: while it is under way the leader takes no writes and sends no
//! heartbeats, and only a new vote ends that. With the target gone and too few others to elect,
//! that is for ever. So:
//!
//! 1. ask the target whether it may lead, and whether its log is near enough;
//! 2. stop taking proposals, wait until the target's log is level;
//! 3. transfer, and wait a bounded time until another copy leads;
//! 4. else repair: replace the own Raft instance, which then campaigns and leads again.

use std::time::Duration;

use dag_api::peer::v1 as pb;
use dag_api::peer::v1::control_answer::Answer;
use dag_api::peer::v1::control_call::Call;
use dag_types::{NodeId, ReplicaId};
use openraft::AsyncRuntime;
use openraft::async_runtime::WatchReceiver;
use std::sync::atomic::Ordering;
use thiserror::Error;
use tokio::time::Instant;

use super::{LeaderHint, NotActive, RaftGroup};
use crate::link::LinkError;
use crate::mux::control::Pace;

/// How long the new leader may take before the transfer is repaired.
const TRANSFER_WAIT: Duration = Duration::from_secs(2);
/// How often the target's log is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransferError {
    /// This copy does not lead.
    #[error(transparent)]
    NotLeader(#[from] NotActive),
    /// The target is not another voter of this group.
    #[error("replica {target} is not another voter of this group")]
    NotAVoter {
        /// The target.
        target: ReplicaId,
    },
    /// The target does not answer, or refuses.
    #[error("ask the target: {0}")]
    Target(#[from] LinkError),
    /// The target may not lead.
    #[error("the target may not campaign")]
    MayNotCampaign,
    /// The target's log did not become level before the deadline. Nothing was transferred.
    #[error("the target is {behind} entries behind")]
    Behind {
        /// By how many entries.
        behind: u64,
    },
    /// The transfer was begun and got stuck; this copy's Raft instance was replaced.
    #[error("the transfer got stuck and was repaired; the leader now: {leader:?}")]
    Repaired {
        /// Who leads afterwards, if anybody yet.
        leader: Option<LeaderHint>,
    },
}

impl<R: AsyncRuntime> RaftGroup<R> {
    pub async fn transfer(&self, to: ReplicaId, deadline: Instant) -> Result<(), TransferError> {
        let term = self.leading().ok_or_else(|| self.not_active())?;
        let node = self.other_voter(to)?;
        self.ask_readiness(to, node, deadline).await?;
        self.inner.accepts.store(false, Ordering::SeqCst);
        let handed_over = self.hand_over(to, term, deadline).await;
        self.inner.accepts.store(true, Ordering::SeqCst);
        handed_over
    }

    fn other_voter(&self, to: ReplicaId) -> Result<NodeId, TransferError> {
        let members = self.status().members;
        let target = members.iter().find(|member| member.replica == to && member.voter);
        target
            .filter(|_| to != self.replica())
            .map(|member| member.node)
            .ok_or(TransferError::NotAVoter { target: to })
    }

    async fn ask_readiness(
        &self,
        to: ReplicaId,
        node: NodeId,
        deadline: Instant,
    ) -> Result<(), TransferError> {
        let link = &self.inner.link;
        let deadline = deadline.min(Instant::now() + TRANSFER_WAIT);
        let call = Call::Readiness(pb::ReadinessCall {});
        let peer = link.peers.get(node);
        let answer = peer.control.call(link.header(to.0), call, Pace::AtOnce, deadline).await?;
        match answer {
            Answer::Readiness(readiness) if readiness.may_campaign => Ok(()),
            Answer::Readiness(_) => Err(TransferError::MayNotCampaign),
            _ => Err(LinkError::broken("an answer of another kind").into()),
        }
    }

    async fn hand_over(
        &self,
        to: ReplicaId,
        term: u64,
        deadline: Instant,
    ) -> Result<(), TransferError> {
        self.wait_level(to, term, deadline).await?;
        let instance = self.instance().ok_or_else(|| self.not_active())?;
        let begun = instance.raft.trigger().transfer_leader(to.0).await;
        begun.map_err(|_| self.not_active())?;
        match self.wait_for_leader().await {
            Some(leader) if leader == to.0 => return Ok(()),
            // Somebody else was elected, which ends a transfer as well.
            Some(_) => return Err(self.not_active().into()),
            None => {}
        }
        let db = self.spec().database;
        tracing::warn!(%db, replica = %to, "a transfer got stuck: repairing");
        // A fault while replacing shows in the status; the transfer failed in any case.
        let _ = self.rebuild().await;
        Err(TransferError::Repaired { leader: self.leader() })
    }

    /// Waits until the target holds everything that this leader has.
    async fn wait_level(
        &self,
        to: ReplicaId,
        term: u64,
        deadline: Instant,
    ) -> Result<(), TransferError> {
        loop {
            let status = self.status();
            if self.leading() != Some(term) {
                return Err(self.not_active().into());
            }
            let target = status.followers.iter().find(|follower| follower.replica == to);
            let matched = target.and_then(|target| target.matched);
            if matched == status.last {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let next = |at: Option<dag_types::LogId>| at.map_or(0, |at| at.index + 1);
                let behind = next(status.last).saturating_sub(next(matched));
                return Err(TransferError::Behind { behind });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until another copy leads, and says which.
    async fn wait_for_leader(&self) -> Option<u64> {
        let (instance, own) = (self.instance()?, self.replica().0);
        let mut metrics = instance.raft.server_metrics();
        let led = async {
            loop {
                let leader = metrics.borrow_watched().current_leader;
                if let Some(other) = leader.filter(|leader| *leader != own) {
                    return Some(other);
                }
                metrics.changed().await.ok()?;
            }
        };
        tokio::time::timeout(TRANSFER_WAIT, led).await.ok().flatten()
    }
}
