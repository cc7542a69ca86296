//! A small bound of every model, and every mutant found.
//!
//! A mutant is planted in the whole process, so everything runs in one test.

use std::time::Duration;

use dag_types::Mutant;
use model::explore::{explore, hunt};
use model::lease::Lease;
use model::mounting::Mounting;
use model::sites::Sites;
use model::steps::Steps;

const LONG_ENOUGH: Duration = Duration::from_secs(120);

#[test]
fn nothing_breaks_up_to_a_small_bound_and_every_mutant_is_found() {
    let clean = [
        explore("steps", Steps, LONG_ENOUGH, None),
        explore("mounting", Mounting, LONG_ENOUGH, None),
        explore("lease", Lease { ticks: 6 }, LONG_ENOUGH, None),
        explore("sites", Sites::default(), LONG_ENOUGH, Some(5)),
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
