//! Words of the header, as hashes that can be searched for.
//!
//! A word is letters and digits in a row, in lower case. Its hash is taken together with the field's
//! name, so that a word of the subject does not find a sender.

use dag_api::mailbox::v1::{EmailAddress, Envelope};

use crate::limits;

/// The fields whose words can be searched for.
pub const FIELDS: [&str; 4] = ["subject", "from", "to", "cc"];

/// The hashes of all words of a text, as a search of one field needs them. None for a field whose
/// words are not kept.
pub fn tokens_of(field: &str, text: &str) -> Option<Vec<[u8; 8]>> {
    let field = FIELDS.into_iter().find(|known| known.eq_ignore_ascii_case(field))?;
    Some(words(text).map(|word| token(field, &word)).collect())
}

/// Of a whole header; ascending, each once.
pub(crate) fn tokens(envelope: &Envelope) -> Vec<[u8; 8]> {
    let mut found = Vec::new();
    found.extend(words(&envelope.subject).map(|word| token("subject", &word)));
    let lists = [("from", &envelope.from), ("to", &envelope.to), ("cc", &envelope.cc)];
    for (field, list) in lists {
        for EmailAddress { name, address, .. } in list {
            found.extend(words(name).chain(words(address)).map(|word| token(field, &word)));
        }
    }
    let mut kept: Vec<[u8; 8]> = Vec::new();
    for token in found {
        if kept.len() == limits::WORDS {
            break;
        }
        if !kept.contains(&token) {
            kept.push(token);
        }
    }
    kept.sort_unstable();
    kept
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn token(field: &str, word: &str) -> [u8; 8] {
    let hash = blake3::hash(&[field.as_bytes(), &[0], word.as_bytes()].concat());
    core::array::from_fn(|at| hash.as_bytes()[at])
}
