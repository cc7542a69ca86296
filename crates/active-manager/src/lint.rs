//! What is wrong with a DAG's layout and settings while everything still works.
//!
//! [`health`](crate::health) says what has failed, [`tolerance`](crate::tolerance) what the next
//! loss stops. Lint judges what was chosen: where sites, voters and copies stand, and what people
//! set and left. It changes nothing, and a finding may be a choice; but none of them should be found
//! out on the day when it matters. What a node did not tell is a finding too, never a pass.
//!
//! | module | what it judges |
//! | --- | --- |
//! | `layout` | sites, the witness, the control group's voters, hosts, timeouts |
//! | `databases` | copies, voters, preferences, where each could become active |
//! | `settings` | maxima, blocks, balancing, limits, operations that never end |
//! | `nodes` | what nodes said of themselves: versions, listeners, clocks, disks |

mod databases;
mod layout;
mod nodes;
mod settings;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dag_types::{DatabaseId, NodeId};

use crate::control::{ControlState, DatabaseRecord, NodeRecord};
use crate::report::Reports;

/// What was found. Names are stable; the order is that of weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Code {
    FewControlVoters,
    EvenControlVoters,
    NoWitness,
    WitnessInDataSite,
    ControlMajorityInSite,
    SingleSite,
    SiteWithOneNode,
    SharedHost,
    WitnessWithoutVote,
    ShortTimeouts,
    OneCopy,
    CopiesInOneSite,
    EvenVoters,
    UnfitCopy,
    DirectoryCopyMissing,
    NoFailoverTarget,
    UnevenPreferences,
    MaximaTooLow,
    NoMaximum,
    NodeBlocked,
    BalancingOff,
    ShortMoveBlock,
    QueueLimitHigh,
    OldOperation,
    Forgotten,
    DiskLow,
    ClockSkew,
    VersionsDiffer,
    InsecureListener,
    NodeNotHeard,
}

impl Code {
    /// As it is shown and matched.
    pub fn name(self) -> &'static str {
        CODES[self as usize].1
    }

    /// What follows from it, for people.
    pub fn why(self) -> &'static str {
        CODES[self as usize].2
    }
}

