//! Long operations on a simulated node: the control leader's part, and that of a node that is sent a
//! step.
//!
//! What the daemon's shell does is done here as well, by the same decisions: whether a database may
//! move is said by [`active_manager::movement`], which step comes next by [`active_manager::course`],
//! whether a step is taken by [`dac::step_fence`]; the step itself is [`Group::transfer`] or [`Group::change_members`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use active_manager::control::command::{
    BeginOperation, BeginStep, EndOperation, EndStep, Ending, PlaceVoters, RecordMove,
};
use active_manager::control::{
    Command, ControlState, MoveCause, Operation, OperationKind, OperationState, Order, Outcome,
    Response, move_object,
};
use active_manager::course::{MoveCourse, Next, Step};
use active_manager::movement::{Motive, MoveRequest, MoveStep, Target, decide_move};
use active_manager::report::Reports;
use dac::step_fence::{Admission, StepFence, StepId};
use dag_format::meta::TakenStep;
use dag_types::{DatabaseId, NodeId, ReplicaId};
use history::journal::{Event, StepState};
use openraft_rt::AsyncRuntime;
use prost::Message as _;
use replication::{Group, Member, Role};
use serde::{Deserialize, Serialize};
use storage::identity::NodeRoot;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::machines::View;
use crate::network::Network;
use crate::node::{Rt, Shared};
use crate::server::{Reply, Request};
use crate::work::{Answering, Deliverer};
use crate::world::lock;

/// How often it is looked for operations.
const LOOK: Duration = Duration::from_millis(50);
/// How long an order of the control log may take.
const ORDER: Duration = Duration::from_millis(1_000);
/// How long the target's log may take to become level.
const LEVEL: Duration = Duration::from_millis(1_500);
/// How long a node may take to answer a step.
const STEP: Duration = Duration::from_millis(2_500);
/// How long a target may take to serve.
const MOUNT: Duration = Duration::from_millis(1_500);
/// The same where the old active node did not say that it handed over.
const HANDED_OVER: Duration = Duration::from_millis(300);

/// A step that is sent to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCall {
    /// Of which operation.
    pub operation: u64,
    /// Which step, and of which control leader.
    pub id: StepId,
    /// Of which database.
    pub database: DatabaseId,
    /// What is done.
    pub what: StepWhat,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepWhat {
    /// Leadership goes to this copy.
    Transfer(ReplicaId),
    /// These copies become the voters.
    Voters(BTreeSet<ReplicaId>),
}

/// A database that somebody wants to be active on another node.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// The same for each attempt.
    pub request: String,
    /// Which database.
    pub database: DatabaseId,
    /// Where to.
    pub to: u64,
    /// Why.
    pub motive: Motive,
    /// How nodes and copies stood when it was wished.
    pub reports: Reports,
}

/// What the record of a move holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    database: u64,
    name: String,
    from: u64,
    to: u64,
    balance: bool,
    /// The nodes that become the voters; none: they stay.
    voters: Vec<u64>,
    earlier_voters: Vec<u64>,
}

impl Plan {
    fn of(known: &Operation) -> Self {
        serde_json::from_str(&known.plan).expect("written by this harness")
    }

    fn course(&self) -> MoveCourse<'_> {
        let Self { name, from, to, voters, earlier_voters, .. } = self;
        MoveCourse { name, from: *from, to: *to, voters, earlier_voters }
    }

    fn recorded(&self, operation: u64) -> Order {
        let cause = match (self.balance, self.voters.is_empty()) {
            (true, _) => MoveCause::Balance,
            (false, false) => MoveCause::Site,
            (false, true) => MoveCause::Operator,
        };
        Order::RecordMove(RecordMove {
            database: self.database,
            from: self.from,
            to: self.to,
            cause: cause.into(),
            acknowledged: false,
            operation,
        })
    }
}

/// What came of a step, in words.
type Stepped = Result<String, String>;

/// A node's part in long operations.
pub struct Office {
    own: u64,
    network: Network,
    deliver: Deliverer,
    root: Arc<NodeRoot>,
    /// Operations that this life carries out.
    carrying: Mutex<BTreeSet<u64>>,
    taken: tokio::sync::Mutex<Taken>,
}

