//! What a mail front end uses to reach its mailboxes, wherever they are active.
//!
//! A [`Client`] is given some nodes' endpoints and finds the rest by itself: which mailbox an
//! address belongs to, which database that is in, which node serves the database at the moment. It
//! keeps what it learned and follows the hints of nodes that know better.
//!
//! Each operation is a series of short *attempts* within one total *patience*, all with the same
//! request id or delivery id, so that it is carried out once however many of them reach a node:
//!
//! ```text
//! locate -> attempt -> counted answer           done
//!    ^         |-----> refusal with a hint      the node named, at once
//!    |         |-----> refusal, broken, silent  pause with jitter, next node, same id
//!    +---------+-----> mailbox moved            locate again, same id
//!              +-----> rejection                an error for the caller
//! ```
//!
//! An answer counts only if it arrived before its attempt's end and does not belong to an older
//! lineage than the newest one seen (a site that was cut off may still talk). When the patience is
//! over, [`Error::TimedOut`] says whether the operation may have been carried out.
//!
//! | file | idea |
//! | --- | --- |
//! | `client.rs` | the calls of a front end |
//! | `requests.rs` | the rest of the API: requests as they are, with place and id filled in |
//! | `watch.rs` | what changes, over failovers |
//! | `deliver.rs` | one message to many recipients, grouped by database |
//! | `session.rs`, `stream.rs` | many deliveries in flight on one stream per database |
//! | `ask.rs` | the series of attempts |
//! | `tls.rs` | certificates, and why they were not taken |
//! | `lineage.rs` | which answers come too late by a whole site |

mod ask;
mod chunks;
mod client;
mod deliver;
mod error;
mod lineage;
mod message;
mod nodes;
mod options;
mod places;
mod requests;
mod session;
mod stream;
pub mod tls;
mod trial;
mod watch;

pub use client::{Client, InvalidEndpoint, NewMailbox};
pub use dag_api::mailbox::v1;
pub use dag_api::{Problem, Reason};
pub use deliver::{Delivery, DeliveryReport, RecipientReport, Stored};
pub use error::{Error, Outcome};
pub use message::{Append, Expunge, Fetched, FlagChange, Page, SystemFlags};
pub use options::{Jitter, Options};
pub use places::{MailboxName, Place};
pub use prost_types::{FieldMask, Timestamp};
pub use session::Session;
pub use tls::Tls;
pub use watch::{Watch, WatchEvent};
