//! Log records as version 1 writes them.

use dag_format::log::{BatchStart, EntryRecord, LogRecord, SegmentStart, VoteRecord};
use dag_format::record::{self, Place};
use dag_format::{FormatError, chain};
use dag_types::Chain;

use super::{hex, id, show};

const PLACE: Place = Place { segment: 7, position: 4096, session: 3 };

fn records() -> Vec<(LogRecord<'static>, &'static str)> {
    let vote = VoteRecord { term: 9, voted_for: 4, committed: true };
    let point = (id(8, 11), super::chain());
    vec![
        (
            LogRecord::BatchStart(BatchStart {
                batch: 5,
                session: 3,
                synced_through: 4,
                bytes: 700,
                records: 2,
            }),
            GOLDEN[0],
        ),
        (
            LogRecord::SegmentStart(SegmentStart {
                segment: 7,
                bytes: 262_144,
                last: Some(point),
                purged: None,
                vote: Some(vote),
                committed: Some(id(8, 10)),
            }),
            GOLDEN[1],
        ),
        (
            LogRecord::Entry(EntryRecord {
                id: id(8, 12),
                kind: 1,
                chain: super::chain(),
                payload: b"a letter",
            }),
            GOLDEN[2],
        ),
        (LogRecord::Truncate(Some(point)), GOLDEN[3]),
        (LogRecord::Truncate(None), GOLDEN[4]),
        (LogRecord::Vote(vote), GOLDEN[5]),
        (LogRecord::Committed(Some(id(8, 10))), GOLDEN[6]),
        (LogRecord::Purge { point, begins_anew: true }, GOLDEN[7]),
        (LogRecord::Seal { synced_through: 4 }, GOLDEN[8]),
    ]
}

#[test]
fn records_are_written_as_ever() {
    for (record, golden) in records() {
        let mut bytes = Vec::new();
        record.encode(PLACE, &mut bytes);
        assert_eq!(show(&bytes), show(&hex(golden)), "{record:?}");
    }
}

#[test]
fn records_of_version_1_are_read() {
    for (expected, golden) in records() {
        let bytes = hex(golden);
        let record = record::read(&bytes, PLACE).unwrap();
        assert_eq!(record.bytes(), bytes.len());
        assert_eq!(LogRecord::decode(record), Ok(expected));
    }
}

#[test]
fn a_record_holds_at_its_own_place_only() {
    let bytes = hex(GOLDEN[2]);
    for place in [
        Place { segment: 8, ..PLACE },
        Place { position: 8192, ..PLACE },
        Place { session: 4, ..PLACE },
    ] {
        let read = record::read(&bytes, place);
        assert_eq!(read, Err(FormatError::Checksum { what: "a record" }));
    }
}

#[test]
fn the_chain_is_reckoned_as_ever() {
    let first = chain::next(Chain::START, id(1, 0), 1, b"one");
    let second = chain::next(first, id(1, 1), 1, b"two");
    assert_eq!(first.to_string(), CHAINS[0]);
    assert_eq!(second.to_string(), CHAINS[1]);
}

#[test]
fn the_chain_depends_on_everything_that_an_entry_is() {
    let all = [
        chain::next(Chain::START, id(1, 0), 1, b"one"),
        chain::next(super::chain(), id(1, 0), 1, b"one"),
        chain::next(Chain::START, id(2, 0), 1, b"one"),
        chain::next(Chain::START, id(1, 1), 1, b"one"),
        chain::next(Chain::START, id(1, 0), 0, b"one"),
        chain::next(Chain::START, id(1, 0), 1, b"onf"),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(!all[at + 1..].contains(one));
    }
}

pub const GOLDEN: [&str; 9] = [
    "4d42c1762000000001010000050000000000000003000000000000000400000000000000bc02000002000000",
    "bb5e33ba5500000002010000070000000000000000000400000000000108000000000000000b000000000000 \
     00636861696e2d6f662d7369787465656e000109000000000000000400000000000000010108000000000000 \
     000a00000000000000",
    "ef728bdd290000000301000008000000000000000c0000000000000001636861696e2d6f662d736978746565 \
     6e61206c6574746572",
    "5e9d5b5421000000040100000108000000000000000b00000000000000636861696e2d6f662d736978746565 \
     6e",
    "699aa0e1010000000401000000",
    "f238dc6f11000000050100000900000000000000040000000000000001",
    "17b18ca211000000060100000108000000000000000a00000000000000",
    "c4ebce77210000000701000008000000000000000b00000000000000636861696e2d6f662d7369787465656e \
     01",
    "59afdea608000000080100000400000000000000",
];

const CHAINS: [&str; 2] = ["98d0521be7369dbaf3131d94fdcc2b4b", "0733667eb6bff7f05e506d36a9c467ba"];
