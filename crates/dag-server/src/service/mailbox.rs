//! `holdfast.mailbox.v1.MailboxService`: what front ends call.
//!
//! A write: admission, deadline, one command, `Node::propose`, its answer. A read: admission, a
//! read barrier, a snapshot, and the snapshot is read on a thread that may wait for the disk.

mod changes;
mod create;
mod deliver;
mod fetch;
mod flags;
mod folder;
mod list;
mod locate;
mod meta;
mod parse;
mod recoverable;
mod rights;
mod search;
mod session;
mod settings;
mod stage;
pub(crate) mod stored;
mod trace;
mod transfer;
mod watch;
mod weak;

use std::pin::Pin;
use std::sync::Arc;

use dag_api::mailbox::v1 as api;
use dag_api::mailbox::v1::mailbox_service_server::{MailboxService, MailboxServiceServer};
use dag_api::{Problem, Reason, Token};
use dag_types::{DatabaseId, MailboxId};
use futures::Stream;
use mailbox::{Command, Operation, Outcome, query};
use prost::Message as _;
use replication::ProposeError;
use storage::state::StateError;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::admission::Kind;
use crate::clock;
use crate::machine::{ReadFault, View};
use crate::node::Node;
use crate::service::deadline;
use crate::status;
use weak::Consistency;

/// The service of one node.
#[derive(Clone)]
pub struct MailboxServer {
    node: Arc<Node>,
    channels: create::Channels,
}

type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a read found, and where it belongs.
struct Seen<T> {
    value: T,
    token: Option<api::CommitToken>,
    staleness: Option<api::Staleness>,
}

/// What a read closure gives: a problem is an answer too, a fault is this copy's.
type Found<T> = Result<Result<T, Problem>, ReadFault>;

/// What a command came to: its outcome, where it stands, and whether it was carried out before.
struct Carried {
    outcome: Outcome,
    token: Token,
    replayed: bool,
}

impl MailboxServer {
    /// The service to add to a server.
    pub fn service(node: Arc<Node>) -> MailboxServiceServer<Self> {
        let channels = create::Channels::new(node.dial.clone());
        MailboxServiceServer::new(Self { node, channels })
            .max_decoding_message_size(dag_api::limits::WIRE_BYTES_MAX)
            .max_encoding_message_size(dag_api::limits::WIRE_BYTES_MAX)
    }

    fn deadline<T>(&self, request: &Request<T>) -> Instant {
        deadline::of_call(request.metadata(), self.node.settings.attempt.0)
    }

    /// The database of a mailbox: as the caller says, or as this node's directory knows.
    fn database_of(&self, mailbox: Option<&api::MailboxRef>) -> Result<Place, Problem> {
        let mailbox = mailbox.ok_or_else(|| missing("mailbox"))?;
        let id = dag_api::convert::mailbox_id(&mailbox.mailbox_id)?;
        let database = match mailbox.database_id {
            0 => locate::known_here(&self.node, id)?,
            database => DatabaseId(database),
        };
        check_is_mailbox_database(database)?;
        Ok(Place { database, mailbox: id })
    }

    /// Carries a command out for whoever the reference names.
    async fn carry_out_for(
        &self,
        mailbox: Option<&api::MailboxRef>,
        request_id: &str,
        operation: impl Into<Operation>,
        deadline: Instant,
    ) -> Result<Carried, Problem> {
        let place = self.database_of(mailbox)?;
        check_request_id(request_id)?;
        let command = Command::new(request_id, clock::wall(), operation.into());
        let command = command.on_behalf_of(actor(mailbox));
        self.propose(place.database, request_id, command, None, deadline).await
    }

    /// Carries a command out. `bytes` is what it holds of the budget; a caller that has a permit
    /// already gives 0.
    async fn carry_out(
        &self,
        database: DatabaseId,
        request_id: &str,
        operation: Operation,
        bytes: u64,
        deadline: Instant,
    ) -> Result<Carried, Problem> {
        // A delivery has an id of its own, which the journal shows and the command does not carry.
        let (scoped, shown) = match &operation {
            Operation::Deliver(delivery) => (String::new(), delivery.delivery_id.clone()),
            _ => (request_id.to_owned(), request_id.to_owned()),
        };
        let command = Command::new(scoped, clock::wall(), operation);
        self.propose(database, &shown, command, Some(bytes), deadline).await
    }

