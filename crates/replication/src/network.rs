//! openraft's network of one group: every call goes to the clients that all groups share.
//!
//! The gate is kept here as well as in openraft's own settings, because openraft's do not cover
//! everything: `enable_elect` stops neither a transfer nor a triggered election. A copy that may
//! not campaign asks nobody for a vote, and (in `mux::serve`) one that is no candidate accepts no transfer.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dag_api::peer::v1 as pb;
use dag_api::peer::v1::control_answer::Answer;
use dag_api::peer::v1::control_call::Call;
use dag_types::{Candidacy, DatabaseId, Generation, NodeId, ReplicaId};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AsyncRuntime, OptionalSend};
use tokio::time::Instant;

use crate::gate::ServingGate;
use crate::link::LinkError;
use crate::mux::append::{Credit, Results};
use crate::mux::control::Pace;
use crate::mux::{Peer, Peers};
use crate::offload::Offload;
use crate::peer::Refusal;
use crate::snapshot::{self, Shipment, Snapshot, SnapshotContent};
use crate::standing::Standing;
use crate::timeouts::Timeouts;
use crate::types::{Member, RaftVote, Types};
use crate::wire;

/// What all connections of one copy share.
pub(crate) struct GroupLink {
    pub database: DatabaseId,
    pub generation: Generation,
    pub replica: ReplicaId,
    pub peers: Arc<Peers>,
    pub timeouts: Timeouts,
    pub credit: Credit,
    pub offload: Offload,
    /// How this copy stands for election, as far as its owner decides.
    pub standing: Mutex<Standing>,
    /// Whether it may at all, now; none for a group that is not gated.
    pub gate: Option<Arc<dyn ServingGate>>,
    /// Reads that wait for a round of heartbeats, so that these are not held back.
    pub reads_waiting: AtomicUsize,
}

impl GroupLink {
    pub fn header(&self, to: u64) -> pb::Group {
        pb::Group {
            database: self.database.0,
            generation: self.generation.0,
            from_replica: self.replica.0,
            to_replica: to,
        }
    }

    /// Whether this copy may ask for votes now.
    pub fn may_campaign(&self) -> bool {
        self.gate_is_open() && self.standing().may_campaign(Instant::now())
    }

    /// Whether it may be handed leadership now, and keep it.
    pub fn is_candidate(&self) -> bool {
        self.gate_is_open() && self.standing().candidacy() == Candidacy::Freely
    }

    pub fn gate_is_open(&self) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.is_open())
    }

    pub fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> Pace {
        if self.reads_waiting.load(Ordering::Relaxed) > 0 {
            Pace::AtOnce
        } else {
            Pace::MayWait(self.timeouts.coalesce())
        }
    }
}

/// Makes the connections of one Raft instance.
pub(crate) struct Network<R> {
    pub link: Arc<GroupLink>,
    pub runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime> Network<R> {
    fn connection(&self, replica: u64, member: &Member, beats: bool) -> Connection<R> {
        Connection {
            link: self.link.clone(),
            replica,
            node: member.node,
            beats,
            runtime: PhantomData,
        }
    }
}

impl<R: AsyncRuntime> RaftNetworkFactory<Types<R>> for Network<R> {
    type Network = Connection<R>;

    async fn new_client(&mut self, target: u64, member: &Member) -> Connection<R> {
        self.connection(target, member, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, member: &Member) -> Connection<R> {
        self.connection(target, member, true)
    }
}

/// From this copy to one other.
pub(crate) struct Connection<R> {
    link: Arc<GroupLink>,
    replica: u64,
    node: NodeId,
    /// Heartbeats go over the control stream, never behind mail.
    beats: bool,
    runtime: PhantomData<fn() -> R>,
}

type RpcError<R> = RPCError<Types<R>>;
type AppendResults<'s, R> = BoxStream<'s, Result<StreamAppendResult<Types<R>>, RpcError<R>>>;

/// Unreachable makes openraft wait before it tries again; a broken connection is tried at once.
fn rpc_error<R: AsyncRuntime>(error: LinkError) -> RpcError<R> {
    match error {
        LinkError::Broken { .. } => RPCError::Network(NetworkError::new(&error)),
        LinkError::Unreachable { .. } | LinkError::Deadline | LinkError::Refused(_) => {
            RPCError::Unreachable(Unreachable::new(&error))
        }
    }
}

fn unexpected<R: AsyncRuntime>() -> RpcError<R> {
    rpc_error(LinkError::broken("an answer of another kind"))
}

impl<R: AsyncRuntime> Connection<R> {
    fn peer(&self) -> Arc<Peer> {
        self.link.peers.get(self.node)
    }

