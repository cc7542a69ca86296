//! Folders: list, make, change, delete; and subscribed names that are none.

use dag_api::mailbox::v1 as api;
use dag_api::{BadMessage, Problem};
use mailbox::command::{
    CreateFolder, DeleteFolder, RenameInbox, SubscribeName, UpdateFolder, id_bytes,
};
use mailbox::response::FolderCreated;
use mailbox::{Outcome, query, rights};
use tokio::time::Instant;

use super::settings::unknown_field;
use super::{Carried, MailboxServer, Seen, live_mailbox, unexpected};
use crate::service::text::{PageToken, folder_id, need_folder_id, page_size, parse_folder_id};

impl MailboxServer {
    pub(super) async fn folders(
        &self,
        request: api::ListFoldersRequest,
        deadline: Instant,
    ) -> Result<api::ListFoldersResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let actor = super::actor(request.mailbox.as_ref());
        let page = PageToken::of_query(&["folders", &place.mailbox.to_string()]);
        let (after, size) = (page.read(&request.page_token)?, page_size(request.page_size));
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            if let Err(problem) = live_mailbox(view, place)? {
                return Ok(Err(problem));
            }
            let mut folders = query::list_folders(&view, place.mailbox, after, size)?;
            let mut visible = Vec::with_capacity(folders.items.len());
            for folder in folders.items {
                let has = query::rights_of(&view, place.mailbox, folder.id, &actor);
                if actor.is_empty() || has? & rights::LOOKUP != 0 {
                    visible.push(folder);
                }
            }
            folders.items = visible;
            Ok(Ok(folders))
        });
        let Seen { value, token, staleness } = read.await?;
        Ok(api::ListFoldersResponse {
            next_page_token: page.write(value.next),
            folders: value.items.into_iter().map(api_folder).collect(),
            token,
            staleness,
        })
    }

    pub(super) async fn make_folder(
        &self,
        request: api::CreateFolderRequest,
        deadline: Instant,
    ) -> Result<api::CreateFolderResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let parent = parse_folder_id(&request.parent_id)?.unwrap_or(0);
        let create = CreateFolder {
            special_use: request.special_use as u32,
            ..CreateFolder::new(place.mailbox, parent, request.display_name.clone())
        };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, create, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::FolderCreated(created) = outcome else {
            return Err(unexpected(place.database));
        };
        let folder = api::Folder {
            special_use: request.special_use,
            ..new_folder(&created, request.parent_id, request.display_name)
        };
        Ok(api::CreateFolderResponse { folder: Some(folder), token: Some(token.into()), replayed })
    }

    pub(super) async fn change_folder(
        &self,
        request: api::UpdateFolderRequest,
        deadline: Instant,
    ) -> Result<api::UpdateFolderResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let folder = request.folder.ok_or_else(|| super::missing("folder"))?;
        let mask = request.update_mask.ok_or_else(|| super::missing("update_mask"))?;
        let mut update = UpdateFolder::new(place.mailbox, need_folder_id(&folder.folder_id)?);
        update.expected_modseq = request.expected_profile_modseq;
        change(&mut update, &folder, &mask.paths)?;
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, update, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::FolderUpdated(updated) = outcome else {
            return Err(unexpected(place.database));
        };
        Ok(api::UpdateFolderResponse {
            profile_modseq: updated.modseq,
            token: Some(token.into()),
            replayed,
        })
    }

    pub(super) async fn remove_folder(
        &self,
        request: api::DeleteFolderRequest,
        deadline: Instant,
    ) -> Result<api::DeleteFolderResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let delete = DeleteFolder {
            expected_uid_validity: request.expected_uid_validity,
            ..DeleteFolder::new(place.mailbox, need_folder_id(&request.folder_id)?)
        };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, delete, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::FolderDeleted(deleted) = outcome else {
            return Err(unexpected(place.database));
        };
        Ok(api::DeleteFolderResponse {
            modseq: deleted.modseq,
            messages: deleted.messages.into(),
            token: Some(token.into()),
            replayed,
        })
    }

    pub(super) async fn move_inbox(
        &self,
        request: api::RenameInboxRequest,
        deadline: Instant,
    ) -> Result<api::RenameInboxResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let rename = RenameInbox {
            mailbox_id: id_bytes(place.mailbox),
            parent: parse_folder_id(&request.parent_id)?.unwrap_or(0),
            name: request.display_name.clone(),
        };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, rename, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::InboxRenamed(renamed) = outcome else {
            return Err(unexpected(place.database));
        };
        let folder = new_folder(&renamed.folder, request.parent_id, request.display_name);
        Ok(api::RenameInboxResponse {
            folder: Some(folder),
            moved: renamed.moved.into(),
            left: renamed.left.into(),
            token: Some(token.into()),
            replayed,
        })
    }

    pub(super) async fn subscriptions(
        &self,
        request: api::ListSubscriptionsRequest,
        deadline: Instant,
    ) -> Result<api::ListSubscriptionsResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            if let Err(problem) = live_mailbox(view, place)? {
                return Ok(Err(problem));
            }
            Ok(Ok(query::list_subscribed_names(&view, place.mailbox)?))
        });
        let Seen { value, token, staleness } = read.await?;
        Ok(api::ListSubscriptionsResponse { paths: value, token, staleness })
    }

    pub(super) async fn subscribe(
        &self,
        request: api::SetSubscriptionRequest,
        deadline: Instant,
    ) -> Result<api::SetSubscriptionResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let subscribe = SubscribeName {
            mailbox_id: id_bytes(place.mailbox),
            path: request.path,
            subscribed: request.subscribed,
        };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, subscribe, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::NameSubscribed(subscribed) = outcome else {
            return Err(unexpected(place.database));
        };
        let modseq = subscribed.modseq;
        Ok(api::SetSubscriptionResponse { modseq, token: Some(token.into()), replayed })
    }
}

