//! Moving a database: decided and recorded by the control leader, carried out where it is active.
//!
//! ```text
//!  dagctl ──► control leader: checks, plan, token      (plan only: that was all)
//!               │  operation begun, step begun          in the control log
//!               ├──► the active node: hold writes, await match, transfer; repair if it got stuck
//!               ├──► the target: mounted?
//!               │  step ended, operation ended          in the control log
//!               ▼
//! ```
//! One operation per database at a time, so two administrators cannot move one at once. The active
//! node refuses a step whose control term is below the one that its own copy of the control group
//! knows: a leader that slept through its deposition moves nothing.

use std::time::Duration;

use active_manager::control::command::{
    BeginOperation, BeginStep, EndOperation, EndStep, Ending, RecordMove,
};
use active_manager::control::{
    ControlState, DatabaseRecord, MoveCause, OperationKind, Order, Outcome, Rejection,
};
use active_manager::movement::{
    Check, Motive, MoveDecision, MovePlan, MoveRequest, MoveStep, PlanToken, Target, decide_move,
};
use active_manager::names::nearest;
use dag_api::admin::v1 as api;
use dag_api::admin::v1::dag_admin_service_client::DagAdminServiceClient;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, NodeId, ReplicaId};
use replication::{Role, TransferError};
use tokio::time::Instant;

use super::AdminServer;
use super::orders::Asker;
use crate::machine::View;
use crate::node::Member;
use crate::status;

