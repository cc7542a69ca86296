//! What a group does by itself: tell of its role, mount when it leads, let the log be purged.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dag_format::envelope::{Body, Envelope};
use openraft::AsyncRuntime;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use super::{Group, Serving};
use crate::event::{Event, Role};
use crate::types::{Reply, log_id};

/// How long a mount that was not possible is not tried again.
const MOUNT_PAUSE: Duration = Duration::from_millis(10);

/// What was told last.
struct Told {
    role: (Role, u64),
    serving: Option<Serving>,
}

pub(super) async fn run<R: AsyncRuntime>(group: Group<R>) {
    let stop = group.inner.stop.clone();
    let mut told = Told { role: (Role::Stopped, 0), serving: None };
    let mut purge_at = Instant::now();
    loop {
        group.look(&mut told).await;
        if Instant::now() >= purge_at {
            group.let_purge().await;
            purge_at = Instant::now() + group.inner.options.purge.interval;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = group.something_changed() => {}
            () = group.inner.wake.notified() => {}
            () = tokio::time::sleep_until(purge_at) => {}
        }
    }
    if told.serving.is_some() {
        group.tell(Event::Dismounted);
    }
}

impl<R: AsyncRuntime> Group<R> {
    /// Resolves when openraft publishes something about role, term or its own end.
    async fn something_changed(&self) {
        let Some(instance) = self.instance() else { return std::future::pending().await };
        let mut server = instance.raft.server_metrics();
        if server.changed().await.is_err() {
            // The instance ended by itself: a fault. It is noted once.
            self.note_fatal();
            std::future::pending().await
        }
    }

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
        if let Some(term) = self.mount_due() {
            self.mount(term).await;
            self.tell_serving(told);
        }
    }

    fn tell_role(&self, told: &mut Told) {
        let now = self.role();
        if told.role != now {
            told.role = now;
            self.tell(Event::Role { role: now.0, term: now.1 });
        }
    }

    fn tell_serving(&self, told: &mut Told) {
        let now = self.leading().and_then(|term| self.mounted_in(term));
        if told.serving == now {
            return;
        }
        if told.serving.is_some() {
            self.tell(Event::Dismounted);
        }
        told.serving = now;
        if let (Some(_), Some(mounted)) = (now, self.inner.copy.mounted()) {
            self.tell(Event::Mounted(mounted));
        }
    }

    /// The term to mount in: this copy leads in it, may serve, and does not yet.
    fn mount_due(&self) -> Option<u64> {
        let inner = &*self.inner;
        if !inner.needs_mount || !inner.may_mount.load(Ordering::SeqCst) {
            return None;
        }
        self.leading().filter(|term| self.mounted_in(*term).is_none())
    }

    /// Proposes the mount of this term. Where it cannot be done now, the next look tries again.
    async fn mount(&self, term: u64) {
        let inner = &*self.inner;
        let lineage = inner.registry.local().lineage;
        let envelope = Envelope { lineage, body: Body::Mount { node: inner.node, term } };
        let patience = Duration::from_millis(inner.options.timeouts.election_max);
        let proposed = tokio::select! {
            () = inner.stop.cancelled() => return,
            proposed = self.write(&envelope, term, Instant::now() + patience) => proposed,
        };
        match proposed {
            Ok((at, Reply::Mounted(_))) => {
                tracing::info!(database = %inner.spec.database, %at, %lineage, "mounted");
            }
            Ok((at, reply)) => {
                tracing::warn!(database = %inner.spec.database, %at, ?reply, "not mounted");
                self.wake_later();
            }
            Err(error) => {
                tracing::debug!(database = %inner.spec.database, %error, "not mounted yet");
                self.wake_later();
            }
        }
    }

    fn wake_later(&self) {
        let wake = self.inner.wake.clone();
        tokio::spawn(async move {
            tokio::time::sleep(MOUNT_PAUSE).await;
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
        let mut upto = flushed.min(last.checked_sub(purge.keep_entries)?);
        let lagging = status.followers.iter().map(|follower| follower.matched.map(|at| at.index));
        if let Some(slowest) = lagging.min() {
            let kept = last.saturating_sub(purge.lagging_entries);
            upto = upto.min(slowest.unwrap_or(0).max(kept));
        }
        let purged = status.purged.map_or(0, |purged| purged.index + 1);
        (upto >= purged + purge.batch_entries).then_some(upto)
    }
}
