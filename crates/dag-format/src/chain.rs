//! The chain of a log: one hash per entry, over the entry and all before it.
//!
//! Two copies whose chains are equal at one index hold the same log up to there. It is kept in
//! every entry's record, with the applied position of the state, and at the purge point, so that
//! none of them can be exchanged for another's.

use dag_types::{Chain, LogId};

/// `chain(i)`, from `chain(i - 1)` and the entry at `i`: its id, its kind and its payload.
///
/// The payload is hashed by itself, in one call from its first byte on: only so is it hashed with
/// the processor's wide registers, in a third of the time.
pub fn next(before: Chain, id: LogId, kind: u8, payload: &[u8]) -> Chain {
    let mut link = [0; 16 + 8 + 8 + 1 + 32];
    link[..16].copy_from_slice(&before.0);
    link[16..24].copy_from_slice(&id.term.to_le_bytes());
    link[24..32].copy_from_slice(&id.index.to_le_bytes());
    link[32] = kind;
    link[33..].copy_from_slice(blake3::hash(payload).as_bytes());
    let mut chain = [0; 16];
    chain.copy_from_slice(&blake3::hash(&link).as_bytes()[..16]);
    Chain(chain)
}
