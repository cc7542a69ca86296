//! Messages in: deliveries from outside, appends by the mailbox's user.

use bytes::Bytes;
use dag_api::mailbox::v1 as api;
use dag_api::{BadMessage, Problem, Reason, limits};
use dag_types::DatabaseId;
use mailbox::command::{Append, AppendItem, AppendMany, Content, Deliver, Recipient};
use mailbox::response::{DeliverCode, RecipientResult, StoredAt};
use mailbox::{Command, Operation, Outcome};
use tokio::time::Instant;

use super::{
    Carried, MailboxServer, check_is_mailbox_database, check_request_id, parse, unexpected,
};
use crate::clock;
use crate::service::text::{email_id, folder_id, need_folder_id};
use crate::service::upload;
use crate::status;

impl MailboxServer {
    pub(super) async fn deliver_one(
        &self,
        request: api::DeliverMessageRequest,
        deadline: Instant,
    ) -> Result<api::DeliverMessageResponse, Problem> {
        let header = request.header.ok_or_else(|| super::missing("header"))?;
        upload::check_single(&header, &request.content, self.message_limit())?;
        let bytes = request.content.len() as u64;
        let delivered = self.deliver(header, request.content, bytes, deadline).await?;
        Ok(api::DeliverMessageResponse { delivered: Some(delivered) })
    }

    pub(super) async fn append_one(
        &self,
        request: api::AppendMessageRequest,
        deadline: Instant,
    ) -> Result<api::AppendMessageResponse, Problem> {
        let header = request.header.ok_or_else(|| super::missing("header"))?;
        upload::check_single(&header, &request.content, self.message_limit())?;
        let bytes = request.content.len() as u64;
        let appended = self.append(header, request.content, bytes, deadline).await?;
        Ok(api::AppendMessageResponse { appended: Some(appended) })
    }

    /// Bytes of a message that this node accepts.
    pub(super) fn message_limit(&self) -> u64 {
        self.node.settings.budget.message.0
    }

    /// Delivers a whole message. `admit`: bytes that are not admitted yet.
    pub(super) async fn deliver(
        &self,
        header: api::DeliverHeader,
        body: Bytes,
        admit: u64,
        deadline: Instant,
    ) -> Result<api::Delivered, Problem> {
        let database = DatabaseId(header.database_id);
        check_is_mailbox_database(database)?;
        let mut content = parse::content(body).await;
        let deadline = self.stage(database, &mut content, deadline).await?;
        let operation = delivery(&header, content)?;
        let carried = self.carry_out(database, "", operation, admit, deadline).await?;
        let Outcome::Delivered(delivered) = carried.outcome else {
            return Err(unexpected(database));
        };
        let pairs = header.recipients.iter().zip(&delivered.results);
        let results: Vec<api::DeliverResult> =
            pairs.map(|(recipient, result)| deliver_result(recipient, result, database)).collect();
        let seen = |result: &RecipientResult| result.code() == DeliverCode::Duplicate;
        Ok(api::Delivered {
            replayed: !delivered.results.is_empty() && delivered.results.iter().all(seen),
            results,
            token: Some(carried.token.into()),
        })
    }

    /// Appends a whole message. `admit`: bytes that are not admitted yet.
    pub(super) async fn append(
        &self,
        header: api::AppendHeader,
        body: Bytes,
        admit: u64,
        deadline: Instant,
    ) -> Result<api::Appended, Problem> {
        let place = self.database_of(header.mailbox.as_ref())?;
        check_request_id(&header.request_id)?;
        let actor = super::actor(header.mailbox.as_ref());
        let mut content = parse::content(body).await;
        let deadline = self.stage(place.database, &mut content, deadline).await?;
        let append = Append {
            mailbox_id: mailbox::command::id_bytes(place.mailbox),
            folder: need_folder_id(&header.folder_id)?,
            expected_uid_validity: header.expected_uid_validity,
            system_flags: header.system_flags,
            keywords: header.keywords,
            internal_date_ms: millis(header.internal_date.as_ref())?,
            content,
        };
        let command = Command::new(header.request_id.clone(), clock::wall(), append.into());
        let command = command.on_behalf_of(actor);
        let carried =
            self.propose(place.database, &header.request_id, command, Some(admit), deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::Appended(stored) = outcome else {
            return Err(unexpected(place.database));
        };
        Ok(api::Appended {
            uid_validity: stored.uid_validity,
            uid: stored.uid,
            email_id: email_id(place.mailbox, stored.email_id),
            modseq: stored.modseq,
            token: Some(token.into()),
            replayed,
        })
    }

    /// Several messages, all or none.
    pub(super) async fn append_several(
        &self,
        request: api::AppendBatchRequest,
        deadline: Instant,
    ) -> Result<api::AppendBatchResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let size: usize = request.messages.iter().map(|message| message.content.len()).sum();
        if size > limits::SINGLE_FRAME_BYTES_MAX {
            let text = "the messages of a batch are too large together; append them one by one";
            let limit = limits::SINGLE_FRAME_BYTES_MAX as u64;
            return Err(Problem::new(Reason::TooLarge, text).limit(size as u64, limit));
        }
        let mut messages = Vec::with_capacity(request.messages.len());
        for message in request.messages {
            messages.push(AppendItem {
                system_flags: message.system_flags,
                keywords: message.keywords,
                internal_date_ms: millis(message.internal_date.as_ref())?,
                content: parse::content(message.content).await,
            });
        }
        let append = AppendMany {
            mailbox_id: mailbox::command::id_bytes(place.mailbox),
            folder: need_folder_id(&request.folder_id)?,
            expected_uid_validity: request.expected_uid_validity,
            messages,
        };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, append, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::AppendedMany(appended) = outcome else {
            return Err(unexpected(place.database));
        };
        Ok(api::AppendBatchResponse {
            uid_validity: appended.first.uid_validity,
            first_uid: appended.first.uid,
            messages: appended.messages,
            modseq: appended.first.modseq,
            token: Some(token.into()),
            replayed,
        })
    }
}

