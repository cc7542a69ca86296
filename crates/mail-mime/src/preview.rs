//! The first words of a message's text (RFC 8970).

use dag_api::mailbox::v1::BodyPart;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::html::html_to_text;

use crate::limits;
use crate::transfer;

/// Bytes of the part that are looked at.
const READ_BYTES: usize = 16 << 10;

pub(crate) fn of(message: &[u8], body: &BodyPart) -> String {
    let plain = first_text(body, "plain");
    let Some(part) = plain.or_else(|| first_text(body, "html")) else { return String::new() };
    let begin = part.body_offset as usize;
    let bytes = &message[begin..(part.end_offset as usize).min(begin + READ_BYTES)];
    let bytes = transfer::decode(&part.encoding, bytes).unwrap_or_default();
    let text = in_unicode(part, &bytes);
    let text = if part.subtype == "html" { html_to_text(&text) } else { text };
    shortened(&text)
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
    let decoder = charset.and_then(|charset| charset_decoder(charset.value.as_bytes()));
    match decoder {
        Some(decode) => decode(bytes),
        None => String::from_utf8_lossy(bytes).into_owned(),
    }
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
