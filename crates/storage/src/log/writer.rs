//! The end of a log where batches are written; only the volume's log thread comes here.
//!
//! Invariants, asserted where they could break:
//! 1. A byte of a segment is written once in a session: a batch begins where the last one ended.
//! 2. A batch's number is that of the batch before plus one, through all segments.
//! 3. A claim says only what a sync has said before.
//! 4. A segment gets its seal only after the first batch of the next one is durable.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use dag_format::log::{LogRecord, SegmentStart};
use dag_format::record::Place;
use dag_types::{LogId, Millis};

use super::batch::{Batch, FRAME_BYTES, job_bytes};
use super::job::{Job, Work};
use super::segment::{self, HASTY, SPARE, Segment, SegmentSizes};
use super::types::{LogFault, Position, VoteRecord};
use crate::disk::{AlignedBuffer, BLOCK, Disk, DiskFile};

/// What a segment's start says, kept up to date with what was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) last: Option<Position>,
    pub(super) purged: Option<Position>,
    pub(super) vote: Option<VoteRecord>,
    pub(super) committed: Option<LogId>,
}

/// The next segment.
pub(super) enum Next {
    /// Nobody was asked for it.
    Wanted,
    /// The background makes it.
    Asked,
    /// The background could not make it; it is not asked again for this one.
    Unavailable,
    /// It lies ready under its passing name.
    Spare { bytes: u64 },
    /// It has its number already.
    Numbered(Segment),
}

/// The end of the log.
pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) folder: PathBuf,
    pub(super) sizes: SegmentSizes,
    pub(super) session: u64,
    pub(super) summary: Summary,
    pub(super) number: u64,
    pub(super) segment: Segment,
    pub(super) position: u64,
    /// When the segment was begun, and the step that sizes have reached.
    pub(super) begun: Millis,
    pub(super) step_bytes: u64,
    /// The last batch that was written, and the last that a sync covered.
    pub(super) batch: u64,
    pub(super) synced_through: u64,
    pub(super) next: Next,
    /// A segment that waits for its seal until this batch is durable.
    pub(super) unsealed: Option<(u64, Segment, u64)>,
    pub(super) in_flight: VecDeque<Job>,
}

/// What a write did.
pub(super) struct Written {
    /// Files that a sync must cover.
    pub(super) files: Vec<Arc<dyn DiskFile>>,
    /// A segment that was begun.
    pub(super) begun: Option<(u64, Segment)>,
    /// The segment written to, and where each entry's record begins, in the order of the jobs.
    pub(super) segment: u64,
    pub(super) offsets: Vec<u64>,
}

/// A write or something before it failed.
fn fault(operation: &'static str) -> impl Fn(io::Error) -> LogFault {
    move |fault| LogFault::from_io(operation, &fault)
}

impl Writer {
    /// Writes jobs as one batch, and a claim even where there are none. `committed` rides along.
    pub(super) fn write(
        &mut self,
        now: Millis,
        jobs: VecDeque<Job>,
        committed: Option<Option<LogId>>,
        buffer: &mut AlignedBuffer,
    ) -> Result<Written, LogFault> {
        let bytes = jobs.iter().map(|job| job_bytes(&job.work)).sum::<usize>();
        assert!(self.in_flight.is_empty(), "one batch of a log is under way at a time");
        let only_waits = !jobs.is_empty() && bytes == 0;
        self.in_flight = jobs;
        let mut written =
            Written { files: Vec::new(), begun: None, segment: self.number, offsets: Vec::new() };
        if only_waits {
            return Ok(written);
        }
        self.seal(buffer, &mut written)?;
        let room = (bytes + FRAME_BYTES).next_multiple_of(BLOCK);
        if self.position + room as u64 > self.segment.seal_position() {
            self.roll(now, room as u64, &mut written)?;
        }
        self.write_batch(room, committed, buffer, &mut written)?;
        Ok(written)
    }

    fn write_batch(
        &mut self,
        room: usize,
        committed: Option<Option<LogId>>,
        buffer: &mut AlignedBuffer,
        written: &mut Written,
    ) -> Result<(), LogFault> {
        let place = Place { segment: self.number, position: self.position, session: self.session };
        let mut batch = Batch::begin(buffer, place, room);
        if self.position == 0 {
            batch.push(&LogRecord::SegmentStart(self.segment_start()));
        }
        for job in &self.in_flight {
            batch.push_job(job, &mut written.offsets);
        }
        if let Some(committed) = committed {
            batch.push(&LogRecord::Committed(committed));
            self.summary.committed = committed;
        }
        let blocks = batch.finish(self.batch + 1, self.synced_through);
        assert!(
            self.position + blocks.len() as u64 <= self.segment.seal_position(),
            "a batch ends before the seal's block"
        );
        self.segment.file.write_at(blocks, self.position).map_err(fault("write the log"))?;
        self.position += blocks.len() as u64;
        self.batch += 1;
        self.in_flight.iter().for_each(|job| self.summary.take(&job.work));
        written.files.push(self.segment.file.clone());
        Ok(())
    }

