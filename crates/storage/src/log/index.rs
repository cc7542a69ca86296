//! Where each entry of a log stands.

use std::collections::VecDeque;

use dag_types::{Chain, LogId};

use super::types::Position;

/// What is kept in memory of every entry behind the purge point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) term: u64,
    pub(super) chain: Chain,
    /// The segment, or 0 while the entry is not written.
    pub(super) segment: u64,
    /// The opening of the log that wrote it.
    pub(super) session: u64,
    /// Where its record begins in the segment.
    pub(super) offset: u32,
    /// Bytes of its payload.
    pub(super) bytes: u32,
}

/// The entries behind the purge point, without a gap.
#[derive(Debug, Default)]
pub(super) struct Index {
    first: u64,
    slots: VecDeque<Slot>,
    payload_bytes: u64,
}

impl Index {
    /// No entries; the next one is `first`.
    pub(super) fn starting_at(first: u64) -> Self {
        Self { first, slots: VecDeque::new(), payload_bytes: 0 }
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// One behind the last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    pub(super) fn get(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn get_mut(&mut self, index: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn position(&self, index: u64) -> Option<Position> {
        self.get(index).map(|slot| (LogId { term: slot.term, index }, slot.chain))
    }

    pub(super) fn push(&mut self, slot: Slot) {
        self.payload_bytes += u64::from(slot.bytes);
        self.slots.push_back(slot);
    }

    /// Drops everything from `end` on.
    pub(super) fn truncate(&mut self, end: u64) {
        while self.end() > end {
            let Some(slot) = self.slots.pop_back() else { break };
            self.payload_bytes -= u64::from(slot.bytes);
        }
        if self.slots.is_empty() {
            self.first = self.first.min(end);
        }
    }

    /// Drops everything before `first`.
    pub(super) fn drop_before(&mut self, first: u64) {
        while self.first < first {
            let Some(slot) = self.slots.pop_front() else { break };
            self.payload_bytes -= u64::from(slot.bytes);
            self.first += 1;
        }
        if self.slots.is_empty() {
            self.first = self.first.max(first);
        }
    }

    /// The segment of the oldest entry that is written.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.segment).filter(|segment| *segment != 0)
    }
}
