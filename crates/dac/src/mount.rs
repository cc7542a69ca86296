//! Which entries of a database's log still count: the third of the three fences.
//!
//! Every activation begins with the entry `Mount {lineage, node, term}`. From there on only entries
//! of that lineage and term have an effect; one that was proposed under an older permit and arrives
//! late is answered with a refusal, on every copy alike. The mount carries its whole chain, so that
//! a copy decides from the log alone which of two mounts is newer.

use dag_types::{Kinship, Lineage, LineageChain, Mutant, NodeId};
use thiserror::Error;

/// The mount that was applied last.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mount {
    /// Where the DAG stood when it was proposed.
    pub chain: LineageChain,
    /// Who serves.
    pub node: NodeId,
    /// The Raft term of the leader that proposed it, and of every entry that counts under it.
    pub term: u64,
}

/// Why an entry has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum StaleEntry {
    /// Nothing was mounted yet.
    #[error("the database is not mounted")]
    NotMounted,
    /// The entry was proposed in another lineage than the mount's.
    #[error("the entry is of lineage {entry} and the database is mounted in {mounted}")]
    OtherLineage {
        /// The entry's.
        entry: Lineage,
        /// The mount's.
        mounted: Lineage,
    },
    /// The entry was proposed in another term than the mount's.
    #[error("the entry is of term {entry} and the database is mounted in term {mounted}")]
    OtherTerm {
        /// The entry's.
        entry: u64,
        /// The mount's.
        mounted: u64,
    },
    /// A mount of an older lineage or of a fork.
    #[error("the database is mounted in {mounted}; a mount in {entry} comes from {kinship}")]
    OlderMount {
        /// The new mount's.
        entry: Lineage,
        /// The last mount's.
        mounted: Lineage,
        /// What the new one is to the last one.
        kinship: Kinship,
    },
}

/// Whether a mount takes effect after the last one.
pub fn admit_mount(last: Option<&Mount>, next: &Mount, entry_term: u64) -> Result<(), StaleEntry> {
    if next.term != entry_term {
        return Err(StaleEntry::OtherTerm { entry: next.term, mounted: entry_term });
    }
    let Some(last) = last else { return Ok(()) };
    match last.chain.kinship(&next.chain) {
        Kinship::Same | Kinship::Newer => Ok(()),
        kinship => Err(StaleEntry::OlderMount {
            entry: next.chain.last(),
            mounted: last.chain.last(),
            kinship,
        }),
    }
}

/// Whether a command that carries this lineage and stands in this term has an effect.
pub fn admit_entry(mounted: Option<&Mount>, lineage: Lineage, term: u64) -> Result<(), StaleEntry> {
    if Mutant::OlderLineageApplied.planted() {
        return Ok(());
    }
    let mounted = mounted.ok_or(StaleEntry::NotMounted)?;
    let current = mounted.chain.last();
    if current != lineage {
        return Err(StaleEntry::OtherLineage { entry: lineage, mounted: current });
    }
    if mounted.term != term {
        return Err(StaleEntry::OtherTerm { entry: term, mounted: mounted.term });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use dag_types::{ActivationId, LineageKind, LineageStep};

    fn chain(ids: &[u8]) -> LineageChain {
        let start = LineageChain::first(ActivationId([ids[0]; 16]));
        ids[1..].iter().enumerate().fold(start, |chain, (i, id)| {
            let lineage = Lineage { epoch: i as u64 + 2, activation: ActivationId([*id; 16]) };
            let kind = LineageKind::ActivateFenced;
            chain.extended(LineageStep { lineage, kind, rejected: Vec::new() }).unwrap()
        })
    }

    fn mount(ids: &[u8], term: u64) -> Mount {
        Mount { chain: chain(ids), node: NodeId(1), term }
    }

    #[test]
    fn only_entries_of_the_mounts_own_lineage_and_term_have_an_effect() {
        let (old, new) = (chain(&[1]).last(), chain(&[1, 2]).last());
        let mounted = mount(&[1, 2], 7);
        assert_eq!(admit_entry(Some(&mounted), new, 7), Ok(()));
        let stale = StaleEntry::OtherLineage { entry: old, mounted: new };
        assert_eq!(admit_entry(Some(&mounted), old, 7), Err(stale));
        let late = StaleEntry::OtherTerm { entry: 6, mounted: 7 };
        assert_eq!(admit_entry(Some(&mounted), new, 6), Err(late));
        assert_eq!(admit_entry(None, new, 7), Err(StaleEntry::NotMounted));
    }

    #[test]
    fn a_mount_of_an_older_lineage_or_of_a_fork_takes_no_effect() {
        let last = mount(&[1, 2], 7);
        assert_eq!(admit_mount(None, &last, 7), Ok(()));
        assert_eq!(admit_mount(Some(&last), &mount(&[1, 2], 8), 8), Ok(()));
        assert_eq!(admit_mount(Some(&last), &mount(&[1, 2, 3], 8), 8), Ok(()));
        assert!(admit_mount(Some(&last), &mount(&[1], 8), 8).is_err());
        // A fork with the greater epoch.
        assert!(admit_mount(Some(&last), &mount(&[1, 4, 5], 8), 8).is_err());
        // A mount that was proposed in another term than the one it stands in.
        assert!(admit_mount(None, &last, 8).is_err());
    }
}