const CONTROL: DatabaseId = DatabaseId::CONTROL;
/// How long the target's log may take to become level; writes are held meanwhile.
const LEVEL: Duration = Duration::from_secs(5);
/// How long the call to the active node may take: to become level, to hand over, to repair.
const STEP: Duration = Duration::from_secs(10);
/// How long the target may take to mount.
const MOUNT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);
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
        self.ask_all(member).await;
        let decision = self.decide(member, &office.state, &database, &request);
        let mut response = show(&database, &decision);
        if request.plan_only {
            return Ok(response);
        }
        if let Some(refusal) = decision.refusal(&database.name) {
            return Err(status::control(&Rejection::Check(refusal)));
        }
        let plan = decision.plan.ok_or_else(|| no_plan(&database))?;
        check_token(&request.token, &plan)?;
        if let Some(step) = plan.steps.iter().find(|s| matches!(s, MoveStep::ChangeVoters(_))) {
            return Err(crosses_sites(&database, step));
        }
        let from = plan.from.ok_or_else(|| no_plan(&database))?;
        let began = Instant::now();
        let moving = Moving { database, plan, from, term: office.term, request, asker };
        // Whoever asked may go away; what was begun is brought to its end all the same.
        let this = self.clone();
        let carried = tokio::spawn(async move { this.carry_out(&moving).await }).await;
        response.operation = carried.map_err(|_| super::orders::unreadable())??;
        response.moved = true;
        response.took_ms = began.elapsed().as_millis() as u64;
        Ok(response)
    }

    /// Asks every other node how it stands now: what was heard a second ago may be of before the
    /// last move.
    async fn ask_all(&self, member: &Member) {
        let own = self.node.id();
        let others = member.peers.members().into_iter().filter(|(id, _)| *id != own);
        let asking = others.map(|(id, _)| async move {
            let mut client = self.client(member, id).ok()?;
            let asked =
                api::ListCopiesRequest { node_id: id.0, ..api::ListCopiesRequest::default() };
            let answer = tokio::time::timeout(HEARING, client.list_copies(asked)).await;
            let mut answer = answer.ok()?.ok()?.into_inner();
            answer.copies.retain(|copy| copy.node_id == id.0);
            self.node.reports.heard(id, answer.copies, answer.gate);
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
    ) -> MoveDecision {
        let target = match request.to_node {
            0 => Target::Best,
            node => Target::Node(NodeId(node)),
        };
        let motive = if request.draining { Motive::Drain } else { Motive::Operator };
        let wish = MoveRequest { target, motive, skip: request.skip.clone() };
        decide_move(state, &self.reports(member, 2 * HEARING), database, &wish)
    }

    /// Gives the operation's number. Whatever becomes of the step is recorded.
    async fn carry_out(&self, moving: &Moving) -> Result<u64, Problem> {
        let (database, request, asker) = (&moving.database, &moving.request, &moving.asker);
        let member = self.node.member()?;
        let begin = Order::BeginOperation(BeginOperation {
            request_id: request.request_id.clone(),
            kind: OperationKind::MoveDatabase.into(),
            object: format!("database {}", database.database),
            plan: format!("{} to node {}, {}", database.name, moving.plan.to, moving.plan.token),
        });
        let operation = match self.order(begin, asker).await? {
            Outcome::OperationBegun(begun) if !begun.replayed => begun.operation,
            Outcome::OperationBegun(begun) => return self.outcome_of(begun.operation).await,
            _ => return Err(super::orders::unreadable()),
        };
        let _running = self.node.operations.begin(operation);
        let what = format!("transfer {} to node {}", database.name, moving.plan.to);
        self.order(moving.begin_step(operation, what), asker).await?;
        let done = self.transfer_and_mount(member, moving, operation).await;
        let (succeeded, outcome) = match &done {
            Ok(()) => (true, format!("mounted on node {}", moving.plan.to)),
            Err(problem) => (false, problem.message.clone()),
        };
        self.order(moving.end_step(operation, succeeded, outcome.clone()), asker).await?;
        let ending = if succeeded { Ending::Done } else { Ending::Failed };
        let end = EndOperation { operation, ending: ending.into(), outcome };
        self.order(Order::EndOperation(end), asker).await?;
        done?;
        let cause = if request.draining { MoveCause::Drain } else { MoveCause::Operator };
        self.order(moving.record(cause), asker).await?;
        Ok(operation)
    }

    /// The same request came before: what became of it is on record.
    async fn outcome_of(&self, operation: u64) -> Result<u64, Problem> {
        use active_manager::control::OperationState as State;
        let office = self.office(Instant::now() + STEP).await?;
        let known = office.state.operations.iter().find(|known| known.operation == operation);
        match known.map(|known| (known.state(), known.outcome.clone())) {
            Some((State::Done, _)) => Ok(operation),
            Some((State::Failed | State::Cancelled, outcome)) => {
                let text = format!("operation {operation} ended: {outcome}");
                Err(Problem::new(Reason::CheckFailed, text).check("operation"))
            }
            Some((State::Running | State::Cancelling, _)) | None => {
                let text = format!("operation {operation} is running");
                Err(Problem::new(Reason::OutcomeUnknown, text).database(CONTROL))
            }
        }
    }

    async fn transfer_and_mount(
        &self,
        member: &Member,
        moving: &Moving,
        operation: u64,
    ) -> Result<(), Problem> {
        let Moving { database, plan, from, term, .. } = moving;
        let (from, control_term) = (*from, *term);
        let replica = database.replica_on(plan.to).ok_or_else(|| no_plan(database))?.id();
        let order = api::TransferDatabaseRequest {
            database_id: database.database,
            to_replica: replica.0,
            operation,
            step: 1,
            control_term,
        };
        if from == self.node.id() {
            self.transfer(&order).await?;
        } else {
            let mut client = self.client(member, from)?;
            let mut request = tonic::Request::new(order);
            request.set_timeout(STEP);
            client.transfer_database(request).await.map_err(|refused| told(from, &refused))?;
        }
        self.await_mounted(member, database.id(), plan.to).await
    }

    /// Waits until the target's node says that it serves.
    async fn await_mounted(
        &self,
        member: &Member,
        database: DatabaseId,
        to: NodeId,
    ) -> Result<(), Problem> {
        let end = Instant::now() + MOUNT;
        while Instant::now() < end {
            if self.is_mounted(member, database, to).await {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        let text = format!(
            "the copy on node {to} leads and did not mount within {} s; `dagctl status` says why",
            MOUNT.as_secs()
        );
        Err(Problem::new(Reason::CheckFailed, text).check("mounted").database(database))
    }

    async fn is_mounted(&self, member: &Member, database: DatabaseId, to: NodeId) -> bool {
        if to == self.node.id() {
            return self.node.group(database).is_ok_and(|group| group.serving().is_ok());
        }
        let Ok(mut client) = self.client(member, to) else { return false };
        let asked = api::ListCopiesRequest { node_id: to.0, ..api::ListCopiesRequest::default() };
        let Ok(answer) = client.list_copies(asked).await else { return false };
        let copies = answer.into_inner().copies;
        copies.iter().any(|copy| {
            copy.node_id == to.0
                && copy.database_id == database.0
                && copy.status() == api::CopyStatus::Mounted
        })
    }

    fn client(
        &self,
        member: &Member,
        to: NodeId,
    ) -> Result<DagAdminServiceClient<tonic::transport::Channel>, Problem> {
        let unknown = || Problem::new(Reason::NodeNotFound, format!("node {to} is not known here"));
        let address = member.peers.member(to).ok_or_else(unknown)?.admin_address;
        let endpoint = self.node.dial.endpoint(&self.node.dial.url(&address));
        let endpoint = endpoint.map_err(|_| unknown())?.connect_timeout(STEP / 10);
        Ok(DagAdminServiceClient::new(endpoint.connect_lazy()))
    }

    /// Hands the leadership of a database that is active here to another copy.
    pub(super) async fn transfer(
        &self,
        request: &api::TransferDatabaseRequest,
    ) -> Result<(), Problem> {
        let database = DatabaseId(request.database_id);
        let (_, known) = self.node.group(CONTROL)?.role();
        if request.control_term < known {
            let text = format!(
                "step {} of operation {} comes from the control leader of term {}, and term {known} \
                 is known here",
                request.step, request.operation, request.control_term
            );
            return Err(Problem::new(Reason::CheckFailed, text).check("control-term"));
        }
        let group = self.node.group(database)?;
        let moved = group.transfer(ReplicaId(request.to_replica), Instant::now() + LEVEL).await;
        moved.map_err(|error| not_transferred(database, &error))
    }
}

/// A move under way.
struct Moving {
    database: DatabaseRecord,
    plan: MovePlan,
    from: NodeId,
    /// The control leader's.
    term: u64,
    request: api::MoveDatabaseRequest,
    asker: Asker,
}

impl Moving {
    fn begin_step(&self, operation: u64, what: String) -> Order {
        let (term, node) = (self.term, self.from.0);
        Order::BeginStep(BeginStep { operation, step: 1, term, node, what, undoes: false })
    }

    fn end_step(&self, operation: u64, succeeded: bool, outcome: String) -> Order {
        let term = self.term;
        Order::EndStep(EndStep { operation, step: 1, term, succeeded, outcome })
    }

    fn record(&self, cause: MoveCause) -> Order {
        Order::RecordMove(RecordMove {
            database: self.database.database,
            from: self.from.0,
            to: self.plan.to.0,
            cause: cause.into(),
            acknowledged: false,
        })
    }
}

/// The database with a name, or the names that are near to it.
pub(super) fn named<'a>(
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

fn crosses_sites(database: &DatabaseRecord, step: &MoveStep) -> Problem {
    let text = format!(
        "{} would move to another site ({}); moves between sites are not offered yet",
        database.name,
        words(step)
    );
    Problem::new(Reason::CheckFailed, text).check("same-site").database(database.id())
}

fn not_transferred(database: DatabaseId, error: &TransferError) -> Problem {
    let check = match error {
        TransferError::NotLeader(_) => "active",
        TransferError::NotAVoter { .. } => "voter",
        TransferError::Target(_) => "reachable",
        TransferError::MayNotCampaign => "may-campaign",
        TransferError::Behind { .. } => "level",
        TransferError::Repaired { .. } => "transfer",
    };
    Problem::new(Reason::CheckFailed, error.to_string()).check(check).database(database)
}

/// What another node said, with its name.
fn told(node: NodeId, refused: &tonic::Status) -> Problem {
    let text = format!("node {node}: {}", refused.message());
    match Problem::from_status(refused) {
        Some(problem) => Problem { message: text, ..problem },
        None => Problem::new(Reason::CheckFailed, text).check("active-node-answers"),
    }
}

fn show(database: &DatabaseRecord, decision: &MoveDecision) -> api::MoveDatabaseResponse {
    let plan = decision.plan.as_ref();
    let verdicts = decision.selection.iter().flat_map(|selection| &selection.verdicts);
    api::MoveDatabaseResponse {
        database_id: database.database,
        database_name: database.name.clone(),
        from_node: plan.and_then(|plan| plan.from).map_or(0, |node| node.0),
        to_node: plan.map_or(0, |plan| plan.to.0),
        checks: decision.checks.iter().map(show_check).collect(),
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

fn show_check(check: &Check) -> api::MoveCheck {
    api::MoveCheck {
        name: check.name.to_owned(),
        value: check.value.clone(),
        limit: check.limit.clone(),
        passed: check.passed,
        skippable: check.skippable,
        skipped: check.skipped,
    }
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
