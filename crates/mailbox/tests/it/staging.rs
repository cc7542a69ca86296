//! Bodies that come in chunks before their message.

use bytes::Bytes;
use dag_types::Millis;
use mailbox::command::{Content, Parsed, StageChunk};
use mailbox::keys::{self, table};
use mailbox::response::DeliverCode::{Duplicate, Stored};
use mailbox::response::{Outcome, Reason};
use mailbox::{Command, Operation, limits, query};

use crate::world::*;

const CHUNK: usize = limits::BODY_CHUNK_BYTES.max as usize;

fn large(bytes: usize, seed: u8) -> Content {
    let body: Vec<u8> = (0..bytes).map(|at| (at / 3) as u8 ^ seed).collect();
    let crc32 = u32::from(seed) + bytes as u32;
    Content::new(Bytes::from(body), crc32, Parsed::default())
}

/// The chunks of a content, and the content that refers to them.
fn staged(mut content: Content) -> (Vec<StageChunk>, Content) {
    let chunks = content.stage();
    (chunks, content)
}

fn present(world: &mut World, chunk: &StageChunk) -> u32 {
    match world.run(chunk.clone()) {
        Outcome::Staged(staged) => staged.chunks,
        other => panic!("{other:?}"),
    }
}

fn stage_all(world: &mut World, chunks: &[StageChunk]) {
    for (before, chunk) in chunks.iter().enumerate() {
        assert_eq!(present(world, chunk), before as u32 + 1);
    }
}

/// The body as its rows hold it, and that the digest counts exactly the rows that are there.
fn stored(world: &World, name: &str, uid: u32) -> Vec<u8> {
    let message = world.message(name, INBOX, uid).expect("there");
    let email = world.email(name, message.email_id);
    let mut body = Vec::new();
    for row in query::body_rows(&world.view, &email).expect("readable") {
        let chunk = &world.view.rows()[&row.key];
        assert_eq!(chunk.len() as u64, row.bytes);
        body.extend_from_slice(chunk);
    }
    body
}

/// Bodies that a sweep will remove: time and kind stand first in the keys of what is due.
fn expiring(world: &World) -> usize {
    let bodies = keys::due(0, &keys::Due::Body([0; 32]))[9];
    world.view.rows().keys().filter(|key| key[0] == table::DUE && key[9] == bodies).count()
}

fn assert_digest(world: &World) {
    let kept = query::database_digest(&world.view).expect("readable");
    assert_eq!(query::recompute_digest(&world.view).expect("readable"), kept);
}

#[test]
fn a_body_of_several_chunks_is_stored_once_and_read_whole() {
    let mut world = anna_and_ben();
    let whole = large(2 * CHUNK + 5, 1);
    let (chunks, content) = staged(whole.clone());
    assert_eq!(chunks.iter().map(|chunk| chunk.bytes.len()).collect::<Vec<_>>(), [CHUNK, CHUNK, 5]);
    stage_all(&mut world, &chunks);
    assert_digest(&world);
    let mut both = deliver("d", &[ANNA, BEN], "");
    both.content = content;
    let codes: Vec<_> = world.deliver(both.clone()).iter().map(|result| result.code()).collect();
    assert_eq!(codes, [Stored, Stored]);
    assert_eq!(stored(&world, ANNA, 1), whole.body);
    assert_eq!(stored(&world, BEN, 1), whole.body);
    assert_eq!((world.rows(table::BODY), world.rows(table::BODY_RECORD)), (3, 1));
    assert_eq!(expiring(&world), 0, "a body that is referred to does not expire");
    assert_eq!(world.deliver(both)[0].code(), Duplicate);
    assert_digest(&world);
}

#[test]
fn small_bodies_are_not_staged() {
    let (chunks, content) = staged(large(CHUNK, 1));
    assert_eq!((chunks.len(), content.staged, content.body.len()), (0, false, CHUNK));
    assert_eq!(Command::new("", Millis(1), deliver("d", &[ANNA], "x").into()).version, 0);
    let (chunks, content) = staged(large(CHUNK + 1, 1));
    assert_eq!((chunks.len(), content.staged, content.body.len()), (2, true, 0));
    let mut needs = deliver("d", &[ANNA], "");
    needs.content = content;
    for operation in [Operation::from(needs), chunks[0].clone().into()] {
        assert_eq!(Command::new("", Millis(1), operation).version, 4);
    }
}

/// The retry whose first answer was lost, and the node that stages after a failover.
#[test]
fn a_chunk_that_is_there_is_not_written_again_and_none_is_left_out() {
    let mut world = anna_and_ben();
    let (chunks, _) = staged(large(3 * CHUNK, 1));
    assert_eq!(present(&mut world, &chunks[0]), 1);
    assert_eq!(present(&mut world, &chunks[0]), 1);
    let refused = world.refused(chunks[2].clone());
    assert_eq!(refused.reason(), Reason::BodyNotStaged);
    assert_eq!((refused.value, refused.limit), (2, 1));
    assert_eq!(present(&mut world, &chunks[1]), 2);
    assert_eq!(present(&mut world, &chunks[0]), 2, "it is told how far the other came");
    assert_eq!(present(&mut world, &chunks[2]), 3);
    assert_eq!(present(&mut world, &chunks[0]), 3);
    assert_eq!((world.rows(table::BODY), expiring(&world)), (3, 1));
    assert_digest(&world);
}

