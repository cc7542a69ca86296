//! Rights on shared folders (RFC 4314).

use dag_api::mailbox::v1 as api;
use dag_api::{BadMessage, Problem};
use mailbox::command::{FlagAction, SetRights, id_bytes};
use mailbox::{Outcome, query, rights};
use tokio::time::Instant;

use super::meta::check_rights;
use super::{Carried, MailboxServer, Seen, no_folder, unexpected};
use crate::service::text::need_folder_id;

impl MailboxServer {
    pub(super) async fn rights(
        &self,
        request: api::GetFolderRightsRequest,
        deadline: Instant,
    ) -> Result<api::GetFolderRightsResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let actor = super::actor(request.mailbox.as_ref());
        let folder = need_folder_id(&request.folder_id)?;
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            if query::get_folder(&view, place.mailbox, folder)?.is_none() {
                return Ok(Err(no_folder(place, folder)));
            }
            let has = query::rights_of(&view, place.mailbox, folder, &actor)?;
            if let Err(problem) = check_rights(place, folder, has, 0) {
                return Ok(Err(problem));
            }
            // Only an administrator sees what others have (RFC 4314 4, GETACL).
            let table = match has & rights::ADMINISTER {
                0 => Default::default(),
                _ => query::rights_table(&view, place.mailbox, folder)?,
            };
            Ok(Ok((table, has)))
        });
        let Seen { value: (table, has), token, staleness } = read.await?;
        let entry = |entry: mailbox::records::RightsEntry| api::FolderRights {
            identifier: entry.identifier,
            rights: rights::letters(entry.rights),
        };
        Ok(api::GetFolderRightsResponse {
            entries: table.entries.into_iter().map(entry).collect(),
            actor_rights: rights::letters(has),
            token,
            staleness,
        })
    }

    pub(super) async fn give_rights(
        &self,
        request: api::SetFolderRightsRequest,
        deadline: Instant,
    ) -> Result<api::SetFolderRightsResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let action = action(request.operation())?;
        let entry = request.entry.ok_or_else(|| super::missing("entry"))?;
        let bad = BadMessage { field: "rights", wanted: "letters of lrswipkxtea" };
        let set = SetRights {
            mailbox_id: id_bytes(place.mailbox),
            folder: need_folder_id(&request.folder_id)?,
            identifier: entry.identifier,
            action: action.into(),
            rights: rights::parse(&entry.rights).map_err(|_| bad)?,
        };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, set, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::FolderUpdated(updated) = outcome else {
            return Err(unexpected(place.database));
        };
        Ok(api::SetFolderRightsResponse {
            profile_modseq: updated.modseq,
            token: Some(token.into()),
            replayed,
        })
    }
}

fn action(operation: api::RightsOperation) -> Result<FlagAction, BadMessage> {
    match operation {
        api::RightsOperation::Add => Ok(FlagAction::Add),
        api::RightsOperation::Remove => Ok(FlagAction::Remove),
        api::RightsOperation::Replace => Ok(FlagAction::Replace),
        api::RightsOperation::Unspecified => {
            Err(BadMessage { field: "operation", wanted: "add, remove or replace" })
        }
    }
}
