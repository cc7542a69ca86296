//! What one command changes: its writes over the state before it, and the content digest.
//!
//! The **content digest** is the sum, modulo 2^128, of one hash per record. A sum does not depend
//! on the order of the records, so a command keeps it up to date by subtracting what it replaces
//! and adding what it writes, and copies of one group can be compared at one log position without
//! reading them through.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use dag_types::{StateView, Write};
use prost::Message;
use thiserror::Error;

/// What a command does: the writes for the batch, and the answer to whoever proposed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied<R> {
    /// In the order of their keys; each key at most once.
    pub writes: Vec<Write>,
    /// The replicated result, rejections included.
    pub response: R,
}

/// Why a command could not be applied at all; the copy fails.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault<E> {
    /// The store failed.
    #[error(transparent)]
    Store(E),
    /// A record or command is not what its key or type says.
    #[error("{what} cannot be read: {source}")]
    Unreadable {
        /// Which record or command.
        what: &'static str,
        /// Where decoding stopped.
        source: prost::DecodeError,
    },
    /// A command names an order that this version does not know. It must not be passed over.
    #[error("a command of an unknown kind")]
    UnknownCommand,
}

/// The sum over all records of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(pub u128);

impl Digest {
    fn of_record(key: &[u8], value: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        // The length keeps (ab, c) and (a, bc) apart.
        hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
        let mut head = [0; 16];
        head.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(u128::from_le_bytes(head))
    }

    /// The digest of exactly these records, counted from nothing.
    pub fn of_records<'a>(records: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let add = |sum: u128, (key, value)| sum.wrapping_add(Self::of_record(key, value).0);
        Self(records.into_iter().fold(0, add))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Where every machine of this crate keeps its digest. The digest does not count itself.
const DIGEST_KEY: &[u8] = &[0x1f];

/// The digest as the last applied command left it.
pub(crate) fn read_digest<V: StateView>(view: &V) -> Result<Digest, Fault<V::Error>> {
    let stored = view.get(DIGEST_KEY).map_err(Fault::Store)?;
    Ok(Digest(stored.map_or(0, |bytes| {
        let bytes: [u8; 16] = bytes.as_ref().try_into().expect("a digest has sixteen bytes");
        u128::from_le_bytes(bytes)
    })))
}

/// Reads a record, where there is one.
pub(crate) fn read<V: StateView, M: Message + Default>(
    view: &V,
    key: &[u8],
    what: &'static str,
) -> Result<Option<M>, Fault<V::Error>> {
    match view.get(key).map_err(Fault::Store)? {
        None => Ok(None),
        Some(bytes) => decode(what, bytes).map(Some),
    }
}

/// Reads all records of a table, in the order of their keys.
pub(crate) fn read_table<V: StateView, M: Message + Default>(
    view: &V,
    table: u8,
    what: &'static str,
) -> Result<Vec<M>, Fault<V::Error>> {
    const PAGE: usize = 256;
    let mut records = Vec::new();
    let mut from = alloc::vec![table];
    loop {
        let rows = view.scan(&from, &[table + 1], PAGE).map_err(Fault::Store)?;
        let full = rows.len() == PAGE;
        for (key, value) in rows {
            // The smallest key behind the one just read.
            from = key.to_vec();
            from.push(0);
            records.push(decode(what, value)?);
        }
        if !full {
            return Ok(records);
        }
    }
}

pub(crate) fn decode<E, M: Message + Default>(
    what: &'static str,
    bytes: Bytes,
) -> Result<M, Fault<E>> {
    M::decode(bytes).map_err(|source| Fault::Unreadable { what, source })
}

/// The changes of the command that is being applied.
pub(crate) struct Change<'v, V> {
    view: &'v V,
    writes: BTreeMap<Bytes, Option<Bytes>>,
}

impl<'v, V: StateView> Change<'v, V> {
    pub(crate) fn new(view: &'v V) -> Self {
        Self { view, writes: BTreeMap::new() }
    }

    /// The state before the command.
    pub(crate) fn before(&self) -> &'v V {
        self.view
    }

    /// A record as this command leaves it so far; empty where there is none.
    pub(crate) fn pending_or_before<M: Message + Default>(
        &self,
        key: &[u8],
        what: &'static str,
    ) -> Result<M, Fault<V::Error>> {
        match self.writes.get(key) {
            Some(Some(bytes)) => decode(what, bytes.clone()),
            Some(None) => Ok(M::default()),
            None => Ok(read(self.view, key, what)?.unwrap_or_default()),
        }
    }

    pub(crate) fn put(&mut self, key: impl Into<Bytes>, record: &impl Message) {
        self.writes.insert(key.into(), Some(record.encode_to_vec().into()));
    }

    pub(crate) fn delete(&mut self, key: impl Into<Bytes>) {
        self.writes.insert(key.into(), None);
    }

    /// Closes the command: adds the digest that holds after it.
    pub(crate) fn finish<R>(self, response: R) -> Result<Applied<R>, Fault<V::Error>> {
        if self.writes.is_empty() {
            return Ok(Applied { writes: Vec::new(), response });
        }
        let mut digest = read_digest(self.view)?;
        let mut writes = Vec::with_capacity(self.writes.len() + 1);
        for (key, value) in self.writes {
            if let Some(old) = self.view.get(&key).map_err(Fault::Store)? {
                digest.0 = digest.0.wrapping_sub(Digest::of_record(&key, &old).0);
            }
            if let Some(new) = &value {
                digest.0 = digest.0.wrapping_add(Digest::of_record(&key, new).0);
            }
            writes.push(match value {
                Some(value) => Write::Put { key, value },
                None => Write::Delete { key },
            });
        }
        let value = Bytes::copy_from_slice(&digest.0.to_le_bytes());
        writes.push(Write::Put { key: Bytes::from_static(DIGEST_KEY), value });
        Ok(Applied { writes, response })
    }
}
