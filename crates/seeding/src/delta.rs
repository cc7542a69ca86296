//! Two states are made equal by sending only what differs.
//!
//! Files of two copies never have equal bytes, because each compacts for itself; their rows do. So
//! the bodies, which are nearly all of a state, are compared by content. The source cuts them in
//! key order into ranges of [`RANGE_ROWS`] and names each range's digest; the target reckons the
//! same over what it holds and asks for the list of keys and digests of a range that differs, and
//! then for the bodies it lacks. The small rest, the index, is sent whole.
//!
//! ```text
//!  target                          source (a view of one moment)
//!   Sums from key ───────────────►
//!   ◄──────── [from, to) digest ...    equal here, or in the old copy beside: nothing is sent
//!   List [from, to) ─────────────►
//!   ◄──────── key, digest, bytes ...   what the old copy has is copied from it
//!   Bodies keys ─────────────────►
//!   ◄──────── rows                     checked against their digests, written
//!   Rows from key ───────────────►     index, page by page; what is not in a page is deleted
//!   ◄──────── rows
//! ```
//! The source keeps nothing between two questions, so a broken connection, a damaged reply or
//! another source costs one question. The target's applied row is removed first and written last:
//! a state without it is unfinished, and no copy is made of it.
//!
//! Cost beside the bodies that differ and the index: one [`SUM_BYTES_MAX`] for each range, and one
//! list for each range that differs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use dag_types::Write;
use storage::state::{APPLIED_KEY, Row, StateError, StateRead, StateStore};

use crate::fault::SeedFault;
use crate::pages::{BODIES, EXPIRING, Pages, after, end_of_keys};
use crate::wire::WireFault;

/// Bodies in one range.
pub const RANGE_ROWS: usize = 64;
/// Bytes of a range's line beside its keys.
pub const SUM_BYTES_MAX: usize = 16 + 4 + 8;
/// Bytes of a body's line beside its key.
pub const LISTED_BYTES: usize = 16 + 8 + 4;
/// Ranges in one reply.
const RANGES_MAX: usize = 64;
/// Bytes of rows in one reply, unless a single row is larger.
const REPLY_BYTES: usize = 4 << 20;
/// A state is flushed when a flush would write so much.
const FLUSH_BYTES: u64 = 32 << 20;
/// Damaged replies in a row until it is given up.
const DAMAGE_MAX: u32 = 8;

/// The digest of a row or range.
pub type ShortDigest = [u8; 16];

/// A range of the source's bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Its first key.
    pub from: Bytes,
    /// What its keys are less than.
    pub to: Bytes,
    /// Its bodies.
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
    /// The next ranges from a key on.
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
    /// Index rows from a key on, of its part of the key space.
    Rows {
        /// The key.
        from: Bytes,
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
    /// Ranges without gaps. Behind the last one the next question begins; none: that was all.
    Sums(Vec<Sum>),
    /// All bodies of the range.
    List(Vec<Listed>),
    /// Some of the bodies that were asked for, at least one.
    Bodies(Vec<Row>),
    /// All rows from the asked key up to `to`; `None`: up to the end of this part of the key space.
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
    hasher: blake3::Hasher,
}

impl Adder {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.count += 1;
        self.hasher.update(&row_digest(key, value));
    }

    fn sum(&self, from: Bytes, to: Bytes) -> Sum {
        Sum { from, to, count: self.count, digest: short(&self.hasher) }
    }
}

fn sum_of(view: &dyn StateRead, from: &Bytes, to: &Bytes) -> Result<Sum, StateError> {
    let mut adder = Adder::default();
    let mut pages = Pages::new(view, from, to);
    while let Some(rows) = pages.next()? {
        rows.iter().for_each(|(key, value)| adder.add(key, value));
    }
    Ok(adder.sum(from.clone(), to.clone()))
}

/// The giving side: answers from one moment of a state.
pub struct DeltaSource {
    view: Arc<dyn StateRead>,
}

impl DeltaSource {
    /// Answers from this view. It must hold an applied position.
    pub fn new(view: Arc<dyn StateRead>) -> Self {
        Self { view }
    }

    /// Answers one question.
    pub fn answer(&self, request: &DeltaRequest) -> Result<DeltaReply, StateError> {
        let content = match request {
            DeltaRequest::Sums { from } => DeltaContent::Sums(self.sums(from)?),
            DeltaRequest::List { from, to } => DeltaContent::List(self.list(from, to)?),
            DeltaRequest::Bodies { keys } => DeltaContent::Bodies(self.bodies(keys)?),
            DeltaRequest::Rows { from } => self.rows(from)?,
        };
        Ok(DeltaReply::new(content))
    }

