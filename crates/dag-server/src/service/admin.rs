//! `holdfast.admin.v1.DagAdminService`: what operators call through `dagctl`.
//!
//! What only shows is answered from this node's own state, without asking anybody, and says how old
//! that is. What changes goes through the control group, which only its leader can do.

mod carry;
mod deep;
mod formation;
mod gates;
mod join_plan;
mod joining;
mod lint;
mod listing;
mod members;
mod moves;
mod orders;
mod paths;
pub(crate) mod plan;
mod reforming;
mod seed_plan;
mod seeding;
mod seeds;
mod settings;
mod show;
mod verify;
mod world;

use std::sync::Arc;

use dag_api::admin::v1 as api;
use dag_api::admin::v1::dag_admin_service_server::{DagAdminService, DagAdminServiceServer};
use dag_api::{Problem, Reason};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::node::Node;
use crate::service::deadline;
pub(crate) use moves::named;
pub(crate) use orders::Asker;

pub use seeding::lead as lead_seeds;

/// The service of one node.
#[derive(Clone)]
pub struct AdminServer {
    node: Arc<Node>,
}

impl AdminServer {
    /// The orders of this node, without a caller.
    pub(crate) fn of(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// The service to add to a server.
    pub fn service(node: Arc<Node>) -> DagAdminServiceServer<Self> {
        DagAdminServiceServer::new(Self { node })
            .max_decoding_message_size(dag_api::limits::WIRE_BYTES_MAX)
            // The status of hundreds of databases.
            .max_encoding_message_size(4 * dag_api::limits::WIRE_BYTES_MAX)
    }

    /// Refuses a caller that believes this node to be of another DAG.
    fn check_dag(&self, named: &[u8]) -> Result<(), Problem> {
        let own = self.node.member()?.formation.dag();
        if named.is_empty() || *named == own.0 {
            return Ok(());
        }
        Err(Problem::new(Reason::WrongDag, format!("this node belongs to the DAG {own}")))
    }

    fn deadline<T>(&self, request: &Request<T>) -> Instant {
        deadline::of_call(request.metadata(), self.node.settings.attempt.0)
    }
}

fn respond<T>(result: Result<T, Problem>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|problem| problem.to_status())
}

/// Who asks, for the audit.
pub(crate) fn who<T>(request: &Request<T>) -> (String, String) {
    let who = request.metadata().get("holdfast-who").and_then(|value| value.to_str().ok());
    let from = request.remote_addr().map(|address| address.ip().to_string());
    (who.unwrap_or("operator").to_owned(), from.unwrap_or_default())
}

fn asker<T>(request: &Request<T>, reason: impl FnOnce(&T) -> &String) -> Asker {
    let (who, from) = who(request);
    Asker { who, from, reason: reason(request.get_ref()).clone() }
}

#[tonic::async_trait]
impl DagAdminService for AdminServer {
    async fn get_node(
        &self,
        _: Request<api::GetNodeRequest>,
    ) -> Result<Response<api::GetNodeResponse>, Status> {
        Ok(Response::new(self.describe_node()))
    }

    async fn prepare_dag(
        &self,
        request: Request<api::PrepareDagRequest>,
    ) -> Result<Response<api::PrepareDagResponse>, Status> {
        respond(self.prepare(request.into_inner()).await)
    }

    async fn form_dag(
        &self,
        request: Request<api::FormDagRequest>,
    ) -> Result<Response<api::FormDagResponse>, Status> {
        respond(self.form(request.into_inner()).await)
    }

    async fn create_database(
        &self,
        request: Request<api::CreateDatabaseRequest>,
    ) -> Result<Response<api::CreateDatabaseResponse>, Status> {
        let (deadline, who) = (self.deadline(&request), who(&request));
        respond(self.make_database(request.into_inner(), who, deadline).await)
    }

    async fn list_databases(
        &self,
        _: Request<api::ListDatabasesRequest>,
    ) -> Result<Response<api::ListDatabasesResponse>, Status> {
        respond(self.databases())
    }

    async fn get_status(
        &self,
        _: Request<api::GetStatusRequest>,
    ) -> Result<Response<api::GetStatusResponse>, Status> {
        Ok(Response::new(self.status()))
    }

    async fn list_copies(
        &self,
        request: Request<api::ListCopiesRequest>,
    ) -> Result<Response<api::ListCopiesResponse>, Status> {
        let request = request.into_inner();
        respond(self.check_dag(&request.dag_id).and_then(|()| self.copies(&request)))
    }

    async fn lint_dag(
        &self,
        _: Request<api::LintDagRequest>,
    ) -> Result<Response<api::LintDagResponse>, Status> {
        respond(self.lint())
    }

