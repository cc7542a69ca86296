//! Bytes that nobody wrote, and bytes that somebody wrote wrongly under a checksum that fits.

use bytes::Bytes;
use dag_format::envelope::Envelope;
use dag_format::log::LogRecord;
use dag_format::meta::{CopyMeta, NodeMeta};
use dag_format::record::{self, Place, Record};
use dag_format::{links, value};
use dag_types::{ActivationId, Lineage, LineageChain, LineageKind, LineageStep};
use fuzzing::{Target, answer};

use super::hex;
use super::v001_envelope::GOLDEN as ENVELOPES;
use super::v001_log::GOLDEN as RECORDS;
use super::v001_meta::{GOLDEN_COPY, GOLDEN_NODE};

fn samples(golden: &[&str]) -> Vec<Vec<u8>> {
    golden.iter().map(|text| hex(text)).collect()
}

fn target<'a>(name: &'a str, golden: &[&str]) -> Target<'a> {
    Target { name, samples: samples(golden), words: &[], longest: 2_000 }
}

#[test]
fn no_bytes_pass_for_a_record_that_was_not_written_there() {
    let place = Place { segment: 7, position: 4096, session: 3 };
    fuzzing::run(target("record", &RECORDS), |bytes| match record::read(bytes, place) {
        Err(error) => answer(&error),
        Ok(found) => {
            let written = record::header(found.kind, found.version, place, &[found.payload]);
            assert_eq!(&bytes[..record::HEADER_BYTES], written);
            u64::from(found.kind)
        }
    });
}

/// The first byte is the kind, the rest the payload: as if the checksum fitted.
#[test]
fn a_log_record_is_refused_or_written_back_as_it_was() {
    let payload = |bytes: Vec<u8>| [&bytes[8..9], &bytes[record::HEADER_BYTES..]].concat();
    let samples = samples(&RECORDS).into_iter().map(payload).collect();
    let target = Target { name: "log record", samples, words: &[], longest: 400 };
    fuzzing::run(target, |bytes| {
        let Some((kind, payload)) = bytes.split_first() else { return 0 };
        let record = Record { kind: *kind, version: dag_format::log::VERSION, payload };
        match LogRecord::decode(record) {
            Err(error) => answer(&error),
            Ok(decoded) => {
                let mut written = Vec::new();
                decoded.encode(Place::default(), &mut written);
                assert_eq!(&written[record::HEADER_BYTES..], payload);
                u64::from(*kind)
            }
        }
    });
}

#[test]
fn an_envelope_is_refused_or_written_back_as_it_was() {
    fuzzing::run(target("envelope", &ENVELOPES), |bytes| {
        let bytes = Bytes::copy_from_slice(bytes);
        match Envelope::decode(&bytes) {
            Err(error) => answer(&error),
            Ok(envelope) => {
                assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope.clone()));
                u64::from(bytes[0])
            }
        }
    });
}

#[test]
fn a_chain_of_lineages_is_refused_or_reads_back() {
    let mut chain = LineageChain::first(ActivationId([1; 16]));
    let mut samples = vec![links::encode(&chain).to_vec()];
    for (epoch, kind) in [(2, LineageKind::Stop), (3, LineageKind::Start), (4, LineageKind::Accept)]
    {
        let lineage = Lineage { epoch, activation: ActivationId([epoch as u8; 16]) };
        let accepts = kind == LineageKind::Accept;
        let rejected = if accepts { vec![ActivationId([9; 16])] } else { Vec::new() };
        chain = chain.extended(LineageStep { lineage, kind, rejected }).expect("a chain");
        samples.push(links::encode(&chain).to_vec());
    }
    let target = Target { name: "lineages", samples, words: &[], longest: 2_000 };
    fuzzing::run(target, |bytes| match links::decode(bytes) {
        Err(error) => answer(&error),
        Ok(chain) => {
            assert_eq!(links::encode(&chain), bytes);
            chain.links().len() as u64
        }
    });
}

/// The records of a node and of a copy stand in frames: kind, version and payload come from the
/// input, and the checksum is made to fit.
#[test]
fn records_of_nodes_and_copies_are_refused_or_read_back() {
    let bare = |golden| hex(golden).split_off(8);
    let samples = vec![bare(GOLDEN_COPY), bare(GOLDEN_NODE)];
    let target = Target { name: "meta", samples, words: &[], longest: 2_000 };
    fuzzing::run(target, |bytes| {
        let [kind, version, payload @ ..] = bytes else { return 0 };
        let head = record::header(*kind, *version, Place::default(), &[payload]);
        let file = [&head, payload].concat();
        let copy = CopyMeta::decode(&file).map(|meta| {
            assert_eq!(CopyMeta::decode(&meta.encode()), Ok(meta));
        });
        let node = NodeMeta::decode(&file).map(|meta| {
            assert_eq!(NodeMeta::decode(&meta.encode()), Ok(meta));
        });
        answer(&(copy, node))
    });
}

#[test]
fn a_value_is_refused_unless_it_was_framed_for_its_key() {
    let samples = vec![value::frame(b"key", b"payload").to_vec(), value::frame(b"key", b"").into()];
    let target = Target { name: "value", samples, words: &[], longest: 200 };
    fuzzing::run(target, |bytes| {
        let framed = Bytes::copy_from_slice(bytes);
        match value::payload(b"key", &framed) {
            Err(error) => answer(&error),
            Ok(payload) => {
                assert_eq!(value::frame(b"key", &payload), framed);
                1
            }
        }
    });
}
