//! The log on the real file system, with its real threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dag_types::Millis;
use storage::disk::{Disk, RealDisk};
use storage::log::{CopyLog, EntryCache, LogExpectations, LogPlace};
use storage::volume::{SteadyClock, Volume};

use super::rig::{Notes, all, entry, small_segments};

const WAIT: Duration = Duration::from_secs(60);

fn clock() -> SteadyClock {
    let start = Instant::now();
    Arc::new(move || Millis(start.elapsed().as_millis() as u64))
}

fn place(volume: &Volume, folder: &Path, session: u64) -> LogPlace {
    LogPlace {
        volume: volume.clone(),
        cache: Arc::new(EntryCache::new(100_000)),
        folder: folder.to_path_buf(),
        session,
        observer: Arc::new(Notes::default()),
    }
}

fn write_and_reopen(disk: RealDisk) {
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume::start(Arc::new(disk), small_segments(), clock()).unwrap();
    let log_folder = folder.path().join("log");
    let log = CopyLog::create(place(&volume, &log_folder, 1), None, None).unwrap();
    let (sender, receiver) = mpsc::channel();
    for index in 0..300 {
        let sender = sender.clone();
        let done = Box::new(move |result| sender.send(result).unwrap());
        log.append(vec![entry(1, index, (index as usize * 37) % 9000)], done);
    }
    for _ in 0..300 {
        assert_eq!(receiver.recv_timeout(WAIT).unwrap(), Ok(()));
    }
    assert_eq!(all(&log).len(), 300);
    let chain = log.chain_at(299);
    let done = Box::new(move |result| sender.send(result).unwrap());
    log.close(done);
    assert_eq!(receiver.recv_timeout(WAIT).unwrap(), Ok(()));
    volume.stop();

    let volume = Volume::start(Arc::new(disk), small_segments(), clock()).unwrap();
    let log = CopyLog::open(place(&volume, &log_folder, 2), LogExpectations::default()).unwrap();
    assert_eq!(log.chain_at(299), chain);
    let read = all(&log);
    assert!(
        read.iter()
            .enumerate()
            .all(|(index, read)| { *read == entry(1, index as u64, (index * 37) % 9000) })
    );
    volume.stop();
}

#[test]
fn a_log_on_the_real_disk_comes_back_whole() {
    write_and_reopen(RealDisk::new());
}

#[test]
fn a_log_without_unbuffered_files_comes_back_whole() {
    write_and_reopen(RealDisk::buffered());
}

#[test]
fn a_stopped_volume_refuses_instead_of_hanging() {
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume::start(Arc::new(RealDisk::new()), small_segments(), clock()).unwrap();
    let log = CopyLog::create(place(&volume, &folder.path().join("log"), 1), None, None).unwrap();
    volume.stop();
    let (sender, receiver) = mpsc::channel();
    log.append(vec![entry(1, 0, 10)], Box::new(move |result| sender.send(result).unwrap()));
    assert!(receiver.recv_timeout(WAIT).unwrap().is_err());
}

#[test]
fn free_bytes_of_the_real_volume_are_known() {
    let folder = tempfile::tempdir().unwrap();
    assert!(RealDisk::new().free_bytes(folder.path()).unwrap() > 0);
}
