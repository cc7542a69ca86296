//! The trace: what became of messages, one row for each command that brought, moved or removed some.
//!
//! It is written with the change itself and after it, from the command and its answer alone: so it
//! is there exactly when the change is, and the change does not know of it. It goes hour by hour.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::command::{Content, Operation, Transfer, UidRange};
use crate::keys::{self, Due};
use crate::limits;
use crate::records::{Marker, TraceKind, TracePlace, TraceRecord};
use crate::response::{
    DeliverCode, Delivered, Outcome, RecipientResult, Response, StoredAt, Transferred,
};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;

const HOUR_MS: u64 = 60 * 60 * 1_000;

/// Notes what a command did, if it did something.
pub(super) fn note<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    log_index: u64,
    operation: &Operation,
    response: &Response,
) -> Result<(), Stop<V::Error>> {
    let Some(record) = response.outcome.as_ref().and_then(|done| record(operation, done)) else {
        return Ok(());
    };
    let now_ms = transaction.now_ms();
    let hour = now_ms / HOUR_MS;
    let due_ms = ((hour + 1) * HOUR_MS).saturating_add(limits::TRACE_KEPT_MS);
    let due = keys::due(due_ms, &Due::Trace(hour));
    if transaction.get::<Marker>(&due)?.is_none() {
        transaction.insert(due, &Marker {});
    }
    transaction.insert(keys::trace(now_ms, log_index), &record);
    Ok(())
}

/// Removes what is left of an hour, as much as the budget allows; whether that was all.
pub(super) fn sweep<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    hour: u64,
    budget: usize,
) -> Result<(usize, bool), Stop<V::Error>> {
    let from = keys::trace(hour * HOUR_MS, 0);
    let to = keys::trace((hour + 1) * HOUR_MS, 0);
    let rows = transaction.scan::<TraceRecord>(&from, &to, budget + 1)?;
    let finished = rows.len() <= budget;
    let mut removed = 0;
    for (key, _) in rows.iter().take(budget) {
        transaction.remove(key);
        removed += 1;
    }
    Ok((removed, finished))
}

fn record(operation: &Operation, outcome: &Outcome) -> Option<TraceRecord> {
    let record = match (operation, outcome) {
        (Operation::Deliver(command), Outcome::Delivered(done)) => TraceRecord {
            delivery_id: command.delivery_id.clone(),
            sender: command.sender.clone(),
            ..incoming(TraceKind::Deliver, &command.content, delivered(command, done))
        },
        (Operation::Append(command), Outcome::Appended(at)) => {
            let place = stored(&command.mailbox_id, at, 1);
            incoming(TraceKind::Append, &command.content, vec![place])
        }
        (Operation::AppendMany(command), Outcome::AppendedMany(done)) => {
            let place = stored(&command.mailbox_id, &done.first, done.messages);
            let first = &command.messages.first()?.content;
            let place = TracePlace { email: 0, ..place };
            let record = incoming(TraceKind::Append, first, vec![place]);
            let size = command.messages.iter().map(|message| message.content.size).sum();
            TraceRecord { size, message_id: String::new(), ..record }
        }
        (Operation::Expunge(command), Outcome::Expunged(done)) => {
            let (mailbox_id, folder) = (command.mailbox_id.clone(), command.folder);
            let uids = done.vanished.clone();
            internal(TraceKind::Expunge, TracePlace { mailbox_id, folder, uids, ..empty() })
        }
        (Operation::MoveMessages(command), Outcome::Transferred(done)) => {
            internal(TraceKind::Move, moved(&command.transfer, done))
        }
        (Operation::RestoreItems(command), Outcome::Restored(done)) => {
            let place = |at: &StoredAt| stored(&command.mailbox_id, at, 1);
            let places = done.stored.iter().map(place).collect();
            TraceRecord { kind: TraceKind::Restore as i32, places, ..TraceRecord::default() }
        }
        _ => return None,
    };
    let says_something =
        record.places.iter().any(|place| !place.uids.is_empty() || place.reason != 0);
    says_something.then_some(record)
}

fn empty() -> TracePlace {
    TracePlace::default()
}

fn incoming(kind: TraceKind, content: &Content, places: Vec<TracePlace>) -> TraceRecord {
    TraceRecord {
        kind: kind as i32,
        message_id: content.parsed.message_id.clone(),
        size: content.size,
        places,
        ..TraceRecord::default()
    }
}

fn internal(kind: TraceKind, place: TracePlace) -> TraceRecord {
    TraceRecord { kind: kind as i32, places: vec![place], ..TraceRecord::default() }
}

fn stored(mailbox_id: &Bytes, at: &StoredAt, messages: u32) -> TracePlace {
    let last = at.uid.saturating_add(messages.saturating_sub(1));
    TracePlace {
        mailbox_id: mailbox_id.clone(),
        folder: at.folder,
        uids: vec![UidRange::new(at.uid, last)],
        email: at.email_id,
        ..empty()
    }
}

fn delivered(command: &crate::command::Deliver, done: &Delivered) -> Vec<TracePlace> {
    let pairs = command.recipients.iter().zip(&done.results);
    let place = |(recipient, result): (&crate::command::Recipient, &RecipientResult)| {
        let address = recipient.address.clone();
        match &result.stored {
            Some(at) => TracePlace {
                address,
                duplicate: result.code() == DeliverCode::Duplicate,
                ..stored(&recipient.mailbox_id, at, 1)
            },
            None => TracePlace {
                mailbox_id: recipient.mailbox_id.clone(),
                address,
                reason: result.rejection.as_ref().map_or(0, |rejection| rejection.code),
                ..empty()
            },
        }
    };
    pairs.map(place).collect()
}

fn moved(transfer: &Transfer, done: &Transferred) -> TracePlace {
    TracePlace {
        mailbox_id: transfer.mailbox_id.clone(),
        folder: transfer.folder,
        uids: done.source.clone(),
        to_folder: transfer.to_folder,
        to_mailbox_id: transfer.to_mailbox_id.clone(),
        to_uids: done.target.clone(),
        ..empty()
    }
}
