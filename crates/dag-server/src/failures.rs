//! Which copies of this node have failed, and why. A copy that takes the place of a failed one
//! begins without its failures.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use dag_types::{DatabaseId, ReplicaId};

/// The failed copies of a node, at most one of a database.
#[derive(Debug, Default)]
pub struct Failures(Mutex<BTreeMap<DatabaseId, (ReplicaId, String)>>);

impl Failures {
    /// Why the copy of a database has failed.
    pub fn of(&self, database: DatabaseId) -> Option<String> {
        self.held().get(&database).map(|(_, why)| why.clone())
    }

    /// Why this very copy has failed. The one that it replaces may have failed before.
    pub fn of_copy(&self, database: DatabaseId, replica: ReplicaId) -> Option<String> {
        let held = self.held();
        let failed = held.get(&database).filter(|(failed, _)| *failed == replica);
        failed.map(|(_, why)| why.clone())
    }

    /// Notes a failure; the first one of a copy stays. Gives whether it is the first one.
    pub fn note(&self, database: DatabaseId, replica: ReplicaId, why: &str) -> bool {
        let mut held = self.held();
        let known = held.get(&database).is_some_and(|(failed, _)| *failed == replica);
        if !known {
            held.insert(database, (replica, why.to_owned()));
        }
        !known
    }

    /// Another copy takes the place of the failed one.
    pub fn forget(&self, database: DatabaseId) {
        self.held().remove(&database);
    }

    /// All failed copies.
    pub fn replicas(&self) -> BTreeMap<DatabaseId, ReplicaId> {
        self.held().iter().map(|(database, (replica, _))| (*database, *replica)).collect()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<DatabaseId, (ReplicaId, String)>> {
        self.0.lock().expect("no panic while the failures are held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_of_a_copy_stays_and_the_next_copy_begins_without_it() {
        let failures = Failures::default();
        let database = DatabaseId(16);
        assert!(failures.note(database, ReplicaId(3), "crc"));
        assert!(!failures.note(database, ReplicaId(3), "later"));
        assert_eq!(failures.of(database).as_deref(), Some("crc"));
        assert_eq!(failures.of_copy(database, ReplicaId(9)), None, "the one in its place is sound");
        assert!(failures.note(database, ReplicaId(9), "disk"));
        assert_eq!(failures.replicas()[&database], ReplicaId(9));
        failures.forget(database);
        assert_eq!(failures.of(database), None);
    }
}
