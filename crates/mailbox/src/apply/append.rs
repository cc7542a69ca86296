//! Append: one message into one folder, with flags and date as given (RFC 9051 6.3.12).

use alloc::string::String;
use alloc::vec::Vec;

use dag_types::MailboxId;

use super::message::{self, NewMessage, Target};
use super::{live_folder, live_mailbox, parse_mailbox_id};
use crate::command::Append;
use crate::records::KeywordTable;
use crate::response::StoredAt;
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{flags, keys, keywords};

pub(super) fn append<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &Append,
) -> Result<StoredAt, Stop<V::Error>> {
    let mailbox_id = parse_mailbox_id(&command.mailbox_id)?;
    let digest = message::check_content(&command.content)?;
    flags::check(command.system_flags)?;
    let keywords = keywords::normalise_all(&command.keywords)?;
    let mailbox = live_mailbox(transaction, mailbox_id)?;
    let folder_id = command.folder;
    let folder = live_folder(transaction, mailbox_id, folder_id, command.expected_uid_validity)?;
    let keyword_bits = keyword_bits(transaction, mailbox_id, folder_id, keywords)?;
    let mut target = Target { mailbox_id, mailbox, folder_id, folder };
    let new = NewMessage {
        content: &command.content,
        internal_date_ms: command.internal_date_ms,
        flags: command.system_flags,
        keywords: keyword_bits,
        sender: "",
        delivery_id: "",
    };
    let at = message::store(transaction, &mut target, &new)?;
    target.save(transaction);
    message::refer_to_body(transaction, &digest, &command.content, 1)?;
    Ok(at)
}

/// The bits of keywords that a message gets; new ones are written to the folder's table.
pub(super) fn keyword_bits<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    folder_id: u32,
    keywords: Vec<String>,
) -> Result<u128, Stop<V::Error>> {
    if keywords.is_empty() {
        return Ok(0);
    }
    let key = keys::keywords(mailbox_id, folder_id);
    let stored = transaction.get::<KeywordTable>(&key)?;
    let known = stored.as_ref().map(|table| table.names.len());
    let mut table = stored.unwrap_or_default();
    let bits = table.bits(keywords)?;
    match known {
        None => transaction.insert(key, &table),
        Some(known) if table.names.len() > known => transaction.update(&key, &table),
        Some(_) => {}
    }
    Ok(bits)
}
