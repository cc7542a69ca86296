//! `holdfast.admin.v1.SnapshotService`: snapshots of this node, for operators.
//!
//! Nothing here needs a quorum: a snapshot is read from this node's disk, and what is done with one
//! is noted in the control log afterwards.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use active_manager::control::command::NoteSnapshot;
use dag_api::admin::v1 as api;
use dag_api::admin::v1::snapshot_service_server::{SnapshotService, SnapshotServiceServer};
use dag_api::limits::CHUNK_BYTES_MAX;
use dag_api::mailbox::v1::BodyChunk;
use dag_api::{BadMessage, Problem, Reason};
use dag_types::{DatabaseId, Millis};
use futures::{Stream, StreamExt as _, stream};
use seeding::snapshot::{Kept, Shelf, SnapshotId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::admin::{AdminServer, Asker, who};
use super::mailbox::stored;
use super::text::{PageToken, need_folder_id, page_size};
use crate::clock;
use crate::machine::{ReadFault, View};
use crate::node::Node;
use crate::snapshots::{Found, Wish, failed};
use crate::status;

/// How long a call waits for a snapshot that is being taken.
const WAIT: Duration = Duration::from_secs(2);
/// Between two words on how far a verification is.
const TOLD: Duration = Duration::from_millis(200);

/// The service of one node.
#[derive(Clone)]
pub struct SnapshotServer {
    node: Arc<Node>,
}

type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl SnapshotServer {
    /// The service to add to a server.
    pub fn service(node: Arc<Node>) -> SnapshotServiceServer<Self> {
        SnapshotServiceServer::new(Self { node })
            .max_decoding_message_size(dag_api::limits::WIRE_BYTES_MAX)
            // The folders of a large mailbox in one answer.
            .max_encoding_message_size(4 * dag_api::limits::WIRE_BYTES_MAX)
    }

    /// Work that waits for the disk.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Node>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.node.member()?;
        let node = self.node.clone();
        let ended = tokio::task::spawn_blocking(move || work(&node)).await;
        ended.unwrap_or_else(|_| Err(Problem::new(Reason::Internal, "the work ended early")))
    }

    /// Reads out of a snapshot. What rotted is noted, and the snapshot is not read any more.
    async fn read<T: Send + 'static>(
        &self,
        id: &str,
        read: impl FnOnce(View<'_>, DatabaseId) -> Result<T, ReadFault> + Send + 'static,
    ) -> Result<T, Problem> {
        let id = parse(id)?;
        let read = move |node: &Arc<Node>| {
            let (database, view) = node.snapshots.open(node, id)?;
            read(View(&*view), database)
                .map_err(|fault| node.snapshots.found_bad(node, id, &fault.to_string()))
        };
        self.apart(read).await
    }

    async fn list(
        &self,
        request: api::ListSnapshotsRequest,
    ) -> Result<api::ListSnapshotsResponse, Problem> {
        let name = request.database_name;
        let listed = self.apart(move |node| {
            let mut all = Vec::new();
            for (database, shelf) in node.snapshots.shelves(node) {
                for kept in shelf.list().map_err(|fault| failed(&fault))? {
                    all.push(shown(node, database, &shelf, &kept));
                }
            }
            all.retain(|one| name.is_empty() || one.database_name.eq_ignore_ascii_case(&name));
            Ok(all)
        });
        Ok(api::ListSnapshotsResponse {
            node_id: self.node.id().0,
            snapshots: listed.await?,
            now: Some(dag_api::convert::timestamp(clock::wall())),
        })
    }

    async fn create(
        &self,
        request: api::CreateSnapshotRequest,
        who: String,
    ) -> Result<api::CreateSnapshotResponse, Problem> {
        let id = parse(&request.snapshot_id)?;
        let state = self.node.control().ok_or_else(status::unprovisioned)?;
        let record = super::admin::named(&state, &request.database_name)?;
        if !record.is_mailbox_database() {
            let text = format!("{} is no mailbox database", record.name);
            return Err(Problem::new(Reason::InvalidRequest, text).check("database_name"));
        }
        let wish = Wish {
            id,
            database: record.id(),
            protected: request.protected,
            scheduled: false,
            who,
            reason: request.reason,
        };
        match self.node.snapshots.create(&self.node, wish, WAIT).await? {
            Err(read_bytes) => Ok(api::CreateSnapshotResponse { snapshot: None, read_bytes }),
            Ok(manifest) => {
                let snapshot = self.apart(move |node| one(node, id)).await?;
                let read_bytes = manifest.total_bytes();
                Ok(api::CreateSnapshotResponse { snapshot: Some(snapshot), read_bytes })
            }
        }
    }

    async fn delete(
        &self,
        request: api::DeleteSnapshotRequest,
        who: String,
    ) -> Result<api::DeleteSnapshotResponse, Problem> {
        let id = parse(&request.snapshot_id)?;
        let deleted = self.apart(move |node| {
            let snapshot = one(node, id)?;
            let skip = request.skip_protection;
            node.snapshots.delete(node, id, skip, (&who, &request.reason))?;
            Ok(snapshot)
        });
        Ok(api::DeleteSnapshotResponse { snapshot: Some(deleted.await?) })
    }

    async fn verify(
        &self,
        request: api::VerifySnapshotRequest,
    ) -> Result<Frames<api::VerifySnapshotResponse>, Problem> {
        let id = parse(&request.snapshot_id)?;
        let total_bytes = self.apart(move |node| Ok(one(node, id)?.size_bytes)).await?;
        let (sender, receiver) = mpsc::channel(4);
        let node = self.node.clone();
        tokio::task::spawn_blocking(move || verify(&node, id, total_bytes, &sender));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    async fn mailboxes(
        &self,
        request: api::ListSnapshotMailboxesRequest,
    ) -> Result<api::ListSnapshotMailboxesResponse, Problem> {
        let page = PageToken::of_query(&["snapshot mailboxes", &request.snapshot_id]);
        let (after, size) = (page.read(&request.page_token)?, page_size(request.page_size));
        let read = move |view: View<'_>, database| stored::mailboxes(view, database, after, size);
        let found = self.read(&request.snapshot_id, read).await?;
        let (mailboxes, next_page_token) = (found.items, page.write(found.next));
        Ok(api::ListSnapshotMailboxesResponse { mailboxes, next_page_token })
    }

    async fn folders(
        &self,
        request: api::ListSnapshotFoldersRequest,
    ) -> Result<api::ListSnapshotFoldersResponse, Problem> {
        let name = request.mailbox.clone();
        let read = move |view: View<'_>, database| {
            let Some(mailbox) = stored::mailbox(view, database, &name)? else { return Ok(None) };
            let id = dag_api::convert::mailbox_id(&mailbox.mailbox_id);
            let id = id.expect("it was written by this node just now");
            Ok(Some((mailbox, stored::folders(view, id)?)))
        };
        let found = self.read(&request.snapshot_id, read).await?;
        let (mailbox, folders) = found.ok_or_else(|| {
            let text = format!("the snapshot has no mailbox {}", request.mailbox);
            Problem::new(Reason::MailboxNotFound, text)
                .next(format!("dagctl snapshot mailboxes {}", request.snapshot_id))
        })?;
        Ok(api::ListSnapshotFoldersResponse { mailbox: Some(mailbox), folders })
    }

    async fn messages(
        &self,
        request: api::ListSnapshotMessagesRequest,
    ) -> Result<api::ListSnapshotMessagesResponse, Problem> {
        let mailbox = dag_api::convert::mailbox_id(&request.mailbox_id)?;
        let folder = need_folder_id(&request.folder_id)?;
        let page = PageToken::of_query(&[
            "snapshot messages",
            &request.snapshot_id,
            &request.mailbox_id,
            &request.folder_id,
        ]);
        let (after, size) = (page.read(&request.page_token)?, page_size(request.page_size));
        let read = move |view: View<'_>, database| {
            stored::messages(view, database, (mailbox, folder), after, size)
        };
        let found = self.read(&request.snapshot_id, read).await?;
        let found = found.ok_or_else(|| {
            let text = format!("the snapshot has no folder {} there", request.folder_id);
            Problem::new(Reason::FolderNotFound, text)
        })?;
        let (messages, next_page_token) = (found.items, page.write(found.next));
        Ok(api::ListSnapshotMessagesResponse { messages, next_page_token })
    }

    async fn fetch(
        &self,
        request: api::FetchSnapshotMessageRequest,
    ) -> Result<Frames<api::FetchSnapshotMessageResponse>, Problem> {
        let mailbox = dag_api::convert::mailbox_id(&request.mailbox_id)?;
        let (folder, uid) = (need_folder_id(&request.folder_id)?, request.uid);
        let read =
            move |view: View<'_>, database| stored::message(view, database, (mailbox, folder), uid);
        let found = self.read(&request.snapshot_id, read).await?;
        let (message, content) = found.ok_or_else(|| {
            let text = format!("the snapshot has no message {uid} there");
            Problem::new(Reason::MessageNotFound, text)
        })?;
        let first = api::FetchSnapshotMessageResponse { message: Some(message), chunk: None };
        let chunks = (0..content.len()).step_by(CHUNK_BYTES_MAX).map(move |start| {
            let data = content.slice(start..content.len().min(start + CHUNK_BYTES_MAX));
            let crc32 = crc32fast::hash(&data);
            let chunk = Some(BodyChunk { offset: start as u64, data, crc32 });
            api::FetchSnapshotMessageResponse { message: None, chunk }
        });
        Ok(Box::pin(stream::iter(std::iter::once(first).chain(chunks)).map(Ok)))
    }

    async fn note(&self, request: api::NoteSnapshotRequest) -> Result<(), Problem> {
        let note = NoteSnapshot {
            database: request.database_id,
            node: request.node_id,
            snapshot: request.snapshot_id,
            what: request.note,
        };
        let asker = Asker { who: request.who, from: request.from, reason: request.reason };
        AdminServer::of(self.node.clone()).note_snapshot(note, &asker).await
    }
}

