//! The content digest: one number that is equal on two copies exactly when their rows are.
//!
//! It is a sum modulo 2^128 over all replicated rows, of 16 bytes of BLAKE3 of key and value. A sum
//! does not depend on order, and a changed row is one subtraction and one addition, so it is kept
//! with every command instead of being computed by reading everything. Unlike an exclusive or, a
//! sum does not cancel a row that was counted twice.
//!
//! Two rows count differently. A body counts by its key, which holds the digest of its bytes, and
//! by its length; reading the bytes again belongs to the deep check of a store. The database's own
//! record holds the sum and cannot count in it; its counters are added when the digest is asked for.

use alloc::vec::Vec;

use prost::Message;

use crate::keys;
use crate::records::DatabaseRecord;

/// The digest of a database: compare for equality only.
pub type Digest = [u8; 16];

/// A sum of row hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum(u128);

impl Sum {
    pub(crate) fn of(record: &DatabaseRecord) -> Self {
        Self(u128::from(record.digest_high) << 64 | u128::from(record.digest_low))
    }

    pub(crate) fn store(self, record: &mut DatabaseRecord) {
        record.digest_high = (self.0 >> 64) as u64;
        record.digest_low = self.0 as u64;
    }

    pub(crate) fn add(&mut self, hash: u128) {
        self.0 = self.0.wrapping_add(hash);
    }

    pub(crate) fn subtract(&mut self, hash: u128) {
        self.0 = self.0.wrapping_sub(hash);
    }

    /// The rows alone.
    pub(crate) fn bytes(self) -> Digest {
        self.0.to_be_bytes()
    }

    /// The digest: the rows, and the database's own counters.
    pub(crate) fn digest(mut self, record: &DatabaseRecord) -> Digest {
        let counters = DatabaseRecord { digest_high: 0, digest_low: 0, ..record.clone() };
        self.add(RowHasher::default().row(&keys::database(), &counters.encode_to_vec()));
        self.0.to_be_bytes()
    }
}

/// Hashes rows over one buffer that is used again.
#[derive(Debug, Default)]
pub(crate) struct RowHasher {
    buffer: Vec<u8>,
}

impl RowHasher {
    /// The length of the key stands first, so that no key and value read like another pair.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> u128 {
        self.buffer.clear();
        self.buffer.extend_from_slice(&(key.len() as u32).to_be_bytes());
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(value);
        let hash = blake3::hash(&self.buffer);
        u128::from_be_bytes(keys::first_half(hash.as_bytes()))
    }

    /// A chunk of a body, by key and length.
    pub(crate) fn body(&mut self, key: &[u8], length: u64) -> u128 {
        self.row(key, &length.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_and_subtracted_again_leaves_no_trace_in_any_order() {
        let mut hasher = RowHasher::default();
        let (first, second) = (hasher.row(b"a", b"1"), hasher.row(b"b", b"2"));
        let mut sum = Sum::default();
        sum.add(first);
        sum.add(second);
        sum.subtract(first);
        sum.subtract(second);
        assert_eq!(sum, Sum::default());
    }

    #[test]
    fn moving_a_byte_from_key_to_value_changes_the_hash() {
        let mut hasher = RowHasher::default();
        assert_ne!(hasher.row(b"ab", b"c"), hasher.row(b"a", b"bc"));
    }

    #[test]
    fn a_row_counted_twice_does_not_cancel() {
        let hash = RowHasher::default().row(b"a", b"1");
        let mut sum = Sum::default();
        sum.add(hash);
        sum.add(hash);
        assert_ne!(sum, Sum::default());
    }

    #[test]
    fn the_databases_counters_count_in_the_digest_but_not_its_sum() {
        let mut record = DatabaseRecord { stamp_ms: 1, ..DatabaseRecord::default() };
        let before = Sum::default().digest(&record);
        record.digest_low = 9;
        assert_eq!(Sum::default().digest(&record), before);
        record.stamp_ms = 2;
        assert_ne!(Sum::default().digest(&record), before);
    }
}
