//! What a long operation carries out: written into its record, read by whoever leads next.
//!
//! Which step comes next follows from the plan and from the record alone, so that a new control
//! leader goes on where the last one died, and never does twice what was answered.

use active_manager::control::{
    ControlState, MoveCause, Operation, OperationKind, OperationState, move_object,
};
use active_manager::course::{MoveCourse, Next, Row, Step, UNDO};
use active_manager::reform;
use active_manager::removal::MEMBERS;
use serde::{Deserialize, Serialize};

pub use super::join_plan::{Join, JoinStep, Place};

/// What an operation shall come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// One database is made active on another copy.
    Move(Move),
    /// Every database that is active on a node is moved away, each by an operation of its own.
    Evacuate(Evacuate),
    /// Databases go back to their preferred copies, each by an operation of its own.
    Rebalance(Rebalance),
    /// The copies of a database move to another folder, each by an operation of its own.
    Paths(Paths),
    /// A node leaves the DAG.
    Leave(Leave),
    /// A node joins the DAG, or takes another's place.
    Join(Join),
    /// An executable is run because something happened.
    Hook(HookRun),
    /// A database whose majority is lost goes on from one copy.
    Reform(Reform),
}

/// See [`Plan::Hook`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRun {
    pub program: String,
    pub timeout_ms: u64,
    /// What the executable reads from its standard input, but for the operation's number.
    pub happened: Happened,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    pub event: String,
    /// Of the entry in the control log; 0: it was seen, and is no entry.
    pub index: u64,
    pub time_ms: u64,
    pub who: String,
    pub object: String,
    pub reason: String,
}

/// See [`Plan::Move`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Of whoever asked; a repetition finds the operation by it.
    pub request: String,
    pub database: u64,
    pub name: String,
    pub from: u64,
    pub to: u64,
    /// The node numbers that become the voters; empty: they stay.
    pub voters: Vec<u64>,
    /// The node numbers that were the voters before.
    pub earlier_voters: Vec<u64>,
    pub cause: Cause,
    /// A person skipped the block time.
    pub acknowledged: bool,
    /// Of the plan as it was shown.
    pub token: String,
}

/// Why a database moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Operator,
    Balance,
    Drain,
    Site,
}

/// See [`Plan::Evacuate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evacuate {
    pub node: u64,
    /// For maintenance: redundancy is checked too.
    pub draining: bool,
    pub skip: Vec<String>,
    /// Those that were active there when it began.
    pub databases: Vec<(u64, String)>,
}

/// See [`Plan::Rebalance`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    /// Database, its name, and the node that it moves to.
    pub moves: Vec<(u64, String, u64)>,
}

/// See [`Plan::Paths`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    pub database: u64,
    pub name: String,
    /// The database's folder from then on.
    pub path: String,
    /// The nodes whose copies move.
    pub nodes: Vec<u64>,
    /// Bytes per second; 0: no limit.
    pub limit: u64,
}

/// See [`Plan::Leave`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Of whoever asked; a repetition finds the operation by it.
    pub request: String,
    pub node: u64,
    pub name: String,
    /// The nodes that vote in the control group without it; empty: they stay.
    pub voters: Vec<u64>,
    /// Those that voted before.
    pub earlier_voters: Vec<u64>,
}

/// See [`Plan::Reform`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reform {
    /// Of whoever asked; a repetition finds the operation by it.
    pub request: String,
    pub database: u64,
    pub name: String,
    /// The incarnation that lost its majority.
    pub generation: u32,
    /// The node whose copy was the best when it was planned.
    pub node: u64,
    /// It is known that nothing is lost; else a person said that it may be.
    pub lossless: bool,
    /// What may be lost, and why, for people.
    pub verdict: String,
}

/// A step of forming a database anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReformStep {
    /// All copies that are left stand still, and the best one begins the next generation.
    Form,
    /// It serves.
    Serve,
}

