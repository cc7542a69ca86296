//! One copy's directory: log, state, META, and the proof that they belong together.
//!
//! ```text
//!  <database's folder>/gen-<generation>-<replica id>/
//!      LOCK         held while the copy is open
//!      META         identity, openings, purge point; written last when a copy is made
//!      log/         segments
//!      state/       the state engine's own files
//!      state.next/  a state that was brought from elsewhere and replaces `state` at the next open
//!  <database's folder>/trash/   copies that were discarded
//! ```
//! Opening is where a copy shows that it is whole: the format is known, the identity is the one
//! that was asked for, META and the node's root know the same openings, the log is not older than
//! the vote or the purge point that others know, and the state is not behind the purge point. What
//! does not fit makes the copy Failed; nothing is repaired by guessing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dag_format::FormatError;
use dag_format::meta::{CopyMemory, CopyMeta};
use dag_types::DatabaseId;
use thiserror::Error;

use crate::disk::{Disk, DiskLock, read_whole, replace_whole, take_lock};
use crate::identity::{CopyIdentity, NodeRoot, RootFault, WRITER};
use crate::log::{
    CopyLog, Done, EntryCache, LogExpectations, LogFault, LogObserver, LogOpenFault, LogPlace,
    Position, VoteRecord,
};
use crate::state::{self, StateEngine, StateError, StateStore};
use crate::volume::Volume;

const LOCK: &str = "LOCK";
const META: &str = "META";
/// The folder of the log's segments, below a copy's own.
pub const LOG: &str = "log";
const STATE: &str = "state";
const NEXT_STATE: &str = "state.next";
const TRASH: &str = "trash";