    fn segment_start(&self) -> SegmentStart {
        SegmentStart {
            segment: self.number,
            bytes: self.segment.bytes,
            last: self.summary.last,
            purged: self.summary.purged,
            vote: self.summary.vote,
            committed: self.summary.committed,
        }
    }

    /// Goes on in the next segment, which holds at least `room` and the seal's block.
    fn roll(&mut self, now: Millis, room: u64, written: &mut Written) -> Result<(), LogFault> {
        let needed = room + BLOCK as u64;
        let number = self.number + 1;
        let mut next = match std::mem::replace(&mut self.next, Next::Wanted) {
            Next::Numbered(segment) => segment,
            Next::Spare { bytes } => self.adopt(SPARE, number, bytes)?,
            Next::Wanted | Next::Unavailable => self.hasty(number, needed)?,
            Next::Asked => {
                let segment = self.hasty(number, needed)?;
                self.next = Next::Asked;
                segment
            }
        };
        if next.bytes < needed {
            segment::grow(&mut next, needed).map_err(fault("make a segment larger"))?;
        }
        let full = std::mem::replace(&mut self.segment, next);
        self.unsealed = Some((self.number, full, self.batch + 1));
        self.number = number;
        self.position = 0;
        self.step_bytes = self.sizes.after(self.step_bytes, now.saturating_sub(self.begun));
        self.begun = now;
        written.segment = number;
        written.begun = Some((number, self.segment.clone()));
        Ok(())
    }

    fn adopt(&self, name: &str, number: u64, bytes: u64) -> Result<Segment, LogFault> {
        segment::adopt(&*self.disk, &self.folder, name, number, bytes)
            .map_err(fault("take over a segment"))
    }

    /// The background was not fast enough: a commit makes a small segment itself instead of waiting
    /// for a large one.
    fn hasty(&self, number: u64, needed: u64) -> Result<Segment, LogFault> {
        let bytes = needed.max(self.sizes.bytes_min);
        let bytes = segment::prepare(&*self.disk, &self.folder, HASTY, bytes)
            .map_err(fault("make a segment"))?;
        self.adopt(HASTY, number, bytes)
    }

    /// Claims in the last block of the segment before that this segment has begun, so that its loss
    /// is noticed even when it is gone whole. It comes before anything else is written: a segment
    /// that was given up meanwhile is at most a spare by then, and its old seal means nothing there.
    fn seal(&mut self, buffer: &mut AlignedBuffer, written: &mut Written) -> Result<(), LogFault> {
        let Some((number, segment, _)) =
            self.unsealed.take_if(|(_, _, first)| *first <= self.synced_through)
        else {
            return Ok(());
        };
        let position = segment.seal_position();
        let mut record = Vec::new();
        LogRecord::Seal { synced_through: self.synced_through }
            .encode(Place { segment: number, position, session: 0 }, &mut record);
        buffer.reset(BLOCK);
        buffer.push(&record);
        segment.file.write_at(buffer.padded(), position).map_err(fault("seal a segment"))?;
        written.files.push(segment.file);
        Ok(())
    }

    /// The size of the segment that should be made next, if one should: an idle log has none, and
    /// a log that is written to has one long before it needs it.
    pub(super) fn wants(&mut self) -> Option<u64> {
        let early = self.position * 4 <= self.segment.bytes;
        if early || !matches!(self.next, Next::Wanted) {
            return None;
        }
        self.next = Next::Asked;
        Some(self.step_bytes)
    }

    /// Everything written so far is durable.
    pub(super) fn synced(&mut self) {
        self.synced_through = self.batch;
    }
}

impl Summary {
    fn take(&mut self, work: &Work) {
        match work {
            Work::Append(entries) => {
                if let Some(stamped) = entries.last() {
                    self.last = Some(stamped.position());
                }
            }
            Work::Truncate(kept) => self.last = *kept,
            Work::Vote(vote) => self.vote = Some(*vote),
            Work::Purge { point, begins_anew } => {
                self.purged = Some(*point);
                if *begins_anew {
                    self.last = Some(*point);
                }
            }
            Work::Sync => {}
        }
    }
}
