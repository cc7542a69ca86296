//! Threads that look after what a node has, in rounds.
//!
//! What waits for the disk for a long time (tidying, reading through, snapshots) keeps away from the
//! runtime's threads. Such a thread holds the node only while a round lasts, so it never keeps one
//! alive that is being stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::bulk;
use crate::node::Node;

/// How soon a thread notices that the node stops, or that a round is due.
const LOOK: Duration = Duration::from_millis(500);

/// Starts a thread that does a round, with `pause` before each; it ends with the node. A round may
/// start tasks.
pub fn start(
    node: &Arc<Node>,
    name: &str,
    pause: Duration,
    mut round: impl FnMut(&Arc<Node>) + Send + 'static,
) -> std::io::Result<()> {
    let node = Arc::downgrade(node);
    let runtime = Handle::current();
    let rounds = move || {
        bulk::yield_to_mail();
        let _runtime = runtime.enter();
        let mut ended = Instant::now();
        loop {
            std::thread::sleep(LOOK.min(pause));
            let Some(node) = node.upgrade().filter(|node| !node.stopping.is_cancelled()) else {
                return;
            };
            if ended.elapsed() >= pause {
                round(&node);
                ended = Instant::now();
            }
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(rounds).map(drop)
}
