//! Where copies and voters stand. Pure decisions, each with its reasons.
//!
//! **Databases.** A database is active in one site, or balanced. Where two sites hold data, the
//! voters are odd in number with the strict majority in the active site, so that losing the other
//! site never stops the database; every further copy is a learner, a full copy whose fsyncs count
//! for remote durability and never in a Raft quorum. Where one site, or three and more, hold data,
//! voters are balanced: plain Raft.
//!
//! **Control group.** Always an odd number, at most five, and decided here alone: when a DAG is made,
//! and whenever a node joins, leaves or is replaced. One site: its nodes, and a witness where they
//! are even in number. Two sites: the same number in each, at most two, and the witness; without one
//! the primary site has one voter more, so that the other's loss stops nothing. Three and more: one
//! in each of up to five.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;

use dag_types::NodeId;
use thiserror::Error;

/// The most voters that any group has: five survive two losses, and more only cost.
pub const VOTERS_MAX: usize = 5;

/// A node, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// The name of its site.
    pub site: String,
    /// A voter of the control group without mailbox data.
    pub witness: bool,
    /// Databases whose first preference is a copy on this node.
    pub preferred: u32,
    /// Copies on this node.
    pub copies: u32,
}

/// The nodes of a DAG and how loaded they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dag {
    /// Where databases are active unless said otherwise.
    pub primary_site: String,
    /// In the order of their numbers.
    pub nodes: Vec<Node>,
}

impl Dag {
    /// The nodes that may hold databases, by site, in the order of the sites' names.
    pub fn data_sites(&self) -> BTreeMap<&str, Vec<&Node>> {
        let mut sites: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| !node.witness) {
            sites.entry(&node.site).or_default().push(node);
        }
        sites
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// The site where the database is active; none: the DAG's primary site.
    pub site: Option<String>,
    /// Exactly these nodes, in the order of preference; empty: chosen by load.
    pub nodes: Vec<NodeId>,
    /// A copy on every data node, whatever their number: the directory.
    pub everywhere: bool,
}

/// A copy that a database shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedCopy {
    /// Where.
    pub node: NodeId,
    /// Whether it counts in quorums.
    pub voter: bool,
}

/// Where a database stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The site that has the strict majority of the voters; none: balanced.
    pub active_site: Option<String>,
    /// In the order of activation preference; the first is a voter and initialises the group.
    pub copies: Vec<PlacedCopy>,
    /// Why it looks like this, for people.
    pub reasons: Vec<String>,
}

impl Placement {
    /// The voters, in the order of preference.
    pub fn voters(&self) -> Vec<NodeId> {
        self.copies.iter().filter(|copy| copy.voter).map(|copy| copy.node).collect()
    }
}

/// Why a wish cannot be granted. All reasons are collected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Reason {
    /// Nothing can hold a database.
    #[error("the DAG has no node that may hold databases")]
    NoDataNode,
    /// No such site, or only a witness in it.
    #[error("site {0:?} has no node that may hold databases")]
    NoSuchSite(String),
    /// No such node.
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    /// Witnesses hold no mail.
    #[error("node {0} is a witness and holds no databases")]
    Witness(NodeId),
    /// One node cannot hold two copies.
    #[error("node {0} is named twice")]
    Twice(NodeId),
    /// The wished site holds none of the wished nodes.
    #[error("none of the named nodes stands in site {0:?}")]
    SiteWithoutCopy(String),
}

/// Decides where a new database stands.
pub fn place(dag: &Dag, wish: &Wish) -> Result<Placement, Vec<Reason>> {
    let problems = check(dag, wish);
    if !problems.is_empty() {
        return Err(problems);
    }
    let chosen = if wish.nodes.is_empty() { choose(dag, wish) } else { named(dag, wish) };
    let sites = by_site(&chosen);
    let active = wish.site.clone().unwrap_or_else(|| default_site(dag, &chosen));
    Ok(match sites.len() {
        2 => two_sites(&active, &sites),
        _ => balanced(&active, &sites),
    })
}

fn check(dag: &Dag, wish: &Wish) -> Vec<Reason> {
    let sites = dag.data_sites();
    let mut problems = Vec::new();
    if sites.is_empty() {
        problems.push(Reason::NoDataNode);
    }
    if let Some(site) = wish.site.as_ref().filter(|site| !sites.contains_key(site.as_str())) {
        problems.push(Reason::NoSuchSite(site.clone()));
    }
    let mut seen = BTreeSet::new();
    for &id in &wish.nodes {
        match dag.node(id) {
            None => problems.push(Reason::NoSuchNode(id)),
            Some(node) if node.witness => problems.push(Reason::Witness(id)),
            Some(_) if !seen.insert(id) => problems.push(Reason::Twice(id)),
            Some(_) => {}
        }
    }
    let absent = |site: &&String| {
        !wish.nodes.is_empty()
            && !wish.nodes.iter().any(|id| dag.node(*id).is_some_and(|n| n.site == **site))
    };
    if let Some(site) = wish.site.as_ref().filter(absent) {
        problems.push(Reason::SiteWithoutCopy(site.clone()));
    }
    problems
}

