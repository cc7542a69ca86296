//! The naive model, continued: who may do what (RFC 4314).

use std::collections::BTreeMap;

use mailbox::command::UpdateFolder;
use mailbox::flags::{ALL, DELETED, SEEN};
use mailbox::response::Reason;
use mailbox::{Operation, rights};

use crate::model::{Model, Refused};

/// What is given to somebody, without what is taken.
fn effective(table: &BTreeMap<String, u32>, actor: &[String]) -> u32 {
    let of = |name: &str| table.get(name).copied().unwrap_or(0);
    let names = || actor.iter().map(String::as_str).chain(["anyone"]);
    let given = names().fold(0, |bits, name| bits | of(name));
    let taken = names().fold(0, |bits, name| bits | of(&format!("-{name}")));
    given & !taken
}

impl Model {
    /// What the operator, a transport and the store itself do is done for nobody.
    pub fn may_have_an_actor(&self, operation: &Operation) -> Refused<()> {
        let for_nobody = matches!(
            operation,
            Operation::CreateMailbox(_)
                | Operation::DeleteMailbox(_)
                | Operation::UpdateMailbox(_)
                | Operation::Deliver(_)
                | Operation::Sweep(_)
                | Operation::StageChunk(_)
        );
        match for_nobody && !self.actor.is_empty() {
            true => Err(Reason::FieldInvalid),
            false => Ok(()),
        }
    }

    fn is_owner(&self, name: &str) -> bool {
        let owner = &self.mailboxes[name].settings.owner;
        self.actor.is_empty() || self.actor.iter().any(|own| own == owner)
    }

    pub fn demand_owner(&self, name: &str) -> Refused<()> {
        if self.is_owner(name) { Ok(()) } else { Err(Reason::AccessDenied) }
    }

    /// All rights that the actor has, if those that are needed are among them.
    pub fn demand(&self, name: &str, folder: u32, needed: u32) -> Refused<u32> {
        if self.is_owner(name) {
            return Ok(rights::ALL);
        }
        let folder = self.mailboxes[name].folders.get(&folder);
        let has = folder.map_or(0, |folder| effective(&folder.rights, &self.actor));
        match () {
            () if has & rights::LOOKUP == 0 => Err(Reason::FolderNotFound),
            () if has & needed != needed => Err(Reason::AccessDenied),
            () => Ok(has),
        }
    }

    pub fn demand_children(&self, name: &str, parent: u32) -> Refused<()> {
        match parent {
            0 => self.demand_owner(name),
            parent => self.demand(name, parent, rights::CREATE).map(|_| ()),
        }
    }

    /// The system flags that the actor may set in a folder, and whether it may set keywords.
    pub fn changeable(&self, name: &str, folder: u32, needed: u32) -> Refused<(u32, bool)> {
        let has = self.demand(name, folder, needed)?;
        let may = |right: u32, flags: u32| if has & right != 0 { flags } else { 0 };
        let flags = may(rights::KEEP_SEEN, SEEN)
            | may(rights::DELETE_MESSAGES, DELETED)
            | may(rights::WRITE, ALL & !SEEN & !DELETED);
        Ok((flags, has & rights::WRITE != 0))
    }

    pub fn may_update_folder(
        &self,
        name: &str,
        command: &UpdateFolder,
        parent: u32,
    ) -> Refused<()> {
        let renames = command.name.is_some() || command.parent.is_some();
        let mut needed = if renames { rights::DELETE_FOLDER } else { 0 };
        if command.special_use.is_some() {
            needed |= rights::ADMINISTER;
        }
        self.demand(name, command.folder, needed)?;
        if command.subscribed.is_some() {
            self.demand_owner(name)?;
        }
        match renames {
            true => self.demand_children(name, command.parent.unwrap_or(parent)),
            false => Ok(()),
        }
    }
}
