//! What makes two messages one conversation: a message id that both are or refer to, and the same
//! base subject (RFC 8621 3). A new subject begins a new conversation, even in an answer.

use dag_api::mailbox::v1::Envelope;

use crate::limits;

/// Keys that messages of one conversation share; ascending, each once.
pub(crate) fn keys(envelope: &Envelope) -> Vec<[u8; 16]> {
    let subject = base_subject(&envelope.subject);
    let own = Some(&envelope.message_id).filter(|id| !id.is_empty());
    // The first reference began it, the last ones are nearest.
    let first = envelope.references.first();
    let last = envelope.references.iter().rev().take(limits::THREAD_KEYS - 4);
    let replied = envelope.in_reply_to.iter().take(2);
    let ids = own.into_iter().chain(first).chain(replied).chain(last);
    let mut keys: Vec<[u8; 16]> =
        ids.take(limits::THREAD_KEYS).map(|id| key(&subject, id)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn key(subject: &str, id: &str) -> [u8; 16] {
    let hash = blake3::hash(&[subject.as_bytes(), &[0], id.as_bytes()].concat());
    core::array::from_fn(|at| hash.as_bytes()[at])
}

/// The subject without what answers and forwards add to it (RFC 5256 2.1), in lower case.
fn base_subject(subject: &str) -> String {
    let words: Vec<String> = subject.split_whitespace().map(str::to_lowercase).collect();
    let whole = words.join(" ");
    let mut base = whole.as_str();
    loop {
        let before = base;
        base = base.trim();
        base = base.strip_suffix("(fwd)").unwrap_or(base);
        base = without_prefix(base);
        base = base.strip_prefix("[fwd:").and_then(|rest| rest.strip_suffix(']')).unwrap_or(base);
        base = without_blob(base);
        if base == before {
            return base.to_owned();
        }
    }
}

/// Without `re:`, `fw:`, `fwd:`, and the same with a blob such as `re[2]:`.
fn without_prefix(subject: &str) -> &str {
    for name in ["re", "fwd", "fw"] {
        let Some(rest) = subject.strip_prefix(name) else { continue };
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((_, after)) => after.trim_start(),
            None => rest,
        };
        if let Some(rest) = rest.strip_prefix(':') {
            return rest;
        }
    }
    subject
}

/// Without a list's name in brackets, unless nothing would be left.
fn without_blob(subject: &str) -> &str {
    let after = subject.strip_prefix('[').and_then(|inner| inner.split_once(']'));
    after.map(|(_, rest)| rest).filter(|rest| !rest.trim().is_empty()).unwrap_or(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_forwards_have_the_base_subject_of_what_they_answer() {
        for subject in [
            "Plan",
            "Re: Plan",
            "RE: re:  plan",
            "Fwd: [team] Plan",
            "Re[2]: plan (fwd)",
            "[Fwd: Re: Plan]",
        ] {
            assert_eq!(base_subject(subject), "plan", "{subject}");
        }
        assert_eq!(base_subject("[team]"), "[team]");
        assert_eq!(base_subject("Reply"), "reply");
    }

    fn envelope(subject: &str, id: &str, references: &[&str]) -> Envelope {
        Envelope {
            subject: subject.into(),
            message_id: id.into(),
            references: references.iter().map(|id| (*id).into()).collect(),
            ..Envelope::default()
        }
    }

    /// RFC 8621 3.
    #[test]
    fn an_answer_shares_a_key_and_a_new_subject_does_not() {
        let first = keys(&envelope("Plan", "a@x", &[]));
        let answer = keys(&envelope("Re: Plan", "b@x", &["a@x"]));
        let other = keys(&envelope("Lunch", "c@x", &["a@x"]));
        assert!(answer.iter().any(|key| first.contains(key)));
        assert!(!other.iter().any(|key| first.contains(key)));
    }

    #[test]
    fn keys_are_bounded_and_ascending() {
        let many: Vec<String> = (0..1000).map(|n| format!("{n}@x")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let keys = keys(&envelope("s", "own@x", &many));
        assert!(keys.len() <= limits::THREAD_KEYS && keys.is_sorted_by(|a, b| a < b));
        assert!(super::keys(&envelope("s", "", &[])).is_empty());
    }
}
