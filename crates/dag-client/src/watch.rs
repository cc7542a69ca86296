//! A watch that outlives failovers: when its stream ends, it begins a new one at the active node,
//! from the MODSEQ that was told last.

use std::time::Duration;

use dag_api::mailbox::v1::watch_mailboxes_response::Event;
use dag_api::mailbox::v1::{
    CommitToken, MailboxChanged, WatchMailboxesRequest, WatchMailboxesResponse, WatchedMailbox,
};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::ask::Attempt;
use crate::client::Client;
use crate::error::Error;
use crate::places::{MailboxName, Place};

/// Between two signs of life; three missed ones are a broken stream.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// These changes; everything up to their MODSEQ is known now.
    Changed(MailboxChanged),
    /// More than a watch tells. Ask for changes since `known`, or read anew where that is
    /// `CHANGES_TOO_OLD`; the watch goes on from `modseq`.
    Overflow {
        /// What was told last.
        known: u64,
        /// From where the watch goes on.
        modseq: u64,
    },
}

/// A watch of one mailbox.
pub struct Watch {
    client: Client,
    name: MailboxName,
    known: Option<u64>,
    stream: Option<Streaming<WatchMailboxesResponse>>,
    /// The event that a new stream began with.
    first: Option<Event>,
}

impl Client {
    /// Tells what changes in a mailbox after a MODSEQ; `None`: after now. Nothing is asked before
    /// [`Watch::next`].
    pub fn watch(&self, name: impl Into<MailboxName>, since_modseq: Option<u64>) -> Watch {
        let (client, name, known) = (self.clone(), name.into(), since_modseq);
        Watch { client, name, known, stream: None, first: None }
    }
}

impl Watch {
    /// Everything up to there was told.
    pub fn known(&self) -> Option<u64> {
        self.known
    }

    /// Waits until the node has the watch; from then on nothing is missed.
    pub async fn begin(&mut self) -> Result<(), Error> {
        if self.stream.is_none() {
            if self.known.is_none() {
                self.known = Some(self.client.mailbox(self.name.clone()).await?.highest_modseq);
            }
            let (stream, first) = self.open().await?;
            (self.stream, self.first) = (Some(stream), first);
        }
        Ok(())
    }

    /// Waits for the next event. Fails when no node takes the watch within the client's patience, or
    /// refuses it for good; asked again, it tries again.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            self.begin().await?;
            let Some(event) = self.event().await else { continue };
            let known = self.known.unwrap_or_default();
            match event {
                Event::Heartbeat(_) => {}
                // An older lineage's, or told before: a site that was cut off may still talk.
                Event::Changed(changed) if changed.modseq <= known => {}
                Event::Changed(changed) => {
                    self.known = Some(changed.modseq);
                    return Ok(WatchEvent::Changed(changed));
                }
                Event::Overflow(overflow) => {
                    self.known = Some(overflow.modseq);
                    return Ok(WatchEvent::Overflow { known, modseq: overflow.modseq });
                }
            }
        }
    }

    /// The next event of this stream. None: it ended, broke, or is silent, and whoever is active now
    /// goes on; or it is an event of a later release.
    async fn event(&mut self) -> Option<Event> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        match timeout(HEARTBEAT * 3, self.stream.as_mut()?.message()).await {
            Ok(Ok(Some(response))) => response.event,
            Ok(Ok(None) | Err(_)) | Err(_) => {
                self.stream = None;
                None
            }
        }
    }

    /// A stream whose first sign of life came from a node that counts.
    async fn open(&self) -> Result<(Streaming<WatchMailboxesResponse>, Option<Event>), Error> {
        let call = |mut attempt: Attempt, place: Place| {
            let mailbox =
                WatchedMailbox { mailbox: Some(place.to_ref()), since_modseq: self.known };
            let message = WatchMailboxesRequest {
                mailboxes: vec![mailbox],
                heartbeat_ms: HEARTBEAT.as_millis() as u32,
            };
            async move {
                // The attempt's end is the answer's, not the stream's.
                let request = attempt.request(message);
                let mut stream = attempt.service.watch_mailboxes(request).await?.into_inner();
                let ended = || Status::unavailable("the watch ended before it began");
                let first = stream.message().await?.ok_or_else(ended)?.event;
                let token = first.as_ref().and_then(token_of);
                Ok::<_, Status>(((stream, first), token))
            }
        };
        self.client.ask_mailbox(&self.name, call).await
    }
}

fn token_of(event: &Event) -> Option<CommitToken> {
    match event {
        Event::Changed(changed) => changed.token.clone(),
        Event::Overflow(overflow) => overflow.token.clone(),
        Event::Heartbeat(heartbeat) => heartbeat.token.clone(),
    }
}
