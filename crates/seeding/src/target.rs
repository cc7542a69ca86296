//! The receiving side: a new replica is built beside what is there.
//!
//! ```text
//!  <database's folder>/seed-<replica>/
//!      LOCK      held while somebody builds
//!      record    what was ordered, from which checkpoint, which ranges are durable
//!      state/    the files
//! ```
//! A range counts once it was received whole, compared with its digest, written and **synced**;
//! only then does the record claim it. A killed target therefore repeats at most what two syncs
//! cover ([`SYNC_BYTES`]), of which one is under way while the other one fills, and what was asked
//! ahead. A source may change at any time: files that
//! have the same name and length in the new checkpoint are compared by digests before they are
//! sent again, all others are dropped. In the end what an earlier life of this process left is read
//! back and compared; what does not hold is fetched once more. What this life wrote is not: its digest
//! held when it came, its sync was answered, and the copy is scrubbed as soon as it is in service.
//!
//! While a large state comes, the log may leave its checkpoint behind. So the source is asked once more
//! when everything is there: a newer checkpoint costs what changed meanwhile, and a snapshot by Raft
//! would cost everything. Where nobody answers that, what is there is taken.
//!
//! Where an older copy lies here already ([`Target::take_over`]), the state is not made of the
//! checkpoint's files but of rows: those of the old copy, and what it lacks ([`crate::delta`]).
//!
//! [`Target::step`] does one piece of work. It asks by returning a [`Request`]; the caller sends it
//! and gives the replies back in order. After [`Step::Reconnect`] and [`Target::disconnected`] no
//! reply to an older request may be given any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dag_types::{LogId, Millis, Mutant, ReplicaId};
use storage::disk::{AlignedBuffer, Disk, DiskFile, DiskLock, OpenMode, Syncing, take_lock};
use storage::identity::CopyIdentity;
use storage::state::{StateEngine, StateRead};

use crate::delta::DeltaReply;
use crate::fault::{SeedFault, disk as disk_fault};
use crate::journal::{Claim, Held, Journal, Range, Ranges, Shown, Spent};
use crate::progress::{Meter, Phase, Progress};
use crate::wire::{
    Digest, FileEntry, Frame, Manifest, RANGE_BYTES, Refusal, Reply, Request, SMALL, WireFault,
    digest,
};

mod files;
mod record;
mod rows;

use files::FileState;
use rows::Rows;

/// Bytes that are written between two syncs.
pub const SYNC_BYTES: u64 = if SMALL { 16 << 10 } else { 20 << 20 };
/// Ranges that are asked ahead.
pub const WINDOW: usize = 4;
/// Files that one sync covers at most.
const SYNC_FILES: usize = 64;
/// How often damage may follow damage without a range between that holds.
const DAMAGE_MAX: u32 = 8;
/// How often the source is asked, when everything is there, whether its log still goes on from it.
const RENEWALS_MAX: u32 = 3;

pub(crate) const STATE: &str = "state";
pub(crate) const RECORD: &str = "record";
const LOCK: &str = "LOCK";

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedOrder {
    /// The new copy; its replica id was never used.
    pub identity: CopyIdentity,
    /// The group's log begins behind this: a state that ends before it cannot be brought up.
    pub at_least: Option<LogId>,
    /// Bytes that must stay free on the volume.
    pub reserve_bytes: u64,
    /// The checkpoint's own folder, where it lies on this node: files are linked where possible.
    pub link_from: Option<PathBuf>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this.
    Ask(Request),
    /// Nothing to do before a reply comes.
    Wait,
    /// There is more to do; call again.
    Again,
    /// The connection cannot be trusted any more: open a new one, to any source.
    Reconnect,
    /// The state is whole, durable and verified; [`crate::install`] makes it a copy.
    Built,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Opening {
        asked: bool,
    },
    Copying,
    Verifying {
        file: u32,
        range: u32,
        clean: bool,
    },
    /// Rows come, and the state is filled with them.
    Filling {
        asked: bool,
    },
    /// What it was filled with is read back.
    Proving,
    Built,
}

