//! A mailbox database as it lies in a state that nobody changes: what is read out of a snapshot.
//! The same rows, read by the same code as those of a running copy.

use bytes::Bytes;
use dag_api::mailbox::v1 as api;
use dag_types::{DatabaseId, MailboxId};
use mailbox::query::{self, MessageFilter, Page};

use super::folder::api_folder;
use super::list::api_mailbox;
use super::meta::{api_message, describe};
use super::{Place, fetch};
use crate::machine::{ReadFault, View};

/// Rows of a page of what is read to its end.
const PAGE: usize = 1_000;

/// A page of mailboxes with their addresses, without those that were deleted.
pub(crate) fn mailboxes(
    view: View<'_>,
    database: DatabaseId,
    after: Option<MailboxId>,
    size: usize,
) -> Result<Page<api::Mailbox, MailboxId>, ReadFault> {
    let page = query::list_mailboxes(&view, after, size)?;
    let mut items = Vec::with_capacity(page.items.len());
    for known in page.items.iter().filter(|known| known.deleted.is_none()) {
        let found = query::get_mailbox(&view, known.id)?;
        items.extend(found.map(|mailbox| api_mailbox(database, mailbox)));
    }
    Ok(Page { items, next: page.next })
}

/// The mailbox with this address or this id.
pub(crate) fn mailbox(
    view: View<'_>,
    database: DatabaseId,
    name: &str,
) -> Result<Option<api::Mailbox>, ReadFault> {
    let wanted = name.to_ascii_lowercase();
    let mut after = None;
    loop {
        let page = mailboxes(view, database, after, PAGE)?;
        let is_it = |mailbox: &api::Mailbox| {
            mailbox.mailbox_id == wanted || mailbox.addresses.contains(&wanted)
        };
        if let Some(found) = page.items.into_iter().find(is_it) {
            return Ok(Some(found));
        }
        if page.next.is_none() {
            return Ok(None);
        }
        after = page.next;
    }
}

/// All folders of a mailbox.
pub(crate) fn folders(view: View<'_>, mailbox: MailboxId) -> Result<Vec<api::Folder>, ReadFault> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = query::list_folders(&view, mailbox, after, PAGE)?;
        all.extend(page.items.into_iter().map(api_folder));
        if page.next.is_none() {
            return Ok(all);
        }
        after = page.next;
    }
}

/// A page of a folder's messages; none where there is no such folder.
pub(crate) fn messages(
    view: View<'_>,
    database: DatabaseId,
    (mailbox, folder): (MailboxId, u32),
    after: Option<u32>,
    size: usize,
) -> Result<Option<Page<api::MessageMeta, u32>>, ReadFault> {
    if query::get_folder(&view, mailbox, folder)?.is_none() {
        return Ok(None);
    }
    let (place, wanted) = (Place { database, mailbox }, api::MessageView::Basic);
    let filter = MessageFilter::default();
    let page = query::list_messages(&view, mailbox, folder, &filter, after, size)?;
    let described = describe(view, place, page.items, wanted)?;
    let items = described.into_iter().map(|message| api_message(place, message, wanted)).collect();
    Ok(Some(Page { items, next: page.next }))
}

/// A message with its content, which is what was stored or a fault.
pub(crate) fn message(
    view: View<'_>,
    database: DatabaseId,
    (mailbox, folder): (MailboxId, u32),
    uid: u32,
) -> Result<Option<(api::MessageMeta, Bytes)>, ReadFault> {
    let Some(message) = query::get_message(&view, mailbox, folder, uid)? else { return Ok(None) };
    let Some(email) = query::get_email(&view, mailbox, message.email_id)? else {
        return Err(fetch::damaged("an email is not there"));
    };
    let content = fetch::read_body(view, &email, &query::body_rows(&view, &email)?)?;
    if *blake3::hash(&content).as_bytes() != email.digest {
        return Err(fetch::damaged("a body is not the one of its digest"));
    }
    let place = Place { database, mailbox };
    let meta = api_message(place, (message, Some(email)), api::MessageView::Basic);
    Ok(Some((meta, content)))
}
