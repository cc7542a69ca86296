//! Entries that nobody wrote: one that cannot be read stops a copy, and one that can be read never
//! does, because it would stop all of them.

use bytes::Bytes;
use dag_types::{LogId, Millis};
use fuzzing::{Target, all, kind};
use mailbox::command::{
    Content, CopyMessages, CreateMailbox, DeleteFolder, FlagAction, MoveMessages, Parsed,
    PurgeItems, RenameInbox, RestoreItems, SetRights, SettingsChange, SubscribeName, UpdateFolder,
    UpdateMailbox, id_bytes,
};
use mailbox::response::{Outcome, Rejection, Response};
use mailbox::{Command, Operation, query, rights};

use crate::model_bodies::STAGED;
use crate::world::*;

/// A mailbox that has something of everything.
fn lived_in() -> World {
    let mut world = anna_and_ben();
    world.set(SettingsChange { retention_ms: Some(90_000_000), ..SettingsChange::default() });
    world.fill_inbox(4);
    world.run(create_folder(ANNA, 0, "Work"));
    world.run(create_folder(ANNA, 2, "Plans"));
    world.run(deliver("d1", &[ANNA, BEN], "a letter"));
    world.run(store(ANNA, &[(1, 2)], FlagAction::Add, 5));
    world.run(CopyMessages::from(transfer(&[(1, 2)], 2)));
    world.run(expunge(ANNA, &[(3, 3)]));
    world
}

fn operations() -> Vec<Operation> {
    let (anna, carl) = (id(ANNA), id("carl"));
    let mailbox_id = id_bytes(anna);
    let mut parsed = append(ANNA, 2, "parsed");
    parsed.content.parsed = Parsed {
        message_id: "m@example.org".into(),
        thread_keys: Bytes::from_static(&[7; 16]),
        header_tokens: Bytes::from_static(&[7; 8]),
        ..Parsed::default()
    };
    parsed.keywords = vec!["Work".into()];
    let update = UpdateFolder {
        name: Some("New".into()),
        parent: Some(0),
        special_use: Some(6),
        subscribed: Some(true),
        ..UpdateFolder::new(anna, 2)
    };
    let rights = SetRights {
        mailbox_id: mailbox_id.clone(),
        folder: 1,
        identifier: "carl".into(),
        action: 1,
        rights: rights::ALL,
    };
    let settings = SettingsChange { quota_bytes: Some(40), ..SettingsChange::default() };
    let small = Content { staged: true, body: Bytes::new(), ..STAGED.1.clone() };
    let mut staged = append(ANNA, 1, "");
    staged.content = small;
    vec![
        CreateMailbox::new(carl, vec!["carl@example.org".into()]).into(),
        delete_mailbox(BEN).into(),
        create_folder(ANNA, 2, "Below").into(),
        deliver("d2", &[ANNA, BEN], "another").into(),
        deliver("d1", &[ANNA], "a letter").into(),
        append(ANNA, INBOX, "1").into(),
        parsed.into(),
        staged.into(),
        append_many(ANNA, 2, &["x", "y"]).into(),
        store(ANNA, &[(1, u32::MAX)], FlagAction::Replace, 3).into(),
        expunge(ANNA, &[(1, 2), (4, 4)]).into(),
        sweep(u64::MAX, 100).into(),
        UpdateMailbox::new(anna, settings).into(),
        update.into(),
        DeleteFolder::new(anna, 3).into(),
        RenameInbox { mailbox_id: mailbox_id.clone(), parent: 0, name: "Old".into() }.into(),
        SubscribeName { mailbox_id: mailbox_id.clone(), path: "a/b".into(), subscribed: true }
            .into(),
        rights.into(),
        CopyMessages::from(transfer(&[(1, 4)], 2)).into(),
        MoveMessages::from(transfer(&[(1, 4)], 3)).into(),
        RestoreItems { mailbox_id: mailbox_id.clone(), items: vec![1], folder: 0 }.into(),
        PurgeItems { mailbox_id, items: vec![1] }.into(),
    ]
}

fn commands() -> Vec<Vec<u8>> {
    let command = |(at, operation): (usize, Operation)| {
        let command = Command::new(format!("r{at}"), Millis(5_000 + at as u64), operation);
        let acts = at % 5 == 4;
        let command = if acts { command.on_behalf_of(vec!["carl".into()]) } else { command };
        command.traced().encode_to_bytes().to_vec()
    };
    operations().into_iter().enumerate().map(command).collect()
}

/// Which operation, and what became of it.
fn outcome(command: &Command, response: &Response) -> u64 {
    let refused =
        |rejection: &Option<Rejection>| rejection.as_ref().map_or(0, |it| it.reason() as u64);
    let mut answers = vec![command.operation.as_ref().map_or(0, kind)];
    match &response.outcome {
        Some(Outcome::Rejected(rejection)) => answers.push(1 + rejection.reason() as u64),
        Some(Outcome::Delivered(delivered)) => {
            answers.extend(delivered.results.iter().take(3).map(|one| refused(&one.rejection)));
        }
        _ => answers.push(0),
    }
    all(&answers)
}

#[test]
fn an_entry_that_can_be_read_never_stops_a_copy() {
    let world = lived_in();
    let longest = 4_000;
    let words: [&[u8]; 5] =
        [&id(ANNA).0, &id(BEN).0, &[0; 16], &[0x0a, 0x10], b"\x20\xff\xff\xff\xff\x0f"];
    let target = Target { name: "entry", samples: commands(), words: &words, longest };
    fuzzing::run(target, |bytes| {
        let Ok(command) = Command::decode_from(Bytes::copy_from_slice(bytes)) else { return 0 };
        let at = LogId { term: 1, index: 99 };
        let applied = mailbox::apply(&world.view, at, &command).expect("no fault");
        let mut after = world.view.clone();
        after.write(applied.writes);
        let kept = query::database_digest(&after).expect("readable");
        assert_eq!(query::recompute_digest(&after), Ok(kept));
        let answer = Response::decode_from(applied.response.encode_to_bytes());
        assert_eq!(answer, Ok(applied.response.clone()));
        outcome(&command, &applied.response)
    });
}

#[test]
fn an_answer_is_refused_or_reads_back() {
    let mut world = lived_in();
    let answers = operations().into_iter().map(|operation| world.run_as("r", operation));
    let samples = answers.map(|answer| answer.encode_to_bytes().to_vec()).collect();
    let target = Target { name: "answer", samples, words: &[], longest: 2_000 };
    fuzzing::run(target, |bytes| {
        let Ok(read) = Response::decode_from(Bytes::copy_from_slice(bytes)) else { return 0 };
        assert_eq!(Response::decode_from(read.encode_to_bytes()), Ok(read.clone()));
        read.outcome.map_or(1, |outcome| kind(&outcome))
    });
}
