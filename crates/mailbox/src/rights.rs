//! Rights on shared folders (RFC 4314): eleven letters as bits, and what they come to for somebody.
//!
//! The front end knows who a user is and which groups it belongs to; the store knows what they may
//! do, and checks it where it cannot be outrun: in `apply`. A command that names no actor comes from
//! the mailbox's owner or from whoever may do everything, and is not checked.

use alloc::string::String;

use crate::records::RightsTable;
use crate::response::{Reason, Rejection};

/// `l`: the folder is visible.
pub const LOOKUP: u32 = 1;
/// `r`: its messages can be read.
pub const READ: u32 = 1 << 1;
/// `s`: `\Seen` is kept.
pub const KEEP_SEEN: u32 = 1 << 2;
/// `w`: flags other than `\Seen` and `\Deleted` can be set.
pub const WRITE: u32 = 1 << 3;
/// `i`: messages can be put into it.
pub const INSERT: u32 = 1 << 4;
/// `p`: mail can be sent to it; for the front end.
pub const POST: u32 = 1 << 5;
/// `k`: folders can be made below it.
pub const CREATE: u32 = 1 << 6;
/// `x`: it can be deleted and renamed.
pub const DELETE_FOLDER: u32 = 1 << 7;
/// `t`: `\Deleted` can be set.
pub const DELETE_MESSAGES: u32 = 1 << 8;
/// `e`: messages can be expunged.
pub const EXPUNGE: u32 = 1 << 9;
/// `a`: rights can be given and taken.
pub const ADMINISTER: u32 = 1 << 10;
/// All of them.
pub const ALL: u32 = (1 << 11) - 1;

/// The letters of RFC 4314 2.1, by bit.
const LETTERS: &[u8; 11] = b"lrswipkxtea";
/// Whoever it is (RFC 4314 2).
const ANYONE: &str = "anyone";

/// Reads letters, in any order. The obsolete `c` and `d` are the front end's matter.
pub fn parse(letters: &str) -> Result<u32, Rejection> {
    let mut bits = 0;
    for letter in letters.bytes() {
        let Some(bit) = LETTERS.iter().position(|known| *known == letter) else {
            return Err(Rejection::new(Reason::FieldInvalid).about("rights"));
        };
        bits |= 1 << bit;
    }
    Ok(bits)
}

/// The letters of some rights.
pub fn letters(bits: u32) -> String {
    let known = LETTERS.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
    known.map(|(_, letter)| char::from(*letter)).collect()
}

/// What somebody with these identifiers may do: what is given to any of them and to anyone, without
/// what is taken from any of them or from anyone (RFC 4314 2).
pub fn effective(table: &RightsTable, identifiers: &[String]) -> u32 {
    let concerns = |name: &str| name == ANYONE || identifiers.iter().any(|own| own == name);
    let (mut given, mut taken) = (0, 0);
    for entry in &table.entries {
        match entry.identifier.strip_prefix('-') {
            Some(name) if concerns(name) => taken |= entry.rights,
            None if concerns(&entry.identifier) => given |= entry.rights,
            _ => {}
        }
    }
    given & !taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::RightsEntry;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn table(entries: &[(&str, &str)]) -> RightsTable {
        let entry = |(identifier, rights): &(&str, &str)| RightsEntry {
            identifier: identifier.to_string(),
            rights: parse(rights).expect("rights"),
        };
        RightsTable { entries: entries.iter().map(entry).collect() }
    }

    fn of(entries: &[(&str, &str)], identifiers: &[&str]) -> String {
        let identifiers: Vec<String> = identifiers.iter().map(|name| name.to_string()).collect();
        letters(effective(&table(entries), &identifiers))
    }

    /// RFC 4314 2.1.
    #[test]
    fn the_eleven_rights_read_back_as_they_were_written() {
        assert_eq!(parse("lrswipkxtea"), Ok(ALL));
        assert_eq!(letters(ALL), "lrswipkxtea");
        assert_eq!(parse("ea").map(letters), Ok("ea".to_string()));
        assert_eq!(parse("lz").expect_err("z").reason(), Reason::FieldInvalid);
    }

    /// RFC 4314 2: what a user's groups have counts for the user.
    #[test]
    fn rights_of_all_identifiers_add_up() {
        let entries = [("anyone", "l"), ("ben", "rs"), ("staff", "i")];
        assert_eq!(of(&entries, &["ben", "staff"]), "lrsi");
        assert_eq!(of(&entries, &["carl"]), "l");
        assert_eq!(of(&entries, &[]), "l");
    }

    /// RFC 4314 2: "-fred" takes away what a group gives.
    #[test]
    fn negative_rights_win_over_positive_ones() {
        let entries = [("staff", "lrswi"), ("-ben", "wi")];
        assert_eq!(of(&entries, &["ben", "staff"]), "lrs");
        assert_eq!(of(&entries, &["carl", "staff"]), "lrswi");
    }
}
