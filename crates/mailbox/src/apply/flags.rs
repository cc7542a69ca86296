//! Flags: add, remove or replace, message by message (RFC 9051 6.4.6, RFC 7162 3.1.3).
//!
//! All messages that a command changes get one new mod-sequence; a message whose flags stay as they
//! were keeps its own, and nothing moves when no message changes.
//!
//! Somebody who may change some of the flags changes those, and the others stay as they are; only
//! whoever may change none of those named is refused (RFC 4314 4, STORE).

use alloc::string::String;
use alloc::vec::Vec;

use dag_types::MailboxId;

use super::append::keyword_bits;
use super::message::{Target, change_of, forget_change};
use super::{access, live_folder, live_mailbox, parse_mailbox_id};
use crate::command::{FlagAction, StoreFlags, UidRange};
use crate::records::{KeywordTable, MessageRecord};
use crate::response::{FlagsStored, Reason, Rejection};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{flags, keys, keywords, limits, rights, uid_set};

/// What becomes of a message's flags.
struct Change {
    action: FlagAction,
    flags: u32,
    keywords: u128,
    /// System flags that may be changed.
    may: u32,
    /// Whether keywords may be changed.
    may_keywords: bool,
}

impl Change {
    fn of(&self, flags: u32, keywords: u128) -> (u32, u128) {
        match self.action {
            FlagAction::Add => (flags | self.flags, keywords | self.keywords),
            FlagAction::Remove => (flags & !self.flags, keywords & !self.keywords),
            FlagAction::Replace | FlagAction::Unspecified => {
                let named = if self.may_keywords { self.keywords } else { keywords };
                (flags & !self.may | self.flags, named)
            }
        }
    }
}

pub(super) fn store<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &StoreFlags,
) -> Result<FlagsStored, Stop<V::Error>> {
    let mailbox_id = parse_mailbox_id(&command.mailbox_id)?;
    let uids = uid_set::normalise(&command.uids)?;
    let action = checked_action(command.action)?;
    flags::check(command.system_flags)?;
    let keywords = keywords::normalise_all(&command.keywords)?;
    let mailbox = live_mailbox(transaction, mailbox_id)?;
    let folder_id = command.folder;
    let folder = live_folder(transaction, mailbox_id, folder_id, command.expected_uid_validity)?;
    let (may, may_keywords) = changeable(transaction, mailbox_id, command, action)?;
    let keywords = if may_keywords { keywords } else { Vec::new() };
    let messages = messages_in(transaction, mailbox_id, folder_id, &uids)?;
    let mut target = Target { mailbox_id, mailbox, folder_id, folder };
    let mut stored = FlagsStored::default();
    let candidates = held_back(messages, command.unchanged_since, &mut stored.modified);
    if !candidates.is_empty() {
        let keywords = change_bits(transaction, &target, action, keywords)?;
        let flags = command.system_flags & may;
        let change = Change { action, flags, keywords, may, may_keywords };
        change_all(transaction, &mut target, &change, candidates, &mut stored)?;
    }
    stored.modseq = target.folder.highest_modseq;
    Ok(stored)
}

/// What the caller may change of what it names; to replace names all flags.
fn changeable<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    command: &StoreFlags,
    action: FlagAction,
) -> Result<(u32, bool), Stop<V::Error>> {
    let has = access::demand(transaction, mailbox_id, command.folder, 0)?;
    let (may, may_keywords) = access::changeable(has);
    let replaces = action == FlagAction::Replace;
    let names_nothing = command.system_flags == 0 && command.keywords.is_empty() && !replaces;
    let may_some = command.system_flags & may != 0
        || !command.keywords.is_empty() && may_keywords
        || replaces && (may != 0 || may_keywords);
    if may_some || names_nothing {
        return Ok((may, may_keywords));
    }
    let needed = rights::KEEP_SEEN | rights::WRITE | rights::DELETE_MESSAGES;
    Err(access::denied(needed & !has).into())
}

pub(super) fn checked_action(action: i32) -> Result<FlagAction, Rejection> {
    match FlagAction::try_from(action) {
        Ok(action) if action != FlagAction::Unspecified => Ok(action),
        _ => Err(Rejection::new(Reason::FieldInvalid).about("action")),
    }
}

/// The messages of a set that exist, in the order of their UIDs; at most as many as a command may
/// look at.
pub(super) fn messages_in<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    mailbox_id: MailboxId,
    folder_id: u32,
    uids: &[UidRange],
) -> Result<Vec<(u32, MessageRecord)>, Stop<V::Error>> {
    let limit = limits::MESSAGES_PER_COMMAND;
    let mut messages = Vec::new();
    for range in uids {
        let from = keys::message(mailbox_id, folder_id, range.first);
        let to = keys::after(&keys::message(mailbox_id, folder_id, range.last));
        let rest = limit.max as usize + 1 - messages.len();
        for (key, record) in transaction.scan::<MessageRecord>(&from, &to, rest)? {
            messages.push((keys::last_u32(&key), record));
        }
        limit.check(messages.len())?;
    }
    Ok(messages)
}

/// UNCHANGEDSINCE: takes out the messages that changed since; the others are changed all the same
/// (RFC 7162 3.1.3).
fn held_back(
    messages: Vec<(u32, MessageRecord)>,
    unchanged_since: Option<u64>,
    modified: &mut Vec<UidRange>,
) -> Vec<(u32, MessageRecord)> {
    let bound = unchanged_since.unwrap_or(u64::MAX);
    let mut candidates = Vec::with_capacity(messages.len());
    for (uid, message) in messages {
        if message.modseq <= bound {
            candidates.push((uid, message));
        } else {
            uid_set::push(modified, uid);
        }
    }
    candidates
}

/// The bits that the change is about. To remove a keyword that the folder does not know adds none.
fn change_bits<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    target: &Target,
    action: FlagAction,
    names: Vec<String>,
) -> Result<u128, Stop<V::Error>> {
    if action != FlagAction::Remove {
        return keyword_bits(transaction, target.mailbox_id, target.folder_id, names);
    }
    if names.is_empty() {
        return Ok(0);
    }
    let key = keys::keywords(target.mailbox_id, target.folder_id);
    let table = transaction.get::<KeywordTable>(&key)?.unwrap_or_default();
    Ok(table.known_bits(&names))
}

fn change_all<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    target: &mut Target,
    change: &Change,
    candidates: Vec<(u32, MessageRecord)>,
    stored: &mut FlagsStored,
) -> Result<(), Stop<V::Error>> {
    let mut new_modseq = None;
    for (uid, mut message) in candidates {
        let (flags, keywords) = change.of(message.flags, message.keywords());
        if (flags, keywords) == (message.flags, message.keywords()) {
            uid_set::push(&mut stored.unchanged, uid);
            continue;
        }
        let modseq = match new_modseq {
            Some(modseq) => modseq,
            None => *new_modseq.insert(target.next_modseq()?),
        };
        target.count_flags(message.flags, flags);
        forget_change(transaction, target, uid, &message);
        message.flags = flags;
        message.set_keywords(keywords);
        message.modseq = modseq;
        let (mailbox_id, folder_id) = (target.mailbox_id, target.folder_id);
        transaction.update(&keys::message(mailbox_id, folder_id, uid), &message);
        transaction.insert(keys::change(mailbox_id, folder_id, modseq, uid), &change_of(&message));
        uid_set::push(&mut stored.changed, uid);
    }
    if new_modseq.is_some() {
        target.save(transaction);
    }
    Ok(())
}
