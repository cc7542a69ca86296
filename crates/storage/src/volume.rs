//! A volume: one log thread that writes for all logs on it and syncs once for all of them.
//!
//! [`VolumeDriver`] carries out what the [`Scheduler`](crate::log::scheduler::Scheduler) says, one
//! action at a time. In production a thread drives it, and a second thread makes and gives up
//! segments ([`Volume::start`]). In a simulation a task drives it on virtual time
//! ([`Volume::simulated`], [`VolumeDriver::pump`]): the disk says what an action would have cost,
//! and its result counts only when that time has passed, so a crash finds work under way.
//!
//! ```text
//!  CopyLog ──(queued)──► inbox ──► driver ◄──► scheduler
//!                                    │ write, write, .., sync
//!                                    ▼
//!                                   disk ──► done
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use dag_types::Millis;

use crate::disk::{AlignedBuffer, Disk, DiskFile};
use crate::log::scheduler::{Action, Input, LogKey, Rules, Scheduler};
use crate::log::{LogFault, Position, SegmentSizes, Shared};

/// The monotonic clock of the node, in milliseconds; only spans between its readings count.
pub type SteadyClock = Arc<dyn Fn() -> Millis + Send + Sync>;

/// How a volume's logs are written.
#[derive(Debug, Clone)]
pub struct VolumeOptions {
    /// Bytes of one log in one write; a larger single entry goes alone. Default 1 MiB.
    pub write_bytes_max: usize,
    /// How long after its last batch a log claims that it was durable. Default 10 ms.
    pub claim_after: Millis,
    /// Syncs every written file, also where one sync covers all. Default off. For devices whose
    /// flush is not trusted to cover writes that other files of the same file system made.
    pub sync_every_file: bool,
    /// How large segments are.
    pub segments: SegmentSizes,
}

impl Default for VolumeOptions {
    fn default() -> Self {
        Self {
            write_bytes_max: 1 << 20,
            claim_after: Millis(10),
            sync_every_file: false,
            segments: SegmentSizes::default(),
        }
    }
}

/// A volume. Clones are the same volume.
#[derive(Clone)]
pub struct Volume {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    options: VolumeOptions,
    next_key: AtomicU64,
    inbox: Mutex<Inbox>,
    bell: Condvar,
    chores: Mutex<Chores>,
    chore_bell: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    waker: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

#[derive(Default)]
struct Inbox {
    messages: Vec<Message>,
    stopping: bool,
    /// The log thread sleeps and must be rung for.
    sleeping: bool,
}

enum Message {
    Attach(LogKey, Arc<Shared>),
    Queued(LogKey, usize),
    /// The next segment's bytes, or nothing where it could not be made.
    Prepared(LogKey, Option<u64>),
    /// Background work failed, and the log with it.
    Broken(LogKey, LogFault),
    Detach(LogKey),
}

#[derive(Default)]
struct Chores {
    waiting: VecDeque<Chore>,
    stopping: bool,
}

/// Work on a log's segments that no commit waits for.
pub(crate) enum Chore {
    /// Makes the next segment.
    Prepare {
        /// Whose.
        log: LogKey,
        /// Where.
        folder: PathBuf,
        /// How large.
        bytes: u64,
    },
    /// Makes the purge point durable in META, then removes or keeps the segments.
    GiveUp {
        /// Whose.
        log: Arc<Shared>,
        /// The purge point that allows it.
        point: Position,
        /// Their numbers, oldest first.
        segments: Vec<u64>,
    },
    /// Anything else that may wait for the disk.
    Call(Box<dyn FnOnce() + Send>),
}

impl Volume {
    /// A volume driven by its own two threads, until [`Volume::stop`].
    pub fn start(
        disk: Arc<dyn Disk>,
        options: VolumeOptions,
        clock: SteadyClock,
    ) -> io::Result<Self> {
        let volume = Self::new(disk, options);
        let mut driver = VolumeDriver::new(volume.clone(), false);
        let inner = volume.inner.clone();
        let log = std::thread::Builder::new().name("log".into()).spawn(move || {
            drive(&inner, &mut driver, &clock);
        })?;
        let chores = volume.clone();
        let background = std::thread::Builder::new()
            .name("log-segments".into())
            .spawn(move || chores.do_chores())?;
        volume.threads().extend([log, background]);
        Ok(volume)
    }

