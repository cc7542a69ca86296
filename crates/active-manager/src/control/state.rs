//! All records of the control group read at once, for decisions and for status.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use dag_types::{
    ChainProblem, DatabaseId, Lineage, LineageChain, NodeId, RegisteredNode, RegisteredSite,
    Registry, StateView,
};

use super::activation::{
    COPY_POLICIES, CopyPolicy, DATABASE_POLICIES, DatabasePolicy, NODE_POLICIES, NodePolicy,
    OPENINGS, OpeningRecord, SETTINGS, Settings,
};
use super::operation::{OPERATIONS, Operation};
use super::record::{
    AUDIT, AuditRow, COUNTERS, Counters, DAG, DATABASES, DagRecord, DatabaseRecord, LINEAGE,
    LineageLink, NODES, NodeRecord, ReplicaRecord, SITES, SiteRecord, number_key,
};
use super::seed::{SEEDS, SeedPhase, SeedRecord};
use crate::change::{Fault, decode, read, read_table};
use crate::placement::{Dag, Node};

/// The DAG at one position of the control log.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlState {
    /// The DAG itself.
    pub dag: DagRecord,
    /// From the first link to the last.
    pub lineage: Vec<LineageLink>,
    /// In the order of their names.
    pub sites: Vec<SiteRecord>,
    /// In the order of their numbers.
    pub nodes: Vec<NodeRecord>,
    /// In the order of their numbers: the control group, the directory, mailbox databases.
    pub databases: Vec<DatabaseRecord>,
    /// Of nodes about which something was decided.
    pub node_policies: Vec<NodePolicy>,
    /// Of databases about which something was decided.
    pub database_policies: Vec<DatabasePolicy>,
    /// Of copies about which something was decided.
    pub copy_policies: Vec<CopyPolicy>,
    /// Running ones, and the last that are over.
    pub operations: Vec<Operation>,
    /// The last opening of each gate.
    pub openings: Vec<OpeningRecord>,
    /// Of the whole DAG.
    pub settings: Settings,
    /// Copies that are being built.
    pub seeds: Vec<SeedRecord>,
    /// Replica ids below this one were given out.
    pub next_replica: u64,
}

impl ControlState {
    /// Reads it; none where no DAG was created in this log yet.
    pub fn read<V: StateView>(view: &V) -> Result<Option<Self>, Fault<V::Error>> {
        let Some(dag) = read(view, DAG, "the DAG's record")? else {
            return Ok(None);
        };
        Ok(Some(Self {
            dag,
            lineage: read_table(view, LINEAGE, "a link of the lineage")?,
            sites: read_table(view, SITES, "a site")?,
            nodes: read_table(view, NODES, "a node")?,
            databases: read_table(view, DATABASES, "a database")?,
            node_policies: read_table(view, NODE_POLICIES, "a node's policy")?,
            database_policies: read_table(view, DATABASE_POLICIES, "a database's policy")?,
            copy_policies: read_table(view, COPY_POLICIES, "a copy's policy")?,
            operations: read_table(view, OPERATIONS, "an operation")?,
            openings: read_table(view, OPENINGS, "an opening")?,
            settings: read(view, SETTINGS, "the settings")?.unwrap_or(Settings::DEFAULT),
            seeds: read_table(view, SEEDS, "a seed")?,
            next_replica: read::<V, Counters>(view, COUNTERS, "the counters")?
                .map_or(0, |counters| counters.next_replica),
        }))
    }

    /// The last link.
    pub fn last_lineage(&self) -> Lineage {
        self.lineage.last().map(LineageLink::lineage).unwrap_or_default()
    }

    /// The node with a number.
    pub fn node(&self, id: NodeId) -> Option<&NodeRecord> {
        self.nodes.iter().find(|node| node.id() == id)
    }

    /// The database with a number.
    pub fn database(&self, id: DatabaseId) -> Option<&DatabaseRecord> {
        self.databases.iter().find(|database| database.id() == id)
    }

    /// The database with a name, in any case.
    pub fn database_named(&self, name: &str) -> Option<&DatabaseRecord> {
        self.databases.iter().find(|database| database.name.eq_ignore_ascii_case(name))
    }

    /// What was decided about a node; the default where nothing was.
    pub fn node_policy(&self, id: NodeId) -> NodePolicy {
        let known = self.node_policies.iter().find(|policy| policy.id() == id);
        known.cloned().unwrap_or(NodePolicy { node: id.0, ..NodePolicy::default() })
    }

    /// What was decided about a database; the default where nothing was.
    pub fn database_policy(&self, id: DatabaseId) -> DatabasePolicy {
        let known = self.database_policies.iter().find(|policy| policy.id() == id);
        known.cloned().unwrap_or(DatabasePolicy { database: id.0, ..DatabasePolicy::default() })
    }

    /// What was decided about a copy; the default where nothing was.
    pub fn copy_policy(&self, database: DatabaseId, node: NodeId) -> CopyPolicy {
        let same = |policy: &&CopyPolicy| policy.database == database.0 && policy.node == node.0;
        let default = || CopyPolicy { database: database.0, node: node.0, ..CopyPolicy::default() };
        self.copy_policies.iter().find(same).cloned().unwrap_or_else(default)
    }

