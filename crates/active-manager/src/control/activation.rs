//! What operators and Active Manager decided about activation: policies, suspensions, maintenance,
//! moves, openings of gates.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{ActivationId, Boot, DatabaseId, GrantId, Lineage, NodeId, StoreId};

pub(crate) const NODE_POLICIES: u8 = 0x18;
pub(crate) const DATABASE_POLICIES: u8 = 0x19;
pub(crate) const COPY_POLICIES: u8 = 0x1a;
pub(crate) const OPENINGS: u8 = 0x1c;
pub(crate) const SETTINGS: &[u8] = &[0x1d];

/// Where copies may become active without a person asking for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ActivationPolicy {
    /// Wherever a copy is.
    Unrestricted = 0,
    /// Only in the site where the database is active.
    IntrasiteOnly = 1,
    /// Nowhere; a person may still move a database here, naming the check that is skipped.
    Blocked = 2,
}

impl ActivationPolicy {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unrestricted => "Unrestricted",
            Self::IntrasiteOnly => "IntrasiteOnly",
            Self::Blocked => "Blocked",
        }
    }
}

/// Who decided something, when, from where and why.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Decided {
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// Who.
    #[prost(string, tag = "2")]
    pub who: String,
    /// From where.
    #[prost(string, tag = "3")]
    pub from: String,
    /// Why.
    #[prost(string, tag = "4")]
    pub reason: String,
}

/// A node that is being kept free of active copies.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Maintenance {
    /// Who began it.
    #[prost(message, optional, tag = "1")]
    pub begun: Option<Decided>,
    /// The policy that its end restores.
    #[prost(enumeration = "ActivationPolicy", tag = "2")]
    pub earlier_policy: i32,
}

/// What was decided about a node.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct NodePolicy {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Of all copies on it.
    #[prost(enumeration = "ActivationPolicy", tag = "2")]
    pub policy: i32,
    /// At most so many active copies, whatever happens; 0: no limit.
    #[prost(uint32, tag = "3")]
    pub maximum_active: u32,
    /// More than so many only where no other copy can serve; 0: no limit.
    #[prost(uint32, tag = "4")]
    pub preferred_active: u32,
    /// It is drained.
    #[prost(message, optional, tag = "5")]
    pub maintenance: Option<Maintenance>,
    /// Who set the policy last.
    #[prost(message, optional, tag = "6")]
    pub decided: Option<Decided>,
}

impl NodePolicy {
    /// Its number.
    pub fn id(&self) -> NodeId {
        NodeId(self.node)
    }
}

/// Why an active copy moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MoveCause {
    /// Never written.
    Unspecified = 0,
    /// A person asked.
    Operator = 1,
    /// Back to the preferred copy.
    Balance = 2,
    /// Its node is drained.
    Drain = 3,
    /// To another site.
    Site = 4,
    /// Its node or copy was lost; an election decided.
    Failover = 5,
}

/// What was decided about a database.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DatabasePolicy {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// Of all its copies.
    #[prost(enumeration = "ActivationPolicy", tag = "2")]
    pub policy: i32,
    /// Node numbers, the most preferred first; empty: as the copies were made.
    #[prost(uint64, repeated, tag = "3")]
    pub preference: Vec<u64>,
    /// When it last moved for balance or to another site, since 1970; 0: never.
    #[prost(uint64, tag = "4")]
    pub last_move_ms: u64,
    /// Why it last moved for balance or to another site.
    #[prost(enumeration = "MoveCause", tag = "5")]
    pub last_move_cause: i32,
    /// Who set the policy last.
    #[prost(message, optional, tag = "6")]
    pub decided: Option<Decided>,
    /// The operation of that last move; 0: none.
    #[prost(uint64, tag = "7")]
    pub last_move_operation: u64,
}

impl DatabasePolicy {
    /// Its number.
    pub fn id(&self) -> DatabaseId {
        DatabaseId(self.database)
    }
}

/// What was decided about one copy.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct CopyPolicy {
    /// The database.
    #[prost(uint64, tag = "1")]
    pub database: u64,
    /// Where the copy stands.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// It takes no log, and so nothing else either.
    #[prost(bool, tag = "3")]
    pub suspended: bool,
    /// It takes log and is not made active.
    #[prost(bool, tag = "4")]
    pub activation_suspended: bool,
    /// Who suspended it last.
    #[prost(message, optional, tag = "5")]
    pub decided: Option<Decided>,
}

impl CopyPolicy {
    pub(crate) fn key(database: u64, node: u64) -> Vec<u8> {
        let mut key = super::record::number_key(COPY_POLICIES, database);
        key.extend_from_slice(&node.to_be_bytes());
        key
    }
}

/// The last opening of a node's gate. The log holds one entry for each of them.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct OpeningRecord {
    /// Whose gate.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// The control term of the grant.
    #[prost(uint64, tag = "2")]
    pub grant_term: u64,
    /// The number of the grant in that term.
    #[prost(uint64, tag = "3")]
    pub grant_number: u64,
    /// Sixteen bytes: the disk that the node runs from.
    #[prost(bytes = "bytes", tag = "4")]
    pub store: Bytes,
    /// The start of the node.
    #[prost(uint64, tag = "5")]
    pub boot_counter: u64,
    /// The start of the node.
    #[prost(fixed64, tag = "6")]
    pub boot_id: u64,
    /// The lineage that it opened in.
    #[prost(uint64, tag = "7")]
    pub epoch: u64,
    /// Sixteen bytes: the lineage that it opened in.
    #[prost(bytes = "bytes", tag = "8")]
    pub activation: Bytes,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "9")]
    pub at_ms: u64,
}

impl OpeningRecord {
    /// Which opening.
    pub fn grant(&self) -> GrantId {
        GrantId { term: self.grant_term, number: self.grant_number }
    }

