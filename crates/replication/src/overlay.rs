//! The state as it will be: a batch's writes over the store.
//!
//! Entries of one batch see the effects of those before them, and the store sees the batch as a
//! whole or not at all.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use dag_types::Write;
use storage::state::{Row, StateError, StateRead};

/// What to do with each changed key: put a value, or delete.
type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// A store, and changes that are not written yet.
pub(crate) struct Overlay<'a> {
    below: &'a dyn StateRead,
    changes: Changes,
}

impl<'a> Overlay<'a> {
    pub fn new(below: &'a dyn StateRead) -> Self {
        Self { below, changes: Changes::new() }
    }

    pub fn write(&mut self, write: Write) {
        let (key, value) = match write {
            Write::Put { key, value } => (key, Some(value)),
            Write::Delete { key } => (key, None),
        };
        self.changes.insert(key, value);
    }

    /// The changes, in key order, one for each key.
    pub fn into_writes(self) -> Vec<Write> {
        let write = |(key, value)| match value {
            Some(value) => Write::Put { key, value },
            None => Write::Delete { key },
        };
        self.changes.into_iter().map(write).collect()
    }

    fn changed(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = Change<'_>> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        self.changes.range::<[u8], _>(range)
    }
}

type Change<'a> = (&'a Bytes, &'a Option<Bytes>);

impl StateRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let below = |from: &[u8], limit| self.below.scan(from, to, limit);
        let after = |key: &Bytes| {
            let mut next = key.to_vec();
            next.push(0);
            Bytes::from(next)
        };
        merge(self.changed(from, to), below, Bytes::copy_from_slice(from), after, Bytes::lt, limit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let below = |to: &[u8], limit| self.below.scan_back(from, to, limit);
        let changes = self.changed(from, to).rev();
        // `to` is exclusive, so the last key seen is where the next page ends.
        merge(changes, below, Bytes::copy_from_slice(to), Bytes::clone, Bytes::gt, limit)
    }
}

/// Walks the store's pages and the changes together; a change hides the row of its key.
///
/// `page(at, limit)` reads on from `at`, `next(key)` is where the page after `key` begins, and
/// `before(a, b)` says which key comes first in this direction.
fn merge<'a>(
    changes: impl Iterator<Item = Change<'a>>,
    page: impl Fn(&[u8], usize) -> Result<Vec<Row>, StateError>,
    mut at: Bytes,
    next: impl Fn(&Bytes) -> Bytes,
    before: impl Fn(&Bytes, &Bytes) -> bool,
    limit: usize,
) -> Result<Vec<Row>, StateError> {
    let mut changes = changes.peekable();
    let mut rows = Vec::new();
    let mut below = Vec::new().into_iter().peekable();
    let mut below_ended = false;
    while rows.len() < limit {
        if below.peek().is_none() && !below_ended {
            let wanted = limit - rows.len();
            let read = page(&at, wanted)?;
            below_ended = read.len() < wanted;
            if let Some((last, _)) = read.last() {
                at = next(last);
            }
            below = read.into_iter().peekable();
        }
        let change_first = match (changes.peek(), below.peek()) {
            (None, None) => break,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((changed, _)), Some((stored, _))) if *changed == stored => {
                below.next();
                true
            }
            (Some((changed, _)), Some((stored, _))) => before(changed, stored),
        };
        if change_first {
            let (key, value) = changes.next().expect("peeked");
            rows.extend(value.clone().map(|value| (key.clone(), value)));
        } else {
            rows.extend(below.next());
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store of plain rows.
    struct Below(BTreeMap<Bytes, Bytes>);

    impl StateRead for Below {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StateError> {
            Ok(self.0.get(key).cloned())
        }
        fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
            Ok(self.rows(from, to).take(limit).collect())
        }
        fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
            Ok(self.rows(from, to).rev().take(limit).collect())
        }
    }

    impl Below {
        fn rows(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = Row> {
            let range = (Bound::Included(from), Bound::Excluded(to));
            self.0.range::<[u8], _>(range).map(|(k, v)| (k.clone(), v.clone()))
        }
    }

    fn key(number: u8) -> Bytes {
        Bytes::copy_from_slice(&[0x10, number])
    }

    fn put(overlay: &mut Overlay<'_>, number: u8, value: &'static str) {
        overlay.write(Write::Put { key: key(number), value: Bytes::from_static(value.as_bytes()) });
    }

    fn numbers(rows: &[Row]) -> Vec<u8> {
        rows.iter().map(|(key, _)| key[1]).collect()
    }

    fn below() -> Below {
        Below((0..10).map(|n| (key(n * 2), Bytes::from_static(b"old"))).collect())
    }

    #[test]
    fn changes_hide_what_lies_below() {
        let below = below();
        let mut overlay = Overlay::new(&below);
        put(&mut overlay, 4, "new");
        overlay.write(Write::Delete { key: key(6) });
        assert_eq!(overlay.get(&key(4)).unwrap().unwrap(), "new");
        assert_eq!(overlay.get(&key(6)), Ok(None));
        assert_eq!(overlay.get(&key(8)).unwrap().unwrap(), "old");
    }

    #[test]
    fn scans_meet_a_plain_map_in_both_directions_at_every_limit() {
        let below = below();
        let mut overlay = Overlay::new(&below);
        let mut plain = below.0.clone();
        for number in [0, 3, 4, 9, 18, 19, 25] {
            put(&mut overlay, number, "new");
            plain.insert(key(number), Bytes::from_static(b"new"));
        }
        for number in [2, 6, 8, 10, 12, 19] {
            overlay.write(Write::Delete { key: key(number) });
            plain.remove(&key(number));
        }
        let plain = Below(plain);
        for (from, to) in [(0, 30), (1, 9), (6, 14), (18, 26)] {
            let (from, to) = (key(from), key(to));
            for limit in 0..14 {
                let forth = overlay.scan(&from, &to, limit).unwrap();
                assert_eq!(forth, plain.scan(&from, &to, limit).unwrap());
                let back = overlay.scan_back(&from, &to, limit).unwrap();
                assert_eq!(back, plain.scan_back(&from, &to, limit).unwrap());
            }
        }
        assert_eq!(numbers(&overlay.scan(&key(0), &key(5), 9).unwrap()), [0, 3, 4]);
        for (from, to) in [(9, 9), (9, 3)] {
            assert!(overlay.scan(&key(from), &key(to), 5).unwrap().is_empty());
            assert!(overlay.scan_back(&key(from), &key(to), 5).unwrap().is_empty());
        }
    }

    #[test]
    fn the_last_change_of_a_key_is_the_one_that_is_written() {
        let below = below();
        let mut overlay = Overlay::new(&below);
        put(&mut overlay, 1, "first");
        put(&mut overlay, 1, "second");
        overlay.write(Write::Delete { key: key(2) });
        let second = Bytes::from_static(b"second");
        let expected =
            vec![Write::Put { key: key(1), value: second }, Write::Delete { key: key(2) }];
        assert_eq!(overlay.into_writes(), expected);
    }
}