/// Of the folder, what the mask names.
fn change(update: &mut UpdateFolder, folder: &api::Folder, mask: &[String]) -> Result<(), Problem> {
    for name in mask {
        match name.as_str() {
            "parent_id" => update.parent = Some(parse_folder_id(&folder.parent_id)?.unwrap_or(0)),
            "display_name" => update.name = Some(folder.display_name.clone()),
            "special_use" => update.special_use = Some(special_use(folder.special_use)?),
            "subscribed" => update.subscribed = Some(folder.subscribed),
            _ => return Err(unknown_field(name)),
        }
    }
    match mask {
        [] => Err(super::missing("update_mask")),
        _ => Ok(()),
    }
}

fn special_use(number: i32) -> Result<u32, BadMessage> {
    let bad = BadMessage { field: "special_use", wanted: "one of SpecialUse" };
    api::SpecialUse::try_from(number).map(|known| known as u32).map_err(|_| bad)
}

/// A folder as it was when it was made.
fn new_folder(created: &FolderCreated, parent_id: String, display_name: String) -> api::Folder {
    api::Folder {
        folder_id: folder_id(created.folder),
        parent_id,
        display_name,
        uid_validity: created.uid_validity,
        uid_next: 1,
        highest_modseq: created.modseq,
        profile_modseq: created.modseq,
        ..api::Folder::default()
    }
}

pub(super) fn api_folder(folder: query::Folder) -> api::Folder {
    api::Folder {
        folder_id: folder_id(folder.id),
        parent_id: if folder.parent == 0 { String::new() } else { folder_id(folder.parent) },
        display_name: folder.name,
        special_use: folder.special_use as i32,
        uid_validity: folder.uid_validity,
        uid_next: folder.uid_next,
        highest_modseq: folder.highest_modseq,
        exists: folder.exists.into(),
        unseen: folder.unseen.into(),
        deleted: folder.deleted.into(),
        size_bytes: folder.size_bytes,
        subscribed: folder.subscribed,
        vanished_floor: folder.vanished_floor,
        profile_modseq: folder.profile_modseq,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dag_types::MailboxId;

    #[test]
    fn special_uses_have_the_numbers_of_the_core() {
        use mailbox::special_use as core;
        for (api, core) in [
            (api::SpecialUse::Unspecified, core::NONE),
            (api::SpecialUse::Inbox, core::INBOX),
            (api::SpecialUse::Archive, core::ARCHIVE),
            (api::SpecialUse::Trash, core::TRASH),
            (api::SpecialUse::Important, core::IMPORTANT),
        ] {
            assert_eq!(api as u32, core, "{api:?}");
        }
        assert!(special_use(10).is_err() && special_use(-1).is_err());
    }

    #[test]
    fn a_mask_decides_what_of_a_folder_changes() {
        let folder =
            api::Folder { display_name: "x".into(), parent_id: "f7".into(), ..Default::default() };
        let changed = |mask: &[&str]| {
            let mut update = UpdateFolder::new(MailboxId([1; 16]), 3);
            let mask: Vec<String> = mask.iter().map(|name| (*name).to_owned()).collect();
            change(&mut update, &folder, &mask).map(|()| update)
        };
        let update = changed(&["display_name"]).expect("a field");
        assert_eq!((update.name.as_deref(), update.parent), (Some("x"), None));
        assert_eq!(changed(&["parent_id"]).expect("a field").parent, Some(7));
        for mask in [&[][..], &["uid_next"], &["*"]] {
            assert_eq!(changed(mask).unwrap_err().facts.check.as_deref(), Some("update_mask"));
        }
    }
}
