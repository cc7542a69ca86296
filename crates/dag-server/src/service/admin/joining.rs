//! Letting a node join, a new store take a lost one's place, a witness follow another: decided and
//! recorded by the control leader, carried out by it.
//!
//! ```text
//!  dagctl ──► control leader ──► the new node: who are you?
//!               │  checks, plan                        (plan only: that was all)
//!               │  operation begun
//!               ├──► the control log has the node, as joining, with a copy of the control group
//!               ├──► the node: this is your DAG, and this is your copy
//!               ├──► it has the log, and so have more than half of its site's old and new list
//!               ├──► the control group's voters with it, by one joint change
//!               ├──► it is a member like all others; its gate opens by the ordinary grant
//!               ├──► copies: the directory, and those that its lost store had
//!               ▼  operation ended
//! ```
//! What is sent to the node is the same whoever sends it, because the control log holds it by then;
//! all other steps are orders of that log. So each may be given again by a later leader. What comes
//! next, and what is taken back, stands in `join_plan.rs`.

use std::time::Duration;

use active_manager::control::command::{AdmitNode, DismissNode, SeedCopy, SeenOpening, SettleNode};
use active_manager::control::definition::NodeDefinition;
use active_manager::control::{
    ControlState, NodeRecord, Operation, OperationState, Order, Outcome, Rejection, Timeouts,
    last_opening,
};
use active_manager::course::Next;
use active_manager::joining::{Answer, Candidate, Joining, Kind, plan_joining, refusal};
use dag_api::admin::v1 as api;
use dag_api::admin::v1::dag_admin_service_client::DagAdminServiceClient;
use dag_api::{Problem, Reason};
use dag_types::{DagId, DatabaseId, NodeId, StoreId};
use replication::GroupStatus;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::AdminServer;
use super::carry::{Carrying, told};
use super::members::{Came, PATIENCE, left, on_both_lists};
use super::moves::{Office, show_checks};
use super::orders::{Asker, unreadable};
use super::plan::{Join, JoinStep, Place, Plan, step_of};
use super::show::VERSION;
use crate::node::Member;
use crate::reports::STALE;
use crate::status;

const CONTROL: DatabaseId = DatabaseId::CONTROL;
/// How long a node may take to say who it is.
const HEARING: Duration = Duration::from_millis(1500);
/// How long a node may take to receive the control group's log.
const CATCH_UP: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// Entries that the new copy may lack when it is given a vote: it receives them at once.
const NEAR: u64 = 200;

/// What was found about a node that wants to join.
struct Found {
    candidate: Candidate,
    kind: Kind,
    place: Place,
    /// It is a member with this very store.
    settled: bool,
}

