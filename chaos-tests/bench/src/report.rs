//! One line of JSON for each result while the bench runs, added to a file; tables from all of
//! them, in Markdown, at the end.
//!
//! A measurement may be made in parts, on other days or after a change: every line names what it
//! is of, and of two lines of the same name the later one counts.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::cells::{Cell, size_name};
use crate::flat::Flat;
use crate::gap::Gaps;
use crate::hundred::Hundred;
use crate::limits::Limits;
use crate::mailboxes::{Fetches, Sizes};
use crate::moves::{Drain, Switchovers};
use crate::outages::{Power, Silence, Steady};
use crate::seeds::{PathMove, Replay, Seeded, Sourcing};
use crate::watching::Watchers;

/// A result of another system under the same load, for the table of comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peer {
    /// The system, its version and what it was told to make durable.
    pub name: String,
    /// Bytes of a mail.
    pub size: usize,
    /// Unanswered deliveries.
    pub clients: usize,
    /// Length of the cell.
    pub seconds: f64,
    /// Acknowledged deliveries a second.
    pub per_second: f64,
    /// Milliseconds.
    pub p50_ms: f64,
    /// Milliseconds.
    pub p99_ms: f64,
    /// Processor microseconds of all its processes for each delivery.
    pub cpu_us: f64,
    /// Peak of its memory that is no file's.
    pub anonymous_mib: f64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// The machine by itself.
    Limits(Limits),
    /// Deliveries.
    Cell(Cell),
    /// Gaps after kills.
    Gap(Gaps),
    /// Many databases.
    Databases(Hundred),
    /// Memory over a long time.
    Flat(Flat),
    /// A large mailbox beside a small one.
    Sizes(Sizes),
    /// Whole messages.
    Fetches(Fetches),
    /// Watches.
    Watchers(Watchers),
    /// Planned switchovers.
    Switchovers(Switchovers),
    /// A node that is drained.
    Drain(Drain),
    /// Power that goes from all nodes.
    Power(Power),
    /// A silent site.
    Silence(Silence),
    /// Full load for a long time.
    Steady(Steady),
    /// A copy built from another one.
    Seeded(Seeded),
    /// The active copy as a source.
    Sourcing(Sourcing),
    /// A database that moves to another path.
    PathMove(PathMove),
    /// A log that no flush has written.
    Replay(Replay),
    /// Another system.
    Peer(Peer),
}

impl Line {
    fn name(&self) -> String {
        match self {
            Self::Limits(_) => "limits".to_owned(),
            Self::Cell(cell) => cell.name(),
            Self::Gap(gaps) => format!("gap-{}", gaps.timeouts),
            Self::Databases(many) => format!("databases-{}", many.databases),
            Self::Flat(flat) => format!("flat-{}", size_name(flat.size)),
            Self::Sizes(sizes) => format!("mailbox-{}", sizes.messages),
            Self::Fetches(all) => {
                format!("fetch-{}-{}-{}", size_name(all.size), all.clients, all.consistency)
            }
            Self::Watchers(all) => format!("watch-{}", all.watchers),
            Self::Switchovers(_) => "switchovers".to_owned(),
            Self::Drain(drain) => format!("drain-{}", drain.databases),
            Self::Power(_) => "power".to_owned(),
            Self::Silence(_) => "silence".to_owned(),
            Self::Steady(_) => "steady".to_owned(),
            Self::Seeded(_) => "seeded".to_owned(),
            Self::Sourcing(_) => "sourcing".to_owned(),
            Self::PathMove(_) => "path-move".to_owned(),
            Self::Replay(_) => "replay".to_owned(),
            Self::Peer(peer) => format!("{}-{}-{}", peer.name, peer.size, peer.clients),
        }
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<Line>,
    file: Option<PathBuf>,
}

impl Report {
    /// Results are added to this file, besides being printed.
    pub fn into_file(file: &Path) -> Self {
        Self { lines: Vec::new(), file: Some(file.to_path_buf()) }
    }

