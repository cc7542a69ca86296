//! Steps of long operations that this node takes: each at most once, whoever sends it again.
//!
//! A control leader that slept through its deposition wakes and sends its step again; a new leader
//! finds a step begun and not answered, and sends it again on purpose. So the highest step of each
//! operation is on the disk before it is carried out. What is lower is refused; the very same step
//! is answered with what came of it the first time, as long as this process knows that.

use std::collections::BTreeMap;
use std::sync::Arc;

use active_manager::control::ControlState;
use dac::step_fence::{Admission, StepFence, StepId};
use dag_api::{Problem, Reason};
use dag_format::meta::TakenStep;
use dag_types::DatabaseId;
use storage::identity::NodeRoot;
use tokio::sync::{Mutex, watch};

use crate::journal::{Event, Journal, StepState};
use crate::node::Node;

/// What came of a step, in words, or why it was not done.
pub type Outcome = Result<String, Problem>;

/// A step that is asked of this node.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Of which operation.
    pub operation: u64,
    /// What it does, in a word for the journal.
    pub kind: &'static str,
    /// Which step, and of which control leader.
    pub id: StepId,
}

impl Asked {
    /// Tells the journal how far it is.
    pub fn tell(self, journal: &Journal, state: StepState) {
        let Self { operation, kind, id: StepId { term, step } } = self;
        journal.write(&Event::Step { operation, kind, step: step.into(), term, state });
    }
}

/// The steps that this node took.
#[derive(Debug)]
pub struct Steps(Mutex<Taken>);

#[derive(Debug)]
struct Taken {
    fence: StepFence,
    /// Of this process; none while the step is under way.
    outcomes: BTreeMap<(u64, u32), watch::Receiver<Option<Outcome>>>,
}

impl Steps {
    /// As the node's root remembers them.
    pub fn of(root: &NodeRoot) -> Self {
        let taken = root.taken_steps().into_iter();
        let taken =
            taken.map(|taken| (taken.operation, StepId { term: taken.term, step: taken.step }));
        let fence = StepFence::restore(taken.collect());
        Self(Mutex::new(Taken { fence, outcomes: BTreeMap::new() }))
    }

    /// Carries a step out, unless it was taken before or comes too late. The work goes on where
    /// whoever asked goes away.
    pub async fn take<W>(&self, node: &Node, asked: Asked, work: W) -> Outcome
    where
        W: Future<Output = Outcome> + Send + 'static,
    {
        let mut taken = self.0.lock().await;
        let admission = taken.admit(node, asked).inspect_err(|_| {
            asked.tell(&node.journal, StepState::Refused);
        })?;
        save(&node.store.root, &taken.fence).await?;
        let key = (asked.operation, asked.id.step);
        let outcome = match admission {
            Admission::Repetition => taken.outcomes.get(&key).cloned(),
            Admission::Take => {
                let outcome = begin(node.journal.clone(), asked, work);
                taken.outcomes.insert(key, outcome.clone());
                Some(outcome)
            }
        };
        drop(taken);
        let Some(mut outcome) = outcome else { return Err(forgotten(asked)) };
        let known = outcome.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
        known.unwrap_or_else(|| Err(forgotten(asked)))
    }
}

impl Taken {
    /// Decides about a step, and forgets those of operations that are over.
    fn admit(&mut self, node: &Node, asked: Asked) -> Result<Admission, Problem> {
        let Asked { operation, id, .. } = asked;
        let over = finished(node);
        if over(operation) {
            let text = format!("operation {operation} is over; its step {} is late", id.step);
            return Err(refused("operation-running", text));
        }
        self.fence.forget(&over);
        self.outcomes.retain(|(operation, _), _| !over(*operation));
        let admission = self.fence.admit(operation, id);
        admission.map_err(|stale| refused("step-term", stale.to_string()))
    }
}

/// Has the work done beside whoever asked for it. The journal knows first.
fn begin<W>(journal: Arc<Journal>, asked: Asked, work: W) -> watch::Receiver<Option<Outcome>>
where
    W: Future<Output = Outcome> + Send + 'static,
{
    let (done, outcome) = watch::channel(None);
    asked.tell(&journal, StepState::Begun);
    tokio::spawn(async move {
        let ended = work.await;
        asked.tell(&journal, if ended.is_ok() { StepState::Done } else { StepState::Failed });
        drop(done.send(Some(ended)));
    });
    outcome
}

/// Which operations are over, by this node's own control log.
fn finished(node: &Node) -> impl Fn(u64) -> bool + use<> {
    let state = node.control();
    move |operation| state.as_ref().is_some_and(|state| is_over(state, operation))
}

/// Whether an operation is over. Numbers only grow, so one that is not above the newest known and
/// does not run has ended.
pub fn is_over(state: &ControlState, operation: u64) -> bool {
    let newest = state.operations.iter().map(|known| known.operation).max().unwrap_or(0);
    operation <= newest && !state.running().any(|known| known.operation == operation)
}

async fn save(root: &Arc<NodeRoot>, fence: &StepFence) -> Result<(), Problem> {
    let steps = fence.taken().iter();
    let steps = steps.map(|(operation, taken)| TakenStep {
        operation: *operation,
        term: taken.term,
        step: taken.step,
    });
    let (root, steps) = (root.clone(), steps.collect());
    match tokio::task::spawn_blocking(move || root.save_steps(steps)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fault)) => Err(Problem::new(Reason::CopyFailed, fault.to_string())),
        Err(_) => Err(crate::status::shutting_down()),
    }
}

fn refused(check: &'static str, text: String) -> Problem {
    Problem::new(Reason::CheckFailed, text).check(check).database(DatabaseId::CONTROL)
}

fn forgotten(asked: Asked) -> Problem {
    let Asked { operation, id, .. } = asked;
    let text = format!(
        "step {} of operation {operation} was taken here before this node started again, and what \
         came of it is not known",
        id.step
    );
    Problem::new(Reason::OutcomeUnknown, text).database(DatabaseId::CONTROL)
}
