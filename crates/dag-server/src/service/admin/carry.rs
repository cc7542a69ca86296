//! Carrying long operations out: by the control leader that began them, or by a later one from
//! where they were left.
//!
//! ```text
//!   the record ──► plan.rs: what is next? ──► begin the step (control log) ──► send it
//!        ▲                                                                      │
//!        └────────────── end the step (control log) ◄── answer, or what is seen ┘
//! ```
//! Nothing is kept in memory between two steps. Where this node stops leading the control group,
//! its next order is not committed, it lets go, and its successor goes on.

use std::time::Duration;

use active_manager::control::command::{
    BeginOperation, BeginStep, EndOperation, EndStep, Ending, PlaceVoters, RecordMove,
};
use active_manager::control::{
    ControlState, Operation, OperationState, Order, Outcome, StepRecord,
};
use active_manager::course::{Next, Step};
use dac::step_fence::StepId;
use dag_api::admin::v1 as api;
use dag_api::admin::v1::dag_admin_service_client::DagAdminServiceClient;
use dag_api::admin::v1::take_step_request::What;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, NodeId, ReplicaId};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use replication::TransferError;
use tokio::time::Instant;

use super::AdminServer;
use super::moves::Office;
use super::orders::Asker;
use super::plan::{Evacuate, HookRun, Move, Plan, Rebalance, part_of};
use crate::journal::StepState;
use crate::node::Member;
use crate::status;
use crate::steps::Asked;

const CONTROL: DatabaseId = DatabaseId::CONTROL;
/// How long the target's log may take to become level; writes are held meanwhile.
const LEVEL: Duration = Duration::from_secs(5);
/// How long the joint change of a database's voters may take.
const VOTERS: Duration = Duration::from_secs(8);
/// How long a node may take to answer a step.
const STEP: Duration = Duration::from_secs(10);
/// How long the target may take to mount.
const MOUNT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);
/// Databases that one operation moves side by side.
const AT_A_TIME: usize = 6;

/// An operation that this node carries out.
#[derive(Debug, Clone)]
pub(crate) struct Carrying {
    pub operation: u64,
    pub plan: Plan,
    /// The control leader's, which is this node's as long as it carries.
    pub term: u64,
    pub asker: Asker,
}

impl AdminServer {
    /// Begins an operation. Gives its number, and whether an equal request began it before.
    pub(super) async fn begin(
        &self,
        request: &str,
        plan: &Plan,
        asker: &Asker,
    ) -> Result<(u64, bool), Problem> {
        let begin = Order::BeginOperation(BeginOperation {
            request_id: request.to_owned(),
            kind: plan.kind().into(),
            object: plan.object(),
            plan: plan.written(),
        });
        match self.order(begin, asker).await? {
            Outcome::OperationBegun(begun) => Ok((begun.operation, begun.replayed)),
            _ => Err(super::orders::unreadable()),
        }
    }

    /// Takes an operation up that an earlier leader left. What cannot be read, or may have changed
    /// the world without a step on record, is ended as failed.
    pub(crate) async fn take_up(&self, known: &Operation, term: u64) {
        let begun = known.begun.clone().unwrap_or_default();
        let asker = Asker { who: begun.who, from: begun.from, reason: begun.reason };
        let number = known.operation;
        let Some(plan) = Plan::of(known) else {
            let outcome = "the control leader changed, and this version cannot read its plan";
            let ended = self.end(number, OperationState::Failed, outcome.into(), &asker).await;
            return ended.unwrap_or_else(|error| tracing::debug!(%error, "not ended"));
        };
        tracing::info!(op = number, plan = plan.words(), "take an operation up");
        let carrying = Carrying { operation: number, plan, term, asker };
        if let Err(error) = self.carry(&carrying).await {
            tracing::warn!(op = number, %error, "an operation that was taken up");
        }
    }