/// How a state comes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All files of a checkpoint are sent.
    Whole,
    /// Only rows that the old copy lacks are sent.
    Delta {
        /// Bytes that were.
        received: u64,
        /// Bytes that were taken from the old copy instead.
        spared: u64,
    },
}

/// A replica that is being built.
pub struct Target {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    order: SeedOrder,
    journal: Journal,
    manifest: Option<Manifest>,
    files: Vec<FileState>,
    doing: Doing,
    /// Ranges that were asked for, in order; the first is arriving.
    asked: VecDeque<(u32, u32)>,
    comparing: Option<u32>,
    arriving: AlignedBuffer,
    /// Written, and no sync has begun.
    pending: Written,
    pending_bytes: u64,
    /// Written, with a sync under way.
    syncing: Option<Batch>,
    open: BTreeMap<u32, Arc<dyn DiskFile>>,
    damaged: u32,
    /// How often that may still be asked; 0 where nothing newer is wanted.
    renewals: u32,
    /// Whether it is being asked.
    renewing: bool,
    /// Whether this life has found the state's folder tidy.
    tidied: bool,
    meter: Meter,
    /// Bytes that came over the wire in this life.
    received: u64,
    /// What it costs to fill the state with rows, where that is how it comes here.
    spent: Option<Spent>,
    /// What rows are taken from and put into, where that is possible now.
    rows: Option<Rows>,
    _lock: DiskLock,
}

/// Ranges of files, with their digests.
type Written = BTreeMap<u32, Vec<(u32, Digest)>>;

/// What one sync covers.
struct Batch {
    written: Written,
    syncs: Vec<Syncing>,
    /// Names of files became durable with it.
    named: bool,
}

/// The folder of a seed below a database's folder.
pub fn seed_folder(database_folder: &Path, replica: ReplicaId) -> PathBuf {
    database_folder.join(format!("seed-{replica}"))
}

