//! A log as its users see it: what was asked of it holds at once, durable or not.

use std::collections::{BTreeMap, VecDeque};

use dag_types::LogId;

use super::index::{Index, Slot};
use super::job::{Job, Stamped, Work};
use super::segment::Segment;
use super::types::{LogBounds, LogEntry, LogFault, Position, VoteRecord};

/// Guarded by one lock, which is never held over a disk's call.
pub(super) struct Memory {
    pub(super) index: Index,
    pub(super) purged: Option<Position>,
    pub(super) last: Option<Position>,
    pub(super) durable: Option<LogId>,
    pub(super) vote: Option<VoteRecord>,
    pub(super) committed: Option<LogId>,
    /// Whether `committed` is not in any batch yet.
    pub(super) committed_changed: bool,
    /// What the state has flushed; purge goes up to here.
    pub(super) flushed: Option<Position>,
    /// Entries that are in no segment yet.
    pub(super) waiting: BTreeMap<u64, LogEntry>,
    pub(super) jobs: VecDeque<Job>,
    /// The segments that entries are read from.
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) fault: Option<LogFault>,
}

impl Memory {
    pub(super) fn bounds(&self) -> LogBounds {
        let id = |position: Option<Position>| position.map(|(id, _)| id);
        LogBounds { purged: id(self.purged), last: id(self.last), durable: self.durable }
    }

    /// The index of the next entry.
    pub(super) fn next_index(&self) -> u64 {
        self.last.map_or(0, |(id, _)| id.index + 1)
    }

    /// The position of an entry, of the last entry, or of the purge point.
    pub(super) fn position(&self, index: u64) -> Option<Position> {
        let known = [self.purged, self.last].into_iter().flatten();
        self.index.position(index).or_else(|| known.into_iter().find(|(id, _)| id.index == index))
    }

    /// Takes an entry over: it can be read from here on.
    pub(super) fn append(&mut self, entry: LogEntry) -> Stamped {
        assert_eq!(entry.id.index, self.next_index(), "entries follow one another");
        assert!(
            self.last.is_none_or(|(last, _)| last.term <= entry.id.term),
            "the term of an entry is not below that of the entry before"
        );
        let position = super::batch::chain_after(self.last, &entry);
        self.index.push(Slot {
            term: entry.id.term,
            chain: position.1,
            segment: 0,
            session: 0,
            offset: 0,
            bytes: u32::try_from(entry.payload.len()).expect("an entry under 4 GiB"),
        });
        self.waiting.insert(entry.id.index, entry.clone());
        self.last = Some(position);
        Stamped { entry, chain: position.1 }
    }

    /// Cuts everything behind `index`, which is not before the purge point.
    pub(super) fn truncate_after(&mut self, index: Option<u64>) -> Option<Position> {
        let end = index.map_or(self.index.first(), |index| index + 1);
        assert!(end >= self.index.first(), "what was purged cannot be cut");
        self.index.truncate(end);
        self.waiting.split_off(&end);
        let kept = end.checked_sub(1).and_then(|last| self.position(last));
        self.last = kept;
        if self.durable.is_some_and(|durable| durable.index >= end) {
            self.durable = kept.map(|(id, _)| id);
        }
        kept
    }

    /// Moves the purge point; gives what the log must write, `None` where the chain there is not
    /// known.
    pub(super) fn purge(&mut self, upto: LogId) -> Option<Work> {
        let inside = self.index.position(upto.index).filter(|(id, _)| *id == upto);
        if let Some(point) = inside {
            self.index.drop_before(upto.index + 1);
            self.waiting = self.waiting.split_off(&(upto.index + 1));
            self.purged = Some(point);
            return Some(Work::Purge { point, begins_anew: false });
        }
        // The state came from elsewhere, or is ahead of a log that lost its tail: the log begins
        // anew behind it.
        let point = self.flushed.filter(|(id, _)| *id == upto)?;
        self.index = Index::starting_at(upto.index + 1);
        self.waiting.clear();
        self.purged = Some(point);
        self.last = Some(point);
        self.durable = Some(upto);
        Some(Work::Purge { point, begins_anew: true })
    }

    /// Notes where an entry stands, unless it was cut or purged meanwhile; gives it for the cache.
    pub(super) fn placed(
        &mut self,
        stamped: &Stamped,
        segment: u64,
        session: u64,
        offset: u64,
    ) -> Option<LogEntry> {
        let slot = self.index.get_mut(stamped.entry.id.index)?;
        if slot.chain != stamped.chain {
            return None;
        }
        (slot.segment, slot.session) = (segment, session);
        slot.offset = u32::try_from(offset).expect("a segment under 4 GiB");
        self.waiting.remove(&stamped.entry.id.index)
    }

    /// Moves the durable tail after a job came through.
    pub(super) fn completed(&mut self, work: &Work) {
        let reached = match work {
            Work::Append(entries) => entries.last().map(Stamped::position),
            Work::Truncate(kept) => *kept,
            Work::Vote(_) | Work::Purge { .. } | Work::Sync => return,
        };
        let Some((id, chain)) = reached else { return };
        if self.position(id.index) == Some((id, chain)) {
            self.durable = Some(id);
        }
    }
}
