//! Rows that are read again and again: a mailbox's counters, a folder's, an address, the mark under
//! which the hour's trace expires.
//!
//! Four of ten reads of a delivery are of rows that the delivery before it wrote. The engine looks
//! for them in a list of half a million rows, cold for the processor; here they are one step away.
//!
//! Only what was *read* is kept, and what is kept is renewed by whatever is written: so rows that
//! are written once and read by somebody else (messages, changes) do not push out the others. There
//! are two generations; when the young one is full it becomes the old one, and what nobody asked
//! for since then is gone. A row is here exactly as it is in the store, or not at all: batches are
//! applied one after the other, and a state that is replaced takes its rows with it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use dag_types::Write;
use storage::state::{Family, Row, StateError, StateRead};

/// Bytes of one generation of one copy; a copy that nobody uses holds none.
const GENERATION_BYTES: usize = 256 << 10;
/// Rows with larger values are read where they are.
const VALUE_BYTES_MAX: usize = 1 << 10;
/// What a row costs beside its key and value.
const ROW_OVERHEAD: usize = 128;

/// The hot rows of one copy.
#[derive(Default)]
pub(crate) struct HotRows {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Bytes, Bytes>,
    old: HashMap<Bytes, Bytes>,
    young_bytes: usize,
}

impl HotRows {
    /// The store with its hot rows before it.
    pub fn before<'a>(&'a self, store: &'a dyn StateRead) -> HotRead<'a> {
        HotRead { hot: self, store }
    }

    /// Renews what is kept, after the batch was written.
    pub fn written(&self, writes: &[Write]) {
        let mut generations = self.lock();
        for write in writes {
            match write {
                Write::Put { key, value } => generations.renew(key, value),
                Write::Delete { key } => generations.forget(key),
            }
        }
    }

    /// Forgets all: the state was replaced, or nobody knows what was written.
    pub fn clear(&self) {
        *self.lock() = Generations::default();
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().expect("no panic while held")
    }
}

impl Generations {
    fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.keep(key, value.clone());
        Some(value)
    }

    fn keep(&mut self, key: Bytes, value: Bytes) {
        self.young_bytes += key.len() + value.len() + ROW_OVERHEAD;
        self.young.insert(key, value);
        if self.young_bytes >= GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    fn renew(&mut self, key: &Bytes, value: &Bytes) {
        let held = self.young.get_mut(&key[..]).or_else(|| self.old.get_mut(&key[..]));
        match held {
            Some(held) if value.len() <= VALUE_BYTES_MAX => *held = value.clone(),
            Some(_) => self.forget(key),
            None => {}
        }
    }

    fn forget(&mut self, key: &[u8]) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

/// A store that is asked only for what is not hot.
pub(crate) struct HotRead<'a> {
    hot: &'a HotRows,
    store: &'a dyn StateRead,
}

impl StateRead for HotRead<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        if Family::of(key) == Family::Bodies {
            return self.store.get(key);
        }
        if let Some(value) = self.hot.lock().get(key) {
            return Ok(Some(value));
        }
        let found = self.store.get(key)?;
        if let Some(value) = found.as_ref().filter(|value| value.len() <= VALUE_BYTES_MAX) {
            self.hot.lock().keep(Bytes::copy_from_slice(key), value.clone());
        }
        Ok(found)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.store.scan(from, to, limit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.store.scan_back(from, to, limit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A store of plain rows that counts what it is asked.
    #[derive(Default)]
    struct Store {
        rows: Mutex<BTreeMap<Bytes, Bytes>>,
        asked: AtomicUsize,
    }

    impl Store {
        fn write(&self, hot: &HotRows, writes: &[Write]) {
            let mut rows = self.rows.lock().unwrap();
            for write in writes.iter().cloned() {
                match write {
                    Write::Put { key, value } => rows.insert(key, value),
                    Write::Delete { key } => rows.remove(&key),
                };
            }
            hot.written(writes);
        }

        fn asked(&self) -> usize {
            self.asked.swap(0, Ordering::Relaxed)
        }
    }

    impl StateRead for Store {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(self.rows.lock().unwrap().get(key).cloned())
        }
        fn scan(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<Row>, StateError> {
            Ok(Vec::new())
        }
        fn scan_back(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<Row>, StateError> {
            Ok(Vec::new())
        }
    }

    fn put(key: &'static [u8], value: &[u8]) -> Write {
        Write::Put { key: Bytes::from_static(key), value: Bytes::copy_from_slice(value) }
    }

    #[test]
    fn a_row_that_was_read_is_not_read_again_and_is_renewed_by_writes() {
        let (store, hot) = (Store::default(), HotRows::default());
        store.write(&hot, &[put(b"\x10a", b"1")]);
        let read = hot.before(&store);
        assert_eq!(read.get(b"\x10a").unwrap().unwrap(), "1");
        assert_eq!(read.get(b"\x10a").unwrap().unwrap(), "1");
        assert_eq!(store.asked(), 1);
        store.write(&hot, &[put(b"\x10a", b"2")]);
        assert_eq!(read.get(b"\x10a").unwrap().unwrap(), "2");
        assert_eq!(store.asked(), 0);
        store.write(&hot, &[Write::Delete { key: Bytes::from_static(b"\x10a") }]);
        assert_eq!(read.get(b"\x10a").unwrap(), None);
    }

    #[test]
    fn a_row_that_grew_too_large_is_read_where_it_is() {
        let (store, hot) = (Store::default(), HotRows::default());
        store.write(&hot, &[put(b"\x10a", b"small")]);
        let read = hot.before(&store);
        read.get(b"\x10a").unwrap();
        let large = vec![7; VALUE_BYTES_MAX + 1];
        store.write(&hot, &[put(b"\x10a", &large)]);
        assert_eq!(read.get(b"\x10a").unwrap().unwrap(), large);
    }

    #[test]
    fn random_writes_and_reads_never_show_a_row_that_the_store_does_not_have() {
        let (store, hot) = (Store::default(), HotRows::default());
        let key = |n: u64| Bytes::from([&[0x10][..], &n.to_be_bytes()].concat());
        let mut dice = 1_u64;
        for round in 0..200_000_u64 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round | 1);
            let n = (dice >> 33) % 5_000;
            let writes = match dice >> 62 {
                0 => vec![Write::Delete { key: key(n) }],
                1 => vec![Write::Put {
                    key: key(n),
                    value: Bytes::from(vec![1; round as usize % 1_100]),
                }],
                _ => {
                    let have = hot.before(&store).get(&key(n)).unwrap();
                    assert_eq!(have, store.rows.lock().unwrap().get(&key(n)).cloned());
                    continue;
                }
            };
            store.write(&hot, &writes);
        }
        let generations = hot.lock();
        assert!(generations.young_bytes < GENERATION_BYTES);
        assert!(!generations.old.is_empty(), "the run filled more than one generation");
    }
}
