//! Calls of the admin service: any node for what only shows, the control group's leader for changes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dag_api::admin::v1::dag_admin_service_client::DagAdminServiceClient;
use dag_api::admin::v1::{GetNodeRequest, GetNodeResponse, GetStatusRequest, GetStatusResponse};
use dag_api::limits::WIRE_BYTES_MAX;
use dag_api::{Problem, Reason};
use futures::future::join_all;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::target::{Known, Target};
use crate::way::{Way, lost};

/// The generated client.
pub type Client = DagAdminServiceClient<Channel>;

/// How long a node may take to answer what needs nobody else.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// How long to wait between two rounds over all nodes.
const PAUSE: Duration = Duration::from_millis(100);

/// Speaks to the nodes of a DAG.
#[derive(Debug, Clone)]
pub struct Admin {
    target: Target,
    patience: Duration,
}

impl Admin {
    /// Commands give up after `patience`.
    pub fn new(target: Target, patience: Duration) -> Self {
        Self { target, patience }
    }

    /// The nodes that may be asked.
    pub fn nodes(&self) -> &[Known] {
        &self.target.nodes
    }

    /// How they are reached.
    pub fn way(&self) -> &Way {
        &self.target.way
    }

    /// Whether the nodes are those of a local cluster, whose addresses are all on record.
    pub fn is_local(&self) -> bool {
        self.target.folder.is_some()
    }

    /// Asks every node at once how the DAG is, and takes the answer of the one that heard last from
    /// a leader. Nodes without a DAG count only when there is no other.
    pub async fn get_status(&self) -> Result<GetStatusResponse, Failure> {
        let ask = |node: &Known| get_status(self.way().clone(), node.admin);
        let answers = join_all(self.target.nodes.iter().map(ask)).await;
        let mut refused = Vec::new();
        let mut best: Option<GetStatusResponse> = None;
        for (node, answer) in self.target.nodes.iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    if best.as_ref().is_none_or(|best| standing(&answer) > standing(best)) {
                        best = Some(answer);
                    }
                }
                Err(status) => refused.push((node.clone(), status)),
            }
        }
        best.ok_or_else(|| self.nobody("Cannot read the DAG's status.", &refused))
    }

    /// Asks the nodes one after the other for something that each knows by itself.
    pub async fn ask<T, F>(&self, what: &str, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut refused = Vec::new();
        for node in &self.target.nodes {
            match attempt(self.way(), node.admin, ATTEMPT, &call).await {
                Ok(answer) => return Ok(answer),
                Err(status) if goes_elsewhere(&status) => refused.push((node.clone(), status)),
                Err(status) => return Err(Failure::of_status(what, &status)),
            }
        }
        Err(self.nobody(what, &refused))
    }

    /// Has something carried out by the node that leads, whichever it is by then. The same call is
    /// repeated, so it must carry an id.
    pub async fn change<T, F>(
        &self,
        what: &str,
        attempt_for: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let end = Instant::now() + self.patience;
        let mut order = self.target.nodes.clone();
        loop {
            let mut refused = Vec::new();
            let mut hint = None;
            for node in &order {
                match attempt(self.way(), node.admin, attempt_for, &call).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) if goes_elsewhere(&status) || may_be_repeated(&status) => {
                        hint = hint.or_else(|| self.hinted(&status));
                        let led_here = hint.is_some() && may_follow(&status);
                        refused.push((node.clone(), status));
                        if led_here {
                            break;
                        }
                    }
                    Err(status) => return Err(Failure::of_status(what, &status)),
                }
            }
            if Instant::now() >= end {
                return Err(self.nobody(what, &refused));
            }
            order = in_order(&self.target.nodes, hint);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The node that an answer names as active.
    fn hinted(&self, status: &Status) -> Option<Known> {
        let facts = Problem::from_status(status)?.facts;
        let by_id =
            |node: &&Known| node.id.is_some() && node.id == facts.active_node.map(|id| id.0);
        if let Some(node) = self.target.nodes.iter().find(by_id) {
            return Some(node.clone());
        }
        let endpoint = facts.active_endpoint?;
        let address: SocketAddr = endpoint.split_once("://")?.1.parse().ok()?;
        Some(Known { id: None, name: endpoint, admin: address, clients: address })
    }

    fn nobody(&self, what: &str, refused: &[(Known, Status)]) -> Failure {
        // What a node said in our own words counts for more than a connection that failed.
        let spoke = refused.iter().find_map(|(_, status)| Problem::from_status(status));
        let exit = match &spoke {
            Some(problem) if problem.reason == Reason::OutcomeUnknown => Exit::Unknown,
            Some(_) => Exit::Failed,
            None => Exit::Unreachable,
        };
        let mut failure = Failure::new(exit, what);
        for (node, status) in refused {
            failure = failure.why(format!("{} ({}): {}", node.name, node.admin, in_words(status)));
        }
        failure.reason = spoke.as_ref().map(|problem| problem.reason.as_str());
        failure.next(
            spoke.and_then(|problem| problem.facts.next).unwrap_or_else(|| self.target.revive()),
        )
    }
}