    /// The results in these files, in their order.
    pub fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut report = Self::default();
        for file in files {
            let shown = file.display();
            let text = std::fs::read_to_string(file).with_context(|| format!("read {shown}"))?;
            for (place, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
                let line = serde_json::from_str(line)
                    .with_context(|| format!("{shown}, line {}: no result of ours", place + 1))?;
                report.keep(line);
            }
        }
        Ok(report)
    }

    fn keep(&mut self, line: Line) {
        let name = line.name();
        self.lines.retain(|known| known.name() != name);
        self.lines.push(line);
    }

    /// Prints a result, adds it to the file and keeps it for the tables.
    pub fn add(&mut self, line: Line) -> anyhow::Result<()> {
        let text = serde_json::to_string(&line)?;
        println!("{text}");
        if let Some(file) = &self.file {
            let mut file = OpenOptions::new().create(true).append(true).open(file)?;
            writeln!(file, "{text}")?;
        }
        self.keep(line);
        Ok(())
    }

    /// A cell of deliveries.
    pub fn cell(&mut self, cell: &Cell) -> anyhow::Result<()> {
        self.add(Line::Cell(cell.clone()))
    }

    /// All results as one JSON array.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(&self.lines)?)
    }

    /// The tables, in Markdown.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        for table in [self.limit_text(), self.cell_table(), self.peer_table(), self.rest_text()] {
            if !table.is_empty() {
                let _ = writeln!(text, "{table}");
            }
        }
        text
    }

    fn limit_text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let Line::Limits(limits) = line else { continue };
            let _ = writeln!(
                text,
                "Limits of the machine: durable writes a second 4 KB {:.0} (three files {:.0}), \
                 52 KB {:.0} (three files {:.0}); loopback {:.0} MiB/s, {:.0} us there and back.",
                limits.writes_4k_one_file,
                limits.writes_4k_three_files,
                limits.writes_52k_one_file,
                limits.writes_52k_three_files,
                limits.loopback_mib,
                limits.loopback_round_trip_us
            );
        }
        text
    }

    fn cells(&self) -> Vec<&Cell> {
        let mut cells: Vec<&Cell> = self.lines.iter().filter_map(as_cell).collect();
        cells.sort_by_key(|cell| {
            (cell.mode.clone(), cell.way.clone(), cell.size, cell.databases, cell.clients)
        });
        cells
    }

    fn cell_table(&self) -> String {
        let cells = self.cells();
        if cells.is_empty() {
            return String::new();
        }
        let mut text = String::from(
            "| cell | s | mails/s | p50 ms | p99 ms | max ms | CPU us | of it client | \
             memory MiB | disk bytes/byte | limit/s | ratio | others' cores |\n\
             | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
        );
        for cell in cells {
            let _ = writeln!(
                text,
                "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | \
                 {:.0} | {:.2} | {:.2} |",
                cell.name(),
                cell.seconds,
                cell.per_second,
                cell.p50_ms,
                cell.p99_ms,
                cell.max_ms,
                cell.cpu_us(),
                cell.client_cpu_us,
                cell.anonymous_mib,
                cell.written_per_byte,
                cell.limit_per_second,
                cell.ratio,
                cell.others_cores
            );
        }
        text
    }

    fn peer_table(&self) -> String {
        let peers = self.lines.iter().filter_map(|line| match line {
            Line::Peer(peer) => Some(peer),
            _ => None,
        });
        let mut text = String::new();
        for peer in peers {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} | {:.0} | {} |",
                peer.name,
                size_name(peer.size),
                peer.clients,
                peer.seconds,
                peer.per_second,
                peer.p50_ms,
                peer.p99_ms,
                peer.cpu_us,
                peer.anonymous_mib,
                self.ratio_to(peer)
            );
        }
        if text.is_empty() {
            return text;
        }
        "| peer | size | clients | s | mails/s | p50 ms | p99 ms | CPU us | memory MiB | ours / it |\n\
         | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n"
            .to_owned()
            + &text
    }

    /// Our rate over the peer's, by calls, one database, same size and clients.
    fn ratio_to(&self, peer: &Peer) -> String {
        let same = |cell: &&Cell| {
            (cell.mode.as_str(), cell.way.as_str(), cell.databases) == ("closed", "unary", 1)
                && (cell.size, cell.clients) == (peer.size, peer.clients)
        };
        let ours = self.lines.iter().filter_map(as_cell).find(same);
        ours.map_or_else(|| "-".to_owned(), |c| format!("{:.2}", c.per_second / peer.per_second))
    }

    fn rest_text(&self) -> String {
        self.lines.iter().filter_map(sentence).map(|line| format!("- {line}\n")).collect()
    }
}

