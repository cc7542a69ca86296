//! What became of messages: the trace of one database.

use std::fmt;
use std::str::FromStr;

use dag_api::mailbox::v1 as api;
use dag_api::{BadMessage, Problem};
use dag_types::{DatabaseId, MailboxId};
use mailbox::query::{self, TraceFilter, TracePosition, Traced};
use mailbox::records::{TraceKind, TracePlace};
use tokio::time::Instant;

use super::deliver::millis;
use super::list::uid_set;
use super::{MailboxServer, Seen, check_is_mailbox_database};
use crate::service::text::{PageToken, email_id, folder_id, page_size};

/// A position in the trace as a page token has it.
struct Position(TracePosition);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.stamp_ms, self.0.log_index)
    }
}

impl FromStr for Position {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (stamp, index) = text.split_once('.').ok_or(())?;
        let number = |text: &str| text.parse().map_err(|_| ());
        Ok(Self(TracePosition { stamp_ms: number(stamp)?, log_index: number(index)? }))
    }
}

impl MailboxServer {
    pub(super) async fn trace(
        &self,
        request: api::SearchMessageTraceRequest,
        deadline: Instant,
    ) -> Result<api::SearchMessageTraceResponse, Problem> {
        let database = DatabaseId(request.database_id);
        check_is_mailbox_database(database)?;
        let filter = filter(&request)?;
        let page = PageToken::of_query(&["trace", &database.to_string(), &format!("{filter:?}")]);
        let after = page.read::<Position>(&request.page_token)?.map(|Position(at)| at);
        let size = page_size(request.page_size);
        let read = self.read(database, request.read.as_ref(), deadline, move |view| {
            Ok(Ok(query::search_trace(&view, &filter, after, size)?))
        });
        let Seen { value: (found, next), token, staleness } = read.await?;
        Ok(api::SearchMessageTraceResponse {
            events: found.iter().flat_map(events).collect(),
            next_page_token: page.write(next.map(Position)),
            token,
            staleness,
        })
    }
}

fn filter(request: &api::SearchMessageTraceRequest) -> Result<TraceFilter, BadMessage> {
    let mailbox = match request.mailbox_id.as_str() {
        "" => None,
        id => Some(dag_api::convert::mailbox_id(id)?),
    };
    Ok(TraceFilter {
        message_id: request.message_id.clone(),
        delivery_id: request.delivery_id.clone(),
        sender: request.envelope_from.clone(),
        recipient: request.recipient.clone(),
        mailbox,
        since_ms: millis(request.since.as_ref())?,
        before_ms: millis(request.before.as_ref())?,
    })
}

/// One event for each place that a command concerned.
fn events(traced: &Traced) -> impl Iterator<Item = api::TraceEvent> {
    traced.record.places.iter().map(|place| event(traced, place))
}

fn event(traced: &Traced, place: &TracePlace) -> api::TraceEvent {
    let record = &traced.record;
    let mailbox = MailboxId::from_slice(&place.mailbox_id);
    let to_mailbox = MailboxId::from_slice(&place.to_mailbox_id);
    let id = |mailbox: Option<MailboxId>| mailbox.map(|id| id.to_string()).unwrap_or_default();
    let folder = |folder: u32| if folder == 0 { String::new() } else { folder_id(folder) };
    let email = mailbox.filter(|_| place.email > 0);
    let refused = place.reason() != mailbox::Reason::Unspecified;
    api::TraceEvent {
        kind: kind(record.kind(), place).into(),
        time: Some(dag_api::convert::timestamp(traced.at)),
        log_index: traced.log_index,
        mailbox_id: id(mailbox),
        folder_id: folder(place.folder),
        uids: Some(uid_set(&place.uids)),
        email_id: email.map(|mailbox| email_id(mailbox, place.email)).unwrap_or_default(),
        message_id: record.message_id.clone(),
        delivery_id: record.delivery_id.clone(),
        envelope_from: record.sender.clone(),
        recipient: place.address.clone(),
        size: record.size,
        reason: if refused { place.reason().name().to_owned() } else { String::new() },
        to_mailbox_id: id(to_mailbox),
        to_folder_id: folder(place.to_folder),
        to_uids: Some(uid_set(&place.to_uids)),
    }
}

fn kind(kind: TraceKind, place: &TracePlace) -> api::TraceEventKind {
    match kind {
        TraceKind::Unspecified => api::TraceEventKind::Unspecified,
        TraceKind::Deliver if place.duplicate => api::TraceEventKind::Duplicate,
        TraceKind::Deliver if place.uids.is_empty() => api::TraceEventKind::Fail,
        TraceKind::Deliver => api::TraceEventKind::Deliver,
        TraceKind::Append => api::TraceEventKind::Append,
        TraceKind::Expunge => api::TraceEventKind::Expunge,
        TraceKind::Move => api::TraceEventKind::Move,
        TraceKind::Restore => api::TraceEventKind::Restore,
    }
}
