//! The series of attempts: whom to ask, what to make of the answer, when to stop.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use dag_api::mailbox::v1::CommitToken;
use dag_api::mailbox::v1::LocateMailboxRequest;
use dag_api::mailbox::v1::locate_mailbox_request::Mailbox as Subject;
use dag_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use dag_api::{Problem, Reason, Retry, convert};
use dag_types::DatabaseId;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::error::{Stop, is_passing, was_never_sent};
use crate::lineage::{LineageMemory, Standing};
use crate::nodes::{Node, Nodes, Whom};
use crate::options::Options;
use crate::places::Places;
use crate::tls::Trouble;
use crate::trial::Trial;

/// Hints followed at once; after so many in a row the nodes disagree, and a pause is due.
const HINTS_IN_A_ROW: u32 = 3;

/// What all calls of one client share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) nodes: Nodes,
    pub(crate) places: Places,
    pub(crate) lineage: LineageMemory,
}

/// One attempt at one node.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) service: MailboxServiceClient<Channel>,
    pub(crate) until: Instant,
}

impl Attempt {
    /// Adds the attempt's end to a message, for the node to heed.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.until.saturating_duration_since(Instant::now()));
        request
    }
}

/// A call's answer, and the token that says where it belongs.
pub(crate) type Answer<T> = Result<(T, Option<CommitToken>), Status>;

/// What is asked for, as far as the series of attempts has to know.
pub(crate) struct Question {
    pub(crate) whom: Whom,
    /// A mailbox that a node can be asked about to learn its chain of lineages.
    pub(crate) subject: Subject,
    /// What an attempt is granted beyond the usual.
    pub(crate) extra: Duration,
}

impl Question {
    pub(crate) fn new(whom: Whom, subject: Subject) -> Self {
        Self { whom, subject, extra: Duration::ZERO }
    }
}

/// What to do after an attempt that brought no counted answer.
enum Next {
    /// Ask the node that was named.
    Hint(Node),
    /// Ask again after a pause of at least this.
    Pause(Option<Duration>),
}

