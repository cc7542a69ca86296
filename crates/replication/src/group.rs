//! One copy of one group: what the daemon holds in its hand.
//!
//! A group outlives its Raft instances. An instance is started with the group, and replaced
//! ("rebuilt") where openraft offers no other way: to demote a leader, and to end a transfer that
//! got stuck. What an instance left is in the log and the state, so the next one goes on from
//! there; the fence in `state_machine` keeps the old one from touching anything.
//!
//! **Serving.** A leader is not yet an active copy. It serves when the mount entry of its own term
//! and of the node's lineage is applied ([`Group::serving`]), and only while it leads in that term.
//! [`Group::propose`] checks it before proposing and again after the commit; between the two lies
//! the answer that must be sayable and is neither success nor refusal:
//! [`ProposeError::OutcomeUnknown`].
//!
//! All of it runs in tasks that the registry has spawned on the runtime `R`. Others hold a group as
//! a [`Group`], which does not know `R`; what its methods promise is written there.

mod handle;
mod members;
mod reads;
mod status;
mod transfer;
mod upkeep;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use dac::Closed;
use dag_format::envelope::{Body, Envelope};
use dag_types::{Candidacy, DatabaseId, Generation, Lineage, LogId, Millis, NodeId, ReplicaId};
use openraft::AsyncRuntime;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::OneshotResponder;
use storage::log::{CopyLog, LogEntry, VoteRecord};
use storage::state::StateRead;
use thiserror::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::MAX_COMMAND_BYTES;
use crate::copy_store::OpenCopy;
use crate::event::{Event, Journal, Role};
use crate::fault::CopyFault;
use crate::gate::{Leave, ServingGate, Under};
use crate::log_store::LogStore;
use crate::machine::{Machine, MachineFault};
use crate::membership;
use crate::network::{GroupLink, Network};
use crate::offload::Offload;
use crate::options::Options;
use crate::peer::{PeerRegistry, Refusal};
use crate::standing::Standing;
use crate::state_machine::{CopyState, DigestAt, Mounted, StateMachine};
use crate::types::{CommittedLeaderId, Member, Payload, RaftMembership, Reply, Types, log_id};
use crate::wire::KIND_MEMBERSHIP;

pub use handle::Group;
pub use members::MembersError;
pub use reads::{Confirmed, ReadError};
pub use status::{FollowerStatus, GroupStatus, MemberStatus};
pub use transfer::TransferError;

type Raft<R> = openraft::Raft<Types<R>, StateMachine<R>>;

/// Which copy of which group this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSpec {
    /// The database.
    pub database: DatabaseId,
    /// Which incarnation of its group.
    pub generation: Generation,
    /// The copy: its id in the group, used once for ever.
    pub replica: ReplicaId,
    /// How it stands for election, until [`Group::stand`].
    pub candidacy: Candidacy,
    /// Whether it mounts when it leads, until [`Group::allow_mount`].
    pub may_mount: bool,
}

/// A copy's group on one runtime; others hold it as a [`Group`]. Clones are the same group.
pub(crate) struct RaftGroup<R: AsyncRuntime> {
    inner: Arc<Inner<R>>,
}

impl<R: AsyncRuntime> Clone for RaftGroup<R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<R: AsyncRuntime> {
    spec: GroupSpec,
    node: NodeId,
    options: Arc<Options>,
    registry: Arc<dyn PeerRegistry>,
    link: Arc<GroupLink>,
    log: CopyLog,
    log_store: LogStore<R>,
    copy: Arc<CopyState>,
    fault: Arc<CopyFault>,
    needs_mount: bool,
    /// None for a group that is not gated.
    gate: Option<Arc<dyn ServingGate>>,
    may_mount: AtomicBool,
    /// False while a transfer drains what is under way.
    accepts: AtomicBool,
    /// Log is kept for a copy that is seeded at this moment.
    keeps_log: AtomicBool,
    instance: RwLock<Option<Arc<Instance<R>>>>,
    /// One replacement of the instance at a time.
    replacing: tokio::sync::Mutex<()>,
    snapshot_turn: Arc<tokio::sync::Mutex<()>>,
    node_room: Arc<Semaphore>,
    room: Arc<Semaphore>,
    reads: mpsc::UnboundedSender<reads::Waiting>,
    /// Wakes the upkeep task.
    wake: Arc<Notify>,
    stop: CancellationToken,
}

