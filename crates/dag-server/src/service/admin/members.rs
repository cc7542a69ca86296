//! Taking a node out of the DAG: decided and recorded by the control leader, carried out by it.
//!
//! ```text
//!  dagctl ──► control leader: checks, plan             (plan only: that was all)
//!               │  operation begun
//!               ├──► the node is leaving; its site's old and new list on more than half of both
//!               ├──► the control group's voters without it, by a joint change
//!               ├──► its copy of the directory is taken away
//!               ├──► its record and its copy of the control group are gone
//!               ▼  operation ended
//! ```
//! All steps are orders of the control log, and each may be given again: a later leader finds by
//! the record which one was begun, and by the state whether it was carried out.

use std::time::Duration;

use active_manager::control::command::{PlaceControlVoters, RemoveCopy, RemoveNode, RetireNode};
use active_manager::control::{ControlState, NodeRecord, Order, Rejection};
use active_manager::course::Next;
use active_manager::removal::{plan_removal, refusal};
use dag_api::admin::v1 as api;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, NodeId};
use replication::GroupStatus;
use tokio::time::Instant;

use super::AdminServer;
use super::carry::Carrying;
use super::moves::{Office, show_checks};
use super::orders::Asker;
use super::plan::{Leave, LeaveStep, Plan, begun_by};
use super::seed_plan::settled_voters;
use super::show::known_copies;
use crate::reports::STALE;
use crate::status;

const CONTROL: DatabaseId = DatabaseId::CONTROL;
/// How long what a step asked for may take to come about.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

/// What a step came to: the inner error is the step's own and goes on record; the outer one means
/// that this node lets go.
pub(super) type Came = Result<Result<String, String>, Problem>;

