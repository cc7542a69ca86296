//! The copy whose place another one takes, for reading: what it has need not be sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use active_manager::control::SeedRecord;
use dag_types::ReplicaId;
use seeding::install;
use storage::state::{StateError, StateRead};

use crate::node::Node;

/// Where a checkpoint of a copy that goes on meanwhile lies, below the seed's folder.
const OLD: &str = "old";
/// The state below a copy's folder.
const STATE: &str = "state";
/// How long a copy may take to be open, or known to be Failed, after a start.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// Opens the old copy. Nothing where there is none, or where it does not open: then everything is
/// sent.
pub(super) fn open(node: &Node, seed: &SeedRecord, staged: &Path) -> Option<Arc<dyn StateRead>> {
    if seed.replaces == 0 {
        return None;
    }
    let state = closed_state(node, seed)?;
    if !node.store.disk.exists(&state).unwrap_or(false) {
        return None;
    }
    let opened = match checkpoint(node, seed, &staged.join(OLD)) {
        Some(taken) => taken.and_then(|taken| node.store.engine().open_read_only(&taken)),
        None => node.store.engine().open_read_only(&state),
    };
    match opened {
        Ok(old) => Some(old),
        Err(fault) => {
            let database = seed.database();
            tracing::warn!(db = %database, %fault, "the old copy is of no use to the new one");
            None
        }
    }
}

/// Where its state lies, as the control log has it.
fn closed_state(node: &Node, seed: &SeedRecord) -> Option<PathBuf> {
    let (state, replica) = (node.control()?, ReplicaId(seed.replaces));
    let old = state.database(seed.database())?.replica_on(node.id())?;
    if old.id() != replica || old.store() != node.store_id() {
        return None;
    }
    let place = node.store.place(seed.database(), &old.path);
    let identity = node.store.root.copy_identity(seed.database(), seed.generation(), replica);
    Some(install::copy_folder(&place, &identity).join(STATE))
}

/// Of a copy that goes on meanwhile, second names for its files as they are now; nothing where it
/// is not open.
fn checkpoint(
    node: &Node,
    seed: &SeedRecord,
    folder: &Path,
) -> Option<Result<PathBuf, StateError>> {
    let (database, old) = (seed.database(), ReplicaId(seed.replaces));
    let end = Instant::now() + PATIENCE;
    let copy = loop {
        if node.failed.of_copy(database, old).is_some() {
            return None;
        }
        let open = node.member().ok().and_then(|member| member.registry.get(database));
        let runs = open.is_some_and(|group| group.replica() == old);
        match node.store.copy(database).filter(|_| runs) {
            Some(copy) => break copy,
            None if Instant::now() >= end => return None,
            None => std::thread::sleep(LOOK),
        }
    };
    if let Err(fault) = node.store.disk.remove_dir_all(folder) {
        tracing::warn!(db = %database, %fault, "remove an older checkpoint of the old copy");
        return None;
    }
    Some(copy.state().checkpoint(folder).map(|()| folder.to_path_buf()))
}
