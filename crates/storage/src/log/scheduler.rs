//! Who writes when: the fsync scheduler of a volume, as a machine without a clock or a disk.
//!
//! Many logs share a volume, and a sync costs the same for one of them as for all. So work goes in
//! rounds:
//!
//! ```text
//!  idle ──(a job, or a claim is due)──► writing: one batch per dirty log, at most 1 MiB each
//!   ▲                                       │ all written
//!   └──(complete all, next round at once)── syncing: one sync for all of them
//! ```
//! There is no linger: a round begins as soon as there is something to write, and what arrives
//! meanwhile makes the next round larger by itself. A write or sync that fails ends its logs for
//! good; nothing is ever tried again.
//!
//! The durable tail: the batch of the next round claims that this one is durable. Where there is no
//! next round for 10 ms, an empty batch makes the claim.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dag_types::{Millis, Mutant};

/// A log on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogKey(pub u64);

/// What a round may hold, and when a claim is due.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Bytes of one log's batch in a round; a single larger job goes alone.
    pub write_bytes_max: usize,
    /// How long after a log's last batch its claim is written.
    pub claim_after: Millis,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A log was opened.
    Attached(LogKey),
    /// A log was closed; its jobs in waiting are none of the scheduler's any more.
    Detached(LogKey),
    /// A log has one more job, behind its others. 0 bytes: it only waits for those before it.
    Queued {
        /// The log.
        log: LogKey,
        /// What it will write.
        bytes: usize,
    },
    /// A write came back.
    Wrote {
        /// The log.
        log: LogKey,
        /// Whether all of it was written.
        ok: bool,
    },
    /// The sync came back.
    Synced {
        /// The logs whose files were not synced.
        failed: Vec<LogKey>,
    },
    /// Time went on.
    Tick,
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write the log's next jobs as one batch; no jobs: a batch that only claims.
    Write {
        /// The log.
        log: LogKey,
        /// How many of its jobs.
        jobs: usize,
    },
    /// Make the batches of these logs durable.
    Sync {
        /// The logs.
        logs: Vec<LogKey>,
    },
    /// The log's oldest jobs are done.
    Complete {
        /// The log.
        log: LogKey,
        /// How many.
        jobs: usize,
    },
    /// All jobs of the log failed, and it takes no more.
    Fail {
        /// The log.
        log: LogKey,
    },
}

/// The scheduler of one volume.
#[derive(Debug)]
pub struct Scheduler {
    rules: Rules,
    logs: BTreeMap<LogKey, Queue>,
    phase: Phase,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<usize>,
    in_flight: usize,
    /// Whether the batch in flight is more than a claim.
    claim_follows: bool,
    claim_due: Option<Millis>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Writing { left: BTreeSet<LogKey>, written: Vec<LogKey> },
    Syncing { logs: Vec<LogKey> },
}

impl Scheduler {
    /// A volume without logs.
    pub fn new(rules: Rules) -> Self {
        assert!(rules.write_bytes_max > 0, "a batch holds something");
        Self { rules, logs: BTreeMap::new(), phase: Phase::Idle }
    }

    /// Takes what happened, gives what to do.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Attached(log) => {
                let claim_due = Some(now + self.rules.claim_after);
                self.logs.insert(log, Queue { claim_due, ..Queue::default() });
            }
            Input::Detached(log) => self.detach(log, &mut actions),
            Input::Queued { log, bytes } => {
                if let Some(queue) = self.logs.get_mut(&log) {
                    queue.waiting.push_back(bytes);
                }
            }
            Input::Wrote { log, ok } => self.wrote(log, ok, &mut actions),
            Input::Synced { failed } => self.synced(now, &failed, &mut actions),
            Input::Tick => {}
        }
        if self.phase == Phase::Idle {
            self.begin_round(now, &mut actions);
        }
        actions
    }

    /// When [`Input::Tick`] will have something to do.
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.phase != Phase::Idle {
            return None;
        }
        self.logs.values().filter_map(|queue| queue.claim_due).min()
    }

    /// Whether nothing is under way or waiting.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && self.logs.values().all(|queue| queue.waiting.is_empty())
    }

    fn begin_round(&mut self, now: Millis, actions: &mut Vec<Action>) {
        let mut left = BTreeSet::new();
        for (log, queue) in &mut self.logs {
            if !queue.waiting.is_empty() {
                queue.take(self.rules.write_bytes_max);
            } else if queue.claim_due.is_some_and(|due| due <= now) {
                queue.claim_follows = false;
            } else {
                continue;
            }
            queue.claim_due = None;
            left.insert(*log);
            actions.push(Action::Write { log: *log, jobs: queue.in_flight });
        }
        if !left.is_empty() {
            self.phase = Phase::Writing { left, written: Vec::new() };
        }
    }

    fn wrote(&mut self, log: LogKey, ok: bool, actions: &mut Vec<Action>) {
        // The log may have been closed meanwhile, and the round with it.
        let Phase::Writing { left, written } = &mut self.phase else { return };
        if left.remove(&log) && ok {
            written.push(log);
            if Mutant::AckBeforeFsync.planted()
                && let Some(queue) = self.logs.get_mut(&log)
            {
                actions.push(Action::Complete { log, jobs: std::mem::take(&mut queue.in_flight) });
            }
        } else if self.logs.remove(&log).is_some() {
            actions.push(Action::Fail { log });
        }
        self.sync_when_written(actions);
    }

    fn sync_when_written(&mut self, actions: &mut Vec<Action>) {
        let Phase::Writing { left, written } = &mut self.phase else { return };
        if !left.is_empty() {
            return;
        }
        let logs = std::mem::take(written);
        if logs.is_empty() {
            self.phase = Phase::Idle;
            return;
        }
        actions.push(Action::Sync { logs: logs.clone() });
        self.phase = Phase::Syncing { logs };
    }

    fn synced(&mut self, now: Millis, failed: &[LogKey], actions: &mut Vec<Action>) {
        let Phase::Syncing { logs } = std::mem::replace(&mut self.phase, Phase::Idle) else {
            panic!("a sync came back in no round");
        };
        for log in logs {
            if failed.contains(&log) {
                if self.logs.remove(&log).is_some() {
                    actions.push(Action::Fail { log });
                }
            } else if let Some(queue) = self.logs.get_mut(&log) {
                let jobs = std::mem::take(&mut queue.in_flight);
                queue.claim_due = queue.claim_follows.then_some(now + self.rules.claim_after);
                if jobs > 0 {
                    actions.push(Action::Complete { log, jobs });
                }
            }
        }
    }

    fn detach(&mut self, log: LogKey, actions: &mut Vec<Action>) {
        self.logs.remove(&log);
        if let Phase::Writing { left, .. } = &mut self.phase {
            left.remove(&log);
            self.sync_when_written(actions);
        }
    }
}

impl Queue {
    /// Takes jobs for one batch: as many as fit, and one at least.
    fn take(&mut self, bytes_max: usize) {
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            if self.in_flight > 0 && bytes + next > bytes_max {
                break;
            }
            bytes += next;
            self.in_flight += 1;
            self.waiting.pop_front();
        }
        self.claim_follows = bytes > 0;
    }
}

#[cfg(test)]
#[path = "scheduler_test.rs"]
mod tests;
