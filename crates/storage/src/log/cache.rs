//! Recent entries in memory, by one budget of bytes for all copies of a node.
//!
//! Bodies behind a log are held by bytes, never by count, and the oldest of the whole node go
//! first: entries are needed by followers that are a little behind and by apply, both soon after
//! they were written. What is not here is read from the segments.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use super::types::LogEntry;

/// What an entry costs beside its payload, roughly, in bytes.
const OVERHEAD_BYTES: usize = 128;

/// The cache of a node. One lock for all: it is held for a few moves of a pointer.
pub struct EntryCache {
    budget_bytes: usize,
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    entries: BTreeMap<(u64, u64), LogEntry>,
    /// Shelf, index and cost in order of arrival; an entry that was taken out leaves its place.
    arrivals: VecDeque<(u64, u64)>,
    used_bytes: usize,
    next_shelf: u64,
}

impl EntryCache {
    /// The budget that measurements suggest: 32 MiB for a node.
    pub const BUDGET_BYTES: usize = 32 << 20;

    /// A cache for this many bytes.
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, shelves: Mutex::default() }
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> usize {
        self.lock().used_bytes
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().expect("no panic while the cache is locked")
    }

    /// A place for the entries of one log.
    pub(super) fn shelf(&self) -> u64 {
        let mut shelves = self.lock();
        shelves.next_shelf += 1;
        shelves.next_shelf
    }

    pub(super) fn put(&self, shelf: u64, entries: impl Iterator<Item = LogEntry>) {
        let mut shelves = self.lock();
        for entry in entries {
            let key = (shelf, entry.id.index);
            shelves.used_bytes += cost(&entry);
            if let Some(replaced) = shelves.entries.insert(key, entry) {
                shelves.used_bytes -= cost(&replaced);
            } else {
                shelves.arrivals.push_back(key);
            }
        }
        while shelves.used_bytes > self.budget_bytes {
            let Some(oldest) = shelves.arrivals.pop_front() else { break };
            shelves.remove(oldest);
        }
    }

    pub(super) fn get(&self, shelf: u64, index: u64) -> Option<LogEntry> {
        self.lock().entries.get(&(shelf, index)).cloned()
    }

    /// Forgets the entries of a shelf in `from..to`.
    pub(super) fn forget(&self, shelf: u64, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let mut shelves = self.lock();
        let keys: Vec<_> =
            shelves.entries.range((shelf, from)..(shelf, to)).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| shelves.remove(key));
        shelves.tidy();
    }
}

impl Shelves {
    fn remove(&mut self, key: (u64, u64)) {
        if let Some(entry) = self.entries.remove(&key) {
            self.used_bytes -= cost(&entry);
        }
    }

    /// Drops the places of entries that were taken out, once they are the greater part.
    fn tidy(&mut self) {
        if self.arrivals.len() > 1024 && self.arrivals.len() > 2 * self.entries.len() {
            let entries = &self.entries;
            let mut seen = std::collections::BTreeSet::new();
            self.arrivals.retain(|key| entries.contains_key(key) && seen.insert(*key));
        }
    }
}

fn cost(entry: &LogEntry) -> usize {
    entry.payload.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dag_types::LogId;

    use super::*;

    fn entry(index: u64, bytes: usize) -> LogEntry {
        let payload = Bytes::from(vec![1; bytes]);
        LogEntry { id: LogId { term: 1, index }, kind: 1, payload }
    }

    #[test]
    fn the_oldest_of_the_node_leave_when_the_budget_is_spent() {
        let cache = EntryCache::new(10 * (1000 + OVERHEAD_BYTES));
        let (first, second) = (cache.shelf(), cache.shelf());
        cache.put(first, (0..8).map(|index| entry(index, 1000)));
        cache.put(second, (0..4).map(|index| entry(index, 1000)));
        assert_eq!(cache.get(first, 1), None);
        assert!(cache.get(first, 2).is_some());
        assert!(cache.get(second, 0).is_some());
        assert!(cache.used_bytes() <= 10 * (1000 + OVERHEAD_BYTES));
    }

    #[test]
    fn forgotten_entries_give_their_bytes_back() {
        let cache = EntryCache::new(1 << 20);
        let shelf = cache.shelf();
        cache.put(shelf, (0..3000).map(|index| entry(index, 10)));
        cache.forget(shelf, 0, 3000);
        assert_eq!(cache.used_bytes(), 0);
        assert!(cache.lock().arrivals.len() <= 1024);
    }
}
