//! From `dag.toml` to the definition that every node is given.

use std::collections::BTreeMap;

use dag_api::admin::v1::{DagDefinition, NodeDefinition, SiteDefinition, TimeoutShape};
use testkit::shape::{DagFile, Timeouts};

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

/// Who votes in the control group; always an odd number.
///
/// | sites | voters |
/// | --- | --- |
/// | one | up to five of its nodes |
/// | two and a witness | the same number in each, at most two, and the witness |
/// | two | one more in the first than in the second, at most two: only the first goes on alone |
/// | three and more | one in each of the first three, or of the first five |
pub fn control_voters(file: &DagFile) -> Vec<u64> {
    let mut by_site: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for node in &file.nodes {
        by_site.entry(&node.site).or_default().push(node.id);
    }
    let of_site = |place: usize| by_site[file.sites[place].name.as_str()].as_slice();
    match file.sites.len() {
        1 => of_site(0)[..odd(of_site(0).len().min(5))].to_vec(),
        2 => {
            let each = of_site(0).len().min(of_site(1).len()).min(2);
            let (first, second) = match &file.witness {
                Some(_) => (each, each),
                None => (of_site(0).len().min(2), of_site(0).len().min(2) - 1),
            };
            let witness = file.witness.as_ref().map(|witness| witness.id);
            let second = &of_site(1)[..second.min(of_site(1).len())];
            of_site(0)[..first].iter().chain(second).copied().chain(witness).collect()
        }
        sites => (0..odd(sites.min(5))).map(|place| of_site(place)[0]).collect(),
    }
}

/// The greatest odd number that is not greater.
fn odd(count: usize) -> usize {
    count - usize::from(count.is_multiple_of(2))
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
