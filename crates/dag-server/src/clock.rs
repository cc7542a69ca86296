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

/// Nanoseconds since the machine started, sleep included.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
