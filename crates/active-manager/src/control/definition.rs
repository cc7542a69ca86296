//! What a DAG is created from, and everything that can be wrong with it.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dag_types::{NodeId, ReplicaId};

use super::record::Timeouts;
use crate::placement::{self, Dag, VOTERS_MAX};

/// The contents of `dag.toml`. Used once; afterwards the control log is the authority.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Definition {
    /// For people.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The first is the primary site.
    #[prost(string, repeated, tag = "2")]
    pub sites: Vec<String>,
    /// Every member, the witness among them.
    #[prost(message, repeated, tag = "3")]
    pub nodes: Vec<NodeDefinition>,
    /// Node numbers; empty: chosen by [`placement::control_voters`].
    #[prost(uint64, repeated, tag = "4")]
    pub control_voters: Vec<u64>,
    /// Of the mailbox databases and the directory.
    #[prost(message, optional, tag = "5")]
    pub database_timeouts: Option<Timeouts>,
    /// Of the control group.
    #[prost(message, optional, tag = "6")]
    pub control_timeouts: Option<Timeouts>,
}

/// A member of the DAG.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeDefinition {
    /// 1 and above.
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// For people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The place that it is lost together with.
    #[prost(string, tag = "3")]
    pub site: String,
    /// Votes in the control group and holds no mail.
    #[prost(bool, tag = "4")]
    pub witness: bool,
    /// host:port for the other nodes.
    #[prost(string, tag = "5")]
    pub peer_address: String,
    /// host:port for front ends.
    #[prost(string, tag = "6")]
    pub client_address: String,
    /// host:port for operators.
    #[prost(string, tag = "7")]
    pub admin_address: String,
}

/// A copy of the control group, as every node computes it before there is a control log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundingReplica {
    /// Where.
    pub node: NodeId,
    /// Its Raft id.
    pub replica: ReplicaId,
    /// Whether it votes.
    pub voter: bool,
}

