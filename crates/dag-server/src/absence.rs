//! Saying that there is no such database.
//!
//! Front ends bounce mail on that word, and operators take it for the truth, so it must not come
//! from a node that started a moment ago or is a little behind: its applied control log does not
//! tell of every database yet. Only the control group's leader says it, after a majority confirmed
//! that it still leads. Every other node says that it does not know, and whom to ask.

use active_manager::control::ControlState;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, NodeId};
use tokio::time::Instant;

use crate::machine::View;
use crate::node::Node;
use crate::status;

/// What this node can say of something that its control log does not tell of.
enum Absence {
    /// The DAG has no such thing.
    Certain,
    /// The DAG has it: this node learned of it meanwhile.
    Over,
    /// Others know; the one that leads the control group, if it is known.
    Unknown(Option<NodeId>),
}

impl Node {
    /// The answer of a node without a copy of this database: `refused` where the database is known,
    /// else that there is none, or whom to ask for certainty.
    pub async fn without_copy(
        &self,
        database: DatabaseId,
        refused: Problem,
        deadline: Instant,
    ) -> Problem {
        if refused.reason != Reason::NotActiveCopy || self.database(database).is_some() {
            return refused;
        }
        match self.absence(|state| state.database(database).is_some(), deadline).await {
            Absence::Certain => no_database(database.0).database(database),
            Absence::Over => refused,
            Absence::Unknown(leader) => {
                let endpoint = leader.and_then(|leader| self.endpoint(leader, database));
                not_known_here(&database, leader, endpoint).database(database)
            }
        }
    }

    /// The same for a database that an operator named.
    pub async fn without_name(&self, name: &str, deadline: Instant) -> Problem {
        match self.absence(|state| state.database_named(name).is_some(), deadline).await {
            Absence::Certain => no_database(format_args!("{name:?}")),
            Absence::Over => not_known_here(&name, None, None),
            Absence::Unknown(leader) => {
                let endpoint = leader.and_then(|node| self.endpoint(node, DatabaseId::CONTROL));
                not_known_here(&name, leader, endpoint)
            }
        }
    }

    async fn absence(
        &self,
        is_there: impl Fn(&ControlState) -> bool,
        deadline: Instant,
    ) -> Absence {
        let member = self.member().ok();
        let Some(group) = member.and_then(|member| member.registry.get(DatabaseId::CONTROL)) else {
            return Absence::Unknown(None);
        };
        if group.read_barrier(deadline).await.is_err() {
            let leader = group.leader().map(|leader| leader.node);
            return Absence::Unknown(leader.filter(|leader| *leader != self.id()));
        }
        match ControlState::read(&View(&*group.view())) {
            Ok(Some(state)) if is_there(&state) => Absence::Over,
            Ok(Some(_)) => Absence::Certain,
            // Nothing was applied although a majority answered, or the state cannot be read.
            Ok(None) | Err(_) => Absence::Unknown(None),
        }
    }
}

fn no_database(named: impl std::fmt::Display) -> Problem {
    let text = format!("there is no database {named}; `dagctl db list` shows those there are");
    Problem::new(Reason::DatabaseNotFound, text)
}

fn not_known_here(
    named: &dyn std::fmt::Display,
    leader: Option<NodeId>,
    endpoint: Option<String>,
) -> Problem {
    match leader.zip(endpoint) {
        Some((leader, endpoint)) => {
            let text = format!(
                "this node does not know of a database {named}, and may be behind; node {leader} \
                 leads the control group and knows for certain"
            );
            Problem::new(Reason::NotActiveCopy, text).active(leader, endpoint)
        }
        None => {
            let text = format!(
                "this node does not know of a database {named}, and may be behind; ask again"
            );
            Problem::new(Reason::NotActiveCopy, text).retry_after(status::SOON)
        }
    }
}
