//! The network between nodes, and between them and the clients, on virtual time.
//!
//! Pipes of frames behave like connections: in order or not at all. A lost frame is sent again, so
//! it and all behind it come late; a cut holds everything back until it heals; a node that lost
//! power is silent until it is back, and only then its old connections break. The clients' calls
//! are single messages, which a cut swallows.
//!
//! The world moves everything in [`Network::step`], once per tick and in a fixed order, so that the
//! order of arrival is a matter of the seed alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dag_api::peer::v1::{self as pb, Frame};
use dag_types::NodeId;
use futures::StreamExt;
use futures::future::BoxFuture;
use prost::Message as _;
use replication::link::{Acceptor, LinkError, PeerLink, Pipe, StreamKind};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::dice::Dice;
use crate::schedule::Weather;
use crate::shape::{CLIENTS, site};
use crate::trace::Trace;

/// Frames that may wait at each end of a pipe.
const QUEUE: usize = 16;
/// Frames that may be on their way in one direction.
const FLIGHT: usize = 64;
/// What it costs to notice that a frame was lost, and to send it again.
const RESEND_MS: u64 = 40;

/// The network; clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    now_ms: u64,
    dice: Dice,
    weather: Weather,
    trace: Trace,
    listening: BTreeMap<u64, Acceptor>,
    next_pipe: u64,
    pipes: BTreeMap<u64, Direction>,
    next_post: u64,
    posts: BTreeMap<(u64, u64), Post>,
    cuts: BTreeMap<(u64, u64), u64>,
    extra_ms: u64,
    loss_permille: u64,
    /// Bits to flip in what is given of a seed next, from one node to another.
    flips: BTreeMap<(u64, u64), u64>,
    flipped: u64,
}

/// One direction of a pipe.
struct Direction {
    from: u64,
    to: u64,
    leaving: mpsc::Receiver<Frame>,
    ended: bool,
    /// The other end's node has no power: nothing moves, and nobody is told.
    silent: bool,
    flight: VecDeque<(u64, Frame)>,
    last_due: u64,
    arriving: mpsc::Sender<Frame>,
}

/// A single message that calls something at its arrival.
struct Post {
    from: u64,
    to: u64,
    arrive: Box<dyn FnOnce() + Send>,
}

impl Network {
    /// A network without nodes.
    pub fn new(dice: Dice, weather: Weather, trace: Trace) -> Self {
        let loss_permille = weather.loss_permille;
        Self(Arc::new(Mutex::new(State {
            now_ms: 0,
            dice,
            weather,
            trace,
            listening: BTreeMap::new(),
            next_pipe: 0,
            pipes: BTreeMap::new(),
            next_post: 0,
            posts: BTreeMap::new(),
            cuts: BTreeMap::new(),
            extra_ms: 0,
            loss_permille,
            flips: BTreeMap::new(),
            flipped: 0,
        })))
    }

    /// From now on pipes to this node go to this acceptor.
    pub fn listen(&self, node: u64, acceptor: Acceptor) {
        self.lock().listening.insert(node, acceptor);
    }

    /// The link of one node.
    pub fn link(&self, node: u64) -> Arc<dyn PeerLink> {
        Arc::new(Link { network: self.clone(), node })
    }

    /// The node is gone. With `silent` its connections stay as they are until it is back, as they
    /// do when the power goes; else the others notice at once.
    pub fn leave(&self, node: u64, silent: bool) {
        let mut state = self.lock();
        state.listening.remove(&node);
        if silent {
            let mine = state.pipes.values_mut().filter(|pipe| pipe.touches(node));
            mine.for_each(|pipe| pipe.silent = true);
        } else {
            state.pipes.retain(|_, pipe| !pipe.touches(node));
        }
    }

    /// The node has power again: what it had open before breaks now.
    pub fn back(&self, node: u64) {
        self.lock().pipes.retain(|_, pipe| !(pipe.silent && pipe.touches(node)));
    }

    /// All connections of a node break.
    pub fn reset(&self, node: u64) {
        self.lock().pipes.retain(|_, pipe| !pipe.touches(node));
    }

    /// Holds back everything from one to another; cuts add up.
    pub fn cut(&self, from: u64, to: u64) {
        *self.lock().cuts.entry((from, to)).or_default() += 1;
    }

