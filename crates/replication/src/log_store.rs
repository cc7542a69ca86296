//! openraft's log over a copy's segmented log.
//!
//! | openraft asks | what it may rely on |
//! | --- | --- |
//! | `append` | readable on return; the callback comes when it is durable, from the log thread |
//! | `save_vote`, `truncate_after` | durable on return, in order with the appends before |
//! | `save_committed` | rides with the next write; lost with a crash, and harmless then |
//! | `purge` | never beyond what the state has flushed (`storage` asserts it) |
//! | `limited_get_log_entries` | at least one entry, then no more than 512 KiB |

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{AsyncRuntime, OptionalSend};
use storage::log::{CopyLog, LogEntry, LogFault, VoteRecord};
use tokio::sync::oneshot;

use crate::event::Event;
use crate::fault::CopyFault;
use crate::offload::Offload;
use crate::types::{RaftEntry, RaftLogId, RaftVote, Types, log_id, raft_log_id, raft_vote};
use crate::wire::{payload_of, payload_parts};

/// Bytes of one replication message, unless a single entry is larger.
const MESSAGE_BYTES: usize = 512 << 10;
/// Bytes that the apply path holds at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The log of one copy, for one Raft instance after the other.
pub(crate) struct LogStore<R> {
    log: CopyLog,
    fault: Arc<CopyFault>,
    offload: Offload,
    runtime: PhantomData<fn() -> R>,
}

impl<R> Clone for LogStore<R> {
    fn clone(&self) -> Self {
        Self::new(self.log.clone(), self.fault.clone(), self.offload)
    }
}

impl<R> LogStore<R> {
    pub fn new(log: CopyLog, fault: Arc<CopyFault>, offload: Offload) -> Self {
        Self { log, fault, offload, runtime: PhantomData }
    }

    /// Notes what failed, for the status, and gives it to openraft, which stops the group.
    fn failed(&self, fault: LogFault) -> io::Error {
        if !fault.is_harmless() {
            self.fault.note(&fault.to_string());
        }
        io::Error::other(fault)
    }

    /// Asks the log thread for something and waits until it is done.
    async fn done(&self, ask: impl FnOnce(&CopyLog, storage::log::Done)) -> Result<(), io::Error> {
        let (done, waiting) = oneshot::channel();
        ask(
            &self.log,
            Box::new(move |result| {
                let _ = done.send(result);
            }),
        );
        let result = waiting.await.unwrap_or(Err(LogFault::Closed));
        result.map_err(|fault| self.failed(fault))
    }

    /// Entries from `from`, below `to`, at least one where there is one, within `max_bytes`.
    async fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<RaftEntry>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let log = self.log.clone();
        let cached = log.in_memory(from);
        let read = move || log.read(from, to, max_bytes);
        let entries = if cached { read() } else { self.offload.run(read).await };
        let entries = entries.map_err(|fault| self.failed(fault))?;
        entries.into_iter().map(|entry| self.decode(entry)).collect()
    }

    /// An entry of an unknown kind fails the copy: passing over it would make another database.
    fn decode(&self, entry: LogEntry) -> io::Result<RaftEntry> {
        let payload = payload_of(u32::from(entry.kind), entry.payload).map_err(|detail| {
            let detail = format!("entry {} of the log: {detail}", entry.id.index);
            self.fault.note(&detail);
            io::Error::other(detail)
        })?;
        Ok(RaftEntry { log_id: raft_log_id(entry.id), payload })
    }

    /// The part of a range that the log holds, as `[from, to)`.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let bounds = self.log.bounds();
        let first = bounds.purged.map_or(0, |purged| purged.index + 1);
        let end = bounds.last.map_or(0, |last| last.index + 1);
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        (from.max(first), to.min(end))
    }
}

impl<R: AsyncRuntime> RaftLogReader<Types<R>> for LogStore<R> {
    async fn try_get_log_entries<B>(&mut self, range: B) -> Result<Vec<RaftEntry>, io::Error>
    where
        B: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.entries_stream(range).await.try_collect().await
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        let vote = self.log.vote();
        Ok(vote.map(|vote| raft_vote(vote.term, vote.voted_for, vote.committed)))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(start, end, MESSAGE_BYTES).await
    }

    async fn entries_stream<B>(
        &mut self,
        range: B,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        B: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = self.clamp(&range);
        let store = self.clone();
        let chunks = futures::stream::try_unfold(from, move |next| {
            let store = store.clone();
            async move {
                let entries = store.read(next, to, CHUNK_BYTES).await?;
                let Some(last) = entries.last() else { return Ok(None) };
                let next = last.log_id.index + 1;
                Ok::<_, io::Error>(Some((futures::stream::iter(entries).map(Ok), next)))
            }
        });
        chunks.try_flatten().boxed()
    }
}

impl<R: AsyncRuntime> RaftLogStorage<Types<R>> for LogStore<R> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types<R>>, io::Error> {
        let bounds = self.log.bounds();
        Ok(LogState {
            last_purged_log_id: bounds.purged.map(raft_log_id),
            last_log_id: bounds.last.map(raft_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        let leader = vote.leader_id();
        let (term, replica, committed) = (leader.term, leader.voted_for, vote.is_committed());
        let record = VoteRecord { term, voted_for: replica, committed };
        self.done(|log, done| log.save_vote(record, done)).await?;
        let replica = dag_types::ReplicaId(replica);
        self.fault.journal().tell(Event::Voted { term, replica, committed });
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        self.log.save_committed(committed.as_ref().map(log_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        // A commit that was noted beyond what survived of the log says nothing that could be
        // applied here.
        let last = self.log.bounds().last;
        Ok(self.log.committed().filter(|at| Some(*at) <= last).map(raft_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries
            .into_iter()
            .map(|entry| {
                let (kind, payload) = payload_parts(&entry.payload);
                LogEntry { id: log_id(&entry.log_id), kind, payload }
            })
            .collect();
        let Some(last) = entries.last().map(|entry| entry.id) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let store = self.clone();
        self.log.append(
            entries,
            Box::new(move |result| {
                if result.is_ok() {
                    store.fault.journal().tell(Event::Durable { last });
                }
                callback.io_completed(result.map_err(|fault| store.failed(fault)));
            }),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        let (index, end) = (last.map(|last| last.index), self.log.bounds().last);
        if index.is_some() && index >= end.map(|end| end.index) {
            return Ok(());
        }
        let last = last.as_ref().map(log_id);
        let journal = self.fault.journal().clone();
        journal.tell(Event::Cut { last, durable: false });
        self.done(|log, done| {
            let told = move |result: Result<(), LogFault>| {
                // From the log thread: what becomes durable later is told later.
                if result.is_ok() {
                    journal.tell(Event::Cut { last, durable: true });
                }
                done(result);
            };
            log.truncate_after(index, Box::new(told));
        })
        .await
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        self.log.purge(log_id(&upto)).map_err(|fault| self.failed(fault))
    }
}
