//! The clients: what they do to mailboxes, whom they ask, and what they write down.
//!
//! A client has one operation at a time. It asks the node that helped last, follows hints, and
//! repeats an attempt of unknown outcome under the same request id at another node, which is where
//! duplicates would come from. What it counts is what the history says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use dag_types::{DatabaseId, MailboxId, Millis};
use history::op::{
    Answer, AppendedAt, Change, Flags, Op, Operation, Outcome, Place, ReadMode, StoreResult, Token,
};
use mailbox::command::{
    Append, Content, Deliver, Expunge, FlagAction, Parsed, Recipient, StoreFlags, UidRange,
    id_bytes,
};
use mailbox::response::DeliverCode;
use mailbox::{Command, Response};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::dice::Dice;
use crate::network::Network;
use crate::server::{FLAGS, INBOX, Reply, Request};
use crate::shape::{CLIENTS, DATA_NODES};
use crate::trace::Trace;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_millis(300);
/// How long one operation may take, with all its attempts.
const OPERATION: Duration = Duration::from_millis(1_500);

/// Hands requests over to a node, in that node's runtime; the answer comes back through the
/// network. Returns false where the node does not run.
pub type Deliverer = Arc<dyn Fn(u64, Request, Duration, Answering) + Send + Sync>;

/// Where an answer goes.
pub type Answering = Box<dyn FnOnce(Reply) + Send>;

/// What all clients of a run share.
pub struct Work {
    /// All operations so far, in the order of their calls.
    pub operations: Mutex<Vec<Operation>>,
    /// What answers cannot be, and were.
    pub broken: Mutex<Vec<String>>,
    /// Whether clients begin new operations.
    pub going: AtomicBool,
    /// Operations that have begun and not ended.
    pub open: AtomicU64,
    /// Virtual time.
    pub trace: Trace,
    next_client: AtomicU64,
    network: Network,
    deliver: Deliverer,
}

/// One client.
pub struct Client {
    work: Arc<Work>,
    number: u64,
    name: String,
    dice: Dice,
    database: DatabaseId,
    mailboxes: Vec<MailboxId>,
    think_ms: u64,
    node: u64,
    counter: u64,
    /// UIDs of each mailbox that the client knows of.
    known: BTreeMap<MailboxId, Vec<u64>>,
    highest: BTreeMap<MailboxId, u64>,
}

/// The id of a mailbox of a database.
pub fn mailbox_id(database: DatabaseId, number: u64) -> MailboxId {
    let mut id = [0; 16];
    id[0] = database.0 as u8;
    id[15] = number as u8;
    MailboxId(id)
}

/// The INBOX of a mailbox, as histories name it.
pub fn inbox(mailbox: MailboxId) -> Place {
    let mailbox = format!("db{}-{}", mailbox.0[0], mailbox.0[15]);
    Place { mailbox, folder: "INBOX".to_owned() }
}

impl Work {
    /// No clients yet.
    pub fn new(trace: Trace, network: Network, deliver: Deliverer) -> Arc<Self> {
        Arc::new(Self {
            operations: Mutex::default(),
            broken: Mutex::default(),
            going: AtomicBool::new(true),
            open: AtomicU64::new(0),
            trace,
            next_client: AtomicU64::new(1),
            network,
            deliver,
        })
    }

