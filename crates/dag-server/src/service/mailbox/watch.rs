//! A watch: what changes in some mailboxes of a database, as it happens.
//!
//! A watch has no memory but one MODSEQ for each mailbox. When it is woken, it reads the change feed
//! from there; a client that does not read its stream is not asked again, and what happens meanwhile
//! is told at once later, or as an overflow. So a watch costs the same however slow its client is,
//! and it can be taken up at any node that is active, from the MODSEQ told last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dag_api::mailbox::v1 as api;
use dag_api::mailbox::v1::watch_mailboxes_response::Event;
use dag_api::{BadMessage, Problem, Reason};
use dag_types::{DatabaseId, MailboxId};
use futures::stream;
use mailbox::query::{self, ChangesSince, FeedPosition};
use replication::Group;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::changes::{api_change, folders_since};
use super::{Found, Frames, MailboxServer, Place, live_mailbox, moved};
use crate::machine::View;
use crate::node::Node;
use crate::status;
use crate::watchers::Watch;

/// Mailboxes of one watch.
const MAILBOXES_MAX: usize = 1_000;
/// Changes that are told one by one.
const CHANGES_MAX: usize = 1_000;
/// Between heartbeats, where none is asked for.
const HEARTBEAT: Duration = Duration::from_secs(5);
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// A running watch.
struct Watching {
    node: Arc<Node>,
    database: DatabaseId,
    watch: Watch,
    /// The client knows everything up to there.
    known: BTreeMap<MailboxId, u64>,
    ready: VecDeque<Event>,
    heartbeat: Duration,
    next_heartbeat: Instant,
}

impl MailboxServer {
    pub(super) async fn watch(
        &self,
        request: api::WatchMailboxesRequest,
        deadline: Instant,
    ) -> Result<Frames<api::WatchMailboxesResponse>, Problem> {
        let heartbeat = heartbeat(request.heartbeat_ms)?;
        let (database, wanted) = self.wanted(&request.mailboxes)?;
        let mailboxes: Vec<MailboxId> = wanted.keys().copied().collect();
        // First the bell, then the look: what happens between them rings.
        let watch = self.node.watchers.watch(database, mailboxes.clone());
        let watch = watch.map_err(|count| {
            let text = "this node has as many watches as it bears; try again later";
            let limit = crate::watchers::WATCHED_MAX as u64;
            let problem = Problem::new(Reason::Overloaded, text).check("watched_mailboxes");
            problem.limit(count as u64, limit).retry_after(Duration::from_secs(1))
        })?;
        let known = self.known(database, wanted, deadline).await?;
        let next_heartbeat = Instant::now();
        let (node, ready) = (self.node.clone(), VecDeque::new());
        let watching = Watching { node, database, watch, known, ready, heartbeat, next_heartbeat };
        watching.watch.take();
        let mut watching = watching;
        for mailbox in mailboxes {
            watching.look_at(mailbox).await?;
        }
        Ok(Box::pin(stream::try_unfold(watching, |mut watching| async move {
            let event = watching.next().await.map_err(|problem| problem.to_status())?;
            let response = api::WatchMailboxesResponse { event: Some(event) };
            Ok::<_, Status>(Some((response, watching)))
        })))
    }

    /// The mailboxes of a watch, for whom, and since when.
    fn wanted(
        &self,
        mailboxes: &[api::WatchedMailbox],
    ) -> Result<(DatabaseId, BTreeMap<MailboxId, (Vec<String>, Option<u64>)>), Problem> {
        let (value, limit) = (mailboxes.len(), MAILBOXES_MAX);
        if value > limit {
            let text = format!("a watch has {value} mailboxes and may have {limit}; split it");
            let problem = Problem::new(Reason::LimitExceeded, text).check("mailboxes");
            return Err(problem.limit(value as u64, limit as u64));
        }
        let mut database = None;
        let mut wanted = BTreeMap::new();
        for mailbox in mailboxes {
            let place = self.database_of(mailbox.mailbox.as_ref())?;
            if *database.get_or_insert(place.database) != place.database {
                let wanted = "all of one database";
                return Err(BadMessage { field: "mailboxes", wanted }.into());
            }
            let actor = super::actor(mailbox.mailbox.as_ref());
            wanted.insert(place.mailbox, (actor, mailbox.since_modseq));
        }
        let none = BadMessage { field: "mailboxes", wanted: "at least one" };
        Ok((database.ok_or(none)?, wanted))
    }

