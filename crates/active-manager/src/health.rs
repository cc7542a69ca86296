//! Everything that is wrong, with stable codes. The first eighteen cover the checks that an
//! Exchange administrator knows; the others are about what Exchange does not have.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{CopyStatus, DatabaseId, NodeId};

use crate::control::{ControlState, DatabaseRecord};
use crate::maintenance;
use crate::report::{CopyReport, GateReport, NodeReport, Reports};
use crate::tolerance;

/// A wall clock may be off by this much before people are told: stamps and expiry go by it.
const CLOCK_SKEW_MS: u64 = 2000;

/// What is wrong. Names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Code {
    ControlCopyDown,
    NodeDown,
    NoControlLeader,
    AdminListenerDown,
    PeerListenerDown,
    DirectoryNotMounted,
    NodeUnreachable,
    NetworkPartial,
    ControlMajorityAtRisk,
    WitnessUnreachable,
    DatabaseRedundancy,
    DatabaseNotMounted,
    CopySuspended,
    CopyFailed,
    CopyInitializing,
    CopyDisconnected,
    CopyQueueLong,
    ReplayQueueLong,
    GateClosed,
    LineageDiffers,
    ControlMajorityLost,
    DatabaseMajorityLost,
    DatabaseOneFromStopping,
    NotOnPreferredCopy,
    ForgottenByPeople,
    DiskLow,
    ClockSkew,
    ContentDiffers,
}

impl Code {
    /// As it is shown and matched.
    pub fn name(self) -> &'static str {
        CODES[self as usize].1
    }

    /// What helps, for people.
    pub fn advice(self) -> &'static str {
        CODES[self as usize].2
    }

    /// Whether mail is not served, or one loss from not being served.
    pub fn is_error(self) -> bool {
        !matches!(
            self,
            Self::CopySuspended
                | Self::CopyInitializing
                | Self::CopyQueueLong
                | Self::ReplayQueueLong
                | Self::NotOnPreferredCopy
                | Self::ForgottenByPeople
                | Self::ClockSkew
                | Self::DatabaseOneFromStopping
        )
    }
}

/// Every code, its name, and what helps. `docs/health.md` has the same rows.
pub const CODES: [(Code, &str, &str); 28] = [
    (
        Code::ControlCopyDown,
        "CONTROL_COPY_DOWN",
        "start that node again; its log says why the copy does not run",
    ),
    (Code::NodeDown, "NODE_DOWN", "start its daemon"),
    (Code::NoControlLeader, "NO_CONTROL_LEADER", "`dagctl gate explain`: which nodes are missing"),
    (
        Code::AdminListenerDown,
        "ADMIN_LISTENER_DOWN",
        "look at its daemon's log and at `listen.admin` in its settings",
    ),
    (
        Code::PeerListenerDown,
        "PEER_LISTENER_DOWN",
        "look at `listen.peers` in its settings, and at firewalls",
    ),
    (
        Code::DirectoryNotMounted,
        "DIRECTORY_NOT_MOUNTED",
        "`dagctl copies`: which of its copies are away, and why",
    ),
    (
        Code::NodeUnreachable,
        "NODE_UNREACHABLE",
        "start it, or heal its network; for good: `dagctl node remove`",
    ),
    (Code::NetworkPartial, "NETWORK_PARTIAL", "heal the network between these nodes"),
    (
        Code::ControlMajorityAtRisk,
        "CONTROL_MAJORITY_AT_RISK",
        "bring the other control voters back first",
    ),
    (
        Code::WitnessUnreachable,
        "WITNESS_UNREACHABLE",
        "start the witness; meanwhile all databases go on",
    ),
    (
        Code::DatabaseRedundancy,
        "DATABASE_REDUNDANCY",
        "`dagctl copies DB`; `dagctl copy add` makes one more",
    ),
    (
        Code::DatabaseNotMounted,
        "DATABASE_NOT_MOUNTED",
        "`dagctl copies DB` and `dagctl gate explain`: what is missing",
    ),
    (Code::CopySuspended, "COPY_SUSPENDED", "`dagctl copy resume DB@NODE`"),
    (
        Code::CopyFailed,
        "COPY_FAILED",
        "nothing: a new copy is built by itself; `dagctl copies DB` says why it failed",
    ),
    (Code::CopyInitializing, "COPY_INITIALIZING", "nothing, unless it lasts"),
    (
        Code::CopyDisconnected,
        "COPY_DISCONNECTED",
        "heal its node or network; it catches up by itself",
    ),
    (Code::CopyQueueLong, "COPY_QUEUE_LONG", "look for a slow disk or network there"),
    (Code::ReplayQueueLong, "REPLAY_QUEUE_LONG", "look for a slow disk or processor there"),
    (Code::GateClosed, "GATE_CLOSED", "`dagctl gate explain`"),
    (
        Code::LineageDiffers,
        "LINEAGE_DIFFERS",
        "nothing while it follows; a node that was cut off follows when it is heard",
    ),
    (
        Code::ControlMajorityLost,
        "CONTROL_MAJORITY_LOST",
        "bring control voters back: until then nothing can be changed",
    ),
    (
        Code::DatabaseMajorityLost,
        "DATABASE_MAJORITY_LOST",
        "bring the nodes of its other copies back; for good: `dagctl db reform DB --plan`",
    ),
    (
        Code::DatabaseOneFromStopping,
        "DATABASE_ONE_FROM_STOPPING",
        "bring the other copies back before anything else goes down",
    ),
    (
        Code::NotOnPreferredCopy,
        "NOT_ON_PREFERRED_COPY",
        "nothing: it goes back by itself after the block time; at once: `dagctl db rebalance`",
    ),
    (Code::ForgottenByPeople, "FORGOTTEN", "take back what is not needed any more"),
    (Code::DiskLow, "DISK_LOW", "free space, or move databases away; writes are refused there"),
    (Code::ClockSkew, "CLOCK_SKEW", "let NTP set its clock: stamps and expiry go by it"),
    (
        Code::ContentDiffers,
        "CONTENT_DIFFERS",
        "`dagctl db verify DB`, then `dagctl copy reseed` of the copy that differs",
    ),
];

