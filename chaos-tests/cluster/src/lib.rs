//! Faults against real clusters: real processes, real sockets on loopback, real disks.
//!
//! The tests stand in `tests/it`; here is what they share. Each test makes a cluster of its own in
//! a temporary folder, and nothing of it is left afterwards. They take turns, because a machine of
//! two cores that runs five clusters at once tests its scheduler.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`trial`] | a cluster with a history: phases, faults, and the verdict at the end |
//! | [`work`] | clients that append, change flags, read and expunge, and write down what they saw |
//! | [`ask`] | what `dagctl` says of the cluster |
//! | [`damage`] | flips bits and cuts files of a node that is down |
//! | [`volume`] | disks of copies that can be filled |

pub mod ask;
pub mod cuts;
pub mod damage;
pub mod trial;
pub mod volume;
pub mod work;

use std::sync::OnceLock;

use tokio::sync::{Mutex, MutexGuard};

/// Waits until no other test runs a cluster.
pub async fn turn() -> MutexGuard<'static, ()> {
    static TURN: OnceLock<Mutex<()>> = OnceLock::new();
    TURN.get_or_init(Mutex::default).lock().await
}

/// A number from the environment, for runs that are longer than those of every day.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => default,
    }
}
