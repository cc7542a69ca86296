//! Moving a database to another folder while it goes on: copy by copy, each built in the new folder
//! from the one that it replaces, the active one last and after another took over.
//!
//! ```text
//!  dagctl ──► control leader ──► every node concerned: could it be there?      nothing is changed
//!               │  operation begun
//!               ├──► seed of a passive copy from itself, awaited     one operation each
//!               ├──► one move of the database
//!               ├──► seed of the copy that was active
//!               ▼  operation ended
//! ```
//! What comes next follows from where the copies are (`plan.rs`), and every part is asked for under
//! an id that a later leader knows too.

use std::time::Duration;

use active_manager::control::command::{EndOperation, Ending, SeedCopy};
use active_manager::control::{
    DatabaseRecord, Operation, OperationState, Order, Outcome, SeedPhase,
};
use active_manager::report::Reports;
use active_manager::seed;
use dag_api::admin::v1 as api;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, NodeId};
use tokio::time::Instant;

use super::AdminServer;
use super::carry::{Carrying, told};
use super::moves::{Office, named};
use super::orders::{Asker, unreadable};
use super::plan::{NextPath, Paths, Plan, Whereabouts, step_of};
use super::seeding::refuse;
use crate::node::Member;
use crate::reports::STALE;
use crate::store::paths::PathRefusal;

/// How long a node may take to look at a folder.
const CHECK: Duration = Duration::from_secs(5);
/// How long handing the database over may take.
const HAND_OVER: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(200);

