//! Lines of JSON while it runs, a table at the end.

use serde::Serialize;

use crate::cells::Cell;
use crate::gap::Gaps;
use crate::hundred::Hundred;
use crate::limits::Limits;

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    limits: Vec<Limits>,
    cells: Vec<Cell>,
    gaps: Vec<Gaps>,
    hundreds: Vec<Hundred>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    kind: &'a str,
    #[serde(flatten)]
    value: &'a T,
}

fn print<T: Serialize>(kind: &str, value: &T) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(&Line { kind, value })?);
    Ok(())
}

impl Report {
    /// The machine by itself.
    pub fn limits(&mut self, limits: &Limits) -> anyhow::Result<()> {
        self.limits.push(limits.clone());
        print("limits", limits)
    }

    /// A cell of deliveries.
    pub fn cell(&mut self, cell: &Cell) -> anyhow::Result<()> {
        self.cells.push(cell.clone());
        print("cell", cell)
    }

    /// Gaps after kills.
    pub fn gaps(&mut self, gaps: &Gaps) -> anyhow::Result<()> {
        self.gaps.push(gaps.clone());
        print("gap", gaps)
    }

    /// Many databases.
    pub fn hundred(&mut self, hundred: &Hundred) -> anyhow::Result<()> {
        self.hundreds.push(hundred.clone());
        print("databases", hundred)
    }

    /// Prints the table to standard error.
    pub fn table(&self) {
        for limits in &self.limits {
            eprintln!(
                "\nlimits: durable writes/s 4 KB {:.0} (3 files {:.0}), 52 KB {:.0} (3 files {:.0}); \
                 loopback {:.0} MiB/s, {:.0} us there and back",
                limits.writes_4k_one_file,
                limits.writes_4k_three_files,
                limits.writes_52k_one_file,
                limits.writes_52k_three_files,
                limits.loopback_mib,
                limits.loopback_round_trip_us
            );
        }
        self.cell_table();
        for gaps in &self.gaps {
            eprintln!(
                "kill -9 to next acknowledged write, timeouts {}: median {} ms, max {} ms of {}",
                gaps.timeouts, gaps.median_ms, gaps.max_ms, gaps.trials
            );
        }
        for many in &self.hundreds {
            eprintln!(
                "{} databases: made in {:.1} s, idle {:.1} % of a core, {:.0} MiB ({:.0} resident), \
                 {} threads, {} files, {:.0} KiB a copy, mounted again in {:.1} s",
                many.databases,
                many.create_seconds,
                many.idle_cores * 100.0,
                many.anonymous_mib,
                many.resident_mib,
                many.threads,
                many.files,
                many.disk_kib_per_copy,
                many.reopen_seconds
            );
        }
    }

    fn cell_table(&self) {
        if self.cells.is_empty() {
            return;
        }
        eprintln!(
            "\n{:<7} {:<7} {:>6} {:>7} {:>3} {:>9} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>6} {:>8} {:>6}",
            "mode",
            "way",
            "size",
            "clients",
            "dbs",
            "mails/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "cpu us",
            "cli us",
            "RSS MiB",
            "disk x",
            "limit/s",
            "ratio"
        );
        for cell in &self.cells {
            eprintln!(
                "{:<7} {:<7} {:>6} {:>7} {:>3} {:>9.0} {:>8.2} {:>8.2} {:>8.1} {:>7.0} {:>7.0} {:>7.0} {:>6.2} {:>8.0} {:>6.2}",
                cell.mode,
                cell.way,
                cell.size,
                cell.clients,
                cell.databases,
                cell.per_second,
                cell.p50_ms,
                cell.p99_ms,
                cell.max_ms,
                cell.node_cpu_us,
                cell.client_cpu_us,
                cell.resident_mib,
                cell.written_per_byte,
                cell.limit_per_second,
                cell.ratio
            );
        }
    }
}