/// One run of openraft.
pub(crate) struct Instance<R: AsyncRuntime> {
    pub raft: Raft<R>,
    /// Until when votes are refused.
    quarantine: Option<Instant>,
    ended: CancellationToken,
}

impl<R: AsyncRuntime> Instance<R> {
    /// What a call to this instance came to; none where the instance ended first. openraft leaves a
    /// call unanswered for ever whose entries were not durable yet when it was shut down.
    pub async fn unless_ended<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        self.ended.run_until_cancelled(call).await
    }
}

/// Under what a copy serves; a proof only together with a commit or a read round after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// The term it leads in.
    pub term: u64,
    /// The lineage it mounted in.
    pub lineage: Lineage,
}

/// A proposal that was committed, applied, and answered while the copy still served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where it stands.
    pub at: LogId,
    /// The machine's answer.
    pub reply: Bytes,
    /// By the gate's clock: nothing is answered from here on. None without a gate.
    pub counts_until: Option<Millis>,
}

/// Where the leader is, as far as this copy knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderHint {
    /// The copy that leads.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// Why a copy does not serve; nothing was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this copy does not serve in term {term}")]
pub struct NotActive {
    /// Who leads, if known.
    pub leader: Option<LeaderHint>,
    /// The term that this copy knows.
    pub term: u64,
}

/// Why a proposal got no answer from the machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Another copy serves, or none. Nothing was proposed.
    #[error(transparent)]
    NotActive(#[from] NotActive),
    /// The node has no leave to serve. Nothing was proposed.
    #[error("the node's gate is closed: {0}")]
    GateClosed(Closed),
    /// This copy leads, and has not heard from a quorum lately. Nothing was proposed; ask the same
    /// copy again.
    #[error("the leader has not heard from a majority of its voters lately")]
    NoQuorum,
    /// Too much is under way. Nothing was proposed.
    #[error("too many bytes are under way")]
    Overloaded,
    /// The command is too large. Nothing was proposed.
    #[error("a command of {bytes} bytes; at most {MAX_COMMAND_BYTES} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The deadline was over before anything was proposed.
    #[error("the deadline was over before the command was proposed")]
    Deadline,
    /// A fault stopped the copy. Nothing was proposed.
    #[error("the copy is Failed: {reason}")]
    Failed {
        /// What failed.
        reason: String,
    },
    /// The group is stopped or being replaced. Nothing was proposed.
    #[error("the copy is not running")]
    NotRunning,
    /// It was proposed; whether it is or will be committed is not known. Repeat it with the same
    /// request id. Never to be reported as success or as refusal.
    #[error("the outcome is unknown: {why}; repeat with the same request id")]
    OutcomeUnknown {
        /// What happened.
        why: &'static str,
    },
}

impl ProposeError {
    /// Whether nothing was proposed, so that the command may be sent elsewhere.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotActive(_)
            | Self::GateClosed(_)
            | Self::NoQuorum
            | Self::Overloaded
            | Self::TooLarge { .. }
            | Self::Deadline
            | Self::Failed { .. }
            | Self::NotRunning => true,
            Self::OutcomeUnknown { .. } => false,
        }
    }
}

/// Why a request was not begun.
enum Entry {
    NotActive(NotActive),
    Closed(Closed),
}

impl From<Closed> for Entry {
    fn from(why: Closed) -> Self {
        Self::Closed(why)
    }
}

impl From<Entry> for ProposeError {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::NotActive(error) => error.into(),
            Entry::Closed(Closed::Deadline) => Self::Deadline,
            Entry::Closed(why) => Self::GateClosed(why),
        }
    }
}

impl From<Entry> for ReadError {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::NotActive(error) => error.into(),
            Entry::Closed(Closed::Deadline) => Self::Deadline,
            Entry::Closed(why) => Self::GateClosed(why),
        }
    }
}

/// Why a group could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartError {
    /// The node has a copy of this database running already.
    #[error("a copy of database {database} runs here already")]
    RunsAlready {
        /// The database.
        database: DatabaseId,
    },
    /// The copy's state or log cannot be read. The copy is Failed.
    #[error("start the copy: {0}")]
    Copy(#[from] MachineFault),
    /// The registry has stopped.
    #[error("the registry has stopped")]
    Stopped,
}

