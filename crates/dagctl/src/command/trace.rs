//! `dagctl mail trace`: what became of a message.

use dag_api::mailbox::v1::{SearchMessageTraceRequest, TraceEvent, TraceEventKind, UidSet};
use dag_client::{Client, Timestamp};
use dag_types::DatabaseId;
use serde::Serialize;

use crate::admin::Admin;
use crate::command::mailbox::database_id;
use crate::connect::failure;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Form, table};

/// What is looked for; all that is given must be equal.
#[derive(Debug, clap::Args)]
pub struct TraceArgs {
    /// The Message-ID field, with or without brackets
    #[arg(long)]
    message_id: Option<String>,
    /// The id that the transport chose
    #[arg(long)]
    delivery_id: Option<String>,
    /// The envelope's sender
    #[arg(long)]
    from: Option<String>,
    /// A recipient's address
    #[arg(long)]
    to: Option<String>,
    /// Everything that happened to messages of this address's mailbox
    #[arg(long)]
    mailbox: Option<String>,
    /// Only the last hours
    #[arg(long)]
    hours: Option<u64>,
    /// Only this database [default: the one of --mailbox or --to, else all]
    #[arg(long)]
    db: Option<String>,
}

/// An event's line.
#[derive(Debug, Serialize)]
struct Line {
    time: Option<String>,
    event: String,
    recipient: String,
    folder: String,
    uids: String,
    to: String,
    delivery_id: String,
    message_id: String,
    envelope_from: String,
    size: u64,
    reason: String,
    mailbox_id: String,
    database: u64,
    log_index: u64,
}

/// Shows the events, oldest first.
pub async fn run(
    args: &TraceArgs,
    admin: &Admin,
    client: &Client,
    form: Form,
) -> Result<(), Failure> {
    let mut request = SearchMessageTraceRequest {
        message_id: without_brackets(args.message_id.as_deref()),
        delivery_id: args.delivery_id.clone().unwrap_or_default(),
        envelope_from: args.from.clone().unwrap_or_default(),
        recipient: args.to.clone().unwrap_or_default(),
        since: args.hours.map(hours_ago),
        page_size: 1_000,
        ..SearchMessageTraceRequest::default()
    };
    let databases = databases(args, admin, client, &mut request).await?;
    let mut lines = Vec::new();
    for database in databases {
        request.page_token.clear();
        loop {
            let page = client.trace(database, request.clone()).await;
            let page = page.map_err(|error| failure("Cannot read the trace.", &error))?;
            lines.extend(page.events.iter().map(|event| line(database, event)));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
    }
    lines.sort_by(|one, next| (&one.time, one.log_index).cmp(&(&next.time, next.log_index)));
    form.print(&lines, |lines| show(lines))
}

/// Where to look.
async fn databases(
    args: &TraceArgs,
    admin: &Admin,
    client: &Client,
    request: &mut SearchMessageTraceRequest,
) -> Result<Vec<DatabaseId>, Failure> {
    if let Some(address) = &args.mailbox {
        let place = client.locate(address.as_str()).await;
        let what = || format!("Cannot find mailbox {address}.");
        let place = place.map_err(|error| failure(what(), &error))?;
        request.mailbox_id = place.mailbox.to_string();
        return Ok(vec![place.database]);
    }
    if let Some(name) = &args.db {
        return Ok(vec![database_id(name, admin).await?]);
    }
    if let Some(address) = &args.to
        && let Ok(place) = client.locate(address.as_str()).await
    {
        return Ok(vec![place.database]);
    }
    let status = admin.get_status().await?;
    let ids = status.databases.iter().map(|database| DatabaseId(database.database_id));
    let ids: Vec<DatabaseId> = ids.filter(|id| *id >= DatabaseId::FIRST_MAILBOX_DATABASE).collect();
    if ids.is_empty() {
        return Err(Failure::new(Exit::Failed, "There is no database to look into.")
            .next("dagctl db create DB1"));
    }
    Ok(ids)
}

fn without_brackets(id: Option<&str>) -> String {
    id.unwrap_or_default().trim().trim_start_matches('<').trim_end_matches('>').to_owned()
}

fn hours_ago(hours: u64) -> Timestamp {
    let now = jiff::Timestamp::now().as_second();
    let seconds = now.saturating_sub_unsigned(hours.saturating_mul(3_600)).max(0);
    Timestamp { seconds, nanos: 0 }
}

fn line(database: DatabaseId, event: &TraceEvent) -> Line {
    let time = event.time.as_ref();
    let time = time.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok());
    let to = match event.kind() {
        TraceEventKind::Move => format!("{} {}", event.to_folder_id, uids(event.to_uids.as_ref())),
        _ => String::new(),
    };
    Line {
        time: time.map(|time| time.to_string()),
        event: name(event.kind()).to_owned(),
        recipient: event.recipient.clone(),
        folder: event.folder_id.clone(),
        uids: uids(event.uids.as_ref()),
        to,
        delivery_id: event.delivery_id.clone(),
        message_id: event.message_id.clone(),
        envelope_from: event.envelope_from.clone(),
        size: event.size,
        reason: event.reason.clone(),
        mailbox_id: event.mailbox_id.clone(),
        database: database.0,
        log_index: event.log_index,
    }
}

fn name(kind: TraceEventKind) -> &'static str {
    match kind {
        TraceEventKind::Unspecified => "?",
        TraceEventKind::Deliver => "DELIVER",
        TraceEventKind::Duplicate => "DUPLICATE",
        TraceEventKind::Fail => "FAIL",
        TraceEventKind::Append => "APPEND",
        TraceEventKind::Expunge => "EXPUNGE",
        TraceEventKind::Move => "MOVE",
        TraceEventKind::Restore => "RESTORE",
    }
}

/// As IMAP writes a set.
fn uids(set: Option<&UidSet>) -> String {
    let ranges = set.map(|set| set.ranges.as_slice()).unwrap_or_default();
    let text = ranges.iter().map(|range| match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{}:{}", range.first, range.last),
    });
    text.collect::<Vec<_>>().join(",")
}

fn show(lines: &[Line]) -> String {
    let rows = lines.iter().map(|line| {
        let place = format!("{} {}", line.folder, line.uids).trim().to_owned();
        let more = if line.reason.is_empty() { line.to.clone() } else { line.reason.clone() };
        [
            line.time.clone().unwrap_or_default(),
            line.event.clone(),
            line.recipient.clone(),
            place,
            more,
            line.delivery_id.clone(),
            line.message_id.clone(),
        ]
    });
    table(["TIME", "EVENT", "RECIPIENT", "FOLDER, UID", "", "DELIVERY ID", "MESSAGE ID"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dag_api::mailbox::v1::UidRange;

    #[test]
    fn sets_read_as_imap_writes_them() {
        let range = |first, last| UidRange { first, last };
        let set = UidSet { ranges: vec![range(1, 3), range(7, 7)] };
        assert_eq!(uids(Some(&set)), "1:3,7");
        assert_eq!(uids(None), "");
    }

    #[test]
    fn a_message_id_is_taken_with_and_without_brackets() {
        assert_eq!(without_brackets(Some(" <a@b> ")), "a@b");
        assert_eq!(without_brackets(Some("a@b")), "a@b");
        assert_eq!(without_brackets(None), "");
    }
}
