//! Where mailboxes are: a cache of what the directory said.

use std::collections::HashMap;
use std::sync::Mutex;

use dag_api::mailbox::v1::MailboxRef;
use dag_api::mailbox::v1::locate_mailbox_request::Mailbox as Subject;
use dag_types::{DatabaseId, MailboxId};

/// When so many are known, all are forgotten: cheaper than keeping track of which are used.
const PLACES_MAX: usize = 200_000;

/// How a caller names a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MailboxName {
    /// By one of its addresses, ASCII letters in lower case.
    Address(String),
    /// By its id.
    Id(MailboxId),
}

impl From<&str> for MailboxName {
    fn from(address: &str) -> Self {
        Self::Address(address.to_ascii_lowercase())
    }
}

impl From<&String> for MailboxName {
    fn from(address: &String) -> Self {
        address.as_str().into()
    }
}

impl From<String> for MailboxName {
    fn from(address: String) -> Self {
        address.as_str().into()
    }
}

impl From<MailboxId> for MailboxName {
    fn from(id: MailboxId) -> Self {
        Self::Id(id)
    }
}

impl MailboxName {
    pub(crate) fn subject(&self) -> Subject {
        match self {
            Self::Address(address) => Subject::Address(address.clone()),
            Self::Id(id) => Subject::MailboxId(id.to_string()),
        }
    }
}

impl std::fmt::Display for MailboxName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// A mailbox and the database that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The mailbox, wherever it moves.
    pub mailbox: MailboxId,
    /// Where it is now.
    pub database: DatabaseId,
}

impl Place {
    pub(crate) fn to_ref(self) -> MailboxRef {
        MailboxRef {
            mailbox_id: self.mailbox.to_string(),
            database_id: self.database.0,
            actor: Vec::new(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Places(Mutex<HashMap<MailboxName, Place>>);

impl Places {
    pub(crate) fn get(&self, name: &MailboxName) -> Option<Place> {
        self.0.lock().expect("nobody panics while holding it").get(name).copied()
    }

    pub(crate) fn keep(&self, name: &MailboxName, place: Place) {
        let mut places = self.0.lock().expect("nobody panics while holding it");
        if places.len() >= PLACES_MAX {
            places.clear();
        }
        places.insert(name.clone(), place);
    }

    pub(crate) fn forget(&self, name: &MailboxName) {
        self.0.lock().expect("nobody panics while holding it").remove(name);
    }
}