fn parse(id: &str) -> Result<SnapshotId, Problem> {
    let wanted = "32 hexadecimal digits";
    Ok(id.parse().map_err(|_| BadMessage { field: "snapshot_id", wanted })?)
}

fn one(node: &Node, id: SnapshotId) -> Result<api::Snapshot, Problem> {
    let Found { shelf, database, kept } = node.snapshots.find(node, id)?;
    Ok(shown(node, database, &shelf, &kept))
}

fn shown(node: &Node, database: DatabaseId, shelf: &Shelf, kept: &Kept) -> api::Snapshot {
    let time = |at: Millis| Some(dag_api::convert::timestamp(at));
    let space = shelf.space(kept.id);
    let name = node.database(database).map(|record| record.name).unwrap_or_default();
    let bad = kept.bad();
    let state = match (&bad, &kept.verdict) {
        (Some(_), _) => api::SnapshotState::Bad,
        (None, Some(_)) => api::SnapshotState::Good,
        (None, None) => api::SnapshotState::Unverified,
    };
    let mut shown = api::Snapshot {
        snapshot_id: kept.id.to_string(),
        database_id: database.0,
        database_name: name,
        node_id: node.id().0,
        size_bytes: space.bytes,
        alone_bytes: space.alone,
        state: state.into(),
        verify_time: kept.verdict.as_ref().and_then(|verdict| time(verdict.at)),
        findings: bad.into_iter().collect(),
        path: shelf.folder().join(kept.id.to_string()).display().to_string(),
        ..api::Snapshot::default()
    };
    if let Ok(manifest) = &kept.manifest {
        let (at, chain) = manifest.position;
        shown.database_name.clone_from(&manifest.database_name);
        shown.replica_id = manifest.replica.0;
        shown.generation = manifest.generation.0;
        (shown.term, shown.index, shown.chain) = (at.term, at.index, chain.0.to_vec().into());
        shown.take_time = time(manifest.taken);
        (shown.protected, shown.scheduled) = (manifest.protected, manifest.scheduled);
        (shown.made_by, shown.reason) = (manifest.made_by.clone(), manifest.reason.clone());
        shown.lineage = Some(manifest.lineage.into());
    }
    shown
}

