//! The first fault of a copy, in words, and where its events go.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::event::{Event, Journal};

/// Remembers the first fault; everything after it is a consequence.
pub(crate) struct CopyFault {
    journal: Journal,
    reason: OnceLock<String>,
    /// Wakes the group's upkeep, which stops the Raft instance.
    wake: Arc<Notify>,
}

impl CopyFault {
    pub fn new(journal: Journal, wake: Arc<Notify>) -> Self {
        Self { journal, reason: OnceLock::new(), wake }
    }

    /// Notes a fault; the first one is told.
    pub fn note(&self, reason: &str) {
        if self.reason.set(reason.to_owned()).is_ok() {
            tracing::error!(
                db = %self.journal.database,
                replica = %self.journal.replica,
                reason,
                "the copy is Failed"
            );
            self.journal.tell(Event::Failed { reason: reason.to_owned() });
            self.wake.notify_one();
        }
    }

    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }
}
