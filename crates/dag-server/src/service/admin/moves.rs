//! Moving a database: decided and recorded by the control leader, carried out where it is active.
//!
//! ```text
//!  dagctl ──► control leader: checks, plan, token      (plan only: that was all)
//!               │  operation begun, step begun          in the control log
//!               ├──► the active node: voters; hold writes, await match, transfer, repair
//!               ├──► the target: mounted?
//!               │  step ended, operation ended          in the control log
//!               ▼
//! ```
//! One operation per database at a time, so two administrators cannot move one at once. How it is
//! carried out, also by a later leader, stands in `carry.rs`; what comes next, in `plan.rs`.

use std::time::Duration;

use active_manager::control::{ControlState, DatabaseRecord, FailedCheck, Rejection};
use active_manager::movement::{
    Check, Motive, MoveDecision, MovePlan, MoveRequest, MoveStep, PlanToken, Target, decide_move,
};
use active_manager::names::nearest;
use dag_api::admin::v1 as api;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, NodeId};
use replication::Role;
use tokio::time::Instant;

use super::AdminServer;
use super::carry::Carrying;
use super::orders::Asker;
use super::plan::{Cause, Move, Plan, begun_by};
use crate::machine::View;
use crate::node::Member;
use crate::reports::Word;
use crate::status;

const CONTROL: DatabaseId = DatabaseId::CONTROL;
/// How long the end of an operation is awaited that an equal request began.
const REPLAYED: Duration = Duration::from_secs(10);
/// How long a node may take to say how it stands.
const HEARING: Duration = Duration::from_millis(500);

/// The control state at a read index of the leader, and the leader's term.
pub(super) struct Office {
    pub state: ControlState,
    pub term: u64,
}

impl AdminServer {
    /// The control state as a quorum confirms it; refused elsewhere than at the control leader.
    pub(super) async fn office(&self, deadline: Instant) -> Result<Office, Problem> {
        let reading = self.node.read(CONTROL, deadline).await?;
        let state = ControlState::read(&View(&*reading.view)).map_err(|fault| {
            Problem::new(Reason::RecordCorrupt, fault.to_string()).database(CONTROL)
        })?;
        let state = state.ok_or_else(status::unprovisioned)?;
        let group = self.node.group(CONTROL)?;
        match group.role() {
            (Role::Leader, term) => Ok(Office { state, term }),
            _ => Err(status::not_active(CONTROL, self.node.hint(CONTROL))),
        }
    }

