//! One database in memory, and short ways to say what to do with it.

use bytes::Bytes;
use dag_types::{LogId, MailboxId, Millis, Write};
use mailbox::command::{
    Append, AppendItem, AppendMany, Content, CreateFolder, CreateMailbox, DeleteMailbox, Deliver,
    Expunge, FlagAction, Parsed, Recipient, SettingsChange, StoreFlags, Sweep, Transfer, UidRange,
    UpdateMailbox, id_bytes,
};
use mailbox::map_view::MapView;
use mailbox::query;
use mailbox::response::{Outcome, Reason, Rejection, Response, StoredAt};
use mailbox::{Command, Operation};

pub const ANNA: &str = "anna";
pub const BEN: &str = "ben";
pub const INBOX: u32 = 1;

/// A database that applies what it is told, each command twice: the results must not differ.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub view: MapView,
    pub now_ms: u64,
    pub index: u64,
    pub fresh_id: u64,
}

/// Anna and Ben, each with an INBOX.
pub fn anna_and_ben() -> World {
    let mut world = World { now_ms: 1_000, ..World::default() };
    for name in [ANNA, BEN] {
        let created = world.run(CreateMailbox::new(id(name), vec![format!("{name}@example.org")]));
        assert!(matches!(created, Outcome::MailboxCreated(_)), "{created:?}");
    }
    world
}

