//! The trace read back: what became of a message.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::{MailboxId, Millis};

use crate::keys;
use crate::records::TraceRecord;
use crate::transaction::decode;
use crate::view::{Fault, MailboxView};

/// Rows that one page may look at, however few of them match.
const ROWS_PER_PAGE: usize = 10_000;
const ROWS_PER_SCAN: usize = 256;

/// Behind which row to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TracePosition {
    /// The command's stamp.
    pub stamp_ms: u64,
    /// Its place in the log.
    pub log_index: u64,
}

/// What is looked for; all that is not empty must be equal, letters of ASCII in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceFilter {
    /// `Message-ID`.
    pub message_id: String,
    /// The transport's id.
    pub delivery_id: String,
    /// The envelope's sender.
    pub sender: String,
    /// A recipient's address.
    pub recipient: String,
    /// A mailbox that it concerns.
    pub mailbox: Option<MailboxId>,
    /// At or after.
    pub since_ms: u64,
    /// Before; 0 is without end.
    pub before_ms: u64,
}

/// What one command did.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// When.
    pub at: Millis,
    /// Its place in the log.
    pub log_index: u64,
    /// What, with those places alone that match.
    pub record: TraceRecord,
}

impl TraceFilter {
    /// The record with the places that match; none where nothing does.
    fn matching(&self, mut record: TraceRecord) -> Option<TraceRecord> {
        let equal = |wanted: &str, has: &str| wanted.is_empty() || wanted.eq_ignore_ascii_case(has);
        let is_it = equal(&self.message_id, &record.message_id)
            && (self.delivery_id.is_empty() || self.delivery_id == record.delivery_id)
            && equal(&self.sender, &record.sender);
        if !is_it {
            return None;
        }
        record.places.retain(|place| {
            let concerns = |id: &Bytes| self.mailbox.is_none_or(|wanted| wanted.0[..] == id[..]);
            let is_here = concerns(&place.mailbox_id)
                || !place.to_mailbox_id.is_empty() && concerns(&place.to_mailbox_id);
            is_here && equal(&self.recipient, &place.address)
        });
        (!record.places.is_empty()).then_some(record)
    }
}

/// Commands that match, oldest first, and where to go on; none where that was all. Looks at a
/// bounded number of rows, so a page may be short, or even empty, and not be the last.
pub fn search_trace<V: MailboxView>(
    view: &V,
    filter: &TraceFilter,
    after: Option<TracePosition>,
    limit: usize,
) -> Result<(Vec<Traced>, Option<TracePosition>), V::Error> {
    let mut from = match after {
        Some(at) => keys::after(&keys::trace(at.stamp_ms, at.log_index)),
        None => keys::trace(filter.since_ms, 0),
    };
    let end = if filter.before_ms == 0 { u64::MAX } else { filter.before_ms };
    let to = keys::trace(end, 0);
    let (mut found, mut looked_at) = (Vec::new(), 0);
    while from < to {
        let rows = view.scan(&from, &to, ROWS_PER_SCAN)?;
        let full = rows.len() == ROWS_PER_SCAN;
        for (key, value) in rows {
            let (stamp_ms, log_index) = keys::parse_trace(&key)
                .ok_or_else(|| Fault::damaged(&key, "its key is not one of the trace"))?;
            looked_at += 1;
            if let Some(record) = filter.matching(decode(&key, &value)?) {
                found.push(Traced { at: Millis(stamp_ms), log_index, record });
            }
            if found.len() >= limit || looked_at >= ROWS_PER_PAGE {
                return Ok((found, Some(TracePosition { stamp_ms, log_index })));
            }
            from = keys::after(&key);
        }
        if !full {
            break;
        }
    }
    Ok((found, None))
}
