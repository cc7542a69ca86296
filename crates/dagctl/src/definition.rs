//! From `dag.toml` to the definition that every node is given.

use active_manager::placement::{self, Dag, Node};
use dag_api::admin::v1::{DagDefinition, NodeDefinition, SiteDefinition, TimeoutShape};
use dag_types::NodeId;
use testkit::shape::{DagFile, NodeEntry, Timeouts};

/// The definition with everything filled in that the file may leave out, so that its digest covers
/// all of it.
pub fn definition(file: &DagFile) -> DagDefinition {
    let nodes = file.members().map(|(node, witness)| NodeDefinition {
        node_id: node.id,
        name: node.name.clone(),
        site: node.site.clone(),
        api_address: node.clients.to_string(),
        admin_address: node.admin.to_string(),
        peer_address: node.peers.to_string(),
        witness,
    });
    let site = |name: &String| SiteDefinition { name: name.clone() };
    DagDefinition {
        name: file.name.clone(),
        sites: file.sites.iter().map(|entry| site(&entry.name)).collect(),
        nodes: nodes.collect(),
        control_voters: control_voters(file),
        database_timeouts: Some(timeouts(file.timeouts)),
        control_timeouts: Some(timeouts(control_timeouts(file.timeouts))),
    }
}

/// The control group may have voters in several sites, so it is never faster than "default" there;
/// where all of a DAG is fast, so is its control group.
fn control_timeouts(databases: Timeouts) -> Timeouts {
    databases
}

fn timeouts(shape: Timeouts) -> TimeoutShape {
    let (heartbeat_ms, election_ms_min, election_ms_max) = match shape {
        Timeouts::Fast => (20, 80, 160),
        Timeouts::Default => (150, 600, 1_200),
        Timeouts::Wan => (300, 1_000, 2_000),
    };
    TimeoutShape { name: shape.name().to_owned(), heartbeat_ms, election_ms_min, election_ms_max }
}

/// Who votes in the control group: decided where every later change of it is decided too.
fn control_voters(file: &DagFile) -> Vec<u64> {
    let node = |(node, witness): (&NodeEntry, bool)| Node {
        id: NodeId(node.id),
        site: node.site.clone(),
        witness,
        preferred: 0,
        copies: 0,
    };
    let mut nodes: Vec<Node> = file.members().map(node).collect();
    nodes.sort_by_key(|node| node.id);
    let primary_site = file.sites.first().map(|site| site.name.clone()).unwrap_or_default();
    let voters = placement::control_voters(&Dag { primary_site, nodes }).voters;
    voters.into_iter().map(|node| node.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::scratch::shapes;

    fn shape(name: &str) -> DagFile {
        DagFile::read(&shapes().join(name).join("dag.toml")).expect("a shape")
    }

    #[test]
    fn control_voters_are_an_odd_number_and_stand_as_their_sites_ask() {
        for (name, voters) in [
            ("single-node", vec![1]),
            ("three-node", vec![1, 2, 3]),
            ("two-site", vec![1, 2, 3]),
            ("two-site-witness", vec![1, 2, 3, 4, 5]),
        ] {
            assert_eq!(control_voters(&shape(name)), voters, "{name}");
        }
    }

    #[test]
    fn two_nodes_of_one_site_have_one_voter_and_six_have_five() {
        let mut file = shape("three-node");
        file.nodes.truncate(2);
        assert_eq!(control_voters(&file), [1]);
        let last = file.nodes[0].clone();
        file.nodes = (1..=6).map(|id| testkit::shape::NodeEntry { id, ..last.clone() }).collect();
        assert_eq!(control_voters(&file), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_definition_names_the_witness_and_gives_the_timeouts_in_numbers() {
        let definition = definition(&shape("two-site-witness"));
        let witnesses: Vec<_> = definition.nodes.iter().filter(|node| node.witness).collect();
        assert_eq!((witnesses.len(), witnesses[0].node_id), (1, 5));
        let timeouts = definition.database_timeouts.expect("always filled in");
        assert_eq!((timeouts.heartbeat_ms, timeouts.election_ms_max), (150, 1_200));
    }
}
