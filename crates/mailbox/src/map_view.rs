//! A view over an ordered map: for tests, simulations, measurements.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;
use dag_types::Write;

use crate::view::{Fault, MailboxView, Row};

/// A copy's state held in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MapView {
    rows: BTreeMap<Bytes, Bytes>,
}

impl MapView {
    /// Carries out the writes of an applied command.
    pub fn write(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { key, value } => self.rows.insert(key, value),
                Write::Delete { key } => self.rows.remove(&key),
            };
        }
    }

    /// All rows in order.
    pub fn rows(&self) -> &BTreeMap<Bytes, Bytes> {
        &self.rows
    }
}

impl MailboxView for MapView {
    type Error = Fault;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, Fault> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let rows = self.rows.range::<[u8], _>(range).take(limit);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