/// A step of a departure; every one is an order of the control log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaveStep {
    /// The node is leaving, and its site's list of nodes says so.
    Retire,
    /// It stays after all.
    Stay,
    /// These nodes vote in the control group.
    Voters(Vec<u64>),
    /// Its copy of the directory goes.
    Directory,
    /// It is gone.
    Remove,
}

/// Where the copies of a database are while their path is moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Node and folder of each copy.
    pub copies: Vec<(u64, String)>,
    pub active: Option<u64>,
}

/// What a control leader does next to move a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextPath {
    /// The copy on this node is built in the new folder, in the place of the one it has.
    Build { number: u32, node: u64 },
    /// Another copy takes over from the one on this node.
    HandOver { number: u32, node: u64 },
    /// Nothing more: this is how it ended.
    End { state: OperationState, outcome: String },
    /// The database is active nowhere, which passes.
    Wait,
}

impl Cause {
    /// As the control log has it.
    pub fn recorded(self) -> MoveCause {
        match self {
            Self::Operator => MoveCause::Operator,
            Self::Balance => MoveCause::Balance,
            Self::Drain => MoveCause::Drain,
            Self::Site => MoveCause::Site,
        }
    }
}

impl Plan {
    /// As the record holds it.
    pub fn written(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers can be written")
    }

    /// Reads a record's plan; none for one of another version.
    pub fn of(operation: &Operation) -> Option<Self> {
        serde_json::from_str(&operation.plan).ok()
    }

    /// Which kind of operation it is.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Move(planned) if !planned.voters.is_empty() => OperationKind::MoveSite,
            Self::Move(_) => OperationKind::MoveDatabase,
            Self::Evacuate(_) => OperationKind::DrainNode,
            Self::Rebalance(_) => OperationKind::Rebalance,
            Self::Paths(_) => OperationKind::MovePath,
            Self::Leave(_) => OperationKind::RemoveNode,
            Self::Join(planned) => planned.kind(),
            Self::Hook(_) => OperationKind::Hook,
            Self::Reform(_) => OperationKind::ReformDatabase,
        }
    }

    /// The request that began it, where the plan holds one.
    fn request(&self) -> Option<&str> {
        match self {
            Self::Move(planned) => Some(&planned.request),
            Self::Leave(planned) => Some(&planned.request),
            Self::Join(planned) => Some(&planned.request),
            Self::Reform(planned) => Some(&planned.request),
            Self::Evacuate(_) | Self::Rebalance(_) | Self::Paths(_) | Self::Hook(_) => None,
        }
    }

    /// What it works on; one running operation per object.
    pub fn object(&self) -> String {
        match self {
            Self::Move(planned) => move_object(planned.database),
            Self::Evacuate(planned) => format!("node {}", planned.node),
            Self::Rebalance(_) => "balance".into(),
            // Its parts hold the database itself, one after the other.
            Self::Paths(planned) => format!("path of database {}", planned.database),
            Self::Leave(_) | Self::Join(_) => MEMBERS.into(),
            Self::Reform(planned) => reform::object(planned.database),
            // Each of its own: hooks never wait for each other.
            Self::Hook(run) => {
                let Happened { event, index, object, .. } = &run.happened;
                format!("hook {} {event} {object} {index}", run.program)
            }
        }
    }

    /// For people.
    pub fn words(&self) -> String {
        match self {
            Self::Move(planned) => {
                let Move { name, from, to, voters, .. } = planned;
                let mut words = format!("{name} from node {from} to node {to}");
                if !voters.is_empty() {
                    words.push_str(&format!(", voters on nodes {}", list(voters)));
                }
                words
            }
            Self::Evacuate(planned) => {
                let names: Vec<&str> =
                    planned.databases.iter().map(|(_, name)| name.as_str()).collect();
                format!("everything away from node {}: {}", planned.node, names.join(", "))
            }
            Self::Rebalance(planned) => {
                let moves = planned.moves.iter();
                let moves: Vec<String> =
                    moves.map(|(_, name, to)| format!("{name} to node {to}")).collect();
                moves.join(", ")
            }
            Self::Paths(Paths { name, path, nodes, .. }) => {
                format!("{name} to {path} on nodes {}", list(nodes))
            }
            Self::Leave(planned) => planned.all_words().join(", "),
            Self::Join(planned) => planned.all_words().join(", "),
            Self::Reform(planned) => {
                let Reform { name, generation, node, verdict, .. } = planned;
                format!(
                    "{name} goes on from node {node} in generation {}: {verdict}",
                    generation + 1
                )
            }
            Self::Hook(run) => {
                format!(
                    "{} because of {}: {}",
                    run.program, run.happened.event, run.happened.object
                )
            }
        }
    }
}

