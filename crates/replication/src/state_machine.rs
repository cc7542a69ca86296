//! Committed entries become state, a batch at a time.
//!
//! ```text
//! entries ─► envelope ─► machine.apply(overlay) ─┐
//!                        mount, digest mark      ├─► ONE atomic write ─► answers to proposers
//!                        membership              │
//!                        applied position, chain ┘
//! ```
//! - What an entry changed, and that it was applied, are written together or not at all, so a
//!   crash can only lose whole batches, which the log brings back.
//! - A command counts only under the mount it was proposed in: the last mount entry must be of the
//!   entry's own term and lineage. Everything else is answered with [`Reply::StaleMount`], on
//!   every copy alike, and changes nothing.
//! - An entry whose type or version is unknown, or a machine's fault, stops the group: nothing of
//!   the batch is written.
//! - An instance that was replaced by another (a rebuild) can no longer apply: each batch is
//!   fenced by the instance's number.
//!
//! Two openraft types meet here: the state machine that openraft drives, one per Raft instance,
//! and [`CopyState`], which outlives instances.

use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dac::mount::{Mount, admit_entry, admit_mount};
use dag_format::envelope::{Body, Envelope};
use dag_format::links;
use dag_types::{Chain, Lineage, LogId, Mutant, NodeId};
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend};
use storage::state::{self, StateRead, StateStore};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::copy_store::OpenCopy;
use crate::event::Event;
use crate::fault::CopyFault;
use crate::hot::HotRows;
use crate::machine::{Machine, MachineFault};
use crate::offload::Offload;
use crate::overlay::Overlay;
use crate::rows;
use crate::snapshot::{Snapshot, SnapshotContent};
use crate::types::{
    Payload, RaftEntry, RaftLogId, Reply, SnapshotMeta, StoredMembership, Types, log_id,
    raft_log_id,
};

/// Entries of one batch.
const BATCH_ENTRIES: usize = 256;
/// Payload bytes of one batch, unless a single entry is larger.
const BATCH_BYTES: usize = 1 << 20;

/// Entries of a batch that may be applied on the runtime's own thread, and payload bytes of each.
const BRIEF_ENTRIES: usize = 2;
const BRIEF_BYTES: usize = 64 << 10;

/// At the end of a digest mark's number: copies keep their state as it is there for a while.
/// Numbers are random otherwise, and their order decides which ones a copy remembers.
pub const KEEP_STATE: u64 = 0xff;
/// How long a kept state is kept after it was used last, and in all.
const KEPT_IDLE: Duration = Duration::from_secs(60);
const KEPT_MAX: Duration = Duration::from_secs(3600);

/// How long views of an old state may be held when a snapshot replaces it.
const USES_PATIENCE: Duration = Duration::from_secs(60);
/// How often that is looked at.
const USES_LOOK: Duration = Duration::from_millis(5);

/// A mount that took effect: from here on `node` serves the database, in this lineage, in the term
/// of `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mounted {
    /// The lineage it was proposed in.
    pub lineage: Lineage,
    /// The node that serves.
    pub node: NodeId,
    /// Where its entry stands.
    pub at: LogId,
}

/// The digest of a copy's content at a mark; equal on all copies, or one of them is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestAt {
    /// Which comparison it belongs to.
    pub mark: u64,
    /// Where its entry stands.
    pub at: LogId,
    /// The machine's digest there.
    pub digest: [u8; 16],
}

/// The state of one copy, for one Raft instance after the other.
pub(crate) struct CopyState {
    machine: Arc<dyn Machine>,
    store: Arc<OpenCopy>,
    fault: Arc<CopyFault>,
    offload: Offload,
    hot: HotRows,
    /// What was applied last, beside the store for those who only want to look.
    seen: watch::Sender<Seen>,
    /// The state at the last mark that asked for it.
    kept: Mutex<Option<Kept>>,
    /// The instance that may apply. Held while a batch is applied.
    instance: Arc<tokio::sync::Mutex<u64>>,
}

/// A state as it was at a mark.
struct Kept {
    at: LogId,
    view: Arc<dyn StateRead>,
    since: Instant,
    used: Instant,
}

/// What the last batch left.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub applied: Option<LogId>,
    pub mounted: Option<Mounted>,
    /// The same with its chain: what later mounts and entries are judged by.
    pub mount: Option<Mount>,
    pub membership: StoredMembership,
}

impl CopyState {
    /// Reads what was applied so far.
    pub fn open(
        machine: Arc<dyn Machine>,
        store: Arc<OpenCopy>,
        fault: Arc<CopyFault>,
        offload: Offload,
    ) -> Result<Arc<Self>, MachineFault> {
        let seen = Seen::read(&*store.state())?;
        let seen = watch::Sender::new(seen);
        let instance = Arc::default();
        let hot = HotRows::default();
        let kept = Mutex::default();
        Ok(Arc::new(Self { machine, store, fault, offload, hot, seen, kept, instance }))
    }

