//! Copies, voters, preferences, and where each database could become active.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use dag_types::{DatabaseId, NodeId};

use super::layout::{data_sites, sites_of, voters};
use super::{Code, Lint};
use crate::control::{ActivationPolicy, ControlState, DatabaseRecord};

/// By so many more databases one node may be preferred than another one of its site.
const UNEVEN: usize = 2;

impl Lint<'_> {
    pub(super) fn databases(&mut self) {
        let state = self.state;
        for database in state.databases.iter().filter(|db| db.id() != DatabaseId::CONTROL) {
            self.copies(database);
            self.unfit(database);
            if database.is_mailbox_database() {
                self.targets(database);
            }
        }
        self.directory();
        self.preferences();
    }

    fn copies(&mut self, database: &DatabaseRecord) {
        let nodes: Vec<NodeId> = database.replicas.iter().map(|copy| copy.node()).collect();
        let sites = data_sites(self.state);
        let name = &database.name;
        let found = format!("copies on {}", self.names(nodes.iter().copied()));
        let another = format!("`dagctl copy add {name}@NODE`");
        // Where there is one node, there is no other one for a copy.
        if nodes.len() == 1 && self.state.nodes.iter().filter(|node| !node.witness).count() > 1 {
            return self.of_database(Code::OneCopy, database, found, &another);
        }
        if sites.len() > 1 && sites_of(self.state, &nodes) == 1 {
            let advice = format!("{another}, on a node of another site");
            self.of_database(Code::CopiesInOneSite, database, found, advice);
        }
        let voters = voters(Some(database));
        if voters.len() > 1 && voters.len().is_multiple_of(2) {
            let found = format!("{} voters: {}", voters.len(), self.names(voters.iter().copied()));
            let advice = format!("{another}: three copies of a site survive the loss of one");
            self.of_database(Code::EvenVoters, database, found, advice);
        }
    }

    fn unfit(&mut self, database: &DatabaseRecord) {
        for copy in database.replicas.iter().filter(|copy| !copy.unfit.is_empty()) {
            let on = self.name(copy.node());
            let advice = format!("`dagctl copy reseed {}@{on}`", database.name);
            let found = format!("the copy on {on}: {}", copy.unfit);
            self.of_database(Code::UnfitCopy, database, found, advice);
        }
    }

    /// Whether another copy takes over by itself, by what people decided.
    fn targets(&mut self, database: &DatabaseRecord) {
        let voters = voters(Some(database));
        let allowed = voters.iter().filter(|node| may_activate(self.state, database, **node));
        let allowed: Vec<NodeId> = allowed.copied().collect();
        if voters.len() > 1 && allowed.len() < 2 {
            let found = match allowed.first() {
                Some(node) => format!("of its voting copies only that on {} may", self.name(*node)),
                None => "none of its voting copies may".into(),
            };
            let advice = "`dagctl node allow NODE`, `dagctl node undrain NODE` or \
                          `dagctl copy resume DB --node NODE --activation-only`";
            self.of_database(Code::NoFailoverTarget, database, found, advice);
        }
    }

    /// The directory has a copy on every data node, or those without one ask others.
    fn directory(&mut self) {
        let state = self.state;
        let Some(directory) = state.database(DatabaseId::DIRECTORY) else { return };
        for node in state.nodes.iter().filter(|node| !node.witness) {
            if directory.replica_on(node.id()).is_none() {
                let advice = format!("`dagctl copy add {}@{}`", directory.name, node.name);
                let found = "it has no copy of the directory".into();
                self.of_node(Code::DirectoryCopyMissing, node, found, advice);
            }
        }
    }

    /// Databases of one site that prefer the same nodes.
    fn preferences(&mut self) {
        let state = self.state;
        let mut preferred: BTreeMap<NodeId, usize> = BTreeMap::new();
        for database in state.databases.iter().filter(|db| db.is_mailbox_database()) {
            if let Some(first) = state.preference(database).first() {
                *preferred.entry(*first).or_default() += 1;
            }
        }
        let count = |node: &NodeId| preferred.get(node).copied().unwrap_or(0);
        for (site, nodes) in data_sites(state) {
            let most = nodes.iter().max_by_key(|node| count(node));
            let least = nodes.iter().min_by_key(|node| count(node));
            let (Some(most), Some(least)) = (most, least) else { continue };
            // A site where nothing is active by choice has nothing to share out.
            if count(most) >= count(least) + UNEVEN {
                let [on, off] = [most, least].map(|node| self.name(*node));
                let [many, few] = [most, least].map(count);
                let found = format!("{many} databases prefer {on}, and {few} prefer {off}");
                let advice = "name the nodes in turns with `dagctl db create --copies`, or leave \
                              them out: they are shared out by load";
                self.of_dag(Code::UnevenPreferences, &format!("site {site}"), found, advice);
            }
        }
    }
}

/// Whether a copy may become active without a person, by what was decided.
fn may_activate(state: &ControlState, database: &DatabaseRecord, node: NodeId) -> bool {
    let blocked = |policy: i32| policy == ActivationPolicy::Blocked as i32;
    let copy = state.copy_policy(database.id(), node);
    !blocked(state.node_policy(node).policy)
        && !blocked(state.database_policy(database.id()).policy)
        && !copy.suspended
        && !copy.activation_suspended
}
