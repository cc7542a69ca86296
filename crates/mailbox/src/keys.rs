//! Where everything stands: ordered byte keys, the first byte names the table.
//!
//! | byte | table | key after the byte | record |
//! | --- | --- | --- | --- |
//! | 10 | database | - | [`DatabaseRecord`](crate::records::DatabaseRecord) |
//! | 11 | mailbox | mailbox | [`MailboxRecord`](crate::records::MailboxRecord) |
//! | 12 | address | mailbox, address | [`Marker`](crate::records::Marker) |
//! | 13 | folder | mailbox, folder | [`FolderRecord`](crate::records::FolderRecord) |
//! | 14 | folder profile | mailbox, folder | [`FolderProfile`](crate::records::FolderProfile) |
//! | 15 | folder name | mailbox, parent, name | [`FolderName`](crate::records::FolderName) |
//! | 16 | keywords | mailbox, folder | [`KeywordTable`](crate::records::KeywordTable) |
//! | 17 | message | mailbox, folder, uid | [`MessageRecord`](crate::records::MessageRecord) |
//! | 18 | email | mailbox, email | [`EmailRecord`](crate::records::EmailRecord) |
//! | 19 | change | mailbox, folder, modseq, uid | [`ChangeRecord`](crate::records::ChangeRecord) |
//! | 1a | body record | digest | [`BodyRecord`](crate::records::BodyRecord) |
//! | 1b | recoverable item | mailbox, item | [`ItemRecord`](crate::records::ItemRecord) |
//! | 1c | gone folder | mailbox, modseq, folder | [`GoneFolder`](crate::records::GoneFolder) |
//! | 1d | dead folder | mailbox, folder | [`FolderRecord`](crate::records::FolderRecord) |
//! | 1e | special use | mailbox, use | [`FolderName`](crate::records::FolderName) |
//! | 1f | rights | mailbox, folder | [`RightsTable`](crate::records::RightsTable) |
//! | 20 | subscribed name | mailbox, hash of the path | [`SubscribedName`](crate::records::SubscribedName) |
//! | 21 | thread key | mailbox, key | [`ThreadKey`](crate::records::ThreadKey) |
//! | 22 | thread | mailbox, thread, email | [`Marker`](crate::records::Marker) |
//! | 80 | body | digest, chunk | the bytes themselves |
//! | c0 | request | mailbox, hash of the request id | [`RequestRecord`](crate::records::RequestRecord) |
//! | c1 | delivery | mailbox, hash of the delivery id | [`DeliveryRecord`](crate::records::DeliveryRecord) |
//! | c2 | due | due time, kind, what is due | [`Marker`](crate::records::Marker) |
//!
//! Numbers are big-endian, so rows lie in the order of their numbers. A folder's counters and its
//! name are two rows, because the counters change with every message and the name hardly ever. A
//! message (a placement: one UID in one folder, its flags) and an email (the content, once, however
//! many folders hold it) are two rows, because flags are scanned and contents are not.
//!
//! A folder that was deleted leaves the tables of live folders at once; its counters wait among the
//! dead ones until sweeps have removed its messages.

use alloc::vec::Vec;

use bytes::Bytes;
use dag_types::MailboxId;

/// The first byte of each key.
pub mod table {
    /// Counters and digest of the database.
    pub const DATABASE: u8 = 0x10;
    /// Counters of a mailbox.
    pub const MAILBOX: u8 = 0x11;
    /// Addresses of a mailbox.
    pub const ADDRESS: u8 = 0x12;
    /// Counters of a folder.
    pub const FOLDER: u8 = 0x13;
    /// Name and parent of a folder.
    pub const FOLDER_PROFILE: u8 = 0x14;
    /// Folder by parent and name.
    pub const FOLDER_NAME: u8 = 0x15;
    /// Keywords of a folder, by bit.
    pub const KEYWORDS: u8 = 0x16;
    /// Placements: UID and flags.
    pub const MESSAGE: u8 = 0x17;
    /// Contents.
    pub const EMAIL: u8 = 0x18;
    /// Change feed.
    pub const CHANGE: u8 = 0x19;
    /// Size and references of a body.
    pub const BODY_RECORD: u8 = 0x1a;
    /// Expunged messages that can be restored, by the order in which they went.
    pub const ITEM: u8 = 0x1b;
    /// Folders that were deleted, for the feed of folders.
    pub const GONE_FOLDER: u8 = 0x1c;
    /// Folders that were deleted and still have rows.
    pub const DEAD_FOLDER: u8 = 0x1d;
    /// Folder by special use.
    pub const SPECIAL_USE: u8 = 0x1e;
    /// Who may do what with a folder.
    pub const RIGHTS: u8 = 0x1f;
    /// Subscribed names that are no folders.
    pub const SUBSCRIBED_NAME: u8 = 0x20;
    /// What belongs to which thread.
    pub const THREAD_KEY: u8 = 0x21;
    /// Emails of a thread.
    pub const THREAD: u8 = 0x22;
    /// Bodies.
    pub const BODY: u8 = 0x80;
    /// Request ids.
    pub const REQUEST: u8 = 0xc0;
    /// Delivery ids.
    pub const DELIVERY: u8 = 0xc1;
    /// What expires when.
    pub const DUE: u8 = 0xc2;
    /// What became of messages, by time.
    pub const TRACE: u8 = 0xc3;

