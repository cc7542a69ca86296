//! What a message says of itself: envelope, parts, threads, words, a preview.
//!
//! All of it is computed once, by the node that proposes a message, and travels in the log entry:
//! two releases of a parser may see a message differently, and copies of a database may not. So this
//! crate decides nothing that has to be the same everywhere, and a message is never refused for its
//! form. Mail is often broken, sometimes on purpose; what cannot be understood is left out, and the
//! bytes are given back as they came in any case.
//!
//! Bounds hold for every input: [`limits`]. The work is a small multiple of the message's size, and
//! no recursion is deeper than a bound.
//!
//! | file | idea |
//! | --- | --- |
//! | `lines.rs` | from line to line |
//! | `header.rs` | the fields of a header that matter |
//! | `structure.rs` | the tree of parts with the place of each one's bytes |
//! | `section.rs` | `2.1.MIME`: from a name to bytes, by the tree |
//! | `envelope.rs` | the header fields that front ends show |
//! | `transfer.rs` | base64 and quoted-printable |
//! | `preview.rs` | the first words of the text |
//! | `thread.rs` | what makes two messages one conversation |
//! | `words.rs` | words of the header, as hashes that can be searched for |
#![forbid(unsafe_code)]

mod envelope;
mod header;
mod lines;
mod preview;
mod section;
mod structure;
mod thread;
mod transfer;
mod words;

use dag_api::mailbox::v1::{BodyPart, Envelope};
use prost::Message as _;

pub use section::{Section, find};
pub use structure::structure;
pub use transfer::{UnknownEncoding, decode};
pub use words::{FIELDS, tokens_of};

/// Bounds of what is taken out of one message.
pub mod limits {
    /// Bytes of a header that are read.
    pub const HEADER_BYTES: usize = 256 << 10;
    /// Levels of parts, one inside the other.
    pub const DEPTH: usize = 32;
    /// Parts in all.
    pub const PARTS: usize = 500;
    /// Bytes of an encoded envelope.
    pub const ENVELOPE_BYTES: usize = 16 << 10;
    /// Bytes of an encoded tree of parts.
    pub const STRUCTURE_BYTES: usize = 36 << 10;
    /// Characters of a preview: RFC 8970 3.3 recommends 200 and forbids more than 256.
    pub const PREVIEW_CHARACTERS: usize = 200;
    /// What a message may be grouped into threads by.
    pub const THREAD_KEYS: usize = 16;
    /// Words that it may be found by.
    pub const WORDS: usize = 256;
}

/// What a message says of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// Without brackets; empty where there is none.
    pub message_id: String,
    /// The header fields that front ends show.
    pub envelope: Envelope,
    /// The tree of parts.
    pub body: BodyPart,
    /// The first words of the text.
    pub preview: String,
    /// Ascending, each once.
    pub thread_keys: Vec<[u8; 16]>,
    /// Hashes of words of the header; ascending, each once.
    pub header_tokens: Vec<[u8; 8]>,
}

/// Reads a message. Takes whatever it is given.
pub fn parse(message: &[u8]) -> Parsed {
    let (mut body, envelope) = structure::read(message);
    let parsed = Parsed {
        message_id: envelope.message_id.clone(),
        preview: preview::of(message, &body),
        thread_keys: thread::keys(&envelope),
        header_tokens: words::tokens(&envelope),
        envelope: envelope::bounded(envelope),
        body: BodyPart::default(),
    };
    if body.encoded_len() > limits::STRUCTURE_BYTES {
        body.parts.clear();
        body.truncated = true;
    }
    Parsed { body, ..parsed }
}

#[cfg(test)]
#[path = "lib_test.rs"]
mod tests;

#[cfg(test)]
#[path = "fuzz_test.rs"]
mod fuzz;
