//! A mailbox is made in three steps: reserve in the directory, make in the database, confirm.
//!
//! The directory's active node conducts them. The database may be active on another node; then that
//! one is asked for its step with the reserved id. Every step is idempotent under the caller's
//! request id, so whoever repeats the call finishes what an earlier attempt began.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use active_manager::directory::{
    Command, Confirm, Order, Outcome as DirectoryOutcome, Reservation, Reserve,
    Response as DirectoryResponse,
};
use bytes::Bytes;
use dag_api::mailbox::v1 as api;
use dag_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use dag_api::{Problem, Reason, Retry};
use dag_types::{DatabaseId, MailboxId};
use mailbox::command::CreateMailbox;
use mailbox::{Outcome, query};
use prost::Message as _;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::folder::api_folder;
use super::{MailboxServer, Place, Seen, check_is_mailbox_database, check_request_id, unexpected};
use crate::admission::Kind;
use crate::clock;
use crate::status;
use crate::tls::dial::Dial;

const DIRECTORY: DatabaseId = DatabaseId::DIRECTORY;
/// The folder that every mailbox begins with.
const INBOX: u32 = 1;
/// Between two questions to nodes that do not know who is active.
const PAUSE: Duration = Duration::from_millis(20);

/// Connections to other nodes' listeners for front ends.
#[derive(Clone)]
pub(super) struct Channels {
    dial: Dial,
    by_endpoint: Arc<Mutex<HashMap<String, (u64, Channel)>>>,
}

impl Channels {
    pub(super) fn new(dial: Dial) -> Self {
        Self { dial, by_endpoint: Arc::default() }
    }

    fn client(&self, endpoint: &str) -> Result<MailboxServiceClient<Channel>, Problem> {
        let mut known = self.by_endpoint.lock().expect("no panic while held");
        let generation = self.dial.generation();
        if let Some((_, channel)) = known.get(endpoint).filter(|(made, _)| *made == generation) {
            return Ok(MailboxServiceClient::new(channel.clone()));
        }
        let made = self.dial.endpoint(endpoint);
        let made = made.map_err(|problem| Problem::new(Reason::Internal, problem))?;
        let channel = made.tcp_nodelay(true).connect_lazy();
        known.insert(endpoint.to_owned(), (generation, channel.clone()));
        Ok(MailboxServiceClient::new(channel))
    }
}

impl MailboxServer {
    pub(super) async fn create(
        &self,
        request: api::CreateMailboxRequest,
        deadline: Instant,
    ) -> Result<api::CreateMailboxResponse, Problem> {
        check_request_id(&request.request_id)?;
        if request.reserved_mailbox_id.is_empty() {
            self.conduct(request, deadline).await
        } else {
            self.make(request, deadline).await
        }
    }

    /// All three steps, at the directory's active node.
    async fn conduct(
        &self,
        request: api::CreateMailboxRequest,
        deadline: Instant,
    ) -> Result<api::CreateMailboxResponse, Problem> {
        // Without a DAG there is nobody to wait for.
        self.node.member()?;
        let reserved = self.reserve(&request, deadline).await?;
        let mailbox = MailboxId::from_slice(&reserved.mailbox).ok_or_else(|| {
            Problem::new(Reason::RecordCorrupt, "a reservation without a mailbox's id")
        })?;
        let step = api::CreateMailboxRequest {
            database_id: reserved.database,
            reserved_mailbox_id: mailbox.to_string(),
            ..request.clone()
        };
        let mut made = self.make_wherever(step, deadline).await?;
        made.replayed = self.confirm(&request.request_id, mailbox, deadline).await?;
        let database = self.node.database(DatabaseId(reserved.database));
        made.database_name = database.map(|record| record.name).unwrap_or_default();
        Ok(made)
    }

    async fn reserve(
        &self,
        request: &api::CreateMailboxRequest,
        deadline: Instant,
    ) -> Result<Reservation, Problem> {
        let control = self.node.control();
        let databases = control.iter().flat_map(|state| &state.databases);
        let candidates = databases.filter(|record| record.is_mailbox_database());
        let candidates: Vec<u64> = candidates.map(|record| record.database).collect();
        let wanted = DatabaseId(request.database_id);
        // This node may only not have heard of it yet. Where none is wanted, the first will do.
        let probe = if wanted.0 == 0 { DatabaseId::FIRST_MAILBOX_DATABASE } else { wanted };
        if candidates.is_empty() || (wanted.0 != 0 && !candidates.contains(&wanted.0)) {
            let passing = status::not_active(probe, None);
            return Err(self.node.without_copy(probe, passing, deadline).await);
        }
        let order = Order::Reserve(Reserve {
            request_id: request.request_id.clone(),
            address: request.address.clone(),
            mailbox: Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
            database: request.database_id,
            candidates,
        });
        match self.directory(&request.request_id, order, deadline).await? {
            DirectoryOutcome::Reserved(reserved) => Ok(reserved),
            DirectoryOutcome::Confirmed(_) | DirectoryOutcome::Rejected(_) => {
                Err(unexpected(DIRECTORY))
            }
        }
    }

