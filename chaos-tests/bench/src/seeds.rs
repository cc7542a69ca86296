//! A large copy built from another one, beside `cp` of the same files; what clients notice of it;
//! a database that moves to another path; a node killed with a long log that no flush has written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dag_api::admin::v1::CopyStatus;
use serde::{Deserialize, Serialize};
use testkit::Lifetime;
use testkit::figures::Figures;
use testkit::shape::{Setting, Timeouts};

use crate::arena::Arena;
use crate::load::{self, Supply, Way, Window};
use crate::report::{Line, Report};
use crate::traffic::Traffic;

/// Bytes of a mail.
const SIZE: usize = 51_200;
const CLIENTS: usize = 16;
const EVERY: Duration = Duration::from_millis(5);
const MIB: f64 = (1 << 20) as f64;
/// What a source may send a second while clients are watched.
const LIMIT: &str = "100MB/s";

/// A copy is built from another one, so many times.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seeded {
    /// MiB that were sent.
    pub mib: f64,
    /// From the command until the new copy is one like all others: seconds, ascending.
    pub seconds: Vec<f64>,
    /// Of these, in each phase of the last time, as the node told it: its name and seconds.
    pub phases: Vec<(String, f64)>,
    /// Seconds of `cp` and sync of the source's files, of as many MiB, in the same minutes; ascending.
    /// Both find nothing of them in memory.
    pub cp_seconds: Vec<f64>,
    /// MiB of memory by which the source grew at most.
    pub source_growth_mib: f64,
    /// The same of the target.
    pub target_growth_mib: f64,
}

/// What clients notice of a seed whose source is the active copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sourcing {
    /// MiB that were sent.
    pub mib: f64,
    /// How long each took.
    pub seconds: Vec<f64>,
    /// A delivery's p99 right before each, in milliseconds.
    pub calm_p99_ms: Vec<f64>,
    /// And meanwhile.
    pub p99_ms: Vec<f64>,
}

/// All copies of a database move to another folder of the same file system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PathMove {
    /// MiB of one copy's state.
    pub mib: f64,
    /// Seconds of each copy's move; the active one is the last.
    pub seconds: Vec<f64>,
    /// The longest wait of a delivery meanwhile, in milliseconds.
    pub longest_ms: u64,
    /// The longest wait before.
    pub calm_ms: u64,
}

/// A node killed with a log that no flush has written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Replay {
    /// MiB of mail that were acknowledged and not flushed.
    pub mib: f64,
    /// From the start of all nodes until the database is mounted.
    pub mounted_seconds: f64,
    /// Until it acknowledged a mail.
    pub written_seconds: f64,
}

impl Seeded {
    /// For the report.
    pub fn sentence(&self) -> String {
        let (ours, cp) = (middle(&self.seconds), middle(&self.cp_seconds));
        let phases = self.phases.iter().map(|(name, took)| format!("{name} {took:.1}"));
        format!(
            "A copy of {:.0} MiB is built in {ours:.1} s ({:.0} MiB/s), {} times; `cp` and sync of \
             the same files take {cp:.1} s: {:.0} % of its rate. Seconds of phases: {}. The source grows by {:.0} MiB, the \
             target by {:.0} MiB.",
            self.mib,
            self.mib / ours,
            self.seconds.len(),
            100.0 * cp / ours,
            phases.collect::<Vec<_>>().join(", "),
            self.source_growth_mib,
            self.target_growth_mib
        )
    }
}

impl Sourcing {
    /// For the report.
    pub fn sentence(&self) -> String {
        let each = |figures: &[f64]| {
            let figures: Vec<_> = figures.iter().map(|it| format!("{it:.1}")).collect();
            figures.join(", ")
        };
        let pairs = self.p99_ms.iter().zip(&self.calm_p99_ms);
        let mut times: Vec<f64> = pairs.map(|(busy, calm)| busy / calm).collect();
        times.sort_by(f64::total_cmp);
        format!(
            "While the active copy is the source of {:.0} MiB at {LIMIT}, for {} s, a delivery every \
             {} ms takes {} ms at p99, and {} ms right before: {} times, {:.1} in the middle.",
            self.mib,
            each(&self.seconds),
            EVERY.as_millis(),
            each(&self.p99_ms),
            each(&self.calm_p99_ms),
            each(&times),
            middle(&times)
        )
    }
}

impl PathMove {
    /// For the report.
    pub fn sentence(&self) -> String {
        let each: Vec<String> = self.seconds.iter().map(|took| format!("{took:.1}")).collect();
        format!(
            "All copies of a database of {:.0} MiB move to another folder of one file system in {:.1} s \
             ({} s each); the longest wait of a delivery every {} ms is {} ms ({} ms before).",
            self.mib,
            self.seconds.iter().sum::<f64>(),
            each.join(", "),
            EVERY.as_millis(),
            self.longest_ms,
            self.calm_ms
        )
    }
}

