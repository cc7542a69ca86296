//! A mailbox, and the messages of a folder without their content.

use dag_api::mailbox::v1 as api;
use dag_api::{Problem, Reason};
use dag_types::DatabaseId;
use mailbox::command::UidRange;
use mailbox::limits::UID_RANGES_PER_COMMAND;
use mailbox::query::{self, Folder, MessageFilter};
use tokio::time::Instant;

use super::meta::{Described, api_message, describe, readable};
use super::settings::api_settings;
use super::{MailboxServer, Seen, live_mailbox};
use crate::service::text::{PageToken, need_folder_id, page_size};

/// A page of messages, with the folder they are in.
pub(super) struct Listed {
    pub(super) folder: Folder,
    pub(super) messages: Vec<Described>,
    pub(super) next: Option<u32>,
}

impl MailboxServer {
    pub(super) async fn mailbox(
        &self,
        request: api::GetMailboxRequest,
        deadline: Instant,
    ) -> Result<api::GetMailboxResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            live_mailbox(view, place)
        });
        let Seen { value, token, staleness } = read.await?;
        let mailbox = Some(api_mailbox(place.database, value));
        Ok(api::GetMailboxResponse { mailbox, token, staleness })
    }

    pub(super) async fn messages(
        &self,
        request: api::ListMessagesRequest,
        deadline: Instant,
    ) -> Result<api::ListMessagesResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let (actor, wanted) = (super::actor(request.mailbox.as_ref()), request.view());
        let folder = need_folder_id(&request.folder_id)?;
        let uids = request.uids.unwrap_or_default();
        check_ranges(&uids)?;
        let page = PageToken::of_query(&[
            "messages",
            &place.mailbox.to_string(),
            &request.folder_id,
            &format!("{:?}", uids.ranges),
            &request.changed_since.to_string(),
        ]);
        let (after, size) = (page.read(&request.page_token)?, page_size(request.page_size));
        let (expected, changed_since) = (request.expected_uid_validity, request.changed_since);
        let filter =
            MessageFilter { uids: ranges(&uids), changed_since, ..MessageFilter::default() };
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            let folder = match readable(view, place, folder, &actor, expected)? {
                Ok(folder) => folder,
                Err(problem) => return Ok(Err(problem)),
            };
            let page = query::list_messages(&view, place.mailbox, folder.id, &filter, after, size)?;
            let messages = describe(view, place, page.items, wanted)?;
            Ok(Ok(Listed { folder, messages, next: page.next }))
        });
        let Seen { value: found, token, staleness } = read.await?;
        let meta = |described| api_message(place, described, wanted);
        Ok(api::ListMessagesResponse {
            messages: found.messages.into_iter().map(meta).collect(),
            next_page_token: page.write(found.next),
            uid_validity: found.folder.uid_validity,
            uid_next: found.folder.uid_next,
            highest_modseq: found.folder.highest_modseq,
            token,
            staleness,
        })
    }
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

/// Every message that a read looks at is compared with every range.
pub(super) fn check_ranges(uids: &api::UidSet) -> Result<(), Problem> {
    uids.validate()?;
    let (value, limit) = (uids.ranges.len() as u64, UID_RANGES_PER_COMMAND.max);
    if value <= limit {
        return Ok(());
    }
    let text = format!("a set has {value} ranges and may have {limit}; ask for a part at a time");
    let problem = Problem::new(Reason::LimitExceeded, text);
    Err(problem.check(UID_RANGES_PER_COMMAND.name).limit(value, limit))
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
        settings: Some(api_settings(&mailbox.settings)),
        settings_modseq: mailbox.settings_modseq,
        folders: mailbox.folders,
        recoverable_items: mailbox.items,
        recoverable_bytes: mailbox.items_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_a_million_ranges_is_refused_with_value_and_limit() {
        let range = api::UidRange { first: 1, last: 2 };
        let many = api::UidSet { ranges: vec![range; 1_000_000] };
        let problem = check_ranges(&many).unwrap_err();
        assert_eq!((problem.facts.value, problem.facts.limit), (Some(1_000_000), Some(1_000)));
        assert!(check_ranges(&api::UidSet { ranges: vec![range; 1_000] }).is_ok());
        assert!(check_ranges(&api::UidSet::range(0, 1)).is_err());
    }
}
