//! Which folders of copies and seeds are of no use any more. Pure, by their names and the control log.

use std::path::Path;

use active_manager::control::{ControlState, SeedPhase};
use dag_types::{DatabaseId, Generation, NodeId, ReplicaId};

/// A folder of a database that belongs to one copy.
pub enum Folder {
    /// A copy.
    Copy(Generation, ReplicaId),
    /// A copy that is built.
    Seed(ReplicaId),
}

pub fn parse(name: &Path) -> Option<Folder> {
    let name = name.to_str()?;
    if let Some(replica) = name.strip_prefix("seed-") {
        return Some(Folder::Seed(ReplicaId(replica.parse().ok()?)));
    }
    let (generation, replica) = name.strip_prefix("gen-")?.split_once('-')?;
    Some(Folder::Copy(Generation(generation.parse().ok()?), ReplicaId(replica.parse().ok()?)))
}

/// Whether a copy is of use no longer. What the control log has not given out yet is not its
/// business: the log may be behind. A copy that is replaced stays until the new one is admitted.
pub fn is_stray(
    node: NodeId,
    state: &ControlState,
    database: DatabaseId,
    replica: ReplicaId,
) -> bool {
    let Some(record) = state.database(database) else { return false };
    // Until a generation that was formed anew serves, the old copies are all that there is.
    if record.reforming != 0 {
        return false;
    }
    let own = record.replica_on(node).map(|copy| copy.id());
    let seed = state.seed(database, node);
    let kept = seed.is_some_and(|seed| {
        seed.replica() == replica
            || (seed.phase() == SeedPhase::Joining && seed.replaces == replica.0)
    });
    own != Some(replica) && !kept && replica.0 < state.next_replica
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_copies_and_seeds_are_known_and_no_others() {
        let parse = |name: &str| parse(Path::new(name));
        assert!(matches!(parse("seed-12"), Some(Folder::Seed(ReplicaId(12)))));
        let copy = parse("gen-2-7");
        assert!(matches!(copy, Some(Folder::Copy(Generation(2), ReplicaId(7)))));
        for other in ["trash", "seed-source", "gen-x-7", "gen-1", "seed-", "seed-1.record"] {
            assert!(parse(other).is_none(), "{other}");
        }
    }
}
