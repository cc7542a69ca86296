//! The rest of the API: requests as they stand in `dag_client::v1`, sent to where the mailbox is.
//!
//! Each call fills in where the mailbox is (whoever the request's own reference names as actor
//! stays), and gives a change without a request id one of its own, so that all its attempts are one.

use dag_api::mailbox::v1::{
    AppendBatchRequest, AppendBatchResponse, CopyMessagesRequest, CopyMessagesResponse,
    CreateFolderRequest, CreateFolderResponse, DeleteFolderRequest, DeleteFolderResponse,
    GetChangesRequest, GetChangesResponse, GetFolderChangesRequest, GetFolderChangesResponse,
    GetFolderRightsRequest, GetFolderRightsResponse, GetMailboxRequest, GetMailboxResponse,
    GetQuotaRequest, GetQuotaResponse, ListFoldersRequest, ListFoldersResponse,
    ListMessagesRequest, ListMessagesResponse, ListRecoverableItemsRequest,
    ListRecoverableItemsResponse, ListSubscriptionsRequest, ListSubscriptionsResponse, MailboxRef,
    MoveMessagesRequest, MoveMessagesResponse, PurgeRecoverableItemsRequest,
    PurgeRecoverableItemsResponse, RenameInboxRequest, RenameInboxResponse,
    RestoreRecoverableItemsRequest, RestoreRecoverableItemsResponse, SearchMessageTraceRequest,
    SearchMessageTraceResponse, SearchMessagesRequest, SearchMessagesResponse,
    SetFolderRightsRequest, SetFolderRightsResponse, SetSubscriptionRequest,
    SetSubscriptionResponse, UpdateFolderRequest, UpdateFolderResponse, UpdateMailboxRequest,
    UpdateMailboxResponse,
};

use dag_api::mailbox::v1::locate_mailbox_request::Mailbox as Subject;
use dag_types::DatabaseId;

use crate::ask::{Attempt, Question};
use crate::client::{Client, new_id};
use crate::error::{Error, Stop};
use crate::nodes::Whom;
use crate::places::{MailboxName, Place};
use crate::trial::Trial;

/// Where the mailbox is, for whom the request names.
pub(crate) fn reference(given: Option<&MailboxRef>, place: Place) -> Option<MailboxRef> {
    let actor = given.map(|given| given.actor.clone()).unwrap_or_default();
    Some(MailboxRef { actor, ..place.to_ref() })
}

macro_rules! ask {
    ($client:expr, $name:expr, $method:ident, $request:expr) => {{
        let call = |attempt: Attempt, place: Place| {
            let mut message = $request.clone();
            message.mailbox = reference($request.mailbox.as_ref(), place);
            let request = attempt.request(message);
            let mut service = attempt.service;
            async move {
                let answer = service.$method(request).await?.into_inner();
                let token = answer.token.clone();
                Ok((answer, token))
            }
        };
        $client.ask_mailbox(&$name.into(), call).await
    }};
}

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident => $method:ident($request:ty) -> $response:ty;)*) => {
        impl Client {$(
            $(#[$doc])*
            pub async fn $name(
                &self,
                name: impl Into<MailboxName>,
                request: $request,
            ) -> Result<$response, Error> {
                ask!(self, name, $method, request)
            }
        )*}
    };
}

macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident => $method:ident($request:ty) -> $response:ty;)*) => {
        impl Client {$(
            $(#[$doc])*
            pub async fn $name(
                &self,
                name: impl Into<MailboxName>,
                mut request: $request,
            ) -> Result<$response, Error> {
                if request.request_id.is_empty() {
                    request.request_id = new_id();
                }
                ask!(self, name, $method, request)
            }
        )*}
    };
}