impl Target {
    /// Begins a seed in `folder`, or goes on with the one that is there.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, order: SeedOrder) -> Result<Self, SeedFault> {
        let io = disk_fault("open a seed", folder);
        disk.create_dir_all(folder).map_err(&io)?;
        if let Some(above) = folder.parent() {
            disk.sync_dir(above).map_err(&io)?;
        }
        let owner = record::owner(&order.identity);
        let lock = take_lock(&*disk, &folder.join(LOCK), &format!("{owner}\n")).map_err(&io)?;
        let lock = lock.ok_or_else(|| SeedFault::InUse { folder: folder.display().to_string() })?;
        let path = folder.join(RECORD);
        let found = record::Found::read(Journal::read(&*disk, &path).map_err(&io)?);
        found.check(folder, &owner)?;
        let journal = Journal::begin(&*disk, &path, found.claims(owner)).map_err(&io)?;
        let doing = if found.verified { Doing::Built } else { Doing::Opening { asked: false } };
        Ok(Self {
            disk,
            folder: folder.to_owned(),
            order,
            journal,
            meter: found.meter(),
            spent: found.rows,
            rows: None,
            manifest: found.manifest,
            files: found.files,
            doing,
            asked: VecDeque::new(),
            comparing: None,
            arriving: AlignedBuffer::new(RANGE_BYTES as usize),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            syncing: None,
            open: BTreeMap::new(),
            damaged: 0,
            renewals: RENEWALS_MAX,
            renewing: false,
            tidied: false,
            received: 0,
            _lock: lock,
        })
    }

    /// What is being built.
    pub fn order(&self) -> &SeedOrder {
        &self.order
    }

    /// Where it is built.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The checkpoint it is built from, once known.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// How the state comes here, once that is settled.
    pub fn way(&self) -> Option<Way> {
        self.manifest.as_ref()?;
        Some(match self.spent {
            None => Way::Whole,
            Some(Spent { received, spared }) => Way::Delta { received, spared },
        })
    }

    /// Whether the state is whole, durable and verified.
    pub fn is_built(&self) -> bool {
        self.doing == Doing::Built
    }

    /// What people see.
    pub fn progress(&self) -> Progress {
        self.meter.shown()
    }

    /// Bytes that came over the wire since this was opened.
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// The connection ended, or another source is to be used. Nothing durable is given up.
    pub fn disconnected(&mut self) {
        self.asked.clear();
        self.comparing = None;
        self.arriving.reset(0);
        if std::mem::take(&mut self.renewing) {
            return self.finish();
        }
        if matches!(self.doing, Doing::Opening { .. } | Doing::Copying | Doing::Filling { .. }) {
            self.doing = Doing::Opening { asked: false };
        }
    }

    /// Everything is there, and nothing newer is waited for.
    fn finish(&mut self) {
        self.renewals = 0;
        self.doing = Doing::Copying;
    }

    /// Does one piece of work. After an error of the disk the value is dropped; opening it again
    /// goes on with what is durable.
    pub fn step(&mut self, now: Millis, reply: Option<Reply>) -> Result<Step, SeedFault> {
        if let Some(reply) = reply {
            return self.accept(now, reply);
        }
        match self.doing {
            Doing::Opening { asked: true } => Ok(Step::Wait),
            Doing::Opening { asked: false } => {
                self.doing = Doing::Opening { asked: true };
                let known = self.manifest.as_ref().map(|manifest| manifest.checkpoint);
                Ok(Step::Ask(Request::Open { known }))
            }
            Doing::Copying => self.copy(now),
            Doing::Verifying { file, range, clean } => self.verify(now, file, range, clean),
            Doing::Filling { asked: true } => Ok(Step::Wait),
            Doing::Filling { asked: false } => self.fill(now, None),
            Doing::Proving => self.prove(now),
            Doing::Built => Ok(Step::Built),
        }
    }

    /// Gives the seed up, with everything that was staged.
    pub fn cancel(self) -> Result<(), SeedFault> {
        let (disk, folder) = (self.disk.clone(), self.folder.clone());
        drop(self);
        discard(&*disk, &folder)
    }

    fn accept(&mut self, now: Millis, reply: Reply) -> Result<Step, SeedFault> {
        match (reply, self.doing) {
            (Reply::Opened(manifest), Doing::Opening { asked: true }) => self.opened(now, manifest),
            (Reply::Digests { file, ranges }, Doing::Copying) if self.comparing == Some(file) => {
                self.compared(file, &ranges)
            }
            (Reply::Frame(frame), Doing::Copying) => self.frame(now, frame),
            (Reply::Delta(reply), Doing::Filling { asked: true }) => self.fill(now, Some(reply)),
            (
                Reply::Refused(Refusal::Gone),
                Doing::Copying | Doing::Filling { .. } | Doing::Opening { .. },
            ) => {
                self.disconnected();
                Ok(Step::Reconnect)
            }
            (Reply::Refused(refusal), _) => Err(refusal.into()),
            _ => self.distrust("it was not asked for that"),
        }
    }

    /// Damage, or an answer out of turn: what comes next on this connection means nothing.
    fn distrust(&mut self, what: &'static str) -> Result<Step, SeedFault> {
        self.damaged += 1;
        if self.damaged > DAMAGE_MAX {
            return Err(WireFault::Unasked { what }.into());
        }
        tracing::warn!(folder = %self.folder.display(), what, "a seed's connection is given up");
        self.disconnected();
        Ok(Step::Reconnect)
    }

    fn opened(&mut self, now: Millis, manifest: Manifest) -> Result<Step, SeedFault> {
        manifest.check()?;
        record::check_source(&self.order, &manifest)?;
        let by_rows = self.fills(&manifest)?;
        let renewing = std::mem::take(&mut self.renewing);
        if self.manifest.as_ref() != Some(&manifest) {
            self.sync(now)?;
            match self.begin_from(manifest, by_rows) {
                Err(SeedFault::TooSmall { .. }) if renewing => {
                    self.finish();
                    return Ok(Step::Again);
                }
                begun => begun?,
            }
        } else if renewing {
            self.renewals = 0;
        }
        if by_rows {
            self.doing = Doing::Filling { asked: false };
            self.show(now);
            return Ok(Step::Again);
        }
        let state = self.folder.join(STATE);
        let io = disk_fault("make the state's folder", &self.folder);
        self.disk.create_dir_all(&state).map_err(&io)?;
        self.disk.sync_dir(&self.folder).map_err(&io)?;
        self.doing = Doing::Copying;
        self.show(now);
        Ok(Step::Again)
    }

    /// Another checkpoint: what may agree with it is kept in doubt, the rest is forgotten.
    fn begin_from(&mut self, manifest: Manifest, by_rows: bool) -> Result<(), SeedFault> {
        let held = self.files_in_doubt(&manifest);
        let kept: u64 = match self.spent {
            Some(_) => self.meter.shown().bytes,
            None => held.iter().map(|(file, _)| manifest.files[*file as usize].bytes).sum(),
        };
        self.check_space(manifest.total_bytes(), kept)?;
        self.spent = by_rows.then(|| self.spent.unwrap_or_default());
        let mut claims = vec![
            Claim::Order(record::owner(&self.order.identity)),
            self.shown_claim(),
            Claim::Manifest(manifest.encode()),
        ];
        claims.extend(self.spent.map(Claim::Rows));
        self.files = manifest.files.iter().map(FileState::missing).collect();
        for (file, doubt) in held {
            let ranges = doubt.iter().map(|(range, digest)| claim_range(file, *range, digest));
            claims.push(Claim::Held(Held { file, ranges: ranges.collect() }));
            self.files[file as usize].doubt = Some(doubt);
        }
        self.manifest = Some(manifest);
        (self.pending, self.pending_bytes, self.tidied) = (BTreeMap::new(), 0, false);
        self.open.clear();
        let path = self.folder.join(RECORD);
        self.journal = Journal::begin(&*self.disk, &path, claims)
            .map_err(disk_fault("write a seed's record", &self.folder))?;
        Ok(())
    }

    /// Files of the same name and length as before, and what is durable of them.
    fn files_in_doubt(&self, next: &Manifest) -> Vec<(u32, BTreeMap<u32, Digest>)> {
        let Some(before) = &self.manifest else { return Vec::new() };
        let known: BTreeMap<&FileEntry, &FileState> =
            before.files.iter().zip(&self.files).collect();
        let doubt = |(number, entry): (usize, &FileEntry)| {
            let doubt = known.get(entry)?.durable();
            (!doubt.is_empty()).then_some((number as u32, doubt))
        };
        next.files.iter().enumerate().filter_map(doubt).collect()
    }

    fn check_space(&self, total: u64, kept: u64) -> Result<(), SeedFault> {
        let io = disk_fault("ask for free space", &self.folder);
        let free = self.disk.free_bytes(&self.folder).map_err(io)?;
        let linked = self.order.link_from.is_some();
        let needed = total.saturating_sub(kept) + self.order.reserve_bytes;
        if free < needed && !linked {
            let folder = self.folder.display().to_string();
            return Err(SeedFault::TooSmall { folder, free, needed });
        }
        Ok(())
    }

    fn compared(&mut self, file: u32, ranges: &[Digest]) -> Result<Step, SeedFault> {
        self.comparing = None;
        let state = &mut self.files[file as usize];
        if ranges.len() != state.ranges.len() {
            return self.distrust("a file has another number of ranges");
        }
        let doubt = state.doubt.take().unwrap_or_default();
        let mut kept = Vec::new();
        for (range, digest) in doubt {
            if ranges[range as usize] == digest {
                state.ranges[range as usize] = Some(digest);
                kept.push(claim_range(file, range, &digest));
            }
        }
        self.claim(vec![Claim::Ranges(Ranges {
            file,
            ranges: kept,
            whole: false,
            linked: false,
        })])?;
        Ok(Step::Again)
    }

    fn copy(&mut self, now: Millis) -> Result<Step, SeedFault> {
        self.settle(now, false)?;
        if self.pending_bytes >= SYNC_BYTES || self.pending.len() >= SYNC_FILES {
            self.settle(now, true)?;
            self.begin_sync()?;
            return Ok(Step::Again);
        }
        if self.comparing.is_some() || self.asked.len() >= WINDOW {
            return Ok(Step::Wait);
        }
        for number in 0..self.files.len() as u32 {
            if let Some(step) = self.further(now, number)? {
                return Ok(step);
            }
        }
        if !self.asked.is_empty() {
            return Ok(Step::Wait);
        }
        if !self.pending.is_empty() || self.syncing.is_some() {
            self.sync(now)?;
        } else if self.renewals > 0 {
            (self.renewals, self.renewing) = (self.renewals - 1, true);
            self.doing = Doing::Opening { asked: false };
        } else {
            self.doing = Doing::Verifying { file: 0, range: 0, clean: true };
        }
        self.show(now);
        Ok(Step::Again)
    }

    /// What can be done for a file now.
    fn further(&mut self, now: Millis, number: u32) -> Result<Option<Step>, SeedFault> {
        let state = &self.files[number as usize];
        if state.whole || (self.is_written(number) && state.full_with(self.written(number).count()))
        {
            return Ok(None);
        }
        let checkpoint = self.known().checkpoint;
        if state.doubt.is_some() {
            if !self.asked.is_empty() {
                return Ok(Some(Step::Wait));
            }
            self.comparing = Some(number);
            return Ok(Some(Step::Ask(Request::Digests { checkpoint, file: number })));
        }
        if self.link(now, number)? {
            return Ok(Some(Step::Again));
        }
        let Some(range) = self.next_range(number) else {
            // Every range is there or under way, or there are none.
            if self.files[number as usize].full_with(0) {
                self.pending.entry(number).or_default();
            }
            return Ok(None);
        };
        self.asked.push_back((number, range));
        Ok(Some(Step::Ask(Request::Read { checkpoint, file: number, range })))
    }

    fn next_range(&self, number: u32) -> Option<u32> {
        let state = &self.files[number as usize];
        let missing = |range: &u32| {
            state.ranges[*range as usize].is_none()
                && !self.asked.contains(&(number, *range))
                && !self.written(number).any(|(there, _)| there == range)
        };
        (state.searched..state.ranges.len() as u32).find(missing)
    }

    fn frame(&mut self, now: Millis, frame: Frame) -> Result<Step, SeedFault> {
        let Some(&(number, range)) = self.asked.front() else {
            return self.distrust("a frame that was not asked for");
        };
        let entry = &self.known().files[number as usize];
        let length = entry.range_bytes(range) as usize;
        let offset = u64::from(range) * RANGE_BYTES + self.arriving.len() as u64;
        let fits = frame.file == number
            && frame.offset == offset
            && self.arriving.len() + frame.bytes.len() <= length;
        if !(frame.holds() || Mutant::SeedUnchecked.planted()) || !fits {
            return self.damage(number, offset);
        }
        self.arriving.push(&frame.bytes);
        self.received += frame.bytes.len() as u64;
        self.meter.worked(now, frame.bytes.len() as u64);
        let full = self.arriving.len() == length;
        match frame.end {
            None if !full && !frame.bytes.is_empty() => Ok(Step::Again),
            Some(end) if full => match self.whole_range(end) {
                Some(digest) => {
                    self.asked.pop_front();
                    self.damaged = 0;
                    self.keep(number, range, digest)
                }
                None => self.damage(number, offset),
            },
            _ => self.damage(number, offset),
        }
    }

    /// The digest of the range that arrived, where it is the one that the source gave.
    fn whole_range(&self, end: Digest) -> Option<Digest> {
        let arrived = digest(self.arriving.filled());
        (arrived == end || Mutant::SeedUnchecked.planted()).then_some(arrived)
    }

    fn damage(&mut self, number: u32, offset: u64) -> Result<Step, SeedFault> {
        if self.damaged >= DAMAGE_MAX {
            let file = self.known().files[number as usize].name.clone();
            return Err(WireFault::Damaged { file, offset }.into());
        }
        self.distrust("a frame or range arrived damaged")
    }

    /// Writes a range that holds.
    fn keep(&mut self, number: u32, range: u32, digest: Digest) -> Result<Step, SeedFault> {
        let file = self.writable(number)?;
        let bytes = self.arriving.len() as u64;
        let offset = u64::from(range) * RANGE_BYTES;
        let arrived = std::mem::replace(&mut self.arriving, AlignedBuffer::new(0));
        self.arriving =
            file.write_buffer(arrived, offset).map_err(disk_fault("write a seed", &self.folder))?;
        self.pending.entry(number).or_default().push((range, digest));
        self.pending_bytes += bytes;
        Ok(Step::Again)
    }

    fn known(&self) -> &Manifest {
        self.manifest.as_ref().expect("copied from a known checkpoint")
    }

    fn shown_claim(&self) -> Claim {
        let Progress { phase, bytes, total, .. } = self.meter.shown();
        Claim::Shown(Shown { phase: phase as u32, bytes, total })
    }

    fn claim(&mut self, claims: Vec<Claim>) -> Result<(), SeedFault> {
        self.journal.append(claims).map_err(disk_fault("write a seed's record", &self.folder))
    }

    fn show(&mut self, now: Millis) {
        let phase = match self.doing {
            Doing::Opening { .. } => Phase::Opening,
            Doing::Copying | Doing::Filling { .. } => Phase::Copying,
            Doing::Verifying { .. } | Doing::Proving => Phase::Verifying,
            Doing::Built => Phase::Built,
        };
        if let Some(rows) = &self.rows {
            let (durable, total) = (rows.durable_bytes(), self.known().total_bytes());
            self.meter.worked(now, 0);
            self.meter.reached(phase, durable, total);
            return;
        }
        let manifest = self.known();
        let durable = manifest.files.iter().zip(&self.files);
        let durable: u64 = durable.map(|(entry, state)| state.durable_bytes(entry)).sum();
        let total = manifest.total_bytes();
        self.meter.worked(now, 0);
        self.meter.reached(phase, durable, total);
    }
}

fn claim_range(file: u32, range: u32, digest: &Digest) -> Range {
    Range { file, range, digest: digest.to_vec() }
}

/// Moves a seed that nobody builds into the trash and removes it there. A kill in between leaves it
/// to the trash.
pub(crate) fn discard(disk: &dyn Disk, folder: &Path) -> Result<(), SeedFault> {
    let io = disk_fault("give a seed up", folder);
    if !disk.exists(folder).map_err(&io)? {
        return Ok(());
    }
    let parent = folder.parent().expect("a seed lies in a database's folder");
    let trash = parent.join(crate::trash::TRASH);
    let gone = trash.join(folder.file_name().expect("a seed's folder has a name"));
    disk.create_dir_all(&trash)
        .and_then(|()| disk.sync_dir(parent))
        .and_then(|()| disk.remove_dir_all(&gone))
        .and_then(|()| disk.rename(folder, &gone))
        .and_then(|()| disk.sync_dir(parent))
        .and_then(|()| disk.sync_dir(&trash))
        .and_then(|()| disk.remove_dir_all(&gone))
        .map_err(io)
}
