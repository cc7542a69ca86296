//! Sets of UIDs as ranges.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::command::UidRange;
use crate::limits;
use crate::response::{Reason, Rejection};

/// Puts ranges in order: ends swapped where needed, sorted, touching ones joined.
///
/// Zero is no UID (RFC 9051 9, `nz-number`) and is refused, like a set of too many ranges.
pub fn normalise(ranges: &[UidRange]) -> Result<Vec<UidRange>, Rejection> {
    limits::UID_RANGES_PER_COMMAND.check(ranges.len())?;
    if ranges.is_empty() {
        return Err(Rejection::new(Reason::FieldMissing).about("uids".to_string()));
    }
    if ranges.iter().any(|range| range.first == 0 || range.last == 0) {
        return Err(Rejection::new(Reason::FieldInvalid).about("uids".to_string()));
    }
    let mut sorted: Vec<UidRange> = ranges
        .iter()
        .map(|range| UidRange::new(range.first.min(range.last), range.first.max(range.last)))
        .collect();
    sorted.sort_unstable_by_key(|range| range.first);
    sorted.dedup_by(|next, range| {
        let joins = next.first <= range.last.saturating_add(1);
        if joins {
            range.last = range.last.max(next.last);
        }
        joins
    });
    Ok(sorted)
}

/// Adds a UID that is greater than all in the set.
pub fn push(set: &mut Vec<UidRange>, uid: u32) {
    match set.last_mut() {
        Some(range) if range.last.checked_add(1) == Some(uid) => range.last = uid,
        _ => set.push(UidRange::new(uid, uid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn range(first: u32, last: u32) -> UidRange {
        UidRange::new(first, last)
    }

    /// RFC 9051 9: `2:4` and `4:2` are equivalent.
    #[test]
    fn a_range_means_the_same_in_either_order() {
        assert_eq!(normalise(&[range(4, 2)]), Ok(vec![range(2, 4)]));
    }

    #[test]
    fn touching_and_overlapping_ranges_become_one() {
        let given = [range(7, 9), range(1, 3), range(4, 4), range(2, 3), range(9, u32::MAX)];
        assert_eq!(normalise(&given), Ok(vec![range(1, 4), range(7, u32::MAX)]));
    }

    #[test]
    fn zero_is_no_uid() {
        let refused = normalise(&[range(0, 3)]).expect_err("zero is refused");
        assert_eq!(refused.reason(), Reason::FieldInvalid);
    }

    #[test]
    fn an_empty_set_is_refused_instead_of_meaning_nothing_or_everything() {
        let refused = normalise(&[]).expect_err("empty is refused");
        assert_eq!(refused.reason(), Reason::FieldMissing);
    }

    #[test]
    fn a_set_of_too_many_ranges_is_refused_with_value_and_limit() {
        let given = vec![range(1, 1); 1_001];
        let refused = normalise(&given).expect_err("too many");
        assert_eq!((refused.value, refused.limit), (1_001, 1_000));
    }

    #[test]
    fn pushed_uids_grow_the_last_range() {
        let mut set = Vec::new();
        for uid in [1, 2, 3, 7, u32::MAX - 1, u32::MAX] {
            push(&mut set, uid);
        }
        assert_eq!(set, [range(1, 3), range(7, 7), range(u32::MAX - 1, u32::MAX)]);
    }
}