impl Replay {
    /// For the report.
    pub fn sentence(&self) -> String {
        format!(
            "All nodes killed with {:.0} MiB of mail that no flush had written: mounted after {:.1} s, \
             a mail acknowledged after {:.1} s.",
            self.mib, self.mounted_seconds, self.written_seconds
        )
    }
}

fn middle(ascending: &[f64]) -> f64 {
    ascending.get(ascending.len() / 2).copied().unwrap_or_default()
}

/// Fills a database with so many bytes, and builds and moves its copies.
pub async fn run(folder: &Path, mib: u64, trials: u32, report: &mut Report) -> anyhow::Result<()> {
    let arena = Arena::up(folder, "three-node", Timeouts::Default, 1, CLIENTS).await?;
    fill(&arena, mib).await?;
    report.add(Line::Seeded(seeded(&arena, folder, trials).await?))?;
    let traffic = Traffic::begin(&arena, EVERY, 4).await?;
    report.add(Line::Sourcing(sourcing(&arena, &traffic, trials).await?))?;
    report.add(Line::PathMove(path_move(&arena, &traffic).await?))?;
    drop(traffic);
    arena.verify()
}

/// Delivers until so many MiB are acknowledged.
async fn fill(arena: &Arena, mib: u64) -> anyhow::Result<()> {
    let mut bytes = 0;
    for run in 100.. {
        if bytes >= mib << 20 {
            break;
        }
        let from = Instant::now();
        let window = Window { from, to: from + Duration::from_secs(2) };
        let supply = Supply::new(SIZE, run);
        bytes += load::closed(arena, &supply, CLIENTS, Way::Session, window).await?.bytes;
    }
    arena.dagctl(&["status", "--wait-healthy", "--timeout", "60"]).map(drop)
}

/// The active node, and the two others.
async fn roles(arena: &Arena) -> anyhow::Result<[String; 3]> {
    let active = arena.active(arena.databases[0].database).await?;
    let mut others = arena.cluster.names().into_iter().filter(|name| *name != active);
    let (source, target) = others.next().zip(others.next()).context("three nodes")?;
    Ok([active, source, target])
}

async fn seeded(arena: &Arena, folder: &Path, trials: u32) -> anyhow::Result<Seeded> {
    let [_, source, target] = roles(arena).await?;
    let (mut seconds, mut cp_seconds) = (Vec::new(), Vec::new());
    let (mut sent, mut phases) = (0, Vec::new());
    let (mut source_growth_mib, mut target_growth_mib) = (0.0_f64, 0.0_f64);
    for _ in 0..trials {
        let files = state_folder(arena, &source)?;
        forget(&files)?;
        let watch = Watch::begin(arena, &[&source, &target])?;
        let seed = reseed(arena, &target, &["--from", &source]).await?;
        let grown = watch.end();
        (sent, phases) = (seed.bytes, seed.phases);
        seconds.push(seed.seconds);
        source_growth_mib = source_growth_mib.max(grown[0] as f64 / MIB);
        target_growth_mib = target_growth_mib.max(grown[1] as f64 / MIB);
        forget(&files)?;
        let (copied, took) = copy_files(&files, &folder.join("cp"))?;
        // Compaction may have changed what there is: the same rate for as many bytes.
        cp_seconds.push(took * sent as f64 / copied.max(1) as f64);
    }
    seconds.sort_by(f64::total_cmp);
    cp_seconds.sort_by(f64::total_cmp);
    let mib = sent as f64 / MIB;
    Ok(Seeded { mib, seconds, phases, cp_seconds, source_growth_mib, target_growth_mib })
}

/// A quiet time and a seed, so many times: the disk of a machine that others share is not the same from
/// one minute to the next.
async fn sourcing(arena: &Arena, traffic: &Traffic, trials: u32) -> anyhow::Result<Sourcing> {
    let mut seen =
        Sourcing { mib: 0.0, seconds: Vec::new(), calm_p99_ms: Vec::new(), p99_ms: Vec::new() };
    for _ in 0..trials {
        let [active, _, target] = roles(arena).await?;
        let calm = Instant::now();
        tokio::time::sleep(Duration::from_secs(15)).await;
        seen.calm_p99_ms.push(ms(traffic.p99_since(calm).await?));
        let begin = Instant::now();
        let seed = reseed(arena, &target, &["--from", &active, "--limit", LIMIT]).await?;
        seen.p99_ms.push(ms(traffic.p99_since(begin).await?));
        seen.mib = seed.bytes as f64 / MIB;
        seen.seconds.push(seed.seconds);
    }
    Ok(seen)
}

