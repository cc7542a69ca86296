//! Three streams to each other node, shared by all groups.
//!
//! ```text
//!            node A (asks)                                   node B (answers)
//!   group 1 ─┐                 Control: calls ───────────►  a task per call ─► Raft of the group
//!   group 2 ─┼─ one client     ◄─────────── answers
//!   group n ─┘                 Append: calls of sessions ►  a queue and a task per session
//!                              ◄─────────── acks
//!   a snapshot ─────────────── Bulk: one stream each ────►  a fresh state
//! ```
//! Each node opens its own three streams to each other node, lazily; on a stream only the opener
//! asks. What keeps one slow group from holding up the others, and two nodes from waiting for each
//! other:
//!
//! - **No receiving loop ever waits.** The server's loops hand a frame to a queue that has room, or
//!   end the session that overran its credit; the clients' loops complete a waiting call or session.
//!   So both directions of a pipe always drain, and no cycle of full buffers can form.
//! - **Credit per session.** A leader has at most [`credit`](crate::Options::append_credit_bytes)
//!   unanswered towards one follower of one group. A follower that is stuck fills its own queue and
//!   nothing else.
//! - **A place in the shared outbox is taken only with a message in hand**, never by an idle
//!   session waiting for its next one.
//! - **Sessions end on both sides:** by the leader's notice, by the follower's answer, or with the
//!   pipe; what is late for an ended session is dropped.

pub(crate) mod append;
pub(crate) mod control;
pub(crate) mod dial;
pub(crate) mod serve;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dag_types::NodeId;
use tokio::sync::Semaphore;

use append::AppendClient;
use control::ControlClient;
use dial::Dialer;

/// The clients of all other nodes.
pub(crate) struct Peers {
    dialer: Arc<Dialer>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    /// Snapshots that may be sent at a time, to all nodes together.
    bulk: Arc<Semaphore>,
}

/// The clients of one other node.
pub(crate) struct Peer {
    pub control: ControlClient,
    pub append: AppendClient,
}

impl Peers {
    pub fn new(dialer: Arc<Dialer>, bulk_at_a_time: usize) -> Self {
        let bulk = Arc::new(Semaphore::new(bulk_at_a_time));
        Self { dialer, peers: Mutex::default(), bulk }
    }

    /// The clients of a node; made at first use.
    pub fn get(&self, node: NodeId) -> Arc<Peer> {
        let mut peers = self.peers.lock().expect("no panic while the table is held");
        let peer = peers.entry(node).or_insert_with(|| {
            Arc::new(Peer {
                control: ControlClient::start(self.dialer.clone(), node),
                append: AppendClient::new(self.dialer.clone(), node),
            })
        });
        peer.clone()
    }

    pub fn dialer(&self) -> &Arc<Dialer> {
        &self.dialer
    }

    pub fn bulk(&self) -> &Arc<Semaphore> {
        &self.bulk
    }
}