fn as_cell(line: &Line) -> Option<&Cell> {
    match line {
        Line::Cell(cell) => Some(cell),
        _ => None,
    }
}

fn sentence(line: &Line) -> Option<String> {
    match line {
        Line::Gap(gaps) => Some(format!(
            "`kill -9` of the active node to the next acknowledged write, timeouts `{}`: median \
             {} ms, max {} ms of {} kills.",
            gaps.timeouts, gaps.median_ms, gaps.max_ms, gaps.trials
        )),
        Line::Databases(many) => Some(format!(
            "{} databases on three nodes: made in {:.1} s, one mail into each in {:.2} s, idle \
             {:.1} % of a core, {:.0} MiB ({:.0} resident), {} threads, {} files, {:.0} KiB a copy \
             on disk; all nodes killed: mounted again in {:.1} s, one mail into each in {:.2} s.",
            many.databases,
            many.create_seconds,
            many.write_seconds,
            many.idle_cores * 100.0,
            many.anonymous_mib,
            many.resident_mib,
            many.threads,
            many.files,
            many.disk_kib_per_copy,
            many.reopen_seconds,
            many.write_again_seconds
        )),
        Line::Flat(flat) => Some(flat.sentence()),
        Line::Sizes(sizes) => Some(sizes.sentence()),
        Line::Fetches(fetches) => Some(fetches.sentence()),
        Line::Watchers(watchers) => Some(watchers.sentence()),
        Line::Switchovers(moves) => Some(moves.sentence()),
        Line::Drain(drain) => Some(drain.sentence()),
        Line::Power(power) => Some(power.sentence()),
        Line::Silence(silence) => Some(silence.sentence()),
        Line::Steady(steady) => Some(steady.sentence()),
        Line::Seeded(seeded) => Some(seeded.sentence()),
        Line::Sourcing(sourcing) => Some(sourcing.sentence()),
        Line::PathMove(moved) => Some(moved.sentence()),
        Line::Replay(replay) => Some(replay.sentence()),
        Line::Limits(_) | Line::Cell(_) | Line::Peer(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(clients: usize, per_second: f64) -> Line {
        let (size, seconds) = (4_096, 30.0);
        Line::Peer(Peer {
            name: "another".to_owned(),
            size,
            clients,
            seconds,
            per_second,
            p50_ms: 1.0,
            p99_ms: 2.0,
            cpu_us: 100.0,
            anonymous_mib: 64.0,
        })
    }

    #[test]
    fn of_two_results_of_one_name_the_later_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("results.jsonl");
        let mut report = Report::into_file(&file);
        for line in [peer(1, 10.0), peer(64, 700.0), peer(1, 20.0)] {
            report.add(line).expect("written");
        }
        let again = Report::read(&[file]).expect("read");
        assert_eq!(again.lines.len(), 2);
        let table = again.tables();
        assert!(table.contains("| 20 |") && table.contains("| 700 |"), "{table}");
        assert!(!table.contains("| 10 |"), "{table}");
    }
}
