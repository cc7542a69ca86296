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

/// Explores one model until the time is up, something breaks, or nothing is left.
pub fn explore<M>(name: &'static str, model: M, time: Duration, depth: Option<usize>) -> Explored
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let begun = Instant::now();
    let mut builder =
        model.checker().threads(1).timeout(time).finish_when(HasDiscoveries::AnyFailures);
    if let Some(depth) = depth {
        builder = builder.target_max_depth(depth);
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
        whole: broken.is_none() && took < time && depth.is_none_or(|d| checker.max_depth() < d),
        broken,
        took,
    }
}

/// Explores every model; most of the time goes to the sites.
pub fn check(time: Duration) -> Vec<Explored> {
    let small = [
        explore("steps", Steps, time / 20, None),
        explore("mounting", Mounting, time / 20, None),
        explore("lease", Lease::default(), time / 4, None),
    ];
    let used: Duration = small.iter().map(|explored| explored.took).sum();
    let mut all = small.to_vec();
    all.push(explore("sites", Sites::default(), time.saturating_sub(used), None));
    all
}

/// Plants a mutant and explores the model that must find it.
pub fn hunt(mutant: Mutant, time: Duration) -> Explored {
    Mutant::plant(Some(mutant));
    let found = match mutant {
        Mutant::LeaseFromReceipt | Mutant::LatestSendingTime | Mutant::NoDriftMargin => {
            // Only the answer to an older request needs two requests under way.
            let under_way = if mutant == Mutant::LatestSendingTime { 2 } else { 1 };
            explore("lease", Lease { under_way, ..Lease::default() }, time, None)
        }
        Mutant::OlderLineageApplied => explore("mounting", Mounting, time, None),
        Mutant::StaleStepAccepted => explore("steps", Steps, time, None),
        _ => explore("sites", Sites { faults: 2, commands: 2, time: 8 }, time, None),
    };
    Mutant::plant(None);
    found
}
