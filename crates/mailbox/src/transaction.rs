//! The writes of one command: an overlay for its own reads, and the keeper of the digest.
//!
//! A row must be read before it is changed, or its old content must be known otherwise; the
//! transaction remembers what was read and asserts it. So the digest always subtracts what really
//! stood there, and a command that would overwrite a row by mistake stops the copy instead.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;
use dag_types::{Millis, Mutant, Write};
use prost::Message;

use crate::digest::{RowHasher, Sum};
use crate::keys::{self, BodyDigest};
use crate::records::DatabaseRecord;
use crate::response::Rejection;
use crate::view::{Fault, MailboxView, Row};

/// Why a command stops before its end.
pub(crate) enum Stop<E> {
    /// It is refused, on all copies alike.
    Rejected(Rejection),
    /// This copy fails.
    Fault(E),
}

impl<E> From<Rejection> for Stop<E> {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// A row that the command has seen or made: what the store has, and what it shall have.
struct Seen {
    before: Option<Bytes>,
    after: After,
}

/// What becomes of a row.
enum After {
    Same,
    Put(Bytes),
    Gone,
}

impl Seen {
    /// The row as the command has left it.
    fn now(&self) -> Option<&Bytes> {
        match &self.after {
            After::Same => self.before.as_ref(),
            After::Put(value) => Some(value),
            After::Gone => None,
        }
    }

    fn is_changed(&self) -> bool {
        !matches!(self.after, After::Same)
    }
}

pub(crate) struct Transaction<'v, V: MailboxView> {
    view: &'v V,
    rows: BTreeMap<Bytes, Seen>,
    bodies: Vec<Write>,
    sum: Sum,
    hasher: RowHasher,
    stored_database: DatabaseRecord,
    /// The database's counters; written by [`Transaction::finish`] when they changed.
    pub(crate) database: DatabaseRecord,
    /// Whose rights are checked; empty is nobody's.
    pub(crate) actor: Vec<String>,
}

impl<'v, V: MailboxView> Transaction<'v, V> {
    /// Reads the database's record, and moves its stamp to the proposer's, never back.
    pub(crate) fn begin(view: &'v V, proposed_at: Millis) -> Result<Self, V::Error> {
        let key = keys::database();
        let stored = match view.get(&key)? {
            Some(value) => decode::<DatabaseRecord>(&key, &value)?,
            None => DatabaseRecord::default(),
        };
        let mut database = stored.clone();
        database.stamp_ms = database.stamp_ms.max(proposed_at.0);
        Ok(Self {
            view,
            rows: BTreeMap::new(),
            bodies: Vec::new(),
            sum: Sum::of(&stored),
            hasher: RowHasher::default(),
            stored_database: stored,
            database,
            actor: Vec::new(),
        })
    }

    /// The time of this command, in milliseconds since 1970: equal on all copies.
    pub(crate) fn now_ms(&self) -> u64 {
        self.database.stamp_ms
    }

    /// Reads a row, as this command has left it.
    pub(crate) fn get<R: Message + Default>(
        &mut self,
        key: &Bytes,
    ) -> Result<Option<R>, Stop<V::Error>> {
        if let Some(seen) = self.rows.get(key) {
            return decode_optional(key, seen.now());
        }
        let value = self.view.get(key).map_err(Stop::Fault)?;
        let record = decode_optional(key, value.as_ref())?;
        self.rows.insert(key.clone(), Seen { before: value, after: After::Same });
        Ok(record)
    }

    /// Reads a row that another row promises.
    pub(crate) fn need<R: Message + Default>(&mut self, key: &Bytes) -> Result<R, Stop<V::Error>> {
        match self.get(key)? {
            Some(record) => Ok(record),
            None => Err(fault(Fault::damaged(key, "another record names it, and it is not there"))),
        }
    }

    /// Reads what an id that a client chose was answered before: the one place where a repeat is
    /// told from a first attempt.
    pub(crate) fn remembered<R: Message + Default>(
        &mut self,
        key: &Bytes,
    ) -> Result<Option<R>, Stop<V::Error>> {
        if Mutant::RequestIdIgnored.planted() {
            return Ok(None);
        }
        self.get(key)
    }

