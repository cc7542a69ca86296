//! The giving side.

use std::sync::Arc;

use bytes::Bytes;
use storage::state::{Row, StateError, StateRead};

use super::{
    Adder, DeltaContent, DeltaReply, DeltaRequest, Listed, Part, RANGE_ROWS, REPLY_BYTES, Sum,
    row_digest,
};
use crate::pages::{Pages, after, bytes};
use crate::wire::SMALL;

/// Ranges in one reply.
const RANGES_MAX: usize = if SMALL { 2 } else { 64 };
/// Bytes that are read for one reply, unless a single range has more.
const READ_BYTES: u64 = 64 << 20;

/// Answers from one moment of a state.
pub struct DeltaSource {
    view: Arc<dyn StateRead>,
}

impl DeltaSource {
    /// Answers from this view. It must hold an applied position.
    pub fn new(view: Arc<dyn StateRead>) -> Self {
        Self { view }
    }

    /// Answers one question; not one for the list of what is no range of this state, which could be of
    /// any length.
    pub fn answer(&self, request: &DeltaRequest) -> Result<Option<DeltaReply>, StateError> {
        let content = match request {
            DeltaRequest::Sums { from } => Some(DeltaContent::Sums(self.sums(from)?)),
            DeltaRequest::List { from, to } => self.list(from, to)?.map(DeltaContent::List),
            DeltaRequest::Bodies { keys } => Some(DeltaContent::Bodies(self.bodies(keys)?)),
            DeltaRequest::Rows { from, to } => Some(self.rows(from, to)?),
        };
        Ok(content.map(DeltaReply::new))
    }

    /// Every range but the last one of a part has [`RANGE_ROWS`], wherever a reply begins: so two
    /// who walk through equal states see equal ranges.
    pub(super) fn sums(&self, from: &Bytes) -> Result<Vec<Sum>, StateError> {
        let end = Part::of(from).end();
        let mut sums = Vec::new();
        let (mut start, mut read) = (from.clone(), 0);
        let mut adder = Adder::default();
        let mut pages = Pages::new(&*self.view, from, &end);
        while let Some(rows) = pages.next()? {
            for (key, value) in rows {
                if adder.count as usize == RANGE_ROWS {
                    read += adder.bytes;
                    sums.push(adder.sum(start, key.clone()));
                    (start, adder) = (key.clone(), Adder::default());
                    if sums.len() == RANGES_MAX || read >= READ_BYTES {
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

    fn list(&self, from: &Bytes, to: &Bytes) -> Result<Option<Vec<Listed>>, StateError> {
        let mut list = Vec::new();
        let mut pages = Pages::new(&*self.view, from, to);
        while let Some(rows) = pages.next()? {
            list.extend(rows.into_iter().map(|(key, value)| {
                let digest = row_digest(&key, &value);
                Listed { key, digest, bytes: value.len() as u64 }
            }));
            if list.len() > RANGE_ROWS {
                return Ok(None);
            }
        }
        Ok(Some(list))
    }

    fn bodies(&self, keys: &[Bytes]) -> Result<Vec<Row>, StateError> {
        let mut rows: Vec<Row> = Vec::new();
        let mut bytes = 0;
        for key in keys {
            if let Some(value) = self.view.get(key)? {
                bytes += key.len() + value.len();
                if bytes > REPLY_BYTES && !rows.is_empty() {
                    break;
                }
                rows.push((key.clone(), value));
            }
        }
        Ok(rows)
    }

    fn rows(&self, from: &Bytes, to: &Bytes) -> Result<DeltaContent, StateError> {
        let mut found = Vec::new();
        let mut size = 0;
        let mut pages = Pages::new(&*self.view, from, to);
        while let Some(rows) = pages.next()? {
            size += bytes(&rows);
            found.extend(rows);
            if size >= REPLY_BYTES {
                let next: Option<Bytes> = found.last().map(|(key, _)| after(key).into());
                let to = next.filter(|next| next < to);
                return Ok(DeltaContent::Rows { rows: found, to });
            }
        }
        Ok(DeltaContent::Rows { rows: found, to: None })
    }
}
