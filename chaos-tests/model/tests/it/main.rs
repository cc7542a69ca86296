//! A small bound of every model, and every mutant found.
//!
//! A mutant is planted in the whole process, so everything runs in one test.

use std::time::Duration;

use dag_types::Mutant;
use model::explore::{Bound, explore, hunt};
use model::lease::Lease;
use model::mounting::Mounting;
use model::sites::Sites;
use model::steps::Steps;

/// A model that is not through by then on a busy machine has explored enough for every day.
const SHORT: Duration = Duration::from_secs(5);
const LONG_ENOUGH: Duration = Duration::from_secs(120);

#[test]
fn nothing_breaks_up_to_a_small_bound_and_every_mutant_is_found() {
    let clean = [
        explore("steps", Steps, Bound::steps(SHORT, 8)),
        explore("mounting", Mounting, Bound::steps(SHORT, 8)),
        explore("lease", Lease { ticks: 6, under_way: 2 }, Bound::steps(SHORT, 8)),
        explore("sites", Sites::default(), Bound::steps(SHORT, 4)),
    ];
    for explored in &clean {
        println!("{}", explored.words());
        assert!(explored.broken.is_none(), "{}", explored.words());
        assert!(explored.states > 100, "{} explored too little", explored.model);
    }
    for mutant in Mutant::PROTOCOL {
        let explored = hunt(mutant, LONG_ENOUGH);
        println!("{mutant:?}: {}", explored.words());
        assert!(explored.broken.is_some(), "{mutant:?} was not found");
    }
}
