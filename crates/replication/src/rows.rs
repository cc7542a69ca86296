//! The rows that `replication` itself keeps in a copy's state, beside the applied position.
//!
//! | key | row |
//! | --- | --- |
//! | `01` | the membership that was applied last |
//! | `02` | the mount that was applied last |
//! | `03`, mark (u64, highest byte first) | the position and the digest of a digest mark |
//!
//! They are part of the state: written in the batch of the entry that made them, and carried by
//! snapshots.

use bytes::Bytes;
use dac::mount::Mount;
use dag_format::links;
use dag_types::{ActivationId, Lineage, LineageChain, LogId, NodeId, Write};
use prost::Message;
use storage::state::{StateError, StateRead};

use crate::machine::MachineFault;
use crate::membership;
use crate::state_machine::{DigestAt, Mounted};
use crate::types::StoredMembership;

/// The row in which a state keeps its group's members.
pub const MEMBERSHIP_KEY: &[u8] = &[0x01];
const MOUNTED_KEY: &[u8] = &[0x02];
const MARKS: u8 = 0x03;
/// How many digest marks a copy remembers.
pub(crate) const MARKS_KEPT: usize = 16;

const VERSION: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct MountedRow {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(bytes = "bytes", tag = "3")]
    activation: Bytes,
    #[prost(uint64, tag = "4")]
    node: u64,
    #[prost(uint64, tag = "5")]
    term: u64,
    #[prost(uint64, tag = "6")]
    index: u64,
    /// Empty where the chain has one link.
    #[prost(bytes = "bytes", tag = "7")]
    links: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct MarkRow {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "bytes", tag = "4")]
    digest: Bytes,
}

fn malformed(what: &str) -> MachineFault {
    MachineFault::new(format!("the {what} row of the state is malformed or of a newer Holdfast"))
}

pub(crate) fn membership(state: &dyn StateRead) -> Result<StoredMembership, MachineFault> {
    let Some(row) = state.get(MEMBERSHIP_KEY)? else { return Ok(StoredMembership::default()) };
    membership::decode_stored(&row).map_err(|error| MachineFault::new(error.to_string()))
}

pub(crate) fn membership_write(stored: &StoredMembership) -> Write {
    let value = membership::encode_stored(stored);
    Write::Put { key: Bytes::from_static(MEMBERSHIP_KEY), value }
}

pub(crate) fn mounted(state: &dyn StateRead) -> Result<Option<(Mounted, Mount)>, MachineFault> {
    let Some(row) = state.get(MOUNTED_KEY)? else { return Ok(None) };
    let row = MountedRow::decode(row).map_err(|_| malformed("mount"))?;
    let activation = ActivationId::from_slice(&row.activation).ok_or_else(|| malformed("mount"))?;
    if row.version != VERSION {
        return Err(malformed("mount"));
    }
    let lineage = Lineage { epoch: row.epoch, activation };
    let chain = links::chain_of(lineage, &row.links).map_err(|_| malformed("mount"))?;
    let (node, at) = (NodeId(row.node), LogId { term: row.term, index: row.index });
    Ok(Some((Mounted { lineage, node, at }, Mount { chain, node, term: row.term })))
}

pub(crate) fn mounted_write(mounted: &Mounted, chain: &LineageChain) -> Write {
    let row = MountedRow {
        version: VERSION,
        epoch: mounted.lineage.epoch,
        activation: Bytes::copy_from_slice(&mounted.lineage.activation.0),
        node: mounted.node.0,
        term: mounted.at.term,
        index: mounted.at.index,
        links: links::beside(chain),
    };
    Write::Put { key: Bytes::from_static(MOUNTED_KEY), value: row.encode_to_vec().into() }
}

fn mark_key(mark: u64) -> Bytes {
    let mut key = vec![MARKS];
    key.extend_from_slice(&mark.to_be_bytes());
    key.into()
}

/// The marks that the state remembers, the oldest first.
pub(crate) fn marks(state: &dyn StateRead) -> Result<Vec<DigestAt>, MachineFault> {
    let rows = state.scan(&[MARKS], &[MARKS + 1], MARKS_KEPT + 1)?;
    rows.into_iter().map(|(key, row)| mark(&key, row)).collect()
}

fn mark(key: &[u8], row: Bytes) -> Result<DigestAt, MachineFault> {
    let number = key[1..].try_into().map_err(|_| malformed("digest mark"))?;
    let row = MarkRow::decode(row).map_err(|_| malformed("digest mark"))?;
    let digest = row.digest.as_ref().try_into().map_err(|_| malformed("digest mark"))?;
    if row.version != VERSION {
        return Err(malformed("digest mark"));
    }
    let at = LogId { term: row.term, index: row.index };
    Ok(DigestAt { mark: u64::from_be_bytes(number), at, digest })
}

/// Notes a mark, and forgets the oldest beyond [`MARKS_KEPT`].
pub(crate) fn mark_writes(
    state: &dyn StateRead,
    noted: &DigestAt,
) -> Result<Vec<Write>, StateError> {
    let row = MarkRow {
        version: VERSION,
        term: noted.at.term,
        index: noted.at.index,
        digest: Bytes::copy_from_slice(&noted.digest),
    };
    let key = mark_key(noted.mark);
    let kept = state.scan_back(&[MARKS], &[MARKS + 1], MARKS_KEPT + 1)?;
    let others = kept.into_iter().map(|(key, _)| key).filter(|other| *other != key);
    let mut writes: Vec<Write> =
        others.skip(MARKS_KEPT - 1).map(|key| Write::Delete { key }).collect();
    writes.push(Write::Put { key, value: row.encode_to_vec().into() });
    Ok(writes)
}
