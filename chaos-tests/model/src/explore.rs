//! Runs a model for a time, and tells what was found.

use std::fmt::{Debug, Write as _};
use std::hash::Hash;
use std::time::{Duration, Instant};

use dag_types::Mutant;
use stateright::{Checker, DiscoveryClassification, HasDiscoveries, Model};

use crate::lease::Lease;
use crate::mounting::Mounting;
use crate::sites::Sites;
use crate::steps::Steps;

/// What an exploration came to.
#[derive(Debug, Clone)]
pub struct Explored {
    /// Which model.
    pub model: &'static str,
    /// Different states.
    pub states: usize,
    /// Steps from a first state to the deepest one.
    pub depth: usize,
    /// Nothing was left to explore.
    pub whole: bool,
    /// The broken property and the steps that break it.
    pub broken: Option<(String, Vec<String>)>,
    /// How long it took.
    pub took: Duration,
}

impl Explored {
    /// One line, and the counterexample.
    pub fn words(&self) -> String {
        let Self { model, states, depth, whole, .. } = self;
        let how = if *whole { "whole space" } else { "bound reached" };
        let mut words = format!(
            "{model}: {states} states, depth {depth}, {how}, {:.1} s",
            self.took.as_secs_f64()
        );
        if let Some((property, steps)) = &self.broken {
            let _ = write!(words, "\n  BROKEN: {property}, in {} steps", steps.len());
            for (i, step) in steps.iter().enumerate() {
                let _ = write!(words, "\n  {:>3}. {step}", i + 1);
            }
        }
        words
    }
}

/// States, met again or not, after which an exploration for a time ends, so that memory does: a new one
/// takes some three hundred bytes.
const STATES_MAX: usize = 100_000_000;

/// How far a model is explored.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// For so long. One thread alone goes on until something breaks or nothing is left: stateright
    /// looks at its clock when threads share their work.
    pub time: Duration,
    /// Not beyond so many steps.
    pub depth: Option<usize>,
    /// One finds the shortest counterexample; two see the clock.
    pub threads: usize,
}

impl Bound {
    fn time(time: Duration) -> Self {
        Self { time, depth: None, threads: 2 }
    }

    /// Until something breaks, which it does.
    fn found(time: Duration) -> Self {
        Self { threads: 1, ..Self::time(time) }
    }

    /// So many steps, as far as the time suffices.
    pub fn steps(time: Duration, depth: usize) -> Self {
        Self { depth: Some(depth), ..Self::time(time) }
    }
}

/// Explores one model until the time is up, something breaks, or nothing is left.
pub fn explore<M>(name: &'static str, model: M, bound: Bound) -> Explored
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let begun = Instant::now();
    let Bound { time, depth, threads } = bound;
    let mut builder =
        model.checker().threads(threads).timeout(time).finish_when(HasDiscoveries::AnyFailures);
    if let Some(depth) = depth {
        builder = builder.target_max_depth(depth);
    }
    if threads > 1 {
        builder = builder.target_state_count(STATES_MAX);
    }
    let checker = builder.spawn_bfs().join();
    // Examples of what should be reachable are discoveries too.
    let is_broken = |name: &str| {
        matches!(checker.discovery_classification(name), DiscoveryClassification::Counterexample)
    };
    let mut found = checker.discoveries().into_iter().filter(|(name, _)| is_broken(name));
    let broken = found.next().map(|(property, path)| {
        let steps = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
        (property.to_owned(), steps)
    });
    let took = begun.elapsed();
    Explored {
        model: name,
        states: checker.unique_state_count(),
        // stateright counts states of a path, we count steps.
        depth: checker.max_depth().saturating_sub(1),
        whole: broken.is_none()
            && took < time
            && checker.state_count() < STATES_MAX
            && depth.is_none_or(|d| checker.max_depth() < d),
        broken,
        took,
    }
}

/// Explores every model; most of the time goes to the sites.
pub fn check(time: Duration) -> Vec<Explored> {
    let small = [
        explore("steps", Steps, Bound::time(time / 20)),
        explore("mounting", Mounting, Bound::time(time / 20)),
        explore("lease", Lease::default(), Bound::time(time / 4)),
    ];
    let used: Duration = small.iter().map(|explored| explored.took).sum();
    let mut all = small.to_vec();
    all.push(explore("sites", Sites::default(), Bound::time(time.saturating_sub(used))));
    all
}

/// Plants a mutant and explores the model that must find it.
pub fn hunt(mutant: Mutant, time: Duration) -> Explored {
    Mutant::plant(Some(mutant));
    let bound = Bound::found(time);
    let found = match mutant {
        Mutant::LeaseFromReceipt | Mutant::LatestSendingTime | Mutant::NoDriftMargin => {
            // Only the answer to an older request needs two requests under way.
            let under_way = if mutant == Mutant::LatestSendingTime { 2 } else { 1 };
            explore("lease", Lease { under_way, ..Lease::default() }, bound)
        }
        Mutant::OlderLineageApplied => explore("mounting", Mounting, bound),
        Mutant::StaleStepAccepted => explore("steps", Steps, bound),
        _ => explore("sites", Sites { faults: 2, commands: 2, time: 8 }, bound),
    };
    Mutant::plant(None);
    found
}
