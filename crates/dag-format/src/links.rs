//! The chain of site activations as bytes: in mounts, in the root's record, between nodes.
//!
//! ```text
//! version u8 | count u32 | count x (epoch u64 | activation id 16 bytes | kind u8 |
//!                                   rejected u32 | rejected x activation id 16 bytes)
//! ```
//! A chain of one link says no more than the lineage itself, so whoever stores it beside a lineage
//! leaves it out ([`beside`]) and makes it again ([`chain_of`]).

use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{ActivationId, Lineage, LineageChain, LineageKind, LineageStep};

use crate::FormatError;
use crate::cursor::Cursor;
use crate::record::check_version;

const VERSION: u8 = 1;
const WHAT: &str = "a lineage chain";
/// The least that one link takes.
const LINK_BYTES: usize = 29;

const KINDS: [(LineageKind, u8); 6] = [
    (LineageKind::First, 1),
    (LineageKind::Stop, 2),
    (LineageKind::Start, 3),
    (LineageKind::ActivateFenced, 4),
    (LineageKind::ActivateUnfenced, 5),
    (LineageKind::Accept, 6),
];

/// All links of a chain.
pub fn encode(chain: &LineageChain) -> Bytes {
    let mut out = Vec::with_capacity(5 + LINK_BYTES * chain.links().len());
    out.push(VERSION);
    out.extend_from_slice(&(chain.links().len() as u32).to_le_bytes());
    for link in chain.links() {
        out.extend_from_slice(&link.lineage.epoch.to_le_bytes());
        out.extend_from_slice(&link.lineage.activation.0);
        out.push(number(link.kind));
        out.extend_from_slice(&(link.rejected.len() as u32).to_le_bytes());
        link.rejected.iter().for_each(|id| out.extend_from_slice(&id.0));
    }
    out.into()
}

/// Reads a chain. What is no chain is as unreadable as what is cut short.
pub fn decode(bytes: &[u8]) -> Result<LineageChain, FormatError> {
    let mut cursor = Cursor::new(WHAT, bytes);
    check_version(WHAT, cursor.u8()?, VERSION)?;
    let count = cursor.u32()? as usize;
    let mut links = Vec::with_capacity(count.min(bytes.len() / LINK_BYTES));
    for _ in 0..count {
        links.push(link(&mut cursor)?);
    }
    cursor.end()?;
    LineageChain::from_links(links).map_err(|_| FormatError::Malformed {
        what: WHAT,
        why: "its links do not follow one another",
    })
}

fn link(cursor: &mut Cursor<'_>) -> Result<LineageStep, FormatError> {
    let lineage = Lineage { epoch: cursor.u64()?, activation: ActivationId(cursor.array()?) };
    let found = cursor.u8()?;
    let known = KINDS.iter().find(|(_, number)| *number == found);
    let (kind, _) = known.ok_or(FormatError::UnknownType { what: WHAT, found })?;
    let mut rejected = Vec::new();
    for _ in 0..cursor.u32()? {
        rejected.push(ActivationId(cursor.array()?));
    }
    Ok(LineageStep { lineage, kind: *kind, rejected })
}

fn number(kind: LineageKind) -> u8 {
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    known.map(|(_, number)| *number).expect("every kind is in the table")
}

/// What is stored beside a chain's last lineage; empty where that says it all.
pub fn beside(chain: &LineageChain) -> Bytes {
    if chain.links().len() == 1 { Bytes::new() } else { encode(chain) }
}

/// The chain that ends with this lineage. The first epoch has one link, whatever stands beside it.
pub fn chain_of(lineage: Lineage, beside: &[u8]) -> Result<LineageChain, FormatError> {
    if lineage.epoch == 1 {
        return Ok(LineageChain::first(lineage.activation));
    }
    let chain = decode(beside)?;
    if chain.last() != lineage {
        let why = "it ends with another lineage than the one it stands beside";
        return Err(FormatError::Malformed { what: WHAT, why });
    }
    Ok(chain)
}
