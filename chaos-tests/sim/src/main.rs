//! `sim`: simulated clusters from a seed. See the crate's documentation.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use dag_types::Mutant;
use history::timeline;
use sim::run::{Outcome, run};
use sim::schedule::Schedule;
use sim::seeds::Counts;
use sim::{minimise, panics};

#[derive(Parser)]
#[command(about = "Simulated clusters from a seed: same seed, same run")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the schedules of seeds, and makes those that fail smaller.
    Run {
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many seeds.
        #[arg(long, default_value_t = 1)]
        count: u64,
        /// How many at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Goes on after a failing seed, to the last.
        #[arg(long)]
        keep_going: bool,
        /// Where failing schedules are stored.
        #[arg(long, default_value = "target/sim")]
        out: PathBuf,
        /// With this fault planted, by its name in `docs/mutants.md`.
        #[arg(long)]
        plant: Option<String>,
    },
    /// Runs seeds until the time is over, and makes those that fail smaller.
    Soak {
        /// For how long.
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Where failing schedules are stored.
        #[arg(long, default_value = "target/sim")]
        out: PathBuf,
    },
    /// Runs a stored schedule.
    Replay {
        /// The schedule.
        file: PathBuf,
        /// Writes the trace as text.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Writes the history.
        #[arg(long)]
        history: Option<PathBuf>,
        /// With this fault planted, by its name in `docs/mutants.md`.
        #[arg(long)]
        plant: Option<String>,
    },
    /// Runs each schedule twice, here and in a second process, and compares the traces.
    Same {
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many seeds.
        #[arg(long, default_value_t = 10)]
        count: u64,
    },
    /// Plants each fault of `dag_types::Mutant` and counts the seeds until it is found.
    Mutants {
        /// Only this one, by its name.
        #[arg(long)]
        only: Option<String>,
        /// How many seeds each gets.
        #[arg(long, default_value_t = 400)]
        seeds: u64,
        /// How many at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Writes the table here as well.
        #[arg(long)]
        table: Option<PathBuf>,
    },
    /// Prints the trace's hash of a seed.
    Hash {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Writes the trace as text.
        #[arg(long)]
        trace: Option<PathBuf>,
    },
    /// Prints the schedule of a seed.
    Schedule {
        /// The seed.
        #[arg(long)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    panics::keep();
    match carry_out(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Run { seed, count, jobs, keep_going, out, plant } => {
            let planted = planted(plant.as_deref())?;
            many(Seeds { first: seed, count, until: None, keep_going, planted }, jobs, &out)
        }
        Command::Soak { minutes, seed, jobs, out } => {
            let until = Some(Instant::now() + Duration::from_secs(minutes * 60));
            let (count, keep_going, planted) = (u64::MAX, true, None);
            many(Seeds { first: seed, count, until, keep_going, planted }, jobs, &out)
        }
        Command::Replay { file, trace, history, plant } => {
            planted(plant.as_deref())?;
            replay(&file, trace, history)
        }
        Command::Same { seed, count } => same(seed, count),
        Command::Mutants { only, seeds, jobs, table } => {
            let found = sim::mutants::hunt(only.as_deref(), seeds, jobs)?;
            let text = sim::mutants::table(&found);
            print!("{text}");
            if let Some(path) = table {
                fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            }
            Ok(found.iter().all(|hunted| hunted.caught.is_some()))
        }
        Command::Hash { seed, trace } => {
            let outcome = run(&Schedule::draw(seed), trace.is_some());
            if let (Some(path), Some(text)) = (trace, &outcome.trace_text) {
                fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            }
            println!("{:016x}", outcome.trace);
            Ok(true)
        }
        Command::Schedule { seed } => {
            println!("{}", serde_json::to_string_pretty(&Schedule::draw(seed))?);
            Ok(true)
        }
    }
}

/// Plants a fault, where one was asked for.
fn planted(name: Option<&str>) -> anyhow::Result<Option<Mutant>> {
    let mutant = name.map(sim::mutants::named).transpose()?;
    Mutant::plant(mutant);
    Ok(mutant)
}

