//! One message to many recipients.
//!
//! Recipients are looked up, gathered by database, and each database gets the message once with all
//! of its recipients, under the same delivery id. A recipient whose mailbox has moved meanwhile is
//! looked up again and gets the message where it is now. Each mailbox remembers the delivery id, so
//! no recipient gets the message twice.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use dag_api::mailbox::v1::deliver_messages_response::Outcome as Answered;
use dag_api::mailbox::v1::{
    CommitToken, DeliverCode, DeliverHeader, DeliverMessageRequest, DeliverMessagesRequest,
    DeliverMessagesResponse, DeliverResult, Delivered, Recipient,
};
use dag_api::{Problem, Reason, limits};
use dag_types::{DatabaseId, MailboxId};
use futures::stream::{self, StreamExt};
use prost_types::Timestamp;
use tonic::Status;

use crate::ask::{Answer, Attempt, Question, Shared};
use crate::chunks::{chunks, digest, fits_one_frame};
use crate::error::{Error, Stop};
use crate::nodes::Whom;
use crate::places::{MailboxName, Place};
use crate::session::Session;
use crate::trial::Trial;

/// Look-ups of one delivery that run at the same time.
const LOOKUPS_AT_ONCE: usize = 32;

/// A message on its way to mailboxes.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// The same for each attempt to deliver this message, by whichever process.
    pub delivery_id: String,
    /// The envelope's sender; empty for a bounce.
    pub envelope_from: String,
    /// Addresses; one result each, in this order.
    pub recipients: Vec<String>,
    /// The message as it came, header and body.
    pub content: Bytes,
    /// Becomes the internal date; none: the time of the node.
    pub receive_time: Option<Timestamp>,
}

impl Delivery {
    /// A delivery under an id of its own.
    pub fn new(
        delivery_id: impl Into<String>,
        recipients: impl IntoIterator<Item = impl Into<String>>,
        content: impl Into<Bytes>,
    ) -> Self {
        Self {
            delivery_id: delivery_id.into(),
            recipients: recipients.into_iter().map(Into::into).collect(),
            content: content.into(),
            ..Self::default()
        }
    }

    fn check(&self) -> Result<(), Problem> {
        if !limits::is_delivery_id(&self.delivery_id) {
            let message = "a delivery id is 1 to 512 visible ASCII characters";
            return Err(Problem::new(Reason::InvalidRequest, message).check("delivery_id"));
        }
        check_size(&self.content)
    }
}

pub(crate) fn check_size(content: &[u8]) -> Result<(), Problem> {
    let (size, limit) = (content.len() as u64, limits::MESSAGE_BYTES_MAX);
    if size <= limit {
        return Ok(());
    }
    let message = format!("the message has {size} bytes; at most {limit} are stored");
    Err(Problem::new(Reason::TooLarge, message).limit(size, limit))
}

/// A message in a mailbox.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Which mailbox.
    pub mailbox: MailboxId,
    /// Folder, UID, email id, and whether it was there before.
    pub result: DeliverResult,
    /// Where the database's history has it.
    pub token: CommitToken,
}

/// What became of a message for one recipient.
#[derive(Debug, Clone)]
pub struct RecipientReport {
    /// As in the delivery.
    pub address: String,
    /// Stored on the disks of a majority, or not.
    pub result: Result<Stored, Error>,
}

/// What became of a message; one report per recipient, in the order of the delivery.
#[derive(Debug, Clone)]
pub struct DeliveryReport {
    /// The reports.
    pub recipients: Vec<RecipientReport>,
}

impl DeliveryReport {
    /// Whether every recipient has the message.
    pub fn all_stored(&self) -> bool {
        self.recipients.iter().all(|recipient| recipient.result.is_ok())
    }
}

/// How a database is given a message.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    /// One call.
    Calls,
    /// Among others on a stream.
    Session(&'a Session),
}

/// The recipients of one round that live in one database, by position in the delivery.
struct Share {
    database: DatabaseId,
    members: Vec<(usize, Place)>,
}

