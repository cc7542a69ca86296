//! Ids and page tokens as front ends see them: text that they keep and give back, and never read.

use dag_api::{BadMessage, Problem, Reason};
use dag_types::MailboxId;

/// A folder's id on the wire.
pub fn folder_id(folder: u32) -> String {
    format!("f{folder}")
}

/// A folder's id from the wire; empty is `None`.
pub fn parse_folder_id(text: &str) -> Result<Option<u32>, BadMessage> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.strip_prefix('f').and_then(|digits| digits.parse().ok());
    let id = number.filter(|number| folder_id(*number) == text);
    id.map(Some).ok_or(BadMessage { field: "folder_id", wanted: "an id that a node gave out" })
}

/// A folder's id that must be there.
pub fn need_folder_id(text: &str) -> Result<u32, BadMessage> {
    let missing = BadMessage { field: "folder_id", wanted: "present" };
    parse_folder_id(text)?.ok_or(missing)
}

/// An email's id on the wire. Unique beyond its mailbox, because the mailbox stands in it.
pub fn email_id(mailbox: MailboxId, email: u64) -> String {
    format!("{mailbox}-{email}")
}

/// A thread's id on the wire: that of the email that began it.
pub fn thread_id(mailbox: MailboxId, thread: u64) -> String {
    format!("{mailbox}-t{thread}")
}

/// An email's id from the wire: the mailbox that it came to first, and its number there.
pub fn parse_email_id(text: &str) -> Result<(MailboxId, u64), BadMessage> {
    let parts = text
        .split_once('-')
        .and_then(|(mailbox, number)| Some((mailbox.parse().ok()?, number.parse().ok()?)));
    let id = parts.filter(|(mailbox, number)| email_id(*mailbox, *number) == text);
    id.ok_or(BadMessage { field: "email_id", wanted: "an id that a node gave out" })
}

/// A thread's id from the wire.
pub fn parse_thread_id(text: &str) -> Result<(MailboxId, u64), BadMessage> {
    let parts = text
        .split_once("-t")
        .and_then(|(mailbox, number)| Some((mailbox.parse().ok()?, number.parse().ok()?)));
    let id = parts.filter(|(mailbox, number)| thread_id(*mailbox, *number) == text);
    id.ok_or(BadMessage { field: "thread_id", wanted: "an id that a node gave out" })
}

/// Where a page ended: the last item's number, bound to the query it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken {
    query: String,
}

impl PageToken {
    /// For one query: the fields that must be the same in all its pages.
    pub fn of_query(fields: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for field in fields {
            hasher.update(&(field.len() as u64).to_le_bytes()).update(field.as_bytes());
        }
        Self { query: hasher.finalize().to_hex()[..16].to_owned() }
    }

    /// The token behind the last item of a page; none where it was the last page.
    pub fn write(&self, last: Option<impl std::fmt::Display>) -> String {
        last.map(|last| format!("{}-{last}", self.query)).unwrap_or_default()
    }

    /// Behind which item to go on; `None` for the first page.
    pub fn read<T: std::str::FromStr>(&self, token: &str) -> Result<Option<T>, Problem> {
        if token.is_empty() {
            return Ok(None);
        }
        let place = token.split_once('-').filter(|(query, _)| *query == self.query);
        let place = place.and_then(|(_, last)| last.parse().ok());
        place.map(Some).ok_or_else(|| {
            let text = "the page token belongs to another query; begin again without one";
            Problem::new(Reason::PageTokenInvalid, text).check("page_token")
        })
    }
}

/// How many items a page has.
pub fn page_size(asked: u32) -> usize {
    const DEFAULT: u32 = 100;
    let size = if asked == 0 { DEFAULT } else { asked.min(dag_api::limits::PAGE_MAX) };
    size as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_id_reads_back_and_nothing_else_does() {
        assert_eq!(parse_folder_id(&folder_id(7)), Ok(Some(7)));
        assert_eq!(parse_folder_id(""), Ok(None));
        for text in ["7", "f", "f07", "f+7", "F7", "f-1", "f4294967296", "f7 "] {
            assert!(parse_folder_id(text).is_err(), "{text}");
        }
        assert!(need_folder_id("").is_err());
    }

    #[test]
    fn ids_of_emails_and_threads_read_back_and_nothing_else_does() {
        let mailbox = MailboxId([0xab; 16]);
        assert_eq!(parse_email_id(&email_id(mailbox, 7)), Ok((mailbox, 7)));
        assert_eq!(parse_thread_id(&thread_id(mailbox, 7)), Ok((mailbox, 7)));
        for text in ["", "7", "ab-7", &format!("{mailbox}-07"), &format!("{mailbox}-x")] {
            assert!(parse_email_id(text).is_err() && parse_thread_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_page_token_belongs_to_its_query() {
        let query = PageToken::of_query(&["mailbox", "f1"]);
        let token = query.write(Some(42_u32));
        assert_eq!(query.read(&token), Ok(Some(42_u32)));
        assert_eq!(query.read::<u32>(""), Ok(None));
        assert_eq!(query.write(None::<u32>), "");
        let other = PageToken::of_query(&["mailbo", "xf1"]);
        for text in [token.as_str(), "x", "0123456789abcdef-1"] {
            let problem = other.read::<u32>(text).unwrap_err();
            assert_eq!(problem.reason, Reason::PageTokenInvalid, "{text}");
        }
    }

    #[test]
    fn a_page_is_never_larger_than_the_limit() {
        assert_eq!(page_size(0), 100);
        assert_eq!(page_size(7), 7);
        assert_eq!(page_size(u32::MAX), 1000);
    }
}
