//! The staged state becomes a copy, and the old copy is retired. Renames only.
//!
//! ```text
//!  seed-<r>/state ──rename──► gen-<g>-<r>/state, META last     the new copy opens
//!        (learner, catches up by log, digest equal at one mark: the caller's)
//!  gen-<g>-<old>  ──rename──► trash/gen-<g>-<old>               the old one is out of the way
//! ```
//! Until META stands the new copy is not there, and the staged state is put back by the next try.
//! The old copy is touched only by [`retire`], after the new one was admitted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dag_types::Millis;
use storage::copy_directory::{CopyDirectory, CopyPlace, CopyStart};
use storage::disk::{Disk, take_lock};
use storage::identity::CopyIdentity;
use storage::log::VoteRecord;
use storage::state::StateEngine;

use crate::fault::{SeedFault, disk as disk_fault};
use crate::target::{self, STATE, SeedOrder, Step, Target};
use crate::trash;

const LOCK: &str = "LOCK";
const META: &str = "META";

/// What a copy is made with.
#[derive(Clone)]
pub struct InstallOrder {
    /// Where the database's copies lie on this node.
    pub place: CopyPlace,
    /// The new copy.
    pub identity: CopyIdentity,
    /// The seed's folder.
    pub staged: PathBuf,
    /// A vote that the copy begins with, where its group is formed anew.
    pub vote: Option<VoteRecord>,
}

/// The folder of a copy below its database's folder.
pub fn copy_folder(place: &CopyPlace, identity: &CopyIdentity) -> PathBuf {
    place.folder.join(format!("gen-{}-{}", identity.generation, identity.replica))
}

/// Whether the new copy stands, so that only [`clean`] is left to do for the seed.
pub fn is_installed(place: &CopyPlace, identity: &CopyIdentity) -> Result<bool, SeedFault> {
    let folder = copy_folder(place, identity);
    let disk = place.volume.disk();
    disk.exists(&folder.join(META)).map_err(disk_fault("look for a copy", &folder))
}

/// Makes a copy of a built seed, and opens it. The seed's folder is removed. Repeating it after a
/// kill at any point gives the same copy.
pub fn install(order: &InstallOrder, engine: &dyn StateEngine) -> Result<CopyDirectory, SeedFault> {
    let InstallOrder { place, identity, staged, vote } = order;
    if is_installed(place, identity)? {
        let copy = CopyDirectory::open(place, *identity, engine)?;
        clean(place, staged)?;
        return Ok(copy);
    }
    let disk = place.volume.disk();
    put_back(disk, place, identity, staged)?;
    let seed = Target::open(disk.clone(), staged, seed_order(identity))?;
    let position = built(seed)?;
    let state = staged.join(STATE);
    let start = CopyStart::Seeded { state, position, vote: *vote };
    let copy = CopyDirectory::create(place, *identity, start, engine)?;
    clean(place, staged)?;
    Ok(copy)
}

/// Removes what is left of a seed whose copy stands.
pub fn clean(place: &CopyPlace, staged: &Path) -> Result<(), SeedFault> {
    target::discard(&**place.volume.disk(), staged)
}

/// Moves the old copy, which is not open, to the trash. Its replica id stays used.
pub fn retire(place: &CopyPlace, old: &CopyIdentity, now: Millis) -> Result<(), SeedFault> {
    CopyDirectory::discard(place, old)?;
    trash::note(&**place.volume.disk(), &place.folder, now)
}

fn seed_order(identity: &CopyIdentity) -> SeedOrder {
    SeedOrder { identity: *identity, at_least: None, reserve_bytes: 0, link_from: None }
}

/// Where a built seed ends; the seed is closed.
fn built(mut seed: Target) -> Result<storage::state::Position, SeedFault> {
    let early =
        SeedFault::Order { what: "install a seed", why: "it is not built and verified yet" };
    match (seed.is_built(), seed.step(Millis(0), None)?) {
        (true, Step::Built) => Ok(seed.manifest().ok_or(early)?.position),
        _ => Err(early),
    }
}

/// A copy without META was never one: its state goes back to the seed it came from.
fn put_back(
    disk: &Arc<dyn Disk>,
    place: &CopyPlace,
    identity: &CopyIdentity,
    staged: &Path,
) -> Result<(), SeedFault> {
    let unfinished = copy_folder(place, identity);
    let io = disk_fault("take an unfinished copy back", &unfinished);
    let (taken, home) = (unfinished.join(STATE), staged.join(STATE));
    let moved = disk.exists(&taken).map_err(&io)? && !disk.exists(&home).map_err(&io)?;
    if !moved || !disk.exists(staged).map_err(&io)? {
        return Ok(());
    }
    // Somebody may be making it at this moment.
    let lock = take_lock(&**disk, &unfinished.join(LOCK), "an unfinished copy is taken back\n")
        .map_err(&io)?
        .ok_or_else(|| SeedFault::InUse { folder: unfinished.display().to_string() })?;
    disk.rename(&taken, &home)
        .and_then(|()| disk.sync_dir(staged))
        .and_then(|()| disk.sync_dir(&unfinished))
        .map_err(&io)?;
    drop(lock);
    Ok(())
}
