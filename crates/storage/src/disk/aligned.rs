//! Buffers that unbuffered files can be read into and written from.

use super::BLOCK;

/// A buffer whose first byte stands at a multiple of [`BLOCK`] in memory.
///
/// It is a plain vector with one block to spare and an offset into it, so that no unsafe code is
/// needed. The vector is never made larger in place, because it could move.
#[derive(Debug)]
pub struct AlignedBuffer {
    room: Vec<u8>,
    start: usize,
    capacity: usize,
    length: usize,
}

impl AlignedBuffer {
    /// An empty buffer for at least `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(BLOCK).max(BLOCK);
        let room = vec![0; capacity + BLOCK];
        let start = room.as_ptr().align_offset(BLOCK);
        assert!(start < BLOCK, "a byte address can be aligned to a block");
        Self { room, start, capacity, length: 0 }
    }

    /// Bytes pushed so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets what was pushed, and makes room for `capacity` bytes.
    pub fn reset(&mut self, capacity: usize) {
        if capacity > self.capacity {
            *self = Self::new(capacity);
        }
        self.length = 0;
    }

    /// Appends bytes; they must fit.
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(self.length + bytes.len() <= self.capacity, "the buffer was made large enough");
        let from = self.start + self.length;
        self.room[from..from + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Overwrites bytes that were pushed before.
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.length, "only pushed bytes are overwritten");
        let from = self.start + at;
        self.room[from..from + bytes.len()].copy_from_slice(bytes);
    }

    /// Fills the last block with zeroes and gives all blocks.
    pub fn padded(&mut self) -> &[u8] {
        let to = self.length.next_multiple_of(BLOCK);
        self.room[self.start + self.length..self.start + to].fill(0);
        &self.room[self.start..self.start + to]
    }

    /// The first `bytes` bytes (a multiple of [`BLOCK`]) to be read into.
    pub fn blocks_mut(&mut self, bytes: usize) -> &mut [u8] {
        assert!(bytes.is_multiple_of(BLOCK) && bytes <= self.capacity, "whole blocks that fit");
        self.length = bytes;
        &mut self.room[self.start..self.start + bytes]
    }

    /// What was pushed or read.
    pub fn filled(&self) -> &[u8] {
        &self.room[self.start..self.start + self.length]
    }
}
