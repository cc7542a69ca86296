//! What a group does by itself: tell of its role, mount when it leads or hand over, let the log be
//! purged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dag_format::envelope::{Body, Envelope};
use dag_format::links;
use dag_types::Candidacy;
use openraft::AsyncRuntime;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::time::Instant;

use super::{Instance, RaftGroup, Serving, TransferError};
use crate::event::{Event, Role};
use crate::types::{Reply, Types, log_id};

/// How long a mount that was not possible is not tried again.
const MOUNT_PAUSE: Duration = Duration::from_millis(10);

/// How long a hand-over that was not possible is not tried again.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(200);
/// How long another copy may take to get what it lacks before the next one is asked.
const LEVEL: Duration = Duration::from_secs(1);

/// What was told last.
struct Told {
    role: (Role, u64),
    serving: Option<Serving>,
}

pub(super) async fn run<R: AsyncRuntime>(group: RaftGroup<R>) {
    let stop = group.inner.stop.clone();
    let mut told = Told { role: (Role::Stopped, 0), serving: None };
    let mut purge_at = Instant::now();
    let mut watched = Watched(None);
    loop {
        watched.follow(&group);
        // What called it to lead may be long ago, and what it lacks a leader for too.
        group.settle_elections();
        group.look(&mut told).await;
        if Instant::now() >= purge_at {
            group.let_purge().await;
            group.inner.copy.expire_kept();
            purge_at = Instant::now() + group.inner.options.purge.interval;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = watched.changed(&group) => {}
            () = group.inner.wake.notified() => {}
            () = tokio::time::sleep_until(purge_at) => {}
        }
    }
    if told.serving.is_some() {
        group.tell(Event::Dismounted { why: "its group is stopped" });
    }
}

/// What openraft publishes of the instance that runs now.
///
/// The receiver is kept from one look to the next: it remembers what it has seen, and a fresh one
/// would find something new at once and for ever.
struct Watched<R: AsyncRuntime>(Option<(Arc<Instance<R>>, ServerMetrics<R>)>);

type ServerMetrics<R> = WatchReceiverOf<Types<R>, RaftServerMetrics<Types<R>>>;

impl<R: AsyncRuntime> Watched<R> {
    /// Turns to the instance that runs now.
    fn follow(&mut self, group: &RaftGroup<R>) {
        let runs = group.instance();
        let same = match (&self.0, &runs) {
            (Some((watched, _)), Some(runs)) => Arc::ptr_eq(watched, runs),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.0 = runs.map(|instance| {
                let metrics = instance.raft.server_metrics();
                (instance, metrics)
            });
        }
    }

    /// Resolves when role, term or members changed. Cancel-safe.
    async fn changed(&mut self, group: &RaftGroup<R>) {
        if let Some((_, metrics)) = &mut self.0
            && metrics.changed().await.is_ok()
        {
            return;
        }
        // There is no instance, or it ended by itself: a fault, which is noted once.
        group.note_fatal();
        std::future::pending().await
    }
}

impl<R: AsyncRuntime> RaftGroup<R> {
    fn note_fatal(&self) {
        let Some(instance) = self.instance() else { return };
        let state = instance.raft.metrics().borrow_watched().running_state.clone();
        if let Err(fatal) = state {
            self.inner.fault.note(&fatal.to_string());
        }
    }

    /// Tells what changed, and mounts where that is due.
    async fn look(&self, told: &mut Told) {
        self.note_fatal();
        if self.inner.fault.reason().is_some() {
            // A Failed copy neither votes nor leads nor counts.
            let _turn = self.inner.replacing.lock().await;
            self.stop_instance().await;
        }
        self.tell_role(told);
        self.tell_serving(told);
        let Some(term) = self.mount_due() else { return };
        if self.inner.link.is_candidate() || self.was_mounted_in(term) || self.is_left_alone().await
        {
            self.mount(term).await;
            self.tell_serving(told);
        }
    }

    /// It was mounted in this term already, and keeps what it has when policies or the lineage change.
    fn was_mounted_in(&self, term: u64) -> bool {
        let mounted = self.inner.copy.mounted();
        mounted.is_some_and(|it| it.at.term == term && it.node == self.inner.node)
    }

    /// Hands over what this copy leads only for others. True where it is to be mounted itself: nobody
    /// else may lead, and it stands in need.
    async fn is_left_alone(&self) -> bool {
        let status = self.status();
        let mut others: Vec<_> =
            status.followers.iter().map(|it| (it.matched, it.replica)).collect();
        others.sort_unstable_by(|one, next| next.cmp(one));
        for (_, other) in others {
            match self.transfer(other, Instant::now() + LEVEL).await {
                Ok(()) => {
                    tracing::info!(db = %status.database, replica = %other, "handed over: this copy must not be active");
                    return false;
                }
                Err(TransferError::NotLeader(_) | TransferError::Repaired { .. }) => return false,
                Err(error) => {
                    tracing::debug!(db = %status.database, replica = %other, %error, "not handed over");
                }
            }
        }
        let alone = self.inner.link.standing().candidacy() == Candidacy::InNeed;
        if !alone {
            self.wake_after(HAND_OVER_PAUSE);
        }
        alone
    }

