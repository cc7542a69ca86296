//! Scripts: commands, `---`, what they answer. `UPDATE_SCRIPTS=1` writes the answers down anew, to
//! be reviewed in the diff.
//!
//! Words are separated by blanks; `name=value` gives a field; `_` in a value stands for a blank.
//! Each command has a request id of its own unless it names one with `request=`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use mailbox::command::{CreateMailbox, FlagAction, Recipient, UidRange};
use mailbox::flags;
use mailbox::query::{self, ChangesSince, FeedPosition, MessageFilter};
use mailbox::response::{Outcome, Response};

use crate::world::*;

#[test]
fn scripts_answer_what_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("scripts")
        .map(|entry| entry.expect("a file").path())
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 5, "the scripts are there");
    for path in scripts {
        let text = fs::read_to_string(&path).expect("readable");
        let answered = run_script(&text);
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            fs::write(&path, answered).expect("writable");
        } else {
            assert_eq!(text, answered, "{} (UPDATE_SCRIPTS=1 rewrites it)", path.display());
        }
    }
}

/// The script with the answers that it gets now. Blocks are separated by empty lines.
fn run_script(text: &str) -> String {
    let mut world = World { now_ms: 1_000, ..World::default() };
    let blocks = text.trim_end().split("\n\n").map(|block| {
        let commands = block.split("\n---").next().expect("a block");
        let mut answer = String::new();
        let lines = commands.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut any = false;
        for line in lines {
            any = true;
            answer.push_str(&run_line(&mut world, line));
        }
        check_digest(&world);
        if any { format!("{commands}\n---\n{answer}") } else { format!("{commands}\n") }
    });
    blocks.collect::<Vec<_>>().join("\n")
}

fn check_digest(world: &World) {
    let kept = query::database_digest(&world.view);
    assert_eq!(kept, query::recompute_digest(&world.view), "the digest is kept");
}

/// The words of a line.
struct Line<'l> {
    text: &'l str,
    words: Vec<&'l str>,
}

impl<'l> Line<'l> {
    fn word(&self, at: usize) -> &'l str {
        self.words.get(at).unwrap_or_else(|| panic!("more words: {}", self.text))
    }

    fn number(&self, at: usize) -> u64 {
        self.word(at).parse().unwrap_or_else(|_| panic!("a number: {}", self.text))
    }

    fn field(&self, name: &str) -> Option<&'l str> {
        let mut values = self.words.iter().filter_map(|word| word.split_once('='));
        values.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn text_field(&self, name: &str) -> String {
        self.field(name).unwrap_or_default().replace('_', " ")
    }

    fn number_field(&self, name: &str) -> Option<u64> {
        let value = self.field(name)?;
        Some(value.parse().unwrap_or_else(|_| panic!("a number: {}", self.text)))
    }

    fn list_field(&self, name: &str) -> Vec<String> {
        let value = self.field(name).unwrap_or_default();
        value.split(',').filter(|item| !item.is_empty()).map(String::from).collect()
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn flags(&self) -> u32 {
        self.list_field("flags").iter().fold(0, |bits, name| bits | flag(name))
    }

    fn uids(&self) -> Vec<UidRange> {
        let uid = |text: &str| match text {
            "*" => u32::MAX,
            text => text.parse().unwrap_or_else(|_| panic!("a UID: {}", self.text)),
        };
        let range = |text: &String| match text.split_once(':') {
            Some((first, last)) => UidRange::new(uid(first), uid(last)),
            None => UidRange::new(uid(text), uid(text)),
        };
        self.list_field("uids").iter().map(range).collect()
    }
}

const FLAGS: [(&str, u32); 5] = [
    ("seen", flags::SEEN),
    ("answered", flags::ANSWERED),
    ("flagged", flags::FLAGGED),
    ("deleted", flags::DELETED),
    ("draft", flags::DRAFT),
];

fn flag(name: &str) -> u32 {
    let found = FLAGS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no flag: {name}")).1
}