    /// Where each mailbox's watch begins, from a linearizable look.
    async fn known(
        &self,
        database: DatabaseId,
        wanted: BTreeMap<MailboxId, (Vec<String>, Option<u64>)>,
        deadline: Instant,
    ) -> Result<BTreeMap<MailboxId, u64>, Problem> {
        let read = self.read(database, None, deadline, move |view| {
            let mut known = BTreeMap::new();
            for (mailbox, (actor, since)) in wanted {
                let place = Place { database, mailbox };
                let found = live_mailbox(view, place)?.and_then(|found| {
                    super::check_owner(place, &found, &actor).map(|()| found.highest_modseq)
                });
                match found {
                    Ok(now) => known.insert(mailbox, since.unwrap_or(now)),
                    Err(problem) => return Ok(Err(problem)),
                };
            }
            Ok(Ok(known))
        });
        Ok(read.await?.value)
    }
}

fn heartbeat(millis: u32) -> Result<Duration, Problem> {
    let asked = match millis {
        0 => HEARTBEAT,
        millis => Duration::from_millis(millis.into()),
    };
    if (HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&asked) {
        return Ok(asked);
    }
    Err(BadMessage { field: "heartbeat_ms", wanted: "between 100 and 60000" }.into())
}

impl Watching {
    /// The next event; an error ends the watch.
    async fn next(&mut self) -> Result<Event, Problem> {
        let stopping = self.node.stopping.clone();
        loop {
            self.serving()?;
            if let Some(event) = self.ready.pop_front() {
                self.next_heartbeat = Instant::now() + self.heartbeat;
                return Ok(event);
            }
            tokio::select! {
                () = stopping.cancelled() => return Err(status::shutting_down()),
                () = self.watch.rung() => {
                    for mailbox in self.watch.take() {
                        self.look_at(mailbox).await?;
                    }
                }
                () = sleep_until(self.next_heartbeat) => {
                    let group = self.serving()?;
                    self.next_heartbeat = Instant::now() + self.heartbeat;
                    let token = Some(self.token(&group));
                    return Ok(Event::Heartbeat(api::WatchHeartbeat { token }));
                }
            }
        }
    }

    /// This copy, while it serves. What is told was committed; this only ends watches that would
    /// hear nothing any more.
    fn serving(&self) -> Result<Group, Problem> {
        let group = self.node.group(self.database)?;
        match group.serving() {
            Ok(_) => Ok(group),
            Err(_) => Err(status::not_active(self.database, self.node.hint(self.database))),
        }
    }

    fn token(&self, group: &Group) -> api::CommitToken {
        let applied = group.status().applied.map_or(0, |at| at.index);
        self.node.token(group, applied).into()
    }

    /// Reads what is new in a mailbox, on a thread that may wait for the disk.
    async fn look_at(&mut self, mailbox: MailboxId) -> Result<(), Problem> {
        let group = self.serving()?;
        let place = Place { database: self.database, mailbox };
        let since = self.known.get(&mailbox).copied().unwrap_or_default();
        let token = self.token(&group);
        let view = group.view();
        let work = tokio::task::spawn_blocking(move || news(View(&*view), place, since, token));
        let broken = || Problem::new(Reason::Internal, "a read ended without an answer");
        let news = work.await.map_err(|_| broken())?;
        let news = news.map_err(|fault| status::fault(&fault, self.database))??;
        self.known.insert(mailbox, news.known);
        self.ready.extend(news.event);
        Ok(())
    }
}

/// What a look at a mailbox found.
struct News {
    known: u64,
    event: Option<Event>,
}

fn news(view: View<'_>, place: Place, since: u64, token: api::CommitToken) -> Found<News> {
    let highest = match live_mailbox(view, place)? {
        Ok(mailbox) => mailbox.highest_modseq,
        Err(problem) => return Ok(Err(problem)),
    };
    let mailbox_id = place.mailbox.to_string();
    if since >= highest {
        return Ok(Ok(News { known: since, event: None }));
    }
    let from = FeedPosition::at(since);
    let changes = query::changes_since(&view, place.mailbox, None, from, CHANGES_MAX)?;
    let folders = folders_since(view, place, since, CHANGES_MAX)?;
    let event = match (changes, folders) {
        (ChangesSince::NotFound, _) => return Ok(Err(moved(place))),
        (ChangesSince::Changes(changes), Ok((folders, _, false))) if !changes.more => {
            let changes: Vec<_> = changes.changes.iter().map(api_change).collect();
            let is_news = !changes.is_empty() || !folders.is_empty();
            let (modseq, token) = (highest, Some(token));
            is_news.then_some(Event::Changed(api::MailboxChanged {
                mailbox_id,
                changes,
                folders,
                modseq,
                token,
            }))
        }
        _ => {
            let (modseq, token) = (highest, Some(token));
            Some(Event::Overflow(api::WatchOverflow { mailbox_id, modseq, token }))
        }
    };
    Ok(Ok(News { known: highest, event }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_have_bounds() {
        assert_eq!(heartbeat(0).unwrap(), HEARTBEAT);
        assert_eq!(heartbeat(100).unwrap(), HEARTBEAT_MIN);
        for millis in [1, 99, 60_001] {
            assert_eq!(heartbeat(millis).unwrap_err().reason, Reason::InvalidRequest);
        }
    }
}
