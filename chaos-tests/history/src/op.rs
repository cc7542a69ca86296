//! What a client asked of a mailbox, and what it was told.
//!
//! One operation is one thing that a person or a front end wanted, with all its attempts: a client
//! library that repeats a request under the same request id still performs one operation, which
//! begins with the first attempt and ends with the answer to the last.

use std::collections::BTreeSet;
use std::fmt;

use dag_types::Lineage;
use serde::{Deserialize, Serialize};

use crate::Nanos;

/// Where messages are: a folder of a mailbox. Names are the workload's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The mailbox.
    pub mailbox: String,
    /// A folder in it.
    pub folder: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.mailbox, self.folder)
    }
}

/// Flags and keywords of a message.
pub type Flags = BTreeSet<String>;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// One message into one place, or one delivery into many.
    Append {
        /// Where to; no place twice.
        places: Vec<Place>,
        /// Names this message and no other one of the run; its body carries it.
        key: String,
        /// Digest of the body.
        body: String,
        /// The flags it begins with.
        #[serde(default, skip_serializing_if = "Flags::is_empty")]
        flags: Flags,
    },
    /// Flags of one message.
    Store {
        /// Where the message is.
        place: Place,
        /// Which one.
        uid: u64,
        /// What to do with `flags`.
        change: Change,
        /// The flags to add, to remove, or to have.
        flags: Flags,
        /// Only if the message was not changed after this MODSEQ.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unchanged_since: Option<u64>,
    },
    /// Messages out of a place, for good.
    Expunge {
        /// Where they are.
        place: Place,
        /// Which ones.
        uids: Vec<u64>,
    },
    /// All messages of a place.
    Read {
        /// Where.
        place: Place,
        /// What the answer must be.
        mode: ReadMode,
    },
}

impl Op {
    /// Whether the operation only looks.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Read { .. })
    }

    /// The places it touches.
    pub fn places(&self) -> &[Place] {
        match self {
            Self::Append { places, .. } => places,
            Self::Store { place, .. } | Self::Expunge { place, .. } | Self::Read { place, .. } => {
                std::slice::from_ref(place)
            }
        }
    }
}

/// How a store uses its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// They are added.
    Add,
    /// They are taken away.
    Remove,
    /// They become the message's flags.
    Replace,
}

/// What a read promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadMode {
    /// It shows everything that was acknowledged before it began.
    Linearizable,
    /// It is labelled as of an earlier moment: some beginning of the log.
    Labelled,
}

/// What a client was told when all went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Op::Append`]: one for each place, in the order asked.
    Appended {
        /// What became of the message in each place.
        #[serde(rename = "placed")]
        at: Vec<AppendedAt>,
    },
    /// To [`Op::Store`].
    Stored {
        /// What became of it.
        result: StoreResult,
        /// The message's MODSEQ afterwards, where the server tells it; always where it changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modseq: Option<u64>,
        /// The message's flags afterwards, where the server tells them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flags: Option<Flags>,
    },
    /// To [`Op::Expunge`].
    Expunged {
        /// The messages that were there and are gone now.
        uids: Vec<u64>,
        /// MODSEQ of the change; 0 where nothing changed.
        modseq: u64,
    },
    /// To [`Op::Read`].
    Seen(Seen),
}

/// What became of a store of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreResult {
    /// The flags changed.
    Changed,
    /// They were so already; nothing changed, no MODSEQ was used.
    Same,
    /// The message was changed after `unchanged_since`; nothing was done.
    Modified,
    /// There is no such message.
    Missing,
}

/// The place that a message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendedAt {
    /// The folder's UIDVALIDITY.
    pub uid_validity: u64,
    /// The message's UID.
    pub uid: u64,
    /// The message's first MODSEQ.
    pub modseq: u64,
}

/// What a read saw.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seen {
    /// The folder's UIDVALIDITY.
    pub uid_validity: u64,
    /// The folder's next UID.
    pub uid_next: u64,
    /// The folder's highest MODSEQ.
    pub highest_modseq: u64,
    /// All messages, in the order of the answer.
    pub messages: Vec<SeenMessage>,
}

impl Seen {
    /// The message of this UID.
    pub fn message(&self, uid: u64) -> Option<&SeenMessage> {
        self.messages.iter().find(|message| message.uid == uid)
    }
}

/// One message in a read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenMessage {
    /// Its UID.
    pub uid: u64,
    /// The key that its body carries.
    pub key: String,
    /// Digest of the body that was read.
    pub body: String,
    /// Its MODSEQ.
    pub modseq: u64,
    /// Its flags.
    #[serde(default, skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
}

/// Which state an answer speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The database.
    pub database: u64,
    /// The lineage under which it was served.
    #[serde(with = "crate::lineage_text")]
    pub lineage: Lineage,
    /// The incarnation of the database's group.
    pub generation: u32,
    /// Of a write, the index of its entry; of a read, the index that it is as of.
    pub index: u64,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It was carried out.
    Ok {
        /// What the client was told.
        #[serde(flatten)]
        answer: Answer,
        /// Which state the answer speaks of, where the server says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Token>,
    },
    /// It certainly had no effect and never will.
    Fail {
        /// The server's reason.
        reason: String,
    },
    /// It may have had its effect, may have it later, once, or never.
    Unknown {
        /// What the client saw instead of an answer.
        reason: String,
    },
}

/// An operation from its call to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its number in the history.
    pub id: u64,
    /// Whose it is. A client has one operation at a time; after an unknown one it is a new client.
    pub client: u64,
    /// When it was called.
    pub invoked: Nanos,
    /// When it ended; `None` where the history ends before.
    pub returned: Option<Nanos>,
    /// What was asked.
    pub op: Op,
    /// How it ended; unknown where the history ends before.
    pub outcome: Outcome,
}

impl Operation {
    /// The answer, where there is one.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Ok { answer, .. } => Some(answer),
            Outcome::Fail { .. } | Outcome::Unknown { .. } => None,
        }
    }

    /// The state that the answer speaks of, where it says so.
    pub fn token(&self) -> Option<Token> {
        match &self.outcome {
            Outcome::Ok { token, .. } => *token,
            Outcome::Fail { .. } | Outcome::Unknown { .. } => None,
        }
    }

    /// Whether it may have had an effect: everything but a proven failure.
    pub fn may_have_happened(&self) -> bool {
        !matches!(self.outcome, Outcome::Fail { .. })
    }

    /// When it was acknowledged, if it was.
    pub fn acknowledged(&self) -> Option<Nanos> {
        self.answer().and(self.returned)
    }

    /// Whether it was over, by its answer, before the other one was called.
    pub fn precedes(&self, other: &Operation) -> bool {
        self.acknowledged().is_some_and(|returned| returned < other.invoked)
    }
}
