//! Snapshots of this node's copies.
//!
//! ```text
//!  keeper (a thread): is one due? which go? is the volume too full?
//!     │                                  ┌── mounts: open for reading, a few at a time
//!     ▼                                  │
//!  seeding::snapshot::Shelf ◄── jobs ────┴── service/snapshots.rs: `dagctl snapshot ...`
//!     files, digests, verdicts    │
//!                                 └► notes: told to the control leader, for the audit
//! ```
//! The bytes are `seeding`'s business, and which node takes one, when, and which one goes is
//! `active_manager::snapshot`'s.

pub mod keeper;
mod mounts;
pub mod notes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use active_manager::control::command::SnapshotNote;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, ReplicaId};
use replication::{OpenCopy, Role};
use seeding::SeedFault;
use seeding::snapshot::{Kept, Shelf, SnapshotId, SnapshotManifest, SnapshotOrder, Verdict};
use storage::state::StateRead;
use tokio::sync::watch;

use crate::clock;
use crate::node::Node;
use crate::seeds::giver;
use mounts::Mounts;
use notes::{Note, Notes};

/// After each mebibyte that is read in the background the disk is left to others for so long.
const BREATH: Duration = Duration::from_millis(4);

/// What a node does with snapshots.
#[derive(Default)]
pub struct Snapshots {
    /// Folders that were tidied since this start.
    tidied: Mutex<BTreeSet<PathBuf>>,
    jobs: Mutex<BTreeMap<SnapshotId, Arc<Job>>>,
    /// Held while many bytes are read: one such work at a time.
    turn: Mutex<()>,
    mounts: Mounts,
    /// What the control leader was not told yet.
    pub notes: Notes,
}

/// A snapshot that is taken on somebody's word.
struct Job {
    read: AtomicU64,
    outcome: watch::Sender<Option<Result<SnapshotManifest, Problem>>>,
}

/// What a person wants to have taken.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Made by whoever asks.
    pub id: SnapshotId,
    /// Of which database.
    pub database: DatabaseId,
    /// It goes only when a person says so.
    pub protected: bool,
    /// By schedule.
    pub scheduled: bool,
    /// By whom.
    pub who: String,
    /// Why.
    pub reason: String,
}

/// A snapshot with the place where it lies.
pub struct Found {
    /// The folder's snapshots.
    pub shelf: Shelf,
    /// Of which database the folder is.
    pub database: DatabaseId,
    /// The snapshot.
    pub kept: Kept,
}

impl Snapshots {
    /// The places where snapshots of databases lie or may lie, also of databases that have no copy
    /// here any more. What an earlier life left unfinished there is removed first.
    pub fn shelves(&self, node: &Node) -> Vec<(DatabaseId, Shelf)> {
        let folders = node.store.folders().unwrap_or_default();
        let of_mail = |(id, _): &(DatabaseId, PathBuf)| *id >= DatabaseId::FIRST_MAILBOX_DATABASE;
        let shelf = |(id, folder): (DatabaseId, PathBuf)| (id, self.shelf(node, &folder));
        folders.into_iter().filter(of_mail).map(shelf).collect()
    }

