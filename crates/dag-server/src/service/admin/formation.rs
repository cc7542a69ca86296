//! Making a DAG, and databases in it.

use active_manager::control::{Command, CreateDatabase, Order, Outcome, Rejection, Response};
use dag_api::admin::v1 as api;
use dag_api::{Problem, Reason};
use dag_types::DatabaseId;
use prost::Message as _;
use tokio::time::Instant;

use super::AdminServer;
use crate::admission::Kind;
use crate::clock;
use crate::formation::{Own, Refusal, Stage};
use crate::status;

const CONTROL: DatabaseId = DatabaseId::CONTROL;

impl AdminServer {
    pub(super) async fn prepare(
        &self,
        request: api::PrepareDagRequest,
    ) -> Result<api::PrepareDagResponse, Problem> {
        self.advance(move |stage, own| stage.prepare(own, &request)).await?;
        Ok(api::PrepareDagResponse { node: Some(self.identity()), state: self.state().into() })
    }

    pub(super) async fn form(
        &self,
        request: api::FormDagRequest,
    ) -> Result<api::FormDagResponse, Problem> {
        let changed = self.advance(move |stage, own| stage.form(own, &request)).await?;
        let (node, state) = (Some(self.identity()), self.state().into());
        Ok(api::FormDagResponse { node, state, changed })
    }

    pub(super) async fn join(
        &self,
        request: api::JoinDagRequest,
    ) -> Result<api::JoinDagResponse, Problem> {
        let changed = self.advance(move |stage, own| stage.join(own, &request)).await?;
        Ok(api::JoinDagResponse { node: Some(self.identity()), changed })
    }

    /// A round of creation waits for the disk, so it is done beside the runtime.
    async fn advance(
        &self,
        next: impl FnOnce(&Stage, &Own) -> Result<Stage, Refusal> + Send + 'static,
    ) -> Result<bool, Problem> {
        let node = self.node.clone();
        let advanced = tokio::task::spawn_blocking(move || node.advance(next)).await;
        match advanced {
            Ok(Ok(changed)) => Ok(changed),
            Ok(Err(refusal)) => Err(status::formation(&refusal)),
            Err(_) => Err(Problem::new(Reason::Internal, "creation ended without an answer")),
        }
    }

    pub(super) async fn make_database(
        &self,
        request: api::CreateDatabaseRequest,
        (who, from): (String, String),
        deadline: Instant,
    ) -> Result<api::CreateDatabaseResponse, Problem> {
        let order = CreateDatabase {
            request_id: request.request_id.clone(),
            name: request.name,
            nodes: request.copy_nodes,
            site: String::new(),
        };
        let command = Command {
            at_ms: clock::wall().0,
            who,
            from,
            order: Some(Order::CreateDatabase(order)),
            ..Command::default()
        };
        let command = command.encode_to_vec();
        let _permit = self.node.admit(CONTROL, Kind::Write, command.len() as u64)?;
        let request_id = &request.request_id;
        let answer = self.node.propose(CONTROL, request_id, command.into(), deadline).await?;
        let created = match Response::decode(answer.reply).map(|response| response.outcome) {
            Ok(Some(Outcome::DatabaseCreated(created))) => created,
            Ok(Some(Outcome::Rejected(rejected))) => return Err(refused(rejected.reason)),
            _ => return Err(unreadable()),
        };
        let record = created.database.ok_or_else(unreadable)?;
        Ok(api::CreateDatabaseResponse {
            database: Some(self.api_database(&record)),
            token: Some(answer.token.into()),
            replayed: created.replayed,
        })
    }
}

fn refused(reason: Option<Rejection>) -> Problem {
    reason.map_or_else(unreadable, |reason| status::control(&reason))
}

fn unreadable() -> Problem {
    let text = "it was carried out, and its answer cannot be read; repeat with the same id";
    Problem::new(Reason::OutcomeUnknown, text).database(CONTROL)
}