/// The copies that a database gets where nobody named nodes: two in each of two sites, else three
/// in all, on the least loaded nodes.
fn choose<'d>(dag: &'d Dag, wish: &Wish) -> Vec<&'d Node> {
    let mut sites = dag.data_sites();
    let per_site = match sites.len() {
        _ if wish.everywhere => usize::MAX,
        1 => 3,
        2 => 2,
        _ => 1,
    };
    for nodes in sites.values_mut() {
        nodes.sort_by_key(|node| (node.preferred, node.copies, node.id));
        nodes.truncate(per_site);
    }
    let mut chosen: Vec<&Node> = sites.into_values().flatten().collect();
    if !wish.everywhere && chosen.len() > 3 && by_site(&chosen).len() > 3 {
        // More than three sites: the least loaded three, the wished one among them.
        let wished = |node: &Node| wish.site.as_deref() == Some(node.site.as_str());
        chosen.sort_by_key(|node| (Reverse(wished(node)), node.preferred, node.copies, node.id));
        chosen.truncate(3);
    }
    chosen
}

fn named<'d>(dag: &'d Dag, wish: &Wish) -> Vec<&'d Node> {
    wish.nodes.iter().filter_map(|id| dag.node(*id)).collect()
}

/// Keeps the order of the nodes within a site.
fn by_site<'d>(nodes: &[&'d Node]) -> BTreeMap<&'d str, Vec<&'d Node>> {
    let mut sites: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for node in nodes {
        sites.entry(&node.site).or_default().push(node);
    }
    sites
}

fn default_site(dag: &Dag, chosen: &[&Node]) -> String {
    let primary = chosen.iter().find(|node| node.site == dag.primary_site);
    primary.or(chosen.first()).map_or_else(String::new, |node| node.site.clone())
}

fn two_sites(active: &str, sites: &BTreeMap<&str, Vec<&Node>>) -> Placement {
    let here = &sites[active];
    let (other, there) = sites.iter().find(|(site, _)| **site != active).expect("two sites");
    let (mine, theirs) = two_site_voters(here.len(), there.len());
    let copies = |nodes: &[&Node], voters: usize| -> Vec<PlacedCopy> {
        let place = |(i, node): (usize, &&Node)| PlacedCopy { node: node.id, voter: i < voters };
        nodes.iter().enumerate().map(place).collect()
    };
    let mut all = copies(here, mine);
    all.extend(copies(there, theirs));
    // Learners stand last: they become active only by a re-forming.
    all.sort_by_key(|copy| !copy.voter);
    let reasons = alloc::vec![alloc::format!(
        "{mine} of {} voters stand in {active}, so losing {other} stops nothing, and losing \
         {active} needs a site activation",
        mine + theirs,
    )];
    Placement { active_site: Some(active.to_string()), copies: all, reasons }
}

/// How many voters the active and the passive site have, of so many copies.
fn two_site_voters(here: usize, there: usize) -> (usize, usize) {
    let mine = here.min(VOTERS_MAX / 2 + 1);
    let theirs = there.min(mine - 1);
    // An even sum gives one back; it has one, because `theirs` is 0 only beside a single voter.
    (mine, theirs - (mine + theirs + 1) % 2)
}

fn balanced(first_site: &str, sites: &BTreeMap<&str, Vec<&Node>>) -> Placement {
    let order = in_turns(first_site, sites);
    let voters = match order.len() {
        2 => 2,
        copies => odd_at_most(copies, VOTERS_MAX),
    };
    let place = |(i, node): (usize, &&Node)| PlacedCopy { node: node.id, voter: i < voters };
    let reasons = alloc::vec![match voters {
        1 => "one voter: when its node stops, the database stops".to_string(),
        2 => "two voters, the copies of a site alone: when one stops, the database stops".into(),
        _ => alloc::format!("{voters} balanced voters: {} may be lost", voters / 2),
    }];
    Placement { active_site: None, copies: order.iter().enumerate().map(place).collect(), reasons }
}

/// One node of each site in turn, the given site first, so that any prefix is spread.
fn in_turns<'d>(first: &str, sites: &BTreeMap<&str, Vec<&'d Node>>) -> Vec<&'d Node> {
    let mut lists: Vec<(&str, &Vec<&Node>)> = sites.iter().map(|(s, nodes)| (*s, nodes)).collect();
    lists.sort_by_key(|(site, _)| (*site != first, *site));
    let longest = lists.iter().map(|(_, nodes)| nodes.len()).max().unwrap_or(0);
    let turn = |i: usize| lists.iter().filter_map(move |(_, nodes)| nodes.get(i).copied());
    (0..longest).flat_map(turn).collect()
}

