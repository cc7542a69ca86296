//! Reading everything, slowly, so that what rotted is found before it is needed.
//!
//! A passive copy's bytes may lie unread for months, until the day on which it has to serve. So each
//! node reads its copies from end to end, log and state, one after the other and at a rate that
//! nobody notices (`[scrub]` in its settings). What does not hold is named, and the copy is Failed as
//! if somebody had met it: it leads no more, and a new copy is built by itself.
//!
//! A copy that this process built is read at once: nothing of it was ever read from this disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dag_types::{DatabaseId, Millis, ReplicaId};
use replication::OpenCopy;
use seeding::limit::RateLimit;
use seeding::scrub::{Cursor, Finding, Scrub, ScrubPlace, ScrubStep};

use crate::clock;
use crate::node::Node;
use crate::rounds;

/// Between two looks at which copies are due.
const LOOK: Duration = Duration::from_millis(500);
/// The longest pause between two pieces.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How far each copy was read.
#[derive(Debug, Default)]
pub struct Scrubs {
    copies: Mutex<BTreeMap<DatabaseId, Scrubbed>>,
    /// Built by this process, and never read.
    built: Mutex<BTreeSet<ReplicaId>>,
}

/// How far one copy was read, in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Which copy.
    pub replica: ReplicaId,
    /// Bytes of the pass under way; none: there is none.
    pub reading: Option<u64>,
    /// When the last pass ended that found nothing, since 1970.
    pub sound_at: Option<Millis>,
    /// By BOOTTIME: when the last pass ended, or when the copy was met first.
    since: Millis,
}

impl Scrubs {
    /// How far the copy of a database was read.
    pub fn of(&self, database: DatabaseId) -> Option<Scrubbed> {
        self.held().get(&database).copied()
    }

    /// A copy was built here: it is read as soon as it is in service.
    pub fn built(&self, replica: ReplicaId) {
        self.never_read().insert(replica);
    }

    /// Whether a pass over this copy is due. A copy that is met first waits like one that was read.
    fn is_due(&self, database: DatabaseId, replica: ReplicaId, every: Millis, now: Millis) -> bool {
        let new = Scrubbed { replica, reading: None, sound_at: None, since: now };
        let mut held = self.held();
        let known = held.entry(database).or_insert(new);
        if known.replica != replica {
            *known = new;
        }
        self.never_read().contains(&replica) || now.saturating_sub(known.since) >= every
    }

    fn note(&self, database: DatabaseId, change: impl FnOnce(&mut Scrubbed)) {
        if let Some(known) = self.held().get_mut(&database) {
            change(known);
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<DatabaseId, Scrubbed>> {
        self.copies.lock().expect(UNPOISONED)
    }

    fn never_read(&self) -> std::sync::MutexGuard<'_, BTreeSet<ReplicaId>> {
        self.built.lock().expect(UNPOISONED)
    }
}

const UNPOISONED: &str = "nothing panics while the passes are held";

/// Starts the thread, unless the node's settings say that nothing is read; it ends with the node.
pub fn start(node: &Arc<Node>) -> std::io::Result<()> {
    if node.settings.scrub.rate.0 == 0 {
        return Ok(());
    }
    rounds::start(node, "scrub", LOOK, round)
}

/// Reads every copy that is due.
fn round(node: &Arc<Node>) {
    let every = Millis(node.settings.scrub.every.0.as_millis() as u64);
    for database in node.store.copies().into_keys() {
        let Some(pass) = Pass::of(node, database) else { continue };
        if node.scrubs.is_due(database, pass.replica, every, clock::boottime()) {
            pass.run(node);
        }
    }
}

/// One pass over one copy.
struct Pass {
    database: DatabaseId,
    replica: ReplicaId,
    log: PathBuf,
}

impl Pass {
    /// None where the copy is not in service.
    fn of(node: &Node, database: DatabaseId) -> Option<Self> {
        let group = node.group(database).ok()?;
        let log = node.store.path_of(database)?.join(storage::copy_directory::LOG);
        Some(Self { database, replica: group.replica(), log })
    }

