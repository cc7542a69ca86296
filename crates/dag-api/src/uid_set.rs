//! Sets of UIDs as ranges.

use crate::convert::BadMessage;
use crate::mailbox::v1::{UidRange, UidSet};

impl UidSet {
    /// The set of one range; both ends belong to it.
    pub fn range(first: u32, last: u32) -> Self {
        Self { ranges: vec![UidRange { first, last }] }
    }

    /// Refuses a set with a UID 0.
    pub fn validate(&self) -> Result<(), BadMessage> {
        let sound = |range: &UidRange| range.first >= 1 && range.last >= 1;
        let bad = BadMessage { field: "uids", wanted: "ranges of UIDs from 1 on" };
        if self.ranges.iter().all(sound) { Ok(()) } else { Err(bad) }
    }

    /// How many UIDs the ranges span; a UID in two ranges counts twice.
    pub fn span(&self) -> u64 {
        let width = |range: &UidRange| u64::from(range.last.abs_diff(range.first)) + 1;
        self.ranges.iter().map(width).sum()
    }

    /// Whether a UID is in the set.
    pub fn contains(&self, uid: u32) -> bool {
        self.ranges.iter().any(|range| range.ascending().contains(&uid))
    }

    /// The UIDs, range after range. There may be billions of them: look at [`span`](Self::span).
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(UidRange::ascending)
    }
}

impl UidRange {
    /// Its UIDs from the lowest to the highest, whichever end was named first.
    pub fn ascending(&self) -> std::ops::RangeInclusive<u32> {
        self.first.min(self.last)..=self.first.max(self.last)
    }
}

/// Neighbours that follow one another become one range; the order is kept.
impl FromIterator<u32> for UidSet {
    fn from_iter<I: IntoIterator<Item = u32>>(uids: I) -> Self {
        let mut ranges: Vec<UidRange> = Vec::new();
        for uid in uids {
            match ranges.last_mut() {
                Some(range) if range.last.checked_add(1) == Some(uid) => range.last = uid,
                _ => ranges.push(UidRange { first: uid, last: uid }),
            }
        }
        Self { ranges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_gather_into_ranges_and_read_back() {
        let uids = [1, 2, 3, 7, 9, 10, u32::MAX];
        let set: UidSet = uids.into_iter().collect();
        assert_eq!(set.ranges.len(), 4);
        assert_eq!(set.iter().collect::<Vec<_>>(), uids);
        assert_eq!(set.span(), 7);
        assert!(set.contains(2) && !set.contains(4));
        assert!(set.validate().is_ok());
    }

    #[test]
    fn a_range_may_be_named_backwards_and_a_uid_of_zero_is_refused() {
        let backwards = UidSet::range(5, 3);
        assert!(backwards.validate().is_ok() && backwards.contains(4));
        assert_eq!((backwards.span(), backwards.iter().count()), (3, 3));
        assert!(UidSet::range(0, 4).validate().is_err());
        assert!(UidSet::range(4, 0).validate().is_err());
        assert_eq!(UidSet::range(1, u32::MAX).span(), u64::from(u32::MAX));
    }
}
