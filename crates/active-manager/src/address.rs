//! Which addresses are the same mailbox.
//!
//! RFC 5321 section 2.4 makes the domain case-insensitive and leaves the local part to the host
//! that it names. We are that host, and we fold it too: nobody means two mailboxes by `Ann@` and
//! `ann@`. Only ASCII letters are folded, because that table never changes: what two versions of
//! this program fold differently would give two copies of the directory different keys.
//!
//! No dots or `+` tags are dropped: that is a policy of front ends, not an identity.

use alloc::string::String;

use thiserror::Error;

/// Octets that the part before the `@` may have (RFC 5321 section 4.5.3.1.1).
pub const LOCAL_BYTES_MAX: usize = 64;
/// Octets that the domain may have (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Error {
    /// There is no `@` in it.
    #[error("an address needs a local part, '@' and a domain")]
    NoAt,
    /// Nothing before or behind the `@`.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// Longer than mail can carry.
    #[error("the {part} has {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// Local part or domain.
        part: &'static str,
        /// As it is.
        bytes: usize,
        /// As it may be.
        max: usize,
    },
    /// Characters that only a quoted local part could have; those are not supported.
    #[error("the {0} has a space, a control character, a quote or one of ()<>[]:;,\\")]
    Character(&'static str),
    /// Dots at the edge or side by side.
    #[error("the {0} has a dot at its edge, or two side by side")]
    Dots(&'static str),
}

/// An address in the form in which two equal ones are the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(String);

impl Address {
    /// Checks and folds an address as people write it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (local, domain) = text.rsplit_once('@').ok_or(Error::NoAt)?;
        check("local part", local, LOCAL_BYTES_MAX)?;
        check("domain", domain, DOMAIN_BYTES_MAX)?;
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The folded form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(part: &'static str, text: &str, max: usize) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::Empty(part));
    }
    if text.len() > max {
        return Err(Error::TooLong { part, bytes: text.len(), max });
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || "\"()<>[]:;,\\@".contains(c)) {
        return Err(Error::Character(part));
    }
    if text.split('.').any(str::is_empty) {
        return Err(Error::Dots(part));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_both_parts_are_folded_and_nothing_else() {
        for (text, folded) in [
            ("Ann@Example.ORG", "ann@example.org"),
            ("a.b+Tag@x", "a.b+tag@x"),
            ("ÄRGER@Bücher.example", "Ärger@bücher.example"),
        ] {
            assert_eq!(Address::parse(text).unwrap().as_str(), folded);
        }
    }

    #[test]
    fn what_mail_cannot_carry_is_no_address() {
        let long = "x".repeat(65) + "@example.org";
        for (text, error) in [
            ("", Error::NoAt),
            ("postmaster", Error::NoAt),
            ("@example.org", Error::Empty("local part")),
            ("ann@", Error::Empty("domain")),
            ("a b@example.org", Error::Character("local part")),
            ("a@b@c", Error::Character("local part")),
            ("ann@exam\nple", Error::Character("domain")),
            ("\"ann\"@example.org", Error::Character("local part")),
            (".ann@example.org", Error::Dots("local part")),
            ("ann@example..org", Error::Dots("domain")),
            (&long, Error::TooLong { part: "local part", bytes: 65, max: 64 }),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text}");
        }
    }
}
