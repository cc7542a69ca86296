//! Gathers the records of one write into one aligned buffer.

use dag_format::chain;
use dag_format::log::{
    BATCH_START_BYTES, BatchStart, ENTRY_OVERHEAD_BYTES, EntryRecord, LogRecord,
};
use dag_format::record::Place;

use super::job::{Job, Stamped, Work};
use super::types::Position;
use crate::disk::AlignedBuffer;

/// Room that a batch needs beside its jobs: its start, a segment's start, a commit position.
pub(super) const FRAME_BYTES: usize = 1024;

/// Bytes that a job's records take at most.
pub(super) fn job_bytes(work: &Work) -> usize {
    match work {
        Work::Append(entries) => {
            entries.iter().map(|stamped| entry_bytes(stamped.entry.payload.len())).sum()
        }
        Work::Truncate(_) | Work::Vote(_) | Work::Purge { .. } => 64,
        Work::Sync => 0,
    }
}

/// Bytes of an entry's record.
pub(super) fn entry_bytes(payload: usize) -> usize {
    ENTRY_OVERHEAD_BYTES + payload
}

/// A batch that is being gathered.
pub(super) struct Batch<'a> {
    buffer: &'a mut AlignedBuffer,
    place: Place,
    records: u32,
    scratch: Vec<u8>,
}

impl<'a> Batch<'a> {
    /// Begins a batch that will stand at `place`; `bytes` is enough for all of it.
    pub(super) fn begin(buffer: &'a mut AlignedBuffer, place: Place, bytes: usize) -> Self {
        buffer.reset(bytes);
        buffer.push(&[0; BATCH_START_BYTES]);
        Self { buffer, place, records: 0, scratch: Vec::new() }
    }

    /// Appends a record.
    pub(super) fn push(&mut self, record: &LogRecord<'_>) {
        self.scratch.clear();
        record.encode(self.here(), &mut self.scratch);
        self.buffer.push(&self.scratch);
        self.records += 1;
    }

    /// Appends an entry, copying its payload once; gives where its record begins.
    fn push_entry(&mut self, stamped: &Stamped) -> u64 {
        let here = self.here();
        let entry = EntryRecord {
            id: stamped.entry.id,
            kind: stamped.entry.kind,
            chain: stamped.chain,
            payload: &stamped.entry.payload,
        };
        let (head, payload) = entry.encode_head(here);
        self.buffer.push(&head);
        self.buffer.push(payload);
        self.records += 1;
        here.position
    }

    /// Appends all records of a job; notes where each entry begins.
    pub(super) fn push_job(&mut self, job: &Job, offsets: &mut Vec<u64>) {
        match &job.work {
            Work::Append(entries) => {
                offsets.extend(entries.iter().map(|stamped| self.push_entry(stamped)));
            }
            Work::Truncate(last) => self.push(&LogRecord::Truncate(*last)),
            Work::Vote(vote) => self.push(&LogRecord::Vote(*vote)),
            Work::Purge { point, begins_anew } => {
                self.push(&LogRecord::Purge { point: *point, begins_anew: *begins_anew });
            }
            Work::Sync => {}
        }
    }

    /// Writes the batch's start over the room that was left for it, and gives the whole blocks.
    pub(super) fn finish(self, batch: u64, synced_through: u64) -> &'a [u8] {
        let start = LogRecord::BatchStart(BatchStart {
            batch,
            session: self.place.session,
            synced_through,
            bytes: u32::try_from(self.buffer.len()).expect("a batch under 4 GiB"),
            records: self.records,
        });
        let mut head = Vec::with_capacity(BATCH_START_BYTES);
        start.encode(Place { session: 0, ..self.place }, &mut head);
        assert_eq!(head.len(), BATCH_START_BYTES, "the room left for a batch's start");
        self.buffer.overwrite(0, &head);
        self.buffer.padded()
    }

    fn here(&self) -> Place {
        Place { position: self.place.position + self.buffer.len() as u64, ..self.place }
    }
}

/// The chain after an entry.
pub(super) fn chain_after(before: Option<Position>, entry: &super::types::LogEntry) -> Position {
    let before = before.map_or(dag_types::Chain::START, |(_, chain)| chain);
    (entry.id, chain::next(before, entry.id, entry.kind, &entry.payload))
}
