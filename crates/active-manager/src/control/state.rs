//! All records of the control group read at once, for decisions and for status.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use dag_types::{DatabaseId, Lineage, NodeId, StateView};

use super::record::{
    AUDIT, AuditRow, DAG, DATABASES, DagRecord, DatabaseRecord, LINEAGE, LineageLink, NODES,
    NodeRecord, SITES, SiteRecord, number_key,
};
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
    let rows = view.scan(&number_key(AUDIT, from), &[AUDIT + 1], limit).map_err(Fault::Store)?;
    rows.into_iter().map(|(_, value)| decode("an audit row", value)).collect()
}