fn delivery(header: &api::DeliverHeader, content: Content) -> Result<Operation, Problem> {
    if !limits::is_delivery_id(&header.delivery_id) {
        let wanted = "1 to 512 visible ASCII characters";
        return Err(BadMessage { field: "delivery_id", wanted }.into());
    }
    if header.recipients.is_empty() {
        return Err(BadMessage { field: "recipients", wanted: "at least one" }.into());
    }
    let (value, limit) = (header.recipients.len(), limits::RECIPIENTS_MAX);
    if value > limit {
        let text = format!("a delivery has {value} recipients and may have {limit}; split it");
        let problem = Problem::new(Reason::LimitExceeded, text);
        return Err(problem.check("recipients").limit(value as u64, limit as u64));
    }
    let recipient = |recipient: &api::Recipient| -> Result<Recipient, BadMessage> {
        let mailbox = dag_api::convert::mailbox_id(&recipient.mailbox_id)?;
        Ok(Recipient::new(recipient.address.clone(), mailbox))
    };
    let recipients: Result<Vec<Recipient>, BadMessage> =
        header.recipients.iter().map(recipient).collect();
    Ok(Deliver {
        delivery_id: header.delivery_id.clone(),
        sender: header.envelope_from.clone(),
        recipients: recipients?,
        received_ms: millis(header.receive_time.as_ref())?,
        content,
    }
    .into())
}

/// 0 where there is none.
pub(super) fn millis(at: Option<&prost_types::Timestamp>) -> Result<u64, BadMessage> {
    at.map_or(Ok(0), |at| dag_api::convert::millis(at).map(|millis| millis.0))
}

fn deliver_result(
    recipient: &api::Recipient,
    result: &RecipientResult,
    database: DatabaseId,
) -> api::DeliverResult {
    let code = match result.code() {
        DeliverCode::Stored => api::DeliverCode::Stored,
        DeliverCode::Duplicate => api::DeliverCode::Duplicate,
        DeliverCode::OverQuota => api::DeliverCode::OverQuota,
        DeliverCode::NoMailbox => api::DeliverCode::NoMailbox,
        DeliverCode::Refused | DeliverCode::Unspecified => api::DeliverCode::Refused,
    };
    let failure = result.rejection.as_ref().filter(|_| code == api::DeliverCode::Refused);
    let failure = failure.map(|rejection| status::mailbox(rejection, database).to_failure());
    let stored = result.stored.clone().unwrap_or_default();
    api::DeliverResult {
        mailbox_id: recipient.mailbox_id.clone(),
        address: recipient.address.clone(),
        code: code.into(),
        failure,
        ..stored_fields(recipient, &stored)
    }
}

/// Where the message is; empty where it is nowhere.
fn stored_fields(recipient: &api::Recipient, stored: &StoredAt) -> api::DeliverResult {
    let mailbox = recipient.mailbox_id.parse().ok().filter(|_| stored.uid > 0);
    let Some(mailbox) = mailbox else { return api::DeliverResult::default() };
    api::DeliverResult {
        folder_id: folder_id(stored.folder),
        uid_validity: stored.uid_validity,
        uid: stored.uid,
        email_id: email_id(mailbox, stored.email_id),
        modseq: stored.modseq,
        ..api::DeliverResult::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(recipients: usize) -> api::DeliverHeader {
        let recipient = |i| api::Recipient {
            mailbox_id: format!("{i:032x}"),
            address: format!("u{i}@example.org"),
        };
        api::DeliverHeader {
            delivery_id: "d1".into(),
            recipients: (0..recipients).map(recipient).collect(),
            ..api::DeliverHeader::default()
        }
    }

    fn refused(header: &api::DeliverHeader) -> Problem {
        delivery(header, Content::default()).expect_err("a broken header")
    }

    #[test]
    fn a_delivery_has_between_one_and_a_thousand_recipients() {
        assert!(delivery(&header(1), Content::default()).is_ok());
        assert!(delivery(&header(1000), Content::default()).is_ok());
        assert_eq!(refused(&header(0)).facts.check.as_deref(), Some("recipients"));
        let many = refused(&header(1001));
        assert_eq!((many.reason, many.facts.limit), (Reason::LimitExceeded, Some(1000)));
    }

    #[test]
    fn broken_ids_and_times_are_refused_by_field() {
        let mut no_id = header(1);
        no_id.delivery_id = String::new();
        let mut no_mailbox = header(1);
        no_mailbox.recipients[0].mailbox_id = "x".into();
        let mut no_time = header(1);
        no_time.receive_time = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
        for (header, field) in
            [(no_id, "delivery_id"), (no_mailbox, "mailbox_id"), (no_time, "timestamp")]
        {
            assert_eq!(refused(&header).facts.check.as_deref(), Some(field));
        }
    }

    #[test]
    fn a_recipient_that_was_not_reached_has_no_uid() {
        let recipient = &header(1).recipients[0];
        let result =
            RecipientResult { code: DeliverCode::NoMailbox.into(), ..RecipientResult::default() };
        let shown = deliver_result(recipient, &result, DatabaseId(16));
        assert_eq!(shown.code(), api::DeliverCode::NoMailbox);
        assert_eq!((shown.uid, shown.email_id.as_str()), (0, ""));
    }
}