    /// Whether it was confirmed before.
    async fn confirm(
        &self,
        request_id: &str,
        mailbox: MailboxId,
        deadline: Instant,
    ) -> Result<bool, Problem> {
        let order = Order::Confirm(Confirm {
            request_id: request_id.to_owned(),
            mailbox: Bytes::copy_from_slice(&mailbox.0),
        });
        match self.directory(request_id, order, deadline).await? {
            DirectoryOutcome::Confirmed(confirmed) => Ok(confirmed.replayed),
            DirectoryOutcome::Reserved(_) | DirectoryOutcome::Rejected(_) => {
                Err(unexpected(DIRECTORY))
            }
        }
    }

    async fn directory(
        &self,
        request_id: &str,
        order: Order,
        deadline: Instant,
    ) -> Result<DirectoryOutcome, Problem> {
        let command = Command { at_ms: clock::wall().0, order: Some(order) }.encode_to_vec();
        let _permit = self.node.admit(DIRECTORY, Kind::Write, command.len() as u64)?;
        let answer = self.node.propose(DIRECTORY, request_id, command.into(), deadline).await?;
        let response =
            DirectoryResponse::decode(answer.reply).map_err(|_| unexpected(DIRECTORY))?;
        match response.outcome {
            Some(DirectoryOutcome::Rejected(rejected)) => match rejected.reason {
                Some(reason) => Err(status::directory(&reason)),
                None => Err(unexpected(DIRECTORY)),
            },
            Some(outcome) => Ok(outcome),
            None => Err(unexpected(DIRECTORY)),
        }
    }

    /// The second step, on whichever node the database is active, for as long as there is time.
    async fn make_wherever(
        &self,
        step: api::CreateMailboxRequest,
        deadline: Instant,
    ) -> Result<api::CreateMailboxResponse, Problem> {
        let database = DatabaseId(step.database_id);
        let mut hinted = None;
        loop {
            let here = Some(self.node.id());
            let active = hinted.take().or_else(|| {
                let active = self.node.active_node(database).filter(|node| Some(*node) != here)?;
                self.node.endpoint(active, database)
            });
            let made = match active {
                None => self.make(step.clone(), deadline).await,
                Some(endpoint) => self.ask(&endpoint, step.clone(), deadline).await,
            };
            match made {
                Err(problem) if problem.reason.retry() == Retry::Elsewhere => {
                    hinted = problem.facts.active_endpoint.clone();
                    if Instant::now() + PAUSE >= deadline {
                        return Err(incomplete(&problem));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                made => return made,
            }
        }
    }

    async fn ask(
        &self,
        endpoint: &str,
        step: api::CreateMailboxRequest,
        deadline: Instant,
    ) -> Result<api::CreateMailboxResponse, Problem> {
        let mut request = tonic::Request::new(step);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        match self.channels.client(endpoint)?.create_mailbox(request).await {
            Ok(made) => Ok(made.into_inner()),
            Err(status) => Err(Problem::from_status(&status).unwrap_or_else(|| {
                let text = format!("{endpoint}: {}; repeat with the same id", status.message());
                Problem::new(Reason::NotActiveCopy, text)
            })),
        }
    }

    /// The second step, in this node's copy of the database.
    async fn make(
        &self,
        step: api::CreateMailboxRequest,
        deadline: Instant,
    ) -> Result<api::CreateMailboxResponse, Problem> {
        let database = DatabaseId(step.database_id);
        check_is_mailbox_database(database)?;
        let mailbox = dag_api::convert::mailbox_id(&step.reserved_mailbox_id)?;
        let settings = step.settings.as_ref().map(super::settings::core_settings);
        let create = CreateMailbox { settings, ..CreateMailbox::new(mailbox, vec![step.address]) };
        let operation = create.into();
        let bytes = operation_bytes(&operation);
        let made = self.carry_out(database, &step.request_id, operation, bytes, deadline).await;
        let replayed = match made {
            Ok(made) if matches!(made.outcome, Outcome::MailboxCreated(_)) => made.replayed,
            Ok(_) => return Err(unexpected(database)),
            // An earlier holder of the reservation made it under the same id.
            Err(problem) if problem.reason == Reason::MailboxExists => true,
            Err(problem) => return Err(problem),
        };
        self.describe(Place { database, mailbox }, replayed, deadline).await
    }

    async fn describe(
        &self,
        place: Place,
        replayed: bool,
        deadline: Instant,
    ) -> Result<api::CreateMailboxResponse, Problem> {
        let read = self.read(place.database, None, deadline, move |view| {
            let mailbox = query::get_mailbox(&view, place.mailbox)?;
            let inbox = query::get_folder(&view, place.mailbox, INBOX)?;
            Ok(mailbox.zip(inbox).ok_or_else(|| super::moved(place)))
        });
        // It is made; only its description is missing.
        let Seen { value, token, .. } = read.await.map_err(|problem| incomplete(&problem))?;
        let (mailbox, inbox) = value;
        Ok(api::CreateMailboxResponse {
            mailbox: Some(super::list::api_mailbox(place.database, mailbox)),
            database_name: String::new(),
            token,
            replayed,
            inbox: Some(api_folder(inbox)),
        })
    }
}

/// What was begun is finished by the same call: nobody may take it for refused.
fn incomplete(problem: &Problem) -> Problem {
    let text = format!("the mailbox is reserved and not finished: {}", problem.message);
    Problem::new(Reason::OutcomeUnknown, text)
}

fn operation_bytes(operation: &mailbox::Operation) -> u64 {
    use prost::Message as _;
    let command = mailbox::Command { operation: Some(operation.clone()), ..Default::default() };
    command.encoded_len() as u64
}
