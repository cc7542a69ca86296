//! What the proposer finds out about a message: size, digests, and what a MIME parser sees.

use bytes::Bytes;
use dag_api::mailbox::v1 as api;
use mailbox::command::{Content, Parsed};
use mailbox::query::Email;
use prost::Message as _;

/// Bytes of a message that are read where the call is; more would hold up the other calls.
const AT_ONCE: usize = 64 << 10;

/// A message as the entry carries it.
pub(super) async fn content(body: Bytes) -> Content {
    if body.len() <= AT_ONCE {
        return read(body);
    }
    tokio::task::spawn_blocking(move || read(body)).await.expect("reading a message does not panic")
}

fn read(body: Bytes) -> Content {
    let crc32 = crc32fast::hash(&body);
    let parsed = mail_mime::parse(&body);
    let parsed = Parsed {
        message_id: parsed.message_id,
        envelope: parsed.envelope.encode_to_vec().into(),
        body_structure: parsed.body.encode_to_vec().into(),
        preview: parsed.preview,
        thread_keys: parsed.thread_keys.concat().into(),
        header_tokens: parsed.header_tokens.concat().into(),
        thread_key: Bytes::new(),
    };
    Content::new(body, crc32, parsed)
}

/// The envelope that was stored; none where the message came before envelopes did.
pub(super) fn envelope(email: &Email) -> Option<api::Envelope> {
    let stored = !email.envelope.is_empty();
    stored.then(|| api::Envelope::decode(email.envelope.clone()).unwrap_or_default())
}

/// The tree of parts that was stored.
pub(super) fn structure(email: &Email) -> Option<api::BodyPart> {
    let stored = !email.body_structure.is_empty();
    stored.then(|| api::BodyPart::decode(email.body_structure.clone()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailbox::limits;

    #[test]
    fn the_parsers_bounds_are_those_of_the_core() {
        assert!(mail_mime::limits::THREAD_KEYS as u64 <= limits::THREAD_KEYS_PER_MESSAGE.max);
        assert!(mail_mime::limits::WORDS as u64 <= limits::HEADER_TOKENS_PER_MESSAGE.max);
        let rest = 8 << 10;
        let most = mail_mime::limits::ENVELOPE_BYTES + mail_mime::limits::STRUCTURE_BYTES + rest;
        assert!(most as u64 <= limits::PARSED_BYTES.max);
    }

    #[test]
    fn the_page_of_limits_has_every_limit_of_the_core() {
        let page = include_str!("../../../../../docs/limits.md");
        for limit in limits::ALL {
            let row = format!("\n| `{}` | {} |", limit.name, limit.max);
            assert!(page.contains(&row), "docs/limits.md has no row{row}");
        }
        for value in [
            dag_api::limits::SINGLE_FRAME_BYTES_MAX,
            dag_api::limits::CHUNK_BYTES_MAX,
            crate::watchers::WATCHED_MAX,
            mail_mime::limits::HEADER_BYTES,
            mail_mime::limits::ENVELOPE_BYTES,
            mail_mime::limits::STRUCTURE_BYTES,
        ] {
            assert!(page.contains(&format!("| {value} |")), "docs/limits.md has no {value}");
        }
    }

    #[tokio::test]
    async fn small_and_large_messages_are_read_alike() {
        let small = b"Subject: a\r\n\r\nhello\r\n".to_vec();
        let mut large = small.clone();
        large.resize(AT_ONCE + 1, b'x');
        for body in [small, large] {
            let content = content(body.clone().into()).await;
            assert_eq!((content.size, &content.body[..]), (body.len() as u64, &body[..]));
            assert!(content.parsed.preview.starts_with("hello"));
            assert!(!content.parsed.header_tokens.is_empty());
        }
    }
}
