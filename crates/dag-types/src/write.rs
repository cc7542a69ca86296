//! What an applied entry does to a copy's state.

use bytes::Bytes;

/// One change of a copy's state. All changes of an entry, and the applied position, are written in
/// one atomic batch.
///
/// The first byte of a key names its table; `dag-types` does not know which tables there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value of a key, whether or not it had one.
    Put {
        /// Table byte and ordered key.
        key: Bytes,
        /// The record, without the checksum that the store adds.
        value: Bytes,
    },
    /// Removes a key; harmless where there is none.
    Delete {
        /// Table byte and ordered key.
        key: Bytes,
    },
}

impl Write {
    /// The key that is changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}