    /// Admits `bytes`, or as many as the command has, and proposes.
    async fn propose(
        &self,
        database: DatabaseId,
        shown: &str,
        command: Command,
        bytes: Option<u64>,
        deadline: Instant,
    ) -> Result<Carried, Problem> {
        let bytes = bytes.unwrap_or_else(|| command.encoded_len() as u64);
        let _permit = self.node.admit(database, Kind::Write, bytes)?;
        let command = command.traced().encode_to_bytes();
        let answer = self.node.propose(database, shown, command, deadline).await?;
        let response = mailbox::Response::decode_from(answer.reply)
            .map_err(|fault| status::fault(&ReadFault::Record(fault), database))?;
        let mut token = answer.token;
        if response.replayed {
            token.log_index = response.log_index;
        }
        match response.outcome {
            Some(Outcome::Rejected(rejection)) => Err(status::mailbox(&rejection, database)),
            Some(outcome) => Ok(Carried { outcome, token, replayed: response.replayed }),
            None => Err(unexpected(database)),
        }
    }

    /// Reads from a snapshot as new as was asked for, on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        database: DatabaseId,
        options: Option<&api::ReadOptions>,
        deadline: Instant,
        read: impl FnOnce(View<'_>) -> Found<T> + Send + 'static,
    ) -> Result<Seen<T>, Problem> {
        let consistency = weak::consistency(options)?;
        let _permit = self.node.admit(database, Kind::Read, 0)?;
        deadline::check(deadline)?;
        let (reading, staleness) = match consistency {
            Consistency::Linearizable => (self.node.read(database, deadline).await?, None),
            weaker => self.read_weakly(database, weaker, deadline).await?,
        };
        let token = Some(reading.token.into());
        let view = reading.view.clone();
        let work = tokio::task::spawn_blocking(move || read(View(&*view)));
        match work.await {
            Ok(Ok(value)) => {
                reading.still()?;
                self.vouches(database, consistency)?;
                value.map(|value| Seen { value, token, staleness })
            }
            Ok(Err(fault)) => {
                // A record that makes no sense is the same on every copy; a damaged file is not.
                if let ReadFault::Store(StateError::Damaged { .. }) = &fault {
                    let reason = fault.to_string();
                    self.node.fail_copy(database, &reason);
                    let failed = ProposeError::Failed { reason };
                    return Err(status::propose(&failed, database, None));
                }
                Err(status::fault(&fault, database))
            }
            Err(_) => Err(Problem::new(Reason::Internal, "a read ended without an answer")),
        }
    }
}

/// A mailbox and where it is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    database: DatabaseId,
    mailbox: MailboxId,
}

/// The mailbox, unless it is deleted or was never here.
fn live_mailbox(view: View<'_>, place: Place) -> Found<query::Mailbox> {
    let mailbox = query::get_mailbox(&view, place.mailbox)?;
    let mailbox = mailbox.filter(|mailbox| mailbox.deleted.is_none());
    Ok(mailbox.ok_or_else(|| moved(place)))
}

/// What concerns a mailbox as a whole is for its owner alone.
fn check_owner(place: Place, mailbox: &query::Mailbox, actor: &[String]) -> Result<(), Problem> {
    let owner = &mailbox.settings.owner;
    if actor.is_empty() || (!owner.is_empty() && actor.contains(owner)) {
        return Ok(());
    }
    let text = "only the owner of the mailbox may see this";
    Err(Problem::new(Reason::AccessDenied, text).database(place.database).check("owner"))
}

/// For whom it is done.
fn actor(mailbox: Option<&api::MailboxRef>) -> Vec<String> {
    mailbox.map(|mailbox| mailbox.actor.clone()).unwrap_or_default()
}

fn missing(field: &'static str) -> Problem {
    dag_api::BadMessage { field, wanted: "present" }.into()
}

/// The control group and the directory are no mailbox databases, and never asked for mail.
fn check_is_mailbox_database(database: DatabaseId) -> Result<(), Problem> {
    if database >= DatabaseId::FIRST_MAILBOX_DATABASE {
        return Ok(());
    }
    let text = format!("{database} is no mailbox database");
    Err(Problem::new(Reason::DatabaseNotFound, text).database(database))
}

fn check_request_id(id: &str) -> Result<(), Problem> {
    if dag_api::limits::is_request_id(id) {
        return Ok(());
    }
    let wanted = "1 to 128 visible ASCII characters";
    Err(dag_api::BadMessage { field: "request_id", wanted }.into())
}

/// No such mailbox in the database that was asked: it may be in another one.
fn moved(place: Place) -> Problem {
    let text = "this database has no such mailbox; locate it again";
    Problem::new(Reason::MailboxMoved, text).database(place.database)
}

