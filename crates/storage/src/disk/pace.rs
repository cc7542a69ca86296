//! Bulk work that leaves the disk to others between its pieces.
//!
//! A limit of bytes per second says how much passes in a second, not how: four megabytes at once keep a log
//! on the same disk waiting for ten milliseconds. Pieces that are spread over the time that they may take keep
//! it waiting for one of them.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are read or written at a time where a pace is kept.
pub const PACED_PIECE: usize = 128 << 10;

/// See the module. Whoever shares one takes turns.
#[derive(Debug)]
pub struct Pace {
    per_second: u64,
    /// When the next piece may begin.
    next: Mutex<Instant>,
}

impl Pace {
    /// A pace of so many bytes per second, from now on.
    ///
    /// # Panics
    /// Where it is zero: such work never ends.
    pub fn new(per_second: u64) -> Self {
        assert!(per_second > 0, "a pace of zero never ends");
        Self { per_second, next: Mutex::new(Instant::now()) }
    }

    /// A pace for what comes at no more than `limit` on average, whole ranges at a time: a quarter faster,
    /// so that none waits for the one before it.
    pub fn within(limit: u64) -> Self {
        Self::new(limit + limit / 4)
    }

    /// Waits until a piece of so many bytes may begin. What was not used before is gone.
    pub fn wait(&self, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.per_second as f64);
        let begin = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = Instant::now().max(*next);
            *next = begin + takes;
            begin
        };
        thread::sleep(begin.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_no_faster_than_the_pace_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(10_000_000);
        thread::sleep(Duration::from_millis(20));
        let begin = Instant::now();
        (0..5).for_each(|_| pace.wait(100_000));
        assert!(begin.elapsed() >= Duration::from_millis(40), "the first one begins at once");
    }
}
