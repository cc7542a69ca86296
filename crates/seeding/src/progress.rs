//! What people see of a seed: phase, bytes, rate, time left. It never goes back.
//!
//! Work can be lost: a source is replaced by one whose files differ, a range rots and is fetched
//! again, a process is killed between two syncs. What is shown counts durable bytes only, and where
//! even those are given up it stands still until they are there again.

use dag_types::Millis;

/// Where a seed stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Waits for a source's manifest.
    #[default]
    Opening = 0,
    /// Receives.
    Copying = 1,
    /// Reads back what was received.
    Verifying = 2,
    /// Stands ready to be installed.
    Built = 3,
    /// Is a copy.
    Installed = 4,
}

impl Phase {
    /// From its number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Opening, Self::Copying, Self::Verifying, Self::Built, Self::Installed]
            .into_iter()
            .find(|phase| *phase as u32 == number)
    }
}

/// A moment of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The farthest phase reached.
    pub phase: Phase,
    /// Bytes that are durable at the target.
    pub bytes: u64,
    /// Bytes in all, as far as known.
    pub total: u64,
    /// Bytes a second, smoothed; 0 while unknown.
    pub rate: u64,
    /// What is left at this rate; `None` while unknown.
    pub left: Option<Millis>,
}

/// Milliseconds over which the rate is measured at least.
const SPAN_MS: u64 = 1000;

/// Keeps [`Progress`] from going back.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    shown: Progress,
    /// When the rate was measured last, and the bytes received by then.
    mark: Option<(Millis, u64)>,
    received: u64,
}

impl Meter {
    /// Goes on from what was shown before.
    pub fn from(phase: Phase, bytes: u64, total: u64) -> Self {
        let shown = Progress { phase, bytes, total: total.max(bytes), ..Progress::default() };
        Self { shown, ..Self::default() }
    }

    /// What is shown now.
    pub fn shown(&self) -> Progress {
        self.shown
    }

    /// Bytes arrived or were copied, also repeated ones: they make the rate.
    pub fn worked(&mut self, now: Millis, bytes: u64) {
        self.received += bytes;
        let Some((since, before)) = self.mark else {
            self.mark = Some((now, self.received - bytes));
            return;
        };
        let span = now.0.saturating_sub(since.0);
        if span < SPAN_MS {
            return;
        }
        let fresh = (self.received - before).saturating_mul(1000) / span;
        self.shown.rate = match self.shown.rate {
            0 => fresh,
            rate => rate - rate / 4 + fresh / 4,
        };
        self.mark = Some((now, self.received));
        self.reckon();
    }

    /// The durable state.
    pub fn reached(&mut self, phase: Phase, bytes: u64, total: u64) {
        self.shown.phase = self.shown.phase.max(phase);
        self.shown.bytes = self.shown.bytes.max(bytes);
        self.shown.total = self.shown.total.max(total).max(self.shown.bytes);
        self.reckon();
    }

    fn reckon(&mut self) {
        let left = self.shown.total - self.shown.bytes;
        let ms = |rate: u64| {
            Millis(u64::try_from(u128::from(left) * 1000 / u128::from(rate)).unwrap_or(u64::MAX))
        };
        self.shown.left = (self.shown.rate > 0).then(|| ms(self.shown.rate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_work_lets_the_shown_bytes_and_phase_stand_still() {
        let mut meter = Meter::default();
        meter.reached(Phase::Verifying, 100, 100);
        meter.reached(Phase::Copying, 40, 90);
        assert_eq!(meter.shown().phase, Phase::Verifying);
        assert_eq!((meter.shown().bytes, meter.shown().total), (100, 100));
        meter.reached(Phase::Built, 150, 120);
        assert_eq!((meter.shown().bytes, meter.shown().total), (150, 150));
    }

    #[test]
    fn rate_and_time_left_come_from_what_arrives() {
        let mut meter = Meter::default();
        meter.reached(Phase::Copying, 0, 10_000_000);
        for second in 0..=10 {
            meter.worked(Millis(second * 1000), 500_000);
        }
        meter.reached(Phase::Copying, 5_000_000, 10_000_000);
        let Progress { rate, left, .. } = meter.shown();
        assert!((450_000..=550_000).contains(&rate), "{rate}");
        assert!((9_000..=11_500).contains(&left.unwrap().0), "{left:?}");
    }

    #[test]
    fn a_phase_is_known_by_its_number() {
        assert_eq!(Phase::from_number(Phase::Built as u32), Some(Phase::Built));
        assert_eq!(Phase::from_number(9), None);
    }
}
