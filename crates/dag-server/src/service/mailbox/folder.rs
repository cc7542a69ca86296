//! Folders: list and make.

use dag_api::Problem;
use dag_api::mailbox::v1 as api;
use mailbox::command::CreateFolder;
use mailbox::{Outcome, query};
use tokio::time::Instant;

use super::{Carried, MailboxServer, check_request_id, moved, unexpected};
use crate::service::text::{PageToken, folder_id, page_size, parse_folder_id};

/// The folder's id that mailboxes begin with.
const INBOX: u32 = 1;

impl MailboxServer {
    pub(super) async fn folders(
        &self,
        request: api::ListFoldersRequest,
        deadline: Instant,
    ) -> Result<api::ListFoldersResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let page = PageToken::of_query(&["folders", &place.mailbox.to_string()]);
        let (after, size) = (page.read(&request.page_token)?, page_size(request.page_size));
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            let mailbox = query::get_mailbox(&view, place.mailbox)?;
            let folders = query::list_folders(&view, place.mailbox, after, size)?;
            Ok(mailbox.filter(|mailbox| mailbox.deleted.is_none()).map(|_| folders))
        });
        let (folders, token) = read.await?;
        let folders = folders.ok_or_else(|| moved(place))?;
        Ok(api::ListFoldersResponse {
            next_page_token: page.write(folders.next),
            folders: folders.items.into_iter().map(api_folder).collect(),
            token: Some(token.into()),
            staleness: None,
        })
    }

    pub(super) async fn make_folder(
        &self,
        request: api::CreateFolderRequest,
        deadline: Instant,
    ) -> Result<api::CreateFolderResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        check_request_id(&request.request_id)?;
        let parent = parse_folder_id(&request.parent_id)?.unwrap_or(0);
        let bytes = request.display_name.len() as u64;
        let operation = CreateFolder::new(place.mailbox, parent, request.display_name.clone());
        let request_id = &request.request_id;
        let carried = self.carry_out(place.database, request_id, operation.into(), bytes, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::FolderCreated(created) = outcome else {
            return Err(unexpected(place.database));
        };
        let folder = api::Folder {
            folder_id: folder_id(created.folder),
            parent_id: request.parent_id,
            display_name: request.display_name,
            uid_validity: created.uid_validity,
            uid_next: 1,
            highest_modseq: created.modseq,
            ..api::Folder::default()
        };
        Ok(api::CreateFolderResponse { folder: Some(folder), token: Some(token.into()), replayed })
    }
}

pub(super) fn api_folder(folder: query::Folder) -> api::Folder {
    let special = if folder.id == INBOX { api::SpecialUse::Inbox } else { Default::default() };
    api::Folder {
        folder_id: folder_id(folder.id),
        parent_id: if folder.parent == 0 { String::new() } else { folder_id(folder.parent) },
        display_name: folder.name,
        special_use: special.into(),
        uid_validity: folder.uid_validity,
        uid_next: folder.uid_next,
        highest_modseq: folder.highest_modseq,
        exists: folder.exists.into(),
        unseen: folder.unseen.into(),
        deleted: folder.deleted.into(),
        size_bytes: folder.size_bytes,
    }
}
