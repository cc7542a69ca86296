//! Planned moves while clients deliver: how long a client waits at most because its database moved,
//! and how long a node needs to give up a hundred of them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use testkit::shape::Timeouts;

use crate::arena::Arena;
use crate::report::{Line, Report};
use crate::traffic::Traffic;

/// A client's mail every so often, in all.
const EVERY: Duration = Duration::from_millis(5);
/// Between two moves, so that each has its own wait.
const REST: Duration = Duration::from_millis(300);

/// Planned switchovers, one after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Switchovers {
    /// Moves.
    pub trials: usize,
    /// The longest wait of a delivery because of a move: milliseconds, ascending.
    pub all_ms: Vec<u64>,
    /// The longest waits between the moves, for comparison: milliseconds, ascending.
    pub calm_ms: Vec<u64>,
    /// Median of the command's own time, in milliseconds.
    pub command_ms: u64,
}

impl Switchovers {
    /// For the report.
    pub fn sentence(&self) -> String {
        format!(
            "Planned switchover, {} times, a delivery every {} ms: the longest wait of a delivery \
             is {} ms in the median, {} ms at p99, {} ms at most ({} ms, {} ms and {} ms between \
             the moves); `dagctl db move` takes {} ms in the median.",
            self.trials,
            EVERY.as_millis(),
            quantile(&self.all_ms, 50),
            quantile(&self.all_ms, 99),
            quantile(&self.all_ms, 100),
            quantile(&self.calm_ms, 50),
            quantile(&self.calm_ms, 99),
            quantile(&self.calm_ms, 100),
            self.command_ms
        )
    }
}

/// A node that gives up all its databases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Drain {
    /// Databases that were active on it.
    pub databases: usize,
    /// Seconds of `dagctl node drain`.
    pub seconds: f64,
    /// The longest wait of a delivery meanwhile, in milliseconds.
    pub longest_ms: u64,
}

impl Drain {
    /// For the report.
    pub fn sentence(&self) -> String {
        format!(
            "A node with {} active databases is drained in {:.1} s, a delivery every {} ms waits \
             {} ms at most.",
            self.databases,
            self.seconds,
            EVERY.as_millis(),
            self.longest_ms
        )
    }
}

/// The value that so many hundredths do not exceed, of values in ascending order.
pub fn quantile(ascending: &[u64], hundredths: usize) -> u64 {
    let place = (ascending.len() * hundredths).div_ceil(100).max(1) - 1;
    ascending.get(place).copied().unwrap_or_default()
}

/// Moves a database so many times.
pub async fn switchovers(folder: &Path, trials: u32, report: &mut Report) -> anyhow::Result<()> {
    let arena = Arena::up(folder, "three-node", Timeouts::Default, 1, 1).await?;
    let database = arena.databases[0].database;
    let traffic = Traffic::begin(&arena, EVERY, 1).await?;
    let (mut all_ms, mut calm_ms, mut command_ms) = (Vec::new(), Vec::new(), Vec::new());
    for trial in 0..trials as usize {
        let calm = Instant::now();
        tokio::time::sleep(REST).await;
        calm_ms.push(traffic.longest_since(calm).await?.as_millis() as u64);
        let active = arena.active(database).await?;
        let others: Vec<String> =
            arena.cluster.names().into_iter().filter(|name| *name != active).collect();
        let target = &others[trial % others.len()];
        let begin = Instant::now();
        arena.dagctl_beside(&["db", "move", "DB1", "--to", target]).await?;
        command_ms.push(begin.elapsed().as_millis() as u64);
        all_ms.push(traffic.longest_since(begin).await?.as_millis() as u64);
        ensure!(arena.active(database).await? == *target, "it was moved elsewhere");
    }
    drop(traffic);
    arena.verify()?;
    for sorted in [&mut all_ms, &mut calm_ms, &mut command_ms] {
        sorted.sort_unstable();
    }
    let command_ms = quantile(&command_ms, 50);
    let trials = all_ms.len();
    report.add(Line::Switchovers(Switchovers { trials, all_ms, calm_ms, command_ms }))
}

/// Drains a node on which so many databases are active.
pub async fn drain(folder: &Path, databases: usize, report: &mut Report) -> anyhow::Result<()> {
    let preferred = Some("n1,n2,n3");
    let arena =
        Arena::up_on(folder, "many-databases", Timeouts::Default, databases, 1, preferred).await?;
    let on_first = |status: &dag_api::admin::v1::GetStatusResponse| {
        let databases = status.databases.iter();
        databases.filter(|database| database.active_node == 1).count()
    };
    arena.dagctl(&["db", "rebalance"])?;
    let active = on_first(&arena.status().await?);
    ensure!(active >= databases, "{active} of {databases} databases are active on n1");
    let traffic = Traffic::begin(&arena, EVERY, 2).await?;
    tokio::time::sleep(REST).await;
    let begin = Instant::now();
    arena.dagctl_beside(&["node", "drain", "n1", "--timeout", "120"]).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let longest_ms = traffic.longest_since(begin).await?.as_millis() as u64;
    let left = on_first(&arena.status().await?);
    ensure!(left == 0, "{left} databases are still active on n1");
    drop(traffic);
    arena.verify()?;
    report.add(Line::Drain(Drain { databases: active, seconds, longest_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_so_many_do_not_exceed() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!([1, 50, 99, 100].map(|part| quantile(&values, part)), [2, 100, 198, 200]);
        assert_eq!((quantile(&[7], 99), quantile(&[], 50)), (7, 0));
    }
}
