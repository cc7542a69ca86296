//! Whether a node may join the DAG, take a lost one's place, or follow the witness; and who votes in
//! the control group with it.
//!
//! A node that joins is empty and belongs to nothing: what it is was asked of itself. Where it takes
//! a lost node's place, that node's store is given up for ever, so it must be silent and nothing that
//! was granted to it can be open any more.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::{DagId, DatabaseId, Millis, NodeId, StoreId};

use crate::control::definition::NodeDefinition;
use crate::control::{ControlState, FailedCheck, NodeRecord, address_taken, name_taken, unsettled};
use crate::movement::Check;
use crate::placement::{self, Node};
use crate::removal::MEMBERS;
use crate::report::Reports;
use crate::seed;

/// How a node comes to belong to the DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was none of its nodes.
    New,
    /// It has the number and the name of a node whose store is lost.
    Store,
    /// It is a witness, and this one leaves.
    Witness(NodeId),
}

/// What a node said of itself when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The number in its own settings.
    pub node: u64,
    /// The name in its own settings.
    pub name: String,
    /// Its disk.
    pub store: StoreId,
    /// The DAG that it belongs to, or is prepared for; none: to none.
    pub dag: Option<DagId>,
    /// The version of its program.
    pub version: String,
}

/// Who wants to join.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// As its record will have it.
    pub node: NodeDefinition,
    /// What it said, or why it said nothing.
    pub answer: Result<Answer, String>,
}

/// What joining takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joining {
    /// All checks, also those that hold.
    pub checks: Vec<Check>,
    /// Who votes in the control group afterwards; none: the voters stay.
    pub voters: Option<Vec<NodeId>>,
}

/// Plans it. `own`: the version of this program; `wait`: what is left of the takeover wait for the
/// node whose place is taken, none where this node cannot say.
pub fn plan_joining(
    state: &ControlState,
    reports: &Reports,
    kind: Kind,
    candidate: &Candidate,
    own: &str,
    wait: Option<Millis>,
) -> Joining {
    let node = &candidate.node;
    let voters = voters_after(state, kind, node);
    let mut checks = alloc::vec![seed::control_majority(reports)];
    checks.push(answers(candidate));
    if let Ok(answer) = &candidate.answer {
        checks.extend(itself(state, node, answer, own));
    }
    checks.push(free("name-free", name_taken(state, node), "a name of its own"));
    checks.push(free("address-free", address_taken(state, node), "addresses of its own"));
    match kind {
        Kind::New => checks.extend(new(state, reports, node)),
        Kind::Store => checks.extend(lost(state, reports, candidate, wait)),
        Kind::Witness(_) => {}
    }
    let after = voters.clone().unwrap_or_else(|| voters_of(state));
    checks.extend(control(state, reports, kind, node, &after));
    checks.push(nothing_runs(state, node.node));
    checks.push(one_at_a_time(state, kind, node.node));
    Joining { checks, voters }
}

/// The first check that fails, for a refusal.
pub fn refusal(checks: &[Check], subject: &str) -> Option<FailedCheck> {
    let check = checks.iter().find(|check| !check.passed)?;
    let refused = FailedCheck::new(check.name, subject, check.value.clone(), check.limit.clone());
    Some(match check.name {
        "node-answers" => refused.advice(
            "start holdfastd there with an empty root folder, and name its listener for operators",
        ),
        "node-number" | "node-name" => {
            refused.advice("correct `node_id` and `name` in its settings, or the command")
        }
        "other-dag" => refused.advice("a node belongs to one DAG for ever: give it an empty root"),
        "node-empty" => {
            refused.advice("stop it, remove its root folder, start it, and repeat this")
        }
        "same-version" => refused.advice("install this version there first"),
        "number-free" => refused.advice("`dagctl node replace` takes the place of a lost node"),
        "name-free" | "address-free" => refused.advice("`dagctl status` shows those in use"),
        "site-known" => refused.advice("sites are given when a DAG is made; `dagctl status`"),
        "one-witness" => refused.advice("`dagctl witness replace` lets another one follow it"),
        "site-list" => refused.advice("start the nodes of the site that do not answer"),
        "control-majority" => refused.advice("heal other control voters first"),
        "old-silent" => refused.advice("stop it for good first, if it shall be given up"),
        "takeover-wait" => refused.advice("repeat this when it is over"),
        "operation-running" | "one-at-a-time" => {
            refused.advice("`dagctl ops list` shows it; repeat this when it is over")
        }
        _ => refused,
    })
}

