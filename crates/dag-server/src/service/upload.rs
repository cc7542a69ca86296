//! Messages that arrive in frames of a session, put together and checked.
//!
//! ```text
//!  header + first chunk ──► chunk ──► chunk ──► complete
//!          └── (small: the only chunk) ───────────►┘
//! ```
//!
//! Frames of two messages are never mixed. A message that breaks a rule fails alone: the rest of
//! its frames are passed over, and the session goes on with the next header.

use bytes::{Bytes, BytesMut};
use dag_api::limits::{CHUNK_BYTES_MAX, MESSAGE_BYTES_MAX, SINGLE_FRAME_BYTES_MAX};
use dag_api::mailbox::v1::{AppendHeader, BodyChunk, DeliverHeader};
use dag_api::{Problem, Reason};

/// What stands before a message in a session.
pub trait Header {
    /// The id that its frames and its answer carry.
    fn id(&self) -> &str;
    /// Bytes of the whole content.
    fn size(&self) -> u64;
    /// BLAKE3 of the whole content, or empty.
    fn blake3(&self) -> &[u8];
    /// How long it is worked on.
    fn attempt_ms(&self) -> u32;
}

impl Header for DeliverHeader {
    fn id(&self) -> &str {
        &self.delivery_id
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn blake3(&self) -> &[u8] {
        &self.blake3
    }
    fn attempt_ms(&self) -> u32 {
        self.attempt_ms
    }
}

impl Header for AppendHeader {
    fn id(&self) -> &str {
        &self.request_id
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn blake3(&self) -> &[u8] {
        &self.blake3
    }
    fn attempt_ms(&self) -> u32 {
        self.attempt_ms
    }
}

/// One frame of a session.
pub struct Frame<H> {
    /// Whose frame it is.
    pub id: String,
    /// Only in a message's first frame.
    pub header: Option<H>,
    /// Some of the content.
    pub chunk: Option<BodyChunk>,
}

/// What a frame led to.
#[derive(Debug)]
pub enum Step<H> {
    /// More frames of this message are to come.
    Wait,
    /// A message is whole.
    Complete(H, Bytes),
    /// A message failed; whatever still comes of it is passed over.
    Failed(String, Problem),
}

/// Puts the frames of one session together.
pub struct Assembler<H> {
    /// Bytes of a message that this node accepts.
    limit: u64,
    partial: Option<Partial<H>>,
    /// The message that failed last; the rest of its frames say nothing new.
    failed: Option<String>,
}

struct Partial<H> {
    header: H,
    content: BytesMut,
    /// Of what is there: a large message hashed at its end would hold up every other call.
    digest: blake3::Hasher,
}

impl<H: Header> Assembler<H> {
    /// `limit`: bytes of a message that this node accepts.
    pub fn new(limit: u64) -> Self {
        Self { limit: limit.min(MESSAGE_BYTES_MAX), partial: None, failed: None }
    }

    /// Passes over the message with this id, which was refused before it was looked at.
    pub fn abandon(&mut self, id: &str) {
        self.partial = None;
        self.failed = Some(id.to_owned());
    }

    /// Takes the next frame.
    pub fn take(&mut self, frame: Frame<H>) -> Step<H> {
        let id = frame.id.clone();
        if frame.header.is_none() && self.failed.as_deref() == Some(id.as_str()) {
            return Step::Wait;
        }
        match self.advance(frame) {
            Ok(Some((header, content))) => Step::Complete(header, content),
            Ok(None) => Step::Wait,
            Err(problem) => {
                self.partial = None;
                self.failed = Some(id.clone());
                Step::Failed(id, problem)
            }
        }
    }

    fn advance(&mut self, frame: Frame<H>) -> Result<Option<(H, Bytes)>, Problem> {
        let chunk = frame.chunk.unwrap_or_default();
        if crc32fast::hash(&chunk.data) != chunk.crc32 {
            let text = "a chunk arrived damaged: its crc32 is another; send the message again";
            return Err(Problem::new(Reason::DigestMismatch, text).check("crc32"));
        }
        match frame.header {
            Some(header) => self.begin(&frame.id, header, chunk),
            None => self.go_on(&frame.id, chunk),
        }
    }

