//! A copy moves to another path of its node, while it goes on working.
//!
//! It is a seed whose source is the copy itself: a checkpoint of it is built up again under the new
//! path as a **new replica**, by hard links where both paths lie on one file system and by reading
//! and comparing where not. The new replica catches up and is admitted like any other; only then is
//! the old one retired. So redundancy is never below what it was, and either folder has one owner.
//!
//! | step | killed here | rolled back |
//! | --- | --- | --- |
//! | [`MoveStep::Checkpoint`] | the checkpoint is found again or taken anew | it is removed |
//! | [`MoveStep::Stage`] | goes on with the ranges that are durable | the staged files are removed |
//! | [`MoveStep::Install`] | the same copy is made | the new copy goes to the trash of its path |
//! | [`MoveStep::Admit`] (the caller's) | the caller's | the same |
//! | [`MoveStep::Retire`] | the rename is done or not | from here on there is no way back |
//! | [`MoveStep::Done`] | | |
//!
//! Which step is next is read off the disk, so there is no record that could disagree with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dag_types::Millis;
use storage::copy_directory::{CopyDirectory, CopyPlace};
use storage::disk::Disk;
use storage::identity::CopyIdentity;
use storage::state::{StateEngine, StateStore};

use crate::fault::{SeedFault, disk as disk_fault};
use crate::install::{self, InstallOrder};
use crate::limit::RateLimit;
use crate::progress::Progress;
use crate::snapshot::SNAPSHOTS;
use crate::source::{self, Served, Source, SourceRules};
use crate::target::{SeedOrder, Step, Target, seed_folder};
use crate::trash;
use crate::wire::{CheckpointId, Origin, Request};

/// Where a move's checkpoint is kept, below the old database folder.
pub const SOURCE: &str = "move-source";

/// The file in a database's folder outside the node's root that says whose the folder is.
pub const OWNER: &str = "OWNER";

/// What moves where.
#[derive(Clone)]
pub struct MoveOrder {
    /// Where the copy lies.
    pub from: CopyPlace,
    /// Where it goes.
    pub to: CopyPlace,
    /// The copy as it is.
    pub old: CopyIdentity,
    /// The copy as it will be; its replica id was never used.
    pub new: CopyIdentity,
    /// The row in which the state keeps the group's members.
    pub membership_key: Vec<u8>,
    /// Bytes per second, where files are copied.
    pub limit: Option<u64>,
    /// Bytes that must stay free on the new volume.
    pub reserve_bytes: u64,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveStep {
    /// A checkpoint of the old copy.
    Checkpoint,
    /// Its files under the new path.
    Stage,
    /// The new copy, from them.
    Install,
    /// The caller lets the new copy catch up and compares digests.
    Admit,
    /// The old copy goes to the trash.
    Retire,
    /// Nothing.
    Done,
}

/// A move under way. The machine's own memory is small: everything that counts is on the disks.
pub struct Relocation {
    order: MoveOrder,
    source: Option<Source>,
    target: Option<Target>,
    waiting: Option<Request>,
}

/// Whether a database may move to a path, before anything is touched. Both folders are the
/// database's own, as in [`CopyPlace::folder`].
pub fn check_path(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), SeedFault> {
    let refuse = |why| Err(SeedFault::Path { path: to.display().to_string(), why });
    let plain = |part: std::path::Component<'_>| {
        matches!(part, std::path::Component::RootDir | std::path::Component::Normal(_))
    };
    if !to.is_absolute() || !to.components().all(plain) {
        return refuse("it must be absolute, without dots");
    }
    let real = resolve(disk, to).map_err(disk_fault("look at the new path", to))?;
    let old = resolve(disk, from).map_err(disk_fault("look at the old path", from))?;
    if real != to {
        return refuse("it leads through a symbolic link; name the folder itself");
    }
    if real.starts_with(&old) || old.starts_with(&real) {
        return refuse("one of the two paths lies inside the other");
    }
    let names = match disk.list(to) {
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(fault) if fault.kind() == std::io::ErrorKind::NotADirectory => {
            return refuse("it is a file");
        }
        names => names.map_err(disk_fault("look at the new path", to))?,
    };
    // What an interrupted or undone move left there is the database's own.
    let ours = |name: &PathBuf| {
        let name = name.to_string_lossy();
        name == trash::TRASH
            || name == SNAPSHOTS
            || name.starts_with(OWNER)
            || name.starts_with("seed-")
            || name.starts_with("gen-")
    };
    if !names.iter().all(ours) {
        return refuse("it is not empty");
    }
    Ok(())
}

/// The real path of the deepest part that exists, with the rest behind it.
fn resolve(disk: &dyn Disk, path: &Path) -> std::io::Result<PathBuf> {
    let mut rest = Vec::new();
    let mut at = path;
    while !disk.exists(at)? {
        let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else { break };
        rest.push(name);
        at = parent;
    }
    let mut real = disk.resolve(at)?;
    real.extend(rest.into_iter().rev());
    Ok(real)
}

impl Relocation {
    /// Begins a move, or goes on with it.
    pub fn open(order: MoveOrder) -> Result<Self, SeedFault> {
        assert!(order.old.replica != order.new.replica, "a moved copy is a new replica");
        assert_eq!(order.old.database, order.new.database, "a copy moves, not a database");
        check_path(&**order.to.volume.disk(), &order.from.folder, &order.to.folder)?;
        Ok(Self { order, source: None, target: None, waiting: None })
    }

