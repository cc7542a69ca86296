//! Mutants: rules left out on purpose, one at a time, to prove that a simulation would notice.
//!
//! A mutant is caught by a run that finds anything at all, where the same schedule finds nothing
//! without it.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use dag_types::Mutant;

use crate::leases;
use crate::run::run;
use crate::schedule::Schedule;
use crate::upgrade;

/// Those of the gate that one lineage is enough for. What only an activation can break, and a word of
/// a peer, which no shell hands to the gate, are hunted by `chaos-tests/model`.
pub const GATE: [Mutant; 6] = [
    Mutant::GateOpenAtBoot,
    Mutant::LeaseFromReceipt,
    Mutant::LatestSendingTime,
    Mutant::NoDriftMargin,
    Mutant::ColdStartUnconfirmed,
    Mutant::ConfirmationNeverLapses,
];

/// All that are hunted here.
fn hunted() -> impl Iterator<Item = Mutant> {
    Mutant::ALL.into_iter().chain(GATE).chain(Mutant::SEEDS)
}

/// How a mutant fared.
pub struct Hunted {
    /// Which.
    pub mutant: Mutant,
    /// The seed that caught it and what it found; `None` where none did.
    pub caught: Option<(u64, String)>,
    /// Seeds that were run, the one that caught it included.
    pub seeds: u64,
}

/// Plants each mutant (or only the named one) and runs seeds until one catches it.
pub fn hunt(only: Option<&str>, seeds: u64, jobs: usize) -> anyhow::Result<Vec<Hunted>> {
    let chosen: Vec<Mutant> = match only {
        None => hunted().collect(),
        Some(name) => vec![named(name)?],
    };
    let mut hunted = Vec::new();
    for mutant in chosen {
        // One mutant is planted in the whole process, so its seeds run together and nothing else.
        Mutant::plant(Some(mutant));
        let result = first_catch(mutant, seeds, jobs);
        Mutant::plant(None);
        let (caught, seeds) = result;
        if let Some((seed, what)) = &caught
            && !is_clean_without(mutant, *seed)
        {
            bail!("seed {seed} finds {what:?} without {mutant:?} as well");
        }
        let shown = caught.as_ref().map_or("NOT CAUGHT", |(_, what)| what.as_str());
        println!("{mutant:?}: {seeds} seeds, {shown}");
        hunted.push(Hunted { mutant, caught, seeds });
    }
    Ok(hunted)
}

/// The mutant of this name.
pub fn named(name: &str) -> anyhow::Result<Mutant> {
    let mutant = hunted().find(|mutant| format!("{mutant:?}") == name);
    mutant.with_context(|| format!("there is no mutant {name:?}"))
}

fn findings(mutant: Mutant, seed: u64) -> Vec<String> {
    match mutant {
        // An entry of an unknown type comes from a newer node, which no fault of the catalogue makes.
        Mutant::UnknownEntrySkipped => return upgrade::run(seed),
        // All but one thing must be right for these, which schedules bring about too seldom.
        Mutant::NoDriftMargin => return leases::drift(seed),
        Mutant::ColdStartUnconfirmed | Mutant::ConfirmationNeverLapses => {
            return leases::silent_site(seed);
        }
        _ => {}
    }
    let outcome = run(&Schedule::draw(seed), false);
    if outcome.proves_too_little() { Vec::new() } else { outcome.words() }
}

fn is_clean_without(mutant: Mutant, seed: u64) -> bool {
    findings(mutant, seed).is_empty()
}

fn first_catch(mutant: Mutant, seeds: u64, jobs: usize) -> (Option<(u64, String)>, u64) {
    let next = AtomicU64::new(1);
    let best: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let known = || best.lock().unwrap_or_else(|poison| poison.into_inner());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = known().as_ref().is_some_and(|(first, _)| *first < seed);
                    if seed > seeds || over {
                        return;
                    }
                    if let Some(what) = findings(mutant, seed).into_iter().next() {
                        let mut best = known();
                        if best.as_ref().is_none_or(|(first, _)| seed < *first) {
                            *best = Some((seed, what));
                        }
                    }
                }
            });
        }
    });
    let caught = best.into_inner().unwrap_or_else(|poison| poison.into_inner());
    let ran = caught.as_ref().map_or(seeds, |(seed, _)| *seed);
    (caught, ran)
}

/// The table of `docs/mutants.md`.
pub fn table(hunted: &[Hunted]) -> String {
    let mut text =
        String::from("| mutant | seeds needed | first finding |\n| --- | ---: | --- |\n");
    for Hunted { mutant, caught, seeds } in hunted {
        let what = caught.as_ref().map_or("**not caught**", |(_, what)| what.as_str());
        let what = what.lines().next().unwrap_or_default().replace('|', "/");
        let _ = writeln!(text, "| {mutant:?} | {seeds} | {} |", shortened(&what));
    }
    text
}

fn shortened(what: &str) -> String {
    match what.char_indices().nth(140) {
        Some((at, _)) => format!("{}...", &what[..at]),
        None => what.to_owned(),
    }
}