    pub fn mounted(&self) -> Option<Mounted> {
        self.seen.borrow().mounted
    }

    pub fn applied(&self) -> Option<LogId> {
        self.seen.borrow().applied
    }

    /// To wait for entries to be applied.
    pub fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// The last entry whose effects are on disk.
    pub fn flushed(&self) -> Option<LogId> {
        if Mutant::PurgePastFlushed.planted() {
            return self.applied();
        }
        self.store.flushed().map(|(at, _)| at)
    }

    /// The state as it is now.
    pub fn view(&self) -> Arc<dyn StateRead> {
        self.store.state().snapshot()
    }

    pub fn digest_marks(&self) -> Result<Vec<DigestAt>, MachineFault> {
        rows::marks(&*self.store.state())
    }

    /// The state as it was where the mark at this index was applied, as long as it is kept.
    pub fn kept_view(&self, index: u64) -> Option<Arc<dyn StateRead>> {
        let mut kept = self.kept();
        let kept = kept.as_mut().filter(|kept| kept.at.index == index)?;
        kept.used = Instant::now();
        Some(kept.view.clone())
    }

    /// Lets go of a kept state that nobody has used for a while.
    pub fn expire_kept(&self) {
        let mut kept = self.kept();
        let over =
            |kept: &mut Kept| kept.used.elapsed() >= KEPT_IDLE || kept.since.elapsed() >= KEPT_MAX;
        if kept.as_mut().is_some_and(over) {
            *kept = None;
        }
    }

    /// Lets go of a kept state: its files are about to be replaced, or closed.
    pub fn forget_kept(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().expect("no panic while held")
    }

    pub fn store(&self) -> &Arc<OpenCopy> {
        &self.store
    }

    /// The state machine of a new instance; those before it apply nothing any more.
    pub async fn next_instance<R>(self: &Arc<Self>) -> StateMachine<R> {
        let mut current = self.instance.lock().await;
        *current += 1;
        StateMachine { copy: self.clone(), instance: *current, runtime: PhantomData }
    }

    /// Applies a batch whole. The caller holds the fence.
    fn apply_batch(&self, entries: &[RaftEntry]) -> Result<Vec<Reply>, MachineFault> {
        let store = self.store.state();
        let before = self.seen.borrow().clone();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(Vec::new());
        };
        let expected = before.applied.map_or(0, |applied| applied.index + 1);
        assert_eq!(first.log_id.index, expected, "entries are applied in order, without a gap");
        let below = self.hot.before(&*store);
        let mut batch = Batch { machine: &*self.machine, view: Overlay::new(&below), seen: before };
        let replies = entries.iter().map(|entry| batch.apply(entry)).collect::<Result<_, _>>()?;
        let last = log_id(&last.log_id);
        let chain = self.chain_at(last)?;
        let Batch { mut view, mut seen, .. } = batch;
        view.write(state::applied_write(last, chain));
        let writes = view.into_writes();
        store.write(&writes)?;
        self.hot.written(&writes);
        seen.applied = Some(last);
        self.seen.send_replace(seen);
        if entries.last().is_some_and(keeps_state) {
            let now = Instant::now();
            *self.kept() = Some(Kept { at: last, view: self.view(), since: now, used: now });
        }
        Ok(replies)
    }

    /// Whether a batch takes less time than two changes of threads cost: then it is applied where
    /// it is found. A lonely client waits for those changes on every write.
    fn is_brief(&self, entries: &[RaftEntry]) -> bool {
        entries.len() <= BRIEF_ENTRIES && entries.iter().all(|entry| self.is_brief_entry(entry))
    }

    fn is_brief_entry(&self, entry: &RaftEntry) -> bool {
        let EntryPayload::Normal(Payload(payload)) = &entry.payload else { return true };
        if payload.len() > BRIEF_BYTES {
            return false;
        }
        match Envelope::decode(payload).map(|envelope| envelope.body) {
            Ok(Body::Command(command)) => self.machine.is_brief(&command),
            Ok(Body::Mount { .. }) => true,
            _ => false,
        }
    }

    fn chain_at(&self, at: LogId) -> Result<Chain, MachineFault> {
        let gone = || MachineFault::new(format!("the log does not know the chain at entry {at}"));
        self.store.log().chain_at(at.index).ok_or_else(gone)
    }

    fn failed(&self, fault: impl std::fmt::Display) -> io::Error {
        self.fault.note(&fault.to_string());
        io::Error::other(fault.to_string())
    }

    /// Puts a received state in place of this one. The caller holds the fence.
    fn adopt(&self, fresh: Arc<dyn StateStore>) -> Result<LogId, MachineFault> {
        self.hot.clear();
        self.store.adopt(fresh)?;
        let seen = Seen::read(&*self.store.state())?;
        let applied = seen.applied.ok_or_else(|| MachineFault::new("an empty state arrived"))?;
        self.seen.send_replace(seen);
        Ok(applied)
    }
}

