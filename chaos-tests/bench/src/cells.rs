//! Deliveries a second, and what they cost.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::getpid;
use serde::Serialize;
use testkit::figures::Figures;
use testkit::shape::Timeouts;

use crate::arena::Arena;
use crate::limits;
use crate::load::{self, Supply, Tally, Way, Window};
use crate::report::Report;

/// What is measured in all cells alike.
pub struct Cells<'a> {
    /// On the disk that is measured.
    pub folder: &'a Path,
    /// The counted part of a cell.
    pub seconds: Duration,
    /// Raft's timeouts.
    pub timeouts: Timeouts,
}

const WARM_UP: Duration = Duration::from_secs(2);
const MAILBOXES: usize = 64;

/// One cell's line.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// `closed` or `open`.
    pub mode: &'static str,
    /// `session` or `unary`.
    pub way: &'static str,
    /// Bytes of a mail.
    pub size: usize,
    /// Unanswered deliveries; of an open loop the rate that was asked for.
    pub clients: usize,
    /// Databases.
    pub databases: usize,
    /// Counted time.
    pub seconds: f64,
    /// Acknowledged deliveries a second.
    pub per_second: f64,
    /// Milliseconds.
    pub p50_ms: f64,
    /// Milliseconds.
    pub p99_ms: f64,
    /// Milliseconds.
    pub max_ms: f64,
    /// Refused as OVERLOADED.
    pub refused: u64,
    /// Processor microseconds of all nodes for each delivery.
    pub node_cpu_us: f64,
    /// Processor microseconds of the client for each delivery.
    pub client_cpu_us: f64,
    /// Memory of all nodes that is no file's, at the end.
    pub anonymous_mib: f64,
    /// All memory of all nodes, at the end.
    pub resident_mib: f64,
    /// Bytes that all nodes wrote to disk for each byte of mail.
    pub written_per_byte: f64,
    /// Durable writes a second of one of three files written at once, in the same minute.
    pub limit_per_second: f64,
    /// `per_second` over `limit_per_second`.
    pub ratio: f64,
    /// Processor cores that anything else took meanwhile.
    pub others_cores: f64,
}

impl Cells<'_> {
    /// All closed-loop cells; a new cluster for each number of databases and size.
    pub async fn run(
        &self,
        sizes: &[usize],
        clients: &[usize],
        databases: &[usize],
        ways: &[Way],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        for &databases in databases {
            for &size in sizes {
                let arena = self.arena(databases).await?;
                for &way in ways {
                    for &clients in clients.iter().filter(|clients| **clients >= databases) {
                        let cell = self.closed(&arena, size, clients, way).await?;
                        report.cell(&cell)?;
                    }
                }
                arena.verify()?;
            }
        }
        Ok(())
    }

    async fn arena(&self, databases: usize) -> anyhow::Result<Arena> {
        Arena::up(self.folder, "three-node", self.timeouts, databases, MAILBOXES).await
    }

    async fn closed(
        &self,
        arena: &Arena,
        size: usize,
        clients: usize,
        way: Way,
    ) -> anyhow::Result<Cell> {
        let limit = limits::beside(self.folder, size)?;
        let supply = Supply::new(size, run_number());
        let from = Instant::now() + WARM_UP;
        let window = Window { from, to: from + self.seconds };
        let (tally, used) = tokio::join!(
            load::closed(arena, &supply, clients, way, window),
            Used::over(arena, window)
        );
        Ok(self.cell("closed", way, size, clients, arena, &tally?, &used?, limit))
    }

    /// One open-loop cell.
    pub async fn open(
        &self,
        rate: u64,
        size: usize,
        databases: usize,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let arena = self.arena(databases).await?;
        let limit = limits::beside(self.folder, size)?;
        let supply = Supply::new(size, run_number());
        let from = Instant::now() + WARM_UP;
        let window = Window { from, to: from + self.seconds };
        let (tally, used) =
            tokio::join!(load::open(&arena, &supply, rate, window), Used::over(&arena, window));
        let clients = rate as usize;
        report.cell(&self.cell(
            "open",
            Way::Session,
            size,
            clients,
            &arena,
            &tally?,
            &used?,
            limit,
        ))?;
        arena.verify()
    }

    #[allow(clippy::too_many_arguments)]
    fn cell(
        &self,
        mode: &'static str,
        way: Way,
        size: usize,
        clients: usize,
        arena: &Arena,
        tally: &Tally,
        used: &Used,
        limit: f64,
    ) -> Cell {
        let seconds = self.seconds.as_secs_f64();
        let count = tally.acknowledged.max(1) as f64;
        let millis = |micros: u64| micros as f64 / 1_000.0;
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        let per_second = tally.acknowledged as f64 / seconds;
        Cell {
            mode,
            way: way.name(),
            size,
            clients,
            databases: arena.databases.len(),
            seconds,
            per_second,
            p50_ms: millis(tally.latency.value_at_quantile(0.5)),
            p99_ms: millis(tally.latency.value_at_quantile(0.99)),
            max_ms: millis(tally.latency.max()),
            refused: tally.refused,
            node_cpu_us: used.nodes.cpu.as_secs_f64() * 1e6 / count,
            client_cpu_us: used.client.cpu.as_secs_f64() * 1e6 / count,
            anonymous_mib: mib(used.nodes.anonymous_bytes),
            resident_mib: mib(used.nodes.resident_bytes),
            written_per_byte: used.nodes.written_bytes as f64 / tally.bytes.max(1) as f64,
            limit_per_second: limit,
            ratio: per_second / limit,
            others_cores: used.others_cores(seconds),
        }
    }
}

/// Delivery ids of different cells on one cluster must differ.
fn run_number() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// What was used while a window was open.
struct Used {
    nodes: Figures,
    client: Figures,
    machine: Duration,
}

impl Used {
    async fn over(arena: &Arena, window: Window) -> anyhow::Result<Self> {
        let own = getpid().as_raw_nonzero().get();
        tokio::time::sleep_until(window.from.into()).await;
        let before = (arena.cluster.figures(), Figures::of(own)?, machine_cpu()?);
        tokio::time::sleep_until(window.to.into()).await;
        let after = (arena.cluster.figures(), Figures::of(own)?, machine_cpu()?);
        Ok(Self {
            nodes: after.0 - before.0,
            client: after.1 - before.1,
            machine: after.2.saturating_sub(before.2),
        })
    }

    fn others_cores(&self, seconds: f64) -> f64 {
        let others = self.machine.saturating_sub(self.nodes.cpu + self.client.cpu);
        others.as_secs_f64() / seconds
    }
}

/// Processor time of the whole machine that was not idle.
fn machine_cpu() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq.
    let busy: u64 = ticks.iter().take(7).sum::<u64>() - ticks.iter().skip(3).take(2).sum::<u64>();
    Ok(Duration::from_micros(busy * 1_000_000 / rustix::param::clock_ticks_per_second()))
}
