//! A state in memory for the tests of this crate.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::convert::Infallible;

use bytes::Bytes;
use dag_types::{StateView, Write};

use crate::change::{Digest, read_digest};

#[derive(Default, Clone)]
pub(crate) struct State {
    rows: BTreeMap<Bytes, Bytes>,
}

impl State {
    pub(crate) fn write(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { key, value } => self.rows.insert(key, value),
                Write::Delete { key } => self.rows.remove(&key),
            };
        }
    }

    /// The kept digest must be the one that counting from nothing gives.
    pub(crate) fn check_digest(&self) {
        let others = self.rows.iter().filter(|(key, _)| key.as_ref() != [0x1f]);
        let counted = Digest::of_records(others.map(|(key, value)| (&key[..], &value[..])));
        assert_eq!(read_digest(self).unwrap(), counted);
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl StateView for State {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Infallible> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Infallible> {
        let range = self.rows.range(Bytes::copy_from_slice(from)..Bytes::copy_from_slice(to));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