    /// Operations so far.
    pub fn operations(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn new_client(&self) -> u64 {
        self.next_client.fetch_add(1, Ordering::Relaxed)
    }

    fn invoke(&self, client: u64, op: Op) -> u64 {
        let mut operations = self.operations();
        let id = operations.len() as u64 + 1;
        let outcome = Outcome::Unknown { reason: "the run ended before".to_owned() };
        let invoked = self.trace.now_ns();
        operations.push(Operation { id, client, invoked, returned: None, op, outcome });
        self.open.fetch_add(1, Ordering::Relaxed);
        id
    }

    fn finish(&self, id: u64, outcome: Outcome) {
        let what = match &outcome {
            Outcome::Ok { token, .. } => token.map_or(1, |token| token.index + 10),
            Outcome::Fail { .. } => 2,
            Outcome::Unknown { .. } => 3,
        };
        self.trace.note("finish", &[id, what]);
        let mut operations = self.operations();
        let operation = &mut operations[id as usize - 1];
        operation.returned = Some(self.trace.now_ns());
        operation.outcome = outcome;
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// One attempt at one node; nothing where no answer came in time.
    pub async fn ask(self: &Arc<Self>, node: u64, request: Request) -> Option<Reply> {
        let (answer, waiting) = oneshot::channel();
        let work = self.clone();
        let arrive = Box::new(move || {
            let network = work.network.clone();
            let back: Answering = Box::new(move |reply| {
                network.post(node, CLIENTS, Box::new(move || drop(answer.send(reply))));
            });
            (work.deliver)(node, request, ATTEMPT, back);
        });
        self.network.post(CLIENTS, node, arrive);
        timeout(ATTEMPT, waiting).await.ok()?.ok()
    }

    /// Writes a command somewhere until it is answered, without a line in the history.
    pub async fn insist(
        self: &Arc<Self>,
        request: Request,
        nodes: u64,
        patience: Duration,
    ) -> bool {
        let limit = Instant::now() + patience;
        let mut node = 1;
        while Instant::now() < limit {
            match self.ask(node, request.clone()).await {
                Some(Reply::Written(..)) => return true,
                Some(Reply::Refused(Some(hint))) => node = hint,
                _ => node = node % nodes + 1,
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

/// How the attempts of an operation went.
enum Attempts {
    Answered(Reply),
    Refused,
    Unsure,
}

impl Client {
    /// A client of one database.
    pub fn new(
        work: Arc<Work>,
        dice: Dice,
        database: DatabaseId,
        mailboxes: u64,
        think_ms: u64,
        name: String,
    ) -> Self {
        let mailboxes = (1..=mailboxes).map(|number| mailbox_id(database, number)).collect();
        Self {
            number: work.new_client(),
            work,
            name,
            dice,
            database,
            mailboxes,
            think_ms,
            node: 1,
            counter: 0,
            known: BTreeMap::new(),
            highest: BTreeMap::new(),
        }
    }

    /// Works until it is told to stop.
    pub async fn run(mut self) {
        while self.work.going.load(Ordering::Relaxed) {
            self.one().await;
            let pause = self.dice.between(1, self.think_ms);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Reads every mailbox at one node, again and again, whoever serves by then.
    pub async fn read_at(mut self, node: u64, patience: Duration) {
        let limit = Instant::now() + patience;
        while Instant::now() < limit && self.work.going.load(Ordering::Relaxed) {
            for mailbox in self.mailboxes.clone() {
                let id = self.begin_read(mailbox);
                let request = Request::Read { database: self.database, mailbox };
                let reply = self.work.ask(node, request).await;
                if let Some(Reply::Broken(what)) = &reply {
                    self.report(format!("{} at node {node}: {what}", self.name));
                }
                self.end_read(id, mailbox, reply);
            }
            let pause = self.dice.between(1, self.think_ms);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Reads every mailbox once, until each read was answered.
    pub async fn read_all(mut self, patience: Duration) -> bool {
        let limit = Instant::now() + patience;
        for mailbox in self.mailboxes.clone() {
            while !self.read(mailbox).await {
                if Instant::now() > limit {
                    return false;
                }
            }
        }
        true
    }

    async fn one(&mut self) {
        let mailbox = *self.dice.clone().pick(&self.mailboxes);
        let uids = self.known.get(&mailbox).cloned().unwrap_or_default();
        let draw = self.dice.below(100);
        match draw {
            0..40 => self.append(mailbox).await,
            40..55 => self.deliver().await,
            55..75 if !uids.is_empty() => {
                let uid = *self.dice.pick(&uids);
                self.store(mailbox, uid).await;
            }
            75..80 if uids.len() > 2 => {
                let uid = *self.dice.pick(&uids);
                self.expunge(mailbox, uid).await;
            }
            80.. => {
                self.read(mailbox).await;
            }
            _ => self.append(mailbox).await,
        }
    }

    fn new_key(&mut self) -> String {
        self.counter += 1;
        format!("{}-{}", self.name, self.counter)
    }

    fn content(&mut self, key: &str) -> Content {
        let filler = "x".repeat(self.dice.between(10, 400) as usize);
        let body = Bytes::from(format!("Message-ID: {key}\n\n{filler}\n"));
        let crc32 = crc32fast::hash(&body);
        let parsed = Parsed { message_id: key.to_owned(), ..Parsed::default() };
        Content::new(body, crc32, parsed)
    }

    async fn append(&mut self, mailbox: MailboxId) {
        let key = self.new_key();
        let content = self.content(&key);
        let (names, bits) = self.draw_flags();
        let op = Op::Append {
            places: vec![inbox(mailbox)],
            key: key.clone(),
            body: format!("{:08x}", content.crc32),
            flags: names,
        };
        let append = Append {
            mailbox_id: id_bytes(mailbox),
            folder: INBOX,
            expected_uid_validity: 0,
            system_flags: bits,
            keywords: Vec::new(),
            internal_date_ms: 1,
            content,
        };
        let answer = |response: &Response| match &response.outcome {
            Some(mailbox::Outcome::Appended(stored)) => {
                Some(Answer::Appended { at: vec![appended_at(stored)] })
            }
            _ => None,
        };
        if let Some(Answer::Appended { at }) = self.write(op, key, append.into(), answer).await {
            self.learn(mailbox, at[0].uid, at[0].modseq);
        }
    }

    async fn deliver(&mut self) {
        let key = self.new_key();
        let content = self.content(&key);
        let mailboxes = self.mailboxes.clone();
        let op = Op::Append {
            places: mailboxes.iter().map(|mailbox| inbox(*mailbox)).collect(),
            key: key.clone(),
            body: format!("{:08x}", content.crc32),
            flags: Flags::new(),
        };
        let recipients = mailboxes.iter().map(|id| Recipient::new(address(*id), *id)).collect();
        let deliver = Deliver {
            delivery_id: key.clone(),
            sender: "sender@example.org".to_owned(),
            recipients,
            received_ms: 1,
            content,
        };
        let answer = |response: &Response| match &response.outcome {
            Some(mailbox::Outcome::Delivered(delivered)) => {
                let stored = delivered.results.iter().map(|result| {
                    let fine =
                        matches!(result.code(), DeliverCode::Stored | DeliverCode::Duplicate);
                    result.stored.as_ref().filter(|_| fine).map(appended_at)
                });
                Some(Answer::Appended { at: stored.collect::<Option<Vec<_>>>()? })
            }
            _ => None,
        };
        if let Some(Answer::Appended { at }) = self.write(op, key, deliver.into(), answer).await {
            for (mailbox, at) in mailboxes.into_iter().zip(at) {
                self.learn(mailbox, at.uid, at.modseq);
            }
        }
    }

    async fn store(&mut self, mailbox: MailboxId, uid: u64) {
        let key = self.new_key();
        let (flags, bits) = self.draw_flags();
        let changes = [
            (Change::Add, FlagAction::Add),
            (Change::Remove, FlagAction::Remove),
            (Change::Replace, FlagAction::Replace),
        ];
        let (change, action) = *self.dice.pick(&changes);
        let highest = self.highest.get(&mailbox).copied().unwrap_or(1);
        let unchanged_since = self.dice.chance(300).then(|| self.dice.between(1, highest));
        let op = Op::Store { place: inbox(mailbox), uid, change, flags, unchanged_since };
        let store = StoreFlags {
            mailbox_id: id_bytes(mailbox),
            folder: INBOX,
            expected_uid_validity: 0,
            uids: vec![UidRange::new(uid as u32, uid as u32)],
            action: action as i32,
            system_flags: bits,
            keywords: Vec::new(),
            unchanged_since,
        };
        let answer = |response: &Response| match &response.outcome {
            Some(mailbox::Outcome::FlagsStored(stored)) => {
                let (result, modseq) = match stored {
                    s if !s.changed.is_empty() => (StoreResult::Changed, Some(s.modseq)),
                    s if !s.unchanged.is_empty() => (StoreResult::Same, None),
                    s if !s.modified.is_empty() => (StoreResult::Modified, None),
                    _ => (StoreResult::Missing, None),
                };
                Some(Answer::Stored { result, modseq, flags: None })
            }
            _ => None,
        };
        if let Some(Answer::Stored { modseq: Some(modseq), .. }) =
            self.write(op, key, store.into(), answer).await
        {
            self.highest.insert(mailbox, modseq);
        }
    }

    async fn expunge(&mut self, mailbox: MailboxId, uid: u64) {
        let key = self.new_key();
        let op = Op::Expunge { place: inbox(mailbox), uids: vec![uid] };
        let expunge = Expunge {
            mailbox_id: id_bytes(mailbox),
            folder: INBOX,
            expected_uid_validity: 0,
            uids: vec![UidRange::new(uid as u32, uid as u32)],
            ..Expunge::default()
        };
        let answer = |response: &Response| match &response.outcome {
            Some(mailbox::Outcome::Expunged(expunged)) => {
                let ranges = expunged.vanished.iter().map(|range| range.first..=range.last);
                let uids: Vec<u64> = ranges.flatten().map(u64::from).collect();
                let modseq = if uids.is_empty() { 0 } else { expunged.modseq };
                Some(Answer::Expunged { uids, modseq })
            }
            _ => None,
        };
        self.write(op, key, expunge.into(), answer).await;
        if let Some(known) = self.known.get_mut(&mailbox) {
            known.retain(|other| *other != uid);
        }
    }

    async fn read(&mut self, mailbox: MailboxId) -> bool {
        let id = self.begin_read(mailbox);
        let request = Request::Read { database: self.database, mailbox };
        let reply = match self.attempts(request).await {
            Attempts::Answered(reply) => Some(reply),
            Attempts::Refused | Attempts::Unsure => None,
        };
        self.end_read(id, mailbox, reply)
    }

    fn begin_read(&self, mailbox: MailboxId) -> u64 {
        let op = Op::Read { place: inbox(mailbox), mode: ReadMode::Linearizable };
        self.work.invoke(self.number, op)
    }

    /// Notes what became of a read, and whether it saw anything.
    fn end_read(&mut self, id: u64, mailbox: MailboxId, reply: Option<Reply>) -> bool {
        let (outcome, read) = match reply {
            Some(Reply::Seen(seen, token)) => {
                let uids = seen.messages.iter().map(|message| message.uid).collect();
                self.known.insert(mailbox, uids);
                self.highest.insert(mailbox, seen.highest_modseq.max(1));
                (Outcome::Ok { answer: Answer::Seen(seen), token: Some(token) }, true)
            }
            // A read has no effect, whatever became of it.
            _ => (Outcome::Fail { reason: "not read in time".to_owned() }, false),
        };
        self.work.finish(id, outcome);
        read
    }

    async fn write(
        &mut self,
        op: Op,
        request_id: String,
        operation: mailbox::Operation,
        answer: impl FnOnce(&Response) -> Option<Answer>,
    ) -> Option<Answer> {
        let now = Millis(self.work.trace.now_ns() / 1_000_000);
        let command = Command::new(request_id.clone(), now, operation).encode_to_bytes();
        let id = self.work.invoke(self.number, op);
        let request = Request::Write { database: self.database, request_id, command };
        let outcome = match self.attempts(request).await {
            Attempts::Answered(Reply::Written(response, token)) => {
                self.judge(&response, token, answer(&response))
            }
            Attempts::Answered(_) => Outcome::Unknown { reason: "another answer".to_owned() },
            Attempts::Refused => Outcome::Fail { reason: "refused everywhere".to_owned() },
            Attempts::Unsure => Outcome::Unknown { reason: "no answer in time".to_owned() },
        };
        if matches!(outcome, Outcome::Unknown { .. }) {
            // What it left may still take effect beside what this client does next.
            self.number = self.work.new_client();
        }
        let answer = match &outcome {
            Outcome::Ok { answer, .. } => Some(answer.clone()),
            _ => None,
        };
        self.work.finish(id, outcome);
        answer
    }

    fn judge(&self, response: &Response, token: Token, answer: Option<Answer>) -> Outcome {
        match (response.rejection(), answer) {
            (Some(rejection), _) => Outcome::Fail { reason: rejection.to_string() },
            (None, Some(answer)) => {
                // A repetition is answered with where its first attempt stands.
                let index = if response.replayed { response.log_index } else { token.index };
                Outcome::Ok { answer, token: Some(Token { index, ..token }) }
            }
            (None, None) => {
                self.report(format!("an answer of another kind: {response:?}"));
                Outcome::Unknown { reason: "an answer of another kind".to_owned() }
            }
        }
    }

    fn report(&self, what: String) {
        self.work.broken.lock().unwrap_or_else(|poison| poison.into_inner()).push(what);
    }

    async fn attempts(&mut self, request: Request) -> Attempts {
        let limit = Instant::now() + OPERATION;
        let mut unsure = false;
        while Instant::now() < limit {
            match self.work.ask(self.node, request.clone()).await {
                Some(Reply::Refused(hint)) => {
                    self.node = hint.unwrap_or(self.node % DATA_NODES + 1);
                }
                Some(Reply::Unknown(_)) => unsure = true,
                Some(Reply::Broken(what)) => {
                    self.report(format!("{} at node {}: {what}", self.name, self.node));
                    self.node = self.node % DATA_NODES + 1;
                }
                Some(answered) => return Attempts::Answered(answered),
                None => {
                    unsure = true;
                    self.node = self.node % DATA_NODES + 1;
                }
            }
            let pause = self.dice.between(5, 30);
            sleep(Duration::from_millis(pause)).await;
        }
        if unsure { Attempts::Unsure } else { Attempts::Refused }
    }

    fn learn(&mut self, mailbox: MailboxId, uid: u64, modseq: u64) {
        self.known.entry(mailbox).or_default().push(uid);
        self.highest.insert(mailbox, modseq);
    }

    fn draw_flags(&mut self) -> (Flags, u32) {
        let drawn: Vec<_> = FLAGS.into_iter().filter(|_| self.dice.chance(300)).collect();
        let names = drawn.iter().map(|(name, _)| (*name).to_owned()).collect();
        (names, drawn.iter().map(|(_, bit)| bit).sum())
    }
}

/// The address of a mailbox.
pub fn address(mailbox: MailboxId) -> String {
    format!("user{}-{}@example.org", mailbox.0[0], mailbox.0[15])
}

fn appended_at(stored: &mailbox::response::StoredAt) -> AppendedAt {
    AppendedAt {
        uid_validity: stored.uid_validity.into(),
        uid: stored.uid.into(),
        modseq: stored.modseq,
    }
}
