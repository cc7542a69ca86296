//! The naive model, continued: bodies, and those that come in chunks before their message.

use std::sync::LazyLock;

use bytes::Bytes;
use mailbox::Operation;
use mailbox::command::{Content, Parsed, StageChunk};
use mailbox::keys::{self, Due};
use mailbox::limits::{BODY_CHUNK_BYTES, STAGED_KEPT_MS};
use mailbox::response::{Outcome, Reason, Staged};

use crate::model::{DueModel, Model, Refused};
use crate::world::content;

/// The only body of generated commands that is larger than one chunk: two of them.
pub static LARGE: LazyLock<Content> = LazyLock::new(|| {
    let bytes = BODY_CHUNK_BYTES.max as usize + 5;
    content(&"a large body. ".repeat(bytes / 14 + 1)[..bytes])
});

/// The chunks of the large body, and the content that refers to them.
pub static STAGED: LazyLock<(Vec<StageChunk>, Content)> = LazyLock::new(|| {
    let mut content = LARGE.clone();
    (content.stage(), content)
});

/// The rows of a body that are there.
#[derive(Debug, Clone, Default)]
pub struct BodyModel {
    /// Bytes of each.
    pub rows: Vec<usize>,
}

impl BodyModel {
    fn present(&self) -> usize {
        self.rows.iter().sum()
    }

    /// All of it is there from here on: in one row, or in chunks where the first were.
    pub fn complete(&mut self, whole: &[u8]) {
        if self.rows.is_empty() {
            self.rows.push(whole.len());
        }
        while self.present() < whole.len() {
            let chunk = BODY_CHUNK_BYTES.max as usize;
            self.rows.push(chunk.min(whole.len() - self.present()));
        }
    }
}

/// The bytes of a content, wherever they are.
pub fn body_of(content: &Content) -> Bytes {
    match content.staged {
        true => LARGE.body.clone(),
        false => content.body.clone(),
    }
}

pub fn digest_of(body: &[u8]) -> [u8; 32] {
    if body.len() == LARGE.body.len() {
        return LARGE.blake3.as_ref().try_into().expect("32 bytes");
    }
    let text = std::str::from_utf8(body).expect("the model's bodies are text");
    content(text).blake3.as_ref().try_into().expect("32 bytes")
}

/// What a client asks for: its bodies count by their digests, however they come.
pub fn asked(operation: &Operation) -> Operation {
    let mut operation = operation.clone();
    let contents = match &mut operation {
        Operation::Append(append) => vec![&mut append.content],
        Operation::AppendMany(append) => {
            append.messages.iter_mut().map(|item| &mut item.content).collect()
        }
        _ => Vec::new(),
    };
    for content in contents {
        (content.body, content.staged, content.parsed) = (Bytes::new(), false, Parsed::default());
    }
    operation
}

fn refers_to_staged(operation: &Operation) -> bool {
    match operation {
        Operation::Deliver(deliver) => deliver.content.staged,
        Operation::Append(append) => append.content.staged,
        Operation::AppendMany(append) => append.messages.iter().any(|item| item.content.staged),
        _ => false,
    }
}

impl Model {
    pub fn is_staged(&self, operation: &Operation) -> Refused<()> {
        let present = self.bodies.get(&LARGE.body).map_or(0, BodyModel::present);
        match refers_to_staged(operation) && present < LARGE.body.len() {
            true => Err(Reason::BodyNotStaged),
            false => Ok(()),
        }
    }

    pub fn stage(&mut self, command: &StageChunk) -> Refused<Outcome> {
        let now_ms = self.now_ms;
        let is_due = |due: &DueModel| matches!(due, DueModel::Body(body) if *body == LARGE.body);
        let was_there = self.bodies.contains_key(&LARGE.body);
        let body = self.bodies.entry(LARGE.body.clone()).or_default();
        let whole = body.present() == LARGE.body.len();
        if !whole && command.chunk as usize >= body.rows.len() {
            if command.chunk as usize != body.rows.len() {
                return Err(Reason::BodyNotStaged);
            }
            body.rows.push(command.bytes.len());
        }
        let whole = body.present() == LARGE.body.len();
        let chunks = if whole { 2 } else { body.rows.len() as u32 };
        if !was_there || self.due.values().any(is_due) {
            self.due.retain(|_, due| !is_due(due));
            let due = keys::due(now_ms + STAGED_KEPT_MS, &Due::Body(digest_of(&LARGE.body)));
            self.due.insert(due, DueModel::Body(LARGE.body.clone()));
        }
        Ok(Outcome::Staged(Staged { chunks }))
    }
}
