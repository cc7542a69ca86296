//! The directory's machine: address to mailbox to database.
//!
//! A mailbox is made in three steps, each of which may be repeated: **reserve** its address here,
//! make it in its database, **confirm** it here. Whoever stops in between leaves a reservation; the
//! same request finishes it, and another one may take it over once it has lain for
//! [`RESERVED_MS`]. So an address is never lost to a caller that died, and two callers never make
//! two mailboxes of one address.
//!
//! What the directory says may be out of date where it is read from a passive copy. It may then
//! send a caller to the wrong place, which refuses; a message is never delivered by the directory's
//! word alone.
//!
//! | table | key | record |
//! | --- | --- | --- |
//! | 0x10 | folded address | [`MailboxKey`] |
//! | 0x11 | mailbox | [`MailboxRecord`] |
//! | 0x12 | database | [`MailboxCount`] |
//! | 0x1f | (one) | the content digest |
//! | 0xc0, 0xc1 | request id; time and request id | remembered requests |

mod apply;
pub mod command;
pub mod query;
pub mod record;
pub mod response;

pub use apply::{RESERVED_MS, apply, digest};
pub use command::{Command, Confirm, Order, Reserve};
pub use record::{MailboxCount, MailboxKey, MailboxRecord};
pub use response::{Outcome, Rejection, Reservation, Response};