    fn begin(
        &mut self,
        id: &str,
        header: H,
        chunk: BodyChunk,
    ) -> Result<Option<(H, Bytes)>, Problem> {
        self.failed = None;
        if self.partial.is_some() {
            return Err(bad("header", "a message begins before the one before it has ended"));
        }
        if header.id() != id {
            return Err(bad("header", "the header's id is not the frame's"));
        }
        check_size(header.size(), self.limit)?;
        if chunk.offset != 0 {
            return Err(bad("chunk.offset", "the first chunk has to begin at 0"));
        }
        if chunk.data.len() as u64 == header.size() {
            check_frame(chunk.data.len(), SINGLE_FRAME_BYTES_MAX)?;
            check_whole(&header, &chunk.data, || blake3::hash(&chunk.data))?;
            return Ok(Some((header, chunk.data)));
        }
        if header.blake3().len() != 32 {
            return Err(bad("header.blake3", "a message of several chunks needs its 32 bytes"));
        }
        let content = BytesMut::with_capacity(header.size() as usize);
        let partial = Partial { header, content, digest: blake3::Hasher::new() };
        self.partial = Some(partial);
        self.go_on(id, chunk)
    }

    fn go_on(&mut self, id: &str, chunk: BodyChunk) -> Result<Option<(H, Bytes)>, Problem> {
        let partial = self.partial.as_mut().filter(|partial| partial.header.id() == id);
        let partial = partial.ok_or_else(|| bad("header", "a chunk without its header"))?;
        check_frame(chunk.data.len(), CHUNK_BYTES_MAX)?;
        if chunk.offset != partial.content.len() as u64 {
            return Err(bad("chunk.offset", "chunks follow one another without gap or overlap"));
        }
        let (have, size) =
            (partial.content.len() as u64 + chunk.data.len() as u64, partial.header.size());
        if have > size {
            let text = "the chunks are more than the header's size";
            return Err(Problem::new(Reason::DigestMismatch, text).check("size").limit(have, size));
        }
        partial.content.extend_from_slice(&chunk.data);
        partial.digest.update(&chunk.data);
        if have < size {
            return Ok(None);
        }
        let Partial { header, content, digest } = self.partial.take().expect("it was just there");
        let content = content.freeze();
        check_whole(&header, &content, || digest.finalize())?;
        Ok(Some((header, content)))
    }
}

/// Checks a message that came in one frame of a unary call.
pub fn check_single(header: &impl Header, content: &[u8], limit: u64) -> Result<(), Problem> {
    check_size(content.len() as u64, limit.min(MESSAGE_BYTES_MAX))?;
    check_frame(content.len(), SINGLE_FRAME_BYTES_MAX)?;
    check_whole(header, content, || blake3::hash(content))
}

fn check_size(size: u64, limit: u64) -> Result<(), Problem> {
    if size <= limit {
        return Ok(());
    }
    let text = format!("the message has {size} bytes; this node accepts {limit}");
    Err(Problem::new(Reason::TooLarge, text).limit(size, limit))
}

fn check_frame(bytes: usize, limit: usize) -> Result<(), Problem> {
    if bytes <= limit {
        return Ok(());
    }
    let text = format!("a frame has {bytes} bytes of content and may have {limit}; use chunks");
    Err(Problem::new(Reason::TooLarge, text).check("chunk").limit(bytes as u64, limit as u64))
}

fn check_whole(
    header: &impl Header,
    content: &[u8],
    digest: impl FnOnce() -> blake3::Hash,
) -> Result<(), Problem> {
    let (have, size) = (content.len() as u64, header.size());
    if have != size {
        let text = format!("{have} bytes arrived and the header says {size}; send it again");
        return Err(Problem::new(Reason::DigestMismatch, text).check("size").limit(have, size));
    }
    match header.blake3() {
        [] => Ok(()),
        told if told == digest().as_bytes() => Ok(()),
        _ => {
            let text = "the content is not that of the digest; send it again";
            Err(Problem::new(Reason::DigestMismatch, text).check("blake3"))
        }
    }
}

fn bad(check: &str, text: &str) -> Problem {
    Problem::new(Reason::InvalidRequest, text).check(check)
}

#[cfg(test)]
#[path = "upload_test.rs"]
mod tests;
