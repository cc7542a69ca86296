//! The head of an entry's payload: what the entry is, and in which lineage it was proposed.
//!
//! ```text
//! type u8 | version u8 | epoch u64 | activation id 16 bytes | body
//! mount: node u64 | term u64, and in version 2 the links behind the lineage
//! ```
//! An entry of an unknown type or version fails the copy that meets it: a copy that passed over an
//! entry would be another database than its siblings without anybody noticing.

use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{ActivationId, Lineage, Mutant, NodeId};

use crate::FormatError;
use crate::cursor::Cursor;
use crate::record::check_version;

const VERSION: u8 = 1;
/// Of a mount that carries a chain of more than one link.
const MOUNT_WITH_LINKS: u8 = 2;
const WHAT: &str = "an entry";
const HEAD_BYTES: usize = 26;
const MOUNT_BYTES: usize = HEAD_BYTES + 16;
const COMMAND: u8 = 1;
const MOUNT: u8 = 2;
const DIGEST_MARK: u8 = 3;

/// An entry's payload, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The lineage it was proposed in.
    pub lineage: Lineage,
    /// What it is.
    pub body: Body,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A command of the group's machine, which alone can read it.
    Command(Bytes),
    /// From here on this node serves the database, in this lineage and this term.
    Mount {
        /// The node that mounts.
        node: NodeId,
        /// The Raft term it leads in.
        term: u64,
        /// The chain behind the lineage, as [`crate::links::beside`] makes it: copies decide from
        /// the log alone which of two mounts is newer.
        links: Bytes,
    },
    /// All copies note the digest of their content at this entry; equal marks must be equal.
    DigestMark {
        /// Which comparison it belongs to.
        mark: u64,
    },
}

impl Envelope {
    /// The payload of an entry.
    pub fn encode(&self) -> Bytes {
        let body = match &self.body {
            Body::Command(command) => command.len(),
            Body::Mount { links, .. } => 16 + links.len(),
            Body::DigestMark { .. } => 8,
        };
        let mut out = Vec::with_capacity(HEAD_BYTES + body);
        out.extend_from_slice(&[self.type_number(), self.version()]);
        out.extend_from_slice(&self.lineage.epoch.to_le_bytes());
        out.extend_from_slice(&self.lineage.activation.0);
        match &self.body {
            Body::Command(command) => out.extend_from_slice(command),
            Body::Mount { node, term, links } => {
                out.extend_from_slice(&node.0.to_le_bytes());
                out.extend_from_slice(&term.to_le_bytes());
                out.extend_from_slice(links);
            }
            Body::DigestMark { mark } => out.extend_from_slice(&mark.to_le_bytes()),
        }
        out.into()
    }

    fn type_number(&self) -> u8 {
        match self.body {
            Body::Command(_) => COMMAND,
            Body::Mount { .. } => MOUNT,
            Body::DigestMark { .. } => DIGEST_MARK,
        }
    }

    fn version(&self) -> u8 {
        match &self.body {
            Body::Mount { links, .. } if !links.is_empty() => MOUNT_WITH_LINKS,
            _ => VERSION,
        }
    }

    /// Reads a payload; a command's bytes are shared, not copied.
    pub fn decode(payload: &Bytes) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(WHAT, payload);
        let (kind, version) = (cursor.u8()?, cursor.u8()?);
        if !(COMMAND..=DIGEST_MARK).contains(&kind) {
            return unknown(kind);
        }
        check_version(WHAT, version, if kind == MOUNT { MOUNT_WITH_LINKS } else { VERSION })?;
        let lineage = Lineage { epoch: cursor.u64()?, activation: ActivationId(cursor.array()?) };
        let body = match kind {
            COMMAND => Body::Command(payload.slice(HEAD_BYTES..)),
            MOUNT => {
                let (node, term) = (NodeId(cursor.u64()?), cursor.u64()?);
                let links = payload.slice(MOUNT_BYTES..);
                if version == VERSION {
                    cursor.end()?;
                }
                Body::Mount { node, term, links }
            }
            _ => {
                let body = Body::DigestMark { mark: cursor.u64()? };
                cursor.end()?;
                body
            }
        };
        Ok(Self { lineage, body })
    }
}

/// An entry that this version does not know fails the copy.
fn unknown(found: u8) -> Result<Envelope, FormatError> {
    if Mutant::UnknownEntrySkipped.planted() {
        return Ok(Envelope { lineage: Lineage::default(), body: Body::Command(Bytes::new()) });
    }
    Err(FormatError::UnknownType { what: WHAT, found })
}
