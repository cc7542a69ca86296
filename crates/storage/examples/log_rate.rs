//! How fast the log is on a folder's disk, beside the disk itself in the same minute.
//!
//! `cargo run --release -p storage --example log_rate [folder]`
//!
//! Each cell: commits per second, MB per second, and the time of one commit (median and p99). The
//! raw loop writes the same bytes unbuffered into one preallocated file and syncs after each.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dag_types::{LogId, Millis};
use storage::disk::{AlignedBuffer, BLOCK, Disk, OpenMode, RealDisk};
use storage::log::{CopyLog, EntryCache, LogEntry, LogObserver, LogPlace, Position, VoteRecord};
use storage::volume::{Volume, VolumeOptions};

const CELL: Duration = Duration::from_secs(2);
/// Purged like this, as a flusher would.
const PURGE_BEHIND: u64 = 2000;

struct Nobody;

impl LogObserver for Nobody {
    fn before_purge(&self, _point: Position) -> std::io::Result<()> {
        Ok(())
    }

    fn vote_saved(&self, _vote: VoteRecord) {}
}

struct Cell {
    commits: u64,
    bytes: u64,
    elapsed: Duration,
    times: Vec<Duration>,
}

impl Cell {
    fn print(mut self, what: &str) {
        self.times.sort_unstable();
        let at = |share: f64| {
            let index = (self.times.len() as f64 * share) as usize;
            self.times[index.min(self.times.len() - 1)].as_secs_f64() * 1e3
        };
        let seconds = self.elapsed.as_secs_f64();
        println!(
            "{what:<34} {:>8.0} commits/s {:>7.0} MB/s  {:.3} / {:.3} ms",
            self.commits as f64 / seconds,
            self.bytes as f64 / 1e6 / seconds,
            at(0.5),
            at(0.99),
        );
    }
}

/// Calls `commit` until the time is over; it gives the bytes it made durable.
fn measure(mut commit: impl FnMut() -> u64) -> Cell {
    let (start, mut bytes, mut times) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < CELL {
        let begun = Instant::now();
        bytes += commit();
        times.push(begun.elapsed());
    }
    Cell { commits: times.len() as u64, bytes, elapsed: start.elapsed(), times }
}

fn raw(folder: &Path, size: usize, batch: usize) -> Cell {
    let disk = RealDisk::new();
    let path = folder.join("raw");
    let file_bytes = 64 << 20;
    drop(disk.open(&path, OpenMode::Create).expect("make the raw file"));
    let file = disk.open(&path, OpenMode::Direct).expect("open the raw file");
    let mut zeroes = AlignedBuffer::new(1 << 20);
    for at in (0..file_bytes).step_by(1 << 20) {
        file.write_at(zeroes.blocks_mut(1 << 20), at).expect("fill the raw file");
    }
    file.sync().expect("sync the raw file");
    let bytes = (size * batch).next_multiple_of(BLOCK);
    let mut buffer = AlignedBuffer::new(bytes);
    buffer.blocks_mut(bytes).fill(7);
    let mut at = 0;
    let cell = measure(|| {
        if at + bytes as u64 > file_bytes {
            at = 0;
        }
        file.write_at(buffer.filled(), at).expect("write the raw file");
        file.sync().expect("sync the raw file");
        at += bytes as u64;
        (size * batch) as u64
    });
    disk.remove_file(&path).expect("remove the raw file");
    cell
}

/// One log and its next index.
struct Writer {
    log: CopyLog,
    next: u64,
    payload: Bytes,
}

impl Writer {
    fn new(volume: &Volume, folder: PathBuf, size: usize) -> Self {
        let place = LogPlace {
            volume: volume.clone(),
            cache: Arc::new(EntryCache::new(EntryCache::BUDGET_BYTES)),
            folder,
            session: 1,
            observer: Arc::new(Nobody),
        };
        let log = CopyLog::create(place, None, None).expect("make a log");
        Self { log, next: 0, payload: Bytes::from(vec![9; size]) }
    }

    fn append(&mut self, batch: usize, sender: &mpsc::Sender<()>) {
        let payload = &self.payload;
        let entry =
            |index| LogEntry { id: LogId { term: 1, index }, kind: 1, payload: payload.clone() };
        let entries = (self.next..self.next + batch as u64).map(entry).collect();
        let sender = sender.clone();
        let done = Box::new(move |result: Result<_, _>| {
            result.expect("a healthy disk");
            let _ = sender.send(());
        });
        self.log.append(entries, done);
        self.next += batch as u64;
        if self.next.is_multiple_of(PURGE_BEHIND / 2) && self.next > PURGE_BEHIND {
            let id = LogId { term: 1, index: self.next - PURGE_BEHIND };
            let chain = self.log.chain_at(id.index).expect("an entry of the log");
            self.log.set_flushed((id, chain));
            self.log.purge(id).expect("purge what is flushed");
        }
    }
}

fn logs(folder: &Path, size: usize, batch: usize, copies: usize) -> Cell {
    let start = Instant::now();
    let clock = Arc::new(move || Millis(start.elapsed().as_millis() as u64));
    let volume = Volume::start(Arc::new(RealDisk::new()), VolumeOptions::default(), clock)
        .expect("start the log thread");
    let mut writers: Vec<Writer> = (0..copies)
        .map(|copy| Writer::new(&volume, folder.join(format!("log-{copy}")), size))
        .collect();
    let (sender, receiver) = mpsc::channel();
    let cell = measure(|| {
        writers.iter_mut().for_each(|writer| writer.append(batch, &sender));
        writers.iter().for_each(|_| receiver.recv().expect("the log thread lives"));
        (size * batch * copies) as u64
    });
    volume.stop();
    for copy in 0..copies {
        std::fs::remove_dir_all(folder.join(format!("log-{copy}"))).expect("remove a log");
    }
    cell
}

fn main() {
    let above = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let folder = above.join(format!("log-rate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("make the folder");
    println!("{:<34} {:>18} {:>12}  {}", "", "", "", "median / p99 of one commit");
    for (size, batch) in [(4096, 1), (4096, 16), (51_200, 4)] {
        let name = |what: &str| format!("{what}, {batch} x {size} bytes");
        raw(&folder, size, batch).print(&name("raw disk"));
        logs(&folder, size, batch, 1).print(&name("one log"));
        logs(&folder, size, batch, 8).print(&name("eight logs, one sync"));
    }
    std::fs::remove_dir_all(&folder).expect("remove the folder");
}
