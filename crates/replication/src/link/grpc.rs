//! Pipes over gRPC: one bidirectional `Exchange` call per pipe, each on its own connection.
//!
//! Large windows and HTTP/2 frames, because the default of 16 KiB frames costs twice the processor
//! time for mail of 50 KB; no Nagle, because delayed acknowledgements would add 40 ms to small
//! ones; keep-alive pings, because a peer that was stopped or cut off closes nothing by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dag_api::peer::v1 as pb;
use dag_api::peer::v1::peer_service_client::PeerServiceClient;
use dag_api::peer::v1::peer_service_server::{PeerService, PeerServiceServer};
use dag_types::NodeId;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::{Acceptor, LinkError, PeerLink, Pipe, StreamKind};
use crate::MAX_FRAME_BYTES;

/// Frames that wait between this crate and the transport, per direction.
const QUEUE: usize = 8;

/// What connections between nodes are made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcOptions {
    /// How long connecting and opening a stream may take.
    pub connect_timeout: Duration,
    /// How often an idle or busy connection is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// How long that sign may take before the connection is given up.
    pub keep_alive_timeout: Duration,
    /// Bytes of one stream, and of one connection, that the receiver may hold unread.
    pub window_bytes: u32,
    /// The same of a stream by which a copy is built: what arrives while the target syncs.
    pub seed_window_bytes: u32,
    /// Bytes of one HTTP/2 frame, 16 KiB to 16 MiB - 1.
    pub http_frame_bytes: u32,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            keep_alive_interval: Duration::from_secs(1),
            keep_alive_timeout: Duration::from_secs(2),
            window_bytes: 1 << 20,
            seed_window_bytes: 4 << 20,
            http_frame_bytes: 256 << 10,
        }
    }
}

impl GrpcOptions {
    /// A server builder with the settings that the accepting side needs.
    pub fn server(&self) -> Server {
        Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(self.keep_alive_interval))
            .http2_keepalive_timeout(Some(self.keep_alive_timeout))
            .initial_stream_window_size(self.window_bytes)
            .initial_connection_window_size(self.window_bytes)
            .max_frame_size(self.http_frame_bytes)
    }
}

/// Where a node listens, with its TLS settings; `None` where it is not known.
pub type Endpoints = Arc<dyn Fn(NodeId) -> Option<Endpoint> + Send + Sync>;

/// The link of this node over gRPC.
#[derive(Clone)]
pub struct GrpcLink {
    endpoints: Endpoints,
    options: GrpcOptions,
}

impl GrpcLink {
    /// A link that finds the others through `endpoints`.
    pub fn new(endpoints: Endpoints, options: GrpcOptions) -> Self {
        Self { endpoints, options }
    }

    fn endpoint(&self, to: NodeId, kind: StreamKind) -> Option<Endpoint> {
        let options = &self.options;
        let window = match kind {
            StreamKind::Seed => options.seed_window_bytes,
            _ => options.window_bytes,
        };
        let endpoint = (self.endpoints)(to)?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(options.keep_alive_interval)
            .keep_alive_timeout(options.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(window)
            .initial_connection_window_size(window)
            .max_frame_size(options.http_frame_bytes);
        Some(endpoint)
    }
}

impl PeerLink for GrpcLink {
    fn connect(&self, to: NodeId, kind: StreamKind) -> BoxFuture<'static, Result<Pipe, LinkError>> {
        let (endpoint, limit) = (self.endpoint(to, kind), self.options.connect_timeout * 2);
        Box::pin(async move {
            let unreachable = |detail: String| LinkError::Unreachable { node: to, detail };
            let endpoint = endpoint.ok_or_else(|| unreachable("its address is unknown".into()))?;
            tokio::time::timeout(limit, open(endpoint))
                .await
                .map_err(|_| unreachable("no answer in time".into()))?
                .map_err(unreachable)
        })
    }
}

async fn open(endpoint: Endpoint) -> Result<Pipe, String> {
    let channel = endpoint.connect().await.map_err(words)?;
    let mut client = PeerServiceClient::new(channel)
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let (sender, frames) = mpsc::channel(QUEUE);
    let frames =
        ReceiverStream::new(frames).map(|frame| pb::ExchangeRequest { frame: Some(frame) });
    let answers = client.exchange(frames).await.map_err(|status| status.to_string())?.into_inner();
    let receiver = answers.map(|answer| frame(answer.map(|answer| answer.frame))).boxed();
    Ok(Pipe { sender, receiver })
}

/// A transport error with its causes: tonic's own text alone is "transport error".
fn words(error: tonic::transport::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

fn frame(message: Result<Option<pb::Frame>, Status>) -> Result<pb::Frame, LinkError> {
    message.map_err(LinkError::broken)?.ok_or_else(|| LinkError::broken("a message without frame"))
}

/// The accepting side: every `Exchange` call becomes a pipe.
#[derive(Debug, Clone)]
pub struct PeerServer {
    acceptor: Acceptor,
}

impl PeerServer {
    /// The service to add to the server of [`GrpcOptions::server`].
    pub fn service(acceptor: Acceptor) -> PeerServiceServer<Self> {
        PeerServiceServer::new(Self { acceptor })
            .max_decoding_message_size(MAX_FRAME_BYTES)
            .max_encoding_message_size(MAX_FRAME_BYTES)
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::ExchangeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl PeerService for PeerServer {
    type ExchangeStream = Answers;

    async fn exchange(
        &self,
        request: Request<Streaming<pb::ExchangeRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let requests = request.into_inner();
        let receiver = requests.map(|request| frame(request.map(|request| request.frame))).boxed();
        let (sender, frames) = mpsc::channel(QUEUE);
        self.acceptor.accept(Pipe { sender, receiver });
        let answers = ReceiverStream::new(frames)
            .map(|frame| Ok(pb::ExchangeResponse { frame: Some(frame) }));
        Ok(Response::new(Box::pin(answers)))
    }
}
