//! The one place of the daemon where clocks are read.
//!
//! Three clocks, three uses. Wall time stamps what people and other machines see. BOOTTIME goes on
//! while the machine sleeps, so it is what leases and the journal count by. tokio's own `Instant`
//! is for deadlines inside this process.

use std::time::{SystemTime, UNIX_EPOCH};

use dag_types::Millis;
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970.
pub fn wall() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(since.as_millis() as u64)
}

/// Milliseconds since the machine started, sleep included: what leases count by.
pub fn boottime() -> Millis {
    Millis(boottime_ns() / 1_000_000)
}

/// BOOTTIME nanoseconds, and the MONOTONIC milliseconds of the same moment, which stand still while
/// the machine sleeps. None where the process was interrupted between the two readings: their
/// difference would say nothing.
pub fn both() -> Option<(u64, Millis)> {
    /// The longest that the readings may be apart.
    const MOMENT: u64 = 5;
    let before = monotonic();
    let boottime = boottime_ns();
    let after = monotonic();
    (after.saturating_sub(before).0 < MOMENT).then_some((boottime, after))
}

fn monotonic() -> Millis {
    let now = clock_gettime(ClockId::Monotonic);
    Millis(now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000)
}

/// Nanoseconds since the machine started, sleep included.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
