//! What happens without anybody's command: power that goes from all nodes, a site that falls silent,
//! and full load for a long time, under which nothing may fail over.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use testkit::Lifetime;
use testkit::shape::Timeouts;

use crate::arena::Arena;
use crate::hundred;
use crate::load::{self, Supply, Way, Window};
use crate::moves::quantile;
use crate::report::{Line, Report};
use crate::traffic::Traffic;

/// Databases of the two sites.
const DATABASES: usize = 4;
const EVERY: Duration = Duration::from_millis(5);
/// How long a site is silent: longer than any lease.
const SILENT: Duration = Duration::from_secs(10);

/// All nodes lose their power, and come back: all of them, or all but one data node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Power {
    /// Databases.
    pub databases: usize,
    /// From the start of all nodes until every database acknowledged a mail: milliseconds, ascending.
    pub all_ms: Vec<u64>,
    /// The same with one of four data nodes staying away.
    pub one_missing_ms: Vec<u64>,
}

impl Power {
    /// For the report.
    pub fn sentence(&self) -> String {
        format!(
            "Power off for two sites with a witness, {} times, and back: a mail into each of {} databases \
             after {} ms in the median, {} ms at most; with one of the four data nodes staying \
             away, {} times: {} ms, {} ms at most. No command.",
            self.all_ms.len(),
            self.databases,
            quantile(&self.all_ms, 50),
            quantile(&self.all_ms, 100),
            self.one_missing_ms.len(),
            quantile(&self.one_missing_ms, 50),
            quantile(&self.one_missing_ms, 100)
        )
    }
}

/// The nodes of the passive site stand still.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Silence {
    /// The longest wait of a delivery each time: milliseconds, ascending.
    pub longest_ms: Vec<u64>,
    /// The longest waits before, for comparison.
    pub calm_ms: Vec<u64>,
}

impl Silence {
    /// For the report.
    pub fn sentence(&self) -> String {
        format!(
            "The passive site silent for {} s, {} times: the longest wait of a delivery is {} ms in \
             the median, {} ms at most (before: {} ms, {} ms).",
            SILENT.as_secs(),
            self.longest_ms.len(),
            quantile(&self.longest_ms, 50),
            quantile(&self.longest_ms, 100),
            quantile(&self.calm_ms, 50),
            quantile(&self.calm_ms, 100)
        )
    }
}

/// Full load for a long time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Steady {
    /// How long.
    pub seconds: f64,
    /// Unanswered deliveries.
    pub clients: usize,
    /// Deliveries acknowledged.
    pub acknowledged: u64,
    /// Databases that were mounted anew, or whose group had another term at the end.
    pub failovers: usize,
    /// The longest wait.
    pub max_ms: f64,
}

impl Steady {
    /// For the report.
    pub fn sentence(&self) -> String {
        format!(
            "Full load of {} clients for {:.0} s with default timeouts: {} mails, {} failovers, the \
             longest wait {:.0} ms.",
            self.clients, self.seconds, self.acknowledged, self.failovers, self.max_ms
        )
    }
}

/// Takes the power from all nodes so many times, and as often with one node staying away.
pub async fn power(folder: &Path, trials: u32, report: &mut Report) -> anyhow::Result<()> {
    let mut arena = Arena::up(folder, "two-site-witness", Timeouts::Default, DATABASES, 1).await?;
    let names = arena.cluster.names();
    let data: Vec<String> = names.iter().filter(|name| *name != "w").cloned().collect();
    let (mut all_ms, mut one_missing_ms) = (Vec::new(), Vec::new());
    for trial in 0..trials as usize {
        let round = 2 * trial as u64;
        all_ms.push(back_in(&mut arena, &names, &names, round).await?);
        let away = &data[trial % data.len()];
        let others: Vec<String> = names.iter().filter(|name| *name != away).cloned().collect();
        one_missing_ms.push(back_in(&mut arena, &names, &others, round + 1).await?);
        arena.cluster.start(away, Lifetime::WithParent).await?;
        arena.dagctl(&["status", "--wait-healthy", "--timeout", "120"])?;
    }
    arena.verify()?;
    all_ms.sort_unstable();
    one_missing_ms.sort_unstable();
    report.add(Line::Power(Power { databases: DATABASES, all_ms, one_missing_ms }))
}

