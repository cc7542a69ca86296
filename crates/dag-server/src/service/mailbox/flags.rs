//! Flags, keywords, and removal.

use dag_api::mailbox::v1 as api;
use dag_api::{BadMessage, Problem};
use mailbox::Outcome;
use mailbox::command::{Expunge, FlagAction, StoreFlags, id_bytes};
use tokio::time::Instant;

use super::list::{ranges, uid_set};
use super::{Carried, MailboxServer, unexpected};
use crate::service::text::need_folder_id;

impl MailboxServer {
    pub(super) async fn flags(
        &self,
        request: api::StoreFlagsRequest,
        deadline: Instant,
    ) -> Result<api::StoreFlagsResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let action = action(request.operation())?;
        let store = StoreFlags {
            mailbox_id: id_bytes(place.mailbox),
            folder: need_folder_id(&request.folder_id)?,
            expected_uid_validity: request.expected_uid_validity,
            uids: ranges(&need_uids(request.uids.as_ref())?),
            action: action.into(),
            system_flags: request.system_flags,
            keywords: request.keywords,
            unchanged_since: request.unchanged_since,
        };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, store, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::FlagsStored(stored) = outcome else {
            return Err(unexpected(place.database));
        };
        Ok(api::StoreFlagsResponse {
            changed: Some(uid_set(&stored.changed)),
            unchanged: Some(uid_set(&stored.unchanged)),
            modified: Some(uid_set(&stored.modified)),
            modseq: stored.modseq,
            token: Some(token.into()),
            replayed,
        })
    }

    pub(super) async fn expunge(
        &self,
        request: api::ExpungeMessagesRequest,
        deadline: Instant,
    ) -> Result<api::ExpungeMessagesResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let expunge = Expunge {
            mailbox_id: id_bytes(place.mailbox),
            folder: need_folder_id(&request.folder_id)?,
            expected_uid_validity: request.expected_uid_validity,
            uids: ranges(&need_uids(request.uids.as_ref())?),
            only_deleted: request.only_deleted,
            beyond_recovery: request.beyond_recovery,
        };
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, expunge, deadline);
        let Carried { outcome, token, replayed } = carried.await?;
        let Outcome::Expunged(expunged) = outcome else {
            return Err(unexpected(place.database));
        };
        Ok(api::ExpungeMessagesResponse {
            vanished: Some(uid_set(&expunged.vanished)),
            modseq: expunged.modseq,
            token: Some(token.into()),
            replayed,
        })
    }
}

fn action(operation: api::FlagOperation) -> Result<FlagAction, BadMessage> {
    match operation {
        api::FlagOperation::Add => Ok(FlagAction::Add),
        api::FlagOperation::Remove => Ok(FlagAction::Remove),
        api::FlagOperation::Replace => Ok(FlagAction::Replace),
        api::FlagOperation::Unspecified => {
            Err(BadMessage { field: "operation", wanted: "add, remove or replace" })
        }
    }
}

/// A change without a set is no change of everything.
pub(super) fn need_uids(uids: Option<&api::UidSet>) -> Result<api::UidSet, BadMessage> {
    let uids = uids.filter(|uids| !uids.ranges.is_empty());
    let uids = uids.ok_or(BadMessage { field: "uids", wanted: "at least one range" })?;
    uids.validate()?;
    Ok(uids.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_its_messages_and_what_to_do() {
        assert!(action(api::FlagOperation::Unspecified).is_err());
        assert!(need_uids(None).is_err());
        assert!(need_uids(Some(&api::UidSet::default())).is_err());
        assert!(need_uids(Some(&api::UidSet::range(0, 3))).is_err());
        assert!(need_uids(Some(&api::UidSet::range(1, 3))).is_ok());
    }
}