    /// What is next, by what is on the disks. `admitted`: the caller has compared the digests.
    pub fn next(&self, admitted: bool) -> Result<MoveStep, SeedFault> {
        let MoveOrder { from, to, old, new, .. } = &self.order;
        if install::is_installed(to, new)? {
            return Ok(match (install::is_installed(from, old)?, admitted) {
                (false, _) => MoveStep::Done,
                (true, true) => MoveStep::Retire,
                (true, false) => MoveStep::Admit,
            });
        }
        match (&self.target, &self.source) {
            (Some(target), _) if target.is_built() => Ok(MoveStep::Install),
            (_, Some(_)) => Ok(MoveStep::Stage),
            (_, None) => Ok(MoveStep::Checkpoint),
        }
    }

    /// What people see of the files' way.
    pub fn progress(&self) -> Option<Progress> {
        self.target.as_ref().map(Target::progress)
    }

    /// Takes the checkpoint, or finds it again, and opens the stage. `state` is the old copy's.
    pub fn checkpoint(
        &mut self,
        now: Millis,
        id: CheckpointId,
        state: &dyn StateStore,
        engine: &dyn StateEngine,
    ) -> Result<(), SeedFault> {
        let MoveOrder { from, to, old, new, limit, .. } = &self.order;
        let disk = from.volume.disk().clone();
        let folder = from.folder.join(SOURCE);
        let limit = RateLimit::new(*limit, now);
        let mut source = Source::open(disk, &folder, SourceRules::default(), limit, now)?;
        if source.checkpoints().next().is_none() {
            let origin = Origin {
                dag: old.dag,
                database: old.database,
                generation: old.generation,
                replica: old.replica,
                node: old.node,
            };
            source.take(now, id, origin, state, engine, &self.order.membership_key)?;
        }
        let files =
            source.checkpoints().next().map(|manifest| source.files_of(manifest.checkpoint));
        let order = SeedOrder {
            identity: *new,
            at_least: None,
            reserve_bytes: self.order.reserve_bytes,
            link_from: files,
        };
        let staged = seed_folder(&to.folder, new.replica);
        self.target = Some(Target::open(to.volume.disk().clone(), &staged, order)?);
        self.source = Some(source);
        Ok(())
    }

    /// Does one piece of the staging; the time to wait where the limit is spent.
    pub fn stage(&mut self, now: Millis) -> Result<Option<Millis>, SeedFault> {
        let (Some(target), Some(source)) = (&mut self.target, &mut self.source) else {
            return Err(SeedFault::Order { what: "stage a move", why: "it has no checkpoint yet" });
        };
        let request = match self.waiting.take() {
            Some(request) => request,
            None => match target.step(now, None)? {
                Step::Ask(request) => request,
                _ => return Ok(None),
            },
        };
        match source.serve(now, self.order.new.replica, &request)? {
            Served::Later(later) => {
                self.waiting = Some(request);
                return Ok(Some(later));
            }
            Served::NeedsCheckpoint => {
                return Err(SeedFault::Order {
                    what: "stage a move",
                    why: "its checkpoint is gone",
                });
            }
            Served::Replies(replies) => {
                for reply in replies {
                    if target.step(now, Some(reply))? == Step::Reconnect {
                        break;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Makes the new copy. The old one goes on.
    pub fn install(&mut self, engine: &dyn StateEngine) -> Result<CopyDirectory, SeedFault> {
        self.target = None;
        let copy = install::install(&self.install_order(), engine)?;
        self.forget_checkpoint()?;
        Ok(copy)
    }

    /// Retires the old copy, which is not open any more; only after the new one was admitted.
    pub fn retire(&mut self, now: Millis) -> Result<(), SeedFault> {
        let MoveOrder { from, to, old, new, .. } = &self.order;
        assert!(install::is_installed(to, new)?, "the old copy goes after the new one stands");
        // A kill between the new copy's META and here leaves the empty stage behind.
        install::clean(to, &seed_folder(&to.folder, new.replica))?;
        install::retire(from, old, now)?;
        self.forget_checkpoint()
    }

    /// Undoes the move; the old copy is as it was. The new one, if there is one, is not open.
    pub fn roll_back(mut self, now: Millis) -> Result<(), SeedFault> {
        let MoveOrder { from, to, old, new, .. } = self.order.clone();
        if !install::is_installed(&from, &old)? {
            let why = "the old copy was retired; move the new one back instead";
            return Err(SeedFault::Order { what: "undo a move", why });
        }
        self.target = None;
        if install::is_installed(&to, &new)? {
            install::retire(&to, &new, now)?;
        }
        let disk: &Arc<dyn Disk> = to.volume.disk();
        crate::target::discard(&**disk, &seed_folder(&to.folder, new.replica))?;
        // Without META it is the beginning of a copy, and nobody's.
        let unfinished = install::copy_folder(&to, &new);
        disk.remove_dir_all(&unfinished)
            .map_err(disk_fault("remove an unfinished copy", &unfinished))?;
        self.forget_checkpoint()
    }

    fn install_order(&self) -> InstallOrder {
        let MoveOrder { to, new, .. } = &self.order;
        let staged = seed_folder(&to.folder, new.replica);
        InstallOrder { place: to.clone(), identity: *new, staged, vote: None }
    }

    fn forget_checkpoint(&mut self) -> Result<(), SeedFault> {
        self.source = None;
        let folder = self.order.from.folder.join(SOURCE);
        let disk = self.order.from.volume.disk();
        source::remove_all(&**disk, &folder).map_err(disk_fault("remove a checkpoint", &folder))
    }
}
