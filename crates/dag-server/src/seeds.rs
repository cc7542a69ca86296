//! Copies that this node gives to others, and copies that are built here.
//!
//! ```text
//!  control log: a seed is under way
//!     │                       stream of requests and frames
//!     ▼                  ┌──────────────────────────────────┐
//!  builder (target) ─────┘   giver (source): checkpoints    │
//!     │ built: its report says so                           └─ any healthy copy
//!     ▼
//!  control leader (service/admin/seeding.rs): in its place, compared, admitted
//! ```
//! The bytes are `seeding`'s business; here are threads, streams and the order of things.

pub mod builder;
pub mod giver;
mod house;
mod old;
mod strays;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use dag_types::{DatabaseId, Millis, NodeId, ReplicaId};
use seeding::progress::Progress;
use seeding::source::Source;
use seeding::target::Way;

pub use house::keep_house;

/// Where checkpoints lie below a database's folder.
const CHECKPOINTS: &str = "seed-source";

/// What a node gives and builds.
pub struct Seeds {
    sources: Mutex<BTreeMap<DatabaseId, Arc<Mutex<Source>>>>,
    shown: Mutex<BTreeMap<ReplicaId, Shown>>,
    began: Instant,
}

/// How a copy that is built here stands.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// What is durable, and how fast it goes.
    pub progress: Progress,
    /// Other copies are built first.
    pub waits: bool,
    /// Whom it is built from now.
    pub source: Option<NodeId>,
    /// Why it does not go on at this moment.
    pub message: String,
    /// It cannot go on.
    pub failed: bool,
    /// How it comes here, and what that costs.
    pub way: Option<Way>,
}

impl Default for Seeds {
    fn default() -> Self {
        let (sources, shown) = (Mutex::default(), Mutex::default());
        Self { sources, shown, began: Instant::now() }
    }
}

impl Seeds {
    /// How a copy that is built here stands.
    pub fn shown(&self, replica: ReplicaId) -> Option<Shown> {
        self.held().get(&replica).cloned()
    }

    /// No more is given of a copy; its checkpoints stay for a while.
    pub fn close_source(&self, database: DatabaseId) {
        self.sources.lock().expect(UNPOISONED).remove(&database);
    }

    fn show(&self, replica: ReplicaId, change: impl FnOnce(&mut Shown)) {
        change(self.held().entry(replica).or_default());
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Shown>> {
        self.shown.lock().expect(UNPOISONED)
    }

    /// The clock of limits, leases and rates.
    fn now(&self) -> Millis {
        Millis(self.began.elapsed().as_millis() as u64)
    }
}

fn checkpoints(database_folder: PathBuf) -> PathBuf {
    database_folder.join(CHECKPOINTS)
}

const UNPOISONED: &str = "no holder of this lock panics";
