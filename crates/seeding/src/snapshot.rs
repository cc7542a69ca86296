//! Snapshots: a copy's state as it was at one position, kept beside the copy.
//!
//! A snapshot is a checkpoint of the state (hard links where the engine can, so it costs nothing but
//! what the copy itself gives up later) with a manifest that names every file and its digest.
//!
//! ```text
//!  <database's folder>/snapshots/<id>.new/    being taken: files first, manifest last
//!                         │ rename
//!                         ▼
//!                      <id>/state/...         the files, never written again
//!                           manifest          whose, where in the log, when, each file's digest
//!                           verdict           what the last verification found
//!                         │ rename
//!                         ▼
//!                      <id>.gone/             being removed       (or trash/snapshot-<id>/)
//! ```
//! A name without a suffix stands for a whole snapshot: a kill at any moment leaves it, or rubbish
//! that the next start removes, and never a part of one. Whatever of it rots afterwards is found by
//! [`Shelf::verify`]; a snapshot that was found bad once stays bad, and is never read from again.

mod manifest;
mod verify;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dag_types::{Lineage, Millis};
use storage::disk::{Disk, DiskFile, Links, OpenMode, read_whole, replace_whole};
use storage::identity::CopyIdentity;
use storage::state::{self, StateEngine, StateRead, StateStore};

use crate::fault::{SeedFault, disk as disk_fault};
use crate::{source, trash};

pub use manifest::{SnapshotFile, SnapshotId, SnapshotManifest};
pub use verify::Verdict;

/// Its name in a database's folder.
pub const SNAPSHOTS: &str = "snapshots";
const STATE: &str = "state";
const MANIFEST: &str = "manifest";
const VERDICT: &str = "verdict";
const STAGED: &str = "new";
const GONE: &str = "gone";
/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// Is told how many bytes were read since it was told last; it may wait, and breaks the work off by
/// answering `false`.
pub type Pace<'a> = &'a mut dyn FnMut(u64) -> bool;

/// What a snapshot is taken with.
#[derive(Debug, Clone)]
pub struct SnapshotOrder {
    /// Used once.
    pub id: SnapshotId,
    /// Of which copy.
    pub copy: CopyIdentity,
    /// What people call the database.
    pub database_name: String,
    /// The newest lineage that the node knows.
    pub lineage: Lineage,
    /// Wall-clock time.
    pub now: Millis,
    /// It goes only when a person says so.
    pub protected: bool,
    /// Taken by schedule.
    pub scheduled: bool,
    /// By whom.
    pub made_by: String,
    /// Why.
    pub reason: String,
}

/// A snapshot that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Which one.
    pub id: SnapshotId,
    /// Its manifest, or why that cannot be read.
    pub manifest: Result<SnapshotManifest, String>,
    /// What the last verification found; none: it was never verified.
    pub verdict: Option<Verdict>,
}

impl Kept {
    /// Why it must not be used; none: nothing is held against it.
    pub fn bad(&self) -> Option<String> {
        match (&self.manifest, &self.verdict) {
            (Err(why), _) => Some(why.clone()),
            (Ok(_), Some(verdict)) if !verdict.is_good() => Some(verdict.findings.join("; ")),
            (Ok(_), _) => None,
        }
    }
}

/// What a snapshot costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes of all its files.
    pub bytes: u64,
    /// Of these, what nothing else holds: so much is free when it goes.
    pub alone: u64,
}

/// The snapshots of one database in one of its folders.
pub struct Shelf {
    disk: Arc<dyn Disk>,
    database_folder: PathBuf,
    folder: PathBuf,
}

impl Shelf {
    /// The shelf in a database's folder; it need not be there yet.
    pub fn of(disk: Arc<dyn Disk>, database_folder: &Path) -> Self {
        let folder = database_folder.join(SNAPSHOTS);
        Self { disk, database_folder: database_folder.to_path_buf(), folder }
    }

