//! The giving side: checkpoints of a copy, served by ranges of their files, or by their rows
//! ([`crate::delta`]), to any number of targets.
//!
//! A checkpoint is a second set of names for the state's files (hard links where the engine can),
//! in `seed-source/<id>/` below the database's folder, with its manifest beside it. Position and
//! members are read **from the checkpoint**, never from the live state, which is further by then.
//!
//! Targets share a checkpoint. Each holds a lease on it by asking; a checkpoint without leases is
//! removed. A source that was killed finds its checkpoints again by their manifests, so a target
//! goes on with the very same files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dag_types::{Millis, ReplicaId};
use storage::disk::{Disk, DiskFile, OpenMode, read_whole, replace_whole};
use storage::state::{self, StateEngine, StateRead, StateStore};

use crate::delta::{DeltaRequest, DeltaSource};
use crate::fault::{SeedFault, disk as disk_fault};
use crate::lent::Lender;
use crate::limit::RateLimit;
use crate::wire::{
    CheckpointId, Digest, FRAME_BYTES, FileEntry, Frame, Manifest, Origin, RANGE_BYTES, Refusal,
    Reply, Request, digest,
};

const MANIFEST: &str = "manifest";

/// How a source treats its targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRules {
    /// How long a silent target keeps its checkpoint. Default 10 minutes.
    pub lease: Millis,
    /// How old a checkpoint may be to be given to another target. Default 10 minutes.
    pub share: Millis,
    /// Targets at one time. Default 10.
    pub targets_max: usize,
}

impl Default for SourceRules {
    fn default() -> Self {
        Self { lease: Millis(600_000), share: Millis(600_000), targets_max: 10 }
    }
}

/// What a request led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Served {
    /// These replies, in order.
    Replies(Vec<Reply>),
    /// The limit is spent; ask again then.
    Later(Millis),
    /// No checkpoint fits: take one ([`Source::take`]) and ask again.
    NeedsCheckpoint,
}

/// What a request led to so far.
pub enum Begun {
    /// All that there is to say.
    Served(Served),
    /// A range is to be read; nobody has to wait for that.
    Range(RangeRead),
}

/// A range of a checkpoint that is still to be read.
pub struct RangeRead {
    opened: Arc<dyn DiskFile>,
    path: PathBuf,
    lender: Lender,
    file: u32,
    range: u32,
    length: usize,
}

impl RangeRead {
    /// Reads it. An error is the source's own disk: the copy is to be looked at.
    pub fn replies(&self) -> Result<Vec<Reply>, SeedFault> {
        let bytes = self.bytes()?;
        let digest = digest(&bytes);
        let start = u64::from(self.range) * RANGE_BYTES;
        let count = bytes.len().div_ceil(FRAME_BYTES);
        let frame = |n: usize| {
            let from = n * FRAME_BYTES;
            let piece = bytes.slice(from..bytes.len().min(from + FRAME_BYTES));
            let end = (n + 1 == count).then_some(digest);
            Reply::Frame(Frame::new(self.file, start + from as u64, piece, end))
        };
        Ok((0..count).map(frame).collect())
    }

    fn bytes(&self) -> Result<Bytes, SeedFault> {
        let at = u64::from(self.range) * RANGE_BYTES;
        let read = self.lender.lend(self.length, |bytes| self.opened.read_at(bytes, at));
        read.map_err(disk_fault("read a checkpoint", &self.path))
    }
}

/// The giving side of one copy.
pub struct Source {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    rules: SourceRules,
    limit: RateLimit,
    held: BTreeMap<CheckpointId, Held>,
    /// When each target was heard last, and what it reads.
    targets: BTreeMap<ReplicaId, (Millis, CheckpointId)>,
    /// The file that was read last: ranges of one file follow one another.
    open: Option<(CheckpointId, u32, Arc<dyn DiskFile>)>,
    lender: Lender,
    /// What checkpoints are opened with, where their rows are given too.
    engine: Option<Arc<dyn StateEngine>>,
    /// The checkpoint whose rows were read last.
    rows: Option<(CheckpointId, Arc<dyn StateRead>)>,
}

struct Held {
    manifest: Manifest,
    /// When it was taken, or found again after a start.
    since: Millis,
    /// When a target used it last.
    used: Millis,
}

