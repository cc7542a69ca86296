//! Pipes inside one process, with the faults of a network.
//!
//! | fault | what the ends see | what it stands for |
//! | --- | --- | --- |
//! | [`MemoryNetwork::cut`] | open pipes end, new ones are refused | a host that answers with resets |
//! | [`MemoryNetwork::stall`] | silence; frames arrive late, in order | a partition, before keep-alive notices |
//! | [`MemoryNetwork::reset`] | open pipes end, new ones open | a connection that was lost |
//! | [`MemoryNetwork::delay`] | every frame takes that long | distance |

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dag_api::peer::v1 as pb;
use dag_types::NodeId;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::{Acceptor, LinkError, PeerLink, Pipe, StreamKind};

/// Frames that may wait at each end of a pipe.
const QUEUE: usize = 16;
/// Frames that may be on their way in one direction.
const FLIGHT: usize = 64;

/// A network of nodes in one process. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    acceptors: Mutex<HashMap<NodeId, Acceptor>>,
    faults: Mutex<Faults>,
    changed: watch::Sender<u64>,
    attempts: AtomicU64,
}

#[derive(Default)]
struct Faults {
    cut: HashSet<Pair>,
    stalled: HashSet<(NodeId, NodeId)>,
    resets: HashMap<Pair, u64>,
    delay: Duration,
}

/// Two nodes, the smaller first.
type Pair = (NodeId, NodeId);

fn pair(a: NodeId, b: NodeId) -> Pair {
    (a.min(b), a.max(b))
}

impl MemoryNetwork {
    /// A network without nodes or faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many pipes were asked for so far, whether they could be opened or not.
    pub fn attempts(&self) -> u64 {
        self.inner.attempts.load(Ordering::Relaxed)
    }

    /// From now on pipes to this node go to this acceptor.
    pub fn listen(&self, node: NodeId, acceptor: Acceptor) {
        self.inner.acceptors.lock().expect("no panic while held").insert(node, acceptor);
    }

    /// The node is gone: its pipes end, and no new ones reach it.
    pub fn leave(&self, node: NodeId) {
        let mut acceptors = self.inner.acceptors.lock().expect("no panic while held");
        acceptors.remove(&node);
        let others: Vec<NodeId> = acceptors.keys().copied().collect();
        drop(acceptors);
        others.into_iter().for_each(|other| self.reset(node, other));
    }

    /// The link of one node.
    pub fn link(&self, node: NodeId) -> MemoryLink {
        MemoryLink { network: self.clone(), node }
    }

    /// Ends all pipes between two nodes and refuses new ones until [`MemoryNetwork::heal`].
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.change(|faults| faults.cut.insert(pair(a, b)));
    }

    /// Ends all pipes between two nodes; new ones may open at once.
    pub fn reset(&self, a: NodeId, b: NodeId) {
        self.change(|faults| *faults.resets.entry(pair(a, b)).or_default() += 1);
    }

    /// Holds back all frames from one node to another until [`MemoryNetwork::heal`].
    pub fn stall(&self, from: NodeId, to: NodeId) {
        self.change(|faults| faults.stalled.insert((from, to)));
    }

    /// Every frame takes this long.
    pub fn delay(&self, delay: Duration) {
        self.change(|faults| faults.delay = delay);
    }

    /// Ends every cut and stall.
    pub fn heal(&self) {
        self.change(|faults| {
            faults.cut.clear();
            faults.stalled.clear();
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut Faults) -> T) {
        change(&mut self.faults());
        self.inner.changed.send_modify(|count| *count += 1);
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.inner.faults.lock().expect("no panic while held")
    }

    fn open(&self, from: NodeId, to: NodeId) -> Result<Pipe, LinkError> {
        self.inner.attempts.fetch_add(1, Ordering::Relaxed);
        let unreachable =
            |detail: &str| LinkError::Unreachable { node: to, detail: detail.to_owned() };
        if self.faults().cut.contains(&pair(from, to)) {
            return Err(unreachable("cut"));
        }
        let acceptor = self.inner.acceptors.lock().expect("no panic while held").get(&to).cloned();
        let acceptor = acceptor.ok_or_else(|| unreachable("nobody listens"))?;
        let (near, arriving_far) = self.conveyor(from, to);
        let (far, arriving_near) = self.conveyor(to, from);
        acceptor.accept(pipe(far, arriving_far));
        Ok(pipe(near, arriving_near))
    }

    /// One direction of a pipe.
    fn conveyor(
        &self,
        from: NodeId,
        to: NodeId,
    ) -> (mpsc::Sender<pb::Frame>, mpsc::Receiver<pb::Frame>) {
        let (near, leaving) = mpsc::channel(QUEUE);
        let (arriving, far) = mpsc::channel(QUEUE);
        let conveyor = Conveyor {
            network: self.clone(),
            from,
            to,
            resets: self.faults().resets.get(&pair(from, to)).copied().unwrap_or_default(),
        };
        tokio::spawn(conveyor.run(leaving, arriving));
        (near, far)
    }
}

