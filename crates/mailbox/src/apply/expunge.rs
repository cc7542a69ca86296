//! Expunge: messages go, and leave a row that says so (RFC 4315 2.1, RFC 7162 3.2.10).
//!
//! Where the mailbox keeps what is expunged, or is on hold, they become recoverable items.

use super::flags::messages_in;
use super::message::{Target, note_vanished, take_out};
use super::{access, email, items, live_folder, live_mailbox, parse_mailbox_id};
use crate::command::Expunge;
use crate::records::Placement;
use crate::response::Expunged;
use crate::transaction::{Stop, Transaction};
use crate::view::MailboxView;
use crate::{flags, rights, uid_set};

pub(super) fn expunge<V: MailboxView>(
    transaction: &mut Transaction<'_, V>,
    command: &Expunge,
) -> Result<Expunged, Stop<V::Error>> {
    let mailbox_id = parse_mailbox_id(&command.mailbox_id)?;
    let uids = uid_set::normalise(&command.uids)?;
    let mailbox = live_mailbox(transaction, mailbox_id)?;
    let folder_id = command.folder;
    let folder = live_folder(transaction, mailbox_id, folder_id, command.expected_uid_validity)?;
    access::demand(transaction, mailbox_id, folder_id, rights::EXPUNGE)?;
    let keep = items::keeps(&mailbox.settings(), command.beyond_recovery)?;
    let mut messages = messages_in(transaction, mailbox_id, folder_id, &uids)?;
    if command.only_deleted {
        messages.retain(|(_, message)| message.flags & flags::DELETED != 0);
    }
    let mut target = Target { mailbox_id, mailbox, folder_id, folder };
    let mut expunged = Expunged::default();
    if !messages.is_empty() {
        if keep {
            let bytes = messages.iter().map(|(_, message)| message.size).sum();
            items::check_room(&target.mailbox, bytes)?;
        }
        let modseq = target.next_modseq()?;
        for (uid, message) in &messages {
            take_out(transaction, &mut target, *uid, message, modseq);
            if keep {
                let (mailbox, folder) = (&mut target.mailbox, folder_id);
                items::keep(transaction, mailbox_id, mailbox, folder, *uid, message)?;
            } else {
                let placement = Placement { folder: folder_id, uid: *uid };
                email::leave(transaction, mailbox_id, message.email, placement)?;
            }
            uid_set::push(&mut expunged.vanished, *uid);
        }
        note_vanished(transaction, &target, modseq);
        target.save(transaction);
    }
    expunged.modseq = target.folder.highest_modseq;
    Ok(expunged)
}
