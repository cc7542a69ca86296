//! Bytes that nobody wrote: every one of them gets an answer, none a panic.

use dag_format::FormatError;
use dag_format::log::{LogRecord, VERSION};
use dag_format::record::{self, Place, Record};

#[test]
fn a_log_record_of_an_unknown_type_or_version_is_never_skipped() {
    let unknown = LogRecord::decode(Record { kind: 99, version: VERSION, payload: &[] });
    assert_eq!(unknown, Err(FormatError::UnknownType { what: "a log record", found: 99 }));
    let newer = LogRecord::decode(Record { kind: 5, version: VERSION + 1, payload: &[0; 17] });
    let (found, known) = (VERSION + 1, VERSION);
    assert_eq!(newer, Err(FormatError::UnknownVersion { what: "a vote", found, known }));
}

#[test]
fn payloads_of_every_length_and_content_are_read_or_refused() {
    let mut state = 1u64;
    for _ in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        let length = (state >> 40) as usize % 120;
        let payload: Vec<u8> =
            (0..length).map(|at| (state >> (at % 56)) as u8 & [1, 255][at % 2]).collect();
        let kind = (state >> 33) as u8 % 10;
        let record = Record { kind, version: VERSION, payload: &payload };
        if let Ok(decoded) = LogRecord::decode(record) {
            let mut bytes = Vec::new();
            decoded.encode(Place::default(), &mut bytes);
            assert_eq!(&bytes[record::HEADER_BYTES..], payload, "what is read is what is written");
        }
    }
}

#[test]
fn a_block_of_zeroes_or_ones_is_no_record() {
    for fill in [0, 255] {
        assert!(record::read(&[fill; 4096], Place::default()).is_err());
    }
    assert!(matches!(record::read(&[1; 5], Place::default()), Err(FormatError::Short { .. })));
}
