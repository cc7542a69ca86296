//! Snapshots that are open for reading: a few at a time, each closed when nobody reads it any more.
//!
//! An open one costs file handles and some memory for as long as it is open, so how many there are
//! is bounded by this node and not by how many people look.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dag_api::{Problem, Reason};
use seeding::SeedFault;
use seeding::snapshot::SnapshotId;
use storage::state::{StateError, StateRead};

use super::{UNPOISONED, damaged, failed};

/// How many may be open.
const OPEN_MAX: usize = 4;
/// How long one stays open that nobody reads.
const IDLE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub struct Mounts(Mutex<BTreeMap<SnapshotId, Mounted>>);

struct Mounted {
    view: Arc<dyn StateRead>,
    used: Instant,
}

impl Mounted {
    fn is_read(&self) -> bool {
        Arc::strong_count(&self.view) > 1
    }
}

impl Mounts {
    /// The snapshot, opened where it is not open yet.
    pub fn open(
        &self,
        id: SnapshotId,
        open: impl FnOnce() -> Result<Arc<dyn StateRead>, SeedFault>,
    ) -> Result<Arc<dyn StateRead>, Problem> {
        let mut mounted = self.0.lock().expect(UNPOISONED);
        if let Some(known) = mounted.get_mut(&id) {
            known.used = Instant::now();
            return Ok(known.view.clone());
        }
        if mounted.len() >= OPEN_MAX {
            let unread = mounted.iter().filter(|(_, known)| !known.is_read());
            let oldest = unread.min_by_key(|(_, known)| known.used).map(|(id, _)| *id);
            mounted.remove(&oldest.ok_or_else(busy)?);
        }
        let view = open().map_err(|fault| match &fault {
            SeedFault::State(StateError::Damaged { .. } | StateError::Corrupt { .. }) => {
                damaged(id, &fault.to_string())
            }
            _ => failed(&fault),
        })?;
        mounted.insert(id, Mounted { view: view.clone(), used: Instant::now() });
        Ok(view)
    }

    /// Closes one; whoever reads it at this moment reads on to the end of the call.
    pub fn close(&self, id: SnapshotId) {
        self.0.lock().expect(UNPOISONED).remove(&id);
    }

    /// Closes those that nobody has read for a while.
    pub fn close_idle(&self) {
        let mut mounted = self.0.lock().expect(UNPOISONED);
        mounted.retain(|_, known| known.is_read() || known.used.elapsed() < IDLE);
    }
}

fn busy() -> Problem {
    let text = format!("{OPEN_MAX} snapshots are being read on this node; try again soon");
    let problem = Problem::new(Reason::Overloaded, text).check("snapshots_open");
    problem.limit(OPEN_MAX as u64, OPEN_MAX as u64).retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use storage::state::Row;

    struct Empty;

    impl StateRead for Empty {
        fn get(&self, _: &[u8]) -> Result<Option<Bytes>, StateError> {
            Ok(None)
        }
        fn scan(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<Row>, StateError> {
            Ok(Vec::new())
        }
        fn scan_back(&self, _: &[u8], _: &[u8], _: usize) -> Result<Vec<Row>, StateError> {
            Ok(Vec::new())
        }
    }

    fn open(mounts: &Mounts, id: u128, opened: &mut u32) -> Result<Arc<dyn StateRead>, Problem> {
        mounts.open(SnapshotId(id), || {
            *opened += 1;
            Ok(Arc::new(Empty))
        })
    }

    #[test]
    fn few_are_open_and_what_is_being_read_is_never_closed_for_another() {
        let (mounts, mut opened) = (Mounts::default(), 0);
        for id in 0..10 {
            drop(open(&mounts, id, &mut opened).expect("nobody reads the others"));
            assert!(mounts.0.lock().unwrap().len() <= OPEN_MAX);
        }
        assert_eq!(opened, 10);
        drop(open(&mounts, 9, &mut opened).unwrap());
        assert_eq!(opened, 10, "it was open");
        let read: Vec<_> = (20..24).map(|id| open(&mounts, id, &mut opened).unwrap()).collect();
        let refused = open(&mounts, 30, &mut opened).err().expect("four are being read");
        assert_eq!(refused.reason, Reason::Overloaded);
        drop(read);
        assert!(open(&mounts, 30, &mut opened).is_ok());
        mounts.close(SnapshotId(30));
        assert_eq!(mounts.0.lock().unwrap().len(), OPEN_MAX - 1);
    }

    #[test]
    fn one_that_does_not_open_leaves_no_trace() {
        let mounts = Mounts::default();
        let refuse = || Err(StateError::Damaged { operation: "open", detail: "x".into() }.into());
        let problem = mounts.open(SnapshotId(1), refuse).err().expect("damaged");
        assert_eq!(problem.reason, Reason::SnapshotDamaged);
        assert!(mounts.0.lock().unwrap().is_empty());
    }
}