/// Nodes in the order to ask them: the one that was hinted at first.
fn in_order(nodes: &[Known], hint: Option<Known>) -> Vec<Known> {
    let rest =
        nodes.iter().filter(|node| hint.as_ref().is_none_or(|hint| hint.admin != node.admin));
    hint.iter().chain(rest).cloned().collect()
}

/// How much an answer about the whole DAG is worth: a member's, then the youngest.
fn standing(status: &GetStatusResponse) -> (bool, std::cmp::Reverse<u64>) {
    let age = status.age.as_ref().map_or(u64::MAX, |age| age.age_ms);
    (!status.dag_id.is_empty(), std::cmp::Reverse(age))
}

/// Whether another node may know better.
fn goes_elsewhere(status: &Status) -> bool {
    match Problem::from_status(status) {
        Some(problem) => {
            use dag_api::Retry::{Elsewhere, Later};
            matches!(problem.reason.retry(), Elsewhere | Later)
        }
        None => matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown),
    }
}

/// Whether the same call with the same id finds out what became of it.
fn may_be_repeated(status: &Status) -> bool {
    match Problem::from_status(status) {
        Some(problem) => problem.is_retryable(),
        None => matches!(status.code(), Code::DeadlineExceeded),
    }
}

fn may_follow(status: &Status) -> bool {
    Problem::from_status(status).is_some_and(|p| p.reason == Reason::NotActiveCopy)
}

fn in_words(status: &Status) -> String {
    if Problem::from_status(status).is_some() {
        return status.message().to_owned();
    }
    match status.code() {
        Code::Unavailable => status.message().to_owned(),
        Code::Cancelled | Code::DeadlineExceeded => "does not answer in time".to_owned(),
        code => format!("{code}: {}", status.message()),
    }
}

/// What one node says of itself.
pub async fn get_node(way: &Way, admin: SocketAddr) -> Result<GetNodeResponse, Status> {
    let ask = |mut client: Client| async move { client.get_node(GetNodeRequest {}).await };
    attempt(way, admin, ATTEMPT, ask).await
}

async fn get_status(way: Way, admin: SocketAddr) -> Result<GetStatusResponse, Status> {
    let ask = |mut client: Client| async move { client.get_status(GetStatusRequest {}).await };
    attempt(&way, admin, ATTEMPT, ask).await
}

/// One call to one node, with a deadline.
pub async fn attempt<T, F>(
    way: &Way,
    admin: SocketAddr,
    deadline: Duration,
    call: impl Fn(Client) -> F,
) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let connect = ATTEMPT.min(deadline);
    let channel = way.connect(admin, |to| to.connect_timeout(connect).timeout(deadline)).await?;
    let client = DagAdminServiceClient::new(channel).max_decoding_message_size(WIRE_BYTES_MAX * 4);
    Ok(call(client).await.map_err(lost)?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, port: u16) -> Known {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Known { id: Some(port.into()), name: name.into(), admin: address, clients: address }
    }

    #[test]
    fn the_node_that_was_hinted_at_is_asked_first_and_nobody_twice() {
        let nodes = [known("a", 1), known("b", 2), known("c", 3)];
        let order = in_order(&nodes, Some(known("b", 2)));
        let names: Vec<_> = order.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
    }

    #[test]
    fn a_rejection_is_not_asked_of_another_node() {
        for reason in [Reason::DatabaseExists, Reason::PlacementImpossible, Reason::InvalidRequest]
        {
            let status = Problem::new(reason, "no").to_status();
            assert!(!goes_elsewhere(&status) && !may_be_repeated(&status), "{reason}");
        }
        for reason in [Reason::NotActiveCopy, Reason::NoQuorum, Reason::Unprovisioned] {
            assert!(goes_elsewhere(&Problem::new(reason, "no").to_status()), "{reason}");
        }
    }

    #[test]
    fn a_members_answer_counts_for_more_than_a_younger_one_without_a_dag() {
        let answer = |dag: &'static [u8], age_ms| GetStatusResponse {
            dag_id: dag.into(),
            age: Some(dag_api::admin::v1::StateAge { age_ms, control_log_index: 0 }),
            ..GetStatusResponse::default()
        };
        assert!(standing(&answer(&[1; 16], 900)) > standing(&answer(&[], 0)));
        assert!(standing(&answer(&[1; 16], 10)) > standing(&answer(&[1; 16], 900)));
    }
}