pub(crate) async fn deliver(
    shared: &Shared,
    delivery: Delivery,
    way: Way<'_>,
) -> Result<DeliveryReport, Error> {
    delivery.check()?;
    let large = !fits_one_frame(&delivery.content);
    let blake3 = match way {
        Way::Session(_) if !large => Bytes::new(),
        Way::Session(_) | Way::Calls => digest(&delivery.content),
    };
    let trial = Trial::new(&shared.options);
    let results = delivery.recipients.iter().map(|_| None).collect();
    let mut work = Work { shared, delivery, blake3, way, trial, results };
    work.run().await;
    let addresses = work.delivery.recipients.into_iter();
    let reports = addresses.zip(work.results).map(|(address, result)| RecipientReport {
        address,
        result: result.expect("a recipient stays in the work until it has a result"),
    });
    Ok(DeliveryReport { recipients: reports.collect() })
}

struct Work<'a> {
    shared: &'a Shared,
    delivery: Delivery,
    blake3: Bytes,
    way: Way<'a>,
    trial: Trial,
    results: Vec<Option<Result<Stored, Error>>>,
}

impl Work<'_> {
    async fn run(&mut self) {
        let mut fresh = false;
        loop {
            let shares = self.lookup(fresh).await;
            let outcomes = shares.iter().map(|share| self.deliver_to(share));
            let outcomes = futures::future::join_all(outcomes).await;
            for (share, outcome) in shares.into_iter().zip(outcomes) {
                self.settle(share, outcome, fresh);
            }
            if self.open().next().is_none() {
                return;
            }
            if fresh {
                self.trial.pause(None).await;
            }
            fresh = true;
        }
    }

    /// Positions of recipients without a result.
    fn open(&self) -> impl Iterator<Item = usize> + '_ {
        self.results.iter().enumerate().filter(|(_, result)| result.is_none()).map(|(at, _)| at)
    }

    /// Looks up every open recipient; those that cannot be found have their result.
    async fn lookup(&mut self, fresh: bool) -> Vec<Share> {
        let (shared, trial) = (self.shared, &self.trial);
        let names: Vec<_> =
            self.open().map(|at| (at, MailboxName::from(&self.delivery.recipients[at]))).collect();
        let lookups = stream::iter(names).map(|(at, name)| async move {
            let mut trial = trial.clone();
            (at, shared.locate(&name, fresh, &mut trial).await)
        });
        let found: Vec<_> = lookups.buffer_unordered(LOOKUPS_AT_ONCE).collect().await;
        let mut by_database: HashMap<DatabaseId, Vec<(usize, Place)>> = HashMap::new();
        for (at, place) in found {
            match place {
                Ok(place) => by_database.entry(place.database).or_default().push((at, place)),
                Err(error) => self.results[at] = Some(Err(error)),
            }
        }
        let mut shares = Vec::new();
        for (database, mut members) in by_database {
            members.sort_unstable_by_key(|(at, _)| *at);
            for members in members.chunks(limits::RECIPIENTS_MAX) {
                shares.push(Share { database, members: members.to_vec() });
            }
        }
        shares
    }

    async fn deliver_to(&self, share: &Share) -> Result<Delivered, Stop> {
        let header = self.header(share);
        let content = self.delivery.content.clone();
        let mut trial = self.trial.clone();
        match self.way {
            Way::Session(session) => session.submit(share.database, header, content, trial).await,
            Way::Calls => {
                let subject = MailboxName::from(share.members[0].1.mailbox).subject();
                let mut question = Question::new(Whom::Active(share.database), subject);
                question.extra = self.shared.upload_extra(&content);
                let call =
                    |attempt: Attempt| deliver_once(attempt, header.clone(), content.clone());
                self.shared.ask(question, &mut trial, call).await
            }
        }
    }

    /// Two addresses of one mailbox are one recipient: its mailbox takes the message once.
    fn header(&self, share: &Share) -> DeliverHeader {
        let mut seen = HashSet::new();
        let members = share.members.iter().filter(|(_, place)| seen.insert(place.mailbox));
        let recipients = members.map(|(at, place)| Recipient {
            mailbox_id: place.mailbox.to_string(),
            address: self.delivery.recipients[*at].clone(),
        });
        DeliverHeader {
            delivery_id: self.delivery.delivery_id.clone(),
            database_id: share.database.0,
            envelope_from: self.delivery.envelope_from.clone(),
            recipients: recipients.collect(),
            size: self.delivery.content.len() as u64,
            blake3: self.blake3.clone(),
            receive_time: self.delivery.receive_time,
            attempt_ms: self.shared.options.attempt.as_millis() as u32,
        }
    }

    /// Gives every recipient of a share its result, or leaves it open to be looked up again.
    fn settle(&mut self, share: Share, outcome: Result<Delivered, Stop>, fresh: bool) {
        let delivered = match outcome {
            Ok(delivered) => delivered,
            // An attempt before this refusal may have been carried out, and moved along.
            Err(Stop::Relocate(problem)) => return self.trial.maybe_done(problem.to_string()),
            Err(Stop::Failed(error)) => {
                for (at, _) in share.members {
                    self.results[at] = Some(Err(error.clone()));
                }
                return;
            }
        };
        let token = delivered.token.unwrap_or_default();
        let by_mailbox: HashMap<_, _> = delivered
            .results
            .into_iter()
            .map(|result| (result.mailbox_id.clone(), result))
            .collect();
        for (at, place) in share.members {
            let result = by_mailbox.get(&place.mailbox.to_string());
            self.results[at] = self.read(place, result, &token, fresh);
        }
    }

    fn read(
        &self,
        place: Place,
        result: Option<&DeliverResult>,
        token: &CommitToken,
        fresh: bool,
    ) -> Option<Result<Stored, Error>> {
        let failed = |reason, message: &str| Some(Err(Problem::new(reason, message).into()));
        let Some(result) = result else {
            return failed(Reason::Internal, "the node gave no result for this recipient");
        };
        match result.code() {
            DeliverCode::Stored | DeliverCode::Duplicate => Some(Ok(Stored {
                mailbox: place.mailbox,
                result: result.clone(),
                token: token.clone(),
            })),
            DeliverCode::OverQuota => failed(Reason::OverQuota, "the mailbox is full"),
            DeliverCode::MailboxMoved => None,
            DeliverCode::NoMailbox if !fresh => None,
            DeliverCode::NoMailbox => {
                failed(Reason::MailboxNotFound, "there is no mailbox of this address")
            }
            DeliverCode::Refused => Some(Err(refusal(result))),
            DeliverCode::Unspecified => {
                failed(Reason::Internal, "the node gave a result that this release does not know")
            }
        }
    }
}

