//! Sweeps: what has expired goes, a bounded number of rows at a time, on all copies alike.
//!
//! What is due stands in the order of its time. Some of it is one row; some of it stands for many,
//! such as the messages of a deleted folder: then a sweep does as much as it may, and what is left
//! stays due.

use bytes::Bytes;
use dag_types::MailboxId;

use super::{folder_delete, inbox, items, trace};
use crate::command::Sweep;
use crate::keys::{self, Due, table};
use crate::limits;
use crate::records::{
    BodyRecord, ChangeRecord, DeliveryRecord, FolderRecord, GoneFolder, MailboxRecord, Marker,
    RequestRecord,
};
use crate::response::{Reason, Rejection, Swept};
use crate::transaction::{Stop, Transaction, fault};
use crate::view::{Fault, MailboxView};

/// What came of one thing that was due.
struct Step {
    /// Rows that it took.
    rows: usize,
    /// Nothing is left of it. Otherwise it stays due.
    finished: bool,
}

const ONE_ROW: Step = Step { rows: 1, finished: true };

pub(super) fn sweep<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &Sweep,
) -> Result<Swept, Stop<V::Error>> {
    let limit = command.limit as usize;
    limits::SWEEP_ROWS.check(limit)?;
    if limit == 0 {
        return Err(Rejection::new(Reason::FieldMissing).about("limit").into());
    }
    let until = command.before_ms.min(transaction.now_ms());
    let from = Bytes::from_static(&[table::DUE]);
    let to = keys::due_after(until);
    let rows = transaction.scan::<Marker>(&from, &to, limit + 1)?;
    let mut swept = Swept::default();
    let mut budget = limit;
    for (key, Marker {}) in rows {
        if budget == 0 {
            swept.more = true;
            break;
        }
        let Some((_, what)) = keys::parse_due(&key) else {
            let detail = "this version does not know what is due there";
            return Err(fault(Fault::damaged(&key, detail)));
        };
        let step = expire(transaction, what, until, budget, &mut swept)?;
        budget -= step.rows.clamp(1, budget);
        if !step.finished {
            swept.more = true;
            break;
        }
        // The items of a mailbox keep their own row, which may have moved to a later time.
        if !matches!(what, Due::Items(_)) {
            transaction.remove(&key);
        }
    }
    Ok(swept)
}

fn expire<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    what: Due,
    until: u64,
    budget: usize,
    swept: &mut Swept,
) -> Result<Step, Stop<V::Error>> {
    match what {
        Due::Request(mailbox, id) => {
            let key = keys::request(mailbox, &id);
            transaction.need::<RequestRecord>(&key)?;
            transaction.remove(&key);
            swept.request_ids += 1;
            Ok(ONE_ROW)
        }
        Due::Delivery(mailbox, id) => {
            let key = keys::delivery(mailbox, &id);
            transaction.need::<DeliveryRecord>(&key)?;
            transaction.remove(&key);
            swept.delivery_ids += 1;
            Ok(ONE_ROW)
        }
        Due::Body(digest) => remove_body(transaction, &digest, swept),
        Due::Vanished(mailbox, folder, modseq) => {
            forget_vanished(transaction, mailbox, folder, modseq, budget, swept)
        }
        Due::GoneFolder(mailbox, modseq, folder) => {
            forget_folder(transaction, mailbox, modseq, folder)?;
            swept.vanished += 1;
            Ok(ONE_ROW)
        }
        Due::Items(mailbox) => {
            let (purged, more) = items::sweep(transaction, mailbox, until, budget)?;
            swept.items += purged;
            Ok(Step { rows: purged as usize, finished: !more })
        }
        Due::DeadFolder(mailbox, folder) => {
            let (rows, finished) =
                folder_delete::sweep(transaction, mailbox, folder, budget, swept)?;
            Ok(Step { rows, finished })
        }
        Due::InboxMove(mailbox) => {
            let (rows, finished) = inbox::sweep(transaction, mailbox, budget)?;
            swept.moved += rows as u32;
            Ok(Step { rows, finished })
        }
        Due::Trace(hour) => {
            let (rows, finished) = trace::sweep(transaction, hour, budget)?;
            Ok(Step { rows, finished })
        }
    }
}

fn remove_body<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    digest: &keys::BodyDigest,
    swept: &mut Swept,
) -> Result<Step, Stop<V::Error>> {
    let key = keys::body_record(digest);
    let body = transaction.need::<BodyRecord>(&key)?;
    if body.references != 0 {
        let detail = "it has references, and stands among those that have none";
        return Err(fault(Fault::damaged(&key, detail)));
    }
    transaction.remove(&key);
    for row in 0..body.rows() {
        transaction.remove_body(digest, row, body.row_bytes(row));
    }
    swept.bodies += 1;
    Ok(ONE_ROW)
}

/// Forgets what vanished from a folder at one mod-sequence, and raises the floor to it: whoever knew
/// less has to read everything again (RFC 7162 5.3). A deleted folder has no floor, and its rows go
/// with it.
fn forget_vanished<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox: MailboxId,
    folder: u32,
    modseq: u64,
    budget: usize,
    swept: &mut Swept,
) -> Result<Step, Stop<V::Error>> {
    let folder_key = keys::folder(mailbox, folder);
    let Some(mut record) = transaction.get::<FolderRecord>(&folder_key)? else {
        return Ok(ONE_ROW);
    };
    record.vanished_floor = record.vanished_floor.max(modseq);
    transaction.update(&folder_key, &record);
    let from = keys::change(mailbox, folder, modseq, 0);
    let to = keys::change(mailbox, folder, modseq + 1, 0);
    // What came at the same mod-sequence as others went is passed over, which costs as well.
    let most = 2 * limits::MESSAGES_PER_COMMAND.max as usize;
    let rows = transaction.scan::<ChangeRecord>(&from, &to, most)?;
    let mut rows = rows.into_iter().filter(|(_, change)| change.vanished);
    let mut forgotten = 0;
    for (key, _) in rows.by_ref().take(budget) {
        transaction.remove(&key);
        forgotten += 1;
    }
    swept.vanished += forgotten as u32;
    Ok(Step { rows: forgotten, finished: rows.next().is_none() })
}

fn forget_folder<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    modseq: u64,
    folder: u32,
) -> Result<(), Stop<V::Error>> {
    let key = keys::gone_folder(mailbox_id, modseq, folder);
    transaction.need::<GoneFolder>(&key)?;
    transaction.remove(&key);
    let mailbox_key = keys::mailbox(mailbox_id);
    let mut mailbox = transaction.need::<MailboxRecord>(&mailbox_key)?;
    mailbox.folders_floor = mailbox.folders_floor.max(modseq);
    transaction.update(&mailbox_key, &mailbox);
    Ok(())
}
