//! The lease's numbers. What must hold between them is checked in one place, with the reasons.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{Millis, Mutant};

/// How long things last around a gate. All spans are of the clock of whoever counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseTimes {
    /// A grant lasts this long, counted by the holder from the sending of its request.
    pub lease: Millis,
    /// Between two requests of an open gate, and between two rounds of the granter's questions.
    pub renewal: Millis,
    /// Added wherever two clocks are compared.
    pub margin: Millis,
    /// The longest that one attempt of a client may take.
    pub attempt: Millis,
    /// The control group's longest election timeout.
    pub control_election_max: Millis,
    /// How much faster or slower than real time a clock may run, in percent.
    pub drift_percent: u64,
}

impl LeaseTimes {
    /// Lease 8 s, renewal 500 ms, margin 250 ms, control elections of 600 to 1200 ms.
    pub const DEFAULT: Self = Self {
        lease: Millis(8000),
        renewal: Millis(500),
        margin: Millis(250),
        attempt: Millis(1600),
        control_election_max: Millis(1200),
        drift_percent: 1,
    };

    /// The default with every span divided: for tests that cannot wait.
    pub fn scaled_down(by: u64) -> Self {
        let Self { lease, renewal, margin, attempt, control_election_max, drift_percent } =
            Self::DEFAULT;
        let less = |span: Millis| Millis(span.0 / by);
        Self {
            lease: less(lease),
            renewal: less(renewal),
            margin: less(margin),
            attempt: less(attempt),
            control_election_max: less(control_election_max),
            drift_percent,
        }
    }

    /// The longest attempt that a lease of this length allows: 2 s, or a fifth of it.
    pub fn attempt_for(lease: Millis) -> Millis {
        Millis((lease.0 / 5).min(2000))
    }

    /// How long nobody may take over after the last grant: the lease, as a clock counts it that
    /// runs apart from the holder's by twice the drift bound, plus the margin.
    pub fn takeover_wait(&self) -> Millis {
        if Mutant::NoDriftMargin.planted() {
            return self.lease;
        }
        let drift = (2 * self.drift_percent * self.lease.0).div_ceil(100);
        self.lease + Millis(drift) + self.margin
    }

    /// For how long an answer confirms, counted from the sending of its question.
    pub fn confirmation(&self) -> Millis {
        self.lease.saturating_sub(self.margin)
    }

    /// For how long an answer binds whoever gave it.
    pub fn promise(&self) -> Millis {
        Millis(2 * self.lease.0)
    }

    /// Everything that is wrong with these numbers, not only the first.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Self { lease, renewal, margin, attempt, control_election_max, drift_percent } = *self;
        if renewal.0 == 0 || margin.0 == 0 || attempt.0 == 0 {
            problems.push("renewal, margin and attempt must be above zero".into());
        }
        // A new control leader may take four election timeouts to be found, and its first renewal
        // may miss; no gate closes for that.
        let needed = 2 * renewal.0 + attempt.0 + 4 * control_election_max.0 + margin.0;
        if lease.0 < needed {
            problems.push(format!(
                "lease of {lease} is below 2 renewals + attempt + 4 control elections + margin = \
                 {needed} ms: the death of a control leader would close every gate"
            ));
        }
        if attempt > Self::attempt_for(lease) {
            problems.push(format!(
                "attempt of {attempt} is above min(2 s, lease / 5) = {}",
                Self::attempt_for(lease)
            ));
        }
        // The confirmation lapses one margin before the promise's first half; drift must fit in it.
        if drift_percent * lease.0 > 100 * margin.0 {
            problems.push(format!(
                "a drift of {drift_percent} % of the lease is more than the margin of {margin}"
            ));
        }
        problems
    }

    /// Panics with every problem. Called once, where a gate or a granter is made.
    pub fn assert_sound(&self) {
        let problems = self.problems();
        assert!(problems.is_empty(), "the gate's times: {}", problems.join("; "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_sound_at_every_scale_that_tests_use() {
        for by in [1, 2, 4, 5, 10] {
            let times = LeaseTimes::scaled_down(by);
            assert_eq!(times.problems(), Vec::<String>::new(), "{by}");
        }
    }

    #[test]
    fn the_takeover_wait_is_longer_than_any_lease_by_twice_the_drift_and_the_margin() {
        assert_eq!(LeaseTimes::DEFAULT.takeover_wait(), Millis(8000 + 160 + 250));
    }

    #[test]
    fn each_broken_inequality_is_named() {
        let wrong = LeaseTimes {
            lease: Millis(4000),
            renewal: Millis(0),
            margin: Millis(10),
            attempt: Millis(2000),
            ..LeaseTimes::DEFAULT
        };
        let problems = wrong.problems();
        for part in ["above zero", "lease of 4000 ms", "attempt of 2000 ms", "drift of 1 %"] {
            assert!(problems.iter().any(|p| p.contains(part)), "{part}: {problems:?}");
        }
    }
}
