//! Sweeps: what has expired goes, a bounded number of rows at a time, on all copies alike.

use bytes::Bytes;

use crate::command::Sweep;
use crate::keys::{self, Due, table};
use crate::limits;
use crate::records::{BodyRecord, DeliveryRecord, Marker, RequestRecord};
use crate::response::{Reason, Rejection, Swept};
use crate::transaction::{Stop, Transaction};
use crate::view::{Fault, MailboxView};

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
    let mut rows = transaction.scan::<Marker>(&from, &to, limit + 1)?;
    let mut swept = Swept { more: rows.len() > limit, ..Swept::default() };
    rows.truncate(limit);
    for (key, Marker {}) in rows {
        let Some((_, what)) = keys::parse_due(&key) else {
            let detail = "this version does not know what is due there";
            return Err(Stop::Fault(Fault::damaged(&key, detail).into()));
        };
        transaction.remove(&key);
        expire(transaction, what, &mut swept)?;
    }
    Ok(swept)
}

fn expire<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    what: Due,
    swept: &mut Swept,
) -> Result<(), Stop<V::Error>> {
    match what {
        Due::Request(mailbox, id) => {
            let key = keys::request(mailbox, &id);
            transaction.need::<RequestRecord>(&key)?;
            transaction.remove(&key);
            swept.request_ids += 1;
        }
        Due::Delivery(mailbox, id) => {
            let key = keys::delivery(mailbox, &id);
            transaction.need::<DeliveryRecord>(&key)?;
            transaction.remove(&key);
            swept.delivery_ids += 1;
        }
        Due::Body(digest) => {
            let key = keys::body_record(&digest);
            let body = transaction.need::<BodyRecord>(&key)?;
            if body.references != 0 {
                let detail = "it has references, and stands among those that have none";
                return Err(Stop::Fault(Fault::damaged(&key, detail).into()));
            }
            transaction.remove(&key);
            transaction.remove_body(&digest, body.size);
            swept.bodies += 1;
        }
    }
    Ok(())
}