    /// A volume that does something only when its driver is pumped.
    pub fn simulated(disk: Arc<dyn Disk>, options: VolumeOptions) -> (Self, VolumeDriver) {
        let volume = Self::new(disk, options);
        let driver = VolumeDriver::new(volume.clone(), true);
        (volume, driver)
    }

    fn new(disk: Arc<dyn Disk>, options: VolumeOptions) -> Self {
        let inner = Inner {
            disk,
            options,
            next_key: AtomicU64::new(1),
            inbox: Mutex::default(),
            bell: Condvar::new(),
            chores: Mutex::default(),
            chore_bell: Condvar::new(),
            threads: Mutex::default(),
            waker: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Called whenever the driver of a simulated volume has something to do.
    pub fn set_waker(&self, waker: Arc<dyn Fn() + Send + Sync>) {
        *self.inner.waker.lock().expect("no panic while the waker is locked") = Some(waker);
    }

    /// Finishes what was asked for, ends the threads, and fails what comes later. Logs are closed
    /// first by whoever wants their last claims written.
    pub fn stop(&self) {
        self.inner.inbox().stopping = true;
        self.inner.ring();
        let threads = std::mem::take(&mut *self.threads());
        let mut threads = threads.into_iter();
        threads.next().map(JoinHandle::join);
        self.chores().stopping = true;
        self.inner.chore_bell.notify_all();
        threads.for_each(|thread| drop(thread.join()));
    }

    /// The disk behind it.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.inner.disk
    }

    /// How its logs are written.
    pub fn options(&self) -> &VolumeOptions {
        &self.inner.options
    }

    /// Bytes that may still be written, for refusing writes before the volume is full.
    pub fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.disk.free_bytes(path)
    }

    /// Runs something that may wait for the disk on the background thread.
    pub(crate) fn background(&self, call: impl FnOnce() + Send + 'static) {
        self.chore(Chore::Call(Box::new(call)));
    }

    pub(crate) fn new_key(&self) -> LogKey {
        LogKey(self.inner.next_key.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn attach(&self, log: LogKey, shared: Arc<Shared>) {
        self.send(Message::Attach(log, shared));
    }

    pub(crate) fn detach(&self, log: LogKey) {
        self.send(Message::Detach(log));
    }

    pub(crate) fn queued(&self, log: LogKey, bytes: usize) {
        self.send(Message::Queued(log, bytes));
    }

    fn send(&self, message: Message) {
        self.inner.inbox().messages.push(message);
        self.inner.ring();
    }

    pub(crate) fn chore(&self, chore: Chore) {
        self.chores().waiting.push_back(chore);
        self.inner.chore_bell.notify_one();
        self.inner.wake();
    }

    fn chores(&self) -> MutexGuard<'_, Chores> {
        self.inner.chores.lock().expect("no panic while the chores are locked")
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.inner.threads.lock().expect("no panic while the threads are locked")
    }

    /// The background thread.
    fn do_chores(&self) {
        loop {
            let mut chores = self.chores();
            while chores.waiting.is_empty() && !chores.stopping {
                let waited = self.inner.chore_bell.wait(chores);
                chores = waited.expect("no panic while the chores are locked");
            }
            let Some(chore) = chores.waiting.pop_front() else { return };
            drop(chores);
            self.do_chore(chore);
        }
    }

    fn do_chore(&self, chore: Chore) {
        match chore {
            Chore::Prepare { log, folder, bytes } => {
                let made = crate::log::prepare(&*self.inner.disk, &folder, bytes);
                // The segment in use goes on. A commit that needs the next one makes a smaller one
                // itself, and fails if that is impossible as well.
                if let Err(fault) = &made {
                    tracing::warn!(folder = %folder.display(), %fault, "prepare a segment");
                }
                self.send(Message::Prepared(log, made.ok()));
            }
            Chore::GiveUp { log, point, segments } => {
                if let Err(fault) = log.give_up(point, &segments) {
                    let fault = LogFault::from_io("give up purged segments", &fault);
                    self.send(Message::Broken(log.key(), fault));
                }
            }
            Chore::Call(call) => call(),
        }
    }

    fn next_chore(&self) -> Option<Chore> {
        self.chores().waiting.pop_front()
    }
}

impl Inner {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("no panic while the inbox is locked")
    }