impl Seen {
    fn read(state: &dyn StateRead) -> Result<Self, MachineFault> {
        let (mounted, mount) = rows::mounted(state)?.unzip();
        Ok(Self {
            applied: state::applied(state)?.map(|(at, _)| at),
            mounted,
            mount,
            membership: rows::membership(state)?,
        })
    }
}

/// Applies entries to a state that no group uses, in one batch that ends at `position`.
pub(crate) fn apply_offline(
    machine: &dyn Machine,
    store: &dyn StateStore,
    entries: &[RaftEntry],
    (at, chain): (LogId, Chain),
) -> Result<(), MachineFault> {
    let seen = Seen::read(store)?;
    let mut batch = Batch { machine, view: Overlay::new(store), seen };
    for entry in entries {
        batch.apply(entry)?;
    }
    let mut view = batch.view;
    view.write(state::applied_write(at, chain));
    Ok(store.write(&view.into_writes())?)
}

/// A batch while it is applied.
struct Batch<'a> {
    machine: &'a dyn Machine,
    view: Overlay<'a>,
    seen: Seen,
}

impl Batch<'_> {
    fn apply(&mut self, entry: &RaftEntry) -> Result<Reply, MachineFault> {
        let at = log_id(&entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => Ok(Reply::Nothing),
            EntryPayload::Membership(members) => {
                let stored = StoredMembership::new(Some(entry.log_id), members.clone());
                self.view.write(rows::membership_write(&stored));
                self.seen.membership = stored;
                Ok(Reply::Nothing)
            }
            EntryPayload::Normal(Payload(payload)) => {
                let envelope = Envelope::decode(payload)
                    .map_err(|error| MachineFault::new(format!("entry {at}: {error}")))?;
                self.apply_envelope(at, envelope)
            }
        }
    }

    fn apply_envelope(&mut self, at: LogId, envelope: Envelope) -> Result<Reply, MachineFault> {
        match envelope.body {
            Body::Command(command) if self.holds(at, envelope.lineage) => {
                let effect = self
                    .machine
                    .apply(&self.view, at, &command)
                    .map_err(|fault| MachineFault::new(format!("apply entry {at}: {fault}")))?;
                effect.writes.into_iter().for_each(|write| self.view.write(write));
                Ok(Reply::Command(effect.reply))
            }
            Body::Command(_) => Ok(Reply::StaleMount { mounted: self.seen.mounted }),
            Body::Mount { node, term, links } => {
                let chain = links::chain_of(envelope.lineage, &links)
                    .map_err(|error| MachineFault::new(format!("entry {at}: {error}")))?;
                Ok(self.mount(at, Mount { chain, node, term }))
            }
            Body::DigestMark { mark } => {
                let digest = self.machine.digest(&self.view)?;
                let writes = rows::mark_writes(&self.view, &DigestAt { mark, at, digest })?;
                writes.into_iter().for_each(|write| self.view.write(write));
                Ok(Reply::Digest(digest))
            }
        }
    }

    /// Whether a command proposed in this lineage and term counts.
    fn holds(&self, at: LogId, lineage: Lineage) -> bool {
        !self.machine.needs_mount()
            || admit_entry(self.seen.mount.as_ref(), lineage, at.term).is_ok()
    }

    /// A mount of an older lineage, of a fork of this one, or of another term than the entry's
    /// own, has no effect.
    fn mount(&mut self, at: LogId, mount: Mount) -> Reply {
        if admit_mount(self.seen.mount.as_ref(), &mount, at.term).is_err() {
            return Reply::StaleMount { mounted: self.seen.mounted };
        }
        let mounted = Mounted { lineage: mount.chain.last(), node: mount.node, at };
        self.view.write(rows::mounted_write(&mounted, &mount.chain));
        self.seen.mounted = Some(mounted);
        self.seen.mount = Some(mount);
        Reply::Mounted(mounted)
    }
}

