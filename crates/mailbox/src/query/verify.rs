//! The digest of a copy: as kept, and as computed from every row.

use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::MailboxId;

use super::read;
use crate::digest::{Digest, RowHasher, Sum};
use crate::keys::{self, table};
use crate::records::DatabaseRecord;
use crate::view::MailboxView;

/// Rows read at a time; bodies are large.
const ROWS_PER_SCAN: usize = 1_000;
const BODIES_PER_SCAN: usize = 8;

/// Tables whose keys begin with a mailbox.
const OF_MAILBOXES: [u8; 19] = [
    table::MAILBOX,
    table::ADDRESS,
    table::FOLDER,
    table::FOLDER_PROFILE,
    table::FOLDER_NAME,
    table::KEYWORDS,
    table::MESSAGE,
    table::EMAIL,
    table::CHANGE,
    table::ITEM,
    table::GONE_FOLDER,
    table::DEAD_FOLDER,
    table::SPECIAL_USE,
    table::RIGHTS,
    table::SUBSCRIBED_NAME,
    table::THREAD_KEY,
    table::THREAD,
    table::REQUEST,
    table::DELIVERY,
];

/// What a copy holds of one mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxDigest {
    /// Which one.
    pub mailbox: MailboxId,
    /// Over all rows whose keys name it.
    pub digest: Digest,
    /// How many they are.
    pub rows: u64,
}

/// The digest that was kept up with each command: one read. Equal on all copies at one log index.
pub fn database_digest<V: MailboxView>(view: &V) -> Result<Digest, V::Error> {
    let record: DatabaseRecord = read(view, &keys::database())?.unwrap_or_default();
    Ok(Sum::of(&record).digest(&record))
}

/// The digest computed from every row of a snapshot. Another value than [`database_digest`]'s
/// means that this copy does not hold what its commands wrote.
pub fn recompute_digest<V: MailboxView>(view: &V) -> Result<Digest, V::Error> {
    let record: DatabaseRecord = read(view, &keys::database())?.unwrap_or_default();
    let mut sum = Sum::default();
    let mut hasher = RowHasher::default();
    for table in table::ALL.into_iter().filter(|table| *table != table::DATABASE) {
        add_table(view, table, &mut sum, &mut hasher)?;
    }
    Ok(sum.digest(&record))
}

fn add_table<V: MailboxView>(
    view: &V,
    table: u8,
    sum: &mut Sum,
    hasher: &mut RowHasher,
) -> Result<(), V::Error> {
    let limit = if table == table::BODY { BODIES_PER_SCAN } else { ROWS_PER_SCAN };
    let to = Bytes::copy_from_slice(&[table + 1]);
    let mut from = Bytes::copy_from_slice(&[table]);
    loop {
        let rows = view.scan(&from, &to, limit)?;
        for (key, value) in &rows {
            sum.add(match table {
                table::BODY => hasher.body(key, value.len() as u64),
                _ => hasher.row(key, value),
            });
        }
        match rows.last() {
            Some((key, _)) if rows.len() == limit => from = keys::after(key),
            _ => return Ok(()),
        }
    }
}

/// The digests of the mailboxes behind one, in order, computed from every row that names them, also
/// of mailboxes that are not there any more. As many as have so many rows together, and at least
/// one; none: there are no more.
///
/// What belongs to no mailbox (bodies and their references, what expires when, the trace) does not
/// count.
pub fn mailbox_digests<V: MailboxView>(
    view: &V,
    after: Option<MailboxId>,
    rows: u64,
) -> Result<Vec<MailboxDigest>, V::Error> {
    let (mut digests, mut seen, mut after) = (Vec::new(), 0, after);
    let mut hasher = RowHasher::default();
    while seen < rows {
        let Some(mailbox) = next_mailbox(view, after)? else { break };
        let digest = mailbox_digest(view, mailbox, &mut hasher)?;
        seen += digest.rows;
        digests.push(digest);
        after = Some(mailbox);
    }
    Ok(digests)
}

/// The least mailbox behind one that any row names.
fn next_mailbox<V: MailboxView>(
    view: &V,
    after: Option<MailboxId>,
) -> Result<Option<MailboxId>, V::Error> {
    let mut next = None;
    for table in OF_MAILBOXES {
        let from = match after {
            None => Bytes::copy_from_slice(&[table]),
            Some(mailbox) => keys::end_of(&keys::of_mailbox(table, mailbox)),
        };
        let to = Bytes::copy_from_slice(&[table + 1]);
        if from >= to {
            continue;
        }
        let found = view.scan(&from, &to, 1)?;
        let mailbox = found.first().and_then(|(key, _)| key.get(1..)?.first_chunk::<16>());
        next = next.into_iter().chain(mailbox.copied()).min();
    }
    Ok(next.map(MailboxId))
}

fn mailbox_digest<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    hasher: &mut RowHasher,
) -> Result<MailboxDigest, V::Error> {
    let (mut sum, mut count) = (Sum::default(), 0);
    for table in OF_MAILBOXES {
        let mut from = keys::of_mailbox(table, mailbox);
        let to = keys::end_of(&from);
        loop {
            let rows = view.scan(&from, &to, ROWS_PER_SCAN)?;
            rows.iter().for_each(|(key, value)| sum.add(hasher.row(key, value)));
            count += rows.len() as u64;
            match rows.last() {
                Some((key, _)) if rows.len() == ROWS_PER_SCAN => from = keys::after(key),
                _ => break,
            }
        }
    }
    let digest = sum.bytes();
    Ok(MailboxDigest { mailbox, digest, rows: count })
}
