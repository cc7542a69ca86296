//! The receiving side.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use dag_types::Write;
use storage::state::{APPLIED_KEY, Row, StateError, StateRead, StateStore};

use super::{
    DeltaContent, DeltaReply, DeltaRequest, Listed, Part, REPLY_BYTES, ShortDigest, Sum, Whole,
    holds, row_digest,
};
use crate::fault::SeedFault;
use crate::pages::Pages;
use crate::wire::SMALL;
use crate::wire::WireFault;

/// A state is flushed when a flush would write so much.
const FLUSH_BYTES: u64 = if SMALL { 8 << 10 } else { 32 << 20 };
/// Damaged replies in a row until it is given up.
const DAMAGE_MAX: u32 = 8;

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
    /// Rows that came from the old copy.
    pub reused: u64,
    /// Their bytes.
    pub reused_bytes: u64,
    /// Bytes of rows that are as they are to be.
    pub settled_bytes: u64,
    /// Rows that the source does not have.
    pub deleted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Beginning,
    Walking(Part),
    Ending,
    Done,
}

/// A state that becomes equal to the source's view.
pub struct DeltaTarget {
    staged: Arc<dyn StateStore>,
    old: Option<Arc<dyn StateRead>>,
    doing: Doing,
    /// Where the next question for ranges begins.
    next: Bytes,
    ranges: VecDeque<Sum>,
    /// Bodies to be asked for.
    wanted: BTreeMap<Bytes, Listed>,
    /// A part of the index to be asked for.
    lacking: Option<(Bytes, Bytes)>,
    asked: Option<DeltaRequest>,
    /// Written last.
    applied: Option<Bytes>,
    damaged: u32,
    whole: Whole,
    tally: DeltaTally,
    /// The tally at the last flush.
    durable: DeltaTally,
}

impl DeltaTarget {
    /// Fills `staged`, which may hold a part already, also of another source. `old` is a copy that
    /// lies on this node anyway: what it has is not sent.
    pub fn new(staged: Arc<dyn StateStore>, old: Option<Arc<dyn StateRead>>) -> Self {
        Self {
            staged,
            old,
            doing: Doing::Beginning,
            next: Bytes::new(),
            ranges: VecDeque::new(),
            wanted: BTreeMap::new(),
            lacking: None,
            asked: None,
            applied: None,
            damaged: 0,
            whole: Whole::default(),
            tally: DeltaTally::default(),
            durable: DeltaTally::default(),
        }
    }

    /// What it cost so far.
    pub fn tally(&self) -> DeltaTally {
        self.tally
    }

    /// What it had cost when everything was flushed last.
    pub fn durable(&self) -> DeltaTally {
        self.durable
    }

