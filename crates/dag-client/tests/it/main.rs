//! The client against nodes that move, refuse, lose answers and answer late, over real connections.

mod calls;
mod deliveries;
mod fake;
mod sessions;

use std::time::Duration;

use dag_client::{Client, Jitter, Options};
use fake::Cluster;

/// Long enough for a busy machine, short enough to wait for its end.
const ATTEMPT: Duration = Duration::from_millis(800);

/// Short times, and pauses that repeat themselves.
fn options() -> Options {
    Options {
        attempt: ATTEMPT,
        patience: Duration::from_secs(20),
        pause_first: Duration::from_millis(2),
        pause_max: Duration::from_millis(20),
        jitter: Jitter::from_source(|| 7),
        ..Options::default()
    }
}

fn client(cluster: &Cluster) -> Client {
    Client::connect(cluster.endpoints(), options()).unwrap()
}

/// Bytes that differ at every place.
fn content(size: usize) -> bytes::Bytes {
    (0..size).map(|at| (at * 31 + at / 251) as u8).collect::<Vec<_>>().into()
}