    /// The start of the node.
    pub fn boot(&self) -> Boot {
        Boot { counter: self.boot_counter, id: self.boot_id }
    }

    /// The disk that the node runs from.
    pub fn store(&self) -> StoreId {
        StoreId::from_slice(&self.store).unwrap_or(StoreId::NIL)
    }

    /// The lineage that it opened in.
    pub fn lineage(&self) -> Lineage {
        let activation = ActivationId::from_slice(&self.activation).unwrap_or(ActivationId::NIL);
        Lineage { epoch: self.epoch, activation }
    }
}

/// Settings of the whole DAG.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Settings {
    /// A database moves for balance or to another site at most once in this time.
    #[prost(uint64, tag = "1")]
    pub move_block_ms: u64,
    /// Maintenance and suspensions that are older are named in every status.
    #[prost(uint64, tag = "2")]
    pub nag_after_ms: u64,
    /// A copy whose queue of log not yet received is longer is not moved to.
    #[prost(uint64, tag = "3")]
    pub copy_queue_max: u64,
    /// A copy whose queue of log not yet applied is longer is not moved to.
    #[prost(uint64, tag = "4")]
    pub replay_queue_max: u64,
    /// Active Manager moves databases back to their preferred copies.
    #[prost(bool, tag = "5")]
    pub auto_balance: bool,
    /// Executables that are run when something happens.
    #[prost(message, repeated, tag = "6")]
    pub hooks: Vec<Hook>,
    /// Between two snapshots of a database that are taken by schedule; 0: none are taken.
    /// None: [`Settings::SNAPSHOT_EVERY_MS`].
    #[prost(uint64, optional, tag = "7")]
    pub snapshot_every_ms: Option<u64>,
    /// How many of them are kept. None: [`Settings::SNAPSHOTS_KEPT`].
    #[prost(uint32, optional, tag = "8")]
    pub snapshots_kept: Option<u32>,
}

/// An executable that is run when something happens, on the control leader's node.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Hook {
    /// One of [`Hook::EVENTS`].
    #[prost(string, tag = "1")]
    pub event: String,
    /// A file's name in the folder of hooks that each node's own settings name: what may be run on
    /// a machine is decided there, and not by who may change the DAG's settings.
    #[prost(string, tag = "2")]
    pub program: String,
    /// It is killed after so long.
    #[prost(uint64, tag = "3")]
    pub timeout_ms: u64,
}

impl Hook {
    /// What hooks may wait for.
    pub const EVENTS: [&'static str; 9] = [
        "database-moved",
        "database-created",
        "gate-opened",
        "gate-closed",
        "node-drained",
        "node-undrained",
        "node-joined",
        "node-removed",
        "settings-changed",
    ];
    const MOST: usize = 32;

    fn problem(&self) -> Option<String> {
        let Self { event, program, timeout_ms } = self;
        if !Self::EVENTS.contains(&event.as_str()) {
            let known = Self::EVENTS.join(", ");
            return Some(alloc::format!("there is no event {event}; there are {known}"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
        let named = (1..=64).contains(&program.len()) && program.chars().all(plain);
        if !named || program.starts_with('.') {
            return Some(alloc::format!(
                "{program} is no file's name of 1 to 64 letters, digits, '-', '_' and '.'"
            ));
        }
        (!(100..=600_000).contains(timeout_ms))
            .then(|| alloc::format!("a time of {timeout_ms} ms is outside 100 to 600000"))
    }
}

impl Settings {
    /// Block time 10 min, nagging after 4 h, queues of 1,000 entries, balancing on.
    pub const DEFAULT: Self = Self {
        move_block_ms: 600_000,
        nag_after_ms: 4 * 3_600_000,
        copy_queue_max: 1000,
        replay_queue_max: 1000,
        auto_balance: true,
        hooks: Vec::new(),
        snapshot_every_ms: None,
        snapshots_kept: None,
    };
    /// A snapshot a day,
    pub const SNAPSHOT_EVERY_MS: u64 = 24 * 3_600_000;
    /// kept for 24, 48 and 72 hours.
    pub const SNAPSHOTS_KEPT: u32 = 3;

    /// Milliseconds between two snapshots of a database; 0: none are taken.
    pub fn snapshot_every(&self) -> u64 {
        self.snapshot_every_ms.unwrap_or(Self::SNAPSHOT_EVERY_MS)
    }

    /// How many of those that were taken by schedule are kept.
    pub fn snapshot_keep(&self) -> u32 {
        self.snapshots_kept.unwrap_or(Self::SNAPSHOTS_KEPT)
    }

    /// Everything that is wrong with these numbers.
    pub fn problems(&self) -> Vec<String> {
        const DAY: u64 = 24 * 3_600_000;
        let mut problems = Vec::new();
        let mut within = |name: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(alloc::format!("{name} of {value} is outside {least} to {most}"));
            }
        };
        within("move_block_ms", self.move_block_ms, 0, 40 * DAY);
        within("nag_after_ms", self.nag_after_ms, 60_000, 40 * DAY);
        within("copy_queue_max", self.copy_queue_max, 1, 1_000_000);
        within("replay_queue_max", self.replay_queue_max, 1, 1_000_000);
        if self.snapshot_every() > 0 {
            within("snapshot_every_ms", self.snapshot_every(), 10_000, 40 * DAY);
        }
        within("snapshots_kept", self.snapshot_keep().into(), 1, 100);
        problems.extend(self.hooks.iter().filter_map(Hook::problem));
        if self.hooks.len() > Hook::MOST {
            problems.push(alloc::format!(
                "{} hooks are more than {}",
                self.hooks.len(),
                Hook::MOST
            ));
        }
        problems
    }
}
