//! What was expunged and can be restored.

use dag_api::Problem;
use dag_api::mailbox::v1 as api;
use mailbox::Outcome;
use mailbox::command::{PurgeItems, RestoreItems, id_bytes};
use mailbox::query::{self, Item};
use tokio::time::Instant;

use super::{Carried, MailboxServer, Place, Seen, live_mailbox, unexpected};
use crate::service::text::{PageToken, email_id, folder_id, page_size, parse_folder_id};

impl MailboxServer {
    pub(super) async fn items(
        &self,
        request: api::ListRecoverableItemsRequest,
        deadline: Instant,
    ) -> Result<api::ListRecoverableItemsResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let actor = super::actor(request.mailbox.as_ref());
        let page = PageToken::of_query(&["items", &place.mailbox.to_string()]);
        let (after, size) = (page.read(&request.page_token)?, page_size(request.page_size));
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            let mailbox = match live_mailbox(view, place)? {
                Ok(mailbox) => mailbox,
                Err(problem) => return Ok(Err(problem)),
            };
            if let Err(problem) = super::check_owner(place, &mailbox, &actor) {
                return Ok(Err(problem));
            }
            Ok(Ok(query::list_items(&view, place.mailbox, after, size)?))
        });
        let Seen { value, token, staleness } = read.await?;
        Ok(api::ListRecoverableItemsResponse {
            next_page_token: page.write(value.next),
            items: value.items.into_iter().map(|item| api_item(place, item)).collect(),
            token,
            staleness,
        })
    }

    pub(super) async fn restore(
        &self,
        request: api::RestoreRecoverableItemsRequest,
        deadline: Instant,
    ) -> Result<api::RestoreRecoverableItemsResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let restore = RestoreItems {
            mailbox_id: id_bytes(place.mailbox),
            items: request.item_ids.clone(),
            folder: parse_folder_id(&request.folder_id)?.unwrap_or(0),
        };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, restore, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::Restored(restored) = outcome else {
            return Err(unexpected(place.database));
        };
        let item = |(item_id, at): (&u64, &mailbox::response::StoredAt)| api::RestoredItem {
            item_id: *item_id,
            folder_id: folder_id(at.folder),
            uid_validity: at.uid_validity,
            uid: at.uid,
            email_id: email_id(place.mailbox, at.email_id),
            modseq: at.modseq,
        };
        Ok(api::RestoreRecoverableItemsResponse {
            items: request.item_ids.iter().zip(&restored.stored).map(item).collect(),
            token: Some(token.into()),
            replayed,
        })
    }

    pub(super) async fn purge(
        &self,
        request: api::PurgeRecoverableItemsRequest,
        deadline: Instant,
    ) -> Result<api::PurgeRecoverableItemsResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let (mailbox_id, items) = (id_bytes(place.mailbox), request.item_ids);
        let purge = PurgeItems { mailbox_id, items };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, purge, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::ItemsPurged(purged) = outcome else {
            return Err(unexpected(place.database));
        };
        let (purged, token) = (purged.items, Some(token.into()));
        Ok(api::PurgeRecoverableItemsResponse { purged, token, replayed })
    }
}

fn api_item(place: Place, item: Item) -> api::RecoverableItem {
    api::RecoverableItem {
        item_id: item.id,
        email_id: email_id(place.mailbox, item.email_id),
        folder_id: folder_id(item.folder),
        uid: item.uid,
        system_flags: item.system_flags,
        keywords: item.keywords,
        size: item.size,
        delete_time: Some(dag_api::convert::timestamp(item.deleted)),
        deleted_by: item.deleted_by,
        purge_time: item.purge.map(dag_api::convert::timestamp),
    }
}