/// The eighteen checks of `Test-ReplicationHealth`, and the code that says the same here.
pub const EXCHANGE: [(&str, Code); 18] = [
    ("ClusterService", Code::ControlCopyDown),
    ("ReplayService", Code::NodeDown),
    ("ActiveManager", Code::NoControlLeader),
    ("TasksRpcListener", Code::AdminListenerDown),
    ("TcpListener", Code::PeerListenerDown),
    ("ServerLocatorService", Code::DirectoryNotMounted),
    ("DagMembersUp", Code::NodeUnreachable),
    ("ClusterNetwork", Code::NetworkPartial),
    ("QuorumGroup", Code::ControlMajorityAtRisk),
    ("FileShareQuorum", Code::WitnessUnreachable),
    ("DatabaseRedundancy", Code::DatabaseRedundancy),
    ("DatabaseAvailability", Code::DatabaseNotMounted),
    ("DBCopySuspended", Code::CopySuspended),
    ("DBCopyFailed", Code::CopyFailed),
    ("DBInitializing", Code::CopyInitializing),
    ("DBDisconnected", Code::CopyDisconnected),
    ("DBLogCopyKeepingUp", Code::CopyQueueLong),
    ("DBLogReplayKeepingUp", Code::ReplayQueueLong),
];

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub code: Code,
    /// About which node.
    pub node: Option<NodeId>,
    /// About which database.
    pub database: Option<DatabaseId>,
    /// What, why, and what to do next.
    pub message: String,
}

/// Everything that is wrong, errors first.
pub fn findings(state: &ControlState, reports: &Reports) -> Vec<Finding> {
    let mut found = Vec::new();
    control(state, reports, &mut found);
    for node in &state.nodes {
        match reports.node(node.id()) {
            Some(report) => of_node(state, report, node.witness, &node.name, &mut found),
            None => found.push(about_node(
                Code::NodeDown,
                node.id(),
                format!("node {} was never heard since this node started", node.name),
            )),
        }
    }
    for database in state.databases.iter().filter(|db| db.id() != DatabaseId::CONTROL) {
        of_database(state, reports, database, &mut found);
    }
    for forgotten in maintenance::forgotten(state, reports.at_ms) {
        found.push(Finding {
            code: Code::ForgottenByPeople,
            node: Some(forgotten.node),
            database: forgotten.database,
            message: forgotten.words,
        });
    }
    found.sort_by_key(|finding| {
        (!finding.code.is_error(), finding.code, finding.database, finding.node)
    });
    found
}

fn about_node(code: Code, node: NodeId, message: String) -> Finding {
    Finding { code, node: Some(node), database: None, message }
}

fn control(state: &ControlState, reports: &Reports, found: &mut Vec<Finding>) {
    let whole = |code, message| Finding { code, node: None, database: None, message };
    if reports.control.leader.is_none() {
        let message = "no leader of the control group is known: nothing can be changed, and gates \
                       close when their leases end";
        found.push(whole(Code::NoControlLeader, message.into()));
    }
    let Some(tolerance) = tolerance::of_control(state, reports) else { return };
    match tolerance.can_lose {
        None => found.push(whole(Code::ControlMajorityLost, tolerance.words())),
        Some(0) if tolerance.voters > 1 => {
            found.push(whole(Code::ControlMajorityAtRisk, tolerance.words()));
        }
        Some(_) => {}
    }
}

