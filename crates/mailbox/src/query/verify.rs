//! The digest of a copy: as kept, and as computed from every row.

use bytes::Bytes;

use super::read;
use crate::digest::{Digest, RowHasher, Sum};
use crate::keys::{self, table};
use crate::records::DatabaseRecord;
use crate::view::MailboxView;

/// Rows read at a time; bodies are large.
const ROWS_PER_SCAN: usize = 1_000;
const BODIES_PER_SCAN: usize = 8;

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
