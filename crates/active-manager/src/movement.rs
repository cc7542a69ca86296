//! Whether a database may be made active on another copy, and how.
//!
//! Every check is named and shows what it found and what it needs; those whose failure costs time
//! or breaks a wish can be skipped by their own name, those whose failure could lose mail or leave
//! the database unmounted cannot. A plan carries a token over everything that it rests on: applying
//! it later is refused, with the part that changed, once the world has moved.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::NodeId;
use prost::Message;
use thiserror::Error;

use crate::best_copy::{BestCopy, Objection, objections, select_best_copy};
use crate::control::{ControlState, DatabaseRecord, FailedCheck};
use crate::placement::{self, Wish};
use crate::report::Reports;
use crate::seed::none_joins;
use crate::tolerance;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The best copy.
    Best,
    /// The copy on a node.
    Node(NodeId),
    /// The best copy of a site; its voters become the majority first.
    Site(String),
}

/// Why a move is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motive {
    /// A person names the database.
    Operator,
    /// Its node is drained.
    Drain,
    /// Its preferred copy can serve again.
    Balance,
}

/// A wish to move one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRequest {
    /// Where to.
    pub target: Target,
    /// Why.
    pub motive: Motive,
    /// Names of checks that may fail.
    pub skip: Vec<String>,
}

/// One check of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Stable; `--skip NAME` where it may be skipped.
    pub name: &'static str,
    /// What was found.
    pub value: String,
    /// What is needed.
    pub limit: String,
    /// It holds.
    pub passed: bool,
    /// It may be skipped.
    pub skippable: bool,
    /// It failed and was skipped.
    pub skipped: bool,
}

impl Check {
    pub(crate) fn new(
        name: &'static str,
        passed: bool,
        value: String,
        limit: impl Into<String>,
    ) -> Self {
        let skippable = SKIPPABLE.contains(&name);
        Self { name, value, limit: limit.into(), passed, skippable, skipped: false }
    }
}

/// Checks whose failure costs time or breaks a wish, and loses nothing.
pub const SKIPPABLE: [&str; 9] = [
    "node-policy",
    "database-policy",
    "site-policy",
    "activation-suspended",
    "copy-queue",
    "replay-queue",
    "preferred-active",
    "move-block-time",
    "redundancy",
];

/// One step of a move, in the order of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveStep {
    /// The voters become these nodes, by a joint change.
    ChangeVoters(Vec<NodeId>),
    /// The active copy takes no new writes.
    HoldWrites,
    /// The target has and applied everything.
    AwaitMatch(NodeId),
    /// Raft's leadership goes to the target; if it does not, the old leader's instance is rebuilt.
    Transfer(NodeId),
    /// The target applied its mount.
    AwaitMount(NodeId),
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovePlan {
    /// Where the database is active.
    pub from: Option<NodeId>,
    /// Where it will be.
    pub to: NodeId,
    /// In this order.
    pub steps: Vec<MoveStep>,
    /// Over everything that the plan rests on.
    pub token: PlanToken,
}

/// What a request to move comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveDecision {
    /// All checks, also those that hold.
    pub checks: Vec<Check>,
    /// Of every copy, where the target was not named.
    pub selection: Option<BestCopy>,
    /// Present where nothing forbids it.
    pub plan: Option<MovePlan>,
}

impl MoveDecision {
    /// The first check that forbids the move, for a refusal.
    pub fn refusal(&self, database: &str) -> Option<FailedCheck> {
        let check = self.checks.iter().find(|check| !check.passed && !check.skipped)?;
        let refused =
            FailedCheck::new(check.name, database, check.value.clone(), check.limit.clone());
        Some(match check.skippable {
            true => refused.advice(format!("`--skip {}` moves it all the same", check.name)),
            false => refused,
        })
    }
}

/// What a plan rests on, in four parts, so that a refusal can name the part that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanToken([u32; 4]);

const PARTS: [&str; 4] =
    ["the lineage", "the database's copies", "a policy or suspension", "the active copy"];

/// The plan was made for a world that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StalePlan {
    /// The token is no token.
    #[error("not a plan's token: it looks like `p1-` and four groups of eight digits")]
    Unreadable,
    /// Something that the plan rests on is not as it was.
    #[error("the world moved since the plan was made: {0} changed; make a new plan")]
    Changed(&'static str),
}

impl core::fmt::Display for PlanToken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "p1")?;
        self.0.iter().try_for_each(|part| write!(f, "-{part:08x}"))
    }
}

impl core::str::FromStr for PlanToken {
    type Err = StalePlan;
    fn from_str(text: &str) -> Result<Self, StalePlan> {
        let rest = text.strip_prefix("p1-").ok_or(StalePlan::Unreadable)?;
        let groups: Vec<&str> = rest.split('-').collect();
        let parts: Result<Vec<u32>, _> = groups
            .iter()
            .map(|group| match group.len() {
                8 => u32::from_str_radix(group, 16).map_err(|_| StalePlan::Unreadable),
                _ => Err(StalePlan::Unreadable),
            })
            .collect();
        parts?.try_into().map(Self).map_err(|_| StalePlan::Unreadable)
    }
}