struct Taken {
    fence: StepFence,
    /// Of this life; none while the step is under way.
    outcomes: BTreeMap<(u64, u32), watch::Receiver<Option<Stepped>>>,
}

impl Office {
    /// As the node's root remembers its steps.
    pub fn new(own: u64, network: Network, deliver: Deliverer, root: Arc<NodeRoot>) -> Self {
        let taken = root.taken_steps().into_iter();
        let taken = taken.map(|step| (step.operation, StepId { term: step.term, step: step.step }));
        let fence = StepFence::restore(taken.collect());
        let taken = tokio::sync::Mutex::new(Taken { fence, outcomes: BTreeMap::new() });
        Self { own, network, deliver, root, carrying: Mutex::default(), taken }
    }

    // --- The control leader -----------------------------------------------------------------------

    /// Begins to move a database.
    pub async fn begin(&self, shared: &Shared, wish: &Wish) -> Reply {
        let Some((group, _, state)) = self.lead(shared).await else {
            let leader = shared.group(DatabaseId::CONTROL).and_then(|group| group.leader());
            return Reply::Refused(leader.map(|leader| leader.node.0));
        };
        let Some(record) = state.database(wish.database) else { return Reply::Refused(None) };
        let request = MoveRequest {
            target: Target::Node(NodeId(wish.to)),
            motive: wish.motive,
            skip: Vec::new(),
        };
        let decision = decide_move(&state, &wish.reports, record, &request);
        if let Some(refusal) = decision.refusal(&record.name) {
            return Reply::Stepped(Err(refusal.check));
        }
        let plan = decision.plan.expect("nothing forbids it");
        let voters = plan.steps.iter().find_map(|step| match step {
            MoveStep::ChangeVoters(nodes) => Some(nodes.iter().map(|node| node.0).collect()),
            _ => None,
        });
        let voters: Vec<u64> = voters.unwrap_or_default();
        let voting = record.replicas.iter().filter(|copy| copy.voter);
        let Some(from) = plan.from else { return Reply::Stepped(Err("active".to_owned())) };
        let plan = Plan {
            database: record.database,
            name: record.name.clone(),
            from: from.0,
            to: plan.to.0,
            balance: wish.motive == Motive::Balance,
            earlier_voters: voting.map(|copy| copy.node).collect(),
            voters,
        };
        let crosses = !plan.voters.is_empty();
        let kind = if crosses { OperationKind::MoveSite } else { OperationKind::MoveDatabase };
        let order = Order::BeginOperation(BeginOperation {
            request_id: wish.request.clone(),
            kind: kind.into(),
            object: move_object(record.database),
            plan: serde_json::to_string(&plan).expect("texts and numbers"),
        });
        match self.order(shared, &group, order).await {
            Some(Outcome::OperationBegun(_)) => Reply::Stepped(Ok("begun".to_owned())),
            Some(_) => Reply::Stepped(Err("operation-running".to_owned())),
            None => Reply::Unknown("the order was not answered"),
        }
    }

    /// The control group and its state at a read index, while this node leads it.
    pub async fn lead(&self, shared: &Shared) -> Option<(Group, u64, ControlState)> {
        let group = shared.group(DatabaseId::CONTROL)?;
        group.read_barrier(Instant::now() + ORDER).await.ok()?;
        let state = ControlState::read(&View(&*group.view())).ok()??;
        match group.role() {
            (Role::Leader, term) => Some((group, term, state)),
            _ => None,
        }
    }

    /// Proposes an order of this node to the control group; none where it was not answered.
    pub async fn order(&self, shared: &Shared, group: &Group, order: Order) -> Option<Outcome> {
        let at_ms = shared.now_ms();
        let who = format!("node {}", self.own);
        let command = Command { at_ms, who, order: Some(order), ..Command::default() };
        let by = Instant::now() + ORDER;
        let committed = group.propose(command.encode_to_vec().into(), by).await.ok()?;
        Response::decode(committed.reply).expect("the machine's own answer").outcome
    }