    /// Over all ranges of the source, once they are known.
    pub(crate) fn whole(&self) -> ShortDigest {
        self.whole.digest()
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
            Doing::Walking(part) => self.walk(part),
            Doing::Ending => self.end(),
            Doing::Done => Ok(DeltaStep::Done),
        }
    }

    fn ask(&mut self, request: DeltaRequest) -> Result<DeltaStep, SeedFault> {
        self.asked = Some(request.clone());
        Ok(DeltaStep::Ask(request))
    }

    fn begin(&mut self) -> Result<DeltaStep, SeedFault> {
        let applied = Bytes::from_static(APPLIED_KEY);
        if self.staged.get(&applied)?.is_some() {
            self.staged.write(&[Write::Delete { key: applied }])?;
            self.staged.flush()?;
        }
        self.enter(Part::ALL[0]);
        Ok(DeltaStep::Again)
    }

    fn enter(&mut self, part: Part) {
        (self.doing, self.next) = (Doing::Walking(part), part.start());
    }

    fn walk(&mut self, part: Part) -> Result<DeltaStep, SeedFault> {
        if !self.wanted.is_empty() {
            let keys = self.batch();
            return self.ask(DeltaRequest::Bodies { keys });
        }
        if let Some((from, to)) = self.lacking.clone() {
            return self.ask(DeltaRequest::Rows { from, to });
        }
        let Some(range) = self.ranges.pop_front() else {
            if self.next < part.end() {
                return self.ask(DeltaRequest::Sums { from: self.next.clone() });
            }
            match part.after() {
                Some(part) => self.enter(part),
                None => self.doing = Doing::Ending,
            }
            return Ok(DeltaStep::Again);
        };
        if self.settle(&range)? {
            return Ok(DeltaStep::Again);
        }
        if part == Part::Bodies {
            return self.ask(DeltaRequest::List { from: range.from, to: range.to });
        }
        let mut to = range.to;
        // Neighbours that differ too come with it.
        while let Some(next) = self.ranges.pop_front() {
            if self.settle(&next)? {
                break;
            }
            to = next.to;
        }
        self.lacking = Some((range.from, to));
        Ok(DeltaStep::Again)
    }

    /// Whether a range is here, or was in the old copy and is here now.
    fn settle(&mut self, range: &Sum) -> Result<bool, SeedFault> {
        if let Some(bytes) = holds(&*self.staged, range)? {
            self.tally.settled_bytes += bytes;
            return Ok(true);
        }
        let Some(old) = self.old.clone() else { return Ok(false) };
        Ok(has(holds(&*old, range)).is_some() && self.copy_range(&*old, range)?)
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
        if !reply.holds() || !fits(&asked, &reply.content) {
            return self.distrust();
        }
        match (asked, reply.content) {
            (DeltaRequest::Sums { .. }, DeltaContent::Sums(sums)) => {
                sums.iter().for_each(|sum| self.whole.add(sum));
                let last = sums.last().expect("it fits, so there is one");
                self.next = last.to.clone();
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
            (DeltaRequest::Rows { from, to }, DeltaContent::Rows { rows, to: until }) => {
                self.index_rows(&from, until.as_ref().unwrap_or(&to), rows)?;
                self.lacking = until.map(|until| (until, to));
            }
            _ => return self.distrust(),
        }
        (self.asked, self.damaged) = (None, 0);
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

    /// Takes a whole range from the old copy; not where the old copy cannot be read to its end.
    fn copy_range(&mut self, old: &dyn StateRead, range: &Sum) -> Result<bool, SeedFault> {
        let mut keep: Vec<Bytes> = Vec::with_capacity(range.count as usize);
        let mut pages = Pages::new(old, &range.from, &range.to);
        while let Some(page) = has(pages.next().map(Some)) {
            let Some(rows) = page else {
                let others = |key: &Bytes| keep.binary_search(key).is_ok();
                self.delete_others(&range.from, &range.to, others)?;
                return Ok(true);
            };
            keep.extend(rows.iter().map(|(key, _)| key.clone()));
            self.reuse(rows)?;
        }
        Ok(false)
    }

    fn reuse(&mut self, rows: Vec<Row>) -> Result<(), StateError> {
        self.tally.reused += rows.len() as u64;
        self.tally.reused_bytes += crate::pages::bytes(&rows) as u64;
        self.put(rows)
    }

    /// Sorts a range's bodies into those that are here, those that the old copy has, and the rest.
    fn listed(&mut self, from: &Bytes, to: &Bytes, list: Vec<Listed>) -> Result<(), SeedFault> {
        let known = |key: &Bytes| list.binary_search_by(|one| one.key.cmp(key)).is_ok();
        self.delete_others(from, to, known)?;
        for one in list {
            if equal(&*self.staged, &one)?.is_some() {
                self.tally.settled_bytes += one.key.len() as u64 + one.bytes;
                continue;
            }
            let old = self.old.as_ref().and_then(|old| has(equal(&**old, &one)));
            match old {
                Some(value) => self.reuse(vec![(one.key, value)])?,
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

    fn index_rows(&mut self, from: &Bytes, to: &Bytes, rows: Vec<Row>) -> Result<(), SeedFault> {
        let keys: Vec<Bytes> = rows.iter().map(|(key, _)| key.clone()).collect();
        self.delete_others(from, to, |key| keys.binary_search(key).is_ok())?;
        Ok(self.put(rows)?)
    }

    fn end(&mut self) -> Result<DeltaStep, SeedFault> {
        let missing = WireFault::Unasked { what: "a state without a position" };
        let value = self.applied.take().ok_or(missing)?;
        // Everything else first: what is durable without this row is unfinished.
        self.staged.flush()?;
        self.staged.write(&[Write::Put { key: Bytes::from_static(APPLIED_KEY), value }])?;
        self.flush()?;
        self.doing = Doing::Done;
        Ok(DeltaStep::Done)
    }

    fn flush(&mut self) -> Result<(), StateError> {
        self.staged.flush()?;
        self.durable = self.tally;
        Ok(())
    }

    /// Writes rows; the position waits for the end.
    fn put(&mut self, rows: Vec<Row>) -> Result<(), StateError> {
        self.tally.settled_bytes += crate::pages::bytes(&rows) as u64;
        let (applied, rows): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|(key, _)| key[..] == *APPLIED_KEY);
        self.applied = applied.into_iter().next().map(|(_, value)| value).or(self.applied.take());
        let writes: Vec<Write> =
            rows.into_iter().map(|(key, value)| Write::Put { key, value }).collect();
        self.staged.write(&writes)?;
        if self.staged.unflushed_bytes() > FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
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

/// What the old copy has. What it cannot read it has not, whatever the reason.
fn has<T>(read: Result<Option<T>, StateError>) -> Option<T> {
    read.unwrap_or_else(|fault| {
        tracing::warn!(%fault, "what the old copy cannot give is asked for");
        None
    })
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
            let end = Part::of(from).end();
            let joined = sums.windows(2).all(|pair| pair[0].to == pair[1].from);
            let forward = sums.iter().all(|sum| sum.from < sum.to && sum.to <= end);
            sums.first().is_some_and(|first| first.from == *from) && joined && forward
        }
        (DeltaRequest::List { from, to }, DeltaContent::List(list)) => {
            list.is_sorted_by(|a, b| a.key < b.key)
                && list.iter().all(|one| one.key >= *from && one.key < *to)
        }
        (DeltaRequest::Bodies { .. }, DeltaContent::Bodies(_)) => true,
        (DeltaRequest::Rows { from, to }, DeltaContent::Rows { rows, to: until }) => {
            let end = until.as_ref().unwrap_or(to);
            rows.is_sorted_by(|(a, _), (b, _)| a < b)
                && rows.iter().all(|(key, _)| key >= from && key < end)
                && from < end
                && end <= to
        }
        _ => false,
    }
}