impl PlanToken {
    /// The token of how things stand for moving a database to a node.
    pub fn of(
        state: &ControlState,
        reports: &Reports,
        database: &DatabaseRecord,
        to: NodeId,
    ) -> Self {
        let lineage = state.last_lineage();
        let active = reports.active(database.id()).map_or(0, |node| node.0);
        let mut policies = state.database_policy(database.id()).encode_to_vec();
        for copy in &database.replicas {
            policies.extend(state.node_policy(copy.node()).encode_to_vec());
            policies.extend(state.copy_policy(database.id(), copy.node()).encode_to_vec());
        }
        Self([
            part(&[&lineage.epoch.to_be_bytes(), &lineage.activation.0]),
            part(&[&database.encode_to_vec()]),
            part(&[&policies]),
            part(&[&active.to_be_bytes(), &to.0.to_be_bytes()]),
        ])
    }

    /// Whether a plan with this token may still be carried out.
    pub fn check(&self, now: &Self) -> Result<(), StalePlan> {
        let changed = (0..PARTS.len()).find(|i| self.0[*i] != now.0[*i]);
        changed.map_or(Ok(()), |i| Err(StalePlan::Changed(PARTS[i])))
    }
}

fn part(pieces: &[&[u8]]) -> u32 {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(&(piece.len() as u64).to_le_bytes()).update(piece);
    }
    let mut head = [0; 4];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
    u32::from_be_bytes(head)
}

/// Decides about a move. Nothing is done here: the same inputs give the same decision.
pub fn decide_move(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    request: &MoveRequest,
) -> MoveDecision {
    let mut checks = known_skips(&request.skip);
    let (to, selection) = choose(state, reports, database, request, &mut checks);
    if let Some(to) = to {
        checks.extend(target_checks(state, reports, database, request, to));
    }
    for check in checks.iter_mut().filter(|check| !check.passed && check.skippable) {
        check.skipped = request.skip.iter().any(|name| name == check.name);
    }
    let allowed = checks.iter().all(|check| check.passed || check.skipped);
    let plan = to.filter(|_| allowed).map(|to| plan(state, reports, database, to));
    MoveDecision { checks, selection, plan }
}

/// A misspelt `--skip` must not be taken for one that was not needed.
fn known_skips(skip: &[String]) -> Vec<Check> {
    let unknown = skip.iter().filter(|name| !SKIPPABLE.contains(&name.as_str()));
    let check = |name: &String| {
        let mut check = Check::new("skip-known", false, name.clone(), SKIPPABLE.join(", "));
        let near = crate::names::nearest(name, SKIPPABLE);
        if !near.is_empty() {
            check.limit = format!("perhaps {}", near.join(" or "));
        }
        check
    };
    unknown.map(check).collect()
}

fn choose(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    request: &MoveRequest,
    checks: &mut Vec<Check>,
) -> (Option<NodeId>, Option<BestCopy>) {
    match &request.target {
        Target::Node(node) => {
            let has = database.replica_on(*node).is_some();
            let value = if has { format!("node {node}") } else { format!("none on node {node}") };
            let places: Vec<String> =
                database.replicas.iter().map(|copy| copy.node().to_string()).collect();
            let limit = format!("a copy; there are some on nodes {}", places.join(", "));
            checks.push(Check::new("copy-exists", has, value, limit));
            (has.then_some(*node), None)
        }
        Target::Best => {
            let selection = select_best_copy(state, reports, database);
            push_selected(checks, &selection, "any copy that may become active");
            (selection.chosen, Some(selection))
        }
        Target::Site(site) => {
            let selection = select_in_site(state, reports, database, site);
            push_selected(checks, &selection, &format!("a copy in {site}"));
            (selection.chosen, Some(selection))
        }
    }
}

fn push_selected(checks: &mut Vec<Check>, selection: &BestCopy, limit: &str) {
    let value = match selection.chosen {
        Some(node) => format!("node {node}"),
        None => {
            let each = selection.verdicts.iter();
            let each: Vec<String> =
                each.map(|verdict| format!("node {}: {}", verdict.node, verdict.words)).collect();
            each.join("; ")
        }
    };
    checks.push(Check::new("best-copy", selection.chosen.is_some(), value, limit));
}

/// Selection as it will be once the voters stand as a move to the site puts them.
fn select_in_site(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    site: &str,
) -> BestCopy {
    let mut moved = database.clone();
    if let Some(voters) = site_voters(state, database, site) {
        for copy in &mut moved.replicas {
            copy.voter = voters.contains(&copy.node());
        }
    }
    moved.replicas.retain(|copy| state.site_of(copy.node()) == site);
    select_best_copy(state, reports, &moved)
}

