//! A failing schedule made small: faults and moves taken out one by one, the rest of the time cut away, as
//! long as the same kind of finding comes back.

use crate::run::run;
use crate::schedule::Schedule;

/// The smallest schedule found within so many runs that still gives a finding of this kind.
pub fn minimise(schedule: &Schedule, kind: &str, runs_max: usize) -> Schedule {
    let mut best = schedule.clone();
    let mut runs = 0;
    let mut fails = |candidate: &Schedule| {
        runs += 1;
        runs <= runs_max && run(candidate, false).kind().as_deref() == Some(kind)
    };
    let mut at = best.faults.len();
    while at > 0 {
        at -= 1;
        let mut without = best.clone();
        without.faults.remove(at);
        if fails(&without) {
            best = without;
            at = at.min(best.faults.len());
        }
    }
    for at in (0..best.asked.len()).rev() {
        let mut without = best.clone();
        without.asked.remove(at);
        if fails(&without) {
            best = without;
        }
    }
    let faults = best.faults.iter().map(|planned| planned.at_ms + planned.for_ms);
    let last = faults.chain(best.asked.iter().map(|asked| asked.at_ms)).max().unwrap_or(0);
    let mut shorter = best.clone();
    shorter.faults_ms = (last + 500).min(best.faults_ms);
    if fails(&shorter) {
        best = shorter;
    }
    best
}
