//! What stands in for the daemon's front-end service: one request of a client at one node, carried
//! out by the real group with real mailbox commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dag_api::admin::v1 as api;
use dag_types::{DatabaseId, LogId, MailboxId};
use history::op::{Seen, SeenMessage, Token};
use mailbox::Response;
use mailbox::query::{self, MessageFilter};
use replication::{NotActive, ProposeError, ReadError};
use storage::state::StateRead;
use tokio::time::Instant;

use crate::admitting::{self, SeedWish};
use crate::machines::{ReadFault, View};
use crate::node::{LINEAGE, NANOS, Shared};
use crate::office::{StepCall, Wish, serves_here};
use crate::words::{self, CopyWord};

/// The folder that every mailbox has.
pub const INBOX: u32 = 1;

/// What a client asks a node for.
#[derive(Debug, Clone)]
pub enum Request {
    /// A command of the control group; its answer is not looked at.
    Control(Bytes),
    /// A database shall be active elsewhere.
    Wish(Wish),
    /// A copy shall be built.
    Seed(SeedWish),
    /// How the node's copies stand.
    Words,
    /// The copies of a database that is active there shall be compared.
    Verify(DatabaseId),
    /// What a copy holds at a mark.
    Digest {
        /// Of which database.
        database: DatabaseId,
        /// Where the mark stands.
        mark_index: u64,
    },
    /// A step of a long operation.
    Step(StepCall),
    /// Whether the node serves a database.
    Serves(DatabaseId),
    /// A mailbox command.
    Write {
        /// In which database.
        database: DatabaseId,
        /// The command's request id, for the journal.
        request_id: String,
        /// The command.
        command: Bytes,
    },
    /// All messages of a mailbox's INBOX.
    Read {
        /// In which database.
        database: DatabaseId,
        /// Of which mailbox.
        mailbox: MailboxId,
    },
}

/// What a node answers.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The command was carried out, or rejected by the state.
    Written(Response, Token),
    /// What a read saw.
    Seen(Seen, Token),
    /// What came of a wish, a step or a question, in words.
    Stepped(Result<String, String>),
    /// How the node's copies stand.
    Words(Vec<CopyWord>),
    /// What a comparison gave; nothing where there was none.
    Verified(Option<api::VerifyDatabaseResponse>),
    /// What a copy holds at a mark; nothing where there is no copy.
    Digest(Option<api::CopyDigest>),
    /// Nothing was proposed; perhaps this node can help.
    Refused(Option<u64>),
    /// It may have been carried out, or may be later.
    Unknown(&'static str),
    /// A record cannot be read: a finding, always.
    Broken(String),
}

/// An acknowledgement, as the node's journal has it.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// World's time.
    pub at_ns: u64,
    /// The node's BOOTTIME.
    pub clock_ns: u64,
    /// Until when the answer counts, by the same clock.
    pub deadline_ns: u64,
    /// The database.
    pub database: DatabaseId,
    /// Where the entry stands.
    pub at: LogId,
    /// The log's chain there, in hexadecimal.
    pub chain: String,
    /// The leader's own durable and applied index at that moment.
    pub durable: u64,
    /// See `durable`.
    pub applied: u64,
    /// The request.
    pub request_id: String,
    /// The answering copy.
    pub replica: u64,
}

/// Carries a request out on this node, within `patience` of its own clock.
pub async fn serve(
    shared: Arc<Shared>,
    request: Request,
    patience: Duration,
    acknowledge: impl FnOnce(Acknowledged),
    now_ns: impl Fn() -> u64,
) -> Reply {
    let deadline = Instant::now() + patience;
    match request {
        Request::Control(command) => control(&shared, command, deadline).await,
        Request::Serves(database) if serves_here(&shared, database) => {
            Reply::Stepped(Ok("serves".to_owned()))
        }
        Request::Serves(_) => Reply::Stepped(Err("does not serve".to_owned())),
        Request::Wish(wish) => match shared.office() {
            Some(office) => office.begin(&shared, &wish).await,
            None => Reply::Refused(None),
        },
        Request::Seed(wish) => match shared.office() {
            Some(office) => office.begin_seed(&shared, &wish).await,
            None => Reply::Refused(None),
        },
        Request::Words => Reply::Words(words::own(&shared)),
        Request::Verify(database) => match shared.office() {
            Some(office) => Reply::Verified(office.verify(&shared, database).await),
            None => Reply::Refused(None),
        },
        Request::Digest { database, mark_index } => {
            Reply::Digest(admitting::copy_digest(&shared, database, mark_index))
        }
        Request::Step(call) => match shared.office() {
            Some(office) => Reply::Stepped(office.take(&shared, call).await),
            None => Reply::Refused(None),
        },
        Request::Write { database, request_id, command } => {
            let Some(group) = shared.group(database) else { return Reply::Refused(None) };
            match group.propose(command, deadline).await {
                Ok(committed) => {
                    let status = group.status();
                    let counts_until = committed.counts_until.expect("mailboxes are gated");
                    acknowledge(Acknowledged {
                        at_ns: now_ns(),
                        clock_ns: shared.clock.boottime().0 * NANOS,
                        deadline_ns: counts_until.0 * NANOS,
                        database,
                        at: committed.at,
                        chain: chain_at(&shared, database, committed.at),
                        durable: status.durable.map_or(0, |at| at.index),
                        applied: status.applied.map_or(0, |at| at.index),
                        request_id,
                        replica: group.replica().0,
                    });
                    match Response::decode_from(committed.reply) {
                        Ok(response) => Reply::Written(response, token(database, committed.at)),
                        Err(fault) => Reply::Broken(fault.to_string()),
                    }
                }
                Err(error) => refusal_of(&error),
            }
        }
        Request::Read { database, mailbox } => {
            let Some(group) = shared.group(database) else { return Reply::Refused(None) };
            match group.read_barrier(deadline).await {
                Ok(at) => match seen(&*group.view(), mailbox) {
                    Ok(seen) => Reply::Seen(seen, token(database, at)),
                    Err(_) if group.status().failed.is_some() => Reply::Refused(None),
                    Err(fault) => Reply::Broken(fault.0),
                },
                Err(ReadError::NotActive(not_active)) => Reply::Refused(hint(&not_active)),
                Err(_) => Reply::Refused(None),
            }
        }
    }
}