fn same(seed: u64, count: u64) -> anyhow::Result<bool> {
    let this = std::env::current_exe().context("find this program")?;
    let mut all_same = true;
    for seed in seed..seed + count {
        let here = format!("{:016x}", run(&Schedule::draw(seed), false).trace);
        let again = format!("{:016x}", run(&Schedule::draw(seed), false).trace);
        let other = std::process::Command::new(&this)
            .args(["hash", "--seed", &seed.to_string()])
            .output()
            .context("run a second process")?;
        let there = String::from_utf8_lossy(&other.stdout).trim().to_owned();
        if here != there || here != again {
            println!("seed {seed}: {here} here, {again} again, {there} in another process");
            all_same = false;
        }
    }
    println!("{count} seeds, same traces: {all_same}");
    Ok(all_same)
}

struct Seeds {
    first: u64,
    count: u64,
    until: Option<Instant>,
    keep_going: bool,
    planted: Option<Mutant>,
}

#[derive(Default)]
struct Totals {
    runs: AtomicU64,
    failing: Mutex<Vec<u64>>,
    /// Good runs in which too few faults happened: they count for nothing.
    short: AtomicU64,
    simulated_ms: AtomicU64,
    operations: AtomicU64,
    faults: AtomicU64,
    /// Gates that running nodes closed under faults, gates that opened, and runs with such closings.
    gates: [AtomicU64; 3],
    /// Steps of moves that succeeded, and that a node refused.
    steps: [AtomicU64; 2],
    /// How copies that were built from others fared, and in how many runs any was.
    seeds: Mutex<(Counts, u64)>,
    /// The least of one run.
    least: Mutex<Option<(u64, usize)>>,
    stop: AtomicBool,
}

fn many(seeds: Seeds, jobs: usize, out: &Path) -> anyhow::Result<bool> {
    if jobs == 0 {
        bail!("at least one job is needed");
    }
    let began = Instant::now();
    let (seeds, totals) = (Arc::new(seeds), Arc::new(Totals::default()));
    let next = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for _ in 0..jobs {
        let (seeds, totals, next) = (seeds.clone(), totals.clone(), next.clone());
        let out = out.to_owned();
        threads.push(std::thread::spawn(move || -> anyhow::Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let over = seeds.until.is_some_and(|until| Instant::now() > until);
                if number >= seeds.count || over || totals.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                one(seeds.first + number, &seeds, &totals, &out)?;
            }
        }));
    }
    for thread in threads {
        match thread.join() {
            Ok(ended) => ended?,
            Err(_) => bail!("a thread of the simulator ended"),
        }
    }
    let mut failing = totals.failing.lock().unwrap_or_else(|poison| poison.into_inner()).clone();
    failing.sort_unstable();
    let seconds = began.elapsed().as_secs_f64();
    let runs = totals.runs.load(Ordering::Relaxed);
    let least = totals.least.lock().unwrap_or_else(|poison| poison.into_inner());
    let (least_ms, least_faults) = least.unwrap_or_default();
    let (seeds, with_seeds) = *totals.seeds.lock().unwrap_or_else(|poison| poison.into_inner());
    println!(
        "{runs} schedules in {seconds:.1} s ({:.0} a minute), {} simulated s, {} operations, {} \
         faults, {} gates lapsed under them ({} runs) and {} opened, {} steps of moves done and {} \
         refused, {} seeds begun and {} finished in {with_seeds} runs, {} resumed, {} from another \
         source, {} faults in their middle, {} bits flipped, in each at least {least_ms} simulated ms and {least_faults} faults, {} more with \
         too few faults, {} failing {failing:?}",
        runs as f64 / seconds * 60.0,
        totals.simulated_ms.load(Ordering::Relaxed) / 1000,
        totals.operations.load(Ordering::Relaxed),
        totals.faults.load(Ordering::Relaxed),
        totals.gates[0].load(Ordering::Relaxed),
        totals.gates[2].load(Ordering::Relaxed),
        totals.gates[1].load(Ordering::Relaxed),
        totals.steps[0].load(Ordering::Relaxed),
        totals.steps[1].load(Ordering::Relaxed),
        seeds.begun,
        seeds.finished,
        seeds.resumed,
        seeds.changed,
        seeds.hit,
        seeds.flipped,
        totals.short.load(Ordering::Relaxed),
        failing.len(),
    );
    Ok(failing.is_empty())
}

/// After so many schedules a line says how far it is.
const PROGRESS: u64 = 500;

