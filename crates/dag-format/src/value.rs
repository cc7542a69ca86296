//! A record of the state: `version u8 | payload | crc32(key, version, payload)`.
//!
//! The key is part of the checksum, so a value that an engine gives for the wrong key is noticed.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::FormatError;
use crate::record::check_version;

/// Bytes that the frame adds to a payload.
pub const OVERHEAD_BYTES: usize = 5;

const VERSION: u8 = 1;
const WHAT: &str = "a record of the state";

/// Frames a payload that is stored under `key`.
pub fn frame(key: &[u8], payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + OVERHEAD_BYTES);
    frame_into(&mut out, key, payload);
    out.into()
}

/// The same in place of what `out` held, for those who frame many.
pub fn frame_into(out: &mut Vec<u8>, key: &[u8], payload: &[u8]) {
    out.clear();
    out.push(VERSION);
    out.extend_from_slice(payload);
    let crc = checksum(key, out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Checks what was found under `key` and gives its payload without copying it.
pub fn payload(key: &[u8], framed: &Bytes) -> Result<Bytes, FormatError> {
    let short = FormatError::Short { what: WHAT, have: framed.len() };
    let (covered, crc) = framed.split_last_chunk::<4>().ok_or(short)?;
    let version = *covered.first().ok_or(short)?;
    if checksum(key, covered) != u32::from_le_bytes(*crc) {
        return Err(FormatError::Checksum { what: WHAT });
    }
    check_version(WHAT, version, VERSION)?;
    Ok(framed.slice(1..covered.len()))
}

/// Over the key's length as well, so that no byte can move from the key to the payload.
fn checksum(key: &[u8], covered: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(covered);
    hasher.finalize()
}