    /// All tables of this crate, in order.
    pub const ALL: [u8; 24] = [
        DATABASE,
        MAILBOX,
        ADDRESS,
        FOLDER,
        FOLDER_PROFILE,
        FOLDER_NAME,
        KEYWORDS,
        MESSAGE,
        EMAIL,
        CHANGE,
        BODY_RECORD,
        ITEM,
        GONE_FOLDER,
        DEAD_FOLDER,
        SPECIAL_USE,
        RIGHTS,
        SUBSCRIBED_NAME,
        THREAD_KEY,
        THREAD,
        BODY,
        REQUEST,
        DELIVERY,
        DUE,
        TRACE,
    ];
}

/// BLAKE3 of a body.
pub type BodyDigest = [u8; 32];
/// The first 16 bytes of BLAKE3 of a client's id: keys stay short, whatever the client chose.
pub type IdHash = [u8; 16];

/// Hashes an id that a client chose.
pub fn hash_id(id: &str) -> IdHash {
    first_half(blake3::hash(id.as_bytes()).as_bytes())
}

pub(crate) fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    core::array::from_fn(|at| hash[at])
}

/// The parts of a key in one allocation of exactly its size, which `Bytes` then takes over as is.
fn key<const N: usize>(table: u8, parts: [&[u8]; N]) -> Bytes {
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(length);
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    Bytes::from(key)
}

/// The database's counters and digest.
pub fn database() -> Bytes {
    Bytes::from_static(&[table::DATABASE])
}

/// A mailbox's counters.
pub fn mailbox(mailbox: MailboxId) -> Bytes {
    key(table::MAILBOX, [&mailbox.0])
}

/// One address of a mailbox; `address` in lower case.
pub fn address(mailbox: MailboxId, address: &str) -> Bytes {
    key(table::ADDRESS, [&mailbox.0, address.as_bytes()])
}

/// A folder's counters.
pub fn folder(mailbox: MailboxId, folder: u32) -> Bytes {
    key(table::FOLDER, [&mailbox.0, &folder.to_be_bytes()])
}

/// A folder's name and parent.
pub fn folder_profile(mailbox: MailboxId, folder: u32) -> Bytes {
    key(table::FOLDER_PROFILE, [&mailbox.0, &folder.to_be_bytes()])
}

/// The folder that has this name below this parent.
pub fn folder_name(mailbox: MailboxId, parent: u32, name: &str) -> Bytes {
    key(table::FOLDER_NAME, [&mailbox.0, &parent.to_be_bytes(), name.as_bytes()])
}

/// A folder's keywords.
pub fn keywords(mailbox: MailboxId, folder: u32) -> Bytes {
    key(table::KEYWORDS, [&mailbox.0, &folder.to_be_bytes()])
}

/// A message in its folder.
pub fn message(mailbox: MailboxId, folder: u32, uid: u32) -> Bytes {
    key(table::MESSAGE, [&mailbox.0, &folder.to_be_bytes(), &uid.to_be_bytes()])
}

/// A message's content record.
pub fn email(mailbox: MailboxId, email: u64) -> Bytes {
    key(table::EMAIL, [&mailbox.0, &email.to_be_bytes()])
}

