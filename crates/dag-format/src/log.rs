//! What stands in a log segment.
//!
//! A segment is a file of fixed size, filled from the front with batches. A batch is what one write
//! put there: it begins at a multiple of 4 KiB with a [`BatchStart`], its records follow without
//! gaps, and zeroes fill its last block. The first record behind the `BatchStart` of a segment's
//! first batch is a [`SegmentStart`]. The segment's last block is reserved for a [`Seal`].
//!
//! A batch counts whole or not at all. What makes the end of a log trustworthy are the claims:
//! every batch says which batches were durable when it was written, so a log that ends before one
//! of its own claims has lost something that was acknowledged.

use alloc::vec::Vec;

use dag_types::{Chain, LogId};

use crate::FormatError;
use crate::cursor::{Cursor, put_chained, put_id, put_option};
use crate::record::{HEADER_BYTES, Place, Record, check_version, header, peek};

/// Version of all log records so far.
pub const VERSION: u8 = 1;
/// Bytes of an entry's record around its payload.
pub const ENTRY_OVERHEAD_BYTES: usize = HEADER_BYTES + ENTRY_HEAD_BYTES;
/// Bytes of a batch's first record.
pub const BATCH_START_BYTES: usize = HEADER_BYTES + 32;

/// Longer payloads of records that claim something do not come in any version for a while.
const CLAIM_PAYLOAD_MAX: u32 = 256;
const ENTRY_HEAD_BYTES: usize = 33;
const BATCH_START: u8 = 1;
const SEGMENT_START: u8 = 2;
const ENTRY: u8 = 3;
const TRUNCATE: u8 = 4;
const VOTE: u8 = 5;
const COMMITTED: u8 = 6;
const PURGE: u8 = 7;
const SEAL: u8 = 8;

/// The first record of a batch; its own checksum does not cover the session, which it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchStart {
    /// Counted through the whole log from 1; a batch that was cut gives its number to the next.
    pub batch: u64,
    /// The opening of the log that wrote it; never smaller than that of the batch before.
    pub session: u64,
    /// The claim: all batches up to this one were durable when this one was written. 0: none.
    pub synced_through: u64,
    /// Bytes of the batch with this record and without the padding.
    pub bytes: u32,
    /// Records of the batch without this one.
    pub records: u32,
}

/// Says what held when the segment was begun, so that the segments before it can be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentStart {
    /// The segment's number; also its file's name.
    pub segment: u64,
    /// The file's size in bytes; a shorter file has been cut by somebody else.
    pub bytes: u64,
    /// The last entry before this segment.
    pub last: Option<(LogId, Chain)>,
    /// The purge point.
    pub purged: Option<(LogId, Chain)>,
    /// The vote.
    pub vote: Option<VoteRecord>,
    /// The last commit position that was noted.
    pub committed: Option<LogId>,
}

/// Raft's vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteRecord {
    /// Raft's term.
    pub term: u64,
    /// The replica that the vote is for.
    pub voted_for: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRecord<'a> {
    /// Its position.
    pub id: LogId,
    /// What it is to the consensus layer.
    pub kind: u8,
    /// The chain at this entry.
    pub chain: Chain,
    /// Its content.
    pub payload: &'a [u8],
}

/// A record of a log segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRecord<'a> {
    /// A batch begins.
    BatchStart(BatchStart),
    /// A segment begins.
    SegmentStart(SegmentStart),
    /// An entry follows the last one.
    Entry(EntryRecord<'a>),
    /// Everything behind this entry is cut; `None`: everything.
    Truncate(Option<(LogId, Chain)>),
    /// The vote changed.
    Vote(VoteRecord),
    /// The commit position, as far as it was known.
    Committed(Option<LogId>),
    /// Everything up to this entry may be given up.
    Purge {
        /// The entry, and the chain there.
        point: (LogId, Chain),
        /// Whether the entry was not in the log: then nothing before this record counts, and the
        /// log begins anew behind the point.
        begins_anew: bool,
    },
    /// A claim in the last block of a segment that is not the last one.
    Seal {
        /// All batches up to this one were durable when this was written.
        synced_through: u64,
    },
}

impl<'a> LogRecord<'a> {
    /// Reads a record's payload.
    pub fn decode(record: Record<'a>) -> Result<Self, FormatError> {
        let what = name(record.kind)?;
        check_version(what, record.version, VERSION)?;
        let mut cursor = Cursor::new(what, record.payload);
        let decoded = match record.kind {
            BATCH_START => Self::BatchStart(batch_start(&mut cursor)?),
            SEGMENT_START => Self::SegmentStart(segment_start(&mut cursor)?),
            ENTRY => return entry(cursor),
            TRUNCATE => Self::Truncate(cursor.option(Cursor::chained)?),
            VOTE => Self::Vote(vote(&mut cursor)?),
            COMMITTED => Self::Committed(cursor.option(Cursor::id)?),
            PURGE => Self::Purge { point: cursor.chained()?, begins_anew: cursor.flag()? },
            _ => Self::Seal { synced_through: cursor.u64()? },
        };
        cursor.end()?;
        Ok(decoded)
    }

