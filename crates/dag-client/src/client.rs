//! The calls of a front end that are one question and one answer.

use std::future::Future;
use std::sync::Arc;

use dag_api::mailbox::v1::{
    CreateFolderRequest, CreateMailboxRequest, Folder, ListFoldersRequest, LocateMailboxRequest,
    LocateMailboxResponse, Mailbox, SpecialUse,
};
use dag_api::{Problem, Reason, convert};
use dag_types::DatabaseId;

use crate::ask::{Answer, Attempt, Question, Shared};
use crate::deliver::{Delivery, DeliveryReport};
use crate::error::{Error, Stop};
use crate::lineage::LineageMemory;
use crate::nodes::{Nodes, Whom};
use crate::options::Options;
use crate::places::{MailboxName, Place, Places};
use crate::session::Session;
use crate::trial::Trial;

/// A text that is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Not a URI, or one too many.
    #[error("`{endpoint}` is no endpoint: give a URI such as http://127.0.0.1:7400")]
    Malformed {
        /// As it was given.
        endpoint: String,
    },
    /// With TLS every endpoint has it, without TLS none.
    #[error("`{endpoint}` does not begin with {scheme}:// (Options::tls decides about TLS)")]
    Scheme {
        /// As it was given.
        endpoint: String,
        /// As it has to be.
        scheme: &'static str,
    },
    /// The certificates do not fit.
    #[error("{endpoint}: {problem}")]
    Certificates {
        /// The first endpoint that they were to be used for.
        endpoint: String,
        /// Why.
        problem: String,
    },
    /// The list is empty.
    #[error("no endpoint was given: name at least one node, such as http://127.0.0.1:7400")]
    None,
}

/// A mailbox just made, or made by an earlier attempt.
#[derive(Debug, Clone)]
pub struct NewMailbox {
    /// The mailbox.
    pub mailbox: Mailbox,
    /// Where it is.
    pub place: Place,
    /// Its INBOX.
    pub inbox: Folder,
}

/// A connection to a DAG. Cheap to clone; clones share channels and all that was learned.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

