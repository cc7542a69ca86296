//! Who is let in: decided before anything is proposed, so that a refusal is certain and cheap.
//!
//! A node that takes more than it can work off does not get faster; it only holds everybody's mail
//! in memory longer. So each request asks for admission with the bytes that it brings. Beyond the
//! node's or the database's budget it is refused at once, with the time after which a repetition
//! makes sense. Nothing waits in line here: the caller's own retries are the line.
//!
//! Writes are refused before the volume is full, because a full volume would fail the copy. Reads
//! go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dag_types::DatabaseId;
use thiserror::Error;

use crate::settings::Budget;

/// Why a request was not let in. Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The node works on as many requests as it may.
    #[error("this node works on {value} requests and admits {limit}; try again soon")]
    Requests {
        /// How many there would be.
        value: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The node holds as many bytes of requests as it may.
    #[error("this node would hold {value} bytes of requests and admits {limit}; try again soon")]
    NodeBytes {
        /// How many there would be.
        value: u64,
        /// How many there may be.
        limit: u64,
    },
    /// One database's requests hold as many bytes as they may.
    #[error(
        "database {database} would hold {value} bytes of requests and is admitted {limit}; try again soon"
    )]
    DatabaseBytes {
        /// Which.
        database: DatabaseId,
        /// How many there would be.
        value: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The state of this copy, or of all, waits for its flush with too many bytes.
    #[error("this node's disk is behind with writing state; try again soon")]
    Flushing,
    /// The volume is nearly full.
    #[error(
        "the disk has {free} bytes left and {reserve} are kept back; free space, or move databases away"
    )]
    DiskLow {
        /// What is left.
        free: u64,
        /// What is kept back.
        reserve: u64,
    },
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only reads.
    Read,
    /// It proposes.
    Write,
}

/// The node's budgets and what is in use of them.
#[derive(Debug)]
pub struct Admission {
    budget: Budget,
    load: Arc<Mutex<Load>>,
    /// Bytes left on the volume, as measured last.
    free_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Load {
    requests: u64,
    bytes: u64,
    by_database: HashMap<DatabaseId, u64>,
}

/// A request's share of the budget; given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    load: Arc<Mutex<Load>>,
    database: DatabaseId,
    bytes: u64,
}

impl Admission {
    /// Nothing in flight. Until the volume was measured it is taken for empty.
    pub fn new(budget: Budget) -> Self {
        Self { budget, load: Arc::default(), free_bytes: AtomicU64::new(u64::MAX) }
    }

    /// Lets a request in, or says why not.
    pub fn admit(&self, database: DatabaseId, kind: Kind, bytes: u64) -> Result<Permit, Refusal> {
        if kind == Kind::Write {
            self.check_disk()?;
        }
        let mut load = self.load.lock().expect(UNPOISONED);
        self.check_load(&load, database, bytes)?;
        load.requests += 1;
        load.bytes += bytes;
        *load.by_database.entry(database).or_default() += bytes;
        Ok(Permit { load: self.load.clone(), database, bytes })
    }

    /// Notes how much is left on the volume.
    pub fn measured(&self, free_bytes: u64) {
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
    }

    /// Whether writes are refused because the volume is nearly full.
    pub fn disk_is_low(&self) -> bool {
        self.check_disk().is_err()
    }

    fn check_disk(&self) -> Result<(), Refusal> {
        let (free, reserve) = (self.free_bytes.load(Ordering::Relaxed), self.budget.disk_reserve.0);
        if free < reserve { Err(Refusal::DiskLow { free, reserve }) } else { Ok(()) }
    }

    fn check_load(&self, load: &Load, database: DatabaseId, bytes: u64) -> Result<(), Refusal> {
        let limit = u64::from(self.budget.requests);
        if load.requests >= limit {
            return Err(Refusal::Requests { value: load.requests + 1, limit });
        }
        let (value, limit) = (load.bytes + bytes, self.budget.in_flight.0);
        if value > limit {
            return Err(Refusal::NodeBytes { value, limit });
        }
        let held = load.by_database.get(&database).copied().unwrap_or(0);
        let (value, limit) = (held + bytes, self.budget.in_flight_per_database.0);
        if value > limit {
            return Err(Refusal::DatabaseBytes { database, value, limit });
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut load = self.load.lock().expect(UNPOISONED);
        load.requests -= 1;
        load.bytes -= self.bytes;
        // Reads count no bytes: a database that has only these is not in the map.
        if let Some(held) = load.by_database.get_mut(&self.database) {
            *held -= self.bytes;
            if *held == 0 {
                load.by_database.remove(&self.database);
            }
        }
    }
}

const UNPOISONED: &str = "no holder of this lock panics";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Size;

    const A: DatabaseId = DatabaseId(16);
    const B: DatabaseId = DatabaseId(17);

    fn admission() -> Admission {
        Admission::new(Budget {
            requests: 4,
            in_flight: Size(100),
            in_flight_per_database: Size(60),
            disk_reserve: Size(1000),
            ..Budget::default()
        })
    }

    fn refused(admission: &Admission, database: DatabaseId, bytes: u64) -> Refusal {
        admission.admit(database, Kind::Write, bytes).expect_err("too much")
    }

    #[test]
    fn each_budget_refuses_by_itself_and_names_value_and_limit() {
        let admission = admission();
        let _first = admission.admit(A, Kind::Write, 50).unwrap();
        let too_many = Refusal::DatabaseBytes { database: A, value: 61, limit: 60 };
        assert_eq!(refused(&admission, A, 11), too_many);
        let _second = admission.admit(B, Kind::Write, 50).unwrap();
        assert_eq!(refused(&admission, B, 1), Refusal::NodeBytes { value: 101, limit: 100 });
        let _third = admission.admit(A, Kind::Read, 0).unwrap();
        let _fourth = admission.admit(A, Kind::Read, 0).unwrap();
        assert_eq!(refused(&admission, A, 0), Refusal::Requests { value: 5, limit: 4 });
    }

    #[test]
    fn what_is_done_gives_its_share_back() {
        let admission = admission();
        for _ in 0..10 {
            let permit = admission.admit(A, Kind::Write, 60).unwrap();
            refused(&admission, A, 1);
            drop(permit);
        }
        let load = admission.load.lock().unwrap();
        assert_eq!((load.requests, load.bytes, load.by_database.len()), (0, 0, 0));
    }

    #[test]
    fn a_nearly_full_disk_refuses_writes_and_lets_reads_go_on() {
        let admission = admission();
        admission.measured(999);
        assert_eq!(refused(&admission, A, 1), Refusal::DiskLow { free: 999, reserve: 1000 });
        assert!(admission.admit(A, Kind::Read, 1).is_ok());
        admission.measured(1000);
        assert!(admission.admit(A, Kind::Write, 1).is_ok());
    }

    #[test]
    fn reads_side_by_side_are_given_back_in_any_order() {
        let admission = admission();
        let reads = [(); 3].map(|()| admission.admit(A, Kind::Read, 0).expect("let in"));
        let write = admission.admit(A, Kind::Write, 10).expect("let in");
        drop(reads);
        drop(write);
        assert!(admission.load.lock().expect("unpoisoned").by_database.is_empty());
        assert_eq!(admission.load.lock().expect("unpoisoned").requests, 0);
    }
}