    fn sums(&self, from: &Bytes) -> Result<Vec<Sum>, StateError> {
        let end = Bytes::from_static(&[EXPIRING]);
        let mut sums = Vec::new();
        let mut start = from.clone();
        let mut adder = Adder::default();
        let mut pages = Pages::new(&*self.view, from, &end);
        while let Some(rows) = pages.next()? {
            for (key, value) in rows {
                if adder.count as usize == RANGE_ROWS {
                    sums.push(adder.sum(start, key.clone()));
                    (start, adder) = (key.clone(), Adder::default());
                    if sums.len() == RANGES_MAX {
                        return Ok(sums);
                    }
                }
                adder.add(&key, &value);
            }
        }
        if start < end {
            sums.push(adder.sum(start, end));
        }
        Ok(sums)
    }

    fn list(&self, from: &Bytes, to: &Bytes) -> Result<Vec<Listed>, StateError> {
        let mut list = Vec::new();
        let mut pages = Pages::new(&*self.view, from, to);
        while let Some(rows) = pages.next()? {
            list.extend(rows.into_iter().map(|(key, value)| {
                let digest = row_digest(&key, &value);
                Listed { key, digest, bytes: value.len() as u64 }
            }));
        }
        Ok(list)
    }

    fn bodies(&self, keys: &[Bytes]) -> Result<Vec<Row>, StateError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        for key in keys {
            if bytes >= REPLY_BYTES {
                break;
            }
            if let Some(value) = self.view.get(key)? {
                bytes += key.len() + value.len();
                rows.push((key.clone(), value));
            }
        }
        Ok(rows)
    }

    fn rows(&self, from: &Bytes) -> Result<DeltaContent, StateError> {
        let end = if from[..] < [BODIES][..] { vec![BODIES] } else { end_of_keys() };
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut pages = Pages::new(&*self.view, from, &end);
        while let Some(rows) = pages.next()? {
            bytes += crate::pages::bytes(&rows);
            found.extend(rows);
            if bytes >= REPLY_BYTES {
                let to = found.last().map(|(key, _)| after(key).into());
                return Ok(DeltaContent::Rows { rows: found, to });
            }
        }
        Ok(DeltaContent::Rows { rows: found, to: None })
    }
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeltaStep {
    /// Ask this, and give the answer back.
    Ask(DeltaRequest),
    /// There is more to do; call again.
    Again,
    /// The states are equal, and this one is durable.
    Done,
}

/// What a delta did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeltaTally {
    /// Bytes that came from the source.
    pub received_bytes: u64,
    /// Bytes of bodies among them.
    pub body_bytes: u64,
    /// Bodies that came from the source.
    pub bodies: u64,
    /// Bodies that came from the old copy.
    pub reused: u64,
    /// Rows that the source does not have.
    pub deleted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Beginning,
    Bodies,
    Index,
    Ending,
    Done,
}

/// The receiving side: a state that becomes equal to the source's view.
pub struct DeltaTarget {
    staged: Arc<dyn StateStore>,
    base: Option<Arc<dyn StateRead>>,
    doing: Doing,
    /// Where the next question of this phase begins.
    next: Bytes,
    ranges: VecDeque<Sum>,
    wanted: BTreeMap<Bytes, Listed>,
    asked: Option<DeltaRequest>,
    /// Written last.
    applied: Option<Bytes>,
    damaged: u32,
    tally: DeltaTally,
}

impl DeltaTarget {
    /// Fills `staged`, which may hold a part already, also of another source. `base` is a copy that
    /// lies on this node anyway: what it has is not sent.
    pub fn new(staged: Arc<dyn StateStore>, base: Option<Arc<dyn StateRead>>) -> Self {
        Self {
            staged,
            base,
            doing: Doing::Beginning,
            next: Bytes::from_static(&[BODIES]),
            ranges: VecDeque::new(),
            wanted: BTreeMap::new(),
            asked: None,
            applied: None,
            damaged: 0,
            tally: DeltaTally::default(),
        }
    }

    /// What it cost so far.
    pub fn tally(&self) -> DeltaTally {
        self.tally
    }

    /// Does one piece of work. A question whose answer was lost is asked again by giving no reply.
    pub fn step(&mut self, reply: Option<DeltaReply>) -> Result<DeltaStep, SeedFault> {
        if let Some(reply) = reply {
            return self.accept(reply);
        }
        if let Some(asked) = &self.asked {
            return Ok(DeltaStep::Ask(asked.clone()));
        }
        match self.doing {
            Doing::Beginning => self.begin(),
            Doing::Bodies => self.bodies(),
            Doing::Index => Ok(self.ask(DeltaRequest::Rows { from: self.next.clone() })),
            Doing::Ending => self.end(),
            Doing::Done => Ok(DeltaStep::Done),
        }
    }

    fn ask(&mut self, request: DeltaRequest) -> DeltaStep {
        self.asked = Some(request.clone());
        DeltaStep::Ask(request)
    }

