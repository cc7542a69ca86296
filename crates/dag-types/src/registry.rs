//! Who may hold a gate's lease, as one position of the control log says.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::ids::{Boot, NodeId, StoreId};
use crate::lineage::LineageChain;

/// One opening of a gate. Renewals name it and extend it; a gate that closed needs a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GrantId {
    /// The control group's term in which it was given.
    pub term: u64,
    /// Counts the openings of that term.
    pub number: u64,
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

/// A node that may hold databases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegisteredNode {
    /// Its number.
    pub node: NodeId,
    /// The name of its site.
    pub site: String,
    /// The only disk that is this node.
    pub store: StoreId,
    /// Its last registered start.
    pub boot: Boot,
    /// The last opening of its gate that the log holds for this start and this lineage.
    pub grant: Option<GrantId>,
}

/// A site that holds databases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegisteredSite {
    /// What people call it.
    pub name: String,
    /// Its databases may be mounted.
    pub started: bool,
    /// Its data nodes: one list, or the old and the new one while a change of the list is not yet
    /// fsynced by more than half of both. What counts nodes must hold for every list.
    pub lists: Vec<BTreeSet<NodeId>>,
}

/// Everything that a grant is checked against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Registry {
    /// All complete links.
    pub chain: LineageChain,
    /// In the order of their names.
    pub sites: Vec<RegisteredSite>,
    /// Data nodes, in the order of their numbers. A witness holds no gate.
    pub nodes: Vec<RegisteredNode>,
}

impl Registry {
    /// The data node with a number.
    pub fn node(&self, id: NodeId) -> Option<&RegisteredNode> {
        self.nodes.iter().find(|node| node.node == id)
    }

    /// The site with a name.
    pub fn site(&self, name: &str) -> Option<&RegisteredSite> {
        self.sites.iter().find(|site| site.name == name)
    }
}
