//! Sites, the witness, the control group's voters, hosts, timeouts.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use dag_types::{DatabaseId, NodeId};

use super::{Code, Lint};
use crate::control::{ControlState, DatabaseRecord, NodeRecord, Timeouts};

impl Lint<'_> {
    pub(super) fn layout(&mut self) {
        self.control_voters();
        self.witness();
        self.sites();
        self.hosts();
        self.timeouts();
    }

    fn control_voters(&mut self) {
        let voters = voters(self.state.database(DatabaseId::CONTROL));
        let found = format!("{} voters: {}", voters.len(), self.names(voters.iter().copied()));
        // One node alone is told as a single site; a second finding says nothing more.
        if voters.len() < 3 && self.state.nodes.len() > 1 {
            let advice = "give the DAG three voters: two data nodes and a witness, or three data \
                          nodes";
            self.of_dag(Code::FewControlVoters, "control group", found, advice);
        } else if voters.len() > 1 && voters.len().is_multiple_of(2) {
            let advice = "an odd number of control voters: a witness makes two sites odd";
            self.of_dag(Code::EvenControlVoters, "control group", found, advice);
        }
    }

    fn witness(&mut self) {
        let (state, sites) = (self.state, data_sites(self.state));
        let voters = voters(state.database(DatabaseId::CONTROL));
        let Some(witness) = state.nodes.iter().find(|node| node.witness) else {
            if sites.len() == 2 {
                let names: Vec<&str> = sites.keys().copied().collect();
                let found = format!("sites {} and no witness", names.join(" and "));
                let advice = "a witness in a third place: a small machine that holds no mail";
                self.of_dag(Code::NoWitness, &state.dag.name, found, advice);
            }
            return self.control_majority();
        };
        if !voters.contains(&witness.id()) {
            let found = format!("{} control voters, and it is none of them", voters.len());
            let advice = "leave it out, or let it vote in the place of a data node";
            self.of_node(Code::WitnessWithoutVote, witness, found, advice);
        } else if sites.len() > 1 && sites.contains_key(witness.site.as_str()) {
            let found = format!("it stands in site {}, which holds databases", witness.site);
            let advice = "a witness in a third place, which no data site is lost together with";
            self.of_node(Code::WitnessInDataSite, witness, found, advice);
        }
        self.control_majority();
    }

    /// A site without which the control group has no majority, where that is not said already.
    fn control_majority(&mut self) {
        let sites = data_sites(self.state);
        let said = self.has(Code::WitnessInDataSite);
        if sites.len() < 2 || said {
            return;
        }
        let voters = voters(self.state.database(DatabaseId::CONTROL));
        for site in sites.keys() {
            let left = voters.iter().filter(|node| self.state.site_of(**node) != *site).count();
            if left <= voters.len() / 2 {
                let found = format!("losing it leaves {left} of {} control voters", voters.len());
                let advice = "control voters in three places, a strict majority outside of each";
                self.of_dag(Code::ControlMajorityInSite, &format!("site {site}"), found, advice);
            }
        }
    }

    fn sites(&mut self) {
        let sites = data_sites(self.state);
        if let (1, Some((site, nodes))) = (sites.len(), sites.iter().next()) {
            let found = format!("{} nodes, all in site {site}", nodes.len());
            let advice =
                "a second site with nodes of its own, where a lost place must not stop mail";
            return self.of_dag(Code::SingleSite, &self.state.dag.name, found, advice);
        }
        // Three sites share their databases: there one node in each is the plan.
        let alone = sites.iter().filter(|(_, nodes)| nodes.len() == 1 && sites.len() == 2);
        for (site, nodes) in alone {
            let found = format!("{} is its only node with databases", self.name(nodes[0]));
            let advice = "two nodes in each of two sites";
            self.of_dag(Code::SiteWithOneNode, &format!("site {site}"), found, advice);
        }
    }

    /// Nodes whose addresses name the same host.
    fn hosts(&mut self) {
        let mut hosts: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for node in &self.state.nodes {
            hosts.entry(host(node)).or_default().push(node.id());
        }
        for (host, nodes) in hosts.iter().filter(|(_, nodes)| nodes.len() > 1) {
            let found = format!("nodes {}", self.names(nodes.iter().copied()));
            let advice = "a machine of its own for every node";
            self.of_dag(Code::SharedHost, &format!("host {host}"), found, advice);
        }
    }

    /// Voters in several sites want the timeouts of a wide area network.
    fn timeouts(&mut self) {
        let state = self.state;
        let spread = |database: &&DatabaseRecord| sites_of(state, &voters(Some(database))) > 1;
        let control = state.database(DatabaseId::CONTROL).filter(spread);
        let databases = state.databases.iter().filter(|db| db.id() != DatabaseId::CONTROL);
        let groups = [
            ("control group", control.is_some(), state.dag.control_timeouts),
            ("databases", databases.filter(spread).count() > 0, state.dag.database_timeouts),
        ];
        for (subject, spread, timeouts) in groups {
            let timeouts = timeouts.unwrap_or(Timeouts::DEFAULT);
            if spread && timeouts.election_ms_min < Timeouts::WAN.election_ms_min {
                let advice = "`timeouts = \"wan\"` in dag.toml before the DAG is created; where the \
                              sites are as near as rooms, leave it";
                self.of_dag(Code::ShortTimeouts, subject, timeouts.to_string(), advice);
            }
        }
    }
}

/// The nodes of each site that hold databases.
pub(super) fn data_sites(state: &ControlState) -> BTreeMap<&str, Vec<NodeId>> {
    let mut sites: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for node in state.nodes.iter().filter(|node| !node.witness) {
        sites.entry(&node.site).or_default().push(node.id());
    }
    sites
}

pub(super) fn voters(database: Option<&DatabaseRecord>) -> Vec<NodeId> {
    let copies = database.into_iter().flat_map(|database| &database.replicas);
    copies.filter(|copy| copy.voter).map(|copy| copy.node()).collect()
}

/// In how many sites these nodes stand.
pub(super) fn sites_of(state: &ControlState, nodes: &[NodeId]) -> usize {
    nodes.iter().map(|node| state.site_of(*node)).collect::<BTreeSet<_>>().len()
}

fn host(node: &NodeRecord) -> &str {
    node.peer_address.rsplit_once(':').map_or(&node.peer_address, |(host, _)| host)
}
