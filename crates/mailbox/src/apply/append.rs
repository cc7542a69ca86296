//! Append: one message, or several at once, into one folder, with flags and date as given
//! (RFC 9051 6.3.12, RFC 3502).

use alloc::string::String;
use alloc::vec::Vec;

use dag_types::MailboxId;

use super::message::{self, NewMessage, Target};
use super::{access, parse_mailbox_id};
use crate::command::{Append, AppendMany, Content};
use crate::keys::BodyDigest;
use crate::records::KeywordTable;
use crate::response::{AppendedMany, Reason, Rejection, StoredAt};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{flags, keys, keywords, limits, rights};

/// A message as the command describes it.
struct Item<'c> {
    content: &'c Content,
    digest: BodyDigest,
    internal_date_ms: u64,
    flags: u32,
    keywords: Vec<String>,
}

impl<'c> Item<'c> {
    fn new(
        content: &'c Content,
        internal_date_ms: u64,
        system_flags: u32,
        names: &[String],
    ) -> Result<Self, Rejection> {
        let digest = message::check_content(content)?;
        flags::check(system_flags)?;
        let keywords = keywords::normalise_all(names)?;
        Ok(Self { content, digest, internal_date_ms, flags: system_flags, keywords })
    }
}

pub(super) fn append<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &Append,
) -> Result<StoredAt, Stop<V::Error>> {
    let mailbox_id = parse_mailbox_id(&command.mailbox_id)?;
    let item = Item::new(
        &command.content,
        command.internal_date_ms,
        command.system_flags,
        &command.keywords,
    )?;
    let (folder, validity) = (command.folder, command.expected_uid_validity);
    let mut target = Target::load(transaction, mailbox_id, folder, validity)?;
    let has = access::demand(transaction, mailbox_id, folder, rights::INSERT)?;
    let modseq = target.next_modseq()?;
    let at = put(transaction, &mut target, item, has, modseq)?;
    target.save(transaction);
    Ok(at)
}

/// All or none: a refusal of one message takes back what the others wrote.
pub(super) fn append_many<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &AppendMany,
) -> Result<AppendedMany, Stop<V::Error>> {
    let mailbox_id = parse_mailbox_id(&command.mailbox_id)?;
    limits::MESSAGES_PER_COMMAND.check(command.messages.len())?;
    let bytes = command.messages.iter().map(|item| item.content.body.len()).sum();
    limits::APPEND_BYTES.check(bytes)?;
    let (folder, validity) = (command.folder, command.expected_uid_validity);
    let mut target = Target::load(transaction, mailbox_id, folder, validity)?;
    let has = access::demand(transaction, mailbox_id, folder, rights::INSERT)?;
    let modseq = target.next_modseq()?;
    let mut first = None;
    for message in &command.messages {
        let (date, flags) = (message.internal_date_ms, message.system_flags);
        let item = Item::new(&message.content, date, flags, &message.keywords)?;
        let at = put(transaction, &mut target, item, has, modseq)?;
        first.get_or_insert(at);
    }
    let Some(first) = first else {
        return Err(Rejection::new(Reason::FieldMissing).about("messages").into());
    };
    target.save(transaction);
    Ok(AppendedMany { first, messages: command.messages.len() as u32 })
}

/// Stores one message with those flags that its author may set (RFC 4314 4, COPY/APPEND).
fn put<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    target: &mut Target,
    item: Item<'_>,
    has: u32,
    modseq: u64,
) -> Result<StoredAt, Stop<V::Error>> {
    let (may, may_keywords) = access::changeable(has);
    let names = if may_keywords { item.keywords } else { Vec::new() };
    let keywords = keyword_bits(transaction, target.mailbox_id, target.folder_id, names)?;
    let new = NewMessage {
        content: item.content,
        internal_date_ms: item.internal_date_ms,
        flags: item.flags & may,
        keywords,
        sender: "",
        delivery_id: "",
    };
    let at = message::store(transaction, target, &new, modseq)?;
    message::refer_to_body(transaction, &item.digest, item.content, 1)?;
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
