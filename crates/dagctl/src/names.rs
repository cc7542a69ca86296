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
            let what = format!("There is no node `{text}`.");
            Failure::new(Exit::Usage, what).why(suggestion(text, &known, "nodes"))
        })
    }
}

/// The names that are near to a mistyped one, or all of them where none is.
pub fn suggestion(typed: &str, known: &[&str], what: &str) -> String {
    let mut near: Vec<(usize, &str)> =
        known.iter().map(|name| (distance(typed, name), *name)).collect();
    near.sort_unstable();
    // One letter in three may be wrong.
    near.retain(|(far, name)| *far <= name.len().max(typed.len()).div_ceil(3));
    let near: Vec<&str> = near.into_iter().map(|(_, name)| name).take(3).collect();
    match near.as_slice() {
        [] => format!("known {what}: {}", known.join(", ")),
        near => format!("perhaps {}; known {what}: {}", near.join(" or "), known.join(", ")),
    }
}

/// How many letters have to be put in, taken out or exchanged, in any case.
fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.to_lowercase(), right.to_lowercase());
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, r) in right.chars().enumerate() {
            let exchanged = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_answered_with_those_near_to_it() {
        assert_eq!(distance("DB1", "db1"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
        let known = ["n1", "n2", "witness"];
        assert_eq!(
            suggestion("witnes", &known, "nodes"),
            "perhaps witness; known nodes: n1, n2, witness"
        );
        assert_eq!(suggestion("xxxx", &known, "nodes"), "known nodes: n1, n2, witness");
    }
}
