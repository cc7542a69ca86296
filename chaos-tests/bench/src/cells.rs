//! Deliveries a second, and what they cost.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::getpid;
use serde::{Deserialize, Serialize};
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
/// Bytes that the nodes of a cluster write before the next cell gets a cluster of its own.
const WRITTEN_MAX: u64 = 8 << 30;

/// One cell's line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// `closed` or `open`.
    pub mode: String,
    /// `session` or `unary`.
    pub way: String,
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
    /// Memory of all nodes that is no file's, at the beginning of the counted time.
    pub anonymous_mib_before: f64,
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

impl Cell {
    /// `4k-64-1db-session`: what `--only` chooses by, and what a later run of it replaces.
    pub fn name(&self) -> String {
        let name = name(self.size, self.clients, self.databases, &self.way);
        if self.mode == "open" { format!("open-{name}") } else { name }
    }

    /// Processor microseconds of nodes and client for each delivery.
    pub fn cpu_us(&self) -> f64 {
        self.node_cpu_us + self.client_cpu_us
    }
}

fn name(size: usize, clients: usize, databases: usize, way: &str) -> String {
    format!("{}-{clients}-{databases}db-{way}", size_name(size))
}

/// Sizes are told in units of 1,024 bytes where they are whole ones.
pub fn size_name(size: usize) -> String {
    if size.is_multiple_of(1_024) { format!("{}k", size / 1_024) } else { size.to_string() }
}

/// Whether a cell is among those asked for: no pattern asks for all of them, and a pattern for
/// those whose names begin with its words.
fn wanted(only: &[String], name: &str) -> bool {
    let begins = |pattern: &String| {
        name.strip_prefix(pattern.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    only.is_empty() || only.iter().any(begins)
}

/// The closed-loop cells of a run.
#[derive(Debug, Clone, clap::Args)]
pub struct Grid {
    /// Bytes of a mail
    #[arg(long, value_delimiter = ',', default_value = "4096,51200")]
    pub sizes: Vec<usize>,
    /// Deliveries that are unanswered at the same time
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    pub clients: Vec<usize>,
    /// Databases
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    pub databases: Vec<usize>,
    /// A call for each delivery, or one session per database
    #[arg(long, value_enum, value_delimiter = ',', default_value = "session,unary")]
    pub ways: Vec<Way>,
    /// Only cells whose names begin so: 4k-64, 50k-64-4db-unary
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
}

impl Grid {
    /// Every cell there is.
    pub fn all() -> Self {
        Self {
            sizes: vec![4_096, 51_200],
            clients: vec![1, 16, 64, 256],
            databases: vec![1, 4],
            ways: vec![Way::Session, Way::Unary],
            only: Vec::new(),
        }
    }

    /// The cells on one cluster: same number of databases, same size.
    fn on(&self, databases: usize, size: usize) -> Vec<(Way, usize)> {
        let mut cells = Vec::new();
        for &way in &self.ways {
            // With fewer clients than databases, some of the databases would not be measured.
            for &clients in self.clients.iter().filter(|clients| **clients >= databases) {
                if wanted(&self.only, &name(size, clients, databases, way.name())) {
                    cells.push((way, clients));
                }
            }
        }
        cells
    }
}

impl Cells<'_> {
    /// All closed-loop cells of a grid; a new cluster for each number of databases and size, and
    /// whenever so much was written that the disk would fill.
    pub async fn run(&self, grid: &Grid, report: &mut Report) -> anyhow::Result<()> {
        for &databases in &grid.databases {
            for &size in &grid.sizes {
                let mut arena = None;
                for (way, clients) in grid.on(databases, size) {
                    let on = match arena.take() {
                        Some(arena) => arena,
                        None => self.arena(databases).await?,
                    };
                    report.cell(&self.closed(&on, size, clients, way).await?)?;
                    if on.cluster.figures().written_bytes < WRITTEN_MAX {
                        arena = Some(on);
                    } else {
                        on.verify()?;
                    }
                }
                arena.map_or(Ok(()), |arena| arena.verify())?;
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
            mode: mode.to_owned(),
            way: way.name().to_owned(),
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
            anonymous_mib_before: mib(used.anonymous_before),
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
    anonymous_before: u64,
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
            anonymous_before: before.0.anonymous_bytes,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_chooses_cells_by_the_first_words_of_their_names() {
        let only = ["4k-64".to_owned(), "50k-1-1db".to_owned()];
        assert!(wanted(&only, &name(4_096, 64, 4, "unary")));
        assert!(!wanted(&only, &name(4_096, 640, 4, "unary")));
        assert!(wanted(&only, &name(51_200, 1, 1, "session")));
        assert!(!wanted(&only, &name(51_200, 16, 1, "session")));
        assert!(wanted(&[], "anything"));
    }
}
