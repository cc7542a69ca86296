//! Rename of the INBOX: its messages go to a new folder, and the INBOX stays (RFC 9051 6.3.6).
//!
//! The INBOX keeps its id, its UIDVALIDITY and what is below it; the folder is a new one with a new
//! id (RFC 8474 4). One entry moves as many messages as a command may look at. Of a larger INBOX the
//! rest follows by sweeps, up to the last message that it had then, so what arrives meanwhile stays.

use dag_types::MailboxId;

use super::folder::{INBOX, NewFolder, demand_children, make_checked};
use super::message::Target;
use super::{access, live_mailbox, parse_mailbox_id, transfer};
use crate::command::RenameInbox;
use crate::keys::{self, Due};
use crate::records::{FolderRecord, InboxMove, KeywordTable, MailboxRecord, Marker, MessageRecord};
use crate::response::{InboxRenamed, Reason, Rejection};
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{limits, special_use};

pub(super) fn rename<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &RenameInbox,
) -> Result<InboxRenamed, Stop<V::Error>> {
    let id = parse_mailbox_id(&command.mailbox_id)?;
    let mut mailbox = live_mailbox(transaction, id)?;
    access::demand_owner(transaction, id)?;
    demand_children(transaction, id, command.parent)?;
    if let Some(earlier) = mailbox.inbox_move {
        let rejection = Rejection::new(Reason::InboxBusy).with_value(u64::from(earlier.folder));
        return Err(rejection.about("INBOX").into());
    }
    let (parent, name) = (command.parent, command.name.as_str());
    let new = NewFolder { parent, name, special_use: special_use::NONE };
    let created = make_checked(transaction, id, &mut mailbox, &new)?;
    transaction.update(&keys::mailbox(id), &mailbox);
    copy_keywords(transaction, id, created.folder)?;
    let mut inbox = Target::load(transaction, id, INBOX, 0)?;
    let last_uid = inbox.folder.uid_next - 1;
    let limit = limits::MESSAGES_PER_COMMAND.max as usize;
    let moved = carry(transaction, &mut inbox, created.folder, last_uid, limit, created.modseq)?;
    let left = inbox.folder.exists;
    if left > 0 {
        inbox.mailbox.inbox_move = Some(InboxMove { folder: created.folder, last_uid });
        transaction.update(&keys::mailbox(id), &inbox.mailbox);
        let due = keys::due(transaction.now_ms(), &Due::InboxMove(id));
        transaction.insert(due, &Marker {});
    }
    Ok(InboxRenamed { folder: created, moved: moved as u32, left })
}

/// The new folder knows the INBOX's keywords from the start, so that there is room for all of them.
fn copy_keywords<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    folder: u32,
) -> Result<(), Stop<V::Error>> {
    if let Some(table) = transaction.get::<KeywordTable>(&keys::keywords(id, INBOX))? {
        transaction.insert(keys::keywords(id, folder), &table);
    }
    Ok(())
}

/// Moves the first messages up to `last_uid`, and tells how many.
fn carry<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    inbox: &mut Target,
    to_folder: u32,
    last_uid: u32,
    limit: usize,
    modseq: u64,
) -> Result<usize, Stop<V::Error>> {
    let id = inbox.mailbox_id;
    let from = keys::message(id, INBOX, 0);
    let to = keys::after(&keys::message(id, INBOX, last_uid));
    let rows = transaction.scan::<MessageRecord>(&from, &to, limit)?;
    let messages = rows.into_iter().map(|(key, message)| (keys::last_u32(&key), message));
    let messages: alloc::vec::Vec<_> = messages.collect();
    let count = messages.len();
    if count > 0 {
        transfer::carry(transaction, inbox, to_folder, messages, modseq)?;
    }
    Ok(count)
}

/// Goes on with a rename; gives how many messages were moved, and whether none is left. It ends early
/// when the folder was deleted meanwhile, or the whole mailbox was.
pub(super) fn sweep<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    id: MailboxId,
    budget: usize,
) -> Result<(usize, bool), Stop<V::Error>> {
    let key = keys::mailbox(id);
    let mut mailbox = transaction.need::<MailboxRecord>(&key)?;
    let Some(pending) = mailbox.inbox_move.take() else {
        return Ok((0, true));
    };
    let folder = transaction.get::<FolderRecord>(&keys::folder(id, pending.folder))?;
    if mailbox.deleted_ms.is_some() || folder.is_none() {
        transaction.update(&key, &mailbox);
        return Ok((0, true));
    }
    let mut inbox = Target::load(transaction, id, INBOX, 0)?;
    let modseq = super::next_modseq(&mut inbox.mailbox)?;
    let (to, last) = (pending.folder, pending.last_uid);
    let moved = carry(transaction, &mut inbox, to, last, budget, modseq)?;
    let finished = moved < budget;
    if finished {
        inbox.mailbox.inbox_move = None;
        if moved == 0 {
            inbox.mailbox.highest_modseq -= 1;
        }
        transaction.update(&key, &inbox.mailbox);
    }
    Ok((moved, finished))
}
