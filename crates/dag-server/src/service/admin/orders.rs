//! Orders of operators to the control group, and what it remembers of them.

use std::time::Duration;

use active_manager::control::command::{
    CopySuspension, EndOperation, Ending, NodeOrder, SetNodePolicy,
};
use active_manager::control::state::audit;
use active_manager::control::{
    ActivationPolicy, Command, ControlState, DatabaseRecord, Order, Outcome, Response,
};
use dag_api::admin::v1 as api;
use dag_api::admin::v1::change_activation_request::Change;
use dag_api::admin::v1::start_operation_request::What;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, NodeId};
use prost::Message as _;
use tokio::time::Instant;

use super::AdminServer;
use super::carry::Carrying;
use super::moves::named;
use super::plan::{Evacuate, Plan, Rebalance, parent};
use super::seeds;
use crate::admission::Kind;
use crate::clock;
use crate::machine::View;
use crate::reports::STALE;
use crate::status;

const CONTROL: DatabaseId = DatabaseId::CONTROL;
/// How long one order may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Audit rows that are kept.
const EVENTS_MAX: usize = 10_000;
/// Audit rows of an answer, unless said otherwise.
const EVENTS_SHOWN: usize = 100;

/// Who asks, for the audit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asker {
    pub who: String,
    pub from: String,
    pub reason: String,
}

impl AdminServer {
    /// Has an order carried out by the control group, which must be led here.
    pub(crate) async fn order(&self, order: Order, asker: &Asker) -> Result<Outcome, Problem> {
        let Asker { who, from, reason } = asker.clone();
        let (at_ms, order) = (clock::wall().0, Some(order));
        let command = Command { at_ms, who, from, reason, order }.encode_to_vec();
        let _permit = self.node.admit(CONTROL, Kind::Write, command.len() as u64)?;
        let by = Instant::now() + PATIENCE;
        let answer = self.node.propose(CONTROL, "order", command.into(), by).await?;
        match Response::decode(answer.reply).map(|response| response.outcome) {
            Ok(Some(Outcome::Rejected(rejected))) => {
                Err(rejected.reason.map_or_else(unreadable, |reason| status::control(&reason)))
            }
            Ok(Some(outcome)) => Ok(outcome),
            Ok(None) | Err(_) => Err(unreadable()),
        }
    }