fn run_line(world: &mut World, text: &str) -> String {
    let line = Line { text, words: text.split_whitespace().collect() };
    match line.word(0) {
        "at" => {
            world.now_ms = line.number(1);
            String::new()
        }
        "folders" => show_folders(world, line.word(1)),
        "messages" => show_messages(world, &line),
        "changes" => show_changes(world, &line),
        "rows" => show_rows(world),
        _ => {
            let operation = operation(&line);
            let response = match line.field("request") {
                Some(request) => world.run_as(request, operation),
                None => {
                    let outcome = world.run(operation);
                    Response::new(0, outcome)
                }
            };
            show(&response)
        }
    }
}

fn operation(line: &Line<'_>) -> mailbox::Operation {
    let name = || line.word(1);
    let folder = || line.number_field("folder").unwrap_or(1) as u32;
    let validity = line.number_field("uidvalidity").unwrap_or(0) as u32;
    match line.word(0) {
        "create-mailbox" => {
            let addresses = line.words[2..].iter().filter(|word| !word.contains('='));
            CreateMailbox::new(id(name()), addresses.map(|word| word.to_string()).collect()).into()
        }
        "delete-mailbox" => delete_mailbox(name()).into(),
        "create-folder" => {
            let parent = line.number_field("parent").unwrap_or(0) as u32;
            create_folder(name(), parent, &line.text_field("name")).into()
        }
        "deliver" => {
            let mut command = deliver(name(), &[], &line.text_field("body"));
            command.recipients = line.list_field("to").iter().map(|to| recipient(to)).collect();
            command.into()
        }
        "append" => {
            let mut command = append(name(), folder(), &line.text_field("body"));
            command.expected_uid_validity = validity;
            command.system_flags = line.flags();
            command.keywords = line.list_field("keywords");
            command.into()
        }
        "add" | "remove" | "replace" => {
            let action = match line.word(0) {
                "add" => FlagAction::Add,
                "remove" => FlagAction::Remove,
                _ => FlagAction::Replace,
            };
            let mut command = store(name(), &[], action, line.flags());
            command.folder = folder();
            command.uids = line.uids();
            command.expected_uid_validity = validity;
            command.keywords = line.list_field("keywords");
            command.unchanged_since = line.number_field("unchangedsince");
            command.into()
        }
        "expunge" => {
            let mut command = expunge(name(), &[]);
            command.folder = folder();
            command.uids = line.uids();
            command.only_deleted = line.has("only-deleted");
            command.into()
        }
        "sweep" => sweep(u64::MAX, line.number_field("limit").unwrap_or(1_000) as u32).into(),
        other => panic!("no command: {other}"),
    }
}

/// `address>mailbox`, or a mailbox alone.
fn recipient(text: &str) -> Recipient {
    match text.split_once('>') {
        Some((address, name)) => Recipient::new(address, id(name)),
        None => Recipient::new("", id(text)),
    }
}

fn show(response: &Response) -> String {
    let mut text = String::from(if response.replayed { "replayed: " } else { "" });
    match response.outcome.as_ref().expect("an outcome") {
        Outcome::Rejected(rejection) => write!(text, "refused: {rejection}"),
        Outcome::MailboxCreated(created) => {
            let inbox = &created.inbox;
            write!(
                text,
                "mailbox created, inbox {} uidvalidity {}",
                inbox.folder, inbox.uid_validity
            )
        }
        Outcome::MailboxDeleted(deleted) => {
            write!(text, "mailbox deleted at {}", deleted.deleted_ms)
        }
        Outcome::FolderCreated(created) => write!(
            text,
            "folder {} created, uidvalidity {} modseq {}",
            created.folder, created.uid_validity, created.modseq
        ),
        Outcome::Delivered(delivered) => {
            for (at, result) in delivered.results.iter().enumerate() {
                let line_end = if at > 0 { "\n" } else { "" };
                write!(text, "{line_end}{:?}", result.code()).expect("room");
                if let Some(at) = &result.stored {
                    write!(text, " uid {} email {} modseq {}", at.uid, at.email_id, at.modseq)
                        .expect("room");
                }
                if let Some(rejection) = &result.rejection {
                    write!(text, " {}", rejection.reason().name()).expect("room");
                }
            }
            Ok(())
        }
        Outcome::Appended(at) => write!(
            text,
            "appended uidvalidity {} uid {} email {} modseq {}",
            at.uid_validity, at.uid, at.email_id, at.modseq
        ),
        Outcome::FlagsStored(stored) => write!(
            text,
            "modseq {} changed [{}] unchanged [{}] modified [{}]",
            stored.modseq,
            show_uids(&stored.changed),
            show_uids(&stored.unchanged),
            show_uids(&stored.modified)
        ),
        Outcome::Expunged(expunged) => {
            write!(text, "modseq {} vanished [{}]", expunged.modseq, show_uids(&expunged.vanished))
        }
        Outcome::Swept(swept) => write!(
            text,
            "swept {} requests, {} deliveries, {} bodies{}",
            swept.request_ids,
            swept.delivery_ids,
            swept.bodies,
            if swept.more { ", more are due" } else { "" }
        ),
        other => write!(text, "{other:?}"),
    }
    .expect("room");
    text.push('\n');
    text
}

