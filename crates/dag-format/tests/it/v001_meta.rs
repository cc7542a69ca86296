//! META and the node's root record as version 1 writes them.

use bytes::Bytes;
use dag_format::FormatError;
use dag_format::log::VoteRecord;
use dag_format::meta::{CopyMemory, CopyMeta, NodeMeta, TakenStep};
use dag_types::{ActivationId, DagId, DatabaseId, Generation, Lineage, NodeId, ReplicaId, StoreId};

use super::{hex, id, show};

fn copy() -> CopyMeta {
    CopyMeta {
        writer: "holdfast 0.1.0".into(),
        dag: DagId([1; 16]),
        node: NodeId(2),
        store: StoreId([3; 16]),
        database: DatabaseId(16),
        generation: Generation(1),
        replica: ReplicaId(300),
        opens: 4,
        boot_counter: 5,
        purged: Some((id(6, 7), super::chain())),
    }
}

fn node() -> NodeMeta {
    NodeMeta {
        writer: "holdfast 0.1.0".into(),
        dag: DagId([1; 16]),
        node: NodeId(2),
        store: StoreId([3; 16]),
        boot_counter: 5,
        boot_id: 0x0123_4567_89ab_cdef,
        lineage: Lineage { epoch: 8, activation: ActivationId([9; 16]) },
        links: Bytes::from_static(b"links"),
        copies: vec![CopyMemory {
            database: DatabaseId(16),
            replica: ReplicaId(300),
            opens: 4,
            boot_counter: 5,
            vote: Some(VoteRecord { term: 10, voted_for: 300, committed: true }),
        }],
        promise: None,
        steps: Vec::new(),
    }
}

#[test]
fn a_copys_meta_is_written_and_read_as_ever() {
    assert_eq!(show(&copy().encode()), show(&hex(GOLDEN_COPY)));
    assert_eq!(CopyMeta::decode(&hex(GOLDEN_COPY)), Ok(copy()));
}

#[test]
fn a_nodes_root_record_is_written_and_read_as_ever() {
    assert_eq!(show(&node().encode()), show(&hex(GOLDEN_NODE)));
    assert_eq!(NodeMeta::decode(&hex(GOLDEN_NODE)), Ok(node()));
}

#[test]
fn a_root_with_a_promise_or_steps_is_refused_by_who_does_not_know_them() {
    let promised = NodeMeta { promise: Some(ActivationId([7; 16])), ..node() };
    let step = TakenStep { operation: 3, term: 4, step: 5 };
    let stepped = NodeMeta { steps: vec![step], ..node() };
    let version = |node: &NodeMeta| show(&node.encode()) != show(&hex(GOLDEN_NODE));
    for meta in [promised, stepped] {
        assert_eq!(NodeMeta::decode(&meta.encode()), Ok(meta.clone()));
        assert!(version(&meta));
    }
    assert!(!version(&node()));
}

#[test]
fn one_is_not_taken_for_the_other() {
    let fault = CopyMeta::decode(&node().encode());
    assert_eq!(fault, Err(FormatError::UnknownType { what: "META", found: 0x42 }));
}

#[test]
fn no_flipped_bit_and_no_missing_byte_passes() {
    let bytes = node().encode();
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        assert!(NodeMeta::decode(&flipped).is_err(), "bit {at}");
    }
    for length in 0..bytes.len() {
        assert!(NodeMeta::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
}

pub const GOLDEN_COPY: &str = "a2bfc0d359000000410100000a0e686f6c646661737420302e312e3012100101010101010101010101010101 \
     010118022210030303030303030303030303030303032810300138ac02400448055216080610071a10636861 \
     696e2d6f662d7369787465656e";

pub const GOLDEN_NODE: &str = "6ed932da70000000420100000a0e686f6c646661737420302e312e3012100101010101010101010101010101 \
     01011802221003030303030303030303030303030303280531efcdab89674523013808421009090909090909 \
     0909090909090909094a056c696e6b735212081010ac02180420052a07080a10ac021801";