    pub(super) async fn change(
        &self,
        request: api::ChangeActivationRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::ChangeActivationResponse, Problem> {
        let state = self.office(deadline).await?.state;
        let order = order_of(&state, request.change)?;
        match self.order(order, &asker).await? {
            Outcome::Changed(changed) => {
                Ok(api::ChangeActivationResponse { was_so: changed.was_so })
            }
            _ => Err(unreadable()),
        }
    }

    /// What was asked of the DAG, as this node's applied control log has it.
    pub(super) fn events(
        &self,
        request: &api::ListEventsRequest,
    ) -> Result<api::ListEventsResponse, Problem> {
        let last = match request.last {
            0 => EVENTS_SHOWN,
            last => last as usize,
        };
        let group = self.node.group(CONTROL)?;
        let rows = audit(&View(&*group.view()), 0, EVENTS_MAX).map_err(|fault| {
            Problem::new(Reason::RecordCorrupt, fault.to_string()).database(CONTROL)
        })?;
        let event = |row: active_manager::control::AuditRow| api::DagEvent {
            index: row.index,
            time_ms: row.at_ms,
            who: row.who,
            from: row.from,
            reason: row.reason,
            action: row.action,
            object: row.object,
            accepted: row.accepted,
        };
        let after = rows.iter().filter(|row| row.index > request.after_index).count();
        let skipped = rows.len() - after.min(last);
        let events = rows.into_iter().skip(skipped).map(event).collect();
        Ok(api::ListEventsResponse { events, age: Some(self.age()) })
    }

    /// Running operations and the last that are over, as this node's applied control log has them.
    pub(super) fn operations(&self) -> Result<api::ListOperationsResponse, Problem> {
        let copies = self.explained_copies(self.node.member()?);
        let state = self.node.control();
        let operations = state.iter().flat_map(|state| &state.operations);
        let operations = operations.map(|known| operation(known, &copies)).collect();
        Ok(api::ListOperationsResponse { operations, age: Some(self.age()) })
    }

    /// Begins an operation on many databases. Its end is not awaited.
    pub(super) async fn start_operation(
        &self,
        request: api::StartOperationRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::StartOperationResponse, Problem> {
        let office = self.office(deadline).await?;
        let mut response = api::StartOperationResponse::default();
        let plan = match request.what.ok_or_else(no_change)? {
            What::Evacuate(wish) => {
                if wish.draining {
                    let order = Order::DrainNode(NodeOrder { node: wish.node_id });
                    if let Outcome::Changed(changed) = self.order(order, &asker).await? {
                        response.was_so = changed.was_so;
                    }
                }
                self.evacuation(&office.state, wish)
            }
            What::Rebalance(_) => self.rebalancing(&office.state)?,
        };
        if let Some(plan) = plan {
            let term = office.term;
            response.operation = self.start(&request.request_id, plan, term, asker).await?;
        }
        Ok(response)
    }

    /// Begins an operation and carries it on beside the caller. Gives its number.
    pub(crate) async fn start(
        &self,
        request: &str,
        plan: Plan,
        term: u64,
        asker: Asker,
    ) -> Result<u64, Problem> {
        let (operation, replayed) = self.begin(request, &plan, &asker).await?;
        if !replayed {
            let (this, carrying) = (self.clone(), Carrying { operation, plan, term, asker });
            tokio::spawn(async move {
                if let Err(error) = this.carry(&carrying).await {
                    tracing::warn!(op = operation, %error, "an operation did not reach its end here");
                }
            });
        }
        Ok(operation)
    }

    /// None: nothing is active there.
    fn evacuation(&self, state: &ControlState, wish: api::EvacuateNode) -> Option<Plan> {
        let member = self.node.member().ok()?;
        let reports = self.reports(member, STALE);
        let active = |record: &&DatabaseRecord| {
            record.id() != CONTROL && reports.active(record.id()) == Some(NodeId(wish.node_id))
        };
        let databases: Vec<(u64, String)> = state
            .databases
            .iter()
            .filter(active)
            .map(|record| (record.database, record.name.clone()))
            .collect();
        let (node, draining, skip) = (wish.node_id, wish.draining, wish.skip);
        let plan = Evacuate { node, draining, skip, databases };
        (!plan.databases.is_empty()).then_some(Plan::Evacuate(plan))
    }

    /// None: every database is where it should be, or cannot go there.
    pub(crate) fn rebalancing(&self, state: &ControlState) -> Result<Option<Plan>, Problem> {
        let member = self.node.member()?;
        let plan = active_manager::balance::plan_balance(state, &self.reports(member, STALE));
        let moves = plan.moves.into_iter();
        let moves: Vec<_> =
            moves.map(|planned| (planned.database.0, planned.name, planned.to.0)).collect();
        Ok((!moves.is_empty()).then_some(Plan::Rebalance(Rebalance { moves })))
    }

    /// Asks an operation to end.
    pub(super) async fn cancel(
        &self,
        request: &api::CancelOperationRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::CancelOperationResponse, Problem> {
        self.office(deadline).await?;
        let outcome = format!("cancelled by {}", asker.who);
        let (operation, ending) = (request.operation, Ending::Cancel.into());
        let end = Order::EndOperation(EndOperation { operation, ending, outcome });
        match self.order(end, &asker).await? {
            Outcome::Changed(changed) => {
                Ok(api::CancelOperationResponse { was_so: changed.was_so })
            }
            _ => Err(unreadable()),
        }
    }

    /// What balancing would do now. Nothing is moved.
    pub(super) fn balance(&self) -> Result<api::PlanBalanceResponse, Problem> {
        let member = self.node.member()?;
        let state = self.node.control().ok_or_else(status::unprovisioned)?;
        let plan = active_manager::balance::plan_balance(&state, &self.reports(member, STALE));
        let moves = plan.moves.into_iter().map(|planned| api::BalanceMove {
            database_name: planned.name,
            from_node: planned.from.0,
            to_node: planned.to.0,
        });
        let stays = plan.stays.into_iter();
        let stays =
            stays.map(|stays| api::BalanceStays { database_name: stays.name, why: stays.why });
        Ok(api::PlanBalanceResponse {
            moves: moves.collect(),
            stays: stays.collect(),
            age: Some(self.age()),
        })
    }
}

fn no_change() -> Problem {
    Problem::new(Reason::InvalidRequest, "the request names no change").check("change")
}

fn order_of(state: &ControlState, change: Option<Change>) -> Result<Order, Problem> {
    Ok(match change.ok_or_else(no_change)? {
        Change::Node(node) => {
            let policy = match node.blocked {
                true => ActivationPolicy::Blocked,
                false => ActivationPolicy::Unrestricted,
            };
            Order::SetNodePolicy(SetNodePolicy {
                node: node.node_id,
                policy: Some(policy.into()),
                maximum_active: None,
                preferred_active: None,
            })
        }
        Change::Limits(limits) => Order::SetNodePolicy(SetNodePolicy {
            node: limits.node_id,
            policy: None,
            maximum_active: limits.maximum_active,
            preferred_active: limits.preferred_active,
        }),
        Change::DrainNode(node) => Order::DrainNode(NodeOrder { node }),
        Change::UndrainNode(node) => Order::UndrainNode(NodeOrder { node }),
        Change::Copy(copy) => {
            let order = CopySuspension {
                database: named(state, &copy.database_name)?.database,
                node: copy.node_id,
                activation_only: true,
            };
            if copy.suspended { Order::SuspendCopy(order) } else { Order::ResumeCopy(order) }
        }
    })
}

fn operation(
    known: &active_manager::control::Operation,
    copies: &[api::DatabaseCopy],
) -> api::Operation {
    let found = copies.iter().filter_map(|copy| copy.seed.as_ref());
    let mut found = found.filter(|seed| seed.operation == known.operation);
    let seed = found.next().filter(|_| !known.is_over()).cloned();
    let live = seed.as_ref().map(seeds::words);
    let begun = known.begun.clone().unwrap_or_default();
    let plan = Plan::of(known);
    let request = plan.as_ref().map_or("", |plan| match plan {
        Plan::Move(planned) => planned.request.as_str(),
        Plan::Evacuate(_) | Plan::Rebalance(_) | Plan::Paths(_) => "",
        Plan::Leave(_) | Plan::Join(_) | Plan::Hook(_) | Plan::Reform(_) => "",
    });
    let steps = known.steps.iter().map(|step| api::OperationStep {
        step: step.step,
        control_term: step.term,
        node_id: step.node,
        what: step.what.clone(),
        begin_ms: step.begun_ms,
        end_ms: step.ended_ms,
        succeeded: step.succeeded,
        outcome: step.outcome.clone(),
    });
    api::Operation {
        operation: known.operation,
        kind: format!("{:?}", known.kind()),
        object: known.object.clone(),
        state: format!("{:?}", known.state()),
        plan: plan.as_ref().map_or_else(|| known.plan.clone(), Plan::words),
        parent: parent(request),
        who: begun.who,
        reason: begun.reason,
        begin_ms: begun.at_ms,
        end_ms: known.ended_ms,
        // While it runs: how far it is.
        outcome: live.unwrap_or_else(|| known.outcome.clone()),
        steps: steps.collect(),
        seed,
    }
}

pub(super) fn unreadable() -> Problem {
    let text = "it was carried out, and its answer cannot be read; repeat with the same id";
    Problem::new(Reason::OutcomeUnknown, text).database(CONTROL)
}