    fn shelf(&self, node: &Node, folder: &Path) -> Shelf {
        let shelf = Shelf::of(node.store.disk.clone(), folder);
        let mut tidied = self.tidied.lock().expect(UNPOISONED);
        if tidied.insert(folder.to_path_buf()) {
            match shelf.clean() {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "unfinished snapshots are removed"),
                Err(fault) => tracing::warn!(%fault, "tidy snapshots"),
            }
        }
        shelf
    }

    /// A snapshot of this node.
    pub fn find(&self, node: &Node, id: SnapshotId) -> Result<Found, Problem> {
        for (database, shelf) in self.shelves(node) {
            if let Some(kept) = shelf.find(id).map_err(|fault| failed(&fault))? {
                return Ok(Found { shelf, database, kept });
            }
        }
        let text = format!("there is no snapshot {id} on this node");
        Err(Problem::new(Reason::SnapshotNotFound, text).next("dagctl snapshot list"))
    }

    /// Has one taken beside whoever asks, or finds the one that was asked for before. Gives it once
    /// it is taken, or how many bytes of it were read by then.
    pub async fn create(
        &self,
        node: &Arc<Node>,
        wish: Wish,
        patience: Duration,
    ) -> Result<Result<SnapshotManifest, u64>, Problem> {
        let id = wish.id;
        let (job, is_new) = self.job(id);
        if is_new {
            let (node, job) = (node.clone(), job.clone());
            tokio::task::spawn_blocking(move || {
                let begun = node.snapshots.take_once(&node, &wish, &job);
                job.outcome.send_replace(Some(begun));
            });
        }
        let mut outcome = job.outcome.subscribe();
        let ended = tokio::time::timeout(patience, outcome.wait_for(Option::is_some)).await;
        match ended {
            Err(_) => Ok(Err(job.read.load(Ordering::Relaxed))),
            Ok(Err(_)) => Err(Problem::new(Reason::Internal, "the work on the snapshot ended")),
            Ok(Ok(ended)) => {
                let ended = ended.clone().expect("just seen");
                self.jobs.lock().expect(UNPOISONED).remove(&id);
                ended.map(Ok)
            }
        }
    }

    fn job(&self, id: SnapshotId) -> (Arc<Job>, bool) {
        let mut jobs = self.jobs.lock().expect(UNPOISONED);
        if let Some(job) = jobs.get(&id) {
            return (job.clone(), false);
        }
        let job = Job { read: AtomicU64::new(0), outcome: watch::Sender::new(None) };
        let job = Arc::new(job);
        jobs.insert(id, job.clone());
        (job, true)
    }

    fn take_once(
        &self,
        node: &Arc<Node>,
        wish: &Wish,
        job: &Job,
    ) -> Result<SnapshotManifest, Problem> {
        // An answer that was lost is asked for again.
        if let Ok(found) = self.find(node, wish.id) {
            return found.kept.manifest.map_err(|why| Problem::new(Reason::SnapshotDamaged, why));
        }
        let taken = self.take(node, wish, &mut |bytes| {
            job.read.fetch_add(bytes, Ordering::Relaxed);
        })?;
        self.note(node, wish.database, wish.id, SnapshotNote::Taken, &wish.who, &wish.reason);
        Ok(taken)
    }

    /// Takes a snapshot of this node's copy; blocks.
    pub fn take(
        &self,
        node: &Arc<Node>,
        wish: &Wish,
        read: &mut dyn FnMut(u64),
    ) -> Result<SnapshotManifest, Problem> {
        let database = wish.database;
        check_fit(node, database)?;
        let _turn = self.turn();
        let copy = node.store.copy(database).ok_or_else(|| no_copy(database))?;
        let folder = node.store.folder_of(database).ok_or_else(|| no_copy(database))?;
        self.check_room(node, &folder)?;
        let group = node.member()?.registry.get(database).ok_or_else(|| no_copy(database))?;
        let spec = group.spec();
        let name = node.database(database).map(|record| record.name).unwrap_or_default();
        let order = SnapshotOrder {
            id: wish.id,
            copy: node.store.root.copy_identity(database, spec.generation, spec.replica),
            database_name: name,
            lineage: node.lineage(),
            now: clock::wall(),
            protected: wish.protected,
            scheduled: wish.scheduled,
            made_by: wish.who.clone(),
            reason: wish.reason.clone(),
        };
        let mut pace = |bytes| {
            read(bytes);
            breathe(node)
        };
        sync_log(&copy, database)?;
        let shelf = self.shelf(node, &folder);
        let taken = shelf.take(&order, copy.state(), &*node.store.engine(), &mut pace);
        let taken = taken.map_err(|fault| failed(&fault))?;
        let (bytes, index) = (taken.total_bytes(), taken.position.0.index);
        tracing::info!(db = %database, snapshot = %wish.id, index, bytes, "snapshot taken");
        Ok(taken)
    }

    fn check_room(&self, node: &Node, folder: &Path) -> Result<(), Problem> {
        let (free, floor) = (node.store.disk.free_bytes(folder).unwrap_or(u64::MAX), floor(node));
        if free >= floor {
            return Ok(());
        }
        let text = format!(
            "its volume has {free} bytes free, and snapshots leave {floor} (budget.snapshot_floor); \
             make room, or take it on another node with --node"
        );
        Err(Problem::new(Reason::CheckFailed, text).check("snapshot-floor").limit(free, floor))
    }

    /// Puts a snapshot into the trash.
    pub fn delete(
        &self,
        node: &Arc<Node>,
        id: SnapshotId,
        skip_protection: bool,
        (who, reason): (&str, &str),
    ) -> Result<Found, Problem> {
        let found = self.find(node, id)?;
        let protected = found.kept.manifest.as_ref().is_ok_and(|manifest| manifest.protected);
        if protected && !skip_protection {
            let text = "check snapshot-protected failed: it was taken to be kept; say so with \
                        --skip snapshot-protected";
            return Err(Problem::new(Reason::CheckFailed, text).check("snapshot-protected"));
        }
        self.mounts.close(id);
        match found.shelf.discard(id, clock::wall()).map_err(|fault| failed(&fault))? {
            true => self.note(node, found.database, id, SnapshotNote::Deleted, who, reason),
            // Somebody else was quicker.
            false => drop(self.find(node, id)?),
        }
        Ok(found)
    }

    /// Reads a whole snapshot; blocks. `read` is told how many bytes more were read, and breaks it
    /// off by answering `false`.
    pub fn verify(
        &self,
        node: &Arc<Node>,
        id: SnapshotId,
        read: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Verdict, Problem> {
        let Found { shelf, database, kept } = self.find(node, id)?;
        let _turn = self.turn();
        let mut pace = |bytes| read(bytes) && breathe(node);
        let verified = shelf.verify(id, &*node.store.engine(), clock::wall(), &mut pace);
        let (verdict, damaged) = verified.map_err(|fault| failed(&fault))?;
        if !verdict.is_good() {
            self.mounts.close(id);
            self.fail_sharer(node, database, &shelf, id, &damaged);
        }
        if !verdict.is_good() && kept.bad().is_none() {
            let what = verdict.findings.join("; ");
            tracing::error!(db = %database, snapshot = %id, what, "a snapshot is damaged");
            self.note(node, database, id, SnapshotNote::Damaged, "verification", &what);
        }
        Ok(verdict)
    }

    /// A file of the snapshot that is damaged may be a file of the copy as well: then the copy is
    /// as damaged.
    fn fail_sharer(
        &self,
        node: &Arc<Node>,
        database: DatabaseId,
        shelf: &Shelf,
        id: SnapshotId,
        damaged: &[String],
    ) {
        let Some(state) = node.store.path_of(database).map(|path| path.join("state")) else {
            return;
        };
        if let Some(file) = damaged.iter().find(|file| shelf.shares(id, file, &state)) {
            let why = format!(
                "its file {file} is not as it was written: the verification of snapshot {id}, which \
                 has the same file, found it"
            );
            node.fail_copy(database, &why);
        }
    }

    /// A snapshot, open for reading, and of which database it is.
    pub fn open(
        &self,
        node: &Node,
        id: SnapshotId,
    ) -> Result<(DatabaseId, Arc<dyn StateRead>), Problem> {
        let found = self.find(node, id)?;
        if let Some(why) = found.kept.bad() {
            return Err(damaged(id, &why));
        }
        let opened = self.mounts.open(id, || found.shelf.open(id, &*node.store.engine()))?;
        Ok((found.database, opened))
    }

    /// What reading it found: it is marked, and not read from any more.
    pub fn found_bad(&self, node: &Arc<Node>, id: SnapshotId, what: &str) -> Problem {
        self.mounts.close(id);
        if let Ok(found) = self.find(node, id) {
            if let Err(fault) = found.shelf.mark_bad(id, clock::wall(), what) {
                tracing::error!(snapshot = %id, %fault, "mark a damaged snapshot");
            }
            tracing::error!(db = %found.database, snapshot = %id, what, "a snapshot is damaged");
            self.note(node, found.database, id, SnapshotNote::Damaged, "reader", what);
        }
        damaged(id, what)
    }

    /// Closes what nobody reads any more.
    pub fn close_idle(&self) {
        self.mounts.close_idle();
    }

    fn note(
        &self,
        node: &Node,
        database: DatabaseId,
        id: SnapshotId,
        what: SnapshotNote,
        who: &str,
        reason: &str,
    ) {
        let (who, reason) = (who.to_owned(), reason.to_owned());
        self.notes.add(Note { database, node: node.id(), snapshot: id, what, who, reason });
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().expect(UNPOISONED)
    }
}