    pub(super) async fn move_database(
        &self,
        request: api::MoveDatabaseRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::MoveDatabaseResponse, Problem> {
        let member = self.node.member()?;
        let office = self.office(deadline).await?;
        let database = named(&office.state, &request.database_name)?.clone();
        let mut response = match begun_by(&office.state, &request.request_id) {
            Some(operation) => api::MoveDatabaseResponse {
                database_name: database.name.clone(),
                operation: self.outcome_of(operation, deadline).await?,
                ..api::MoveDatabaseResponse::default()
            },
            None => {
                self.ask_all(member).await;
                let decision = self.decide(member, &office.state, &database, &request)?;
                let response = show(&database, &decision);
                if request.plan_only {
                    return Ok(response);
                }
                let began = Instant::now();
                let operation = self.begin_move(office, &database, decision, &request, asker);
                let operation = operation.await?;
                let took_ms = began.elapsed().as_millis() as u64;
                api::MoveDatabaseResponse { operation, took_ms, ..response }
            }
        };
        response.moved = true;
        Ok(response)
    }

    /// Gives the operation's number once it is at its end.
    async fn begin_move(
        &self,
        office: Office,
        database: &DatabaseRecord,
        decision: MoveDecision,
        request: &api::MoveDatabaseRequest,
        asker: Asker,
    ) -> Result<u64, Problem> {
        if let Some(refusal) = decision.refusal(&database.name) {
            return Err(status::control(&Rejection::Check(refusal)));
        }
        let found = decision.plan.ok_or_else(|| no_plan(database))?;
        check_token(&request.token, &found)?;
        if found.from.is_none() {
            return Err(no_plan(database));
        }
        let plan = Plan::Move(planned(database, &found, request));
        // Whoever asked may go away; what was begun is brought to its end all the same.
        let this = self.clone();
        let request = request.request_id.clone();
        let carried = tokio::spawn(async move {
            let (operation, replayed) = this.begin(&request, &plan, &asker).await?;
            if replayed {
                return this.outcome_of(operation, Instant::now() + REPLAYED).await;
            }
            let carrying = Carrying { operation, plan, term: office.term, asker };
            this.carry(&carrying).await.map(|()| operation)
        });
        carried.await.map_err(|_| super::orders::unreadable())?
    }

    /// Asks every other node how it stands now: what was heard a second ago may be of before the
    /// last move.
    pub(super) async fn ask_all(&self, member: &Member) {
        let own = self.node.id();
        let others = member.peers.members().into_iter().filter(|(id, _)| *id != own);
        let asking = others.map(|(id, _)| async move {
            let mut client = self.client(member, id).ok()?;
            let asked =
                api::ListCopiesRequest { node_id: id.0, ..api::ListCopiesRequest::default() };
            let asking = Word::of(client.list_copies(asked));
            let word = tokio::time::timeout(HEARING, asking).await.ok()??;
            self.node.reports.heard(id, word);
            Some(())
        });
        futures::future::join_all(asking).await;
    }

    fn decide(
        &self,
        member: &Member,
        state: &ControlState,
        database: &DatabaseRecord,
        request: &api::MoveDatabaseRequest,
    ) -> Result<MoveDecision, Problem> {
        let target = match (request.to_node, request.to_site.as_str()) {
            (0, "") => Target::Best,
            (0, site) => Target::Site(site_named(state, site)?),
            (node, _) => Target::Node(NodeId(node)),
        };
        let motive = match (request.draining, request.balancing) {
            (true, _) => Motive::Drain,
            (false, true) => Motive::Balance,
            (false, false) => Motive::Operator,
        };
        let wish = MoveRequest { target, motive, skip: request.skip.clone() };
        Ok(decide_move(state, &self.reports(member, 2 * HEARING), database, &wish))
    }

    /// The same request came before: what became of it is on record, or will be.
    async fn outcome_of(&self, operation: u64, deadline: Instant) -> Result<u64, Problem> {
        use active_manager::control::OperationState as State;
        loop {
            let office = self.office(deadline).await?;
            let known = office.state.operations.iter().find(|known| known.operation == operation);
            match known.map(|known| (known.state(), known.outcome.clone())) {
                Some((State::Done, _)) => return Ok(operation),
                Some((State::Failed | State::Cancelled, outcome)) => {
                    let text = format!("operation {operation} ended: {outcome}");
                    return Err(Problem::new(Reason::CheckFailed, text).check("operation"));
                }
                Some((State::Running | State::Cancelling, _)) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Some((State::Running | State::Cancelling, _)) | None => {
                    let text = format!("operation {operation} is running");
                    return Err(Problem::new(Reason::OutcomeUnknown, text).database(CONTROL));
                }
            }
        }
    }
}

fn planned(database: &DatabaseRecord, plan: &MovePlan, request: &api::MoveDatabaseRequest) -> Move {
    let voters = plan.steps.iter().find_map(|step| match step {
        MoveStep::ChangeVoters(nodes) => Some(nodes.iter().map(|node| node.0).collect()),
        _ => None,
    });
    let voters: Vec<u64> = voters.unwrap_or_default();
    let cause = match (request.draining, request.balancing, voters.is_empty()) {
        (_, _, false) => Cause::Site,
        (true, _, true) => Cause::Drain,
        (false, true, true) => Cause::Balance,
        (false, false, true) => Cause::Operator,
    };
    let voting = database.replicas.iter().filter(|copy| copy.voter);
    Move {
        request: request.request_id.clone(),
        database: database.database,
        name: database.name.clone(),
        from: plan.from.map_or(0, |node| node.0),
        to: plan.to.0,
        earlier_voters: voting.map(|copy| copy.node).collect(),
        voters,
        cause,
        acknowledged: request.skip.iter().any(|check| check == "move-block-time"),
        token: plan.token.to_string(),
    }
}

/// The site with a name, or the names that are near to it.
pub(super) fn site_named(state: &ControlState, name: &str) -> Result<String, Problem> {
    if let Some(site) = state.sites.iter().find(|site| site.name == name) {
        return Ok(site.name.clone());
    }
    let known = state.sites.iter().map(|site| site.name.as_str());
    let near = nearest(name, known.clone());
    let names: Vec<&str> = if near.is_empty() { known.collect() } else { near };
    let text = format!("there is no site {name}; perhaps {}", names.join(" or "));
    Err(Problem::new(Reason::InvalidRequest, text).check("site"))
}

/// The database with a name, or the names that are near to it.
pub(crate) fn named<'a>(
    state: &'a ControlState,
    name: &str,
) -> Result<&'a DatabaseRecord, Problem> {
    let movable = |record: &&DatabaseRecord| record.id() != CONTROL;
    if let Some(found) = state.database_named(name).filter(movable) {
        return Ok(found);
    }
    let known = state.databases.iter().filter(movable).map(|record| record.name.as_str());
    let near = nearest(name, known);
    let mut text = format!("there is no database {name}");
    if !near.is_empty() {
        text.push_str(&format!("; perhaps {}", near.join(" or ")));
    }
    Err(Problem::new(Reason::DatabaseNotFound, text).next("dagctl db list"))
}

