//! Which records are kept alike: the tables of a copy's key space fall into three families.
//!
//! | first byte | family | what it is for |
//! | --- | --- | --- |
//! | `00`-`7f` | [`Family::Records`] | small records; read often, rewritten often |
//! | `80`-`bf` | [`Family::Bodies`] | message bodies; written once, large, never rewritten by compaction |
//! | `c0`-`ff` | [`Family::Expiring`] | records that are deleted soon: request ids, delivery ids, trace |
//!
//! The families lie one after the other in key order, so that a scan over all of them is the scan
//! of each in turn.

/// How the records of a table are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Small records.
    Records,
    /// Large values that are written once.
    Bodies,
    /// Records that expire.
    Expiring,
}

impl Family {
    /// All of them in key order.
    pub const ALL: [Self; 3] = [Self::Records, Self::Bodies, Self::Expiring];

    /// The family of a key.
    ///
    /// # Panics
    /// Where the key is empty: it would belong to no table.
    pub fn of(key: &[u8]) -> Self {
        match key.first().expect("a key begins with its table byte") {
            0x00..=0x7f => Self::Records,
            0x80..=0xbf => Self::Bodies,
            0xc0..=0xff => Self::Expiring,
        }
    }

    /// The least key of the family.
    pub(super) fn first_key(self) -> &'static [u8] {
        match self {
            Self::Records => &[0x00],
            Self::Bodies => &[0x80],
            Self::Expiring => &[0xc0],
        }
    }

    /// What lies behind the family's last key; `None` behind the last family.
    fn end_key(self) -> Option<&'static [u8]> {
        match self {
            Self::Records => Some(Self::Bodies.first_key()),
            Self::Bodies => Some(Self::Expiring.first_key()),
            Self::Expiring => None,
        }
    }

    /// The part of `from <= key < to` that lies in this family, if any.
    pub(super) fn part<'a>(self, from: &'a [u8], to: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let from = from.max(self.first_key());
        let to = self.end_key().map_or(to, |end| to.min(end));
        (from < to).then_some((from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_a_family_and_families_follow_in_key_order() {
        let families: Vec<Family> = (0..=255_u8).map(|byte| Family::of(&[byte, 1])).collect();
        assert!(families.is_sorted());
        assert_eq!(families[0x7f], Family::Records);
        assert_eq!(families[0x80], Family::Bodies);
        assert_eq!(families[0xbf], Family::Bodies);
        assert_eq!(families[0xc0], Family::Expiring);
    }

    #[test]
    fn a_range_is_cut_at_the_families_borders_without_a_gap() {
        let (from, to): (&[u8], &[u8]) = (&[0x10, 7], &[0xff, 0xff]);
        let parts: Vec<_> = Family::ALL.iter().filter_map(|f| f.part(from, to)).collect();
        assert_eq!(parts[0].0, from);
        assert_eq!(parts[0].1, parts[1].0);
        assert_eq!(parts[1].1, parts[2].0);
        assert_eq!(parts[2].1, to);
        assert_eq!(Family::Bodies.part(&[0x10], &[0x80]), None);
        assert_eq!(Family::Records.part(&[0x80], &[0x90]), None);
        assert_eq!(Family::Expiring.part(&[0xc1], &[0xc1]), None);
    }

    #[test]
    #[should_panic(expected = "table byte")]
    fn an_empty_key_is_refused() {
        Family::of(&[]);
    }
}
