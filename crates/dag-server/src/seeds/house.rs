//! What lies in the folders of databases and is of no use any more: copies that were replaced go to
//! the trash, seeds that nobody wants and checkpoints that nobody reads are removed, the trash is
//! emptied when its time has come.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use active_manager::control::{ControlState, SeedPhase};
use dag_types::{DatabaseId, ReplicaId};
use seeding::source::Source;
use seeding::{SeedFault, install, relocate, trash};

use super::strays::{Folder, is_stray, parse};
use super::{CHECKPOINTS, UNPOISONED, giver};
use crate::clock;
use crate::journal::{CopyOf, Event};
use crate::node::Node;

const ROUND: Duration = Duration::from_secs(2);
/// Rounds between two looks at what only time makes useless.
const SLOW: u32 = 30;

/// Keeps the folders in order until the node is stopped.
pub async fn keep_house(node: Arc<Node>) {
    let mut rounds = 0_u32;
    let mut seen: Option<Seen> = None;
    while !node.stopping.is_cancelled() {
        let slow = rounds.is_multiple_of(SLOW);
        rounds = rounds.wrapping_add(1);
        let (tidied, before) = (node.clone(), seen.clone());
        let round = tokio::task::spawn_blocking(move || round(&tidied, slow, before.as_ref()));
        seen = round.await.ok().flatten();
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

/// What decides which folders are of use: the copies and the seeds of this node.
type Seen = (Vec<(DatabaseId, ReplicaId)>, Vec<(ReplicaId, i32)>);

fn seen(node: &Node, state: &ControlState) -> Seen {
    let copies = state
        .databases
        .iter()
        .filter_map(|record| record.replica_on(node.id()).map(|copy| (record.id(), copy.id())));
    let seeds = state.seeds.iter().filter(|seed| seed.node() == node.id());
    (copies.collect(), seeds.map(|seed| (seed.replica(), seed.phase)).collect())
}

/// One round; gives what it saw where everything is in order now.
fn round(node: &Node, slow: bool, before: Option<&Seen>) -> Option<Seen> {
    let state = node.control()?;
    let now = seen(node, &state);
    if !slow && before == Some(&now) {
        return Some(now);
    }
    let folders = node.store.folders().unwrap_or_default();
    let mut clean = true;
    for (database, folder) in folders.into_iter().filter(|(id, _)| *id != DatabaseId::CONTROL) {
        let mut tidied = discard_strays(node, &state, database, &folder);
        if slow && tidied.is_ok() {
            tidied = expire(node, database, &folder);
        }
        if let Err(fault) = tidied {
            tracing::warn!(db = %database, folder = %folder.display(), %fault, "tidy a folder");
            clean = false;
        }
    }
    clean.then_some(now)
}

fn discard_strays(
    node: &Node,
    state: &ControlState,
    database: DatabaseId,
    folder: &Path,
) -> Result<(), SeedFault> {
    let place = node.store.place_in(folder.to_path_buf());
    let open = node.member().ok().and_then(|member| member.registry.get(database));
    let open = open.map(|group| group.replica());
    for name in list(node, &place.folder)? {
        match parse(&name) {
            Some(Folder::Copy(generation, replica))
                if open != Some(replica) && is_stray(node.id(), state, database, replica) =>
            {
                let old = node.store.root.copy_identity(database, generation, replica);
                install::retire(&place, &old, clock::wall())?;
                let copy = CopyOf::new(database, generation, replica);
                let why = "the control log does not name it any more; it lies in the trash";
                node.journal.write(&Event::ReplicaRemoved { copy, why });
                tracing::info!(db = %database, %replica, "the old copy lies in the trash");
            }
            None if name.as_os_str() == relocate::SOURCE && !relocates(node, state, database) => {
                remove(node, &place.folder.join(name))?;
            }
            Some(Folder::Seed(replica)) if is_stray(node.id(), state, database, replica) => {
                install::clean(&place, &place.folder.join(name))?;
                tracing::info!(db = %database, %replica, "a seed that nobody wants is removed");
            }
            _ => {}
        }
    }
    Ok(())
}

fn list(node: &Node, folder: &Path) -> Result<Vec<std::path::PathBuf>, SeedFault> {
    node.store.disk.list(folder).map_err(|fault| SeedFault::Disk {
        operation: "list a database's folder",
        folder: folder.display().to_string(),
        detail: fault.to_string(),
    })
}

/// Whether a copy of this node is built from itself, so that its checkpoint is of use.
fn relocates(node: &Node, state: &ControlState, database: DatabaseId) -> bool {
    let seed = state.seed(database, node.id());
    seed.is_some_and(|seed| seed.relocates() && seed.phase() == SeedPhase::Building)
}

fn remove(node: &Node, folder: &Path) -> Result<(), SeedFault> {
    node.store.disk.remove_dir_all(folder).map_err(|fault| SeedFault::Disk {
        operation: "remove checkpoints",
        folder: folder.display().to_string(),
        detail: fault.to_string(),
    })
}

/// Checkpoints without readers, and what lay in the trash for its time.
fn expire(node: &Node, database: DatabaseId, folder: &Path) -> Result<(), SeedFault> {
    let checkpoints = folder.join(CHECKPOINTS);
    let kept = node.store.disk.exists(&checkpoints).unwrap_or(false);
    let open = node.store.folder_of(database);
    if kept && open.is_some_and(|open| open != folder) {
        remove(node, &checkpoints)?;
    } else if kept {
        let source = giver::source(node, database)?;
        let mut source = source.lock().expect(UNPOISONED);
        let gone = Source::expire(&mut source, node.seeds.now())?;
        if gone > 0 {
            tracing::info!(db = %database, gone, "checkpoints that nobody reads are removed");
        }
    }
    let disk = &*node.store.disk;
    for name in trash::empty(disk, folder, clock::wall(), trash::KEEP, 0)? {
        tracing::info!(db = %database, name = %name.display(), "removed from the trash");
    }
    Ok(())
}