    fn begin(&mut self) -> Result<DeltaStep, SeedFault> {
        let applied = Bytes::from_static(APPLIED_KEY);
        if self.staged.get(&applied)?.is_some() {
            self.staged.write(&[Write::Delete { key: applied }])?;
            self.staged.flush()?;
        }
        self.doing = Doing::Bodies;
        Ok(DeltaStep::Again)
    }

    fn bodies(&mut self) -> Result<DeltaStep, SeedFault> {
        if !self.wanted.is_empty() {
            let keys = self.batch();
            return Ok(self.ask(DeltaRequest::Bodies { keys }));
        }
        let Some(range) = self.ranges.pop_front() else {
            if self.next[..] < [EXPIRING][..] {
                return Ok(self.ask(DeltaRequest::Sums { from: self.next.clone() }));
            }
            // What expires comes first: the records end with the position.
            (self.doing, self.next) = (Doing::Index, Bytes::from_static(&[EXPIRING]));
            return Ok(DeltaStep::Again);
        };
        if sum_of(&*self.staged, &range.from, &range.to)? == range {
            return Ok(DeltaStep::Again);
        }
        if let Some(base) = self.base.clone()
            && sum_of(&*base, &range.from, &range.to)? == range
        {
            self.copy_range(&*base, &range)?;
            return Ok(DeltaStep::Again);
        }
        Ok(self.ask(DeltaRequest::List { from: range.from, to: range.to }))
    }

    /// Keys of wanted bodies, as many as one reply holds.
    fn batch(&self) -> Vec<Bytes> {
        let mut bytes = 0;
        let fits = |listed: &&Listed| {
            let first = bytes == 0;
            bytes += listed.bytes + listed.key.len() as u64;
            first || bytes <= REPLY_BYTES as u64
        };
        self.wanted.values().take_while(fits).map(|listed| listed.key.clone()).collect()
    }

    fn accept(&mut self, reply: DeltaReply) -> Result<DeltaStep, SeedFault> {
        self.tally.received_bytes += reply.bytes() as u64;
        let Some(asked) = self.asked.clone() else { return self.distrust() };
        if reply.crc != reply.content.checksum() || !fits(&asked, &reply.content) {
            return self.distrust();
        }
        match (asked, reply.content) {
            (DeltaRequest::Sums { .. }, DeltaContent::Sums(sums)) => {
                self.next =
                    sums.last().map_or(Bytes::from_static(&[EXPIRING]), |sum| sum.to.clone());
                self.ranges.extend(sums);
            }
            (DeltaRequest::List { from, to }, DeltaContent::List(list)) => {
                self.listed(&from, &to, list)?;
            }
            (DeltaRequest::Bodies { .. }, DeltaContent::Bodies(rows)) => {
                if !self.received(rows)? {
                    return self.distrust();
                }
            }
            (DeltaRequest::Rows { from }, DeltaContent::Rows { rows, to }) => {
                self.index_rows(&from, rows, to)?;
            }
            _ => return self.distrust(),
        }
        (self.asked, self.damaged) = (None, 0);
        if self.staged.unflushed_bytes() > FLUSH_BYTES {
            self.staged.flush()?;
        }
        Ok(DeltaStep::Again)
    }

    /// The question stands, so it is asked again.
    fn distrust(&mut self) -> Result<DeltaStep, SeedFault> {
        self.damaged += 1;
        if self.damaged > DAMAGE_MAX {
            return Err(WireFault::Unasked { what: "a damaged reply, again and again" }.into());
        }
        Ok(DeltaStep::Again)
    }

    /// Takes a whole range from the old copy.
    fn copy_range(&mut self, base: &dyn StateRead, range: &Sum) -> Result<(), SeedFault> {
        let mut keep: Vec<Bytes> = Vec::with_capacity(range.count as usize);
        let mut pages = Pages::new(base, &range.from, &range.to);
        while let Some(rows) = pages.next()? {
            keep.extend(rows.iter().map(|(key, _)| key.clone()));
            self.tally.reused += rows.len() as u64;
            self.put(rows)?;
        }
        self.delete_others(&range.from, &range.to, |key| keep.binary_search(key).is_ok())
    }

    /// Sorts a range's bodies into those that are here, those that the old copy has, and the rest.
    fn listed(&mut self, from: &Bytes, to: &Bytes, list: Vec<Listed>) -> Result<(), SeedFault> {
        let has = |key: &Bytes| list.binary_search_by(|one| one.key.cmp(key)).is_ok();
        self.delete_others(from, to, has)?;
        for one in list {
            if equal(&*self.staged, &one)?.is_some() {
                continue;
            }
            let old = self.base.as_ref().map(|base| equal(&**base, &one)).transpose()?.flatten();
            match old {
                Some(value) => {
                    self.tally.reused += 1;
                    self.put(vec![(one.key, value)])?;
                }
                None => {
                    self.wanted.insert(one.key.clone(), one);
                }
            }
        }
        Ok(())
    }

