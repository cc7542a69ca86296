//! Records of the state as version 1 writes them.

use bytes::Bytes;
use dag_format::{FormatError, value};

use super::{hex, show};

#[test]
fn a_value_is_framed_and_read_as_ever() {
    let framed = value::frame(b"key", b"payload");
    assert_eq!(show(&framed), show(&hex(GOLDEN)));
    assert_eq!(value::payload(b"key", &framed), Ok(Bytes::from_static(b"payload")));
    assert_eq!(framed.len(), b"payload".len() + value::OVERHEAD_BYTES);
}

#[test]
fn a_value_belongs_to_its_key() {
    let framed = value::frame(b"key", b"payload");
    let other = value::payload(b"kez", &framed);
    assert!(matches!(other, Err(FormatError::Checksum { .. })));
    let moved = value::frame(b"ke", b"y");
    assert_ne!(show(&moved)[4..], show(&value::frame(b"k", b"ey"))[6..]);
}

#[test]
fn no_flipped_bit_passes() {
    let framed = value::frame(b"key", b"payload");
    for at in 0..framed.len() * 8 {
        let mut flipped = framed.to_vec();
        flipped[at / 8] ^= 1 << (at % 8);
        assert!(value::payload(b"key", &flipped.into()).is_err(), "bit {at}");
    }
}

const GOLDEN: &str = "017061796c6f6164f5518f72";