impl Definition {
    /// Everything that is wrong, not only the first; empty where a DAG can be made from it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !is_name(&self.name) {
            problems.push(name_problem("the DAG's name", &self.name));
        }
        if self.nodes.iter().all(|node| node.witness) {
            problems.push("a DAG needs at least one node that holds databases".into());
        }
        if self.nodes.iter().filter(|node| node.witness).count() > 1 {
            problems.push("there is more than one witness".into());
        }
        self.site_problems(&mut problems);
        self.node_problems(&mut problems);
        self.voter_problems(&mut problems);
        self.timeout_problems(&mut problems);
        problems
    }

    fn site_problems(&self, problems: &mut Vec<String>) {
        let mut seen = BTreeSet::new();
        for site in &self.sites {
            if !is_name(site) {
                problems.push(name_problem("a site's name", site));
            }
            if !seen.insert(site.to_ascii_lowercase()) {
                problems.push(format!("two sites are called {site}"));
            }
            if !self.nodes.iter().any(|node| node.site == *site && !node.witness) {
                problems.push(format!("site {site} has no node that holds databases"));
            }
        }
        for node in self.nodes.iter().filter(|node| !node.witness) {
            if !self.sites.contains(&node.site) {
                problems.push(format!("node {}: there is no site {:?}", node.node, node.site));
            }
        }
    }

    fn node_problems(&self, problems: &mut Vec<String>) {
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        let mut addresses = BTreeSet::new();
        for node in &self.nodes {
            if node.node == 0 {
                problems.push("a node has the number 0; number nodes from 1".into());
            }
            if !ids.insert(node.node) {
                problems.push(format!("two nodes have the number {}", node.node));
            }
            if !is_name(&node.name) {
                problems.push(name_problem("a node's name", &node.name));
            }
            if !names.insert(node.name.to_ascii_lowercase()) {
                problems.push(format!("two nodes are called {}", node.name));
            }
            for address in [&node.peer_address, &node.client_address, &node.admin_address] {
                if !is_host_and_port(address) {
                    problems.push(format!("node {}: {address:?} is no host:port", node.node));
                } else if !addresses.insert(address.clone()) {
                    problems.push(format!("the address {address} is given twice"));
                }
            }
        }
    }

    fn voter_problems(&self, problems: &mut Vec<String>) {
        let mut seen = BTreeSet::new();
        for voter in &self.control_voters {
            if !self.nodes.iter().any(|node| node.node == *voter) {
                problems.push(format!("control voter {voter} is no node"));
            }
            if !seen.insert(voter) {
                problems.push(format!("control voter {voter} is named twice"));
            }
        }
        if self.control_voters.len() > VOTERS_MAX {
            problems.push(format!("more than {VOTERS_MAX} control voters"));
        }
    }

    fn timeout_problems(&self, problems: &mut Vec<String>) {
        let both = [("database", &self.database_timeouts), ("control", &self.control_timeouts)];
        for (group, timeouts) in both {
            match timeouts {
                None => problems.push(format!("{group} timeouts are missing")),
                Some(timeouts) => problems
                    .extend(timeouts.problems().into_iter().map(|p| format!("{group}: {p}"))),
            }
        }
    }

    /// What placement needs to know of it. No database stands anywhere yet.
    pub fn dag(&self) -> Dag {
        let mut nodes: Vec<placement::Node> = self
            .nodes
            .iter()
            .map(|node| placement::Node {
                id: NodeId(node.node),
                site: node.site.clone(),
                witness: node.witness,
                preferred: 0,
                copies: 0,
            })
            .collect();
        nodes.sort_by_key(|node| node.id);
        Dag { primary_site: self.sites.first().cloned().unwrap_or_default(), nodes }
    }

    /// The copies of the control group: one on every node, numbered in the order of the nodes.
    ///
    /// Every node computes the same list from the definition, so the group can be started before
    /// anything is in its log.
    pub fn founding_replicas(&self) -> Vec<FoundingReplica> {
        let dag = self.dag();
        let voters: Vec<NodeId> = match self.control_voters.is_empty() {
            true => placement::control_voters(&dag).voters,
            false => self.control_voters.iter().map(|id| NodeId(*id)).collect(),
        };
        let number = |(i, node): (usize, &placement::Node)| FoundingReplica {
            node: node.id,
            replica: ReplicaId(i as u64 + 1),
            voter: voters.contains(&node.id),
        };
        dag.nodes.iter().enumerate().map(number).collect()
    }
}

impl Timeouts {
    /// The same rack: heartbeat 20 ms, election 80 to 160 ms.
    pub const FAST: Self = Self { heartbeat_ms: 20, election_ms_min: 80, election_ms_max: 160 };
    /// One site: heartbeat 150 ms, election 600 to 1200 ms.
    pub const DEFAULT: Self =
        Self { heartbeat_ms: 150, election_ms_min: 600, election_ms_max: 1200 };
    /// Voters in several sites: heartbeat 300 ms, election 1000 to 2000 ms.
    pub const WAN: Self = Self { heartbeat_ms: 300, election_ms_min: 1000, election_ms_max: 2000 };

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(5..=10_000).contains(&self.heartbeat_ms) {
            problems.push(format!("heartbeat of {} ms is outside 5 to 10000", self.heartbeat_ms));
        }
        // Two heartbeats may be lost before anybody calls an election.
        if self.election_ms_min < 3 * self.heartbeat_ms {
            problems.push("the shortest election timeout is below three heartbeats".into());
        }
        if self.election_ms_max <= self.election_ms_min {
            problems.push("the longest election timeout is not above the shortest".into());
        }
        problems
    }
}

/// Names of DAGs, sites, nodes and databases: 1 to 64 letters, digits, `-`, `_`.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// What is wrong with a name.
pub(crate) fn name_problem(what: &str, name: &str) -> String {
    format!("{what}: {name:?} needs 1 to 64 letters, digits, '-' or '_'")
}