/// The operation that a request began, if one did.
pub fn begun_by(state: &ControlState, request: &str) -> Option<u64> {
    let same = |known: &&Operation| {
        Plan::of(known).is_some_and(|planned| planned.request() == Some(request))
    };
    state.operations.iter().rfind(same).map(|known| known.operation)
}

/// The request id of the move of one database inside another operation: the same for every leader
/// that carries it on.
pub fn part_of(operation: u64, database: u64) -> String {
    format!("op{operation}-db{database}")
}

/// The request id of a step that is an operation of its own.
pub fn step_of(operation: u64, database: u64, step: u32) -> String {
    format!("{}-step{step}", part_of(operation, database))
}

/// The operation that a move is a part of; 0: none.
pub fn parent(request: &str) -> u64 {
    let number = request.strip_prefix("op").and_then(|rest| rest.split_once("-db"));
    number.and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

impl Move {
    fn course(&self) -> MoveCourse<'_> {
        let Self { name, from, to, voters, earlier_voters, .. } = self;
        MoveCourse { name, from: *from, to: *to, voters, earlier_voters }
    }

    /// A step for people, as its record has it.
    pub fn step_words(&self, step: &Step, undoes: bool) -> String {
        self.course().step_words(step, undoes)
    }

    /// What comes next, from the plan and the record alone.
    pub fn next(&self, known: &Operation) -> Next {
        self.course().next(known)
    }
}

impl Leave {
    fn forward(&self) -> Vec<LeaveStep> {
        let mut steps = vec![LeaveStep::Retire];
        if !self.voters.is_empty() {
            steps.push(LeaveStep::Voters(self.voters.clone()));
        }
        steps.extend([LeaveStep::Directory, LeaveStep::Remove]);
        steps
    }

    /// What takes a step back. A copy of the directory is not built anew for that: lint names the
    /// node that lacks it, and the command that makes one.
    fn back(&self, step: &LeaveStep) -> Option<LeaveStep> {
        match step {
            LeaveStep::Retire => Some(LeaveStep::Stay),
            LeaveStep::Voters(_) => Some(LeaveStep::Voters(self.earlier_voters.clone())),
            LeaveStep::Stay | LeaveStep::Directory | LeaveStep::Remove => None,
        }
    }

    /// A step for people, as its record has it.
    pub fn step_words(&self, step: &LeaveStep, undoes: bool) -> String {
        let name = &self.name;
        let undo = if undoes { UNDO } else { "" };
        match step {
            LeaveStep::Retire => format!("{undo}take {name} off the list of its site"),
            LeaveStep::Stay => format!("{undo}leave {name} on the list of its site"),
            LeaveStep::Voters(nodes) => {
                format!("{undo}make nodes {} the voters of the control group", list(nodes))
            }
            LeaveStep::Directory => format!("{undo}take the directory's copy away from {name}"),
            LeaveStep::Remove => format!("{undo}remove {name}"),
        }
    }

    /// All steps for people, in their order.
    pub fn all_words(&self) -> Vec<String> {
        self.forward().iter().map(|step| self.step_words(step, false)).collect()
    }

    /// What comes next, from the plan and the record alone.
    pub fn next(&self, known: &Operation) -> Next<LeaveStep> {
        let back = |step: &LeaveStep| self.back(step);
        let row = Row { forward: self.forward(), back, halves: true };
        row.next(known, format!("{} is removed", self.name), format!("{} stays", self.name))
    }
}

