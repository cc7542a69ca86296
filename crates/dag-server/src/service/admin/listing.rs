//! The directory, page by page, from this node's own copy.

use active_manager::directory::query;
use dag_api::admin::v1 as api;
use dag_api::{Problem, Reason};
use dag_types::DatabaseId;
use tokio::time::Instant;

use super::AdminServer;
use crate::machine::View;
use crate::service::text::{PageToken, page_size};

impl AdminServer {
    pub(super) async fn mailboxes(
        &self,
        request: api::ListMailboxesRequest,
        deadline: Instant,
    ) -> Result<api::ListMailboxesResponse, Problem> {
        let control = self.node.control();
        let wanted = match request.database_name.as_str() {
            "" => None,
            name => match control.as_ref().and_then(|state| state.database_named(name)) {
                Some(record) => Some(record.id()),
                None => return Err(self.node.without_name(name, deadline).await),
            },
        };
        let page = PageToken::of_query(&["mailboxes", &request.database_name]);
        let after: String = page.read(&request.page_token)?.unwrap_or_default();
        let size = page_size(request.page_size);
        let group = self.node.group(DatabaseId::DIRECTORY)?;
        let read = move || query::page(&View(&*group.view()), &after, size);
        let found = tokio::task::spawn_blocking(read).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(fault)) => return Err(Problem::new(Reason::RecordCorrupt, fault.to_string())),
            Err(_) => return Err(Problem::new(Reason::Internal, "the listing ended")),
        };
        let next = (found.len() == size).then(|| found.last().map(|(address, _)| address.clone()));
        let name_of = |id: DatabaseId| {
            let record = control.as_ref().and_then(|state| state.database(id));
            record.map(|record| record.name.clone()).unwrap_or_default()
        };
        // Pages are cut before they are filtered, so one may be short and not be the last.
        let mailboxes = found.into_iter().filter_map(|(_, record)| {
            let here = wanted.is_none_or(|wanted| wanted == record.database());
            here.then(|| api::MailboxEntry {
                address: record.address.clone(),
                mailbox_id: record.id().to_string(),
                database_id: record.database,
                database_name: name_of(record.database()),
                reserved_only: !record.confirmed,
            })
        });
        Ok(api::ListMailboxesResponse {
            mailboxes: mailboxes.collect(),
            next_page_token: page.write(next.flatten()),
            age: Some(self.age()),
        })
    }
}
