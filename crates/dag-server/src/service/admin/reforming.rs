//! A database that lost its majority goes on from the best copy that is left: decided, recorded and
//! led by the control leader.
//!
//! ```text
//!  dagctl ──► control leader: checks, verdict, token      (plan only: that was all)
//!               │  operation begun
//!               ├──► every node with a copy: stop it, say where its log ends
//!               │  the next generation, from the one that ends last       in the control log
//!               ├──► its node makes the first copy of it (driver.rs), and serves
//!               ▼  operation ended; the others are built anew like any failed copy
//! ```
//! Until the record of the next generation stands nothing has changed but that copies stand still,
//! and a hold ends with its operation. Where it is known that nothing is lost, nobody has to ask.

use std::collections::BTreeMap;
use std::time::Duration;

use active_manager::control::command::{EndReform, ReformDatabase};
use active_manager::control::{
    ControlState, DatabaseRecord, OperationState, Order, Rejection, openings_of,
};
use active_manager::course::Next;
use active_manager::reform::{self, BY_ITSELF_MS, Reform, Survivor, Verdict, plan_reform, refusal};
use active_manager::report::Reports;
use dag_api::admin::v1 as api;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, Generation, LogId, Millis, NodeId, ReplicaId};
use tokio::time::Instant;

use super::AdminServer;
use super::carry::{Carrying, told};
use super::moves::{Office, named, show_checks};
use super::orders::Asker;
use super::plan::{self, Plan, ReformStep, begun_by};
use super::show::known_copies;
use crate::held::Hold;
use crate::journal::{CopyOf, Event};
use crate::node::Member;
use crate::reports::STALE;
use crate::status;

const CONTROL: DatabaseId = DatabaseId::CONTROL;
/// How long a node may take to stop a copy.
const HOLD: Duration = Duration::from_secs(8);
/// How long all copies may take to stand still, beyond the takeover wait of a new control leader.
const FORM: Duration = Duration::from_secs(30);
/// How long the first copy of a generation may take until it serves.
const SERVE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(200);

/// Since when databases are seen that could be formed anew without a loss, by the watcher's clock.
pub(super) type LostSince = BTreeMap<DatabaseId, u64>;

