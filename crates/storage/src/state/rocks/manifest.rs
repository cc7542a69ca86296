//! A look at a state's manifest before RocksDB opens it.
//!
//! The manifest is the list of a state's files, a log of records in blocks of 32 KiB. Its reader
//! in RocksDB never ends where one bit of a record's type is turned so that the record seems to be
//! of a recycled log: it refuses the record and stays where it is. A copy with such a bit would
//! take its opener with it, so the types are looked at first. Everything else about a damaged
//! manifest is found by RocksDB's own checksums.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::super::StateError;

const BLOCK: usize = 32 << 10;
/// Checksum, length, type.
const HEADER: usize = 4 + 2 + 1;
/// Whole, first, middle and last part of a record; 0 is what was never written.
const TYPES: std::ops::RangeInclusive<u8> = 0..=4;

/// Refuses a folder without a state, and a manifest that RocksDB would not get to the end of.
pub(super) fn check(folder: &Path) -> Result<(), StateError> {
    let current = read(&folder.join("CURRENT"))?;
    let name = std::str::from_utf8(&current).ok().and_then(|name| name.strip_suffix('\n'));
    let Some(name) = name.filter(|name| name.starts_with("MANIFEST-")) else {
        return Err(StateError::damaged("open", "CURRENT does not name a manifest"));
    };
    let manifest = read(&folder.join(name))?;
    match manifest.chunks(BLOCK).find_map(strange_type) {
        Some(kind) => {
            Err(StateError::damaged("open", format!("{name} has a record of type {kind}")))
        }
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StateError> {
    fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            StateError::damaged("open", format!("{} is missing", path.display()))
        }
        _ => StateError::io("open", &error),
    })
}

/// The first record type in a block that no manifest has.
fn strange_type(mut block: &[u8]) -> Option<u8> {
    while let Some((header, rest)) = block.split_first_chunk::<HEADER>() {
        let kind = header[6];
        if !TYPES.contains(&kind) {
            return Some(kind);
        }
        // Behind a length that does not fit RocksDB reads no further either.
        block = rest.get(usize::from(u16::from_le_bytes([header[4], header[5]]))..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, len: u16) -> Vec<u8> {
        let mut record = vec![0xee; 4];
        record.extend_from_slice(&len.to_le_bytes());
        record.push(kind);
        record.resize(HEADER + usize::from(len), 0xff);
        record
    }

    #[test]
    fn only_the_types_of_records_are_looked_at() {
        let good = [record(1, 20), record(2, 0), record(4, 300)].concat();
        assert_eq!(strange_type(&good), None);
        assert_eq!(strange_type(&[good.clone(), record(5, 3)].concat()), Some(5));
        assert_eq!(
            strange_type(&[good.clone(), record(0x81, 3), good.clone()].concat()),
            Some(0x81)
        );
        assert_eq!(strange_type(&[good.clone(), vec![0; 40]].concat()), None, "never written");
        assert_eq!(strange_type(&good[..good.len() - 1]), None, "cut: for RocksDB to judge");
    }
}
