//! From a section's name (RFC 9051 6.4.5) to the bytes that it means.

use std::ops::Range;

use dag_api::mailbox::v1::BodyPart;

/// Bytes of a message, and how they are encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Where they are in the message.
    pub range: Range<u64>,
    /// The part's Content-Transfer-Encoding, where the section is a part's body; empty else.
    pub encoding: String,
    /// The tree was cut above it: another reading of the message may know more.
    pub truncated: bool,
}

enum What {
    Body,
    Header,
    Text,
    Mime,
}

/// The bytes that a section's name means; none where the message has no such section.
pub fn find(message: &BodyPart, name: &str) -> Option<Section> {
    let (numbers, what) = read(name)?;
    let Some((part, is_message)) = walk(message, &numbers) else { return None };
    let whole =
        |range: Range<u64>| Section { range, encoding: String::new(), truncated: part.truncated };
    let found = match what {
        What::Body if numbers.is_empty() => whole(part.header_offset..part.end_offset),
        What::Body => Section {
            encoding: if part.parts.is_empty() { part.encoding.clone() } else { String::new() },
            ..whole(part.body_offset..part.end_offset)
        },
        What::Mime if numbers.is_empty() => return None,
        What::Mime => whole(part.header_offset..part.body_offset),
        What::Header | What::Text => {
            let of = if is_message { part } else { embedded(part)? };
            match what {
                What::Header => whole(of.header_offset..of.body_offset),
                _ => whole(of.body_offset..of.end_offset),
            }
        }
    };
    Some(found)
}

fn read(name: &str) -> Option<(Vec<usize>, What)> {
    let mut numbers = Vec::new();
    let mut what = What::Body;
    let mut pieces = name.split('.').peekable();
    if name.is_empty() {
        return Some((numbers, what));
    }
    while let Some(piece) = pieces.next() {
        match piece.parse::<u32>() {
            Ok(number) if number > 0 && piece.starts_with(|c: char| c.is_ascii_digit()) => {
                numbers.push(number as usize);
            }
            _ => {
                what = match piece.to_ascii_uppercase().as_str() {
                    "HEADER" => What::Header,
                    "TEXT" => What::Text,
                    "MIME" => What::Mime,
                    _ => return None,
                };
                return pieces.peek().is_none().then_some((numbers, what));
            }
        }
    }
    Some((numbers, what))
}

/// The part that the numbers lead to, and whether it is a message rather than a part of one.
fn walk<'t>(message: &'t BodyPart, numbers: &[usize]) -> Option<(&'t BodyPart, bool)> {
    let mut part = message;
    let mut is_message = true;
    for &number in numbers {
        if !is_message && let Some(inner) = embedded(part) {
            part = inner;
            is_message = true;
        }
        if part.r#type == "multipart" {
            part = part.parts.get(number - 1)?;
        } else if !is_message || number != 1 {
            return None;
        }
        is_message = false;
    }
    Some((part, is_message))
}

fn embedded(part: &BodyPart) -> Option<&BodyPart> {
    part.parts.first().filter(|_| part.r#type == "message")
}
