//! What front ends send, made up: frames of sessions, ids, page tokens.

use bytes::Bytes;
use dag_api::mailbox::v1::{self as api, BodyChunk, DeliverHeader};
use dag_types::MailboxId;
use fuzzing::{Target, all, answer};
use prost::Message as _;

use super::text::{self, PageToken};
use super::upload::{Assembler, Frame, Step};

/// Bytes of a message that the session accepts.
const LIMIT: u64 = 2_000;

fn header(id: &str, content: &[u8]) -> DeliverHeader {
    DeliverHeader {
        delivery_id: id.into(),
        size: content.len() as u64,
        blake3: Bytes::copy_from_slice(blake3::hash(content).as_bytes()),
        ..DeliverHeader::default()
    }
}

/// A session's frames as the input writes them, one after the other: what to do, with what.
fn frames(mut input: &[u8]) -> Vec<Frame<DeliverHeader>> {
    const CONTENT: &[u8] = b"a letter that is longer than one of the chunks that it comes in";
    let mut frames = Vec::new();
    while let [what, id, from, length, rest @ ..] = input {
        input = rest;
        let id = ["a", "b", ""][usize::from(*id) % 3].to_owned();
        let from = usize::from(*from).min(CONTENT.len());
        let data = &CONTENT[from..(from + usize::from(*length)).min(CONTENT.len())];
        let mut chunk = BodyChunk {
            offset: from as u64,
            data: Bytes::copy_from_slice(data),
            crc32: crc32fast::hash(data),
        };
        let mut first = (what & 1 == 0).then(|| header(&id, CONTENT));
        match (what >> 1 & 15, &mut first) {
            (0, _) => chunk.crc32 ^= 1,
            (1, _) => chunk.offset = u64::MAX,
            (2, Some(header)) => header.size = u64::MAX,
            (3, Some(header)) => header.size = u64::from(*length),
            (4, Some(header)) => header.blake3 = Bytes::new(),
            (5, Some(header)) => header.blake3 = Bytes::from_static(&[7; 32]),
            (6, Some(header)) => header.delivery_id = "c".into(),
            (7, Some(header)) => header.size = LIMIT + 1,
            _ => {}
        }
        let chunk = (what & 32 == 0).then_some(chunk);
        frames.push(Frame { id, header: first, chunk });
    }
    frames
}

#[test]
fn a_session_gives_out_whole_messages_or_says_what_is_wrong() {
    let whole = vec![30, 0, 0, 255];
    let chunks = vec![30, 0, 0, 20, 31, 0, 20, 20, 31, 0, 40, 255];
    let two = [chunks.as_slice(), &[30, 1, 0, 30, 31, 1, 30, 255]].concat();
    let target =
        Target { name: "session", samples: vec![whole, chunks, two], words: &[], longest: 200 };
    fuzzing::run(target, |input| {
        let mut session = Assembler::new(LIMIT);
        let mut steps = Vec::new();
        for (at, frame) in frames(input).into_iter().enumerate() {
            if at % 7 == 6 && frame.id == "b" {
                session.abandon("b");
            }
            steps.push(match session.take(frame) {
                Step::Wait => 0,
                Step::Failed(_, problem) => answer(&problem.reason),
                Step::Complete(header, content) => {
                    assert_eq!(header.size, content.len() as u64);
                    let digest = blake3::hash(&content);
                    assert!(header.blake3.is_empty() || header.blake3 == digest.as_bytes()[..]);
                    1
                }
            });
        }
        steps.dedup();
        steps.truncate(6);
        all(&steps)
    });
}

#[test]
fn an_id_reads_back_or_is_refused() {
    let mailbox = MailboxId([0xab; 16]);
    let ids = [text::folder_id(7), text::email_id(mailbox, 7), text::thread_id(mailbox, 9)];
    let samples = ids.map(String::into_bytes).to_vec();
    let words: [&[u8]; 5] = [b"f", b"-t", b"4294967296", b"\xc3\x9f", b"+1"];
    let target = Target { name: "id", samples, words: &words, longest: 200 };
    fuzzing::run(target, |bytes| {
        let given = &*String::from_utf8_lossy(bytes);
        let folder = text::parse_folder_id(given);
        let email = text::parse_email_id(given);
        let thread = text::parse_thread_id(given);
        assert!(
            folder.clone().is_ok_and(|id| id.is_some_and(|id| text::folder_id(id) == given))
                || folder.is_err()
                || given.is_empty()
        );
        if let Ok((mailbox, number)) = email {
            assert_eq!(text::email_id(mailbox, number), given);
        }
        if let Ok((mailbox, number)) = thread {
            assert_eq!(text::thread_id(mailbox, number), given);
        }
        all(&[folder.is_ok(), email.is_ok(), thread.is_ok()].map(u64::from))
    });
}

#[test]
fn a_page_token_of_another_query_is_refused() {
    let query = PageToken::of_query(&["mailbox", "f1"]);
    let other = PageToken::of_query(&["mailbox", "f2"]).write(Some(7_u32));
    let samples = vec![query.write(Some(7_u32)).into_bytes(), other.into_bytes()];
    let target = Target { name: "page token", samples, words: &[b"-"], longest: 100 };
    fuzzing::run(target, |bytes| {
        let given = &*String::from_utf8_lossy(bytes);
        match query.read::<u32>(given) {
            Err(problem) => answer(&problem.reason),
            Ok(None) => u64::from(given.is_empty()),
            Ok(Some(last)) => {
                let own = query.write(Some(last));
                assert!(given.starts_with(&own[..17]), "it has the query's mark");
                2
            }
        }
    });
}

/// Requests as they come off the wire, with what is read of them before anything is proposed.
#[test]
fn what_a_request_names_is_read_or_refused() {
    let token = api::CommitToken {
        database_id: 16,
        lineage: Some(api::Lineage { epoch: 1, activation_id: Bytes::from_static(&[1; 16]) }),
        generation: 1,
        log_index: 9,
    };
    let uids = api::UidSet::from_iter([1, 2, 3, 9, u32::MAX]);
    let at = prost_types::Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 };
    let samples = vec![token.encode_to_vec(), uids.encode_to_vec(), at.encode_to_vec()];
    let target = Target { name: "request", samples, words: &[], longest: 400 };
    fuzzing::run(target, |bytes| {
        let token =
            api::CommitToken::decode(bytes).map(|token| dag_api::Token::try_from(&token).is_ok());
        let uids = api::UidSet::decode(bytes).map(|set| {
            let sound = set.validate().is_ok();
            assert!(set.span() >= set.ranges.len() as u64);
            assert!(set.ranges.first().is_none_or(|range| set.contains(range.first)));
            (sound, set.iter().take(10).count())
        });
        let at =
            prost_types::Timestamp::decode(bytes).map(|at| dag_api::convert::millis(&at).is_ok());
        answer(&(token.ok(), uids.ok().map(|(sound, many)| (sound, many > 0)), at.ok()))
    });
}