fn one(seed: u64, seeds: &Seeds, totals: &Totals, out: &Path) -> anyhow::Result<()> {
    let schedule = Schedule::draw(seed);
    let outcome = run(&schedule, false);
    if outcome.proves_too_little() {
        totals.short.fetch_add(1, Ordering::Relaxed);
        println!("seed {seed} counts for nothing: {}", outcome.words().join("; "));
        return Ok(());
    }
    let runs = totals.runs.fetch_add(1, Ordering::Relaxed) + 1;
    if runs.is_multiple_of(PROGRESS) {
        let failing = totals.failing.lock().unwrap_or_else(|poison| poison.into_inner()).len();
        println!("{runs} schedules so far, {failing} failing");
    }
    totals.simulated_ms.fetch_add(outcome.simulated_ms, Ordering::Relaxed);
    totals.operations.fetch_add(outcome.history.operations.len() as u64, Ordering::Relaxed);
    totals.faults.fetch_add(outcome.faults as u64, Ordering::Relaxed);
    totals.gates[0].fetch_add(outcome.gates.0, Ordering::Relaxed);
    totals.gates[1].fetch_add(outcome.gates.1, Ordering::Relaxed);
    totals.gates[2].fetch_add(u64::from(outcome.gates.0 > 0), Ordering::Relaxed);
    totals.steps[0].fetch_add(outcome.steps.0, Ordering::Relaxed);
    totals.steps[1].fetch_add(outcome.steps.1, Ordering::Relaxed);
    {
        let mut seeds = totals.seeds.lock().unwrap_or_else(|poison| poison.into_inner());
        *seeds = (seeds.0.and(outcome.seeds), seeds.1 + u64::from(outcome.seeds.finished > 0));
    }
    {
        let mut least = totals.least.lock().unwrap_or_else(|poison| poison.into_inner());
        let (ms, faults) = least.unwrap_or((u64::MAX, usize::MAX));
        *least = Some((ms.min(outcome.simulated_ms), faults.min(outcome.faults)));
    }
    if outcome.is_good() {
        return Ok(());
    }
    totals.failing.lock().unwrap_or_else(|poison| poison.into_inner()).push(seed);
    if !seeds.keep_going {
        totals.stop.store(true, Ordering::Relaxed);
    }
    println!("seed {seed}: {}", outcome.words().join("\n  "));
    // Whoever ends the search while it is made smaller has the whole one.
    let whole = out.join(format!("seed-{seed}-whole.json"));
    keep(&schedule, &whole)?;
    let kind = outcome.kind().context("a failing run has a finding")?;
    let small = minimise::minimise(&schedule, &kind, MINIMISING_RUNS);
    let file = out.join(format!("seed-{seed}.json"));
    keep(&small, &file)?;
    // In one piece, beside whatever another job says.
    let words = in_words(seed, &small, &run(&small, false));
    let plant = seeds.planted.map(|mutant| format!(" --plant {mutant:?}")).unwrap_or_default();
    println!("{words}REPRODUCE: sim replay {}{plant}", file.display());
    Ok(())
}

/// Runs that making one schedule smaller may take.
const MINIMISING_RUNS: usize = 60;

/// Stores a schedule, so that it outlives the version that drew it.
fn keep(schedule: &Schedule, file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::write(file, serde_json::to_string_pretty(schedule)?)
        .with_context(|| format!("write {}", file.display()))
}

/// A schedule that was made smaller, and what of its history breaks a rule.
fn in_words(seed: u64, schedule: &Schedule, outcome: &Outcome) -> String {
    let mut words = format!("seed {seed} made smaller, with {} faults:\n", schedule.faults.len());
    for planned in &schedule.faults {
        let _ = writeln!(words, "  {planned}");
    }
    for violation in outcome.report.iter().flat_map(|report| report.violations()) {
        let part = history::minimise::minimise(&outcome.history, violation);
        words.push_str(&timeline::draw(&outcome.history, &part));
    }
    words
}

fn replay(file: &Path, trace: Option<PathBuf>, history: Option<PathBuf>) -> anyhow::Result<bool> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let schedule: Schedule = serde_json::from_str(&text).context("read the schedule")?;
    let outcome = run(&schedule, trace.is_some());
    if let (Some(path), Some(text)) = (trace, &outcome.trace_text) {
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = history {
        let mut lines = String::new();
        for line in outcome.history.lines() {
            lines.push_str(&serde_json::to_string(&line)?);
            lines.push('\n');
        }
        fs::write(&path, lines).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(report) = &outcome.report {
        print!("{report}");
    }
    outcome.findings.iter().for_each(|finding| println!("{finding}"));
    println!(
        "trace {:016x}, {} operations, {} faults, {} ms",
        outcome.trace,
        outcome.history.operations.len(),
        outcome.faults,
        outcome.simulated_ms
    );
    Ok(outcome.is_good())
}