fn of_node(
    state: &ControlState,
    report: &NodeReport,
    witness: bool,
    name: &str,
    found: &mut Vec<Finding>,
) {
    let mut say = |code, message| found.push(about_node(code, report.node, message));
    if !report.reachable {
        let heard = report.last_heard;
        return match (witness, report.admin_answers) {
            (true, _) => say(
                Code::WitnessUnreachable,
                format!("witness {name} was last heard {heard} ago: no site can be taken over"),
            ),
            (false, true) => say(
                Code::PeerListenerDown,
                format!("{name} answers operators and exchanges no frames: check its peer address"),
            ),
            (false, false) => {
                say(Code::NodeUnreachable, format!("{name} was last heard {heard} ago"));
            }
        };
    }
    if !report.control_copy_runs {
        say(Code::ControlCopyDown, format!("{name} does not run its copy of the control group"));
    }
    if !report.admin_answers {
        say(Code::AdminListenerDown, format!("{name} does not answer operators"));
    }
    if !report.does_not_hear.is_empty() {
        let deaf: Vec<String> = report.does_not_hear.iter().map(|node| format!("{node}")).collect();
        let message = format!("{name} does not hear nodes {}, which run", deaf.join(", "));
        say(Code::NetworkPartial, message);
    }
    if report.lineage != state.last_lineage() {
        let message = format!("{name} stands in lineage {}", report.lineage);
        say(Code::LineageDiffers, message);
    }
    if let (GateReport::Closed(why), false) = (&report.gate, witness) {
        say(Code::GateClosed, format!("the gate of {name} is closed: {why}"));
    }
    if report.disk_low {
        say(Code::DiskLow, format!("{name} has less free space than its reserve"));
    }
    if report.clock_skew.0 > CLOCK_SKEW_MS {
        say(Code::ClockSkew, format!("the clock of {name} is off by {}", report.clock_skew));
    }
}

fn of_database(
    state: &ControlState,
    reports: &Reports,
    database: &DatabaseRecord,
    found: &mut Vec<Finding>,
) {
    let id = Some(database.id());
    let name = &database.name;
    let mut say = |code, message| found.push(Finding { code, node: None, database: id, message });
    let active = reports.active(database.id());
    if active.is_none() {
        let code = match database.id() {
            DatabaseId::DIRECTORY => Code::DirectoryNotMounted,
            _ => Code::DatabaseNotMounted,
        };
        say(code, format!("{name} is mounted nowhere"));
    }
    let tolerance = tolerance::of_database(state, reports, database);
    if database.replicas.len() > 1 && tolerance.sound_copies.len() < 2 {
        let sound = tolerance.sound_copies.len();
        let message = format!("{name} has {sound} sound copy of {}", database.replicas.len());
        say(Code::DatabaseRedundancy, message);
    }
    match tolerance.can_lose {
        None => say(Code::DatabaseMajorityLost, tolerance.words()),
        Some(0) if tolerance.voters > 2 => say(Code::DatabaseOneFromStopping, tolerance.words()),
        Some(_) => {}
    }
    let preferred = state.preference(database).first().copied();
    if let (Some(active), Some(preferred)) = (active, preferred)
        && active != preferred
        && database.is_mailbox_database()
    {
        let message = format!("{name} is active on node {active} and preferred on {preferred}");
        say(Code::NotOnPreferredCopy, message);
    }
    for copy in &database.replicas {
        if let Some(report) = reports.copy(database.id(), copy.node()) {
            of_copy(state, report, name, found);
        }
    }
}

fn of_copy(state: &ControlState, copy: &CopyReport, name: &str, found: &mut Vec<Finding>) {
    let CopyReport { database, node, status, copy_queue, replay_queue, .. } = *copy;
    let mut say = |code, what: String| {
        let message = format!("{name} on node {node}: {what}");
        found.push(Finding { code, node: Some(node), database: Some(database), message });
    };
    let policy = state.copy_policy(database, node);
    if policy.suspended || policy.activation_suspended {
        let by =
            policy.decided.map_or_else(String::new, |by| format!(" by {}: {}", by.who, by.reason));
        let what = if policy.suspended { "suspended" } else { "activation suspended" };
        say(Code::CopySuspended, format!("{what}{by}"));
    } else if status == CopyStatus::Suspended {
        say(Code::CopySuspended, "suspended".into());
    }
    match status {
        CopyStatus::Failed | CopyStatus::FailedAndSuspended => {
            say(Code::CopyFailed, format!("{status}; it counts for nothing until it is reseeded"));
        }
        CopyStatus::Initializing | CopyStatus::Seeding => {
            say(Code::CopyInitializing, format!("{status} for {}", copy.since));
        }
        CopyStatus::DisconnectedAndHealthy
        | CopyStatus::DisconnectedAndResynchronizing
        | CopyStatus::ServiceDown => say(Code::CopyDisconnected, format!("{status}")),
        _ => {}
    }
    if copy_queue > state.settings.copy_queue_max {
        say(Code::CopyQueueLong, format!("misses {copy_queue} entries, {}", copy.copy_queue_age));
    }
    if replay_queue > state.settings.replay_queue_max {
        let age = copy.replay_queue_age;
        say(Code::ReplayQueueLong, format!("has {replay_queue} entries to apply, {age}"));
    }
    if !copy.digest_equal {
        say(Code::ContentDiffers, "its content differed at the last digest mark".into());
    }
}

#[cfg(test)]
#[path = "health_test.rs"]
mod tests;