    /// Carries one operation on, until its end or until this node no longer leads.
    async fn carry(&self, shared: &Arc<Shared>, operation: u64, term: u64) {
        while let Some((group, now, state)) = self.lead(shared).await {
            let known = state.operations.iter().find(|known| known.operation == operation);
            let Some(known) = known.filter(|known| !known.is_over() && now == term) else { return };
            let plan = Plan::of(known);
            let went_on = match plan.course().next(known) {
                Next::Send { number, step, undoes } => {
                    self.send(shared, &group, &plan, known, (term, number, step, undoes)).await
                }
                Next::End { state, outcome } => {
                    self.end(shared, &group, operation, state, outcome).await
                }
            };
            if went_on.is_none() {
                return;
            }
        }
    }

    async fn end(
        &self,
        shared: &Shared,
        group: &Group,
        operation: u64,
        state: OperationState,
        outcome: String,
    ) -> Option<()> {
        let ending = match state {
            OperationState::Done => Ending::Done,
            OperationState::Cancelled => Ending::Cancelled,
            _ => Ending::Failed,
        };
        let end = EndOperation { operation, ending: ending.into(), outcome };
        self.order(shared, group, Order::EndOperation(end)).await.map(drop)
    }

    /// One step: begun in the control log, sent, seen through, ended in the control log. None where
    /// this node lets go.
    async fn send(
        &self,
        shared: &Arc<Shared>,
        group: &Group,
        plan: &Plan,
        known: &Operation,
        (term, number, step, undoes): (u64, u32, Step, bool),
    ) -> Option<()> {
        let operation = known.operation;
        let last = known.steps.last();
        if last.is_none()
            && let Outcome::Rejected(_) =
                self.order(shared, group, plan.recorded(operation)).await?
        {
            let words = "moved only just now".to_owned();
            return self.end(shared, group, operation, OperationState::Failed, words).await;
        }
        if !last.is_some_and(|last| !last.ended() && (last.step, last.term) == (number, term)) {
            let begin = BeginStep {
                operation,
                step: number,
                term,
                node: plan.from,
                what: plan.course().step_words(&step, undoes),
                undoes,
            };
            if let Outcome::Rejected(_) = self.order(shared, group, Order::BeginStep(begin)).await?
            {
                return None;
            }
        }
        let id = StepId { term, step: number };
        let done = match step {
            Step::Transfer(to) => self.hand_over(shared, plan, operation, id, to).await,
            Step::Voters(nodes) => {
                let changed = self.change_voters(shared, plan, operation, id, &nodes).await;
                match changed {
                    Ok(outcome) => {
                        let order = PlaceVoters { database: plan.database, nodes };
                        match self.order(shared, group, Order::PlaceVoters(order)).await? {
                            Outcome::Rejected(why) => Err(format!("{why:?}")),
                            _ => Ok(outcome),
                        }
                    }
                    refused => refused,
                }
            }
        };
        let succeeded = done.is_ok();
        let outcome = done.unwrap_or_else(|why| why);
        let end = EndStep { operation, step: number, term, succeeded, outcome };
        match self.order(shared, group, Order::EndStep(end)).await? {
            Outcome::Rejected(_) => None,
            _ => Some(()),
        }
    }

    /// Has the node where the database is active take a step; none where it did not answer.
    async fn send_to_active(
        &self,
        shared: &Arc<Shared>,
        plan: &Plan,
        call: StepCall,
    ) -> Option<Stepped> {
        match plan.from == self.own {
            true => Some(self.take(shared, call).await),
            false => self.ask(plan.from, Request::Step(call), STEP).await,
        }
    }

    async fn change_voters(
        &self,
        shared: &Arc<Shared>,
        plan: &Plan,
        operation: u64,
        id: StepId,
        nodes: &[u64],
    ) -> Stepped {
        let database = DatabaseId(plan.database);
        let voters = nodes.iter().map(|node| replica_on(shared, database, *node)).collect();
        let voters: Option<BTreeSet<ReplicaId>> = voters;
        let what = StepWhat::Voters(voters.ok_or("a copy is gone")?);
        let sent = self.send_to_active(shared, plan, StepCall { operation, id, database, what });
        sent.await.unwrap_or_else(|| Err("no answer".to_owned()))
    }