impl AdminServer {
    pub(super) async fn reform_database(
        &self,
        request: api::ReformDatabaseRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<api::ReformDatabaseResponse, Problem> {
        let member = self.node.member()?;
        let office = self.office(deadline).await?;
        if let Some(operation) = begun_by(&office.state, &request.request_id) {
            return Ok(api::ReformDatabaseResponse { operation, ..Default::default() });
        }
        let database = named(&office.state, &request.database_name)?.clone();
        self.ask_all(member).await;
        let reports = self.reports(member, STALE);
        let left = left(&known_copies(&self.node), &reports, &database);
        let found = self.plan(member, &office, &reports, &database, &left).await;
        let plan = planned(&database, &found, &request.request_id);
        let response = show(&database, &found, &plan);
        if request.plan_only {
            return Ok(response);
        }
        if let Some(refused) = refusal(&found.checks, &database.name) {
            return Err(status::control(&Rejection::Check(refused)));
        }
        acknowledged(&database, &found, &request.token)?;
        let request_id = request.request_id;
        let operation = self.start(&request_id, Plan::Reform(plan), office.term, asker).await?;
        Ok(api::ReformDatabaseResponse { operation, ..response })
    }

    /// The plan for these copies, by how things stand now.
    async fn plan(
        &self,
        member: &Member,
        office: &Office,
        reports: &Reports,
        database: &DatabaseRecord,
        left: &[Survivor],
    ) -> Reform {
        let missing = reform::missing(reports, database, left);
        let fenced = member.gate.fence(missing).await;
        let wait = fenced.filter(|fenced| fenced.term == office.term).map(|fenced| fenced.left);
        plan_reform(&office.state, reports, database, left, wait)
    }

    pub(super) async fn carry_reform(
        &self,
        at: &Carrying,
        planned: &plan::Reform,
    ) -> Result<(), Problem> {
        loop {
            let (_, known) = self.record(at).await?;
            let (number, step) = match planned.next(&known) {
                Next::Send { number, step, .. } => (number, step),
                Next::End { state, outcome } => {
                    return self.end(at.operation, state, outcome, &at.asker).await;
                }
            };
            let what = planned.step_words(step);
            self.begin_step(at, &known, (number, planned.node, what), false).await?;
            let came = match step {
                ReformStep::Form => self.form_generation(at, planned).await?,
                ReformStep::Serve => self.await_generation(at, planned).await?,
            };
            self.end_step(at, number, came).await?;
        }
    }

    /// Has all copies that are left stopped, and forms the next generation from the best of them.
    /// The inner error is the step's own; the outer one means that this node lets go.
    async fn form_generation(
        &self,
        at: &Carrying,
        planned: &plan::Reform,
    ) -> Result<Result<String, String>, Problem> {
        let member = self.node.member()?;
        let id = DatabaseId(planned.database);
        let end =
            Instant::now() + Duration::from_millis(member.lease_times().takeover_wait().0) + FORM;
        loop {
            let (office, known) = self.record(at).await?;
            let Some(database) = office.state.database(id) else {
                return Ok(Err(format!("there is no {} any more", planned.name)));
            };
            let next = planned.generation + 1;
            if database.generation >= next {
                return Ok(Ok(format!("generation {next} is formed")));
            }
            if known.state() == OperationState::Cancelling {
                return Ok(Err(format!("cancelled; {} is as it was", planned.name)));
            }
            self.ask_all(member).await;
            let reports = self.reports(member, STALE);
            let left = self.hold_all(member, at, database, &reports).await;
            let mut found = self.plan(member, &office, &reports, database, &left).await;
            found.checks.retain(|check| check.name != "operation-running");
            let failing = found.checks.iter().find(|check| !check.passed);
            // Nodes that were heard a moment ago, and a leader that took office a moment ago, pass.
            let passes = |name: &str| ["takeover-wait", "gates-closed", "survivor"].contains(&name);
            if let Some(check) = failing {
                if passes(check.name) && Instant::now() < end {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                let (name, value, limit) = (check.name, &check.value, &check.limit);
                return Ok(Err(format!("{name}: found {value}; needed {limit}")));
            }
            if planned.lossless && found.verdict != Verdict::Zero {
                return Ok(Err(format!("the world moved since the plan: {}", found.reason)));
            }
            let Some(best) = found.best else { return Ok(Err("no copy is left".into())) };
            let others: Vec<NodeId> = database.replicas.iter().map(|copy| copy.node()).collect();
            let order = ReformDatabase {
                database: planned.database,
                generation: planned.generation,
                node: best.node.0,
                replica: best.replica.0,
                openings: openings_of(&office.state, &others),
                operation: at.operation,
                term: at.term,
            };
            let verdict = words(&found.verdict);
            return match self.order(Order::ReformDatabase(order), &at.asker).await {
                Ok(_) => Ok(Ok(format!(
                    "generation {next} from node {}, whose log ends at {}; loss: {verdict}",
                    best.node, best.last
                ))),
                Err(refused) if refused.reason == Reason::CheckFailed => Ok(Err(refused.message)),
                Err(lost) => Err(lost),
            };
        }
    }

    /// Has every copy stopped whose node answers; gives how they stand.
    async fn hold_all(
        &self,
        member: &Member,
        at: &Carrying,
        database: &DatabaseRecord,
        reports: &Reports,
    ) -> Vec<Survivor> {
        let nodes = database.replicas.iter().map(|copy| copy.node());
        let asking = nodes.filter(|node| reports.reaches(*node)).map(|node| async move {
            let request = api::HoldCopyRequest {
                database_id: database.database,
                generation: database.generation,
                operation: at.operation,
                control_term: at.term,
            };
            match self.hold_at(member, node, request).await {
                Ok(held) => Some(Survivor {
                    node,
                    replica: ReplicaId(held.replica_id),
                    last: LogId { term: held.last_log_term, index: held.last_log_index },
                    voters: held.voters.into_iter().map(ReplicaId).collect(),
                    joint: held.joint,
                }),
                Err(refused) => {
                    tracing::info!(db = %database.database, peer = %node, why = refused.message,
                        "a copy is not left");
                    None
                }
            }
        });
        futures::future::join_all(asking).await.into_iter().flatten().collect()
    }

    async fn hold_at(
        &self,
        member: &Member,
        node: NodeId,
        request: api::HoldCopyRequest,
    ) -> Result<api::HoldCopyResponse, Problem> {
        if node == self.node.id() {
            return self.hold_copy(request).await;
        }
        let mut request = tonic::Request::new(request);
        request.set_timeout(HOLD);
        let answer = self.client(member, node)?.hold_copy(request).await;
        answer.map(tonic::Response::into_inner).map_err(|refused| told(node, &refused))
    }

    async fn await_generation(
        &self,
        at: &Carrying,
        planned: &plan::Reform,
    ) -> Result<Result<String, String>, Problem> {
        let end = Instant::now() + SERVE;
        let next = planned.generation + 1;
        loop {
            self.record(at).await?;
            if let Some(node) = serving(&known_copies(&self.node), planned.database, next) {
                return Ok(Ok(format!("mounted on node {node}")));
            }
            if Instant::now() >= end {
                let seconds = SERVE.as_secs();
                let text = format!("generation {next} is formed, and does not serve after");
                return Ok(Err(format!("{text} {seconds} s; `dagctl status` says why")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    // --- At the node of a copy ------------------------------------------------------------------

    /// Stops the copy of this node and says where its log ends. Repeating it says the same.
    pub(super) async fn hold_copy(
        &self,
        request: api::HoldCopyRequest,
    ) -> Result<api::HoldCopyResponse, Problem> {
        let member = self.node.member()?;
        let refused = |check, text: String| Problem::new(Reason::CheckFailed, text).check(check);
        let (_, known) = self.node.group(CONTROL)?.role();
        if request.control_term < known {
            let text = format!("term {known} is known here, {} asks", request.control_term);
            return Err(refused("control-term", text));
        }
        let (database, operation) = (DatabaseId(request.database_id), request.operation);
        let generation = Generation(request.generation);
        let record = self.node.database(database);
        if record.as_ref().is_none_or(|record| record.generation() != generation) {
            let text =
                format!("generation {} of database {database} is not known here", generation);
            return Err(refused("generation", text));
        }
        let control = self.node.control();
        if control.is_some_and(|state| crate::steps::is_over(&state, operation)) {
            return Err(refused("operation-running", format!("operation {operation} is over")));
        }
        if let Some(stands) = self.node.held.of(database, operation).and_then(|hold| hold.stands) {
            return Ok(held(&stands));
        }
        let own = record.and_then(|record| record.replica_on(self.node.id()).cloned());
        let group = member.registry.get(database);
        let group = group.filter(|group| own.is_some_and(|own| own.id() == group.replica()));
        let Some(group) = group else {
            return Err(refused("copy-runs", format!("no copy of {database} runs here")));
        };
        let (status, spec) = (group.status(), group.spec());
        drop(group);
        let open = self.node.store.copy(database);
        let Some(log) = open.map(|copy| copy.log().clone()) else {
            return Err(refused("copy-runs", format!("no copy of {database} is open here")));
        };
        if status.failed.is_some() {
            return Err(refused("copy-runs", format!("the copy of {database} here is Failed")));
        }
        self.node.held.hold(database, Hold { operation, generation, stands: None });
        member.registry.stop(database).await;
        let last = log.bounds().last;
        drop(log);
        self.close_held(database, CopyOf::new(database, generation, spec.replica)).await;
        let last = last.ok_or_else(|| {
            refused("copy-runs", format!("the copy of {database} here holds nothing"))
        })?;
        let stands = Survivor {
            node: self.node.id(),
            replica: spec.replica,
            last,
            voters: status.members.iter().filter(|m| m.voter).map(|m| m.replica).collect(),
            joint: status.joint,
        };
        tracing::info!(db = %database, op = operation, %last, "the copy stands still");
        let answer = held(&stands);
        self.node.held.hold(database, Hold { operation, generation, stands: Some(stands) });
        Ok(answer)
    }

    async fn close_held(&self, database: DatabaseId, copy: CopyOf) {
        let node = self.node.clone();
        node.seeds.close_source(database);
        let closing = tokio::task::spawn_blocking(move || node.store.close_copy(database));
        if let Ok(Some(path)) = closing.await {
            self.node.journal.write(&Event::ReplicaClosed { copy, path: &path });
        }
    }

    // --- What nobody has to ask for -------------------------------------------------------------

    /// What is due now: an order that ends a reforming whose generation serves, for the control
    /// leader's own look.
    pub(super) fn served(
        state: &ControlState,
        copies: &[api::DatabaseCopy],
        term: u64,
    ) -> Vec<Order> {
        let anew = state.databases.iter().filter(|database| database.reforming != 0);
        let served = anew
            .filter(|database| serving(copies, database.database, database.generation).is_some());
        let end = |database: &DatabaseRecord| {
            let DatabaseRecord { database, generation, .. } = *database;
            Order::EndReform(EndReform { database, generation, term })
        };
        served.map(end).collect()
    }

    /// The databases that can be formed anew without a loss, and have been waiting for long enough.
    pub(super) fn lossless(
        state: &ControlState,
        reports: &Reports,
        copies: &[api::DatabaseCopy],
        since: &mut LostSince,
        now: u64,
    ) -> Vec<(DatabaseRecord, Reform)> {
        let mut due = Vec::new();
        let mut seen = LostSince::new();
        for database in state.databases.iter().filter(|database| database.id() != CONTROL) {
            if reports.active(database.id()).is_some() {
                continue;
            }
            let left = left(copies, reports, database);
            // The wait is asked for once everything else holds.
            let found = plan_reform(state, reports, database, &left, Some(Millis(0)));
            if found.is_possible() && found.verdict == Verdict::Zero {
                let began = since.get(&database.id()).copied().unwrap_or(now);
                seen.insert(database.id(), began);
                if now.saturating_sub(began) >= BY_ITSELF_MS {
                    due.push((database.clone(), found));
                }
            }
        }
        *since = seen;
        due
    }

    /// Begins one of them, where the takeover wait is over.
    pub(super) async fn reform_by_itself(
        &self,
        (database, found): (DatabaseRecord, Reform),
        term: u64,
        asker: Asker,
    ) {
        let Ok(member) = self.node.member() else { return };
        let fenced = member.gate.fence(found.missing.clone()).await;
        if fenced.is_none_or(|fenced| fenced.term != term || fenced.left > Millis(0)) {
            return;
        }
        let request = uuid::Uuid::new_v4().to_string();
        let plan = Plan::Reform(planned(&database, &found, &request));
        tracing::warn!(db = %database.database, "its majority is lost, its mail is not: it goes on");
        if let Err(problem) = self.start(&request, plan, term, asker).await {
            tracing::debug!(problem = problem.message, "a database was not formed anew");
        }
    }
}

fn held(stands: &Survivor) -> api::HoldCopyResponse {
    api::HoldCopyResponse {
        replica_id: stands.replica.0,
        last_log_term: stands.last.term,
        last_log_index: stands.last.index,
        voters: stands.voters.iter().map(|replica| replica.0).collect(),
        joint: stands.joint,
    }
}

/// The node where a generation of a database is mounted, or a later one.
fn serving(copies: &[api::DatabaseCopy], database: u64, generation: u32) -> Option<u64> {
    let mounted = |copy: &&api::DatabaseCopy| {
        copy.database_id == database
            && copy.generation >= generation
            && copy.status() == api::CopyStatus::Mounted
    };
    copies.iter().find(mounted).map(|copy| copy.node_id)
}

/// The copies that are left, by the last words of their nodes.
fn left(
    copies: &[api::DatabaseCopy],
    reports: &Reports,
    database: &DatabaseRecord,
) -> Vec<Survivor> {
    use api::CopyStatus as S;
    let runs = |copy: &&api::DatabaseCopy| {
        let node = NodeId(copy.node_id);
        let own = database.replica_on(node);
        let same = own.is_some_and(|own| own.replica == copy.replica_id && !own.left_behind);
        let runs = !matches!(
            copy.status(),
            S::Failed | S::FailedAndSuspended | S::ServiceDown | S::Initializing | S::Seeding
        );
        let here = copy.database_id == database.database && same && reports.reaches(node);
        here && runs && copy.last_log_term > 0
    };
    let survivor = |copy: &api::DatabaseCopy| Survivor {
        node: NodeId(copy.node_id),
        replica: ReplicaId(copy.replica_id),
        last: LogId { term: copy.last_log_term, index: copy.last_log_index },
        voters: copy.group_voters.iter().copied().map(ReplicaId).collect(),
        joint: copy.group_joint,
    };
    copies.iter().filter(runs).map(survivor).collect()
}

fn planned(database: &DatabaseRecord, found: &Reform, request: &str) -> plan::Reform {
    plan::Reform {
        request: request.to_owned(),
        database: database.database,
        name: database.name.clone(),
        generation: database.generation,
        node: found.best.as_ref().map_or(0, |best| best.node.0),
        lossless: found.verdict == Verdict::Zero,
        verdict: format!("{}: {}", words(&found.verdict), found.reason),
    }
}

fn words(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Zero => "ZERO",
        Verdict::Unknown => "UNKNOWN",
    }
}

/// A loss is accepted by the token of the plan that stated it.
fn acknowledged(database: &DatabaseRecord, found: &Reform, token: &str) -> Result<(), Problem> {
    let refused = |check, text: String| {
        let next = format!("dagctl db reform {} --plan", database.name);
        let text = format!("{check}: {text}");
        Err(Problem::new(Reason::CheckFailed, text).check(check).database(database.id()).next(next))
    };
    match (token, &found.verdict) {
        ("", Verdict::Zero) => Ok(()),
        ("", Verdict::Unknown) => refused(
            "loss-acknowledged",
            format!(
                "mail that was acknowledged may be lost: {}; a plan's token accepts that",
                found.reason
            ),
        ),
        (token, _) if token == found.token => Ok(()),
        _ => refused("plan-token", "the world moved since the plan was made".into()),
    }
}

fn show(
    database: &DatabaseRecord,
    found: &Reform,
    plan: &plan::Reform,
) -> api::ReformDatabaseResponse {
    let verdict = match found.verdict {
        Verdict::Zero => api::LossVerdict::Zero,
        Verdict::Unknown => api::LossVerdict::Unknown,
    };
    api::ReformDatabaseResponse {
        checks: show_checks(&found.checks, refusal(&found.checks, &database.name).as_ref()),
        steps: plan.all_words(),
        verdict: verdict.into(),
        verdict_reason: found.reason.clone(),
        node_id: plan.node,
        generation: database.generation + 1,
        missing: found.missing.iter().map(|node| node.0).collect(),
        token: found.token.clone(),
        operation: 0,
    }
}
