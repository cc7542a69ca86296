//! The trace of a run: a hash over everything observable in its order. Two runs of one schedule
//! with different traces mean that something in the product or the harness draws from outside the
//! seed, and then no failing seed could be trusted to fail again.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

/// The trace of one run; clones are the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hash: u64,
    now_ns: u64,
    lines: Option<String>,
}

impl Trace {
    /// An empty trace; with `keep` its lines are kept as text.
    pub fn new(keep: bool) -> Self {
        let lines = keep.then(String::new);
        Self(Arc::new(Mutex::new(Inner { hash: 0xcbf2_9ce4_8422_2325, now_ns: 0, lines })))
    }

    /// Virtual time goes on.
    pub fn set_now(&self, now_ns: u64) {
        self.lock().now_ns = now_ns;
    }

    /// Virtual time, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.lock().now_ns
    }

    /// Something happened: numbers only, because it happens often.
    pub fn note(&self, what: &'static str, numbers: &[u64]) {
        let mut inner = self.lock();
        let now = inner.now_ns;
        inner.mix(now);
        what.bytes().for_each(|byte| inner.mix(u64::from(byte)));
        numbers.iter().for_each(|number| inner.mix(*number));
        if let Some(lines) = &mut inner.lines {
            let _ = writeln!(lines, "{:.3} {what} {numbers:?}", now as f64 / 1e6);
        }
    }

    /// Something happened that is best told in words.
    pub fn tell(&self, what: impl Into<String>) {
        let what = what.into();
        let mut inner = self.lock();
        let now = inner.now_ns;
        inner.mix(now);
        what.bytes().for_each(|byte| inner.mix(u64::from(byte)));
        if let Some(lines) = &mut inner.lines {
            let _ = writeln!(lines, "{:.3} {what}", now as f64 / 1e6);
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.lock().hash
    }

    /// The text so far, where it is kept.
    pub fn text(&self) -> Option<String> {
        self.lock().lines.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Inner {
    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash ^= self.hash >> 29;
    }
}
