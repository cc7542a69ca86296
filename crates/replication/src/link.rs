//! The seam to the other nodes: ordered pipes of frames.
//!
//! A pipe is what a connection gives: frames arrive in order or the pipe ends. It is bounded, so
//! sending waits when the other side does not read. Two implementations: [`grpc`] in production,
//! [`memory`] in tests and simulations, which can cut, stall and delay.

pub mod grpc;
pub mod memory;

use dag_api::peer::v1 as pb;
use dag_types::NodeId;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::peer::Refusal;

/// What a stream between two nodes is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// Heartbeats, votes, transfers: small, and answered at once.
    Control,
    /// Log entries of all groups.
    Append,
    /// One whole state.
    Bulk,
    /// A copy's files, range by range.
    Seed,
}

impl StreamKind {
    pub(crate) fn to_wire(self) -> pb::StreamKind {
        match self {
            Self::Control => pb::StreamKind::Control,
            Self::Append => pb::StreamKind::Append,
            Self::Bulk => pb::StreamKind::Bulk,
            Self::Seed => pb::StreamKind::Seed,
        }
    }

    pub(crate) fn from_wire(wire: pb::StreamKind) -> Option<Self> {
        match wire {
            pb::StreamKind::Unspecified => None,
            pb::StreamKind::Control => Some(Self::Control),
            pb::StreamKind::Append => Some(Self::Append),
            pb::StreamKind::Bulk => Some(Self::Bulk),
            pb::StreamKind::Seed => Some(Self::Seed),
        }
    }
}

/// One end of an ordered, bounded exchange of frames. Dropping either half closes the pipe.
pub struct Pipe {
    /// Frames to the other end; waits while the other end does not read.
    pub sender: mpsc::Sender<pb::Frame>,
    /// Frames from the other end; ends, with or without an error, when the pipe is broken.
    pub receiver: BoxStream<'static, Result<pb::Frame, LinkError>>,
}

/// Why frames do not reach a node.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkError {
    /// No connection could be made.
    #[error("connect to node {node}: {detail}")]
    Unreachable {
        /// Whom to.
        node: NodeId,
        /// The transport's own words.
        detail: String,
    },
    /// The connection broke.
    #[error("the connection broke: {detail}")]
    Broken {
        /// The transport's own words.
        detail: String,
    },
    /// The answer did not come in time.
    #[error("no answer in time")]
    Deadline,
    /// The other node refused.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
}

impl LinkError {
    pub(crate) fn broken(detail: impl ToString) -> Self {
        Self::Broken { detail: detail.to_string() }
    }
}

/// Makes pipes from this node to others.
pub trait PeerLink: Send + Sync + 'static {
    /// Opens a new pipe. Each call makes its own connection: votes never share one with mail.
    fn connect(&self, to: NodeId, kind: StreamKind) -> BoxFuture<'static, Result<Pipe, LinkError>>;
}

/// Takes the pipes that other nodes open, and hands them to the registry.
#[derive(Debug, Clone)]
pub struct Acceptor {
    pipes: mpsc::UnboundedSender<Pipe>,
}

impl Acceptor {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Pipe>) {
        let (pipes, arriving) = mpsc::unbounded_channel();
        (Self { pipes }, arriving)
    }

    /// Hands over a pipe; it is closed where the registry has stopped.
    pub fn accept(&self, pipe: Pipe) {
        // A failed send drops the pipe, which closes it: the right answer of a stopped node.
        let _ = self.pipes.send(pipe);
    }
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipe")
    }
}
