//! RocksDB and what surrounds it: kills, full volumes, memory, files.
//!
//! A test that needs a process of its own runs this binary again with an environment variable that
//! turns the same test into the process's work.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dag_types::{LogId, Millis};
use storage::flusher::{Attached, FlushFault, FlushRules, Flushable, Flusher, LogSynced};
use storage::state::rocks::{RocksState, SharedResources, StateBudget};
use storage::state::{Position, StateError, StateRead, StateStore, applied};

use super::history::{Numbers, batch, whole_batches};
use super::subject::{delete, files, put, shared};

const WORK: &str = "STATE_TEST_FOLDER";
const MIB: usize = 1 << 20;

/// The folder to work in, where this process is such a child.
fn work() -> Option<PathBuf> {
    std::env::var_os(WORK).map(PathBuf::from)
}

/// This test as a process of its own; `shell` is run before it in the same process.
fn child(test: &str, folder: &Path, shell: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell} exec \"$@\""), "sh"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("state::limits::{test}"), "--nocapture"]);
    command.env(WORK, folder);
    command
}

fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_folder_has_one_owner_at_a_time() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let state = RocksState::create(&shared(), &folder).unwrap();
    let refused = RocksState::open(&shared(), &folder).err().unwrap();
    assert!(matches!(refused, StateError::Engine { operation: "open", .. }), "{refused}");
    let snapshot = state.snapshot();
    drop(state);
    assert!(RocksState::open(&shared(), &folder).is_err(), "a snapshot keeps it open");
    drop(snapshot);
    RocksState::open(&shared(), &folder).unwrap();
}

/// Writes without end, flushes beside it, and says after each flush what is durable.
fn write_without_end(folder: &Path, seed: u64) -> ! {
    let state = Arc::new(RocksState::open(&shared(), folder).unwrap());
    let mut n = whole_batches(&*state, seed, "in the child");
    let flushing = state.clone();
    thread::spawn(move || {
        loop {
            let (at, _) = applied(&*flushing).unwrap().unwrap_or_default();
            flushing.flush().unwrap();
            // The first may come before the first batch.
            if at.index > 0 {
                println!("flushed {}", at.index);
            }
        }
    });
    loop {
        n += 1;
        state.write(&batch(seed, n)).unwrap();
    }
}

fn kill_after(mut child: Child, flushes: u64) -> u64 {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let flushed = lines.filter_map(|line| line.unwrap().strip_prefix("flushed ")?.parse().ok());
    let last = flushed.take(flushes as usize).last().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    last
}

#[test]
fn a_killed_writer_comes_back_as_whole_batches_through_its_last_flush() {
    const SEED: u64 = 31;
    if let Some(folder) = work() {
        write_without_end(&folder, SEED);
    }
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    drop(RocksState::create(&shared(), &folder).unwrap());
    let mut numbers = Numbers::new(1);
    let name = "a_killed_writer_comes_back_as_whole_batches_through_its_last_flush";
    for round in 0..8 {
        let child = child(name, &folder, "").stdout(Stdio::piped()).spawn().unwrap();
        let flushed = kill_after(child, 1 + numbers.below(6));
        let state = RocksState::open(&shared(), &folder).unwrap();
        let held = whole_batches(&state, SEED, &format!("round {round}"));
        assert!(held >= flushed, "round {round}: flushed {flushed}, held {held}");
    }
}

