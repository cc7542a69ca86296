//! What happened to snapshots, told to the control leader: then it stands in `dagctl events`.
//!
//! A snapshot is taken and goes whether or not anybody can be told. What could not be told waits
//! here, in order, for as long as this process lives; the log has it in any case.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use active_manager::control::Order;
use active_manager::control::command::{NoteSnapshot, SnapshotNote};
use dag_api::Problem;
use dag_api::admin::v1 as api;
use dag_api::admin::v1::snapshot_service_client::SnapshotServiceClient;
use dag_types::{DatabaseId, NodeId};
use seeding::snapshot::SnapshotId;

use super::UNPOISONED;
use crate::node::Node;
use crate::service::admin::{AdminServer, Asker};

const ROUND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);
/// More than wait are not told; the oldest go first.
const MOST: usize = 1_000;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Of which database.
    pub database: DatabaseId,
    /// Where the snapshot lies.
    pub node: NodeId,
    /// Which one.
    pub snapshot: SnapshotId,
    /// What.
    pub what: SnapshotNote,
    /// By whom.
    pub who: String,
    /// Why.
    pub reason: String,
}

/// What waits to be told.
#[derive(Debug, Default)]
pub struct Notes(Mutex<VecDeque<Note>>);

impl Notes {
    /// One more.
    pub fn add(&self, note: Note) {
        let mut waiting = self.0.lock().expect(UNPOISONED);
        if waiting.len() == MOST {
            waiting.pop_front();
        }
        waiting.push_back(note);
    }

    fn first(&self) -> Option<Note> {
        self.0.lock().expect(UNPOISONED).front().cloned()
    }

    /// It was told.
    fn done(&self, note: &Note) {
        let mut waiting = self.0.lock().expect(UNPOISONED);
        if waiting.front() == Some(note) {
            waiting.pop_front();
        }
    }
}

/// Tells the control leader, whoever it is, until the node is stopped.
pub async fn tell(node: Arc<Node>) {
    while !node.stopping.is_cancelled() {
        while let Some(note) = node.snapshots.notes.first() {
            if let Err(why) = send(&node, &note).await {
                tracing::debug!(why, "a note on a snapshot waits");
                break;
            }
            node.snapshots.notes.done(&note);
        }
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = node.stopping.cancelled() => {}
        }
    }
}

async fn send(node: &Arc<Node>, note: &Note) -> Result<(), String> {
    let order = order_of(note);
    let asker = Asker {
        who: note.who.clone(),
        from: format!("node {}", note.node),
        reason: note.reason.clone(),
    };
    if node.active_node(DatabaseId::CONTROL) == Some(node.id()) {
        let noted = AdminServer::of(node.clone()).note_snapshot(order, &asker).await;
        return noted.map_err(|problem: Problem| problem.message);
    }
    let hint = node.hint(DatabaseId::CONTROL).ok_or("no leader of the control group is known")?;
    let endpoint = node.dial.endpoint(&hint.endpoint).map_err(|error| error.to_string())?;
    let channel = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await;
    let channel = channel.map_err(|error| error.to_string())?;
    let request = api::NoteSnapshotRequest {
        database_id: order.database,
        node_id: order.node,
        snapshot_id: order.snapshot,
        note: order.what,
        who: asker.who,
        from: asker.from,
        reason: asker.reason,
    };
    let told = SnapshotServiceClient::new(channel).note_snapshot(request).await;
    told.map(drop).map_err(|status| status.message().to_owned())
}

fn order_of(note: &Note) -> NoteSnapshot {
    NoteSnapshot {
        database: note.database.0,
        node: note.node.0,
        snapshot: note.snapshot.to_string(),
        what: note.what.into(),
    }
}

impl AdminServer {
    /// Writes a note into the control log, which must be led here.
    pub(crate) async fn note_snapshot(
        &self,
        note: NoteSnapshot,
        asker: &Asker,
    ) -> Result<(), Problem> {
        self.order(Order::NoteSnapshot(note), asker).await.map(drop)
    }
}