#[test]
fn a_message_without_its_whole_body_is_refused_and_may_be_repeated_under_the_same_id() {
    let mut world = anna_and_ben();
    let whole = large(CHUNK + 1, 1);
    let (chunks, content) = staged(whole.clone());
    let mut wanted = append(ANNA, INBOX, "");
    wanted.content = content;
    for have in 0..2 {
        let refused = world.run_as("r", wanted.clone()).outcome;
        let Some(Outcome::Rejected(refused)) = refused else { panic!("{refused:?}") };
        assert_eq!(refused.reason(), Reason::BodyNotStaged);
        assert_eq!((refused.value, refused.limit), (have, 2));
        assert_eq!(present(&mut world, &chunks[have as usize]), have as u32 + 1);
    }
    let done = world.run_as("r", wanted.clone()).outcome;
    assert!(matches!(done, Some(Outcome::Appended(_))), "{done:?}");
    assert_eq!(stored(&world, ANNA, 1), whole.body);
    let mut inline = wanted;
    inline.content = whole;
    let again = world.run_as("r", inline);
    assert!(again.replayed, "however it came, it is the same request");
}

#[test]
fn what_nobody_refers_to_in_time_is_swept() {
    let mut world = anna_and_ben();
    let (chunks, _) = staged(large(2 * CHUNK + 1, 1));
    world.run(chunks[0].clone());
    world.now_ms += limits::STAGED_KEPT_MS / 2;
    world.run(chunks[1].clone());
    world.now_ms += limits::STAGED_KEPT_MS / 2;
    world.run(sweep(world.now_ms, 100));
    assert_eq!(world.rows(table::BODY), 2, "the last chunk counts");
    world.now_ms += limits::STAGED_KEPT_MS / 2;
    world.run(sweep(world.now_ms, 100));
    let left = [table::BODY, table::BODY_RECORD].map(|table| world.rows(table));
    assert_eq!((left, expiring(&world)), ([0, 0], 0));
    assert_digest(&world);
}

#[test]
fn a_body_goes_with_its_last_message_all_chunks_of_it() {
    let mut world = anna_and_ben();
    let (chunks, content) = staged(large(CHUNK * 2, 1));
    stage_all(&mut world, &chunks);
    let mut one = deliver("d", &[ANNA], "");
    one.content = content;
    world.deliver(one);
    world.run(expunge(ANNA, &[(1, 1)]));
    assert_eq!(world.rows(table::BODY), 2);
    // Staged again before the sweep came: it stays.
    assert_eq!(present(&mut world, &chunks[0]), 2);
    world.run(sweep(world.now_ms, 100));
    assert_eq!(world.rows(table::BODY), 2);
    world.now_ms += limits::STAGED_KEPT_MS;
    world.run(sweep(world.now_ms, 100));
    assert_eq!((world.rows(table::BODY), world.rows(table::BODY_RECORD)), (0, 0));
    assert_digest(&world);
}

#[test]
fn a_body_that_was_staged_in_part_and_comes_whole_is_completed() {
    let mut world = anna_and_ben();
    let whole = large(2 * CHUNK + 1, 1);
    let (chunks, _) = staged(whole.clone());
    world.run(chunks[0].clone());
    let mut one = deliver("d", &[ANNA], "");
    one.content = whole.clone();
    assert_eq!(world.deliver(one)[0].code(), Stored);
    assert_eq!(stored(&world, ANNA, 1), whole.body);
    assert_eq!((world.rows(table::BODY), expiring(&world)), (3, 0));
    assert_digest(&world);
}

#[test]
fn a_body_that_came_whole_need_not_be_staged() {
    let mut world = anna_and_ben();
    let whole = large(CHUNK + 1, 1);
    let mut one = deliver("d1", &[ANNA], "");
    one.content = whole.clone();
    world.deliver(one);
    let (chunks, content) = staged(whole.clone());
    assert_eq!(present(&mut world, &chunks[0]), 2);
    let mut other = deliver("d2", &[BEN], "");
    other.content = content;
    assert_eq!(world.deliver(other)[0].code(), Stored);
    assert_eq!(stored(&world, BEN, 1), whole.body);
    assert_eq!(world.rows(table::BODY), 1);
    assert_digest(&world);
}

#[test]
fn broken_chunks_are_refused_with_what_is_wrong() {
    let mut world = anna_and_ben();
    let (chunks, content) = staged(large(CHUNK + 1, 1));
    let good = &chunks[1];
    let cases = [
        (StageChunk { chunk: 2, ..good.clone() }, Reason::FieldInvalid, "chunk"),
        (StageChunk { chunk: u32::MAX, ..good.clone() }, Reason::FieldInvalid, "chunk"),
        (StageChunk { size: 0, ..good.clone() }, Reason::FieldInvalid, "chunk"),
        (StageChunk { bytes: Bytes::new(), ..good.clone() }, Reason::SizeMismatch, "bytes"),
        (StageChunk { size: 65 << 20, ..good.clone() }, Reason::LimitExceeded, "message_bytes"),
        (StageChunk { size: u64::MAX, ..good.clone() }, Reason::LimitExceeded, "message_bytes"),
        (
            StageChunk { blake3: Bytes::from_static(b"x"), ..good.clone() },
            Reason::FieldInvalid,
            "blake3",
        ),
    ];
    for (broken, reason, subject) in cases {
        let refused = world.refused(broken);
        assert_eq!((refused.reason(), refused.subject.as_str()), (reason, subject));
    }
    world.run(chunks[0].clone());
    let other = StageChunk { crc32: 7, ..good.clone() };
    assert_eq!(world.refused(other).reason(), Reason::DigestConflict);
    let mut both = deliver("d", &[ANNA], "");
    both.content = Content { body: Bytes::from_static(b"x"), ..content };
    assert_eq!(world.refused(both).subject, "staged");
    let mut small = deliver("d", &[ANNA], "small");
    small.content.staged = true;
    small.content.body = Bytes::new();
    assert_eq!(world.refused(small).subject, "staged");
}
