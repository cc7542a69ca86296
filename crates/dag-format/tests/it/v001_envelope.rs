//! The head of an entry's payload as version 1 writes it.

use bytes::Bytes;
use dag_format::envelope::{Body, Envelope};
use dag_format::{FormatError, links};
use dag_types::{ActivationId, Lineage, LineageChain, LineageKind, LineageStep, NodeId};

use super::{hex, show};

fn envelopes() -> [(Envelope, &'static str); 3] {
    let lineage = Lineage { epoch: 5, activation: ActivationId([6; 16]) };
    [
        (Envelope { lineage, body: Body::Command(Bytes::from_static(b"do it")) }, GOLDEN[0]),
        (Envelope { lineage, body: mount(Bytes::new()) }, GOLDEN[1]),
        (Envelope { lineage, body: Body::DigestMark { mark: 9 } }, GOLDEN[2]),
    ]
}

fn mount(links: Bytes) -> Body {
    Body::Mount { node: NodeId(7), term: 8, links }
}

#[test]
fn envelopes_are_written_and_read_as_ever() {
    for (envelope, golden) in envelopes() {
        assert_eq!(show(&envelope.encode()), show(&hex(golden)));
        assert_eq!(Envelope::decode(&hex(golden).into()), Ok(envelope));
    }
}

#[test]
fn an_unknown_type_is_never_skipped() {
    for found in [0, 4, 255] {
        let mut bytes = hex(GOLDEN[0]);
        bytes[0] = found;
        let fault = Envelope::decode(&bytes.into());
        assert_eq!(fault, Err(FormatError::UnknownType { what: "an entry", found }));
    }
}

#[test]
fn an_unknown_version_is_refused() {
    for found in [0, 2, 255] {
        let mut bytes = hex(GOLDEN[0]);
        bytes[1] = found;
        let fault = Envelope::decode(&bytes.into());
        assert_eq!(fault, Err(FormatError::UnknownVersion { what: "an entry", found, known: 1 }));
    }
}

#[test]
fn a_mount_of_a_later_link_carries_the_whole_chain() {
    let step = |epoch, id, kind| LineageStep {
        lineage: Lineage { epoch, activation: ActivationId([id; 16]) },
        kind,
        rejected: if kind == LineageKind::Accept { vec![ActivationId([9; 16])] } else { vec![] },
    };
    let kinds = [
        LineageKind::Stop,
        LineageKind::Start,
        LineageKind::ActivateFenced,
        LineageKind::ActivateUnfenced,
        LineageKind::Accept,
    ];
    let first = LineageChain::first(ActivationId([1; 16]));
    assert_eq!(links::beside(&first), Bytes::new());
    assert_eq!(links::chain_of(first.last(), &[]), Ok(first.clone()));
    let chain = kinds.iter().zip(2_u8..).fold(first, |chain, (kind, id)| {
        chain.extended(step(u64::from(id), id, *kind)).expect("a chain")
    });
    let beside = links::beside(&chain);
    let entry = Envelope { lineage: chain.last(), body: mount(beside.clone()) };
    let bytes = entry.encode();
    assert_eq!((bytes[0], bytes[1]), (2, 2));
    assert_eq!(Envelope::decode(&bytes), Ok(entry));
    assert_eq!(links::chain_of(chain.last(), &beside), Ok(chain.clone()));
    assert!(links::chain_of(Lineage { epoch: 9, ..chain.last() }, &beside).is_err());
    for end in 0..beside.len() {
        assert!(links::decode(&beside[..end]).is_err(), "{end}");
    }
}

#[test]
fn a_body_that_is_too_short_or_too_long_is_refused() {
    for (_, golden) in &envelopes()[1..] {
        let bytes = hex(golden);
        let short = Bytes::copy_from_slice(&bytes[..bytes.len() - 1]);
        assert!(matches!(Envelope::decode(&short), Err(FormatError::Short { .. })));
        let long = Bytes::from([bytes, vec![0]].concat());
        assert!(matches!(Envelope::decode(&long), Err(FormatError::Malformed { .. })));
    }
    assert!(Envelope::decode(&Bytes::new()).is_err());
}

pub const GOLDEN: [&str; 3] = [
    "0101050000000000000006060606060606060606060606060606646f206974",
    "020105000000000000000606060606060606060606060606060607000000000000000800000000000000",
    "03010500000000000000060606060606060606060606060606060900000000000000",
];