fn refusal(result: &DeliverResult) -> Error {
    match Problem::from_failure(&result.failure.clone().unwrap_or_default()) {
        Ok(problem) => problem.into(),
        Err(status) => Error::Foreign { endpoint: "the database".into(), status: Box::new(status) },
    }
}

impl Shared {
    /// What an upload of several frames may take beyond the usual.
    pub(crate) fn upload_extra(&self, content: &[u8]) -> std::time::Duration {
        if fits_one_frame(content) {
            return std::time::Duration::ZERO;
        }
        let rate = self.options.upload_bytes_per_second.max(1);
        std::time::Duration::from_millis(content.len() as u64 * 1_000 / rate)
    }
}

/// The frames of one message.
pub(crate) fn frames(
    header: DeliverHeader,
    content: &Bytes,
) -> impl Iterator<Item = DeliverMessagesRequest> + Send + use<> {
    let delivery_id = header.delivery_id.clone();
    let mut header = Some(header);
    chunks(content).map(move |chunk| DeliverMessagesRequest {
        delivery_id: delivery_id.clone(),
        header: header.take(),
        chunk: Some(chunk),
    })
}

/// One attempt: a unary call, or a session of one message where that does not fit in a frame.
async fn deliver_once(
    mut attempt: Attempt,
    header: DeliverHeader,
    content: Bytes,
) -> Answer<Delivered> {
    let delivered = if fits_one_frame(&content) {
        let request = attempt.request(DeliverMessageRequest { header: Some(header), content });
        let answer = attempt.service.deliver_message(request).await?.into_inner();
        answer.delivered.ok_or_else(|| Status::internal("the answer is empty"))?
    } else {
        let request = attempt.request(tokio_stream::iter(frames(header, &content)));
        let mut answers = attempt.service.deliver_messages(request).await?.into_inner();
        let answer = answers.message().await?;
        outcome(answer.ok_or_else(|| Status::unavailable("the stream ended without an answer"))?)?
    };
    let token = delivered.token.clone();
    Ok((delivered, token))
}

fn outcome(answer: DeliverMessagesResponse) -> Result<Delivered, Status> {
    match answer.outcome {
        Some(Answered::Delivered(delivered)) => Ok(delivered),
        Some(Answered::Failure(failure)) => {
            Err(Problem::from_failure(&failure).map_or_else(|status| status, Status::from))
        }
        None => Err(Status::internal("the answer has no outcome")),
    }
}
