//! The first words of a message's text (RFC 8970).

use dag_api::mailbox::v1::BodyPart;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::html::html_to_text;

use crate::limits;
use crate::transfer;

/// Bytes of the part that are looked at.
const READ_BYTES: usize = 16 << 10;
/// Bytes of a plain text that are looked at first: mostly more than enough.
const FIRST_BYTES: usize = 512;

pub(crate) fn of(message: &[u8], body: &BodyPart) -> String {
    let plain = first_text(body, "plain");
    let Some(part) = plain.or_else(|| first_text(body, "html")) else { return String::new() };
    let bytes = &message[part.body_offset as usize..part.end_offset as usize];
    if part.subtype != "html" && bytes.len() > FIRST_BYTES {
        let text = decoded(part, &bytes[..FIRST_BYTES]);
        // The cut may have gone through a letter or a line: what lies before its last line did not
        // see it.
        let whole_lines = &text[..text.rfind('\n').unwrap_or(0)];
        let preview = shortened(whole_lines);
        if preview.chars().count() + 1 >= limits::PREVIEW_CHARACTERS {
            return preview;
        }
    }
    let text = decoded(part, &bytes[..bytes.len().min(READ_BYTES)]);
    shortened(&if part.subtype == "html" { html_to_text(&text) } else { text })
}

fn decoded(part: &BodyPart, bytes: &[u8]) -> String {
    in_unicode(part, &transfer::decode(&part.encoding, bytes).unwrap_or_default())
}

/// The first text of this kind that is no attachment.
fn first_text<'t>(part: &'t BodyPart, subtype: &str) -> Option<&'t BodyPart> {
    if part.r#type == "text" && part.subtype == subtype && part.disposition != "attachment" {
        return Some(part);
    }
    let is_looked_into = part.r#type == "multipart";
    let parts = part.parts.iter().filter(|_| is_looked_into);
    parts.into_iter().find_map(|part| first_text(part, subtype))
}

fn in_unicode(part: &BodyPart, bytes: &[u8]) -> String {
    let charset = part.parameters.iter().find(|parameter| parameter.name == "charset");
    let charset = charset.map(|charset| charset.value.to_ascii_lowercase()).unwrap_or_default();
    let decoder = charset_decoder(charset.as_bytes());
    match decoder {
        Some(decode) if !(bytes.is_ascii() && extends_ascii(&charset)) => decode(bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Whether ASCII's bytes mean in this charset what they mean in ASCII, so that most mails need not be
/// decoded letter by letter.
fn extends_ascii(charset: &str) -> bool {
    matches!(charset, "us-ascii" | "utf-8")
        || charset.starts_with("iso-8859-")
        || charset.starts_with("windows-125")
}

/// Words with one space between them; quoted lines say what the reader knows, so they are left out.
fn shortened(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('>'));
    let words = lines.flat_map(str::split_whitespace);
    let mut preview = String::new();
    let mut left = limits::PREVIEW_CHARACTERS;
    for word in words {
        if left == 0 {
            break;
        }
        if !preview.is_empty() {
            preview.push(' ');
            left -= 1;
        }
        let kept = word.chars().filter(|letter| !letter.is_control()).take(left);
        let before = preview.chars().count();
        preview.extend(kept);
        left -= preview.chars().count() - before;
    }
    preview.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::structure;

    /// What `of` would say if it looked at everything at once.
    fn at_once(message: &[u8]) -> String {
        let tree = structure(message);
        let body = &message[tree.body_offset as usize..];
        shortened(&decoded(&tree, &body[..body.len().min(READ_BYTES)]))
    }

    proptest! {
        #[test]
        fn a_short_look_finds_what_a_long_one_does(
            words in proptest::collection::vec("[a-zü=>\u{1}]{1,60}", 1..120),
            ends in proptest::collection::vec(0..4_usize, 120),
            encoding in prop::sample::select(vec!["8bit", "quoted-printable", "base64"]),
        ) {
            let kind = "Content-Type: text/plain; charset=utf-8";
            let mut message =
                format!("{kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n").into_bytes();
            for (word, end) in words.iter().zip(ends) {
                message.extend_from_slice(word.as_bytes());
                message.extend_from_slice([" ", "\r\n", "\r\n> ", "=\r\n"][end].as_bytes());
            }
            prop_assert_eq!(of(&message, &structure(&message)), at_once(&message));
        }
    }
}
