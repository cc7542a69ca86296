//! Which copy's state is flushed when, and in which order a flush does what.
//!
//! What a copy applied stays in memory until it is flushed; Raft's log holds it meanwhile. RocksDB
//! would choose by itself whom to flush, and chooses badly over many copies, so one flusher per
//! node does it: [`FlushRules::choose`] decides, and gives its reason.
//!
//! One flush of a copy, in this order:
//!
//! ```text
//!  1  read the applied position from the state's own row
//!  2  sync the copy's log through it
//!  3  flush the state: at least everything through it
//!  4  publish it as the flushed position
//! ```
//!
//! Purging the log and answering snapshots use the flushed position only. The flush itself may
//! make more durable than step 1 read; that is harmless, the published position is just older.
//! The position is never published from anything but a state that was flushed after it was read:
//! otherwise a purge could take away entries that a crash still needs.
//!
//! The same steps run on a thread of a node ([`Flusher::start`]) and inside a simulation
//! ([`Flusher::inline`], then [`Flusher::step`]); nothing here reads a clock.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use dag_types::{LogId, Millis};
use thiserror::Error;

use crate::state::{Position, StateError};

mod rules;

pub use rules::{CopyLoad, FlushChoice, FlushReason, FlushRules, Pressure, RulesError, Slot};

/// Called when a log is durable through where it was asked for, or with why it is not.
pub type LogSynced = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Called with what a flush that was asked for made durable.
pub type Flushed = Box<dyn FnOnce(Result<Option<Position>, FlushFault>) + Send>;

/// Why a flush failed. The copy fails with it: no flush is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FlushFault {
    /// The log could not be made durable, so the state was not flushed.
    #[error("sync the log before a flush: {0}")]
    Log(String),
    /// The state could not be read or flushed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The copy was detached, or the flusher closed, before its turn came.
    #[error("the copy was closed before its state was flushed")]
    Detached,
}

/// A copy, as the flusher sees it.
pub trait Flushable: Send + Sync + 'static {
    /// Bytes that a flush would write now. Asked often, and while the flusher holds its own lock:
    /// it may not call the flusher.
    fn unflushed_bytes(&self) -> u64;
    /// The applied position, read from the state's own row.
    fn applied(&self) -> Result<Option<Position>, StateError>;
    /// Makes the log durable through this entry (or further), then calls `synced`, from any
    /// thread, also from within this call.
    fn sync_log(&self, through: LogId, synced: LogSynced);
    /// Flushes the state; blocks.
    fn flush_state(&self) -> Result<(), StateError>;
    /// Publishes what is durable now; the log may be purged up to there.
    fn flushed(&self, position: Position);
    /// The copy fails: nothing of it will be flushed again.
    fn failed(&self, fault: FlushFault);
}

/// The flusher of a node.
pub struct Flusher {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    rules: FlushRules,
    work: Mutex<Work>,
    /// Rung when there may be something to do before the next look.
    bell: Condvar,
    /// Unflushed bytes of all copies, each as of when it was last asked.
    node_bytes: AtomicU64,
}

/// What a copy's unflushed bytes were when it was last asked: its part of the node's.
#[derive(Default)]
struct Seen(AtomicU64);

impl Seen {
    /// Counts the copy with `now` bytes from here on; gives what all copies hold. Callers may
    /// cross: each adds what it changed, so the sum stays the sum of the parts.
    fn count(&self, now: u64, node_bytes: &AtomicU64) -> u64 {
        let change = now.wrapping_sub(self.0.swap(now, Ordering::Relaxed));
        node_bytes.fetch_add(change, Ordering::Relaxed).wrapping_add(change)
    }
}

#[derive(Default)]
struct Work {
    copies: BTreeMap<Slot, Copy>,
    next_slot: u64,
    current: Option<Current>,
    flushes: u64,
    closing: bool,
    /// Something was asked for or came back since the thread last looked.
    rung: bool,
}

struct Copy {
    flushable: Arc<dyn Flushable>,
    seen: Arc<Seen>,
    /// When unflushed bytes were first seen, as of the last flush.
    since: Option<Millis>,
    asked: Vec<Flushed>,
    failed: Option<FlushFault>,
}

/// The flush that is going on.
struct Current {
    /// Counts flushes, so that a late answer of a log is not taken for this one's.
    number: u64,
    slot: Slot,
    position: Option<Position>,
    began: Millis,
    log: LogState,
    /// Who asked before the position was read; who asks later waits for the next flush.
    asked: Vec<Flushed>,
}

enum LogState {
    Syncing,
    Synced,
    Failed(String),
}

/// What a log is given to answer to; an answer that is dropped counts as a failed sync.
struct LogAnswer {
    shared: Arc<Shared>,
    number: u64,
    given: bool,
}

impl LogAnswer {
    fn give(mut self, result: Result<(), String>) {
        self.given = true;
        self.shared.log_synced(self.number, result);
    }
}

