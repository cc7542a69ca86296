//! Messages in a folder: append, list, fetch, flags, expunge.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dag_api::mailbox::v1::append_messages_response::Outcome as Answered;
use dag_api::mailbox::v1::{
    AppendHeader, AppendMessageRequest, AppendMessagesRequest, Appended, ExpungeMessagesRequest,
    ExpungeMessagesResponse, FetchMessageRequest, FetchMessageResponse, FlagOperation,
    ListMessagesRequest, ListMessagesResponse, MessageMeta, StoreFlagsRequest, StoreFlagsResponse,
    UidSet,
};
use dag_api::{Problem, Reason, limits};
use prost_types::Timestamp;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::ask::{Answer, Attempt};
use crate::chunks::{chunks, digest, fits_one_frame};
use crate::client::{Client, new_id};
use crate::deliver::check_size;
use crate::error::Error;
use crate::places::{MailboxName, Place};
use crate::requests::reference;

/// A sum of `SystemFlag` values.
pub type SystemFlags = u32;

/// One page of a folder.
pub type Page = ListMessagesResponse;

/// A message to be put into a folder.
#[derive(Debug, Clone, Default)]
pub struct Append {
    /// Which folder of the mailbox.
    pub folder_id: String,
    /// The message, header and body.
    pub content: Bytes,
    /// Set from the beginning.
    pub system_flags: SystemFlags,
    /// Set from the beginning.
    pub keywords: Vec<String>,
    /// None: the time of the node.
    pub internal_date: Option<Timestamp>,
    /// Refused where the folder's is another; 0: any.
    pub expected_uid_validity: u32,
    /// None: made for this call. Give one to repeat over a restart of the caller.
    pub request_id: Option<String>,
}

/// A change of flags.
#[derive(Debug, Clone)]
pub struct FlagChange {
    /// Which folder of the mailbox.
    pub folder_id: String,
    /// Which messages; at most 1,000 of them are there.
    pub uids: UidSet,
    /// Add, remove or replace.
    pub operation: FlagOperation,
    /// Which system flags.
    pub system_flags: SystemFlags,
    /// Which keywords, in any case.
    pub keywords: Vec<String>,
    /// Leaves messages with a greater MODSEQ alone (RFC 7162 3.1.3).
    pub unchanged_since: Option<u64>,
    /// Refused where the folder's is another; 0: any.
    pub expected_uid_validity: u32,
    /// None: made for this call.
    pub request_id: Option<String>,
}

/// A removal of messages.
#[derive(Debug, Clone, Default)]
pub struct Expunge {
    /// Which folder of the mailbox.
    pub folder_id: String,
    /// Which messages; at most 1,000 of them are there.
    pub uids: UidSet,
    /// Of these, only what has the flag `\Deleted` (RFC 4315 2.1).
    pub only_deleted: bool,
    /// They cannot be restored, whatever the retention.
    pub beyond_recovery: bool,
    /// Refused where the folder's is another; 0: any.
    pub expected_uid_validity: u32,
    /// None: made for this call.
    pub request_id: Option<String>,
}

/// A message as fetched, checked against its digest.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// UID, flags, dates, size, digest.
    pub message: MessageMeta,
    /// Byte for byte what was delivered or appended.
    pub content: Bytes,
}

impl Client {
    /// Puts a message into a folder.
    pub async fn append(
        &self,
        name: impl Into<MailboxName>,
        append: Append,
    ) -> Result<Appended, Error> {
        check_size(&append.content)?;
        let extra = self.shared.upload_extra(&append.content);
        let blake3 = digest(&append.content);
        let request_id = append.request_id.clone().unwrap_or_else(new_id);
        let call = |attempt: Attempt, place: Place| {
            let header = AppendHeader {
                mailbox: Some(place.to_ref()),
                folder_id: append.folder_id.clone(),
                expected_uid_validity: append.expected_uid_validity,
                request_id: request_id.clone(),
                size: append.content.len() as u64,
                blake3: blake3.clone(),
                system_flags: append.system_flags,
                keywords: append.keywords.clone(),
                internal_date: append.internal_date,
                attempt_ms: self.shared.options.attempt.as_millis() as u32,
            };
            append_once(attempt, header, append.content.clone())
        };
        self.ask_mailbox_with(&name.into(), extra, call).await
    }

