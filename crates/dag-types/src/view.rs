//! What a pure machine may see of a copy's state.

use alloc::vec::Vec;

use bytes::Bytes;

/// The state before a command: this batch's earlier writes over the store.
///
/// No iterator stays open and every scan is bounded, so that the cost of a command is known.
pub trait StateView {
    /// A fault of the store; it ends the copy, never the command.
    type Error;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Self::Error>;

    /// Rows with `from <= key < to` in order, at most `limit`.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Self::Error>;
}