/// A message's place in the change feed.
pub fn change(mailbox: MailboxId, folder: u32, modseq: u64, uid: u32) -> Bytes {
    let (folder, modseq, uid) = (folder.to_be_bytes(), modseq.to_be_bytes(), uid.to_be_bytes());
    key(table::CHANGE, [&mailbox.0, &folder, &modseq, &uid])
}

/// Size and references of a body.
pub fn body_record(digest: &BodyDigest) -> Bytes {
    key(table::BODY_RECORD, [digest])
}

/// An expunged message that can be restored.
pub fn item(mailbox: MailboxId, item: u64) -> Bytes {
    key(table::ITEM, [&mailbox.0, &item.to_be_bytes()])
}

/// That a folder was deleted.
pub fn gone_folder(mailbox: MailboxId, modseq: u64, folder: u32) -> Bytes {
    key(table::GONE_FOLDER, [&mailbox.0, &modseq.to_be_bytes(), &folder.to_be_bytes()])
}

/// The counters of a deleted folder.
pub fn dead_folder(mailbox: MailboxId, folder: u32) -> Bytes {
    key(table::DEAD_FOLDER, [&mailbox.0, &folder.to_be_bytes()])
}

/// The folder that has a special use.
pub fn special_use(mailbox: MailboxId, special_use: u32) -> Bytes {
    key(table::SPECIAL_USE, [&mailbox.0, &special_use.to_be_bytes()])
}

/// Rights on a folder.
pub fn rights(mailbox: MailboxId, folder: u32) -> Bytes {
    key(table::RIGHTS, [&mailbox.0, &folder.to_be_bytes()])
}

/// A subscribed name that is no folder.
pub fn subscribed_name(mailbox: MailboxId, path: &str) -> Bytes {
    key(table::SUBSCRIBED_NAME, [&mailbox.0, &hash_id(path)])
}

/// Which thread a thread key belongs to.
pub fn thread_key(mailbox: MailboxId, thread_key: &IdHash) -> Bytes {
    key(table::THREAD_KEY, [&mailbox.0, thread_key])
}

/// An email of a thread.
pub fn thread(mailbox: MailboxId, thread: u64, email: u64) -> Bytes {
    key(table::THREAD, [&mailbox.0, &thread.to_be_bytes(), &email.to_be_bytes()])
}

/// A chunk of a body. A body that came with its message is one chunk, number 0; a staged one is as
/// many as [`body_chunks`](crate::records::body_chunks) says.
pub fn body(digest: &BodyDigest, chunk: u32) -> Bytes {
    key(table::BODY, [digest, &chunk.to_be_bytes()])
}

/// What a request id was answered.
pub fn request(mailbox: MailboxId, id: &IdHash) -> Bytes {
    key(table::REQUEST, [&mailbox.0, id])
}

/// Where a delivery id was stored.
pub fn delivery(mailbox: MailboxId, id: &IdHash) -> Bytes {
    key(table::DELIVERY, [&mailbox.0, id])
}

/// What one command did to messages: its stamp, and its place in the log.
pub fn trace(stamp_ms: u64, log_index: u64) -> Bytes {
    key(table::TRACE, [&stamp_ms.to_be_bytes(), &log_index.to_be_bytes()])
}

/// Stamp and log index of a key made by [`trace`].
pub fn parse_trace(key: &[u8]) -> Option<(u64, u64)> {
    let (stamp, index) = key.strip_prefix(&[table::TRACE])?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*stamp), u64::from_be_bytes(index.try_into().ok()?)))
}

/// Something that a sweep removes when its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A row of the request table.
    Request(MailboxId, IdHash),
    /// A row of the delivery table.
    Delivery(MailboxId, IdHash),
    /// A body without references.
    Body(BodyDigest),
    /// That messages of a folder vanished at a mod-sequence.
    Vanished(MailboxId, u32, u64),
    /// The oldest recoverable items of a mailbox.
    Items(MailboxId),
    /// The rows of a deleted folder.
    DeadFolder(MailboxId, u32),
    /// That a folder was deleted at a mod-sequence.
    GoneFolder(MailboxId, u64, u32),
    /// The rest of a large INBOX that was renamed.
    InboxMove(MailboxId),
    /// The trace of one hour, counted since 1970.
    Trace(u64),
}

const DUE_REQUEST: u8 = 1;
const DUE_DELIVERY: u8 = 2;
const DUE_BODY: u8 = 3;
const DUE_VANISHED: u8 = 4;
const DUE_ITEMS: u8 = 5;
const DUE_DEAD_FOLDER: u8 = 6;
const DUE_GONE_FOLDER: u8 = 7;
const DUE_INBOX_MOVE: u8 = 8;
const DUE_TRACE: u8 = 9;