async fn path_move(arena: &Arena, traffic: &Traffic) -> anyhow::Result<PathMove> {
    let [active, first, second] = roles(arena).await?;
    let mib = size_of(&state_folder(arena, &active)?)? as f64 / MIB;
    let calm = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let calm_ms = traffic.longest_since(calm).await?.as_millis() as u64;
    let begin = Instant::now();
    let mut seconds = Vec::new();
    for node in [&first, &second, &active] {
        let to = arena.cluster.folder().join(format!("{node}-other")).display().to_string();
        let begin = Instant::now();
        let words = ["db", "move-path", "DB1", "--to", &to, "--node", node, "--follow"];
        arena.dagctl_beside(&words).await?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    let longest_ms = traffic.longest_since(begin).await?.as_millis() as u64;
    Ok(PathMove { mib, seconds, longest_ms, calm_ms })
}

/// Kills all nodes when so many MiB were acknowledged since the last flush.
pub async fn replay(folder: &Path, mib: u64, report: &mut Report) -> anyhow::Result<()> {
    // A copy is flushed when it holds a quarter of the budget: here, not before the kill.
    let budget = format!("budget.memory={}MiB", 16 * mib);
    let settings = vec![budget.parse::<Setting>()?];
    let mut arena =
        Arena::up_with(folder, "three-node", Timeouts::Default, 1, CLIENTS, settings).await?;
    fill(&arena, mib).await?;
    let names = arena.cluster.names();
    for name in &names {
        let flushed = size_of(&state_folder(&arena, name)?)?;
        ensure!(flushed < mib << 19, "{name} has flushed {flushed} bytes: nothing is replayed");
    }
    arena.cluster.kill_all(&names)?;
    let begin = Instant::now();
    arena.cluster.start_all(&names, Lifetime::WithParent).await?;
    arena.wait_mounted(1, Duration::from_secs(120)).await?;
    let mounted_seconds = begin.elapsed().as_secs_f64();
    crate::hundred::write_all(&arena, 1).await?;
    let written_seconds = begin.elapsed().as_secs_f64();
    arena.dagctl(&["status", "--wait-healthy", "--timeout", "120"])?;
    arena.verify()?;
    let mib = mib as f64;
    report.add(Line::Replay(Replay { mib, mounted_seconds, written_seconds }))
}

/// A seed as it was seen.
struct Seen {
    seconds: f64,
    /// Bytes that were sent.
    bytes: u64,
    phases: Vec<(String, f64)>,
}

/// Builds a copy anew, whole.
async fn reseed(arena: &Arena, target: &str, options: &[&str]) -> anyhow::Result<Seen> {
    let copy = format!("DB1@{target}");
    let mut words = vec!["copy", "reseed", &copy, "--whole", "--follow", "-o", "json"];
    words.extend_from_slice(options);
    let (begin, mut bytes, mut phases) = (Instant::now(), 0, Vec::new());
    let mut since = begin;
    let seeding = arena.dagctl_beside(&words);
    tokio::pin!(seeding);
    let said = loop {
        tokio::select! {
            said = &mut seeding => break said?,
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                let status = arena.status().await?;
                let mut seeds = status.copies.iter().filter_map(|copy| copy.seed.as_ref());
                let Some(seed) = seeds.next() else { continue };
                bytes = bytes.max(seed.total_bytes);
                add(&mut phases, seed.phase().as_str_name(), &mut since);
            }
        }
    };
    ensure!(said.contains("\"Done\""), "the seed ended otherwise: {said}");
    let seconds = begin.elapsed().as_secs_f64();
    add(&mut phases, "to its end", &mut since);
    healthy(arena).await?;
    ensure!(bytes > 0, "nobody saw how much was sent");
    Ok(Seen { seconds, bytes, phases })
}

/// Counts the time since the last look for this phase.
fn add(phases: &mut Vec<(String, f64)>, name: &str, since: &mut Instant) {
    let took = since.elapsed().as_secs_f64();
    *since = Instant::now();
    let name = name.trim_start_matches("SEED_PHASE_").to_lowercase();
    match phases.last_mut().filter(|(last, _)| *last == name) {
        Some((_, sum)) => *sum += took,
        None => phases.push((name, took)),
    }
}

