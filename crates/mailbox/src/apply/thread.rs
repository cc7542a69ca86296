//! Threads: an email joins the oldest thread that shares a key with it, and never leaves
//! (RFC 8474 5.2: a THREADID does not change).
//!
//! What the keys are is the proposer's matter: a key is made of a message id that the email is or
//! refers to, and of its base subject. A thread is called by the email that began it, so its number
//! is used once.

use alloc::vec::Vec;

use dag_types::MailboxId;

use crate::keys::{self, IdHash};
use crate::records::{Marker, ThreadKey};
use crate::response::{Reason, Rejection};
use crate::transaction::{Stop, Transaction, fault};
use crate::view::{Fault, MailboxView};

/// Refuses keys or tokens that are not what their row promises: whole, ascending, each once.
pub(super) fn check_ascending<const N: usize>(bytes: &[u8], field: &str) -> Result<(), Rejection> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    if rest.is_empty() && chunks.is_sorted_by(|one, next| one < next) {
        return Ok(());
    }
    Err(Rejection::new(Reason::FieldInvalid).about(field))
}

fn each_key(thread_keys: &[u8]) -> impl Iterator<Item = &IdHash> {
    thread_keys.as_chunks::<16>().0.iter()
}

/// The thread of a new email; 0 when it has no keys.
pub(super) fn join<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    email_id: u64,
    thread_keys: &[u8],
) -> Result<u64, Stop<V::Error>> {
    if thread_keys.is_empty() {
        return Ok(0);
    }
    let mut rows = Vec::new();
    let mut thread = email_id;
    for thread_key in each_key(thread_keys) {
        let key = keys::thread_key(mailbox_id, thread_key);
        let known = transaction.get::<ThreadKey>(&key)?;
        thread = known.as_ref().map_or(thread, |known| thread.min(known.thread));
        rows.push((key, known));
    }
    for (key, known) in rows {
        match known {
            None => transaction.insert(key, &ThreadKey { thread, references: 1 }),
            Some(mut known) => {
                known.references += 1;
                transaction.update(&key, &known);
            }
        }
    }
    transaction.insert(keys::thread(mailbox_id, thread, email_id), &Marker {});
    Ok(thread)
}

/// Takes an email that is removed out of its thread.
pub(super) fn leave<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    email_id: u64,
    thread: u64,
    thread_keys: &[u8],
) -> Result<(), Stop<V::Error>> {
    for thread_key in each_key(thread_keys) {
        let key = keys::thread_key(mailbox_id, thread_key);
        let mut known = transaction.need::<ThreadKey>(&key)?;
        let Some(references) = known.references.checked_sub(1) else {
            return Err(fault(Fault::damaged(&key, "it has no references, and an email has it")));
        };
        known.references = references;
        match references {
            0 => transaction.remove(&key),
            _ => transaction.update(&key, &known),
        }
    }
    if !thread_keys.is_empty() {
        transaction.remove_known(keys::thread(mailbox_id, thread, email_id), &Marker {});
    }
    Ok(())
}