    /// One page of a folder, ascending by UID; an empty token asks for the first.
    pub async fn list(
        &self,
        name: impl Into<MailboxName>,
        folder_id: &str,
        uids: Option<UidSet>,
        page_token: &str,
    ) -> Result<Page, Error> {
        let call = |attempt: Attempt, place: Place| {
            let message = ListMessagesRequest {
                mailbox: Some(place.to_ref()),
                folder_id: folder_id.to_owned(),
                uids: uids.clone(),
                page_size: limits::PAGE_MAX,
                page_token: page_token.to_owned(),
                ..ListMessagesRequest::default()
            };
            let request = attempt.request(message);
            let mut service = attempt.service;
            async move {
                let answer = service.list_messages(request).await?.into_inner();
                let token = answer.token.clone();
                Ok((answer, token))
            }
        };
        self.ask_mailbox(&name.into(), call).await
    }

    /// A whole folder, ascending by UID. Each page is a read of its own: messages that come or go
    /// meanwhile may or may not be in it.
    pub async fn list_all(
        &self,
        name: impl Into<MailboxName>,
        folder_id: &str,
    ) -> Result<Vec<MessageMeta>, Error> {
        let name = name.into();
        let mut messages = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = self.list(name.clone(), folder_id, None, &page_token).await?;
            messages.extend(page.messages);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(messages);
            }
        }
    }

    /// A message with its content.
    pub async fn fetch(
        &self,
        name: impl Into<MailboxName>,
        folder_id: &str,
        uid: u32,
    ) -> Result<Fetched, Error> {
        let silence = self.shared.options.attempt;
        // Each frame has to come in time; the whole may take as long as the patience lasts.
        let extra = self.shared.options.patience;
        let call = |attempt: Attempt, place: Place| {
            let message = FetchMessageRequest {
                mailbox: Some(place.to_ref()),
                folder_id: folder_id.to_owned(),
                uid,
                content: true,
                ..FetchMessageRequest::default()
            };
            fetch_once(attempt, message, silence)
        };
        self.ask_mailbox_with(&name.into(), extra, call).await
    }

    /// A part of a message: by section, stretch, encoding undone, as the request says. The message
    /// may be named by its email id. Each chunk is checked; the whole has no digest of its own.
    pub async fn fetch_section(
        &self,
        name: impl Into<MailboxName>,
        request: FetchMessageRequest,
    ) -> Result<Fetched, Error> {
        let silence = self.shared.options.attempt;
        let extra = self.shared.options.patience;
        let call = |attempt: Attempt, place: Place| {
            let mut message = request.clone();
            message.mailbox = reference(request.mailbox.as_ref(), place);
            message.content = true;
            fetch_section_once(attempt, message, silence)
        };
        self.ask_mailbox_with(&name.into(), extra, call).await
    }

    /// Changes flags and keywords of messages.
    pub async fn store_flags(
        &self,
        name: impl Into<MailboxName>,
        change: FlagChange,
    ) -> Result<StoreFlagsResponse, Error> {
        let request_id = change.request_id.clone().unwrap_or_else(new_id);
        let call = |attempt: Attempt, place: Place| {
            let message = StoreFlagsRequest {
                mailbox: Some(place.to_ref()),
                folder_id: change.folder_id.clone(),
                expected_uid_validity: change.expected_uid_validity,
                uids: Some(change.uids.clone()),
                operation: change.operation as i32,
                system_flags: change.system_flags,
                keywords: change.keywords.clone(),
                unchanged_since: change.unchanged_since,
                request_id: request_id.clone(),
            };
            let request = attempt.request(message);
            let mut service = attempt.service;
            async move {
                let answer = service.store_flags(request).await?.into_inner();
                let token = answer.token.clone();
                Ok((answer, token))
            }
        };
        self.ask_mailbox(&name.into(), call).await
    }

    /// Removes messages.
    pub async fn expunge(
        &self,
        name: impl Into<MailboxName>,
        expunge: Expunge,
    ) -> Result<ExpungeMessagesResponse, Error> {
        let request_id = expunge.request_id.clone().unwrap_or_else(new_id);
        let call = |attempt: Attempt, place: Place| {
            let message = ExpungeMessagesRequest {
                mailbox: Some(place.to_ref()),
                folder_id: expunge.folder_id.clone(),
                expected_uid_validity: expunge.expected_uid_validity,
                uids: Some(expunge.uids.clone()),
                only_deleted: expunge.only_deleted,
                beyond_recovery: expunge.beyond_recovery,
                request_id: request_id.clone(),
            };
            let request = attempt.request(message);
            let mut service = attempt.service;
            async move {
                let answer = service.expunge_messages(request).await?.into_inner();
                let token = answer.token.clone();
                Ok((answer, token))
            }
        };
        self.ask_mailbox(&name.into(), call).await
    }
}