impl AdminServer {
    pub(super) async fn join_node(
        &self,
        request: api::JoinNodeRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::JoinNodeResponse, Problem> {
        let member = self.node.member()?;
        let office = self.office(deadline).await?;
        let joins = |planned: &Join| planned.request == request.request_id;
        if let Some((operation, planned)) = begun(&office.state, joins) {
            let (node_id, node_name) = (planned.node, planned.name);
            return Ok(api::JoinNodeResponse {
                operation,
                node_id,
                node_name,
                ..Default::default()
            });
        }
        let found = self.find(&office.state, &request).await?;
        let node_id = found.candidate.node.node;
        let node_name = found.candidate.node.name.clone();
        // The same command again follows what the first one began.
        let store = found.candidate.answer.as_ref().map(|answer| answer.store.0.to_vec());
        let same = |planned: &Join| planned.node == node_id && Ok(&planned.store) == store.as_ref();
        let running = begun(&office.state, same).filter(|(operation, _)| {
            office.state.running().any(|known| known.operation == *operation)
        });
        if let Some((operation, _)) = running.filter(|_| !request.plan_only) {
            return Ok(api::JoinNodeResponse {
                operation,
                node_id,
                node_name,
                ..Default::default()
            });
        }
        self.ask_all(member).await;
        let joining = self.judge(member, &office, &found).await;
        let plan = planned(&office.state, &found, joining.voters.clone(), &request.request_id);
        let was_so = found.settled && plan.copies.is_empty();
        let refused = refusal(&joining.checks, &node_name);
        let response = api::JoinNodeResponse {
            checks: show_checks(&joining.checks, refused.as_ref()),
            steps: plan.all_words(),
            operation: 0,
            was_so,
            node_id,
            node_name,
        };
        if request.plan_only || was_so {
            return Ok(response);
        }
        if let Some(refused) = refused {
            return Err(status::control(&Rejection::Check(refused)));
        }
        let operation =
            self.start(&request.request_id, Plan::Join(plan), office.term, asker).await?;
        Ok(api::JoinNodeResponse { operation, ..response })
    }

    /// Asks the node who it is, and finds out whose place it takes.
    async fn find(
        &self,
        state: &ControlState,
        request: &api::JoinNodeRequest,
    ) -> Result<Found, Problem> {
        let old = match request.kind() {
            api::JoinKind::Unspecified => {
                let text = "the request does not say how the node joins";
                return Err(Problem::new(Reason::InvalidRequest, text).check("kind"));
            }
            api::JoinKind::New => None,
            api::JoinKind::Replace => Some(replaced(state, request)?),
            api::JoinKind::Witness => Some(witness(state)?),
        };
        let mut wish = request.clone();
        if let Some(old) = old {
            let replaces = request.kind() == api::JoinKind::Replace;
            if wish.admin_address.is_empty() && replaces {
                wish.admin_address.clone_from(&old.admin_address);
            }
            if replaces {
                (wish.node_id, wish.name) = (old.node, old.name.clone());
            }
            if replaces || wish.site.is_empty() {
                wish.site.clone_from(&old.site);
            }
            wish.witness = old.witness;
        }
        let answer = self.ask_who(&wish.admin_address).await;
        let candidate = candidate(&wish, answer);
        let known = state.node(NodeId(candidate.node.node));
        let store = candidate.answer.as_ref().ok().map(|answer| answer.store);
        // Admitted with this very store: it goes on where it was left. A member that answers is not
        // replaced, unless this very store was the replacement.
        let goes_on = |known: &&NodeRecord| {
            let was_new =
                |planned: &Join| planned.node == known.node && planned.store[..] == known.store[..];
            let replaces = request.kind() == api::JoinKind::Replace;
            let itself = !replaces || known.is_joining() || begun(state, was_new).is_some();
            Some(known.store()) == store && itself
        };
        if let Some(known) = known.filter(goes_on) {
            let follows = state.nodes.iter().find(|other| {
                other.witness && other.is_leaving() && known.witness && other.node != known.node
            });
            let (kind, place) = match follows {
                Some(old) => (Kind::Witness(old.id()), Place::Witness(old.node)),
                None if known.replaced != 0 => (Kind::New, Place::Store),
                None => (Kind::New, Place::New),
            };
            let settled = !known.is_joining();
            return Ok(Found { candidate, kind, place, settled });
        }
        let (kind, place) = match old {
            None => (Kind::New, Place::New),
            Some(old) if old.node == candidate.node.node => (Kind::Store, Place::Store),
            Some(old) if request.kind() == api::JoinKind::Witness => {
                (Kind::Witness(old.id()), Place::Witness(old.node))
            }
            Some(_) => (Kind::Store, Place::Store),
        };
        Ok(Found { candidate, kind, place, settled: false })
    }

    async fn ask_who(&self, admin: &str) -> Result<api::GetNodeResponse, String> {
        let mut client = self.stranger(admin)?;
        let asking = client.get_node(api::GetNodeRequest {});
        match tokio::time::timeout(HEARING, asking).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(format!("no answer: {}", status.message())),
            Err(_) => Err("no answer in time".into()),
        }
    }

    /// A way to a node that the control log may not know.
    fn stranger(&self, admin: &str) -> Result<DagAdminServiceClient<Channel>, String> {
        let endpoint = self.node.dial.endpoint(&self.node.dial.url(admin))?;
        Ok(DagAdminServiceClient::new(endpoint.connect_timeout(HEARING).connect_lazy()))
    }