    /// Where the shelf is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes what an earlier life began and did not end. Nothing may be taken or removed at the
    /// same time.
    pub fn clean(&self) -> Result<usize, SeedFault> {
        let io = disk_fault("tidy snapshots", &self.folder);
        let mut removed = 0;
        for name in self.names().map_err(&io)? {
            if name.extension().is_some_and(|kind| kind == STAGED || kind == GONE) {
                self.disk.remove_dir_all(&self.folder.join(name)).map_err(&io)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// All snapshots, the oldest first; those whose manifest cannot be read before all others.
    pub fn list(&self) -> Result<Vec<Kept>, SeedFault> {
        let names = self.names().map_err(disk_fault("list snapshots", &self.folder))?;
        let ids = names.iter().filter_map(|name| name.to_str()?.parse().ok());
        let mut kept: Vec<Kept> = ids.map(|id| self.read(id)).collect();
        kept.sort_by_key(|kept| (kept.manifest.as_ref().ok().map(|m| m.taken), kept.id));
        Ok(kept)
    }

    /// One snapshot; none where there is none of this id.
    pub fn find(&self, id: SnapshotId) -> Result<Option<Kept>, SeedFault> {
        let there = self.disk.exists(&self.path(id));
        let there = there.map_err(disk_fault("look for a snapshot", &self.folder))?;
        Ok(there.then(|| self.read(id)))
    }

    /// Takes a snapshot of a copy's state. Durable on return; where it fails nothing is left but
    /// what the next [`Shelf::clean`] removes. The state is held only until its files have their
    /// second names. Files that an earlier snapshot holds too are not read
    /// again: they have its digests.
    pub fn take(
        &self,
        order: &SnapshotOrder,
        store: Arc<dyn StateStore>,
        engine: &dyn StateEngine,
        pace: Pace<'_>,
    ) -> Result<SnapshotManifest, SeedFault> {
        let taken = self.stage(order, store, engine, pace);
        if taken.is_err() {
            // Where even that fails, the next start removes it.
            drop(self.disk.remove_dir_all(&self.beside(order.id, STAGED)));
        }
        taken
    }

    fn stage(
        &self,
        order: &SnapshotOrder,
        store: Arc<dyn StateStore>,
        engine: &dyn StateEngine,
        pace: Pace<'_>,
    ) -> Result<SnapshotManifest, SeedFault> {
        let io = disk_fault("take a snapshot", &self.folder);
        let (staged, place) = (self.beside(order.id, STAGED), self.path(order.id));
        assert!(!self.disk.exists(&place).map_err(&io)?, "a snapshot's id is used once");
        self.disk.remove_dir_all(&staged).map_err(&io)?;
        self.disk.create_dir_all(&staged).map_err(&io)?;
        self.disk.sync_dir(&self.folder).map_err(&io)?;
        self.disk.sync_dir(&self.database_folder).map_err(&io)?;
        let files = staged.join(STATE);
        store.checkpoint(&files)?;
        // Reading the files takes long, and nobody is to wait for the state meanwhile.
        drop(store);
        let position = state::applied(&*engine.open_read_only(&files)?)?;
        let position = position.ok_or(SeedFault::Order {
            what: "take a snapshot",
            why: "nothing was applied to this copy yet, so there is nothing to keep",
        })?;
        let files = self.digests(&files, pace)?;
        let manifest = SnapshotManifest::of(order, position, files);
        let bytes = manifest::guarded(&manifest.encode());
        replace_whole(&*self.disk, &staged.join(MANIFEST), &bytes).map_err(&io)?;
        self.disk.sync_dir(&staged.join(STATE)).map_err(&io)?;
        self.disk.rename(&staged, &place).map_err(&io)?;
        self.disk.sync_dir(&self.folder).map_err(&io)?;
        Ok(manifest)
    }

    /// Opens a snapshot for reading. Nothing in it is changed.
    pub fn open(
        &self,
        id: SnapshotId,
        engine: &dyn StateEngine,
    ) -> Result<Arc<dyn StateRead>, SeedFault> {
        let kept = self.find(id)?.ok_or(NOT_THERE)?;
        if kept.bad().is_some() {
            return Err(SeedFault::Order {
                what: "read a snapshot",
                why: "it was found to be damaged, and nothing is given out of it any more",
            });
        }
        Ok(engine.open_read_only(&self.files(id))?)
    }

    /// Notes what was found to be wrong with a snapshot while it was read. Durable on return.
    pub fn mark_bad(&self, id: SnapshotId, now: Millis, finding: &str) -> Result<(), SeedFault> {
        let Some(kept) = self.find(id)? else { return Ok(()) };
        let verdict = Verdict { at: now, findings: vec![finding.to_owned()] };
        self.save(id, &verdict.after(kept.verdict.as_ref())).map(drop)
    }

    /// Puts a snapshot into the database's trash. `false`: it was not there.
    pub fn discard(&self, id: SnapshotId, now: Millis) -> Result<bool, SeedFault> {
        let io = disk_fault("put a snapshot into the trash", &self.folder);
        if !self.disk.exists(&self.path(id)).map_err(&io)? {
            return Ok(false);
        }
        let bin = self.database_folder.join(trash::TRASH);
        self.disk.create_dir_all(&bin).map_err(&io)?;
        self.disk.sync_dir(&self.database_folder).map_err(&io)?;
        self.disk.rename(&self.path(id), &bin.join(format!("snapshot-{id}"))).map_err(&io)?;
        self.disk.sync_dir(&bin).map_err(&io)?;
        self.disk.sync_dir(&self.folder).map_err(&io)?;
        trash::note(&*self.disk, &self.database_folder, now)?;
        Ok(true)
    }

    /// Removes a snapshot for good, to get its space back. `false`: it was not there.
    pub fn remove(&self, id: SnapshotId) -> Result<bool, SeedFault> {
        let io = disk_fault("remove a snapshot", &self.folder);
        if !self.disk.exists(&self.path(id)).map_err(&io)? {
            return Ok(false);
        }
        let gone = self.beside(id, GONE);
        self.disk.remove_dir_all(&gone).map_err(&io)?;
        self.disk.rename(&self.path(id), &gone).map_err(&io)?;
        self.disk.sync_dir(&self.folder).map_err(&io)?;
        self.disk.remove_dir_all(&gone).map_err(&io)?;
        Ok(true)
    }

    /// What a snapshot costs now. What cannot be looked at counts as nothing.
    pub fn space(&self, id: SnapshotId) -> Space {
        let folder = self.files(id);
        let files = source::files(&*self.disk, &folder).unwrap_or_default();
        let mut space = Space::default();
        for file in files {
            space.bytes += file.bytes;
            let links = self.disk.links(&folder.join(&file.name));
            if links.is_ok_and(|links| links.count <= 1) {
                space.alone += file.bytes;
            }
        }
        space
    }

    /// Whether a file of a snapshot and one in another folder are the very same.
    pub fn shares(&self, id: SnapshotId, name: &str, with: &Path) -> bool {
        let own = file_of(&*self.disk, &self.files(id).join(name));
        own.is_some() && own == file_of(&*self.disk, &with.join(name))
    }

    /// The folder of a snapshot's files.
    pub fn files(&self, id: SnapshotId) -> PathBuf {
        self.path(id).join(STATE)
    }

    fn path(&self, id: SnapshotId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    fn beside(&self, id: SnapshotId, suffix: &str) -> PathBuf {
        self.folder.join(format!("{id}.{suffix}"))
    }

    fn names(&self) -> io::Result<Vec<PathBuf>> {
        match self.disk.list(&self.folder) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names,
        }
    }

    fn read(&self, id: SnapshotId) -> Kept {
        let path = self.path(id).join(MANIFEST);
        let unreadable = |why: String| format!("its file `{MANIFEST}` {why}");
        let manifest = read_whole(&*self.disk, &path)
            .map_err(|error| unreadable(format!("cannot be read: {error}")))
            .and_then(|bytes| {
                let found = manifest::unguarded(&bytes).and_then(SnapshotManifest::decode);
                let found = found.filter(|manifest| manifest.id == id);
                found.ok_or_else(|| unreadable("is not as it was written".to_owned()))
            });
        Kept { id, manifest, verdict: self.verdict(id) }
    }

    /// A verdict that is there and does not read is a bad one: it may have been.
    fn verdict(&self, id: SnapshotId) -> Option<Verdict> {
        match read_whole(&*self.disk, &self.path(id).join(VERDICT)) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => None,
            read => {
                let found = read.ok().and_then(|bytes| Verdict::decode(&bytes));
                Some(found.unwrap_or_else(|| Verdict {
                    at: Millis(0),
                    findings: vec![format!("its file `{VERDICT}` is not as it was written")],
                }))
            }
        }
    }

    fn save(&self, id: SnapshotId, verdict: &Verdict) -> Result<(), SeedFault> {
        let path = self.path(id).join(VERDICT);
        replace_whole(&*self.disk, &path, &verdict.encode())
            .map_err(disk_fault("note what a verification found", &path))
    }

    /// The digests of a checkpoint's files.
    fn digests(&self, folder: &Path, pace: Pace<'_>) -> Result<Vec<SnapshotFile>, SeedFault> {
        let known = self.known()?;
        let io = disk_fault("take a snapshot", folder);
        let mut found = Vec::new();
        for file in source::files(&*self.disk, folder).map_err(&io)? {
            let path = folder.join(&file.name);
            let same = file_of(&*self.disk, &path);
            let earlier = same.and_then(|same| known.get(&(same, file.name.clone(), file.bytes)));
            let blake3 = match earlier {
                Some(blake3) => *blake3,
                None => digest(&*self.disk, &path, pace)?,
            };
            found.push(SnapshotFile { name: file.name, bytes: file.bytes, blake3 });
        }
        Ok(found)
    }

    /// The digests of files that snapshots hold already, by which file it is. A file of a state is
    /// written once, so what it had to contain then is what it has to contain now.
    fn known(&self) -> Result<BTreeMap<((u64, u64), String, u64), [u8; 32]>, SeedFault> {
        let mut known = BTreeMap::new();
        for kept in self.list()?.into_iter().filter(|kept| kept.bad().is_none()) {
            let folder = self.files(kept.id);
            for file in kept.manifest.into_iter().flat_map(|manifest| manifest.files) {
                if let Some(which) = file_of(&*self.disk, &folder.join(&file.name)) {
                    known.insert((which, file.name, file.bytes), file.blake3);
                }
            }
        }
        Ok(known)
    }
}

const NOT_THERE: SeedFault =
    SeedFault::Order { what: "read a snapshot", why: "there is none of this id" };

/// Which file a name stands for, where the file system tells.
fn file_of(disk: &dyn Disk, path: &Path) -> Option<(u64, u64)> {
    disk.links(path).ok().and_then(|Links { file, .. }| file)
}

/// BLAKE3 of a whole file.
fn digest(disk: &dyn Disk, path: &Path, pace: Pace<'_>) -> Result<[u8; 32], SeedFault> {
    let io = disk_fault("read a snapshot", path);
    let file: Arc<dyn DiskFile> = disk.open(path, OpenMode::Read).map_err(&io)?;
    let (mut hasher, mut at, end) = (blake3::Hasher::new(), 0, file.len().map_err(&io)?);
    let mut buffer = vec![0; PIECE];
    while at < end {
        let piece = &mut buffer[..(end - at).min(PIECE as u64) as usize];
        file.read_at(piece, at).map_err(&io)?;
        hasher.update(piece);
        at += piece.len() as u64;
        if !pace(piece.len() as u64) {
            return Err(SeedFault::Order {
                what: "read a snapshot's files",
                why: "it was broken off; begin again",
            });
        }
    }
    Ok(*hasher.finalize().as_bytes())
}
