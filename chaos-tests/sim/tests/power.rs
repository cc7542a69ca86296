//! Power loss for real: a log on an ext4 file system that is shut down in the middle of its work.
//!
//! Killing a process never tests a sync, because the page cache outlives it. `EXT4_IOC_SHUTDOWN`
//! without a flush of the journal does: every later call fails, and after the next mount everything
//! that was not synced is gone. It needs root and a loop device; without them the test says so.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dag_types::{LogId, Millis};
use storage::disk::RealDisk;
use storage::log::{
    CopyLog, EntryCache, LogEntry, LogExpectations, LogObserver, LogPlace, Position, VoteRecord,
};
use storage::volume::{SteadyClock, Volume, VolumeOptions};

const ROUNDS: u64 = 6;

struct Nobody;

impl LogObserver for Nobody {
    fn before_purge(&self, _point: Position) -> std::io::Result<()> {
        Ok(())
    }

    fn vote_saved(&self, _vote: VoteRecord) {}
}

/// A file system of its own on a loop device; taken down when dropped.
struct LoopMount {
    image: PathBuf,
    at: PathBuf,
    _folder: tempfile::TempDir,
}

impl LoopMount {
    /// Why there is none, where there is none.
    fn make() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|fault| fault.to_string())?;
        let (image, at) = (folder.path().join("image"), folder.path().join("mount"));
        std::fs::create_dir(&at).map_err(|fault| fault.to_string())?;
        let file = File::create(&image).map_err(|fault| fault.to_string())?;
        file.set_len(128 << 20).map_err(|fault| fault.to_string())?;
        run(Command::new("mkfs.ext4").arg("-q").arg("-F").arg(&image))?;
        let made = Self { image, at, _folder: folder };
        made.mount()?;
        Ok(made)
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at))
    }

    /// The power goes: nothing that is not on the device gets there any more.
    fn cut_power(&self) {
        let root = File::open(&self.at).expect("the mount's root");
        // SAFETY: the call takes a pointer to a 32-bit number of flags and keeps nothing of it.
        unsafe {
            let shutdown = rustix::ioctl::Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH);
            rustix::ioctl::ioctl(&root, shutdown).expect("ext4 can be shut down");
        }
    }

    /// The power is back.
    fn restore(&self) {
        run(Command::new("umount").arg(&self.at)).expect("nothing holds the mount");
        self.mount().expect("it was mounted before");
    }
}

/// `_IOR('X', 125, u32)`.
const EXT4_IOC_SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const NO_LOG_FLUSH: u32 = 2;

impl Drop for LoopMount {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|fault| format!("{command:?}: {fault}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn clock() -> SteadyClock {
    let start = Instant::now();
    Arc::new(move || Millis(start.elapsed().as_millis() as u64))
}

fn place(volume: &Volume, folder: &Path, session: u64) -> LogPlace {
    LogPlace {
        volume: volume.clone(),
        cache: Arc::new(EntryCache::new(1 << 20)),
        folder: folder.to_path_buf(),
        session,
        observer: Arc::new(Nobody),
    }
}

/// What was told to be durable before the power went.
#[derive(Default)]
struct Told {
    /// Entries: one more than the last index.
    entries: AtomicU64,
    votes: AtomicU64,
}

fn payload(index: u64) -> Bytes {
    Bytes::from(vec![index as u8; (index as usize * 37) % 9_000])
}

/// Writes entries and votes until the disk fails.
fn work(log: &CopyLog, told: &Arc<Told>, term: u64) {
    let (failed, failing) = mpsc::channel();
    let first = log.bounds().last.map_or(0, |last| last.index + 1);
    for index in first.. {
        let (note, failed, end) = (told.clone(), failed.clone(), index + 1);
        let entry = LogEntry { id: LogId { term, index }, kind: 1, payload: payload(index) };
        log.append(
            vec![entry],
            Box::new(move |result| match result {
                Ok(()) => drop(note.entries.fetch_max(end, Ordering::SeqCst)),
                Err(_) => drop(failed.send(())),
            }),
        );
        if index % 16 == 0 {
            let (note, vote) = (told.clone(), term * 1_000_000 + index);
            let record = VoteRecord { term: vote, voted_for: 1, committed: false };
            let done = move |result: Result<(), _>| {
                if result.is_ok() {
                    note.votes.fetch_max(vote, Ordering::SeqCst);
                }
            };
            log.save_vote(record, Box::new(done));
        }
        std::thread::sleep(Duration::from_micros(200));
        if failing.try_recv().is_ok() {
            return;
        }
    }
}

#[test]
fn what_was_told_to_be_durable_survives_a_real_power_loss() {
    let mount = match LoopMount::make() {
        Ok(mount) => mount,
        Err(why) => {
            println!("SKIPPED (needs: root, mkfs.ext4 and a loop device): {why}");
            return;
        }
    };
    let (told, folder) = (Arc::new(Told::default()), mount.at.join("log"));
    for round in 1..=ROUNDS {
        let disk = Arc::new(RealDisk::new());
        let volume = Volume::start(disk, VolumeOptions::default(), clock()).expect("a volume");
        let log = match round {
            1 => CopyLog::create(place(&volume, &folder, round), None, None).expect("a new log"),
            _ => CopyLog::open(place(&volume, &folder, round), LogExpectations::default())
                .expect("a loss of power fails no log"),
        };
        if round == 1 {
            File::open(&mount.at).and_then(|root| root.sync_all()).expect("the root is synced");
        }
        let kept = log.bounds().last.map_or(0, |last| last.index + 1);
        let vote = log.vote().map_or(0, |vote| vote.term);
        let (entries, votes) =
            (told.entries.load(Ordering::SeqCst), told.votes.load(Ordering::SeqCst));
        println!("round {round}: told {entries} entries, kept {kept}; vote {votes}, kept {vote}");
        assert!(kept >= entries && vote >= votes, "what was told is lost");
        let read = log.read(0, kept, usize::MAX);
        let whole = kept == 0
            || read.expect("readable").iter().zip(0..).all(|(e, i)| e.payload == payload(i));
        assert!(whole, "an entry came back changed");
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| work(&log, &told, round));
            std::thread::sleep(Duration::from_millis(150 + round * 37));
            mount.cut_power();
            worker.join().expect("the worker ends when the disk fails");
        });
        assert!(told.entries.load(Ordering::SeqCst) > entries, "the round wrote nothing");
        volume.stop();
        drop((log, volume));
        mount.restore();
    }
}
