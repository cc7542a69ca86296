//! Simulated clusters in `make test`: schedules of seeds, saved schedules, and the same seed twice.
//!
//! `SIM_SCHEDULES` sets how many seeds are run (200 without it), `SIM_SEED` the first one.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::panics;
use sim::run::run;
use sim::schedule::Schedule;
use sim::seeds::Counts;

const JOBS: u64 = 2;
/// What each schedule must reach.
const SIMULATED_MS_MIN: u64 = 10_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// What many runs came to.
struct Runs {
    /// What was found, by seed.
    found: Vec<String>,
    /// How many runs proved too little.
    short: u64,
    /// How many runs saw a gate that a running node closed.
    lapsed: u64,
    /// How copies that were built from others fared.
    seeds: Counts,
}

fn play(first: u64, count: u64) -> Runs {
    panics::keep();
    let next = AtomicU64::new(0);
    let short = AtomicU64::new(0);
    let lapsed = AtomicU64::new(0);
    let found = Mutex::new(Vec::new());
    let seeds = Mutex::new(Counts::default());
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let outcome = run(&Schedule::draw(first + number), false);
                    let long = outcome.simulated_ms >= SIMULATED_MS_MIN;
                    assert!(long, "seed {} is over too early", first + number);
                    lapsed.fetch_add(u64::from(outcome.gates.0 > 0), Ordering::Relaxed);
                    {
                        let mut seeds = seeds.lock().unwrap();
                        *seeds = seeds.and(outcome.seeds);
                    }
                    if outcome.proves_too_little() {
                        short.fetch_add(1, Ordering::Relaxed);
                    } else if !outcome.is_good() {
                        let words = outcome.words().join("; ");
                        found.lock().unwrap().push(format!("seed {}: {words}", first + number));
                    }
                }
            });
        }
    });
    let (short, lapsed) = (short.into_inner(), lapsed.into_inner());
    let (found, seeds) = (found.into_inner().unwrap(), seeds.into_inner().unwrap());
    Runs { found, short, lapsed, seeds }
}

#[test]
fn no_schedule_breaks_a_promise() {
    let (first, count) = (number("SIM_SEED", 1), number("SIM_SCHEDULES", 200));
    let Runs { mut found, short, lapsed, seeds } = play(first, count);
    assert!(short * 50 <= count, "{short} of {count} runs proved too little");
    assert!(lapsed * 3 >= count, "a lease ended in {lapsed} of {count} runs only");
    // Faults that hit no copy in its middle prove nothing about it.
    assert!(seeds.finished * 2 >= count, "{seeds:?} in {count} runs");
    assert!(seeds.hit * 5 >= count && seeds.resumed * 10 >= count, "{seeds:?} in {count} runs");
    // A run that proves too little does not count, so another one takes its place.
    let Runs { found: more, short: still_short, .. } = play(first + count, short);
    found.extend(more);
    // The hook for panics of simulated nodes is silent.
    eprintln!("{}", found.join("\n"));
    assert!(found.is_empty() && still_short == 0, "REPRODUCE: make sim SEED=<seed> N=1");
}

#[test]
fn the_same_seed_gives_the_same_trace_in_two_processes() {
    panics::keep();
    for seed in [3, 14, 15, 92] {
        let here = format!("{:016x}", run(&Schedule::draw(seed), false).trace);
        let other = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(["hash", "--seed", &seed.to_string()])
            .output()
            .expect("the simulator starts");
        assert_eq!(here, String::from_utf8_lossy(&other.stdout).trim(), "seed {seed}");
    }
}

#[test]
fn whoever_keeps_going_makes_each_failing_seed_smaller() {
    let out = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
        let output = command.args(arguments).output().expect("the simulator starts");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let seeds = ["run", "--seed", "1", "--count", "2", "--keep-going"];
    let folder = out.path().to_str().expect("a plain path");
    let (good, text) =
        run(&[&seeds[..], &["--plant", "UidOutsideBatch", "--out", folder]].concat());
    assert!(!good, "{text}");
    for seed in [1, 2] {
        let file = out.path().join(format!("seed-{seed}.json"));
        let command = format!("REPRODUCE: sim replay {} --plant UidOutsideBatch", file.display());
        assert!(text.lines().any(|line| line == command), "{command}\n{text}");
        let small = std::fs::read_to_string(&file).expect("a readable file");
        let small: Schedule = serde_json::from_str(&small).expect("a schedule");
        assert!(small.faults.len() < Schedule::draw(seed).faults.len(), "{text}");
    }
    let small = out.path().join("seed-1.json");
    let small = small.to_str().expect("a plain path");
    assert!(!run(&["replay", small, "--plant", "UidOutsideBatch"]).0);
    assert!(run(&["replay", small]).0, "nothing is found without the fault");
}

#[test]
fn every_saved_schedule_holds_now() {
    panics::keep();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regress");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of saved schedules")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "the saved schedules are not there");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable file");
        let schedule: Schedule = serde_json::from_str(&text).expect("a schedule");
        let outcome = run(&schedule, false);
        assert!(outcome.is_good(), "{}: {}", file.display(), outcome.words().join("; "));
    }
}

#[test]
fn an_old_leader_with_a_slow_clock_answers_no_read() {
    panics::keep();
    for seed in 1..=3 {
        assert_eq!(sim::stale::run(seed), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn an_entry_of_an_unknown_type_stops_every_copy_that_meets_it() {
    panics::keep();
    assert_eq!(sim::upgrade::run(1), Vec::<String>::new());
}

#[test]
fn a_bit_that_flips_on_its_way_to_a_new_copy_goes_no_further() {
    panics::keep();
    for seed in 1..=3 {
        assert_eq!(sim::flip::run(seed), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn no_copy_minds_a_copy_of_another_generation() {
    panics::keep();
    for seed in 1..=3 {
        assert_eq!(sim::stray::run(seed), Vec::<String>::new(), "seed {seed}");
    }
}