#[test]
fn a_flush_that_finds_no_room_is_named_ends_writing_and_harms_nothing_flushed() {
    const SEED: u64 = 41;
    if let Some(folder) = work() {
        let state = RocksState::open(&shared(), &folder).unwrap();
        state.write(&[put([0x80], vec![1; 16 * MIB])]).unwrap();
        let error = state.flush().unwrap_err();
        assert!(matches!(error, StateError::Full { operation: "flush", .. }), "{error}");
        assert!(state.write(&[put([0x10], "more")]).is_err(), "no writes after a failed flush");
        assert!(state.flush().is_err(), "no second try");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let state = RocksState::create(&shared(), &folder).unwrap();
    (1..=10).for_each(|n| state.write(&batch(SEED, n)).unwrap());
    state.flush().unwrap();
    drop(state);
    // A file may have 4 MiB here (in blocks of 512 bytes); beyond it a write fails.
    let name = "a_flush_that_finds_no_room_is_named_ends_writing_and_harms_nothing_flushed";
    succeed(child(name, &folder, "trap '' XFSZ; ulimit -f 8192;"));
    let state = RocksState::open(&shared(), &folder).unwrap();
    assert_eq!(whole_batches(&state, SEED, "reopened"), 10);
}

/// A copy whose log is always durable.
struct Logless {
    state: RocksState,
    flushed: AtomicU64,
}

impl Flushable for Logless {
    fn unflushed_bytes(&self) -> u64 {
        self.state.unflushed_bytes()
    }
    fn applied(&self) -> Result<Option<Position>, StateError> {
        applied(&self.state)
    }
    fn sync_log(&self, _: LogId, synced: LogSynced) {
        synced(Ok(()));
    }
    fn flush_state(&self) -> Result<(), StateError> {
        self.state.flush()
    }
    fn flushed(&self, (at, _): Position) {
        self.flushed.store(at.index, Ordering::SeqCst);
    }
    fn failed(&self, fault: FlushFault) {
        panic!("{fault}");
    }
}

/// Samples the unflushed memory of all states until told to stop; gives the most seen.
fn most_memory(shared: SharedResources, stop: Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let mut most = 0;
        while !stop.load(Ordering::SeqCst) {
            most = most.max(shared.write_buffer_bytes());
            thread::sleep(Duration::from_millis(1));
        }
        most
    })
}

