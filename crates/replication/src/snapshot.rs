//! Snapshots: a whole state, row by row, over a bulk stream of its own.
//!
//! ```text
//! leader                                      follower
//!   Begin {group, vote, position, members} ─►  an empty state beside the used one
//!   Rows {rows, crc} ... ───────────────────►  written, flushed now and then
//!   End {rows, bytes, digest} ──────────────►  compared, flushed, handed to Raft, put in place
//!   ◄─────────────────────────────── Done {vote}  or a refusal
//! ```
//! The rows come from a view of the live state, so they are of one moment, and the position is the
//! one that they themselves contain. Nothing depends on the engine below: a RocksDB copy can be
//! filled from a map and back. A broken stream leaves nothing behind but a state that the next
//! attempt removes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dag_api::peer::v1 as pb;
use dag_types::{LogId, NodeId, Write};
use futures::StreamExt;
use openraft::AsyncRuntime;
use openraft::raft::SnapshotResponse;
use storage::state::{self, Row, StateRead, StateStore};
use tokio::sync::mpsc;

use crate::group::RaftGroup;
use crate::link::{LinkError, Pipe, StreamKind};
use crate::membership;
use crate::mux::dial::Dialer;
use crate::offload::Offload;
use crate::peer::Refusal;
use crate::registry::GroupTable;
use crate::types::{CommittedLeaderId, Member, RaftVote, SnapshotMeta, Types, log_id};
use crate::wire::{WireError, vote_from_wire, vote_to_wire};

/// Bytes of rows in one frame, unless a single row is larger.
const FRAME_BYTES: usize = 256 << 10;
/// Bytes that reading ahead aims at.
const PAGE_BYTES: usize = 1 << 20;
/// Rows of the first page of a table, before their size is known.
const FIRST_PAGE_ROWS: usize = 8;
/// Rows of one page at most.
const PAGE_ROWS: usize = 4096;
/// A received state is flushed when it holds so much that a flush would write.
const FLUSH_BYTES: u64 = 64 << 20;
/// How long the follower may take to put the state in place, or a frame to arrive.
const PATIENCE: Duration = Duration::from_secs(120);

/// A snapshot, as openraft hands it around.
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, Member, SnapshotContent>;

/// What a snapshot holds.
pub(crate) enum SnapshotContent {
    /// Nothing: it only reports which position is on disk.
    PositionOnly,
    /// The rows of a state at one moment, to be sent.
    View(Arc<dyn StateRead>),
    /// A state that was received and flushed, to be put in place.
    Received(Arc<dyn StateStore>),
}

/// Reads all rows of a state in order, a page at a time.
struct Rows {
    view: Arc<dyn StateRead>,
    next: Option<Vec<u8>>,
    page_rows: usize,
}

/// Where tables of another kind of rows begin: their sizes say nothing about one another.
const FAMILY_STARTS: [u8; 3] = [0x00, 0x80, 0xc0];

impl Rows {
    fn new(view: Arc<dyn StateRead>) -> Self {
        Self { view, next: Some(vec![FAMILY_STARTS[0]]), page_rows: FIRST_PAGE_ROWS }
    }

