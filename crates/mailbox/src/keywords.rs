//! Keywords: names that users give to flags of their own, and the bits they are stored as.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::limits;
use crate::records::KeywordTable;
use crate::response::{Reason, Rejection};

/// A keyword in the form it is stored and compared in: ASCII lower case.
///
/// RFC 9051 9: a `flag-keyword` is an atom, so `\Anything` is none.
pub fn normalise(keyword: &str) -> Result<String, Rejection> {
    limits::KEYWORD_BYTES.check(keyword.len())?;
    if keyword.is_empty() || !keyword.bytes().all(is_atom_char) {
        return Err(Rejection::new(Reason::KeywordInvalid).about(keyword.to_string()));
    }
    Ok(keyword.to_ascii_lowercase())
}

fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(&byte)
}

/// Normalises all, or refuses the first that is none.
pub(crate) fn normalise_all(keywords: &[String]) -> Result<Vec<String>, Rejection> {
    limits::KEYWORDS_PER_FOLDER.check(keywords.len())?;
    keywords.iter().map(|keyword| normalise(keyword)).collect()
}

impl KeywordTable {
    /// The bits of those keywords that the folder knows.
    pub(crate) fn known_bits(&self, keywords: &[String]) -> u128 {
        keywords
            .iter()
            .filter_map(|keyword| self.names.iter().position(|name| name == keyword))
            .fold(0, |bits, position| bits | 1 << position)
    }

    /// The bits of these keywords; new ones are added to the table.
    pub(crate) fn bits(&mut self, keywords: Vec<String>) -> Result<u128, Rejection> {
        let mut bits = 0;
        for keyword in keywords {
            let position = match self.names.iter().position(|name| *name == keyword) {
                Some(position) => position,
                None => {
                    limits::KEYWORDS_PER_FOLDER.check(self.names.len() + 1)?;
                    self.names.push(keyword);
                    self.names.len() - 1
                }
            };
            bits |= 1 << position;
        }
        Ok(bits)
    }

    /// The keywords of a message, in the order of the table.
    pub fn names_of(&self, bits: u128) -> Vec<String> {
        let names = self.names.iter().enumerate();
        names.filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    /// RFC 9051 2.3.2: keywords are not case-sensitive.
    #[test]
    fn keywords_are_the_same_in_any_case() {
        assert_eq!(normalise("$Forwarded"), normalise("$FORWARDED"));
    }

    /// RFC 9051 9, `atom-specials`.
    #[test]
    fn what_is_no_atom_is_no_keyword() {
        for keyword in
            ["", "\\Seen", "a b", "a(b", "a)", "{", "50%", "*", "\"", "]", "ä", "\u{7f}", "a\n"]
        {
            let refused = normalise(keyword).expect_err(keyword);
            assert_eq!(refused.reason(), Reason::KeywordInvalid, "{keyword}");
        }
    }

    #[test]
    fn a_folder_knows_128_keywords_and_no_more() {
        let mut table = KeywordTable::default();
        let all: Vec<String> = (0..128).map(|number| format!("k{number}")).collect();
        assert_eq!(table.bits(all), Ok(u128::MAX));
        let refused = table.bits(vec!["one-more".to_string()]).expect_err("full");
        assert_eq!((refused.value, refused.limit), (129, 128));
        assert_eq!(table.bits(vec!["k7".to_string()]), Ok(1 << 7));
    }

    #[test]
    fn bits_read_back_as_the_names_they_came_from() {
        let mut table = KeywordTable::default();
        let bits = table.bits(vec!["b".to_string(), "a".to_string()]).expect("room");
        assert_eq!(table.names_of(bits), ["b", "a"]);
        assert_eq!(table.known_bits(&["a".to_string(), "unknown".to_string()]), 0b10);
    }
}
