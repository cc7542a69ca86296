//! Copy and move: messages get further places, or others; bodies are not touched.
//!
//! A copy has its source's content, flags, keywords and date, a new UID and a new save date
//! (RFC 9051 6.4.7, RFC 8514 3). A move is one entry, so nobody ever sees a message in both folders
//! or in none (RFC 6851 3.3). Within a mailbox the content keeps its email id; in another mailbox of
//! the database it gets one of that mailbox and remembers where it came from (RFC 8474 5.1).

use alloc::vec::Vec;

use dag_types::MailboxId;

use super::append::keyword_bits;
use super::flags::messages_in;
use super::message::{Target, check_quota, note_vanished, place, take_out};
use super::{access, email, items, parse_mailbox_id};
use crate::command::Transfer;
use crate::records::{EmailRecord, KeywordTable, MessageRecord, Placement};
use crate::response::Transferred;
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{keys, rights, uid_set};

/// A transfer that may be carried out.
struct Plan {
    from: MailboxId,
    from_folder: u32,
    to: MailboxId,
    to_folder: u32,
    /// What the caller may do with the folder that they go to.
    has: u32,
    /// A keyword for which there is no room stays behind, instead of refusing everything.
    drops_keywords: bool,
    messages: Vec<(u32, MessageRecord)>,
    answer: Transferred,
}

impl Plan {
    fn new<V: MailboxView>(
        transaction: &mut Transaction<'_, V>,
        command: &Transfer,
        needed: u32,
        leaves: bool,
    ) -> Result<Self, Stop<V::Error>> {
        let from = parse_mailbox_id(&command.mailbox_id)?;
        let to = match command.to_mailbox_id.is_empty() {
            true => from,
            false => parse_mailbox_id(&command.to_mailbox_id)?,
        };
        let (from_folder, to_folder) = (command.folder, command.to_folder);
        let uids = uid_set::normalise(&command.uids)?;
        let validity = command.expected_uid_validity;
        let source = Target::load(transaction, from, from_folder, validity)?;
        access::demand(transaction, from, from_folder, needed)?;
        let validity = command.to_expected_uid_validity;
        let target = Target::load(transaction, to, to_folder, validity)?;
        let has = access::demand(transaction, to, to_folder, rights::INSERT)?;
        let messages = messages_in(transaction, from, from_folder, &uids)?;
        if from != to || !leaves {
            let bytes = messages.iter().map(|(_, message)| message.size).sum();
            check_quota(&target.mailbox, bytes, messages.len() as u64)?;
        }
        let answer = Transferred {
            uid_validity: target.folder.uid_validity,
            modseq: target.folder.highest_modseq,
            source_modseq: source.folder.highest_modseq,
            ..Transferred::default()
        };
        let drops_keywords = false;
        Ok(Self { from, from_folder, to, to_folder, has, drops_keywords, messages, answer })
    }

    fn target<V: MailboxView>(
        &self,
        transaction: &mut Transaction<'_, V>,
    ) -> Result<Target, Stop<V::Error>> {
        Target::load(transaction, self.to, self.to_folder, 0)
    }
}

pub(super) fn copy<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &Transfer,
) -> Result<Transferred, Stop<V::Error>> {
    let mut plan = Plan::new(transaction, command, rights::READ, false)?;
    if plan.messages.is_empty() {
        return Ok(plan.answer);
    }
    let originals = originals(transaction, &plan)?;
    let mut target = plan.target(transaction)?;
    let modseq = target.next_modseq()?;
    arrive(transaction, &mut plan, &mut target, modseq, originals, false)?;
    target.save(transaction);
    plan.answer.modseq = modseq;
    if (plan.from, plan.from_folder) == (plan.to, plan.to_folder) {
        plan.answer.source_modseq = modseq;
    }
    Ok(plan.answer)
}

/// Needs `e` and `t` beside `r` where the messages leave (RFC 6851 4.4, RFC 4314 4).
pub(super) fn relocate<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &Transfer,
) -> Result<Transferred, Stop<V::Error>> {
    let needed = rights::READ | rights::DELETE_MESSAGES | rights::EXPUNGE;
    let mut plan = Plan::new(transaction, command, needed, true)?;
    if plan.messages.is_empty() {
        return Ok(plan.answer);
    }
    let originals = originals(transaction, &plan)?;
    let mut source = Target::load(transaction, plan.from, plan.from_folder, 0)?;
    let source_modseq = source.next_modseq()?;
    depart(transaction, &mut source, &plan.messages, source_modseq, plan.from != plan.to)?;
    let mut target = plan.target(transaction)?;
    let modseq = if plan.from == plan.to { source_modseq } else { target.next_modseq()? };
    arrive(transaction, &mut plan, &mut target, modseq, originals, true)?;
    target.save(transaction);
    plan.answer.modseq = modseq;
    plan.answer.source_modseq = source_modseq;
    Ok(plan.answer)
}

