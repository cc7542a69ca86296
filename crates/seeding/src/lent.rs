//! Buffers that come back. A range is read into memory that an earlier one has used, so that nothing
//! is zeroed and no page is asked for, range after range.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers that wait at most; the others are freed.
const SPARE: usize = 2;

/// Lends buffers out as [`Bytes`]; one comes back when the last of its slices is dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lender(Arc<Mutex<Vec<Vec<u8>>>>);

struct Lent {
    bytes: Vec<u8>,
    lender: Lender,
}

impl Lender {
    /// So many bytes, as `fill` leaves them. It is given what an earlier use left.
    pub(crate) fn lend(
        &self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<Bytes> {
        let mut bytes = self.spare().pop().unwrap_or_default();
        bytes.resize(length, 0);
        fill(&mut bytes)?;
        Ok(Bytes::from_owner(Lent { bytes, lender: self.clone() }))
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut spare = self.lender.spare();
        if spare.len() < SPARE {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_slice_and_is_never_shorter_or_longer_than_asked() {
        let lender = Lender::default();
        let filled = |length: usize, with: u8| {
            lender.lend(length, |bytes| {
                bytes.fill(with);
                Ok(())
            })
        };
        let first = filled(100, 1).unwrap();
        let part = first.slice(10..20);
        drop(first);
        assert!(lender.spare().is_empty(), "a slice is still read");
        assert_eq!(part[..], [1; 10]);
        drop(part);
        assert_eq!(lender.spare().len(), 1);
        assert_eq!(filled(7, 2).unwrap()[..], [2; 7]);
        let many: Vec<Bytes> = (0..9).map(|n| filled(50, n).unwrap()).collect();
        assert!(many.iter().zip(0..).all(|(bytes, n)| bytes[..] == [n; 50]));
        drop(many);
        assert_eq!(lender.spare().len(), SPARE);
        let failed = lender.lend(5, |_| Err(io::ErrorKind::UnexpectedEof.into()));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
