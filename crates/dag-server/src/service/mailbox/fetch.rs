//! One message with its content.
//!
//! The body is read once, on a thread that may wait for the disk, and its chunks are slices of it.
//! The stored CRC-32 of the whole body is checked before the first byte leaves: what rotted on this
//! disk is a fault of this copy, never an answer. Of a body in several rows only those rows are read
//! that a stretch of the whole message touches; each row has a checksum of its own.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use dag_api::limits::CHUNK_BYTES_MAX;
use dag_api::mailbox::v1 as api;
use dag_api::{Problem, Reason};
use dag_types::DatabaseId;
use futures::{Stream, StreamExt, stream};
use mailbox::query::{self, BodyRow, Email};
use mailbox::view::MailboxView;
use tokio::time::Instant;
use tonic::Status;

use super::meta::{Described, api_message, readable};
use super::{Found, Frames, MailboxServer, Place, Seen, parse};
use crate::machine::{ReadFault, View};
use crate::service::text::{folder_id, need_folder_id, parse_email_id};
use crate::status;

/// What is asked for.
struct Wanted {
    subject: Subject,
    actor: Vec<String>,
    expected_uid_validity: u32,
    /// None: the metadata alone.
    section: Option<String>,
    decoded: bool,
    /// The stretch of the section; a length of 0 reaches to its end.
    offset: u64,
    length: u64,
}

/// Which message.
enum Subject {
    Place { folder: u32, uid: u32 },
    Email(u64),
}

/// A message as it was found.
struct Fetched {
    folder: u32,
    message: Described,
    section: Cut,
}

/// A section's length, and the stretch of it that was asked for.
#[derive(Default)]
struct Cut {
    size: u64,
    bytes: Bytes,
    /// Of the bytes, where it is known already.
    crc32: Option<u32>,
}

impl MailboxServer {
    pub(super) async fn fetch(
        &self,
        request: api::FetchMessageRequest,
        deadline: Instant,
    ) -> Result<Frames<api::FetchMessageResponse>, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let (view_wanted, with_content) = (request.view(), request.content);
        let offset = request.offset;
        let wanted = Wanted {
            subject: subject(place, &request)?,
            actor: super::actor(request.mailbox.as_ref()),
            expected_uid_validity: request.expected_uid_validity,
            section: Some(request.section).filter(|_| with_content),
            decoded: request.decoded,
            offset,
            length: request.length,
        };
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            find(view, place, &wanted)
        });
        let Seen { value, token, staleness } = read.await?;
        let weak = staleness.is_some();
        let first = api::FetchMessageResponse {
            message: Some(api_message(place, value.message, view_wanted)),
            token,
            staleness,
            section_size: value.section.size,
            folder_id: folder_id(value.folder),
            chunk: None,
        };
        let frames = frames(first, offset, value.section, with_content);
        let frames = stream::iter(frames);
        // What says that it may be old needs no leave to serve.
        if weak {
            return Ok(Box::pin(frames.map(Ok)));
        }
        Ok(Box::pin(self.while_open(place.database, frames)))
    }
}

impl MailboxServer {
    /// Each frame leaves only while the gate is open; the first that may not ends the stream.
    fn while_open<T: Send + 'static>(
        &self,
        database: DatabaseId,
        frames: impl Stream<Item = T> + Send + 'static,
    ) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
        let node = self.node.clone();
        let checked = frames.map(move |frame| match node.member().map(|m| m.gate.closed()) {
            Ok(None) => Ok(frame),
            Ok(Some(why)) => Err(status::gate_closed(database, &why).to_status()),
            Err(problem) => Err(problem.to_status()),
        });
        checked.scan(false, |ended, frame| {
            let over = std::mem::replace(ended, frame.is_err());
            std::future::ready((!over).then_some(frame))
        })
    }
}

fn subject(place: Place, request: &api::FetchMessageRequest) -> Result<Subject, Problem> {
    if request.email_id.is_empty() {
        let folder = need_folder_id(&request.folder_id)?;
        return Ok(Subject::Place { folder, uid: request.uid });
    }
    let (mailbox, number) = parse_email_id(&request.email_id)?;
    if mailbox != place.mailbox {
        return Err(no_message(place, &request.email_id));
    }
    Ok(Subject::Email(number))
}

fn find(view: View<'_>, place: Place, wanted: &Wanted) -> Found<Fetched> {
    let (folder, uid) = match wanted.subject {
        Subject::Place { folder, uid } => (folder, uid),
        Subject::Email(number) => {
            let email = query::get_email(&view, place.mailbox, number)?;
            match email.and_then(|email| email.placements.first().copied()) {
                Some(at) => (at.folder, at.uid),
                None => return Ok(Err(no_message(place, number))),
            }
        }
    };
    let expected = wanted.expected_uid_validity;
    if let Err(problem) = readable(view, place, folder, &wanted.actor, expected)? {
        return Ok(Err(problem));
    }
    let Some(message) = query::get_message(&view, place.mailbox, folder, uid)? else {
        return Ok(Err(no_message(place, uid)));
    };
    let email = query::get_email(&view, place.mailbox, message.email_id)?;
    let section = match (&email, &wanted.section) {
        (Some(email), Some(name)) => match cut(view, place, email, name, wanted)? {
            Ok(cut) => cut,
            Err(problem) => return Ok(Err(problem)),
        },
        _ => Cut::default(),
    };
    Ok(Ok(Fetched { folder, message: (message, email), section }))
}