/// A mailbox's id made of its name.
pub fn id(name: &str) -> MailboxId {
    let mut id = [0; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    MailboxId(id)
}

/// A body with right size and digest.
pub fn content(body: &str) -> Content {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let crc32 = u32::from_be_bytes(*blake3_of(&body).first_chunk().expect("long enough"));
    Content::new(body, crc32, Parsed::default())
}

fn blake3_of(body: &[u8]) -> [u8; 32] {
    let content = Content::new(Bytes::copy_from_slice(body), 0, Parsed::default());
    content.blake3.as_ref().try_into().expect("32 bytes")
}

pub fn deliver(delivery_id: &str, to: &[&str], body: &str) -> Deliver {
    Deliver {
        delivery_id: delivery_id.into(),
        sender: "sender@example.net".into(),
        recipients: to
            .iter()
            .map(|name| Recipient::new(format!("{name}@example.org"), id(name)))
            .collect(),
        received_ms: 0,
        content: content(body),
    }
}

pub fn append(name: &str, folder: u32, body: &str) -> Append {
    Append { mailbox_id: id_bytes(id(name)), folder, content: content(body), ..Append::default() }
}

pub fn append_many(name: &str, folder: u32, bodies: &[&str]) -> AppendMany {
    let messages =
        bodies.iter().map(|body| AppendItem { content: content(body), ..AppendItem::default() });
    AppendMany {
        mailbox_id: id_bytes(id(name)),
        folder,
        messages: messages.collect(),
        ..AppendMany::default()
    }
}

/// From Anna's INBOX to another of her folders.
pub fn transfer(uids: &[(u32, u32)], to_folder: u32) -> Transfer {
    let mailbox_id = id_bytes(id(ANNA));
    Transfer { mailbox_id, folder: INBOX, uids: ranges(uids), to_folder, ..Transfer::default() }
}

pub fn store(name: &str, uids: &[(u32, u32)], action: FlagAction, system_flags: u32) -> StoreFlags {
    StoreFlags {
        mailbox_id: id_bytes(id(name)),
        folder: INBOX,
        uids: ranges(uids),
        action: action as i32,
        system_flags,
        ..StoreFlags::default()
    }
}

pub fn expunge(name: &str, uids: &[(u32, u32)]) -> Expunge {
    Expunge {
        mailbox_id: id_bytes(id(name)),
        folder: INBOX,
        uids: ranges(uids),
        ..Expunge::default()
    }
}

pub fn create_folder(name: &str, parent: u32, folder: &str) -> CreateFolder {
    CreateFolder::new(id(name), parent, folder)
}

pub fn delete_mailbox(name: &str) -> DeleteMailbox {
    DeleteMailbox::new(id(name))
}

pub fn sweep(before_ms: u64, limit: u32) -> Sweep {
    Sweep { before_ms, limit }
}

pub fn ranges(uids: &[(u32, u32)]) -> Vec<UidRange> {
    uids.iter().map(|(first, last)| UidRange::new(*first, *last)).collect()
}

impl World {
    /// Applies under a fresh request id.
    pub fn run(&mut self, operation: impl Into<Operation>) -> Outcome {
        self.fresh_id += 1;
        let request_id = format!("fresh-{}", self.fresh_id);
        self.run_as(&request_id, operation).outcome.expect("an outcome")
    }

    /// Applies under the request id given.
    pub fn run_as(&mut self, request_id: &str, operation: impl Into<Operation>) -> Response {
        let command = Command::new(request_id, Millis(self.now_ms), operation.into());
        self.apply(&command).0
    }

    /// Applies, and tells what was written as well.
    pub fn apply(&mut self, command: &Command) -> (Response, Vec<Write>) {
        self.index += 1;
        let at = LogId { term: 1, index: self.index };
        let decoded = Command::decode_from(command.encode_to_bytes()).expect("what was encoded");
        assert_eq!(&decoded, command, "a command survives the log");
        let applied = mailbox::apply(&self.view, at, &decoded).expect("no fault");
        let again = mailbox::apply(&self.view, at, command).expect("no fault");
        assert_eq!(applied, again, "the same command writes the same");
        let answer = Response::decode_from(applied.response.encode_to_bytes());
        assert_eq!(answer.expect("what was encoded"), applied.response, "an answer survives");
        self.view.write(applied.writes.clone());
        (applied.response, applied.writes)
    }

    /// Applies under a fresh request id for somebody whose rights are checked.
    pub fn run_for(&mut self, actor: &[&str], operation: impl Into<Operation>) -> Outcome {
        self.fresh_id += 1;
        let actor = actor.iter().map(|name| name.to_string()).collect();
        let request_id = format!("fresh-{}", self.fresh_id);
        let command = Command::new(request_id, Millis(self.now_ms), operation.into());
        self.apply(&command.on_behalf_of(actor)).0.outcome.expect("an outcome")
    }

    /// Changes Anna's settings.
    pub fn set(&mut self, change: SettingsChange) {
        let outcome = self.run(UpdateMailbox::new(id(ANNA), change));
        assert!(matches!(outcome, Outcome::MailboxUpdated(_)), "{outcome:?}");
    }

    /// Where an append stores.
    pub fn append(&mut self, append: Append) -> StoredAt {
        match self.run(append) {
            Outcome::Appended(at) => at,
            other => panic!("not appended: {other:?}"),
        }
    }

    /// Puts messages with the bodies `1`, `2`, ... into Anna's INBOX.
    pub fn fill_inbox(&mut self, messages: u32) {
        for number in 1..=messages {
            self.append(append(ANNA, INBOX, &number.to_string()));
        }
    }

    /// Why it is refused.
    pub fn refused(&mut self, operation: impl Into<Operation>) -> Rejection {
        match self.run(operation) {
            Outcome::Rejected(rejection) => rejection,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Why it is refused, in one word.
    pub fn reason(&mut self, operation: impl Into<Operation>) -> Reason {
        self.refused(operation).reason()
    }

    /// Results of a delivery, as codes.
    pub fn deliver(&mut self, deliver: Deliver) -> Vec<mailbox::response::RecipientResult> {
        match self.run(deliver) {
            Outcome::Delivered(delivered) => delivered.results,
            other => panic!("not delivered: {other:?}"),
        }
    }

    pub fn folder(&self, name: &str, folder: u32) -> query::Folder {
        query::get_folder(&self.view, id(name), folder).expect("readable").expect("there")
    }

    pub fn mailbox(&self, name: &str) -> query::Mailbox {
        query::get_mailbox(&self.view, id(name)).expect("readable").expect("there")
    }

    pub fn message(&self, name: &str, folder: u32, uid: u32) -> Option<query::Message> {
        query::get_message(&self.view, id(name), folder, uid).expect("readable")
    }

    pub fn email(&self, name: &str, email: u64) -> query::Email {
        query::get_email(&self.view, id(name), email).expect("readable").expect("there")
    }

    /// UIDs of a folder.
    pub fn uids(&self, name: &str, folder: u32) -> Vec<u32> {
        let filter = query::MessageFilter::default();
        let page = query::list_messages(&self.view, id(name), folder, &filter, None, 10_000);
        page.expect("readable").items.iter().map(|message| message.uid).collect()
    }

    /// Rows of a table.
    pub fn rows(&self, table: u8) -> usize {
        self.view.rows().keys().filter(|key| key[0] == table).count()
    }
}
