//! Two states are made equal by sending only what differs.
//!
//! Files of two copies never have equal bytes, because each compacts for itself; their rows do. So
//! states are compared by content. The source cuts its rows in key order into ranges of
//! [`RANGE_ROWS`] and names each range's digest; the target reckons the same over what it holds. Of
//! a range of bodies that differs it asks for the list of keys and digests, and then for the bodies
//! that it lacks; of one of the index, whose rows are small, for the rows.
//!
//! ```text
//!  target                          source (a view of one moment)
//!   Sums from key ───────────────►
//!   ◄──────── [from, to) digest ...    equal here, or in the old copy beside: nothing is sent
//!   List [from, to) ─────────────►     bodies
//!   ◄──────── key, digest, bytes ...   what the old copy has is copied from it
//!   Bodies keys ─────────────────►
//!   ◄──────── rows                     checked against their digests, written
//!   Rows [from, to) ─────────────►     index, page by page; what is not in a page is deleted
//!   ◄──────── rows
//! ```
//! The source keeps nothing between two questions, so a broken connection, a damaged reply or
//! another source costs one question, and a target that was killed goes on with what its state
//! holds. The target's applied row is removed first and written last: a state without it is
//! unfinished, and no copy is made of it.
//!
//! What the old copy cannot read, or reads as something else, it does not have: it is asked for.
//!
//! Cost beside the rows that differ: one [`SUM_BYTES_MAX`] for each range, one list for each range
//! of bodies that differs, and the equal rows of each range of the index that differs.

use bytes::Bytes;
use storage::state::{Row, StateError, StateRead};

use crate::pages::{BODIES, EXPIRING, Pages, end_of_keys};
use crate::wire::SMALL;

mod source;
mod target;

pub use source::DeltaSource;
pub use target::{DeltaStep, DeltaTally, DeltaTarget};

/// Rows in one range.
pub const RANGE_ROWS: usize = if SMALL { 8 } else { 64 };
/// Bytes of a range's line beside its keys.
pub const SUM_BYTES_MAX: usize = 16 + 4 + 8;
/// Bytes of a body's line beside its key.
pub const LISTED_BYTES: usize = 16 + 8 + 4;
/// Bytes of rows in one reply, unless a single row is larger.
const REPLY_BYTES: usize = if SMALL { 4 << 10 } else { 4 << 20 };

/// The digest of a row or range.
pub type ShortDigest = [u8; 16];

/// A range of the source's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Its first key.
    pub from: Bytes,
    /// What its keys are less than.
    pub to: Bytes,
    /// Its rows.
    pub count: u32,
    /// Over keys and digests in order.
    pub digest: ShortDigest,
}

/// A body of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Bytes,
    /// Over key and value.
    pub digest: ShortDigest,
    /// Length of the value.
    pub bytes: u64,
}

/// What a target asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeltaRequest {
    /// The next ranges from a key on, of its part of the key space.
    Sums {
        /// The key.
        from: Bytes,
    },
    /// The bodies of a range.
    List {
        /// Its first key.
        from: Bytes,
        /// What its keys are less than.
        to: Bytes,
    },
    /// Some bodies.
    Bodies {
        /// Their keys.
        keys: Vec<Bytes>,
    },
    /// The index rows of a range.
    Rows {
        /// Its first key.
        from: Bytes,
        /// What its keys are less than.
        to: Bytes,
    },
}

/// What a source answers, with a checksum over all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaReply {
    /// The answer.
    pub content: DeltaContent,
    /// Over the answer.
    pub crc: u32,
}

/// The answer to a [`DeltaRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeltaContent {
    /// Ranges without gaps. Behind the last one the next question begins.
    Sums(Vec<Sum>),
    /// All bodies of the range.
    List(Vec<Listed>),
    /// Some of the bodies that were asked for, at least one.
    Bodies(Vec<Row>),
    /// All rows from the asked key up to `to`; `None`: all that were asked for.
    Rows {
        /// The rows.
        rows: Vec<Row>,
        /// What their keys are less than.
        to: Option<Bytes>,
    },
}

impl DeltaReply {
    /// An answer with its checksum.
    pub fn new(content: DeltaContent) -> Self {
        let crc = content.checksum();
        Self { content, crc }
    }

    /// Whether it arrived as it was sent.
    pub fn holds(&self) -> bool {
        self.crc == self.content.checksum()
    }

    /// Bytes that it costs on the wire, without its frame.
    pub fn bytes(&self) -> usize {
        let rows =
            |rows: &[Row]| -> usize { rows.iter().map(|(k, v)| k.len() + v.len() + 8).sum() };
        match &self.content {
            DeltaContent::Sums(sums) => {
                sums.iter().map(|sum| sum.from.len() + sum.to.len() + SUM_BYTES_MAX).sum()
            }
            DeltaContent::List(list) => list.iter().map(|one| one.key.len() + LISTED_BYTES).sum(),
            DeltaContent::Bodies(found) => rows(found),
            DeltaContent::Rows { rows: found, to } => {
                rows(found) + to.as_ref().map_or(0, |to| to.len())
            }
        }
    }
}

