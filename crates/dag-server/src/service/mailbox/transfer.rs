//! Copy and move: all or none, in one entry.

use dag_api::Problem;
use dag_api::mailbox::v1 as api;
use dag_types::DatabaseId;
use mailbox::command::{CopyMessages, MoveMessages, Transfer, id_bytes};
use mailbox::response::Transferred;
use mailbox::{Operation, Outcome};
use tokio::time::Instant;

use super::flags::need_uids;
use super::list::{ranges, uid_set};
use super::{Carried, MailboxServer, Place, unexpected};
use crate::service::text::need_folder_id;

impl MailboxServer {
    pub(super) async fn copy(
        &self,
        request: api::CopyMessagesRequest,
        deadline: Instant,
    ) -> Result<api::CopyMessagesResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let copy: CopyMessages = way(place, &request)?.into();
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, copy, deadline);
        let (done, Carried { token, replayed, .. }) = transferred(carried.await?, place.database)?;
        Ok(api::CopyMessagesResponse {
            uid_validity: done.uid_validity,
            source: Some(uid_set(&done.source)),
            target: Some(uid_set(&done.target)),
            modseq: done.modseq,
            token: Some(token.into()),
            replayed,
        })
    }

    pub(super) async fn transfer(
        &self,
        request: api::MoveMessagesRequest,
        deadline: Instant,
    ) -> Result<api::MoveMessagesResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let request = api::CopyMessagesRequest {
            mailbox: request.mailbox,
            folder_id: request.folder_id,
            expected_uid_validity: request.expected_uid_validity,
            uids: request.uids,
            to_mailbox_id: request.to_mailbox_id,
            to_folder_id: request.to_folder_id,
            to_expected_uid_validity: request.to_expected_uid_validity,
            request_id: request.request_id,
        };
        let transfer: MoveMessages = way(place, &request)?.into();
        let operation = Operation::from(transfer);
        let request_id = &request.request_id;
        let carried = self.carry_out_for(request.mailbox.as_ref(), request_id, operation, deadline);
        let (done, Carried { token, replayed, .. }) = transferred(carried.await?, place.database)?;
        Ok(api::MoveMessagesResponse {
            uid_validity: done.uid_validity,
            source: Some(uid_set(&done.source)),
            target: Some(uid_set(&done.target)),
            modseq: done.modseq,
            source_modseq: done.source_modseq,
            token: Some(token.into()),
            replayed,
        })
    }
}

fn way(place: Place, request: &api::CopyMessagesRequest) -> Result<Transfer, Problem> {
    let to_mailbox = match request.to_mailbox_id.as_str() {
        "" => bytes::Bytes::new(),
        id => id_bytes(dag_api::convert::mailbox_id(id)?),
    };
    Ok(Transfer {
        mailbox_id: id_bytes(place.mailbox),
        folder: need_folder_id(&request.folder_id)?,
        expected_uid_validity: request.expected_uid_validity,
        uids: ranges(&need_uids(request.uids.as_ref())?),
        to_mailbox_id: to_mailbox,
        to_folder: need_folder_id(&request.to_folder_id)?,
        to_expected_uid_validity: request.to_expected_uid_validity,
    })
}

fn transferred(carried: Carried, database: DatabaseId) -> Result<(Transferred, Carried), Problem> {
    match carried.outcome.clone() {
        Outcome::Transferred(done) => Ok((done, carried)),
        _ => Err(unexpected(database)),
    }
}
