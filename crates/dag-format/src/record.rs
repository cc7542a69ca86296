//! The frame that all records share.
//!
//! ```text
//! crc32 u32 | length u32 | type u8 | version u8 | 0 u16 | payload (length bytes)
//! ```
//! Numbers have their little end first. The checksum covers everything behind itself and then,
//! without their being stored, the place where the record stands: segment number, position, and
//! the session that wrote it. So a record that an older life of a recycled segment left behind, one
//! that a disk wrote to the wrong place, and one that an interrupted session left behind the end of
//! the log are all as wrong as a flipped bit.

use crate::FormatError;
use crate::cursor::Cursor;

/// Bytes of a frame before its payload.
pub const HEADER_BYTES: usize = 12;

/// Where a record stands; part of its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The segment's number, never reused. 0 for records outside the log.
    pub segment: u64,
    /// The frame's first byte, counted from the start of the segment.
    pub position: u64,
    /// Which opening of the log wrote it, never reused. 0 for records outside a batch.
    pub session: u64,
}

/// A record whose checksum fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it is; the numbers belong to the family of records that is being read.
    pub kind: u8,
    /// The version of its payload's layout.
    pub version: u8,
    /// What it says.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Bytes of frame and payload.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

/// The frame's head for a payload that is the concatenation of `parts`.
///
/// The payload comes in parts so that a large body is copied once, into the buffer that is written.
pub fn header(kind: u8, version: u8, place: Place, parts: &[&[u8]]) -> [u8; HEADER_BYTES] {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut head = [0; HEADER_BYTES];
    head[4..8].copy_from_slice(&u32::try_from(length).expect("a record under 4 GiB").to_le_bytes());
    head[8] = kind;
    head[9] = version;
    let crc = checksum(&head, place, parts);
    head[..4].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Type and payload length that the bytes claim, unchecked: to pass over what cannot be meant
/// before a checksum over a made-up length is reckoned.
pub fn peek(bytes: &[u8]) -> Option<(u8, u32)> {
    let head = bytes.first_chunk::<HEADER_BYTES>()?;
    Some((head[8], u32::from_le_bytes([head[4], head[5], head[6], head[7]])))
}

/// Reads the record at the start of `bytes`, which stands at `place`.
pub fn read(bytes: &[u8], place: Place) -> Result<Record<'_>, FormatError> {
    let mut cursor = Cursor::new("a record's head", bytes);
    let crc = cursor.u32()?;
    let length = cursor.u32()? as usize;
    let (kind, version) = (cursor.u8()?, cursor.u8()?);
    let payload = bytes.get(HEADER_BYTES..).and_then(|rest| rest.get(..length));
    let short = FormatError::Short { what: "a record", have: bytes.len() };
    let payload = payload.ok_or(short)?;
    let head = bytes.first_chunk::<HEADER_BYTES>().ok_or(short)?;
    if kind == 0 || checksum(head, place, &[payload]) != crc {
        return Err(FormatError::Checksum { what: "a record" });
    }
    Ok(Record { kind, version, payload })
}

fn checksum(head: &[u8; HEADER_BYTES], place: Place, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[4..]);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.update(&place.segment.to_le_bytes());
    hasher.update(&place.position.to_le_bytes());
    hasher.update(&place.session.to_le_bytes());
    hasher.finalize()
}

/// Refuses a version that is not known yet, and version 0, which never was.
pub(crate) fn check_version(what: &'static str, found: u8, known: u8) -> Result<(), FormatError> {
    if (1..=known).contains(&found) {
        return Ok(());
    }
    Err(FormatError::UnknownVersion { what, found, known })
}