    /// Reads the copy to its end, unless it goes away meanwhile.
    fn run(&self, node: &Arc<Node>) {
        let limit = RateLimit::new(Some(node.settings.scrub.rate.0), clock::boottime());
        let mut scrub = Scrub::new(Cursor::start(), limit);
        while let Some(copy) = self.still(node) {
            match self.step(node, &mut scrub, &copy) {
                Ok(ScrubStep::Read(_)) => {
                    let read = scrub.read_bytes();
                    node.scrubs.note(self.database, |known| known.reading = Some(read));
                }
                Ok(ScrubStep::Later(at)) => {
                    drop(copy);
                    let wait = at.saturating_sub(clock::boottime()).0;
                    std::thread::sleep(Duration::from_millis(wait.max(1)).min(PAUSE_MAX));
                }
                Ok(ScrubStep::Found(found)) => {
                    drop(copy);
                    return self.failed(node, &found);
                }
                Ok(ScrubStep::Done) => return self.ended(node, Some(scrub.read_bytes())),
                Err(error) => {
                    // A disk that cannot be read here fails the copy where it is needed.
                    tracing::warn!(db = %self.database, error, "read a copy through");
                    return self.ended(node, None);
                }
            }
        }
        self.ended(node, None);
    }

    /// The copy, while it is the same one and the node is not being stopped.
    fn still(&self, node: &Node) -> Option<Arc<OpenCopy>> {
        let same = node.group(self.database).is_ok_and(|group| group.replica() == self.replica);
        (same && !node.stopping.is_cancelled()).then(|| node.store.copy(self.database))?
    }

    fn step(&self, node: &Node, scrub: &mut Scrub, copy: &OpenCopy) -> Result<ScrubStep, String> {
        let state = copy.state();
        let place = ScrubPlace { disk: &*node.store.disk, log: &self.log, state: &*state };
        scrub.step(clock::boottime(), &place).map_err(|fault| fault.to_string())
    }

    fn failed(&self, node: &Arc<Node>, found: &Finding) {
        // What stands in a file that was taken away meanwhile was nobody's any more.
        if self.still(node).is_some() {
            node.fail_copy(self.database, &words(found));
        }
        self.ended(node, None);
    }

    fn ended(&self, node: &Node, sound: Option<u64>) {
        let now = clock::boottime();
        if let Some(bytes) = sound {
            tracing::info!(db = %self.database, bytes, "read the copy through, all of it holds");
        }
        node.scrubs.never_read().remove(&self.replica);
        node.scrubs.note(self.database, |known| {
            known.reading = None;
            known.since = now;
            if sound.is_some() {
                known.sound_at = Some(clock::wall());
            }
        });
    }
}

/// Why the copy is Failed, with the place.
fn words(found: &Finding) -> String {
    match found {
        Finding::Log { file, position, detail } => {
            format!("scrub: {} at byte {position}: {detail}", name_of(file))
        }
        Finding::Row { key, detail } => format!("scrub: the record {key}: {detail}"),
        Finding::File { detail } => format!("scrub: {detail}"),
    }
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: DatabaseId = DatabaseId(16);

    #[test]
    fn a_copy_is_read_after_it_stood_for_so_long_and_a_new_one_begins_from_the_beginning() {
        let scrubs = Scrubs::default();
        let due =
            |replica, now| scrubs.is_due(DATABASE, ReplicaId(replica), Millis(100), Millis(now));
        assert!(!due(1, 50), "met first");
        assert!(!due(1, 149));
        assert!(due(1, 150));
        assert!(!due(2, 160), "another copy in its place");
        assert!(due(2, 260));
        scrubs.note(DATABASE, |known| known.since = Millis(300));
        assert!(!due(2, 399));
        assert!(due(2, 400));
        scrubs.built(ReplicaId(3));
        assert!(!due(2, 399), "the old one serves until the new one has its place");
        assert!(due(3, 401), "built here");
        scrubs.never_read().clear();
        assert!(!due(3, 402), "and read");
    }

    #[test]
    fn what_does_not_hold_is_named_with_its_place() {
        let file = PathBuf::from("/root/copies/16/3/log/0000000000000007.seg");
        let found = Finding::Log { file, position: 4096, detail: "the checksum differs".into() };
        let said = "scrub: 0000000000000007.seg at byte 4096: the checksum differs";
        assert_eq!(words(&found), said);
    }
}
