//! Comparing what copies hold of each mailbox, row by row, at one entry of the log.
//!
//! The digest that is kept with every command cannot tell of a row that was changed behind its back;
//! this reads them all. At a mark that asks for it every copy keeps its state as it is there, and
//! whoever compares walks through all of them together, a page of mailboxes at a time: nothing is
//! remembered between two pages but the last mailbox, so it ends when nobody asks any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dag_api::admin::v1 as api;
use dag_api::admin::v1::dag_admin_service_client::DagAdminServiceClient;
use dag_api::{Problem, Reason};
use dag_types::{DatabaseId, MailboxId, NodeId};
use mailbox::query::{self, MailboxDigest};
use mailbox::view::MailboxView;
use storage::state::{Row, StateRead};
use tokio::time::Instant;

use super::AdminServer;
use crate::machine::ReadFault;

/// Rows of one page, unless a single mailbox has more.
const PAGE_ROWS: u64 = 20_000;
/// How long a node may read for its page.
const PATIENCE: Duration = Duration::from_secs(120);

/// A state that is read through once, and leaves nothing in caches.
struct Once<'s>(&'s dyn StateRead);

impl MailboxView for Once<'_> {
    type Error = ReadFault;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadFault> {
        Ok(self.0.get(key)?)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, ReadFault> {
        Ok(self.0.scan_once(from, to, limit)?)
    }
}

/// One copy's page.
struct Page {
    node: u64,
    digests: BTreeMap<MailboxId, MailboxDigest>,
}

impl AdminServer {
    /// Compares the next mailboxes of these copies.
    pub(super) async fn compare_mailboxes(
        &self,
        request: api::CompareMailboxesRequest,
        deadline: Instant,
    ) -> Result<api::CompareMailboxesResponse, Problem> {
        let control = self.node.control();
        let name = &request.database_name;
        let Some(record) = control.as_ref().and_then(|state| state.database_named(name)) else {
            return Err(self.node.without_name(name, deadline).await);
        };
        let asked = api::ListMailboxDigestsRequest {
            database_id: record.database,
            mark_index: request.mark_index,
            after: request.after.clone(),
        };
        let pages = request.node_ids.iter().map(|node| self.page_of(NodeId(*node), asked.clone()));
        let pages = futures::future::try_join_all(pages).await?;
        let (compared, differing, next) = compare(&pages);
        Ok(api::CompareMailboxesResponse {
            compared,
            differing,
            next: next.map(|mailbox| mailbox.0.to_vec().into()).unwrap_or_default(),
        })
    }

    async fn page_of(
        &self,
        node: NodeId,
        asked: api::ListMailboxDigestsRequest,
    ) -> Result<Page, Problem> {
        let answer = if node == self.node.id() {
            self.mailbox_digests(asked).await?
        } else {
            self.ask_for_digests(node, asked).await?
        };
        let read = |one: &api::MailboxDigest| {
            let mailbox = MailboxId::from_slice(&one.mailbox_id)?;
            let digest = one.digest[..].try_into().ok()?;
            Some((mailbox, MailboxDigest { mailbox, digest, rows: one.rows }))
        };
        let digests = answer.digests.iter().map(read).collect::<Option<_>>();
        let unreadable = || {
            let text = format!("node {node} answered what cannot be understood");
            Problem::new(Reason::Internal, text)
        };
        Ok(Page { node: node.0, digests: digests.ok_or_else(unreadable)? })
    }

    async fn ask_for_digests(
        &self,
        node: NodeId,
        asked: api::ListMailboxDigestsRequest,
    ) -> Result<api::ListMailboxDigestsResponse, Problem> {
        let silent = |detail: String| {
            let text = format!("node {node} cannot be asked for its mailboxes: {detail}");
            Problem::new(Reason::CheckFailed, text).check("node-answers")
        };
        let endpoint = self.node.endpoint(node, DatabaseId::CONTROL);
        let endpoint = endpoint.ok_or_else(|| silent("its address is not known".into()))?;
        let endpoint = self.node.dial.endpoint(&endpoint).map_err(|e| silent(e.to_string()))?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(2)).timeout(PATIENCE);
        let channel = endpoint.connect().await.map_err(|e| silent(e.to_string()))?;
        let mut client = DagAdminServiceClient::new(channel)
            .max_decoding_message_size(4 * dag_api::limits::WIRE_BYTES_MAX);
        let answer = client.list_mailbox_digests(asked).await;
        Ok(answer.map_err(|status| silent(status.message().to_owned()))?.into_inner())
    }

    /// What this node's own copy holds of the next mailboxes. It rests as long as it read, so that
    /// comparing takes half of one thread at most.
    pub(super) async fn mailbox_digests(
        &self,
        request: api::ListMailboxDigestsRequest,
    ) -> Result<api::ListMailboxDigestsResponse, Problem> {
        let database = DatabaseId(request.database_id);
        let after = match request.after.len() {
            0 => None,
            _ => Some(MailboxId::from_slice(&request.after).ok_or_else(|| {
                Problem::new(Reason::InvalidRequest, "that is no mailbox").check("after")
            })?),
        };
        let index = request.mark_index;
        let view = self.node.group(database)?.kept_view(index).ok_or_else(|| {
            let text = format!(
                "the copy on node {} keeps no state at entry {index}: it was not asked to, or \
                 nobody asked for a minute; begin the comparison again",
                self.node.id()
            );
            Problem::new(Reason::CheckFailed, text).check("state-kept").database(database)
        })?;
        let began = Instant::now();
        let read = tokio::task::spawn_blocking(move || page(&view, after)).await;
        let digests = match read {
            Ok(Ok(digests)) => digests,
            Ok(Err(fault)) => {
                let problem = Problem::new(Reason::RecordCorrupt, fault.to_string());
                return Err(problem.database(database));
            }
            Err(_) => return Err(Problem::new(Reason::Internal, "the reading ended")),
        };
        tokio::time::sleep(began.elapsed()).await;
        let digest = |one: MailboxDigest| api::MailboxDigest {
            mailbox_id: one.mailbox.0.to_vec().into(),
            digest: one.digest.to_vec().into(),
            rows: one.rows,
        };
        let digests = digests.into_iter().map(digest).collect();
        Ok(api::ListMailboxDigestsResponse { digests })
    }
}

