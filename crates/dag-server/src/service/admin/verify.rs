//! Comparing the content of all copies at one entry of the log.
//!
//! The active copy writes a mark; every copy notes the digest of its own content where it applies
//! the mark. So copies are compared at the same position, while clients go on.

use std::time::Duration;

use dag_api::admin::v1 as api;
use dag_api::admin::v1::dag_admin_service_client::DagAdminServiceClient;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, LogId, NodeId};
use replication::{Group, KEEP_STATE};
use tokio::time::Instant;

use super::AdminServer;
use crate::status;

const WAIT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(1);

impl AdminServer {
    pub(super) async fn verify(
        &self,
        request: api::VerifyDatabaseRequest,
        deadline: Instant,
    ) -> Result<api::VerifyDatabaseResponse, Problem> {
        let control = self.node.control();
        let name = &request.database_name;
        let Some(record) = control.as_ref().and_then(|state| state.database_named(name)).cloned()
        else {
            return Err(self.node.without_name(name, deadline).await);
        };
        let database = record.id();
        if database == DatabaseId::CONTROL {
            let text = "the control group is not verified by a mark";
            return Err(Problem::new(Reason::InvalidRequest, text).check("database_name"));
        }
        let wait = match request.wait_ms {
            0 => WAIT,
            millis => Duration::from_millis(millis.into()).min(WAIT_MAX),
        };
        let end = Instant::now() + wait;
        let group = self.node.group(database)?;
        let number = uuid::Uuid::new_v4().as_u64_pair().0;
        let number = if request.deep { number | KEEP_STATE } else { number & !1 };
        let marked = group.mark_digest(number, end).await;
        let marked = marked.map_err(|error| {
            let mut problem = status::propose(&error, database, self.node.hint(database));
            problem.facts.active_endpoint = self.admin_endpoint(problem.facts.active_node);
            problem
        })?;
        let index = marked.at.index;
        let mut copies = Vec::new();
        for replica in &record.replicas {
            copies.push(self.digest_on(replica.node(), database, index, end).await);
        }
        let equal = copies.iter().all(|copy| {
            copy.state() == api::DigestState::Known && copy.digest[..] == marked.digest
        });
        Ok(api::VerifyDatabaseResponse {
            database_id: database.0,
            mark_index: index,
            copies,
            equal,
            token: Some(self.node.token(&group, index).into()),
        })
    }

    /// Operators go to the listener for operators.
    fn admin_endpoint(&self, node: Option<NodeId>) -> Option<String> {
        self.node.endpoint(node?, DatabaseId::CONTROL)
    }

    /// Asks a node until its copy has reached the mark, or time is over.
    async fn digest_on(
        &self,
        node: NodeId,
        database: DatabaseId,
        mark_index: u64,
        end: Instant,
    ) -> api::CopyDigest {
        let request = api::GetCopyDigestRequest { database_id: database.0, mark_index };
        loop {
            let answer = if node == self.node.id() {
                self.copy_digest(&request).ok().and_then(|answer| answer.digest)
            } else {
                self.ask(node, request).await
            };
            let digest = answer.unwrap_or_else(|| api::CopyDigest {
                node_id: node.0,
                state: api::DigestState::Unreachable.into(),
                message: format!("node {node} does not answer"),
                ..api::CopyDigest::default()
            });
            let passing = [api::DigestState::Pending, api::DigestState::Unreachable];
            if !passing.contains(&digest.state()) || Instant::now() + LOOK >= end {
                return digest;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ask(
        &self,
        node: NodeId,
        request: api::GetCopyDigestRequest,
    ) -> Option<api::CopyDigest> {
        let endpoint = self.node.dial.endpoint(&self.admin_endpoint(Some(node))?).ok()?;
        let channel = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await.ok()?;
        let answer = DagAdminServiceClient::new(channel).get_copy_digest(request).await.ok()?;
        answer.into_inner().digest
    }

    pub(super) fn copy_digest(
        &self,
        request: &api::GetCopyDigestRequest,
    ) -> Result<api::GetCopyDigestResponse, Problem> {
        let database = DatabaseId(request.database_id);
        let failed = self.node.failed.of(database);
        let mut digest = api::CopyDigest {
            node_id: self.node.id().0,
            lineage: Some(self.node.lineage().into()),
            ..api::CopyDigest::default()
        };
        if let Some(reason) = failed {
            digest.state = api::DigestState::Failed.into();
            digest.message = reason;
        } else {
            let group = self.node.group(database)?;
            self.note_digest(&group, request.mark_index, &mut digest)?;
        }
        Ok(api::GetCopyDigestResponse { digest: Some(digest) })
    }

    fn note_digest(
        &self,
        group: &Group,
        mark_index: u64,
        digest: &mut api::CopyDigest,
    ) -> Result<(), Problem> {
        let database = group.spec().database;
        digest.replica_id = group.replica().0;
        let applied = group.status().applied.map_or(0, |at: LogId| at.index);
        digest.applied_index = applied;
        let marks = group.digest_marks().map_err(|fault| {
            Problem::new(Reason::RecordCorrupt, fault.to_string()).database(database)
        })?;
        let mark = marks.iter().find(|mark| mark.at.index == mark_index);
        digest.state = match mark {
            Some(_) => api::DigestState::Known,
            None if applied < mark_index => api::DigestState::Pending,
            None => api::DigestState::Forgotten,
        }
        .into();
        if let Some(mark) = mark {
            digest.digest = mark.digest.to_vec().into();
            let copy = self.node.store.copy(database);
            let chain = copy.and_then(|copy| copy.log().chain_at(mark_index));
            digest.chain = chain.map(|chain| chain.0.to_vec().into()).unwrap_or_default();
        }
        Ok(())
    }
}