/// Why a group could not be initialised.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InitializeError {
    /// The log is not empty, or the copy voted already.
    #[error("the group is initialised already")]
    Already,
    /// The members do not contain this copy on this node.
    #[error("the members do not contain this copy")]
    NotAMember,
    /// The first entry could not be written.
    #[error("write the first entry: {0}")]
    Write(String),
    /// The instance could not be started again.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// What all groups of a node share, as a new group needs it.
pub(crate) struct Surroundings {
    pub node: NodeId,
    pub options: Arc<Options>,
    pub registry: Arc<dyn PeerRegistry>,
    pub gate: Option<Arc<dyn ServingGate>>,
    pub peers: Arc<crate::mux::Peers>,
    pub sink: crate::event::EventSink,
    pub node_room: Arc<Semaphore>,
    pub stop: CancellationToken,
}

impl<R: AsyncRuntime> RaftGroup<R> {
    pub(crate) async fn start(
        around: &Surroundings,
        spec: GroupSpec,
        copy: Arc<OpenCopy>,
        machine: Arc<dyn Machine>,
    ) -> Result<Self, StartError> {
        let options = around.options.clone();
        let (database, replica, sink) = (spec.database, spec.replica, around.sink.clone());
        let wake = Arc::new(Notify::new());
        let fault = CopyFault::new(Journal { database, replica, sink }, wake.clone());
        let fault = Arc::new(fault);
        let needs_mount = machine.needs_mount();
        let gate = around.gate.clone().filter(|_| needs_mount);
        let (offload, log) = (options.offload, copy.log().clone());
        let (noted, flushed) = (fault.clone(), copy.clone());
        flushed.on_fault(Box::new(move |reason| noted.note(reason)));
        let state = CopyState::open(machine, copy, fault.clone(), offload)?;
        let link = Arc::new(GroupLink {
            database,
            generation: spec.generation,
            replica,
            peers: around.peers.clone(),
            timeouts: options.timeouts,
            credit: options.credit(),
            offload,
            standing: Mutex::new(Standing::new(spec.candidacy, options.timeouts, Instant::now())),
            gate: gate.clone(),
            reads_waiting: 0.into(),
        });
        let (reads, waiting) = mpsc::unbounded_channel();
        let group = Self {
            inner: Arc::new(Inner {
                spec,
                node: around.node,
                registry: around.registry.clone(),
                link,
                log: log.clone(),
                log_store: LogStore::new(log, fault.clone(), offload),
                copy: state,
                fault,
                needs_mount,
                gate,
                may_mount: AtomicBool::new(spec.may_mount),
                accepts: AtomicBool::new(true),
                keeps_log: AtomicBool::new(false),
                instance: RwLock::new(None),
                replacing: tokio::sync::Mutex::new(()),
                snapshot_turn: Arc::default(),
                node_room: around.node_room.clone(),
                room: Arc::new(Semaphore::new(options.group_bytes)),
                reads,
                wake,
                stop: around.stop.child_token(),
                options,
            }),
        };
        group.start_instance().await?;
        let _upkeep = R::spawn(upkeep::run(group.clone()));
        let _reads = R::spawn(reads::run(group.clone(), waiting));
        Ok(group)
    }

    /// Starts an instance on what the log and the state hold.
    async fn start_instance(&self) -> Result<(), StartError> {
        let inner = &*self.inner;
        let quarantine = self.quarantine();
        let name = format!("database {}", inner.spec.database);
        let timeouts = inner.options.timeouts;
        let config = timeouts.config(&name, inner.spec.replica, self.may_campaign());
        let network = Network { link: inner.link.clone(), runtime: PhantomData };
        let machine = inner.copy.next_instance().await;
        let replica = inner.spec.replica.0;
        let raft = Raft::new(replica, config, network, inner.log_store.clone(), machine)
            .await
            .map_err(|fatal| {
                inner.fault.note(&fatal.to_string());
                StartError::Copy(MachineFault::new(fatal.to_string()))
            })?;
        *inner.instance.write().expect("no panic while held") =
            Some(Arc::new(Instance { raft, quarantine, ended: CancellationToken::new() }));
        inner.wake.notify_one();
        Ok(())
    }

    /// A copy that never voted nor held an entry has promised nothing to anybody.
    fn quarantine(&self) -> Option<Instant> {
        let (log, timeouts) = (&self.inner.log, self.inner.options.timeouts);
        let blank = log.vote().is_none() && log.bounds().last.is_none();
        (!blank).then(|| Instant::now() + timeouts.vote_quarantine())
    }

