//! Best copy selection: which copy becomes active when the active one cannot, or shall not, serve.
//!
//! Every copy gets a verdict, whether it was chosen or not, so that nobody has to guess why the
//! third choice was taken. First what forbids a copy is listed, all of it. Those that remain are
//! ranked: short queues before long ones, room on the node, the site where the database is active,
//! and then the activation preference; the length of a queue decides only where it matters.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::{CopyStatus, NodeId};
use thiserror::Error;

use crate::control::{ActivationPolicy, ControlState, DatabaseRecord};
use crate::report::{GateReport, Reports};

/// Log that a copy may miss and still be activated without a wait worth mentioning.
pub const SHORT_COPY_QUEUE: u64 = 10;
/// Entries that a copy may have to apply and still be activated without a wait worth mentioning.
pub const SHORT_REPLAY_QUEUE: u64 = 50;

/// What forbids a copy to become active.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Objection {
    /// It is what others are compared with.
    #[error("it is the active copy")]
    IsActive,
    /// Its fsyncs count in no quorum, so it cannot lead.
    #[error("it is a learner; moving to its site makes it a voter first")]
    Learner,
    /// Its node is silent.
    #[error("node {0} is not reachable")]
    Unreachable(NodeId),
    /// Nothing was heard of it.
    #[error("nothing was heard of this copy")]
    Unknown,
    /// Its node may not serve.
    #[error("the gate of its node is closed: {0}")]
    GateClosed(String),
    /// Its state does not allow it.
    #[error("it is {0}")]
    Status(CopyStatus),
    /// Its content differs.
    #[error("its content differed from the active copy's at the last digest mark")]
    DigestDiffers,
    /// The node takes no active copies.
    #[error("activation on node {node} is blocked{by}")]
    NodeBlocked {
        /// Which node.
        node: NodeId,
        /// By whom, and why.
        by: String,
    },
    /// The database is not activated anywhere.
    #[error("activation of the database is blocked{0}")]
    DatabaseBlocked(String),
    /// The policy keeps the database in its site.
    #[error("the policy {of} says IntrasiteOnly and the database is active in {active}")]
    OtherSite {
        /// Whose policy.
        of: &'static str,
        /// Where the database is active.
        active: String,
    },
    /// The copy takes no log.
    #[error("it is suspended{0}")]
    Suspended(String),
    /// The copy is not made active.
    #[error("its activation is suspended{0}")]
    ActivationSuspended(String),
    /// Another copy is to take its place, which stops it.
    #[error("operation {0} builds it anew")]
    Replaced(u64),
    /// The node serves as many databases as it may.
    #[error("node {node} serves {value} databases of at most {limit}")]
    MaximumActive {
        /// Which node.
        node: NodeId,
        /// How many it serves.
        value: u32,
        /// How many it may serve.
        limit: u32,
    },
}

impl Objection {
    /// The check's stable name, as `--skip` takes it.
    pub fn check(&self) -> &'static str {
        match self {
            Self::IsActive => "not-active-already",
            Self::Learner => "voter",
            Self::Unreachable(_) => "reachable",
            Self::Unknown => "known",
            Self::GateClosed(_) => "gate-open",
            Self::Status(_) => "copy-status",
            Self::DigestDiffers => "digest",
            Self::NodeBlocked { .. } => "node-policy",
            Self::DatabaseBlocked(_) => "database-policy",
            Self::OtherSite { .. } => "site-policy",
            Self::Suspended(_) => "suspended",
            Self::ActivationSuspended(_) => "activation-suspended",
            Self::Replaced(_) => "no-seed",
            Self::MaximumActive { .. } => "maximum-active",
        }
    }
}

/// How a copy compares with the others. Smaller is better, field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    long_queues: u8,
    above_preferred_maximum: bool,
    other_site: bool,
    preference: usize,
    queue: u64,
    node: NodeId,
}

/// What became of one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyVerdict {
    /// Where the copy stands.
    pub node: NodeId,
    /// 1 is the chosen one; none: it is not eligible.
    pub place: Option<usize>,
    /// All that forbids it; empty where it is eligible.
    pub objections: Vec<Objection>,
    /// One line for people.
    pub words: String,
}

/// What selection came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestCopy {
    /// Where the database shall be active; none: nowhere.
    pub chosen: Option<NodeId>,
    /// Of every copy: the eligible ones in their order, then the others by preference.
    pub verdicts: Vec<CopyVerdict>,
}

/// Chooses among all copies of a database but the active one.
pub fn select_best_copy(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
) -> BestCopy {
    let mut eligible: Vec<(Rank, CopyVerdict)> = Vec::new();
    let mut others = Vec::new();
    for (place, node) in state.preference(database).into_iter().enumerate() {
        let objections = objections(state, reports, database, node);
        if objections.is_empty() {
            let rank = rank(state, reports, database, node, place);
            let words = praise(reports, database, node, &rank);
            eligible.push((rank, CopyVerdict { node, place: None, objections, words }));
        } else {
            let words: Vec<String> = objections.iter().map(ToString::to_string).collect();
            let words = format!("not eligible: {}", words.join("; "));
            others.push(CopyVerdict { node, place: None, objections, words });
        }
    }
    eligible.sort_by_key(|(rank, _)| *rank);
    let chosen = eligible.first().map(|(_, verdict)| verdict.node);
    let placed = eligible
        .into_iter()
        .enumerate()
        .map(|(i, (_, verdict))| CopyVerdict { place: Some(i + 1), ..verdict });
    BestCopy { chosen, verdicts: placed.chain(others).collect() }
}