    /// Reads rows with `from <= key < to`, as this command has left them.
    pub(crate) fn scan<R: Message + Default>(
        &mut self,
        from: &Bytes,
        to: &Bytes,
        limit: usize,
    ) -> Result<Vec<(Bytes, R)>, Stop<V::Error>> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        let changed =
            self.rows.range::<Bytes, _>(range).filter(|(_, seen)| seen.is_changed()).count();
        // Each changed row may stand for one that the store has and the command removed.
        let wanted = limit.saturating_add(changed);
        let rows = self.view.scan(from, to, wanted).map_err(Stop::Fault)?;
        if changed > 0 {
            return self.merge(from, to, limit, wanted, rows);
        }
        let mut records = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            records.push((key.clone(), decode(&key, &value).map_err(fault)?));
            self.rows.insert(key, Seen { before: Some(value), after: After::Same });
        }
        Ok(records)
    }

    /// The store's rows under the command's own. Beyond the last row of a scan that was cut, the
    /// store may have more, so nothing is told from there.
    fn merge<R: Message + Default>(
        &mut self,
        from: &Bytes,
        to: &Bytes,
        limit: usize,
        wanted: usize,
        rows: Vec<Row>,
    ) -> Result<Vec<(Bytes, R)>, Stop<V::Error>> {
        let cut = rows.last().filter(|_| rows.len() == wanted).map(|(key, _)| keys::after(key));
        for (key, value) in rows {
            self.rows.entry(key).or_insert(Seen { before: Some(value), after: After::Same });
        }
        let range = (Bound::Included(from), Bound::Excluded(cut.as_ref().unwrap_or(to)));
        let present = self.rows.range::<Bytes, _>(range);
        let present = present.filter_map(|(key, seen)| seen.now().map(|value| (key, value)));
        let decoded =
            present.take(limit).map(|(key, value)| Ok((key.clone(), decode(key, value)?)));
        decoded.collect::<Result<_, Fault>>().map_err(fault)
    }

    /// Writes a row that is not there: never read, or read and found missing.
    pub(crate) fn insert(&mut self, key: Bytes, record: &impl Message) {
        let value = Bytes::from(record.encode_to_vec());
        let seen = self.rows.entry(key).or_insert(Seen { before: None, after: After::Same });
        assert!(seen.now().is_none(), "an inserted row is new");
        seen.after = After::Put(value);
    }

    /// Writes a row that was read or made by this command.
    pub(crate) fn update(&mut self, key: &Bytes, record: &impl Message) {
        let value = Bytes::from(record.encode_to_vec());
        let seen = self.rows.get_mut(key).expect("an updated row was read before");
        assert!(seen.now().is_some(), "an updated row exists");
        seen.after = After::Put(value);
    }

    /// Removes a row that was read or made by this command.
    pub(crate) fn remove(&mut self, key: &Bytes) {
        let seen = self.rows.get_mut(key).expect("a removed row was read before");
        assert!(seen.now().is_some(), "a removed row exists");
        seen.after = After::Gone;
    }

    /// Removes a row whose content follows from other rows, so that it need not be read.
    pub(crate) fn remove_known(&mut self, key: Bytes, old: &impl Message) {
        let value = Bytes::from(old.encode_to_vec());
        let seen = self.rows.entry(key).or_insert(Seen { before: Some(value), after: After::Same });
        assert!(seen.now().is_some(), "a removed row exists");
        seen.after = After::Gone;
    }

    /// Writes a chunk of a body: the value is the slice of the log entry, not a copy.
    pub(crate) fn insert_body(&mut self, digest: &BodyDigest, chunk: u32, body: Bytes) {
        let key = keys::body(digest, chunk);
        self.sum.add(self.hasher.body(&key, body.len() as u64));
        self.bodies.push(Write::Put { key, value: body });
    }

    /// Removes a chunk of a body without reading it.
    pub(crate) fn remove_body(&mut self, digest: &BodyDigest, chunk: u32, size: u64) {
        let key = keys::body(digest, chunk);
        self.sum.subtract(self.hasher.body(&key, size));
        self.bodies.push(Write::Delete { key });
    }

    /// Forgets all that the command wrote, because it is refused. Only the stamp stays.
    pub(crate) fn undo(&mut self) {
        self.rows.retain(|_, seen| {
            seen.after = After::Same;
            seen.before.is_some()
        });
        self.bodies.clear();
        self.sum = Sum::of(&self.stored_database);
        self.database =
            DatabaseRecord { stamp_ms: self.database.stamp_ms, ..self.stored_database.clone() };
    }

    /// All changes in the order of their keys, then bodies, then the database's own record.
    pub(crate) fn finish(mut self) -> Vec<Write> {
        let mut writes = Vec::with_capacity(self.rows.len() + self.bodies.len() + 1);
        for (key, seen) in self.rows {
            if !seen.is_changed() || seen.before.as_ref() == seen.now() {
                continue;
            }
            if let Some(before) = &seen.before {
                self.sum.subtract(self.hasher.row(&key, before));
            }
            if let After::Put(value) = seen.after {
                self.sum.add(self.hasher.row(&key, &value));
                writes.push(Write::Put { key, value });
            } else {
                writes.push(Write::Delete { key });
            }
        }
        writes.append(&mut self.bodies);
        self.sum.store(&mut self.database);
        if self.database != self.stored_database {
            let value = Bytes::from(self.database.encode_to_vec());
            writes.push(Write::Put { key: keys::database(), value });
        }
        writes
    }
}

/// A fault found by an operation.
pub(crate) fn fault<E: From<Fault>>(fault: Fault) -> Stop<E> {
    Stop::Fault(E::from(fault))
}

fn decode_optional<R: Message + Default, E: From<Fault>>(
    key: &[u8],
    value: Option<&Bytes>,
) -> Result<Option<R>, Stop<E>> {
    value.map(|value| decode(key, value)).transpose().map_err(fault)
}

/// Reads a stored record. Its byte fields are short, so that copying them is cheaper than sharing.
pub(crate) fn decode<R: Message + Default>(key: &[u8], value: &[u8]) -> Result<R, Fault> {
    R::decode(value).map_err(|error| Fault::damaged(key, error.to_string()))
}