fn pipe(sender: mpsc::Sender<pb::Frame>, receiver: mpsc::Receiver<pb::Frame>) -> Pipe {
    Pipe { sender, receiver: ReceiverStream::new(receiver).map(Ok).boxed() }
}

struct Conveyor {
    network: MemoryNetwork,
    from: NodeId,
    to: NodeId,
    resets: u64,
}

/// What the network does to a direction now.
enum Weather {
    Broken,
    Stalled,
    Open(Duration),
}

impl Conveyor {
    fn weather(&self) -> Weather {
        let faults = self.network.faults();
        let key = pair(self.from, self.to);
        let resets = faults.resets.get(&key).copied().unwrap_or_default();
        if faults.cut.contains(&key) || resets != self.resets {
            Weather::Broken
        } else if faults.stalled.contains(&(self.from, self.to)) {
            Weather::Stalled
        } else {
            Weather::Open(faults.delay)
        }
    }

    async fn run(self, mut leaving: mpsc::Receiver<pb::Frame>, arriving: mpsc::Sender<pb::Frame>) {
        let mut changed = self.network.inner.changed.subscribe();
        let mut flight: VecDeque<(Instant, pb::Frame)> = VecDeque::new();
        let mut ended = false;
        loop {
            let (open, delay) = match self.weather() {
                Weather::Broken => return,
                Weather::Stalled => (false, Duration::ZERO),
                Weather::Open(delay) => (true, delay),
            };
            if ended && flight.is_empty() {
                return;
            }
            let due = flight.front().map_or_else(Instant::now, |(sent, _)| *sent + delay);
            tokio::select! {
                biased;
                _ = changed.changed() => {}
                () = arriving.closed() => return,
                slot = deliver(due, &arriving), if open && !flight.is_empty() => {
                    let (Some(slot), Some((_, frame))) = (slot, flight.pop_front()) else { return };
                    slot.send(frame);
                }
                frame = leaving.recv(), if !ended && flight.len() < FLIGHT => match frame {
                    Some(frame) => flight.push_back((Instant::now(), frame)),
                    None => ended = true,
                },
            }
        }
    }
}

async fn deliver(
    due: Instant,
    arriving: &mpsc::Sender<pb::Frame>,
) -> Option<mpsc::Permit<'_, pb::Frame>> {
    tokio::time::sleep_until(due).await;
    arriving.reserve().await.ok()
}

/// The link of one node in a [`MemoryNetwork`].
#[derive(Clone)]
pub struct MemoryLink {
    network: MemoryNetwork,
    node: NodeId,
}

impl PeerLink for MemoryLink {
    fn connect(
        &self,
        to: NodeId,
        _kind: StreamKind,
    ) -> BoxFuture<'static, Result<Pipe, LinkError>> {
        let (network, from) = (self.network.clone(), self.node);
        Box::pin(async move { network.open(from, to) })
    }
}