fn odd_at_most(count: usize, max: usize) -> usize {
    let count = count.min(max);
    if count % 2 == 0 { count.saturating_sub(1) } else { count }
}

/// The voters of the control group, and what follows from where they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlVoters {
    /// In the order of their numbers; every other node is a learner.
    pub voters: Vec<NodeId>,
    /// What follows for the loss of a site, for people.
    pub findings: Vec<String>,
}

/// Decides which nodes vote in the control group.
pub fn control_voters(dag: &Dag) -> ControlVoters {
    let sites = dag.data_sites();
    let witness = dag.nodes.iter().find(|node| node.witness);
    let mut voters: Vec<&Node> = match sites.len() {
        1 => one_site_control(&sites, witness),
        2 => two_site_control(&dag.primary_site, &sites, witness),
        _ => {
            let count = odd_at_most(sites.len(), VOTERS_MAX);
            in_turns(&dag.primary_site, &sites).into_iter().take(count).collect()
        }
    };
    voters.sort_by_key(|node| node.id);
    let findings = control_findings(dag, &voters);
    ControlVoters { voters: voters.iter().map(|node| node.id).collect(), findings }
}

fn one_site_control<'d>(
    sites: &BTreeMap<&str, Vec<&'d Node>>,
    witness: Option<&'d Node>,
) -> Vec<&'d Node> {
    let nodes: Vec<&Node> = sites.values().flatten().copied().collect();
    // An even number of data nodes is made odd by the witness rather than by leaving one out.
    match witness {
        Some(witness) if nodes.len() % 2 == 0 && nodes.len() < VOTERS_MAX => {
            nodes.into_iter().chain([witness]).collect()
        }
        _ => {
            let count = odd_at_most(nodes.len(), VOTERS_MAX);
            nodes.into_iter().take(count).collect()
        }
    }
}

fn two_site_control<'d>(
    primary: &str,
    sites: &BTreeMap<&str, Vec<&'d Node>>,
    witness: Option<&'d Node>,
) -> Vec<&'d Node> {
    let Some(witness) = witness else { return without_third_place(primary, sites) };
    let each = sites.values().map(Vec::len).min().unwrap_or(0).min(2);
    let voters = sites.values().flat_map(|nodes| nodes.iter().copied().take(each));
    voters.chain([witness]).collect()
}

/// One more in the primary site than in the other. Where the primary one has a single node and the
/// other has two, that one has the majority: a voter alone would survive no loss at all.
fn without_third_place<'d>(primary: &str, sites: &BTreeMap<&str, Vec<&'d Node>>) -> Vec<&'d Node> {
    let mut sites: Vec<(&str, &Vec<&Node>)> = sites.iter().map(|(s, nodes)| (*s, nodes)).collect();
    sites.sort_by_key(|(site, nodes)| (Reverse(nodes.len().min(2)), *site != primary, *site));
    let mut left = sites.first().map_or(0, |(_, nodes)| nodes.len().min(2));
    let mut voters = Vec::new();
    for (_, nodes) in sites {
        voters.extend(nodes.iter().copied().take(left));
        left = left.saturating_sub(1);
    }
    voters
}

/// Says for every site, in words, what its loss does to the control group.
fn control_findings(dag: &Dag, voters: &[&Node]) -> Vec<String> {
    let sites: BTreeSet<&str> = dag.nodes.iter().map(|node| node.site.as_str()).collect();
    let majority = voters.len() / 2 + 1;
    let mut findings = Vec::new();
    if sites.len() > 1 {
        for site in &sites {
            let left = voters.iter().filter(|node| node.site != **site).count();
            let total = voters.len();
            findings.push(if left >= majority {
                alloc::format!("losing {site} leaves {left} of {total} control voters: a majority")
            } else {
                alloc::format!(
                    "losing {site} leaves {left} of {total} control voters: no majority; only an \
                     unfenced site activation continues"
                )
            });
        }
    }
    if dag.data_sites().len() == 2 && !third_place(dag) {
        findings.push(
            "there is no witness in a third place: no site can be taken over automatically, and \
             without a stop receipt no loss can be proven to be zero"
                .into(),
        );
    }
    if voters.len() < 3 {
        findings.push(alloc::format!(
            "{} control voter(s): the loss of one node stops the control group",
            voters.len()
        ));
    }
    findings
}

fn third_place(dag: &Dag) -> bool {
    let data = dag.data_sites();
    dag.nodes.iter().any(|node| node.witness && !data.contains_key(node.site.as_str()))
}

#[cfg(test)]
#[path = "placement_test.rs"]
mod tests;
