//! One operation's series of attempts: what is left of its patience, and what it has seen.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::{Error, Outcome};
use crate::options::Options;

#[derive(Clone)]
pub(crate) struct Trial {
    options: Options,
    deadline: Instant,
    pause: Duration,
    maybe_done: bool,
    last: String,
}

impl Trial {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            deadline: Instant::now() + options.patience,
            pause: options.pause_first,
            maybe_done: false,
            last: "no node was asked".into(),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Where an attempt that begins now ends; `None` when the patience is over.
    pub(crate) fn attempt_until(&self, extra: Duration) -> Option<Instant> {
        let now = Instant::now();
        (now < self.deadline).then(|| self.deadline.min(now + self.options.attempt + extra))
    }

    /// An attempt ended without having been carried out.
    pub(crate) fn not_done(&mut self, why: String) {
        self.last = why;
    }

    /// An attempt may have been carried out.
    pub(crate) fn maybe_done(&mut self, why: String) {
        self.maybe_done = true;
        self.last = why;
    }

    /// Waits before the next attempt, at least as long as the node asked for.
    pub(crate) async fn pause(&mut self, asked: Option<Duration>) {
        let jitter = &self.options.jitter;
        let asked = asked.map_or(Duration::ZERO, |asked| asked + jitter.spread(asked / 4));
        let wait = jitter.spread(self.pause).max(asked);
        self.pause = (self.pause * 2).min(self.options.pause_max);
        let left = self.deadline.saturating_duration_since(Instant::now());
        sleep(wait.min(left)).await;
    }

    pub(crate) fn timed_out(&self) -> Error {
        let outcome = if self.maybe_done { Outcome::Unknown } else { Outcome::NotCarriedOut };
        Error::TimedOut { patience: self.options.patience, outcome, last: self.last.clone() }
    }
}
