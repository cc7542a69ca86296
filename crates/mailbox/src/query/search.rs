//! Search on what the store knows of messages without reading bodies (RFC 9051 6.4.4, RFC 8514 4.3).
//!
//! A page looks at a bounded number of messages, and at fewer when the question is about contents,
//! which are records of their own. Words of the header are found by their hashes, which the proposer
//! computed; a hash of 8 bytes may stand for two words, so whoever needs to be exact looks again.

use alloc::string::String;
use alloc::vec::Vec;

use dag_types::MailboxId;

use super::messages::{keyword_table, message_of};
use super::{Message, MessageFilter, Page, need, read};
use crate::keys;
use crate::records::{EmailRecord, MessageRecord};
use crate::transaction::decode;
use crate::view::MailboxView;

/// Messages looked at for one page.
const MESSAGES_PER_PAGE: usize = 10_000;
/// Contents looked at for one page.
const EMAILS_PER_PAGE: usize = 1_000;
const ROWS_PER_SCAN: usize = 256;

/// What is searched for; all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Search {
    /// UIDs, MODSEQ, system flags.
    pub filter: MessageFilter,
    /// Keywords that it has, in lower case.
    pub with_keywords: Vec<String>,
    /// Keywords that it does not have, in lower case.
    pub without_keywords: Vec<String>,
    /// LARGER: bytes.
    pub larger_than: Option<u64>,
    /// SMALLER: bytes.
    pub smaller_than: Option<u64>,
    /// SAVEDSINCE: milliseconds since 1970.
    pub saved_since_ms: Option<u64>,
    /// SAVEDBEFORE: milliseconds since 1970.
    pub saved_before_ms: Option<u64>,
    /// SINCE: INTERNALDATE, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// BEFORE: INTERNALDATE, milliseconds since 1970.
    pub before_ms: Option<u64>,
    /// EMAILID (RFC 8474 6).
    pub email_id: Option<u64>,
    /// THREADID (RFC 8474 6).
    pub thread_id: Option<u64>,
    /// The `Message-ID` field, whole.
    pub message_id: Option<String>,
    /// Hashes of words of the header, all of which it has.
    pub header_tokens: Vec<[u8; 8]>,
}

impl Search {
    /// Whether the content must be read to answer.
    fn is_about_contents(&self) -> bool {
        self.since_ms.is_some()
            || self.before_ms.is_some()
            || self.thread_id.is_some()
            || self.message_id.is_some()
            || !self.header_tokens.is_empty()
    }

    fn matches_message(&self, uid: u32, record: &MessageRecord, with: u128, without: u128) -> bool {
        let keywords = record.keywords();
        self.filter.matches(uid, record)
            && keywords & with == with
            && keywords & without == 0
            && self.larger_than.is_none_or(|bound| record.size > bound)
            && self.smaller_than.is_none_or(|bound| record.size < bound)
            && self.saved_since_ms.is_none_or(|bound| record.saved_ms >= bound)
            && self.saved_before_ms.is_none_or(|bound| record.saved_ms < bound)
            && self.email_id.is_none_or(|id| record.email == id)
    }

    fn matches_email(&self, id: u64, email: &EmailRecord) -> bool {
        let thread = if email.thread == 0 { id } else { email.thread };
        let (tokens, _) = email.header_tokens.as_chunks::<8>();
        self.since_ms.is_none_or(|bound| email.internal_date_ms >= bound)
            && self.before_ms.is_none_or(|bound| email.internal_date_ms < bound)
            && self.thread_id.is_none_or(|wanted| thread == wanted)
            && self.message_id.as_ref().is_none_or(|wanted| email.message_id == *wanted)
            && self.header_tokens.iter().all(|token| tokens.binary_search(token).is_ok())
    }
}

/// A page of the messages of a folder that match, by UID.
pub fn search_messages<V: MailboxView>(
    view: &V,
    mailbox: MailboxId,
    folder: u32,
    search: &Search,
    after: Option<u32>,
    limit: usize,
) -> Result<Page<Message, u32>, V::Error> {
    let keywords = keyword_table(view, mailbox, folder)?;
    let known = |name: &String| keywords.names.contains(name);
    if !search.with_keywords.iter().all(known) {
        return Ok(Page { items: Vec::new(), next: None });
    }
    let with = keywords.known_bits(&search.with_keywords);
    let without = keywords.known_bits(&search.without_keywords);
    let (first, last) = search.filter.bounds();
    let first = after.map_or(Some(first), |uid| uid.checked_add(1).map(|next| next.max(first)));
    let Some(first) = first else {
        return Ok(Page { items: Vec::new(), next: None });
    };
    let mut from = keys::message(mailbox, folder, first);
    let to = keys::after(&keys::message(mailbox, folder, last));
    let (mut items, mut messages, mut emails) = (Vec::new(), 0, 0);
    loop {
        let rows = view.scan(&from, &to, ROWS_PER_SCAN)?;
        let full = rows.len() == ROWS_PER_SCAN;
        for (key, value) in rows {
            let uid = keys::last_u32(&key);
            let record: MessageRecord = decode(&key, &value)?;
            messages += 1;
            let mut matches = search.matches_message(uid, &record, with, without);
            if matches && search.is_about_contents() {
                emails += 1;
                let email_key = keys::email(mailbox, record.email);
                let email = need(&email_key, read(view, &email_key)?)?;
                matches = search.matches_email(record.email, &email);
            }
            if matches {
                items.push(message_of(uid, &record, &keywords));
            }
            let is_enough = messages >= MESSAGES_PER_PAGE || emails >= EMAILS_PER_PAGE;
            if items.len() >= limit || is_enough {
                return Ok(Page { items, next: Some(uid) });
            }
            from = keys::after(&key);
        }
        if !full {
            return Ok(Page { items, next: None });
        }
    }
}