/// The voters of the database once it is active in a site; none where they need not change.
fn site_voters(state: &ControlState, database: &DatabaseRecord, site: &str) -> Option<Vec<NodeId>> {
    if database.active_site.is_empty() || database.active_site == site {
        return None;
    }
    let fit = |node: &NodeId| database.replica_on(*node).is_some_and(|copy| copy.unfit.is_empty());
    let nodes = state.preference(database).into_iter().filter(fit).collect();
    let wish = Wish { site: Some(site.to_string()), nodes, everywhere: false };
    placement::place(&state.placement(), &wish).ok().map(|placed| placed.voters())
}

fn target_checks(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    request: &MoveRequest,
    to: NodeId,
) -> Vec<Check> {
    let mut found = objections(state, reports, database, to);
    let crosses = site_voters(state, database, state.site_of(to)).is_some();
    // A learner in the site that the database moves to becomes a voter by the plan's first step.
    found.retain(|objection| !(crosses && *objection == Objection::Learner));
    let mut checks: Vec<Check> = NEEDED
        .iter()
        .map(|(name, limit)| {
            let objection = found.iter().find(|objection| objection.check() == *name);
            let value = objection.map_or_else(|| "as needed".into(), ToString::to_string);
            Check::new(name, objection.is_none(), value, *limit)
        })
        .collect();
    checks.push(control_majority(reports));
    checks.extend(queues(state, reports, database, to));
    checks.push(room(state, reports, to));
    if crosses {
        checks.push(none_joins(state, database));
    }
    if crosses || request.motive == Motive::Balance {
        checks.push(block_time(state, reports, database));
    }
    if request.motive == Motive::Drain {
        checks.push(redundancy(state, reports, database));
    }
    checks
}

/// What best copy selection looks at, as checks of a move.
const NEEDED: [(&str, &str); 14] = [
    ("not-active-already", "another copy than the active one"),
    ("voter", "a copy that votes"),
    ("reachable", "frames are exchanged with its node"),
    ("known", "its node reports it"),
    ("gate-open", "its node's gate is open"),
    ("copy-status", "Healthy"),
    ("digest", "content equal at the last digest mark"),
    ("node-policy", "activation allowed on its node"),
    ("database-policy", "activation of the database allowed"),
    ("site-policy", "its site allowed"),
    ("suspended", "not suspended"),
    ("activation-suspended", "activation not suspended"),
    ("no-seed", "no new copy is built in its place"),
    ("maximum-active", "below its node's maximum"),
];

fn control_majority(reports: &Reports) -> Check {
    let leader = reports.control.leader;
    let value = leader.map_or_else(|| "none known".into(), |node| format!("node {node}"));
    Check::new("control-leader", leader.is_some(), value, "a leader of the control group")
}

fn queues(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    to: NodeId,
) -> Vec<Check> {
    let Some(copy) = reports.copy(database.id(), to) else { return Vec::new() };
    let check = |name, value: u64, limit: u64| {
        let words = format!("at most {limit} entries");
        Check::new(name, value <= limit, format!("{value} entries"), words)
    };
    alloc::vec![
        check("copy-queue", copy.copy_queue, state.settings.copy_queue_max),
        check("replay-queue", copy.replay_queue, state.settings.replay_queue_max),
    ]
}

fn room(state: &ControlState, reports: &Reports, to: NodeId) -> Check {
    let (value, limit) = (reports.active_on(to), state.node_policy(to).preferred_active);
    let words = if limit == 0 { "no limit".into() } else { format!("below {limit}") };
    Check::new("preferred-active", limit == 0 || value < limit, format!("{value} active"), words)
}

/// One move for balance or for a site per block time (I16).
pub(crate) fn block_time(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
) -> Check {
    let last = state.database_policy(database.id()).last_move_ms;
    let since = reports.at_ms.saturating_sub(last);
    let limit = state.settings.move_block_ms;
    let value = match last {
        0 => "never moved for balance or a site".into(),
        _ => format!("moved {} s ago", since / 1000),
    };
    let words = format!("at least {} s between two moves", limit / 1000);
    Check::new("move-block-time", last == 0 || since >= limit, value, words)
}

fn redundancy(state: &ControlState, reports: &Reports, database: &DatabaseRecord) -> Check {
    let tolerance = tolerance::of_database(state, reports, database);
    let without = tolerance.without(reports.active(database.id()));
    let value = format!("{without} sound copies without the drained node");
    Check::new("redundancy", without >= 2, value, "at least 2 sound copies")
}

fn plan(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    to: NodeId,
) -> MovePlan {
    let mut steps = Vec::new();
    if let Some(voters) = site_voters(state, database, state.site_of(to)) {
        steps.push(MoveStep::ChangeVoters(voters));
    }
    steps.extend([
        MoveStep::HoldWrites,
        MoveStep::AwaitMatch(to),
        MoveStep::Transfer(to),
        MoveStep::AwaitMount(to),
    ]);
    let token = PlanToken::of(state, reports, database, to);
    MovePlan { from: reports.active(database.id()), to, steps, token }
}

#[cfg(test)]
#[path = "movement_test.rs"]
mod tests;