impl Drop for LogAnswer {
    fn drop(&mut self) {
        if !self.given {
            self.shared.log_synced(self.number, Err("the log went away".into()));
        }
    }
}

/// A copy's place at the flusher; detaches it when dropped.
pub struct Attached {
    shared: Arc<Shared>,
    slot: Slot,
    flushable: Arc<dyn Flushable>,
    seen: Arc<Seen>,
}

impl Flusher {
    /// A flusher that does something only in [`Flusher::step`].
    pub fn inline(rules: FlushRules) -> Self {
        let shared = Shared {
            rules,
            work: Mutex::default(),
            bell: Condvar::new(),
            node_bytes: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// A flusher with a thread of its own; `clock` is the node's steady clock.
    pub fn start(
        rules: FlushRules,
        clock: impl Fn() -> Millis + Send + 'static,
    ) -> io::Result<Self> {
        let flusher = Self::inline(rules);
        let shared = flusher.shared.clone();
        let thread =
            std::thread::Builder::new().name("flusher".into()).spawn(move || shared.run(&clock))?;
        *flusher.thread.lock().expect(UNPOISONED) = Some(thread);
        Ok(flusher)
    }

    /// Takes a copy's flushes over, until the answer is dropped.
    pub fn attach(&self, flushable: Arc<dyn Flushable>) -> Attached {
        let mut work = self.shared.work();
        work.next_slot += 1;
        let slot = Slot(work.next_slot);
        let seen = Arc::<Seen>::default();
        let copy = Copy {
            flushable: flushable.clone(),
            seen: seen.clone(),
            since: None,
            asked: Vec::new(),
            failed: None,
        };
        work.copies.insert(slot, copy);
        Attached { shared: self.shared.clone(), slot, flushable, seen }
    }

    /// Goes on with the flush that is going on, or begins one that is due; gives whether there was
    /// anything to do. Blocks while a state is flushed.
    pub fn step(&self, now: Millis) -> bool {
        self.shared.step(now)
    }

    /// Unflushed bytes of all copies, each as of when it was last asked.
    pub fn unflushed_bytes(&self) -> u64 {
        self.shared.node_bytes.load(Ordering::Relaxed)
    }

    /// Flushes what is left, then ends the thread. Without a thread, [`Flusher::step`] does it
    /// until it has nothing more to do.
    pub fn close(&self) {
        self.shared.work().closing = true;
        self.shared.ring();
        if let Some(thread) = self.thread.lock().expect(UNPOISONED).take() {
            thread.join().expect("the flusher does not panic");
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.work().closing = true;
        self.shared.ring();
    }
}

impl Attached {
    /// Asks for a flush now; `flushed` is called when it is done. For the one who must know that
    /// the state is durable: a snapshot, a dismount, a seeding source.
    pub fn flush(&self, flushed: Flushed) {
        let refused = {
            let mut work = self.shared.work();
            match work.copies.get_mut(&self.slot) {
                Some(Copy { failed: Some(fault), .. }) => Some((flushed, fault.clone())),
                Some(copy) => {
                    copy.asked.push(flushed);
                    None
                }
                None => Some((flushed, FlushFault::Detached)),
            }
        };
        match refused {
            Some((flushed, fault)) => flushed(Err(fault)),
            None => self.shared.ring(),
        }
    }

    /// Whether proposals to this copy's group should go slower, or not be taken, because its state
    /// or the node's states hold too much in memory. Cheap; asked before each proposal, it also
    /// keeps the node's count fresh while the flusher is busy with one copy.
    pub fn pressure(&self) -> Pressure {
        let bytes = self.flushable.unflushed_bytes();
        self.shared.rules.pressure(self.seen.count(bytes, &self.shared.node_bytes))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let copy = self.shared.work().copies.remove(&self.slot);
        self.seen.count(0, &self.shared.node_bytes);
        answer(copy.map(|copy| copy.asked).unwrap_or_default(), &Err(FlushFault::Detached));
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().expect(UNPOISONED)
    }

    fn ring(&self) {
        self.work().rung = true;
        self.bell.notify_one();
    }

    /// The thread: works while there is something to do, else looks again soon.
    fn run(self: &Arc<Self>, clock: &dyn Fn() -> Millis) {
        loop {
            if self.step(clock()) {
                continue;
            }
            let mut work = self.work();
            if work.closing && work.current.is_none() && !work.rung {
                return self.refuse_all(work);
            }
            if !work.rung {
                let look = if self.node_bytes.load(Ordering::Relaxed) == 0 { IDLE } else { BUSY };
                work = self.bell.wait_timeout(work, look).expect(UNPOISONED).0;
            }
            work.rung = false;
        }
    }

    /// Nobody who still waits is left without an answer.
    fn refuse_all(&self, mut work: MutexGuard<'_, Work>) {
        let asked: Vec<Flushed> =
            work.copies.values_mut().flat_map(|copy| copy.asked.drain(..)).collect();
        drop(work);
        answer(asked, &Err(FlushFault::Detached));
    }

    fn step(self: &Arc<Self>, now: Millis) -> bool {
        let mut work = self.work();
        if matches!(&work.current, Some(current) if matches!(current.log, LogState::Syncing)) {
            return false;
        }
        if let Some(current) = work.current.take() {
            drop(work);
            self.finish(current);
            return true;
        }
        let Some(choice) = self.choose(&mut work, now) else { return false };
        drop(work);
        self.begin(choice, now);
        true
    }

    fn choose(&self, work: &mut Work, now: Millis) -> Option<FlushChoice> {
        let mut loads = Vec::with_capacity(work.copies.len());
        for (slot, copy) in &mut work.copies {
            let unflushed_bytes = copy.flushable.unflushed_bytes();
            copy.seen.count(unflushed_bytes, &self.node_bytes);
            match (unflushed_bytes, copy.since) {
                (0, _) => copy.since = None,
                (_, None) => copy.since = Some(now),
                _ => {}
            }
            if copy.failed.is_none() {
                let (since, asked) = (copy.since, !copy.asked.is_empty());
                loads.push(CopyLoad { slot: *slot, unflushed_bytes, since, asked });
            }
        }
        self.rules.choose(now, work.closing, &loads)
    }

    /// Steps 1 and 2.
    fn begin(self: &Arc<Self>, choice: FlushChoice, now: Millis) {
        let slot = choice.slot;
        tracing::debug!(slot = slot.0, reason = %choice.reason, "flush a state");
        let Some(flushable) = self.flushable(slot) else { return };
        let asked = self.take_asked(slot);
        let position = match flushable.applied() {
            Ok(position) => position,
            Err(error) => return self.fail(slot, error.into(), asked),
        };
        let log = if position.is_some() { LogState::Syncing } else { LogState::Synced };
        let number = {
            let mut work = self.work();
            work.flushes += 1;
            let number = work.flushes;
            work.current = Some(Current { number, slot, position, began: now, log, asked });
            number
        };
        if let Some((at, _)) = position {
            let answer = LogAnswer { shared: self.clone(), number, given: false };
            flushable.sync_log(at, Box::new(move |result| answer.give(result)));
        }
    }

    fn log_synced(&self, number: u64, result: Result<(), String>) {
        if let Some(current) = &mut self.work().current
            && current.number == number
        {
            current.log = result.map_or_else(LogState::Failed, |()| LogState::Synced);
        }
        self.ring();
    }

    /// Steps 3 and 4.
    fn finish(&self, current: Current) {
        let Current { slot, position, began, log, asked, .. } = current;
        let Some(flushable) = self.flushable(slot) else {
            return answer(asked, &Err(FlushFault::Detached));
        };
        if let LogState::Failed(detail) = log {
            return self.fail(slot, FlushFault::Log(detail), asked);
        }
        if let Err(error) = flushable.flush_state() {
            return self.fail(slot, error.into(), asked);
        }
        if let Some(position) = position {
            flushable.flushed(position);
        }
        if let Some(copy) = self.work().copies.get_mut(&slot) {
            // What came since the flush began is at least that old.
            copy.since = (flushable.unflushed_bytes() > 0).then_some(began);
        }
        answer(asked, &Ok(position));
    }

    fn take_asked(&self, slot: Slot) -> Vec<Flushed> {
        let mut work = self.work();
        work.copies.get_mut(&slot).map(|copy| std::mem::take(&mut copy.asked)).unwrap_or_default()
    }

    fn flushable(&self, slot: Slot) -> Option<Arc<dyn Flushable>> {
        self.work().copies.get(&slot).map(|copy| copy.flushable.clone())
    }

    fn fail(&self, slot: Slot, fault: FlushFault, mut asked: Vec<Flushed>) {
        tracing::error!(slot = slot.0, %fault, "a copy's flush failed");
        let flushable = self.work().copies.get_mut(&slot).map(|copy| {
            copy.failed = Some(fault.clone());
            asked.append(&mut copy.asked);
            copy.flushable.clone()
        });
        if let Some(flushable) = flushable {
            flushable.failed(fault.clone());
        }
        answer(asked, &Err(fault));
    }
}

fn answer(asked: Vec<Flushed>, result: &Result<Option<Position>, FlushFault>) {
    asked.into_iter().for_each(|asked| asked(result.clone()));
}

/// How soon the thread looks again while states hold unflushed bytes, and while none does.
const BUSY: Duration = Duration::from_millis(20);
const IDLE: Duration = Duration::from_millis(250);

const UNPOISONED: &str = "no holder of this lock panics";

#[cfg(test)]
#[path = "flusher_test.rs"]
mod tests;
