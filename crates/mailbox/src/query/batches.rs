//! Cutting a set of UIDs into pieces that one command each can take.
//!
//! A command looks at no more than 1,000 messages, and a client may well say `1:*`. Whoever proposes
//! commands asks for one batch after the other, and gives each a request id made of the client's and
//! of the batch's first UID and last UID: then a repetition that finds other batches, because
//! something changed meanwhile, is another request, and the same batch is the same.

use alloc::vec::Vec;

use dag_types::MailboxId;

use crate::command::UidRange;
use crate::keys;
use crate::limits;
use crate::uid_set;
use crate::view::MailboxView;

/// Messages for one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// UIDs that exist, at most 1,000 of them.
    pub uids: Vec<UidRange>,
    /// Give it as `after` for the next batch; none when this was the last.
    pub next: Option<u32>,
}

/// The first messages of a set whose UIDs are greater than `after`. The set must be in order, as
/// [`uid_set::normalise`] makes it; however many ranges it has, the work is bounded by the messages
/// of one batch and the ranges passed over.
pub fn next_batch<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    folder: u32,
    set: &[UidRange],
    after: u32,
) -> Result<Batch, V::Error> {
    let most = limits::MESSAGES_PER_COMMAND.max as usize;
    let mut uids = Vec::new();
    let mut found = 0;
    let mut last = after;
    let first_range = set.partition_point(|range| range.last <= after);
    for range in &set[first_range..] {
        let first = range.first.max(after.saturating_add(1));
        let from = keys::message(mailbox, folder, first);
        let to = keys::after(&keys::message(mailbox, folder, range.last));
        for (key, _) in view.scan(&from, &to, most - found)? {
            last = keys::last_u32(&key);
            uid_set::push(&mut uids, last);
            found += 1;
        }
        if found == most {
            return Ok(Batch { uids, next: Some(last) });
        }
    }
    Ok(Batch { uids, next: None })
}