fn check_token(asked: &str, plan: &MovePlan) -> Result<(), Problem> {
    if asked.is_empty() {
        return Ok(());
    }
    let stale = asked.parse::<PlanToken>().and_then(|token| token.check(&plan.token));
    stale.map_err(|stale| Problem::new(Reason::CheckFailed, stale.to_string()).check("plan-token"))
}

fn no_plan(database: &DatabaseRecord) -> Problem {
    let text = format!("{} is mounted nowhere, so there is nothing to move", database.name);
    Problem::new(Reason::CheckFailed, text).check("active").database(database.id())
}

fn show(database: &DatabaseRecord, decision: &MoveDecision) -> api::MoveDatabaseResponse {
    let plan = decision.plan.as_ref();
    let verdicts = decision.selection.iter().flat_map(|selection| &selection.verdicts);
    api::MoveDatabaseResponse {
        database_id: database.database,
        database_name: database.name.clone(),
        from_node: plan.and_then(|plan| plan.from).map_or(0, |node| node.0),
        to_node: plan.map_or(0, |plan| plan.to.0),
        checks: show_checks(&decision.checks, decision.refusal(&database.name).as_ref()),
        steps: plan.map(|plan| plan.steps.iter().map(words).collect()).unwrap_or_default(),
        token: plan.map(|plan| plan.token.to_string()).unwrap_or_default(),
        verdicts: verdicts
            .map(|verdict| api::CopyVerdict {
                node_id: verdict.node.0,
                words: verdict.words.clone(),
            })
            .collect(),
        ..api::MoveDatabaseResponse::default()
    }
}

/// All checks, with advice at the one that refuses.
pub(super) fn show_checks(checks: &[Check], refusal: Option<&FailedCheck>) -> Vec<api::MoveCheck> {
    let advice = |name: &str| {
        let refuses = refusal.filter(|refusal| refusal.check == name);
        refuses.map(|refusal| refusal.advice.clone()).unwrap_or_default()
    };
    let shown = |check: &Check| api::MoveCheck {
        name: check.name.to_owned(),
        value: check.value.clone(),
        limit: check.limit.clone(),
        passed: check.passed,
        skippable: check.skippable,
        skipped: check.skipped,
        advice: advice(check.name),
    };
    checks.iter().map(shown).collect()
}

fn words(step: &MoveStep) -> String {
    match step {
        MoveStep::ChangeVoters(nodes) => {
            let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            format!("make nodes {} the voters", nodes.join(", "))
        }
        MoveStep::HoldWrites => "hold new writes".into(),
        MoveStep::AwaitMatch(node) => format!("wait until node {node} has everything"),
        MoveStep::Transfer(node) => format!("hand leadership to node {node}"),
        MoveStep::AwaitMount(node) => format!("wait until node {node} serves"),
    }
}