impl Reform {
    const STEPS: [ReformStep; 2] = [ReformStep::Form, ReformStep::Serve];

    /// A step for people, as its record has it.
    pub fn step_words(&self, step: ReformStep) -> String {
        let (name, next) = (&self.name, self.generation + 1);
        match step {
            ReformStep::Form => {
                format!("stop every copy of {name} and form generation {next} from the best one")
            }
            ReformStep::Serve => format!("wait until generation {next} of {name} serves"),
        }
    }

    /// All steps for people, in their order.
    pub fn all_words(&self) -> Vec<String> {
        Self::STEPS.iter().map(|step| self.step_words(*step)).collect()
    }

    /// What comes next, from the plan and the record alone. There is no way back: before the first
    /// step is done nothing has changed, and after it the old generation is no more.
    pub fn next(&self, known: &Operation) -> Next<ReformStep> {
        let end = |state, outcome: String| Next::End { state, outcome };
        let failed = known.steps.iter().find(|step| step.ended() && !step.succeeded);
        let cancelled = known.state() == OperationState::Cancelling;
        if let Some(failed) = failed {
            let state = if cancelled { OperationState::Cancelled } else { OperationState::Failed };
            return end(state, failed.outcome.clone());
        }
        let open = known.steps.last().filter(|step| !step.ended());
        let done = known.steps.iter().filter(|step| step.ended()).count();
        let Some(step) = Self::STEPS.get(done) else {
            let (name, next) = (&self.name, self.generation + 1);
            return end(OperationState::Done, format!("{name} serves in generation {next}"));
        };
        if cancelled && done == 0 && open.is_none() {
            return end(OperationState::Cancelled, format!("{} is as it was", self.name));
        }
        Next::Send { number: done as u32 + 1, step: *step, undoes: false }
    }
}

impl Paths {
    const BUILD: &str = "build ";

    /// A step for people, as its record has it.
    pub fn step_words(&self, next: &NextPath) -> String {
        match next {
            NextPath::HandOver { node, .. } => format!("hand {} over from node {node}", self.name),
            _ => format!("{}{} in {}", Self::BUILD, self.name, self.path),
        }
    }

    /// What comes next: passive copies first, the active one after it was handed over. From the plan,
    /// the record, and where the copies are, so that a failover on the way changes only the order.
    pub fn next(&self, known: &Operation, now: &Whereabouts) -> NextPath {
        if let Some(open) = known.steps.last().filter(|step| !step.ended()) {
            let (number, node) = (open.step, open.node);
            return match open.what.starts_with(Self::BUILD) {
                true => NextPath::Build { number, node },
                false => NextPath::HandOver { number, node },
            };
        }
        let lies = |node: &u64| now.copies.iter().find(|(on, _)| on == node);
        let there = |node: &&u64| lies(node).is_none_or(|(_, path)| *path == self.path);
        let moved = self.nodes.iter().filter(there).count();
        let outcome = format!("{} lies in {} on {moved} nodes", self.name, self.path);
        let failed = known.steps.iter().find(|step| step.ended() && !step.succeeded);
        if let Some(failed) = failed.filter(|_| known.state() != OperationState::Cancelling) {
            let outcome = format!("{outcome}; {}: {}", failed.what, failed.outcome);
            return NextPath::End { state: OperationState::Failed, outcome };
        }
        let mut left = self.nodes.iter().filter(|node| !there(node));
        if moved == self.nodes.len() {
            return NextPath::End { state: OperationState::Done, outcome };
        }
        if known.state() == OperationState::Cancelling {
            let outcome = format!("{outcome} of {}", self.nodes.len());
            return NextPath::End { state: OperationState::Cancelled, outcome };
        }
        let number = known.steps.last().map_or(1, |last| last.step + 1);
        let Some(active) = now.active else { return NextPath::Wait };
        match left.find(|node| **node != active) {
            Some(node) => NextPath::Build { number, node: *node },
            None => NextPath::HandOver { number, node: active },
        }
    }
}

