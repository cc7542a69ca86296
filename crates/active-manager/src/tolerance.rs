//! What one more loss would stop: "lose node 3 as well and DB7 stops".
//!
//! A group lives while a majority of its voters is sound and reachable. Counting is by voter, not
//! by copy: a learner is redundancy and never a vote.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{DatabaseId, NodeId};

use crate::control::{ControlState, DatabaseRecord};
use crate::report::Reports;

/// How one group stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tolerance {
    /// The group.
    pub database: DatabaseId,
    /// For people.
    pub name: String,
    /// Voters in all.
    pub voters: usize,
    /// Voters that are sound and reachable.
    pub live_voters: Vec<NodeId>,
    /// Copies that are sound and reachable, learners included.
    pub sound_copies: Vec<NodeId>,
    /// How many more voters may be lost, whichever they are; none: it has no majority now.
    pub can_lose: Option<usize>,
}

impl Tolerance {
    /// The nodes whose loss alone stops the group.
    pub fn critical(&self) -> &[NodeId] {
        match self.can_lose {
            Some(0) => &self.live_voters,
            _ => &[],
        }
    }

    /// Sound copies that are left when a node goes.
    pub fn without(&self, node: Option<NodeId>) -> usize {
        self.sound_copies.iter().filter(|copy| Some(**copy) != node).count()
    }

    /// Whether the group goes on when a node goes.
    pub fn survives(&self, node: NodeId) -> bool {
        match self.can_lose {
            None => false,
            Some(0) => !self.live_voters.contains(&node),
            Some(_) => true,
        }
    }

    /// For people.
    pub fn words(&self) -> String {
        let name = &self.name;
        match self.can_lose {
            None => format!(
                "{name} has no majority: {} of {} voters live",
                self.live_voters.len(),
                self.voters
            ),
            Some(0) => {
                let nodes: Vec<String> =
                    self.live_voters.iter().map(|node| format!("{node}")).collect();
                format!("lose one more of nodes {} and {name} stops", nodes.join(", "))
            }
            Some(1) => format!("{name} goes on when any one more node is lost"),
            Some(more) => format!("{name} goes on when any {more} more nodes are lost"),
        }
    }
}

/// How a database's group stands.
pub fn of_database(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
) -> Tolerance {
    let sound = |node: NodeId| {
        let copy = reports.copy(database.id(), node);
        let suspended = state.copy_policy(database.id(), node).suspended;
        reports.reaches(node) && !suspended && copy.is_some_and(|copy| copy.is_sound())
    };
    of_group(database, sound)
}

/// How the control group stands.
pub fn of_control(state: &ControlState, reports: &Reports) -> Option<Tolerance> {
    let control = state.database(DatabaseId::CONTROL)?;
    let sound = |node: NodeId| {
        reports.node(node).is_some_and(|report| report.reachable && report.control_copy_runs)
    };
    Some(of_group(control, sound))
}

fn of_group(database: &DatabaseRecord, sound: impl Fn(NodeId) -> bool) -> Tolerance {
    let voters = database.replicas.iter().filter(|copy| copy.voter).count();
    let live = database.replicas.iter().filter(|copy| sound(copy.node()));
    let live_voters: Vec<NodeId> =
        live.clone().filter(|copy| copy.voter).map(|copy| copy.node()).collect();
    let majority = voters / 2 + 1;
    Tolerance {
        database: database.id(),
        name: database.name.clone(),
        voters,
        can_lose: live_voters.len().checked_sub(majority),
        live_voters,
        sound_copies: live.map(|copy| copy.node()).collect(),
    }
}

/// The control group and every database, the weakest first.
pub fn of_all(state: &ControlState, reports: &Reports) -> Vec<Tolerance> {
    let databases = state.databases.iter().filter(|db| db.id() != DatabaseId::CONTROL);
    let mut all: Vec<Tolerance> = of_control(state, reports)
        .into_iter()
        .chain(databases.map(|database| of_database(state, reports, database)))
        .collect();
    all.sort_by_key(|tolerance| (tolerance.can_lose, tolerance.database));
    all
}

#[cfg(test)]
#[path = "tolerance_test.rs"]
mod tests;