/// Kills all, starts some, and counts until every database acknowledged a mail: a status may name an
/// active node of before.
async fn back_in(
    arena: &mut Arena,
    all: &[String],
    back: &[String],
    round: u64,
) -> anyhow::Result<u64> {
    arena.cluster.kill_all(all)?;
    let begin = Instant::now();
    arena.cluster.start_all(back, Lifetime::WithParent).await?;
    hundred::write_all(arena, round).await?;
    Ok(begin.elapsed().as_millis() as u64)
}

/// Stops the nodes of the passive site for a while, so many times.
pub async fn silence(folder: &Path, trials: u32, report: &mut Report) -> anyhow::Result<()> {
    let arena =
        Arena::up_on(folder, "two-site-witness", Timeouts::Default, 1, 1, Some("a1,a2,b1,b2"))
            .await?;
    let traffic = Traffic::begin(&arena, EVERY, 3).await?;
    let (mut longest_ms, mut calm_ms) = (Vec::new(), Vec::new());
    for _ in 0..trials {
        let active = arena.active(arena.databases[0].database).await?;
        ensure!(active.starts_with('a'), "the database is active on {active}");
        let calm = Instant::now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        calm_ms.push(traffic.longest_since(calm).await?.as_millis() as u64);
        let begin = Instant::now();
        for node in ["b1", "b2"] {
            arena.cluster.pause(node)?;
        }
        tokio::time::sleep(SILENT).await;
        let longest = traffic.longest_since(begin).await?;
        for node in ["b1", "b2"] {
            arena.cluster.resume(node)?;
        }
        longest_ms.push(longest.as_millis() as u64);
        arena.dagctl_beside(&["status", "--wait-healthy", "--timeout", "60"]).await?;
    }
    drop(traffic);
    arena.verify()?;
    longest_ms.sort_unstable();
    calm_ms.sort_unstable();
    report.add(Line::Silence(Silence { longest_ms, calm_ms }))
}

/// Full load for so long; counts failovers that nobody asked for.
pub async fn steady(folder: &Path, seconds: Duration, report: &mut Report) -> anyhow::Result<()> {
    const CLIENTS: usize = 64;
    let arena = Arena::up(folder, "three-node", Timeouts::Default, DATABASES, 16).await?;
    let before = terms(&arena).await?;
    let from = Instant::now();
    let window = Window { from, to: from + seconds };
    let supply = Supply::new(4_096, 4);
    let tally = load::closed(&arena, &supply, CLIENTS, Way::Unary, window).await?;
    let after = terms(&arena).await?;
    ensure!(before.len() == DATABASES && after.len() == DATABASES, "{before:?} {after:?}");
    let failovers = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    report.add(Line::Steady(Steady {
        seconds: seconds.as_secs_f64(),
        clients: CLIENTS,
        acknowledged: tally.acknowledged,
        failovers,
        max_ms: tally.latency.max() as f64 / 1_000.0,
    }))?;
    arena.verify()
}

/// Where each database is active, and its term.
async fn terms(arena: &Arena) -> anyhow::Result<Vec<(u64, u64, u64)>> {
    let status = arena.status().await?;
    let ours = status.databases.iter().filter(|database| {
        arena.databases.iter().any(|target| target.database == database.database_id)
    });
    let known = ours.map(|database| {
        let copies = status.copies.iter();
        let of_it = copies.filter(|copy| copy.database_id == database.database_id);
        let term = of_it.map(|copy| copy.term).max().unwrap_or_default();
        (database.database_id, database.active_node, term)
    });
    Ok(known.collect())
}
