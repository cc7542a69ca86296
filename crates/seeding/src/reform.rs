//! A copy is made anew of itself in the next generation of its group, where that group lost its
//! majority. The old one is read and never changed.
//!
//! ```text
//!  gen-1-3/state ──checkpoint──► seed-9/state ──the rest of gen-1-3/log──► level, one member
//!                                     └──rename──► gen-2-9/state, META last     the new copy opens
//! ```
//! Until META stands the new copy is not there, and the next try begins at the old one again.

use storage::copy_directory::{CopyDirectory, CopyPlace, CopyStart};
use storage::identity::CopyIdentity;
use storage::log::{CopyLog, VoteRecord};
use storage::state::{Position, StateEngine, StateStore};

use crate::fault::{SeedFault, disk as disk_fault};
use crate::install;
use crate::target::{STATE, discard, seed_folder};

/// What is made of what.
#[derive(Clone)]
pub struct ReformOrder {
    /// Where the database's copies lie on this node.
    pub place: CopyPlace,
    /// The copy as it was; nobody has it open.
    pub old: CopyIdentity,
    /// The copy as it will be: of the next generation, with an id that was never used.
    pub new: CopyIdentity,
}

/// Makes the new copy, or opens it where it stands. `level` brings the state that it is given to the
/// end of the log and says where that is.
pub fn reform(
    order: &ReformOrder,
    engine: &dyn StateEngine,
    level: impl FnOnce(&CopyLog, &dyn StateStore) -> Result<Position, String>,
) -> Result<CopyDirectory, SeedFault> {
    let ReformOrder { place, old, new } = order;
    assert!(old.replica != new.replica, "the new copy has an id of its own");
    assert!(old.generation < new.generation, "a generation never comes back");
    let staged = seed_folder(&place.folder, new.replica);
    if install::is_installed(place, new)? {
        let copy = CopyDirectory::open(place, *new, engine)?;
        install::clean(place, &staged)?;
        return Ok(copy);
    }
    let disk = place.volume.disk();
    discard(&**disk, &staged)?;
    let io = disk_fault("stage a copy of the next generation", &staged);
    disk.create_dir_all(&staged).map_err(&io)?;
    let state = staged.join(STATE);
    let before = CopyDirectory::open(place, *old, engine)?;
    before.state.checkpoint(&state)?;
    let store = engine.open(&state)?;
    let position = level(&before.log, &*store);
    let position = position.map_err(|detail| SeedFault::Level { detail })?;
    store.flush()?;
    drop(store);
    drop(before);
    disk.sync_dir(&state).and_then(|()| disk.sync_dir(&staged)).map_err(&io)?;
    disk.sync_dir(&place.folder).map_err(&io)?;
    // Every term of the new generation is above every one of the old.
    let term = new.generation.base_term();
    let vote = Some(VoteRecord { term, voted_for: new.replica.0, committed: false });
    let start = CopyStart::Seeded { state, position, vote };
    let copy = CopyDirectory::create(place, *new, start, engine)?;
    install::clean(place, &staged)?;
    Ok(copy)
}