impl DeltaContent {
    fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        match self {
            Self::Sums(sums) => sums.iter().for_each(|sum| {
                [&sum.from[..], &sum.to[..], &sum.count.to_le_bytes()[..], &sum.digest[..]]
                    .into_iter()
                    .for_each(&mut part);
            }),
            Self::List(list) => list.iter().for_each(|one| {
                [&one.key[..], &one.digest[..], &one.bytes.to_le_bytes()[..]]
                    .into_iter()
                    .for_each(&mut part);
            }),
            Self::Bodies(rows) => rows.iter().for_each(|(key, value)| {
                part(key);
                part(value);
            }),
            Self::Rows { rows, to } => {
                rows.iter().for_each(|(key, value)| {
                    part(key);
                    part(value);
                });
                part(to.as_deref().unwrap_or_default());
            }
        }
        hasher.finalize()
    }
}

/// A part of the key space that ranges never cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Bodies,
    Expiring,
    Records,
}

impl Part {
    /// The records end with the position, so they come last.
    const ALL: [Self; 3] = [Self::Bodies, Self::Expiring, Self::Records];

    fn of(key: &[u8]) -> Self {
        match key.first() {
            Some(EXPIRING..=0xff) => Self::Expiring,
            Some(BODIES..=0xbf) => Self::Bodies,
            _ => Self::Records,
        }
    }

    fn start(self) -> Bytes {
        match self {
            Self::Records => Bytes::from_static(&[0]),
            Self::Bodies => Bytes::from_static(&[BODIES]),
            Self::Expiring => Bytes::from_static(&[EXPIRING]),
        }
    }

    fn end(self) -> Bytes {
        match self {
            Self::Records => Self::Bodies.start(),
            Self::Bodies => Self::Expiring.start(),
            Self::Expiring => end_of_keys().into(),
        }
    }

    fn after(self) -> Option<Self> {
        let at = Self::ALL.iter().position(|part| *part == self).expect("one of all");
        Self::ALL.get(at + 1).copied()
    }
}

/// The digest of a row: of its content, not of its key's promise, so that rot is seen.
fn row_digest(key: &[u8], value: &[u8]) -> ShortDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    short(&hasher)
}

fn short(hasher: &blake3::Hasher) -> ShortDigest {
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}

/// Adds up the rows of a range.
#[derive(Default)]
struct Adder {
    count: u32,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Adder {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.count += 1;
        self.bytes += (key.len() + value.len()) as u64;
        self.hasher.update(&row_digest(key, value));
    }

    fn sum(&self, from: Bytes, to: Bytes) -> Sum {
        Sum { from, to, count: self.count, digest: short(&self.hasher) }
    }
}

/// Bytes of a range's rows, where a state holds exactly this range.
fn holds(view: &dyn StateRead, range: &Sum) -> Result<Option<u64>, StateError> {
    let mut adder = Adder::default();
    let mut pages = Pages::new(view, &range.from, &range.to);
    while let Some(rows) = pages.next()? {
        rows.iter().for_each(|(key, value)| adder.add(key, value));
    }
    let same = adder.sum(range.from.clone(), range.to.clone()) == *range;
    Ok(same.then_some(adder.bytes))
}

/// All ranges of a state in order, as one number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whole(blake3::Hasher);

impl Whole {
    fn add(&mut self, sum: &Sum) {
        for part in [&sum.from[..], &sum.to[..], &sum.count.to_le_bytes()[..], &sum.digest[..]] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    pub(crate) fn digest(&self) -> ShortDigest {
        short(&self.0)
    }
}

/// Reads a state that was filled through, and compares it with what its source said.
pub(crate) struct Proof {
    source: DeltaSource,
    from: Option<Bytes>,
    whole: Whole,
}

impl Proof {
    /// Of this view, which nobody changes.
    pub(crate) fn new(view: std::sync::Arc<dyn StateRead>) -> Self {
        let (source, from) = (DeltaSource::new(view), Some(Part::ALL[0].start()));
        Self { source, from, whole: Whole::default() }
    }

    /// Reads some ranges; at the end, the number of all of them.
    pub(crate) fn step(&mut self) -> Result<Option<ShortDigest>, StateError> {
        let Some(from) = self.from.take() else { return Ok(Some(self.whole.digest())) };
        let sums = self.source.sums(&from)?;
        sums.iter().for_each(|sum| self.whole.add(sum));
        let part = Part::of(&from);
        let to = sums.last().map_or_else(|| part.end(), |sum| sum.to.clone());
        self.from = if to < part.end() { Some(to) } else { part.after().map(Part::start) };
        Ok(None)
    }
}