    async fn hand_over(
        &self,
        shared: &Arc<Shared>,
        plan: &Plan,
        operation: u64,
        id: StepId,
        to: u64,
    ) -> Stepped {
        let database = DatabaseId(plan.database);
        let replica = replica_on(shared, database, to).ok_or("the copy is gone")?;
        let what = StepWhat::Transfer(replica);
        let call = StepCall { operation, id, database, what };
        let sent = self.send_to_active(shared, plan, call).await;
        // Whatever the old active node said or could not say: what counts is who serves.
        let lost = sent.and_then(Result::err);
        let patience = if lost.is_some() { HANDED_OVER } else { MOUNT };
        let end = Instant::now() + patience;
        while !self.serves(shared, to, database).await {
            if Instant::now() >= end {
                return Err(lost.unwrap_or_else(|| "the target does not serve".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(format!("mounted on node {to}"))
    }

    async fn serves(&self, shared: &Shared, node: u64, database: DatabaseId) -> bool {
        if node == self.own {
            return serves_here(shared, database);
        }
        let asked = self.ask(node, Request::Serves(database), HANDED_OVER).await;
        matches!(asked, Some(Ok(_)))
    }

    async fn ask(&self, to: u64, request: Request, patience: Duration) -> Option<Stepped> {
        match self.call(to, request, patience).await? {
            Reply::Stepped(stepped) => Some(stepped),
            _ => None,
        }
    }

    /// Asks another node through the network; none where no answer came in time.
    pub async fn call(&self, to: u64, request: Request, patience: Duration) -> Option<Reply> {
        let (answer, waiting) = oneshot::channel();
        let (network, deliver, own) = (self.network.clone(), self.deliver.clone(), self.own);
        let arrive = Box::new(move || {
            let back: Answering = Box::new(move |reply| {
                network.post(to, own, Box::new(move || drop(answer.send(reply))));
            });
            deliver(to, request, patience, back);
        });
        self.network.post(self.own, to, arrive);
        tokio::time::timeout(patience, waiting).await.ok()?.ok()
    }

    // --- The node that takes a step ---------------------------------------------------------------

    /// Carries a step out, unless it was taken before or comes too late.
    pub async fn take(&self, shared: &Arc<Shared>, call: StepCall) -> Stepped {
        let control = shared.group(DatabaseId::CONTROL).ok_or("the control group is not here")?;
        if call.id.term < control.role().1 {
            tell(shared, &call, StepState::Refused);
            return Err("control-term".to_owned());
        }
        let mut taken = self.taken.lock().await;
        let admission = taken.admit(shared, &call).inspect_err(|_| {
            tell(shared, &call, StepState::Refused);
        })?;
        taken.save(&self.root)?;
        shared.disk_took().await;
        let key = (call.operation, call.id.step);
        let outcome = match admission {
            Admission::Repetition => taken.outcomes.get(&key).cloned(),
            Admission::Take => {
                let outcome = carry_out(shared, call);
                taken.outcomes.insert(key, outcome.clone());
                Some(outcome)
            }
        };
        drop(taken);
        let forgotten = || "taken before this node started again".to_owned();
        let Some(mut outcome) = outcome else { return Err(forgotten()) };
        let known = outcome.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
        known.unwrap_or_else(|| Err(forgotten()))
    }
}

impl Taken {
    fn admit(&mut self, shared: &Shared, call: &StepCall) -> Result<Admission, String> {
        let state = shared.state().control.clone();
        let operations = state.iter().flat_map(|state| &state.operations);
        let newest = operations.map(|known| known.operation).max().unwrap_or(0);
        let running: BTreeSet<u64> =
            state.iter().flat_map(|state| state.running()).map(|known| known.operation).collect();
        let over = |operation: u64| operation <= newest && !running.contains(&operation);
        if over(call.operation) {
            return Err("operation-running".to_owned());
        }
        self.fence.forget(over);
        self.outcomes.retain(|(operation, _), _| !over(*operation));
        self.fence.admit(call.operation, call.id).map_err(|_| "step-term".to_owned())
    }

    fn save(&self, root: &NodeRoot) -> Result<(), String> {
        let steps = self.fence.taken().iter().map(|(operation, taken)| TakenStep {
            operation: *operation,
            term: taken.term,
            step: taken.step,
        });
        root.save_steps(steps.collect()).map_err(|fault| fault.to_string())
    }
}

/// Carries a step out, beside whoever asked for it.
fn carry_out(shared: &Arc<Shared>, call: StepCall) -> watch::Receiver<Option<Stepped>> {
    let (done, outcome) = watch::channel(None);
    tell(shared, &call, StepState::Begun);
    let shared = shared.clone();
    let _working = Rt::spawn(async move {
        let ended = match shared.group(call.database) {
            Some(group) => step(&shared, &group, &call).await,
            None => Err("the database is not here".to_owned()),
        };
        let state = if ended.is_ok() { StepState::Done } else { StepState::Failed };
        tell(&shared, &call, state);
        drop(done.send(Some(ended)));
    });
    outcome
}

async fn step(shared: &Shared, group: &Group, call: &StepCall) -> Stepped {
    let by = Instant::now() + LEVEL;
    match &call.what {
        StepWhat::Transfer(to) => {
            group.transfer(*to, by).await.map_err(|error| error.to_string())?;
            Ok("handed over".to_owned())
        }
        StepWhat::Voters(voters) => {
            while !runs_here(shared, call.operation) {
                if Instant::now() >= by {
                    return Err("the operation does not run here".to_owned());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let members = group.status().members.into_iter();
            let members = members.map(|known| (known.replica, Member { node: known.node }));
            let changed = group.change_members(&members.collect(), voters, by).await;
            changed.map_err(|error| error.to_string())?;
            Ok(format!("{} copies vote", voters.len()))
        }
    }
}

/// Whether the control log as it is applied here says that an operation runs.
fn runs_here(shared: &Shared, operation: u64) -> bool {
    let state = shared.state().control.clone();
    state.is_some_and(|state| state.running().any(|known| known.operation == operation))
}

fn replica_on(shared: &Shared, database: DatabaseId, node: u64) -> Option<ReplicaId> {
    let state = shared.state().control.clone()?;
    Some(state.database(database)?.replica_on(NodeId(node))?.id())
}

fn tell(shared: &Shared, call: &StepCall, state: StepState) {
    let StepCall { operation, id: StepId { term, step }, .. } = *call;
    let kind = match call.what {
        StepWhat::Transfer(_) => "transfer",
        StepWhat::Voters(_) => "voters",
    };
    let kind = kind.to_owned();
    shared.note(Event::Step { operation, kind, step: step.into(), term, state });
}

/// Whether this node serves a database, by its own cached knowledge.
pub fn serves_here(shared: &Shared, database: DatabaseId) -> bool {
    shared.group(database).is_some_and(|group| group.serving().is_ok())
}

/// Carries out whatever the control log says is running, while this node leads the control group.
pub async fn keep(shared: Arc<Shared>, office: Arc<Office>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(group) = shared.group(DatabaseId::CONTROL) else { continue };
        let (Role::Leader, term) = group.role() else { continue };
        let Some(state) = shared.state().control.clone() else { continue };
        // A seed is no row of steps: `admitting` leads it.
        let kinds = [OperationKind::MoveDatabase, OperationKind::MoveSite];
        let moves = |known: &&Operation| kinds.contains(&known.kind());
        for operation in state.running().filter(moves).map(|known| known.operation) {
            if !lock(&office.carrying).insert(operation) {
                continue;
            }
            let (shared, office) = (shared.clone(), office.clone());
            let _carrying = Rt::spawn(async move {
                office.carry(&shared, operation, term).await;
                lock(&office.carrying).remove(&operation);
            });
        }
    }
}
