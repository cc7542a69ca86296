//! Where a mailbox is.
//!
//! Every data node has a copy of the directory and answers from it, as old as it may be: what is
//! out of date sends a caller to a node that refuses, never to a wrong delivery. That a mailbox is
//! nowhere is said by the directory's active copy alone, because front ends bounce mail on that
//! word.

use active_manager::address::Address;
use active_manager::control::{LineageLink, LinkKind};
use active_manager::directory::{MailboxRecord, query};
use dag_api::mailbox::v1 as api;
use dag_api::mailbox::v1::locate_mailbox_request::Mailbox as Subject;
use dag_api::{Problem, Reason, Token};
use dag_types::{DatabaseId, MailboxId};
use storage::state::StateRead;
use tokio::time::Instant;

use super::MailboxServer;
use crate::admission::Kind;
use crate::machine::{ReadFault, View};
use crate::node::Node;
use crate::status;

const DIRECTORY: DatabaseId = DatabaseId::DIRECTORY;

/// What is looked for.
enum Wanted {
    Address(Address),
    Id(MailboxId),
}

impl MailboxServer {
    pub(super) async fn locate(
        &self,
        request: api::LocateMailboxRequest,
        deadline: Instant,
    ) -> Result<api::LocateMailboxResponse, Problem> {
        let wanted = wanted(request.mailbox)?;
        let node = &self.node;
        let _permit = node.admit(DIRECTORY, Kind::Read, 0)?;
        if !request.authoritative {
            let group = node.group(DIRECTORY)?;
            let applied = group.status().applied.map_or(0, |at| at.index);
            if let Some(record) = find(&*group.view(), &wanted)? {
                return Ok(located(node, &record, node.token(&group, applied)));
            }
        }
        let reading = node.read(DIRECTORY, deadline).await?;
        let found = find(&*reading.view, &wanted)?;
        reading.still()?;
        match found {
            Some(record) => Ok(located(node, &record, reading.token)),
            None => {
                let text = "there is no such mailbox";
                Err(Problem::new(Reason::MailboxNotFound, text).database(DIRECTORY))
            }
        }
    }
}

/// The database of a mailbox, by this node's own copy of the directory.
pub(super) fn known_here(node: &Node, mailbox: MailboxId) -> Result<DatabaseId, Problem> {
    let group = node.group(DIRECTORY)?;
    let known = find(&*group.view(), &Wanted::Id(mailbox))?;
    known
        .map(|record| record.database())
        .ok_or_else(|| status::not_active(DIRECTORY, node.hint(DIRECTORY)))
}

fn wanted(subject: Option<Subject>) -> Result<Wanted, Problem> {
    match subject.ok_or_else(|| super::missing("mailbox"))? {
        Subject::MailboxId(id) => Ok(Wanted::Id(dag_api::convert::mailbox_id(&id)?)),
        Subject::Address(text) => match Address::parse(&text) {
            Ok(address) => Ok(Wanted::Address(address)),
            Err(error) => {
                Err(Problem::new(Reason::InvalidRequest, error.to_string()).check("address"))
            }
        },
    }
}

/// A reservation that nobody confirmed is no mailbox yet.
fn find(view: &dyn StateRead, wanted: &Wanted) -> Result<Option<MailboxRecord>, Problem> {
    let found = match wanted {
        Wanted::Address(address) => query::by_address(&View(view), address),
        Wanted::Id(id) => query::by_id(&View(view), *id),
    };
    let found = found.map_err(|fault| directory_fault(&fault))?;
    Ok(found.filter(|record| record.confirmed))
}

pub(super) fn directory_fault(
    fault: &active_manager::Fault<storage::state::StateError>,
) -> Problem {
    match fault {
        active_manager::Fault::Store(error) => {
            status::fault(&ReadFault::Store(error.clone()), DIRECTORY)
        }
        other => {
            tracing::error!(fault = %other, "the directory cannot be read");
            Problem::new(Reason::RecordCorrupt, other.to_string()).database(DIRECTORY)
        }
    }
}

fn located(node: &Node, record: &MailboxRecord, token: Token) -> api::LocateMailboxResponse {
    let database = record.database();
    let active = node.active_node(database);
    let endpoint = active.and_then(|active| node.endpoint(active, database));
    let name = node.database(database).map(|record| record.name);
    api::LocateMailboxResponse {
        mailbox: Some(api::MailboxRef {
            mailbox_id: record.id().to_string(),
            database_id: database.0,
            actor: Vec::new(),
        }),
        database_name: name.unwrap_or_default(),
        active_node: active.map_or(0, |node| node.0),
        active_endpoint: endpoint.unwrap_or_default(),
        token: Some(token.into()),
        lineage_chain: chain(node),
    }
}

fn chain(node: &Node) -> Vec<api::LineageLink> {
    let Some(control) = node.control() else { return Vec::new() };
    let link = |link: &LineageLink| api::LineageLink {
        lineage: Some(link.lineage().into()),
        kind: link_kind(link.kind()).into(),
        rejected_activation_ids: link.rejected.clone(),
    };
    control.lineage.iter().map(link).collect()
}

fn link_kind(kind: LinkKind) -> api::LineageKind {
    match kind {
        LinkKind::Unspecified => api::LineageKind::Unspecified,
        LinkKind::First => api::LineageKind::First,
        LinkKind::Stop => api::LineageKind::Stop,
        LinkKind::Start => api::LineageKind::Start,
        LinkKind::ActivateFenced => api::LineageKind::ActivateFenced,
        LinkKind::ActivateUnfenced => api::LineageKind::ActivateUnfenced,
        LinkKind::Accept => api::LineageKind::Accept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_a_readable_subject_is_refused() {
        for subject in
            [None, Some(Subject::MailboxId("x".into())), Some(Subject::Address("nobody".into()))]
        {
            let problem = wanted(subject).err().expect("refused");
            assert_eq!(problem.reason, Reason::InvalidRequest);
        }
        assert!(wanted(Some(Subject::Address("Ann@Example.org".into()))).is_ok());
    }
}
