//! Frames in order, out of order, and damaged.

use super::*;

const LIMIT: u64 = 4 << 20;

fn header(id: &str, content: &[u8]) -> DeliverHeader {
    DeliverHeader {
        delivery_id: id.into(),
        size: content.len() as u64,
        blake3: Bytes::copy_from_slice(blake3::hash(content).as_bytes()),
        ..DeliverHeader::default()
    }
}

fn chunk(offset: usize, data: &[u8]) -> BodyChunk {
    let crc32 = crc32fast::hash(data);
    BodyChunk { offset: offset as u64, data: Bytes::copy_from_slice(data), crc32 }
}

fn frame(id: &str, header: Option<DeliverHeader>, chunk: BodyChunk) -> Frame<DeliverHeader> {
    Frame { id: id.into(), header, chunk: Some(chunk) }
}

fn whole(step: Step<DeliverHeader>) -> Bytes {
    match step {
        Step::Complete(_, content) => content,
        other => panic!("not complete: {other:?}"),
    }
}

fn failure(step: Step<DeliverHeader>) -> Problem {
    match step {
        Step::Failed(_, problem) => problem,
        other => panic!("not failed: {other:?}"),
    }
}

#[test]
fn a_small_message_is_one_frame() {
    let mut session = Assembler::new(LIMIT);
    let step = session.take(frame("a", Some(header("a", b"hello")), chunk(0, b"hello")));
    assert_eq!(whole(step), "hello");
    let empty = session.take(frame("b", Some(header("b", b"")), chunk(0, b"")));
    assert_eq!(whole(empty), "");
}

#[test]
fn a_large_message_is_put_together_from_its_chunks() {
    let content: Vec<u8> = (0..700_000_u32).map(|i| i as u8).collect();
    let mut session = Assembler::new(LIMIT);
    let mut last = None;
    for (i, part) in content.chunks(CHUNK_BYTES_MAX).enumerate() {
        let header = (i == 0).then(|| header("a", &content));
        last = Some(session.take(frame("a", header, chunk(i * CHUNK_BYTES_MAX, part))));
    }
    assert_eq!(whole(last.unwrap()), content);
}

#[test]
fn a_failed_message_does_not_end_the_session() {
    let mut session = Assembler::new(LIMIT);
    session.take(frame("a", Some(header("a", b"hello")), chunk(0, b"he")));
    let gap = session.take(frame("a", None, chunk(3, b"lo")));
    assert_eq!(failure(gap).reason, Reason::InvalidRequest);
    assert!(matches!(session.take(frame("a", None, chunk(2, b"llo"))), Step::Wait));
    let next = session.take(frame("b", Some(header("b", b"x")), chunk(0, b"x")));
    assert_eq!(whole(next), "x");
    let again = session.take(frame("a", Some(header("a", b"hello")), chunk(0, b"hello")));
    assert_eq!(whole(again), "hello");
}

#[test]
fn every_broken_rule_fails_the_message_with_its_reason() {
    let huge = DeliverHeader { size: LIMIT + 1, ..header("a", b"") };
    let no_digest = DeliverHeader { blake3: Bytes::new(), ..header("a", b"hello") };
    let other_digest = DeliverHeader { size: 5, ..header("a", b"jello") };
    let mut damaged = chunk(0, b"hello");
    damaged.crc32 ^= 1;
    let large = vec![0; SINGLE_FRAME_BYTES_MAX + 1];
    for (what, header, chunk, reason) in [
        ("too large", Some(huge), chunk(0, b""), Reason::TooLarge),
        ("no digest", Some(no_digest), chunk(0, b"he"), Reason::InvalidRequest),
        ("other digest", Some(other_digest), chunk(0, b"hello"), Reason::DigestMismatch),
        ("damaged", Some(header("a", b"hello")), damaged, Reason::DigestMismatch),
        ("too much", Some(header("a", b"hel")), chunk(0, b"hello"), Reason::DigestMismatch),
        ("one large frame", Some(header("a", &large)), chunk(0, &large), Reason::TooLarge),
        ("late start", Some(header("a", b"hello")), chunk(1, b"hello"), Reason::InvalidRequest),
        ("other id", Some(header("b", b"hello")), chunk(0, b"hello"), Reason::InvalidRequest),
        ("no header", None, chunk(0, b"hello"), Reason::InvalidRequest),
    ] {
        let step = Assembler::new(LIMIT).take(frame("a", header, chunk));
        assert_eq!(failure(step).reason, reason, "{what}");
    }
}

#[test]
fn frames_of_two_messages_are_not_mixed() {
    let mut session = Assembler::new(LIMIT);
    session.take(frame("a", Some(header("a", b"hello")), chunk(0, b"he")));
    let second = session.take(frame("b", Some(header("b", b"x")), chunk(0, b"x")));
    assert_eq!(failure(second).reason, Reason::InvalidRequest);
    let orphan = session.take(frame("a", None, chunk(2, b"llo")));
    assert_eq!(failure(orphan).reason, Reason::InvalidRequest);
}

#[test]
fn a_unary_message_is_checked_the_same_way() {
    assert!(check_single(&header("a", b"hello"), b"hello", LIMIT).is_ok());
    let short = check_single(&header("a", b"hello"), b"hell", LIMIT).unwrap_err();
    assert_eq!(short.reason, Reason::DigestMismatch);
    let large = vec![0; 2048];
    let refused = check_single(&header("a", &large), &large, 1024).unwrap_err();
    assert_eq!((refused.reason, refused.facts.limit), (Reason::TooLarge, Some(1024)));
}
