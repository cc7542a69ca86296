//! One message with its content.
//!
//! The body is read once, on a thread that may wait for the disk, and its chunks are slices of it.
//! The stored CRC-32 of the whole body is checked before the first byte leaves: what rotted on this
//! disk is a fault of this copy, never an answer.

use bytes::{Bytes, BytesMut};
use dag_api::limits::CHUNK_BYTES_MAX;
use dag_api::mailbox::v1 as api;
use dag_api::{Problem, Reason};
use futures::stream;
use mailbox::query::{self, Email, Folder, Message};
use mailbox::view::MailboxView;
use tokio::time::Instant;

use super::list::{api_message, check_uid_validity};
use super::{Frames, MailboxServer, Place, no_folder};
use crate::machine::{ReadFault, View};
use crate::service::text::need_folder_id;

/// A message as it was found.
struct Found {
    folder: Folder,
    message: Option<(Message, Option<Email>, Bytes)>,
}

impl MailboxServer {
    pub(super) async fn fetch(
        &self,
        request: api::FetchMessageRequest,
        deadline: Instant,
    ) -> Result<Frames<api::FetchMessageResponse>, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let folder = need_folder_id(&request.folder_id)?;
        let (uid, with_content) = (request.uid, request.content);
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            find(view, place, folder, uid, with_content)
        });
        let (found, token) = read.await?;
        let found = found.ok_or_else(|| no_folder(place, folder))?;
        check_uid_validity(place, &found.folder, request.expected_uid_validity)?;
        let (message, email, body) = found.message.ok_or_else(|| no_message(place, uid))?;
        let meta = api_message(place, message, email);
        let wanted = stretch(&body, request.offset, request.length);
        Ok(Box::pin(stream::iter(frames(meta, token, wanted, with_content).into_iter().map(Ok))))
    }
}

fn find(
    view: View<'_>,
    place: Place,
    folder: u32,
    uid: u32,
    with_content: bool,
) -> Result<Option<Found>, ReadFault> {
    let Some(folder) = query::get_folder(&view, place.mailbox, folder)? else { return Ok(None) };
    let Some(message) = query::get_message(&view, place.mailbox, folder.id, uid)? else {
        return Ok(Some(Found { folder, message: None }));
    };
    let email = query::get_email(&view, place.mailbox, message.email_id)?;
    let body = match &email {
        Some(email) if with_content => read_body(view, email)?,
        _ => Bytes::new(),
    };
    Ok(Some(Found { folder, message: Some((message, email, body)) }))
}

fn read_body(view: View<'_>, email: &Email) -> Result<Bytes, ReadFault> {
    let keys = email.body_keys();
    let mut chunks = Vec::with_capacity(keys.len());
    for key in &keys {
        let chunk = MailboxView::get(&view, key)?;
        chunks.push(chunk.ok_or_else(|| damaged("a body is not there"))?);
    }
    let body = match chunks.len() {
        1 => chunks.remove(0),
        _ => chunks
            .iter()
            .fold(BytesMut::new(), |mut body, chunk| {
                body.extend_from_slice(chunk);
                body
            })
            .freeze(),
    };
    if body.len() as u64 != email.size || crc32fast::hash(&body) != email.crc32 {
        return Err(damaged("a body is not the one that was stored"));
    }
    Ok(body)
}

fn damaged(detail: &str) -> ReadFault {
    ReadFault::Record(mailbox::Fault::DamagedRecord { key: "body".into(), detail: detail.into() })
}

fn no_message(place: Place, uid: u32) -> Problem {
    let text = format!("the folder has no message with the UID {uid}");
    Problem::new(Reason::MessageNotFound, text).database(place.database)
}

/// The bytes that are asked for, and where they begin. An offset beyond the end has none.
fn stretch(body: &Bytes, offset: u64, length: u64) -> (u64, Bytes) {
    let size = body.len() as u64;
    let from = offset.min(size);
    let to = if length == 0 { size } else { from.saturating_add(length).min(size) };
    (offset, body.slice(from as usize..to as usize))
}

fn frames(
    meta: api::MessageMeta,
    token: dag_api::Token,
    (offset, bytes): (u64, Bytes),
    with_content: bool,
) -> Vec<api::FetchMessageResponse> {
    let mut frames = vec![api::FetchMessageResponse {
        message: Some(meta),
        token: Some(token.into()),
        ..api::FetchMessageResponse::default()
    }];
    if !with_content {
        return frames;
    }
    for (i, start) in (0..bytes.len()).step_by(CHUNK_BYTES_MAX).enumerate() {
        let data = bytes.slice(start..bytes.len().min(start + CHUNK_BYTES_MAX));
        let crc32 = crc32fast::hash(&data);
        let chunk = api::BodyChunk { offset: offset + start as u64, data, crc32 };
        match i {
            0 => frames[0].chunk = Some(chunk),
            _ => frames.push(api::FetchMessageResponse {
                chunk: Some(chunk),
                ..api::FetchMessageResponse::default()
            }),
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use dag_api::Token;
    use dag_types::{DatabaseId, Generation, Lineage};

    const TOKEN: Token = Token {
        database: DatabaseId(16),
        lineage: Lineage { epoch: 1, activation: dag_types::ActivationId([1; 16]) },
        generation: Generation(1),
        log_index: 1,
    };

    #[test]
    fn a_small_message_is_one_frame_and_a_large_one_has_no_gap() {
        for size in [0, 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 3 * CHUNK_BYTES_MAX] {
            let body = Bytes::from((0..size).map(|i| i as u8).collect::<Vec<u8>>());
            let meta = api::MessageMeta::default();
            let frames = frames(meta, TOKEN, stretch(&body, 0, 0), true);
            assert_eq!(frames.len(), size.div_ceil(CHUNK_BYTES_MAX).max(1), "{size}");
            let mut whole = Vec::new();
            for chunk in frames.iter().filter_map(|frame| frame.chunk.as_ref()) {
                assert_eq!(chunk.offset, whole.len() as u64);
                assert_eq!(chunk.crc32, crc32fast::hash(&chunk.data));
                whole.extend_from_slice(&chunk.data);
            }
            assert_eq!(whole, body, "{size}");
        }
    }

    #[test]
    fn only_the_stretch_that_is_asked_for_is_sent() {
        let body = Bytes::from_static(b"0123456789");
        for (offset, length, expected) in
            [(0, 0, "0123456789"), (3, 4, "3456"), (8, 9, "89"), (10, 1, ""), (u64::MAX, 1, "")]
        {
            let (from, bytes) = stretch(&body, offset, length);
            assert_eq!((from, &bytes[..]), (offset, expected.as_bytes()), "{offset}+{length}");
        }
    }
}