    /// Takes the instance away and waits until it has ended.
    async fn stop_instance(&self) {
        let taken = self.inner.instance.write().expect("no panic while held").take();
        if let Some(instance) = taken {
            let _ = instance.raft.shutdown().await;
            instance.ended.cancel();
        }
    }

    /// Replaces the instance.
    async fn rebuild(&self) -> Result<(), StartError> {
        let _turn = self.inner.replacing.lock().await;
        self.stop_instance().await;
        self.start_instance().await
    }

    /// Stops the group for good.
    pub(crate) async fn stop(&self) {
        self.inner.stop.cancel();
        let _turn = self.inner.replacing.lock().await;
        self.stop_instance().await;
        // The fence ends what the state machine's task may still be doing.
        let _ended: StateMachine<R> = self.inner.copy.next_instance().await;
        self.inner.copy.forget_kept();
    }

    fn instance(&self) -> Option<Arc<Instance<R>>> {
        self.inner.instance.read().expect("no panic while held").clone()
    }

    /// The running instance, for a frame of another node.
    pub(crate) fn running(&self) -> Result<Arc<Instance<R>>, Refusal> {
        if self.inner.fault.reason().is_some() {
            return Err(Refusal::Failed);
        }
        self.instance().ok_or(Refusal::NotRunning)
    }

    /// Why an instance that was asked has ended.
    pub(crate) fn why_stopped(&self) -> Refusal {
        if self.inner.fault.reason().is_some() { Refusal::Failed } else { Refusal::NotRunning }
    }

    pub(crate) fn in_vote_quarantine(&self) -> bool {
        let until = self.instance().and_then(|instance| instance.quarantine);
        until.is_some_and(|until| Instant::now() < until)
    }

    pub(crate) fn tell(&self, event: Event) {
        self.inner.fault.journal().tell(event);
    }

    pub(crate) fn store(&self) -> Arc<OpenCopy> {
        self.inner.copy.store().clone()
    }

    pub(crate) fn offload(&self) -> Offload {
        self.inner.options.offload
    }