/// Moves messages within a mailbox for a sweep, which cannot refuse: a keyword for which the other
/// folder has no room stays behind. The caller takes the mod-sequence.
pub(super) fn carry<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    source: &mut Target,
    to_folder: u32,
    messages: Vec<(u32, MessageRecord)>,
    modseq: u64,
) -> Result<(), Stop<V::Error>> {
    depart(transaction, source, &messages, modseq, false)?;
    let (mailbox, from_folder) = (source.mailbox_id, source.folder_id);
    let mut plan = Plan {
        from: mailbox,
        from_folder,
        to: mailbox,
        to_folder,
        has: rights::ALL,
        drops_keywords: true,
        messages,
        answer: Transferred::default(),
    };
    let mut target = plan.target(transaction)?;
    arrive(transaction, &mut plan, &mut target, modseq, Vec::new(), true)?;
    target.save(transaction);
    *source = Target::load(transaction, mailbox, from_folder, 0)?;
    Ok(())
}

/// The contents of messages that go to another mailbox, read before they leave.
fn originals<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    plan: &Plan,
) -> Result<Vec<EmailRecord>, Stop<V::Error>> {
    if plan.from == plan.to {
        return Ok(Vec::new());
    }
    let keys = plan.messages.iter().map(|(_, message)| keys::email(plan.from, message.email));
    keys.map(|key| transaction.need(&key)).collect()
}

/// Takes messages out of a folder. Where they leave the mailbox, so do their contents; on hold, the
/// mailbox keeps them as recoverable items.
fn depart<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    source: &mut Target,
    messages: &[(u32, MessageRecord)],
    modseq: u64,
    leaves_mailbox: bool,
) -> Result<(), Stop<V::Error>> {
    let (mailbox_id, folder) = (source.mailbox_id, source.folder_id);
    let on_hold = source.mailbox.settings().litigation_hold;
    if leaves_mailbox && on_hold {
        let bytes = messages.iter().map(|(_, message)| message.size).sum();
        items::check_room(&source.mailbox, bytes)?;
    }
    for (uid, message) in messages {
        take_out(transaction, source, *uid, message, modseq);
        if leaves_mailbox && on_hold {
            let mailbox = &mut source.mailbox;
            items::keep(transaction, mailbox_id, mailbox, folder, *uid, message)?;
        } else if leaves_mailbox {
            email::leave(transaction, mailbox_id, message.email, Placement { folder, uid: *uid })?;
        }
    }
    note_vanished(transaction, source, modseq);
    source.folder.highest_modseq = modseq;
    source.save(transaction);
    Ok(())
}

/// Gives messages their new places.
fn arrive<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    plan: &mut Plan,
    target: &mut Target,
    modseq: u64,
    originals: Vec<EmailRecord>,
    leaves: bool,
) -> Result<(), Stop<V::Error>> {
    let (may, may_keywords) = access::changeable(plan.has);
    let used = plan.messages.iter().fold(0, |bits, (_, message)| bits | message.keywords());
    let used = if may_keywords { used } else { 0 };
    let dictionary = dictionary(transaction, plan, used)?;
    let mut originals = originals.into_iter();
    for (uid, message) in &plan.messages {
        let from = Placement { folder: plan.from_folder, uid: *uid };
        let mut record = MessageRecord { flags: message.flags & may, ..message.clone() };
        if plan.from != plan.to {
            record.email = email::next_id(&mut target.mailbox)?;
        }
        let (email_id, keywords) = (record.email, translate(&dictionary, message.keywords()));
        let uid = place(transaction, target, record, keywords, modseq)?;
        let to = Placement { folder: plan.to_folder, uid };
        match originals.next() {
            Some(original) => {
                let (old, new) = ((plan.from, message.email), (plan.to, email_id));
                email::adopt(transaction, old, original, new, to)?;
            }
            None if leaves => email::change_place(transaction, plan.to, email_id, from, to)?,
            None => email::enter(transaction, plan.to, email_id, to)?,
        }
        uid_set::push(&mut plan.answer.source, from.uid);
        uid_set::push(&mut plan.answer.target, uid);
    }
    Ok(())
}

/// Which bit of the one folder's keywords is which of the other's.
type Dictionary = Vec<(u128, u128)>;

fn dictionary<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    plan: &Plan,
    used: u128,
) -> Result<Dictionary, Stop<V::Error>> {
    if used == 0 {
        return Ok(Vec::new());
    }
    let source: KeywordTable = transaction.need(&keys::keywords(plan.from, plan.from_folder))?;
    let mut words = Vec::new();
    for (bit, name) in source.names.iter().enumerate().filter(|(bit, _)| used >> bit & 1 == 1) {
        let names = alloc::vec![name.clone()];
        match keyword_bits(transaction, plan.to, plan.to_folder, names) {
            Ok(bits) => words.push((1 << bit, bits)),
            Err(Stop::Rejected(_)) if plan.drops_keywords => {}
            Err(stop) => return Err(stop),
        }
    }
    Ok(words)
}

fn translate(dictionary: &Dictionary, keywords: u128) -> u128 {
    let known = dictionary.iter().filter(|(from, _)| keywords & from != 0);
    known.fold(0, |bits, (_, to)| bits | to)
}
