//! M9: all copies of a database have equal digests at one mark.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Looking, Step};
use crate::event::CopyDigest;
use crate::history::History;

pub(super) fn check(looking: &mut Looking<'_>, history: &History) -> Step {
    equal_at_each_mark(looking, &history.digests)?;
    all_copies_compared(looking, history)
}

fn equal_at_each_mark(looking: &mut Looking<'_>, digests: &[CopyDigest]) -> Step {
    let mut marks: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for (position, digest) in digests.iter().enumerate() {
        looking.one();
        let first = *marks.entry((digest.database, digest.index)).or_insert(position);
        let other = &digests[first];
        if other.digest != digest.digest {
            looking.breach(
                format!("digests differ {} {}", digest.database, digest.index),
                format!(
                    "database {} at index {}: replica {} on node {} holds {}, replica {} on node \
                     {} holds {}",
                    digest.database,
                    digest.index,
                    other.replica,
                    other.node,
                    other.digest,
                    digest.replica,
                    digest.node,
                    digest.digest
                ),
                vec![Evidence::Digest(first), Evidence::Digest(position)],
            )?;
        }
    }
    Ok(())
}

/// Each database has a mark at which as many copies were compared as it has.
fn all_copies_compared(looking: &Looking<'_>, history: &History) -> Step {
    for expected in &history.run.copies {
        let mut marks: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for digest in history.digests.iter().filter(|d| d.database == expected.database) {
            marks.entry(digest.index).or_default().insert(digest.replica);
        }
        let most = marks.values().map(BTreeSet::len).max().unwrap_or(0);
        if most < expected.copies {
            looking.unknown(format!(
                "database {}: {most} of {} copies were compared at one mark",
                expected.database, expected.copies
            ))?;
        }
    }
    Ok(())
}
