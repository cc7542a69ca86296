//! Whether a node may leave the DAG for good, and who votes in the control group without it.
//!
//! A node may be switched off, or dead, when it leaves: then the others have to be enough for
//! everything by themselves. The one thing that may need its own voice is its site's list of nodes,
//! of which more than half must have the change on disk: of two nodes, both. A lost node of two is
//! replaced, not removed.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::{DatabaseId, NodeId};

use crate::control::{ControlState, FailedCheck, NodeRecord};
use crate::movement::Check;
use crate::placement;
use crate::report::Reports;
use crate::seed;

/// What the departure of a node takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// All checks, also those that hold.
    pub checks: Vec<Check>,
    /// Who votes in the control group afterwards; none: the voters stay.
    pub voters: Option<Vec<NodeId>>,
}

/// Plans a departure.
pub fn plan_removal(state: &ControlState, reports: &Reports, node: &NodeRecord) -> Removal {
    let voters = voters_after(state, node.id());
    let mut checks = alloc::vec![seed::control_majority(reports), data_node(node)];
    checks.push(holds_nothing(state, node.id()));
    checks.push(not_control_leader(reports, node.id()));
    checks.extend(site(state, reports, node));
    if let Some(after) = &voters {
        checks.extend(control(state, reports, node.id(), after));
    }
    checks.extend(directory(state, reports, node.id()));
    checks.push(nothing_runs(state, node.id()));
    Removal { checks, voters }
}

/// The first check that fails, for a refusal.
pub fn refusal(checks: &[Check], node: &NodeRecord) -> Option<FailedCheck> {
    let check = checks.iter().find(|check| !check.passed)?;
    let (value, limit) = (check.value.clone(), check.limit.clone());
    let refused = FailedCheck::new(check.name, node.name.clone(), value, limit);
    let name = &node.name;
    Some(match check.name {
        "data-node" => refused.advice("a witness is replaced, not removed: `dagctl witness replace`"),
        "holds-no-copies" => {
            refused.advice(format!("`dagctl copy remove DB@{name}` takes each of them away"))
        }
        "not-control-leader" => {
            refused.advice(format!("restart {name}: another node takes the lead meanwhile"))
        }
        "site-list" => refused.advice(
            "start the nodes of the site that do not answer; `dagctl node replace` brings a lost one back",
        ),
        "control-majority" => refused.advice("heal other control voters first"),
        "directory-not-active" => refused.advice("`dagctl db move directory`"),
        "directory-majority" | "directory-copy" => {
            refused.advice("heal another copy of the directory first; `dagctl copies directory`")
        }
        "operation-running" => {
            refused.advice("`dagctl ops list` shows it; repeat this when it is over")
        }
        _ => refused,
    })
}

/// The voters that placement wants without a node that votes; none where it does not vote.
fn voters_after(state: &ControlState, node: NodeId) -> Option<Vec<NodeId>> {
    let control = state.database(DatabaseId::CONTROL)?;
    control.replica_on(node).filter(|copy| copy.voter)?;
    let mut dag = state.placement();
    dag.nodes.retain(|other| other.id != node);
    Some(placement::control_voters(&dag).voters)
}

fn data_node(node: &NodeRecord) -> Check {
    let value = if node.witness { "a witness" } else { "a data node" };
    Check::new("data-node", !node.witness, value.into(), "a node that holds databases")
}

fn holds_nothing(state: &ControlState, node: NodeId) -> Check {
    let mailbox = state.databases.iter().filter(|database| database.is_mailbox_database());
    let held = mailbox.filter(|database| {
        database.replica_on(node).is_some() || state.seed(database.id(), node).is_some()
    });
    let held: Vec<&str> = held.map(|database| database.name.as_str()).collect();
    let value = if held.is_empty() { "none".to_string() } else { held.join(", ") };
    Check::new("holds-no-copies", held.is_empty(), value, "no copy of a mailbox database")
}

fn not_control_leader(reports: &Reports, node: NodeId) -> Check {
    let leader = reports.control.leader;
    let value = leader.map_or_else(|| "none known".into(), |leader| format!("node {leader}"));
    Check::new("not-control-leader", leader != Some(node), value, "another node leads")
}

/// Its site keeps a node, and more than half of its list, old and new, takes the change.
fn site(state: &ControlState, reports: &Reports, node: &NodeRecord) -> Vec<Check> {
    let old: Vec<NodeId> = state
        .nodes
        .iter()
        .filter(|other| !other.witness && other.site == node.site)
        .map(NodeRecord::id)
        .collect();
    let new: Vec<NodeId> = old.iter().copied().filter(|other| *other != node.id()).collect();
    let value = format!("{} other data nodes in site {}", new.len(), node.site);
    let mut checks = alloc::vec![Check::new("site-keeps-a-node", !new.is_empty(), value, "1")];
    let live = |list: &[NodeId]| list.iter().filter(|other| reports.reaches(**other)).count();
    let (of_old, of_new) = (live(&old), live(&new));
    let enough = of_old > old.len() / 2 && of_new > new.len() / 2;
    let value = format!(
        "{of_old} of {} nodes of site {} answer, and {of_new} of {} without it",
        old.len(),
        node.site,
        new.len()
    );
    checks.push(Check::new("site-list", enough, value, "more than half of both"));
    checks
}

/// The voters before, without its own voice, and the voters after must both have a majority.
fn control(state: &ControlState, reports: &Reports, node: NodeId, after: &[NodeId]) -> Vec<Check> {
    let group = state.database(DatabaseId::CONTROL);
    let copies = group.into_iter().flat_map(|group| &group.replicas);
    let before: Vec<NodeId> = copies.filter(|copy| copy.voter).map(|copy| copy.node()).collect();
    let lives = |other: NodeId| {
        reports.node(other).is_some_and(|known| known.reachable && known.control_copy_runs)
    };
    let majority = |voters: &[NodeId], when: &str| {
        let live = voters.iter().filter(|voter| **voter != node && lives(**voter)).count();
        let needed = voters.len() / 2 + 1;
        let value = format!("{live} of {} control voters live {when}", voters.len());
        Check::new("control-majority", live >= needed, value, format!("at least {needed}"))
    };
    alloc::vec![majority(&before, "without it"), majority(after, "after it")]
}

/// Its copy of the directory goes with it.
fn directory(state: &ControlState, reports: &Reports, node: NodeId) -> Vec<Check> {
    let Some(directory) = state.database(DatabaseId::DIRECTORY) else { return Vec::new() };
    if directory.replica_on(node).is_none() {
        return Vec::new();
    }
    let renamed = |mut check: Check| {
        check.name = match check.name {
            "not-active" => "directory-not-active",
            "last-healthy-copy" => "directory-copy",
            "majority" => "directory-majority",
            "operation-running" => "directory-operation",
            _ => return None,
        };
        Some(check)
    };
    let checks = seed::check_removal(state, reports, directory, node);
    checks.into_iter().filter_map(renamed).collect()
}

fn nothing_runs(state: &ControlState, node: NodeId) -> Check {
    let of_node = format!("node {node}");
    let running = state.running().find(|known| known.object == of_node || known.object == MEMBERS);
    let value: String = match running {
        Some(known) => format!("operation {} on {}", known.operation, known.object),
        None => "nothing runs".into(),
    };
    Check::new("operation-running", running.is_none(), value, "none on it or on the list of nodes")
}

/// What operations about the list of nodes are about: one of them at a time.
pub const MEMBERS: &str = "the list of nodes";

#[cfg(test)]
#[path = "removal_test.rs"]
mod tests;