    fn received(&mut self, rows: Vec<Row>) -> Result<bool, SeedFault> {
        let holds = |(key, value): &Row| {
            self.wanted.get(key).is_some_and(|one| one.digest == row_digest(key, value))
        };
        if rows.is_empty() || !rows.iter().all(holds) {
            return Ok(false);
        }
        for (key, value) in &rows {
            self.wanted.remove(key);
            self.tally.bodies += 1;
            self.tally.body_bytes += (key.len() + value.len()) as u64;
        }
        self.put(rows)?;
        Ok(true)
    }

    fn index_rows(
        &mut self,
        from: &Bytes,
        rows: Vec<Row>,
        to: Option<Bytes>,
    ) -> Result<(), SeedFault> {
        let records = from[..] < [BODIES][..];
        let end = if records { vec![BODIES] } else { end_of_keys() };
        let until = to.clone().unwrap_or_else(|| end.into());
        let keys: Vec<Bytes> = rows.iter().map(|(key, _)| key.clone()).collect();
        self.delete_others(from, &until, |key| keys.binary_search(key).is_ok())?;
        let (applied, rows): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|(key, _)| key[..] == *APPLIED_KEY);
        self.applied = applied.into_iter().next().map(|(_, value)| value).or(self.applied.take());
        self.put(rows)?;
        match (to, records) {
            (Some(to), _) => self.next = to,
            (None, false) => self.next = Bytes::from_static(&[0]),
            (None, true) => self.doing = Doing::Ending,
        }
        Ok(())
    }

    fn end(&mut self) -> Result<DeltaStep, SeedFault> {
        let missing = WireFault::Unasked { what: "a state without a position" };
        let value = self.applied.take().ok_or(missing)?;
        // Everything else first: what is durable without this row is unfinished.
        self.staged.flush()?;
        self.staged.write(&[Write::Put { key: Bytes::from_static(APPLIED_KEY), value }])?;
        self.staged.flush()?;
        self.doing = Doing::Done;
        Ok(DeltaStep::Done)
    }

    fn put(&mut self, rows: Vec<Row>) -> Result<(), StateError> {
        let writes: Vec<Write> =
            rows.into_iter().map(|(key, value)| Write::Put { key, value }).collect();
        self.staged.write(&writes)
    }

    fn delete_others(
        &mut self,
        from: &[u8],
        to: &[u8],
        keep: impl Fn(&Bytes) -> bool,
    ) -> Result<(), SeedFault> {
        let staged = self.staged.clone();
        let mut pages = Pages::new(&*staged, from, to);
        while let Some(rows) = pages.next()? {
            let gone = rows.into_iter().map(|(key, _)| key).filter(|key| !keep(key));
            let writes: Vec<Write> = gone.map(|key| Write::Delete { key }).collect();
            self.tally.deleted += writes.len() as u64;
            self.staged.write(&writes)?;
        }
        Ok(())
    }
}

/// The value, where this state has the very body.
fn equal(view: &dyn StateRead, one: &Listed) -> Result<Option<Bytes>, StateError> {
    let value = view.get(&one.key)?;
    Ok(value.filter(|value| row_digest(&one.key, value) == one.digest))
}

/// Whether an answer covers what was asked: in order, inside, without gaps.
fn fits(asked: &DeltaRequest, content: &DeltaContent) -> bool {
    match (asked, content) {
        (DeltaRequest::Sums { from }, DeltaContent::Sums(sums)) => {
            let joined = sums.windows(2).all(|pair| pair[0].to == pair[1].from);
            let forward = sums.iter().all(|sum| sum.from < sum.to && sum.to[..] <= [EXPIRING][..]);
            sums.first().is_some_and(|first| first.from == *from) && joined && forward
        }
        (DeltaRequest::List { from, to }, DeltaContent::List(list)) => {
            list.is_sorted_by(|a, b| a.key < b.key)
                && list.iter().all(|one| one.key >= *from && one.key < *to)
        }
        (DeltaRequest::Bodies { .. }, DeltaContent::Bodies(_)) => true,
        (DeltaRequest::Rows { from }, DeltaContent::Rows { rows, to }) => {
            let bodies =
                |key: &Bytes| Some(&BODIES) <= key.first() && key.first() < Some(&EXPIRING);
            rows.is_sorted_by(|(a, _), (b, _)| a < b)
                && rows.iter().all(|(key, _)| {
                    key >= from && to.as_ref().is_none_or(|to| key < to) && !bodies(key)
                })
                && to.as_ref().is_none_or(|to| to > from)
        }
        _ => false,
    }
}
