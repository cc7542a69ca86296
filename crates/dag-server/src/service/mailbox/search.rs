//! Messages by what the store knows of them.

use dag_api::mailbox::v1 as api;
use dag_api::{BadMessage, Problem, Reason};
use mailbox::query::{self, MessageFilter, Search};
use prost::Message as _;
use tokio::time::Instant;

use super::list::{Listed, check_ranges, ranges};
use super::meta::{api_message, describe, readable};
use super::{MailboxServer, Place, Seen};
use crate::service::text::{PageToken, need_folder_id, page_size, parse_email_id, parse_thread_id};

/// Keywords, and words of the header, of one search.
const WORDS_MAX: usize = 64;

impl MailboxServer {
    pub(super) async fn search(
        &self,
        request: api::SearchMessagesRequest,
        deadline: Instant,
    ) -> Result<api::SearchMessagesResponse, Problem> {
        let place = self.database_of(request.mailbox.as_ref())?;
        let (actor, wanted) = (super::actor(request.mailbox.as_ref()), request.view());
        let folder = need_folder_id(&request.folder_id)?;
        let criteria = request.criteria.unwrap_or_default();
        let search = search_of(place, &criteria)?;
        let asked = blake3::hash(&criteria.encode_to_vec()).to_hex();
        let mailbox = place.mailbox.to_string();
        let page = PageToken::of_query(&["search", &mailbox, &request.folder_id, &asked]);
        let (after, size) = (page.read(&request.page_token)?, page_size(request.page_size));
        let expected = request.expected_uid_validity;
        let read = self.read(place.database, request.read.as_ref(), deadline, move |view| {
            let folder = match readable(view, place, folder, &actor, expected)? {
                Ok(folder) => folder,
                Err(problem) => return Ok(Err(problem)),
            };
            let Some(search) = search else {
                return Ok(Ok(Listed { folder, messages: Vec::new(), next: None }));
            };
            let found =
                query::search_messages(&view, place.mailbox, folder.id, &search, after, size)?;
            let messages = describe(view, place, found.items, wanted)?;
            Ok(Ok(Listed { folder, messages, next: found.next }))
        });
        let Seen { value: found, token, staleness } = read.await?;
        let meta = |described| api_message(place, described, wanted);
        Ok(api::SearchMessagesResponse {
            messages: found.messages.into_iter().map(meta).collect(),
            next_page_token: page.write(found.next),
            uid_validity: found.folder.uid_validity,
            highest_modseq: found.folder.highest_modseq,
            token,
            staleness,
        })
    }
}

/// As the core searches; none where nothing can match.
fn search_of(place: Place, wanted: &api::SearchCriteria) -> Result<Option<Search>, Problem> {
    let uids = wanted.uids.clone().unwrap_or_default();
    check_ranges(&uids)?;
    let keywords = wanted.with_keywords.len() + wanted.without_keywords.len();
    check_words("keywords", keywords)?;
    check_words("header", wanted.header.len())?;
    let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let mut search = Search {
        filter: MessageFilter {
            uids: ranges(&uids),
            changed_since: wanted.changed_since,
            with_flags: wanted.with_flags,
            without_flags: wanted.without_flags,
        },
        with_keywords: lower(&wanted.with_keywords),
        without_keywords: lower(&wanted.without_keywords),
        larger_than: wanted.larger_than,
        smaller_than: wanted.smaller_than,
        saved_since_ms: millis(wanted.saved_since.as_ref())?,
        saved_before_ms: millis(wanted.saved_before.as_ref())?,
        since_ms: millis(wanted.since.as_ref())?,
        before_ms: millis(wanted.before.as_ref())?,
        message_id: Some(wanted.message_id.clone()).filter(|id| !id.is_empty()),
        ..Search::default()
    };
    for words in &wanted.header {
        let bad = BadMessage { field: "header", wanted: "words of subject, from, to or cc" };
        search.header_tokens.extend(mail_mime::tokens_of(&words.field, &words.text).ok_or(bad)?);
    }
    check_words("header", search.header_tokens.len())?;
    if !wanted.email_id.is_empty() {
        let (mailbox, number) = parse_email_id(&wanted.email_id)?;
        search.email_id = Some(number);
        if mailbox != place.mailbox {
            return Ok(None);
        }
    }
    if !wanted.thread_id.is_empty() {
        let (mailbox, number) = parse_thread_id(&wanted.thread_id)?;
        search.thread_id = Some(number);
        if mailbox != place.mailbox {
            return Ok(None);
        }
    }
    Ok(Some(search))
}

fn check_words(check: &'static str, value: usize) -> Result<(), Problem> {
    if value <= WORDS_MAX {
        return Ok(());
    }
    let text = format!("a search has {value} {check} and may have {WORDS_MAX}");
    let problem = Problem::new(Reason::LimitExceeded, text);
    Err(problem.check(check).limit(value as u64, WORDS_MAX as u64))
}

fn millis(at: Option<&prost_types::Timestamp>) -> Result<Option<u64>, BadMessage> {
    at.map(|at| dag_api::convert::millis(at).map(|millis| millis.0)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dag_types::{DatabaseId, MailboxId};

    const PLACE: Place = Place { database: DatabaseId(16), mailbox: MailboxId([1; 16]) };

    fn refused(wanted: &api::SearchCriteria) -> Option<String> {
        search_of(PLACE, wanted).err().and_then(|problem| problem.facts.check)
    }

    #[test]
    fn a_search_that_makes_no_sense_is_refused_by_field() {
        let words = |field: &str, text: &str| api::SearchCriteria {
            header: vec![api::HeaderWords { field: field.into(), text: text.into() }],
            ..Default::default()
        };
        assert_eq!(refused(&words("subject", "a b")), None);
        assert_eq!(refused(&words("x-spam", "a")).as_deref(), Some("header"));
        assert_eq!(refused(&words("to", &"a ".repeat(65))).as_deref(), Some("header"));
        let email = api::SearchCriteria { email_id: "7".into(), ..Default::default() };
        assert_eq!(refused(&email).as_deref(), Some("email_id"));
        let keywords =
            api::SearchCriteria { with_keywords: vec!["a".into(); 65], ..Default::default() };
        assert_eq!(refused(&keywords).as_deref(), Some("keywords"));
    }

    #[test]
    fn an_email_of_another_mailbox_is_found_nowhere() {
        let id = crate::service::text::email_id(MailboxId([2; 16]), 7);
        let wanted = api::SearchCriteria { email_id: id, ..Default::default() };
        assert_eq!(search_of(PLACE, &wanted).expect("an id"), None);
    }
}