reads! {
    /// The mailbox as a whole, with the consistency that the request asks for.
    get_mailbox => get_mailbox(GetMailboxRequest) -> GetMailboxResponse;
    /// What is used and what may be.
    quota => get_quota(GetQuotaRequest) -> GetQuotaResponse;
    /// A page of folders.
    list_folders => list_folders(ListFoldersRequest) -> ListFoldersResponse;
    /// Subscribed names that are no folders.
    subscriptions => list_subscriptions(ListSubscriptionsRequest) -> ListSubscriptionsResponse;
    /// Who may do what with a folder.
    folder_rights => get_folder_rights(GetFolderRightsRequest) -> GetFolderRightsResponse;
    /// A page of messages.
    list_messages => list_messages(ListMessagesRequest) -> ListMessagesResponse;
    /// A page of messages that match.
    search => search_messages(SearchMessagesRequest) -> SearchMessagesResponse;
    /// A page of what is different since a MODSEQ.
    changes => get_changes(GetChangesRequest) -> GetChangesResponse;
    /// A page of folders that are different since a MODSEQ.
    folder_changes => get_folder_changes(GetFolderChangesRequest) -> GetFolderChangesResponse;
    /// A page of what was expunged and can be restored.
    recoverable_items =>
        list_recoverable_items(ListRecoverableItemsRequest) -> ListRecoverableItemsResponse;
}

changes! {
    /// Changes settings: quota, retention, hold, owner.
    update_mailbox => update_mailbox(UpdateMailboxRequest) -> UpdateMailboxResponse;
    /// Makes a folder; [`Client::create_folder`] with all its fields.
    make_folder => create_folder(CreateFolderRequest) -> CreateFolderResponse;
    /// Renames or moves a folder, changes its special use or subscription.
    update_folder => update_folder(UpdateFolderRequest) -> UpdateFolderResponse;
    /// Deletes a folder with its messages.
    delete_folder => delete_folder(DeleteFolderRequest) -> DeleteFolderResponse;
    /// Moves the INBOX's messages to a new folder.
    rename_inbox => rename_inbox(RenameInboxRequest) -> RenameInboxResponse;
    /// Subscribes a name, or gives it up.
    set_subscription => set_subscription(SetSubscriptionRequest) -> SetSubscriptionResponse;
    /// Gives or takes rights on a folder.
    set_folder_rights => set_folder_rights(SetFolderRightsRequest) -> SetFolderRightsResponse;
    /// Puts several messages into a folder, all or none.
    append_batch => append_batch(AppendBatchRequest) -> AppendBatchResponse;
    /// Copies messages, all or none.
    copy => copy_messages(CopyMessagesRequest) -> CopyMessagesResponse;
    /// Moves messages, all or none.
    move_messages => move_messages(MoveMessagesRequest) -> MoveMessagesResponse;
    /// Brings expunged messages back, all or none.
    restore_items => restore_recoverable_items(RestoreRecoverableItemsRequest)
        -> RestoreRecoverableItemsResponse;
    /// Removes expunged messages for good.
    purge_items =>
        purge_recoverable_items(PurgeRecoverableItemsRequest) -> PurgeRecoverableItemsResponse;
}

impl Client {
    /// A page of what became of messages of one database.
    pub async fn trace(
        &self,
        database: DatabaseId,
        mut request: SearchMessageTraceRequest,
    ) -> Result<SearchMessageTraceResponse, Error> {
        request.database_id = database.0;
        let subject = Subject::MailboxId(request.mailbox_id.clone());
        let mut trial = Trial::new(&self.shared.options);
        let question = Question::new(Whom::Active(database), subject);
        let call = |attempt: Attempt| {
            let message = attempt.request(request.clone());
            let mut service = attempt.service;
            async move {
                let answer = service.search_message_trace(message).await?.into_inner();
                let token = answer.token.clone();
                Ok((answer, token))
            }
        };
        match self.shared.ask(question, &mut trial, call).await {
            Ok(answer) => Ok(answer),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Relocate(problem)) => Err(problem.into()),
        }
    }
}
