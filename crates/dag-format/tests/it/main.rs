//! The bytes of every released version, and what bad bytes get.

mod bad_bytes;
mod fuzz;
mod v001_envelope;
mod v001_log;
mod v001_meta;
mod v001_value;

use dag_types::{Chain, LogId};

/// Bytes written as hexadecimal digits; blanks are for people.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
    digits.chunks(2).map(|pair| value(pair[0]) * 16 + value(pair[1])).collect()
}

fn show(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn chain() -> Chain {
    Chain(*b"chain-of-sixteen")
}
