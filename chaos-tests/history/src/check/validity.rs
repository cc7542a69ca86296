//! V1: a run counts only if it did what it promised.
//!
//! A run in which nothing was acknowledged breaks no other rule, and neither does one whose faults
//! never happened; both would be green without meaning anything.

use super::{Looking, Step};
use crate::event::Phase;
use crate::history::History;

pub(super) fn check(looking: &mut Looking<'_>, history: &History) -> Step {
    enough_acknowledged(looking, history)?;
    every_promised_fault(looking, history)
}

fn enough_acknowledged(looking: &mut Looking<'_>, history: &History) -> Step {
    let least = history.run.acknowledged_min;
    for phase in [Phase::Before, Phase::Faults, Phase::After] {
        looking.one();
        let acknowledged = history.operations.iter().filter_map(|o| o.acknowledged());
        let count = acknowledged.filter(|at| history.phase_at(*at) == phase).count() as u64;
        if count < least {
            looking.breach(
                format!("too little work {phase:?}"),
                format!("{count} operations acknowledged in phase {phase:?}, {least} are needed"),
                Vec::new(),
            )?;
        }
    }
    Ok(())
}

fn every_promised_fault(looking: &mut Looking<'_>, history: &History) -> Step {
    for promised in &history.run.promised_faults {
        looking.one();
        if !history.faults.iter().any(|fault| fault.kind == *promised) {
            looking.breach(
                format!("no fault {promised}"),
                format!("the promised fault {promised} never happened"),
                Vec::new(),
            )?;
        }
    }
    Ok(())
}