    fn tell_role(&self, told: &mut Told) {
        let now = self.role();
        if told.role != now {
            told.role = now;
            self.tell(Event::Role { role: now.0, term: now.1 });
        }
    }

    fn tell_serving(&self, told: &mut Told) {
        let now = self.serves();
        if told.serving == now {
            return;
        }
        if told.serving.is_some() {
            self.tell(Event::Dismounted { why: self.why_dismounted() });
        }
        told.serving = now;
        if let (Some(_), Some(mounted)) = (now, self.inner.copy.mounted()) {
            self.tell(Event::Mounted(mounted));
        }
    }

    /// What keeps it from serving as it did.
    fn why_dismounted(&self) -> &'static str {
        let inner = &*self.inner;
        if inner.fault.reason().is_some() {
            "the copy is Failed"
        } else if !self.gate_is_open() {
            "the node's gate is closed"
        } else if self.leading().is_none() {
            "it does not lead any more"
        } else if !inner.may_mount.load(Ordering::SeqCst) {
            "it may not be mounted here"
        } else {
            "its mount is of an older term or lineage"
        }
    }

    /// The term to mount in: this copy leads in it, may serve, and does not yet.
    fn mount_due(&self) -> Option<u64> {
        let inner = &*self.inner;
        let allowed = inner.may_mount.load(Ordering::SeqCst) && self.gate_is_open();
        if !inner.needs_mount || !allowed {
            return None;
        }
        self.leading().filter(|term| self.mounted_in(*term).is_none())
    }

    /// Proposes the mount of this term. Where it cannot be done now, the next look tries again.
    async fn mount(&self, term: u64) {
        let inner = &*self.inner;
        let chain = inner.registry.chain();
        let (lineage, links) = (chain.last(), links::beside(&chain));
        let envelope = Envelope { lineage, body: Body::Mount { node: inner.node, term, links } };
        let patience = Duration::from_millis(inner.options.timeouts.election_max);
        let proposed = tokio::select! {
            () = inner.stop.cancelled() => return,
            proposed = self.write(&envelope, term, Instant::now() + patience) => proposed,
        };
        match proposed {
            Ok((at, Reply::Mounted(_))) => {
                let (term, index) = (at.term, at.index);
                tracing::info!(db = %inner.spec.database, term, index, %lineage, "mounted");
            }
            Ok((at, reply)) => {
                let (term, index) = (at.term, at.index);
                tracing::warn!(db = %inner.spec.database, term, index, ?reply, "not mounted");
                self.wake_after(MOUNT_PAUSE);
            }
            Err(error) => {
                tracing::debug!(db = %inner.spec.database, %error, "not mounted yet");
                self.wake_after(MOUNT_PAUSE);
            }
        }
    }

    fn wake_after(&self, pause: Duration) {
        let wake = self.inner.wake.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            wake.notify_one();
        });
    }

    /// Lets openraft purge what is on disk in the state and no follower needs.
    ///
    /// Two steps, each when the one before has arrived: openraft is told which position is on disk
    /// (a "snapshot"), then up to where to purge.
    async fn let_purge(&self) {
        let Some(instance) = self.instance() else { return };
        let Some(upto) = self.purge_upto() else { return };
        let metrics = instance.raft.metrics().borrow_watched().clone();
        let index = |at: &Option<_>| at.as_ref().map(|at| log_id(at).index);
        if index(&metrics.purged) >= Some(upto) {
            return;
        }
        let told = if index(&metrics.snapshot) < Some(upto) {
            instance.raft.trigger().snapshot().await
        } else {
            instance.raft.trigger().purge_log(upto).await
        };
        if let Err(fatal) = told {
            tracing::debug!(%fatal, "the instance ended");
        }
    }

    /// The last index that may go: flushed, and beyond what is kept for followers.
    fn purge_upto(&self) -> Option<u64> {
        let (purge, status) = (&self.inner.options.purge, self.status());
        let (flushed, last) = (status.flushed?.index, status.last?.index);
        let keep = match self.inner.keeps_log.load(Ordering::SeqCst) {
            true => purge.keep_entries.max(purge.lagging_entries),
            false => purge.keep_entries,
        };
        let mut upto = flushed.min(last.checked_sub(keep)?);
        let lagging = status.followers.iter().map(|follower| follower.matched.map(|at| at.index));
        if let Some(slowest) = lagging.min() {
            let kept = last.saturating_sub(purge.lagging_entries);
            upto = upto.min(slowest.unwrap_or(0).max(kept));
        }
        let purged = status.purged.map_or(0, |purged| purged.index + 1);
        (upto >= purged + purge.batch_entries).then_some(upto)
    }
}
