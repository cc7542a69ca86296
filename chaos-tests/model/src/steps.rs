//! A long operation whose control leader sleeps, wakes and sends again.
//!
//! Two control leaders, of which the one with the lower term may wake at any time and send what it
//! had begun. The records go through `active_manager::control::apply` itself, the node's fence is
//! `dac::step_fence`. A step counts as carried out each time that the node takes it; each must be
//! carried out at most once, and never after a later one.

use std::collections::BTreeMap;
use std::convert::Infallible;

use active_manager::control::command::{BeginOperation, BeginStep, EndStep, Founder};
use active_manager::control::{
    Command, ControlState, CreateDag, Definition, Operation, OperationKind, Order, Outcome,
    Timeouts, apply, definition::NodeDefinition, operation::NextStep,
};
use bytes::Bytes;
use dac::step_fence::{Admission, StepFence, StepId};
use dag_types::{LogId, StateView, Write};
use stateright::{Model, Property};

/// The model.
#[derive(Debug, Clone, Copy)]
pub struct Steps;

const STEPS: u32 = 3;
const TERMS_MAX: u64 = 4;
const UNDER_WAY: usize = 3;

/// The control group's rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Rows(BTreeMap<Bytes, Bytes>);

impl StateView for Rows {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Infallible> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Infallible> {
        let range = self.0.range(Bytes::copy_from_slice(from)..Bytes::copy_from_slice(to));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl Rows {
    /// Applies an order in a term. The audit is left out: it only grows.
    fn run(&mut self, term: u64, order: Order) -> Outcome {
        const AUDIT_TABLE: u8 = 0x16;
        let command = Command { at_ms: 1, order: Some(order), ..Command::default() };
        let applied = apply(self, LogId { term, index: 1 }, &command).expect("no fault");
        for write in applied.writes {
            match write {
                Write::Put { key, .. } if key[0] == AUDIT_TABLE => {}
                Write::Put { key, value } => drop(self.0.insert(key, value)),
                Write::Delete { key } => drop(self.0.remove(&key)),
            }
        }
        applied.response.outcome.expect("apply always answers")
    }

    fn operation(&self) -> Operation {
        let state = ControlState::read(self).expect("readable").expect("the DAG was created");
        state.operations.into_iter().next().expect("the operation was begun")
    }
}

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    rows: Rows,
    term: u64,
    /// Orders to the node under way: sent, and kept by leaders that sleep.
    sent: Vec<StepId>,
    answers: Vec<StepId>,
    fence: StepFence,
    /// How often each step was carried out, and which one last.
    carried_out: [u8; STEPS as usize + 1],
    last: u32,
    went_back: bool,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Another control leader takes office.
    NewLeader,
    /// The leader begins the next step, or the unanswered one again, and sends it.
    LeaderActs,
    /// A step arrives at the node; the sender may send the same again.
    StepArrives(usize),
    /// A step arrives at the node for the last time.
    LastCopyArrives(usize),
    /// The node's answer arrives at whoever leads.
    AnswerArrives(usize),
    /// The node loses power: what it fsynced stays.
    NodeRestarts,
}

fn created() -> Rows {
    let node = NodeDefinition {
        node: 1,
        name: "n1".into(),
        site: "A".into(),
        witness: false,
        peer_address: "h:1".into(),
        client_address: "h:2".into(),
        admin_address: "h:3".into(),
    };
    let definition = Definition {
        name: "model".into(),
        sites: vec!["A".into()],
        nodes: vec![node],
        control_voters: Vec::new(),
        database_timeouts: Some(Timeouts::DEFAULT),
        control_timeouts: Some(Timeouts::DEFAULT),
    };
    let id = Bytes::from_static(&[7; 16]);
    let mut rows = Rows::default();
    rows.run(
        1,
        Order::CreateDag(CreateDag {
            dag: id.clone(),
            definition: Some(definition),
            founders: vec![Founder { node: 1, store: id.clone() }],
            activation: id,
        }),
    );
    rows.run(
        1,
        Order::BeginOperation(BeginOperation {
            request_id: "r".into(),
            kind: OperationKind::DrainNode.into(),
            object: "node 1".into(),
            plan: String::new(),
        }),
    );
    rows
}

fn leader_acts(world: &mut World) {
    let term = world.term;
    let operation = world.rows.operation();
    let step = match operation.next_step(term) {
        NextStep::Over => return,
        NextStep::Wait(step) => step.step,
        NextStep::Resume(step) => step.step,
        NextStep::Begin(step) => step,
    };
    if step > STEPS {
        return;
    }
    if !matches!(operation.next_step(term), NextStep::Wait(_)) {
        let what = "move".into();
        let begin = BeginStep { operation: 1, step, term, node: 1, what, undoes: false };
        let outcome = world.rows.run(term, Order::BeginStep(begin));
        assert!(matches!(outcome, Outcome::Changed(_)), "{outcome:?}");
    }
    let order = StepId { term, step };
    if !world.sent.contains(&order) && world.sent.len() < UNDER_WAY {
        world.sent.push(order);
    }
}

fn step_arrives(world: &mut World, step: StepId) {
    let admitted = world.fence.admit(1, step);
    if admitted == Ok(Admission::Take) {
        let done = &mut world.carried_out[step.step as usize];
        *done = (*done + 1).min(2);
        world.went_back |= step.step < world.last;
        world.last = step.step;
    }
    if admitted.is_ok() && !world.answers.contains(&step) && world.answers.len() < UNDER_WAY {
        world.answers.push(step);
    }
}

fn answer_arrives(world: &mut World, answer: StepId) {
    let outcome = String::new();
    let StepId { step, term } = answer;
    let end = EndStep { operation: 1, step, term, succeeded: true, outcome };
    // Whoever leads records it under the term that it was begun in; `apply` judges.
    world.rows.run(world.term, Order::EndStep(end));
}

impl Model for Steps {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            rows: created(),
            term: 1,
            sent: Vec::new(),
            answers: Vec::new(),
            fence: StepFence::default(),
            carried_out: [0; STEPS as usize + 1],
            last: 0,
            went_back: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Event>) {
        if world.term < TERMS_MAX {
            actions.push(Event::NewLeader);
        }
        actions.push(Event::LeaderActs);
        actions.push(Event::NodeRestarts);
        actions.extend((0..world.sent.len()).map(Event::StepArrives));
        actions.extend((0..world.sent.len()).map(Event::LastCopyArrives));
        actions.extend((0..world.answers.len()).map(Event::AnswerArrives));
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut next = world.clone();
        match event {
            Event::NewLeader => next.term += 1,
            Event::LeaderActs => leader_acts(&mut next),
            Event::StepArrives(place) => {
                let step = next.sent[place];
                step_arrives(&mut next, step);
            }
            Event::LastCopyArrives(place) => {
                let step = next.sent.remove(place);
                step_arrives(&mut next, step);
            }
            Event::AnswerArrives(place) => {
                let answer = next.answers.remove(place);
                answer_arrives(&mut next, answer);
            }
            Event::NodeRestarts => next.fence = StepFence::restore(next.fence.taken().clone()),
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("each step is carried out at most once", |_, world: &World| {
                world.carried_out.iter().all(|times| *times <= 1)
            }),
            Property::always("no step is carried out after a later one", |_, world: &World| {
                !world.went_back
            }),
            Property::sometimes("the operation reaches its last step", |_, world: &World| {
                world.carried_out[STEPS as usize] == 1
            }),
        ]
    }
}