pub(super) fn list(nodes: &[u64]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use active_manager::control::StepRecord;

    use super::*;

    fn planned(voters: &[u64]) -> Move {
        Move {
            request: "r".into(),
            database: 16,
            name: "DB1".into(),
            from: 1,
            to: 3,
            voters: voters.to_vec(),
            earlier_voters: vec![1, 2, 3],
            cause: Cause::Operator,
            acknowledged: false,
            token: String::new(),
        }
    }

    fn record(state: OperationState, steps: &[(u32, &str, Option<bool>)]) -> Operation {
        let step = |(step, what, ended): &(u32, &str, Option<bool>)| StepRecord {
            step: *step,
            term: 5,
            what: (*what).to_owned(),
            ended_ms: u64::from(ended.is_some()),
            succeeded: ended.unwrap_or_default(),
            outcome: "because".into(),
            ..StepRecord::default()
        };
        let steps = steps.iter().map(step).collect();
        Operation { operation: 7, state: state.into(), steps, ..Operation::default() }
    }

    fn send(number: u32, step: Step, undoes: bool) -> Next {
        Next::Send { number, step, undoes }
    }

    const RUNNING: OperationState = OperationState::Running;
    const CANCELLING: OperationState = OperationState::Cancelling;

    #[test]
    fn a_move_to_another_site_changes_its_voters_before_its_leader() {
        let plan = planned(&[3, 4, 1]);
        let voters = Step::Voters(vec![3, 4, 1]);
        assert_eq!(plan.next(&record(RUNNING, &[])), send(1, voters.clone(), false));
        // A later leader sends the same step again, under the same number.
        let open = record(RUNNING, &[(1, "make", None)]);
        assert_eq!(plan.next(&open), send(1, voters, false));
        let one = record(RUNNING, &[(1, "make", Some(true))]);
        assert_eq!(plan.next(&one), send(2, Step::Transfer(3), false));
        let both = record(RUNNING, &[(1, "make", Some(true)), (2, "hand", Some(true))]);
        assert!(matches!(plan.next(&both), Next::End { state: OperationState::Done, .. }));
    }

    #[test]
    fn what_failed_half_way_is_taken_back_before_it_is_called_failed() {
        let plan = planned(&[3, 4, 1]);
        let back = Step::Voters(vec![1, 2, 3]);
        let failed = [(1, "make", Some(true)), (2, "hand", Some(false))];
        assert_eq!(plan.next(&record(RUNNING, &failed)), send(3, back.clone(), true));
        let undoing = [failed[0], failed[1], (3, "undo: make", None)];
        assert_eq!(plan.next(&record(RUNNING, &undoing)), send(3, back, true));
        let undone = [failed[0], failed[1], (3, "undo: make", Some(true))];
        let end = Next::End { state: OperationState::Failed, outcome: "because".into() };
        assert_eq!(plan.next(&record(RUNNING, &undone)), end);
        let at_once = record(RUNNING, &[(1, "make", Some(false))]);
        assert_eq!(plan.next(&at_once), end);
    }

    #[test]
    fn a_cancelled_move_goes_back_and_one_that_is_done_stays_done() {
        let plan = planned(&[3, 4, 1]);
        let nothing = record(CANCELLING, &[]);
        assert!(matches!(plan.next(&nothing), Next::End { state: OperationState::Cancelled, .. }));
        let half = record(CANCELLING, &[(1, "make", Some(true))]);
        assert_eq!(plan.next(&half), send(2, Step::Voters(vec![1, 2, 3]), true));
        // The step that is under way is awaited first.
        let open = record(CANCELLING, &[(1, "make", Some(true)), (2, "hand", None)]);
        assert_eq!(plan.next(&open), send(2, Step::Transfer(3), false));
        let done = record(CANCELLING, &[(1, "make", Some(true)), (2, "hand", Some(true))]);
        assert!(matches!(plan.next(&done), Next::End { state: OperationState::Done, .. }));
    }

    fn leave() -> Leave {
        Leave {
            request: "r".into(),
            node: 4,
            name: "b2".into(),
            voters: vec![1, 3, 5],
            earlier_voters: vec![1, 2, 3, 4, 5],
        }
    }

    #[test]
    fn a_node_leaves_list_votes_directory_and_record_in_this_order() {
        let plan = leave();
        let next = |steps: &[(u32, &str, Option<bool>)]| plan.next(&record(RUNNING, steps));
        let sends = |number, step| Next::Send { number, step, undoes: false };
        let mut steps = Vec::new();
        let voters = LeaveStep::Voters(vec![1, 3, 5]);
        let row = [LeaveStep::Retire, voters, LeaveStep::Directory, LeaveStep::Remove];
        for (number, step) in (1..).zip(row) {
            assert_eq!(next(&steps), sends(number, step.clone()));
            steps.push((number, "some words", None));
            assert_eq!(next(&steps), sends(number, step), "a later leader goes on with it");
            steps.pop();
            steps.push((number, "some words", Some(true)));
        }
        assert!(matches!(next(&steps), Next::End { state: OperationState::Done, .. }));
        let learner = Leave { voters: Vec::new(), ..leave() };
        let listed = record(RUNNING, &[(1, "some words", Some(true))]);
        assert_eq!(learner.next(&listed), sends(2, LeaveStep::Directory));
    }

    #[test]
    fn a_departure_that_fails_half_way_is_taken_back_the_failed_step_too() {
        let plan = leave();
        let back = |number, step| Next::Send { number, step, undoes: true };
        let late = [(1, "take", Some(false))];
        assert_eq!(plan.next(&record(RUNNING, &late)), back(2, LeaveStep::Stay));
        let mut steps = vec![(1, "take", Some(true)), (2, "make", Some(false))];
        let all = LeaveStep::Voters(vec![1, 2, 3, 4, 5]);
        assert_eq!(plan.next(&record(RUNNING, &steps)), back(3, all));
        steps.push((3, "undo: make", Some(true)));
        assert_eq!(plan.next(&record(RUNNING, &steps)), back(4, LeaveStep::Stay));
        steps.push((4, "undo: leave", Some(true)));
        let end = Next::End { state: OperationState::Failed, outcome: "because".into() };
        assert_eq!(plan.next(&record(RUNNING, &steps)), end);
        let cancelled = record(CANCELLING, &[(1, "take", Some(true))]);
        assert_eq!(plan.next(&cancelled), back(2, LeaveStep::Stay));
        for (step, undoes) in [(LeaveStep::Stay, true), (LeaveStep::Retire, false)] {
            assert_eq!(plan.step_words(&step, undoes).starts_with(UNDO), undoes);
        }
    }

    fn reform() -> Reform {
        Reform {
            request: "r".into(),
            database: 16,
            name: "DB1".into(),
            generation: 1,
            node: 3,
            lossless: false,
            verdict: "UNKNOWN".into(),
        }
    }

    #[test]
    fn a_database_is_formed_anew_and_then_serves_and_there_is_no_way_back() {
        let plan = reform();
        let next = |state, steps: &[(u32, &str, Option<bool>)]| plan.next(&record(state, steps));
        let sends = |number, step| Next::Send { number, step, undoes: false };
        assert_eq!(next(RUNNING, &[]), sends(1, ReformStep::Form));
        assert_eq!(next(RUNNING, &[(1, "form", None)]), sends(1, ReformStep::Form));
        let ended = |next: Next<ReformStep>| match next {
            Next::End { state, .. } => state,
            Next::Send { .. } => panic!("it goes on"),
        };
        let failed = next(RUNNING, &[(1, "form", Some(false))]);
        assert_eq!(ended(failed), OperationState::Failed);
        assert_eq!(ended(next(CANCELLING, &[])), OperationState::Cancelled);
        // What is formed is seen through, also where a person would rather not.
        let formed = (1, "form", Some(true));
        assert_eq!(next(CANCELLING, &[formed]), sends(2, ReformStep::Serve));
        let done = next(CANCELLING, &[formed, (2, "serve", Some(true))]);
        assert_eq!(ended(done), OperationState::Done);
    }

    fn paths() -> Paths {
        let (name, path) = ("DB1".into(), "/new".into());
        Paths { database: 16, name, path, nodes: vec![1, 2, 3], limit: 0 }
    }

    fn whereabouts(moved: &[u64], active: u64) -> Whereabouts {
        let path = |node: &u64| if moved.contains(node) { "/new" } else { "" };
        let copies = [1, 2, 3].iter().map(|node| (*node, path(node).into())).collect();
        Whereabouts { copies, active: Some(active) }
    }

    #[test]
    fn a_path_moves_under_the_passive_copies_first_and_under_the_active_one_after_it_was_handed_over()
     {
        let plan = paths();
        let next = |steps: &[(u32, &str, Option<bool>)], moved: &[u64], active| {
            plan.next(&record(RUNNING, steps), &whereabouts(moved, active))
        };
        assert_eq!(next(&[], &[], 1), NextPath::Build { number: 1, node: 2 });
        let one = (1, "build DB1 in /new", Some(true));
        assert_eq!(next(&[one], &[2], 1), NextPath::Build { number: 2, node: 3 });
        // A failover on the way.
        assert_eq!(next(&[one], &[2], 3), NextPath::Build { number: 2, node: 1 });
        let two = (2, "build DB1 in /new", Some(true));
        let hand = NextPath::HandOver { number: 3, node: 1 };
        assert_eq!(next(&[one, two], &[2, 3], 1), hand);
        let three = (3, plan.step_words(&hand), Some(true));
        let three = (three.0, three.1.as_str(), three.2);
        assert_eq!(next(&[one, two, three], &[2, 3], 2), NextPath::Build { number: 4, node: 1 });
        let done = next(&[one, two, three], &[1, 2, 3], 2);
        assert!(matches!(done, NextPath::End { state: OperationState::Done, .. }));
    }

    #[test]
    fn a_path_move_that_fails_or_is_cancelled_leaves_every_copy_where_it_is() {
        let plan = paths();
        let failed = record(RUNNING, &[(1, "build DB1 in /new", Some(false))]);
        let end = plan.next(&failed, &whereabouts(&[], 1));
        assert!(matches!(end, NextPath::End { state: OperationState::Failed, .. }), "{end:?}");
        let cancelled = record(CANCELLING, &[(1, "build DB1 in /new", Some(true))]);
        let end = plan.next(&cancelled, &whereabouts(&[2], 1));
        assert!(matches!(end, NextPath::End { state: OperationState::Cancelled, .. }), "{end:?}");
        let nowhere = Whereabouts { active: None, ..whereabouts(&[2], 1) };
        assert_eq!(plan.next(&record(RUNNING, &[]), &nowhere), NextPath::Wait);
    }

    #[test]
    fn a_plan_is_read_from_its_record_and_a_part_knows_its_whole() {
        let evacuate = Evacuate {
            node: 2,
            draining: true,
            skip: vec!["redundancy".into()],
            databases: vec![(16, "DB1".into())],
        };
        let rebalance = Rebalance { moves: vec![(16, "DB1".into(), 2)] };
        let plans = [
            Plan::Move(planned(&[])),
            Plan::Evacuate(evacuate),
            Plan::Rebalance(rebalance),
            Plan::Paths(paths()),
            Plan::Leave(leave()),
            Plan::Reform(reform()),
        ];
        for plan in plans {
            let written = Operation { plan: plan.written(), ..Operation::default() };
            assert_eq!(Plan::of(&written), Some(plan));
        }
        assert_eq!(parent(&part_of(7, 16)), 7);
        assert_eq!(parent(&step_of(7, 16, 2)), 7);
        assert_eq!(parent("7d9c1a2e-op"), 0);
    }
}
