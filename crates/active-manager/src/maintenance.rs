//! Freeing a node of active copies, and what people forgot to take back.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{DatabaseId, NodeId};

use crate::control::{ControlState, Decided};
use crate::movement::{Motive, MoveDecision, MoveRequest, Target, decide_move};
use crate::report::Reports;
use crate::tolerance;

/// What draining one database takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainedDatabase {
    /// The database.
    pub database: DatabaseId,
    /// For people.
    pub name: String,
    /// How it is moved away.
    pub decision: MoveDecision,
}

/// A group that would stop, or lose its redundancy, once the node goes down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtRisk {
    /// The group.
    pub database: DatabaseId,
    /// For people.
    pub name: String,
    /// It stops; otherwise only one sound copy is left.
    pub stops: bool,
    /// For people.
    pub why: String,
}

/// What draining a node takes, and whether it is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainPlan {
    /// Which node.
    pub node: NodeId,
    /// Every database that is active there.
    pub moves: Vec<DrainedDatabase>,
    /// What the node's going down would endanger; empty: it is safe.
    pub at_risk: Vec<AtRisk>,
    /// The control group's leadership has to leave the node as well.
    pub leads_control: bool,
}

impl DrainPlan {
    /// Whether everything can be moved and nothing is endangered.
    pub fn is_safe(&self) -> bool {
        self.at_risk.is_empty() && self.moves.iter().all(|moved| moved.decision.plan.is_some())
    }
}

/// Plans a drain. `skip` names checks of the single moves that may fail.
pub fn plan_drain(
    state: &ControlState,
    reports: &Reports,
    node: NodeId,
    skip: &[String],
) -> DrainPlan {
    let active = state.databases.iter().filter(|database| {
        database.id() != DatabaseId::CONTROL && reports.active(database.id()) == Some(node)
    });
    let moves = active.map(|database| {
        let request =
            MoveRequest { target: Target::Best, motive: Motive::Drain, skip: skip.to_vec() };
        let decision = decide_move(state, reports, database, &request);
        DrainedDatabase { database: database.id(), name: database.name.clone(), decision }
    });
    DrainPlan {
        node,
        moves: moves.collect(),
        at_risk: at_risk(state, reports, node),
        leads_control: reports.control.leader == Some(node),
    }
}

fn at_risk(state: &ControlState, reports: &Reports, node: NodeId) -> Vec<AtRisk> {
    let mut found = Vec::new();
    for group in tolerance::of_all(state, reports) {
        let here = group.live_voters.contains(&node) || group.sound_copies.contains(&node);
        if !here {
            continue;
        }
        let left = group.without(Some(node));
        let stops = !group.survives(node);
        if stops || left < 2 {
            let why = match stops {
                true => format!(
                    "{} stops: {} of {} voters would live",
                    group.name,
                    group.live_voters.iter().filter(|voter| **voter != node).count(),
                    group.voters
                ),
                false => format!("{} would have {left} sound copy", group.name),
            };
            found.push(AtRisk { database: group.database, name: group.name, stops, why });
        }
    }
    found
}

/// Something that a person began and did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// `node 2` or `DB7 on node 2`.
    pub object: String,
    /// About which node.
    pub node: NodeId,
    /// About which database.
    pub database: Option<DatabaseId>,
    /// Who began it, since when, and the command that ends it.
    pub words: String,
}

/// Maintenance and suspensions that are older than the DAG allows without a word.
pub fn forgotten(state: &ControlState, now_ms: u64) -> Vec<Forgotten> {
    let mut found = Vec::new();
    for policy in &state.node_policies {
        let begun = policy.maintenance.as_ref().and_then(|maintenance| maintenance.begun.as_ref());
        if let Some(age) = too_old(state, begun, now_ms) {
            let name = state.node(policy.id()).map_or_else(String::new, |node| node.name.clone());
            let words = format!(
                "node {name} is in maintenance {}; `dagctl node undrain {name}` ends it",
                said(begun, age)
            );
            let object = format!("node {name}");
            found.push(Forgotten { object, node: policy.id(), database: None, words });
        }
    }
    for policy in &state.copy_policies {
        let decided = policy.decided.as_ref();
        if let Some(age) = too_old(state, decided, now_ms) {
            let id = DatabaseId(policy.database);
            let name = state.database(id).map_or_else(String::new, |db| db.name.clone());
            let node = state.node(NodeId(policy.node)).map_or("", |node| &node.name);
            let what = if policy.suspended { "copy" } else { "activation of the copy" };
            let words = format!(
                "the {what} of {name} on {node} is suspended {}; \
                 `dagctl copy resume {name} --node {node}` ends it",
                said(decided, age)
            );
            let object = format!("{name} on node {node}");
            let node = NodeId(policy.node);
            found.push(Forgotten { object, node, database: Some(id), words });
        }
    }
    found
}

fn too_old(state: &ControlState, decided: Option<&Decided>, now_ms: u64) -> Option<u64> {
    let age = now_ms.saturating_sub(decided?.at_ms);
    (age >= state.settings.nag_after_ms).then_some(age)
}

fn said(decided: Option<&Decided>, age_ms: u64) -> String {
    let minutes = age_ms / 60_000;
    let age = match minutes {
        0..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    };
    match decided {
        Some(by) if by.reason.is_empty() => format!("for {age} by {}", by.who),
        Some(by) => format!("for {age} by {} ({})", by.who, by.reason),
        None => format!("for {age}"),
    }
}

#[cfg(test)]
#[path = "maintenance_test.rs"]
mod tests;