    /// Carries an operation to its end. An error says how it ended, or why this node let go of it.
    ///
    /// Boxed, because an operation on many databases carries out others.
    pub(crate) fn carry<'a>(
        &'a self,
        carrying: &'a Carrying,
    ) -> BoxFuture<'a, Result<(), Problem>> {
        Box::pin(async move {
            let _running = self.node.operations.begin(carrying.operation);
            match &carrying.plan {
                Plan::Move(planned) => self.carry_move(carrying, planned).await,
                Plan::Evacuate(planned) => self.carry_evacuation(carrying, planned).await,
                Plan::Rebalance(planned) => self.carry_rebalance(carrying, planned).await,
                Plan::Paths(planned) => self.carry_paths(carrying, planned).await,
                Plan::Leave(planned) => self.carry_leave(carrying, planned).await,
                Plan::Join(planned) => self.carry_join(carrying, planned).await,
                Plan::Hook(run) => self.carry_hook(carrying, run).await,
                Plan::Reform(planned) => self.carry_reform(carrying, planned).await,
            }
        })
    }

    /// The record as a quorum confirms it.
    pub(super) async fn record(&self, carrying: &Carrying) -> Result<(Office, Operation), Problem> {
        let office = self.office(Instant::now() + STEP).await?;
        if office.term != carrying.term {
            return Err(status::not_active(CONTROL, self.node.hint(CONTROL)));
        }
        let known = office.state.operations.iter().find(|op| op.operation == carrying.operation);
        let known = known.cloned().ok_or_else(super::orders::unreadable)?;
        Ok((office, known))
    }

    /// Puts a step on record, with the node that it is about and its words, unless the record has
    /// it as begun by this very leader. A step that a cancelled operation had begun is brought to
    /// its end.
    pub(super) async fn begin_step(
        &self,
        at: &Carrying,
        known: &Operation,
        (number, node, what): (u32, u64, String),
        undoes: bool,
    ) -> Result<(), Problem> {
        let begun =
            |last: &StepRecord| !last.ended() && (last.step, last.term) == (number, at.term);
        if known.steps.last().is_some_and(begun) {
            return Ok(());
        }
        let undoes = undoes || known.state() == OperationState::Cancelling;
        let (operation, term) = (at.operation, at.term);
        let begin = BeginStep { operation, step: number, term, node, what, undoes };
        self.order(Order::BeginStep(begin), &at.asker).await.map(drop)
    }

    /// Puts on record what a step came to.
    pub(super) async fn end_step(
        &self,
        at: &Carrying,
        number: u32,
        came: Result<String, String>,
    ) -> Result<(), Problem> {
        let succeeded = came.is_ok();
        let outcome = came.unwrap_or_else(|why| why);
        let (operation, term) = (at.operation, at.term);
        let end = EndStep { operation, step: number, term, succeeded, outcome };
        self.order(Order::EndStep(end), &at.asker).await.map(drop)
    }

    pub(super) async fn end(
        &self,
        operation: u64,
        state: OperationState,
        outcome: String,
        asker: &Asker,
    ) -> Result<(), Problem> {
        let ending = match state {
            OperationState::Done => Ending::Done,
            OperationState::Cancelled => Ending::Cancelled,
            _ => Ending::Failed,
        };
        let end = EndOperation { operation, ending: ending.into(), outcome };
        self.order(Order::EndOperation(end), asker).await.map(drop)
    }

    // --- One database ---------------------------------------------------------------------------

    async fn carry_move(&self, carrying: &Carrying, planned: &Move) -> Result<(), Problem> {
        let mut reason = None;
        loop {
            let (office, known) = self.record(carrying).await?;
            match planned.next(&known) {
                Next::Send { number, step, undoes } => {
                    let record = (&office, &known);
                    let ended = self.send(carrying, planned, record, (number, step, undoes)).await;
                    reason = ended?.err().or(reason);
                }
                Next::End { state, outcome } => {
                    let (operation, asker) = (carrying.operation, &carrying.asker);
                    self.end(operation, state, outcome.clone(), asker).await?;
                    return match state {
                        OperationState::Done => Ok(()),
                        _ => Err(reason.unwrap_or_else(|| {
                            let text = format!("operation {operation} ended: {outcome}");
                            Problem::new(Reason::CheckFailed, text).check("operation")
                        })),
                    };
                }
            }
        }
    }

    /// One step: begun in the control log, sent, seen through, ended in the control log. The inner
    /// error is the step's own, which is on record; the outer one means that this node lets go.
    async fn send(
        &self,
        carrying: &Carrying,
        planned: &Move,
        (office, known): (&Office, &Operation),
        (number, step, undoes): (u32, Step, bool),
    ) -> Result<Result<(), Problem>, Problem> {
        let Carrying { operation, asker, .. } = carrying;
        let operation = *operation;
        // Sites and balance: at most one move in the block time, which begins with the move.
        if known.steps.is_empty()
            && let Err(refused) = self.order(recorded(planned, operation), asker).await
        {
            let failed = OperationState::Failed;
            self.end(operation, failed, refused.message.clone(), asker).await?;
            return Err(refused);
        }
        let what = planned.step_words(&step, undoes);
        self.begin_step(carrying, known, (number, planned.from, what), undoes).await?;
        let done = self.see_through(carrying, planned, office, number, &step).await;
        let came = done.as_ref().map(Clone::clone).map_err(|problem| problem.message.clone());
        self.end_step(carrying, number, came).await?;
        Ok(done.map(drop))
    }

    async fn see_through(
        &self,
        carrying: &Carrying,
        planned: &Move,
        office: &Office,
        number: u32,
        step: &Step,
    ) -> Result<String, Problem> {
        let member = self.node.member()?;
        let database = DatabaseId(planned.database);
        let record = office.state.database(database).ok_or_else(|| gone(planned))?;
        let replica = |node: u64| record.replica_on(NodeId(node)).map(|copy| copy.replica);
        let what = match step {
            Step::Transfer(to) => What::Transfer(api::TransferStep {
                database_id: planned.database,
                to_replica: replica(*to).ok_or_else(|| gone(planned))?,
            }),
            Step::Voters(nodes) => What::Voters(api::VotersStep {
                database_id: planned.database,
                replicas: nodes.iter().filter_map(|node| replica(*node)).collect(),
            }),
        };
        let request = api::TakeStepRequest {
            operation: carrying.operation,
            step: number,
            control_term: carrying.term,
            what: Some(what),
        };
        let sent = self.send_to(member, NodeId(planned.from), request).await;
        match step {
            Step::Voters(nodes) => {
                let outcome = sent?;
                let order = PlaceVoters { database: planned.database, nodes: nodes.clone() };
                self.order(Order::PlaceVoters(order), &carrying.asker).await?;
                Ok(outcome)
            }
            Step::Transfer(to) => {
                // Whatever the old active node said or could not say: what counts is who serves.
                let lost = sent.err().filter(|problem| problem.reason != Reason::OutcomeUnknown);
                let patience = if lost.is_some() { HANDED_OVER } else { MOUNT };
                match self.await_mounted(member, database, NodeId(*to), patience).await {
                    true => Ok(format!("mounted on node {to}")),
                    false => Err(lost.unwrap_or_else(|| not_mounted(database, *to))),
                }
            }
        }
    }

    async fn send_to(
        &self,
        member: &Member,
        to: NodeId,
        request: api::TakeStepRequest,
    ) -> Result<String, Problem> {
        if to == self.node.id() {
            return self.take_step(request).await.map(|answer| answer.outcome);
        }
        let mut request = tonic::Request::new(request);
        request.set_timeout(STEP);
        let answer = self.client(member, to)?.take_step(request).await;
        answer.map(|answer| answer.into_inner().outcome).map_err(|refused| told(to, &refused))
    }

    /// Waits until the target's node says that it serves.
    async fn await_mounted(
        &self,
        member: &Member,
        database: DatabaseId,
        to: NodeId,
        patience: Duration,
    ) -> bool {
        let end = Instant::now() + patience;
        loop {
            if self.is_mounted(member, database, to).await {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn is_mounted(&self, member: &Member, database: DatabaseId, to: NodeId) -> bool {
        if to == self.node.id() {
            return self.node.group(database).is_ok_and(|group| group.serving().is_ok());
        }
        let Ok(mut client) = self.client(member, to) else { return false };
        let mut asked = tonic::Request::new(api::ListCopiesRequest {
            node_id: to.0,
            ..api::ListCopiesRequest::default()
        });
        asked.set_timeout(HANDED_OVER);
        let Ok(answer) = client.list_copies(asked).await else { return false };
        let copies = answer.into_inner().copies;
        copies.iter().any(|copy| {
            copy.node_id == to.0
                && copy.database_id == database.0
                && copy.status() == api::CopyStatus::Mounted
        })
    }

    pub(super) fn client(
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

    // --- Many databases -------------------------------------------------------------------------

    async fn carry_evacuation(&self, at: &Carrying, planned: &Evacuate) -> Result<(), Problem> {
        let wishes = planned.databases.iter().map(|(database, name)| api::MoveDatabaseRequest {
            database_name: name.clone(),
            skip: planned.skip.clone(),
            draining: planned.draining,
            request_id: part_of(at.operation, *database),
            reason: at.asker.reason.clone(),
            ..api::MoveDatabaseRequest::default()
        });
        self.carry_parts(at, wishes.collect()).await
    }

    async fn carry_rebalance(&self, at: &Carrying, planned: &Rebalance) -> Result<(), Problem> {
        let wishes = planned.moves.iter().map(|(database, name, to)| api::MoveDatabaseRequest {
            database_name: name.clone(),
            to_node: *to,
            balancing: true,
            request_id: part_of(at.operation, *database),
            reason: at.asker.reason.clone(),
            ..api::MoveDatabaseRequest::default()
        });
        self.carry_parts(at, wishes.collect()).await
    }

    /// Moves several databases, each by an operation of its own. What is refused stays, and the
    /// others are moved all the same.
    async fn carry_parts(
        &self,
        carrying: &Carrying,
        wishes: Vec<api::MoveDatabaseRequest>,
    ) -> Result<(), Problem> {
        let all = wishes.len();
        let parts = stream::iter(wishes).map(|wish| async {
            let (_, known) = self.record(carrying).await?;
            if known.state() == OperationState::Cancelling {
                return Ok(None);
            }
            let name = wish.database_name.clone();
            let moved = self.move_database(wish, carrying.asker.clone(), Instant::now() + STEP);
            Ok(Some((name, moved.await.map(drop))))
        });
        let parts: Vec<Result<_, Problem>> = parts.buffered(AT_A_TIME).collect().await;
        // Where this node no longer leads, nothing that was refused means anything.
        self.record(carrying).await?;
        let (mut moved, mut stayed, mut cancelled) = (0_u32, Vec::new(), false);
        for part in parts {
            match part? {
                None => cancelled = true,
                Some((_, Ok(()))) => moved += 1,
                Some((name, Err(problem))) => stayed.push(format!("{name}: {}", problem.message)),
            }
        }
        let mut outcome = format!("moved {moved} of {all}");
        for why in &stayed {
            outcome.push_str(&format!("; {why}"));
        }
        let state = match (stayed.is_empty(), cancelled) {
            (_, true) => OperationState::Cancelled,
            (true, false) => OperationState::Done,
            (false, false) => OperationState::Failed,
        };
        self.end(carrying.operation, state, outcome, &carrying.asker).await
    }

    // --- A hook ---------------------------------------------------------------------------------

    /// Runs the executable here, where the control group is led. What an earlier leader began and
    /// did not answer may have run, or not: it is run again, under the operation's number. Whatever
    /// comes of it is on record, and holds nothing up.
    async fn carry_hook(&self, carrying: &Carrying, run: &HookRun) -> Result<(), Problem> {
        let Carrying { operation, term, asker, .. } = carrying;
        let (operation, term, own) = (*operation, *term, self.node.id().0);
        let (_, known) = self.record(carrying).await?;
        if let Some(left) = known.steps.last().filter(|step| !step.ended()) {
            let (step, node, what) = (left.step, left.node, left.what.clone());
            if left.term < term {
                self.begin_step(carrying, &known, (step, node, what), true).await?;
            }
            let outcome = "the control leader changed before it ended".to_owned();
            self.end_step(carrying, step, Err(outcome)).await?;
        }
        if known.state() == OperationState::Cancelling {
            let outcome = "not run".to_owned();
            return self.end(operation, OperationState::Cancelled, outcome, asker).await;
        }
        let step = known.steps.last().map_or(1, |step| step.step + 1);
        let what = format!("run {}", run.program);
        self.begin_step(carrying, &known, (step, own, what), false).await?;
        let ran = crate::hooks::run(&self.node, operation, run).await;
        let state = if ran.is_ok() { OperationState::Done } else { OperationState::Failed };
        self.end_step(carrying, step, ran.clone()).await?;
        self.end(operation, state, ran.unwrap_or_else(|why| why), asker).await
    }

    // --- At the node that takes a step ----------------------------------------------------------

    /// Takes a step of an operation. A sender that a later control leader has replaced moves nothing.
    pub(super) async fn take_step(
        &self,
        request: api::TakeStepRequest,
    ) -> Result<api::TakeStepResponse, Problem> {
        let what = request.what.ok_or_else(|| {
            Problem::new(Reason::InvalidRequest, "the step says nothing").check("what")
        })?;
        let kind = match what {
            What::Transfer(_) => "transfer",
            What::Voters(_) => "voters",
        };
        let id = StepId { term: request.control_term, step: request.step };
        let asked = Asked { operation: request.operation, kind, id };
        let (_, known) = self.node.group(CONTROL)?.role();
        if request.control_term < known {
            asked.tell(&self.node.journal, StepState::Refused);
            let text = format!(
                "step {} of operation {} comes from the control leader of term {}, and term {known} \
                 is known here",
                request.step, request.operation, request.control_term
            );
            return Err(Problem::new(Reason::CheckFailed, text).check("control-term"));
        }
        let (this, operation) = (self.clone(), request.operation);
        let work = async move {
            match what {
                What::Transfer(step) => this.transfer(&step).await,
                What::Voters(step) => this.change_voters(operation, &step).await,
            }
        };
        let outcome = self.node.steps.take(&self.node, asked, work).await?;
        Ok(api::TakeStepResponse { outcome })
    }

    /// Hands the leadership of a database that is active here to another copy.
    async fn transfer(&self, step: &api::TransferStep) -> Result<String, Problem> {
        let database = DatabaseId(step.database_id);
        let group = self.node.group(database)?;
        let to = ReplicaId(step.to_replica);
        let moved = group.transfer(to, Instant::now() + LEVEL).await;
        moved.map_err(|error| not_transferred(database, &error))?;
        Ok(format!("handed to replica {to}"))
    }

    /// Waits until the control log says here that the operation runs. Before, this node's own driver would
    /// take its changes for something left behind, and undo them.
    async fn until_known(&self, operation: u64, end: Instant) -> Result<(), Problem> {
        while !self.node.control().is_some_and(|state| runs(&state, operation)) {
            if Instant::now() >= end {
                let text = format!("operation {operation} does not run, as far as is known here");
                return Err(Problem::new(Reason::CheckFailed, text).check("operation-running"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Makes these copies the voters of a database that is active here; all others become learners.
    async fn change_voters(
        &self,
        operation: u64,
        step: &api::VotersStep,
    ) -> Result<String, Problem> {
        let database = DatabaseId(step.database_id);
        let group = self.node.group(database)?;
        let by = Instant::now() + VOTERS;
        self.until_known(operation, by).await?;
        let members = group.status().members.into_iter();
        let members = members
            .map(|known| (known.replica, replication::Member { node: known.node }))
            .collect();
        let voters = step.replicas.iter().copied().map(ReplicaId).collect();
        let changed = group.change_members(&members, &voters, by).await;
        changed.map_err(|error| {
            let check = Problem::new(Reason::CheckFailed, error.to_string()).check("voters");
            check.database(database)
        })?;
        Ok(format!("{} copies vote", step.replicas.len()))
    }
}

/// Whether an operation runs, by the control log as it is applied here.
fn runs(state: &ControlState, operation: u64) -> bool {
    state.running().any(|known| known.operation == operation)
}

/// How long the target may take to show that it serves where the old active node did not say that
/// it handed over; also how long it may take to answer the question.
const HANDED_OVER: Duration = Duration::from_secs(1);

fn recorded(planned: &Move, operation: u64) -> Order {
    Order::RecordMove(RecordMove {
        database: planned.database,
        from: planned.from,
        to: planned.to,
        cause: planned.cause.recorded().into(),
        acknowledged: planned.acknowledged,
        operation,
    })
}

fn gone(planned: &Move) -> Problem {
    let text = format!("{} has no copy any more where the plan wants one", planned.name);
    let problem = Problem::new(Reason::CheckFailed, text).check("copy-exists");
    problem.database(DatabaseId(planned.database))
}

fn not_mounted(database: DatabaseId, to: u64) -> Problem {
    let text = format!(
        "the copy on node {to} did not mount within {} s; `dagctl status` says why",
        MOUNT.as_secs()
    );
    Problem::new(Reason::CheckFailed, text).check("mounted").database(database)
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

/// What another node said, with its name. No answer is no refusal.
pub(super) fn told(node: NodeId, refused: &tonic::Status) -> Problem {
    let text = format!("node {node}: {}", refused.message());
    match Problem::from_status(refused) {
        Some(problem) => Problem { message: text, ..problem },
        None => Problem::new(Reason::OutcomeUnknown, text).check("active-node-answers"),
    }
}
