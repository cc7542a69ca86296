//! Nodes are numbers on the wire and names on the screen.

use std::collections::BTreeMap;

use dag_api::admin::v1::GetStatusResponse;

use crate::exit::Exit;
use crate::failure::Failure;

/// The names of a DAG's nodes.
#[derive(Debug, Default)]
pub struct Names(BTreeMap<u64, String>);

impl Names {
    /// As a status has them.
    pub fn of(status: &GetStatusResponse) -> Self {
        let nodes = status.nodes.iter().filter_map(|node| node.node.as_ref());
        Self(nodes.map(|node| (node.node_id, node.name.clone())).collect())
    }

    /// The node's name, or its number where nobody named it; `-` for none.
    pub fn name(&self, node: u64) -> String {
        match self.0.get(&node) {
            Some(name) if !name.is_empty() => name.clone(),
            _ if node == 0 => "-".to_owned(),
            _ => node.to_string(),
        }
    }

    /// Several nodes, in the order given.
    pub fn list(&self, nodes: &[u64]) -> Vec<String> {
        nodes.iter().map(|node| self.name(*node)).collect()
    }

    /// The number of the node with this name or this number.
    pub fn number(&self, text: &str) -> Result<u64, Failure> {
        let by_name = self.0.iter().find(|(_, name)| *name == text).map(|(id, _)| *id);
        let by_number = || text.parse().ok().filter(|id| self.0.contains_key(id));
        by_name.or_else(by_number).ok_or_else(|| {
            let known: Vec<&str> = self.0.values().map(String::as_str).collect();
            Failure::new(Exit::Usage, format!("There is no node `{text}`."))
                .why(format!("known nodes: {}", known.join(", ")))
        })
    }
}
