//! Clients that use mailboxes as front ends do, and write down what they were told.
//!
//! Several clients share a mailbox, so that what one does is seen by another. Every message's body
//! is different, so its digest names it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use dag_client::v1::{CommitToken, FlagOperation, MessageMeta, SystemFlag, UidSet};
use dag_client::{Client, Delivery, Error, Expunge, FlagChange, Session};
use dag_types::Lineage;
use history::op::{
    Answer, AppendedAt, Change, Op, Outcome, Place, ReadMode, Seen, SeenMessage, StoreResult, Token,
};
use history::{Recorder, op};
use testkit::mail::{Dice, Template};
use tokio::task::JoinSet;

use crate::trial::{Trial, now};

/// How much is done, and how fast.
#[derive(Debug, Clone)]
pub struct Load {
    /// Mailboxes, spread over the databases.
    pub mailboxes: usize,
    /// Clients of each mailbox; at most 8, or the search for an order of flags gets long.
    pub clients_each: usize,
    /// The pause of a client between two operations.
    pub pause: Duration,
    /// When a client gives an operation up; what became of it is unknown then.
    pub patience: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            mailboxes: 6,
            clients_each: 3,
            pause: Duration::from_millis(20),
            patience: Duration::from_secs(4),
        }
    }
}

/// Clients at work. They end when [`Work::stop`] is called.
pub struct Work {
    stopped: Arc<AtomicBool>,
    rest: Arc<Rest>,
    acknowledged: Arc<AtomicU64>,
    clients: JoinSet<anyhow::Result<()>>,
    desks: Vec<Arc<Desk>>,
}

/// Whether clients begin nothing new, and how many of them do not.
#[derive(Default)]
struct Rest {
    wanted: AtomicBool,
    resting: AtomicUsize,
}

