//! Opening a stream: connect, say who we are, hear who they are.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dag_api::peer::v1 as pb;
use dag_types::NodeId;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::gate::ServingGate;
use crate::link::{LinkError, PeerLink, Pipe, StreamKind};
use crate::peer::{self, PeerIdentity, PeerRegistry, Refusal};
use crate::seeds::SeedServer;

/// How long the other side may take for its Hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(2);

/// Opens streams, and judges whether open ones may stay.
pub(crate) struct Dialer {
    pub link: Arc<dyn PeerLink>,
    pub registry: Arc<dyn PeerRegistry>,
    /// Where messages about gates go.
    pub gate: Option<Arc<dyn ServingGate>>,
    /// Who answers seed streams; they are closed where nobody does.
    pub seeds: OnceLock<Arc<dyn SeedServer>>,
    /// Counts the changes of what the registry knows; every open stream is judged again.
    pub recheck: watch::Receiver<u64>,
    /// Ends everything at shutdown.
    pub stop: CancellationToken,
}

/// A stream whose both ends have said who they are.
pub(crate) struct Opened {
    pub pipe: Pipe,
    pub peer: PeerIdentity,
    pub kind: StreamKind,
    /// What this node said of itself.
    said: PeerIdentity,
    recheck: watch::Receiver<u64>,
}

impl Dialer {
    pub async fn open(&self, to: NodeId, kind: StreamKind) -> Result<Opened, LinkError> {
        let mut recheck = self.recheck.clone();
        recheck.mark_unchanged();
        let mut pipe = self.link.connect(to, kind).await?;
        let said = self.registry.local();
        send_hello(&pipe.sender, &said, kind, to).await?;
        let hello = first_hello(&mut pipe).await.inspect_err(|error| match error {
            LinkError::Refused(Refusal::OlderLineage { newest }) => {
                self.registry.refused_by(newest);
            }
            LinkError::Refused(why @ (Refusal::UnknownStore | Refusal::UnknownNode { .. })) => {
                self.registry.not_counted_by(to, why);
            }
            _ => {}
        })?;
        let (peer, answered) = peer::check_hello(&hello, &*self.registry)?;
        if peer.node != to || answered != kind {
            return Err(Refusal::WrongNode { meant: to }.into());
        }
        Ok(Opened { pipe, peer, kind, said, recheck })
    }

    /// The same for a pipe that the other side opened.
    pub async fn accept(&self, mut pipe: Pipe) -> Result<Opened, LinkError> {
        let mut recheck = self.recheck.clone();
        recheck.mark_unchanged();
        let hello = first_hello(&mut pipe).await?;
        let said = self.registry.local();
        match peer::check_hello(&hello, &*self.registry) {
            Ok((peer, kind)) => {
                send_hello(&pipe.sender, &said, kind, peer.node).await?;
                Ok(Opened { pipe, peer, kind, said, recheck })
            }
            Err(refusal) => {
                tracing::warn!(peer = hello.node, %refusal, "refuse a stream");
                let frame = pb::frame::Frame::Refusal(refusal.to_wire());
                let _ = pipe.sender.send(pb::Frame { frame: Some(frame) }).await;
                Err(refusal.into())
            }
        }
    }
}

/// Resolves when the stream must end: at shutdown, or because an identity is not what it was.
pub(crate) struct Validity {
    dialer: Arc<Dialer>,
    peer: PeerIdentity,
    said: PeerIdentity,
    recheck: watch::Receiver<u64>,
}

impl Opened {
    pub fn split(self, dialer: &Arc<Dialer>) -> (Pipe, Validity) {
        let Self { pipe, peer, said, recheck, .. } = self;
        (pipe, Validity { dialer: dialer.clone(), peer, said, recheck })
    }
}

impl Validity {
    /// Gives the refusal to tell the other side, if any. Cancel-safe.
    pub async fn ended(&mut self) -> Option<Refusal> {
        loop {
            tokio::select! {
                () = self.dialer.stop.cancelled() => return None,
                changed = self.recheck.changed() => {
                    if changed.is_err() || self.dialer.registry.local() != self.said {
                        return None;
                    }
                    if let Err(refusal) = self.dialer.registry.admit(&self.peer) {
                        return Some(refusal);
                    }
                }
            }
        }
    }
}

async fn send_hello(
    sender: &mpsc::Sender<pb::Frame>,
    said: &PeerIdentity,
    kind: StreamKind,
    to: NodeId,
) -> Result<(), LinkError> {
    let frame = pb::frame::Frame::Hello(peer::hello(said, kind, to));
    let sent = sender.send(pb::Frame { frame: Some(frame) }).await;
    sent.map_err(|_| LinkError::broken("closed before the Hello"))
}

async fn first_hello(pipe: &mut Pipe) -> Result<pb::Hello, LinkError> {
    let first = tokio::time::timeout(HELLO_DEADLINE, pipe.receiver.next())
        .await
        .map_err(|_| LinkError::Deadline)?
        .ok_or_else(|| LinkError::broken("closed before the Hello"))??;
    match first.frame {
        Some(pb::frame::Frame::Hello(hello)) => Ok(hello),
        Some(pb::frame::Frame::Refusal(refusal)) => Err(Refusal::from_wire(&refusal).into()),
        _ => Err(LinkError::broken("the first frame is not a Hello")),
    }
}
