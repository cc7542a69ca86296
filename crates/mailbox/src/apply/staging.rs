//! Bodies that are too large for one entry come in chunks, one command each, before the message that
//! has them.
//!
//! ```text
//!  chunk 0 ──► chunk 1 ──► .. ──► the last one ──► the message: it refers to the body
//!     └── a sweep removes what nobody referred to in time ──┘
//! ```
//! A staged body is a body without references from its first chunk on, so what holds for those holds
//! for it. Chunks come in order, and what is there is not written again: whoever stages after a
//! failover is told how far the other had come.

use super::message::check_same_body;
use crate::command::{Content, Operation, StageChunk};
use crate::keys::{self, BodyDigest, Due};
use crate::limits;
use crate::records::{BodyRecord, Marker, body_chunks, chunk_bytes};
use crate::response::{Reason, Rejection, Staged};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;

/// Takes the next chunk of a body.
pub(super) fn stage<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &StageChunk,
) -> Result<Staged, Stop<V::Error>> {
    let digest = check(command)?;
    let key = keys::body_record(&digest);
    let Some(mut body) = transaction.get::<BodyRecord>(&key)? else {
        demand_next(command, 0)?;
        let body = BodyRecord {
            size: command.size,
            crc32: command.crc32,
            chunks: 1,
            due_ms: Some(due_ms(transaction)),
            ..BodyRecord::default()
        };
        transaction.insert(keys::due(due_ms(transaction), &Due::Body(digest)), &Marker {});
        transaction.insert(key, &body);
        transaction.insert_body(&digest, 0, command.bytes.clone());
        return Ok(Staged { chunks: 1 });
    };
    check_same_body(&body, command.size, command.crc32)?;
    let present = body.rows();
    if !body.is_whole() && command.chunk >= present {
        demand_next(command, present)?;
        transaction.insert_body(&digest, present, command.bytes.clone());
        body.chunks += 1;
    }
    renew(transaction, &mut body, &digest);
    transaction.update(&key, &body);
    let chunks = if body.is_whole() { body_chunks(body.size) } else { body.chunks };
    Ok(Staged { chunks })
}

fn due_ms<V: MailboxView>(transaction: &Transaction<'_, V>) -> u64 {
    transaction.now_ms().saturating_add(limits::STAGED_KEPT_MS)
}

/// A body that nobody refers to is kept a while longer, because somebody is about to.
fn renew<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    body: &mut BodyRecord,
    digest: &BodyDigest,
) {
    let later = due_ms(transaction);
    let Some(due_ms) = body.due_ms.filter(|due_ms| *due_ms < later) else { return };
    transaction.remove_known(keys::due(due_ms, &Due::Body(*digest)), &Marker {});
    transaction.insert(keys::due(later, &Due::Body(*digest)), &Marker {});
    body.due_ms = Some(later);
}

fn check(command: &StageChunk) -> Result<BodyDigest, Rejection> {
    limits::MESSAGE_BYTES.check(usize::try_from(command.size).unwrap_or(usize::MAX))?;
    let chunks = body_chunks(command.size);
    if command.chunk >= chunks {
        return Err(Rejection::new(Reason::FieldInvalid)
            .about("chunk")
            .with_value(u64::from(command.chunk))
            .with_limit(u64::from(chunks.saturating_sub(1))));
    }
    let (came, declared) = (command.bytes.len() as u64, chunk_bytes(command.size, command.chunk));
    if came != declared {
        let rejection = Rejection::new(Reason::SizeMismatch).about("bytes");
        return Err(rejection.with_value(came).with_limit(declared));
    }
    let digest = command.blake3.as_ref().try_into();
    digest.map_err(|_| Rejection::new(Reason::FieldInvalid).about("blake3"))
}

/// `value` came, `limit` is the one that is wanted.
fn demand_next(command: &StageChunk, wanted: u32) -> Result<(), Rejection> {
    if command.chunk == wanted {
        return Ok(());
    }
    Err(Rejection::new(Reason::BodyNotStaged)
        .about("chunk")
        .with_value(u64::from(command.chunk))
        .with_limit(u64::from(wanted)))
}

/// Refuses a message whose body was to be staged before and is not there whole. Whoever proposed it
/// stages again under the same request id, so the refusal is not remembered.
pub(super) fn demand_staged<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    operation: &Operation,
) -> Result<(), Stop<V::Error>> {
    for content in contents(operation).filter(|content| content.staged) {
        let digest = super::message::check_content(content)?;
        let body = transaction.get::<BodyRecord>(&keys::body_record(&digest))?;
        if !body.as_ref().is_some_and(BodyRecord::is_whole) {
            let have = body.map_or(0, |body| body.rows());
            return Err(Rejection::new(Reason::BodyNotStaged)
                .about("chunks")
                .with_value(u64::from(have))
                .with_limit(u64::from(body_chunks(content.size)))
                .into());
        }
    }
    Ok(())
}

fn contents(operation: &Operation) -> impl Iterator<Item = &Content> {
    let (one, many) = match operation {
        Operation::Deliver(deliver) => (Some(&deliver.content), &[][..]),
        Operation::Append(append) => (Some(&append.content), &[][..]),
        Operation::AppendMany(append) => (None, &append.messages[..]),
        _ => (None, &[][..]),
    };
    one.into_iter().chain(many.iter().map(|item| &item.content))
}
