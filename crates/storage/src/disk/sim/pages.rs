//! A file's bytes as pages; pages of zeroes are not kept.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: usize = 4096;

static ZEROES: [u8; PAGE] = [0; PAGE];

/// Sparse content with a length. Copies share their pages until one of them is written.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
    pub(super) length: u64,
}

impl Pages {
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) {
        for (at, page, from, bytes) in parts(offset, buffer.len()) {
            let target = &mut buffer[at..at + bytes];
            match self.pages.get(&page) {
                Some(content) => target.copy_from_slice(&content[from..from + bytes]),
                None => target.fill(0),
            }
        }
    }

    /// Writes; the length grows where needed.
    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        for (at, page, from, bytes) in parts(offset, data.len()) {
            self.write_part(page, from, &data[at..at + bytes]);
        }
        self.length = self.length.max(offset + data.len() as u64);
    }

    /// Writes; the length stays.
    pub(super) fn replace(&mut self, data: &[u8], offset: u64) {
        let length = self.length;
        self.write(data, offset);
        self.length = length;
    }

    fn write_part(&mut self, page: u64, from: usize, source: &[u8]) {
        let empty = *source == ZEROES[..source.len()];
        let to = from + source.len();
        match self.pages.get_mut(&page) {
            Some(_) if empty && source.len() == PAGE => {
                self.pages.remove(&page);
            }
            Some(content) => Arc::make_mut(content)[from..to].copy_from_slice(source),
            None if empty => {}
            None => {
                let mut content = Arc::new(ZEROES);
                Arc::make_mut(&mut content)[from..to].copy_from_slice(source);
                self.pages.insert(page, content);
            }
        }
    }

    pub(super) fn set_len(&mut self, length: u64) {
        if length < self.length {
            let partial = length / PAGE as u64;
            let rest = (length % PAGE as u64) as usize;
            self.pages.split_off(&(partial + u64::from(rest > 0)));
            if let Some(page) = self.pages.get_mut(&partial) {
                Arc::make_mut(page)[rest..].fill(0);
            }
        }
        self.length = length;
    }

    /// Takes a range from another file's content; the length stays.
    pub(super) fn copy_from(&mut self, other: &Self, offset: u64, bytes: usize) {
        let length = self.length;
        for (_, page, from, bytes) in parts(offset, bytes) {
            match other.pages.get(&page) {
                Some(content) if bytes == PAGE => {
                    self.pages.insert(page, content.clone());
                }
                Some(content) => self.write_part(page, from, &content[from..from + bytes]),
                None => self.write_part(page, from, &ZEROES[..bytes]),
            }
        }
        self.length = length;
    }
}

/// Splits a range into (offset in the buffer, page, offset in the page, bytes).
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (usize, u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let position = offset + done as u64;
        let from = (position % PAGE as u64) as usize;
        let bytes = (PAGE - from).min(length - done);
        let part = (done, position / PAGE as u64, from, bytes);
        done += bytes;
        Some(part)
    })
}
