//! The change feed: what is different since a mod-sequence.
//!
//! A folder's feed holds one row per message, at its latest change, and one per message that
//! vanished. So a reader who was away for a year gets each message once, and a feed costs what it
//! returns. The feed of a mailbox is its folders' feeds merged by mod-sequence.

use alloc::vec::Vec;

use dag_types::MailboxId;

use super::read;
use crate::keys::{self, table};
use crate::limits;
use crate::records::{ChangeRecord, FolderRecord, MailboxRecord};
use crate::transaction::decode;
use crate::view::MailboxView;

/// What happened to a message, as seen by a reader who knew the state at `since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It came into the folder.
    Created,
    /// Its flags or keywords changed.
    Updated,
    /// It is gone.
    Vanished,
    /// It came and went: the reader never knew it.
    CameAndVanished,
}

/// The latest change of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub modseq: u64,
    /// In this folder.
    pub folder: u32,
    /// Under this UID.
    pub uid: u32,
    /// Its content.
    pub email_id: u64,
    /// What happened.
    pub kind: ChangeKind,
}

/// A part of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// By mod-sequence, folder, UID.
    pub changes: Vec<Change>,
    /// Ask again since this one.
    pub new_modseq: u64,
    /// There are changes after `new_modseq` already.
    pub more: bool,
}

/// What a reader gets who asks for changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangesSince {
    /// There is no such mailbox, or no such folder.
    NotFound,
    /// What vanished since then is not known any more; the reader must read everything again
    /// (RFC 7162 5.3, CHANGES_TOO_OLD).
    TooOld {
        /// The oldest mod-sequence that can be asked for.
        floor: u64,
    },
    /// The next part of the feed.
    Changes(Changes),
}

/// Changes after the mod-sequence `since`, of one folder or of all.
///
/// Returns about `limit` changes: a mod-sequence is never cut in two, so that the reader resumes by
/// number alone. One command changes at most 1,000 messages, so a page is at most that much longer.
pub fn changes_since<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    folder: Option<u32>,
    since: u64,
    limit: usize,
) -> Result<ChangesSince, V::Error> {
    let Some(record) = read::<MailboxRecord, V>(view, &keys::mailbox(mailbox))? else {
        return Ok(ChangesSince::NotFound);
    };
    let folders = match folder {
        Some(folder) => match read(view, &keys::folder(mailbox, folder))? {
            Some(record) => alloc::vec![(folder, record)],
            None => return Ok(ChangesSince::NotFound),
        },
        None => all_folders(view, mailbox)?,
    };
    let floor = folders.iter().map(|(_, folder)| folder.vanished_floor).max().unwrap_or(0);
    if since < floor {
        return Ok(ChangesSince::TooOld { floor });
    }
    let limit = limit.max(1);
    let mut feed = Feed { changes: Vec::new(), complete_to: record.highest_modseq };
    for (folder, record) in folders {
        if record.highest_modseq > since {
            feed.read_folder(view, mailbox, folder, since, limit)?;
        }
    }
    Ok(ChangesSince::Changes(feed.into_page(limit, record.highest_modseq)))
}

fn all_folders<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
) -> Result<Vec<(u32, FolderRecord)>, V::Error> {
    let prefix = keys::of_mailbox(table::FOLDER, mailbox);
    let most = limits::FOLDERS_PER_MAILBOX.max as usize;
    let rows = view.scan(&prefix, &keys::end_of(&prefix), most)?;
    let mut folders = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        folders.push((keys::last_u32(&key), decode(&key, &value)?));
    }
    Ok(folders)
}

/// Changes gathered from folders, and up to which mod-sequence nothing is missing.
struct Feed {
    changes: Vec<Change>,
    complete_to: u64,
}

impl Feed {
    fn read_folder<V: MailboxView>(
        &mut self,
        view: &V,
        mailbox: MailboxId,
        folder: u32,
        since: u64,
        limit: usize,
    ) -> Result<(), V::Error> {
        let from = keys::change(mailbox, folder, since.saturating_add(1), 0);
        let to = keys::end_of(&keys::of_folder(table::CHANGE, mailbox, folder));
        let wanted = limit + limits::MESSAGES_PER_COMMAND.max as usize;
        let rows = view.scan(&from, &to, wanted)?;
        let cut = rows.len() == wanted;
        let mut last = since;
        for (key, value) in rows {
            let (modseq, uid) = keys::parse_change(&key);
            let record: ChangeRecord = decode(&key, &value)?;
            let kind = kind_of(&record, since);
            self.changes.push(Change { modseq, folder, uid, email_id: record.email, kind });
            last = modseq;
        }
        if cut {
            self.complete_to = self.complete_to.min(last - 1);
        }
        Ok(())
    }

    /// The first `limit` changes, and what else has the last one's mod-sequence.
    fn into_page(mut self, limit: usize, highest_modseq: u64) -> Changes {
        self.changes.sort_unstable_by_key(|change| (change.modseq, change.folder, change.uid));
        if let Some(at_limit) = self.changes.get(limit - 1) {
            self.complete_to = self.complete_to.min(at_limit.modseq);
        }
        let complete = self.changes.partition_point(|change| change.modseq <= self.complete_to);
        let more = complete < self.changes.len();
        self.changes.truncate(complete);
        let new_modseq = if more { self.complete_to } else { highest_modseq };
        Changes { changes: self.changes, new_modseq, more }
    }
}

fn kind_of(record: &ChangeRecord, since: u64) -> ChangeKind {
    match (record.vanished, record.created_modseq > since) {
        (false, true) => ChangeKind::Created,
        (false, false) => ChangeKind::Updated,
        (true, false) => ChangeKind::Vanished,
        (true, true) => ChangeKind::CameAndVanished,
    }
}