impl Rest {
    async fn while_wanted(&self, stopped: &AtomicBool) {
        if !self.wanted.load(Ordering::SeqCst) {
            return;
        }
        self.resting.fetch_add(1, Ordering::SeqCst);
        while self.wanted.load(Ordering::SeqCst) && !stopped.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.resting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A mailbox and what its clients share.
struct Desk {
    client: Client,
    recorder: Arc<Recorder<Vec<u8>>>,
    place: Place,
    folder_id: String,
    /// Body digest to key, of everything that was ever sent here.
    keys: Mutex<HashMap<Vec<u8>, String>>,
    /// UIDs that are known to have been there.
    uids: Mutex<Vec<u32>>,
}

impl Work {
    /// Makes the mailboxes and lets the clients begin.
    pub async fn begin(trial: &Trial, load: &Load) -> anyhow::Result<Self> {
        let client = trial.client(load.patience)?;
        let (stopped, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (clients, desks, rest) = (JoinSet::new(), Vec::new(), Arc::default());
        let mut work = Self { stopped, rest, acknowledged, clients, desks };
        let status = crate::ask::status(&trial.cluster)?;
        for number in 0..load.mailboxes {
            let database = &trial.databases()[number % trial.databases().len()];
            let database = crate::work::database_id(&status, database)?;
            let address = format!("desk{number}@example.org");
            let id = format!("make-{address}");
            let made = client.create_mailbox_in(&address, Some(database), id).await?;
            let desk = Arc::new(Desk {
                client: client.clone(),
                recorder: trial.recorder.clone(),
                place: Place { mailbox: address, folder: "INBOX".into() },
                folder_id: made.inbox.folder_id,
                keys: Mutex::default(),
                uids: Mutex::default(),
            });
            for client in 0..load.clients_each {
                let seed = (number * 100 + client) as u64;
                let person = Person::new(desk.clone(), seed);
                let (stopped, count) = (work.stopped.clone(), work.acknowledged.clone());
                let (pause, rest) = (load.pause, work.rest.clone());
                work.clients
                    .spawn(async move { person.work(pause, &rest, &stopped, &count).await });
            }
            work.desks.push(desk);
        }
        Ok(work)
    }

    /// Operations that were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more operations are acknowledged.
    pub async fn progress(&self, more: u64, within: Duration) -> anyhow::Result<()> {
        let goal = self.acknowledged() + more;
        let reached = async {
            while self.acknowledged() < goal {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let done = tokio::time::timeout(within, reached).await;
        done.with_context(|| {
            format!("fewer than {more} operations were acknowledged in {within:?}")
        })
    }

    /// Lets the clients end what they are doing, and begin nothing more until [`Work::go_on`].
    pub async fn rest(&self) {
        self.rest.wanted.store(true, Ordering::SeqCst);
        while self.rest.resting.load(Ordering::SeqCst) < self.clients.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The clients go on.
    pub fn go_on(&self) {
        self.rest.wanted.store(false, Ordering::SeqCst);
    }

    /// Ends the clients, and reads every mailbox to its last byte.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended??;
        }
        for desk in &self.desks {
            Person::new(desk.clone(), 0).read_everything().await?;
        }
        Ok(())
    }
}

/// The number of a database in a status.
pub fn database_id(
    status: &serde_json::Value,
    name: &str,
) -> anyhow::Result<dag_types::DatabaseId> {
    let databases = status["databases"].as_array().context("a status has databases")?;
    let found = databases.iter().find(|database| database["name"] == name);
    let id = found.and_then(|database| database["database_id"].as_u64());
    Ok(dag_types::DatabaseId(id.with_context(|| format!("no database {name}"))?))
}

/// How often the last read of a mailbox is tried: a busy machine may make one try longer than a client waits.
const TRIES: usize = 10;

/// What is asked for, in one of several tries.
async fn surely<T, E>(ask: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    for _ in 1..TRIES {
        if let Ok(answer) = ask().await {
            return Ok(answer);
        }
    }
    ask().await
}

/// One client of a mailbox.
struct Person {
    desk: Arc<Desk>,
    session: Option<Session>,
    number: u64,
    seed: u64,
    dice: Dice,
    sent: u64,
}

impl Person {
    fn new(desk: Arc<Desk>, seed: u64) -> Self {
        let number = desk.recorder.client();
        // Every second client keeps a session; the others call.
        let session = seed.is_multiple_of(2).then(|| desk.client.session());
        Self { desk, session, number, seed, dice: Dice::new(seed + 1), sent: 0 }
    }

    async fn work(
        mut self,
        pause: Duration,
        rest: &Rest,
        stopped: &AtomicBool,
        acknowledged: &AtomicU64,
    ) -> anyhow::Result<()> {
        while !stopped.load(Ordering::Relaxed) {
            rest.while_wanted(stopped).await;
            let outcome = match self.dice.below(100) {
                0..65 => self.append().await?,
                65..85 => self.store_flags().await?,
                85..95 => self.read().await?,
                _ => self.expunge().await?,
            };
            match outcome {
                Some(Outcome::Ok { .. }) => {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                // The operation may still take effect beside the next one.
                Some(Outcome::Unknown { .. }) => self.number = self.desk.recorder.client(),
                Some(Outcome::Fail { .. }) | None => {}
            }
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    async fn append(&mut self) -> anyhow::Result<Option<Outcome>> {
        self.sent += 1;
        let key = format!("{}-{}", self.seed, self.sent);
        let size = 600 + self.dice.below(8_000);
        let mail = Template::new(self.seed * 1_000_003 + self.sent, size as usize);
        let content = mail.stamped(self.seed * 1_000_000 + self.sent);
        let digest = blake3::hash(&content).as_bytes().to_vec();
        let op = Op::Append {
            places: vec![self.desk.place.clone()],
            key: key.clone(),
            body: hex(&digest),
            flags: op::Flags::new(),
        };
        self.desk.keys.lock().expect("no panic inside").insert(digest, key.clone());
        let delivery = Delivery::new(format!("work-{key}"), [&self.desk.place.mailbox], content);
        let called = self.desk.recorder.invoke(self.number, now(), op)?;
        let report = match &self.session {
            Some(session) => session.deliver(delivery).await,
            None => self.desk.client.deliver(delivery).await,
        };
        let result = report.and_then(|mut report| report.recipients.remove(0).result);
        let outcome = match result {
            Ok(stored) => {
                let at = AppendedAt {
                    uid_validity: stored.result.uid_validity.into(),
                    uid: stored.result.uid.into(),
                    modseq: stored.result.modseq,
                };
                self.desk.uids.lock().expect("no panic inside").push(stored.result.uid);
                ok(Answer::Appended { at: vec![at] }, Some(&stored.token))?
            }
            Err(error) => failed(&error),
        };
        self.desk.recorder.finish(called, now(), outcome.clone())?;
        Ok(Some(outcome))
    }

    fn some_uid(&mut self) -> Option<u32> {
        let uids = self.desk.uids.lock().expect("no panic inside");
        // Mostly young ones, so that clients meet.
        let young = uids.len().min(20) as u64;
        (young > 0).then(|| uids[uids.len() - 1 - self.dice.below(young) as usize])
    }

    async fn store_flags(&mut self) -> anyhow::Result<Option<Outcome>> {
        let Some(uid) = self.some_uid() else { return Ok(None) };
        let (flag, name) = match self.dice.below(3) {
            0 => (SystemFlag::Seen, "seen"),
            1 => (SystemFlag::Flagged, "flagged"),
            _ => (SystemFlag::Answered, "answered"),
        };
        let (operation, change) = match self.dice.below(3) {
            0 => (FlagOperation::Add, Change::Add),
            1 => (FlagOperation::Remove, Change::Remove),
            _ => (FlagOperation::Replace, Change::Replace),
        };
        let op = Op::Store {
            place: self.desk.place.clone(),
            uid: uid.into(),
            change,
            flags: [name.to_owned()].into(),
            unchanged_since: None,
        };
        let called = self.desk.recorder.invoke(self.number, now(), op)?;
        let change = FlagChange {
            folder_id: self.desk.folder_id.clone(),
            uids: UidSet::range(uid, uid),
            operation,
            system_flags: flag as u32,
            keywords: Vec::new(),
            unchanged_since: None,
            expected_uid_validity: 0,
            request_id: None,
        };
        let mailbox = self.desk.place.mailbox.as_str();
        let outcome = match self.desk.client.store_flags(mailbox, change).await {
            Ok(answer) => {
                let has = |set: &Option<UidSet>| set.as_ref().is_some_and(|set| set.contains(uid));
                let (result, modseq) = if has(&answer.changed) {
                    (StoreResult::Changed, Some(answer.modseq))
                } else if has(&answer.unchanged) {
                    (StoreResult::Same, None)
                } else if has(&answer.modified) {
                    (StoreResult::Modified, None)
                } else {
                    (StoreResult::Missing, None)
                };
                ok(Answer::Stored { result, modseq, flags: None }, answer.token.as_ref())?
            }
            Err(error) => failed(&error),
        };
        self.desk.recorder.finish(called, now(), outcome.clone())?;
        Ok(Some(outcome))
    }

    async fn expunge(&mut self) -> anyhow::Result<Option<Outcome>> {
        let Some(uid) = self.some_uid() else { return Ok(None) };
        let op = Op::Expunge { place: self.desk.place.clone(), uids: vec![uid.into()] };
        let called = self.desk.recorder.invoke(self.number, now(), op)?;
        let expunge = Expunge {
            folder_id: self.desk.folder_id.clone(),
            uids: UidSet::range(uid, uid),
            ..Expunge::default()
        };
        let mailbox = self.desk.place.mailbox.as_str();
        let outcome = match self.desk.client.expunge(mailbox, expunge).await {
            Ok(answer) => {
                let gone: Vec<u64> =
                    answer.vanished.unwrap_or_default().iter().map(u64::from).collect();
                let modseq = if gone.is_empty() { 0 } else { answer.modseq };
                ok(Answer::Expunged { uids: gone, modseq }, answer.token.as_ref())?
            }
            Err(error) => failed(&error),
        };
        self.desk.recorder.finish(called, now(), outcome.clone())?;
        Ok(Some(outcome))
    }

    /// Reads the folder, as long as it is one page: each page is a read of its own.
    async fn read(&mut self) -> anyhow::Result<Option<Outcome>> {
        let op = Op::Read { place: self.desk.place.clone(), mode: ReadMode::Linearizable };
        let called = self.desk.recorder.invoke(self.number, now(), op)?;
        let mailbox = self.desk.place.mailbox.as_str();
        let page = self.desk.client.list(mailbox, &self.desk.folder_id, None, "").await;
        let outcome = match page {
            Ok(page) if page.next_page_token.is_empty() => {
                let messages =
                    page.messages.iter().map(|message| self.seen(message, &message.blake3));
                let seen = Seen {
                    uid_validity: page.uid_validity.into(),
                    uid_next: page.uid_next.into(),
                    highest_modseq: page.highest_modseq,
                    messages: messages.collect(),
                };
                ok(Answer::Seen(seen), page.token.as_ref())?
            }
            Ok(_) => Outcome::Fail { reason: "more than one page".into() },
            Err(error) => failed(&error),
        };
        self.desk.recorder.finish(called, now(), outcome.clone())?;
        Ok(Some(outcome))
    }

    /// Reads all pages, and the bytes of every message, when nobody writes any more. The last read
    /// of a history must succeed.
    async fn read_everything(&mut self) -> anyhow::Result<()> {
        let op = Op::Read { place: self.desk.place.clone(), mode: ReadMode::Linearizable };
        let called = self.desk.recorder.invoke(self.number, now(), op)?;
        let mailbox = self.desk.place.mailbox.as_str();
        let (client, folder) = (&self.desk.client, &self.desk.folder_id);
        let mut page = surely(|| client.list(mailbox, folder, None, "")).await?;
        let mut seen = Seen {
            uid_validity: page.uid_validity.into(),
            uid_next: page.uid_next.into(),
            highest_modseq: page.highest_modseq,
            messages: Vec::new(),
        };
        loop {
            for message in &page.messages {
                let content = surely(|| client.fetch(mailbox, folder, message.uid)).await?.content;
                let digest = blake3::hash(&content);
                seen.messages.push(self.seen(message, digest.as_bytes()));
            }
            if page.next_page_token.is_empty() {
                break;
            }
            page = surely(|| client.list(mailbox, folder, None, &page.next_page_token)).await?;
        }
        let outcome = ok(Answer::Seen(seen), page.token.as_ref())?;
        Ok(self.desk.recorder.finish(called, now(), outcome)?)
    }

    fn seen(&self, message: &MessageMeta, digest: &[u8]) -> SeenMessage {
        let keys = self.desk.keys.lock().expect("no panic inside");
        let names = [
            (SystemFlag::Seen, "seen"),
            (SystemFlag::Flagged, "flagged"),
            (SystemFlag::Answered, "answered"),
        ];
        let set = names.iter().filter(|(flag, _)| message.system_flags & *flag as u32 != 0);
        SeenMessage {
            uid: message.uid.into(),
            key: keys.get(digest).cloned().unwrap_or_else(|| "never sent".to_owned()),
            body: hex(digest),
            modseq: message.modseq,
            flags: set.map(|(_, name)| (*name).to_owned()).collect::<BTreeSet<_>>(),
        }
    }
}

fn ok(answer: Answer, token: Option<&CommitToken>) -> anyhow::Result<Outcome> {
    let token = token.map(dag_api::Token::try_from).transpose()?.map(|token| Token {
        database: token.database.0,
        lineage: Lineage { ..token.lineage },
        generation: token.generation.0,
        index: token.log_index,
    });
    Ok(Outcome::Ok { answer, token })
}

/// A refusal had no effect; a patience that is over says itself what may have happened.
fn failed(error: &Error) -> Outcome {
    let reason = error.to_string();
    match error {
        Error::Failed(problem) if problem.reason == dag_client::Reason::OutcomeUnknown => {
            Outcome::Unknown { reason }
        }
        Error::TimedOut { outcome: dag_client::Outcome::NotCarriedOut, .. } | Error::Failed(_) => {
            Outcome::Fail { reason }
        }
        Error::TimedOut { .. } | Error::Foreign { .. } => Outcome::Unknown { reason },
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
