//! What a copy's state takes in, and what it costs: batches and bytes per second with the flusher
//! running, bytes to disk per body byte, memory; then a hundred idle copies.
//!
//! `cargo run --release -p storage --example state_rate -- [folder] [MiB of bodies per case]`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dag_types::{Chain, LogId, Millis, Write};
use storage::flusher::{FlushFault, FlushRules, Flushable, Flusher, LogSynced, Pressure};
use storage::state::rocks::{RocksState, SharedResources, StateBudget};
use storage::state::{Position, StateError, StateRead, StateStore, applied, applied_write};

const MIB: u64 = 1 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let home = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let body_mib: u64 = arguments.next().map_or(2048, |n| n.parse().expect("a number of MiB"));
    let home = tempfile::tempdir_in(home).expect("a folder to work in");
    let budget = StateBudget::default();
    let shared = SharedResources::new(budget).expect("shared resources");
    for body in [4 << 10, 50 << 10] {
        rate(&shared, budget, &home.path().join(body.to_string()), body, body_mib * MIB);
    }
    idle(&shared, home.path());
}

/// A copy whose log is always durable: only the state is measured.
struct Copy(RocksState);

impl Flushable for Copy {
    fn unflushed_bytes(&self) -> u64 {
        self.0.unflushed_bytes()
    }
    fn applied(&self) -> Result<Option<Position>, StateError> {
        applied(&self.0)
    }
    fn sync_log(&self, _: LogId, synced: LogSynced) {
        synced(Ok(()));
    }
    fn flush_state(&self) -> Result<(), StateError> {
        self.0.flush()
    }
    fn flushed(&self, _: Position) {}
    fn failed(&self, fault: FlushFault) {
        panic!("{fault}");
    }
}

fn rate(shared: &SharedResources, budget: StateBudget, folder: &Path, body: usize, total: u64) {
    let state = RocksState::create(shared, folder).expect("create a state");
    let began = Instant::now();
    let clock = move || Millis(began.elapsed().as_millis() as u64);
    let rules = FlushRules::for_budget(budget.unflushed_bytes as u64);
    let flusher = Flusher::start(rules, clock).expect("start the flusher");
    let copy = Arc::new(Copy(state));
    let attached = flusher.attach(copy.clone());

    let batches = total / body as u64;
    let (cpu, written) = (cpu_seconds(), bytes_to_disk());
    let (mut slowest, mut waited, mut memory) = (Duration::ZERO, Duration::ZERO, Vec::new());
    for n in 0..batches {
        if n % (batches / 10).max(1) == 0 {
            memory.push(format!("{}", resident_mib()));
        }
        let stopped = Instant::now();
        while attached.pressure() == Pressure::Stop {
            std::thread::sleep(Duration::from_millis(1));
        }
        waited += stopped.elapsed();
        let batch = delivery(n, body);
        let one = Instant::now();
        copy.0.write(&batch).expect("write a batch");
        slowest = slowest.max(one.elapsed());
    }
    let applied = began.elapsed().as_secs_f64();
    flusher.close();
    let flushed = began.elapsed().as_secs_f64();
    let body_bytes = (batches * body as u64) as f64;
    println!("{body} B bodies, 5 small rows each: {batches} batches");
    println!(
        "  {:.0} batches/s, {:.0} MB/s of bodies ({flushed:.1} s, of it flush at close {:.1} s, \
         waiting for the flusher {:.1} s)",
        batches as f64 / flushed,
        body_bytes / flushed / 1e6,
        flushed - applied,
        waited.as_secs_f64(),
    );
    println!(
        "  {:.2} bytes to disk per body byte, {:.1} us CPU per batch, slowest write {:.1} ms",
        (bytes_to_disk() - written) as f64 / body_bytes,
        (cpu_seconds() - cpu) * 1e6 / batches as f64,
        slowest.as_secs_f64() * 1e3,
    );
    println!("  RSS MiB over the run: {}", memory.join(" "));
    read_back(&copy.0, batches, body);
}

/// Random reads of bodies, from files.
fn read_back(state: &RocksState, batches: u64, body: usize) {
    let began = Instant::now();
    const READS: u64 = 20_000;
    for n in 0..READS {
        let value = state.get(&body_key(scatter(n) % batches)).expect("read a body");
        assert_eq!(value.expect("the body is there").len(), body);
    }
    println!("  {:.0} random body reads/s", READS as f64 / began.elapsed().as_secs_f64());
}

fn idle(shared: &SharedResources, home: &Path) {
    let before = (resident_mib(), open_files(), threads());
    let began = Instant::now();
    let make = |n: u64| {
        let state = RocksState::create(shared, &home.join(format!("idle-{n}"))).expect("create");
        state.write(&delivery(n, 4096)).expect("write");
        state.flush().expect("flush");
        state
    };
    let copies: Vec<RocksState> = (0..100).map(make).collect();
    println!("100 idle copies, made in {:.1} s", began.elapsed().as_secs_f64());
    drop(copies);
    let began = Instant::now();
    let open = |n| RocksState::open(shared, &home.join(format!("idle-{n}"))).expect("open");
    let copies: Vec<RocksState> = (0..100).map(open).collect();
    let took = began.elapsed().as_secs_f64();
    let after = (resident_mib(), open_files(), threads());
    println!(
        "  opened in {took:.1} s; RSS {} -> {} MiB, open files {} -> {}, threads {} -> {}",
        before.0, after.0, before.1, after.1, before.2, after.2
    );
    let cpu = cpu_seconds();
    std::thread::sleep(Duration::from_secs(20));
    println!("  {:.3} % of a core while idle", (cpu_seconds() - cpu) / 20.0 * 100.0);
    drop(copies);
}

/// What a delivery writes: the applied row, two counters, a place, an index row, a body, and a
/// record that expires.
fn delivery(n: u64, body: usize) -> Vec<Write> {
    let row = |table: u8, number: u64, len: usize| Write::Put {
        key: key(table, number),
        value: noise(n ^ (u64::from(table) << 32), len),
    };
    vec![
        applied_write(LogId { term: 1, index: n }, Chain::START),
        row(0x10, n % 1000, 200),
        row(0x20, n, 60),
        row(0x30, n, 300),
        row(0xc0, scatter(n), 80),
        Write::Put { key: body_key(n), value: noise(n, body) },
    ]
}

fn key(table: u8, number: u64) -> Bytes {
    Bytes::from([&[table][..], &number.to_be_bytes()].concat())
}

/// Bodies lie by the hash of their content: in no order of time.
fn body_key(n: u64) -> Bytes {
    key(0x80, scatter(n))
}

fn scatter(n: u64) -> u64 {
    (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = scatter(seed) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).expect("a file of /proc");
    let line = text.lines().find(|line| line.starts_with(name)).expect("its field");
    line.split_whitespace().nth(1).expect("a value").parse().expect("a number")
}

fn bytes_to_disk() -> u64 {
    field("/proc/self/io", "write_bytes:")
}

fn resident_mib() -> u64 {
    field("/proc/self/status", "VmRSS:") / 1024
}

fn threads() -> u64 {
    field("/proc/self/status", "Threads:")
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("the open files").count()
}

/// User and system time of all threads.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a file of /proc");
    let after = stat.rsplit(')').next().expect("fields behind the name");
    let ticks = |at: usize| after.split_whitespace().nth(at).and_then(|n| n.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}