/// The voters that placement wants with it; none where they stay.
fn voters_after(state: &ControlState, kind: Kind, node: &NodeDefinition) -> Option<Vec<NodeId>> {
    let mut dag = state.placement();
    let leaves = |id: NodeId| state.node(id).is_some_and(NodeRecord::is_leaving);
    let gone = |id: NodeId| kind == Kind::Witness(id) || leaves(id) || id == NodeId(node.node);
    dag.nodes.retain(|other| !gone(other.id));
    let (site, witness) = (node.site.clone(), node.witness);
    dag.nodes.push(Node { id: NodeId(node.node), site, witness, preferred: 0, copies: 0 });
    dag.nodes.sort_by_key(|node| node.id);
    let wanted = placement::control_voters(&dag).voters;
    // A copy that is replaced has its vote to hand on even where the same nodes vote.
    let hands_on = kind == Kind::Store && wanted.contains(&NodeId(node.node));
    (hands_on || wanted != voters_of(state)).then_some(wanted)
}

/// In the order of their numbers.
fn voters_of(state: &ControlState) -> Vec<NodeId> {
    let group = state.database(DatabaseId::CONTROL);
    let copies = group.into_iter().flat_map(|group| &group.replicas);
    let mut voters: Vec<NodeId> =
        copies.filter(|copy| copy.voter).map(|copy| copy.node()).collect();
    voters.sort_unstable();
    voters
}

fn answers(candidate: &Candidate) -> Check {
    let at = &candidate.node.admin_address;
    let value = match &candidate.answer {
        Ok(_) => format!("{at} answers"),
        Err(why) => format!("{at}: {why}"),
    };
    Check::new("node-answers", candidate.answer.is_ok(), value, "its listener for operators")
}

/// What it is by its own word.
fn itself(state: &ControlState, node: &NodeDefinition, answer: &Answer, own: &str) -> Vec<Check> {
    let number = answer.node == node.node && node.node > 0;
    let value = format!("number {} in its own settings", answer.node);
    let mut checks = alloc::vec![Check::new("node-number", number, value, node.node.to_string())];
    let value = format!("called {} in its own settings", answer.name);
    checks.push(Check::new("node-name", answer.name == node.name, value, node.name.clone()));
    let dag = state.dag.id();
    let value = match answer.dag {
        Some(other) if other != dag => format!("of DAG {other}"),
        Some(_) => "of this DAG".into(),
        None => "of none".into(),
    };
    let same = answer.dag.is_none_or(|other| other == dag);
    checks.push(Check::new("other-dag", same, value, "of no DAG"));
    // One that was admitted with this very store, and goes on where it was left.
    let goes_on = state.node(NodeId(node.node)).is_some_and(|known| known.store() == answer.store);
    let value = match answer.dag {
        None => "empty",
        Some(_) if goes_on => "admitted with this store already",
        Some(_) => "it has a store that this DAG does not count",
    };
    let empty = answer.dag.is_none() || goes_on;
    checks.push(Check::new("node-empty", empty, value.into(), "an empty store"));
    let value = format!("version {}", answer.version);
    checks.push(Check::new("same-version", answer.version == own, value, format!("version {own}")));
    checks
}

fn free(name: &'static str, taken: Option<FailedCheck>, limit: &str) -> Check {
    let passed = taken.is_none();
    Check::new(name, passed, taken.map_or_else(|| "free".into(), |check| check.value), limit)
}

/// What a node has to find that was none before.
fn new(state: &ControlState, reports: &Reports, node: &NodeDefinition) -> Vec<Check> {
    let old = state.node(NodeId(node.node)).filter(|known| !known.is_joining());
    let value = old.map_or_else(|| "free".into(), |old| format!("that of {}", old.name));
    let mut checks = alloc::vec![Check::new("number-free", old.is_none(), value, "unused")];
    if node.witness {
        let other = state.nodes.iter().find(|other| other.witness && other.node != node.node);
        let value = other.map_or_else(|| "none".into(), |other| other.name.clone());
        checks.push(Check::new("one-witness", other.is_none(), value, "no other witness"));
        return checks;
    }
    let known: Vec<&str> = state.sites.iter().map(|site| site.name.as_str()).collect();
    let found = state.sites.iter().any(|site| site.name == node.site && site.started);
    let limit = format!("one of {}", known.join(", "));
    checks.push(Check::new("site-known", found, node.site.clone(), limit));
    let here =
        |other: &&NodeRecord| !other.witness && other.site == node.site && other.node != node.node;
    let nodes: Vec<NodeId> = state.nodes.iter().filter(here).map(NodeRecord::id).collect();
    let live = nodes.iter().filter(|node| reports.reaches(**node)).count();
    // With itself, which answered.
    let enough = live > nodes.len() / 2 && live + 1 > nodes.len().div_ceil(2);
    let value = format!("{live} of {} nodes of site {} answer without it", nodes.len(), node.site);
    checks.push(Check::new("site-list", enough, value, "more than half, without it and with it"));
    checks
}