pub(crate) fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

impl core::fmt::Display for Timeouts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { heartbeat_ms, election_ms_min, election_ms_max } = self;
        write!(f, "heartbeat {heartbeat_ms} ms, election {election_ms_min}-{election_ms_max} ms")
    }
}

#[cfg(test)]
pub(crate) fn example(shape: &str) -> Definition {
    let node = |word: &str| {
        let number: u64 = word[1..].trim_end_matches('w').parse().unwrap();
        NodeDefinition {
            node: number,
            name: format!("n{number}"),
            site: word[..1].into(),
            witness: word.ends_with('w'),
            peer_address: format!("127.0.0.{number}:1"),
            client_address: format!("127.0.0.{number}:2"),
            admin_address: format!("127.0.0.{number}:3"),
        }
    };
    let nodes: Vec<NodeDefinition> = shape.split_whitespace().map(node).collect();
    let with_data = nodes.iter().filter(|node| !node.witness);
    let sites: BTreeSet<String> = with_data.map(|node| node.site.clone()).collect();
    Definition {
        name: "test".into(),
        sites: sites.into_iter().collect(),
        nodes,
        control_voters: Vec::new(),
        database_timeouts: Some(Timeouts::DEFAULT),
        control_timeouts: Some(Timeouts::DEFAULT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_definition_has_no_problems() {
        for shape in ["A1", "A1 A2 A3", "A1 A2 B3 B4 C5w", "A1 B2 C3"] {
            assert_eq!(example(shape).problems(), Vec::<String>::new(), "{shape}");
        }
    }

    #[test]
    fn every_problem_of_a_definition_is_named() {
        let mut wrong = example("A1 A2 B3 C4w C5w");
        wrong.name = "my dag".into();
        wrong.sites.push("a".into());
        wrong.nodes[1].node = 1;
        wrong.nodes[1].name = "N1".into();
        wrong.nodes[2].site = "Z".into();
        wrong.nodes[2].peer_address = "nowhere".into();
        wrong.nodes[3].admin_address = wrong.nodes[0].admin_address.clone();
        wrong.control_voters = alloc::vec![1, 1, 9];
        wrong.control_timeouts = None;
        wrong.database_timeouts =
            Some(Timeouts { heartbeat_ms: 150, election_ms_min: 300, election_ms_max: 300 });
        let problems = wrong.problems();
        for part in [
            "the DAG's name",
            "more than one witness",
            "two sites are called a",
            "site a has no node",
            "site B has no node",
            "node 3: there is no site \"Z\"",
            "two nodes have the number 1",
            "two nodes are called N1",
            "\"nowhere\" is no host:port",
            "the address 127.0.0.1:3 is given twice",
            "control voter 1 is named twice",
            "control voter 9 is no node",
            "control timeouts are missing",
            "database: the shortest election timeout is below three heartbeats",
            "database: the longest election timeout is not above the shortest",
        ] {
            assert!(problems.iter().any(|p| p.contains(part)), "{part} not in {problems:#?}");
        }
    }

    #[test]
    fn every_node_has_a_control_copy_numbered_in_the_order_of_nodes() {
        let mut definition = example("A1 A2 B3 B4 C5w");
        definition.nodes.reverse();
        let replicas = definition.founding_replicas();
        let numbers: Vec<(u64, u64)> =
            replicas.iter().map(|copy| (copy.node.0, copy.replica.0)).collect();
        assert_eq!(numbers, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
        assert!(replicas.iter().all(|copy| copy.voter));
        definition.control_voters = alloc::vec![1, 3, 5];
        let voters = definition.founding_replicas().into_iter().filter(|copy| copy.voter);
        assert_eq!(voters.map(|copy| copy.node.0).collect::<Vec<_>>(), [1, 3, 5]);
    }
}