/// Why a copy is not opened or made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenFault {
    /// The disk failed.
    #[error("{operation} in {folder}: {detail}")]
    Disk {
        /// Verb and object.
        operation: &'static str,
        /// The copy's directory.
        folder: String,
        /// The system's own words.
        detail: String,
    },
    /// The volume is full.
    #[error("{operation} in {folder}: the volume is full; make room, then resume this copy")]
    NoSpace {
        /// Verb and object.
        operation: &'static str,
        /// The copy's directory.
        folder: String,
    },
    /// There is no copy.
    #[error("there is no copy in {folder}")]
    Missing {
        /// The copy's directory.
        folder: String,
    },
    /// There is a copy already, or there was one with this replica id.
    #[error("replica {replica} was used on this node before; a copy is made with a new id")]
    Used {
        /// The replica id, as text.
        replica: String,
    },
    /// Another process, or another part of this one, has it open.
    #[error("{folder} is open already")]
    InUse {
        /// The copy's directory.
        folder: String,
    },
    /// META is damaged, or a newer Holdfast wrote it. Nothing was changed.
    #[error("{folder}: {fault}")]
    Meta {
        /// The copy's directory.
        folder: String,
        /// What is wrong with it.
        fault: FormatError,
    },
    /// The directory is another copy's, another node's, or from another store.
    #[error("{folder} holds another copy: {what} is {found}, not {expected}")]
    Foreign {
        /// The copy's directory.
        folder: String,
        /// What differs.
        what: &'static str,
        /// What was asked for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// META and the node's root do not know the same openings: one of them was turned back.
    #[error(
        "{what} was turned back: META knows {meta} openings and boot {meta_boot}, the node's root \
         {root} openings and boot {root_boot}; reseed this copy"
    )]
    TurnedBack {
        /// Which of the two.
        what: &'static str,
        /// Openings in META.
        meta: u64,
        /// Boot counter of the last opening in META.
        meta_boot: u64,
        /// Openings in the root.
        root: u64,
        /// Boot counter of the last opening in the root.
        root_boot: u64,
    },
    /// The state that was brought from elsewhere does not end where it should.
    #[error("the state in {folder} ends at {found:?}, not at {expected:?}")]
    OtherState {
        /// Its folder.
        folder: String,
        /// Where it should end.
        expected: Option<Position>,
        /// Where it ends.
        found: Option<Position>,
    },
    /// The log does not hold.
    #[error(transparent)]
    Log(#[from] LogOpenFault),
    /// The state does not open.
    #[error(transparent)]
    State(#[from] StateError),
    /// The node's own root failed.
    #[error(transparent)]
    Root(#[from] RootFault),
}

/// Where a database's copies lie on a node, and what they share.
#[derive(Clone)]
pub struct CopyPlace {
    /// The node's root.
    pub root: Arc<NodeRoot>,
    /// The volume of `folder`.
    pub volume: Volume,
    /// The node's cache of entries.
    pub cache: Arc<EntryCache>,
    /// The database's folder; each copy has its own below it.
    pub folder: PathBuf,
}

/// What a new copy begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyStart {
    /// Nothing.
    Empty,
    /// A state that was brought from elsewhere, whole and synced, in a folder of the same volume,
    /// and ends at `position`; the folder is moved. The log begins behind it.
    Seeded {
        /// The state's folder.
        state: PathBuf,
        /// Where the state ends.
        position: Position,
        /// A vote that the copy begins with, where its group is formed anew.
        vote: Option<VoteRecord>,
    },
}

/// An open copy. Dropping it closes its log; the copy stays locked until what was asked of the log
/// is written, so that there is never a second writer.
pub struct CopyDirectory {
    /// The log.
    pub log: CopyLog,
    /// The state.
    pub state: Arc<dyn StateStore>,
    identity: CopyIdentity,
    path: PathBuf,
    volume: Volume,
    /// There until the copy is closed.
    lock: Option<DiskLock>,
}

/// META in memory; also what the log reports to.
struct Keeper {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    meta: Mutex<CopyMeta>,
    root: Arc<NodeRoot>,
    volume: Volume,
}

impl CopyDirectory {
    /// Makes a copy. The replica id must never have been used on this node. Durable on return.
    pub fn create(
        place: &CopyPlace,
        identity: CopyIdentity,
        start: CopyStart,
        engine: &dyn StateEngine,
    ) -> Result<Self, OpenFault> {
        let path = copy_path(place, &identity);
        let disk = place.volume.disk().clone();
        let io = |operation| io_fault(operation, &path);
        if place.root.remembered(identity.database, identity.replica).is_some()
            || disk.exists(&path.join(META)).map_err(io("look for a copy"))?
        {
            return Err(OpenFault::Used { replica: identity.replica.to_string() });
        }
        // Without META a copy was never finished, and nobody relies on it.
        disk.remove_dir_all(&path).map_err(io("remove an unfinished copy"))?;
        disk.create_dir_all(&path).map_err(io("make the copy's folder"))?;
        // Before a seeded state is moved into it: otherwise a power loss takes both.
        sync_above(&*disk, &place.folder).map_err(io("sync the database's folder"))?;
        let lock = lock(&*disk, &path, &identity)?;
        let (state, position, vote) = first_state(&*disk, &path, start, engine)?;
        let meta = new_meta(place, &identity, position);
        let session = meta.opens;
        let keeper = keeper(place, &disk, &path, meta.clone());
        let log = CopyLog::create(log_place(place, &path, session, &keeper), position, vote)?;
        if let Some(position) = position {
            log.set_flushed(position);
        }
        disk.sync_dir(&path).map_err(io("sync the copy's folder"))?;
        replace_whole(&*disk, &path.join(META), &meta.encode()).map_err(io("write META"))?;
        sync_above(&*disk, &place.folder).map_err(io("sync the database's folder"))?;
        place.root.remember_open(identity.database, identity.replica, session)?;
        let volume = place.volume.clone();
        Ok(Self { log, state, identity, path, volume, lock: Some(lock) })
    }

    /// Opens a copy, with all checks. Every fault but [`OpenFault::InUse`], [`OpenFault::NoSpace`]
    /// and [`OpenFault::Missing`] means that the copy is Failed and comes back by reseed.
    pub fn open(
        place: &CopyPlace,
        identity: CopyIdentity,
        engine: &dyn StateEngine,
    ) -> Result<Self, OpenFault> {
        let path = copy_path(place, &identity);
        let disk = place.volume.disk().clone();
        let mut meta = read_meta(&*disk, &path)?;
        check_identity(&path, &meta, &identity)?;
        let memory = place.root.remembered(identity.database, identity.replica);
        check_openings(&meta, memory, place.root.identity().boot.counter)?;
        let lock = lock(&*disk, &path, &identity)?;
        meta.opens += 1;
        meta.boot_counter = place.root.identity().boot.counter;
        meta.writer = WRITER.into();
        let session = meta.opens;
        replace_whole(&*disk, &path.join(META), &meta.encode())
            .map_err(io_fault("write META", &path))?;
        place.root.remember_open(identity.database, identity.replica, session)?;
        adopt_next_state(&*disk, &path).map_err(io_fault("take over a new state", &path))?;
        let state = engine.open(&path.join(STATE))?;
        let flushed = state::applied(&*state)?;
        let expected = LogExpectations {
            flushed,
            purged: meta.purged,
            vote: memory.and_then(|memory| memory.vote),
        };
        let keeper = keeper(place, &disk, &path, meta);
        let log = CopyLog::open(log_place(place, &path, session, &keeper), expected)?;
        // A vote from right before the last stop may have reached the log alone.
        if let Some(vote) = log.vote()
            && place.root.note_vote(identity.database, identity.replica, vote)
        {
            place.root.write_votes()?;
        }
        let volume = place.volume.clone();
        Ok(Self { log, state, identity, path, volume, lock: Some(lock) })
    }

    /// Whose copy it is.
    pub fn identity(&self) -> &CopyIdentity {
        &self.identity
    }

    /// The copy's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state's folder.
    pub fn state_path(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// Puts a state that was brought from elsewhere (whole and synced, on the same volume) in line
    /// to replace this copy's at its next open. Durable on return.
    pub fn stage_state(&self, from: &Path) -> Result<(), OpenFault> {
        let disk = self.volume.disk();
        let target = self.path.join(NEXT_STATE);
        let staged = disk
            .remove_dir_all(&target)
            .and_then(|()| disk.rename(from, &target))
            .and_then(|()| disk.sync_dir(&self.path));
        staged.map_err(io_fault("stage a new state", &self.path))
    }

    /// Puts a staged state in the place of the used one now, instead of at the next open. Of the
    /// used one nothing may be open any more: neither the store nor a snapshot of it. Durable on
    /// return; the caller opens the state anew.
    pub fn adopt_staged(&self) -> Result<(), OpenFault> {
        adopt_next_state(&**self.volume.disk(), &self.path)
            .map_err(io_fault("take over a new state", &self.path))
    }

    /// Closes the copy when all that was asked of its log is durable; `done` is called then, and
    /// the copy can be opened again once everything of its state is dropped.
    pub fn close(mut self, done: Done) {
        self.unlock_after_close(done);
    }

    fn unlock_after_close(&mut self, done: Done) {
        let lock = self.lock.take();
        self.log.close(Box::new(move |result| {
            drop(lock);
            done(result);
        }));
    }

    /// Moves a copy that is not open to the trash; it is out of the way on return, durably, and its
    /// replica id stays used.
    pub fn discard(place: &CopyPlace, identity: &CopyIdentity) -> Result<(), OpenFault> {
        let path = copy_path(place, identity);
        let disk = place.volume.disk();
        let io = |operation| io_fault(operation, &path);
        if !disk.exists(&path).map_err(io("look for a copy"))? {
            return Ok(());
        }
        let lock = lock(&**disk, &path, identity)?;
        let trash = place.folder.join(TRASH);
        let target = trash.join(copy_name(identity));
        let moved = disk
            .create_dir_all(&trash)
            .and_then(|()| disk.sync_dir(&place.folder))
            .and_then(|()| disk.remove_dir_all(&target))
            .and_then(|()| disk.rename(&path, &target))
            .and_then(|()| disk.sync_dir(&place.folder))
            .and_then(|()| disk.sync_dir(&trash));
        drop(lock);
        moved.map_err(io("move a copy to the trash"))
    }

    /// Removes what lies in the trash of a database.
    pub fn empty_trash(place: &CopyPlace) -> Result<(), OpenFault> {
        let trash = place.folder.join(TRASH);
        let disk = place.volume.disk();
        disk.remove_dir_all(&trash).map_err(io_fault("empty the trash", &trash))
    }
}

impl Drop for CopyDirectory {
    fn drop(&mut self) {
        if self.lock.is_some() {
            self.unlock_after_close(Box::new(|_| ()));
        }
    }
}

impl LogObserver for Keeper {
    fn before_purge(&self, point: Position) -> io::Result<()> {
        let mut meta = self.meta.lock().expect("no panic while META is locked");
        if meta.purged.is_some_and(|(purged, _)| purged.index >= point.0.index) {
            return Ok(());
        }
        meta.purged = Some(point);
        replace_whole(&*self.disk, &self.path.join(META), &meta.encode())
    }

    /// The log is what a vote's answer waits for. The root's memory of it, against a log that is
    /// turned back, may come a moment later and takes many votes in one write.
    fn vote_saved(&self, vote: VoteRecord) {
        let (database, replica) = {
            let meta = self.meta.lock().expect("no panic while META is locked");
            (meta.database, meta.replica)
        };
        if self.root.note_vote(database, replica, vote) {
            let root = self.root.clone();
            self.volume.background(move || {
                if let Err(fault) = root.write_votes() {
                    tracing::error!(%fault, "the node's root failed");
                }
            });
        }
    }
}

fn copy_name(identity: &CopyIdentity) -> String {
    format!("gen-{}-{}", identity.generation, identity.replica)
}

fn copy_path(place: &CopyPlace, identity: &CopyIdentity) -> PathBuf {
    place.folder.join(copy_name(identity))
}

fn keeper(
    place: &CopyPlace,
    disk: &Arc<dyn Disk>,
    path: &Path,
    meta: CopyMeta,
) -> Arc<dyn LogObserver> {
    Arc::new(Keeper {
        disk: disk.clone(),
        path: path.to_path_buf(),
        meta: Mutex::new(meta),
        root: place.root.clone(),
        volume: place.volume.clone(),
    })
}

fn log_place(
    place: &CopyPlace,
    path: &Path,
    session: u64,
    observer: &Arc<dyn LogObserver>,
) -> LogPlace {
    LogPlace {
        volume: place.volume.clone(),
        cache: place.cache.clone(),
        folder: path.join(LOG),
        session,
        observer: observer.clone(),
    }
}

fn new_meta(place: &CopyPlace, identity: &CopyIdentity, purged: Option<Position>) -> CopyMeta {
    CopyMeta {
        writer: WRITER.into(),
        dag: identity.dag,
        node: identity.node,
        store: identity.store,
        database: identity.database,
        generation: identity.generation,
        replica: identity.replica,
        opens: 1,
        boot_counter: place.root.identity().boot.counter,
        purged,
    }
}

type FirstState = (Arc<dyn StateStore>, Option<Position>, Option<VoteRecord>);

fn first_state(
    disk: &dyn Disk,
    path: &Path,
    start: CopyStart,
    engine: &dyn StateEngine,
) -> Result<FirstState, OpenFault> {
    let folder = path.join(STATE);
    match start {
        CopyStart::Empty => Ok((engine.create(&folder)?, None, None)),
        CopyStart::Seeded { state, position, vote } => {
            disk.rename(&state, &folder).map_err(io_fault("take over a seeded state", path))?;
            let store = engine.open(&folder)?;
            let (expected, found) = (Some(position), state::applied(&*store)?);
            if found != expected {
                let folder = folder.display().to_string();
                return Err(OpenFault::OtherState { folder, expected, found });
            }
            Ok((store, expected, vote))
        }
    }
}

fn read_meta(disk: &dyn Disk, path: &Path) -> Result<CopyMeta, OpenFault> {
    let folder = path.display().to_string();
    match read_whole(disk, &path.join(META)) {
        Ok(bytes) => CopyMeta::decode(&bytes).map_err(|fault| OpenFault::Meta { folder, fault }),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Err(OpenFault::Missing { folder }),
        Err(fault) => Err(io_fault("read META", path)(fault)),
    }
}

fn check_identity(path: &Path, meta: &CopyMeta, identity: &CopyIdentity) -> Result<(), OpenFault> {
    let pairs = [
        ("the DAG", identity.dag.to_string(), meta.dag.to_string()),
        ("the node", identity.node.to_string(), meta.node.to_string()),
        ("the store", identity.store.to_string(), meta.store.to_string()),
        ("the database", identity.database.to_string(), meta.database.to_string()),
        ("the generation", identity.generation.to_string(), meta.generation.to_string()),
        ("the replica", identity.replica.to_string(), meta.replica.to_string()),
    ];
    for (what, expected, found) in pairs {
        if expected != found {
            let folder = path.display().to_string();
            return Err(OpenFault::Foreign { folder, what, expected, found });
        }
    }
    Ok(())
}

/// META is written first and the root second, so META may know one opening more, whose boot the
/// root has counted; any other difference means that one of them is not from now.
fn check_openings(meta: &CopyMeta, memory: Option<CopyMemory>, boot: u64) -> Result<(), OpenFault> {
    let (root, root_boot) = memory.map_or((0, 0), |memory| (memory.opens, memory.boot_counter));
    let turned_back = |what| OpenFault::TurnedBack {
        what,
        meta: meta.opens,
        meta_boot: meta.boot_counter,
        root,
        root_boot,
    };
    if meta.opens < root || meta.boot_counter < root_boot {
        return Err(turned_back("the copy"));
    }
    let same = meta.opens == root && meta.boot_counter == root_boot;
    let interrupted = meta.opens == root + 1;
    if !(same || interrupted) || meta.boot_counter > boot {
        return Err(turned_back("the node's root"));
    }
    Ok(())
}

/// Finishes the replacement of a state that [`CopyDirectory::stage_state`] began.
fn adopt_next_state(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let (state, next) = (path.join(STATE), path.join(NEXT_STATE));
    if !disk.exists(&next)? {
        return Ok(());
    }
    disk.remove_dir_all(&state)?;
    disk.rename(&next, &state)?;
    disk.sync_dir(path)
}

fn lock(disk: &dyn Disk, path: &Path, identity: &CopyIdentity) -> Result<DiskLock, OpenFault> {
    let CopyIdentity { dag, node, store, database, replica, .. } = identity;
    let owner =
        format!("dag {dag} node {node} store {store} database {database} replica {replica}\n");
    take_lock(disk, &path.join(LOCK), &owner)
        .map_err(io_fault("lock the copy", path))?
        .ok_or_else(|| OpenFault::InUse { folder: path.display().to_string() })
}

/// Makes a folder's own name durable, and those in it.
fn sync_above(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    disk.sync_dir(folder)?;
    folder.parent().map_or(Ok(()), |above| disk.sync_dir(above))
}

fn io_fault(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenFault {
    let folder = path.display().to_string();
    move |fault| match LogFault::from_io(operation, &fault) {
        LogFault::NoSpace { .. } => OpenFault::NoSpace { operation, folder: folder.clone() },
        _ => OpenFault::Disk { operation, folder: folder.clone(), detail: fault.to_string() },
    }
}

/// A database's folder name below a volume's folder.
pub fn database_folder(database: DatabaseId) -> String {
    format!("db-{database}")
}
