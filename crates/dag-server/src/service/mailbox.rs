//! `holdfast.mailbox.v1.MailboxService`: what front ends call.
//!
//! A write: admission, deadline, one command, `Node::propose`, its answer. A read: admission, a
//! read barrier, a snapshot, and the snapshot is read on a thread that may wait for the disk.

mod create;
mod deliver;
mod fetch;
mod flags;
mod folder;
mod list;
mod locate;
mod session;

use std::pin::Pin;
use std::sync::Arc;

use dag_api::mailbox::v1 as api;
use dag_api::mailbox::v1::mailbox_service_server::{MailboxService, MailboxServiceServer};
use dag_api::{Problem, Reason, Token};
use dag_types::{DatabaseId, MailboxId};
use futures::Stream;
use mailbox::{Command, Operation, Outcome};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::admission::Kind;
use crate::clock;
use crate::machine::{ReadFault, View};
use crate::node::Node;
use crate::service::deadline;
use crate::status;

/// The service of one node.
#[derive(Clone)]
pub struct MailboxServer {
    node: Arc<Node>,
    channels: create::Channels,
}

type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

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
        let _permit = self.node.admit(database, Kind::Write, bytes)?;
        // A delivery has an id of its own, which the journal shows and the command does not carry.
        let (scoped, shown) = match &operation {
            Operation::Deliver(delivery) => (String::new(), delivery.delivery_id.clone()),
            _ => (request_id.to_owned(), request_id.to_owned()),
        };
        let command = Command::new(scoped, clock::wall(), operation).encode_to_bytes();
        let answer = self.node.propose(database, &shown, command, deadline).await?;
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

    /// Reads from a linearizable snapshot, on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        database: DatabaseId,
        options: Option<&api::ReadOptions>,
        deadline: Instant,
        read: impl FnOnce(View<'_>) -> Result<T, ReadFault> + Send + 'static,
    ) -> Result<(T, Token), Problem> {
        check_consistency(options)?;
        let _permit = self.node.admit(database, Kind::Read, 0)?;
        deadline::check(deadline)?;
        let reading = self.node.read(database, deadline).await?;
        let token = reading.token;
        let work = tokio::task::spawn_blocking(move || read(View(&*reading.view)));
        match work.await {
            Ok(Ok(value)) => Ok((value, token)),
            Ok(Err(fault)) => Err(status::fault(&fault, database)),
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

/// Only linearizable reads are offered so far; anything else is refused, never weakened silently.
fn check_consistency(options: Option<&api::ReadOptions>) -> Result<(), Problem> {
    use api::ReadConsistency as Consistency;
    match options.map(api::ReadOptions::consistency) {
        None | Some(Consistency::Unspecified | Consistency::Linearizable) => Ok(()),
        Some(Consistency::AtLeast | Consistency::Stale) => {
            let text = "this node offers linearizable reads only";
            Err(Problem::new(Reason::InvalidRequest, text).check("read.consistency"))
        }
    }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weaker_reads_are_refused_and_never_given_silently() {
        use api::ReadConsistency as Consistency;
        let options = |consistency: Consistency| api::ReadOptions {
            consistency: consistency.into(),
            ..api::ReadOptions::default()
        };
        assert!(check_consistency(None).is_ok());
        assert!(check_consistency(Some(&options(Consistency::Linearizable))).is_ok());
        for weak in [Consistency::AtLeast, Consistency::Stale] {
            let problem = check_consistency(Some(&options(weak))).unwrap_err();
            assert_eq!(problem.reason, Reason::InvalidRequest);
        }
    }

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