    /// Takes one cut back.
    pub fn mend(&self, from: u64, to: u64) {
        if let Some(count) = self.lock().cuts.get_mut(&(from, to)) {
            *count = count.saturating_sub(1);
        }
    }

    /// Everything takes this much longer, in addition to what others asked for.
    pub fn add_delay(&self, extra_ms: u64) {
        self.lock().extra_ms += extra_ms;
    }

    /// Takes that back.
    pub fn remove_delay(&self, extra_ms: u64) {
        let mut state = self.lock();
        state.extra_ms = state.extra_ms.saturating_sub(extra_ms);
    }

    /// So many frames in a thousand are lost; `None` is as at the beginning.
    pub fn set_loss(&self, permille: Option<u64>) {
        let mut state = self.lock();
        state.loss_permille = permille.unwrap_or(state.weather.loss_permille);
    }

    /// A bit flips in the next piece of a seed from one to another.
    pub fn flip(&self, from: u64, to: u64, draw: u64) {
        self.lock().flips.insert((from, to), draw);
    }

    /// Bits that flipped so far.
    pub fn flipped(&self) -> u64 {
        self.lock().flipped
    }

    /// No fault is left.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.cuts.clear();
        state.flips.clear();
        state.extra_ms = 0;
        state.loss_permille = 0;
    }

    /// Nothing is on its way any more.
    pub fn clear(&self) {
        let (pipes, posts) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.pipes), std::mem::take(&mut state.posts))
        };
        drop((pipes, posts));
    }

    /// Sends a single message; it calls `arrive` unless it gets lost.
    pub fn post(&self, from: u64, to: u64, arrive: Box<dyn FnOnce() + Send>) {
        let mut state = self.lock();
        let lost = state.loss_permille;
        if state.is_cut(from, to) || state.dice.chance(lost) {
            return;
        }
        let due = state.now_ms + state.latency(from, to);
        state.next_post += 1;
        let key = (due, state.next_post);
        state.posts.insert(key, Post { from, to, arrive });
    }

    /// Moves everything that is due.
    pub fn step(&self, now_ms: u64) {
        let arrivals = {
            let mut guard = self.lock();
            let state = &mut *guard;
            state.now_ms = now_ms;
            state.move_pipes();
            state.take_posts()
        };
        for arrive in arrivals {
            arrive();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Direction {
    fn touches(&self, node: u64) -> bool {
        self.from == node || self.to == node
    }
}

impl State {
    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|count| *count > 0)
    }

    fn latency(&mut self, from: u64, to: u64) -> u64 {
        let (least, most) = self.weather.delay_ms;
        let distance = match (from, to) {
            (CLIENTS, _) | (_, CLIENTS) => 0,
            (from, to) if site(from) == site(to) => 0,
            _ => self.weather.between_sites_ms,
        };
        self.dice.between(least, most) + distance + self.extra_ms
    }

    fn move_pipes(&mut self) {
        let mut pipes = std::mem::take(&mut self.pipes);
        pipes.retain(|id, pipe| pipe.silent || self.move_pipe(*id, pipe));
        self.pipes = pipes;
    }

    /// False where the direction has ended.
    fn move_pipe(&mut self, id: u64, pipe: &mut Direction) -> bool {
        while !pipe.ended && pipe.flight.len() < FLIGHT {
            match pipe.leaving.try_recv() {
                Ok(frame) => {
                    let lost = self.dice.chance(self.loss_permille);
                    let again = if lost { RESEND_MS } else { 0 };
                    let latency = self.latency(pipe.from, pipe.to) + again;
                    pipe.last_due = pipe.last_due.max(self.now_ms + latency);
                    pipe.flight.push_back((pipe.last_due, frame));
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => pipe.ended = true,
            }
        }
        if self.is_cut(pipe.from, pipe.to) {
            return true;
        }
        while pipe.flight.front().is_some_and(|(due, _)| *due <= self.now_ms) {
            let Ok(slot) = pipe.arriving.try_reserve() else {
                return !pipe.arriving.is_closed();
            };
            let (_, mut frame) = pipe.flight.pop_front().expect("looked at above");
            if let Some(draw) = self.flips.get(&(pipe.from, pipe.to))
                && flip(&mut frame, *draw)
            {
                self.flips.remove(&(pipe.from, pipe.to));
                self.flipped += 1;
            }
            self.trace.note("frame", &[id, pipe.from, pipe.to, frame.encoded_len() as u64]);
            slot.send(frame);
        }
        !(pipe.arriving.is_closed() || pipe.ended && pipe.flight.is_empty())
    }

    fn take_posts(&mut self) -> Vec<Box<dyn FnOnce() + Send>> {
        let mut arrivals = Vec::new();
        while let Some(entry) = self.posts.first_entry() {
            if entry.key().0 > self.now_ms {
                break;
            }
            let ((_, number), post) = entry.remove_entry();
            if !self.is_cut(post.from, post.to) {
                self.trace.note("post", &[number, post.from, post.to]);
                arrivals.push(post.arrive);
            }
        }
        arrivals
    }

    fn open(&mut self, from: u64, to: u64) -> Result<(Pipe, Pipe, Acceptor), LinkError> {
        let refused =
            |detail: &str| LinkError::Unreachable { node: NodeId(to), detail: detail.to_owned() };
        if self.is_cut(from, to) || self.is_cut(to, from) {
            return Err(refused("no answer"));
        }
        let acceptor = self.listening.get(&to).cloned().ok_or_else(|| refused("refused"))?;
        self.trace.note("connect", &[self.next_pipe, from, to]);
        let (near, arriving_far) = self.direction(from, to);
        let (far, arriving_near) = self.direction(to, from);
        Ok((pipe(near, arriving_near), pipe(far, arriving_far), acceptor))
    }

    fn direction(&mut self, from: u64, to: u64) -> (mpsc::Sender<Frame>, mpsc::Receiver<Frame>) {
        let (sender, leaving) = mpsc::channel(QUEUE);
        let (arriving, receiver) = mpsc::channel(QUEUE);
        self.next_pipe += 1;
        let direction = Direction {
            from,
            to,
            leaving,
            ended: false,
            silent: false,
            flight: VecDeque::new(),
            last_due: 0,
            arriving,
        };
        self.pipes.insert(self.next_pipe, direction);
        (sender, receiver)
    }
}

/// Flips a bit of what a seed's frame carries; false where it carries nothing of a copy.
fn flip(frame: &mut Frame, draw: u64) -> bool {
    let Some(pb::frame::Frame::SeedReply(reply)) = &mut frame.frame else { return false };
    let carried = match &mut reply.reply {
        Some(pb::seed_reply::Reply::Frame(piece)) => &mut piece.bytes,
        Some(pb::seed_reply::Reply::Delta(answer)) => {
            let Some(row) = answer.rows.first_mut() else { return false };
            &mut row.value
        }
        _ => return false,
    };
    if carried.is_empty() {
        return false;
    }
    let mut bytes = carried.to_vec();
    let bit = draw as usize % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    *carried = bytes.into();
    true
}

fn pipe(sender: mpsc::Sender<Frame>, receiver: mpsc::Receiver<Frame>) -> Pipe {
    Pipe { sender, receiver: ReceiverStream::new(receiver).map(Ok).boxed() }
}

struct Link {
    network: Network,
    node: u64,
}

impl PeerLink for Link {
    fn connect(
        &self,
        to: NodeId,
        _kind: StreamKind,
    ) -> BoxFuture<'static, Result<Pipe, LinkError>> {
        let (network, from) = (self.network.clone(), self.node);
        Box::pin(async move {
            let trip = {
                let mut state = network.lock();
                state.latency(from, to.0) + state.latency(to.0, from)
            };
            tokio::time::sleep(Duration::from_millis(trip)).await;
            let opened = network.lock().open(from, to.0);
            let (near, far, acceptor) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    // Nobody says no to a packet that does not arrive.
                    tokio::time::sleep(Duration::from_millis(RESEND_MS)).await;
                    return Err(error);
                }
            };
            acceptor.accept(far);
            Ok(near)
        })
    }
}

/// The nodes on one side of a cut, and all others.
pub fn sides(one: &BTreeSet<u64>, nodes: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let others: Vec<u64> = nodes.filter(|node| !one.contains(node)).collect();
    let pairs = one.iter().flat_map(|a| others.iter().map(move |b| (*a, *b)));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}