    /// Appends the whole record, framed for its place.
    pub fn encode(&self, place: Place, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        let (kind, body): (u8, &[u8]) = match self {
            Self::BatchStart(start) => {
                put_batch_start(&mut payload, start);
                (BATCH_START, &[])
            }
            Self::SegmentStart(start) => {
                put_segment_start(&mut payload, start);
                (SEGMENT_START, &[])
            }
            Self::Entry(entry) => {
                payload.extend_from_slice(&entry_head(entry));
                (ENTRY, entry.payload)
            }
            Self::Truncate(last) => {
                put_option(&mut payload, *last, put_chained);
                (TRUNCATE, &[])
            }
            Self::Vote(vote) => {
                put_vote(&mut payload, *vote);
                (VOTE, &[])
            }
            Self::Committed(id) => {
                put_option(&mut payload, *id, put_id);
                (COMMITTED, &[])
            }
            Self::Purge { point, begins_anew } => {
                put_chained(&mut payload, *point);
                payload.push(u8::from(*begins_anew));
                (PURGE, &[])
            }
            Self::Seal { synced_through } => {
                payload.extend_from_slice(&synced_through.to_le_bytes());
                (SEAL, &[])
            }
        };
        out.extend_from_slice(&header(kind, VERSION, place, &[&payload, body]));
        out.extend_from_slice(&payload);
        out.extend_from_slice(body);
    }

    /// Whether bytes that begin like this may be a record that claims something.
    pub fn may_claim(bytes: &[u8]) -> bool {
        matches!(peek(bytes), Some((BATCH_START | SEAL, 1..=CLAIM_PAYLOAD_MAX)))
    }
}

impl<'a> EntryRecord<'a> {
    /// Everything before the payload, framed for its place, and the payload: so that a large one is
    /// copied once, into the buffer that is written.
    pub fn encode_head(&self, place: Place) -> ([u8; ENTRY_OVERHEAD_BYTES], &'a [u8]) {
        let fields = entry_head(self);
        let mut head = [0; ENTRY_OVERHEAD_BYTES];
        head[..HEADER_BYTES].copy_from_slice(&header(
            ENTRY,
            VERSION,
            place,
            &[&fields, self.payload],
        ));
        head[HEADER_BYTES..].copy_from_slice(&fields);
        (head, self.payload)
    }
}

fn name(kind: u8) -> Result<&'static str, FormatError> {
    Ok(match kind {
        BATCH_START => "a batch's start",
        SEGMENT_START => "a segment's start",
        ENTRY => "an entry's record",
        TRUNCATE => "a cut",
        VOTE => "a vote",
        COMMITTED => "a commit position",
        PURGE => "a purge point",
        SEAL => "a seal",
        found => return Err(FormatError::UnknownType { what: "a log record", found }),
    })
}

fn batch_start(cursor: &mut Cursor<'_>) -> Result<BatchStart, FormatError> {
    Ok(BatchStart {
        batch: cursor.u64()?,
        session: cursor.u64()?,
        synced_through: cursor.u64()?,
        bytes: cursor.u32()?,
        records: cursor.u32()?,
    })
}

fn put_batch_start(out: &mut Vec<u8>, start: &BatchStart) {
    out.extend_from_slice(&start.batch.to_le_bytes());
    out.extend_from_slice(&start.session.to_le_bytes());
    out.extend_from_slice(&start.synced_through.to_le_bytes());
    out.extend_from_slice(&start.bytes.to_le_bytes());
    out.extend_from_slice(&start.records.to_le_bytes());
}

fn segment_start(cursor: &mut Cursor<'_>) -> Result<SegmentStart, FormatError> {
    Ok(SegmentStart {
        segment: cursor.u64()?,
        bytes: cursor.u64()?,
        last: cursor.option(Cursor::chained)?,
        purged: cursor.option(Cursor::chained)?,
        vote: cursor.option(vote)?,
        committed: cursor.option(Cursor::id)?,
    })
}

fn put_segment_start(out: &mut Vec<u8>, start: &SegmentStart) {
    out.extend_from_slice(&start.segment.to_le_bytes());
    out.extend_from_slice(&start.bytes.to_le_bytes());
    put_option(out, start.last, put_chained);
    put_option(out, start.purged, put_chained);
    put_option(out, start.vote, put_vote);
    put_option(out, start.committed, put_id);
}

fn vote(cursor: &mut Cursor<'_>) -> Result<VoteRecord, FormatError> {
    Ok(VoteRecord { term: cursor.u64()?, voted_for: cursor.u64()?, committed: cursor.flag()? })
}

fn put_vote(out: &mut Vec<u8>, vote: VoteRecord) {
    out.extend_from_slice(&vote.term.to_le_bytes());
    out.extend_from_slice(&vote.voted_for.to_le_bytes());
    out.push(u8::from(vote.committed));
}

fn entry(mut cursor: Cursor<'_>) -> Result<LogRecord<'_>, FormatError> {
    let (id, kind, chain) = (cursor.id()?, cursor.u8()?, Chain(cursor.array()?));
    Ok(LogRecord::Entry(EntryRecord { id, kind, chain, payload: cursor.rest() }))
}

fn entry_head(entry: &EntryRecord<'_>) -> [u8; ENTRY_HEAD_BYTES] {
    let mut head = [0; ENTRY_HEAD_BYTES];
    head[..8].copy_from_slice(&entry.id.term.to_le_bytes());
    head[8..16].copy_from_slice(&entry.id.index.to_le_bytes());
    head[16] = entry.kind;
    head[17..].copy_from_slice(&entry.chain.0);
    head
}
