//! The five system flags of IMAP4rev2 (RFC 9051 2.3.2) as bits. `\Recent` is gone from the
//! protocol and is not stored.

use alloc::string::ToString;

use crate::response::{Reason, Rejection};

/// `\Seen`
pub const SEEN: u32 = 1;
/// `\Answered`
pub const ANSWERED: u32 = 1 << 1;
/// `\Flagged`
pub const FLAGGED: u32 = 1 << 2;
/// `\Deleted`
pub const DELETED: u32 = 1 << 3;
/// `\Draft`
pub const DRAFT: u32 = 1 << 4;
/// All of them.
pub const ALL: u32 = SEEN | ANSWERED | FLAGGED | DELETED | DRAFT;

/// Refuses bits that name no flag.
pub(crate) fn check(flags: u32) -> Result<(), Rejection> {
    if flags & !ALL == 0 {
        return Ok(());
    }
    Err(Rejection::new(Reason::FlagUnknown)
        .about("system_flags".to_string())
        .with_value(u64::from(flags))
        .with_limit(u64::from(ALL)))
}
