//! How many bytes a second may be spent: a token bucket as a plain value.
//!
//! Tokens grow with time up to a burst. Who finds any may take more than there are; the debt is
//! paid off before the next one passes. So a piece larger than the burst passes too, and over any
//! span the average holds.

use dag_types::Millis;

/// Milliseconds of the rate that may be spent at once.
const BURST_MS: u64 = 100;

/// A limit of bytes per second; `None` passes everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    bytes_per_second: Option<u64>,
    /// In thousandths of a byte, so that slow rates lose nothing by rounding.
    tokens: i128,
    at: Millis,
}

impl RateLimit {
    /// A limit from `now` on.
    ///
    /// # Panics
    /// Where the rate is zero: that is a suspended task, not a slow one.
    pub fn new(bytes_per_second: Option<u64>, now: Millis) -> Self {
        assert!(bytes_per_second != Some(0), "a rate of zero never ends");
        let mut limit = Self { bytes_per_second, tokens: 0, at: now };
        limit.tokens = limit.burst();
        limit
    }

    /// Everything passes.
    pub fn none() -> Self {
        Self::new(None, Millis(0))
    }

    /// Changes the rate; what was spent stays spent.
    pub fn set(&mut self, bytes_per_second: Option<u64>, now: Millis) {
        assert!(bytes_per_second != Some(0), "a rate of zero never ends");
        self.refill(now);
        self.bytes_per_second = bytes_per_second;
        self.tokens = self.tokens.min(self.burst());
    }

    /// Spends bytes, or says when to ask again.
    pub fn take(&mut self, now: Millis, bytes: u64) -> Result<(), Millis> {
        let Some(rate) = self.bytes_per_second else { return Ok(()) };
        self.refill(now);
        if self.tokens <= 0 {
            let wait = -self.tokens / i128::from(rate) + 1;
            return Err(Millis(self.at.0 + u64::try_from(wait).unwrap_or(u64::MAX / 2)));
        }
        self.tokens -= i128::from(bytes) * 1000;
        Ok(())
    }

    fn burst(&self) -> i128 {
        self.bytes_per_second.map_or(0, |rate| i128::from(rate) * i128::from(BURST_MS))
    }

    /// A clock that stands still or goes back gives nothing.
    fn refill(&mut self, now: Millis) {
        let passed = now.0.saturating_sub(self.at.0);
        self.at = self.at.max(now);
        let rate = i128::from(self.bytes_per_second.unwrap_or(0));
        self.tokens = (self.tokens + rate * i128::from(passed)).min(self.burst());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_long_span_the_rate_is_kept_whatever_the_size_of_the_pieces() {
        for piece in [1_000_u64, 70_000, 4_000_000] {
            let mut limit = RateLimit::new(Some(1_000_000), Millis(0));
            let (mut now, mut spent) = (Millis(0), 0);
            while now.0 < 60_000 {
                match limit.take(now, piece) {
                    Ok(()) => spent += piece,
                    Err(later) => {
                        assert!(later > now, "asking again at once would spin");
                        now = later;
                    }
                }
            }
            let allowed = 60_000_000 + 100_000 + piece;
            assert!(spent <= allowed, "{piece}: {spent}");
            assert!(spent + 2 * piece + 100_000 >= 60_000_000, "{piece}: {spent}");
        }
    }

    #[test]
    fn no_limit_never_waits_and_a_clock_that_goes_back_gives_nothing() {
        assert_eq!(RateLimit::none().take(Millis(0), u64::MAX), Ok(()));
        let mut limit = RateLimit::new(Some(1000), Millis(1000));
        assert_eq!(limit.take(Millis(1000), 1000), Ok(()));
        let later = limit.take(Millis(0), 1).unwrap_err();
        assert_eq!(limit.take(Millis(500), 1), Err(later));
        assert_eq!(limit.take(later, 1), Ok(()));
    }

    #[test]
    fn a_new_rate_counts_from_now() {
        let mut limit = RateLimit::new(Some(1000), Millis(0));
        limit.take(Millis(0), 10_000).unwrap();
        let slow = limit.take(Millis(0), 1).unwrap_err();
        limit.set(Some(1_000_000), Millis(0));
        assert!(limit.take(Millis(0), 1).unwrap_err() < slow);
    }
}