async fn control(shared: &Arc<Shared>, command: Bytes, deadline: Instant) -> Reply {
    let Some(group) = shared.group(DatabaseId::CONTROL) else { return Reply::Refused(None) };
    match group.propose(command, deadline).await {
        Ok(committed) => {
            Reply::Written(Response::default(), token(DatabaseId::CONTROL, committed.at))
        }
        Err(error) => refusal_of(&error),
    }
}

fn refusal_of(error: &ProposeError) -> Reply {
    match error {
        ProposeError::NotActive(not_active) => Reply::Refused(hint(not_active)),
        ProposeError::OutcomeUnknown { why } => Reply::Unknown(why),
        refusal => {
            assert!(refusal.is_refusal(), "what is not unknown is a refusal");
            Reply::Refused(None)
        }
    }
}

fn hint(not_active: &NotActive) -> Option<u64> {
    not_active.leader.map(|leader| leader.node.0)
}

fn token(database: DatabaseId, at: LogId) -> Token {
    let generation = dag_types::Generation::of_term(at.term).0;
    Token { database: database.0, lineage: LINEAGE, generation, index: at.index }
}

/// The chain at an entry that was just applied; empty where it was purged already.
fn chain_at(shared: &Shared, database: DatabaseId, at: LogId) -> String {
    let state = shared.state();
    let chain = state.opened.get(&database).and_then(|opened| opened.copy.log().chain_at(at.index));
    chain.map_or(String::new(), |chain| chain.to_string())
}

/// Everything that an INBOX shows, with the key that each body carries.
pub fn seen(view: &dyn StateRead, mailbox: MailboxId) -> Result<Seen, ReadFault> {
    let view = View(view);
    let Some(folder) = query::get_folder(&view, mailbox, INBOX)? else {
        return Ok(Seen::default());
    };
    let mut messages = Vec::new();
    let mut after = None;
    let mut bodies: BTreeMap<u64, (String, String)> = BTreeMap::new();
    loop {
        let filter = MessageFilter::default();
        let page = query::list_messages(&view, mailbox, INBOX, &filter, after, 1000)?;
        for message in page.items {
            if !bodies.contains_key(&message.email_id) {
                bodies.insert(message.email_id, body_of(&view, mailbox, message.email_id)?);
            }
            let (key, body) = bodies[&message.email_id].clone();
            messages.push(SeenMessage {
                uid: message.uid.into(),
                key,
                body,
                modseq: message.modseq,
                flags: flag_names(message.system_flags),
            });
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(Seen {
        uid_validity: folder.uid_validity.into(),
        uid_next: folder.uid_next.into(),
        highest_modseq: folder.highest_modseq,
        messages,
    })
}

fn body_of(view: &View<'_>, mailbox: MailboxId, email: u64) -> Result<(String, String), ReadFault> {
    let missing = |what: &str| ReadFault(format!("email {email}: its {what} is not there"));
    let email = query::get_email(view, mailbox, email)?.ok_or_else(|| missing("record"))?;
    let mut body = Vec::new();
    for row in query::body_rows(view, &email)? {
        let chunk = view.0.get(&row.key)?.ok_or_else(|| missing("body"))?;
        body.extend_from_slice(&chunk);
    }
    if crc32fast::hash(&body) != email.crc32 {
        return Err(missing("right body"));
    }
    let text = String::from_utf8_lossy(&body);
    let key = text.lines().next().and_then(|line| line.strip_prefix("Message-ID: "));
    Ok((key.unwrap_or("no key").to_owned(), format!("{:08x}", email.crc32)))
}

/// The bits of the five flags by name.
pub const FLAGS: [(&str, u32); 4] = [("seen", 1), ("answered", 2), ("flagged", 4), ("draft", 16)];

fn flag_names(bits: u32) -> history::op::Flags {
    let set = FLAGS.iter().filter(|(_, bit)| bits & bit != 0);
    set.map(|(name, _)| (*name).to_owned()).collect()
}