/// Leaves the disk to others for a moment; `false` where the node is being stopped.
fn breathe(node: &Node) -> bool {
    std::thread::sleep(BREATH);
    !node.stopping.is_cancelled()
}

/// Below so many free bytes snapshots go.
pub fn floor(node: &Node) -> u64 {
    let budget = &node.settings.budget;
    budget.snapshot_floor.0.max(budget.disk_reserve.0)
}

/// Only what the group's copies are is kept.
fn check_fit(node: &Node, database: DatabaseId) -> Result<(), Problem> {
    let Some(why) = giver::unfit(node, database) else { return Ok(()) };
    let text = format!("check snapshot-copy failed: {why}; choose another node with --node");
    Err(Problem::new(Reason::CheckFailed, text).check("snapshot-copy").database(database))
}

/// A checkpoint flushes the state, and before any flush the log is durable.
fn sync_log(copy: &OpenCopy, database: DatabaseId) -> Result<(), Problem> {
    let (done, synced) = std::sync::mpsc::channel();
    copy.log().sync(Box::new(move |result| drop(done.send(result))));
    match synced.recv() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fault)) => {
            Err(Problem::new(Reason::CopyFailed, fault.to_string()).database(database))
        }
        Err(_) => Err(no_copy(database)),
    }
}

fn no_copy(database: DatabaseId) -> Problem {
    let text = "this node has no open copy of the database; choose another node with --node";
    Problem::new(Reason::CheckFailed, text).check("snapshot-copy").database(database)
}

fn damaged(id: SnapshotId, why: &str) -> Problem {
    let text = format!("snapshot {id} is damaged ({why}); use another one");
    Problem::new(Reason::SnapshotDamaged, text).next("dagctl snapshot list")
}

/// What went wrong with files.
pub fn failed(fault: &SeedFault) -> Problem {
    Problem::new(Reason::Internal, fault.to_string())
}

/// Whether a replica's group runs here, for the keeper.
fn runs(node: &Node, database: DatabaseId) -> Option<ReplicaId> {
    let group = node.member().ok()?.registry.get(database)?;
    (group.role().0 != Role::Stopped).then(|| group.replica())
}

const UNPOISONED: &str = "no holder of this lock panics";