    /// Wakes whoever drives the volume.
    fn ring(&self) {
        let sleeping = std::mem::take(&mut self.inbox().sleeping);
        if sleeping {
            self.bell.notify_one();
        }
        self.wake();
    }

    /// Tells a simulation that its driver has something to do.
    fn wake(&self) {
        let waker = self.waker.lock().expect("no panic while the waker is locked").clone();
        if let Some(wake) = waker {
            wake();
        }
    }
}

/// The log thread.
fn drive(inner: &Inner, driver: &mut VolumeDriver, clock: &SteadyClock) {
    loop {
        let Pumped::Wait(deadline) = driver.pump(clock()) else { continue };
        let mut inbox = inner.inbox();
        if !inbox.messages.is_empty() {
            continue;
        }
        if inbox.stopping {
            break;
        }
        inbox.sleeping = true;
        let limit = deadline.map(|at| Duration::from_millis(at.saturating_sub(clock()).0));
        match limit {
            Some(limit) => drop(inner.bell.wait_timeout(inbox, limit)),
            None => drop(inner.bell.wait(inbox)),
        }
    }
    driver.abandon();
}

/// What the driver wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pumped {
    /// To be pumped again when this much time has passed: what it just did takes so long.
    Again(Duration),
    /// To be pumped at this instant, or before when its volume's waker is called.
    Wait(Option<Millis>),
}

/// Carries out what the scheduler says.
pub struct VolumeDriver {
    volume: Volume,
    scheduler: Scheduler,
    logs: BTreeMap<LogKey, Arc<Shared>>,
    actions: VecDeque<Action>,
    /// What the last action brought; it counts from the next pump on.
    returned: Option<Input>,
    /// Files that the next sync must cover.
    dirty: BTreeMap<LogKey, Vec<Arc<dyn DiskFile>>>,
    /// Why a log's write or sync failed.
    faults: BTreeMap<LogKey, LogFault>,
    buffer: AlignedBuffer,
    does_chores: bool,
}

impl VolumeDriver {
    fn new(volume: Volume, does_chores: bool) -> Self {
        let options = volume.options();
        let rules =
            Rules { write_bytes_max: options.write_bytes_max, claim_after: options.claim_after };
        let buffer = AlignedBuffer::new(options.write_bytes_max);
        Self {
            scheduler: Scheduler::new(rules),
            volume,
            logs: BTreeMap::new(),
            actions: VecDeque::new(),
            returned: None,
            dirty: BTreeMap::new(),
            faults: BTreeMap::new(),
            buffer,
            does_chores,
        }
    }

    /// Does one thing, if there is one to do.
    pub fn pump(&mut self, now: Millis) -> Pumped {
        if let Some(input) = self.returned.take() {
            self.step(now, input);
        }
        let messages = std::mem::take(&mut self.volume.inner.inbox().messages);
        messages.into_iter().for_each(|message| self.receive(now, message));
        self.step(now, Input::Tick);
        if let Some(action) = self.actions.pop_front() {
            self.perform(now, action);
        } else if self.does_chores
            && let Some(chore) = self.volume.next_chore()
        {
            self.volume.do_chore(chore);
        } else {
            return Pumped::Wait(self.scheduler.next_deadline());
        }
        Pumped::Again(self.volume.disk().take_latency())
    }

    fn step(&mut self, now: Millis, input: Input) {
        self.actions.extend(self.scheduler.step(now, input));
    }