impl Shared {
    /// Asks until an answer counts, a node refuses for good, or the patience is over.
    pub(crate) async fn ask<T, F, Fut>(
        &self,
        question: Question,
        trial: &mut Trial,
        call: F,
    ) -> Result<T, Stop>
    where
        F: Fn(Attempt) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        let mut hint: Option<Node> = None;
        let mut hints = 0;
        let mut without_dag = HashSet::new();
        while let Some(until) = trial.attempt_until(question.extra) {
            let node = hint.take().unwrap_or_else(|| self.nodes.choose(question.whom));
            let attempt = Attempt { service: service(&node), until };
            let next = match timeout_at(until, call(attempt)).await {
                Ok(Ok((value, token))) => {
                    if self.counts(&question, &node, token, until, trial).await {
                        return Ok(value);
                    }
                    Next::Pause(None)
                }
                Ok(Err(status)) => {
                    // One node without a DAG may have lost its disk; all of them have no DAG.
                    match Problem::from_status(&status) {
                        Some(problem) if problem.reason == Reason::Unprovisioned => {
                            without_dag.insert(node.endpoint.clone());
                            if without_dag.len() >= self.nodes.count() {
                                return Err(Stop::Failed(problem.into()));
                            }
                        }
                        _ => without_dag.clear(),
                    }
                    self.refused(&question, &node, status, trial)?
                }
                Err(_) => {
                    trial.maybe_done(format!("{} did not answer in time", node.endpoint));
                    self.nodes.failed(question.whom, &node);
                    Next::Pause(None)
                }
            };
            match next {
                Next::Hint(node) if hints < HINTS_IN_A_ROW => {
                    hints += 1;
                    hint = Some(node);
                }
                Next::Hint(_) => {
                    hints = 0;
                    trial.pause(None).await;
                }
                Next::Pause(asked) => trial.pause(asked).await,
            }
        }
        Err(Stop::Failed(trial.timed_out()))
    }

    /// Whether an answer arrived in time and belongs to the newest lineage.
    async fn counts(
        &self,
        question: &Question,
        node: &Node,
        token: Option<CommitToken>,
        until: Instant,
        trial: &mut Trial,
    ) -> bool {
        if !self.is_newest(token.as_ref(), node, &question.subject, until).await {
            trial
                .maybe_done(format!("{} answered in a lineage that does not count", node.endpoint));
            self.nodes.failed(question.whom, node);
            return false;
        }
        if Instant::now() > until {
            trial.maybe_done(format!("{} answered too late to count", node.endpoint));
            return false;
        }
        self.nodes.worked(question.whom, node);
        true
    }

    /// Whether an answer belongs to the newest lineage; meets a new one by asking for its chain.
    pub(crate) async fn is_newest(
        &self,
        token: Option<&CommitToken>,
        node: &Node,
        subject: &Subject,
        until: Instant,
    ) -> bool {
        let Ok(token) = convert::token(token) else { return false };
        if self.lineage.judge(token.lineage) == Standing::Unknown {
            let attempt = Attempt { service: service(node), until };
            let _ = timeout_at(until, self.learn_chain(attempt, subject.clone())).await;
        }
        self.lineage.judge(token.lineage) == Standing::Newest
    }

    async fn learn_chain(&self, attempt: Attempt, subject: Subject) {
        let question = LocateMailboxRequest { mailbox: Some(subject), authoritative: false };
        let request = attempt.request(question);
        if let Ok(answer) = attempt.service.clone().locate_mailbox(request).await {
            self.lineage.learn(&answer.into_inner().lineage_chain);
        }
    }

    fn refused(
        &self,
        question: &Question,
        node: &Node,
        status: Status,
        trial: &mut Trial,
    ) -> Result<Next, Stop> {
        let Some(problem) = Problem::from_status(&status) else {
            let (code, message) = (status.code(), status.message());
            let why = match Trouble::of(&status) {
                Some(trouble) => format!("{}: {trouble}", node.endpoint),
                None => format!("{} answered {code}: {message}", node.endpoint),
            };
            return self.foreign(question.whom, node, status, why, trial);
        };
        let why = format!("{} answered: {problem}", node.endpoint);
        match problem.reason.retry() {
            Retry::Never => return Err(Stop::Failed(problem.into())),
            Retry::Relocate => return Err(Stop::Relocate(problem)),
            Retry::SameId => trial.maybe_done(why),
            Retry::Later => trial.not_done(why),
            Retry::Elsewhere => {
                trial.not_done(why);
                if let Some(named) = self.follow(question.whom, node, &problem) {
                    return Ok(Next::Hint(named));
                }
            }
        }
        Ok(Next::Pause(problem.retry_after))
    }

    fn foreign(
        &self,
        whom: Whom,
        node: &Node,
        status: Status,
        why: String,
        trial: &mut Trial,
    ) -> Result<Next, Stop> {
        if !is_passing(&status) {
            let endpoint = node.endpoint.to_string();
            let status = Box::new(status);
            return Err(Stop::Failed(crate::Error::Foreign { endpoint, status }));
        }
        self.nodes.failed(whom, node);
        if was_never_sent(&status) || Trouble::of(&status).is_some_and(Trouble::came_first) {
            trial.not_done(why);
        } else {
            trial.maybe_done(why);
        }
        Ok(Next::Pause(None))
    }

    /// The node that a refusal names, if it is another one than has just been asked.
    pub(crate) fn follow(&self, whom: Whom, asked: &Node, problem: &Problem) -> Option<Node> {
        self.nodes.failed(whom, asked);
        let database = match whom {
            Whom::Active(database) => database,
            Whom::Anyone => problem.facts.database.unwrap_or(DatabaseId::DIRECTORY),
        };
        let endpoint = problem.facts.active_endpoint.as_deref()?;
        if endpoint == &*asked.endpoint {
            return None;
        }
        self.nodes.hint(database, endpoint)
    }
}

pub(crate) fn service(node: &Node) -> MailboxServiceClient<Channel> {
    MailboxServiceClient::new(node.channel.clone())
}
