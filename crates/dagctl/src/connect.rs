//! A mail client for the nodes that a command speaks to.

use std::time::Duration;

use dag_client::{Client, Options};

use crate::admin::Admin;
use crate::exit::Exit;
use crate::failure::Failure;

/// Connects as a mail front end does. Nodes that were named by their operators' address say
/// themselves where front ends reach them.
pub async fn connect(admin: &Admin, patience: Duration) -> Result<Client, Failure> {
    let local = admin.is_local();
    let way = admin.way();
    let endpoints: Vec<String> = if local {
        admin.nodes().iter().map(|node| way.url(node.clients)).collect()
    } else {
        let status = admin.get_status().await?;
        status.nodes.iter().map(|node| way.url(&node.api_address)).collect()
    };
    if endpoints.is_empty() {
        return Err(Failure::new(Exit::Failed, "There is no DAG to hold mail yet.")
            .next("dagctl dag create --from dag.toml"));
    }
    let options = Options { patience, tls: way.tls(), ..Options::default() };
    Client::connect(endpoints, options)
        .map_err(|error| Failure::new(Exit::Failed, "Cannot connect to the nodes.").why(error))
}

/// What the client library says, in the words of `dagctl`.
pub fn failure(what: impl Into<String>, error: &dag_client::Error) -> Failure {
    match error {
        dag_client::Error::Failed(problem) => Failure::of_problem(what, problem),
        dag_client::Error::Foreign { status, .. } => Failure::of_status(what, status).why(error),
        dag_client::Error::TimedOut { outcome, .. } => {
            let exit = match outcome {
                dag_client::Outcome::Unknown => Exit::Unknown,
                dag_client::Outcome::NotCarriedOut => Exit::Failed,
            };
            Failure::new(exit, what).why(error).next("dagctl status")
        }
    }
}