impl Client {
    /// Prepares channels to the nodes named; connects when the first call is made. Must be called
    /// inside a tokio runtime.
    pub fn connect<I>(endpoints: I, options: Options) -> Result<Self, InvalidEndpoint>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let nodes = Nodes::new(endpoints.into_iter().map(Into::into), &options)?;
        let (places, lineage) = (Places::default(), LineageMemory::default());
        Ok(Self { shared: Arc::new(Shared { options, nodes, places, lineage }) })
    }

    /// Makes a mailbox for an address, in a database of the directory's choice.
    pub async fn create_mailbox(&self, address: &str) -> Result<NewMailbox, Error> {
        self.create_mailbox_in(address, None, new_id()).await
    }

    /// Makes a mailbox for an address in a given database. The request id makes a repetition by
    /// another process harmless.
    pub async fn create_mailbox_in(
        &self,
        address: &str,
        database: Option<DatabaseId>,
        request_id: String,
    ) -> Result<NewMailbox, Error> {
        let name = MailboxName::from(address);
        let message = CreateMailboxRequest {
            address: address.to_owned(),
            database_id: database.map_or(0, |database| database.0),
            request_id,
            ..CreateMailboxRequest::default()
        };
        let mut trial = Trial::new(&self.shared.options);
        let answer = loop {
            let whom = Whom::Active(DatabaseId::DIRECTORY);
            let question = Question::new(whom, name.subject());
            let call = |attempt: Attempt| {
                let request = attempt.request(message.clone());
                let mut service = attempt.service;
                async move {
                    let answer = service.create_mailbox(request).await?.into_inner();
                    let token = answer.token.clone();
                    Ok((answer, token))
                }
            };
            match self.shared.ask(question, &mut trial, call).await {
                Ok(answer) => break answer,
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Relocate(problem)) => {
                    trial.not_done(problem.to_string());
                    trial.pause(problem.retry_after).await;
                }
            }
        };
        let mailbox = answer.mailbox.unwrap_or_default();
        let place = read_place(&mailbox.mailbox_id, mailbox.database_id)?;
        self.shared.places.keep(&name, place);
        Ok(NewMailbox { mailbox, place, inbox: answer.inbox.unwrap_or_default() })
    }

    /// Where a mailbox is, by the directory; whatever this client knew is renewed.
    pub async fn locate(&self, name: impl Into<MailboxName>) -> Result<Place, Error> {
        let mut trial = Trial::new(&self.shared.options);
        self.shared.locate(&name.into(), true, &mut trial).await
    }

    /// What the store knows of a mailbox as a whole.
    pub async fn mailbox(&self, name: impl Into<MailboxName>) -> Result<Mailbox, Error> {
        let call = |attempt: Attempt, place: Place| {
            let read = None;
            let message =
                dag_api::mailbox::v1::GetMailboxRequest { mailbox: Some(place.to_ref()), read };
            let request = attempt.request(message);
            let mut service = attempt.service;
            async move {
                let answer = service.get_mailbox(request).await?.into_inner();
                Ok((answer.mailbox.unwrap_or_default(), answer.token))
            }
        };
        self.ask_mailbox(&name.into(), call).await
    }

    /// All folders of a mailbox.
    pub async fn folders(&self, name: impl Into<MailboxName>) -> Result<Vec<Folder>, Error> {
        let name = name.into();
        let mut folders = Vec::new();
        let mut page_token = String::new();
        loop {
            let call = |attempt: Attempt, place: Place| {
                let message = ListFoldersRequest {
                    mailbox: Some(place.to_ref()),
                    page_token: page_token.clone(),
                    ..ListFoldersRequest::default()
                };
                let request = attempt.request(message);
                let mut service = attempt.service;
                async move {
                    let answer = service.list_folders(request).await?.into_inner();
                    let token = answer.token.clone();
                    Ok((answer, token))
                }
            };
            let page = self.ask_mailbox(&name, call).await?;
            folders.extend(page.folders);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(folders);
            }
        }
    }

    /// The mailbox's INBOX.
    pub async fn inbox(&self, name: impl Into<MailboxName>) -> Result<Folder, Error> {
        let name = name.into();
        let folders = self.folders(name.clone()).await?;
        let inbox = folders.into_iter().find(|folder| {
            folder.special_use() == SpecialUse::Inbox
                || (folder.parent_id.is_empty() && folder.display_name == "INBOX")
        });
        inbox.ok_or_else(|| {
            let message = format!("the mailbox {name} has no INBOX; verify its database");
            Problem::new(Reason::FolderNotFound, message).into()
        })
    }

    /// Makes a folder at the top level, or in another one.
    pub async fn create_folder(
        &self,
        name: impl Into<MailboxName>,
        parent_id: &str,
        display_name: &str,
    ) -> Result<Folder, Error> {
        let request_id = new_id();
        let call = |attempt: Attempt, place: Place| {
            let message = CreateFolderRequest {
                mailbox: Some(place.to_ref()),
                parent_id: parent_id.to_owned(),
                display_name: display_name.to_owned(),
                request_id: request_id.clone(),
                ..CreateFolderRequest::default()
            };
            let request = attempt.request(message);
            let mut service = attempt.service;
            async move {
                let answer = service.create_folder(request).await?.into_inner();
                Ok((answer.folder.unwrap_or_default(), answer.token))
            }
        };
        self.ask_mailbox(&name.into(), call).await
    }

    /// Delivers one message; each recipient has its own result.
    pub async fn deliver(&self, delivery: Delivery) -> Result<DeliveryReport, Error> {
        crate::deliver::deliver(&self.shared, delivery, crate::deliver::Way::Calls).await
    }

    /// A session for many deliveries at once.
    pub fn session(&self) -> Session {
        Session::new(self.shared.clone())
    }

    /// Asks the node where a mailbox is active, and follows the mailbox when it moved.
    pub(crate) async fn ask_mailbox<T, F, Fut>(
        &self,
        name: &MailboxName,
        call: F,
    ) -> Result<T, Error>
    where
        F: Fn(Attempt, Place) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        self.ask_mailbox_with(name, std::time::Duration::ZERO, call).await
    }

    /// As [`ask_mailbox`](Self::ask_mailbox), with more time for each attempt.
    pub(crate) async fn ask_mailbox_with<T, F, Fut>(
        &self,
        name: &MailboxName,
        extra: std::time::Duration,
        call: F,
    ) -> Result<T, Error>
    where
        F: Fn(Attempt, Place) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        let shared = &self.shared;
        let mut trial = Trial::new(&shared.options);
        let mut fresh = false;
        loop {
            let place = shared.locate(name, fresh, &mut trial).await?;
            let mut question = Question::new(Whom::Active(place.database), name.subject());
            question.extra = extra;
            match shared.ask(question, &mut trial, |attempt| call(attempt, place)).await {
                Ok(value) => return Ok(value),
                Err(Stop::Relocate(problem)) => {
                    trial.not_done(problem.to_string());
                    if fresh {
                        trial.pause(problem.retry_after).await;
                    }
                }
                Err(Stop::Failed(Error::Failed(problem)))
                    if problem.reason == Reason::MailboxNotFound && !fresh => {}
                Err(Stop::Failed(error)) => return Err(error),
            }
            fresh = true;
        }
    }
}

impl Shared {
    /// Where a mailbox is: from the cache, or by any node, or (`fresh`) by the directory's active
    /// copy alone.
    pub(crate) async fn locate(
        &self,
        name: &MailboxName,
        fresh: bool,
        trial: &mut Trial,
    ) -> Result<Place, Error> {
        if fresh {
            self.places.forget(name);
        } else if let Some(place) = self.places.get(name) {
            return Ok(place);
        }
        let whom = if fresh { Whom::Active(DatabaseId::DIRECTORY) } else { Whom::Anyone };
        let message = LocateMailboxRequest { mailbox: Some(name.subject()), authoritative: fresh };
        loop {
            let call = |attempt: Attempt| {
                let request = attempt.request(message.clone());
                let mut service = attempt.service;
                async move {
                    let answer = service.locate_mailbox(request).await?.into_inner();
                    let token = answer.token.clone();
                    Ok((answer, token))
                }
            };
            match self.ask(Question::new(whom, name.subject()), trial, call).await {
                Ok(answer) => return self.located(name, &answer),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Relocate(problem)) => {
                    trial.not_done(problem.to_string());
                    trial.pause(problem.retry_after).await;
                }
            }
        }
    }

    fn located(&self, name: &MailboxName, answer: &LocateMailboxResponse) -> Result<Place, Error> {
        self.lineage.learn(&answer.lineage_chain);
        let mailbox = answer.mailbox.clone().unwrap_or_default();
        let place = read_place(&mailbox.mailbox_id, mailbox.database_id)?;
        if !answer.active_endpoint.is_empty() {
            self.nodes.hint(place.database, &answer.active_endpoint);
        }
        self.places.keep(name, place);
        Ok(place)
    }
}

fn read_place(mailbox_id: &str, database_id: u64) -> Result<Place, Error> {
    let mailbox = convert::mailbox_id(mailbox_id).map_err(Problem::from)?;
    Ok(Place { mailbox, database: DatabaseId(database_id) })
}

/// An id for a request of which there is no other trace.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
