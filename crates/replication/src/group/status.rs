//! How a copy stands, by its own knowledge, without asking anybody.

use dag_types::{DatabaseId, Generation, LogId, NodeId, ReplicaId};
use openraft::async_runtime::WatchReceiver;
use openraft::{AsyncRuntime, Instant, ServerState};

use super::{LeaderHint, RaftGroup};
use crate::event::Role;
use crate::state_machine::Mounted;
use crate::types::log_id;

/// A copy's own knowledge of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// The database.
    pub database: DatabaseId,
    /// Which incarnation.
    pub generation: Generation,
    /// Which copy.
    pub replica: ReplicaId,
    /// Its role; a cached one, never a proof.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<LeaderHint>,
    /// Raft's term.
    pub term: u64,
    /// The end of its log.
    pub last: Option<LogId>,
    /// The last entry of its log that is durable.
    pub durable: Option<LogId>,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogId>,
    /// The last entry that it applied.
    pub applied: Option<LogId>,
    /// The last entry whose effects are durable in its state.
    pub flushed: Option<LogId>,
    /// The last entry that is not in the log any more.
    pub purged: Option<LogId>,
    /// The other copies, as the leader knows them; empty where this copy does not lead.
    pub followers: Vec<FollowerStatus>,
    /// All copies of the group.
    pub members: Vec<MemberStatus>,
    /// Whether a change of the members is under way.
    pub joint: bool,
    /// The members are one set of voters, and known to be committed: no leader goes back to those before.
    pub settled: bool,
    /// The mount that was applied last.
    pub mounted: Option<Mounted>,
    /// Whether this copy serves, by what it knows.
    pub serving: bool,
    /// Whether it may ask for votes.
    pub may_campaign: bool,
    /// Whether it may be handed leadership, and be mounted when it leads.
    pub candidate: bool,
    /// Whether it refuses votes because it started a moment ago.
    pub vote_quarantine: bool,
    /// Why it is Failed, if it is.
    pub failed: Option<String>,
}

/// Another copy, as the leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerStatus {
    /// The copy.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// Up to where its durable log equals the leader's.
    pub matched: Option<LogId>,
    /// Milliseconds since it answered last; `None` where it never did.
    pub silent_ms: Option<u64>,
}

/// A member of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberStatus {
    /// The copy.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// Whether it votes, in any set of a joint membership.
    pub voter: bool,
}

impl<R: AsyncRuntime> RaftGroup<R> {
    /// Role and term, by openraft's cached metrics.
    pub(super) fn role(&self) -> (Role, u64) {
        let Some(instance) = self.instance() else { return (Role::Stopped, 0) };
        let metrics = instance.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let role = match metrics.state {
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Stopped,
        };
        (role, metrics.vote.leader_id().term)
    }

    pub fn leader(&self) -> Option<LeaderHint> {
        let instance = self.instance()?;
        let metrics = instance.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let replica = metrics.current_leader?;
        let member = metrics.membership_config.membership().get_node(&replica)?;
        Some(LeaderHint { replica: ReplicaId(replica), node: member.node })
    }

    /// The node of a member, by the membership that this copy uses.
    pub(crate) fn node_of(&self, replica: u64) -> Option<NodeId> {
        let instance = self.instance()?;
        let metrics = instance.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_node(&replica).map(|member| member.node)
    }

    pub fn status(&self) -> GroupStatus {
        let (inner, spec) = (&*self.inner, self.spec());
        let (role, term) = self.role();
        let bounds = inner.log.bounds();
        let mut status = GroupStatus {
            database: spec.database,
            generation: spec.generation,
            replica: spec.replica,
            role,
            leader: self.leader(),
            term,
            last: bounds.last,
            durable: bounds.durable,
            committed: inner.log.committed(),
            applied: inner.copy.applied(),
            flushed: inner.copy.flushed(),
            purged: bounds.purged,
            followers: Vec::new(),
            members: Vec::new(),
            joint: false,
            settled: false,
            mounted: inner.copy.mounted(),
            serving: self.serving().is_ok(),
            may_campaign: self.may_campaign(),
            candidate: self.is_candidate(),
            vote_quarantine: self.in_vote_quarantine(),
            failed: inner.fault.reason().map(str::to_owned),
        };
        self.add_members(&mut status);
        status
    }

    fn add_members(&self, status: &mut GroupStatus) {
        let Some(instance) = self.instance() else { return };
        // Cloned, because a held reference would keep openraft from publishing the next one.
        let metrics = instance.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        status.joint = membership.get_joint_config().len() > 1;
        status.committed = metrics.local_committed.as_ref().map(log_id).max(status.committed);
        let at = metrics.membership_config.log_id().as_ref().map(log_id);
        status.settled = !status.joint && at.is_some() && at <= status.committed;
        let voters: Vec<u64> = membership.voter_ids().collect();
        status.members = membership
            .nodes()
            .map(|(replica, member)| MemberStatus {
                replica: ReplicaId(*replica),
                node: member.node,
                voter: voters.contains(replica),
            })
            .collect();
        let Some(replication) = metrics.replication else { return };
        let beats = metrics.heartbeat.unwrap_or_default();
        status.followers = replication
            .into_iter()
            .filter(|(replica, _)| *replica != status.replica.0)
            .filter_map(|(replica, matched)| {
                let member = membership.get_node(&replica)?;
                let heard = beats.get(&replica).copied().flatten();
                Some(FollowerStatus {
                    replica: ReplicaId(replica),
                    node: member.node,
                    matched: matched.as_ref().map(log_id),
                    silent_ms: heard.map(|heard| heard.elapsed().as_millis() as u64),
                })
            })
            .collect();
    }
}
