//! Streams on which a node gives the files of a copy to another node.
//!
//! Raft knows nothing of them: they carry a copy that is not a member yet. What they share with
//! the other streams is who may open one, and that they end when an identity changes.

use dag_types::NodeId;
use futures::StreamExt;
use futures::future::BoxFuture;

use crate::link::{LinkError, Pipe, StreamKind};
use crate::mux::Peers;

/// Answers the seed streams that other nodes open.
pub trait SeedServer: Send + Sync + 'static {
    /// Serves one stream to its end. The future is dropped when the stream may not stay open.
    fn serve(&self, from: NodeId, pipe: Pipe) -> BoxFuture<'static, ()>;
}

/// Opens a seed stream to another node. Its receiver ends when the stream may not stay open.
pub(crate) async fn open(peers: &Peers, to: NodeId) -> Result<Pipe, LinkError> {
    let dialer = peers.dialer();
    let (pipe, mut validity) = dialer.open(to, StreamKind::Seed).await?.split(dialer);
    let Pipe { sender, receiver } = pipe;
    let ended = async move { drop(validity.ended().await) };
    Ok(Pipe { sender, receiver: receiver.take_until(ended).boxed() })
}