/// The entry of `what` in the order of expiry.
pub fn due(due_ms: u64, what: &Due) -> Bytes {
    let time = due_ms.to_be_bytes();
    match what {
        Due::Request(mailbox, id) => key(table::DUE, [&time, &[DUE_REQUEST], &mailbox.0, id]),
        Due::Delivery(mailbox, id) => key(table::DUE, [&time, &[DUE_DELIVERY], &mailbox.0, id]),
        Due::Body(digest) => key(table::DUE, [&time, &[DUE_BODY], digest]),
        Due::Vanished(mailbox, folder, modseq) => {
            let numbers = [folder.to_be_bytes().as_slice(), &modseq.to_be_bytes()].concat();
            key(table::DUE, [&time, &[DUE_VANISHED], &mailbox.0, &numbers])
        }
        Due::Items(mailbox) => key(table::DUE, [&time, &[DUE_ITEMS], &mailbox.0]),
        Due::DeadFolder(mailbox, folder) => {
            key(table::DUE, [&time, &[DUE_DEAD_FOLDER], &mailbox.0, &folder.to_be_bytes()])
        }
        Due::GoneFolder(mailbox, modseq, folder) => {
            let numbers = [modseq.to_be_bytes().as_slice(), &folder.to_be_bytes()].concat();
            key(table::DUE, [&time, &[DUE_GONE_FOLDER], &mailbox.0, &numbers])
        }
        Due::InboxMove(mailbox) => key(table::DUE, [&time, &[DUE_INBOX_MOVE], &mailbox.0]),
        Due::Trace(hour) => key(table::DUE, [&time, &[DUE_TRACE], &hour.to_be_bytes()]),
    }
}

/// The end of everything that is due up to this time, that time included.
pub(crate) fn due_after(until_ms: u64) -> Bytes {
    end_of(&key(table::DUE, [&until_ms.to_be_bytes()]))
}

/// Reads back a key made by [`due`].
pub fn parse_due(key: &[u8]) -> Option<(u64, Due)> {
    let (time, rest) = key.strip_prefix(&[table::DUE])?.split_first_chunk::<8>()?;
    let (kind, rest) = rest.split_first()?;
    let what = match *kind {
        DUE_REQUEST => parse_scoped(rest).map(|(mailbox, id)| Due::Request(mailbox, id))?,
        DUE_DELIVERY => parse_scoped(rest).map(|(mailbox, id)| Due::Delivery(mailbox, id))?,
        DUE_BODY => Due::Body(rest.try_into().ok()?),
        DUE_TRACE => Due::Trace(u64::from_be_bytes(rest.try_into().ok()?)),
        kind => parse_due_of_mailbox(kind, rest)?,
    };
    Some((u64::from_be_bytes(*time), what))
}

fn parse_due_of_mailbox(kind: u8, rest: &[u8]) -> Option<Due> {
    let (mailbox, rest) = rest.split_first_chunk::<16>()?;
    let mailbox = MailboxId(*mailbox);
    let what = match kind {
        DUE_VANISHED => {
            let (folder, modseq) = rest.split_first_chunk::<4>()?;
            let modseq = u64::from_be_bytes(modseq.try_into().ok()?);
            Due::Vanished(mailbox, u32::from_be_bytes(*folder), modseq)
        }
        DUE_DEAD_FOLDER => Due::DeadFolder(mailbox, u32::from_be_bytes(rest.try_into().ok()?)),
        DUE_GONE_FOLDER => {
            let (modseq, folder) = rest.split_first_chunk::<8>()?;
            let folder = u32::from_be_bytes(folder.try_into().ok()?);
            Due::GoneFolder(mailbox, u64::from_be_bytes(*modseq), folder)
        }
        DUE_ITEMS if rest.is_empty() => Due::Items(mailbox),
        DUE_INBOX_MOVE if rest.is_empty() => Due::InboxMove(mailbox),
        _ => return None,
    };
    Some(what)
}

fn parse_scoped(rest: &[u8]) -> Option<(MailboxId, IdHash)> {
    let (mailbox, id) = rest.split_first_chunk::<16>()?;
    Some((MailboxId(*mailbox), id.try_into().ok()?))
}