    /// The next rows; empty at the end.
    fn page(&mut self) -> Result<Vec<Row>, storage::state::StateError> {
        while let Some(from) = self.next.take() {
            let family_end = FAMILY_STARTS.into_iter().find(|start| *start > from[0]);
            // No key is this long, so this is behind every key.
            let to = family_end.map_or_else(|| vec![0xff; 1024], |start| vec![start]);
            let rows = self.view.scan(&from, &to, self.page_rows)?;
            if rows.len() < self.page_rows {
                self.next = family_end.map(|start| vec![start]);
                self.page_rows = FIRST_PAGE_ROWS;
            } else if let Some((last, _)) = rows.last() {
                let mut after = last.to_vec();
                after.push(0);
                self.next = Some(after);
                let average = row_bytes(&rows) / rows.len();
                self.page_rows = (PAGE_BYTES / average.max(1)).clamp(1, PAGE_ROWS);
            }
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }
}

fn row_bytes(rows: &[Row]) -> usize {
    rows.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// What both sides count, so that a lost, doubled or changed row is noticed.
#[derive(Default)]
struct Tally {
    rows: u64,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Tally {
    fn add(&mut self, rows: &[pb::Row]) {
        for row in rows {
            self.rows += 1;
            self.bytes += (row.key.len() + row.value.len()) as u64;
            for part in [&row.key, &row.value] {
                self.hasher.update(&(part.len() as u32).to_le_bytes());
                self.hasher.update(part);
            }
        }
    }

    fn end(&self) -> pb::SnapshotEnd {
        let digest = Bytes::copy_from_slice(&self.hasher.finalize().as_bytes()[..16]);
        pb::SnapshotEnd { rows: self.rows, bytes: self.bytes, digest }
    }
}

fn rows_crc(rows: &[pb::Row]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in rows.iter().flat_map(|row| [&row.key, &row.value]) {
        hasher.update(&(part.len() as u32).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

/// Cuts a page into frames.
fn frames(rows: Vec<Row>) -> Vec<Vec<pb::Row>> {
    let mut frames = vec![Vec::new()];
    let mut bytes = 0;
    for (key, value) in rows {
        if bytes >= FRAME_BYTES {
            frames.push(Vec::new());
            bytes = 0;
        }
        bytes += key.len() + value.len();
        frames.last_mut().expect("there is always one").push(pb::Row { key, value });
    }
    frames
}

/// What is sent where.
pub(crate) struct Shipment {
    pub to: NodeId,
    pub group: pb::Group,
    pub vote: RaftVote,
    pub meta: SnapshotMeta,
    pub view: Arc<dyn StateRead>,
    pub offload: Offload,
}

/// Sends a state, and waits until the follower has it in place.
pub(crate) async fn send<R: AsyncRuntime>(
    dialer: &Arc<Dialer>,
    shipment: Shipment,
) -> Result<SnapshotResponse<Types<R>>, LinkError> {
    let opened = dialer.open(shipment.to, StreamKind::Bulk).await?;
    let (pipe, mut validity) = opened.split(dialer);
    let Pipe { sender, mut receiver } = pipe;
    let rows = async {
        send_rows(&sender, &shipment).await?;
        // The answer comes through the other half.
        std::future::pending::<Result<(), LinkError>>().await
    };
    let answer = async {
        // It may come early: a refusal ends the sending.
        let frame = receiver.next().await.ok_or_else(|| LinkError::broken("no answer"))??;
        done(frame)
    };
    tokio::select! {
        _ = validity.ended() => Err(LinkError::broken("an identity changed")),
        sent = rows => sent.and(Err(LinkError::broken("unreachable"))),
        answer = answer => answer,
    }
}

async fn send_rows(sender: &mpsc::Sender<pb::Frame>, shipment: &Shipment) -> Result<(), LinkError> {
    let begin = pb::SnapshotBegin {
        group: Some(shipment.group),
        vote: Some(vote_to_wire(&shipment.vote)),
        applied: shipment.meta.last_log_id.as_ref().map(crate::wire::id_to_wire),
        membership: membership::encode_stored(&shipment.meta.last_membership),
    };
    send_frame(sender, pb::frame::Frame::SnapshotBegin(begin)).await?;
    let mut rows = Rows::new(shipment.view.clone());
    let mut tally = Tally::default();
    loop {
        let read = move || {
            let page = rows.page();
            (rows, page)
        };
        let page;
        (rows, page) = shipment.offload.run(read).await;
        let page = page.map_err(LinkError::broken)?;
        if page.is_empty() {
            break;
        }
        for rows in frames(page) {
            tally.add(&rows);
            let crc = rows_crc(&rows);
            let frame = pb::SnapshotRows { rows, crc };
            send_frame(sender, pb::frame::Frame::SnapshotRows(frame)).await?;
        }
    }
    send_frame(sender, pb::frame::Frame::SnapshotEnd(tally.end())).await
}

async fn send_frame(
    sender: &mpsc::Sender<pb::Frame>,
    frame: pb::frame::Frame,
) -> Result<(), LinkError> {
    let sent = tokio::time::timeout(PATIENCE, sender.send(pb::Frame { frame: Some(frame) })).await;
    sent.map_err(|_| LinkError::Deadline)?.map_err(|_| LinkError::broken("the bulk stream ended"))
}

fn done<R: AsyncRuntime>(frame: pb::Frame) -> Result<SnapshotResponse<Types<R>>, LinkError> {
    use pb::snapshot_done::Done;
    match frame.frame {
        Some(pb::frame::Frame::SnapshotDone(pb::SnapshotDone { done: Some(done) })) => match done {
            Done::Vote(vote) => {
                let vote = vote_from_wire(Some(&vote)).map_err(LinkError::broken)?;
                Ok(SnapshotResponse::new(vote))
            }
            Done::Refused(refusal) => Err(Refusal::from_wire(&refusal).into()),
        },
        Some(pb::frame::Frame::Refusal(refusal)) => Err(Refusal::from_wire(&refusal).into()),
        _ => Err(LinkError::broken("an unexpected frame")),
    }
}

/// Receives a state from another node and puts it in place.
pub(crate) async fn receive<R: AsyncRuntime>(table: &GroupTable<R>, from: NodeId, pipe: Pipe) {
    let Pipe { sender, mut receiver } = pipe;
    let mut arriving = Arriving { receiver: &mut receiver };
    let done = match arriving.install(table, from).await {
        Ok(vote) => pb::snapshot_done::Done::Vote(vote_to_wire(&vote)),
        Err(refusal) => {
            tracing::warn!(peer = %from, %refusal, "a snapshot was not received");
            pb::snapshot_done::Done::Refused(refusal.to_wire())
        }
    };
    let done = pb::SnapshotDone { done: Some(done) };
    let _ = send_frame(&sender, pb::frame::Frame::SnapshotDone(done)).await;
}

type FrameStream = futures::stream::BoxStream<'static, Result<pb::Frame, LinkError>>;

struct Arriving<'a> {
    receiver: &'a mut FrameStream,
}

impl Arriving<'_> {
    async fn next(&mut self) -> Result<pb::frame::Frame, Refusal> {
        let bad = |detail: &str| Refusal::BadFrame { detail: detail.to_owned() };
        tokio::time::timeout(PATIENCE, self.receiver.next())
            .await
            .map_err(|_| bad("no frame in time"))?
            .ok_or_else(|| bad("the stream ended early"))?
            .map_err(|error| Refusal::BadFrame { detail: error.to_string() })?
            .frame
            .ok_or_else(|| bad("an empty frame"))
    }

    async fn install<R: AsyncRuntime>(
        &mut self,
        table: &GroupTable<R>,
        from: NodeId,
    ) -> Result<RaftVote, Refusal> {
        let pb::frame::Frame::SnapshotBegin(begin) = self.next().await? else {
            return Err(WireError::Missing("beginning").into());
        };
        let group = table.find(begin.group.as_ref(), from)?;
        let vote = vote_from_wire(begin.vote.as_ref())?;
        let applied = begin.applied.as_ref().ok_or(WireError::Missing("position"))?;
        let meta = SnapshotMeta {
            last_log_id: Some(crate::wire::id_from_wire(applied)),
            last_membership: membership::decode_stored(&begin.membership)
                .map_err(|error| Refusal::BadFrame { detail: error.to_string() })?,
        };
        // One state at a time for a copy: a second arrival would remove the first one's folder.
        let _turn = group.snapshot_turn().await;
        let state = self.fill(&group).await?;
        check_position(&*state, &meta)?;
        let snapshot = Snapshot { meta, snapshot: SnapshotContent::Received(state) };
        let instance = group.running()?;
        let installing = instance.raft.install_full_snapshot(vote, snapshot);
        let installed = instance.unless_ended(installing).await.and_then(Result::ok);
        installed.map(|response| response.vote).ok_or(Refusal::NotRunning)
    }

    /// Writes the rows into a fresh state, and flushes it.
    async fn fill<R: AsyncRuntime>(
        &mut self,
        group: &RaftGroup<R>,
    ) -> Result<Arc<dyn StateStore>, Refusal> {
        let (store, offload) = (group.store(), group.offload());
        let state = offload.run(move || store.fresh()).await.map_err(state_refusal)?;
        let mut tally = Tally::default();
        loop {
            match self.next().await? {
                pb::frame::Frame::SnapshotRows(frame) => {
                    if rows_crc(&frame.rows) != frame.crc {
                        let detail = "rows arrived damaged".to_owned();
                        return Err(Refusal::BadFrame { detail });
                    }
                    tally.add(&frame.rows);
                    let (into, rows) = (state.clone(), frame.rows);
                    offload.run(move || write_rows(&*into, rows)).await.map_err(state_refusal)?;
                }
                pb::frame::Frame::SnapshotEnd(end) if end == tally.end() => break,
                _ => {
                    let detail = "the rows are not all there, or not as they were".to_owned();
                    return Err(Refusal::BadFrame { detail });
                }
            }
        }
        let into = state.clone();
        offload.run(move || into.flush()).await.map_err(state_refusal)?;
        Ok(state)
    }
}

fn write_rows(state: &dyn StateStore, rows: Vec<pb::Row>) -> Result<(), state::StateError> {
    let writes: Vec<Write> =
        rows.into_iter().map(|pb::Row { key, value }| Write::Put { key, value }).collect();
    state.write(&writes)?;
    if state.unflushed_bytes() > FLUSH_BYTES { state.flush() } else { Ok(()) }
}

/// The position that the sender named must be the one in the rows.
fn check_position(state: &dyn StateRead, meta: &SnapshotMeta) -> Result<(), Refusal> {
    let found: Option<LogId> = state::applied(state).map_err(state_refusal)?.map(|(at, _)| at);
    if found == meta.last_log_id.as_ref().map(log_id) {
        return Ok(());
    }
    let detail = format!("the rows are of position {found:?}, the sender named another");
    Err(Refusal::BadFrame { detail })
}

fn state_refusal(error: state::StateError) -> Refusal {
    tracing::error!(%error, "a received state could not be written");
    Refusal::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: u8, bytes: usize) -> Row {
        (Bytes::copy_from_slice(&[0x10, key]), Bytes::from(vec![key; bytes]))
    }

    #[test]
    fn a_page_is_cut_into_frames_of_bounded_size_with_every_row_in_order() {
        let rows: Vec<Row> = (0..40).map(|n| row(n, 50_000)).collect();
        let frames = frames(rows.clone());
        assert!(frames.iter().all(|frame| frame.len() <= 7));
        let back: Vec<Row> = frames.into_iter().flatten().map(|row| (row.key, row.value)).collect();
        assert_eq!(back, rows);
    }

    #[test]
    fn a_changed_lost_or_moved_row_changes_the_tally() {
        let rows: Vec<pb::Row> =
            (0..4).map(|n| row(n, 10)).map(|(key, value)| pb::Row { key, value }).collect();
        let tally = |rows: &[pb::Row]| {
            let mut tally = Tally::default();
            tally.add(rows);
            tally.end()
        };
        let good = tally(&rows);
        let mut moved = rows.clone();
        moved.swap(0, 1);
        let mut changed = rows.clone();
        changed[2].value = Bytes::from_static(b"0123456789");
        for bad in [&rows[1..], &moved, &changed] {
            assert_ne!(tally(bad), good);
            assert_ne!(rows_crc(bad), rows_crc(&rows));
        }
    }
}
