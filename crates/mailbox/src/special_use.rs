//! Special uses of folders (RFC 6154 2, RFC 8457): numbers as the API has them. A mailbox has at
//! most one folder for each.

use alloc::string::ToString;

use crate::response::{Reason, Rejection};

/// None.
pub const NONE: u32 = 0;
/// The INBOX. Never stored: folder 1 is it.
pub const INBOX: u32 = 1;
/// `\All`
pub const ALL: u32 = 2;
/// `\Archive`
pub const ARCHIVE: u32 = 3;
/// `\Drafts`
pub const DRAFTS: u32 = 4;
/// `\Flagged`
pub const FLAGGED: u32 = 5;
/// `\Junk`
pub const JUNK: u32 = 6;
/// `\Sent`
pub const SENT: u32 = 7;
/// `\Trash`
pub const TRASH: u32 = 8;
/// `\Important`
pub const IMPORTANT: u32 = 9;

/// Refuses what a folder cannot be given.
pub(crate) fn check(special_use: u32) -> Result<(), Rejection> {
    if special_use == NONE || (ALL..=IMPORTANT).contains(&special_use) {
        return Ok(());
    }
    Err(Rejection::new(Reason::FieldInvalid)
        .about("special_use".to_string())
        .with_value(u64::from(special_use))
        .with_limit(u64::from(IMPORTANT)))
}