impl AdminServer {
    pub(super) async fn move_path(
        &self,
        request: api::MovePathRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::MovePathResponse, Problem> {
        let member = self.node.member()?;
        let office = self.office(deadline).await?;
        let database = named(&office.state, &request.database_name)?.clone();
        self.ask_all(member).await;
        let reports = self.reports(member, STALE);
        let nodes = concerned(&database, &request, &reports)?;
        let mut moves = Vec::new();
        for node in &nodes {
            let checks = seed::check_relocation(&office.state, &reports, &database, *node);
            refuse(&office.state, &database, *node, &checks)?;
            let begins = !request.plan_only;
            let found = self.check_path_at(member, *node, &database, &request.path, begins).await?;
            moves.push(api::PathMove {
                node_id: node.0,
                from: found.from,
                bytes: found.bytes,
                linked: found.linked,
                active: reports.active(database.id()) == Some(*node),
            });
        }
        let mut response = api::MovePathResponse { operation: 0, moves };
        if request.plan_only || nodes.is_empty() {
            return Ok(response);
        }
        let plan = Plan::Paths(Paths {
            database: database.database,
            name: database.name.clone(),
            path: request.path,
            nodes: nodes.iter().map(|node| node.0).collect(),
            limit: request.bytes_per_second,
        });
        response.operation = self.start(&request.request_id, plan, office.term, asker).await?;
        Ok(response)
    }

    /// Asks a node whether its copy could be in a folder.
    pub(super) async fn check_path_at(
        &self,
        member: &Member,
        node: NodeId,
        database: &DatabaseRecord,
        path: &str,
        begins: bool,
    ) -> Result<api::CheckPathResponse, Problem> {
        let (database_id, path) = (database.database, path.to_owned());
        let request = api::CheckPathRequest { database_id, path, begins };
        if node == self.node.id() {
            return self.check_path(request).await;
        }
        let mut request = tonic::Request::new(request);
        request.set_timeout(CHECK);
        let answer = self.client(member, node)?.check_path(request).await;
        answer.map(tonic::Response::into_inner).map_err(|refused| told(node, &refused))
    }

    pub(super) async fn check_path(
        &self,
        request: api::CheckPathRequest,
    ) -> Result<api::CheckPathResponse, Problem> {
        let (node, database) = (self.node.clone(), DatabaseId(request.database_id));
        let looking = move || {
            let reserve = node.settings.budget.disk_reserve.0;
            let found = node.store.check_path(database, &request.path, reserve)?;
            if request.begins {
                node.store.begin_anew(database, &request.path)?;
            }
            Ok(found)
        };
        let found = tokio::task::spawn_blocking(looking).await.map_err(|_| unreadable())?;
        let found = found.map_err(|refused: PathRefusal| {
            let problem = Problem::new(Reason::CheckFailed, refused.to_string()).check("path");
            let problem = problem.database(database).next("name another folder");
            match refused {
                PathRefusal::TooSmall { free, needed, .. } => problem.limit(free, needed),
                _ => problem,
            }
        })?;
        Ok(api::CheckPathResponse {
            from: found.from.display().to_string(),
            bytes: found.bytes,
            linked: found.linked,
        })
    }

    pub(super) async fn carry_paths(&self, at: &Carrying, planned: &Paths) -> Result<(), Problem> {
        loop {
            let (office, known) = self.record(at).await?;
            // What was heard before the last step is of before it.
            let member = self.node.member()?;
            self.ask_all(member).await;
            let reports = self.reports(member, STALE);
            let next = planned.next(&known, &whereabouts(&office, &reports, planned)?);
            let (number, node) = match &next {
                NextPath::End { state, outcome } => {
                    return self.end(at.operation, *state, outcome.clone(), &at.asker).await;
                }
                NextPath::Wait => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                NextPath::Build { number, node } | NextPath::HandOver { number, node } => {
                    (*number, *node)
                }
            };
            self.begin_step(at, &known, (number, node, planned.step_words(&next)), false).await?;
            let request = step_of(at.operation, planned.database, number);
            let done = match next {
                NextPath::HandOver { .. } => self.hand_over(at, planned, request).await,
                _ => self.relocate(at, planned, node, request).await?,
            };
            self.end_step(at, number, done).await?;
        }
    }

    async fn hand_over(
        &self,
        at: &Carrying,
        planned: &Paths,
        request_id: String,
    ) -> Result<String, String> {
        let wish = api::MoveDatabaseRequest {
            database_name: planned.name.clone(),
            request_id,
            reason: at.asker.reason.clone(),
            ..api::MoveDatabaseRequest::default()
        };
        let moved = self.move_database(wish, at.asker.clone(), Instant::now() + HAND_OVER).await;
        moved.map(|_| "another copy is active".into()).map_err(|refused| refused.message)
    }

    /// Begins the seed and waits for its end. The inner result is the seed's own; the outer error
    /// means that this node lets go.
    async fn relocate(
        &self,
        at: &Carrying,
        planned: &Paths,
        node: u64,
        request_id: String,
    ) -> Result<Result<String, String>, Problem> {
        let order = SeedCopy {
            request_id,
            database: planned.database,
            node,
            from: node,
            limit: planned.limit,
            path: planned.path.clone(),
            adds: false,
            whole: false,
        };
        let part = match self.order(Order::SeedCopy(order), &at.asker).await {
            Ok(Outcome::OperationBegun(begun)) => begun.operation,
            Ok(_) => return Err(unreadable()),
            Err(refused) if refused.reason == Reason::CheckFailed => {
                return Ok(Err(refused.message));
            }
            Err(lost) => return Err(lost),
        };
        let mut cancelled = false;
        loop {
            let (office, whole) = self.record(at).await?;
            let part_known = office.state.operations.iter().find(|known| known.operation == part);
            match part_known.map(|known| (known.state(), known.outcome.clone())) {
                Some((OperationState::Done, outcome)) => return Ok(Ok(outcome)),
                Some((OperationState::Failed | OperationState::Cancelled, outcome)) => {
                    return Ok(Err(outcome));
                }
                // One that has taken its place goes on: the old copy is out of it already.
                Some(_) if may_cancel(&office, &whole, planned, node) && !cancelled => {
                    let (ending, outcome) = (Ending::Cancel.into(), whole.outcome);
                    let end = EndOperation { operation: part, ending, outcome };
                    self.order(Order::EndOperation(end), &at.asker).await?;
                    cancelled = true;
                }
                Some(_) => {}
                None => return Ok(Err("its record is gone".into())),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The nodes whose copies are not in the folder yet, passive ones first.
fn concerned(
    database: &DatabaseRecord,
    request: &api::MovePathRequest,
    reports: &Reports,
) -> Result<Vec<NodeId>, Problem> {
    for node in &request.node_ids {
        if database.replica_on(NodeId(*node)).is_none() {
            let text = format!("{} has no copy on node {node}", database.name);
            return Err(Problem::new(Reason::CheckFailed, text).check("copy-exists"));
        }
    }
    let named = |node: NodeId| request.node_ids.is_empty() || request.node_ids.contains(&node.0);
    let copies = database.replicas.iter();
    let copies = copies.filter(|copy| named(copy.node()) && copy.path != request.path);
    let mut nodes: Vec<NodeId> = copies.map(|copy| copy.node()).collect();
    nodes.sort_by_key(|node| (reports.active(database.id()) == Some(*node), *node));
    Ok(nodes)
}

fn may_cancel(office: &Office, whole: &Operation, planned: &Paths, node: u64) -> bool {
    let seed = office.state.seed(DatabaseId(planned.database), NodeId(node));
    let builds = seed.is_some_and(|seed| seed.phase() == SeedPhase::Building);
    builds && whole.state() == OperationState::Cancelling
}

fn whereabouts(
    office: &Office,
    reports: &Reports,
    planned: &Paths,
) -> Result<Whereabouts, Problem> {
    let id = DatabaseId(planned.database);
    let record = office.state.database(id).ok_or_else(unreadable)?;
    // A copy that has taken its place and is not admitted yet has not moved.
    let joins = |node: NodeId| office.state.seed(id, node).is_some();
    let path = |copy: &active_manager::control::ReplicaRecord| match joins(copy.node()) {
        true => String::new(),
        false => copy.path.clone(),
    };
    let copies = record.replicas.iter().map(|copy| (copy.node, path(copy))).collect();
    Ok(Whereabouts { copies, active: reports.active(id).map(|node| node.0) })
}