    async fn call(&self, call: Call, pace: Pace, option: &RPCOption) -> Result<Answer, LinkError> {
        let deadline = Instant::now() + option.hard_ttl();
        self.peer().control.call(self.link.header(self.replica), call, pace, deadline).await
    }

    fn ensure_may_campaign(&self) -> Result<(), RpcError<R>> {
        if self.link.may_campaign() {
            return Ok(());
        }
        Err(rpc_error(Refusal::MayNotCampaign.into()))
    }

    async fn ask_for_vote(
        &self,
        call: Call,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RpcError<R>> {
        self.ensure_may_campaign()?;
        match self.call(call, Pace::AtOnce, option).await.map_err(rpc_error)? {
            Answer::Vote(answer) => {
                wire::vote_answer_from_wire(&answer).map_err(|e| rpc_error(LinkError::broken(e)))
            }
            _ => Err(unexpected()),
        }
    }

    async fn beat(
        &self,
        request: &AppendEntriesRequest<Types<R>>,
        option: &RPCOption,
    ) -> Result<StreamAppendResult<Types<R>>, RpcError<R>> {
        let call = Call::Heartbeat(wire::heartbeat_to_wire(request));
        match self.call(call, self.link.pace(), option).await.map_err(rpc_error)? {
            Answer::Heartbeat(result) => {
                wire::result_from_wire(result).map_err(|refusal| rpc_error(refusal.into()))
            }
            _ => Err(unexpected()),
        }
    }
}

impl<R: AsyncRuntime> RaftNetworkV2<Types<R>> for Connection<R> {
    type SnapshotData = SnapshotContent;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RpcError<R>> {
        let once = Box::pin(futures::stream::once(async move { request }));
        let mut results = self.stream_append(once, option).await?;
        let result = results.next().await.ok_or_else(unexpected)??;
        Ok(result.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResults<'s, R>, RpcError<R>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.beats {
                let this = &*self;
                let beats = futures::stream::unfold(input, move |mut input| {
                    let option = option.clone();
                    async move {
                        let request = input.next().await?;
                        Some((this.beat(&request, &option).await, input))
                    }
                });
                return Ok(beats.boxed());
            }
            // openraft waits out its backoff inside the stream of requests. A session that were
            // opened before the first request is there would fail without ever waiting, and a node
            // that is down would be dialled in a tight loop.
            let mut input = input;
            let Some(first) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            let input = futures::stream::once(std::future::ready(first)).chain(input);
            let (link, header) = (&self.link, self.link.header(self.replica));
            let deadline = Instant::now() + link.timeouts.call();
            let peer = self.peer();
            let session = peer.append.open(header, link.credit, deadline).await;
            let session = session.map_err(rpc_error)?;
            let calls = input.map(|request| wire::append_to_wire(&request));
            let results = Results::new(session, calls).map(|result| {
                let result = result.map_err(rpc_error)?;
                wire::result_from_wire(result).map_err(|refusal| rpc_error(refusal.into()))
            });
            Ok(results.boxed())
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RpcError<R>> {
        self.ask_for_vote(Call::Vote(wire::vote_call_to_wire(&request)), &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RpcError<R>> {
        self.ask_for_vote(Call::PreVote(wire::vote_call_to_wire(&request)), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let SnapshotContent::View(view) = snapshot.snapshot else {
            let error = LinkError::broken("a snapshot without content");
            return Err(StreamingError::Unreachable(Unreachable::new(&error)));
        };
        let shipment = Shipment {
            to: self.node,
            group: self.link.header(self.replica),
            vote,
            meta: snapshot.meta,
            view,
            offload: self.link.offload,
        };
        let peers = &self.link.peers;
        let sent = async {
            let _turn = peers.bulk().acquire().await;
            snapshot::send(peers.dialer(), shipment).await
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sent => sent.map_err(|error| {
                let (db, peer) = (self.link.database, self.node);
                tracing::warn!(%db, %peer, %error, "a snapshot was not sent");
                // Never at once: a state is too large to be sent in a tight loop.
                StreamingError::Unreachable(Unreachable::new(&error))
            }),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R>>, RpcError<R>> {
        let call = Call::Transfer(wire::transfer_to_wire(&request));
        match self.call(call, Pace::AtOnce, &option).await.map_err(rpc_error)? {
            Answer::Transfer(answer) => wire::transfer_answer_from_wire(&answer)
                .map_err(|e| rpc_error(LinkError::broken(e))),
            _ => Err(unexpected()),
        }
    }
}