async fn append_once(
    mut attempt: Attempt,
    header: AppendHeader,
    content: Bytes,
) -> Answer<Appended> {
    let appended = if fits_one_frame(&content) {
        let request = attempt.request(AppendMessageRequest { header: Some(header), content });
        let answer = attempt.service.append_message(request).await?.into_inner();
        answer.appended.ok_or_else(|| Status::internal("the answer is empty"))?
    } else {
        let request_id = header.request_id.clone();
        let mut header = Some(header);
        let frames = chunks(&content).map(move |chunk| AppendMessagesRequest {
            request_id: request_id.clone(),
            header: header.take(),
            chunk: Some(chunk),
        });
        let request = attempt.request(tokio_stream::iter(frames));
        let mut answers = attempt.service.append_messages(request).await?.into_inner();
        match answers.message().await?.and_then(|answer| answer.outcome) {
            Some(Answered::Appended(appended)) => appended,
            Some(Answered::Failure(failure)) => {
                let problem = Problem::from_failure(&failure);
                return Err(problem.map_or_else(|status| status, Status::from));
            }
            None => return Err(Status::unavailable("the stream ended without an answer")),
        }
    };
    let token = appended.token.clone();
    Ok((appended, token))
}

async fn fetch_once(
    mut attempt: Attempt,
    message: FetchMessageRequest,
    silence: Duration,
) -> Answer<Fetched> {
    let request = attempt.request(message);
    let stream = timeout(silence, attempt.service.fetch_message(request)).await;
    let mut stream = stream.map_err(|_| silent())??.into_inner();
    let first = frame(&mut stream, silence).await?;
    let first =
        first.ok_or_else(|| Status::unavailable("the stream ended before its beginning"))?;
    let message = first.message.clone().ok_or_else(|| corrupt("no metadata came"))?;
    let token = first.token.clone();
    if message.size > limits::MESSAGE_BYTES_MAX {
        return Err(corrupt("the message is said to be larger than messages are"));
    }
    let mut content = Received { content: BytesMut::with_capacity(message.size as usize) };
    let mut next = Some(first);
    while let Some(frame_now) = next {
        content.take(frame_now, message.size)?;
        next = frame(&mut stream, silence).await?;
    }
    let content = content.content.freeze();
    if content.len() as u64 != message.size || *digest(&content) != *message.blake3 {
        return Err(corrupt("the content is not that of the digest"));
    }
    Ok((Fetched { message, content }, token))
}

async fn fetch_section_once(
    mut attempt: Attempt,
    message: FetchMessageRequest,
    silence: Duration,
) -> Answer<Fetched> {
    let (offset, length) = (message.offset, message.length);
    let stream = timeout(silence, attempt.service.fetch_message(attempt.request(message))).await;
    let mut stream = stream.map_err(|_| silent())??.into_inner();
    let mut next = frame(&mut stream, silence).await?;
    let first = next.clone().unwrap_or_default();
    let message = first.message.ok_or_else(|| corrupt("no metadata came"))?;
    let size = first.section_size;
    let begin = offset.min(size);
    let end = if length == 0 { size } else { begin.saturating_add(length).min(size) };
    if end - begin > limits::MESSAGE_BYTES_MAX {
        return Err(corrupt("the section is said to be larger than messages are"));
    }
    let mut content = BytesMut::new();
    while let Some(frame_now) = next {
        if let Some(chunk) = frame_now.chunk {
            let at = begin + content.len() as u64;
            if chunk.offset != at || crc32fast::hash(&chunk.data) != chunk.crc32 {
                return Err(corrupt("a chunk is not the next one, or has another checksum"));
            }
            content.extend_from_slice(&chunk.data);
        }
        next = frame(&mut stream, silence).await?;
    }
    if content.len() as u64 != end - begin {
        return Err(corrupt("the section has another length than was said"));
    }
    Ok((Fetched { message, content: content.freeze() }, first.token))
}

struct Received {
    content: BytesMut,
}

impl Received {
    fn take(&mut self, frame: FetchMessageResponse, size: u64) -> Result<(), Status> {
        let Some(chunk) = frame.chunk else { return Ok(()) };
        let at = self.content.len() as u64;
        if chunk.offset != at || at + chunk.data.len() as u64 > size {
            return Err(corrupt("a chunk is not the next one"));
        }
        if crc32fast::hash(&chunk.data) != chunk.crc32 {
            return Err(corrupt("a chunk has another checksum"));
        }
        self.content.extend_from_slice(&chunk.data);
        Ok(())
    }
}

async fn frame(
    stream: &mut Streaming<FetchMessageResponse>,
    silence: Duration,
) -> Result<Option<FetchMessageResponse>, Status> {
    timeout(silence, stream.message()).await.map_err(|_| silent())?
}

fn silent() -> Status {
    Status::deadline_exceeded("no frame came in time")
}

/// Another node may have it right.
fn corrupt(what: &str) -> Status {
    Problem::new(Reason::RecordCorrupt, what).to_status()
}