/// Everything that forbids the copy on a node to become active.
pub fn objections(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
) -> Vec<Objection> {
    let mut found = Vec::new();
    if reports.active(database.id()) == Some(node) {
        found.push(Objection::IsActive);
    }
    if !database.replica_on(node).is_some_and(|copy| copy.voter) {
        found.push(Objection::Learner);
    }
    stands(reports, database, node, &mut found);
    decided(state, reports, database, node, &mut found);
    found
}

/// What the copy's and the node's own state forbid.
fn stands(reports: &Reports, database: &DatabaseRecord, node: NodeId, found: &mut Vec<Objection>) {
    match reports.node(node) {
        Some(heard) if heard.reachable => {
            if let GateReport::Closed(why) = &heard.gate {
                found.push(Objection::GateClosed(why.clone()));
            }
        }
        _ => found.push(Objection::Unreachable(node)),
    }
    let Some(copy) = reports.copy(database.id(), node) else {
        return found.push(Objection::Unknown);
    };
    use CopyStatus as S;
    let allowed = matches!(
        copy.status,
        S::Healthy | S::SeedingSource | S::Mounted | S::Mounting | S::Dismounted
    );
    if !allowed {
        found.push(Objection::Status(copy.status));
    }
    if !copy.digest_equal {
        found.push(Objection::DigestDiffers);
    }
}

/// What people decided.
fn decided(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
    found: &mut Vec<Objection>,
) {
    let here = state.node_policy(node);
    let whole = state.database_policy(database.id());
    let copy = state.copy_policy(database.id(), node);
    let by = |decided: &Option<crate::control::Decided>| match decided {
        Some(decided) if decided.reason.is_empty() => format!(" by {}", decided.who),
        Some(decided) => format!(" by {}: {}", decided.who, decided.reason),
        None => String::new(),
    };
    if here.policy() == ActivationPolicy::Blocked {
        found.push(Objection::NodeBlocked { node, by: by(&here.decided) });
    }
    if whole.policy() == ActivationPolicy::Blocked {
        found.push(Objection::DatabaseBlocked(by(&whole.decided)));
    }
    let active = active_site(state, reports, database);
    if active.as_deref().is_some_and(|active| active != state.site_of(node)) {
        let policies = [("of the node", here.policy()), ("of the database", whole.policy())];
        for (of, policy) in policies {
            if policy == ActivationPolicy::IntrasiteOnly {
                let active = active.clone().unwrap_or_default();
                found.push(Objection::OtherSite { of, active });
            }
        }
    }
    if copy.suspended {
        found.push(Objection::Suspended(by(&copy.decided)));
    }
    if copy.activation_suspended {
        found.push(Objection::ActivationSuspended(by(&copy.decided)));
    }
    if let Some(seed) = state.seed(database.id(), node) {
        found.push(Objection::Replaced(seed.operation));
    }
    let (value, limit) = (reports.active_on(node), here.maximum_active);
    if limit != 0 && value >= limit && reports.active(database.id()) != Some(node) {
        found.push(Objection::MaximumActive { node, value, limit });
    }
}

/// Where the database is active now, or belongs.
pub fn active_site(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
) -> Option<String> {
    if let Some(node) = reports.active(database.id()) {
        return Some(state.site_of(node).to_string());
    }
    Some(database.active_site.clone()).filter(|site| !site.is_empty())
}

fn rank(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    node: NodeId,
    preference: usize,
) -> Rank {
    let copy = reports.copy(database.id(), node).expect("an eligible copy was heard of");
    let limit = state.node_policy(node).preferred_active;
    let other_site =
        active_site(state, reports, database).is_some_and(|active| active != state.site_of(node));
    Rank {
        long_queues: u8::from(copy.copy_queue >= SHORT_COPY_QUEUE)
            + u8::from(copy.replay_queue >= SHORT_REPLAY_QUEUE),
        above_preferred_maximum: limit != 0 && reports.active_on(node) >= limit,
        other_site,
        preference,
        queue: copy.copy_queue + copy.replay_queue,
        node,
    }
}

fn praise(reports: &Reports, database: &DatabaseRecord, node: NodeId, rank: &Rank) -> String {
    let copy = reports.copy(database.id(), node).expect("an eligible copy was heard of");
    let mut words = format!(
        "preference {}, copy queue {}, replay queue {}",
        rank.preference + 1,
        copy.copy_queue,
        copy.replay_queue
    );
    if rank.above_preferred_maximum {
        words += ", its node serves as many databases as it should";
    }
    if rank.other_site {
        words += ", in another site";
    }
    words
}

#[cfg(test)]
#[path = "best_copy_test.rs"]
mod tests;