/// What openraft drives: the state of a copy, for one instance.
pub(crate) struct StateMachine<R> {
    copy: Arc<CopyState>,
    instance: u64,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime> StateMachine<R> {
    /// The fence; an error where another instance took over.
    async fn fence(&self) -> io::Result<tokio::sync::OwnedMutexGuard<u64>> {
        let current = self.copy.instance.clone().lock_owned().await;
        if *current == self.instance {
            Ok(current)
        } else {
            Err(io::Error::other("this Raft instance was replaced by another"))
        }
    }

    /// A fault, or a broken rule, fails the copy.
    fn well<T>(&self, done: Result<Result<T, MachineFault>, String>) -> io::Result<T> {
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(fault)) => Err(self.copy.failed(fault)),
            Err(broken) => Err(self.copy.failed(broken)),
        }
    }

    /// Takes the state away and waits until nobody uses it: its files are about to be replaced.
    async fn end_uses(&self) -> io::Result<()> {
        let store = self.copy.store();
        self.copy.forget_kept();
        store.take_away();
        let mut patience = Instant::now() + USES_PATIENCE;
        while store.in_use() {
            // Taking space back is a use that ends by itself, however long it takes.
            if store.is_tidying() {
                patience = Instant::now() + USES_PATIENCE;
            } else if Instant::now() >= patience {
                return Err(self.copy.failed("views of the old state were held for too long"));
            }
            tokio::time::sleep(USES_LOOK).await;
        }
        Ok(())
    }

    async fn apply_and_answer(&self, batch: Vec<EntryResponder<Types<R>>>) -> io::Result<()> {
        let (entries, responders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let fence = self.fence().await?;
        let copy = self.copy.clone();
        let offload = if copy.is_brief(&entries) { Offload::InPlace } else { copy.offload };
        let applied = offload.run_caught(move || copy.apply_batch(&entries)).await;
        drop(fence);
        let replies = self.well(applied)?;
        for (responder, reply) in responders.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        if let Some(last) = self.copy.applied() {
            self.copy.fault.journal().tell(Event::Applied { last });
        }
        Ok(())
    }
}

impl<R: AsyncRuntime> RaftStateMachine<Types<R>> for StateMachine<R> {
    type SnapshotData = SnapshotContent;
    type SnapshotBuilder = PositionOnly<R>;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
        let seen = self.copy.seen.borrow().clone();
        Ok((seen.applied.map(raft_log_id), seen.membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types<R>>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some((entry, responder)) = entries.try_next().await? {
            bytes += payload_bytes(&entry);
            let keeps = keeps_state(&entry);
            batch.push((entry, responder));
            if keeps || batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                self.apply_and_answer(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        self.apply_and_answer(batch).await
    }

    async fn get_snapshot_builder(&mut self) -> PositionOnly<R> {
        PositionOnly { copy: self.copy.clone(), runtime: PhantomData }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotContent,
    ) -> Result<(), io::Error> {
        let SnapshotContent::Received(fresh) = snapshot else {
            return Err(io::Error::other("only a received snapshot can be installed"));
        };
        let fence = self.fence().await?;
        self.end_uses().await?;
        let copy = self.copy.clone();
        let adopted = self.copy.offload.run_caught(move || copy.adopt(fresh)).await;
        drop(fence);
        let applied = self.well(adopted)?;
        assert_eq!(
            Some(applied),
            meta.last_log_id.as_ref().map(log_id),
            "a snapshot's position is the one that its own rows say"
        );
        self.copy.fault.journal().tell(Event::Installed { applied });
        Ok(())
    }

    /// The state as it is now: what a follower that lags behind the purged log is given.
    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let view = self.copy.view();
        let seen = Seen::read(&*view).map_err(|fault| self.copy.failed(fault))?;
        Ok(seen.applied.map(|applied| Snapshot {
            meta: SnapshotMeta {
                last_log_id: Some(raft_log_id(applied)),
                last_membership: seen.membership,
            },
            snapshot: SnapshotContent::View(view),
        }))
    }
}

/// Whether the state is kept as it is behind this entry, which therefore ends its batch.
fn keeps_state(entry: &RaftEntry) -> bool {
    let EntryPayload::Normal(Payload(payload)) = &entry.payload else { return false };
    let body = Envelope::decode(payload).map(|envelope| envelope.body);
    matches!(body, Ok(Body::DigestMark { mark }) if mark & KEEP_STATE == KEEP_STATE)
}

fn payload_bytes(entry: &RaftEntry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(Payload(payload)) => payload.len(),
        _ => 0,
    }
}

/// "Building" a snapshot only says which position is on disk: the log may be purged up to there.
/// The content is read from the live state when a follower needs it.
pub(crate) struct PositionOnly<R> {
    copy: Arc<CopyState>,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime> RaftSnapshotBuilder<Types<R>> for PositionOnly<R> {
    type SnapshotData = SnapshotContent;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let flushed = self.copy.flushed();
        let membership = self.copy.seen.borrow().membership.clone();
        let meta =
            SnapshotMeta { last_log_id: flushed.map(raft_log_id), last_membership: membership };
        Ok(Snapshot { meta, snapshot: SnapshotContent::PositionOnly })
    }
}