    async fn judge(&self, member: &Member, office: &Office, found: &Found) -> Joining {
        let reports = self.reports(member, STALE);
        let node = NodeId(found.candidate.node.node);
        let wait = match found.kind {
            Kind::Store => member.gate.fence(vec![node]).await,
            Kind::New | Kind::Witness(_) => None,
        };
        let wait = wait.filter(|fenced| fenced.term == office.term).map(|fenced| fenced.left);
        let (state, candidate) = (&office.state, &found.candidate);
        let mut joining = plan_joining(state, &reports, found.kind, candidate, VERSION, wait);
        if found.settled {
            // Only copies are missing.
            let matter = ["control-leader", "node-answers", "operation-running"];
            joining.checks.retain(|check| matter.contains(&check.name));
            joining.voters = None;
        }
        joining
    }

    pub(super) async fn carry_join(&self, at: &Carrying, planned: &Join) -> Result<(), Problem> {
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
            let came = self.join_step(at, planned, number, &step).await?;
            self.end_step(at, number, came).await?;
        }
    }

    async fn join_step(&self, at: &Carrying, planned: &Join, number: u32, step: &JoinStep) -> Came {
        let (node, term) = (planned.node, at.term);
        let order = match step {
            JoinStep::Admit => Order::AdmitNode(admission(planned, term)),
            JoinStep::Settle => Order::SettleNode(SettleNode { node, term }),
            JoinStep::Dismiss => return self.dismiss(at, planned).await,
            JoinStep::Form => return self.tell_its_dag(at, planned).await,
            JoinStep::CatchUp => return self.await_log(at, planned).await,
            JoinStep::Voters(nodes) => return self.hand_votes(at, nodes).await,
            JoinStep::Retire(old) => return self.see_off(at, NodeId(*old)).await,
            JoinStep::Copy(database) => {
                return self.build_copy(at, planned, DatabaseId(*database), number).await;
            }
        };
        let given = self.order_at(at, order).await?;
        Ok(given.map(|()| "in the control log".into()))
    }

    /// Takes a node off again that was joining; whatever else there is stays.
    async fn dismiss(&self, at: &Carrying, planned: &Join) -> Came {
        let (office, _) = self.record(at).await?;
        let node = NodeId(planned.node);
        let known = office.state.node(node);
        let ours = |known: &NodeRecord| known.is_new() && known.store[..] == planned.store[..];
        if !known.is_some_and(ours) {
            return Ok(Ok("it was not admitted".into()));
        }
        let (store, term) = (planned.store.clone().into(), at.term);
        let keeps = planned.place.witness();
        let order = DismissNode { node: node.0, store, keeps, term };
        if let Err(why) = self.order_at(at, Order::DismissNode(order)).await? {
            return Ok(Err(why));
        }
        let gone = |_: &Office, status: &GroupStatus| left(status, node);
        self.until(at, "the control group has no copy there", PATIENCE, gone).await
    }

    /// Tells the node which DAG it belongs to, until it has it on its disk.
    async fn tell_its_dag(&self, at: &Carrying, planned: &Join) -> Came {
        let end = Instant::now() + PATIENCE;
        loop {
            let (office, known) = self.record(at).await?;
            let Some(request) = formation(&office.state, NodeId(planned.node)) else {
                return Ok(Err(format!("{} is not in the control log", planned.name)));
            };
            let (refused, why) = match self.stranger(&planned.admin_address) {
                Err(why) => (false, why),
                Ok(mut client) => {
                    let asking = client.join_dag(request);
                    match tokio::time::timeout(HEARING, asking).await {
                        Ok(Ok(_)) => return Ok(Ok("it belongs to this DAG".into())),
                        Ok(Err(refused)) => {
                            let refused = told(NodeId(planned.node), &refused);
                            (refused.reason != Reason::OutcomeUnknown, refused.message)
                        }
                        Err(_) => (false, "it does not answer".into()),
                    }
                }
            };
            let cancelled = known.state() == OperationState::Cancelling;
            if refused || cancelled || Instant::now() >= end {
                return Ok(Err(why));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the new copy has the control group's log, and its site's two lists have the entry
    /// that made them on disk.
    async fn await_log(&self, at: &Carrying, planned: &Join) -> Came {
        let (node, own) = (NodeId(planned.node), self.node.id());
        let has = |office: &Office, status: &GroupStatus| {
            let state = &office.state;
            let record = state.node(node).zip(state.database(CONTROL));
            let copy = record.and_then(|(_, control)| control.replica_on(node));
            let (Some((record, _)), Some(copy)) = (record, copy) else { return false };
            let follower = status.followers.iter().find(|known| known.replica == copy.id());
            let matched = follower.and_then(|known| known.matched).map_or(0, |at| at.index);
            let last = status.durable.map_or(0, |at| at.index);
            let level = matched >= record.joining_since && matched + NEAR >= last;
            let listed = record.witness
                || on_both_lists(state, status, &record.site, record.joining_since, own);
            level && listed
        };
        let what = "it has the log, and more than half of its site's nodes have its admission";
        self.until(at, what, CATCH_UP, has).await
    }

    /// Has a copy built there, or waits for the one that is being built. However long it takes.
    async fn build_copy(
        &self,
        at: &Carrying,
        planned: &Join,
        database: DatabaseId,
        number: u32,
    ) -> Came {
        let node = NodeId(planned.node);
        let request_id = step_of(at.operation, database.0, number);
        loop {
            let (office, known) = self.record(at).await?;
            let state = &office.state;
            let Some(record) = state.database(database) else {
                return Ok(Ok("there is no such database any more".into()));
            };
            let copy = record.replica_on(node);
            let builds = state.seed(database, node).is_some();
            let has = copy.filter(|copy| copy.store().0[..] == planned.store[..] && !builds);
            if let Some(copy) = has {
                let why = copy.unfit.clone();
                return Ok(if why.is_empty() { Ok("built".into()) } else { Err(why) });
            }
            if copy.is_none() && !builds && database != DatabaseId::DIRECTORY {
                return Ok(Ok("it has no copy there any more".into()));
            }
            if known.state() == OperationState::Cancelling {
                return Ok(Err("cancelled; a copy that is being built goes on by itself".into()));
            }
            if !builds {
                let order = SeedCopy {
                    request_id: request_id.clone(),
                    database: database.0,
                    node: node.0,
                    adds: copy.is_none(),
                    ..SeedCopy::default()
                };
                match self.order(Order::SeedCopy(order), &at.asker).await {
                    Ok(Outcome::OperationBegun(part)) => {
                        if let Some(why) = given_up(state, part.operation) {
                            return Ok(Err(why));
                        }
                    }
                    Ok(_) => return Err(unreadable()),
                    // Somebody else began one a moment ago.
                    Err(refused) if refused.facts.check.as_deref() == Some("operation-running") => {
                    }
                    Err(refused) if refused.reason == Reason::CheckFailed => {
                        return Ok(Err(refused.message));
                    }
                    Err(lost) => return Err(lost),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Place {
    /// The witness that leaves; 0: none.
    fn witness(self) -> u64 {
        match self {
            Self::Witness(old) => old,
            Self::New | Self::Store => 0,
        }
    }
}

/// Why an operation came to nothing; none while it runs, or where it did what it should.
fn given_up(state: &ControlState, operation: u64) -> Option<String> {
    let known = state.operations.iter().find(|known| known.operation == operation)?;
    let failed = matches!(known.state(), OperationState::Failed | OperationState::Cancelled);
    failed.then(|| known.outcome.clone())
}

/// The last operation of this kind that is as wanted.
fn begun(state: &ControlState, wanted: impl Fn(&Join) -> bool) -> Option<(u64, Join)> {
    let join = |known: &Operation| match Plan::of(known) {
        Some(Plan::Join(planned)) => Some((known.operation, planned)),
        _ => None,
    };
    state.operations.iter().filter_map(join).filter(|(_, planned)| wanted(planned)).next_back()
}

fn replaced<'a>(
    state: &'a ControlState,
    request: &api::JoinNodeRequest,
) -> Result<&'a NodeRecord, Problem> {
    let named = |node: &&NodeRecord| match request.node_id {
        0 => node.name == request.name,
        number => node.node == number,
    };
    state.nodes.iter().find(named).ok_or_else(|| {
        let text = format!("there is no node {} {}", request.node_id, request.name);
        Problem::new(Reason::NodeNotFound, text).next("dagctl status")
    })
}

/// The witness that there is; of two, the one that leaves.
fn witness(state: &ControlState) -> Result<&NodeRecord, Problem> {
    let witnesses = || state.nodes.iter().filter(|node| node.witness);
    let found = witnesses().find(|node| node.is_leaving()).or_else(|| witnesses().next());
    found.ok_or_else(|| {
        let text = "this DAG has no witness that another one could follow";
        let next = "dagctl node join NODE --witness --site PLACE --address HOST:PORT";
        Problem::new(Reason::CheckFailed, text).check("witness").next(next)
    })
}

/// A node by what it said and what was asked for.
fn candidate(
    wish: &api::JoinNodeRequest,
    answer: Result<api::GetNodeResponse, String>,
) -> Candidate {
    let said = answer.as_ref().ok();
    let own = said.and_then(|said| said.node.clone()).unwrap_or_default();
    let or = |wished: &str, said: String| if wished.is_empty() { said } else { wished.to_owned() };
    let listens = |role| said.map_or_else(String::new, |said| listener(said, role, wish));
    let node = NodeDefinition {
        node: if wish.node_id == 0 { own.node_id } else { wish.node_id },
        name: or(&wish.name, own.name.clone()),
        site: wish.site.clone(),
        witness: wish.witness,
        peer_address: or(&wish.peer_address, listens(api::ListenerRole::Peer)),
        client_address: or(&wish.api_address, listens(api::ListenerRole::Api)),
        admin_address: wish.admin_address.clone(),
    };
    let answer = answer.and_then(|said| {
        Ok(Answer {
            node: own.node_id,
            name: own.name,
            store: StoreId::from_slice(&own.store_id).ok_or("it does not name its store")?,
            dag: DagId::from_slice(&said.dag_id),
            version: said.version,
        })
    });
    Candidate { node, answer }
}

/// Where a node listens; one that listens on all addresses is reached where it answered.
fn listener(
    said: &api::GetNodeResponse,
    role: api::ListenerRole,
    wish: &api::JoinNodeRequest,
) -> String {
    let Some(found) = said.listeners.iter().find(|known| known.role() == role) else {
        return String::new();
    };
    let host = wish.admin_address.rsplit_once(':').map_or("", |(host, _)| host);
    match found.address.parse::<std::net::SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => format!("{host}:{}", address.port()),
        _ => found.address.clone(),
    }
}

fn planned(
    state: &ControlState,
    found: &Found,
    voters: Option<Vec<NodeId>>,
    request: &str,
) -> Join {
    let node = &found.candidate.node;
    let store = found.candidate.answer.as_ref().map_or(StoreId::NIL, |answer| answer.store);
    let control = state.database(CONTROL).into_iter().flat_map(|group| &group.replicas);
    let earlier = control.filter(|copy| copy.voter).map(|copy| copy.node);
    let opening = last_opening(state, NodeId(node.node));
    Join {
        request: request.to_owned(),
        place: found.place,
        node: node.node,
        name: node.name.clone(),
        site: node.site.clone(),
        witness: node.witness,
        peer_address: node.peer_address.clone(),
        client_address: node.client_address.clone(),
        admin_address: node.admin_address.clone(),
        store: store.0.to_vec(),
        opening: (opening.grant_term, opening.grant_number),
        settled: found.settled,
        voters: voters.unwrap_or_default().into_iter().map(|node| node.0).collect(),
        earlier_voters: earlier.collect(),
        copies: missing_copies(state, node, store),
    }
}

/// The databases that are to have a copy on a node and have none on this store: the directory, and
/// those whose copy was on the store before.
fn missing_copies(
    state: &ControlState,
    node: &NodeDefinition,
    store: StoreId,
) -> Vec<(u64, String)> {
    let missing =
        state.databases.iter().filter(|database| match database.replica_on(NodeId(node.node)) {
            _ if database.id() == CONTROL => false,
            Some(copy) => copy.store() != store,
            None => database.id() == DatabaseId::DIRECTORY && !node.witness,
        });
    missing.map(|database| (database.database, database.name.clone())).collect()
}

fn admission(planned: &Join, term: u64) -> AdmitNode {
    let node = NodeDefinition {
        node: planned.node,
        name: planned.name.clone(),
        site: planned.site.clone(),
        witness: planned.witness,
        peer_address: planned.peer_address.clone(),
        client_address: planned.client_address.clone(),
        admin_address: planned.admin_address.clone(),
    };
    let (grant_term, grant_number) = planned.opening;
    let opening = SeenOpening { node: planned.node, grant_term, grant_number };
    AdmitNode {
        node: Some(node),
        store: planned.store.clone().into(),
        replaces: planned.place == Place::Store,
        opening: Some(opening),
        retires: planned.place.witness(),
        term,
    }
}

/// What a node has to know to join: the nodes as they are now, and its own copy.
fn formation(state: &ControlState, own: NodeId) -> Option<api::JoinDagRequest> {
    let control = state.database(CONTROL)?;
    let control_replica = control.replica_on(own)?.replica;
    let node = |node: &NodeRecord| api::NodeDefinition {
        node_id: node.node,
        name: node.name.clone(),
        site: node.site.clone(),
        api_address: node.client_address.clone(),
        peer_address: node.peer_address.clone(),
        witness: node.witness,
        admin_address: node.admin_address.clone(),
    };
    let member = |node: &NodeRecord| api::FoundingMember {
        node_id: node.node,
        store_id: node.store.clone(),
    };
    let mut sites: Vec<&str> = state.sites.iter().map(|site| site.name.as_str()).collect();
    sites.sort_by_key(|site| *site != state.dag.primary_site);
    let voters = control.replicas.iter().filter(|copy| copy.voter);
    let definition = api::DagDefinition {
        name: state.dag.name.clone(),
        sites: sites.iter().map(|name| api::SiteDefinition { name: (*name).to_owned() }).collect(),
        nodes: state.nodes.iter().map(node).collect(),
        control_voters: voters.map(|copy| copy.node).collect(),
        database_timeouts: state.dag.database_timeouts.map(timeouts),
        control_timeouts: state.dag.control_timeouts.map(timeouts),
    };
    Some(api::JoinDagRequest {
        dag_id: state.dag.dag.clone(),
        definition: Some(definition),
        members: state.nodes.iter().map(member).collect(),
        first_activation_id: state.lineage.first()?.activation.clone(),
        control_replica,
    })
}

fn timeouts(known: Timeouts) -> api::TimeoutShape {
    let Timeouts { heartbeat_ms, election_ms_min, election_ms_max } = known;
    api::TimeoutShape { name: String::new(), heartbeat_ms, election_ms_min, election_ms_max }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_reached_where_it_says_or_where_it_answered() {
        let listener = |role: api::ListenerRole, address: &str| api::Listener {
            role: role.into(),
            address: address.into(),
            tls: false,
        };
        let said = api::GetNodeResponse {
            node: Some(api::NodeIdentity {
                node_id: 4,
                name: "a4".into(),
                store_id: vec![4; 16].into(),
                ..Default::default()
            }),
            listeners: vec![
                listener(api::ListenerRole::Api, "0.0.0.0:7402"),
                listener(api::ListenerRole::Peer, "10.0.0.4:7401"),
            ],
            version: VERSION.into(),
            ..Default::default()
        };
        let wish = api::JoinNodeRequest {
            site: "A".into(),
            admin_address: "10.0.0.9:7403".into(),
            ..Default::default()
        };
        let found = candidate(&wish, Ok(said.clone()));
        assert_eq!((found.node.node, found.node.name.as_str()), (4, "a4"));
        assert_eq!(found.node.client_address, "10.0.0.9:7402");
        assert_eq!(found.node.peer_address, "10.0.0.4:7401");
        assert_eq!(found.answer.expect("it answered").dag, None);
        let asked = api::JoinNodeRequest { name: "b7".into(), node_id: 7, ..wish.clone() };
        let found = candidate(&asked, Ok(said));
        assert_eq!((found.node.node, found.node.name.as_str()), (7, "b7"), "the checks compare");
        assert!(candidate(&wish, Err("silent".into())).answer.is_err());
    }
}
