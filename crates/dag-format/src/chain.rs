//! The chain of a log: one hash per entry, over the entry and all before it.
//!
//! Two copies whose chains are equal at one index hold the same log up to there. It is kept in
//! every entry's record, with the applied position of the state, and at the purge point, so that
//! none of them can be exchanged for another's.

use dag_types::{Chain, LogId};

/// Digest of what an entry says: its kind and its payload.
pub fn payload_digest(kind: u8, payload: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&[kind]).update(payload).finalize().as_bytes()
}

/// `chain(i)`, from `chain(i - 1)` and the entry at `i`.
pub fn next(before: Chain, id: LogId, digest: &[u8; 32]) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.0);
    hasher.update(&id.term.to_le_bytes());
    hasher.update(&id.index.to_le_bytes());
    hasher.update(digest);
    let mut chain = [0; 16];
    chain.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Chain(chain)
}