/// Tells how far it is; where nobody listens any more it is broken off.
fn verify(
    node: &Arc<Node>,
    id: SnapshotId,
    total_bytes: u64,
    sender: &mpsc::Sender<Result<api::VerifySnapshotResponse, Status>>,
) {
    let (mut read_bytes, mut told) = (0, Instant::now());
    let verified = node.snapshots.verify(node, id, &mut |bytes| {
        read_bytes += bytes;
        if told.elapsed() < TOLD {
            return !sender.is_closed();
        }
        told = Instant::now();
        let word = api::VerifySnapshotResponse { read_bytes, total_bytes, verified: None };
        sender.blocking_send(Ok(word)).is_ok()
    });
    let last = verified.and_then(|_| one(node, id)).map(|verified| api::VerifySnapshotResponse {
        read_bytes,
        total_bytes,
        verified: Some(verified),
    });
    drop(sender.blocking_send(last.map_err(|problem| problem.to_status())));
}

fn respond<T>(result: Result<T, Problem>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|problem| problem.to_status())
}

#[tonic::async_trait]
impl SnapshotService for SnapshotServer {
    type VerifySnapshotStream = Frames<api::VerifySnapshotResponse>;
    type FetchSnapshotMessageStream = Frames<api::FetchSnapshotMessageResponse>;