/// Reads the last four bytes of a key: a folder or a UID.
pub(crate) fn last_u32(key: &[u8]) -> u32 {
    u32::from_be_bytes(*key.last_chunk().expect("a key that ends with a number is long enough"))
}

/// Reads the last eight bytes of a key: an item or an email.
pub(crate) fn last_u64(key: &[u8]) -> u64 {
    u64::from_be_bytes(*key.last_chunk().expect("a key that ends with a number is long enough"))
}

/// Mod-sequence and folder of a key made by [`gone_folder`].
pub(crate) fn parse_gone_folder(key: &[u8]) -> (u64, u32) {
    parse_change(key)
}

/// Mod-sequence and UID of a key made by [`change`].
pub(crate) fn parse_change(key: &[u8]) -> (u64, u32) {
    let modseq = key.len() - 12;
    let bytes = key[modseq..].first_chunk().expect("twelve bytes are left");
    (u64::from_be_bytes(*bytes), last_u32(key))
}

/// The smallest key greater than `key`: where a scan goes on.
pub(crate) fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Bytes::from(next)
}

/// The smallest key greater than all that begin with `prefix`: where a scan ends.
///
/// A table's byte is never 0xff, so there is always a byte to count up.
pub(crate) fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while end.last() == Some(&0xff) {
        end.pop();
    }
    *end.last_mut().expect("a prefix begins with a table's byte") += 1;
    Bytes::from(end)
}

/// All rows of a table that belong to a mailbox.
pub(crate) fn of_mailbox(table: u8, mailbox: MailboxId) -> Bytes {
    key(table, [&mailbox.0])
}

/// All rows of a table that belong to a folder.
pub(crate) fn of_folder(table: u8, mailbox: MailboxId, folder: u32) -> Bytes {
    key(table, [&mailbox.0, &folder.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: MailboxId = MailboxId([0xff; 16]);

    #[test]
    fn keys_lie_in_the_order_of_their_numbers() {
        assert!(message(ANNA, 1, 255) < message(ANNA, 1, 256));
        assert!(change(ANNA, 1, 9, u32::MAX) < change(ANNA, 1, 10, 1));
        assert!(due(1, &Due::Body([0xff; 32])) < due(2, &Due::Body([0; 32])));
    }

    #[test]
    fn the_end_of_a_prefix_is_beyond_all_its_keys_even_when_it_ends_with_ff() {
        let end = end_of(&of_mailbox(table::FOLDER, ANNA));
        assert!(folder(ANNA, u32::MAX) < end);
        assert!(end <= Bytes::from_static(&[table::FOLDER + 1]));
    }

    #[test]
    fn a_due_key_reads_back_what_it_was_made_of() {
        for what in [
            Due::Request(ANNA, [1; 16]),
            Due::Delivery(MailboxId([2; 16]), [3; 16]),
            Due::Body([4; 32]),
            Due::Vanished(ANNA, 5, 6),
            Due::Items(ANNA),
            Due::DeadFolder(ANNA, 7),
            Due::GoneFolder(ANNA, 8, 9),
            Due::InboxMove(ANNA),
            Due::Trace(10),
        ] {
            assert_eq!(parse_due(&due(77, &what)), Some((77, what)));
        }
    }

    #[test]
    fn a_due_key_of_an_unknown_kind_is_not_read() {
        assert_eq!(parse_due(&key(table::DUE, [&[0; 8], &[10], &[0; 32]])), None);
        assert_eq!(parse_due(&key(table::DUE, [&[0; 8], &[DUE_BODY], &[0; 31]])), None);
        for kind in DUE_VANISHED..=DUE_TRACE {
            assert_eq!(parse_due(&key(table::DUE, [&[0; 8], &[kind], &[0; 15]])), None);
            assert_eq!(parse_due(&key(table::DUE, [&[0; 8], &[kind], &[0; 29]])), None);
        }
    }

    #[test]
    fn tables_stand_in_the_ranges_that_the_store_expects() {
        assert!(table::ALL.is_sorted());
        for table in table::ALL {
            assert!((0x10..0xff).contains(&table));
            let large_or_expiring = table >= 0x80;
            assert_eq!(
                large_or_expiring,
                [table::BODY, table::REQUEST, table::DELIVERY, table::DUE, table::TRACE]
                    .contains(&table)
            );
        }
    }
}