    async fn verify_database(
        &self,
        request: Request<api::VerifyDatabaseRequest>,
    ) -> Result<Response<api::VerifyDatabaseResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.verify(request.into_inner(), deadline).await)
    }

    async fn get_copy_digest(
        &self,
        request: Request<api::GetCopyDigestRequest>,
    ) -> Result<Response<api::GetCopyDigestResponse>, Status> {
        respond(self.copy_digest(&request.into_inner()))
    }

    async fn compare_mailboxes(
        &self,
        request: Request<api::CompareMailboxesRequest>,
    ) -> Result<Response<api::CompareMailboxesResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.compare_mailboxes(request.into_inner(), deadline).await)
    }

    async fn list_mailbox_digests(
        &self,
        request: Request<api::ListMailboxDigestsRequest>,
    ) -> Result<Response<api::ListMailboxDigestsResponse>, Status> {
        respond(self.mailbox_digests(request.into_inner()).await)
    }

    async fn move_database(
        &self,
        request: Request<api::MoveDatabaseRequest>,
    ) -> Result<Response<api::MoveDatabaseResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.move_database(request.into_inner(), asker, deadline).await)
    }

    async fn take_step(
        &self,
        request: Request<api::TakeStepRequest>,
    ) -> Result<Response<api::TakeStepResponse>, Status> {
        respond(self.take_step(request.into_inner()).await)
    }

    async fn start_operation(
        &self,
        request: Request<api::StartOperationRequest>,
    ) -> Result<Response<api::StartOperationResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.start_operation(request.into_inner(), asker, deadline).await)
    }

    async fn cancel_operation(
        &self,
        request: Request<api::CancelOperationRequest>,
    ) -> Result<Response<api::CancelOperationResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.cancel(&request.into_inner(), asker, deadline).await)
    }

    async fn change_activation(
        &self,
        request: Request<api::ChangeActivationRequest>,
    ) -> Result<Response<api::ChangeActivationResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.change(request.into_inner(), asker, deadline).await)
    }

    async fn get_settings(
        &self,
        _: Request<api::GetSettingsRequest>,
    ) -> Result<Response<api::GetSettingsResponse>, Status> {
        respond(self.settings())
    }

    async fn change_settings(
        &self,
        request: Request<api::ChangeSettingsRequest>,
    ) -> Result<Response<api::ChangeSettingsResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.change_settings(&request.into_inner(), asker, deadline).await)
    }

    async fn seed_copy(
        &self,
        request: Request<api::SeedCopyRequest>,
    ) -> Result<Response<api::SeedCopyResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.seed_copy(request.into_inner(), asker, deadline).await)
    }

    async fn remove_copy(
        &self,
        request: Request<api::RemoveCopyRequest>,
    ) -> Result<Response<api::RemoveCopyResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.remove_copy(request.into_inner(), asker, deadline).await)
    }

    async fn remove_node(
        &self,
        request: Request<api::RemoveNodeRequest>,
    ) -> Result<Response<api::RemoveNodeResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.remove_node(request.into_inner(), asker, deadline).await)
    }

    async fn join_node(
        &self,
        request: Request<api::JoinNodeRequest>,
    ) -> Result<Response<api::JoinNodeResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.join_node(request.into_inner(), asker, deadline).await)
    }

    async fn join_dag(
        &self,
        request: Request<api::JoinDagRequest>,
    ) -> Result<Response<api::JoinDagResponse>, Status> {
        respond(self.join(request.into_inner()).await)
    }

    async fn reform_database(
        &self,
        request: Request<api::ReformDatabaseRequest>,
    ) -> Result<Response<api::ReformDatabaseResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.reform_database(request.into_inner(), asker, deadline).await)
    }

    async fn hold_copy(
        &self,
        request: Request<api::HoldCopyRequest>,
    ) -> Result<Response<api::HoldCopyResponse>, Status> {
        respond(self.hold_copy(request.into_inner()).await)
    }

    async fn move_path(
        &self,
        request: Request<api::MovePathRequest>,
    ) -> Result<Response<api::MovePathResponse>, Status> {
        let (deadline, asker) = (self.deadline(&request), asker(&request, |r| &r.reason));
        respond(self.move_path(request.into_inner(), asker, deadline).await)
    }

    async fn check_path(
        &self,
        request: Request<api::CheckPathRequest>,
    ) -> Result<Response<api::CheckPathResponse>, Status> {
        respond(self.check_path(request.into_inner()).await)
    }

    async fn plan_balance(
        &self,
        _: Request<api::PlanBalanceRequest>,
    ) -> Result<Response<api::PlanBalanceResponse>, Status> {
        respond(self.balance())
    }

    async fn list_events(
        &self,
        request: Request<api::ListEventsRequest>,
    ) -> Result<Response<api::ListEventsResponse>, Status> {
        respond(self.events(&request.into_inner()))
    }

    async fn list_operations(
        &self,
        _: Request<api::ListOperationsRequest>,
    ) -> Result<Response<api::ListOperationsResponse>, Status> {
        respond(self.operations())
    }

    async fn list_mailboxes(
        &self,
        request: Request<api::ListMailboxesRequest>,
    ) -> Result<Response<api::ListMailboxesResponse>, Status> {
        let deadline = self.deadline(&request);
        respond(self.mailboxes(request.into_inner(), deadline).await)
    }
}