/// Every code, its name, and what follows from it. `docs/lint.md` has the same rows.
pub const CODES: [(Code, &str, &str); 30] = [
    (
        Code::FewControlVoters,
        "FEW_CONTROL_VOTERS",
        "the loss of one node stops the control group: gates close and nothing can be changed",
    ),
    (
        Code::EvenControlVoters,
        "EVEN_CONTROL_VOTERS",
        "an even number survives no more losses than one less, and splits in halves that both stop",
    ),
    (
        Code::NoWitness,
        "NO_WITNESS",
        "no third place decides when a site is lost, and no loss is proven zero without a receipt",
    ),
    (
        Code::WitnessInDataSite,
        "WITNESS_IN_DATA_SITE",
        "losing that site takes the control majority with it, so the other site cannot go on",
    ),
    (
        Code::ControlMajorityInSite,
        "CONTROL_MAJORITY_IN_SITE",
        "losing that site leaves no majority of the control voters",
    ),
    (Code::SingleSite, "SINGLE_SITE", "whatever strikes the one place stops all databases"),
    (
        Code::SiteWithOneNode,
        "SITE_WITH_ONE_NODE",
        "whatever is active there has no other copy in its site to fail over to",
    ),
    (Code::SharedHost, "SHARED_HOST", "these nodes are lost together"),
    (
        Code::WitnessWithoutVote,
        "WITNESS_WITHOUT_VOTE",
        "it holds no mail and does not vote, so it is of no use",
    ),
    (
        Code::ShortTimeouts,
        "SHORT_TIMEOUTS",
        "voters in several sites call elections when the line between them is only slow",
    ),
    (Code::OneCopy, "ONE_COPY", "the loss of one disk loses its mail"),
    (Code::CopiesInOneSite, "COPIES_IN_ONE_SITE", "the loss of that site loses its mail"),
    (
        Code::EvenVoters,
        "EVEN_VOTERS",
        "an even number of voters survives no more losses than one voter less",
    ),
    (
        Code::UnfitCopy,
        "UNFIT_COPY",
        "it was never admitted as equal to the active copy, and does not count",
    ),
    (
        Code::DirectoryCopyMissing,
        "DIRECTORY_COPY_MISSING",
        "that node asks others where every mailbox is",
    ),
    (
        Code::NoFailoverTarget,
        "NO_FAILOVER_TARGET",
        "when the active copy is lost nothing takes over by itself",
    ),
    (
        Code::UnevenPreferences,
        "UNEVEN_PREFERENCES",
        "balancing brings the databases together on few nodes",
    ),
    (
        Code::MaximaTooLow,
        "MAXIMA_TOO_LOW",
        "after the loss of one node some databases find no node that may serve them",
    ),
    (Code::NoMaximum, "NO_MAXIMUM", "after failovers one node may have to serve everything"),
    (Code::NodeBlocked, "NODE_BLOCKED", "nothing becomes active there by itself"),
    (
        Code::BalancingOff,
        "BALANCING_OFF",
        "after a failover databases stay where they are until a person moves them",
    ),
    (
        Code::ShortMoveBlock,
        "SHORT_MOVE_BLOCK",
        "a node that comes and goes is given its databases back each time",
    ),
    (
        Code::QueueLimitHigh,
        "QUEUE_LIMIT_HIGH",
        "a database may be moved to a copy that first has to catch up for long",
    ),
    (
        Code::OldOperation,
        "OLD_OPERATION",
        "while it runs, nothing else can be done to the same object",
    ),
    (Code::Forgotten, "FORGOTTEN", "what was begun for a while still holds"),
    (Code::DiskLow, "DISK_LOW", "writes are refused there"),
    (Code::ClockSkew, "CLOCK_SKEW", "stamps of messages and what expires go by the clock"),
    (
        Code::VersionsDiffer,
        "VERSIONS_DIFFER",
        "an upgrade that stands still: what the newer version adds cannot be used",
    ),
    (Code::InsecureListener, "INSECURE_LISTENER", "anybody on the way can read and send mail"),
    (
        Code::NodeNotHeard,
        "NODE_NOT_HEARD",
        "its version, listeners, clock and disk were not judged",
    ),
];

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub code: Code,
    /// About what, by its name.
    pub subject: String,
    /// About which node.
    pub node: Option<NodeId>,
    /// About which database.
    pub database: Option<DatabaseId>,
    /// What it is now.
    pub found: String,
    /// What to do, naming the command where there is one.
    pub advice: String,
}

/// Everything that was found, the weightiest first. The same state and reports give the same list.
pub fn lint(state: &ControlState, reports: &Reports) -> Vec<Finding> {
    let mut lint = Lint { state, reports, found: Vec::new() };
    lint.layout();
    lint.databases();
    lint.settings();
    lint.nodes();
    let mut found = lint.found;
    found.sort_by_key(|finding| (finding.code, finding.database, finding.node));
    found
}

/// What is judged, and what was found so far.
struct Lint<'a> {
    state: &'a ControlState,
    reports: &'a Reports,
    found: Vec<Finding>,
}

impl Lint<'_> {
    fn of_dag(&mut self, code: Code, subject: &str, found: String, advice: impl ToString) {
        let (subject, advice) = (subject.to_string(), advice.to_string());
        self.found.push(Finding { code, subject, node: None, database: None, found, advice });
    }

    fn of_node(&mut self, code: Code, node: &NodeRecord, found: String, advice: impl ToString) {
        let (subject, advice) = (node.name.clone(), advice.to_string());
        let node = Some(node.id());
        self.found.push(Finding { code, subject, node, database: None, found, advice });
    }

    fn of_database(
        &mut self,
        code: Code,
        database: &DatabaseRecord,
        found: String,
        advice: impl ToString,
    ) {
        let (subject, advice) = (database.name.clone(), advice.to_string());
        let database = Some(database.id());
        self.found.push(Finding { code, subject, node: None, database, found, advice });
    }

    fn has(&self, code: Code) -> bool {
        self.found.iter().any(|finding| finding.code == code)
    }

    /// A node's name.
    fn name(&self, node: NodeId) -> String {
        self.state.node(node).map_or_else(|| node.to_string(), |known| known.name.clone())
    }

    fn names(&self, nodes: impl IntoIterator<Item = NodeId>) -> String {
        let names: Vec<String> = nodes.into_iter().map(|node| self.name(node)).collect();
        names.join(", ")
    }
}

#[cfg(test)]
#[path = "lint_test.rs"]
mod tests;
