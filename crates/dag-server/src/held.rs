//! Copies that are stopped while it is decided which one a database goes on from.
//!
//! A database that lost its majority is formed anew from the copy whose log ends last. Which one that
//! is can only be said of copies that stand still, so the control leader has each of them stopped
//! first. A hold ends with its operation, with the generation that it was about, or with the process:
//! then the gate is closed, and its next opening is on record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use active_manager::control::ControlState;
use active_manager::reform::Survivor;
use dag_types::{DatabaseId, Generation};

use crate::steps::is_over;

/// The holds of a node.
#[derive(Debug, Default)]
pub struct Held(Mutex<BTreeMap<DatabaseId, Hold>>);

/// A copy that is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// For which operation.
    pub operation: u64,
    /// The incarnation of its group.
    pub generation: Generation,
    /// Where its log ends; none while it is being stopped.
    pub stands: Option<Survivor>,
}

impl Held {
    /// The databases whose copies are held, as the applied control log has it.
    pub fn databases(&self, control: Option<&ControlState>) -> BTreeSet<DatabaseId> {
        let mut held = self.held();
        held.retain(|database, hold| control.is_none_or(|state| holds(state, *database, hold)));
        held.keys().copied().collect()
    }

    /// How a copy stands that is held for an operation.
    pub fn of(&self, database: DatabaseId, operation: u64) -> Option<Hold> {
        self.held().get(&database).filter(|hold| hold.operation == operation).cloned()
    }

    /// Holds a copy from now on.
    pub fn hold(&self, database: DatabaseId, hold: Hold) {
        self.held().insert(database, hold);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<DatabaseId, Hold>> {
        self.0.lock().expect("no panic while the holds are held")
    }
}

fn holds(state: &ControlState, database: DatabaseId, hold: &Hold) -> bool {
    let same = state.database(database).is_some_and(|known| known.generation() == hold.generation);
    same && !is_over(state, hold.operation)
}