#[test]
fn many_copies_together_stay_within_the_memory_of_one_budget() {
    const BUDGET: usize = 32 * MIB;
    let home = tempfile::tempdir().unwrap();
    let budget = StateBudget { unflushed_bytes: BUDGET, ..StateBudget::default() };
    let shared = SharedResources::new(budget).unwrap();
    let began = Instant::now();
    let clock = move || Millis(began.elapsed().as_millis() as u64);
    let flusher = Flusher::start(FlushRules::for_budget(BUDGET as u64), clock).unwrap();
    let copies: Vec<(Arc<Logless>, Attached)> = (0..20)
        .map(|n| {
            let state = RocksState::create(&shared, &home.path().join(n.to_string())).unwrap();
            let copy = Arc::new(Logless { state, flushed: AtomicU64::new(0) });
            let attached = flusher.attach(copy.clone());
            (copy, attached)
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let most = most_memory(shared.clone(), stop.clone());
    let mut slowed = 0;
    // 400 MB into a budget of 32: a writer that heeds the pressure, as groups do.
    for n in 0..8000_u64 {
        let (copy, attached) = &copies[(n % 20) as usize];
        while attached.pressure() == storage::flusher::Pressure::Stop {
            slowed += 1;
            thread::sleep(Duration::from_millis(1));
        }
        let key = [&[0x80][..], &n.to_be_bytes()].concat();
        let mut batch = batch(1, n / 20 + 1);
        batch.push(put(key, vec![n as u8; 50_000]));
        copy.state.write(&batch).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let most = most.join().unwrap();
    assert!(most < BUDGET as u64 * 3 / 2, "{most} bytes unflushed at most, slowed {slowed} times");
    flusher.close();
    for (copy, _) in &copies {
        assert_eq!(copy.state.unflushed_bytes(), 0);
        assert_eq!(copy.flushed.load(Ordering::SeqCst), 400);
    }
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn an_idle_copy_costs_little_memory_few_files_and_no_thread() {
    if let Some(folder) = work() {
        let shared = shared();
        let open = |n: u64| {
            let folder = folder.join(n.to_string());
            let state = RocksState::create(&shared, &folder).unwrap();
            (1..=20).for_each(|n| state.write(&batch(1, n)).unwrap());
            state.flush().unwrap();
            drop(state);
            RocksState::open(&shared, &folder).unwrap()
        };
        let _first: Vec<RocksState> = (0..5).map(open).collect();
        let before = (status("VmRSS:"), open_files(), status("Threads:"));
        let _more: Vec<RocksState> = (5..45).map(open).collect();
        let kib = (status("VmRSS:") - before.0) / 40;
        let files = (open_files() - before.1) as f64 / 40.0;
        println!("{kib} KiB, {files} files, {} threads more", status("Threads:") - before.2);
        assert!(kib < 1536, "{kib} KiB per idle copy");
        assert!(files <= 16.0, "{files} files per idle copy");
        assert_eq!(status("Threads:"), before.2);
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let name = "an_idle_copy_costs_little_memory_few_files_and_no_thread";
    let output = succeed(child(name, home.path(), ""));
    assert!(output.contains("files"), "{output}");
}

fn body_key(n: u64) -> Vec<u8> {
    [&[0x80][..], &n.to_be_bytes()].concat()
}

fn fill_with_bodies(state: &RocksState, count: u64) {
    for n in 0..count {
        state.write(&[put(body_key(n), vec![n as u8; 50_000])]).unwrap();
        if n % 500 == 499 {
            state.flush().unwrap();
        }
    }
}

#[test]
fn a_state_that_is_to_be_closed_moves_no_bodies_any_more_and_opens_whole() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let state = RocksState::create(&shared(), &folder).unwrap();
    fill_with_bodies(&state, 1000);
    for n in (0..1000).filter(|n| n % 4 != 0) {
        state.write(&[delete(body_key(n))]).unwrap();
    }
    state.flush().unwrap();
    let size = || -> u64 {
        files(&folder, ".blob").iter().map(|path| path.metadata().unwrap().len()).sum()
    };
    state.end_work();
    // Whether the pass says that it was broken off does not matter: it must end at once.
    let _ = state.tidy();
    assert!(size() > 45_000_000, "nothing was moved: {}", size());
    drop(state);
    let state = RocksState::open(&shared(), &folder).unwrap();
    assert_eq!(state.get(&body_key(8)).unwrap().unwrap().as_ref(), vec![8; 50_000]);
    assert_eq!(state.get(&body_key(9)).unwrap(), None);
    state.tidy().unwrap();
    assert!(size() < 25_000_000, "the next opening tidies: {}", size());
}

#[test]
fn bodies_that_were_deleted_give_their_space_back() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("state");
    let state = RocksState::create(&shared(), &folder).unwrap();
    let key = body_key;
    fill_with_bodies(&state, 4000);
    assert_eq!(state.tidy_due().unwrap(), None);
    let size = || -> u64 {
        files(&folder, ".blob").iter().map(|path| path.metadata().unwrap().len()).sum()
    };
    let full = size();
    assert!(full > 200_000_000, "bodies lie in blob files: {full}");
    // Three of four go, spread over all files.
    for n in (0..4000).filter(|n| n % 4 != 0) {
        state.write(&[delete(key(n))]).unwrap();
    }
    state.flush().unwrap();
    // The garbage is counted once a compaction has met the deletions.
    let tidied = match state.tidy_if_due().unwrap() {
        Some(tidied) => tidied,
        None => state.tidy().unwrap(),
    };
    assert_eq!(state.tidy_if_due().unwrap(), None, "nothing is left to do");
    assert!(tidied.bytes_after < full / 3, "{tidied:?}");
    let waited = Instant::now();
    while size() > full / 3 && waited.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(size() < full / 3, "{} of {full} left", size());
    assert_eq!(state.get(&key(8)).unwrap().unwrap().as_ref(), vec![8; 50_000]);
    assert_eq!(state.get(&key(9)).unwrap(), None);
}