impl Source {
    /// A source that keeps its checkpoints in `folder` (of the state's own file system), with those
    /// that an earlier life left there; what is there without a manifest is removed.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        rules: SourceRules,
        limit: RateLimit,
        now: Millis,
    ) -> Result<Self, SeedFault> {
        let mut held = BTreeMap::new();
        for manifest in found(&*disk, folder).map_err(disk_fault("look for checkpoints", folder))? {
            held.insert(manifest.checkpoint, Held { manifest, since: now, used: now });
        }
        let folder = folder.to_owned();
        let targets = BTreeMap::new();
        let (open, engine, rows) = (None, None, None);
        let lender = Lender::default();
        Ok(Self { disk, folder, rules, limit, held, targets, open, lender, engine, rows })
    }

    /// The same, which also answers questions about the rows of its checkpoints.
    pub fn giving_rows(mut self, engine: Arc<dyn StateEngine>) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Takes a checkpoint of a state, durably. `membership_key` names the row in which the state
    /// keeps the group's members.
    pub fn take(
        &mut self,
        now: Millis,
        id: CheckpointId,
        origin: Origin,
        store: &dyn StateStore,
        engine: &dyn StateEngine,
        membership_key: &[u8],
    ) -> Result<&Manifest, SeedFault> {
        let io = disk_fault("take a checkpoint", &self.folder);
        assert!(!self.held.contains_key(&id), "a checkpoint's id is used once");
        self.disk.create_dir_all(&self.folder).map_err(&io)?;
        if let Some(above) = self.folder.parent() {
            self.disk.sync_dir(above).map_err(&io)?;
        }
        let folder = self.folder.join(id.to_string());
        store.checkpoint(&folder)?;
        let (position, membership) = read_back(engine, &folder, membership_key)?;
        let files = files(&*self.disk, &folder).map_err(&io)?;
        let manifest =
            Manifest { checkpoint: id, origin, position, membership, files, gives_rows: false };
        manifest.check()?;
        self.disk.sync_dir(&folder).map_err(&io)?;
        self.disk.sync_dir(&self.folder).map_err(&io)?;
        replace_whole(&*self.disk, &manifest_path(&self.folder, id), &guarded(&manifest))
            .map_err(&io)?;
        let held = self.held.entry(id).or_insert(Held { manifest, since: now, used: now });
        Ok(&held.manifest)
    }

    /// Changes the limit.
    pub fn set_limit(&mut self, bytes_per_second: Option<u64>, now: Millis) {
        self.limit.set(bytes_per_second, now);
    }

    /// The folder of a checkpoint's files, for a target on the same node.
    pub fn files_of(&self, checkpoint: CheckpointId) -> PathBuf {
        self.folder.join(checkpoint.to_string())
    }

    /// Checkpoints that are held now.
    pub fn checkpoints(&self) -> impl Iterator<Item = &Manifest> {
        self.held.values().map(|held| &held.manifest)
    }

    /// Answers a target. An error is the source's own disk: the copy is to be looked at.
    pub fn serve(
        &mut self,
        now: Millis,
        target: ReplicaId,
        request: &Request,
    ) -> Result<Served, SeedFault> {
        match self.begin(now, target, request)? {
            Begun::Served(served) => Ok(served),
            Begun::Range(read) => read.replies().map(Served::Replies),
        }
    }

    /// The same, but for the reading of a range: several may be read at a time.
    pub fn begin(
        &mut self,
        now: Millis,
        target: ReplicaId,
        request: &Request,
    ) -> Result<Begun, SeedFault> {
        let Request::Read { checkpoint, file, range } = *request else {
            return self.answer(now, target, request).map(Begun::Served);
        };
        let Some(entry) = self.touch(now, target, checkpoint, file) else {
            return Ok(Begun::Served(refused(self.missing(checkpoint))));
        };
        if range >= entry.ranges() {
            return Ok(Begun::Served(refused(Refusal::Unknown)));
        }
        if let Err(later) = self.limit.take(now, entry.range_bytes(range)) {
            return Ok(Begun::Served(Served::Later(later)));
        }
        self.range(checkpoint, file, &entry, range).map(Begun::Range)
    }

    fn answer(
        &mut self,
        now: Millis,
        target: ReplicaId,
        request: &Request,
    ) -> Result<Served, SeedFault> {
        match *request {
            Request::Read { .. } => unreachable!("a range is begun"),
            Request::Open { known } => Ok(self.lease(now, target, known)),
            Request::Digests { checkpoint, file } => {
                let Some(entry) = self.touch(now, target, checkpoint, file) else {
                    return Ok(refused(self.missing(checkpoint)));
                };
                let ranges = self.digests(checkpoint, file, &entry)?;
                Ok(Served::Replies(vec![Reply::Digests { file, ranges }]))
            }
            Request::Delta { checkpoint, ref ask } => {
                if self.touch(now, target, checkpoint, 0).is_none() {
                    return Ok(refused(self.missing(checkpoint)));
                }
                self.rows(now, checkpoint, ask)
            }
            Request::Close => {
                self.targets.remove(&target);
                self.rows = None;
                Ok(Served::Replies(Vec::new()))
            }
        }
    }

    /// Gives up leases of silent targets, and checkpoints that nobody uses. Gives the number of
    /// checkpoints that were removed.
    pub fn expire(&mut self, now: Millis) -> Result<usize, SeedFault> {
        let lease = self.rules.lease;
        self.targets.retain(|_, (heard, _)| now.saturating_sub(*heard) < lease);
        let in_use = |id: &CheckpointId| self.targets.values().any(|(_, used)| used == id);
        let idle = |held: &Held| now.saturating_sub(held.used) >= lease;
        let over: Vec<CheckpointId> = self
            .held
            .iter()
            .filter(|(id, held)| !in_use(id) && idle(held))
            .map(|(id, _)| *id)
            .collect();
        for id in &over {
            self.remove(*id)?;
        }
        Ok(over.len())
    }

    /// Removes a checkpoint at once, whoever reads it: its targets open another one.
    pub fn remove(&mut self, id: CheckpointId) -> Result<(), SeedFault> {
        self.held.remove(&id);
        (self.open, self.rows) = (None, None);
        self.targets.retain(|_, (_, used)| *used != id);
        remove(&*self.disk, &self.folder, id)
            .map_err(disk_fault("remove a checkpoint", &self.folder))
    }

    fn lease(&mut self, now: Millis, target: ReplicaId, known: Option<CheckpointId>) -> Served {
        let others = self.targets.keys().filter(|other| **other != target).count();
        if others >= self.rules.targets_max {
            return refused(Refusal::Busy);
        }
        let fresh = |held: &&Held| now.saturating_sub(held.since) < self.rules.share;
        let same = known.and_then(|id| self.held.get(&id));
        let newest = || self.held.values().filter(fresh).max_by_key(|held| held.since);
        let Some(held) = same.or_else(newest) else { return Served::NeedsCheckpoint };
        let gives_rows = self.engine.is_some();
        let manifest = Manifest { gives_rows, ..held.manifest.clone() };
        self.touch(now, target, manifest.checkpoint, 0);
        Served::Replies(vec![Reply::Opened(manifest)])
    }

    /// The file asked for, whose checkpoint is thereby leased on.
    fn touch(
        &mut self,
        now: Millis,
        target: ReplicaId,
        checkpoint: CheckpointId,
        file: u32,
    ) -> Option<FileEntry> {
        let held = self.held.get_mut(&checkpoint)?;
        held.used = held.used.max(now);
        self.targets.insert(target, (now, checkpoint));
        held.manifest.files.get(file as usize).cloned()
    }

    fn missing(&self, checkpoint: CheckpointId) -> Refusal {
        if self.held.contains_key(&checkpoint) { Refusal::Unknown } else { Refusal::Gone }
    }

    /// An answer is as long as it is: what it spends is paid off before the next one.
    fn rows(
        &mut self,
        now: Millis,
        checkpoint: CheckpointId,
        ask: &DeltaRequest,
    ) -> Result<Served, SeedFault> {
        let Some(engine) = &self.engine else { return Ok(refused(Refusal::Unknown)) };
        if let Err(later) = self.limit.take(now, 0) {
            return Ok(Served::Later(later));
        }
        let view = match &self.rows {
            Some((id, view)) if *id == checkpoint => view.clone(),
            _ => engine.open_read_only(&self.files_of(checkpoint))?,
        };
        self.rows = Some((checkpoint, view.clone()));
        let Some(reply) = DeltaSource::new(view).answer(ask)? else {
            return Ok(refused(Refusal::Unknown));
        };
        // Nothing was taken since it was asked whether there is anything left.
        let _ = self.limit.take(now, reply.bytes() as u64);
        Ok(Served::Replies(vec![Reply::Delta(reply)]))
    }

    fn digests(
        &mut self,
        checkpoint: CheckpointId,
        file: u32,
        entry: &FileEntry,
    ) -> Result<Vec<Digest>, SeedFault> {
        (0..entry.ranges())
            .map(|range| Ok(digest(&self.range(checkpoint, file, entry, range)?.bytes()?)))
            .collect()
    }

    fn range(
        &mut self,
        checkpoint: CheckpointId,
        file: u32,
        entry: &FileEntry,
        range: u32,
    ) -> Result<RangeRead, SeedFault> {
        let path = self.files_of(checkpoint).join(&entry.name);
        let opened = match &self.open {
            Some((id, number, opened)) if (*id, *number) == (checkpoint, file) => opened.clone(),
            _ => {
                let opened = self.disk.open(&path, OpenMode::Read);
                opened.map_err(disk_fault("read a checkpoint", &path))?
            }
        };
        self.open = Some((checkpoint, file, opened.clone()));
        let length = usize::try_from(entry.range_bytes(range)).expect("a range fits in memory");
        let lender = self.lender.clone();
        Ok(RangeRead { opened, path, lender, file, range, length })
    }
}