/// Waits until every copy is level again.
async fn healthy(arena: &Arena) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let status = arena.status().await?;
        let well = |status| matches!(status, CopyStatus::Healthy | CopyStatus::Mounted);
        if status.copies.iter().all(|copy| well(copy.status())) {
            return Ok(());
        }
        ensure!(begin.elapsed() < Duration::from_secs(60), "a copy stays behind");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Memory of some processes from now on.
struct Watch {
    over: Arc<AtomicBool>,
    before: Vec<u64>,
    most: Arc<Vec<AtomicU64>>,
    watcher: std::thread::JoinHandle<()>,
}

impl Watch {
    fn begin(arena: &Arena, nodes: &[&str]) -> anyhow::Result<Self> {
        let pid = |name: &&str| -> anyhow::Result<i32> {
            let process = arena.cluster.node(name)?.process.as_ref();
            Ok(process.context("it was never started")?.pid)
        };
        let pids = nodes.iter().map(pid).collect::<anyhow::Result<Vec<i32>>>()?;
        let bytes = |pid: i32| Figures::of(pid).map_or(0, |figures| figures.anonymous_bytes);
        let before: Vec<u64> = pids.iter().map(|pid| bytes(*pid)).collect();
        let most: Arc<Vec<AtomicU64>> =
            Arc::new(before.iter().map(|b| AtomicU64::new(*b)).collect());
        let over = Arc::new(AtomicBool::new(false));
        let (seen, stop) = (most.clone(), over.clone());
        let watcher = std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                for (pid, most) in pids.iter().zip(seen.iter()) {
                    most.fetch_max(bytes(*pid), Ordering::AcqRel);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(Self { over, before, most, watcher })
    }

    /// By how many bytes each grew at most.
    fn end(self) -> Vec<u64> {
        self.over.store(true, Ordering::Release);
        self.watcher.join().expect("a watcher does not panic");
        let most = self.most.iter().map(|most| most.load(Ordering::Acquire));
        most.zip(self.before).map(|(most, before)| most - before).collect()
    }
}

/// The state of the node's copy of the only database, wherever the newest replica keeps it.
fn state_folder(arena: &Arena, node: &str) -> anyhow::Result<PathBuf> {
    let database = arena.databases[0].database.to_string();
    let copies = arena.cluster.node(node)?.folder.join("copies").join(database);
    let mut found = Vec::new();
    for entry in fs::read_dir(&copies)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let replica = name.strip_prefix("gen-1-").and_then(|number| number.parse::<u64>().ok());
        found.extend(replica.map(|replica| (replica, path.join("state"))));
    }
    let newest = found.into_iter().max_by_key(|(replica, _)| *replica);
    Ok(newest.with_context(|| format!("no copy in {}", copies.display()))?.1)
}

/// Bytes of the files in a folder.
fn size_of(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        // A file may go while we look.
        sum += entry?.metadata().map_or(0, |facts| if facts.is_file() { facts.len() } else { 0 });
    }
    Ok(sum)
}

/// Nothing of these files is in memory any more: a source is as cold as `cp` finds it.
fn forget(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        match File::open(entry?.path()) {
            Ok(file) => rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?,
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// `cp` and sync, file by file. Gives bytes and seconds.
fn copy_files(from: &Path, to: &Path) -> anyhow::Result<(u64, f64)> {
    fs::create_dir_all(to)?;
    let begin = Instant::now();
    let mut bytes = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match fs::copy(entry.path(), &target) {
            Ok(copied) => bytes += copied,
            // Compaction takes files away.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        }
        File::open(&target)?.sync_all()?;
    }
    File::open(to)?.sync_all()?;
    let took = begin.elapsed().as_secs_f64();
    fs::remove_dir_all(to)?;
    Ok((bytes, took))
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_copied_and_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let from = folder.path().join("from");
        fs::create_dir(&from).expect("a folder");
        for (name, size) in [("a", 70_000), ("b", 5)] {
            fs::write(from.join(name), vec![1; size]).expect("a file");
        }
        let to = folder.path().join("to");
        let (bytes, seconds) = copy_files(&from, &to).expect("copied");
        assert_eq!((bytes, size_of(&from).expect("a size")), (70_005, 70_005));
        assert!(seconds > 0.0 && !to.exists());
    }

    #[test]
    fn a_seed_is_told_as_a_share_of_cp() {
        let seeded = Seeded {
            mib: 2_048.0,
            seconds: vec![9.0, 10.0, 12.0],
            phases: vec![("Copying".into(), 8.0)],
            cp_seconds: vec![7.0, 8.0, 9.0],
            source_growth_mib: 3.0,
            target_growth_mib: 4.0,
        };
        let text = seeded.sentence();
        assert!(text.contains("10.0 s (205 MiB/s)") && text.contains("80 % of its rate"), "{text}");
    }
}
