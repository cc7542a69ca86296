//! A history as text: what each node was doing, and the operations of a violation beside it.
//!
//! ```text
//! node 1  db16     ffLLLLLLLLLL......ffff     L leads, f follows, c asks for votes, n learns
//!         mounted   MMMMMMMMMM                M serves clients
//!         gate    ===============      ===    = open
//!         faults             ######           # some fault
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::Nanos;
use crate::history::History;
use crate::journal::{Event, Role};
use crate::op::{Answer, Op, Operation, Outcome};

const WIDTH: usize = 96;

/// Draws the lanes of all nodes over the time of the whole history, then lists the operations of
/// `shown` (a part of it) in the order of their calls.
pub fn draw(history: &History, shown: &History) -> String {
    let mut out = String::new();
    let scale = Scale::of(history);
    let _ = writeln!(
        out,
        "{} to {}, one column is {}",
        seconds(scale.from),
        seconds(scale.to),
        seconds(scale.column)
    );
    for (name, lane) in lanes(history, &scale) {
        let _ = writeln!(out, "{name:<18} {}", String::from_utf8_lossy(&lane));
    }
    let marks = operation_marks(shown, &scale);
    let _ = writeln!(out, "{:<18} {}", "operations below", String::from_utf8_lossy(&marks));
    for fault in &history.faults {
        let to = fault.to.map_or_else(|| "the end".into(), seconds);
        let (kind, nodes, detail) = (&fault.kind, &fault.nodes, &fault.detail);
        let _ = writeln!(out, "# {} to {to}: {kind} on {nodes:?} {detail}", seconds(fault.from));
    }
    for operation in &shown.operations {
        let _ = writeln!(out, "{}", sentence(operation));
    }
    for entry in &shown.journal {
        let _ = writeln!(out, "{} node {}: {:?}", seconds(entry.at), entry.node, entry.event);
    }
    for digest in &shown.digests {
        let _ = writeln!(
            out,
            "database {} replica {} on node {} at index {}: {}",
            digest.database, digest.replica, digest.node, digest.index, digest.digest
        );
    }
    out
}

struct Scale {
    from: Nanos,
    to: Nanos,
    column: Nanos,
}

impl Scale {
    fn of(history: &History) -> Self {
        let calls = history.operations.iter().map(|o| o.invoked);
        let ends = history.operations.iter().filter_map(|o| o.returned);
        let nodes = history.journal.iter().map(|entry| entry.at);
        let faults = history.faults.iter().flat_map(|f| [Some(f.from), f.to]).flatten();
        let times: Vec<Nanos> = calls.chain(ends).chain(nodes).chain(faults).collect();
        let from = times.iter().copied().min().unwrap_or(0);
        let to = times.iter().copied().max().unwrap_or(0);
        Self { from, to, column: ((to - from) / WIDTH as u64 + 1) }
    }

    fn at(&self, time: Nanos) -> usize {
        ((time.saturating_sub(self.from) / self.column) as usize).min(WIDTH - 1)
    }
}

type Lanes = BTreeMap<String, Vec<u8>>;

fn lanes(history: &History, scale: &Scale) -> Lanes {
    let mut lanes = Lanes::new();
    for entry in &history.journal {
        let at = scale.at(entry.at);
        let node = entry.node;
        let mut rest = |lane: String, mark: u8| {
            lanes.entry(lane).or_insert_with(|| vec![b' '; WIDTH])[at..].fill(mark);
        };
        match &entry.event {
            Event::GateOpened(_) => rest(format!("node {node} gate"), b'='),
            Event::GateClosed { .. } => rest(format!("node {node} gate"), b' '),
            Event::Role { copy, role, .. } => {
                rest(format!("node {node} db{}", copy.database), letter(*role));
            }
            Event::Mounted { copy, .. } => {
                rest(format!("node {node} db{} mount", copy.database), b'M');
            }
            Event::Dismounted { copy, .. } => {
                rest(format!("node {node} db{} mount", copy.database), b' ');
            }
            Event::Started { .. } | Event::Stopped => {
                let mark = if entry.event == Event::Stopped { b'.' } else { b' ' };
                let own = format!("node {node} ");
                let of_node = lanes.iter_mut().filter(|(name, _)| name.starts_with(&own));
                of_node.for_each(|(_, lane)| lane[at..].fill(mark));
            }
            _ => {}
        }
    }
    draw_faults(history, scale, &mut lanes);
    lanes
}

fn draw_faults(history: &History, scale: &Scale, lanes: &mut Lanes) {
    for fault in &history.faults {
        for node in &fault.nodes {
            let lane =
                lanes.entry(format!("node {node} faults")).or_insert_with(|| vec![b' '; WIDTH]);
            let to = fault.to.map_or(WIDTH - 1, |to| scale.at(to));
            lane[scale.at(fault.from)..=to].fill(b'#');
        }
    }
}

fn letter(role: Role) -> u8 {
    match role {
        Role::Leader => b'L',
        Role::Candidate => b'c',
        Role::Follower => b'f',
        Role::Learner => b'n',
    }
}

fn operation_marks(shown: &History, scale: &Scale) -> Vec<u8> {
    let mut lane = vec![b' '; WIDTH];
    for operation in &shown.operations {
        let to = scale.at(operation.returned.unwrap_or(scale.to));
        lane[scale.at(operation.invoked)..=to].fill(b'|');
    }
    lane
}

fn seconds(at: Nanos) -> String {
    format!("{:.6} s", at as f64 / 1e9)
}

/// One operation in a sentence.
pub fn sentence(operation: &Operation) -> String {
    let asked = match &operation.op {
        Op::Append { places, key, .. } => {
            let places: Vec<String> = places.iter().map(ToString::to_string).collect();
            format!("append {key} to {}", places.join(", "))
        }
        Op::Store { place, uid, change, flags, unchanged_since } => {
            let condition = unchanged_since.map_or(String::new(), |m| format!(" unless after {m}"));
            format!("store {change:?} {flags:?} on {place} UID {uid}{condition}")
        }
        Op::Expunge { place, uids } => format!("expunge {uids:?} from {place}"),
        Op::Read { place, mode } => format!("{mode:?} read of {place}"),
    };
    let end = match &operation.outcome {
        Outcome::Ok { answer, .. } => answer_text(answer),
        Outcome::Fail { reason } => format!("failed: {reason}"),
        Outcome::Unknown { reason } => format!("unknown: {reason}"),
    };
    let returned = operation.returned.map_or_else(|| "open".into(), seconds);
    format!(
        "{} to {returned}  #{} client {}: {asked} -> {end}",
        seconds(operation.invoked),
        operation.id,
        operation.client
    )
}

fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Appended { at } => {
            let uids: Vec<String> = at.iter().map(|at| format!("UID {}", at.uid)).collect();
            uids.join(", ")
        }
        Answer::Stored { result, modseq: Some(modseq), .. } => {
            format!("{result:?}, MODSEQ {modseq}")
        }
        Answer::Stored { result, .. } => format!("{result:?}"),
        Answer::Expunged { uids, .. } => format!("gone: {uids:?}"),
        Answer::Seen(seen) => {
            let uids: Vec<u64> = seen.messages.iter().map(|message| message.uid).collect();
            format!("UIDNEXT {}, HIGHESTMODSEQ {}, {uids:?}", seen.uid_next, seen.highest_modseq)
        }
    }
}
