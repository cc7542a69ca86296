//! The journal: what a node says happened on it, one JSON object per line, for the checkers.
//!
//! Its fields are documented in `docs/journal.md`. A line is written when the thing happened and
//! before anybody else can see an effect of it; an acknowledgement right before the answer leaves.
//! The file is appended to without fsync: a crash may lose its end, and no checker needs a line
//! that follows the last answer a client saw.
//!
//! Lines go through one buffer in memory that is written out whole: the rare events at once,
//! acknowledgements (which come by thousands per second) when the buffer is full, and the rest by
//! [`Journal::flush`], which the node calls every few milliseconds.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use dag_types::{Boot, DatabaseId, Generation, Lineage, NodeId, ReplicaId};
use serde::Serialize;

use crate::clock;

/// Bytes that are held back before they are written out.
const BUFFER: usize = 64 << 10;

/// Writes the journal of this start of this node. Without a file it does nothing.
#[derive(Debug)]
pub struct Journal {
    node: NodeId,
    boot: Boot,
    open: Option<Mutex<Open>>,
    broken: AtomicBool,
}

#[derive(Debug)]
struct Open {
    file: File,
    buffer: Vec<u8>,
    lineage: Option<String>,
}

/// Which copy a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CopyOf {
    database: u64,
    generation: u32,
    replica: u64,
}

impl CopyOf {
    /// Names a copy.
    pub fn new(database: DatabaseId, generation: Generation, replica: ReplicaId) -> Self {
        Self { database: database.0, generation: generation.0, replica: replica.0 }
    }
}

/// A copy's place in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Role {
    Leader,
    Candidate,
    Follower,
    Learner,
}

/// What happened. Names and fields are those of `docs/journal.md`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Event<'a> {
    Started {
        store: String,
    },
    Stopped,
    GateOpened(GateLease),
    GateExtended(GateLease),
    GateClosed {
        why: &'a str,
    },
    GrantCommitted {
        grant: u64,
        to_node: u64,
        to_boot: BootOf,
        term: u64,
    },
    Role {
        #[serde(flatten)]
        copy: CopyOf,
        term: u64,
        role: Role,
    },
    Voted {
        #[serde(flatten)]
        copy: CopyOf,
        term: u64,
        voted_for: u64,
    },
    Mounted {
        #[serde(flatten)]
        copy: CopyOf,
        term: u64,
        index: u64,
    },
    Dismounted {
        #[serde(flatten)]
        copy: CopyOf,
        why: &'a str,
    },
    Acknowledged(Acknowledged<'a>),
    ReplicaBorn {
        #[serde(flatten)]
        copy: CopyOf,
        store: String,
        path: &'a Path,
        why: &'a str,
    },
    ReplicaOpened {
        #[serde(flatten)]
        copy: CopyOf,
        store: String,
        path: &'a Path,
    },
    ReplicaClosed {
        #[serde(flatten)]
        copy: CopyOf,
        path: &'a Path,
    },
    ReplicaFailed {
        #[serde(flatten)]
        copy: CopyOf,
        why: &'a str,
    },
    ReplicaRemoved {
        #[serde(flatten)]
        copy: CopyOf,
        why: &'a str,
    },
    Step {
        operation: u64,
        kind: &'a str,
        step: u64,
        term: u64,
        state: StepState,
    },
}

/// How far a step of a long operation is on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum StepState {
    Begun,
    Done,
    Failed,
    Refused,
}

/// A lease on an open gate; times in BOOTTIME nanoseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs)]
pub struct GateLease {
    pub grant: u64,
    pub granter: u64,
    pub term: u64,
    pub sent: u64,
    pub ttl: u64,
    pub until: u64,
}

/// A write whose answer leaves now.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct Acknowledged<'a> {
    #[serde(flatten)]
    pub copy: CopyOf,
    pub term: u64,
    pub index: u64,
    pub chain: String,
    pub durable: u64,
    pub applied: u64,
    pub request: &'a str,
    /// BOOTTIME nanoseconds.
    pub deadline: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    at: u64,
    node: u64,
    boot: BootOf,
    #[serde(skip_serializing_if = "Option::is_none")]
    lineage: Option<&'a str>,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// A start of a node.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs)]
pub struct BootOf {
    pub counter: u64,
    pub id: u64,
}

impl Journal {
    /// Appends to the journal in this file, or keeps none.
    pub fn open(path: Option<&Path>, node: NodeId, boot: Boot) -> std::io::Result<Self> {
        let open = path.map(|path| OpenOptions::new().create(true).append(true).open(path));
        let open = open.transpose()?.map(|file| {
            Mutex::new(Open { file, buffer: Vec::with_capacity(BUFFER), lineage: None })
        });
        Ok(Self { node, boot, open, broken: AtomicBool::new(false) })
    }

    /// Whether anything is written; saves making lines that nobody reads.
    pub fn is_kept(&self) -> bool {
        self.open.is_some()
    }

    /// The newest lineage known, for all lines from here on.
    pub fn set_lineage(&self, lineage: Lineage) {
        if let Some(open) = &self.open {
            open.lock().expect(UNPOISONED).lineage = Some(lineage.to_string());
        }
    }

