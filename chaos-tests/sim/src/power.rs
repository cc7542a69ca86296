//! A node's disk, with what a simulation does to it beside its own faults: power that goes in the
//! middle of something, and time.
//!
//! Everything that a node does to its disk happens inside one tick of virtual time, and a crash
//! happens between ticks. So that a crash can also come between two calls that belong together
//! (write and sync, a file and its name), the power can be set to go after a number of calls: every
//! later call fails, and the world turns the node off before anything of it is heard.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use storage::disk::{Disk, DiskFile, DiskLock, OpenMode, SimDisk};

/// A simulated disk and its power. Clones are the same disk.
#[derive(Clone)]
pub struct PowerDisk {
    disk: SimDisk,
    power: Arc<Mutex<Power>>,
}

#[derive(Default)]
struct Power {
    calls: u64,
    off_at: Option<u64>,
    off: bool,
    slow: Duration,
    owed: Duration,
}

impl PowerDisk {
    /// A disk with power.
    pub fn new(disk: SimDisk) -> Self {
        Self { disk, power: Arc::default() }
    }

    /// The disk itself.
    pub fn sim(&self) -> &SimDisk {
        &self.disk
    }

    /// The power goes after so many more calls.
    pub fn cut_after(&self, calls: u64) {
        let mut power = self.power();
        power.off_at = Some(power.calls + calls);
    }

    /// The power goes now.
    pub fn cut(&self) {
        self.power().off = true;
    }

    /// The power stays, whatever was said before.
    pub fn keep(&self) {
        self.power().off_at = None;
    }

    /// Whether the power has gone.
    pub fn is_off(&self) -> bool {
        self.power().off
    }

    /// The power is back.
    pub fn restore(&self) {
        let mut power = self.power();
        (power.off, power.off_at, power.owed) = (false, None, Duration::ZERO);
    }

    /// Each call takes this much longer from now on.
    pub fn slow_down(&self, by: Duration) {
        self.power().slow = by;
    }

    /// Whether calls take longer than they should.
    pub fn is_slow(&self) -> bool {
        self.power().slow > Duration::ZERO
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.power().calls
    }

    fn power(&self) -> MutexGuard<'_, Power> {
        self.power.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// Counts a call, and fails it where the power has gone.
    fn call(&self) -> io::Result<()> {
        let mut power = self.power();
        power.calls += 1;
        if power.off_at.is_some_and(|at| power.calls > at) {
            power.off = true;
        }
        if power.off {
            return Err(io::Error::other("the power is off"));
        }
        let slow = power.slow;
        power.owed += slow;
        Ok(())
    }
}

impl Disk for PowerDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.call()?;
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(PowerFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.rename(from, to)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.call()?;
        self.disk.list(folder)
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.create_dir_all(folder)
    }

    fn sync_dir(&self, folder: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.sync_dir(folder)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.call()?;
        self.disk.remove_dir_all(folder)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.call()?;
        self.disk.exists(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.call()?;
        self.disk.free_bytes(path)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<DiskLock> {
        self.call()?;
        self.disk.lock(path, owner)
    }

    fn take_latency(&self) -> Duration {
        let owed = std::mem::take(&mut self.power().owed);
        owed + self.disk.take_latency()
    }
}

struct PowerFile {
    disk: PowerDisk,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for PowerFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.call()?;
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.disk.call()?;
        self.file.write_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.call()?;
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.call()?;
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.call()?;
        self.file.set_len(bytes)
    }

    fn flush_group(&self) -> Option<u64> {
        self.file.flush_group()
    }
}