    fn receive(&mut self, now: Millis, message: Message) {
        match message {
            Message::Attach(log, shared) => {
                self.logs.insert(log, shared);
                self.step(now, Input::Attached(log));
            }
            Message::Queued(log, bytes) => self.step(now, Input::Queued { log, bytes }),
            Message::Prepared(log, bytes) => {
                if let Some(shared) = self.logs.get(&log) {
                    shared.prepared(bytes);
                }
            }
            Message::Broken(log, fault) => {
                if let Some(shared) = self.logs.get(&log).cloned() {
                    self.detach(now, log);
                    shared.fail(fault);
                }
            }
            Message::Detach(log) => self.detach(now, log),
        }
    }

    fn detach(&mut self, now: Millis, log: LogKey) {
        self.logs.remove(&log);
        self.dirty.remove(&log);
        self.step(now, Input::Detached(log));
    }

    fn perform(&mut self, now: Millis, action: Action) {
        match action {
            Action::Write { log, jobs } => self.write(now, log, jobs),
            Action::Sync { logs } => self.sync(&logs),
            Action::Complete { log, jobs } => {
                if let Some(shared) = self.logs.get(&log) {
                    shared.complete(jobs);
                }
            }
            Action::Fail { log } => {
                let fault = self.faults.remove(&log).unwrap_or(LogFault::Closed);
                if let Some(shared) = self.logs.remove(&log) {
                    tracing::error!(%fault, "the log of a copy failed");
                    shared.fail(fault);
                }
            }
        }
    }

    fn write(&mut self, now: Millis, log: LogKey, jobs: usize) {
        let Some(shared) = self.logs.get(&log) else { return };
        let result = shared.write(now, jobs, &mut self.buffer);
        let ok = result.is_ok();
        match result {
            Ok(files) => drop(self.dirty.insert(log, files)),
            Err(fault) => drop(self.faults.insert(log, fault)),
        }
        self.shrink_buffer();
        self.returned = Some(Input::Wrote { log, ok });
    }

    /// A single huge entry must not hold its memory for ever.
    fn shrink_buffer(&mut self) {
        let usual = self.volume.options().write_bytes_max;
        if self.buffer.capacity() > 2 * usual {
            self.buffer = AlignedBuffer::new(usual);
        }
    }

    /// One sync for all files that share a cache, one for each of the others.
    fn sync(&mut self, logs: &[LogKey]) {
        let every_file = self.volume.options().sync_every_file;
        let dirty = std::mem::take(&mut self.dirty);
        let mut groups: BTreeMap<u64, io::Result<()>> = BTreeMap::new();
        let mut failed = Vec::new();
        for (log, files) in dirty.into_iter().filter(|(log, _)| logs.contains(log)) {
            let result = files.iter().try_for_each(|file| match file.flush_group() {
                Some(group) if !every_file => {
                    match groups.entry(group).or_insert_with(|| file.sync()) {
                        Ok(()) => Ok(()),
                        Err(fault) => Err(copy_of(fault)),
                    }
                }
                _ => file.sync(),
            });
            match (result, self.logs.get(&log)) {
                (Ok(()), Some(shared)) => shared.synced(),
                (Ok(()), None) => {}
                (Err(fault), _) => {
                    self.faults.insert(log, LogFault::from_io("sync the log", &fault));
                    failed.push(log);
                }
            }
        }
        self.returned = Some(Input::Synced { failed });
    }

    /// Nobody will drive the volume any more: whoever waits or comes later hears so.
    pub fn abandon(&mut self) {
        let messages = std::mem::take(&mut self.volume.inner.inbox().messages);
        messages.into_iter().for_each(|message| self.receive(Millis(0), message));
        for shared in std::mem::take(&mut self.logs).into_values() {
            shared.fail(LogFault::Closed);
        }
    }
}

/// A driver that is dropped without [`VolumeDriver::abandon`] is a machine that lost its power:
/// nobody hears of what was under way.
impl Drop for VolumeDriver {
    fn drop(&mut self) {
        // Whoever waits holds the log, and the log holds whoever waits.
        std::mem::take(&mut self.logs).into_values().for_each(|shared| shared.forget());
        self.volume.inner.inbox().messages.clear();
        self.volume.chores().waiting.clear();
    }
}

/// The same fault once more, for the next log that it hit.
fn copy_of(fault: &io::Error) -> io::Error {
    io::Error::new(fault.kind(), fault.to_string())
}
