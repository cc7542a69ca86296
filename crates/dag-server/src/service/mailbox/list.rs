//! A mailbox, and the messages of a folder without their content.

use dag_api::mailbox::v1 as api;
use dag_api::{Problem, Reason};
use dag_types::DatabaseId;
use mailbox::command::UidRange;
use mailbox::query::{self, Email, Folder, Message, MessageFilter};
use tokio::time::Instant;

use super::{MailboxServer, Place, moved, no_folder};
use crate::machine::{ReadFault, View};
use crate::service::text::{PageToken, email_id, need_folder_id, page_size};

/// A page of messages, with the folder they are in.
struct Found {
    folder: Folder,
    messages: Vec<(Message, Option<Email>)>,
    next: Option<u32>,
}

impl MailboxServer {
    pub(super) async fn mailbox(
        &self,
        request: api::GetMailboxRequest,
        deadline: Instant,
    ) -> Result<api::GetMailboxResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            query::get_mailbox(&view, place.mailbox)
        });
        let (mailbox, token) = read.await?;
        let mailbox = mailbox.filter(|mailbox| mailbox.deleted.is_none());
        let mailbox = mailbox.ok_or_else(|| moved(place))?;
        Ok(api::GetMailboxResponse {
            mailbox: Some(api_mailbox(place.database, mailbox)),
            token: Some(token.into()),
            staleness: None,
        })
    }

    pub(super) async fn messages(
        &self,
        request: api::ListMessagesRequest,
        deadline: Instant,
    ) -> Result<api::ListMessagesResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let folder = need_folder_id(&request.folder_id)?;
        let uids = request.uids.unwrap_or_default();
        uids.validate()?;
        let page = PageToken::of_query(&[
            "messages",
            &place.mailbox.to_string(),
            &request.folder_id,
            &format!("{:?}", uids.ranges),
        ]);
        let (after, size) = (page.read(&request.page_token)?, page_size(request.page_size));
        let filter = MessageFilter { uids: ranges(&uids), ..MessageFilter::default() };
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            find(view, place, folder, &filter, after, size)
        });
        let (found, token) = read.await?;
        let found = found.ok_or_else(|| no_folder(place, folder))?;
        check_uid_validity(place, &found.folder, request.expected_uid_validity)?;
        let meta = |(message, email)| api_message(place, message, email);
        Ok(api::ListMessagesResponse {
            messages: found.messages.into_iter().map(meta).collect(),
            next_page_token: page.write(found.next),
            uid_validity: found.folder.uid_validity,
            uid_next: found.folder.uid_next,
            highest_modseq: found.folder.highest_modseq,
            token: Some(token.into()),
            staleness: None,
        })
    }
}

fn find(
    view: View<'_>,
    place: Place,
    folder: u32,
    filter: &MessageFilter,
    after: Option<u32>,
    size: usize,
) -> Result<Option<Found>, ReadFault> {
    let Some(folder) = query::get_folder(&view, place.mailbox, folder)? else { return Ok(None) };
    let page = query::list_messages(&view, place.mailbox, folder.id, filter, after, size)?;
    let mut messages = Vec::with_capacity(page.items.len());
    for message in page.items {
        let email = query::get_email(&view, place.mailbox, message.email_id)?;
        messages.push((message, email));
    }
    Ok(Some(Found { folder, messages, next: page.next }))
}

/// As the core takes them.
pub(super) fn ranges(uids: &api::UidSet) -> Vec<UidRange> {
    uids.ranges.iter().map(|range| UidRange::new(range.first, range.last)).collect()
}

/// As the wire has them.
pub(super) fn uid_set(ranges: &[UidRange]) -> api::UidSet {
    let range = |range: &UidRange| api::UidRange { first: range.first, last: range.last };
    api::UidSet { ranges: ranges.iter().map(range).collect() }
}

/// A folder that was made anew has other messages under the same UIDs.
pub(super) fn check_uid_validity(
    place: Place,
    folder: &Folder,
    expected: u32,
) -> Result<(), Problem> {
    if expected == 0 || expected == folder.uid_validity {
        return Ok(());
    }
    let text = "the folder is not the one you knew; read it again";
    let problem = Problem::new(Reason::UidValidityChanged, text);
    Err(problem.database(place.database).current(folder.uid_validity))
}

pub(super) fn api_mailbox(database: DatabaseId, mailbox: query::Mailbox) -> api::Mailbox {
    api::Mailbox {
        mailbox_id: mailbox.id.to_string(),
        database_id: database.0,
        addresses: mailbox.addresses,
        highest_modseq: mailbox.highest_modseq,
        used_bytes: mailbox.size_bytes,
        messages: mailbox.messages,
        create_time: Some(dag_api::convert::timestamp(mailbox.created)),
    }
}

pub(super) fn api_message(
    place: Place,
    message: Message,
    email: Option<Email>,
) -> api::MessageMeta {
    let mut meta = api::MessageMeta {
        uid: message.uid,
        email_id: email_id(place.mailbox, message.email_id),
        modseq: message.modseq,
        system_flags: message.system_flags,
        keywords: message.keywords,
        save_date: Some(dag_api::convert::timestamp(message.saved)),
        size: message.size,
        ..api::MessageMeta::default()
    };
    if let Some(email) = email {
        meta.internal_date = Some(dag_api::convert::timestamp(email.internal_date));
        meta.blake3 = email.digest.to_vec().into();
    }
    meta
}