    /// Writes a line. What is rare is written out at once.
    pub fn write(&self, event: &Event<'_>) {
        let Some(open) = &self.open else { return };
        let mut open = open.lock().expect(UNPOISONED);
        let open = &mut *open;
        let line = Line {
            at: clock::boottime_ns(),
            node: self.node.0,
            boot: BootOf { counter: self.boot.counter, id: self.boot.id },
            lineage: open.lineage.as_deref(),
            event,
        };
        serde_json::to_writer(&mut open.buffer, &line).expect("a line has only texts and numbers");
        open.buffer.push(b'\n');
        let frequent = matches!(event, Event::Acknowledged(_));
        if !frequent || open.buffer.len() >= BUFFER {
            self.write_out(open);
        }
    }

    /// Writes out what was held back.
    pub fn flush(&self) {
        if let Some(open) = &self.open {
            self.write_out(&mut open.lock().expect(UNPOISONED));
        }
    }

    /// A journal that cannot be written makes a run invalid, never a node unavailable.
    fn write_out(&self, open: &mut Open) {
        if open.buffer.is_empty() {
            return;
        }
        if let Err(error) = open.file.write_all(&open.buffer)
            && !self.broken.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "the journal cannot be written and has gaps from here on");
        }
        open.buffer.clear();
    }
}

const UNPOISONED: &str = "no holder of this lock panics";

#[cfg(test)]
mod tests {
    use super::*;
    use dag_types::{ActivationId, StoreId};

    const COPY: CopyOf = CopyOf { database: 16, generation: 1, replica: 7 };

    const LEASE: GateLease =
        GateLease { grant: 1, granter: 1, term: 9, sent: 5, ttl: 10, until: 15 };

    fn step(state: StepState) -> Event<'static> {
        Event::Step { operation: 4, kind: "transfer", step: 1, term: 9, state }
    }

    fn events() -> Vec<Event<'static>> {
        let path = Path::new("/copies/16");
        let store = || StoreId([1; 16]).to_string();
        vec![
            Event::Started { store: store() },
            Event::ReplicaBorn { copy: COPY, store: store(), path, why: "create" },
            Event::ReplicaOpened { copy: COPY, store: store(), path },
            Event::Role { copy: COPY, term: 3, role: Role::Leader },
            Event::Voted { copy: COPY, term: 3, voted_for: 7 },
            Event::Mounted { copy: COPY, term: 3, index: 4 },
            Event::Acknowledged(Acknowledged {
                copy: COPY,
                term: 3,
                index: 5,
                chain: "00".repeat(16),
                durable: 5,
                applied: 5,
                request: "r1",
                deadline: 9,
            }),
            Event::GrantCommitted {
                grant: 1,
                to_node: 3,
                to_boot: BootOf { counter: 2, id: u64::MAX },
                term: 9,
            },
            Event::GateOpened(LEASE),
            Event::GateExtended(LEASE),
            Event::GateClosed { why: "the lease ended" },
            Event::Dismounted { copy: COPY, why: "it does not lead any more" },
            Event::ReplicaFailed { copy: COPY, why: "crc" },
            Event::ReplicaClosed { copy: COPY, path },
            Event::ReplicaRemoved { copy: COPY, why: "replaced" },
            step(StepState::Begun),
            step(StepState::Done),
            step(StepState::Failed),
            step(StepState::Refused),
            Event::Stopped,
        ]
    }

    #[test]
    fn the_checkers_read_every_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let boot = Boot { counter: 2, id: u64::MAX };
        let journal = Journal::open(Some(&path), NodeId(3), boot).unwrap();
        journal.set_lineage(Lineage { epoch: 1, activation: ActivationId([9; 16]) });
        let events = events();
        events.iter().for_each(|event| journal.write(event));
        journal.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), events.len());
        for line in text.lines() {
            let entry: history::journal::Entry = serde_json::from_str(line).expect(line);
            assert_eq!((entry.node, entry.boot.id), (3, u64::MAX));
            assert!(entry.lineage.is_some());
        }
    }

    /// The page is what whoever writes a checker goes by.
    #[test]
    fn the_page_has_a_row_for_every_event_and_names_its_fields() {
        let page = include_str!("../../../docs/journal.md");
        for event in events() {
            let line = serde_json::to_value(&event).expect("texts and numbers");
            let fields = line.as_object().expect("an object");
            let name = fields["event"].as_str().expect("a name");
            assert!(page.contains(&format!("\n| `{name}` |")), "no row for {name}");
            for field in fields.keys() {
                assert!(page.contains(&format!("`{field}`")), "{field} of {name} is not explained");
            }
        }
    }

    #[test]
    fn acknowledgements_wait_for_the_next_rare_line_or_a_flush() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let journal = Journal::open(Some(&path), NodeId(1), Boot::default()).unwrap();
        let size = || std::fs::metadata(&path).unwrap().len();
        let acknowledged = &events()[6];
        journal.write(acknowledged);
        assert_eq!(size(), 0);
        journal.flush();
        let one = size();
        assert!(one > 0);
        journal.write(acknowledged);
        journal.write(&Event::Stopped);
        assert!(size() > 2 * one);
    }

    #[test]
    fn without_a_file_nothing_is_kept() {
        let journal = Journal::open(None, NodeId(1), Boot::default()).unwrap();
        journal.write(&Event::Stopped);
        assert!(!journal.is_kept());
    }
}
