//! Linearizable reads: one round of heartbeats for all that wait.
//!
//! A leader may have been replaced without knowing it, and no clock proves otherwise: openraft
//! forgets a follower's promise when that follower restarts. So a read waits until a majority has
//! answered a heartbeat that was sent **after** the read arrived, and until everything committed
//! before is applied. Reads that arrive while a round is under way share the next one.

use std::sync::atomic::{AtomicUsize, Ordering};

use dac::Closed;
use dag_types::{LogId, Mutant};
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{AsyncRuntime, ReadPolicy};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{NotActive, RaftGroup, Serving};
use crate::gate::Under;
use crate::types::log_id;

/// Reads of one round.
const ROUND: usize = 4096;

/// Why a read may not be answered from this copy now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Another copy serves, or none.
    #[error(transparent)]
    NotActive(#[from] NotActive),
    /// The node has no leave to serve.
    #[error("the node's gate is closed: {0}")]
    GateClosed(Closed),
    /// A majority of the voters did not answer in time.
    #[error("a majority of the voters did not confirm this leader in time")]
    NoQuorum,
    /// The deadline was over first.
    #[error("the deadline was over before the read was safe")]
    Deadline,
    /// The group is stopped, Failed or being replaced.
    #[error("the copy is not running")]
    NotRunning,
}

/// A read that a majority confirmed. It may be answered only while [`super::Group::still_read`].
#[derive(Debug)]
pub struct Confirmed {
    /// The view that is taken now has at least this position.
    pub at: LogId,
    serving: Serving,
    under: Under,
}

/// Counts a read while it waits, also one that is given up: heartbeats hurry while there is one.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A read that waits for a round.
pub(super) type Waiting = oneshot::Sender<Result<LogId, ReadError>>;

impl<R: AsyncRuntime> RaftGroup<R> {
    pub async fn confirm_read(&self, deadline: Instant) -> Result<Confirmed, ReadError> {
        let serving = self.serving()?;
        let (under, deadline) = self.enter(serving, deadline)?;
        let (waiting, confirmed) = oneshot::channel();
        let waits = Waits::begin(&self.inner.link.reads_waiting);
        let at = self.wait_for_round(waiting, confirmed, deadline).await?;
        drop(waits);
        self.wait_applied(at, deadline).await?;
        let read = Confirmed { at, serving, under };
        self.still_read(&read)?;
        Ok(read)
    }

    pub fn still_read(&self, read: &Confirmed) -> Result<(), ReadError> {
        if self.still_answers(read.serving, &read.under).is_ok() {
            return Ok(());
        }
        Err(self.not_active().into())
    }

    async fn wait_for_round(
        &self,
        waiting: Waiting,
        confirmed: oneshot::Receiver<Result<LogId, ReadError>>,
        deadline: Instant,
    ) -> Result<LogId, ReadError> {
        self.inner.reads.send(waiting).map_err(|_| ReadError::NotRunning)?;
        match tokio::time::timeout_at(deadline, confirmed).await {
            Err(_) => Err(ReadError::Deadline),
            Ok(answer) => answer.unwrap_or(Err(ReadError::NotRunning)),
        }
    }

    async fn wait_applied(&self, at: LogId, deadline: Instant) -> Result<(), ReadError> {
        let mut seen = self.inner.copy.watch();
        let applied = seen.wait_for(|seen| seen.applied >= Some(at));
        let stopped = self.inner.stop.cancelled();
        tokio::select! {
            _ = applied => Ok(()),
            () = stopped => Err(ReadError::NotRunning),
            () = tokio::time::sleep_until(deadline) => Err(ReadError::Deadline),
        }
    }

    async fn round(&self) -> Result<LogId, ReadError> {
        let instance = self.instance().ok_or(ReadError::NotRunning)?;
        let policy =
            if Mutant::LeaseRead.planted() { ReadPolicy::LeaseRead } else { ReadPolicy::ReadIndex };
        match instance.raft.get_read_linearizer(policy).await {
            Ok(linearizer) => Ok(log_id(linearizer.read_log_id().log_id())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(self.not_active().into())
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(ReadError::NotRunning),
        }
    }
}

/// One round after the other, each for everyone who waited when it began.
pub(super) async fn run<R: AsyncRuntime>(
    group: RaftGroup<R>,
    mut arriving: mpsc::UnboundedReceiver<Waiting>,
) {
    let stop = group.inner.stop.clone();
    let mut waiting = Vec::new();
    while stop.run_until_cancelled(arriving.recv_many(&mut waiting, ROUND)).await.unwrap_or(0) > 0 {
        let result = group.round().await;
        for read in waiting.drain(..) {
            let _ = read.send(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_read_that_is_given_up_hurries_no_heartbeats() {
        let waiting = AtomicUsize::new(0);
        let read = async {
            let _waits = Waits::begin(&waiting);
            std::future::pending::<()>().await;
        };
        let given_up = tokio::time::timeout(std::time::Duration::from_millis(1), read).await;
        assert!(given_up.is_err());
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
    }
}
