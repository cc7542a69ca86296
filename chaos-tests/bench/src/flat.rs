//! Whether memory stays as it is while mails come in for a long time at a fixed rate.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use testkit::shape::Timeouts;

use crate::arena::Arena;
use crate::cells::size_name;
use crate::load::{self, Supply, Window};
use crate::report::{Line, Report};

const MAILBOXES: usize = 64;
const EVERY: Duration = Duration::from_secs(10);

/// Memory of all nodes together while mails came in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flat {
    /// Bytes of a mail.
    pub size: usize,
    /// Deliveries a second that were asked for.
    pub rate: u64,
    /// How long.
    pub seconds: f64,
    /// Deliveries acknowledged.
    pub acknowledged: u64,
    /// Refused as OVERLOADED.
    pub refused: u64,
    /// Memory that is no file's, every ten seconds.
    pub anonymous_mib: Vec<f64>,
}

impl Flat {
    /// The most of the second quarter, and of the last: the first fills caches and budgets.
    fn quarters(&self) -> (f64, f64) {
        let quarter = (self.anonymous_mib.len() / 4).max(1);
        let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
        let last = self.anonymous_mib.len().saturating_sub(quarter);
        let second = self.anonymous_mib.get(quarter..2 * quarter).unwrap_or(&[]);
        (most(second), most(&self.anonymous_mib[last..]))
    }

    /// For the report.
    pub fn sentence(&self) -> String {
        let (second, last) = self.quarters();
        format!(
            "Memory over {:.0} min at {} mails of {} a second ({} acknowledged, {} refused): most \
             of the second quarter {second:.0} MiB, of the last {last:.0} MiB.",
            self.seconds / 60.0,
            self.rate,
            size_name(self.size),
            self.acknowledged,
            self.refused
        )
    }
}

/// Measures for so long.
pub async fn run(
    folder: &Path,
    size: usize,
    rate: u64,
    seconds: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let arena = Arena::up(folder, "three-node", Timeouts::Default, 1, MAILBOXES).await?;
    let supply = Supply::new(size, 1);
    let from = Instant::now();
    let window = Window { from, to: from + seconds };
    let sample = async {
        let mut samples = Vec::new();
        while Instant::now() + EVERY <= window.to {
            tokio::time::sleep(EVERY).await;
            samples.push(arena.cluster.figures().anonymous_bytes as f64 / (1 << 20) as f64);
        }
        samples
    };
    let (tally, anonymous_mib) = tokio::join!(load::open(&arena, &supply, rate, window), sample);
    let tally = tally?;
    report.add(Line::Flat(Flat {
        size,
        rate,
        seconds: seconds.as_secs_f64(),
        acknowledged: tally.acknowledged,
        refused: tally.refused,
        anonymous_mib,
    }))?;
    arena.verify()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_shows_between_the_second_quarter_and_the_last() {
        let mut flat = Flat {
            size: 4_096,
            rate: 1,
            seconds: 80.0,
            acknowledged: 80,
            refused: 0,
            anonymous_mib: (1..=8).map(f64::from).collect(),
        };
        assert_eq!(flat.quarters(), (4.0, 8.0));
        flat.anonymous_mib = vec![9.0; 8];
        assert_eq!(flat.quarters(), (9.0, 9.0));
    }
}
