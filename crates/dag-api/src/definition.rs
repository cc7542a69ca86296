//! The digest that tells two definitions of a DAG apart.

use prost::Message;

use crate::admin::v1::DagDefinition;

impl DagDefinition {
    /// BLAKE3 over the definition's encoding. Fields are written in ascending order, and there are
    /// neither maps nor unknown fields in the value, so equal definitions have equal digests.
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.encode_to_vec()).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::v1::NodeDefinition;

    #[test]
    fn the_digest_survives_the_wire_and_notices_a_change() {
        let node = NodeDefinition { node_id: 1, site: "a".into(), ..NodeDefinition::default() };
        let mut definition = DagDefinition { name: "d".into(), ..DagDefinition::default() };
        definition.nodes.push(node);
        let again = DagDefinition::decode(definition.encode_to_vec().as_slice()).unwrap();
        assert_eq!(again.digest(), definition.digest());
        definition.nodes[0].witness = true;
        assert_ne!(again.digest(), definition.digest());
    }
}