fn show_uids(uids: &[UidRange]) -> String {
    let range = |range: &UidRange| match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{}:{}", range.first, range.last),
    };
    uids.iter().map(range).collect::<Vec<_>>().join(",")
}

fn show_folders(world: &World, name: &str) -> String {
    let page = query::list_folders(&world.view, id(name), None, 1_000).expect("readable");
    let mut text = String::new();
    for folder in page.items {
        writeln!(
            text,
            "{} in {} {:?}: uidvalidity {} uidnext {} highestmodseq {} exists {} unseen {} deleted {} bytes {}",
            folder.id,
            folder.parent,
            folder.name,
            folder.uid_validity,
            folder.uid_next,
            folder.highest_modseq,
            folder.exists,
            folder.unseen,
            folder.deleted,
            folder.size_bytes
        )
        .expect("room");
    }
    text
}

fn show_messages(world: &World, line: &Line<'_>) -> String {
    let name = line.word(1);
    let folder = line.number_field("folder").unwrap_or(1) as u32;
    let filter = MessageFilter::default();
    let page = query::list_messages(&world.view, id(name), folder, &filter, None, 1_000);
    let mut text = String::new();
    for message in page.expect("readable").items {
        let email = world.email(name, message.email_id);
        let body =
            &world.view.rows()[&query::body_rows(&world.view, &email).expect("readable")[0].key];
        let names = FLAGS.iter().filter(|(_, bit)| message.system_flags & bit != 0);
        let mut all: Vec<&str> = names.map(|(name, _)| *name).collect();
        all.extend(message.keywords.iter().map(String::as_str));
        writeln!(
            text,
            "uid {} email {} modseq {} saved {} [{}] {:?}",
            message.uid,
            message.email_id,
            message.modseq,
            message.saved.0,
            all.join(" "),
            String::from_utf8_lossy(body)
        )
        .expect("room");
    }
    text
}

fn show_changes(world: &World, line: &Line<'_>) -> String {
    let folder = line.number_field("folder").map(|folder| folder as u32);
    let since = FeedPosition::at(line.number_field("since").unwrap_or(0));
    let limit = line.number_field("limit").unwrap_or(1_000) as usize;
    let answer = query::changes_since(&world.view, id(line.word(1)), folder, since, limit);
    match answer.expect("readable") {
        ChangesSince::NotFound => "not found\n".into(),
        ChangesSince::TooOld { floor } => format!("too old, floor {floor}\n"),
        ChangesSince::Changes(feed) => {
            let mut text = String::new();
            for change in &feed.changes {
                writeln!(
                    text,
                    "modseq {} folder {} uid {} {:?}",
                    change.modseq, change.folder, change.uid, change.kind
                )
                .expect("room");
            }
            writeln!(text, "next {}{}", feed.next.read_to, if feed.more { ", more" } else { "" })
                .expect("room");
            text
        }
    }
}

/// How many rows each table has.
fn show_rows(world: &World) -> String {
    let mut text = String::new();
    for table in mailbox::keys::table::ALL {
        let rows = world.rows(table);
        if rows > 0 {
            writeln!(text, "table {table:02x}: {rows}").expect("room");
        }
    }
    text
}