    pub(crate) async fn snapshot_turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.inner.snapshot_turn.clone().lock_owned().await
    }

    /// Wakes the upkeep, because something that it looks at has changed.
    pub(crate) fn wake(&self) {
        self.inner.wake.notify_one();
    }

    pub fn spec(&self) -> GroupSpec {
        self.inner.spec
    }

    pub fn replica(&self) -> ReplicaId {
        self.inner.spec.replica
    }

    pub fn last(&self) -> Option<LogId> {
        self.inner.log.bounds().last
    }

    pub fn view(&self) -> Arc<dyn StateRead> {
        self.inner.copy.view()
    }

    pub fn kept_view(&self, index: u64) -> Option<Arc<dyn StateRead>> {
        self.inner.copy.kept_view(index)
    }

    pub fn digest_marks(&self) -> Result<Vec<DigestAt>, MachineFault> {
        self.inner.copy.digest_marks()
    }

    pub fn may_campaign(&self) -> bool {
        self.inner.link.may_campaign()
    }

    pub fn is_candidate(&self) -> bool {
        self.inner.link.is_candidate()
    }

    pub fn stand(&self, candidacy: Candidacy) {
        self.inner.link.standing().set(candidacy);
        self.settle_elections();
        self.wake();
    }

    /// Lets openraft know whether it is to campaign when it hears no leader.
    fn settle_elections(&self) {
        if let Some(instance) = self.instance() {
            instance
                .raft
                .runtime_config()
                .elect(self.inner.link.standing().may_campaign(Instant::now()));
        }
    }

    /// A leader was heard.
    pub(crate) fn heard_leader(&self) {
        self.inner.link.standing().heard_leader(Instant::now());
    }

    /// A vote was refused because this copy's log is greater than the candidate's.
    pub(crate) fn refused_shorter(&self, candidate: ReplicaId, last: Option<LogId>) {
        self.tell(Event::LongerLog { candidate, last });
        self.inner.link.standing().refused_shorter(Instant::now());
        self.settle_elections();
    }

    pub fn keep_log(&self, keep: bool) {
        self.inner.keeps_log.store(keep, Ordering::SeqCst);
    }

    pub fn allow_mount(&self, allowed: bool) {
        self.inner.may_mount.store(allowed, Ordering::SeqCst);
        self.wake();
    }

    pub async fn demote(&self) -> Result<(), StartError> {
        self.stand(Candidacy::Never);
        self.rebuild().await
    }

    pub async fn step_down(&self) -> Result<(), StartError> {
        if self.leading().is_none() { Ok(()) } else { self.rebuild().await }
    }

    pub fn serving(&self) -> Result<Serving, NotActive> {
        let serving = self.serves();
        serving
            .filter(|_| self.inner.accepts.load(Ordering::SeqCst))
            .ok_or_else(|| self.not_active())
    }

    /// The same while leadership is being handed over: what is under way is still answered.
    fn serves(&self) -> Option<Serving> {
        let open = self.gate_is_open();
        self.leading().filter(|_| open).and_then(|term| self.mounted_in(term))
    }

    fn gate_is_open(&self) -> bool {
        self.inner.link.gate_is_open()
    }

    /// Asks the gate for leave to serve a request under this mount.
    fn enter(&self, serving: Serving, deadline: Instant) -> Result<(Under, Instant), Entry> {
        let Some(gate) = &self.inner.gate else { return Ok((Under::NoGate, deadline)) };
        let Leave { permit, deadline } = gate.permit(self.spec().database, deadline)?;
        // The lineage went on between the look at the mount and the permit.
        if permit.lineage() != serving.lineage {
            return Err(Entry::NotActive(self.not_active()));
        }
        Ok((Under::Permit(permit), deadline))
    }

    /// Whether an answer may go out: the same mount, and the gate open since the request came.
    fn still_answers(&self, serving: Serving, under: &Under) -> Result<(), &'static str> {
        if self.serves() != Some(serving) {
            return Err("this copy stopped serving while the request was under way");
        }
        match (under, &self.inner.gate) {
            (Under::Permit(permit), Some(gate)) => gate
                .upholds(permit)
                .map_err(|_| "the node's gate closed, or the deadline passed, under way"),
            _ => Ok(()),
        }
    }

    fn mounted_in(&self, term: u64) -> Option<Serving> {
        let inner = &*self.inner;
        let lineage = inner.registry.local().lineage;
        if !inner.needs_mount {
            return Some(Serving { term, lineage });
        }
        let mounted: Mounted = inner.copy.mounted()?;
        let holds = mounted.at.term == term
            && mounted.lineage == lineage
            && mounted.node == inner.node
            && inner.may_mount.load(Ordering::SeqCst);
        holds.then_some(Serving { term, lineage })
    }

    /// The term that this copy leads in, by openraft's cached role.
    fn leading(&self) -> Option<u64> {
        let (role, term) = self.role();
        (role == Role::Leader).then_some(term)
    }

    fn not_active(&self) -> NotActive {
        NotActive { leader: self.leader(), term: self.role().1 }
    }

    pub async fn propose(
        &self,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Committed, ProposeError> {
        self.ensure_well()?;
        let serving = self.serving()?;
        let _room = self.admit(command.len())?;
        let (under, deadline) = self.enter(serving, deadline)?;
        let envelope = Envelope { lineage: serving.lineage, body: Body::Command(command) };
        let (at, reply) = self.write(&envelope, serving.term, deadline).await?;
        let reply = match reply {
            Reply::Command(reply) => reply,
            // The mount changed between the check and the commit; nothing was done anywhere.
            Reply::StaleMount { .. } => return Err(self.not_active().into()),
            Reply::Mounted(_) | Reply::Digest(_) | Reply::Nothing => {
                unreachable!("a command is answered as a command")
            }
        };
        let still = self.still_answers(serving, &under);
        still.map_err(|why| ProposeError::OutcomeUnknown { why })?;
        let counts_until = under.deadline();
        Ok(Committed { at, reply, counts_until })
    }

    pub async fn mark_digest(
        &self,
        mark: u64,
        deadline: Instant,
    ) -> Result<DigestAt, ProposeError> {
        self.ensure_well()?;
        let serving = self.serving()?;
        let envelope = Envelope { lineage: serving.lineage, body: Body::DigestMark { mark } };
        match self.write(&envelope, serving.term, deadline).await? {
            (at, Reply::Digest(digest)) => Ok(DigestAt { mark, at, digest }),
            _ => unreachable!("a digest mark is answered with a digest"),
        }
    }

    fn ensure_well(&self) -> Result<(), ProposeError> {
        match self.inner.fault.reason() {
            None => Ok(()),
            Some(reason) => Err(ProposeError::Failed { reason: reason.to_owned() }),
        }
    }

    /// Takes room in the budgets of the node and of the group, or refuses at once.
    fn admit(&self, bytes: usize) -> Result<[OwnedSemaphorePermit; 2], ProposeError> {
        if bytes > MAX_COMMAND_BYTES {
            return Err(ProposeError::TooLarge { bytes });
        }
        let bytes = u32::try_from(bytes.max(1)).expect("below the limit");
        let take = |room: &Arc<Semaphore>| room.clone().try_acquire_many_owned(bytes);
        match (take(&self.inner.node_room), take(&self.inner.room)) {
            (Ok(node), Ok(group)) => Ok([node, group]),
            _ => Err(ProposeError::Overloaded),
        }
    }

    /// Writes an entry as the leader of this term, and waits until it is applied.
    async fn write(
        &self,
        envelope: &Envelope,
        term: u64,
        deadline: Instant,
    ) -> Result<(LogId, Reply), ProposeError> {
        if Instant::now() >= deadline {
            return Err(ProposeError::Deadline);
        }
        let raft = &self.instance().ok_or(ProposeError::NotRunning)?.raft;
        let (responder, answered) = OneshotResponder::<Types<R>, _>::new_pair();
        let write = raft
            .write(Payload(envelope.encode()))
            .with_leader(CommittedLeaderId::new(term))
            .responder(responder);
        match tokio::time::timeout_at(deadline, write.into_future()).await {
            Err(_) => return Err(ProposeError::Overloaded),
            Ok(Err(_)) => return Err(self.ensure_well().err().unwrap_or(ProposeError::NotRunning)),
            Ok(Ok(())) => {}
        }
        let unknown = |why| Err(ProposeError::OutcomeUnknown { why });
        match tokio::time::timeout_at(deadline, answered).await {
            Err(_) => unknown("the deadline passed while it was under way"),
            Ok(Err(_)) => unknown("the copy stopped while it was under way"),
            Ok(Ok(Ok(written))) => Ok((log_id(&written.log_id), written.data)),
            // openraft's promise for this error: nothing was appended.
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(self.forwarded(&forward))
            }
            Ok(Ok(Err(_))) => unknown("another leader's log took its place here"),
        }
    }

    fn forwarded(&self, forward: &ForwardToLeader<Types<R>>) -> ProposeError {
        if forward.reason == ForwardReason::LeaseExpired {
            return ProposeError::NoQuorum;
        }
        let leader = forward
            .leader_id
            .zip(forward.leader_node)
            .map(|(replica, member)| LeaderHint { replica: ReplicaId(replica), node: member.node });
        NotActive { leader: leader.or_else(|| self.leader()), term: self.role().1 }.into()
    }

    pub async fn initialize(
        &self,
        voters: &BTreeMap<ReplicaId, Member>,
    ) -> Result<(), InitializeError> {
        let inner = &*self.inner;
        if voters.get(&inner.spec.replica).is_none_or(|member| member.node != inner.node) {
            return Err(InitializeError::NotAMember);
        }
        let _turn = inner.replacing.lock().await;
        if inner.log.vote().is_some() || inner.log.bounds().last.is_some() {
            return Err(InitializeError::Already);
        }
        self.stop_instance().await;
        let term = inner.spec.generation.base_term();
        let vote = VoteRecord { term, voted_for: inner.spec.replica.0, committed: false };
        self.durably(|log, done| log.save_vote(vote, done)).await?;
        let members: BTreeMap<u64, Member> =
            voters.iter().map(|(replica, member)| (replica.0, *member)).collect();
        let payload = membership::encode(&RaftMembership::from(members));
        let entry = LogEntry { id: LogId { term, index: 0 }, kind: KIND_MEMBERSHIP, payload };
        self.durably(|log, done| log.append(vec![entry], done)).await?;
        self.start_instance().await?;
        Ok(())
    }

    async fn durably(
        &self,
        ask: impl FnOnce(&CopyLog, storage::log::Done),
    ) -> Result<(), InitializeError> {
        let (done, waiting) = oneshot::channel();
        ask(
            &self.inner.log,
            Box::new(move |result| {
                let _ = done.send(result);
            }),
        );
        match waiting.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => Err(InitializeError::Write(fault.to_string())),
            Err(_) => Err(InitializeError::Write("the log went away".to_owned())),
        }
    }
}
