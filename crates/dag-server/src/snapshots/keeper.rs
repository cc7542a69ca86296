//! Snapshots by schedule: takes what is due, removes what is kept no longer, and makes room.

use std::sync::Arc;
use std::time::Duration;

use active_manager::control::command::SnapshotNote;
use active_manager::control::{ControlState, DatabaseRecord};
use active_manager::snapshot::{self, Candidate};
use dag_types::{CopyStatus, DatabaseId, Millis};
use seeding::snapshot::{Kept, Shelf, SnapshotId};
use seeding::trash;

use super::{Wish, floor, runs};
use crate::clock;
use crate::node::Node;
use crate::reports::STALE;
use crate::rounds;
use crate::service::admin::AdminServer;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(5);

/// Starts the thread; it ends with the node.
pub fn start(node: &Arc<Node>) -> std::io::Result<()> {
    rounds::start(node, "snapshots", INTERVAL, |node| {
        node.snapshots.close_idle();
        if let Some(state) = node.control() {
            round(node, &state);
        }
    })
}

fn round(node: &Arc<Node>, state: &ControlState) {
    let shelves = node.snapshots.shelves(node);
    for (database, shelf) in &shelves {
        if let Err(fault) = thin(node, state, *database, shelf) {
            tracing::warn!(db = %database, %fault, "remove old snapshots");
        }
    }
    make_room(node, &shelves);
    for record in state.databases.iter().filter(|record| record.is_mailbox_database()) {
        if node.stopping.is_cancelled() {
            return;
        }
        if is_due_here(node, state, record, &shelves) {
            take(node, record);
        }
    }
}

/// What the pure choice wants to know of a snapshot. One that cannot be read is as old as can be.
fn known(kept: &Kept) -> snapshot::Kept<SnapshotId> {
    let manifest = kept.manifest.as_ref().ok();
    snapshot::Kept {
        id: kept.id,
        taken: manifest.map_or(Millis(0), |manifest| manifest.taken),
        protected: manifest.is_some_and(|manifest| manifest.protected),
        scheduled: manifest.is_some_and(|manifest| manifest.scheduled),
        bad: kept.bad().is_some(),
    }
}

fn thin(
    node: &Node,
    state: &ControlState,
    database: DatabaseId,
    shelf: &Shelf,
) -> Result<(), seeding::SeedFault> {
    let kept: Vec<_> = shelf.list()?.iter().map(known).collect();
    let (every, keep) = (state.settings.snapshot_every(), state.settings.snapshot_keep());
    for id in snapshot::expired(&kept, Millis(every), keep, clock::wall()) {
        // What cannot be read is left for a person to look at, until the space is needed.
        if kept.iter().any(|kept| kept.id == id && kept.taken == Millis(0)) {
            continue;
        }
        node.snapshots.mounts.close(id);
        if shelf.remove(id)? {
            tracing::info!(db = %database, snapshot = %id, "a snapshot was kept for its time");
        }
    }
    Ok(())
}

/// Below the floor the trash goes first, and then the oldest snapshot; one a round, because what it
/// frees is known only afterwards.
fn make_room(node: &Arc<Node>, shelves: &[(DatabaseId, Shelf)]) {
    let floor = floor(node);
    let short = |shelf: &Shelf| {
        let folder = shelf.folder().parent()?;
        let free = node.store.disk.free_bytes(folder).ok()?;
        (free < floor).then(|| (folder.to_path_buf(), floor - free))
    };
    let mut due: Vec<(snapshot::Kept<SnapshotId>, DatabaseId, &Shelf)> = Vec::new();
    for (database, shelf) in shelves {
        let Some((folder, wanted)) = short(shelf) else { continue };
        match trash::empty(&*node.store.disk, &folder, clock::wall(), trash::KEEP, wanted) {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => {
                tracing::warn!(db = %database, ?gone, floor, "the trash went for its space")
            }
            Err(fault) => tracing::warn!(db = %database, %fault, "empty the trash"),
        }
        if short(shelf).is_some() {
            let kept = shelf.list().unwrap_or_default();
            due.extend(kept.iter().map(|kept| (known(kept), *database, shelf)));
        }
    }
    let kept: Vec<_> = due.iter().map(|(kept, ..)| *kept).collect();
    let Some(id) = snapshot::squeezed(&kept) else { return };
    let place = due.iter().find(|(kept, ..)| kept.id == id);
    let Some(&(_, database, shelf)) = place else { return };
    node.snapshots.mounts.close(id);
    match shelf.remove(id) {
        Ok(true) => {
            let why =
                format!("its volume has less than {floor} bytes free (budget.snapshot_floor)");
            tracing::warn!(db = %database, snapshot = %id, why, "a snapshot went before its time");
            node.snapshots.note(node, database, id, SnapshotNote::Dropped, "schedule", &why);
        }
        Ok(false) => {}
        Err(fault) => tracing::warn!(db = %database, %fault, "remove a snapshot for its space"),
    }
}

fn is_due_here(
    node: &Arc<Node>,
    state: &ControlState,
    record: &DatabaseRecord,
    shelves: &[(DatabaseId, Shelf)],
) -> bool {
    let database = record.id();
    if runs(node, database).is_none() || record.replica_on(node.id()).is_none() {
        return false;
    }
    let own = shelves.iter().filter(|(id, _)| *id == database);
    let kept = own.flat_map(|(_, shelf)| shelf.list().unwrap_or_default());
    let kept: Vec<_> = kept.map(|kept| known(&kept)).collect();
    let (every, since) = (Millis(state.settings.snapshot_every()), Millis(record.created_at_ms));
    snapshot::is_due(&kept, since, every, clock::wall())
        && snapshot::taker(state, record, &candidates(node, record)) == Some(node.id())
}

/// The nodes of a database as they were heard.
fn candidates(node: &Arc<Node>, record: &DatabaseRecord) -> Vec<Candidate> {
    let Ok(member) = node.member() else { return Vec::new() };
    let reports = AdminServer::of(node.clone()).reports(member, STALE);
    let active = node.active_node(record.id());
    let candidate = |copy: &active_manager::report::CopyReport| {
        let reachable = reports.nodes.iter().any(|n| n.node == copy.node && n.reachable);
        let well = matches!(
            copy.status,
            CopyStatus::Healthy | CopyStatus::Mounted | CopyStatus::SeedingSource
        );
        let active = active == Some(copy.node) || copy.status == CopyStatus::Mounted;
        Candidate { node: copy.node, sound: reachable && well, active }
    };
    let of_it = reports.copies.iter().filter(|copy| copy.database == record.id());
    of_it.map(candidate).collect()
}

fn take(node: &Arc<Node>, record: &DatabaseRecord) {
    let wish = Wish {
        id: SnapshotId(uuid::Uuid::new_v4().as_u128()),
        database: record.id(),
        protected: false,
        scheduled: true,
        who: "schedule".into(),
        reason: String::new(),
    };
    if let Err(problem) = node.snapshots.take(node, &wish, &mut |_| {}) {
        tracing::warn!(db = %record.id(), why = problem.message, "no snapshot was taken");
    }
}