    async fn list_snapshots(
        &self,
        request: Request<api::ListSnapshotsRequest>,
    ) -> Result<Response<api::ListSnapshotsResponse>, Status> {
        respond(self.list(request.into_inner()).await)
    }

    async fn create_snapshot(
        &self,
        request: Request<api::CreateSnapshotRequest>,
    ) -> Result<Response<api::CreateSnapshotResponse>, Status> {
        let (who, _) = who(&request);
        respond(self.create(request.into_inner(), who).await)
    }

    async fn delete_snapshot(
        &self,
        request: Request<api::DeleteSnapshotRequest>,
    ) -> Result<Response<api::DeleteSnapshotResponse>, Status> {
        let (who, _) = who(&request);
        respond(self.delete(request.into_inner(), who).await)
    }

    async fn verify_snapshot(
        &self,
        request: Request<api::VerifySnapshotRequest>,
    ) -> Result<Response<Self::VerifySnapshotStream>, Status> {
        respond(self.verify(request.into_inner()).await)
    }

    async fn list_snapshot_mailboxes(
        &self,
        request: Request<api::ListSnapshotMailboxesRequest>,
    ) -> Result<Response<api::ListSnapshotMailboxesResponse>, Status> {
        respond(self.mailboxes(request.into_inner()).await)
    }

    async fn list_snapshot_folders(
        &self,
        request: Request<api::ListSnapshotFoldersRequest>,
    ) -> Result<Response<api::ListSnapshotFoldersResponse>, Status> {
        respond(self.folders(request.into_inner()).await)
    }

    async fn list_snapshot_messages(
        &self,
        request: Request<api::ListSnapshotMessagesRequest>,
    ) -> Result<Response<api::ListSnapshotMessagesResponse>, Status> {
        respond(self.messages(request.into_inner()).await)
    }

    async fn fetch_snapshot_message(
        &self,
        request: Request<api::FetchSnapshotMessageRequest>,
    ) -> Result<Response<Self::FetchSnapshotMessageStream>, Status> {
        respond(self.fetch(request.into_inner()).await)
    }

    async fn note_snapshot(
        &self,
        request: Request<api::NoteSnapshotRequest>,
    ) -> Result<Response<api::NoteSnapshotResponse>, Status> {
        let noted = self.note(request.into_inner()).await;
        respond(noted.map(|()| api::NoteSnapshotResponse {}))
    }
}