/// The node whose place is taken is silent, and no gate there can be open.
fn lost(
    state: &ControlState,
    reports: &Reports,
    candidate: &Candidate,
    wait: Option<Millis>,
) -> Vec<Check> {
    let node = &candidate.node;
    let old = state.node(NodeId(node.node));
    let value = old.map_or_else(|| format!("no node {}", node.node), |old| old.name.clone());
    let mut checks = alloc::vec![Check::new("member", old.is_some(), value, "a node of this DAG")];
    let heard = reports.node(NodeId(node.node));
    let itself = |answer: &Answer| old.is_some_and(|old| old.store() == answer.store);
    let itself = candidate.answer.as_ref().is_ok_and(itself);
    let reached = heard.is_some_and(|heard| heard.reachable);
    let value = match heard {
        _ if itself => format!("{} answers, and runs from the old store", node.admin_address),
        Some(heard) if reached => format!("it answered {} ms ago", heard.last_heard.0),
        _ => "it does not answer".into(),
    };
    let silent = !itself && !reached;
    checks.push(Check::new("old-silent", silent, value, "a node that does not answer any more"));
    let value = match wait {
        None => "this node grants no gates".into(),
        Some(Millis(0)) => "over".into(),
        Some(Millis(left)) => format!("{}.{} s left", left / 1000, left % 1000 / 100),
    };
    let over = wait == Some(Millis(0));
    checks.push(Check::new("takeover-wait", over, value, "0 s left: its gate is surely closed"));
    checks
}

/// The voters before, without the one that goes, and the voters after must both have a majority.
fn control(
    state: &ControlState,
    reports: &Reports,
    kind: Kind,
    node: &NodeDefinition,
    after: &[NodeId],
) -> Vec<Check> {
    let own = NodeId(node.node);
    let gone = match kind {
        Kind::New => None,
        Kind::Store => Some(own),
        Kind::Witness(old) => Some(old),
    };
    let lives = |other: &&NodeId| {
        reports.node(**other).is_some_and(|known| known.reachable && known.control_copy_runs)
    };
    let mut before = voters_of(state);
    // Until the new copy has it, a replaced copy's vote counts, and nobody casts it.
    if kind == Kind::Store && state.node(own).is_some_and(|old| old.replaced != 0) {
        before.push(own);
        before.sort_unstable();
        before.dedup();
    }
    let live_before = before.iter().filter(|voter| Some(**voter) != gone).filter(lives).count();
    // It answered, or the check for that has failed.
    let new = after.iter().filter(|voter| **voter == own).count();
    let live_after = after.iter().filter(|voter| **voter != own).filter(lives).count() + new;
    let majority = |live: usize, voters: usize, when: &str| {
        let needed = voters / 2 + 1;
        let value = format!("{live} of {voters} control voters live {when}");
        Check::new("control-majority", live >= needed, value, format!("at least {needed}"))
    };
    alloc::vec![
        majority(live_before, before.len(), "before"),
        majority(live_after, after.len(), "after"),
    ]
}

fn nothing_runs(state: &ControlState, node: u64) -> Check {
    let of_node = format!("node {node}");
    let running = state.running().find(|known| known.object == of_node || known.object == MEMBERS);
    let value: String = match running {
        Some(known) => format!("operation {} on {}", known.operation, known.object),
        None => "nothing runs".into(),
    };
    Check::new("operation-running", running.is_none(), value, "none on it or on the list of nodes")
}

fn one_at_a_time(state: &ControlState, kind: Kind, node: u64) -> Check {
    let retired = |other: &NodeRecord| kind == Kind::Witness(other.id());
    let mut known = state.clone();
    known.nodes.retain(|other| !retired(other));
    let value = unsettled(&known, Some(NodeId(node)));
    let passed = value.is_none();
    let value = value.unwrap_or_else(|| "none".into());
    Check::new("one-at-a-time", passed, value, "no other node joins or leaves")
}

#[cfg(test)]
#[path = "joining_test.rs"]
mod tests;