fn no_folder(place: Place, folder: u32) -> Problem {
    let text = format!("the mailbox has no folder {}", super::text::folder_id(folder));
    Problem::new(Reason::FolderNotFound, text).database(place.database)
}

/// A machine answered another question than the one that was asked.
fn unexpected(database: DatabaseId) -> Problem {
    let text = "it was carried out, and its answer cannot be read; repeat with the same id";
    Problem::new(Reason::OutcomeUnknown, text).database(database)
}

fn respond<T>(result: Result<T, Problem>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|problem| problem.to_status())
}

#[tonic::async_trait]
impl MailboxService for MailboxServer {
    type DeliverMessagesStream = Frames<api::DeliverMessagesResponse>;
    type AppendMessagesStream = Frames<api::AppendMessagesResponse>;
    type FetchMessageStream = Frames<api::FetchMessageResponse>;
    type WatchMailboxesStream = Frames<api::WatchMailboxesResponse>;

    async fn locate_mailbox(
        &self,
        request: Request<api::LocateMailboxRequest>,
    ) -> Result<Response<api::LocateMailboxResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.locate(request.into_inner(), deadline).await)
    }

    async fn create_mailbox(
        &self,
        request: Request<api::CreateMailboxRequest>,
    ) -> Result<Response<api::CreateMailboxResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.create(request.into_inner(), deadline).await)
    }

    async fn get_mailbox(
        &self,
        request: Request<api::GetMailboxRequest>,
    ) -> Result<Response<api::GetMailboxResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.mailbox(request.into_inner(), deadline).await)
    }

    async fn list_folders(
        &self,
        request: Request<api::ListFoldersRequest>,
    ) -> Result<Response<api::ListFoldersResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.folders(request.into_inner(), deadline).await)
    }

    async fn create_folder(
        &self,
        request: Request<api::CreateFolderRequest>,
    ) -> Result<Response<api::CreateFolderResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.make_folder(request.into_inner(), deadline).await)
    }

    async fn deliver_message(
        &self,
        request: Request<api::DeliverMessageRequest>,
    ) -> Result<Response<api::DeliverMessageResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.deliver_one(request.into_inner(), deadline).await)
    }

    async fn deliver_messages(
        &self,
        request: Request<Streaming<api::DeliverMessagesRequest>>,
    ) -> Result<Response<Self::DeliverMessagesStream>, Status> {
        Ok(Response::new(session::run::<session::Deliveries>(self.clone(), request.into_inner())))
    }

    async fn append_message(
        &self,
        request: Request<api::AppendMessageRequest>,
    ) -> Result<Response<api::AppendMessageResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.append_one(request.into_inner(), deadline).await)
    }

    async fn append_messages(
        &self,
        request: Request<Streaming<api::AppendMessagesRequest>>,
    ) -> Result<Response<Self::AppendMessagesStream>, Status> {
        Ok(Response::new(session::run::<session::Appends>(self.clone(), request.into_inner())))
    }

    async fn list_messages(
        &self,
        request: Request<api::ListMessagesRequest>,
    ) -> Result<Response<api::ListMessagesResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.messages(request.into_inner(), deadline).await)
    }

    async fn fetch_message(
        &self,
        request: Request<api::FetchMessageRequest>,
    ) -> Result<Response<Self::FetchMessageStream>, Status> {
        let deadline = self.deadline(&request);
        respond(self.fetch(request.into_inner(), deadline).await)
    }

    async fn store_flags(
        &self,
        request: Request<api::StoreFlagsRequest>,
    ) -> Result<Response<api::StoreFlagsResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.flags(request.into_inner(), deadline).await)
    }

    async fn expunge_messages(
        &self,
        request: Request<api::ExpungeMessagesRequest>,
    ) -> Result<Response<api::ExpungeMessagesResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.expunge(request.into_inner(), deadline).await)
    }

    async fn update_mailbox(
        &self,
        request: Request<api::UpdateMailboxRequest>,
    ) -> Result<Response<api::UpdateMailboxResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.update_settings(request.into_inner(), deadline).await)
    }

    async fn get_quota(
        &self,
        request: Request<api::GetQuotaRequest>,
    ) -> Result<Response<api::GetQuotaResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.quota(request.into_inner(), deadline).await)
    }

    async fn update_folder(
        &self,
        request: Request<api::UpdateFolderRequest>,
    ) -> Result<Response<api::UpdateFolderResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.change_folder(request.into_inner(), deadline).await)
    }

    async fn delete_folder(
        &self,
        request: Request<api::DeleteFolderRequest>,
    ) -> Result<Response<api::DeleteFolderResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.remove_folder(request.into_inner(), deadline).await)
    }

    async fn rename_inbox(
        &self,
        request: Request<api::RenameInboxRequest>,
    ) -> Result<Response<api::RenameInboxResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.move_inbox(request.into_inner(), deadline).await)
    }

    async fn list_subscriptions(
        &self,
        request: Request<api::ListSubscriptionsRequest>,
    ) -> Result<Response<api::ListSubscriptionsResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.subscriptions(request.into_inner(), deadline).await)
    }

    async fn set_subscription(
        &self,
        request: Request<api::SetSubscriptionRequest>,
    ) -> Result<Response<api::SetSubscriptionResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.subscribe(request.into_inner(), deadline).await)
    }

    async fn get_folder_rights(
        &self,
        request: Request<api::GetFolderRightsRequest>,
    ) -> Result<Response<api::GetFolderRightsResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.rights(request.into_inner(), deadline).await)
    }

    async fn set_folder_rights(
        &self,
        request: Request<api::SetFolderRightsRequest>,
    ) -> Result<Response<api::SetFolderRightsResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.give_rights(request.into_inner(), deadline).await)
    }

    async fn append_batch(
        &self,
        request: Request<api::AppendBatchRequest>,
    ) -> Result<Response<api::AppendBatchResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.append_several(request.into_inner(), deadline).await)
    }

    async fn search_messages(
        &self,
        request: Request<api::SearchMessagesRequest>,
    ) -> Result<Response<api::SearchMessagesResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.search(request.into_inner(), deadline).await)
    }

    async fn copy_messages(
        &self,
        request: Request<api::CopyMessagesRequest>,
    ) -> Result<Response<api::CopyMessagesResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.copy(request.into_inner(), deadline).await)
    }

    async fn move_messages(
        &self,
        request: Request<api::MoveMessagesRequest>,
    ) -> Result<Response<api::MoveMessagesResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.transfer(request.into_inner(), deadline).await)
    }

    async fn get_changes(
        &self,
        request: Request<api::GetChangesRequest>,
    ) -> Result<Response<api::GetChangesResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.changes(request.into_inner(), deadline).await)
    }

    async fn get_folder_changes(
        &self,
        request: Request<api::GetFolderChangesRequest>,
    ) -> Result<Response<api::GetFolderChangesResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.folder_changes(request.into_inner(), deadline).await)
    }

    async fn list_recoverable_items(
        &self,
        request: Request<api::ListRecoverableItemsRequest>,
    ) -> Result<Response<api::ListRecoverableItemsResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.items(request.into_inner(), deadline).await)
    }

    async fn restore_recoverable_items(
        &self,
        request: Request<api::RestoreRecoverableItemsRequest>,
    ) -> Result<Response<api::RestoreRecoverableItemsResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.restore(request.into_inner(), deadline).await)
    }

    async fn purge_recoverable_items(
        &self,
        request: Request<api::PurgeRecoverableItemsRequest>,
    ) -> Result<Response<api::PurgeRecoverableItemsResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.purge(request.into_inner(), deadline).await)
    }

    async fn search_message_trace(
        &self,
        request: Request<api::SearchMessageTraceRequest>,
    ) -> Result<Response<api::SearchMessageTraceResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.trace(request.into_inner(), deadline).await)
    }

    async fn watch_mailboxes(
        &self,
        request: Request<api::WatchMailboxesRequest>,
    ) -> Result<Response<Self::WatchMailboxesStream>, Status> {
        let deadline = self.deadline(&request);
        respond(self.watch(request.into_inner(), deadline).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_group_and_directory_are_never_asked_for_mail() {
        for database in [DatabaseId::CONTROL, DatabaseId::DIRECTORY] {
            let problem = check_is_mailbox_database(database).unwrap_err();
            assert_eq!(problem.reason, Reason::DatabaseNotFound);
        }
        assert!(check_is_mailbox_database(DatabaseId::FIRST_MAILBOX_DATABASE).is_ok());
    }

    #[test]
    fn a_request_id_is_visible_ascii() {
        assert!(check_request_id("r-1").is_ok());
        for id in ["", "a b", "ä", &"x".repeat(129)] {
            assert_eq!(check_request_id(id).unwrap_err().reason, Reason::InvalidRequest);
        }
    }
}