fn page(
    view: &Arc<dyn StateRead>,
    after: Option<MailboxId>,
) -> Result<Vec<MailboxDigest>, ReadFault> {
    query::mailbox_digests(&Once(&**view), after, PAGE_ROWS)
}

/// How many mailboxes all pages cover, those of them that are not the same everywhere, and the last
/// one; nothing where no page has any.
fn compare(pages: &[Page]) -> (u64, Vec<api::DifferingMailbox>, Option<MailboxId>) {
    // A page that has none has come to its end; each other one says something up to its last.
    let until = pages.iter().filter_map(|page| page.digests.keys().next_back()).min().copied();
    let Some(until) = until else { return (0, Vec::new(), None) };
    let mut all: Vec<MailboxId> =
        pages.iter().flat_map(|page| page.digests.range(..=until)).map(|(one, _)| *one).collect();
    all.sort();
    all.dedup();
    let of = |page: &Page, mailbox: &MailboxId| page.digests.get(mailbox).copied();
    let differs = |mailbox: &&MailboxId| {
        let first = pages.first().and_then(|page| of(page, mailbox));
        pages.iter().any(|page| of(page, mailbox) != first)
    };
    let line = |mailbox: &MailboxId| {
        let copies = pages.iter().map(|page| {
            let held = of(page, mailbox);
            api::MailboxOnCopy {
                node_id: page.node,
                digest: held.map(|held| held.digest.to_vec().into()).unwrap_or_default(),
                rows: held.map_or(0, |held| held.rows),
            }
        });
        api::DifferingMailbox { mailbox_id: mailbox.to_string(), copies: copies.collect() }
    };
    (all.len() as u64, all.iter().filter(differs).map(line).collect(), Some(until))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(node: u64, held: &[(u8, u8)]) -> Page {
        let one = |&(number, digest): &(u8, u8)| {
            let mailbox = MailboxId([number; 16]);
            (mailbox, MailboxDigest { mailbox, digest: [digest; 16], rows: 1 })
        };
        Page { node, digests: held.iter().map(one).collect() }
    }

    #[test]
    fn only_what_every_page_covers_is_compared_and_the_rest_comes_with_the_next() {
        let pages = [page(1, &[(1, 7), (2, 7)]), page(2, &[(1, 7), (2, 8), (3, 7)])];
        let (compared, differing, next) = compare(&pages);
        assert_eq!((compared, next), (2, Some(MailboxId([2; 16]))));
        assert_eq!(differing.len(), 1);
        assert_eq!(differing[0].mailbox_id, MailboxId([2; 16]).to_string());
        let digests: Vec<u8> = differing[0].copies.iter().map(|copy| copy.digest[0]).collect();
        assert_eq!(digests, [7, 8]);
    }

    #[test]
    fn a_mailbox_that_a_copy_does_not_have_differs_and_the_end_is_where_no_page_has_any() {
        let pages = [page(1, &[]), page(2, &[(5, 1)]), page(3, &[(5, 1)])];
        let (compared, differing, next) = compare(&pages);
        assert_eq!((compared, next), (1, Some(MailboxId([5; 16]))));
        assert!(differing[0].copies[0].digest.is_empty());
        assert_eq!(compare(&[page(1, &[]), page(2, &[])]), (0, Vec::new(), None));
        let same = [page(1, &[(5, 1)]), page(2, &[(5, 1)])];
        assert!(compare(&same).1.is_empty());
    }
}