impl AdminServer {
    pub(super) async fn remove_node(
        &self,
        request: api::RemoveNodeRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::RemoveNodeResponse, Problem> {
        let member = self.node.member()?;
        let office = self.office(deadline).await?;
        if let Some(operation) = begun_by(&office.state, &request.request_id) {
            return Ok(api::RemoveNodeResponse { operation, ..Default::default() });
        }
        let node = office.state.node(NodeId(request.node_id)).ok_or_else(|| {
            let text = format!("there is no node {}", request.node_id);
            Problem::new(Reason::NodeNotFound, text).next("dagctl status")
        })?;
        self.ask_all(member).await;
        let reports = self.reports(member, STALE);
        let removal = plan_removal(&office.state, &reports, node);
        let plan = planned(&office.state, node, removal.voters, &request.request_id);
        let refused = refusal(&removal.checks, node);
        let response = api::RemoveNodeResponse {
            checks: show_checks(&removal.checks, refused.as_ref()),
            steps: plan.all_words(),
            operation: 0,
        };
        if request.plan_only {
            return Ok(response);
        }
        if let Some(refused) = refused {
            return Err(status::control(&Rejection::Check(refused)));
        }
        let request_id = request.request_id;
        let operation = self.start(&request_id, Plan::Leave(plan), office.term, asker).await?;
        Ok(api::RemoveNodeResponse { operation, ..response })
    }

    pub(super) async fn carry_leave(&self, at: &Carrying, planned: &Leave) -> Result<(), Problem> {
        loop {
            let (_, known) = self.record(at).await?;
            let (number, step, undoes) = match planned.next(&known) {
                Next::Send { number, step, undoes } => (number, step, undoes),
                Next::End { state, outcome } => {
                    return self.end(at.operation, state, outcome, &at.asker).await;
                }
            };
            let what = planned.step_words(&step, undoes);
            self.begin_step(at, &known, (number, planned.node, what), undoes).await?;
            let came = self.leave_step(at, planned, &step).await?;
            self.end_step(at, number, came).await?;
        }
    }

    async fn leave_step(&self, at: &Carrying, planned: &Leave, step: &LeaveStep) -> Came {
        let node = NodeId(planned.node);
        match step {
            LeaveStep::Retire | LeaveStep::Stay => {
                let stays = *step == LeaveStep::Stay;
                let order = RetireNode { node: node.0, stays, term: at.term };
                if let Err(why) = self.order_at(at, Order::RetireNode(order)).await? {
                    return Ok(Err(why));
                }
                let own = self.node.id();
                let listed = |office: &Office, status: &GroupStatus| {
                    stays || list_is_on_disk(&office.state, status, node, own)
                };
                self.until(
                    at,
                    "the site's list is on more than half of its nodes",
                    PATIENCE,
                    listed,
                )
                .await
            }
            LeaveStep::Voters(nodes) => self.hand_votes(at, nodes).await,
            LeaveStep::Directory => self.leave_directory(at, node).await,
            LeaveStep::Remove => self.see_off(at, node).await,
        }
    }

    /// Exactly these nodes vote in the control group, each by the copy that the control log names.
    pub(super) async fn hand_votes(&self, at: &Carrying, nodes: &[u64]) -> Came {
        let order = PlaceControlVoters { nodes: nodes.to_vec(), term: at.term };
        if let Err(why) = self.order_at(at, Order::PlaceControlVoters(order)).await? {
            return Ok(Err(why));
        }
        let vote = |office: &Office, status: &GroupStatus| {
            let Some(control) = office.state.database(CONTROL) else { return false };
            let mut voters = status.members.iter().filter(|member| member.voter);
            let named = voters.all(|member| {
                control.replica_on(member.node).is_some_and(|copy| copy.id() == member.replica)
            });
            named && votes_of(status) == sorted(nodes)
        };
        let what = "exactly these nodes vote in the control group";
        self.until(at, what, PATIENCE, vote).await
    }

    /// A node's record goes, and the control group is one member less.
    pub(super) async fn see_off(&self, at: &Carrying, node: NodeId) -> Came {
        let (office, _) = self.record(at).await?;
        if office.state.node(node).is_some() {
            let order = RemoveNode { node: node.0, term: at.term };
            if let Err(why) = self.order_at(at, Order::RemoveNode(order)).await? {
                return Ok(Err(why));
            }
        }
        // From here on there is no way back: members follow the record by themselves.
        let gone = |_: &Office, status: &GroupStatus| left(status, node);
        let came = self.until(at, "the control group has no copy there", PATIENCE, gone).await?;
        Ok(Ok(came.unwrap_or_else(|late| late)))
    }

    /// Its copy of the directory goes, and the directory's group is one member less.
    async fn leave_directory(&self, at: &Carrying, node: NodeId) -> Came {
        let (office, _) = self.record(at).await?;
        let directory = office.state.database(DatabaseId::DIRECTORY);
        if directory.is_some_and(|directory| directory.replica_on(node).is_some()) {
            let settled = |_: &Office, _: &GroupStatus| self.directory_voters().is_some();
            let what = "the directory's voters are not being changed";
            if let Err(late) = self.until(at, what, PATIENCE, settled).await? {
                return Ok(Err(late));
            }
            let Some(voters) = self.directory_voters() else {
                return Ok(Err(format!("no longer so: {what}")));
            };
            let order = RemoveCopy { database: DatabaseId::DIRECTORY.0, node: node.0, voters };
            if let Err(why) = self.order_at(at, Order::RemoveCopy(order)).await? {
                return Ok(Err(why));
            }
        }
        // A witness that leads has no copy of the directory to look at; the record is enough.
        let gone = |_: &Office, _: &GroupStatus| {
            let group = self.node.group(DatabaseId::DIRECTORY);
            group.is_err() || group.is_ok_and(|group| left(&group.status(), node))
        };
        self.until(at, "the directory has no copy there", PATIENCE, gone).await
    }

    fn directory_voters(&self) -> Option<Vec<u64>> {
        let reports = self.reports(self.node.member().ok()?, STALE);
        let active = reports.active(DatabaseId::DIRECTORY)?;
        settled_voters(&known_copies(&self.node), DatabaseId::DIRECTORY, active)
    }

    /// An order of the operation. What the control log refuses is the step's own failure.
    pub(super) async fn order_at(
        &self,
        at: &Carrying,
        order: Order,
    ) -> Result<Result<(), String>, Problem> {
        match self.order(order, &at.asker).await {
            Ok(_) => Ok(Ok(())),
            Err(refused) if is_refusal(refused.reason) => Ok(Err(refused.message)),
            Err(lost) => Err(lost),
        }
    }

    /// Waits until something is reached, while this node leads.
    pub(super) async fn until(
        &self,
        at: &Carrying,
        what: &str,
        patience: Duration,
        reached: impl Fn(&Office, &GroupStatus) -> bool,
    ) -> Came {
        let end = Instant::now() + patience;
        loop {
            let (office, _) = self.record(at).await?;
            if reached(&office, &self.node.group(CONTROL)?.status()) {
                return Ok(Ok(what.to_owned()));
            }
            if Instant::now() >= end {
                return Ok(Err(format!("not so within {} s: {what}", patience.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What the control log itself refused; anything else is no answer, or that of another leader.
fn is_refusal(reason: Reason) -> bool {
    matches!(reason, Reason::CheckFailed | Reason::NodeNotFound)
}

fn planned(
    state: &ControlState,
    node: &NodeRecord,
    voters: Option<Vec<NodeId>>,
    request: &str,
) -> Leave {
    let control = state.database(CONTROL).into_iter().flat_map(|group| &group.replicas);
    let earlier = control.filter(|copy| copy.voter).map(|copy| copy.node);
    Leave {
        request: request.to_owned(),
        node: node.node,
        name: node.name.clone(),
        voters: voters.unwrap_or_default().into_iter().map(|node| node.0).collect(),
        earlier_voters: earlier.collect(),
    }
}

/// Whether more than half of the site's old list, and of the new one, have the departure on disk.
fn list_is_on_disk(
    state: &ControlState,
    status: &GroupStatus,
    leaving: NodeId,
    own: NodeId,
) -> bool {
    let Some(record) = state.node(leaving).filter(|record| record.leaving_since > 0) else {
        return false;
    };
    on_both_lists(state, status, &record.site, record.leaving_since, own)
}

/// Whether more than half of each list of a site has an entry on disk.
pub(super) fn on_both_lists(
    state: &ControlState,
    status: &GroupStatus,
    site: &str,
    entry: u64,
    own: NodeId,
) -> bool {
    let has = |node: NodeId| match node == own {
        true => status.durable.is_some_and(|at| at.index >= entry),
        false => matched(state, status, node).is_some_and(|index| index >= entry),
    };
    state.lists(site).iter().all(|list| {
        let durable = list.iter().filter(|node| has(**node)).count();
        durable > list.len() / 2
    })
}

/// Up to where the copy on a node surely has the leader's log on its disk. That of a store which was
/// given up is a follower too, until the voters are changed: the record says which one counts.
fn matched(state: &ControlState, status: &GroupStatus, node: NodeId) -> Option<u64> {
    let copy = state.database(CONTROL)?.replica_on(node)?.id();
    let known = status.followers.iter().find(|follower| follower.replica == copy);
    known.and_then(|follower| follower.matched).map(|at| at.index)
}

/// The nodes that vote, once no change is under way.
pub(super) fn votes_of(status: &GroupStatus) -> Option<Vec<u64>> {
    let voters = status.members.iter().filter(|member| member.voter).map(|member| member.node.0);
    let mut voters: Vec<u64> = voters.collect();
    voters.sort_unstable();
    (!status.joint).then_some(voters)
}

pub(super) fn sorted(nodes: &[u64]) -> Option<Vec<u64>> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    Some(nodes)
}

pub(super) fn left(status: &GroupStatus, node: NodeId) -> bool {
    !status.joint && status.members.iter().all(|member| member.node != node)
}

#[cfg(test)]
mod tests {
    use active_manager::control::{DatabaseRecord, ReplicaRecord};

    use super::*;

    /// Nodes 1 to 3 of a site, and the last of them is leaving since entry 10.
    fn leaving(site: &[u64]) -> ControlState {
        let node = |node: &u64| NodeRecord {
            node: *node,
            site: "A".into(),
            leaving_since: if Some(node) == site.last() { 10 } else { 0 },
            ..NodeRecord::default()
        };
        ControlState {
            dag: active_manager::control::DagRecord::default(),
            lineage: Vec::new(),
            sites: Vec::new(),
            nodes: site.iter().map(node).collect(),
            databases: vec![control_group(site)],
            node_policies: Vec::new(),
            database_policies: Vec::new(),
            copy_policies: Vec::new(),
            operations: Vec::new(),
            openings: Vec::new(),
            settings: active_manager::control::Settings::DEFAULT,
            seeds: Vec::new(),
            next_replica: 9,
        }
    }

    /// Each node's copy has a number of its own, a hundred above the node's.
    fn control_group(site: &[u64]) -> DatabaseRecord {
        let copy = |node: &u64| ReplicaRecord {
            replica: node + 100,
            node: *node,
            voter: true,
            ..ReplicaRecord::default()
        };
        let replicas = site.iter().map(copy).collect();
        DatabaseRecord { database: CONTROL.0, replicas, ..DatabaseRecord::default() }
    }

    #[test]
    fn a_list_counts_once_more_than_half_of_the_old_and_of_the_new_one_have_it() {
        use dag_types::{LogId, ReplicaId};
        let at = |index| Some(LogId { term: 1, index });
        // What the leader, which is node 1, has on its disk, and what the others are known to have.
        let counts = |site: &[u64], durable: u64, matched: &[(u64, u64)]| {
            let follower = |(node, index): &(u64, u64)| replication::FollowerStatus {
                replica: ReplicaId(*node + 100),
                node: NodeId(*node),
                matched: at(*index),
                silent_ms: Some(0),
            };
            let mut status = crate::service::admin::show::a_status(replication::Role::Leader);
            status.durable = at(durable);
            status.followers = matched.iter().map(follower).collect();
            let last = NodeId(*site.last().unwrap());
            list_is_on_disk(&leaving(site), &status, last, NodeId(1))
        };
        assert!(counts(&[1, 2, 3], 10, &[(2, 10), (3, 0)]), "the leaving one is dead");
        assert!(!counts(&[1, 2, 3], 10, &[(2, 9), (3, 10)]), "half of the new list only");
        assert!(!counts(&[1, 2, 3], 9, &[(2, 10), (3, 10)]), "in the leader's memory only");
        assert!(counts(&[1, 2], 10, &[(2, 10)]));
        assert!(!counts(&[1, 2], 10, &[(2, 9)]), "of two nodes it is both");
    }

    #[test]
    fn a_store_that_was_given_up_says_nothing_for_the_one_in_its_place() {
        use dag_types::{LogId, ReplicaId};
        let follower = |replica, index| replication::FollowerStatus {
            replica: ReplicaId(replica),
            node: NodeId(2),
            matched: Some(LogId { term: 1, index }),
            silent_ms: None,
        };
        let mut status = crate::service::admin::show::a_status(replication::Role::Leader);
        // The lost store of node 2 still votes; its new one, 102, has everything.
        status.followers = vec![follower(12, 3), follower(102, 10)];
        let state = leaving(&[1, 2]);
        assert_eq!(matched(&state, &status, NodeId(2)), Some(10));
        status.followers = vec![follower(12, 30)];
        assert_eq!(matched(&state, &status, NodeId(2)), None);
    }

    #[test]
    fn nobody_votes_for_certain_while_a_change_is_under_way() {
        use replication::MemberStatus;
        let member = |node: u64, voter| MemberStatus {
            replica: dag_types::ReplicaId(node + 10),
            node: NodeId(node),
            voter,
        };
        let members = vec![member(3, true), member(1, true), member(2, false)];
        let mut status = crate::service::admin::show::a_status(replication::Role::Leader);
        status.members = members;
        assert_eq!(votes_of(&status), sorted(&[1, 3]));
        assert!(left(&status, NodeId(4)) && !left(&status, NodeId(2)));
        status.joint = true;
        assert_eq!(votes_of(&status), None);
        assert!(!left(&status, NodeId(4)));
    }
}
