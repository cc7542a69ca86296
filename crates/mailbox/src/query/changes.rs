//! The change feed: what is different since a mod-sequence.
//!
//! A folder's feed holds one row per message, at its latest change, and one per message that
//! vanished. So a reader who was away for a year gets each message once, and a feed costs what it
//! returns. The feed of a mailbox is its folders' feeds merged by mod-sequence.
//!
//! A feed comes in parts, and a message that changes again moves to the end. So a reader in the
//! middle of a long feed does not know everything up to where it has read: a message made long ago
//! may still be ahead. [`FeedPosition`] carries both numbers.

use alloc::vec::Vec;

use dag_types::MailboxId;

use super::read;
use crate::keys::{self, table};
use crate::limits;
use crate::records::{ChangeRecord, FolderRecord, MailboxRecord};
use crate::transaction::decode;
use crate::view::MailboxView;

/// Where a reader stands in a feed. Put both numbers into a page token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedPosition {
    /// The reader knew everything up to here when it began to read.
    pub known: u64,
    /// It has read the feed up to here; never less than `known`.
    pub read_to: u64,
}

impl FeedPosition {
    /// Of a reader who knows everything up to a mod-sequence, and nothing after it.
    pub fn at(modseq: u64) -> Self {
        Self { known: modseq, read_to: modseq }
    }
}

/// What happened to a message, as seen by a reader who knew the state at
/// [`FeedPosition::known`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It came into the folder. An earlier part of the same feed may have said so already, if it
    /// has changed since that part was read.
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
    /// Ask again from here.
    pub next: FeedPosition,
    /// There are changes after `next` already. Otherwise the reader knows everything up to it.
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

/// Changes after `from`, of one folder or of all.
///
/// Returns about `limit` changes: a mod-sequence is never cut in two, so that what one command did
/// is seen at once. A command changes at most 1,000 messages, so a part is at most that much longer.
pub fn changes_since<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    folder: Option<u32>,
    from: FeedPosition,
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
    if from.read_to < floor {
        return Ok(ChangesSince::TooOld { floor });
    }
    let limit = limit.max(1);
    let mut feed = Feed { changes: Vec::new(), complete_to: record.highest_modseq };
    for (folder, record) in folders {
        if record.highest_modseq > from.read_to {
            feed.read_folder(view, mailbox, folder, from, limit)?;
        }
    }
    Ok(ChangesSince::Changes(feed.into_page(from, limit, record.highest_modseq)))
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
        position: FeedPosition,
        limit: usize,
    ) -> Result<(), V::Error> {
        let from = keys::change(mailbox, folder, position.read_to.saturating_add(1), 0);
        let to = keys::end_of(&keys::of_folder(table::CHANGE, mailbox, folder));
        let wanted = limit + limits::MESSAGES_PER_COMMAND.max as usize;
        let rows = view.scan(&from, &to, wanted)?;
        let cut = rows.len() == wanted;
        let mut last = position.read_to;
        for (key, value) in rows {
            let (modseq, uid) = keys::parse_change(&key);
            let record: ChangeRecord = decode(&key, &value)?;
            let kind = kind_of(&record, position);
            self.changes.push(Change { modseq, folder, uid, email_id: record.email, kind });
            last = modseq;
        }
        if cut {
            self.complete_to = self.complete_to.min(last.saturating_sub(1));
        }
        Ok(())
    }

    /// The first `limit` changes, and what else has the last one's mod-sequence.
    fn into_page(mut self, from: FeedPosition, limit: usize, highest_modseq: u64) -> Changes {
        self.changes.sort_unstable_by_key(|change| (change.modseq, change.folder, change.uid));
        if let Some(at_limit) = self.changes.get(limit - 1) {
            self.complete_to = self.complete_to.min(at_limit.modseq);
        }
        let complete = self.changes.partition_point(|change| change.modseq <= self.complete_to);
        let more = complete < self.changes.len();
        self.changes.truncate(complete);
        let next = match more {
            true => FeedPosition { known: from.known, read_to: self.complete_to },
            false => FeedPosition::at(highest_modseq),
        };
        Changes { changes: self.changes, next, more }
    }
}

fn kind_of(record: &ChangeRecord, position: FeedPosition) -> ChangeKind {
    let created = record.created_modseq;
    match record.vanished {
        false if created > position.known => ChangeKind::Created,
        false => ChangeKind::Updated,
        true if created > position.read_to => ChangeKind::CameAndVanished,
        true => ChangeKind::Vanished,
    }
}