/// The stretch of a section.
fn cut(view: View<'_>, place: Place, email: &Email, name: &str, wanted: &Wanted) -> Found<Cut> {
    let rows = query::body_rows(&view, email)?;
    if name.is_empty() && rows.len() > 1 {
        let range = stretch(email.size, wanted.offset, wanted.length);
        if range != (0..email.size) {
            let bytes = read_stretch(view, &rows, range)?;
            return Ok(Ok(Cut { size: email.size, bytes, crc32: None }));
        }
    }
    let body = read_body(view, email, &rows)?;
    let section = match section(place, email, &body, name, wanted.decoded) {
        Ok(section) => section,
        Err(problem) => return Ok(Err(problem)),
    };
    let size = section.len() as u64;
    let range = stretch(size, wanted.offset, wanted.length);
    let bytes = section.slice(range.start as usize..range.end as usize);
    // A whole message was compared with its checksum just now.
    let crc32 = (name.is_empty() && bytes.len() == body.len()).then_some(email.crc32);
    Ok(Ok(Cut { size, bytes, crc32 }))
}

/// The bytes that a section's name means. The stored tree tells where they are; where it was cut
/// short, the message itself is read again.
fn section(
    place: Place,
    email: &Email,
    body: &Bytes,
    name: &str,
    decoded: bool,
) -> Result<Bytes, Problem> {
    if name.is_empty() {
        return Ok(body.clone());
    }
    let stored = parse::structure(email).and_then(|tree| mail_mime::find(&tree, name));
    let found = stored.filter(|section| !section.truncated);
    let found = found.or_else(|| mail_mime::find(&mail_mime::structure(body), name));
    let section = found.ok_or_else(|| {
        let text = format!("the message has no section `{name}`; its parts stand in its full view");
        Problem::new(Reason::SectionNotFound, text).database(place.database).check("section")
    })?;
    let end = section.range.end.min(body.len() as u64) as usize;
    let bytes = body.slice((section.range.start as usize).min(end)..end);
    if !decoded {
        return Ok(bytes);
    }
    mail_mime::decode(&section.encoding, &bytes).map(Bytes::from).map_err(|_| {
        let text =
            format!("nobody can undo the encoding `{}`; fetch it as it is", section.encoding);
        Problem::new(Reason::InvalidRequest, text).check("decoded")
    })
}

pub(super) fn read_body(
    view: View<'_>,
    email: &Email,
    rows: &[BodyRow],
) -> Result<Bytes, ReadFault> {
    let body = match rows {
        [row] => read_row(view, row)?,
        _ => read_stretch(view, rows, 0..email.size)?,
    };
    if body.len() as u64 != email.size || crc32fast::hash(&body) != email.crc32 {
        return Err(damaged("a body is not the one that was stored"));
    }
    Ok(body)
}

/// Some of a body, out of those rows alone that have it.
fn read_stretch(view: View<'_>, rows: &[BodyRow], range: Range<u64>) -> Result<Bytes, ReadFault> {
    let mut found = BytesMut::with_capacity((range.end - range.start) as usize);
    let mut begin = 0;
    for row in rows {
        let (from, to) = (range.start.max(begin), range.end.min(begin + row.bytes));
        if from < to {
            let value = read_row(view, row)?;
            found.extend_from_slice(&value[(from - begin) as usize..(to - begin) as usize]);
        }
        begin += row.bytes;
    }
    Ok(found.freeze())
}

fn read_row(view: View<'_>, row: &BodyRow) -> Result<Bytes, ReadFault> {
    match MailboxView::get(&view, &row.key)? {
        Some(value) if value.len() as u64 == row.bytes => Ok(value),
        Some(_) => Err(damaged("a body has another length than was stored")),
        None => Err(damaged("a body is not there")),
    }
}

pub(super) fn damaged(detail: &str) -> ReadFault {
    ReadFault::Record(mailbox::Fault::DamagedRecord { key: "body".into(), detail: detail.into() })
}

fn no_message(place: Place, number: impl std::fmt::Display) -> Problem {
    let text = format!("there is no message {number}");
    Problem::new(Reason::MessageNotFound, text).database(place.database)
}

/// The bytes that are asked for, of so many. An offset beyond the end has none.
fn stretch(size: u64, offset: u64, length: u64) -> Range<u64> {
    let from = offset.min(size);
    let to = if length == 0 { size } else { from.saturating_add(length).min(size) };
    from..to
}

fn frames(
    first: api::FetchMessageResponse,
    offset: u64,
    Cut { bytes, crc32: known, .. }: Cut,
    with_content: bool,
) -> Vec<api::FetchMessageResponse> {
    let mut frames = vec![first];
    if !with_content {
        return frames;
    }
    for (i, start) in (0..bytes.len()).step_by(CHUNK_BYTES_MAX).enumerate() {
        let data = bytes.slice(start..bytes.len().min(start + CHUNK_BYTES_MAX));
        let known = known.filter(|_| data.len() == bytes.len());
        let crc32 = known.unwrap_or_else(|| crc32fast::hash(&data));
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

    #[test]
    fn a_small_message_is_one_frame_and_a_large_one_has_no_gap() {
        for size in [0, 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 3 * CHUNK_BYTES_MAX] {
            let body = Bytes::from((0..size).map(|i| i as u8).collect::<Vec<u8>>());
            let first = api::FetchMessageResponse::default();
            let cut = Cut { size: 0, bytes: body.clone(), crc32: Some(crc32fast::hash(&body)) };
            let frames = frames(first, 0, cut, true);
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
        for (offset, length, expected) in
            [(0, 0, 0..10), (3, 4, 3..7), (8, 9, 8..10), (10, 1, 10..10), (u64::MAX, 1, 10..10)]
        {
            assert_eq!(stretch(10, offset, length), expected, "{offset}+{length}");
        }
    }
}
