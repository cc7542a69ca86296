//! Threads and search: RFC 8474 5.2 and 6, RFC 9051 6.4.4, RFC 8514 4.3.

use mailbox::command::{Append, SettingsChange};
use mailbox::keys::table;
use mailbox::query::{self, Search};
use mailbox::response::{Outcome, Reason};

use crate::world::*;

fn keyed(body: &str, keys: &[u8]) -> Append {
    let mut command = append(ANNA, INBOX, body);
    let keys: Vec<u8> = keys.iter().flat_map(|key| [*key; 16]).collect();
    command.content.parsed.thread_keys = keys.into();
    command
}

fn worded(body: &str, tokens: &[u8]) -> Append {
    let mut command = append(ANNA, INBOX, body);
    let tokens: Vec<u8> = tokens.iter().flat_map(|token| [*token; 8]).collect();
    command.content.parsed.header_tokens = tokens.into();
    command
}

fn thread_of(world: &World, email: u64) -> u64 {
    world.email(ANNA, email).thread_id
}

fn found(world: &World, search: &Search) -> Vec<u32> {
    let page = query::search_messages(&world.view, id(ANNA), INBOX, search, None, 100);
    page.expect("readable").items.iter().map(|message| message.uid).collect()
}

/// RFC 8474 5.2: related messages share a THREADID, and a message's THREADID never changes.
#[test]
fn messages_that_share_a_key_are_one_thread_and_stay_in_it() {
    let mut world = anna_and_ben();
    for (body, keys) in [("a", &[1][..]), ("b", &[3]), ("c", &[1, 2]), ("d", &[2, 3])] {
        world.append(keyed(body, keys));
    }
    let threads: Vec<u64> = (1..=4).map(|email| thread_of(&world, email)).collect();
    assert_eq!(threads, [1, 2, 1, 1], "the oldest thread wins, and 2 keeps its own");
    let search = Search { thread_id: Some(1), ..Search::default() };
    assert_eq!(found(&world, &search), [1, 3, 4]);
    world.run(expunge(ANNA, &[(1, 4)]));
    assert_eq!((world.rows(table::THREAD_KEY), world.rows(table::THREAD)), (0, 0));
}

#[test]
fn a_thread_goes_on_while_one_of_its_messages_can_be_restored() {
    let mut world = anna_and_ben();
    world.set(SettingsChange { retention_ms: Some(1_000), ..SettingsChange::default() });
    world.append(keyed("a", &[1]));
    world.run(expunge(ANNA, &[(1, 1)]));
    world.append(keyed("b", &[1]));
    assert_eq!(thread_of(&world, 2), 1);
}

#[test]
fn keys_and_tokens_that_are_cut_unordered_or_too_many_are_refused() {
    let mut world = anna_and_ben();
    let mut cut = keyed("x", &[1]);
    cut.content.parsed.thread_keys = vec![0; 15].into();
    assert_eq!(world.refused(cut).subject, "thread_keys");
    assert_eq!(world.reason(keyed("x", &[2, 1])), Reason::FieldInvalid);
    assert_eq!(world.reason(worded("x", &[1, 1])), Reason::FieldInvalid);
    let many: Vec<u8> = (0..17).collect();
    assert_eq!(world.refused(keyed("x", &many)).limit, 16);
}

#[test]
fn a_search_finds_words_of_the_header_size_date_and_keywords() {
    let mut world = anna_and_ben();
    world.append(worded("first", &[1, 2]));
    world.now_ms = 5_000;
    let mut second = worded("second!", &[2]);
    second.keywords = vec!["Work".into()];
    world.append(second);
    let search = |search: Search| found(&world, &search);
    let tokens = |tokens: &[u8]| Search {
        header_tokens: tokens.iter().map(|token| [*token; 8]).collect(),
        ..Search::default()
    };
    assert_eq!(search(tokens(&[2])), [1, 2]);
    assert_eq!(search(tokens(&[1, 2])), [1]);
    assert_eq!(search(tokens(&[3])), []);
    assert_eq!(search(Search { larger_than: Some(5), ..Search::default() }), [2]);
    assert_eq!(search(Search { smaller_than: Some(6), ..Search::default() }), [1]);
    assert_eq!(search(Search { saved_since_ms: Some(5_000), ..Search::default() }), [2]);
    assert_eq!(search(Search { before_ms: Some(5_000), ..Search::default() }), [1]);
    assert_eq!(search(Search { with_keywords: vec!["work".into()], ..Search::default() }), [2]);
    assert_eq!(search(Search { without_keywords: vec!["work".into()], ..Search::default() }), [1]);
    assert_eq!(search(Search { email_id: Some(2), ..Search::default() }), [2]);
}

#[test]
fn a_set_of_many_messages_is_cut_into_batches_that_commands_take() {
    let mut world = anna_and_ben();
    world.fill_inbox(2_500);
    world.run(expunge(ANNA, &[(5, 9)]));
    let (mut after, mut sizes) = (0, Vec::new());
    let set = mailbox::uid_set::normalise(&ranges(&[(1, u32::MAX)])).expect("a set");
    loop {
        let batch = query::next_batch(&world.view, id(ANNA), INBOX, &set, after).expect("readable");
        let Outcome::Expunged(gone) =
            world.run(mailbox::command::Expunge { uids: batch.uids.clone(), ..expunge(ANNA, &[]) })
        else {
            panic!("a batch is taken")
        };
        sizes.push(gone.vanished.iter().map(|range| range.last - range.first + 1).sum::<u32>());
        match batch.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!((sizes, world.uids(ANNA, INBOX)), (vec![1_000, 1_000, 495], vec![]));
}
