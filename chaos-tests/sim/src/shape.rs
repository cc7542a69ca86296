//! The cluster that is simulated: two sites of two data nodes each, a witness in a third place, the
//! control group with a voter on every node, and three mailbox databases.

use std::collections::{BTreeMap, BTreeSet};

use active_manager::control::ReplicaRecord;
use dag_types::{DatabaseId, NodeId, ReplicaId};
use replication::Member;

use crate::founding;

/// Nodes are numbered from 1.
pub const NODES: u64 = 5;
/// Nodes 1 to 4 hold mailbox databases: 1 and 2 in site 0, 3 and 4 in site 1.
pub const DATA_NODES: u64 = 4;
/// Node 5 holds a voter of the control group and nothing else.
pub const WITNESS: u64 = 5;
/// The first mailbox database.
pub const FIRST_DATABASE: u64 = 16;
/// The last mailbox database.
pub const LAST_DATABASE: u64 = 18;
/// Whoever is not a node: the clients.
pub const CLIENTS: u64 = 0;

/// The site of a node: 0, 1, or 2 for the witness's place.
pub fn site(node: u64) -> u64 {
    (node - 1) / 2
}

/// All groups: the control group and the mailbox databases.
pub fn databases() -> impl Iterator<Item = DatabaseId> {
    std::iter::once(DatabaseId::CONTROL).chain(mailbox_databases())
}

/// The mailbox databases.
pub fn mailbox_databases() -> impl Iterator<Item = DatabaseId> {
    (FIRST_DATABASE..=LAST_DATABASE).map(DatabaseId)
}

/// Where the copies of a database stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// All copies.
    pub members: BTreeMap<ReplicaId, NodeId>,
    /// Those that vote.
    pub voters: BTreeSet<ReplicaId>,
}

impl Placement {
    /// The first placement, as the control log has it: the majority of the voters in the site where
    /// the database is active.
    pub fn first(database: DatabaseId) -> Self {
        let record = founding::state().database(database).expect("a database of the shape");
        let copies = record.replicas.iter();
        Self {
            members: copies.clone().map(|copy| (copy.id(), copy.node())).collect(),
            voters: copies.filter(|copy| copy.voter).map(ReplicaRecord::id).collect(),
        }
    }

    /// The copy that makes the group: the most preferred one.
    pub fn founder(database: DatabaseId) -> ReplicaId {
        let record = founding::state().database(database).expect("a database of the shape");
        record.replicas.first().expect("a database has copies").id()
    }

    /// The copy on a node.
    pub fn on(&self, node: u64) -> Option<ReplicaId> {
        self.members.iter().find(|(_, at)| at.0 == node).map(|(replica, _)| *replica)
    }

    /// As `replication` takes it: all of it, or the voters alone.
    pub fn as_members(&self, voters_alone: bool) -> BTreeMap<ReplicaId, Member> {
        let wanted = |replica: &ReplicaId| !voters_alone || self.voters.contains(replica);
        let members = self.members.iter().filter(|(replica, _)| wanted(replica));
        members.map(|(replica, node)| (*replica, Member { node: *node })).collect()
    }
}