    /// The nodes that have a copy, the most preferred first.
    pub fn preference(&self, database: &DatabaseRecord) -> Vec<NodeId> {
        let wished = self.database_policy(database.id()).preference;
        let mut nodes: Vec<NodeId> = wished.into_iter().map(NodeId).collect();
        nodes.retain(|node| database.replica_on(*node).is_some());
        // Copies that were made after the order was given stand behind it.
        let others = database.replicas.iter().map(ReplicaRecord::node);
        let others: Vec<NodeId> = others.filter(|node| !nodes.contains(node)).collect();
        nodes.extend(others);
        nodes
    }

    /// The copy of a database that is being built on a node.
    pub fn seed(&self, database: DatabaseId, node: NodeId) -> Option<&SeedRecord> {
        self.seeds.iter().find(|seed| seed.database() == database && seed.node() == node)
    }

    /// The site of a node; empty where there is no such node.
    pub fn site_of(&self, node: NodeId) -> &str {
        self.node(node).map_or("", |node| &node.site)
    }

    /// Seeds whose new copy has its place and is not admitted yet.
    pub fn joining(&self, database: DatabaseId) -> impl Iterator<Item = &SeedRecord> {
        let joins = |seed: &&SeedRecord| seed.phase() == SeedPhase::Joining;
        self.seeds.iter().filter(move |seed| seed.database() == database).filter(joins)
    }

    /// Running operations.
    pub fn running(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().filter(|operation| !operation.is_over())
    }

    /// All links, for comparison with another chain.
    ///
    /// # Errors
    /// Where the records are no chain: they were not written by `apply`.
    pub fn chain(&self) -> Result<LineageChain, ChainProblem> {
        let step = |link: &LineageLink| link.step().ok_or(ChainProblem::Misplaced(link.epoch));
        LineageChain::from_links(self.lineage.iter().map(step).collect::<Result<_, _>>()?)
    }

    /// What a grant of a gate is checked against.
    ///
    /// # Errors
    /// As [`Self::chain`].
    pub fn registry(&self) -> Result<Registry, ChainProblem> {
        let chain = self.chain()?;
        let last = chain.last();
        let with_data = || self.nodes.iter().filter(|node| !node.witness);
        let grant = |node: &NodeRecord| {
            let opening = self.openings.iter().find(|opening| opening.node == node.node)?;
            let same_start = opening.boot() == node.boot() && opening.store() == node.store();
            (same_start && opening.lineage() == last).then(|| opening.grant())
        };
        let nodes = with_data().map(|node| RegisteredNode {
            node: node.id(),
            site: node.site.clone(),
            store: node.store(),
            boot: node.boot(),
            grant: grant(node),
        });
        let sites = self.sites.iter().map(|site| RegisteredSite {
            name: site.name.clone(),
            started: site.started,
            lists: self.lists(&site.name),
        });
        Ok(Registry { chain, sites: sites.collect(), nodes: nodes.collect() })
    }

    /// The data nodes of a site: one list, or the old and the new one while one of them joins or
    /// leaves.
    pub fn lists(&self, site: &str) -> Vec<BTreeSet<NodeId>> {
        let here = self.nodes.iter().filter(|node| !node.witness && node.site == site);
        let old = here.clone().filter(|node| !node.is_new());
        let old: BTreeSet<NodeId> = old.map(NodeRecord::id).collect();
        let stay = here.filter(|node| !node.is_leaving());
        let new: BTreeSet<NodeId> = stay.map(NodeRecord::id).collect();
        if old == new { alloc::vec![old] } else { alloc::vec![old, new] }
    }

    /// What placement needs to know: nodes, and the load that the databases put on them.
    pub fn placement(&self) -> Dag {
        let (mut preferred, mut copies) = (BTreeMap::new(), BTreeMap::new());
        for database in self.databases.iter().filter(|database| database.is_mailbox_database()) {
            for (place, replica) in database.replicas.iter().enumerate() {
                *copies.entry(replica.node).or_insert(0) += 1;
                *preferred.entry(replica.node).or_insert(0) += u32::from(place == 0);
            }
        }
        let node = |record: &NodeRecord| Node {
            id: record.id(),
            site: record.site.clone(),
            witness: record.witness,
            preferred: preferred.get(&record.node).copied().unwrap_or(0),
            copies: copies.get(&record.node).copied().unwrap_or(0),
        };
        Dag {
            primary_site: self.dag.primary_site.clone(),
            nodes: self.nodes.iter().map(node).collect(),
        }
    }
}

/// The audit rows with a number of at least `from`, at most `limit`, oldest first.
pub fn audit<V: StateView>(
    view: &V,
    from: u64,
    limit: usize,
) -> Result<Vec<AuditRow>, Fault<V::Error>> {
    Ok(audit_from(view, from, limit)?.into_iter().map(|(_, row)| row).collect())
}

/// The same with the number of each row. Numbers count rows, and a row has the index of its entry
/// beside that: most entries of the control log have no row.
pub fn audit_from<V: StateView>(
    view: &V,
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, AuditRow)>, Fault<V::Error>> {
    let rows = view.scan(&number_key(AUDIT, from), &[AUDIT + 1], limit).map_err(Fault::Store)?;
    let numbered = |(key, value): (bytes::Bytes, bytes::Bytes)| {
        let number = key.get(1..9).and_then(|number| number.try_into().ok());
        let number = number.map_or(0, u64::from_be_bytes);
        Ok((number, decode("an audit row", value)?))
    };
    rows.into_iter().map(numbered).collect()
}
