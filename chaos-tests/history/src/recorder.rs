//! Writes a history while it happens.
//!
//! The recorder is shared by all clients of a run. An operation is written when it is called and
//! again when it ends, so that a harness that dies leaves a history that still can be judged: what
//! has no end is of unknown outcome.

use std::io::{self, Write};
use std::sync::Mutex;

use crate::Nanos;
use crate::event::Line;
use crate::op::{Op, Outcome};

/// A history being written to `W`.
pub struct Recorder<W> {
    inner: Mutex<Inner<W>>,
}

struct Inner<W> {
    out: W,
    next_id: u64,
    next_client: u64,
}

/// An operation that was called and has not ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an operation that never ends counts as one of unknown outcome"]
pub struct Called {
    id: u64,
}

impl<W: Write> Recorder<W> {
    /// Begins a history.
    pub fn new(out: W) -> Self {
        Self { inner: Mutex::new(Inner { out, next_id: 1, next_client: 1 }) }
    }

    /// A number for a client. A client whose operation ended unknown asks for a new one, for its
    /// earlier operation may still take effect beside its next.
    pub fn client(&self) -> u64 {
        let mut inner = self.lock();
        inner.next_client += 1;
        inner.next_client - 1
    }

    /// An operation is about to be sent.
    pub fn invoke(&self, client: u64, at: Nanos, op: Op) -> io::Result<Called> {
        let mut inner = self.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        inner.write(&Line::Invoke { id, client, at, op })?;
        Ok(Called { id })
    }

    /// An operation ended.
    pub fn finish(&self, called: Called, at: Nanos, outcome: Outcome) -> io::Result<()> {
        self.lock().write(&Line::Return { id: called.id, at, outcome })
    }

    /// Any other line: faults, phases, digests, journals.
    pub fn line(&self, line: &Line) -> io::Result<()> {
        self.lock().write(line)
    }

    /// Ends the history and gives its writer back, flushed.
    pub fn into_inner(self) -> io::Result<W> {
        let mut inner = self.inner.into_inner().unwrap_or_else(|poison| poison.into_inner());
        inner.out.flush()?;
        Ok(inner.out)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner<W>> {
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl<W: Write> Inner<W> {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }
}