fn refused(refusal: Refusal) -> Served {
    Served::Replies(vec![Reply::Refused(refusal)])
}

fn manifest_path(folder: &Path, id: CheckpointId) -> PathBuf {
    folder.join(format!("{id}.{MANIFEST}"))
}

/// The manifest with a checksum behind it.
fn guarded(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = manifest.encode();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn unguarded(bytes: &[u8]) -> Option<Manifest> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32fast::hash(body) == u32::from_le_bytes(*crc)).then(|| Manifest::decode(body).ok())?
}

/// Where a checkpoint ends, and who the members are there, from itself.
fn read_back(
    engine: &dyn StateEngine,
    folder: &Path,
    membership_key: &[u8],
) -> Result<(state::Position, Bytes), SeedFault> {
    let copy = engine.open(folder)?;
    let position = state::applied(&*copy)?.ok_or(SeedFault::Order {
        what: "take a checkpoint",
        why: "nothing was applied to this copy yet, so there is nothing to seed from",
    })?;
    Ok((position, copy.get(membership_key)?.unwrap_or_default()))
}

/// The files that make a state, ordered by name. The engine's lock and its talk are its own.
pub(crate) fn files(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<FileEntry>> {
    let own = |name: &str| name == "LOCK" || name == "LOG" || name.starts_with("LOG.old");
    let mut files = Vec::new();
    for name in disk.list(folder)? {
        let name = name.to_str().ok_or(io::ErrorKind::InvalidData)?.to_owned();
        if !own(&name) {
            let bytes = disk.open(&folder.join(&name), OpenMode::Read)?.len()?;
            files.push(FileEntry { name, bytes });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Checkpoints with a manifest that holds; everything else in the folder is removed.
fn found(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<Manifest>> {
    let names = match disk.list(folder) {
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let mut manifests = Vec::new();
    for name in names.iter().filter(|name| name.extension().is_some_and(|kind| kind == MANIFEST)) {
        let manifest = unguarded(&read_whole(disk, &folder.join(name))?);
        manifests.extend(
            manifest.filter(|found| manifest_path(folder, found.checkpoint) == folder.join(name)),
        );
    }
    for name in names {
        let stem = name.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let id = |manifest: &Manifest| Some(manifest.checkpoint.to_string()) == stem;
        let path = folder.join(&name);
        match (manifests.iter().any(id), name.extension().is_some()) {
            (true, _) => {}
            (false, true) => disk.remove_file(&path)?,
            (false, false) => disk.remove_dir_all(&path)?,
        }
    }
    Ok(manifests)
}

/// The manifest goes first: files without one are rubbish, a manifest without files would be a lie.
fn remove(disk: &dyn Disk, folder: &Path, id: CheckpointId) -> io::Result<()> {
    let manifest = manifest_path(folder, id);
    if disk.exists(&manifest)? {
        disk.remove_file(&manifest)?;
        disk.sync_dir(folder)?;
    }
    disk.remove_dir_all(&folder.join(id.to_string()))
}

/// Removes every checkpoint in a folder, and the folder.
pub(crate) fn remove_all(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    for manifest in found(disk, folder)? {
        remove(disk, folder, manifest.checkpoint)?;
    }
    disk.remove_dir_all(folder)
}
