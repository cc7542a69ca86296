//! Reading many rows, so many at a time that their bytes stay few.

use storage::state::{Row, StateError, StateRead};

/// Bytes that one page aims at.
const PAGE_BYTES: usize = 1 << 20;
/// Rows of the first page, before their size is known.
const FIRST_ROWS: usize = 8;
const ROWS_MAX: usize = 4096;

/// The first key of the bodies.
pub(crate) const BODIES: u8 = 0x80;
/// The first key of what expires.
pub(crate) const EXPIRING: u8 = 0xc0;

/// Behind every key: none is this long.
pub(crate) fn end_of_keys() -> Vec<u8> {
    vec![0xff; 1024]
}

/// The next key after one.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// A run of rows, page by page.
pub(crate) struct Pages<'a> {
    view: &'a dyn StateRead,
    from: Vec<u8>,
    to: Vec<u8>,
    rows: usize,
    done: bool,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(view: &'a dyn StateRead, from: &[u8], to: &[u8]) -> Self {
        Self { view, from: from.to_vec(), to: to.to_vec(), rows: FIRST_ROWS, done: from >= to }
    }

    /// The next rows; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<Row>>, StateError> {
        if self.done {
            return Ok(None);
        }
        let rows = self.view.scan_once(&self.from, &self.to, self.rows)?;
        self.done = rows.len() < self.rows;
        let Some((last, _)) = rows.last() else { return Ok(None) };
        self.from = after(last);
        let average = bytes(&rows) / rows.len();
        self.rows = (PAGE_BYTES / average.max(1)).clamp(1, ROWS_MAX);
        Ok(Some(rows))
    }
}

/// Bytes of keys and values.
pub(crate) fn bytes(rows: &[Row]) -> usize {
    rows.iter().map(|(key, value)| key.len() + value.len()).sum()
}
